/* SPDX-License-Identifier: Apache-2.0 */
/* The plan in force: it is checked, applied, paused, stopped, and shown to the target. */
#include "orchestration/placement/internal.h"

#include "common/base/log.h"
#include "common/base/plural.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void drop_plan(struct pl_force *force)
{
	pl_cluster_fini(&force->cluster);
	pl_plan_free(force->plan);
	force->plan = NULL;
}

void pl_force_fini(struct pl_force *force)
{
	drop_plan(force);
	*force = (struct pl_force){ 0 };
}

void pl_force_moved(struct pl_control *control)
{
	control->force.progress.done++;
	control->force.progress.moved_ns = pl_control_now(control);
}

/* Where an expert is that could not be had elsewhere: a node of the plan that is not planned to
 * have it, else any that has it; CAD_PROCESSES_MAX: nowhere. *n: its index in the plan, or
 * PL_CLUSTER_ANY. */
static uint32_t find_old_place(const struct pl_control *control, uint32_t cell, uint32_t *n)
{
	const struct pl_force *force = &control->force;
	uint32_t layer = cell / control->options.shape.experts, expert = cell % control->options.shape.experts,
		 any = CAD_PROCESSES_MAX;

	*n = PL_CLUSTER_ANY;
	for (uint32_t s = 0; s < CAD_PROCESSES_MAX; s++) {
		if (pl_rollout_copy(control->rollout, s, cell) != PL_COPY_READY)
			continue;
		uint32_t at =
			force->plan ? pl_cluster_find(&force->cluster, control->registry.nodes[s].id) : PL_CLUSTER_ANY;
		any = s;
		if (at == PL_CLUSTER_ANY || pl_plan_holds(force->plan, layer, expert, at))
			continue;
		*n = at;
		return s;
	}
	return any;
}

/* The plan gives up a place that could not be had, and keeps the one that there is, as of the end
 * of the turn in the state file. Returns its slot. */
static uint32_t keep_old_place(struct pl_control *control, uint32_t slot, uint32_t cell)
{
	struct pl_plan *plan = control->force.plan;
	uint32_t layer = cell / control->options.shape.experts, expert = cell % control->options.shape.experts, n;
	uint32_t old = find_old_place(control, cell, &n);
	uint32_t lost =
		plan ? pl_cluster_find(&control->force.cluster, control->registry.nodes[slot].id) : PL_CLUSTER_ANY;

	if (lost == PL_CLUSTER_ANY || !pl_plan_holds(plan, layer, expert, lost))
		return old;
	control->force.unsaved = true;
	if (n != PL_CLUSTER_ANY)
		pl_plan_put(plan, layer, expert, n);
	if (pl_plan_count(plan, layer, expert) > 1)
		pl_plan_take(plan, layer, expert, lost);
	return old;
}

void pl_force_stalled(void *context, uint32_t slot, uint32_t cell)
{
	struct pl_control *control = context;
	struct pl_control_progress *progress = &control->force.progress;
	const struct pl_node *nodes = control->registry.nodes;
	uint32_t old = keep_old_place(control, slot, cell), layer = pl_cell_layer(&control->options.shape, cell),
		 expert = pl_cell_expert(&control->options.shape, cell);
	char what[64], stays[PL_TEXT_BYTES + 32] = "it is loaded elsewhere";

	if (old < CAD_PROCESSES_MAX)
		snprintf(stays, sizeof stays, "it stays on node '%s'", nodes[old].id);
	snprintf(what, sizeof what, "back out layer %u expert %u", layer, expert);
	snprintf(progress->text, sizeof progress->text,
		"layer %u expert %u did not come on for %llu s on node '%s', which was told to free it; %s", layer,
		expert, (unsigned long long)(control->options.stall_ns / CAD_NS_PER_S), nodes[slot].id, stays);
	progress->failed++;
	control->stats.loads_stalled++;
	control->target_due = true;
	cad_log_warn(PL_COMPONENT, progress->text);
	if (control->options.events.did)
		control->options.events.did(control->options.events.context, what, progress->text, "done");
}

