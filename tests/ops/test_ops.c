/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every operator case (tests/support/op_cases.c) on every form of the CPU: the reference against
 * float64 within the case's tolerance, then each form with 1 to 3 threads against the reference bit
 * for bit, in one batch, in two parts, and each row alone.
 */
#include "tests/support/op_check.h"

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
enum { SEED = 1234, THREADS_MAX = 3 };

static const enum kn_isa isas[] = { KN_ISA_REF, KN_ISA_AVX2, KN_ISA_AVXVNNI, KN_ISA_AVX512, KN_ISA_AMX };

static void check_form(
	const struct op_case *c, enum kn_isa isa, unsigned threads, const uint8_t *expected, uint8_t *got)
{
	struct kn_queue *queue = op_queue_open(&(struct kn_device_options){ .isa = isa }, threads);
	if (!queue)
		return;

	char where[64];
	struct kn_device_info info;
	queue->device->ops->describe(queue->device, &info);
	snprintf(where, sizeof where, "%s, %u threads", info.isa, threads);
	struct op_state *s = c->kind->setup(queue, c, SEED);
	size_t half = s->rows / 2;
	op_check_part(s, expected, got, 0, s->rows, where);
	op_check_part(s, expected, got, 0, half, where);
	op_check_part(s, expected, got, half, s->rows - half, where);
	for (size_t r = 0; r < s->rows && threads == 1; r++)
		op_check_part(s, expected, got, r, 1, where);
	c->kind->teardown(s);
	op_queue_close(queue);
}

static void run_case(void **state)
{
	const struct op_case *c = *state;
	struct kn_queue *queue = op_queue_open(&(struct kn_device_options){ .isa = KN_ISA_REF }, 1);

	assert_non_null(queue);
	struct op_state *s = c->kind->setup(queue, c, SEED);
	size_t bytes = s->rows * s->stride_bytes;
	uint8_t *expected = op_need(bytes), *got = op_need(bytes);
	c->kind->run(s, 0, s->rows);
	op_get_output(s, expected);

	if (c->kind->error) {
		double error = c->kind->error(s, expected);
		if (!(error <= 1.0))
			fail_msg("the reference is %g times the tolerance away from float64", error);
	}

	c->kind->teardown(s);
	op_queue_close(queue);
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
	struct kn_queue *avx512 = op_queue_open(&(struct kn_device_options){ .isa = KN_ISA_AVX512 }, 1);
	printf("seed %d; AVX-512 %s\n", SEED, avx512 ? "runs here" : "is not on this machine: its form is not tested");
	if (avx512)
		op_queue_close(avx512);
	int failures = _cmocka_run_group_tests("operators", tests, count, NULL, NULL);
	free(tests);
	free(names);

	return failures;
}
