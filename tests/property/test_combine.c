/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The exact combine: whatever nodes the experts lie on, whichever replica answers, and in whatever
 * order answers come, the result has one set of bits.
 * T rows by K experts are computed and summed on 1 to 8 nodes by random placements, packed as
 * answers, checked as a stranger's, and added.
 */
#include "common/base/clock.h"
#include "common/transport/wire.h"
#include "kernels/kernels.h"
#include "tests/support/must.h"
#include "tests/support/op_cases.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { T = 19, K = 4, E = 16, N = 75, F = 9, NODES_MAX = 8, SEED = 4711 };
static const float quantum = 0x1p-12f;

struct world {
	struct kn_device *device;
	struct kn_queue *queue;
	struct kn_expert experts[E];
	const struct kn_expert *pointers[E];
	/* host, and the device's copies of them below: [T][ld]; pair t * K + k is slot k of row t */
	float *x, *shared, *normed;
	float *device_x, *device_shared, *device_normed;
	uint32_t expert[T * K];
	float weight[T * K];
	int64_t *sums; /* device */
	float *result; /* host, what became of x */
	/* of the node at hand, device: by pair, [T * K], y by ld; by row, [T] */
	uint32_t *node_row, *node_poison;
	float *node_weight, *node_y;
	int64_t *node_sums;
	void *scratch;
};

static float draw(struct cad_random *random, int spread)
{
	double sign = cad_random_below(random, 2) ? 1 : -1;
	return (float)(sign * (cad_random_unit(random) + 0.5) *
		(double)(1ull << cad_random_below(random, (uint64_t)spread)) / 1024.0);
}

static void experts_init(struct world *w, uint64_t seed)
{
	const struct cad_ffn_spec spec = { .size = F, .activation = CAD_ACTIVATION_SILU };
	for (size_t e = 0; e < E; e++) {
		const struct kn_expert_source source = {
			.gate = op_source(F, N, CAD_DTYPE_F32, &seed, OP_DATA_BELL, 0.1f),
			.up = op_source(F, N, CAD_DTYPE_F32, &seed, OP_DATA_BELL, 0.1f),
			.down = op_source(N, F, CAD_DTYPE_F32, &seed, OP_DATA_BELL, 1.0f),
			.spec = &spec,
		};
		enum cad_status status =
			w->device->ops->expert_create(w->device, &source, CAD_WEIGHTS_AS_IS, &w->experts[e]);
		assert_int_equal(status, CAD_OK);
		w->pointers[e] = &w->experts[e];
		free((void *)source.gate.data);
		free((void *)source.up.data);
		free((void *)source.down.data);
	}
}

static size_t scratch_bytes(const struct world *w)
{
	return w->device->ops->ffn_scratch_bytes(w->queue, T * K, N, F, true);
}

static void world_init(struct world *w, enum kn_isa isa, struct cad_random *random)
{
	struct cad_error error;
	size_t ld = kn_ld(N);

	must(kn_device_open(&(struct kn_device_options){ .isa = isa }, &w->device, &error), &error);
	assert_int_equal(w->device->ops->queue_create(w->device, 2, &w->queue), CAD_OK);
	w->x = op_need(T * ld * 4);
	w->shared = op_need(T * ld * 4);
	w->normed = op_need(T * ld * 4);
	w->result = op_need(T * ld * 4);
	w->sums = op_alloc(w->queue, T * N * 8);
	w->node_row = op_alloc(w->queue, T * K * 4);
	w->node_poison = op_alloc(w->queue, T * 4);
	w->node_weight = op_alloc(w->queue, T * K * 4);
	w->node_y = op_alloc(w->queue, T * K * ld * 4);
	w->node_sums = op_alloc(w->queue, T * N * 8);
	w->scratch = op_alloc(w->queue, scratch_bytes(w));
	experts_init(w, SEED);

	for (size_t r = 0; r < T; r++)
		for (size_t i = 0; i < N; i++) {
			w->x[r * ld + i] = draw(random, 12);
			w->shared[r * ld + i] = draw(random, 12);
			w->normed[r * ld + i] = draw(random, 10);
		}
	for (size_t p = 0; p < T * K; p++) {
		w->weight[p] = draw(random, p / K % 5 == 0 ? 40 : 10); /* some rows need 64 bits */
		do
			w->expert[p] = (uint32_t)cad_random_below(random, E);
		while ((p % K > 0 && w->expert[p] == w->expert[p - 1]) ||
			(p % K > 1 && w->expert[p] == w->expert[p - 2]) ||
			(p % K > 2 && w->expert[p] == w->expert[p - 3]));
	}
	w->device_x = op_upload(w->queue, w->x, T * ld * 4);
	w->device_shared = op_upload(w->queue, w->shared, T * ld * 4);
	w->device_normed = op_upload(w->queue, w->normed, T * ld * 4);
}

