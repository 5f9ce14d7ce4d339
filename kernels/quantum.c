#include "kernels/quantum.h"

#include <Random123/philox.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 64, SAMPLE_MAX = 8 };

struct table {
	struct kn_queue *queue;
	const struct cad_model *model;
	const struct cad_model_spec *spec;
	enum kn_weights weights;
	float *x, *y;                /* device, [ROWS][kn_ld(H)] */
	void *scratch;
	float *host;                 /* [ROWS][kn_ld(H)] */
	size_t scratch_bytes;
};

/* Sum of 12 uniform numbers less 6: variance 1, by additions alone, so that the bits are the same everywhere. */
static float unit_noise(uint32_t layer, uint32_t row, uint32_t column)
{
	int64_t sum = 0;
	for (uint32_t i = 0; i < 3; i++) {
		philox4x32_ctr_t counter = { { column, row, layer, i } };
		philox4x32_key_t key = { { 0x71756e74, 0x756d3031 } };   /* any constant; it is part of the definition */
		philox4x32_ctr_t random = philox4x32_R(10, counter, key);
		for (int j = 0; j < 4; j++)
			sum += random.v[j] >> 8;
	}
	return (float)(sum - ((int64_t)6 << 24)) * 0x1p-24f;
}

static struct kn_source source_of(const struct cad_model *model, enum cad_role role, uint32_t layer, uint32_t expert)
{
	struct cad_tensor tensor = cad_model_tensor(model, role, layer, expert);
	return (struct kn_source){ .data = tensor.data, .dtype = tensor.dtype, .n = tensor.data ? tensor.shape[0] : 0, .k = tensor.rank > 1 ? tensor.shape[1] : 1 };
}

/* rows = noise * ffn norm weight: what a normalised row looks like to the experts of this layer. */
static enum cad_status fill_rows(const struct table *t, uint32_t layer)
{
	const struct kn_ops *ops = t->queue->ops;
	struct kn_source norm = source_of(t->model, CAD_ROLE_FFN_NORM, layer, 0);
	size_t ld = kn_ld(t->spec->hidden);
	float *weight;
	enum cad_status status = ops->vector_create(t->queue->device, &norm, &weight);
	if (status != CAD_OK)
		return status;
	memset(t->host, 0, ROWS * ld * sizeof *t->host);
	ops->copy_out(t->queue, t->host, weight, t->spec->hidden * sizeof *weight);
	status = ops->wait(t->queue);
	ops->vector_destroy(t->queue->device, weight, t->spec->hidden);
	for (uint32_t r = ROWS; r-- > 0;)   /* row 0 holds the weight until it is its turn */
		for (uint32_t c = 0; c < t->spec->hidden; c++)
			t->host[r * ld + c] = t->host[c] * unit_noise(layer, r, c);
	ops->copy_in(t->queue, t->x, t->host, ROWS * ld * sizeof *t->host);
	return status;
}

static enum cad_status load_expert(const struct table *t, uint32_t layer, uint32_t expert, struct kn_expert *loaded)
{
	static const enum cad_role roles[6] = { CAD_ROLE_EXPERT_GATE, CAD_ROLE_EXPERT_UP, CAD_ROLE_EXPERT_DOWN, CAD_ROLE_EXPERT_GATE_BIAS, CAD_ROLE_EXPERT_UP_BIAS, CAD_ROLE_EXPERT_DOWN_BIAS };
	struct kn_source s[6];
	for (int i = 0; i < 6; i++)
		s[i] = source_of(t->model, roles[i], layer, expert);
	return t->queue->ops->expert_create(t->queue->device, &s[0], &s[1], &s[2], &s[3], &s[4], &s[5], &t->spec->expert, t->weights, loaded);
}

