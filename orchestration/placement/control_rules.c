/* SPDX-License-Identifier: Apache-2.0 */
/* What operators say about single nodes and experts. Each change is proposed first: what would
 * become of the placement with other rules? Only what can be done is put into the rules. */
#include "orchestration/placement/internal.h"

#include "common/base/log.h"
#include "common/base/plural.h"

#include <stdio.h>
#include <string.h>

/* ---- a proposal ---- */

struct proposal {
	struct pl_rules rules; /* as they would be */
	struct pl_scene scene; /* with its target */
	struct pl_assignment assignment;
	uint32_t kept;
	bool reached;
};

static void withdraw(struct proposal *proposal)
{
	pl_rules_fini(&proposal->rules);
	pl_scene_fini(&proposal->scene);
}

static enum cad_status begin(const struct pl_control *control, struct proposal *proposal, struct cad_error *error)
{
	*proposal = (struct proposal){ 0 };
	if (!control->placed)
		return cad_error_set(error, CAD_AGAIN, "the experts are not placed yet: try again in a moment");
	if (pl_rules_copy(&proposal->rules, &control->rules, control->cells) != CAD_OK)
		return cad_error_set(error, CAD_ERR_MEMORY, "out of memory for a change");
	return CAD_OK;
}

/* What would become of it. pinned: the cell that is pinned to `node` now; UINT32_MAX: none is. */
static enum cad_status work_out(const struct pl_control *control, struct proposal *proposal, uint32_t pinned,
	const char *node, struct cad_error *error)
{
	struct pl_scene *scene = &proposal->scene;
	enum cad_status status = pl_scene_init(control, &proposal->rules, scene);
	uint32_t n = status == CAD_OK && pinned != UINT32_MAX ? pl_cluster_find(&scene->cluster, node) : PL_CLUSTER_ANY;

	if (scene->wanted && n != PL_CLUSTER_ANY)
		pl_plan_pin(scene->wanted, &scene->cluster, &proposal->rules, pinned, n);
	if (status == CAD_OK)
		status = pl_scene_assign(control, &proposal->rules, scene, &proposal->assignment, &proposal->kept);
	if (status == CAD_OK)
		proposal->reached = pl_assign_reaches(&scene->cluster, scene->held, scene->target);
	return status == CAD_OK ? CAD_OK : cad_error_set(error, status, "out of memory for a change");
}

/* The same, and what the present rules lead to. */
static enum cad_status work_out_both(const struct pl_control *control, struct proposal *proposal,
	struct pl_assignment *present, uint32_t pinned, const char *node, struct cad_error *error)
{
	struct pl_scene same;
	uint32_t kept;
	enum cad_status status = pl_scene_init(control, &control->rules, &same);
	if (status == CAD_OK)
		status = pl_scene_assign(control, &control->rules, &same, present, &kept);
	pl_scene_fini(&same);
	return status == CAD_OK ? work_out(control, proposal, pinned, node, error)
				: cad_error_set(error, status, "out of memory for a change");
}

/* Refuses what leaves more experts than `before` without a place, or cannot be reached. */
static enum cad_status judge(
	const struct proposal *proposal, uint32_t before, const char *what, struct cad_error *error)
{
	const struct pl_assignment *then = &proposal->assignment;
	uint32_t homeless = then->unplaced - before;
	const char *experts = cad_plural(homeless, "expert", "experts");
	struct cad_error full;

	if (then->unplaced > before && then->missing_bytes == 0)
		return cad_error_set(error, CAD_ERR_EXHAUSTED,
			"%s: %u %s would have no place, since loading has failed elsewhere; try again in a moment",
			what, homeless, experts);
	if (then->unplaced > before)
		return cad_error_set(error, CAD_ERR_EXHAUSTED,
			"%s: %u %s of %.2f MiB each would have no place on the %u other expert %s: add nodes, or give them more --memory",
			what, homeless, experts, (double)proposal->scene.cluster.expert_bytes / (1 << 20),
			proposal->scene.usable, cad_plural(proposal->scene.usable, "node", "nodes"));
	if (proposal->reached)
		return CAD_OK;
	enum cad_status status = pl_refuse_full(&proposal->scene, &full);
	return cad_error_set(error, status, "%s: %s", what, full.text);
}

