/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What this device computes, in one hash: a small expert of each storage and activation over rows
 * of several kinds and counts.
 * Devices with equal values gave equal bits here, subnormals, ragged sizes and clamping included; a
 * device that sums in another order does not.
 */
#include "common/base/clock.h"
#include "common/base/digest.h"
#include "kernels/kernels.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { HIDDEN = 352, FFN = 104, ROWS = 29, EXPERTS = 4 };

struct probe {
	struct kn_queue *queue;
	struct kn_device *device;
	const struct kn_ops *ops;
	enum cad_weights weights;
	struct kn_expert experts[EXPERTS];
	size_t ldx, ldy, host_bytes, scratch_bytes;
	float *x, *y, *host; /* [ROWS][ldx], [ROWS][ldy], [ROWS][ldx or ldy] */
	void *scratch;
};

/* Any sign, exponents from 2^(low) to 2^(low + span - 1) */
static float draw(struct cad_random *random, int low, uint32_t span)
{
	uint32_t bits = (uint32_t)cad_random_next(random) & 0x807fffff,
		 exponent = (uint32_t)(127 + low) + (uint32_t)cad_random_below(random, span);
	float f;
	bits |= exponent << 23;
	memcpy(&f, &bits, sizeof f);
	return f;
}

/* bf16 or f32 [n][k], freed by the caller; NULL data when there is no memory */
static struct kn_source draw_source(struct cad_random *random, bool bf16, size_t n, size_t k)
{
	struct kn_source s = { .data = NULL, .dtype = bf16 ? CAD_DTYPE_BF16 : CAD_DTYPE_F32, .n = n, .k = k };
	uint8_t *data = malloc(n * k * (bf16 ? 2 : 4));

	for (size_t i = 0; data && i < n * k; i++) {
		float f = draw(random, -10, 8);
		memcpy(data + i * (bf16 ? 2 : 4), (uint8_t *)&f + (bf16 ? 2 : 0), bf16 ? 2 : 4);
	}
	s.data = data;
	return s;
}

/* Experts 0 and 2 are bf16; 2 and 3 are clamped, with biases. */
static enum cad_status expert_create(struct probe *p, struct cad_random *random, size_t e)
{
	bool bf16 = e % 2 == 0, clamped = e >= 2;
	struct cad_ffn_spec spec = {
		.size = FFN,
		.activation = clamped ? CAD_ACTIVATION_SWIGLU_CLAMPED : CAD_ACTIVATION_SILU,
		.limit = clamped ? 7.0f : 0.0f,
		.bias = clamped,
	};
	struct kn_expert_source source = {
		.gate = draw_source(random, bf16, FFN, HIDDEN),
		.up = draw_source(random, bf16, FFN, HIDDEN),
		.down = draw_source(random, bf16, HIDDEN, FFN),
		.spec = &spec,
	};
	bool complete = source.gate.data && source.up.data && source.down.data;

	if (clamped) {
		source.gate_bias = draw_source(random, bf16, FFN, 1);
		source.up_bias = draw_source(random, bf16, FFN, 1);
		source.down_bias = draw_source(random, bf16, HIDDEN, 1);
		complete = complete && source.gate_bias.data && source.up_bias.data && source.down_bias.data;
	}

	enum cad_status status =
		complete ? p->ops->expert_create(p->device, &source, p->weights, &p->experts[e]) : CAD_ERR_MEMORY;
	const struct kn_source *drawn[] = { &source.gate, &source.up, &source.down, &source.gate_bias, &source.up_bias,
		&source.down_bias };
	for (size_t i = 0; i < sizeof drawn / sizeof *drawn; i++)
		free((void *)drawn[i]->data);
	return status;
}

/* Rows of ordinary size, of many magnitudes, and around the smallest normal number, in turn */
static enum cad_status fill_rows(struct probe *p, struct cad_random *random)
{
	static const struct {
		int low;
		uint32_t span;
	} kinds[3] = { { -4, 6 }, { -40, 60 }, { -126, 8 } };

