/* SPDX-License-Identifier: Apache-2.0 */
#include "common/base/bytes.h"
#include "common/base/log.h"
#include "common/base/plural.h"
#include "orchestration/placement/internal.h"
#include "orchestration/placement/rebalance_internal.h"
#include "orchestration/planner/trace/reservoir.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* measured.before is of so long before */
#define BEFORE_NS (60 * CAD_NS_PER_S)
#define HOUR_MS (3600 * 1000)
/* how long nodes have to come back after a restart, before their absence ends a rebalance */
#define REGAIN_NS (120 * CAD_NS_PER_S)

static const char *const state_names[] = {
	[PL_REBALANCE_NONE] = "none",
	[PL_REBALANCE_PLANNING] = "planning",
	[PL_REBALANCE_RUNNING] = "running",
	[PL_REBALANCE_PAUSED] = "paused",
	[PL_REBALANCE_DONE] = "done",
	[PL_REBALANCE_CANCELLED] = "cancelled",
	[PL_REBALANCE_FAILED] = "failed",
	[PL_REBALANCE_UNDONE] = "undone",
};

const char *pl_rebalance_state_name(enum pl_rebalance_state state) { return state_names[state]; }

void pl_rebalance_what(const struct pl_rebalance *r, char what[PL_REBALANCE_WHAT_BYTES])
{
	switch (r->kind) {
	case PL_REBALANCE_SEARCH: snprintf(what, PL_REBALANCE_WHAT_BYTES, "rebalance"); break;
	case PL_REBALANCE_MAP: snprintf(what, PL_REBALANCE_WHAT_BYTES, "map apply"); break;
	case PL_REBALANCE_UNDO:
		snprintf(what, PL_REBALANCE_WHAT_BYTES, "undo of rebalance %llu", (unsigned long long)r->undoes);
		break;
	case PL_REBALANCE_AUTO: snprintf(what, PL_REBALANCE_WHAT_BYTES, "automatic rebalance"); break;
	}
}

bool pl_rebalance_moves(const struct pl_rebalance *r)
{
	return r->state == PL_REBALANCE_RUNNING || r->state == PL_REBALANCE_PAUSED;
}

bool pl_rebalances_busy(const struct pl_rebalances *rebalances)
{
	return rebalances->next.state == PL_REBALANCE_PLANNING || pl_rebalance_moves(&rebalances->current);
}

const struct pl_rebalance *pl_rebalances_current(const struct pl_rebalances *rebalances)
{
	if (rebalances->next.state == PL_REBALANCE_PLANNING)
		return &rebalances->next;
	return pl_rebalance_moves(&rebalances->current) || rebalances->current.measuring ? &rebalances->current : NULL;
}

const struct pl_rebalances_stats *pl_rebalances_stats(const struct pl_rebalances *rebalances)
{
	return &rebalances->stats;
}

/* ---- time ---- */

uint64_t pl_rebalances_now(const struct pl_rebalances *rebalances)
{
	return cad_clock_now_ns(rebalances->options.clock);
}

uint64_t pl_rebalances_unix_ms(const struct pl_rebalances *rebalances, uint64_t at_ns)
{
	return rebalances->epoch_ms + at_ns / CAD_NS_PER_MS;
}

/* The time of day then. */
static uint64_t ago_ms(const struct pl_rebalances *rebalances, uint64_t ms)
{
	uint64_t now_ms = pl_rebalances_unix_ms(rebalances, pl_rebalances_now(rebalances));
	return now_ms > ms ? now_ms - ms : 0;
}

static uint64_t from_unix_ms(const struct pl_rebalances *rebalances, uint64_t ms)
{
	return ms > rebalances->epoch_ms ? (ms - rebalances->epoch_ms) * CAD_NS_PER_MS : 0;
}

/* ---- what is kept and said ---- */

void pl_rebalance_save(struct pl_rebalances *rebalances, const struct pl_rebalance *r)
{
	if (!r->dry_run)
		pl_rebalance_table_put(rebalances->table, r);
}

