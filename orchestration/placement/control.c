/* SPDX-License-Identifier: Apache-2.0 */
/* The placement service without its network. */
#include "orchestration/placement/control.h"

#include "common/base/log.h"
#include "common/base/plural.h"
#include "common/base/utf8.h"
#include "common/transport/exchange_address.h"
#include "orchestration/placement/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WHY_BYTES = 201 }; /* of why a load failed: what the status has room for */

/* ---- start ---- */

struct restore {
	struct pl_control *control;
	uint64_t until_ns;
	uint32_t nodes, held;
	enum cad_status status;
	struct cad_error *error;
};

static void restore_node(void *context, const struct pl_hello *hello)
{
	struct restore *restore = context;
	struct pl_control *control = restore->control;
	uint32_t slot;

	if (restore->status != CAD_OK)
		return;

	restore->status = pl_registry_expect(&control->registry, hello, restore->until_ns, &slot, restore->error);
	if (restore->status == CAD_OK && hello->role == PL_ROLE_EXPERT) {
		pl_reach_restore(control->reach, slot, control->epoch);
		restore->status = pl_rollout_add(control->rollout, slot, hello->memory_bytes);
	}
	restore->nodes++;
}

static void restore_held(void *context, const char *id, uint32_t layer, uint32_t expert)
{
	struct restore *restore = context;
	int slot = pl_registry_find(&restore->control->registry, id);
	uint32_t cell = pl_shape_cell(&restore->control->options.shape, layer, expert);

	if (restore->status != CAD_OK || slot < 0 || cell == UINT32_MAX ||
		restore->control->registry.nodes[slot].role != PL_ROLE_EXPERT)
		return;
	pl_rollout_restore(restore->control->rollout, (uint32_t)slot, cell);
	restore->held++;
}

static enum cad_status restore_state(struct pl_control *control, struct cad_error *error)
{
	control->epoch = pl_state_epoch(control->options.state);
	pl_state_kernels(control->options.state, control->kernels);
	struct restore restore = {
		.control = control,
		.until_ns = pl_control_now(control) + control->options.rejoin_ns,
		.error = error,
	};
	const struct pl_state_reader reader = { restore_node, restore_held, &restore };
	enum cad_status status = pl_state_read(control->options.state, &reader, error);
	if (status == CAD_OK)
		status = restore.status;
	if (status != CAD_OK)
		return status;
	status = pl_state_read_wishes(
		control->options.state, &control->options.shape, &control->force, &control->rules, error);
	if (status != CAD_OK)
		return status;
	if (control->force.bytes_per_second)
		pl_rollout_rate(control->rollout, control->force.bytes_per_second);
	control->placed = restore.held > 0;
	if (restore.nodes)
		cad_log_info(PL_COMPONENT, "waiting for known nodes to come back", CAD_U("nodes", restore.nodes),
			CAD_U("experts", restore.held), CAD_U("epoch", control->epoch),
			CAD_U("within_ms", control->options.rejoin_ns / CAD_NS_PER_MS));

	return CAD_OK;
}

enum cad_status pl_control_create(
	const struct pl_control_options *options, struct pl_control **control, struct cad_error *error)
{
	struct pl_control *made = calloc(1, sizeof *made);
	if (!made)
		return cad_error_set(error, CAD_ERR_MEMORY, "out of memory for the registry");

	made->options = *options;
	made->cells = pl_shape_cells(&options->shape);
	made->target_due = made->publish_forced = true;
	pl_registry_init(&made->registry, options->lease_ns, options->grace_ns, options->forget_ns);
	const struct pl_rollout_options rollout = {
		.shape = options->shape,
		.expert_bytes = options->expert_bytes,
		.image_bytes = options->image_bytes,
		.loads_max = options->loads_max,
		.moves_max = options->moves_max,
		.publish_interval_ns = options->publish_interval_ns,
		.free_grace_ns = options->free_grace_ns,
		.retry_ns = options->retry_ns,
		.stall_ns = options->stall_ns,
		.bytes_per_second = options->bytes_per_second,
	};
	enum cad_status status = pl_rollout_create(&rollout, &made->rollout);
	if (status == CAD_OK)
		status = pl_reach_create(&made->reach);
	if (status == CAD_OK)
		status = pl_rules_init(&made->rules, made->cells);
	if (status != CAD_OK)
		cad_error_set(error, status, "out of memory for %u experts", made->cells);
	else
		status = restore_state(made, error);
	if (status != CAD_OK) {
		pl_control_destroy(made);
		return status;
	}

	*control = made;
	return CAD_OK;
}

