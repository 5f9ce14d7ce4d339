/* SPDX-License-Identifier: Apache-2.0 */
/* Rebalances, by a simulated clock and over a ground that does as it is told: each state, each way
 * out of it, and a restart in each. */
#include "orchestration/placement/rebalance.h"
#include "tests/support/must.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LAYERS = 1, EXPERTS = 4, NODES = 2, RECENT_S = 900 };

struct world {
	struct pl_state *state;
	struct pl_history *history;
	struct pl_rebalance_table *table;
	struct pl_rebalances *rebalances;
	struct cad_clock clock;
	uint64_t now_ns, unix_ms;
	/* of the ground */
	struct pl_control_progress progress;
	const char *refusal;         /* of check and apply; NULL: they agree */
	bool measured, judged, kept; /* kept: a plan is in force */
	unsigned planned, cancelled, applied, paused, resumed, stopped;
	uint64_t rate, from_ns, to_ns; /* as asked for last */
	struct pl_plan *plan;          /* that was put in force last */
	struct pl_plan *recent;        /* that the last order has */
	bool turned;                   /* the present plan */
	char last[600];                /* outcome of the history's last entry, and how many there are */
	unsigned entries;
};

static uint64_t now(void *context) { return ((struct world *)context)->now_ns; }

/* Expert e is on node e / 2 % 2, or with `turned` on the other. */
static struct pl_plan *make_plan(bool turned)
{
	struct pl_plan *plan;
	assert_int_equal(pl_plan_create(LAYERS, EXPERTS, NODES, &plan), CAD_OK);
	for (uint32_t e = 0; e < EXPERTS; e++)
		pl_plan_put(plan, 0, e, (e / 2 + turned) % 2);
	return plan;
}

static enum cad_status situation(void *context, struct pl_situation *found, struct cad_error *error)
{
	*found = (struct pl_situation){ .present = make_plan(((struct world *)context)->turned) };
	must(pl_cluster_create(NODES, 0, &found->cluster, error), error);
	found->cluster.expert_bytes = 1 << 20;
	for (uint32_t n = 0; n < NODES; n++)
		found->cluster.nodes[n].memory_bytes = 3 << 20;
	return CAD_OK;
}

static enum cad_status check(
	void *context, const struct pl_cluster *nodes, const struct pl_plan *plan, struct cad_error *error)
{
	const struct world *world = context;
	assert_int_equal(nodes->nodes_count, plan->nodes);
	return world->refusal ? cad_error_set(error, CAD_ERR_INVALID, "%s", world->refusal) : CAD_OK;
}

static enum cad_status apply(void *context, const struct pl_cluster *nodes, const struct pl_plan *plan,
	uint64_t bytes_per_second, struct cad_error *error)
{
	struct world *world = context;
	uint32_t same[NODES] = { 0, 1 };
	if (world->refusal)
		return check(context, nodes, plan, error);
	world->applied++;
	world->kept = true;
	world->rate = bytes_per_second;
	pl_plan_free(world->plan);
	return pl_plan_renumber(plan, same, NODES, &world->plan);
}

static void pause_moves(void *context, bool paused)
{
	struct world *world = context;
	*(paused ? &world->paused : &world->resumed) += 1;
}

static enum cad_status stop(void *context, struct cad_error *error)
{
	(void)error;
	((struct world *)context)->stopped++;
	return CAD_OK;
}

static void progress(void *context, struct pl_control_progress *made)
{
	*made = ((struct world *)context)->progress;
	made->in_force = ((struct world *)context)->kept;
}

static bool figures(void *context, uint64_t from_ns, uint64_t to_ns, struct pl_point *point)
{
	struct world *world = context;
	world->from_ns = from_ns;
	world->to_ns = to_ns;
	*point = (struct pl_point){ 2.5, 1000, 1.1 };
	return world->measured;
}

static enum cad_status trace(void *context, struct pl_trace **made, struct cad_error *error)
{
	(void)context;
	return pl_trace_create(LAYERS, EXPERTS, 2, 2310, false, made, error);
}

