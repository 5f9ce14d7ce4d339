/* SPDX-License-Identifier: Apache-2.0 */
/* The image of a packed expert; n is F, k is H. Output rows are pieces of the image, of a size that
 * cuts through its rows and elements. */
#include "kernels/image.h"
#include "tests/support/op_cases.h"

#include <stdlib.h>
#include <string.h>

enum { PIECE_BYTES = 37 };

struct unpack {
	struct op_state state;
	struct kn_expert_source source, image;
	struct kn_expert packed;
	size_t bytes;
	uint8_t *expected;
	uint8_t *output;
};

static bool expect_piece(void *context, const void *bytes, size_t count)
{
	uint8_t **next = context;
	memcpy(*next, bytes, count);
	*next += count;
	return true;
}

static struct op_state *unpack_setup(struct kn_queue *queue, const struct op_case *c, uint64_t seed)
{
	struct unpack *s = op_need(sizeof *s);
	struct cad_ffn_spec spec = { (uint32_t)c->n, c->activation, c->limit, c->bias, false };

	s->source = (struct kn_expert_source){
		.gate = op_source(c->n, c->k, op_dtype_of(c, 0, 0), &seed, c->data, 1.0f),
		.up = op_source(c->n, c->k, op_dtype_of(c, 0, 1), &seed, c->data, 1.0f),
		.down = op_source(c->k, c->n, op_dtype_of(c, 0, 2), &seed, c->data, 1.0f),
		.spec = &spec,
	};
	if (c->bias) {
		s->source.gate_bias = op_source(c->n, 1, c->dtype, &seed, c->data, 1.0f);
		s->source.up_bias = op_source(c->n, 1, c->dtype, &seed, c->data, 1.0f);
		s->source.down_bias = op_source(c->k, 1, c->dtype, &seed, c->data, 1.0f);
	}
	CAD_ASSERT(queue->ops->expert_create(queue->device, &s->source, c->weights, &s->packed) == CAD_OK);

	s->image = kn_image_of(&s->source, c->weights);
	s->bytes = (size_t)kn_image_bytes(&s->image);
	size_t pieces = (s->bytes + PIECE_BYTES - 1) / PIECE_BYTES;
	s->output = op_need(pieces * PIECE_BYTES);
	s->expected = op_need(pieces * PIECE_BYTES);
	uint8_t *next = s->expected;
	CAD_ASSERT(kn_image_read(&s->source, c->weights, expect_piece, &next) && next == s->expected + s->bytes);
	s->state = (struct op_state){ c, queue, pieces, PIECE_BYTES, PIECE_BYTES, NULL, s->output };
	return &s->state;
}

static void unpack_run(struct op_state *state, size_t first, size_t rows)
{
	struct unpack *s = (struct unpack *)state;
	size_t begin = first * PIECE_BYTES, end = (first + rows) * PIECE_BYTES;

	if (rows == 0)
		return;
	if (end > s->bytes) {
		memset(s->output + s->bytes, 0, end - s->bytes);
		end = s->bytes;
	}
	CAD_ASSERT(state->queue->ops->expert_unpack(state->queue->device, &s->packed, &s->image, begin, end - begin,
			   s->output + begin) == CAD_OK);
}

/* Exact: what the checkpoint's tensors give without packing. */
static double unpack_error(const struct op_state *state, const void *output)
{
	const struct unpack *s = (const struct unpack *)state;
	return memcmp(output, s->expected, s->bytes) == 0 ? 0 : 2;
}

static void unpack_teardown(struct op_state *state)
{
	struct unpack *s = (struct unpack *)state;
	state->queue->ops->expert_destroy(state->queue->device, &s->packed);
	for (unsigned i = 0; i < KN_EXPERT_TENSORS; i++)
		free((void *)kn_expert_tensor(&s->source, i)->data);
	free(s->output);
	free(s->expected);
	free(s);
}

static double no_flops(const struct op_case *c) { return (void)c, 0; }
static double unpack_bytes(const struct op_case *c) { return op_weight_bytes(c) * 3 * (double)c->n * (double)c->k; }

const struct op_kind op_unpack = { "expert_unpack", unpack_setup, unpack_run, unpack_error, unpack_teardown, no_flops,
	unpack_bytes };