void pl_control_destroy(struct pl_control *control)
{
	if (!control)
		return;
	cad_map_release(control->map);
	pl_rollout_destroy(control->rollout);
	pl_reach_destroy(control->reach);
	free(control->claims);
	pl_force_fini(&control->force);
	pl_rules_fini(&control->rules);
	free(control);
}

/* ---- who comes ---- */

void pl_control_commit(struct pl_control *control)
{
	struct cad_error error;
	if (pl_state_commit(control->options.state, &error) == CAD_OK)
		return;
	control->save_all = true;
	control->stats.state_errors++;
	cad_log_error(PL_COMPONENT, "cannot write the state file; a restart now would lose the latest changes",
		CAD_S("error", error.text));
}

void pl_control_save_wishes(struct pl_control *control)
{
	pl_state_begin(control->options.state);
	pl_state_put_wishes(control->options.state, &control->options.shape, &control->force, &control->rules);
	control->force.unsaved = false;
	pl_control_commit(control);
}

/* What one takes there, for all that counts with it or shows it. */
static void take_expert_bytes(struct pl_control *control, uint32_t slot, uint64_t bytes)
{
	control->registry.nodes[slot].expert_bytes = bytes;
	pl_rollout_expert_bytes(control->rollout, slot, bytes);
	pl_registry_compare(&control->registry, &control->options.work);
}

static enum cad_status join_expert(
	struct pl_control *control, uint32_t slot, const struct pl_join *join, struct cad_error *error)
{
	enum cad_status status = pl_rollout_add(control->rollout, slot, join->hello.memory_bytes);
	uint8_t *held = status == CAD_OK ? calloc(control->cells + 1u, 1) : NULL;

	if (!held)
		return cad_error_set(error, CAD_ERR_MEMORY, "out of memory for node '%s'", join->hello.id);

	take_expert_bytes(
		control, slot, join->hello.expert_bytes ? join->hello.expert_bytes : control->options.expert_bytes);
	for (size_t i = 0; i < join->held_count; i++) {
		uint32_t cell = pl_shape_cell(&control->options.shape, join->held[i].layer, join->held[i].expert);
		if (cell != UINT32_MAX)
			held[cell] = 1;
	}

	pl_rollout_join(control->rollout, slot, held);
	free(held);
	control->joined_ns = pl_control_now(control);
	control->back_ns = control->back_ns ? control->back_ns : control->joined_ns;
	control->target_due = true;

	return CAD_OK;
}

static enum cad_status compare_identity(
	const struct pl_identity *ours, const struct pl_join *join, struct cad_error *error)
{
	const struct pl_identity *theirs = &join->identity;
	if (strcmp(theirs->model_fingerprint, ours->model_fingerprint) != 0)
		return cad_error_set(error, CAD_ERR_REFUSED,
			"node '%.80s' has a checkpoint with fingerprint '%.40s', but this cluster serves '%s': start it with the same --model files",
			join->hello.id, theirs->model_fingerprint, ours->model_fingerprint);
	if (strcmp(theirs->settings_fingerprint, ours->settings_fingerprint) != 0)
		return cad_error_set(error, CAD_ERR_REFUSED,
			"node '%.80s' runs with the settings '%.200s' (%.40s), but this cluster with '%.200s' (%.40s): restart it, and it takes the cluster's settings",
			join->hello.id, theirs->settings, theirs->settings_fingerprint, ours->settings,
			ours->settings_fingerprint);
	return CAD_OK;
}