static enum cad_status plan(void *context, struct pl_planning_order *order, struct cad_error *error)
{
	struct world *world = context;
	world->planned++;
	pl_plan_free(world->recent);
	must(pl_planning_take_recent(order, error), error);
	world->recent = order->recent;
	order->recent = NULL;
	pl_planning_order_fini(order);
	return CAD_OK;
}

static void plan_cancel(void *context) { ((struct world *)context)->cancelled++; }

static bool judge(void *context, const struct pl_planning_result *result, char reason[PL_REBALANCE_TEXT_BYTES])
{
	(void)result;
	snprintf(reason, PL_REBALANCE_TEXT_BYTES, "it is worth it");
	return ((struct world *)context)->judged;
}

static void open_rebalances(struct world *world)
{
	struct cad_error error;
	must(pl_rebalance_table_open(world->state, &world->table, &error), &error);
	const struct pl_rebalances_options options = {
		.table = world->table,
		.history = world->history,
		.clock = &world->clock,
		.unix_ms = world->unix_ms,
		.recent_ms = RECENT_S * 1000,
		.ground = { situation, check, apply, pause_moves, stop, progress, figures, trace, plan, plan_cancel,
			judge, world },
	};
	must(pl_rebalances_create(&options, &world->rebalances, &error), &error);
}

static int setup(void **state)
{
	static struct world world;
	struct cad_error error;

	world = (struct world){ .now_ns = 1000 * CAD_NS_PER_S, .unix_ms = 1764489600000, .measured = true };
	world.clock = (struct cad_clock){ now, &world };
	must(pl_state_open("", &world.state, &error), &error);
	must(pl_history_open(world.state, &world.history, &error), &error);
	open_rebalances(&world);
	*state = &world;
	return 0;
}

static int teardown(void **state)
{
	struct world *world = *state;
	pl_rebalances_destroy(world->rebalances);
	pl_rebalance_table_close(world->table);
	pl_history_close(world->history);
	pl_state_close(world->state);
	pl_plan_free(world->plan);
	pl_plan_free(world->recent);
	return 0;
}

/* The process is another one, `seconds` later; its clock begins anywhere. */
static void restart(struct world *world, uint64_t seconds)
{
	pl_rebalances_destroy(world->rebalances);
	pl_rebalance_table_close(world->table);
	world->unix_ms += (world->now_ns - 1000 * CAD_NS_PER_S) / CAD_NS_PER_MS + seconds * 1000;
	world->now_ns = 1000 * CAD_NS_PER_S;
	world->progress = (struct pl_control_progress){ 0 };
	open_rebalances(world);
}

static enum cad_status start(struct world *world, bool dry_run, uint64_t *id, struct cad_error *error)
{
	struct pl_wish wish = {
		.kind = PL_REBALANCE_SEARCH,
		.who = "alice",
		.reason = "because",
		.dry_run = dry_run,
		.copies = -1,
		.bytes_per_second = 77,
	};
	return pl_rebalances_start(world->rebalances, &wish, id, error);
}

static void planned_as(struct world *world, enum cad_status status)
{
	struct pl_planning_result result = {
		.status = status,
		.before = make_plan(false),
		.plan = make_plan(true),
		.predicted = { { 2.8, 1400, 1.2 }, { 2.3, 1150, 1.1 } },
		.moves = { .loads = 4, .frees = 4, .bytes = 4 << 20 },
		.seconds = 5,
		.tokens_planned = 2000,
		.tokens_measured = 310,
	};
	struct cad_error error;

	must(pl_cluster_create(NODES, 0, &result.nodes, &error), &error);
	if (status != CAD_OK)
		cad_error_set(&result.error, status, "the trace is of another model");
	pl_rebalances_planned(world->rebalances, &result);
	pl_planning_result_fini(&result);
}

static void turn(struct world *world, uint64_t seconds)
{
	world->now_ns += seconds * CAD_NS_PER_S;
	(void)pl_rebalances_turn(world->rebalances);
}

/* One second later `done` of 4 moves are done. */
static void move(struct world *world, uint32_t done)
{
	world->progress = (struct pl_control_progress){
		.moves = 4,
		.done = done,
		.in_flight = done < 4,
		.bytes = 4 << 20,
		.bytes_done = (uint64_t)done << 20,
		.moved_ns = world->now_ns + CAD_NS_PER_S,
		.settled = done == 4,
	};
	world->progress.freed_ns = done == 4 ? world->progress.moved_ns : 0;
	turn(world, 1);
}

