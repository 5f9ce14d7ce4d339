/* SPDX-License-Identifier: Apache-2.0 */
/* The turn: the dead are removed, a plan is made if something has changed, orders go out, a map is
 * published. */
#include "orchestration/placement/internal.h"

#include "common/base/log.h"
#include "orchestration/placement/publish.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool any_expert_counts(const struct pl_control *control)
{
	for (uint32_t slot = 0; slot < CAD_PROCESSES_MAX; slot++)
		if (control->registry.nodes[slot].role == PL_ROLE_EXPERT &&
			pl_node_counts(&control->registry.nodes[slot]))
			return true;
	return false;
}

static void bury(struct pl_control *control, uint32_t slot)
{
	struct pl_node *node = &control->registry.nodes[slot];
	cad_log_warn(PL_COMPONENT, "dead", CAD_S("node", node->id),
		CAD_S("role", node->role == PL_ROLE_EXPERT ? "expert" : "router"),
		CAD_U("experts", pl_control_held(control, slot)));
	control->stats.deaths++;
	if (node->session)
		control->options.events.close(
			control->options.events.context, node->session, "no report within the lease");
	node->session = 0;
	pl_reach_drop(control->reach, slot);
	if (node->role == PL_ROLE_EXPERT) {
		pl_rollout_drop(control->rollout, slot);
		control->plan_due = control->list_due = true;
		if (!any_expert_counts(control)) {
			control->all_lost = true;
			control->back_ns = 0;
		}
	}

	pl_state_begin(control->options.state);
	pl_state_delete_node(control->options.state, node->id);
	pl_control_commit(control);
}

/* All were lost, as by a cut, and some are back. The others hold what a plan would load again: each has
 * a lease's time, unless it is known to be gone; and all settle as at the start. */
static uint64_t settled_again_ns(const struct pl_control *control)
{
	uint64_t until_ns = control->joined_ns + control->options.settle_ns;
	for (uint32_t slot = 0; slot < CAD_PROCESSES_MAX; slot++) {
		const struct pl_node *node = &control->registry.nodes[slot];
		uint64_t late_ns = control->back_ns + control->options.lease_ns;
		if (node->presence == PL_DEAD && node->role == PL_ROLE_EXPERT && !node->gone && until_ns < late_ns)
			until_ns = late_ns;
	}
	return until_ns;
}

/* Whether it is too early to move anything; *until_ns: when that may be over by time alone. */
static bool must_wait(const struct pl_control *control, uint64_t now_ns, uint64_t *until_ns)
{
	*until_ns = UINT64_MAX;
	if (control->cells == 0)
		return false;
	if (pl_registry_count(&control->registry, PL_ROLE_EXPERT, PL_EXPECTED) > 0)
		return true;
	if (control->placed) {
		if (control->all_lost && control->back_ns)
			*until_ns = settled_again_ns(control);
		return *until_ns != UINT64_MAX && now_ns < *until_ns;
	}
	if (pl_registry_count(&control->registry, PL_ROLE_EXPERT, PL_LIVE) < control->options.experts_min)
		return true;
	*until_ns = control->joined_ns + control->options.settle_ns;
	if (now_ns >= *until_ns && !control->list_due)
		*until_ns = pl_reach_pending_ns(control->reach); /* routers connect first */
	return now_ns < *until_ns;
}

/* Experts are placed among nodes whose operators give the same bits: those of the first node, until
 * no node of that kind is left. */
static void choose_kernels(struct pl_control *control)
{
	const struct pl_node *first = NULL;
	for (uint32_t slot = 0; slot < CAD_PROCESSES_MAX; slot++) {
		const struct pl_node *node = &control->registry.nodes[slot];
		if (node->role != PL_ROLE_EXPERT || !pl_node_counts(node))
			continue;
		if (control->kernels[0] && strcmp(node->kernels_fingerprint, control->kernels) == 0)
			return;
		first = first ? first : node;
	}

	if (!first || strcmp(first->kernels_fingerprint, control->kernels) == 0)
		return;
	if (control->kernels[0])
		cad_log_warn(PL_COMPONENT,
			"no node with the previous kernels is left; answers may now differ in their last bits",
			CAD_S("before", control->kernels), CAD_S("now", first->kernels_fingerprint));
	memcpy(control->kernels, first->kernels_fingerprint, sizeof control->kernels);
	pl_state_begin(control->options.state);
	pl_state_put_kernels(control->options.state, control->kernels);
	pl_control_commit(control);
}