/* Whether it is a process that was never given up, at the same exchange address: what is known of
 * who reaches it stays true. */
static bool is_back(const struct pl_control *control, const struct pl_hello *hello)
{
	int slot = pl_registry_find(&control->registry, hello->id);
	const struct pl_node *node = slot >= 0 ? &control->registry.nodes[slot] : NULL;
	return node && pl_node_counts(node) && node->role == hello->role && node->pid == hello->pid &&
		strcmp(node->exchange_address, hello->exchange_address) == 0;
}

/* Nothing is known yet of who reaches whom; a router that was expected after a restart comes to
 * this, too. A node that joins before the first placement, holds experts and has seen a map was in
 * a state file that was lost: routers had reached it. */
static enum cad_status join_reach(
	struct pl_control *control, uint32_t slot, const struct pl_join *join, struct cad_error *error)
{
	uint64_t now_ns = pl_control_now(control);
	enum pl_role role = join->hello.role;
	if (role == PL_ROLE_ROUTER && pl_reach_router(control->reach, slot, now_ns) != CAD_OK)
		return cad_error_set(error, CAD_ERR_MEMORY, "out of memory for what a router reaches");
	if (role == PL_ROLE_EXPERT) {
		if (!control->placed && join->epoch > 0 && join->held_count > 0)
			pl_reach_restore(control->reach, slot, join->epoch);
		else
			pl_reach_node(control->reach, slot, now_ns);
		control->list_due = true;
	}
	return CAD_OK;
}

/* Two routers with other weights would answer differently, and nobody would notice. Right are the
 * files that the placement service has. */
static enum cad_status compare_router(
	const struct pl_control_events *events, const struct pl_join *join, struct cad_error *error)
{
	const char *theirs = join->identity.router_checksum ? join->identity.router_checksum : "";
	char ours[33];

	if (join->hello.role != PL_ROLE_ROUTER || !events->router_checksum)
		return CAD_OK;
	if (events->router_checksum(events->context, ours) != CAD_OK)
		return cad_error_set(error, CAD_AGAIN,
			"router '%.80s' has to wait: the placement service still reads its checkpoint to compare the weights",
			join->hello.id);
	if (strcmp(theirs, ours) == 0)
		return CAD_OK;
	return cad_error_set(error, CAD_ERR_REFUSED,
		"router '%.80s' has other weights than this cluster: all but routed experts has the checksum '%.40s', in the placement service's files '%s': start it with the same --model files",
		join->hello.id, theirs, ours);
}

enum cad_status pl_control_join(
	struct pl_control *control, const struct pl_join *join, uint64_t session, struct cad_error *error)
{
	uint32_t slot = 0;
	uint64_t superseded;
	bool back = is_back(control, &join->hello);
	enum cad_status status = compare_identity(&control->options.identity, join, error);

	if (status == CAD_OK)
		status = compare_router(&control->options.events, join, error);
	if (status == CAD_OK)
		status = pl_registry_join(
			&control->registry, &join->hello, session, pl_control_now(control), &slot, &superseded, error);
	if (status == CAD_OK && join->hello.role == PL_ROLE_EXPERT)
		status = join_expert(control, slot, join, error);
	if (status == CAD_OK && !(back && pl_reach_knows(control->reach, slot)))
		status = join_reach(control, slot, join, error);
	if (status != CAD_OK) {
		control->stats.refusals += status != CAD_AGAIN;
		return status;
	}

	if (superseded)
		control->options.events.close(
			control->options.events.context, superseded, "the process has opened another stream");
	struct pl_node *node = &control->registry.nodes[slot];
	node->load.epoch = join->epoch;
	control->counts_told[slot] = true; /* what a process takes for granted when it joins */