static uint64_t run_to_done(struct world *world)
{
	struct cad_error error;
	uint64_t id;
	must(start(world, false, &id, &error), &error);
	planned_as(world, CAD_OK);
	move(world, 2);
	move(world, 4);
	return id;
}

static struct pl_rebalance get(struct world *world, uint64_t id)
{
	struct pl_rebalance r;
	struct cad_error error;
	must(pl_rebalances_get(world->rebalances, id, &r, &error), &error);
	return r;
}

static bool is_known(struct pl_point point) { return pl_point_known(&point); }

static void expect_state(struct world *world, uint64_t id, enum pl_rebalance_state state)
{
	assert_string_equal(pl_rebalance_state_name(get(world, id).state), pl_rebalance_state_name(state));
}

static void refuses(enum cad_status status, const struct cad_error *error, const char *says)
{
	assert_int_not_equal(status, CAD_OK);
	if (!strstr(error->text, says))
		fail_msg("'%s' does not say '%s'", error->text, says);
}

static enum cad_status change(
	struct world *world, uint64_t id, enum pl_rebalance_action action, uint64_t *answer, struct cad_error *error)
{
	return pl_rebalances_change(world->rebalances, id, action, "bob", "why not", false, answer, error);
}

static void on_entry(void *context, const struct pl_history_entry *entry)
{
	struct world *world = context;
	world->entries++;
	snprintf(world->last, sizeof world->last, "%s %s: %s", entry->who, entry->what, entry->outcome);
}

static void read_history(struct world *world)
{
	struct cad_error error;
	world->entries = 0;
	must(pl_history_read(world->history, 0, on_entry, world, &error), &error);
}

/* ---- there ---- */

static void a_search_is_put_in_force_followed_and_measured(void **state)
{
	struct world *world = *state;
	struct cad_error error;
	uint64_t id;

	must(start(world, false, &id, &error), &error);
	assert_int_equal(id, 1);
	expect_state(world, 0, PL_REBALANCE_PLANNING);
	assert_int_equal(world->applied, 0);

	planned_as(world, CAD_OK);
	expect_state(world, 1, PL_REBALANCE_RUNNING);
	assert_non_null(strstr(get(world, 0).warning, "2310 tokens"));
	assert_int_equal(world->applied, 1);
	assert_int_equal(world->rate, 77);
	assert_true(pl_plan_holds(world->plan, 0, 0, 1)); /* the new one */
	assert_int_equal(world->to_ns - world->from_ns, 60 * CAD_NS_PER_S);

	move(world, 3);
	assert_int_equal(get(world, 1).moves_done, 3);
	assert_true(pl_rebalances_busy(world->rebalances));
	move(world, 4);
	struct pl_rebalance r = get(world, 1);
	assert_int_equal(r.state, PL_REBALANCE_DONE);
	assert_true(r.measuring && !pl_point_known(&r.measured.after) && pl_point_known(&r.measured.before));
	assert_true(r.seconds == 2 && r.bytes_done == 4 << 20);
	assert_false(pl_rebalances_busy(world->rebalances));

	turn(world, 59);
	assert_true(get(world, 1).measuring);
	turn(world, 1);
	r = get(world, 1);
	assert_false(r.measuring);
	assert_true(r.measured.after.nodes_per_token == 2.5);
	assert_int_equal(world->to_ns - world->from_ns, 50 * CAD_NS_PER_S);
	assert_null(pl_rebalances_current(world->rebalances));
	read_history(world);
	assert_int_equal(world->entries, 3); /* in force, done, measured */
	assert_string_equal(world->last, "alice rebalance (1): measured");
	assert_int_equal(pl_rebalances_stats(world->rebalances)->ended[PL_REBALANCE_DONE], 1);
	assert_int_equal(pl_rebalances_stats(world->rebalances)->moves, 4);
}

static void without_requests_nothing_is_measured_and_that_is_said(void **state)
{
	struct world *world = *state;

	world->measured = false;
	run_to_done(world);
	turn(world, 60);
	struct pl_rebalance r = get(world, 1);
	assert_false(r.measuring || pl_point_known(&r.measured.after) || pl_point_known(&r.measured.before));
	assert_non_null(strstr(r.text, "not measured: no requests were served"));
}