/* In the history and the log. What is predicted stands where a plan is put in force, what is
 * measured where that is over. */
void pl_rebalance_tell(struct pl_rebalances *rebalances, const struct pl_rebalance *r, const char *outcome)
{
	char what[PL_REBALANCE_WHAT_BYTES], whole[PL_REBALANCE_WHAT_BYTES + 24];

	if (r->dry_run)
		return;
	pl_rebalance_what(r, what);
	snprintf(whole, sizeof whole, "%s (%llu)", what, (unsigned long long)r->id);
	const struct pl_history_entry entry = {
		.who = r->who,
		.what = whole,
		.why = r->reason,
		.outcome = outcome,
		.predicted = r->predicted,
		.measured = r->measured,
		.has_predicted = !r->measuring && pl_point_known(&r->predicted.before),
		.has_measured = !r->measuring && pl_point_known(&r->measured.after),
		.at_ms = pl_rebalances_unix_ms(rebalances, pl_rebalances_now(rebalances)),
	};
	pl_history_add(rebalances->options.history, &entry);
	cad_log_info(PL_COMPONENT, "a rebalance", CAD_U("id", r->id), CAD_S("what", what), CAD_S("who", r->who),
		CAD_S("state", state_names[r->state]), CAD_S("outcome", outcome));
}

void pl_rebalance_append(char text[PL_REBALANCE_TEXT_BYTES], const char *more)
{
	size_t length = strlen(text);
	snprintf(text + length, PL_REBALANCE_TEXT_BYTES - length, "%s%s", length ? "; " : "", more);
}

/* It is over. */
void pl_rebalance_end(
	struct pl_rebalances *rebalances, struct pl_rebalance *r, enum pl_rebalance_state state, const char *why)
{
	char outcome[PL_REBALANCE_TEXT_BYTES + 16];

	r->state = state;
	r->moves_in_flight = 0;
	pl_rebalance_append(r->text, why);
	pl_rebalance_save(rebalances, r);
	snprintf(outcome, sizeof outcome, "%s%s%s", state_names[state], r->text[0] ? ": " : "", r->text);
	pl_rebalance_tell(rebalances, r, outcome);
	if (r->dry_run)
		return;
	rebalances->stats.ended[state]++;
	rebalances->stats.moves += r->moves_done;
	rebalances->stats.bytes += r->bytes_done;
}

/* ---- life ---- */

/* What the state file says was under way. */
static void take_up(struct pl_rebalances *rebalances, struct pl_rebalance *r)
{
	if (r->state == PL_REBALANCE_PLANNING) {
		pl_rebalance_end(rebalances, r, PL_REBALANCE_FAILED,
			"the placement service was restarted while it was being planned: start another one");
		return;
	}

	rebalances->current = *r;
	rebalances->forced_ns = from_unix_ms(rebalances, r->forced_ms);
	rebalances->settled_ns = from_unix_ms(rebalances, r->settled_ms);
	rebalances->regain_until_ns = pl_rebalance_moves(r) ? pl_rebalances_now(rebalances) + REGAIN_NS : 0;
}

enum cad_status pl_rebalances_create(
	const struct pl_rebalances_options *options, struct pl_rebalances **rebalances, struct cad_error *error)
{
	struct pl_rebalances *made = calloc(1, sizeof *made);
	if (!made)
		return cad_error_set(error, CAD_ERR_MEMORY, "out of memory for rebalances");

	made->options = *options;
	made->epoch_ms = options->unix_ms - pl_rebalances_now(made) / CAD_NS_PER_MS;
	made->table = options->table;
	made->last_id = pl_rebalance_table_last(made->table);
	struct pl_rebalance r;
	for (uint64_t id = 0; (id = pl_rebalance_table_pending(made->table, id)) != 0;)
		if (pl_rebalance_table_get(made->table, id, &r) == CAD_OK)
			take_up(made, &r);
	*rebalances = made;
	return CAD_OK;
}

