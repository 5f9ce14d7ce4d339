/* SPDX-License-Identifier: Apache-2.0 */
/* The target: which node should hold which expert, given who is there, what is held, and the plan
 * in force. */
#include "orchestration/placement/internal.h"

#include "common/base/log.h"
#include "common/base/plural.h"
#include "orchestration/placement/assign.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

/* Of one that has just come it is not known yet whether routers will reach it; what it has is not
 * loaded elsewhere in that moment. */
static bool takes_part(const struct pl_control *control, uint32_t slot)
{
	return pl_reach_usable(control->reach, slot) || pl_reach_undecided(control->reach, slot);
}

static bool is_at_hand(const struct pl_control *control, uint32_t slot)
{
	return control->registry.nodes[slot].presence == PL_LIVE && pl_reach_usable(control->reach, slot);
}

/* ---- the scene ---- */

static void add_node(const struct pl_control *control, struct pl_scene *scene, uint32_t slot, bool usable)
{
	const struct pl_node *node = &control->registry.nodes[slot];
	struct pl_cluster_node *made = &scene->cluster.nodes[scene->cluster.nodes_count];

	*made = (struct pl_cluster_node){
		.memory_bytes = node->memory_bytes,
		.expert_bytes = pl_rollout_bytes(control->rollout, slot),
		.speed = node->speed,
		.link = 1,
		.domain = PL_CLUSTER_ANY,
		.forbidden = !usable,
	};
	memcpy(made->id, node->id, sizeof made->id);
	scene->slots[scene->cluster.nodes_count++] = slot;
	scene->usable += usable;
}

static enum cad_status add_nodes(const struct pl_control *control, const struct pl_rules *rules, struct pl_scene *scene)
{
	uint32_t most = pl_registry_counted(&control->registry, PL_ROLE_EXPERT);
	scene->cluster.nodes = calloc(most + 1u, sizeof *scene->cluster.nodes);
	scene->slots = calloc(most + 1u, sizeof *scene->slots);
	scene->fresh = calloc(most + 1u, sizeof *scene->fresh);
	if (!scene->cluster.nodes || !scene->slots || !scene->fresh)
		return CAD_ERR_MEMORY;

	for (int usable = 1; usable >= 0; usable--)
		for (uint32_t slot = 0; slot < CAD_PROCESSES_MAX; slot++) {
			const struct pl_node *node = &control->registry.nodes[slot];
			if (may_hold(control, node) &&
				(takes_part(control, slot) && !pl_rules_drained(rules, node->id)) == (usable == 1))
				add_node(control, scene, slot, usable == 1);
		}
	scene->cluster.racks_count = 1;
	scene->cluster.expert_bytes = control->options.expert_bytes;
	scene->cluster.image_bytes = control->options.image_bytes;
	return CAD_OK;
}

static enum cad_status add_pins(const struct pl_control *control, const struct pl_rules *rules, struct pl_scene *scene)
{
	struct pl_cluster *cluster = &scene->cluster;
	cluster->rules = calloc(rules->pins_count + 1u, sizeof *cluster->rules);
	if (!cluster->rules)
		return CAD_ERR_MEMORY;

	for (uint32_t i = 0; i < rules->pins_count; i++) {
		const struct pl_pin *pin = &rules->pins[i];
		uint32_t n = pl_cluster_find(cluster, pin->node);
		if (n != PL_CLUSTER_ANY && n < scene->usable)
			cluster->rules[cluster->rules_count++] = (struct pl_cluster_rule){
				.layer = pl_cell_layer(&control->options.shape, pin->cell),
				.expert = pl_cell_expert(&control->options.shape, pin->cell),
				.node = n,
			};
	}
	return CAD_OK;
}

static enum cad_status create_plan(
	const struct pl_control *control, const struct pl_scene *scene, struct pl_plan **plan)
{
	const struct pl_shape *shape = &control->options.shape;
	enum cad_status status = pl_plan_create(shape->layers_count, shape->experts, scene->cluster.nodes_count, plan);
	if (status == CAD_OK && shape->layers_count)
		memcpy((*plan)->layer, shape->layers, shape->layers_count * sizeof *shape->layers);
	return status;
}