/* What is wanted where it is not, is left where it is. */
static void stay(struct pl_plan *wanted, const struct pl_plan *held)
{
	for (uint32_t l = 0; l < wanted->layers; l++)
		for (uint32_t e = 0; e < wanted->experts; e++) {
			uint64_t *want = pl_plan_set(wanted, l, e), *has = pl_plan_set(held, l, e);
			uint32_t copies = pl_plan_count(wanted, l, e);
			if (pl_plan_count(held, l, e) == 0)
				continue;
			for (uint32_t w = 0; w < wanted->words; w++)
				want[w] &= has[w];
			uint32_t kept = pl_plan_count(wanted, l, e);
			copies = copies ? copies : 1;
			for (uint32_t n = 0; kept < copies && (n = pl_plan_next(held, l, e, n)) != UINT32_MAX; n++) {
				kept += !pl_plan_holds(wanted, l, e, n);
				pl_plan_put(wanted, l, e, n);
			}
		}
}

enum cad_status pl_force_show(const struct pl_force *force, struct pl_scene *scene)
{
	if (!force->plan)
		return CAD_OK;
	enum cad_status status = pl_plan_translate(force->plan, &force->cluster, &scene->cluster, &scene->wanted);
	for (uint32_t n = 0; status == CAD_OK && n < scene->cluster.nodes_count; n++)
		scene->fresh[n] = scene->fresh[n] && !force->paused &&
			pl_cluster_find(&force->cluster, scene->cluster.nodes[n].id) == PL_CLUSTER_ANY;
	if (status == CAD_OK && force->paused)
		stay(scene->wanted, scene->held);
	return status;
}

static enum cad_status copy_ids(const struct pl_cluster *from, uint32_t more, struct pl_cluster *to)
{
	*to = (struct pl_cluster){
		.nodes = calloc(from->nodes_count + more + 1u, sizeof *to->nodes),
		.nodes_count = from->nodes_count,
	};
	for (uint32_t n = 0; to->nodes && n < from->nodes_count; n++)
		memcpy(to->nodes[n].id, from->nodes[n].id, sizeof to->nodes[n].id);
	return to->nodes ? CAD_OK : CAD_ERR_MEMORY;
}

/* What the plan says of nodes of the scene is what is wanted there; of others it says what it
 * said. */
static void overwrite(struct pl_force *force, const struct pl_scene *scene)
{
	struct pl_plan *plan = force->plan;
	for (uint32_t n = 0; n < scene->cluster.nodes_count; n++) {
		uint32_t at = pl_cluster_find(&force->cluster, scene->cluster.nodes[n].id);
		for (uint32_t l = 0; at != PL_CLUSTER_ANY && l < plan->layers; l++)
			for (uint32_t e = 0; e < plan->experts; e++) {
				pl_plan_take(plan, l, e, at);
				if (pl_plan_holds(scene->wanted, l, e, n))
					pl_plan_put(plan, l, e, at);
			}
	}
}

/* The plan is now for those of these nodes that are chosen, too; they come last, and get nothing
 * yet. */
static enum cad_status widen(
	struct pl_force *force, const struct pl_cluster_node *nodes, const bool *chosen, uint32_t count)
{
	struct pl_cluster cluster;
	struct pl_plan *plan;
	enum cad_status status = copy_ids(&force->cluster, count, &cluster);
	for (uint32_t n = 0; status == CAD_OK && n < count; n++)
		if (chosen[n])
			memcpy(cluster.nodes[cluster.nodes_count++].id, nodes[n].id, sizeof nodes->id);
	if (status == CAD_OK)
		status = pl_plan_translate(force->plan, &force->cluster, &cluster, &plan);
	if (status != CAD_OK) {
		pl_cluster_fini(&cluster);
		return status;
	}

	drop_plan(force);
	force->cluster = cluster;
	force->plan = plan;
	return CAD_OK;
}

enum cad_status pl_force_take(struct pl_force *force, const struct pl_scene *scene, bool *changed)
{
	bool any = false;
	*changed = false;
	for (uint32_t n = 0; force->plan && n < scene->cluster.nodes_count; n++)
		any = any || scene->fresh[n];
	if (!any)
		return CAD_OK;

	enum cad_status status = widen(force, scene->cluster.nodes, scene->fresh, scene->cluster.nodes_count);
	if (status != CAD_OK)
		return status;
	overwrite(force, scene);
	*changed = true;
	return CAD_OK;
}

void pl_plan_pin(struct pl_plan *plan, const struct pl_cluster *cluster, const struct pl_rules *rules, uint32_t cell,
	uint32_t node)
{
	uint32_t layer = cell / plan->experts, expert = cell % plan->experts, other = 0;

	if (pl_plan_holds(plan, layer, expert, node))
		return;
	while ((other = pl_plan_next(plan, layer, expert, other)) != UINT32_MAX &&
		pl_rules_pinned(rules, cell, cluster->nodes[other].id))
		other++;
	pl_plan_put(plan, layer, expert, node);
	if (other != UINT32_MAX)
		pl_plan_take(plan, layer, expert, other);
}