static bool may_hold(const struct pl_control *control, const struct pl_node *node)
{
	return node->role == PL_ROLE_EXPERT && pl_node_counts(node) &&
		(control->options.mixed_kernels || strcmp(node->kernels_fingerprint, control->kernels) == 0);
}

/* A node out of reach, ours or routers', keeps what it has and gets nothing. */
static uint64_t usable_memory(
	const struct pl_control *control, uint32_t slot, const uint8_t *flags, uint64_t leaving_bytes)
{
	const struct pl_node *node = &control->registry.nodes[slot];
	if (node->presence == PL_LIVE && pl_reach_usable(control->reach, slot))
		return node->memory_bytes > leaving_bytes ? node->memory_bytes - leaving_bytes : 0;
	uint64_t held = 0;
	for (uint32_t cell = 0; cell < control->cells; cell++)
		held += (flags[cell] & PL_ASSIGN_HELD) != 0;
	return held * pl_rollout_bytes(control->rollout);
}

static void say_shortage(struct pl_control *control, const char *text, bool passes)
{
	if (strcmp(text, control->shortage) == 0)
		return;
	snprintf(control->shortage, sizeof control->shortage, "%s", text);
	if (passes)
		cad_log_info(PL_COMPONENT, text);
	else if (text[0])
		cad_log_error(PL_COMPONENT, text);
	else
		cad_log_info(PL_COMPONENT, "every expert is placed again");
}

/* A plan in the making: of the nodes that may hold experts the usable ones, among which experts are
 * placed, then the others, which at most keep what they hold. */
struct plan {
	uint32_t slots[CAD_PROCESSES_MAX], usable, count;
	uint8_t *target, *flags; /* [count][cells] */
	uint8_t *cells;          /* [cells]: zeros for those who get nothing; then which cells have a place */
	uint32_t kept;           /* cells whose only place is on a node that is not usable */
	struct pl_assignment assignment;
};

/* Of one that has just come it is not known yet whether routers will reach it; what it has is not loaded
 * elsewhere in that moment. */
static bool takes_part(const struct pl_control *control, uint32_t slot)
{
	return pl_reach_usable(control->reach, slot) || pl_reach_undecided(control->reach, slot);
}

static void choose_nodes(struct pl_control *control, struct plan *plan)
{
	choose_kernels(control);
	plan->count = 0;
	for (int usable = 1; usable >= 0; usable--) {
		for (uint32_t slot = 0; slot < CAD_PROCESSES_MAX; slot++)
			if (may_hold(control, &control->registry.nodes[slot]) &&
				takes_part(control, slot) == (usable == 1))
				plan->slots[plan->count++] = slot;
		plan->usable = usable == 1 ? plan->count : plan->usable;
	}
}

static bool reserve(struct pl_control *control, struct plan *plan)
{
	size_t cells = control->cells, bytes = (2 * (size_t)plan->count + 1) * cells + 1;
	if (bytes > control->target_bytes) {
		uint8_t *grown = realloc(control->target, bytes);
		if (!grown)
			return false;
		control->target = grown;
		control->target_bytes = bytes;
	}

	plan->target = control->target;
	plan->flags = plan->target + plan->count * cells;
	plan->cells = plan->flags + plan->count * cells;
	return true;
}

static enum cad_status assign(const struct pl_control *control, struct plan *plan)
{
	struct pl_assign_node nodes[CAD_PROCESSES_MAX];
	for (uint32_t i = 0; i < plan->count; i++) {
		uint64_t leaving_bytes;
		uint8_t *mine = plan->flags + (size_t)i * control->cells;
		pl_rollout_view(control->rollout, plan->slots[i], mine, &leaving_bytes);
		nodes[i] = (struct pl_assign_node){ usable_memory(control, plan->slots[i], mine, leaving_bytes), mine };
	}