	/* from before the state file was lost: the next map must be newer for every process */
	if (join->epoch > control->epoch)
		control->epoch = join->epoch;
	control->stats.joins++;
	pl_state_begin(control->options.state);
	pl_state_put_node(control->options.state, node);
	pl_control_commit(control);
	char exchange[CAD_ADDRESS_BYTES];
	cad_exchange_address_host(node->exchange_address, exchange);
	cad_log_info(PL_COMPONENT, "joined", CAD_S("node", node->id),
		CAD_S("role", node->role == PL_ROLE_EXPERT ? "expert" : "router"), CAD_S("exchange", exchange),
		CAD_U("held", join->held_count), CAD_U("memory_bytes", node->memory_bytes), CAD_U("pid", node->pid));

	return CAD_OK;
}

/* ---- what they say ---- */

static struct pl_node *node_of(struct pl_control *control, uint64_t session, uint32_t *slot)
{
	int at = pl_registry_find_session(&control->registry, session);

	if (at < 0)
		return NULL;
	*slot = (uint32_t)at;
	return &control->registry.nodes[at];
}

void pl_control_load(struct pl_control *control, uint64_t session, const struct pl_load *load)
{
	uint32_t slot;
	if (node_of(control, session, &slot))
		pl_registry_renew(&control->registry, slot, load, pl_control_now(control));
}

void pl_control_unreached(
	struct pl_control *control, uint64_t session, const struct pl_unreached *unreached, size_t count)
{
	struct pl_missing missing[CAD_PROCESSES_MAX];
	size_t known = 0;
	uint32_t slot;
	const struct pl_node *router = node_of(control, session, &slot);

	if (!router || router->role != PL_ROLE_ROUTER)
		return;

	for (size_t i = 0; i < count && known < CAD_PROCESSES_MAX; i++) {
		int at = pl_registry_find(&control->registry, unreached[i].node);
		if (at >= 0)
			missing[known++] = (struct pl_missing){ (uint32_t)at, unreached[i].silent_ns };
	}
	pl_reach_report(control->reach, slot, router->load.epoch, missing, known, pl_control_now(control));
}

enum cad_status pl_control_address(
	struct pl_control *control, uint64_t session, const char *exchange_address, struct cad_error *error)
{
	uint32_t slot;
	struct pl_node *node = node_of(control, session, &slot);
	if (!node)
		return CAD_OK;

	enum cad_status status = pl_registry_address(node, exchange_address, error);
	if (status != CAD_OK)
		return status;
	if (node->role == PL_ROLE_EXPERT)
		control->publish_forced = true;
	pl_state_begin(control->options.state);
	pl_state_put_node(control->options.state, node);
	pl_control_commit(control);
	char exchange[CAD_ADDRESS_BYTES];
	cad_exchange_address_host(node->exchange_address, exchange);
	cad_log_warn(PL_COMPONENT, "a process had to restart its exchange, and has another address",
		CAD_S("node", node->id), CAD_S("exchange", exchange));

	return CAD_OK;
}

enum cad_status pl_control_find_report(struct pl_control *control, uint64_t session, struct pl_expert expert,
	uint32_t *slot, uint32_t *cell, struct cad_error *error)
{
	const struct pl_node *node = node_of(control, session, slot);
	if (!node || node->role != PL_ROLE_EXPERT)
		return CAD_AGAIN;
	*cell = pl_shape_cell(&control->options.shape, expert.layer, expert.expert);
	if (*cell == UINT32_MAX)
		return cad_error_set(error, CAD_ERR_INVALID,
			"node '%s' reports layer %u expert %u, which the model does not have", node->id, expert.layer,
			expert.expert);
	return CAD_OK;
}

/* A node with wrong files or a bad disk fails with expert after expert, again and again: that is
 * one line in the log, a count in the metrics, and the last of them in the status. */