enum cad_status pl_force_pin(struct pl_force *force, const struct pl_rules *rules, uint32_t cell, const char *node)
{
	if (!force->plan)
		return CAD_OK;
	uint32_t n = pl_cluster_find(&force->cluster, node);
	if (n == PL_CLUSTER_ANY) {
		struct pl_cluster_node one = { 0 };
		strncpy(one.id, node, sizeof one.id - 1);
		enum cad_status status = widen(force, &one, &(bool){ true }, 1);
		if (status != CAD_OK)
			return status;
		n = force->cluster.nodes_count - 1u;
	}
	pl_plan_pin(force->plan, &force->cluster, rules, cell, n);
	return CAD_OK;
}

/* ---- the situation ---- */

/* Those that are given experts come first in the scene, with the pins; others are left out, but for
 * those that are drained. */
static void take_nodes(const struct pl_control *control, struct pl_scene *scene, struct pl_cluster *cluster)
{
	cluster->nodes_count = 0;
	for (uint32_t n = 0; n < scene->cluster.nodes_count; n++)
		if (n < scene->usable || pl_rules_drained(&control->rules, scene->cluster.nodes[n].id))
			cluster->nodes[cluster->nodes_count++] = scene->cluster.nodes[n];
	cluster->racks_count = scene->cluster.racks_count;
	cluster->expert_bytes = scene->cluster.expert_bytes;
	cluster->image_bytes = scene->cluster.image_bytes;
	cluster->rules = scene->cluster.rules;
	cluster->rules_count = scene->cluster.rules_count;
	scene->cluster.rules = NULL;
}

enum cad_status pl_control_situation(
	const struct pl_control *control, struct pl_situation *situation, struct cad_error *error)
{
	struct pl_scene scene;
	enum cad_status status = pl_scene_init(control, &control->rules, &scene);

	*situation = (struct pl_situation){ .epoch = control->epoch };
	if (status == CAD_OK)
		status = copy_ids(&scene.cluster, 0, &situation->cluster);
	if (status == CAD_OK) {
		take_nodes(control, &scene, &situation->cluster);
		status = pl_plan_translate(scene.held, &scene.cluster, &situation->cluster, &situation->present);
	}
	pl_scene_fini(&scene);
	if (status != CAD_OK) {
		pl_situation_fini(situation);
		return cad_error_set(error, status, "out of memory for what is where now");
	}

	return CAD_OK;
}

void pl_situation_fini(struct pl_situation *situation)
{
	pl_cluster_fini(&situation->cluster);
	pl_plan_free(situation->present);
	*situation = (struct pl_situation){ 0 };
}

/* ---- check ---- */

enum cad_status pl_refuse_full(const struct pl_scene *scene, struct cad_error *error)
{
	return cad_error_set(error, CAD_ERR_EXHAUSTED,
		"the nodes are so full that experts cannot change places while every one of them is served: room for one more expert, %.2f MiB, is missing on any of the %u nodes",
		(double)scene->cluster.expert_bytes / (1 << 20), scene->usable);
}

static enum cad_status check_shape(const struct pl_shape *shape, const struct pl_cluster *cluster,
	const struct pl_plan *plan, struct cad_error *error)
{
	if (plan->layers != shape->layers_count || plan->experts != shape->experts)
		return cad_error_set(error, CAD_ERR_INVALID,
			"the plan is for %u layers of %u experts, the model has %u MoE layers of %u: plan for this model",
			plan->layers, plan->experts, shape->layers_count, shape->experts);
	for (uint32_t l = 0; l < plan->layers; l++)
		if (plan->layer[l] != shape->layers[l])
			return cad_error_set(error, CAD_ERR_INVALID,
				"the plan is for layer %u, which is no MoE layer of the model: plan for this model",
				plan->layer[l]);
	if (plan->nodes != cluster->nodes_count)
		return cad_error_set(error, CAD_ERR_INVALID, "the plan is for %u nodes, but %u are named", plan->nodes,
			cluster->nodes_count);
	return CAD_OK;
}