void pl_rebalances_destroy(struct pl_rebalances *rebalances) { free(rebalances); }

enum cad_status pl_rebalances_get(
	const struct pl_rebalances *rebalances, uint64_t id, struct pl_rebalance *rebalance, struct cad_error *error)
{
	const struct pl_rebalance *const here[] = { &rebalances->next, &rebalances->current, &rebalances->dry };

	if (id == 0)
		id = rebalances->last_id;
	if (id == 0)
		return cad_error_set(error, CAD_ERR_NOT_FOUND, "there was no rebalance yet");
	for (size_t i = 0; i < sizeof here / sizeof here[0]; i++)
		if (here[i]->state != PL_REBALANCE_NONE && here[i]->id == id) {
			*rebalance = *here[i];
			return CAD_OK;
		}
	if (pl_rebalance_table_get(rebalances->table, id, rebalance) == CAD_OK)
		return CAD_OK;
	return cad_error_set(error, CAD_ERR_NOT_FOUND,
		"there is no rebalance %llu: 'cadrectl rebalance show' names the last one, and 'cadrectl history' those before",
		(unsigned long long)id);
}

uint64_t pl_rebalances_auto_bytes(const struct pl_rebalances *rebalances)
{
	const struct pl_rebalance *current = &rebalances->current;
	bool moving = current->kind == PL_REBALANCE_AUTO && pl_rebalance_moves(current);

	/* of the one that moves, the file has what was done at its last step */
	return pl_rebalance_table_auto_bytes(rebalances->table, ago_ms(rebalances, HOUR_MS), moving ? current->id : 0) +
		(moving ? current->bytes_done : 0);
}

/* ---- start ---- */

void pl_wish_fini(struct pl_wish *wish)
{
	free(wish->encoded);
	pl_plan_free(wish->given);
	pl_cluster_fini(&wish->given_nodes);
	wish->encoded = NULL;
	wish->given = NULL;
}

enum cad_status pl_rebalances_refuse_second(const struct pl_rebalances *rebalances, struct cad_error *error)
{
	const struct pl_rebalance *r = pl_rebalances_current(rebalances);
	unsigned long long id = (unsigned long long)r->id;

	if (r->state == PL_REBALANCE_PLANNING)
		return cad_error_set(error, CAD_ERR_REFUSED,
			"rebalance %llu (by %s) is being planned: wait for it, or end it with 'cadrectl rebalance cancel %llu'",
			id, r->who, id);
	return cad_error_set(error, CAD_ERR_REFUSED,
		"rebalance %llu (by %s) is %s, with %u of %u %s done: wait for it, or end it with 'cadrectl rebalance cancel %llu'",
		id, r->who, state_names[r->state], r->moves_done, r->moves, cad_plural(r->moves, "move", "moves"), id);
}

/* The placements before the rebalances of the last recent_ms, whoever wanted them. To parse them
 * takes milliseconds each, which is for the planner's thread. */
static enum cad_status take_befores(
	struct pl_rebalances *rebalances, struct pl_planning_order *order, struct cad_error *error)
{
	uint64_t since_ms = ago_ms(rebalances, rebalances->options.recent_ms), id = 0;
	uint32_t count = 0;

	order->befores = calloc(PL_REBALANCES_KEPT + 1, sizeof *order->befores);
	if (!order->befores)
		return cad_error_set(error, CAD_ERR_MEMORY, "out of memory for where experts were");
	while (count < PL_REBALANCES_KEPT && (id = pl_rebalance_table_forced(rebalances->table, id, since_ms)) != 0) {
		order->befores[count] = pl_rebalance_table_before(rebalances->table, id);
		count += order->befores[count] != NULL;
	}
	return CAD_OK;
}

/* What planning needs to know, as it is now. */
static enum cad_status look_around(struct pl_rebalances *rebalances, const struct pl_wish *wish,
	struct pl_planning_order *order, struct cad_error *error)
{
	const struct pl_ground *ground = &rebalances->options.ground;
	enum cad_status status = ground->situation(ground->context, &order->situation, error);

