/* SPDX-License-Identifier: Apache-2.0 */
/* The turn: the dead are removed, a target is set if something has changed, orders go out, a map is
 * published. */
#include "orchestration/placement/internal.h"

#include "common/base/log.h"
#include "orchestration/placement/publish.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
	control->draining[slot] = false;
	pl_reach_drop(control->reach, slot);
	if (node->role == PL_ROLE_EXPERT) {
		pl_rollout_drop(control->rollout, slot);
		control->target_due = control->list_due = true;
		if (pl_registry_counted(&control->registry, PL_ROLE_EXPERT) == 0) {
			control->all_lost = true;
			control->back_ns = 0;
		}
	}

	pl_state_begin(control->options.state);
	pl_state_delete_node(control->options.state, node->id);
	pl_control_commit(control);
}

/* All were lost, as by a cut, and some are back. The others hold what a plan would load again: each
 * has a lease's time, unless it is known to be gone; and all settle as at the start. */
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
	if (control->save_all)
		pl_state_put_wishes(control->options.state, &control->options.shape, &control->force, &control->rules);
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
	uint64_t since_ns = control->joined_ns > control->began_ns ? control->joined_ns : control->began_ns;
	*until_ns = since_ns + control->options.rejoin_ns;
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
		control->target_due = true;
	control->stats.absences = pl_reach_absences(control->reach);
	pl_control_tell_rollout(control);
	tell_routers(control, now_ns);
	return pl_reach_deadline_ns(control->reach);
}

/* ---- draining ---- */

/* For the history: once, when the last expert has gone. */
static void tell_drained(struct pl_control *control)
{
	char what[CAD_MAP_ID_BYTES + 8];

	for (uint32_t slot = 0; slot < CAD_PROCESSES_MAX; slot++) {
		if (control->registry.nodes[slot].presence != PL_LIVE)
			continue;
		enum pl_duty duty = pl_control_duty(control, slot);
		bool emptied = control->draining[slot] && duty == PL_DUTY_SAFE_TO_STOP;
		control->draining[slot] = duty == PL_DUTY_DRAINING;
		if (!emptied || !control->options.events.did)
			continue;
		snprintf(what, sizeof what, "drain %s", control->registry.nodes[slot].id);
		control->options.events.did(
			control->options.events.context, what, "it holds no expert any more", "safe_to_stop");
	}
}

/* ---- the turn ---- */

/* Before the first plan routers may connect; but a map without experts must not replace one that
 * processes still have from before a loss of the state file. */
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
	control->began_ns = control->began_ns ? control->began_ns : now_ns;
	if (pl_rollout_retry_due(control->rollout, now_ns))
		control->target_due = true;
	if (control->target_due)
		pl_control_set_target(control, now_ns);
	const struct pl_rollout_orders orders = {
		.load = pl_order_load,
		.free = pl_order_free,
		.stalled = pl_force_stalled,
		.context = control,
	};
	pl_rollout_turn(control->rollout, routers_epoch(control), now_ns, &orders);
	tell_drained(control);
	if (control->force.unsaved)
		pl_control_save_wishes(control);
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