	for (size_t r = 0; r < ROWS; r++)
		for (size_t i = 0; i < HIDDEN; i++)
			p->host[r * p->ldx + i] = draw(random, kinds[r % 3].low, kinds[r % 3].span);
	p->ops->copy_in(p->queue, p->x, p->host, ROWS * p->ldx * sizeof *p->host);
	return p->ops->wait(p->queue);
}

/* Every way to split the rows over the experts that is tried is added to the hash. */
static enum cad_status run_probe(struct probe *p, XXH3_state_t *hash)
{
	static const uint32_t begins[3][EXPERTS + 1] = { { 0, 1, 2, 3, 4 }, { 0, 13, 14, 27, ROWS },
		{ 0, 0, 14, 14, ROWS } };
	const struct kn_expert *experts[EXPERTS];

	for (size_t e = 0; e < EXPERTS; e++)
		experts[e] = &p->experts[e];
	enum cad_status status = CAD_OK;
	for (size_t i = 0; i < 3 && status == CAD_OK; i++) {
		p->ops->ffn(p->queue,
			&(struct kn_ffn){
				.experts = experts,
				.experts_count = EXPERTS,
				.begin = begins[i],
				.x = p->x,
				.ldx = p->ldx,
				.rows = ROWS,
				.hidden = HIDDEN,
				.y = p->y,
				.ldy = p->ldy,
				.scratch = p->scratch,
			});
		p->ops->copy_out(p->queue, p->host, p->y, begins[i][EXPERTS] * p->ldy * sizeof *p->host);
		status = p->ops->wait(p->queue);
		for (size_t r = 0; r < begins[i][EXPERTS] && status == CAD_OK; r++)
			XXH3_128bits_update(hash, p->host + r * p->ldy, HIDDEN * sizeof *p->host);
	}

	return status;
}

enum cad_status kn_fingerprint(struct kn_queue *queue, enum cad_weights weights, char hex[33], struct cad_error *error)
{
	struct probe p = {
		.queue = queue,
		.device = queue->device,
		.ops = queue->ops,
		.weights = cad_weights_profile(weights) != CAD_PROFILE_F32 ? weights : CAD_WEIGHTS_AS_IS,
		.ldx = kn_ld(HIDDEN),
		.ldy = kn_ld(HIDDEN),
	};
	struct cad_random random = { 20 };
	enum cad_status status = CAD_ERR_MEMORY;
	XXH3_state_t *hash = XXH3_createState();

	p.scratch_bytes = p.ops->ffn_scratch_bytes(queue, ROWS, HIDDEN, FFN, false);
	p.x = p.ops->alloc(p.device, ROWS * p.ldx * sizeof(float));
	p.y = p.ops->alloc(p.device, ROWS * p.ldy * sizeof(float));
	p.scratch = p.ops->alloc(p.device, p.scratch_bytes);
	p.host_bytes = ROWS * (p.ldx > p.ldy ? p.ldx : p.ldy) * sizeof(float);
	p.host = p.ops->host_alloc(p.device, p.host_bytes);
	if (!hash || !p.host || !p.x || !p.y || !p.scratch)
		goto release;
	XXH3_128bits_reset(hash);
	status = fill_rows(&p, &random);
	for (size_t e = 0; e < EXPERTS && status == CAD_OK; e++)
		status = expert_create(&p, &random, e);
	if (status == CAD_OK)
		status = run_probe(&p, hash);
	if (status == CAD_OK) {
		XXH128_hash_t digest = XXH3_128bits_digest(hash);
		cad_digest_text(digest.high64, digest.low64, hex);
	}

	for (size_t e = 0; e < EXPERTS; e++)
		p.ops->expert_destroy(p.device, &p.experts[e]);

release:
	p.ops->host_release(p.device, p.host, p.host_bytes);
	p.ops->release(p.device, p.scratch, p.scratch_bytes);
	p.ops->release(p.device, p.y, ROWS * p.ldy * sizeof(float));
	p.ops->release(p.device, p.x, ROWS * p.ldx * sizeof(float));
	XXH3_freeState(hash);

	return status == CAD_OK ? CAD_OK
				: cad_error_set(error, status, "the kernel fingerprint could not be computed: %s",
					  cad_status_text(status));
}