	const struct pl_assign_source source = {
		.layers_count = control->options.shape.layers_count,
		.experts = control->options.shape.experts,
		.expert_bytes = pl_rollout_bytes(control->rollout),
		.nodes = nodes,
		.nodes_count = plan->usable,
		.copies = control->options.copies,
		.rebalance = control->options.rebalance,
		.seed = control->options.seed,
	};
	return pl_assign(&source, plan->target, &plan->assignment);
}

/* What has no place among usable nodes stays where it is: a copy that some routers reach is better than
 * none. */
static void keep_the_rest(const struct pl_control *control, struct plan *plan)
{
	uint32_t cells = control->cells, placed = 0;
	memset(plan->cells, 0, cells);
	for (uint32_t i = 0; i < plan->usable; i++)
		for (uint32_t cell = 0; cell < cells; cell++)
			plan->cells[cell] |= plan->target[(size_t)i * cells + cell];
	for (uint32_t cell = 0; cell < cells; cell++)
		placed += plan->cells[cell];

	uint32_t before = placed;
	for (uint32_t cell = 0; cell < cells; cell++) {
		bool kept = false;
		for (uint32_t i = plan->usable; i < plan->count; i++) {
			size_t at = (size_t)i * cells + cell;
			plan->target[at] = !plan->cells[cell] && (plan->flags[at] & PL_ASSIGN_HELD);
			kept = kept || plan->target[at];
		}
		placed += kept;
	}
	plan->kept = placed - before;
}

/* Every expert node is told what it should hold: those outside the plan nothing. */
static void hand_out(const struct pl_control *control, const struct plan *plan)
{
	int at[CAD_PROCESSES_MAX];
	for (uint32_t slot = 0; slot < CAD_PROCESSES_MAX; slot++)
		at[slot] = -1;
	for (uint32_t i = 0; i < plan->count; i++)
		at[plan->slots[i]] = (int)i;

	memset(plan->cells, 0, control->cells);
	for (uint32_t slot = 0; slot < CAD_PROCESSES_MAX; slot++)
		if (control->registry.nodes[slot].role == PL_ROLE_EXPERT &&
			pl_node_counts(&control->registry.nodes[slot]))
			pl_rollout_target(control->rollout, slot,
				at[slot] >= 0 ? plan->target + (size_t)at[slot] * control->cells : plan->cells);
}

/* Where not every router reaches every node, that is what users should hear of. */
static void say_outcome(struct pl_control *control, const struct plan *plan)
{
	const struct pl_assignment *assignment = &plan->assignment;
	char text[sizeof control->shortage];
	uint32_t others = plan->count - plan->usable, unplaced = assignment->unplaced - plan->kept;
	bool passes = assignment->unplaced > 0 && pl_reach_pending_ns(control->reach);

	if (passes)
		snprintf(text, sizeof text,
			"%u experts wait until it is clear which of the expert nodes that have come routers reach",
			assignment->unplaced);
	else if (assignment->unplaced == 0 || others == 0)
		snprintf(text, sizeof text, "%s", assignment->unplaced ? assignment->text : "");
	else
		snprintf(text, sizeof text,
			"%u of %u experts have no place on the %u expert nodes that every router reaches; of them %u stay on the %u others, and %u are nowhere",
			assignment->unplaced, control->cells, plan->usable, plan->kept, others, unplaced);
	say_shortage(control, text, passes);
	if (assignment->loads)
		cad_log_info(PL_COMPONENT, "planned", CAD_U("nodes", plan->usable), CAD_U("loads", assignment->loads),
			CAD_U("unplaced", unplaced));
}

