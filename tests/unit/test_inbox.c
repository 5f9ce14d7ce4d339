/* SPDX-License-Identifier: Apache-2.0 */
/* What other threads ask of the engine: limits with a sentence, wishes that are never lost and
 * never meet the wrong sequence, the newest map, memory that comes back; and all of it from many
 * threads. */
#include "router-svc/inbox.h"
#include "tests/support/must.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { PLACES = 3 };

static void count_wake(void *context) { atomic_fetch_add((_Atomic unsigned *)context, 1); }

static uint64_t submit(struct rt_inbox *inbox)
{
	struct cad_error error;
	uint64_t id = 0;
	struct rt_request request = { .prompt = (const int32_t[]){ 1, 2, 3 }, .prompt_count = 3 };
	must(rt_inbox_submit(inbox, &request, 10, 7, &id, &error), &error);
	return id;
}

/* Into `taken`, by id; returns how many. */
static uint32_t take(struct rt_inbox *inbox, struct rt_sequence_list *taken)
{
	uint32_t count = 0;
	for (struct rt_sequence *s = rt_inbox_submitted(inbox), *next; s; s = next, count++) {
		next = s->after;
		rt_list_add(taken, s);
	}
	return count;
}

static void end(struct rt_inbox *inbox, struct rt_sequence_list *taken, struct rt_sequence *sequence)
{
	rt_list_remove(taken, sequence);
	rt_inbox_give_back(inbox, sequence);
}

static void places_are_limited_and_come_back(void **state)
{
	(void)state;
	_Atomic unsigned wakes = 0;
	struct rt_inbox *inbox;
	struct rt_sequence_list taken = { 0 };
	must(rt_inbox_create(PLACES, count_wake, &wakes, &inbox), NULL);
	assert_false(rt_inbox_news(inbox));

	uint64_t before = 0;
	for (int i = 0; i < PLACES; i++) {
		uint64_t id = submit(inbox);
		assert_true(id > before); /* older ids first */
		before = id;
	}
	assert_int_equal(wakes, 1); /* there were news already */

	struct rt_request request = { .prompt = (const int32_t[]){ 1 }, .prompt_count = 1 };
	struct cad_error error;
	uint64_t id = 99;
	assert_int_equal(rt_inbox_submit(inbox, &request, 10, 0, &id, &error), CAD_ERR_EXHAUSTED);
	assert_non_null(strstr(error.text, "3 requests are running, waiting or paused"));
	assert_int_equal(id, 99);

	assert_true(rt_inbox_news(inbox));
	assert_false(rt_inbox_news(inbox));
	assert_int_equal(take(inbox, &taken), PLACES);
	assert_int_equal(taken.first->tokens[2], 3); /* a copy */
	end(inbox, &taken, taken.first->after);
	id = submit(inbox);
	assert_true(id > before);
	assert_int_equal(wakes, 2);
	assert_int_equal(take(inbox, &taken), 1);
	assert_true(taken.last->id == id);
	for (int i = 0; i < PLACES; i++)
		end(inbox, &taken, taken.first);
	rt_inbox_destroy(inbox);
}

static enum cad_status submit_trial(struct rt_inbox *inbox)
{
	const struct rt_request trial = { .prompt = (const int32_t[]){ 1 }, .prompt_count = 1, .trial = true };
	struct cad_error error;
	uint64_t id;
	return rt_inbox_submit(inbox, &trial, 2, 0, &id, &error);
}

/* A trial neither takes a request's place nor waits for one. */
static void a_trial_has_a_place_of_its_own(void **state)
{
	(void)state;
	_Atomic unsigned wakes = 0;
	struct rt_inbox *inbox;
	struct rt_sequence_list taken = { 0 };
	const struct rt_request request = { .prompt = (const int32_t[]){ 1 }, .prompt_count = 1 };
	struct cad_error error;
	uint64_t id;
	must(rt_inbox_create(PLACES, count_wake, &wakes, &inbox), NULL);

	for (int i = 0; i < PLACES; i++)
		submit(inbox);
	assert_int_equal(submit_trial(inbox), CAD_OK);
	assert_int_equal(submit_trial(inbox), CAD_ERR_EXHAUSTED);
	assert_int_equal(rt_inbox_submit(inbox, &request, 10, 0, &id, &error), CAD_ERR_EXHAUSTED);
	assert_int_equal(take(inbox, &taken), PLACES + 1);
	while (taken.first)
		end(inbox, &taken, taken.first);

	assert_int_equal(submit_trial(inbox), CAD_OK);
	for (int i = 0; i < PLACES; i++)
		submit(inbox);
	assert_int_equal(rt_inbox_submit(inbox, &request, 10, 0, &id, &error), CAD_ERR_EXHAUSTED);
	assert_non_null(strstr(error.text, "3 requests are running, waiting or paused"));
	assert_int_equal(take(inbox, &taken), PLACES + 1);
	end(inbox, &taken, taken.first); /* the trial */
	assert_int_equal(rt_inbox_submit(inbox, &request, 10, 0, &id, &error), CAD_ERR_EXHAUSTED);
	assert_int_equal(submit_trial(inbox), CAD_OK);
	assert_int_equal(take(inbox, &taken), 1);
	while (taken.first)
		end(inbox, &taken, taken.first);
	rt_inbox_destroy(inbox);
}

