/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/placement/reach.h"

#include "common/base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COMPONENT "placement"

struct pair {
	uint64_t since_ns; /* missing since then; 0: reached */
	bool met;          /* was reached at some time */
};

struct router {
	struct pair *pairs;      /* [CAD_PROCESSES_MAX]; NULL: no such router */
	uint64_t reported_epoch; /* of its last report; 0: none yet */
	bool counts;
	uint32_t reached, of; /* nodes that any router reaches */
};

struct node {
	bool present, live, whole, usable, undecided;
	bool used;             /* was usable before */
	uint64_t listed_epoch; /* of the first map with it; 0: none yet */
	uint64_t usable_ns;    /* since when */
	uint64_t hold_ns, held_until_ns;
	uint32_t reached_by;
	uint64_t missing_ns; /* since when a router that counts misses it; 0: none does */
	int missing_by;      /* that router's slot */
};

struct pl_reach {
	struct router routers[CAD_PROCESSES_MAX];
	struct node nodes[CAD_PROCESSES_MAX];
	uint64_t deadline_ns, pending_ns;
	uint32_t live_routers, counting;
	uint64_t absences;
};

enum cad_status pl_reach_create(struct pl_reach **reach)
{
	struct pl_reach *made = calloc(1, sizeof *made);
	if (!made)
		return CAD_ERR_MEMORY;
	made->deadline_ns = UINT64_MAX;
	*reach = made;
	return CAD_OK;
}

void pl_reach_destroy(struct pl_reach *reach)
{
	for (uint32_t r = 0; reach && r < CAD_PROCESSES_MAX; r++)
		free(reach->routers[r].pairs);
	free(reach);
}

/* ---- who there is ---- */

/* Times are never 0, which means that a node is reached. */
static uint64_t moment(uint64_t now_ns) { return now_ns ? now_ns : 1; }

enum cad_status pl_reach_router(struct pl_reach *reach, uint32_t slot, uint64_t now_ns)
{
	struct router *router = &reach->routers[slot];
	struct pair *pairs = router->pairs ? router->pairs : malloc(CAD_PROCESSES_MAX * sizeof *pairs);
	if (!pairs)
		return CAD_ERR_MEMORY;

	*router = (struct router){ .pairs = pairs, .counts = true };
	for (uint32_t n = 0; n < CAD_PROCESSES_MAX; n++)
		pairs[n] = (struct pair){ .since_ns = moment(now_ns) };
	return CAD_OK;
}

static void forget_pairs(struct pl_reach *reach, uint32_t slot, uint64_t now_ns)
{
	for (uint32_t r = 0; r < CAD_PROCESSES_MAX; r++)
		if (reach->routers[r].pairs)
			reach->routers[r].pairs[slot] = (struct pair){ .since_ns = moment(now_ns) };
}

void pl_reach_node(struct pl_reach *reach, uint32_t slot, uint64_t now_ns)
{
	reach->nodes[slot] = (struct node){ .present = true, .undecided = true, .missing_by = -1 };
	forget_pairs(reach, slot, now_ns);
}

void pl_reach_restore(struct pl_reach *reach, uint32_t slot, uint64_t epoch)
{
	reach->nodes[slot] = (struct node){
		.present = true,
		.usable = true,
		.used = true,
		.listed_epoch = epoch ? epoch : 1,
		.missing_by = -1,
	};

	/* routers that have reported already will say in their next report whether they miss it */
	for (uint32_t r = 0; r < CAD_PROCESSES_MAX; r++)
		if (reach->routers[r].pairs && reach->routers[r].reported_epoch >= reach->nodes[slot].listed_epoch)
			reach->routers[r].pairs[slot] = (struct pair){ .met = true };
}

bool pl_reach_knows(const struct pl_reach *reach, uint32_t slot)
{
	return reach->nodes[slot].present || reach->routers[slot].pairs;
}

void pl_reach_drop(struct pl_reach *reach, uint32_t slot)
{
	free(reach->routers[slot].pairs);
	reach->routers[slot] = (struct router){ 0 };
	reach->nodes[slot] = (struct node){ .missing_by = -1 };
}