static void tell_rollout(const struct pl_control *control)
{
	for (uint32_t slot = 0; slot < CAD_PROCESSES_MAX; slot++)
		if (control->registry.nodes[slot].role == PL_ROLE_EXPERT &&
			pl_node_counts(&control->registry.nodes[slot]))
			pl_rollout_reach(control->rollout, slot, pl_reach_whole(control->reach, slot),
				pl_reach_usable(control->reach, slot));
}

/* Makes a new assignment from the present state, and hands the targets to the rollout. Without
 * memory for it the old plan stays, and the next turn tries again. */
static void make_plan(struct pl_control *control, uint64_t now_ns)
{
	struct plan plan;

	do {
		tell_rollout(control);
		choose_nodes(control, &plan);
		if (!reserve(control, &plan) || assign(control, &plan) != CAD_OK) {
			cad_log_error(PL_COMPONENT, "out of memory for a plan", CAD_U("nodes", plan.count));
			return;
		}
	} while (plan.assignment.unplaced > 0 && pl_reach_release(control->reach, now_ns));

	keep_the_rest(control, &plan);
	hand_out(control, &plan);
	say_outcome(control, &plan);
	control->placed = control->placed || plan.assignment.unplaced - plan.kept < control->cells;
	control->all_lost = control->all_lost && plan.count == 0;
	control->plan_due = false;
}

static uint64_t routers_epoch(const struct pl_control *control)
{
	uint64_t lowest = UINT64_MAX;
	for (uint32_t slot = 0; slot < CAD_PROCESSES_MAX; slot++) {
		const struct pl_node *node = &control->registry.nodes[slot];
		if (node->role == PL_ROLE_ROUTER && pl_node_counts(node) && node->load.epoch < lowest)
			lowest = node->load.epoch;
	}
	return lowest;
}

static void order_load(void *context, uint32_t slot, const uint32_t *cells, uint32_t count)
{
	struct pl_control *control = context;
	control->stats.loads_ordered += count;
	control->options.events.load(
		control->options.events.context, control->registry.nodes[slot].session, cells, count);
}

static void order_free(void *context, uint32_t slot, const uint32_t *cells, uint32_t count)
{
	struct pl_control *control = context;
	control->stats.frees_ordered += count;
	control->options.events.free(
		control->options.events.context, control->registry.nodes[slot].session, cells, count);
}

/* ---- maps ---- */

/* Saved before it is published, so that no epoch is ever used for two maps. */
static void publish(struct pl_control *control)
{
	struct cad_map *map;
	struct cad_error error;

	if (pl_publish_map(&control->registry, control->rollout, &control->options.shape, control->epoch + 1, &map,
		    &error) != CAD_OK) {
		cad_log_error(PL_COMPONENT, "no map was created", CAD_S("error", error.text));
		return;
	}

	pl_state_begin(control->options.state);
	pl_publish_save(&control->registry, control->rollout, &control->options.shape, map->epoch,
		control->save_all ? control->kernels : NULL, control->options.state);
	control->save_all = false;
	pl_control_commit(control);
	control->epoch = map->epoch;
	cad_map_release(control->map);
	control->map = map;
	control->publish_forced = control->list_due = false;
	for (uint32_t slot = 0; slot < CAD_PROCESSES_MAX; slot++)
		if (control->registry.nodes[slot].role == PL_ROLE_EXPERT &&
			pl_node_counts(&control->registry.nodes[slot]))
			pl_reach_listed(control->reach, slot, map->epoch, pl_control_now(control));
	pl_rollout_published(control->rollout, map->epoch, pl_control_now(control));
	control->stats.maps_published++;
	cad_log_info(PL_COMPONENT, "map", CAD_U("epoch", map->epoch), CAD_U("nodes", map->nodes_count),
		CAD_U("unplaced", cad_map_unplaced(map)));
	control->options.events.publish(control->options.events.context, map);
}

/* Processes came with a map from before a restart that lost the state file, and what nodes say they
 * hold is still being compared: a map without it would stop them. */
static bool old_map_serves(const struct pl_control *control, uint64_t now_ns, uint64_t *until_ns)
{
	*until_ns = control->joined_ns + control->options.rejoin_ns;
	return !control->map && control->epoch > 0 && pl_rollout_in_flight(control->rollout) > 0 && now_ns < *until_ns;
}