static void world_fini(struct world *w)
{
	size_t ld = kn_ld(N);
	const struct kn_ops *ops = w->device->ops;

	ops->release(w->device, w->device_x, T * ld * 4);
	ops->release(w->device, w->device_shared, T * ld * 4);
	ops->release(w->device, w->device_normed, T * ld * 4);
	ops->release(w->device, w->sums, T * N * 8);
	ops->release(w->device, w->node_row, T * K * 4);
	ops->release(w->device, w->node_poison, T * 4);
	ops->release(w->device, w->node_weight, T * K * 4);
	ops->release(w->device, w->node_y, T * K * ld * 4);
	ops->release(w->device, w->node_sums, T * N * 8);
	ops->release(w->device, w->scratch, scratch_bytes(w));
	for (size_t e = 0; e < E; e++)
		ops->expert_destroy(w->device, &w->experts[e]);
	free(w->x);
	free(w->shared);
	free(w->normed);
	free(w->result);
	ops->queue_destroy(w->queue);
	ops->destroy(w->device);
}

struct answer {
	struct cadre_wire_answer header;
	_Alignas(8) uint8_t payload[T * sizeof(struct cadre_wire_sum) + T * N * 8];
	uint32_t index[T]; /* row of the answer -> row of the batch */
	size_t rows;
};

/* What a node computes: the pairs that lie there, sorted by expert, then by row. */
struct batch {
	uint32_t begin[E + 1], pair[T * K], row[T * K], expert[T * K];
	float weight[T * K];
	size_t pairs;
};

/* `place` says for each pair which node serves it. */
static void batch_make(const struct world *w, const uint8_t *place, uint8_t node, struct batch *b)
{
	b->pairs = 0;
	for (uint32_t e = 0; e < E; e++) {
		b->begin[e] = (uint32_t)b->pairs;
		for (uint32_t p = 0; p < T * K; p++) {
			if (place[p] != node || w->expert[p] != e)
				continue;
			b->pair[b->pairs] = p;
			b->row[b->pairs] = p / K;
			b->weight[b->pairs] = w->weight[p];
			b->expert[b->pairs++] = e;
		}
	}
	b->begin[E] = (uint32_t)b->pairs;
}

/* To y, or, where it is NULL, to sums. */
static void batch_run(struct world *w, const struct batch *b, float *y)
{
	const struct kn_ops *ops = w->queue->ops;
	ops->copy_in(w->queue, w->node_row, b->row, b->pairs * sizeof *b->row);
	ops->copy_in(w->queue, w->node_weight, b->weight, b->pairs * sizeof *b->weight);
	ops->ffn(w->queue,
		&(struct kn_ffn){
			.experts = w->pointers,
			.experts_count = E,
			.begin = b->begin,
			.row_index = w->node_row,
			.x = w->device_normed,
			.ldx = kn_ld(N),
			.rows = T,
			.hidden = N,
			.y = y,
			.ldy = kn_ld(N),
			.weight = w->node_weight,
			.quantum = quantum,
			.sums = w->node_sums,
			.poison = w->node_poison,
			.scratch = w->scratch,
		});
	assert_int_equal(ops->wait(w->queue), CAD_OK);
}

/* The rows of the batch that have a pair. */
static void list_rows(const struct batch *b, struct answer *a)
{
	bool has[T] = { false };
	for (size_t p = 0; p < b->pairs; p++)
		has[b->row[p]] = true;
	a->rows = 0;
	for (uint32_t t = 0; t < T; t++)
		if (has[t])
			a->index[a->rows++] = t;
}

/* What a node answers: its sums, of the rows that have an expert there. */
static void node_answer(struct world *w, const uint8_t *place, uint8_t node, struct answer *a)
{
	struct cadre_wire_sum *heads = (struct cadre_wire_sum *)a->payload;
	struct batch batch;
	size_t at = 0, bytes;

	batch_make(w, place, node, &batch);
	batch_run(w, &batch, NULL);
	list_rows(&batch, a);
	for (size_t r = 0; r < a->rows; r++, at += bytes) {
		w->queue->ops->combine_pack(w->queue,
			&(struct kn_combine_pack){
				.sums = w->node_sums + a->index[r] * (size_t)N,
				.poison = w->node_poison + a->index[r],
				.rows = 1,
				.n = N,
				.pair_expert = batch.expert,
				.pairs = batch.pairs,
				.heads = heads + r,
				.data = a->payload + a->rows * sizeof *heads + at,
				.data_bytes = &bytes,
			});
		assert_int_equal(w->queue->ops->wait(w->queue), CAD_OK);
	}
	a->header = (struct cadre_wire_answer){ .header = { .magic = CADRE_WIRE_MAGIC,
							.version = CADRE_WIRE_VERSION,
							.kind = CADRE_WIRE_ANSWER,
							.payload_bytes = a->rows * sizeof *heads + at },
		.data_bytes = at,
		.rows = (uint32_t)a->rows,
		.row_elements = N };
}

