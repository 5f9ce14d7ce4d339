/* SPDX-License-Identifier: Apache-2.0 */
/* The pool hands out each job once, whatever the threads do, and computes with the default
 * MXCSR. */
#include "kernels/cpu/pool.h"

#include "kernels/kernels.h"

#include <immintrin.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { JOBS_MAX = 300, FLUSH = 0x8040 }; /* flush to zero, denormals are zero */

struct count {
	_Atomic unsigned runs[JOBS_MAX];
	_Atomic unsigned wrong_csr, wrong_thread, inside[KN_THREADS_MAX];
	unsigned threads;
};

static void count_job(void *context, size_t job, unsigned thread)
{
	struct count *c = context;
	if (thread >= c->threads || atomic_fetch_add(&c->inside[thread], 1) != 0)
		atomic_fetch_add(&c->wrong_thread, 1);
	if ((_mm_getcsr() & ~0x3fu) != 0x1f80)
		atomic_fetch_add(&c->wrong_csr, 1);
	atomic_fetch_add(&c->runs[job], 1);
	atomic_fetch_sub(&c->inside[thread], 1);
}

static void each_job_once(void **state)
{
	(void)state;
	static const size_t jobs[] = { 0, 1, 2, 3, 7, JOBS_MAX };
	for (unsigned threads = 1; threads <= 5; threads++) {
		struct kn_pool *pool;
		assert_int_equal(kn_pool_create(threads, &pool), CAD_OK);
		assert_int_equal(kn_pool_threads(pool), threads);
		for (size_t i = 0; i < 120; i++) {
			struct count c = { .threads = threads };
			size_t n = jobs[i % (sizeof jobs / sizeof jobs[0])];
			kn_pool_for(pool, n, count_job, &c);
			for (size_t job = 0; job < JOBS_MAX; job++)
				assert_int_equal(c.runs[job], job < n);
			assert_int_equal(c.wrong_csr, 0);
			assert_int_equal(c.wrong_thread, 0);
		}
		kn_pool_destroy(pool);
	}
}

/* A caller that flushes subnormals computes without, and gets its own mode back. */
static void mode_is_default_inside_and_restored(void **state)
{
	(void)state;
	unsigned before = _mm_getcsr();
	for (unsigned threads = 1; threads <= 2; threads++) {
		struct kn_pool *pool;
		_mm_setcsr(before | FLUSH); /* workers start with the creator's mode */
		assert_int_equal(kn_pool_create(threads, &pool), CAD_OK);
		struct count c = { .threads = threads };
		kn_pool_for(pool, JOBS_MAX, count_job, &c);
		unsigned after = _mm_getcsr();
		_mm_setcsr(before);
		assert_int_equal(c.wrong_csr, 0);
		assert_int_equal(after & FLUSH, FLUSH);
		kn_pool_destroy(pool);
	}
}

struct chain {
	uint64_t values[2][JOBS_MAX];
	unsigned from;
};

static void chain_job(void *context, size_t job, unsigned thread)
{
	(void)thread;
	struct chain *c = context;
	c->values[!c->from][job] = c->values[c->from][JOBS_MAX - 1 - job] * 3 + job;
}

/* What one run wrote, the next one reads, on whatever thread (plain memory: the thread sanitizer
 * looks on). */
static void runs_see_each_other(void **state)
{
	(void)state;
	struct chain expected = { 0 }, got = { 0 };
	struct kn_pool *pool;
	assert_int_equal(kn_pool_create(3, &pool), CAD_OK);
	for (unsigned i = 0; i < 200; i++) {
		got.from = expected.from = i % 2;
		for (size_t job = 0; job < JOBS_MAX; job++)
			chain_job(&expected, job, 0);
		kn_pool_for(pool, JOBS_MAX, chain_job, &got);
	}

	kn_pool_destroy(pool);
	assert_memory_equal(&expected, &got, sizeof got);
}

static void pools_that_never_ran_end(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 50; i++) {
		struct kn_pool *pool;
		assert_int_equal(kn_pool_create(1 + i % 4, &pool), CAD_OK);
		kn_pool_destroy(pool);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_job_once),
		cmocka_unit_test(mode_is_default_inside_and_restored),
		cmocka_unit_test(runs_see_each_other),
		cmocka_unit_test(pools_that_never_ran_end),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