static void a_dry_run_changes_nothing(void **state)
{
	struct world *world = *state;
	struct cad_error error;
	uint64_t id;

	must(start(world, true, &id, &error), &error);
	planned_as(world, CAD_OK);
	struct pl_rebalance r = get(world, id);
	assert_true(r.dry_run && r.state == PL_REBALANCE_DONE && r.moves == 4 && pl_point_known(&r.predicted.after));
	assert_int_equal(world->applied, 0);
	read_history(world);
	assert_int_equal(world->entries, 0);
	restart(world, 1);
	refuses(pl_rebalances_get(world->rebalances, id, &r, &error), &error, "there is no rebalance 1");
}

static void moves_that_were_backed_out_are_told(void **state)
{
	struct world *world = *state;
	struct cad_error error;
	uint64_t id;

	must(start(world, false, &id, &error), &error);
	planned_as(world, CAD_OK);
	world->progress = (struct pl_control_progress){
		.moves = 4, .done = 3, .failed = 1, .settled = true, .text = "e1 is full"
	};
	turn(world, 1);
	expect_state(world, id, PL_REBALANCE_DONE);
	assert_non_null(strstr(get(world, id).text, "1 move was backed out: e1 is full"));

	must(start(world, false, &id, &error), &error);
	planned_as(world, CAD_OK);
	world->progress =
		(struct pl_control_progress){ .moves = 4, .done = 2, .settled = true, .text = "the nodes are full" };
	turn(world, 1);
	assert_string_equal(get(world, id).text, "the nodes are full");

	must(start(world, false, &id, &error), &error);
	planned_as(world, CAD_OK);
	world->progress =
		(struct pl_control_progress){ .moves = 4, .failed = 4, .settled = true, .text = "e1 is full" };
	turn(world, 1);
	expect_state(world, id, PL_REBALANCE_FAILED);
}

/* ---- refused ---- */

static void a_second_one_is_refused_by_the_firsts_name(void **state)
{
	struct world *world = *state;
	struct cad_error error;
	uint64_t id;

	must(start(world, false, &id, &error), &error);
	refuses(start(world, false, &id, &error), &error, "rebalance 1 (by alice) is being planned");
	planned_as(world, CAD_OK);
	move(world, 3);
	refuses(start(world, false, &id, &error), &error, "rebalance 1 (by alice) is running, with 3 of 4 moves done");
	move(world, 4);
	must(start(world, false, &id, &error), &error); /* while the first is being measured */
	assert_int_equal(id, 2);
	assert_true(get(world, 1).measuring);
	turn(world, 20);
	planned_as(world, CAD_OK);
	assert_true(is_known(get(world, 1).measured.after)); /* of the ten seconds that there were */
	assert_int_equal(world->applied, 2);
}

static void what_fails_says_why_and_moves_nothing(void **state)
{
	struct world *world = *state;
	struct cad_error error;
	uint64_t id;

	must(start(world, false, &id, &error), &error);
	planned_as(world, CAD_ERR_INVALID);
	expect_state(world, id, PL_REBALANCE_FAILED);
	assert_string_equal(get(world, id).text, "the trace is of another model");

	must(start(world, false, &id, &error), &error);
	world->refusal = "node 'n1' is gone";
	planned_as(world, CAD_OK);
	expect_state(world, id, PL_REBALANCE_FAILED);
	assert_non_null(strstr(get(world, id).text, "the cluster changed while the plan was made"));
	assert_non_null(strstr(get(world, id).text, "node 'n1' is gone"));
	assert_int_equal(world->applied, 0);
	assert_int_equal(pl_rebalances_stats(world->rebalances)->ended[PL_REBALANCE_FAILED], 2);

	struct pl_wish busy = { .kind = PL_REBALANCE_SEARCH, .who = "alice", .reason = "", .encoded = malloc(8) };
	must(start(world, false, &id, &error), &error);
	refuses(pl_rebalances_start(world->rebalances, &busy, &id, &error), &error, "is being planned");
	assert_null(busy.encoded); /* taken, whatever became of it */
	must(change(world, id, PL_REBALANCE_CANCEL, &id, &error), &error);

	struct pl_wish many = { .kind = PL_REBALANCE_SEARCH, .who = "alice", .reason = "", .copies = 1 };
	refuses(pl_rebalances_start(world->rebalances, &many, &id, &error), &error, "ask for at most 50 %");
	refuses(change(world, 99, PL_REBALANCE_CANCEL, &id, &error), &error, "there is no rebalance 99");
	refuses(change(world, 0, PL_REBALANCE_CANCEL, &id, &error), &error, "say which rebalance");
}