/* ---- reach ---- */

/* Routers hear whether they count, so that they can say so themselves. */
static void tell_routers(struct pl_control *control, uint64_t now_ns)
{
	for (uint32_t slot = 0; slot < CAD_PROCESSES_MAX; slot++) {
		const struct pl_node *node = &control->registry.nodes[slot];
		if (node->role != PL_ROLE_ROUTER || node->presence != PL_LIVE ||
			pl_reach_counts(control->reach, slot) == control->counts_told[slot])
			continue;
		struct pl_reach_view view;
		pl_reach_view(control->reach, &control->registry, slot, now_ns, &view);
		control->counts_told[slot] = !control->counts_told[slot];
		control->options.events.standing(
			control->options.events.context, node->session, control->counts_told[slot], view.text);
	}
}

/* Who is reached by whom now. Returns when that may change by time alone. */
static uint64_t look_at_reach(struct pl_control *control, uint64_t now_ns)
{
	if (pl_reach_judge(control->reach, &control->registry, now_ns))
		control->plan_due = true;
	control->stats.absences = pl_reach_absences(control->reach);
	tell_rollout(control);
	tell_routers(control, now_ns);
	return pl_reach_deadline_ns(control->reach);
}

/* Before the first plan routers may connect; but a map without experts must not replace one that processes
 * still have from before a loss of the state file. */
static bool may_list(const struct pl_control *control)
{
	return control->list_due && pl_registry_count(&control->registry, PL_ROLE_EXPERT, PL_EXPECTED) == 0 &&
		(control->map || pl_rollout_empty(control->rollout));
}

static uint64_t turn(struct pl_control *control, uint64_t now_ns)
{
	uint64_t deadline_ns, until_ns;
	for (int slot; (slot = pl_registry_expire(&control->registry, now_ns)) >= 0;)
		bury(control, (uint32_t)slot);
	deadline_ns = look_at_reach(control, now_ns);
	until_ns = pl_registry_deadline_ns(&control->registry);
	deadline_ns = until_ns < deadline_ns ? until_ns : deadline_ns;
	if (must_wait(control, now_ns, &until_ns)) {
		if (may_list(control))
			publish(control);
		return until_ns < deadline_ns ? until_ns : deadline_ns;
	}
	if (pl_rollout_retry_due(control->rollout, now_ns))
		control->plan_due = true;
	if (control->plan_due)
		make_plan(control, now_ns);
	const struct pl_rollout_orders orders = { order_load, order_free, control };
	pl_rollout_turn(control->rollout, routers_epoch(control), now_ns, &orders);
	if (old_map_serves(control, now_ns, &until_ns))
		return until_ns < deadline_ns ? until_ns : deadline_ns;
	if (control->publish_forced || control->list_due || pl_rollout_publish_due(control->rollout, now_ns))
		publish(control);
	until_ns = pl_rollout_deadline_ns(control->rollout, now_ns);

	return until_ns < deadline_ns ? until_ns : deadline_ns;
}

uint64_t pl_control_turn(struct pl_control *control)
{
	/* Stopped, or held up: the reports of that time wait in the sockets. */
	uint64_t now_ns = pl_control_now(control), tick_ns = control->options.lease_ns / 10;
	if (control->turn_ns && now_ns > control->turn_ns + tick_ns) {
		pl_registry_postpone(&control->registry, now_ns - control->turn_ns, now_ns);
		pl_reach_postpone(control->reach, now_ns - control->turn_ns);
	}

	uint64_t deadline_ns = turn(control, now_ns);
	if (deadline_ns == UINT64_MAX) {
		control->turn_ns = 0;
		return deadline_ns;
	}
	if (deadline_ns > now_ns + tick_ns)
		deadline_ns = now_ns + tick_ns;
	control->turn_ns = deadline_ns > now_ns ? deadline_ns : now_ns;

	return deadline_ns;
}