static void tell(const struct proposal *proposal, const struct pl_assignment *present, struct pl_control_change *change)
{
	uint32_t loads = proposal->assignment.loads;
	change->moves = loads > present->loads ? loads - present->loads : 0;
	change->bytes = change->moves * proposal->scene.cluster.image_bytes;
}

/* The rules are now as proposed. */
static void adopt(struct pl_control *control, struct proposal *proposal)
{
	struct pl_rules before = control->rules;
	control->rules = proposal->rules;
	proposal->rules = before;
	control->target_due = true;
	pl_control_save_wishes(control);
}

/* ---- nodes ---- */

/* OK: it may be asked for, whether it lives or not. */
static enum cad_status find_node(const struct pl_control *control, const char *id, struct cad_error *error)
{
	int slot = pl_registry_find(&control->registry, id);
	if (slot >= 0 && control->registry.nodes[slot].role == PL_ROLE_EXPERT)
		return CAD_OK;
	return cad_error_set(error, CAD_ERR_NOT_FOUND, "there is no expert node '%.63s' in this cluster", id);
}

static enum cad_status drain(struct pl_control *control, const char *node, struct proposal *proposal,
	struct pl_assignment *present, struct cad_error *error)
{
	char what[128];

	if (pl_rules_drain(&proposal->rules, node) != CAD_OK)
		return cad_error_set(error, CAD_ERR_MEMORY, "out of memory for a drained node");
	enum cad_status status = work_out_both(control, proposal, present, UINT32_MAX, NULL, error);
	if (status != CAD_OK)
		return status;

	snprintf(what, sizeof what, "node '%s' cannot be drained", node);
	if (proposal->scene.usable == 0)
		return cad_error_set(error, CAD_ERR_EXHAUSTED,
			"%s: it is the last expert node that may hold experts: add one, or undrain one", what);
	return judge(proposal, 0, what, error);
}

enum cad_status pl_control_drain(struct pl_control *control, const char *node, bool drained, bool dry,
	struct pl_control_change *change, struct cad_error *error)
{
	struct pl_assignment present;
	struct proposal proposal;
	bool is = pl_rules_drained(&control->rules, node);

	*change = (struct pl_control_change){ 0 };
	if (!drained && !is)
		return cad_error_set(error, CAD_ERR_NOT_FOUND, "node '%.63s' is not drained", node);
	if (drained && is)
		return CAD_OK;

	enum cad_status status = drained ? find_node(control, node, error) : CAD_OK;
	if (status == CAD_OK)
		status = begin(control, &proposal, error);
	if (status != CAD_OK)
		return status;

	if (drained) {
		status = drain(control, node, &proposal, &present, error);
	} else {
		(void)pl_rules_undrain(&proposal.rules, node);
		status = work_out_both(control, &proposal, &present, UINT32_MAX, NULL, error);
	}
	if (status == CAD_OK)
		tell(&proposal, &present, change);
	if (status == CAD_OK && !dry) {
		int slot = pl_registry_find(&control->registry, node);
		adopt(control, &proposal);
		if (slot >= 0)
			control->draining[slot] = drained; /* it may hold nothing already */
		cad_log_info(PL_COMPONENT, drained ? "draining" : "no longer drained", CAD_S("node", node),
			CAD_U("moves", change->moves));
	}
	withdraw(&proposal);

	return status;
}

enum pl_duty pl_control_duty(const struct pl_control *control, uint32_t slot)
{
	const struct pl_node *node = &control->registry.nodes[slot];
	if (node->role != PL_ROLE_EXPERT || !pl_rules_drained(&control->rules, node->id))
		return PL_DUTY_ACTIVE;
	return pl_rollout_used(control->rollout, slot) ? PL_DUTY_DRAINING : PL_DUTY_SAFE_TO_STOP;
}

uint32_t pl_control_copies_on(const struct pl_control *control, uint32_t slot)
{
	return pl_rollout_used(control->rollout, slot);
}

/* ---- experts ---- */