void pl_reach_listed(struct pl_reach *reach, uint32_t slot, uint64_t epoch, uint64_t now_ns)
{
	if (!reach->nodes[slot].present || reach->nodes[slot].listed_epoch)
		return;
	reach->nodes[slot].listed_epoch = epoch;
	forget_pairs(reach, slot, now_ns);
}

/* ---- what routers say ---- */

static uint64_t earlier(uint64_t a, uint64_t b) { return a < b ? a : b; }

static void note_missing(struct pair *pair, uint64_t silent_ns, uint64_t now_ns)
{
	uint64_t heard_ns = moment(now_ns > silent_ns ? now_ns - silent_ns : 0);
	if (pair->met)
		pair->since_ns = pair->since_ns ? earlier(pair->since_ns, heard_ns) : heard_ns;
	else if (!pair->since_ns)
		pair->since_ns = moment(now_ns);
}

void pl_reach_report(struct pl_reach *reach, uint32_t router, uint64_t epoch, const struct pl_missing *missing,
	size_t missing_count, uint64_t now_ns)
{
	struct pair *pairs = reach->routers[router].pairs;
	bool is_missing[CAD_PROCESSES_MAX] = { false }, more = false;

	if (!pairs)
		return;

	reach->routers[router].reported_epoch = epoch;
	for (size_t i = 0; i < missing_count; i++) {
		is_missing[missing[i].slot] = true;
		note_missing(&pairs[missing[i].slot], missing[i].silent_ns, now_ns);
	}

	for (uint32_t n = 0; n < CAD_PROCESSES_MAX; n++) {
		const struct node *node = &reach->nodes[n];
		if (!node->present || is_missing[n] || node->listed_epoch == 0 || epoch < node->listed_epoch)
			continue;
		more = more || !pairs[n].met;
		pairs[n] = (struct pair){ .met = true };
	}

	/* it is still connecting: the others have their time again */
	for (uint32_t n = 0; more && n < CAD_PROCESSES_MAX; n++)
		if (!pairs[n].met)
			pairs[n].since_ns = moment(now_ns);
}

void pl_reach_postpone(struct pl_reach *reach, uint64_t late_ns)
{
	for (uint32_t r = 0; r < CAD_PROCESSES_MAX; r++)
		for (uint32_t n = 0; reach->routers[r].pairs && n < CAD_PROCESSES_MAX; n++)
			if (reach->routers[r].pairs[n].since_ns)
				reach->routers[r].pairs[n].since_ns += late_ns;
}

/* ---- judging ---- */

static bool lives(const struct pl_registry *registry, uint32_t slot, enum pl_role role)
{
	return registry->nodes[slot].presence == PL_LIVE && registry->nodes[slot].role == role;
}

static bool is_absent(const struct pair *pair, uint64_t now_ns)
{
	return pair->since_ns && now_ns >= pair->since_ns + PL_REACH_ABSENT_NS;
}

static void count_reached(struct pl_reach *reach, const struct pl_registry *registry)
{
	reach->live_routers = 0;
	for (uint32_t n = 0; n < CAD_PROCESSES_MAX; n++) {
		reach->nodes[n].live = reach->nodes[n].present && lives(registry, n, PL_ROLE_EXPERT);
		reach->nodes[n].reached_by = 0;
	}

	for (uint32_t r = 0; r < CAD_PROCESSES_MAX; r++) {
		if (!lives(registry, r, PL_ROLE_ROUTER) || !reach->routers[r].pairs)
			continue;
		reach->live_routers++;
		for (uint32_t n = 0; n < CAD_PROCESSES_MAX; n++)
			reach->nodes[n].reached_by += reach->nodes[n].live && reach->routers[r].pairs[n].since_ns == 0;
	}
}