static void note_problem(struct pl_control *control, uint32_t slot, uint32_t cell, enum pl_problem_kind kind,
	const char *one, const char *other)
{
	struct pl_node *node = &control->registry.nodes[slot];
	struct pl_problem *problem = &node->problem;
	uint32_t layer = pl_cell_layer(&control->options.shape, cell),
		 expert = pl_cell_expert(&control->options.shape, cell);
	bool said = problem->kind == kind && pl_registry_problem(&control->registry, slot, pl_control_now(control))[0];

	problem->times = said ? problem->times + 1 : 1;
	problem->kind = kind;
	problem->cell = cell;
	problem->last_ns = pl_control_now(control);
	const char *times = cad_plural(problem->times, "time", "times");
	if (kind == PL_PROBLEM_WRONG)
		snprintf(problem->text, sizeof problem->text,
			"wrong weights, %llu %s: layer %u expert %u has checksum %s, in the placement service's files %s; start it with the same --model files",
			(unsigned long long)problem->times, times, layer, expert, one, other);
	else
		snprintf(problem->text, sizeof problem->text, "loading failed, %llu %s: layer %u expert %u: %s",
			(unsigned long long)problem->times, times, layer, expert, one);

	if (said)
		return;
	if (kind == PL_PROBLEM_WRONG)
		cad_log_error(PL_COMPONENT,
			"wrong weights: the node's checksum is not the checkpoint's; are its files the same? This is said once, and counted",
			CAD_S("node", node->id), CAD_U("layer", layer), CAD_U("expert", expert), CAD_S("reported", one),
			CAD_S("expected", other));
	else
		cad_log_warn(PL_COMPONENT, "loading failed; this is said once, and counted", CAD_S("node", node->id),
			CAD_U("layer", layer), CAD_U("expert", expert), CAD_S("error", one));
}

static void note_good(struct pl_control *control, uint32_t slot, uint32_t cell)
{
	struct pl_problem *problem = &control->registry.nodes[slot].problem;
	if (problem->kind == PL_PROBLEM_NONE || problem->cell != cell)
		return;
	cad_log_info(PL_COMPONENT, "a node's experts are right again", CAD_S("node", control->registry.nodes[slot].id),
		CAD_U("times", problem->times));
	*problem = (struct pl_problem){ 0 };
}

static void judge(struct pl_control *control, uint32_t slot, uint32_t cell, const char *reported, const char *expected)
{
	bool good = strcmp(reported, expected) == 0,
	     loading = pl_rollout_copy(control->rollout, slot, cell) == PL_COPY_LOADING;

	if (loading && good)
		pl_force_moved(control);
	else if (loading)
		control->force.progress.failed++;
	pl_rollout_loaded(control->rollout, slot, cell, good, pl_control_now(control));
	if (good) {
		note_good(control, slot, cell);
		return;
	}

	control->stats.checksums_wrong++;
	control->target_due = true;
	note_problem(control, slot, cell, PL_PROBLEM_WRONG, reported, expected);
}

static enum cad_status remember_claim(
	struct pl_control *control, uint64_t session, uint32_t cell, const char *hex, struct cad_error *error)
{
	if (control->claims_count == control->claims_capacity) {
		size_t capacity = control->claims_capacity ? 2 * control->claims_capacity : 64;
		struct pl_claim *grown = realloc(control->claims, capacity * sizeof *grown);
		if (!grown)
			return cad_error_set(error, CAD_ERR_MEMORY, "out of memory for %zu reports", capacity);
		control->claims = grown;
		control->claims_capacity = capacity;
	}

	struct pl_claim *claim = &control->claims[control->claims_count++];
	*claim = (struct pl_claim){ .session = session, .cell = cell };
	memcpy(claim->hex, hex, sizeof claim->hex);

	return CAD_OK;
}

enum cad_status pl_control_loaded(struct pl_control *control, uint64_t session, struct pl_expert expert,
	const char *checksum, uint64_t bytes, struct cad_error *error)
{
	uint32_t slot, cell;
	char expected[33], reported[33];
	enum cad_status status = pl_control_find_report(control, session, expert, &slot, &cell, error);

	if (status != CAD_OK)
		return status == CAD_AGAIN ? CAD_OK : status;

	cad_utf8_copy(reported, sizeof reported, checksum);

	if (bytes > pl_rollout_bytes(control->rollout, slot)) {
		take_expert_bytes(control, slot, bytes);
		control->target_due = true;
		cad_log_warn(PL_COMPONENT, "experts take more memory than planned for",
			CAD_S("node", control->registry.nodes[slot].id), CAD_U("bytes", bytes));
	}

	status = control->options.events.checksum(control->options.events.context, cell, expected);
	if (status == CAD_AGAIN)
		return remember_claim(control, session, cell, reported, error);
	judge(control, slot, cell, reported, status == CAD_OK ? expected : "(unknown)");

	return CAD_OK;
}