static enum cad_status find_expert(
	const struct pl_control *control, struct pl_expert expert, uint32_t *cell, struct cad_error *error)
{
	const struct pl_shape *shape = &control->options.shape;
	*cell = pl_shape_cell(shape, expert.layer, expert.expert);
	if (*cell != UINT32_MAX)
		return CAD_OK;
	if (expert.expert >= shape->experts)
		return cad_error_set(error, CAD_ERR_NOT_FOUND, "there is no expert %u: a layer has experts 0 to %u",
			expert.expert, shape->experts - 1);
	return cad_error_set(error, CAD_ERR_NOT_FOUND,
		"layer %u is no MoE layer of this model: those are %u in number, from %u to %u", expert.layer,
		shape->layers_count, shape->layers[0], shape->layers[shape->layers_count - 1]);
}

/* How many copies there shall be, by all that was said. */
static uint32_t copies_wanted(const struct pl_control *control, const struct pl_rules *rules, uint32_t cell)
{
	const struct pl_plan *plan = control->force.plan;
	uint32_t experts = control->options.shape.experts;
	uint32_t planned = plan ? pl_plan_count(plan, cell / experts, cell % experts) : 0,
		 wanted = control->options.copies_min;
	wanted = rules->copies[cell] > wanted ? rules->copies[cell] : wanted;
	return planned > wanted ? planned : wanted;
}

/* Whether the pin contradicts what was said before. */
static enum cad_status check_pin(const struct pl_control *control, const struct pl_rules *rules,
	struct pl_expert expert, uint32_t cell, const char *node, struct cad_error *error)
{
	int slot = pl_registry_find(&control->registry, node);
	uint64_t bytes = slot >= 0 ? pl_rollout_bytes(control->rollout, (uint32_t)slot) : 0;
	uint64_t room = bytes ? control->registry.nodes[slot].memory_bytes / bytes : 0;
	uint32_t pins = pl_rules_pins_of(rules, cell), copies = copies_wanted(control, rules, cell);

	if (pl_rules_drained(rules, node))
		return cad_error_set(
			error, CAD_ERR_INVALID, "node '%s' is being drained: undrain it, or pin to another", node);
	if (pins >= copies)
		return cad_error_set(error, CAD_ERR_INVALID,
			"layer %u expert %u has %u %s and is pinned to as many nodes: unpin it first, or replicate it",
			expert.layer, expert.expert, copies, cad_plural(copies, "copy", "copies"));
	if (pl_rules_pins_to(rules, node) >= room)
		return cad_error_set(error, CAD_ERR_EXHAUSTED,
			"node '%s' has room for %llu %s, and as many are pinned to it: %.2f MiB are missing", node,
			(unsigned long long)room, cad_plural(room, "expert", "experts"), (double)bytes / (1 << 20));
	return CAD_OK;
}

static enum cad_status pin(struct pl_control *control, struct pl_expert expert, uint32_t cell, const char *node,
	struct proposal *proposal, struct pl_assignment *present, struct cad_error *error)
{
	char what[160];
	enum cad_status status = check_pin(control, &proposal->rules, expert, cell, node, error);
	if (status == CAD_OK && pl_rules_pin(&proposal->rules, cell, node) != CAD_OK)
		status = cad_error_set(error, CAD_ERR_MEMORY, "out of memory for a pin");
	if (status == CAD_OK)
		status = work_out_both(control, proposal, present, cell, node, error);
	if (status != CAD_OK)
		return status;

	snprintf(what, sizeof what, "layer %u expert %u cannot be pinned to node '%s'", expert.layer, expert.expert,
		node);
	uint32_t n = pl_cluster_find(&proposal->scene.cluster, node), experts = control->options.shape.experts;
	if (n == PL_CLUSTER_ANY || n >= proposal->scene.usable)
		return cad_error_set(error, CAD_ERR_INVALID,
			"%s, which is given no experts now: it is dead, or not reached by every router, or has other kernels",
			what);
	if (!pl_plan_holds(proposal->scene.target, cell / experts, cell % experts, n))
		return cad_error_set(error, CAD_ERR_EXHAUSTED,
			"%s, where loading it has failed a moment ago: see 'cadrectl status'", what);
	return judge(proposal, present->unplaced, what, error);
}

enum cad_status pl_control_pin(struct pl_control *control, struct pl_expert expert, const char *node, bool dry,
	struct pl_control_change *change, struct cad_error *error)
{
	struct pl_assignment present;
	struct proposal proposal;
	uint32_t cell;
	enum cad_status status = find_expert(control, expert, &cell, error);