/* Every expert has a node, and every node that gets one is there and has room. */
static enum cad_status check_places(const struct pl_cluster *cluster, const struct pl_plan *plan,
	const struct pl_scene *scene, struct cad_error *error)
{
	for (uint32_t n = 0; n < cluster->nodes_count; n++) {
		uint32_t at = pl_cluster_find(&scene->cluster, cluster->nodes[n].id), used = pl_plan_copies_on(plan, n);
		if (used > 0 && (at == PL_CLUSTER_ANY || at >= scene->usable))
			return cad_error_set(error, CAD_ERR_INVALID,
				"the plan gives %u experts to node '%s', which %s: plan for the nodes that there are",
				used, cluster->nodes[n].id,
				at == PL_CLUSTER_ANY ? "is no expert node of this cluster now"
						     : "is drained, or not reached by every router");
		uint64_t room = used > 0 ? pl_cluster_room(&scene->cluster, at) : 0;
		if (used > room)
			return cad_error_set(error, CAD_ERR_EXHAUSTED,
				"the plan gives %u experts to node '%s', which has room for %llu: %.1f MiB are missing",
				used, cluster->nodes[n].id, (unsigned long long)room,
				(double)((used - room) * pl_cluster_expert_bytes(&scene->cluster, at)) / (1 << 20));
	}
	for (uint32_t l = 0; l < plan->layers; l++)
		for (uint32_t e = 0; e < plan->experts; e++)
			if (pl_plan_count(plan, l, e) == 0)
				return cad_error_set(error, CAD_ERR_INVALID,
					"the plan leaves layer %u expert %u without a node", plan->layer[l], e);
	return CAD_OK;
}

/* Pins to nodes that hold nothing are suspended. */
static enum cad_status check_pins(const struct pl_shape *shape, const struct pl_rules *rules,
	const struct pl_cluster *cluster, const struct pl_plan *plan, struct cad_error *error)
{
	for (uint32_t i = 0; i < rules->pins_count; i++) {
		const struct pl_pin *pin = &rules->pins[i];
		uint32_t n = pl_cluster_find(cluster, pin->node), layer = pin->cell / shape->experts,
			 expert = pin->cell % shape->experts;
		if (n != PL_CLUSTER_ANY && !pl_rules_drained(rules, pin->node) &&
			!pl_plan_holds(plan, layer, expert, n))
			return cad_error_set(error, CAD_ERR_INVALID,
				"the plan does not give layer %u expert %u to node '%s', which it is pinned to: unpin it, or plan with the pins",
				plan->layer[layer], expert, pin->node);
	}
	return CAD_OK;
}

static enum cad_status check_way(const struct pl_cluster *cluster, const struct pl_plan *plan,
	const struct pl_scene *scene, struct cad_error *error)
{
	struct pl_plan *target = NULL;
	bool reached = false;
	enum cad_status status = pl_plan_translate(plan, cluster, &scene->cluster, &target);
	if (status == CAD_OK)
		reached = pl_assign_reaches(&scene->cluster, scene->held, target);
	pl_plan_free(target);
	if (status != CAD_OK)
		return cad_error_set(error, status, "out of memory for a check of the plan");
	return reached ? CAD_OK : pl_refuse_full(scene, error);
}

static enum cad_status check(const struct pl_control *control, const struct pl_cluster *cluster,
	const struct pl_plan *plan, const struct pl_scene *scene, struct cad_error *error)
{
	if (!control->placed)
		return cad_error_set(error, CAD_AGAIN, "the experts are not placed yet: try again in a moment");
	enum cad_status status = check_shape(&control->options.shape, cluster, plan, error);
	if (status == CAD_OK)
		status = check_places(cluster, plan, scene, error);
	if (status == CAD_OK)
		status = check_pins(&control->options.shape, &control->rules, cluster, plan, error);
	return status == CAD_OK ? check_way(cluster, plan, scene, error) : status;
}

static enum cad_status look(const struct pl_control *control, struct pl_scene *scene, struct cad_error *error)
{
	enum cad_status status = pl_scene_init(control, &control->rules, scene);
	return status == CAD_OK ? CAD_OK : cad_error_set(error, status, "out of memory for what is where now");
}

enum cad_status pl_control_check(const struct pl_control *control, const struct pl_cluster *cluster,
	const struct pl_plan *plan, struct cad_error *error)
{
	struct pl_scene scene;
	enum cad_status status = look(control, &scene, error);
	if (status != CAD_OK)
		return status;
	status = check(control, cluster, plan, &scene, error);
	pl_scene_fini(&scene);
	return status;
}

