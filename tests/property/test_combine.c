/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The exact combine: whatever nodes the experts lie on, whichever replica answers, and in whatever
 * order answers come, the result has one set of bits.
 * Weighted outputs of T rows by K experts are summed on 1 to 8 nodes by random placements, packed
 * as answers, checked as a stranger's, and added.
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

enum { T = 19, K = 4, E = 16, N = 75, NODES_MAX = 8, SEED = 4711 };
static const float quantum = 0x1p-12f;

struct world {
	struct kn_device *device;
	struct kn_queue *queue;
	/* host, and the device's copies of them below: [T][ld], [T][ld], [T * K][ld]; pair t
	 * * K + k is slot k of row t */
	float *x, *shared, *y;
	float *device_x, *device_shared, *device_y;
	uint32_t expert[T * K];
	float weight[T * K];
	int64_t *sums, *scratch; /* device */
	float *result;           /* host, what became of x */
};

static float draw(struct cad_random *random, int spread)
{
	double sign = cad_random_below(random, 2) ? 1 : -1;
	return (float)(sign * (cad_random_unit(random) + 0.5) *
		(double)(1ull << cad_random_below(random, (uint64_t)spread)) / 1024.0);
}

static void world_init(struct world *w, enum kn_isa isa, struct cad_random *random)
{
	struct cad_error error;
	size_t ld = kn_ld(N);

	must(kn_device_open(&(struct kn_device_options){ .isa = isa }, &w->device, &error), &error);
	assert_int_equal(w->device->ops->queue_create(w->device, 2, &w->queue), CAD_OK);
	w->x = op_need(T * ld * 4);
	w->shared = op_need(T * ld * 4);
	w->y = op_need(T * K * ld * 4);
	w->result = op_need(T * ld * 4);
	w->sums = op_alloc(w->queue, T * N * 8);
	w->scratch = op_alloc(w->queue, T * N * 8);

	for (size_t r = 0; r < T; r++)
		for (size_t i = 0; i < N; i++) {
			w->x[r * ld + i] = draw(random, 12);
			w->shared[r * ld + i] = draw(random, 12);
		}
	for (size_t p = 0; p < T * K; p++) {
		w->weight[p] = draw(random, 10);
		int spread = p / K % 5 == 0 ? 40 : 10; /* some rows need 64 bits */
		for (size_t i = 0; i < N; i++)
			w->y[p * ld + i] = draw(random, spread);
		do
			w->expert[p] = (uint32_t)cad_random_below(random, E);
		while ((p % K > 0 && w->expert[p] == w->expert[p - 1]) ||
			(p % K > 1 && w->expert[p] == w->expert[p - 2]) ||
			(p % K > 2 && w->expert[p] == w->expert[p - 3]));
	}
	w->device_x = op_upload(w->queue, w->x, T * ld * 4);
	w->device_shared = op_upload(w->queue, w->shared, T * ld * 4);
	w->device_y = op_upload(w->queue, w->y, T * K * ld * 4);
}

static void world_fini(struct world *w)
{
	size_t ld = kn_ld(N);
	const struct kn_ops *ops = w->device->ops;

	ops->release(w->device, w->device_x, T * ld * 4);
	ops->release(w->device, w->device_shared, T * ld * 4);
	ops->release(w->device, w->device_y, T * K * ld * 4);
	ops->release(w->device, w->sums, T * N * 8);
	ops->release(w->device, w->scratch, T * N * 8);
	free(w->x);
	free(w->shared);
	free(w->y);
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

/* What a node answers: the partial sums of the rows that have an expert there. `place` says for
 * each pair which node serves it. */
static void node_answer(struct world *w, const uint8_t *place, uint8_t node, struct answer *a)
{
	uint32_t begin[T + 1] = { 0 }, index[T * K], local_expert[T * K];
	size_t pairs = 0, bytes = 0;
	struct cadre_wire_sum heads[T];

	a->rows = 0;

	for (uint32_t t = 0; t < T; t++) {
		size_t before = pairs;
		for (uint32_t k = 0; k < K; k++)
			if (place[t * K + k] == node)
				index[pairs++] = t * K + k;
		if (pairs > before) {
			a->index[a->rows++] = t;
			begin[a->rows] = (uint32_t)pairs;
		}
	}

	memcpy(local_expert, w->expert, sizeof local_expert);
	w->queue->ops->combine_pack(w->queue,
		&(struct kn_combine_pack){
			.y = w->device_y,
			.ldy = kn_ld(N),
			.n = N,
			.rows = a->rows,
			.pair_begin = begin,
			.pair_index = index,
			.pair_weight = w->weight,
			.pair_expert = local_expert,
			.quantum = quantum,
			.scratch = w->scratch,
			.heads = heads,
			.data = a->payload + a->rows * sizeof *heads,
			.data_bytes = &bytes,
		});
	assert_int_equal(w->queue->ops->wait(w->queue), CAD_OK);
	memcpy(a->payload, heads, a->rows * sizeof *heads);
	a->header = (struct cadre_wire_answer){ .header = { .magic = CADRE_WIRE_MAGIC,
							.version = CADRE_WIRE_VERSION,
							.kind = CADRE_WIRE_ANSWER,
							.payload_bytes = a->rows * sizeof *heads + bytes },
		.data_bytes = bytes,
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
	struct world w;
	struct cad_random random = { SEED };
	world_init(&w, KN_ISA_AUTO, &random);
	combine(&w, 3, &random);

	for (size_t t = 0; t < T; t++)
		for (size_t i = 0; i < N; i++) {
			size_t at = t * kn_ld(N) + i;
			double exact = (double)w.x[at] + (double)w.shared[at], magnitude = 0;
			for (size_t k = 0; k < K; k++) {
				double term = (double)w.weight[t * K + k] * (double)w.y[(t * K + k) * kn_ld(N) + i];
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