/* Whether the router is itself the fault. */
static void weigh(struct pl_reach *reach, const struct pl_registry *registry, uint32_t r, uint64_t now_ns)
{
	struct router *router = &reach->routers[r];
	uint32_t absent = 0;
	bool counted = router->counts;

	router->reached = router->of = 0;
	for (uint32_t n = 0; n < CAD_PROCESSES_MAX; n++) {
		if (!reach->nodes[n].live || reach->nodes[n].reached_by == 0)
			continue;
		router->of++;
		router->reached += router->pairs[n].since_ns == 0;
		bool gone = is_absent(&router->pairs[n], now_ns);
		absent += gone;
		if (router->pairs[n].since_ns && !gone)
			reach->deadline_ns =
				earlier(reach->deadline_ns, router->pairs[n].since_ns + PL_REACH_ABSENT_NS);
	}

	router->counts = 2 * absent <= router->of;
	reach->counting += router->counts;
	if (router->counts == counted)
		return;
	if (router->counts)
		cad_log_info(COMPONENT, "a router reaches the expert nodes again",
			CAD_S("router", registry->nodes[r].id), CAD_U("reached", router->reached),
			CAD_U("of", router->of));
	else
		cad_log_warn(COMPONENT,
			"a router does not count: it reaches fewer than half of the expert nodes that others reach",
			CAD_S("router", registry->nodes[r].id), CAD_U("reached", router->reached),
			CAD_U("of", router->of));
}

static void lose(struct node *node, const char *id, const char *router, uint64_t now_ns)
{
	bool steady = node->hold_ns == 0 || now_ns >= node->usable_ns + PL_REACH_STEADY_NS;
	uint64_t doubled_ns = earlier(2 * node->hold_ns, PL_REACH_HOLD_NS_MAX);

	node->usable = false;
	node->hold_ns = steady ? PL_REACH_HOLD_NS : doubled_ns;
	node->held_until_ns = now_ns + node->hold_ns;
	cad_log_warn(COMPONENT, "absent: a router does not reach it", CAD_S("node", id), CAD_S("router", router),
		CAD_U("ms", (now_ns - node->missing_ns) / CAD_NS_PER_MS));
}

static void use(struct node *node, const char *id, uint64_t now_ns)
{
	cad_log_info(
		COMPONENT, node->used ? "every router reaches it again" : "every router reaches it", CAD_S("node", id));
	node->usable = node->used = true;
	node->usable_ns = now_ns;
}

/* How a node stands with the routers that count: who misses it for longest,
 * and whether that is long. */
static bool look(struct pl_reach *reach, const struct pl_registry *registry, uint32_t n, uint64_t now_ns)
{
	struct node *node = &reach->nodes[n];
	node->missing_ns = 0;
	node->missing_by = -1;

	for (uint32_t r = 0; r < CAD_PROCESSES_MAX; r++) {
		const struct router *router = &reach->routers[r];
		if (!router->pairs || !router->counts || !lives(registry, r, PL_ROLE_ROUTER))
			continue;
		uint64_t since_ns = router->pairs[n].since_ns;
		if (since_ns && (node->missing_by < 0 || since_ns < node->missing_ns)) {
			node->missing_ns = since_ns;
			node->missing_by = (int)r;
		}
	}

	return node->missing_by >= 0 && now_ns >= node->missing_ns + PL_REACH_ABSENT_NS;
}

static bool judge_node(struct pl_reach *reach, const struct pl_registry *registry, uint32_t n, uint64_t now_ns)
{
	struct node *node = &reach->nodes[n];
	bool before = node->usable, was_undecided = node->undecided, absent;

	node->whole = false;
	if (!node->live)
		return false;
	if (reach->live_routers > 0 && reach->counting == 0) /* nobody can be asked: as it was */
		return false;

	absent = look(reach, registry, n, now_ns);
	node->whole = node->missing_by < 0;
	if (node->usable && absent) {
		reach->absences++;
		lose(node, registry->nodes[n].id, registry->nodes[node->missing_by].id, now_ns);
	} else if (!node->usable && node->whole && now_ns >= node->held_until_ns) {
		use(node, registry->nodes[n].id, now_ns);
	}

	uint64_t due_ns = UINT64_MAX;
	if (node->missing_by >= 0 && !absent)
		due_ns = node->missing_ns + PL_REACH_ABSENT_NS;
	else if (node->whole && !node->usable)
		due_ns = node->held_until_ns;
	reach->deadline_ns = earlier(reach->deadline_ns, due_ns);
	node->undecided = !node->used && !absent;
	if (node->undecided && due_ns != UINT64_MAX && due_ns > reach->pending_ns)
		reach->pending_ns = due_ns;

	return node->usable != before || node->undecided != was_undecided;
}

