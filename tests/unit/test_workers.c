/* SPDX-License-Identifier: Apache-2.0 */
/* Every round of a loop runs once, whoever runs it, loops inside loops too. */
#include "common/base/workers.h"

#include "tests/support/must.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

enum { ROUNDS = 100, INNER = 30, STARTERS = 3 };

static struct cad_workers *start(unsigned threads)
{
	struct cad_workers *workers;
	struct cad_error error;
	must(cad_workers_create(threads, &workers, &error), &error);
	return workers;
}

struct count {
	struct cad_workers *workers;
	size_t grain;
	_Atomic unsigned runs[ROUNDS], wide, strangers;
	pthread_t self;
};

static void count_rounds(void *context, size_t begin, size_t end)
{
	struct count *count = context;
	if (end - begin > count->grain)
		atomic_fetch_add(&count->wide, 1);
	if (!pthread_equal(pthread_self(), count->self))
		atomic_fetch_add(&count->strangers, 1);
	for (size_t i = begin; i < end; i++)
		atomic_fetch_add(&count->runs[i], 1);
}

static void run_and_check(struct cad_workers *workers, size_t rounds, size_t grain, struct count *count)
{
	*count = (struct count){ .grain = grain, .self = pthread_self() };
	cad_workers_for(workers, rounds, grain, count_rounds, count);
	for (size_t i = 0; i < ROUNDS; i++)
		assert_int_equal(count->runs[i], i < rounds);
	assert_int_equal(count->wide, 0);
}

static void each_round_once(void **state)
{
	(void)state;
	static const size_t rounds[] = { 0, 1, 2, 7, 99, ROUNDS }, grains[] = { 1, 2, 3, 7, 1000 };
	struct count count;

	for (unsigned threads = 0; threads <= 4; threads++) { /* 0: no workers at all */
		struct cad_workers *workers = threads ? start(threads) : NULL;
		for (size_t i = 0; i < sizeof rounds / sizeof *rounds; i++)
			for (size_t j = 0; j < sizeof grains / sizeof *grains; j++) {
				run_and_check(workers, rounds[i], workers ? grains[j] : ROUNDS, &count);
				if (threads <= 1)
					assert_int_equal(count.strangers, 0);
			}
		cad_workers_destroy(workers);
	}
}

static void count_inner(void *context, size_t begin, size_t end)
{
	struct count *outer = context;
	for (size_t i = begin; i < end; i++) {
		struct count inner = { .grain = 4, .self = pthread_self() };
		cad_workers_for(outer->workers, INNER, inner.grain, count_rounds, &inner);
		bool right = inner.wide == 0;
		for (size_t r = 0; r < INNER; r++)
			right = right && inner.runs[r] == 1;
		atomic_fetch_add(&outer->runs[i], right ? 1 : 2);
	}
}

static void *start_nested(void *context)
{
	struct count *count = context;
	cad_workers_for(count->workers, ROUNDS, count->grain, count_inner, count);
	return NULL;
}

/* Three threads start loops at the same time, and each round starts one of its own. */
static void loops_inside_loops(void **state)
{
	(void)state;
	for (unsigned threads = 1; threads <= 4; threads++) {
		struct cad_workers *workers = start(threads);
		struct count *counts = calloc(STARTERS, sizeof *counts);
		pthread_t starters[STARTERS];
		for (size_t i = 0; i < STARTERS; i++) {
			counts[i].workers = workers;
			counts[i].grain = i + 1;
			assert_int_equal(pthread_create(&starters[i], NULL, start_nested, &counts[i]), 0);
		}
		for (size_t i = 0; i < STARTERS; i++)
			pthread_join(starters[i], NULL);
		for (size_t i = 0; i < STARTERS; i++)
			for (size_t r = 0; r < ROUNDS; r++)
				assert_int_equal(counts[i].runs[r], 1);
		free(counts);
		cad_workers_destroy(workers);
	}
}

struct meeting {
	_Atomic unsigned inside;
	_Atomic bool met;
};

/* A round that waits, for seconds at most, until another thread has the other one. */
static void meet(void *context, size_t begin, size_t end)
{
	struct meeting *meeting = context;
	(void)begin, (void)end;
	atomic_fetch_add(&meeting->inside, 1);
	for (int i = 0; i < 5000 && !atomic_load(&meeting->met); i++) {
		if (atomic_load(&meeting->inside) == 2)
			atomic_store(&meeting->met, true);
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	}
}

static void helpers_help(void **state)
{
	(void)state;
	struct cad_workers *workers = start(2);
	struct meeting meeting = { 0 };
	cad_workers_for(workers, 2, 1, meet, &meeting);
	assert_true(meeting.met);
	cad_workers_destroy(workers);
}

static void retired_helpers_do_not(void **state)
{
	(void)state;
	struct cad_workers *workers = start(3);
	struct count count;
	cad_workers_retire(workers);
	for (size_t i = 0; i < 50; i++) {
		run_and_check(workers, ROUNDS, 1, &count);
		assert_int_equal(count.strangers, 0);
	}
	cad_workers_destroy(workers);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_round_once),
		cmocka_unit_test(loops_inside_loops),
		cmocka_unit_test(helpers_help),
		cmocka_unit_test(retired_helpers_do_not),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
