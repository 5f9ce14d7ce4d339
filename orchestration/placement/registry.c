/* SPDX-License-Identifier: Apache-2.0 */
/* Nodes and leases. */
#include "orchestration/placement/registry.h"

#include "common/transport/exchange_address.h"

#include <string.h>

void pl_registry_init(struct pl_registry *registry, uint64_t lease_ns, uint64_t grace_ns, uint64_t forget_ns)
{
	memset(registry, 0, sizeof *registry);
	registry->lease_ns = lease_ns;
	registry->grace_ns = grace_ns;
	registry->forget_ns = forget_ns;
}

int pl_registry_find(const struct pl_registry *registry, const char *id)
{
	for (int slot = 0; slot < CAD_PROCESSES_MAX; slot++)
		if (registry->nodes[slot].presence != PL_FREE && strcmp(registry->nodes[slot].id, id) == 0)
			return slot;
	return -1;
}

int pl_registry_find_session(const struct pl_registry *registry, uint64_t session)
{
	for (int slot = 0; slot < CAD_PROCESSES_MAX; slot++)
		if (registry->nodes[slot].presence == PL_LIVE && registry->nodes[slot].session == session)
			return slot;
	return -1;
}

/* A free slot, else that of the node that has been dead longest. */
static int slot_for_newcomer(const struct pl_registry *registry)
{
	int oldest = -1;
	for (int slot = 0; slot < CAD_PROCESSES_MAX; slot++) {
		if (registry->nodes[slot].presence == PL_FREE)
			return slot;
		if (registry->nodes[slot].presence == PL_DEAD &&
			(oldest < 0 || registry->nodes[slot].until_ns < registry->nodes[oldest].until_ns))
			oldest = slot;
	}
	return oldest;
}

/* The slot that the id has, or one for a newcomer: there is one, since each role has its limit. */
static enum cad_status find_slot(
	const struct pl_registry *registry, const struct pl_hello *hello, int *at, struct cad_error *error)
{
	bool expert = hello->role == PL_ROLE_EXPERT;
	uint32_t limit = expert ? CAD_NODES_MAX : CAD_ROUTERS_MAX;
	int known = pl_registry_find(registry, hello->id);
	const struct pl_node *node = known >= 0 ? &registry->nodes[known] : NULL;

	if (!(node && node->role == hello->role && pl_node_counts(node)) &&
		pl_registry_counted(registry, hello->role) >= limit)
		return cad_error_set(error, CAD_ERR_EXHAUSTED,
			"'%s' cannot join: %u %s have joined, which is the limit", hello->id, limit,
			expert ? "expert nodes" : "routers");
	*at = node ? known : slot_for_newcomer(registry);
	CAD_ASSERT(*at >= 0);

	return CAD_OK;
}

static enum cad_status check_hello(const struct pl_hello *hello, struct cad_error *error)
{
	if (!cad_process_name_is_legal(hello->id))
		return cad_error_set(error, CAD_ERR_INVALID,
			"the node id '%.80s' is not allowed: use 1 to %d letters, digits and ._:-", hello->id,
			CAD_MAP_ID_BYTES - 1);
	const struct {
		const char *text;
		size_t bytes;
	} addresses[] = {
		{ hello->exchange_address, CAD_EXCHANGE_ADDRESS_BYTES },
		{ hello->http_address, CAD_MAP_ADDRESS_BYTES },
		{ hello->grpc_address, CAD_MAP_ADDRESS_BYTES },
	};
	for (size_t i = 0; i < sizeof addresses / sizeof addresses[0]; i++)
		if (strlen(addresses[i].text) >= addresses[i].bytes)
			return cad_error_set(error, CAD_ERR_INVALID,
				"node '%s' gives an address of %zu bytes, at most %zu are allowed", hello->id,
				strlen(addresses[i].text), addresses[i].bytes - 1);
	if (hello->role == PL_ROLE_EXPERT && !hello->exchange_address[0])
		return cad_error_set(error, CAD_ERR_INVALID,
			"expert node '%s' gives no exchange address: routers could not reach it", hello->id);

	return CAD_OK;
}

enum cad_status pl_registry_address(struct pl_node *node, const char *exchange_address, struct cad_error *error)
{
	const struct pl_hello hello = {
		.id = node->id,
		.role = node->role,
		.exchange_address = exchange_address,
		.http_address = node->http_address,
		.grpc_address = node->grpc_address,
	};
	enum cad_status status = check_hello(&hello, error);
	if (status == CAD_OK)
		memcpy(node->exchange_address, exchange_address, strlen(exchange_address) + 1);
	return status;
}