	if (status == CAD_OK && wish->kind == PL_REBALANCE_AUTO)
		status = take_befores(rebalances, order, error);
	if (status == CAD_OK && wish->given)
		status = ground->check(ground->context, &wish->given_nodes, wish->given, error);
	else if (status == CAD_OK && wish->copies >= 0)
		status = pl_planning_room(&order->situation, wish->copies, error);
	if (status != CAD_OK || wish->encoded)
		return status;

	status = ground->trace(ground->context, &order->trace, error);
	/* a plan that is given is put in force without a prediction */
	return status == CAD_ERR_NOT_FOUND && wish->given ? CAD_OK : status;
}

static void begin(struct pl_rebalances *rebalances, const struct pl_wish *wish)
{
	struct pl_rebalance *r = &rebalances->next;

	*r = (struct pl_rebalance){
		.id = ++rebalances->last_id,
		.state = PL_REBALANCE_PLANNING,
		.kind = wish->kind,
		.dry_run = wish->dry_run,
		.undoes = wish->undoes,
		.bytes_per_second = wish->bytes_per_second,
		.started_ms = pl_rebalances_unix_ms(rebalances, pl_rebalances_now(rebalances)),
		.predicted = PL_EFFECT_UNKNOWN,
		.measured = PL_EFFECT_UNKNOWN,
	};
	snprintf(r->who, sizeof r->who, "%s", wish->who);
	snprintf(r->reason, sizeof r->reason, "%s", wish->reason);
}

enum cad_status pl_rebalances_start(
	struct pl_rebalances *rebalances, struct pl_wish *wish, uint64_t *id, struct cad_error *error)
{
	const struct pl_ground *ground = &rebalances->options.ground;
	struct pl_planning_order order = {
		.workload = wish->workload,
		.copies = wish->copies,
		.move = wish->move,
		.time_limit_ns = wish->time_limit_ns,
	};
	bool automatic = wish->kind == PL_REBALANCE_AUTO;
	enum cad_status status = pl_rebalances_busy(rebalances) ? pl_rebalances_refuse_second(rebalances, error)
								: look_around(rebalances, wish, &order, error);

	if (status == CAD_OK) {
		begin(rebalances, wish);
		order.encoded = wish->encoded;
		order.encoded_bytes = wish->encoded_bytes;
		order.given = wish->given;
		order.given_nodes = wish->given_nodes;
		wish->encoded = NULL;
		wish->given = NULL;
		wish->given_nodes = (struct pl_cluster){ 0 };
		if (rebalances->auto_planning)
			ground->plan_cancel(ground->context);
		rebalances->auto_planning = automatic;
		status = ground->plan(ground->context, &order, error);
		if (status != CAD_OK || automatic)
			rebalances->last_id--; /* nobody has seen it */
		if (status != CAD_OK)
			rebalances->next.state = PL_REBALANCE_NONE;
	}
	if (status == CAD_OK) {
		*id = automatic ? 0 : rebalances->next.id;
		if (automatic) /* it is nobody's until its plan is wanted */
			rebalances->next.state = PL_REBALANCE_NONE;
		else
			pl_rebalance_save(rebalances, &rebalances->next);
	}
	pl_planning_order_fini(&order);
	pl_wish_fini(wish);

	return status;
}

/* ---- in force ---- */

static void take_result(struct pl_rebalance *r, const struct pl_planning_result *result)
{
	r->predicted = result->predicted;
	r->moves = (uint32_t)result->moves.loads;
	r->bytes = result->moves.bytes;
	r->planning_seconds = result->seconds;
	r->tokens_planned = result->tokens_planned;
	r->tokens_measured = result->tokens_measured;
	uint64_t tokens = result->tokens_planned + result->tokens_measured;
	if (result->tokens_planned > 0 && tokens < PL_RESERVOIR_TOKENS_MIN)
		snprintf(r->warning, sizeof r->warning,
			"the plan is made from %llu tokens; made from fewer than %d it may not hold for others",
			(unsigned long long)tokens, PL_RESERVOIR_TOKENS_MIN);
	if (result->tokens_planned > 0 && result->tokens_measured == 0)
		pl_rebalance_append(r->warning,
			"too few tokens to hold some out: what is predicted is measured on those that were planned on, and so is too good");
}