/* ---- changed ---- */

static void pause_resume_and_cancel(void **state)
{
	struct world *world = *state;
	struct cad_error error;
	uint64_t id, answer;

	must(start(world, false, &id, &error), &error);
	refuses(change(world, id, PL_REBALANCE_PAUSE, &answer, &error), &error, "only one that is running can");
	must(change(world, id, PL_REBALANCE_CANCEL, &answer, &error), &error);
	assert_int_equal(world->cancelled, 1);
	expect_state(world, id, PL_REBALANCE_CANCELLED);

	must(start(world, false, &id, &error), &error);
	planned_as(world, CAD_OK);
	refuses(change(world, id, PL_REBALANCE_RESUME, &answer, &error), &error, "only one that is paused can");
	must(change(world, id, PL_REBALANCE_PAUSE, &answer, &error), &error);
	expect_state(world, id, PL_REBALANCE_PAUSED);
	world->progress = (struct pl_control_progress){ .moves = 4, .done = 1, .settled = true };
	turn(world, 5);
	expect_state(world, id, PL_REBALANCE_PAUSED); /* that nothing is left to do does not end a pause */
	must(change(world, id, PL_REBALANCE_RESUME, &answer, &error), &error);
	assert_int_equal(world->paused + world->resumed, 2);
	move(world, 2);
	must(pl_rebalances_change(world->rebalances, id, PL_REBALANCE_CANCEL, "bob", "", true, &answer, &error),
		&error);
	expect_state(world, id, PL_REBALANCE_RUNNING); /* that was a dry run */
	must(change(world, id, PL_REBALANCE_CANCEL, &answer, &error), &error);
	assert_int_equal(world->stopped, 1);
	assert_non_null(strstr(get(world, id).text, "after 2 of 4 moves"));
	refuses(change(world, id, PL_REBALANCE_CANCEL, &answer, &error), &error,
		"is cancelled and cannot be cancelled");
	read_history(world);
	assert_string_equal(world->last, "bob cancel rebalance 2: done");
}

static void undo_leads_back(void **state)
{
	struct world *world = *state;
	struct cad_error error;
	uint64_t first = run_to_done(world), second, undo;

	must(change(world, first, PL_REBALANCE_GO_BACK, &undo, &error), &error);
	assert_int_equal(undo, 2);
	assert_int_equal(get(world, undo).undoes, first);
	struct pl_planning_result back = {
		.before = make_plan(true), .plan = make_plan(false), .moves = { .loads = 4 }
	};
	must(pl_cluster_create(NODES, 0, &back.nodes, &error), &error);
	pl_rebalances_planned(world->rebalances, &back);
	pl_planning_result_fini(&back);
	assert_true(pl_plan_holds(world->plan, 0, 0, 0)); /* as before */
	expect_state(world, first, PL_REBALANCE_DONE);
	move(world, 4);
	expect_state(world, first, PL_REBALANCE_UNDONE);
	assert_int_equal(get(world, first).undone_by, undo);
	refuses(change(world, first, PL_REBALANCE_GO_BACK, &undo, &error), &error, "was undone by rebalance 2");

	first = run_to_done(world);
	second = run_to_done(world);
	refuses(change(world, first, PL_REBALANCE_GO_BACK, &undo, &error), &error, "undo that one first");
	must(change(world, second, PL_REBALANCE_GO_BACK, &undo, &error), &error);
	refuses(change(world, first, PL_REBALANCE_GO_BACK, &undo, &error), &error, "is being planned");
}