static void copy_cut(char *to, size_t bytes, const char *from)
{
	size_t length = strnlen(from, bytes - 1);
	memcpy(to, from, length);
	to[length] = 0;
}

static void take_hello(struct pl_node *node, const struct pl_hello *hello)
{
	struct pl_problem problem = node->problem;
	bool same = node->presence != PL_FREE && node->pid == hello->pid && strcmp(node->id, hello->id) == 0 &&
		strcmp(node->exchange_address, hello->exchange_address) == 0;

	*node = (struct pl_node){
		.role = hello->role,
		.memory_bytes = hello->memory_bytes,
		.expert_bytes = hello->expert_bytes,
		.measured = hello->speed,
		.speed = 1,
		.threads = hello->threads,
		.pid = hello->pid,
	};
	if (same) /* it joins again with what it had */
		node->problem = problem;
	copy_cut(node->id, sizeof node->id, hello->id);
	copy_cut(node->exchange_address, sizeof node->exchange_address, hello->exchange_address);
	copy_cut(node->http_address, sizeof node->http_address, hello->http_address);
	copy_cut(node->grpc_address, sizeof node->grpc_address, hello->grpc_address);
	copy_cut(node->probe_address, sizeof node->probe_address, hello->probe_address ? hello->probe_address : "");
	copy_cut(node->kernels_fingerprint, sizeof node->kernels_fingerprint, hello->kernels_fingerprint);
	copy_cut(node->version, sizeof node->version, hello->version);
	copy_cut(node->isa, sizeof node->isa, hello->isa);
}

enum cad_status pl_registry_join(struct pl_registry *registry, const struct pl_hello *hello, uint64_t session,
	uint64_t now_ns, uint32_t *slot, uint64_t *superseded, struct cad_error *error)
{
	enum cad_status status = check_hello(hello, error);
	if (status != CAD_OK)
		return status;

	uint64_t old_session = 0;
	int at = pl_registry_find(registry, hello->id);
	if (at >= 0 && registry->nodes[at].presence == PL_LIVE) {
		const struct pl_node *node = &registry->nodes[at];
		char here[CAD_ADDRESS_BYTES], there[CAD_ADDRESS_BYTES];
		cad_exchange_address_host(node->exchange_address, here);
		cad_exchange_address_host(hello->exchange_address, there);
		if (node->pid != hello->pid || strcmp(here, there) != 0)
			return cad_error_set(error, CAD_ERR_REFUSED,
				"node id '%s' is already in use (pid %u, %s): choose another --id or stop that node",
				hello->id, node->pid, here);
		old_session = node->session;
	}

	status = find_slot(registry, hello, &at, error);
	if (status != CAD_OK)
		return status;
	struct pl_node *node = &registry->nodes[at];
	take_hello(node, hello);
	node->presence = PL_LIVE;
	node->session = session;
	node->until_ns = now_ns + registry->lease_ns;
	*slot = (uint32_t)at;
	*superseded = old_session;

	return CAD_OK;
}

enum cad_status pl_registry_expect(struct pl_registry *registry, const struct pl_hello *hello, uint64_t until_ns,
	uint32_t *slot, struct cad_error *error)
{
	enum cad_status status = check_hello(hello, error);
	if (status != CAD_OK)
		return status;

	int at;
	status = find_slot(registry, hello, &at, error);
	if (status != CAD_OK)
		return status;
	take_hello(&registry->nodes[at], hello);
	registry->nodes[at].presence = PL_EXPECTED;
	registry->nodes[at].until_ns = until_ns;
	*slot = (uint32_t)at;

	return CAD_OK;
}

void pl_registry_compare(struct pl_registry *registry, const struct pl_speed_work *work)
{
	struct pl_node *nodes[CAD_NODES_MAX];
	double rates[CAD_NODES_MAX], speeds[CAD_NODES_MAX];
	uint32_t count = 0;

	for (uint32_t slot = 0; slot < CAD_PROCESSES_MAX; slot++) {
		struct pl_node *node = &registry->nodes[slot];
		if (node->role != PL_ROLE_EXPERT || !pl_node_counts(node))
			continue;
		rates[count] = pl_speed_rate(&node->measured, work, node->expert_bytes);
		nodes[count++] = node;
	}

	pl_speed_compare(rates, count, speeds);
	for (uint32_t i = 0; i < count; i++)
		nodes[i]->speed = nodes[i]->measured.given > 0 ? nodes[i]->measured.given : speeds[i];
}