void pl_control_checksum(struct pl_control *control, uint32_t cell)
{
	char expected[33];
	if (control->options.events.checksum(control->options.events.context, cell, expected) != CAD_OK)
		return;
	for (size_t i = 0; i < control->claims_count;) {
		struct pl_claim claim = control->claims[i];
		if (claim.cell != cell) {
			i++;
			continue;
		}
		control->claims[i] = control->claims[--control->claims_count];
		uint32_t slot;
		if (node_of(control, claim.session, &slot))
			judge(control, slot, cell, claim.hex, expected);
	}
}

enum cad_status pl_control_loading(
	struct pl_control *control, uint64_t session, struct pl_expert expert, uint64_t bytes, struct cad_error *error)
{
	uint32_t slot, cell;
	enum cad_status status = pl_control_find_report(control, session, expert, &slot, &cell, error);

	if (status != CAD_OK)
		return status == CAD_AGAIN ? CAD_OK : status;
	if (pl_rollout_loading(control->rollout, slot, cell, bytes, pl_control_now(control)))
		control->force.progress.moved_ns = pl_control_now(control);
	return CAD_OK;
}

enum cad_status pl_control_failed(struct pl_control *control, uint64_t session, struct pl_expert expert,
	const char *why_said, struct cad_error *error)
{
	char why[WHY_BYTES];
	uint32_t slot, cell;
	enum cad_status status = pl_control_find_report(control, session, expert, &slot, &cell, error);

	if (status != CAD_OK)
		return status == CAD_AGAIN ? CAD_OK : status;

	control->force.progress.failed += pl_rollout_copy(control->rollout, slot, cell) == PL_COPY_LOADING;
	pl_rollout_failed(control->rollout, slot, cell, pl_control_now(control));
	control->target_due = true;
	control->stats.loads_failed++;
	cad_utf8_copy(why, sizeof why, why_said);
	note_problem(control, slot, cell, PL_PROBLEM_FAILED, why, NULL);

	return CAD_OK;
}

void pl_control_device_failed(struct pl_control *control, uint32_t slot, const char *said)
{
	struct pl_node *node = &control->registry.nodes[slot];
	char why[WHY_BYTES], what[PL_TEXT_BYTES + 32];

	cad_utf8_copy(why, sizeof why, said);
	node->problem = (struct pl_problem){
		.kind = PL_PROBLEM_DEVICE,
		.cell = UINT32_MAX, /* no expert that is right mends it */
		.times = 1,
		.last_ns = pl_control_now(control),
	};
	snprintf(node->problem.text, sizeof node->problem.text, "its device has failed, and it left: %s", why);
	control->stats.devices_failed++;
	cad_log_error(PL_COMPONENT, "the device of a node has failed, and it leaves", CAD_S("node", node->id),
		CAD_S("why", why));
	snprintf(what, sizeof what, "device of %s", node->id);
	if (control->options.events.did)
		control->options.events.did(control->options.events.context, what, node->problem.text, "failed");
}

enum cad_status pl_control_freed(
	struct pl_control *control, uint64_t session, struct pl_expert expert, struct cad_error *error)
{
	uint32_t slot, cell;
	enum cad_status status = pl_control_find_report(control, session, expert, &slot, &cell, error);

	if (status != CAD_OK)
		return status == CAD_AGAIN ? CAD_OK : status;