/* Who holds what; a node out of reach, ours or routers', keeps what it has and gets nothing. */
static void look_at(const struct pl_control *control, struct pl_scene *scene, uint32_t n)
{
	struct pl_cluster_node *node = &scene->cluster.nodes[n];
	const struct pl_rollout_view view = { scene->held, scene->failed, scene->leaving };
	uint32_t slot = scene->slots[n], used = pl_rollout_view(control->rollout, slot, n, &view);
	scene->fresh[n] = control->options.level_on_join && is_at_hand(control, slot);
	if (!is_at_hand(control, slot))
		node->memory_bytes = used * pl_cluster_expert_bytes(&scene->cluster, n);
}

enum cad_status pl_scene_init(const struct pl_control *control, const struct pl_rules *rules, struct pl_scene *scene)
{
	*scene = (struct pl_scene){ 0 };
	enum cad_status status = add_nodes(control, rules, scene);
	if (status == CAD_OK)
		status = add_pins(control, rules, scene);
	if (status == CAD_OK)
		status = create_plan(control, scene, &scene->held);
	if (status == CAD_OK)
		status = create_plan(control, scene, &scene->failed);
	if (status == CAD_OK)
		status = create_plan(control, scene, &scene->leaving);
	if (status == CAD_OK)
		status = create_plan(control, scene, &scene->target);
	for (uint32_t n = 0; status == CAD_OK && n < scene->cluster.nodes_count; n++)
		look_at(control, scene, n);
	if (status == CAD_OK)
		status = pl_force_show(&control->force, scene);
	if (status != CAD_OK)
		pl_scene_fini(scene);
	return status;
}

void pl_scene_fini(struct pl_scene *scene)
{
	pl_cluster_fini(&scene->cluster);
	free(scene->slots);
	free(scene->fresh);
	pl_plan_free(scene->held);
	pl_plan_free(scene->failed);
	pl_plan_free(scene->leaving);
	pl_plan_free(scene->wanted);
	pl_plan_free(scene->target);
	*scene = (struct pl_scene){ 0 };
}

/* ---- the target ---- */

/* What has no place among usable nodes stays where it is: a copy that some routers reach is better
 * than none. Returns how many experts that is. */
static uint32_t keep_the_rest(struct pl_scene *scene)
{
	uint32_t kept = 0;
	for (uint32_t l = 0; l < scene->target->layers; l++)
		for (uint32_t e = 0; e < scene->target->experts; e++) {
			if (pl_plan_count(scene->target, l, e))
				continue;
			uint32_t n = scene->usable;
			for (; (n = pl_plan_next(scene->held, l, e, n)) != UINT32_MAX; n++)
				pl_plan_put(scene->target, l, e, n);
			kept += pl_plan_count(scene->target, l, e) > 0;
		}
	return kept;
}

enum cad_status pl_scene_assign(const struct pl_control *control, const struct pl_rules *rules, struct pl_scene *scene,
	struct pl_assignment *assignment, uint32_t *kept)
{
	const struct pl_assign_source source = {
		.cluster = &scene->cluster,
		.held = scene->held,
		.failed = scene->failed,
		.leaving = scene->leaving,
		.wanted = scene->wanted,
		.copies = control->options.copies_min,
		.copies_of = rules->copies,
		.level = control->options.level_on_join && !control->force.paused,
		.fresh = scene->fresh,
		.seed = control->options.seed,
	};
	enum cad_status status = pl_assign(&source, scene->target, assignment);
	if (status == CAD_OK)
		*kept = keep_the_rest(scene);
	return status;
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

/* Where not every router reaches every node, that is what users should hear of. */
static void say_outcome(
	struct pl_control *control, const struct pl_scene *scene, const struct pl_assignment *assignment, uint32_t kept)
{
	char text[sizeof control->shortage];
	uint32_t others = scene->cluster.nodes_count - scene->usable, unplaced = assignment->unplaced - kept;
	bool passes = assignment->unplaced > 0 && pl_reach_pending_ns(control->reach);