bool pl_reach_judge(struct pl_reach *reach, const struct pl_registry *registry, uint64_t now_ns)
{
	bool changed = false;

	count_reached(reach, registry);
	reach->counting = 0;
	reach->deadline_ns = UINT64_MAX;
	reach->pending_ns = 0;
	for (uint32_t r = 0; r < CAD_PROCESSES_MAX; r++)
		if (reach->routers[r].pairs && lives(registry, r, PL_ROLE_ROUTER))
			weigh(reach, registry, r, now_ns);
	for (uint32_t n = 0; n < CAD_PROCESSES_MAX; n++)
		if (reach->nodes[n].present)
			changed = judge_node(reach, registry, n, now_ns) || changed;

	return changed;
}

uint64_t pl_reach_deadline_ns(const struct pl_reach *reach) { return reach->deadline_ns; }

bool pl_reach_whole(const struct pl_reach *reach, uint32_t slot) { return reach->nodes[slot].whole; }

bool pl_reach_usable(const struct pl_reach *reach, uint32_t slot) { return reach->nodes[slot].usable; }

bool pl_reach_undecided(const struct pl_reach *reach, uint32_t slot) { return reach->nodes[slot].undecided; }

bool pl_reach_counts(const struct pl_reach *reach, uint32_t router) { return reach->routers[router].counts; }

uint64_t pl_reach_absences(const struct pl_reach *reach) { return reach->absences; }

uint64_t pl_reach_pending_ns(const struct pl_reach *reach) { return reach->pending_ns; }

bool pl_reach_release(struct pl_reach *reach, uint64_t now_ns)
{
	bool any = false;
	for (uint32_t n = 0; n < CAD_PROCESSES_MAX; n++) {
		struct node *node = &reach->nodes[n];
		if (!node->live || !node->whole || node->usable)
			continue;
		node->usable = any = true;
		node->usable_ns = now_ns;
	}
	return any;
}

/* ---- for people ---- */

static void explain(
	const struct node *node, const struct pl_registry *registry, uint64_t now_ns, char *text, size_t bytes)
{
	if (node->missing_by >= 0)
		snprintf(text, bytes, "not reached by '%s' for %.1f s", registry->nodes[node->missing_by].id,
			(double)(now_ns - node->missing_ns) * 1e-9);
	else if (node->whole && now_ns < node->held_until_ns)
		snprintf(text, bytes, "reached again; it is used in %.1f s",
			(double)(node->held_until_ns - now_ns) * 1e-9);
	else
		snprintf(text, bytes, "not reached yet");
}

void pl_reach_view(const struct pl_reach *reach, const struct pl_registry *registry, uint32_t slot, uint64_t now_ns,
	struct pl_reach_view *view)
{
	const struct router *router = &reach->routers[slot];
	const struct node *node = &reach->nodes[slot];

	*view = (struct pl_reach_view){ 0 };
	if (registry->nodes[slot].presence != PL_LIVE)
		return;
	if (router->pairs) {
		view->reached = router->reached;
		view->of = router->of;
		if (!router->counts)
			snprintf(view->text, sizeof view->text,
				"does not count: it reaches %u of the %u expert nodes that routers reach",
				router->reached, router->of);
	} else if (node->present) {
		view->reached = node->reached_by;
		view->of = reach->live_routers;
		if (!node->usable)
			explain(node, registry, now_ns, view->text, sizeof view->text);
	}
}
