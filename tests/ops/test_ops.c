/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every operator case (tests/support/op_cases.c) on every form of the CPU: the reference against
 * float64 within the case's tolerance, then each form with 1 to 3 threads against the reference bit
 * for bit, in one batch, in two parts, and each row alone.
 */
#include "tests/support/op_cases.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#ifdef __SANITIZE_THREAD__
enum { THREADS_MIN = 2 }; /* one thread has no races */
#else
enum { THREADS_MIN = 1 };
#endif
enum { SEED = 1234, THREADS_MAX = 3, POISON = 0x55 };

static const enum kn_isa isas[] = { KN_ISA_REF, KN_ISA_AVX2, KN_ISA_AVXVNNI, KN_ISA_AVX512, KN_ISA_AMX };

static struct kn_queue *open_queue(enum kn_isa isa, unsigned threads)
{
	struct kn_device *device;
	struct kn_queue *queue;
	struct cad_error error;
	if (kn_device_open(&(struct kn_device_options){ .isa = isa }, &device, &error) != CAD_OK)
		return NULL;
	assert_int_equal(device->ops->queue_create(device, threads, &queue), CAD_OK);
	return queue;
}

static void close_queue(struct kn_queue *queue)
{
	struct kn_device *device = queue->device;
	queue->ops->queue_destroy(queue);
	device->ops->destroy(device);
}

static void set_output(struct op_state *s, const uint8_t *bytes)
{
	if (s->host_output)
		memcpy(s->host_output, bytes, s->rows * s->stride_bytes);
	else
		s->queue->ops->copy_in(s->queue, s->device_output, bytes, s->rows * s->stride_bytes);
}

static void get_output(struct op_state *s, uint8_t *bytes)
{
	assert_int_equal(s->queue->ops->wait(s->queue), CAD_OK);
	if (s->host_output)
		memcpy(bytes, s->host_output, s->rows * s->stride_bytes);
	else
		s->queue->ops->copy_out(s->queue, bytes, s->device_output, s->rows * s->stride_bytes);
	assert_int_equal(s->queue->ops->wait(s->queue), CAD_OK);
}

/* Runs rows first .. first + rows - 1 on poisoned memory: those rows are as expected, all others
 * untouched. */
static void check_part(
	struct op_state *s, const uint8_t *expected, uint8_t *got, size_t first, size_t rows, const char *where)
{
	size_t bytes = s->rows * s->stride_bytes;
	memset(got, POISON, bytes);
	set_output(s, got);
	s->c->kind->run(s, first, rows);
	get_output(s, got);

	for (size_t r = 0; r < s->rows; r++) {
		const uint8_t *row = got + r * s->stride_bytes;
		bool inside = r >= first && r < first + rows, good = true;
		if (inside)
			good = memcmp(row, expected + r * s->stride_bytes, s->compare_bytes) == 0;
		else
			for (size_t i = 0; i < s->stride_bytes && good; i++)
				good = row[i] == POISON;
		if (!good)
			fail_msg("%s: rows %zu + %zu: row %zu %s", where, first, rows, r,
				inside ? "differs from the reference" : "was written, but is not in the call");
	}
}

static void check_form(
	const struct op_case *c, enum kn_isa isa, unsigned threads, const uint8_t *expected, uint8_t *got)
{
	struct kn_queue *queue = open_queue(isa, threads);
	if (!queue)
		return;

	char where[64];
	struct kn_device_info info;
	queue->device->ops->describe(queue->device, &info);
	snprintf(where, sizeof where, "%s, %u threads", info.isa, threads);
	struct op_state *s = c->kind->setup(queue, c, SEED);
	size_t half = s->rows / 2;
	check_part(s, expected, got, 0, s->rows, where);
	check_part(s, expected, got, 0, half, where);
	check_part(s, expected, got, half, s->rows - half, where);
	for (size_t r = 0; r < s->rows && threads == 1; r++)
		check_part(s, expected, got, r, 1, where);
	c->kind->teardown(s);
	close_queue(queue);
}

static void run_case(void **state)
{
	const struct op_case *c = *state;
	struct kn_queue *queue = open_queue(KN_ISA_REF, 1);

	assert_non_null(queue);
	struct op_state *s = c->kind->setup(queue, c, SEED);
	size_t bytes = s->rows * s->stride_bytes;
	uint8_t *expected = op_need(bytes), *got = op_need(bytes);
	c->kind->run(s, 0, s->rows);
	get_output(s, expected);

	if (c->kind->error) {
		double error = c->kind->error(s, expected);
		if (!(error <= 1.0))
			fail_msg("the reference is %g times the tolerance away from float64", error);
	}

	c->kind->teardown(s);
	close_queue(queue);
	for (size_t i = 0; i < sizeof isas / sizeof isas[0]; i++)
		for (unsigned threads = THREADS_MIN; threads <= THREADS_MAX; threads++)
			check_form(c, isas[i], threads, expected, got);
	free(expected);
	free(got);
}

int main(void)
{
	size_t count = 0;
	struct CMUnitTest *tests = op_need(op_cases_count * sizeof *tests);

	char(*names)[160] = op_need(op_cases_count * sizeof *names);

	for (size_t i = 0; i < op_cases_count; i++)
		if (op_cases[i].use & OP_TEST) {
			tests[count] = (struct CMUnitTest){ op_case_text(&op_cases[i], names[count]), run_case, NULL,
				NULL, (void *)&op_cases[i] };
			count++;
		}
	struct kn_queue *avx512 = open_queue(KN_ISA_AVX512, 1);
	printf("seed %d; AVX-512 %s\n", SEED, avx512 ? "runs here" : "is not on this machine: its form is not tested");
	if (avx512)
		close_queue(avx512);
	int failures = _cmocka_run_group_tests("operators", tests, count, NULL, NULL);
	free(tests);
	free(names);

	return failures;
}