static void undo_of_one_that_runs_stops_it_first(void **state)
{
	struct world *world = *state;
	struct cad_error error;
	uint64_t id, undo;

	must(start(world, false, &id, &error), &error);
	refuses(change(world, id, PL_REBALANCE_GO_BACK, &undo, &error), &error, "it has moved nothing");
	planned_as(world, CAD_OK);
	move(world, 2);
	must(change(world, id, PL_REBALANCE_GO_BACK, &undo, &error), &error);
	expect_state(world, id, PL_REBALANCE_CANCELLED);
	assert_int_equal(world->stopped, 1);
	planned_as(world, CAD_OK);
	move(world, 4);
	expect_state(world, id, PL_REBALANCE_UNDONE);
}

/* ---- restarts ---- */

static void a_restart_ends_planning(void **state)
{
	struct world *world = *state;
	struct cad_error error;
	uint64_t id;

	run_to_done(world);
	must(start(world, false, &id, &error), &error);
	restart(world, 1);
	expect_state(world, id, PL_REBALANCE_FAILED);
	assert_non_null(strstr(get(world, id).text, "restarted while it was being planned"));
	assert_true(get(world, 1).measuring); /* of the one before */
	must(start(world, false, &id, &error), &error);
	assert_int_equal(id, 3);
}

static void what_runs_goes_on_after_a_restart(void **state)
{
	struct world *world = *state;
	struct cad_error error;
	uint64_t id, answer;

	must(start(world, false, &id, &error), &error);
	planned_as(world, CAD_OK);
	move(world, 1);
	must(change(world, id, PL_REBALANCE_PAUSE, &answer, &error), &error);
	world->progress = (struct pl_control_progress){ .moves = 1, .done = 1 }; /* none are to come now */
	turn(world, 1);
	assert_true(get(world, id).moves == 4 && get(world, id).moves_done == 1);
	restart(world, 5);
	turn(world, 1);
	assert_int_equal(world->applied, 1); /* the service has it */
	world->kept = false;
	restart(world, 5);
	world->refusal = "node 'n1' is not there yet";
	turn(world, 10);
	assert_int_equal(world->applied, 1);
	expect_state(world, id, PL_REBALANCE_PAUSED);
	world->refusal = NULL;
	turn(world, 1);
	assert_int_equal(world->applied, 2);
	assert_int_equal(world->rate, 77);
	assert_true(pl_plan_holds(world->plan, 0, 0, 1));
	assert_int_equal(world->paused, 2);
	turn(world, 1);
	must(change(world, id, PL_REBALANCE_RESUME, &answer, &error), &error);
	world->progress.moves = 3;
	turn(world, 1);
	assert_true(get(world, id).moves == 4 && get(world, id).moves_done == 1);
	world->progress =
		(struct pl_control_progress){ .moves = 3, .done = 3, .settled = true, .moved_ns = world->now_ns };
	turn(world, 1);
	expect_state(world, id, PL_REBALANCE_DONE);
	assert_int_equal(get(world, id).moves_done, 4);
	turn(world, 60);
	assert_true(is_known(get(world, id).measured.after));
}

static void nodes_that_do_not_come_back_end_it(void **state)
{
	struct world *world = *state;
	struct cad_error error;
	uint64_t id;

	must(start(world, false, &id, &error), &error);
	planned_as(world, CAD_OK);
	world->kept = false;
	restart(world, 5);
	world->refusal = "node 'n1' is no expert node of this cluster now";
	turn(world, 119);
	expect_state(world, id, PL_REBALANCE_RUNNING);
	turn(world, 1);
	expect_state(world, id, PL_REBALANCE_FAILED);
	assert_non_null(strstr(get(world, id).text, "node 'n1' is no expert node"));
}

static void a_restart_while_measuring(void **state)
{
	struct world *world = *state;

	run_to_done(world);
	turn(world, 20);
	restart(world, 10); /* 30 of the 60 seconds are over */
	turn(world, 29);
	assert_true(get(world, 1).measuring);
	turn(world, 1);
	assert_true(is_known(get(world, 1).measured.after));

	run_to_done(world);
	restart(world, 3600);
	turn(world, 1);
	struct pl_rebalance r = get(world, 2);
	assert_false(r.measuring || pl_point_known(&r.measured.after));
	assert_non_null(strstr(r.text, "the placement service was restarted"));
}