/* ---- apply, pause, stop ---- */

/* In force from now on; the old one is gone. Takes both. */
static void enforce(struct pl_control *control, const struct pl_cluster *ids, struct pl_plan *plan)
{
	drop_plan(&control->force);
	control->force.cluster = *ids;
	control->force.plan = plan;
	control->target_due = true;
}

enum cad_status pl_control_apply(struct pl_control *control, const struct pl_cluster *cluster,
	const struct pl_plan *plan, uint64_t bytes_per_second, struct cad_error *error)
{
	struct pl_cluster ids = { 0 };
	struct pl_plan *copy = NULL;
	enum cad_status status = pl_control_check(control, cluster, plan, error);
	if (status != CAD_OK)
		return status;

	status = copy_ids(cluster, 0, &ids);
	if (status == CAD_OK)
		status = pl_plan_translate(plan, cluster, &ids, &copy);
	if (status != CAD_OK) {
		pl_cluster_fini(&ids);
		return cad_error_set(error, status, "out of memory for a plan of %u nodes", cluster->nodes_count);
	}

	enforce(control, &ids, copy);
	control->force.paused = false;
	control->force.bytes_per_second = bytes_per_second;
	pl_rollout_rate(control->rollout, bytes_per_second ? bytes_per_second : control->options.bytes_per_second);
	control->force.progress = (struct pl_control_progress){ 0 };
	pl_control_save_wishes(control);
	cad_log_info(PL_COMPONENT, "a plan is in force", CAD_U("nodes", cluster->nodes_count),
		CAD_U("copies", pl_plan_copies(plan)));
	return CAD_OK;
}

void pl_control_pause(struct pl_control *control, bool paused)
{
	control->force.paused = paused;
	control->target_due = true;
	pl_control_save_wishes(control);
}

/* The nodes of the scene that the plan knows, or now puts something on: others may still be
 * filled. */
static enum cad_status known_nodes(const struct pl_force *force, const struct pl_scene *scene, struct pl_cluster *known)
{
	enum cad_status status = copy_ids(&scene->cluster, 0, known);
	if (status != CAD_OK)
		return status;

	known->nodes_count = 0;
	for (uint32_t n = 0; n < scene->cluster.nodes_count; n++) {
		const char *id = scene->cluster.nodes[n].id;
		if (pl_plan_copies_on(scene->wanted, n) || pl_cluster_find(&force->cluster, id) != PL_CLUSTER_ANY)
			memcpy(known->nodes[known->nodes_count++].id, id, sizeof known->nodes->id);
	}
	return CAD_OK;
}

enum cad_status pl_control_stop(struct pl_control *control, struct cad_error *error)
{
	struct pl_force *force = &control->force;
	struct pl_scene scene;

	if (!force->plan)
		return cad_error_set(error, CAD_ERR_NOT_FOUND, "there is no plan in force");
	enum cad_status status = look(control, &scene, error);
	if (status != CAD_OK)
		return status;

	stay(scene.wanted, scene.held);
	struct pl_plan *plan = NULL;
	struct pl_cluster known;
	status = known_nodes(force, &scene, &known);
	if (status == CAD_OK)
		status = pl_plan_translate(scene.wanted, &scene.cluster, &known, &plan);
	pl_scene_fini(&scene);
	if (status != CAD_OK) {
		pl_cluster_fini(&known);
		return cad_error_set(error, status, "out of memory for what is where now");
	}
	enforce(control, &known, plan);
	force->paused = false;
	pl_control_save_wishes(control);

	return CAD_OK;
}

void pl_control_progress(const struct pl_control *control, struct pl_control_progress *progress)
{
	struct pl_rollout_work work;
	pl_rollout_work(control->rollout, &work);

	*progress = control->force.progress;
	progress->in_force = control->force.plan;
	progress->in_flight = work.loading;
	progress->moves = progress->done + progress->failed + work.loading + work.pending;
	progress->bytes = progress->moves * control->options.image_bytes;
	progress->bytes_done = progress->done * control->options.image_bytes + work.loading_bytes;
	progress->settled = !control->target_due && (work.stuck || work.loading + work.pending + work.leaving == 0);
	if (work.stuck)
		snprintf(progress->text, sizeof progress->text, "%u %s for room that there is not: the nodes are full",
			work.pending, cad_plural(work.pending, "move waits", "moves wait"));
}
