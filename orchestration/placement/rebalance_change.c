/* SPDX-License-Identifier: Apache-2.0 */
/* Pause, resume, cancel, undo. */
#include "common/base/plural.h"
#include "orchestration/placement/rebalance_internal.h"

#include <stdio.h>

/* ---- change ---- */

static enum cad_status refuse(
	const struct pl_rebalance *r, const char *verb, const char *advice, struct cad_error *error)
{
	return cad_error_set(error, CAD_ERR_REFUSED, "rebalance %llu is %s and cannot be %s%s",
		(unsigned long long)r->id, pl_rebalance_state_name(r->state), verb, advice);
}

static enum cad_status pause_or_resume(struct pl_rebalances *rebalances, const struct pl_rebalance *r, bool pause,
	bool dry_run, struct cad_error *error)
{
	const struct pl_ground *ground = &rebalances->options.ground;

	if (r->state != (pause ? PL_REBALANCE_RUNNING : PL_REBALANCE_PAUSED))
		return refuse(r, pause ? "paused" : "resumed",
			pause ? ": only one that is running can" : ": only one that is paused can", error);
	if (dry_run)
		return CAD_OK;

	rebalances->current.state = pause ? PL_REBALANCE_PAUSED : PL_REBALANCE_RUNNING;
	pl_rebalance_save(rebalances, &rebalances->current);
	ground->pause(ground->context, pause);
	return CAD_OK;
}

static enum cad_status cancel(
	struct pl_rebalances *rebalances, const struct pl_rebalance *r, bool dry_run, struct cad_error *error)
{
	const struct pl_ground *ground = &rebalances->options.ground;
	char text[96];

	if (r->state != PL_REBALANCE_PLANNING && !pl_rebalance_moves(r))
		return refuse(r, "cancelled",
			r->state == PL_REBALANCE_DONE
				? ": 'cadrectl rebalance undo' leads back to the placement before it"
				: "",
			error);
	if (dry_run)
		return CAD_OK;

	if (r->state == PL_REBALANCE_PLANNING) {
		struct pl_rebalance planned = rebalances->next;
		ground->plan_cancel(ground->context);
		rebalances->next.state = PL_REBALANCE_NONE;
		pl_rebalance_end(rebalances, &planned, PL_REBALANCE_CANCELLED, "before the plan was made");
		if (planned.dry_run)
			rebalances->dry = planned;
		return CAD_OK;
	}

	enum cad_status status = ground->stop(ground->context, error);
	if (status != CAD_OK && status != CAD_ERR_NOT_FOUND)
		return status;
	snprintf(text, sizeof text, "after %u of %u %s; experts stay where they are", r->moves_done, r->moves,
		cad_plural(r->moves, "move", "moves"));
	pl_rebalance_end(rebalances, &rebalances->current, PL_REBALANCE_CANCELLED, text);
	return CAD_OK;
}

/* What stands in the way of leading back from it. */
static enum cad_status may_go_back(
	struct pl_rebalances *rebalances, const struct pl_rebalance *r, struct cad_error *error)
{
	if (r->state == PL_REBALANCE_UNDONE)
		return cad_error_set(error, CAD_ERR_REFUSED, "rebalance %llu was undone by rebalance %llu",
			(unsigned long long)r->id, (unsigned long long)r->undone_by);
	if (r->dry_run || r->forced_ms == 0)
		return refuse(r, "undone", ": it has moved nothing", error);
	if (rebalances->next.state == PL_REBALANCE_PLANNING)
		return pl_rebalances_refuse_second(rebalances, error);
	if (pl_rebalance_moves(&rebalances->current) && rebalances->current.id != r->id)
		return pl_rebalances_refuse_second(rebalances, error);
	uint64_t later = pl_rebalance_table_later(rebalances->table, r->id);
	if (later)
		return cad_error_set(error, CAD_ERR_REFUSED,
			"rebalance %llu came after rebalance %llu: undo that one first, or put a map of your own in force with 'cadrectl map apply'",
			(unsigned long long)later, (unsigned long long)r->id);
	return CAD_OK;
}

static enum cad_status go_back(struct pl_rebalances *rebalances, const struct pl_rebalance *r, const char *who,
	const char *reason, bool dry_run, uint64_t *answer, struct cad_error *error)
{
	struct pl_wish wish = {
		.kind = PL_REBALANCE_UNDO,
		.who = who,
		.reason = reason,
		.dry_run = dry_run,
		.bytes_per_second = r->bytes_per_second,
		.undoes = r->id,
	};
	const struct pl_ground *ground = &rebalances->options.ground;
	enum cad_status status = may_go_back(rebalances, r, error);

	if (status == CAD_OK)
		status =
			pl_rebalance_table_plan(rebalances->table, r->id, false, &wish.given, &wish.given_nodes, error);
	if (status == CAD_OK)
		status = ground->check(ground->context, &wish.given_nodes, wish.given, error);
	if (status == CAD_OK && pl_rebalance_moves(r) && !dry_run)
		status = cancel(rebalances, r, false, error);
	if (status != CAD_OK || (pl_rebalance_moves(r) && dry_run)) { /* only one of them may be under way */
		pl_wish_fini(&wish);
		return status;
	}

	return pl_rebalances_start(rebalances, &wish, answer, error);
}

enum cad_status pl_rebalances_change(struct pl_rebalances *rebalances, uint64_t id, enum pl_rebalance_action action,
	const char *who, const char *reason, bool dry_run, uint64_t *answer, struct cad_error *error)
{
	struct pl_rebalance r;
	char what[PL_REBALANCE_WHAT_BYTES];
	enum cad_status status = id ? pl_rebalances_get(rebalances, id, &r, error)
				    : cad_error_set(error, CAD_ERR_INVALID, "say which rebalance: its id");

	if (status != CAD_OK)
		return status;

	*answer = id;
	switch (action) {
	case PL_REBALANCE_PAUSE: status = pause_or_resume(rebalances, &r, true, dry_run, error); break;
	case PL_REBALANCE_RESUME: status = pause_or_resume(rebalances, &r, false, dry_run, error); break;
	case PL_REBALANCE_CANCEL: status = cancel(rebalances, &r, dry_run, error); break;
	case PL_REBALANCE_GO_BACK: return go_back(rebalances, &r, who, reason, dry_run, answer, error);
	}
	if (status != CAD_OK || dry_run)
		return status;

	static const char *const verbs[] = { "pause", "resume", "cancel" };
	snprintf(what, sizeof what, "%s rebalance %llu", verbs[action], (unsigned long long)id);
	const struct pl_history_entry entry = {
		.who = who,
		.what = what,
		.why = reason,
		.outcome = "done",
		.at_ms = pl_rebalances_unix_ms(rebalances, pl_rebalances_now(rebalances)),
	};
	pl_history_add(rebalances->options.history, &entry);
	return CAD_OK;
}