void pl_registry_renew(struct pl_registry *registry, uint32_t slot, const struct pl_load *load, uint64_t now_ns)
{
	struct pl_node *node = &registry->nodes[slot];
	CAD_ASSERT(node->presence == PL_LIVE);
	if (node->load_ns && now_ns > node->load_ns) {
		double seconds = (double)(now_ns - node->load_ns) * 1e-9;
		node->rows_per_second =
			load->rows >= node->load.rows ? (double)(load->rows - node->load.rows) / seconds : 0;
		node->tokens_per_second =
			load->tokens >= node->load.tokens ? (double)(load->tokens - node->load.tokens) / seconds : 0;
	}

	node->load = *load;
	node->load_ns = now_ns;
	node->until_ns = now_ns + registry->lease_ns;
}

void pl_registry_broken(struct pl_registry *registry, uint32_t slot, uint64_t now_ns)
{
	struct pl_node *node = &registry->nodes[slot];
	if (node->presence != PL_LIVE)
		return;
	node->presence = PL_BROKEN;
	node->session = 0;
	if (node->until_ns > now_ns + registry->grace_ns)
		node->until_ns = now_ns + registry->grace_ns;
}

void pl_registry_leave(struct pl_registry *registry, uint32_t slot, uint64_t now_ns)
{
	struct pl_node *node = &registry->nodes[slot];
	if (node->presence != PL_LIVE)
		return;
	node->presence = PL_BROKEN;
	node->gone = true;
	node->session = 0;
	node->until_ns = now_ns;
}

int pl_registry_expire(struct pl_registry *registry, uint64_t now_ns)
{
	for (int slot = 0; slot < CAD_PROCESSES_MAX; slot++) {
		struct pl_node *node = &registry->nodes[slot];
		if (node->presence == PL_FREE || now_ns < node->until_ns)
			continue;
		if (node->presence == PL_DEAD) {
			node->presence = PL_FREE;
			continue;
		}
		node->presence = PL_DEAD;
		node->rows_per_second = node->tokens_per_second = 0;
		node->until_ns = now_ns + registry->forget_ns;
		return slot;
	}
	return -1;
}

void pl_registry_postpone(struct pl_registry *registry, uint64_t late_ns, uint64_t now_ns)
{
	for (int slot = 0; slot < CAD_PROCESSES_MAX; slot++) {
		struct pl_node *node = &registry->nodes[slot];
		if (!pl_node_counts(node) || node->gone)
			continue;
		node->until_ns += late_ns;

		/* one that was heard of since has its whole time, and no more */
		uint64_t most_ns = node->presence == PL_LIVE ? now_ns + registry->lease_ns
			: node->presence == PL_BROKEN        ? now_ns + registry->grace_ns
							     : UINT64_MAX;
		if (node->until_ns > most_ns)
			node->until_ns = most_ns;
	}
}

uint64_t pl_registry_deadline_ns(const struct pl_registry *registry)
{
	uint64_t deadline = UINT64_MAX;
	for (int slot = 0; slot < CAD_PROCESSES_MAX; slot++)
		if (registry->nodes[slot].presence != PL_FREE && registry->nodes[slot].until_ns < deadline)
			deadline = registry->nodes[slot].until_ns;
	return deadline;
}

uint32_t pl_registry_count(const struct pl_registry *registry, enum pl_role role, enum pl_presence presence)
{
	uint32_t count = 0;
	for (int slot = 0; slot < CAD_PROCESSES_MAX; slot++)
		count += registry->nodes[slot].presence == presence && registry->nodes[slot].role == role;
	return count;
}

uint32_t pl_registry_counted(const struct pl_registry *registry, enum pl_role role)
{
	uint32_t count = 0;
	for (int slot = 0; slot < CAD_PROCESSES_MAX; slot++)
		count += registry->nodes[slot].role == role && pl_node_counts(&registry->nodes[slot]);
	return count;
}

const char *pl_registry_problem(const struct pl_registry *registry, uint32_t slot, uint64_t now_ns)
{
	const struct pl_problem *problem = &registry->nodes[slot].problem;
	bool over = problem->kind != PL_PROBLEM_WRONG && now_ns > problem->last_ns + registry->forget_ns;
	return over ? "" : problem->text;
}