/* ---- the automatic mode's ---- */

static void the_automatic_modes_is_nobodys_until_it_is_wanted(void **state)
{
	struct world *world = *state;
	struct cad_error error;
	uint64_t id;
	struct pl_wish wish = { .kind = PL_REBALANCE_AUTO, .who = PL_HISTORY_SERVICE, .reason = "", .copies = -1 };

	must(pl_rebalances_start(world->rebalances, &wish, &id, &error), &error);
	assert_int_equal(id, 0);
	assert_false(pl_rebalances_busy(world->rebalances));
	planned_as(world, CAD_OK);
	assert_int_equal(world->applied, 0);

	must(pl_rebalances_start(world->rebalances, &wish, &id, &error), &error);
	must(start(world, false, &id, &error), &error); /* an operator comes first */
	assert_int_equal(world->cancelled, 1);
	planned_as(world, CAD_OK);
	assert_string_equal(get(world, 1).who, "alice");
	move(world, 4);

	world->judged = true;
	must(pl_rebalances_start(world->rebalances, &wish, &id, &error), &error);
	planned_as(world, CAD_OK);
	assert_int_equal(get(world, 2).kind, PL_REBALANCE_AUTO);
	assert_string_equal(get(world, 2).reason, "it is worth it");
	move(world, 3);
	assert_int_equal(pl_rebalances_auto_bytes(world->rebalances), 3 << 20);
	must(change(world, 2, PL_REBALANCE_PAUSE, &id, &error), &error);
	must(change(world, 2, PL_REBALANCE_RESUME, &id, &error), &error);
	assert_int_equal(pl_rebalances_auto_bytes(world->rebalances), 3 << 20);
	move(world, 4);
	assert_int_equal(pl_rebalances_auto_bytes(world->rebalances), 4 << 20);
	turn(world, 3600);
	assert_int_equal(pl_rebalances_auto_bytes(world->rebalances), 0);
}

/* Whoever moved them, and also after a restart; for as long as it is recent. */
static void it_plans_with_what_was_where_before(void **state)
{
	struct world *world = *state;
	struct cad_error error;
	uint64_t id;
	struct pl_wish wish = { .kind = PL_REBALANCE_AUTO, .who = PL_HISTORY_SERVICE, .reason = "", .copies = -1 };

	must(start(world, false, &id, &error), &error);
	assert_null(world->recent); /* an operator's plan may go back */
	planned_as(world, CAD_OK);
	must(change(world, id, PL_REBALANCE_CANCEL, &id, &error), &error);
	world->turned = true;
	restart(world, RECENT_S - 1);
	must(pl_rebalances_start(world->rebalances, &wish, &id, &error), &error);
	for (uint32_t e = 0; e < EXPERTS; e++)
		for (uint32_t n = 0; n < NODES; n++)
			assert_int_equal(pl_plan_holds(world->recent, 0, e, n), n == e / 2 % 2);

	world->turned = false; /* what is there again is not what was */
	must(pl_rebalances_start(world->rebalances, &wish, &id, &error), &error);
	assert_int_equal(pl_plan_copies(world->recent), 0);
	world->turned = true;
	restart(world, 2);
	must(pl_rebalances_start(world->rebalances, &wish, &id, &error), &error);
	assert_int_equal(pl_plan_copies(world->recent), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_search_is_put_in_force_followed_and_measured),
		TEST(without_requests_nothing_is_measured_and_that_is_said),
		TEST(a_dry_run_changes_nothing),
		TEST(moves_that_were_backed_out_are_told),
		TEST(a_second_one_is_refused_by_the_firsts_name),
		TEST(what_fails_says_why_and_moves_nothing),
		TEST(pause_resume_and_cancel),
		TEST(undo_leads_back),
		TEST(undo_of_one_that_runs_stops_it_first),
		TEST(a_restart_ends_planning),
		TEST(what_runs_goes_on_after_a_restart),
		TEST(nodes_that_do_not_come_back_end_it),
		TEST(a_restart_while_measuring),
		TEST(the_automatic_modes_is_nobodys_until_it_is_wanted),
		TEST(it_plans_with_what_was_where_before),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