	*change = (struct pl_control_change){ 0 };
	if (status == CAD_OK && node)
		status = find_node(control, node, error);
	if (status != CAD_OK)
		return status;
	if (!node && pl_rules_pins_of(&control->rules, cell) == 0)
		return cad_error_set(error, CAD_ERR_NOT_FOUND, "layer %u expert %u is pinned to no node", expert.layer,
			expert.expert);
	if (node && pl_rules_pinned(&control->rules, cell, node))
		return CAD_OK;

	status = begin(control, &proposal, error);
	if (status == CAD_OK && node)
		status = pin(control, expert, cell, node, &proposal, &present, error);
	else if (status == CAD_OK)
		(void)pl_rules_unpin(&proposal.rules, cell);
	if (status == CAD_OK && node)
		tell(&proposal, &present, change);
	if (status == CAD_OK && node && !dry && pl_force_pin(&control->force, &proposal.rules, cell, node) != CAD_OK)
		status = cad_error_set(error, CAD_ERR_MEMORY, "out of memory for a pin");
	if (status == CAD_OK && !dry) {
		adopt(control, &proposal);
		cad_log_info(PL_COMPONENT, node ? "pinned" : "pinned no longer", CAD_U("layer", expert.layer),
			CAD_U("expert", expert.expert), CAD_S("node", node ? node : "any"));
	}
	withdraw(&proposal);

	return status;
}

static enum cad_status set_copies(struct pl_control *control, struct pl_expert expert, uint32_t cell, uint32_t copies,
	struct proposal *proposal, struct pl_assignment *present, struct cad_error *error)
{
	uint32_t experts = control->options.shape.experts, pins = pl_rules_pins_of(&proposal->rules, cell);
	char what[96];

	proposal->rules.copies[cell] = (uint16_t)(copies > 1 ? copies : 0);
	enum cad_status status = work_out_both(control, proposal, present, UINT32_MAX, NULL, error);
	if (status != CAD_OK)
		return status;
	uint32_t usable = proposal->scene.usable;
	if (copies > usable)
		return cad_error_set(error, CAD_ERR_INVALID,
			"%u copies of layer %u expert %u: there %s %u %s that may hold one each", copies, expert.layer,
			expert.expert, cad_plural(usable, "is", "are"), usable, cad_plural(usable, "node", "nodes"));
	if (pins > copies_wanted(control, &proposal->rules, cell))
		return cad_error_set(error, CAD_ERR_INVALID,
			"layer %u expert %u is pinned to %u %s: unpin it before it has fewer copies", expert.layer,
			expert.expert, pins, cad_plural(pins, "node", "nodes"));
	snprintf(what, sizeof what, "there cannot be %u copies of layer %u expert %u", copies, expert.layer,
		expert.expert);
	if (copies > pl_plan_count(proposal->scene.target, cell / experts, cell % experts))
		return cad_error_set(error, CAD_ERR_EXHAUSTED,
			"%s: no further node has room, %.2f MiB, for one: add nodes, or give them more --memory", what,
			(double)proposal->scene.cluster.expert_bytes / (1 << 20));
	return judge(proposal, present->unplaced, what, error);
}

enum cad_status pl_control_copies(struct pl_control *control, struct pl_expert expert, uint32_t copies, bool dry,
	struct pl_control_change *change, struct cad_error *error)
{
	struct pl_assignment present;
	struct proposal proposal;
	uint32_t cell;
	enum cad_status status = find_expert(control, expert, &cell, error);

	*change = (struct pl_control_change){ 0 };
	if (status != CAD_OK)
		return status;
	if (copies < 1 || copies > CAD_NODES_MAX)
		return cad_error_set(error, CAD_ERR_INVALID, "%u copies: an expert has 1 to %d", copies, CAD_NODES_MAX);

	status = begin(control, &proposal, error);
	if (status == CAD_OK)
		status = set_copies(control, expert, cell, copies, &proposal, &present, error);
	if (status == CAD_OK)
		tell(&proposal, &present, change);
	if (status == CAD_OK && !dry) {
		adopt(control, &proposal);
		cad_log_info(PL_COMPONENT, "copies wanted", CAD_U("layer", expert.layer),
			CAD_U("expert", expert.expert), CAD_U("copies", copies));
	}
	withdraw(&proposal);

	return status;
}