static void wishes_meet_their_sequence_alone(void **state)
{
	(void)state;
	_Atomic unsigned wakes = 0;
	struct rt_inbox *inbox;
	struct rt_sequence_list taken = { 0 };
	must(rt_inbox_create(1, count_wake, &wakes, &inbox), NULL);
	uint64_t first = submit(inbox);
	rt_inbox_pause(inbox, first, true); /* before the engine has taken it */
	assert_int_equal(take(inbox, &taken), 1);
	assert_true(rt_inbox_wishes(inbox, taken.first).pause);
	rt_inbox_pause(inbox, first, false);
	rt_inbox_cancel(inbox, first);
	struct rt_wishes wishes = rt_inbox_wishes(inbox, taken.first);
	assert_true(wishes.cancel && !wishes.pause);

	/* The place goes to another; late wishes for the first find nobody, and make no news. */
	end(inbox, &taken, taken.first);
	uint64_t second = submit(inbox);
	assert_int_equal(take(inbox, &taken), 1);
	(void)rt_inbox_news(inbox);
	rt_inbox_cancel(inbox, first);
	rt_inbox_pause(inbox, first, true);
	rt_inbox_cancel(inbox, 0);
	assert_false(rt_inbox_news(inbox));
	wishes = rt_inbox_wishes(inbox, taken.first);
	assert_true(!wishes.cancel && !wishes.pause && taken.first->id == second);
	end(inbox, &taken, taken.first);
	rt_inbox_cancel(inbox, second); /* and nobody at all */
	assert_false(rt_inbox_news(inbox));
	rt_inbox_destroy(inbox);
}

static struct cad_map *map_of(uint64_t epoch)
{
	static const struct cad_map_node node = { "n", "n", "", true, 0 };
	struct cad_map_source source = { .epoch = epoch, .nodes = &node, .nodes_count = 1 };
	struct cad_map *map;
	struct cad_error error;
	must(cad_map_create(&source, &map, &error), &error);
	return map;
}

static void put_map(struct rt_inbox *inbox, uint64_t epoch)
{
	struct cad_map *map = map_of(epoch);
	rt_inbox_map(inbox, map);
	cad_map_release(map);
}

static void the_newest_map_is_taken(void **state)
{
	(void)state;
	_Atomic unsigned wakes = 0;
	struct rt_inbox *inbox;
	must(rt_inbox_create(1, count_wake, &wakes, &inbox), NULL);
	assert_null(rt_inbox_newest_map(inbox));
	put_map(inbox, 4);
	put_map(inbox, 6);
	put_map(inbox, 5);
	struct cad_map *map = rt_inbox_newest_map(inbox);
	assert_int_equal(map->epoch, 6);
	assert_null(rt_inbox_newest_map(inbox));

	/* Two go back before the next comes: one that was just taken, one that the next
	 * replaces. */
	put_map(inbox, 7);
	rt_inbox_give_back_map(inbox, map);
	rt_inbox_give_back_map(inbox, rt_inbox_newest_map(inbox));
	rt_inbox_give_back_map(inbox, NULL);
	put_map(inbox, 8); /* never taken: a leak would be seen by AddressSanitizer */
	rt_inbox_destroy(inbox);
}

/* ---- many threads ---- */

enum { THREADS = 4, REQUESTS = 400, STORM_PLACES = 6 };

struct storm {
	struct rt_inbox *inbox;
	_Atomic uint32_t submitted, cancelled, asking;
};

static void *ask(void *argument)
{
	struct storm *storm = argument;
	for (int i = 0; i < REQUESTS; i++) {
		struct rt_request request = { .prompt = (const int32_t[]){ 1 }, .prompt_count = 1 };
		struct cad_error error;
		uint64_t id;
		while (rt_inbox_submit(storm->inbox, &request, 4, 0, &id, &error) == CAD_ERR_EXHAUSTED)
			sched_yield();
		atomic_fetch_add(&storm->submitted, 1);
		rt_inbox_pause(storm->inbox, id, true);
		rt_inbox_pause(storm->inbox, id, false);
		rt_inbox_cancel(storm->inbox, id);
		rt_inbox_pause(storm->inbox, id, i % 2); /* may come too late */
	}
	atomic_fetch_sub(&storm->asking, 1);
	return NULL;
}

/* Every sequence ends by being cancelled: a wish that got lost would keep its place for ever. */
static void wishes_of_many_threads(void **state)
{
	(void)state;
	_Atomic unsigned wakes = 0;
	struct storm storm = { .asking = THREADS };
	pthread_t threads[THREADS];
	struct rt_sequence_list taken = { 0 };
	uint64_t epoch = 1;
	must(rt_inbox_create(STORM_PLACES, count_wake, &wakes, &storm.inbox), NULL);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, ask, &storm), 0);

	for (bool asking = true; asking || taken.first;) {
		asking = atomic_load(&storm.asking) > 0; /* before looking: nothing comes after that */
		take(storm.inbox, &taken);
		assert_true(taken.count <= STORM_PLACES);
		for (struct rt_sequence *s = taken.first, *next; s; s = next) {
			next = s->after;
			if (!rt_inbox_wishes(storm.inbox, s).cancel)
				continue;
			end(storm.inbox, &taken, s);
			atomic_fetch_add(&storm.cancelled, 1);
		}
		put_map(storm.inbox, epoch++);
		rt_inbox_give_back_map(storm.inbox, rt_inbox_newest_map(storm.inbox));
		sched_yield();
	}

	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(storm.submitted, THREADS * REQUESTS);
	assert_int_equal(storm.cancelled, THREADS * REQUESTS);
	rt_inbox_destroy(storm.inbox);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(places_are_limited_and_come_back),
		cmocka_unit_test(a_trial_has_a_place_of_its_own),
		cmocka_unit_test(wishes_meet_their_sequence_alone),
		cmocka_unit_test(the_newest_map_is_taken),
		cmocka_unit_test(wishes_of_many_threads),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
