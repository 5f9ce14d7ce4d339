/* SPDX-License-Identifier: Apache-2.0 */
/* A rebalance that is in force is followed until it is done, and what it did is measured. */
#include "common/base/plural.h"
#include "orchestration/placement/rebalance_internal.h"

#include <stdio.h>

/* measured.after is of this part of the time after the last free */
#define AFTER_FROM_NS (10 * CAD_NS_PER_S)
#define AFTER_TO_NS (60 * CAD_NS_PER_S)
#define LOOK_NS CAD_NS_PER_S

/* ---- measuring ---- */

void pl_rebalance_measure(struct pl_rebalances *rebalances, uint64_t to_ns, const char *otherwise)
{
	struct pl_rebalance *r = &rebalances->current;
	const struct pl_ground *ground = &rebalances->options.ground;
	uint64_t from_ns = rebalances->settled_ns + AFTER_FROM_NS;
	char text[PL_REBALANCE_TEXT_BYTES];

	r->measuring = false;
	bool measured = rebalances->settled_ns > 0 && to_ns > from_ns &&
		ground->figures(ground->context, from_ns, to_ns, &r->measured.after);
	if (!measured) {
		r->measured.after = PL_POINT_UNKNOWN;
		snprintf(text, sizeof text, "what it did was not measured: %s",
			rebalances->settled_ns > 0 ? otherwise : "the placement service was restarted");
		pl_rebalance_append(r->text, text);
	}
	pl_rebalance_save(rebalances, r);
	snprintf(text, sizeof text, "%s", measured ? "measured" : r->text);
	pl_rebalance_tell(rebalances, r, text);
}

/* ---- turns ---- */

/* After a restart. The service keeps the plan that was in force; if it was stopped before it had
 * it, it gets it now, when the nodes are back. */
static void regain(struct pl_rebalances *rebalances)
{
	struct pl_rebalance *r = &rebalances->current;
	const struct pl_ground *ground = &rebalances->options.ground;
	struct pl_control_progress progress;
	struct pl_plan *plan = NULL;
	struct pl_cluster nodes = { 0 };
	struct cad_error error;
	enum cad_status status = CAD_OK;

	ground->progress(ground->context, &progress);
	if (!progress.in_force || r->forced_ms == 0) {
		status = pl_rebalance_table_plan(rebalances->table, r->id, true, &plan, &nodes, &error);
		if (status == CAD_OK)
			status = ground->apply(ground->context, &nodes, plan, r->bytes_per_second, &error);
		if (status == CAD_OK && r->state == PL_REBALANCE_PAUSED)
			ground->pause(ground->context, true);
		pl_plan_free(plan);
		pl_cluster_fini(&nodes);
	}

	if (status == CAD_OK) {
		rebalances->regain_until_ns = 0;
		rebalances->moves_before = UINT32_MAX;
		r->forced_ms =
			r->forced_ms ? r->forced_ms : pl_rebalances_unix_ms(rebalances, pl_rebalances_now(rebalances));
		pl_rebalance_save(rebalances, r);
		pl_rebalance_tell(rebalances, r, "goes on after a restart of the placement service");
	} else if (pl_rebalances_now(rebalances) >= rebalances->regain_until_ns) {
		rebalances->regain_until_ns = 0;
		pl_rebalance_end(rebalances, r, PL_REBALANCE_FAILED, error.text);
	}
}

static void undo_is_done(struct pl_rebalances *rebalances)
{
	struct pl_rebalance undone, first;

	if (pl_rebalance_table_get(rebalances->table, rebalances->current.undoes, &undone) != CAD_OK)
		return;
	undone.state = PL_REBALANCE_UNDONE;
	undone.undone_by = rebalances->current.id;
	undone.measuring = false;
	rebalances->stats.ended[PL_REBALANCE_UNDONE]++;
	pl_rebalance_save(rebalances, &undone);
	/* who undoes an undo has the first one again */
	if (undone.undoes && pl_rebalance_table_get(rebalances->table, undone.undoes, &first) == CAD_OK) {
		first.state = PL_REBALANCE_DONE;
		first.undone_by = 0;
		pl_rebalance_save(rebalances, &first);
	}
}

static void settle(struct pl_rebalances *rebalances, const struct pl_control_progress *progress)
{
	struct pl_rebalance *r = &rebalances->current;
	uint64_t last_ns = progress->freed_ns > progress->moved_ns ? progress->freed_ns : progress->moved_ns;
	char text[PL_REBALANCE_TEXT_BYTES] = "";

	rebalances->settled_ns = last_ns > rebalances->forced_ns ? last_ns : pl_rebalances_now(rebalances);
	r->settled_ms = pl_rebalances_unix_ms(rebalances, rebalances->settled_ns);
	r->seconds = (double)(r->settled_ms - r->forced_ms) * 1e-3;
	if (r->moves_failed)
		snprintf(text, sizeof text, "%u %s backed out: %s", r->moves_failed,
			cad_plural(r->moves_failed, "move was", "moves were"), progress->text);
	else if (r->moves_done < r->moves && progress->text[0])
		snprintf(text, sizeof text, "%s", progress->text);
	bool failed = r->moves_done == 0 && r->moves_failed > 0;
	r->measuring = r->moves_done > 0;
	pl_rebalance_end(rebalances, r, failed ? PL_REBALANCE_FAILED : PL_REBALANCE_DONE, text);
	if (!failed && r->kind == PL_REBALANCE_UNDO)
		undo_is_done(rebalances);
}

static void follow(struct pl_rebalances *rebalances)
{
	struct pl_rebalance *r = &rebalances->current;
	const struct pl_ground *ground = &rebalances->options.ground;
	struct pl_control_progress progress;

	ground->progress(ground->context, &progress);
	if (rebalances->moves_before == UINT32_MAX) { /* what is left after a restart says what was done before it */
		if (r->state == PL_REBALANCE_PAUSED || (progress.moves == 0 && !progress.settled))
			return;
		rebalances->moves_before = r->moves > progress.moves ? r->moves - progress.moves : 0;
	}
	r->moves_done = rebalances->moves_before + progress.done;
	r->moves_failed = progress.failed;
	r->moves_in_flight = progress.in_flight;
	if (progress.moves && r->state == PL_REBALANCE_RUNNING) { /* in a pause none are to come */
		r->moves = rebalances->moves_before + progress.moves;
		r->bytes = progress.bytes / progress.moves * r->moves;
	}
	if (r->moves)
		r->bytes_done = progress.bytes_done + r->bytes / r->moves * rebalances->moves_before;
	r->seconds = (double)(pl_rebalances_unix_ms(rebalances, pl_rebalances_now(rebalances)) - r->forced_ms) * 1e-3;
	if (progress.settled && r->state == PL_REBALANCE_RUNNING)
		settle(rebalances, &progress);
}

uint64_t pl_rebalances_turn(struct pl_rebalances *rebalances)
{
	struct pl_rebalance *r = &rebalances->current;
	uint64_t now = pl_rebalances_now(rebalances), due_ns;

	if (pl_rebalance_moves(r)) {
		if (rebalances->regain_until_ns)
			regain(rebalances);
		else
			follow(rebalances);
	}
	if (pl_rebalance_moves(r))
		return now + LOOK_NS;
	if (!r->measuring)
		return UINT64_MAX;

	due_ns = rebalances->settled_ns + AFTER_TO_NS;
	if (now < due_ns && rebalances->settled_ns > 0)
		return due_ns;
	pl_rebalance_measure(rebalances, due_ns, "no requests were served");
	return UINT64_MAX;
}