/* The rms of each row of one expert's output. */
static enum cad_status row_rms(const struct table *t, uint32_t layer, uint32_t expert, double rms[ROWS])
{
	const struct kn_ops *ops = t->queue->ops;
	size_t ld = kn_ld(t->spec->hidden);
	struct kn_expert loaded = { 0 };
	enum cad_status status = load_expert(t, layer, expert, &loaded);
	if (status != CAD_OK)
		return status;
	const struct kn_expert *experts[1] = { &loaded };
	uint32_t begin[2] = { 0, ROWS };
	ops->ffn(t->queue, &(struct kn_ffn){ .experts = experts, .experts_count = 1, .begin = begin, .x = t->x, .ldx = ld, .hidden = t->spec->hidden, .y = t->y, .ldy = ld, .scratch = t->scratch });
	ops->copy_out(t->queue, t->host, t->y, ROWS * ld * sizeof *t->host);
	status = ops->wait(t->queue);
	for (uint32_t r = 0; r < ROWS; r++) {
		double sum = 0;
		for (uint32_t c = 0; c < t->spec->hidden; c++)
			sum += (double)t->host[r * ld + c] * t->host[r * ld + c];
		rms[r] = sqrt(sum / t->spec->hidden);
	}
	ops->expert_destroy(t->queue->device, &loaded);
	return status;
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static enum cad_status layer_quantum(const struct table *t, uint32_t layer, int exponent, float *quantum)
{
	const struct cad_gate_spec *gate = &t->spec->gate;
	uint32_t sample = gate->experts < SAMPLE_MAX ? gate->experts : SAMPLE_MAX;
	double rms[ROWS * SAMPLE_MAX];
	enum cad_status status = fill_rows(t, layer);
	for (uint32_t i = 0; i < sample && status == CAD_OK; i++)
		status = row_rms(t, layer, (uint32_t)((uint64_t)i * gate->experts / sample), rms + i * ROWS);
	if (status != CAD_OK)
		return status;
	qsort(rms, sample * ROWS, sizeof *rms, ascending);
	double typical = rms[sample * ROWS / 2] * gate->scale / gate->topk;
	if (!isfinite(typical))
		return CAD_ERR_NOT_FINITE;
	int power = typical > 0 ? ilogb(typical) + exponent : exponent;   /* ilogb rounds down to a power of two */
	*quantum = ldexpf(1.0f, power < -126 ? -126 : power > 100 ? 100 : power);
	return CAD_OK;
}

enum cad_status kn_quantum_table(struct kn_queue *queue, const struct cad_model *model, enum kn_weights weights, enum cadre_row_type wire, float *quanta, struct cad_error *error)
{
	const struct cad_model_spec *spec = cad_model_spec(model);
	struct kn_device *device = queue->device;
	size_t bytes = ROWS * kn_ld(spec->hidden) * sizeof(float);
	struct table t = { .queue = queue, .model = model, .spec = spec, .weights = weights };
	t.scratch_bytes = spec->gate.experts > 0 ? queue->ops->ffn_scratch_bytes(queue, ROWS, spec->hidden, spec->expert.size) : 64;
	t.x = queue->ops->alloc(device, bytes);
	t.y = queue->ops->alloc(device, bytes);
	t.scratch = queue->ops->alloc(device, t.scratch_bytes);
	t.host = malloc(bytes);
	enum cad_status status = t.x && t.y && t.scratch && t.host ? CAD_OK : cad_error_set(error, CAD_ERR_MEMORY, "no memory for the quantum table");
	for (uint32_t layer = 0; layer < spec->layers_count && status == CAD_OK; layer++) {
		quanta[layer] = 0.0f;
		if (!spec->layers[layer].moe)
			continue;
		status = layer_quantum(&t, layer, wire == CADRE_ROW_F32 ? -21 : -10, &quanta[layer]);
		if (status != CAD_OK)
			cad_error_set(error, status, "the quantum of layer %u: %s", layer, status == CAD_ERR_NOT_FINITE ? "its experts give NaN or infinity; the checkpoint is damaged" : cad_status_text(status));
	}
	if (t.x)
		queue->ops->release(device, t.x, bytes);
	if (t.y)
		queue->ops->release(device, t.y, bytes);
	if (t.scratch)
		queue->ops->release(device, t.scratch, t.scratch_bytes);
	free(t.host);
	return status;
}