/* Into the state file, then in force. */
static void enforce(struct pl_rebalances *rebalances, const struct pl_planning_result *result)
{
	struct pl_rebalance *r = &rebalances->current;
	const struct pl_ground *ground = &rebalances->options.ground;
	uint64_t now = pl_rebalances_now(rebalances);
	struct cad_error error;
	char outcome[96], bytes[CAD_BYTES_TEXT_BYTES];

	if (!ground->figures(ground->context, now > BEFORE_NS ? now - BEFORE_NS : 0, now, &r->measured.before))
		r->measured.before = PL_POINT_UNKNOWN;
	r->state = PL_REBALANCE_RUNNING;
	rebalances->forced_ns = now;
	rebalances->settled_ns = 0;
	rebalances->regain_until_ns = 0;
	rebalances->moves_before = 0;
	pl_rebalance_save(rebalances, r);
	pl_rebalance_table_put_plans(rebalances->table, r->id, &result->nodes, result->before, result->plan);
	if (ground->apply(ground->context, &result->nodes, result->plan, r->bytes_per_second, &error) != CAD_OK) {
		pl_rebalance_end(rebalances, r, PL_REBALANCE_FAILED, error.text);
		return;
	}

	r->forced_ms = pl_rebalances_unix_ms(rebalances, now);
	pl_rebalance_save(rebalances, r);
	snprintf(outcome, sizeof outcome, "in force: %u %s, %s", r->moves, cad_plural(r->moves, "move", "moves"),
		cad_bytes_text(r->bytes, bytes));
	pl_rebalance_tell(rebalances, r, outcome);
}

/* The nodes may have changed while it was planned. */
static enum cad_status check_again(
	const struct pl_rebalances *rebalances, const struct pl_planning_result *result, struct cad_error *error)
{
	const struct pl_ground *ground = &rebalances->options.ground;
	enum cad_status status = result->status;

	if (status != CAD_OK) {
		*error = result->error;
		return status;
	}
	status = ground->check(ground->context, &result->nodes, result->plan, error);
	return status == CAD_OK
		? CAD_OK
		: cad_error_prefix(error, "the cluster changed while the plan was made: start another one");
}

void pl_rebalances_planned(struct pl_rebalances *rebalances, struct pl_planning_result *result)
{
	const struct pl_ground *ground = &rebalances->options.ground;
	struct pl_rebalance *r = &rebalances->next;
	bool automatic = rebalances->auto_planning;
	struct cad_error error;

	rebalances->auto_planning = false;
	rebalances->stats.planning_seconds += result->seconds;
	if (automatic) {
		if (!ground->judge(ground->context, result, r->reason))
			return;
		r->id = ++rebalances->last_id;
		r->state = PL_REBALANCE_PLANNING;
	}

	take_result(r, result);
	enum cad_status status = check_again(rebalances, result, &error);
	struct pl_rebalance planned = *r;
	r->state = PL_REBALANCE_NONE;
	if (planned.dry_run || status != CAD_OK) {
		if (status != CAD_OK)
			pl_rebalance_end(rebalances, &planned, PL_REBALANCE_FAILED, error.text);
		else
			planned.state = PL_REBALANCE_DONE;
		if (planned.dry_run)
			rebalances->dry = planned;
		return;
	}

	if (rebalances->current.measuring)
		pl_rebalance_measure(rebalances, pl_rebalances_now(rebalances), "another rebalance began");
	rebalances->current = planned;
	enforce(rebalances, result);
}