	if (passes)
		snprintf(text, sizeof text,
			"%u %s until it is clear which of the expert nodes that have come routers reach",
			assignment->unplaced, cad_plural(assignment->unplaced, "expert waits", "experts wait"));
	else if (assignment->unplaced == 0 || others == 0)
		snprintf(text, sizeof text, "%s", assignment->unplaced ? assignment->text : "");
	else
		snprintf(text, sizeof text,
			"%u of %u experts %s no place on the %u expert %s that every router reaches and nobody drains; of them %u %s on the %u %s, and %u %s nowhere",
			assignment->unplaced, control->cells, cad_plural(assignment->unplaced, "has", "have"),
			scene->usable, cad_plural(scene->usable, "node", "nodes"), kept,
			cad_plural(kept, "stays", "stay"), others, cad_plural(others, "other", "others"), unplaced,
			cad_plural(unplaced, "is", "are"));
	say_shortage(control, text, passes);
	if (assignment->loads)
		cad_log_info(PL_COMPONENT, "planned", CAD_U("nodes", scene->usable), CAD_U("loads", assignment->loads),
			CAD_U("unplaced", unplaced));
}

void pl_control_tell_rollout(const struct pl_control *control)
{
	for (uint32_t slot = 0; slot < CAD_PROCESSES_MAX; slot++) {
		const struct pl_node *node = &control->registry.nodes[slot];
		if (node->role != PL_ROLE_EXPERT || !pl_node_counts(node))
			continue;
		pl_rollout_reach(control->rollout, slot, pl_reach_whole(control->reach, slot),
			pl_reach_usable(control->reach, slot));
		pl_rollout_open(control->rollout, slot, !pl_rules_drained(&control->rules, node->id));
	}
}

/* Nodes in hold-off are used when without them an expert has no place. */
static enum cad_status find_places(struct pl_control *control, struct pl_scene *scene, struct pl_assignment *assignment,
	uint32_t *kept, uint64_t now_ns)
{
	enum cad_status status;

	do {
		pl_scene_fini(scene);
		pl_control_tell_rollout(control);
		choose_kernels(control);
		status = pl_scene_init(control, &control->rules, scene);
		if (status == CAD_OK)
			status = pl_scene_assign(control, &control->rules, scene, assignment, kept);
	} while (status == CAD_OK && assignment->unplaced > 0 && pl_reach_release(control->reach, now_ns));

	return status;
}

/* For the history, once for each join. */
static void note_levelling(struct pl_control *control, const struct pl_assignment *assignment)
{
	char why[96];
	if (assignment->levelled == 0 || control->levelled_ns == control->joined_ns || !control->options.events.did)
		return;
	control->levelled_ns = control->joined_ns;
	snprintf(why, sizeof why, "%u %s to nodes that have fewer", assignment->levelled,
		cad_plural(assignment->levelled, "expert moves", "experts move"));
	control->options.events.did(control->options.events.context, "level nodes", why, "done");
}

void pl_control_set_target(struct pl_control *control, uint64_t now_ns)
{
	struct pl_scene scene = { 0 };
	struct pl_assignment assignment;
	uint32_t kept;
	bool filled = false;
	enum cad_status status = find_places(control, &scene, &assignment, &kept, now_ns);

	if (status == CAD_OK)
		status = pl_force_take(&control->force, &scene, &filled);
	if (status != CAD_OK) {
		cad_log_error(PL_COMPONENT, "out of memory for a plan", CAD_U("nodes", scene.cluster.nodes_count));
	} else {
		if (filled)
			pl_control_save_wishes(control);
		pl_rollout_target(control->rollout, scene.target, scene.slots);
		say_outcome(control, &scene, &assignment, kept);
		note_levelling(control, &assignment);
		control->placed = control->placed || assignment.unplaced - kept < control->cells;
		control->all_lost = control->all_lost && scene.cluster.nodes_count == 0;
		control->target_due = false;
	}

	pl_scene_fini(&scene);
}
