/* SPDX-License-Identifier: Apache-2.0 */
/* The history: what is an entry of its own, what counts, how much is kept, what survives. */
#include "orchestration/placement/history.h"
#include "tests/support/must.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { SEEN_MAX = 8 };

struct seen {
	unsigned count;
	struct {
		char who[64], what[64], why[PL_HISTORY_TEXT_BYTES + 1], outcome[64];
		uint64_t id, first_ms, at_ms, times;
		bool has_predicted, has_measured;
		struct pl_effect predicted;
	} entries[SEEN_MAX]; /* the last ones */
};

struct world {
	struct pl_state *state;
	struct pl_history *history;
	struct seen seen;
};

static int setup(void **state)
{
	static struct world world;
	struct cad_error error;

	world = (struct world){ .state = NULL };
	must(pl_state_open("", &world.state, &error), &error);
	must(pl_history_open(world.state, &world.history, &error), &error);
	*state = &world;
	return 0;
}

static int teardown(void **state)
{
	struct world *world = *state;
	pl_history_close(world->history);
	pl_state_close(world->state);
	return 0;
}

static void on_entry(void *context, const struct pl_history_entry *entry)
{
	struct seen *seen = context;
	if (seen->count == SEEN_MAX)
		memmove(&seen->entries[0], &seen->entries[1], sizeof seen->entries - sizeof seen->entries[0]);
	else
		seen->count++;
	unsigned at = seen->count - 1;
	snprintf(seen->entries[at].who, sizeof seen->entries[at].who, "%s", entry->who);
	snprintf(seen->entries[at].what, sizeof seen->entries[at].what, "%s", entry->what);
	snprintf(seen->entries[at].why, sizeof seen->entries[at].why, "%s", entry->why);
	snprintf(seen->entries[at].outcome, sizeof seen->entries[at].outcome, "%s", entry->outcome);
	seen->entries[at].id = entry->id;
	seen->entries[at].first_ms = entry->first_ms;
	seen->entries[at].at_ms = entry->at_ms;
	seen->entries[at].times = entry->times;
	seen->entries[at].has_predicted = entry->has_predicted;
	seen->entries[at].has_measured = entry->has_measured;
	seen->entries[at].predicted = entry->predicted;
}

static struct seen *look(struct world *world, uint64_t since_ms)
{
	struct cad_error error;
	world->seen.count = 0;
	must(pl_history_read(world->history, since_ms, on_entry, &world->seen, &error), &error);
	return &world->seen;
}

static void what_an_operator_does_is_an_entry_each_time(void **state)
{
	struct world *world = *state;
	struct pl_history_entry entry = {
		.who = "alice", .what = "drain e3", .why = "disk", .outcome = "done", .at_ms = 1000
	};

	pl_history_add(world->history, &entry);
	entry.at_ms = 2000;
	pl_history_add(world->history, &entry);

	struct seen *seen = look(world, 0);
	assert_int_equal(seen->count, 2);
	assert_string_equal(seen->entries[0].who, "alice");
	assert_string_equal(seen->entries[0].what, "drain e3");
	assert_string_equal(seen->entries[0].why, "disk");
	assert_string_equal(seen->entries[0].outcome, "done");
	assert_int_equal(seen->entries[1].at_ms, 2000);
	assert_int_equal(look(world, 1500)->count, 1);
}

static void what_the_service_does_again_is_one_entry_that_counts(void **state)
{
	struct world *world = *state;
	struct pl_history_entry entry = { .who = PL_HISTORY_SERVICE,
		.what = "auto",
		.why = "too little to gain",
		.outcome = "not moved",
		.at_ms = 1000 };

	for (int i = 0; i < 3; i++, entry.at_ms += 500)
		pl_history_add(world->history, &entry);
	entry.why = "the gain is worth it";
	pl_history_add(world->history, &entry);
	entry.why = "too little to gain";
	pl_history_add(world->history, &entry);

	struct seen *seen = look(world, 0);
	assert_int_equal(seen->count, 3);
	assert_int_equal(seen->entries[0].times, 3);
	assert_int_equal(seen->entries[0].first_ms, 1000);
	assert_int_equal(seen->entries[0].at_ms, 2000);
	assert_int_equal(seen->entries[1].times, 1);
	assert_int_equal(seen->entries[2].times, 1);
}

static void effects_are_kept_as_far_as_they_are_known(void **state)
{
	struct world *world = *state;
	struct pl_history_entry entry = { .who = "alice", .what = "rebalance 1", .has_predicted = true };

	entry.predicted = PL_EFFECT_UNKNOWN;
	entry.predicted.before = (struct pl_point){ 2.82, 30000, 1.1 };
	pl_history_add(world->history, &entry);

	struct seen *seen = look(world, 0);
	assert_true(seen->entries[0].has_predicted);
	assert_false(seen->entries[0].has_measured);
	assert_true(seen->entries[0].predicted.before.nodes_per_token == 2.82);
	assert_false(pl_point_known(&seen->entries[0].predicted.after));
	assert_string_equal(seen->entries[0].why, "");
	assert_true(seen->entries[0].at_ms > 1764489600000);
}

static void old_entries_make_room_and_long_texts_are_cut(void **state)
{
	struct world *world = *state;
	struct cad_error error;
	char why[2 * PL_HISTORY_TEXT_BYTES];
	struct pl_history_entry entry = { .who = "alice", .what = "pin", .why = why };

	/* a character of two bytes lies across the end of what is kept */
	memset(why, 'x', sizeof why);
	memcpy(why + PL_HISTORY_TEXT_BYTES - 1, "\xc3\xa9", 2);
	why[sizeof why - 1] = 0;
	pl_state_begin(world->state); /* inside of a transaction it is part of that */
	for (int i = 0; i < PL_HISTORY_MAX + 2; i++)
		pl_history_add(world->history, &entry);
	must(pl_state_commit(world->state, &error), &error);

	struct seen *seen = look(world, 0);
	assert_int_equal(seen->entries[seen->count - 1].id, PL_HISTORY_MAX + 2);
	assert_int_equal(strlen(seen->entries[0].why), PL_HISTORY_TEXT_BYTES - 1);
	entry.at_ms = 1;
	pl_history_add(NULL, &entry); /* nothing is kept, and nothing happens */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_an_operator_does_is_an_entry_each_time, setup, teardown),
		cmocka_unit_test_setup_teardown(what_the_service_does_again_is_one_entry_that_counts, setup, teardown),
		cmocka_unit_test_setup_teardown(effects_are_kept_as_far_as_they_are_known, setup, teardown),
		cmocka_unit_test_setup_teardown(old_entries_make_room_and_long_texts_are_cut, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