static void answer_add(struct world *w, const struct answer *a)
{
	const struct cad_wire_limits limits = {
		.payload_bytes_max = sizeof a->payload,
		.rows_max = T,
		.row_elements = N,
		.layers = 1,
		.experts = E,
	};
	struct cad_answer_view view;
	struct cad_error error;

	must(cad_wire_answer_check(
		     &a->header, sizeof a->header, a->payload, a->header.header.payload_bytes, &limits, &view, &error),
		&error);
	w->queue->ops->combine_add(w->queue,
		&(struct kn_combine_add){
			.heads = view.sums,
			.data = view.data,
			.rows = view.answer.rows,
			.n = N,
			.index = a->index,
			.sums = w->sums,
		});
}

/* One batch through `nodes` nodes: a random replica for each pair (so that even one expert may be
 * served in two places), answers in random order. */
static void combine(struct world *w, uint64_t nodes, struct cad_random *random)
{
	static struct answer answers[NODES_MAX];
	uint8_t place[T * K], order[NODES_MAX];
	size_t ld = kn_ld(N);

	for (size_t p = 0; p < T * K; p++)
		place[p] = (uint8_t)cad_random_below(random, nodes);
	for (uint8_t node = 0; node < nodes; node++) {
		node_answer(w, place, node, &answers[node]);
		size_t at = (size_t)cad_random_below(random, node + 1u);
		order[node] = order[at];
		order[at] = node;
	}

	w->queue->ops->copy_in(w->queue, w->device_x, w->x, T * ld * 4);
	for (size_t i = 0; i < nodes; i++)
		if (answers[order[i]].rows > 0)
			answer_add(w, &answers[order[i]]);
	w->queue->ops->combine_finish(w->queue,
		&(struct kn_combine_finish){
			.x = w->device_x,
			.ldx = ld,
			.rows = T,
			.n = N,
			.sums = w->sums,
			.quantum = quantum,
			.shared = w->device_shared,
			.lds = ld,
			.scale = 1,
		});
	static int64_t sums[T * N];
	w->queue->ops->copy_out(w->queue, w->result, w->device_x, T * ld * 4);
	w->queue->ops->copy_out(w->queue, sums, w->sums, sizeof sums);
	assert_int_equal(w->queue->ops->wait(w->queue), CAD_OK);
	for (size_t i = 0; i < T * N; i++)
		assert_int_equal(sums[i], 0);
}

static void any_grouping_and_order_gives_the_same_bits(void **state)
{
	(void)state;
	float *first = NULL;
	size_t bytes = T * kn_ld(N) * 4;
	for (enum kn_isa isa = KN_ISA_REF; isa <= KN_ISA_AVX512; isa++) {
		struct world w;
		struct kn_device *device;
		struct cad_random inputs = { SEED }, random = { SEED + (uint64_t)isa };
		if (kn_device_open(&(struct kn_device_options){ .isa = isa }, &device, NULL) != CAD_OK)
			continue;
		device->ops->destroy(device);
		world_init(&w, isa, &inputs);
		for (int round = 0; round < 60; round++) {
			combine(&w, 1 + cad_random_below(&random, NODES_MAX), &random);
			if (!first) {
				first = malloc(bytes);
				assert_non_null(first);
				memcpy(first, w.result, bytes);
			}
			if (memcmp(first, w.result, bytes) != 0)
				fail_msg("seed %d, isa %d, round %d: other bits", SEED, isa, round);
		}
		world_fini(&w);
	}

	free(first);
}

/* Each weighted output is rounded once, to half a quantum: K of them are off by at most K / 2, and
 * the sums by three roundings. */
static void result_is_near_the_exact_one(void **state)
{
	(void)state;
	static float y[T * K * (N + 128)];
	struct world w;
	struct batch all;
	struct cad_random random = { SEED };
	size_t of_pair[T * K]; /* its row of y */

	world_init(&w, KN_ISA_AUTO, &random);
	combine(&w, 3, &random);
	batch_make(&w, (const uint8_t[T * K]){ 0 }, 0, &all);
	batch_run(&w, &all, w.node_y);
	w.queue->ops->copy_out(w.queue, y, w.node_y, T * K * kn_ld(N) * sizeof *y);
	assert_int_equal(w.queue->ops->wait(w.queue), CAD_OK);
	for (size_t p = 0; p < T * K; p++)
		of_pair[all.pair[p]] = p * kn_ld(N);

	for (size_t t = 0; t < T; t++)
		for (size_t i = 0; i < N; i++) {
			size_t at = t * kn_ld(N) + i;
			double exact = (double)w.x[at] + (double)w.shared[at], magnitude = 0;
			for (size_t k = 0; k < K; k++) {
				double term = (double)w.weight[t * K + k] * (double)y[of_pair[t * K + k] + i];
				exact += term;
				magnitude += term > 0 ? term : -term;
			}
			double error = (double)w.result[at] - exact;
			assert_true(
				(error > 0 ? error : -error) <= K * 0.5 * (double)quantum + 0x1p-22 * (magnitude + 8));
		}
	world_fini(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(any_grouping_and_order_gives_the_same_bits),
		cmocka_unit_test(result_is_near_the_exact_one),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