	/* Only a copy that was given up makes room that a plan may want; one that was still wanted
	 * has to be placed again. */
	control->target_due = control->target_due || control->shortage[0] ||
		pl_rollout_copy(control->rollout, slot, cell) != PL_COPY_FREEING;
	pl_rollout_freed(control->rollout, slot, cell);
	control->force.progress.freed_ns = pl_control_now(control);

	return CAD_OK;
}

static void stream_ended(struct pl_control *control, uint64_t session, bool goodbye)
{
	uint32_t slot;
	struct pl_node *node = node_of(control, session, &slot);

	if (!node)
		return;

	cad_log_info(PL_COMPONENT, goodbye ? "said goodbye" : "its stream broke", CAD_S("node", node->id));
	if (node->role == PL_ROLE_EXPERT)
		pl_rollout_unreachable(control->rollout, slot);
	if (goodbye)
		pl_registry_leave(&control->registry, slot, pl_control_now(control));
	else
		pl_registry_broken(&control->registry, slot, pl_control_now(control));
}

void pl_control_broken(struct pl_control *control, uint64_t session) { stream_ended(control, session, false); }

void pl_control_leave(struct pl_control *control, uint64_t session) { stream_ended(control, session, true); }

void pl_control_gone(struct pl_control *control, uint32_t slot, uint32_t pid)
{
	struct pl_node *node = &control->registry.nodes[slot];
	if ((node->presence != PL_BROKEN && node->presence != PL_EXPECTED) || node->pid != pid)
		return;
	cad_log_info(
		PL_COMPONENT, "its host says that the process is gone", CAD_S("node", node->id), CAD_U("pid", pid));
	node->gone = true;
	node->until_ns = pl_control_now(control);
}

/* ---- reading ---- */

struct cad_map *pl_control_map(const struct pl_control *control) { return control->map; }

bool pl_control_ready(const struct pl_control *control, char *text, size_t bytes)
{
	size_t missing = control->map ? cad_map_unplaced(control->map) : control->cells;
	if (control->map && missing == 0)
		return true;

	uint32_t live = pl_registry_count(&control->registry, PL_ROLE_EXPERT, PL_LIVE),
		 expected = pl_registry_count(&control->registry, PL_ROLE_EXPERT, PL_EXPECTED);
	if (expected)
		snprintf(text, bytes, "waiting for %u expert %s to come back", expected,
			cad_plural(expected, "node", "nodes"));
	else if (!control->placed && live < control->options.experts_min)
		snprintf(text, bytes, "%u of %u expert %s joined", live, control->options.experts_min,
			cad_plural(control->options.experts_min, "node has", "nodes have"));
	else if (!control->placed && pl_reach_pending_ns(control->reach))
		snprintf(text, bytes, "%u expert %s", live,
			cad_plural(live, "node has joined; routers are connecting to it",
				"nodes have joined; routers are connecting to them"));
	else if (control->all_lost && control->back_ns)
		snprintf(text, bytes, "%u expert %s back after all were lost; the others have a moment", live,
			cad_plural(live, "node is", "nodes are"));
	else if (control->shortage[0])
		snprintf(text, bytes, "%s", control->shortage);
	else
		snprintf(text, bytes, "%zu of %u experts %s not loaded yet", missing, control->cells,
			cad_plural(missing, "is", "are"));
	return false;
}

const struct pl_control_stats *pl_control_stats(const struct pl_control *control) { return &control->stats; }

const struct pl_registry *pl_control_registry(const struct pl_control *control) { return &control->registry; }

const struct pl_rules *pl_control_rules(const struct pl_control *control) { return &control->rules; }

const struct pl_reach *pl_control_reach(const struct pl_control *control) { return control->reach; }

uint32_t pl_control_held(const struct pl_control *control, uint32_t slot)
{
	uint32_t held = 0;
	for (uint32_t cell = 0; cell < control->cells; cell++) {
		enum pl_copy copy = pl_rollout_copy(control->rollout, slot, cell);
		held += copy == PL_COPY_READY || copy == PL_COPY_LOADING;
	}
	return held;
}
