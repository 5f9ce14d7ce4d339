/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The processes of the cluster: each one's lease, and what it last reported.
 *
 *     free -> LIVE -> BROKEN -> DEAD -> free    its stream broke: a short grace, then dead; none
 *                                               when it said goodbye, or when its host says that
 *                                               the process is gone (probe.h)
 *             LIVE <- BROKEN                    if it returns in time, nothing changes
 *             LIVE ----------> DEAD             the lease ran out
 *             LIVE <---------- DEAD             a process with its id joins before it is forgotten
 *     free -> EXPECTED -> LIVE                  known from before a restart of this service, and
 *                                               given time to come back
 *             EXPECTED ------> DEAD             it did not; at once when its host says that the
 *                                               process is gone
 *
 * A node keeps its slot (a small number) from join until it is forgotten, long after its death;
 * slots index the tables of rollout.h. The caller gives times, so that tests can supply their own.
 * One thread; nothing blocks or allocates after creation.
 */
#ifndef CADRE_ORCHESTRATION_PLACEMENT_REGISTRY_H
#define CADRE_ORCHESTRATION_PLACEMENT_REGISTRY_H

#include "orchestration/placement/calls.h"
#include "common/cluster/map.h"
#include "orchestration/placement/devices.h"
#include "common/base/status.h"
#include "orchestration/placement/shape.h"
#include "orchestration/placement/speed.h"

enum { PL_TEXT_BYTES = 64, PL_PROBLEM_BYTES = 320 };

enum pl_role { PL_ROLE_ROUTER, PL_ROLE_EXPERT };
enum pl_presence { PL_FREE, PL_EXPECTED, PL_LIVE, PL_BROKEN, PL_DEAD };

/* What a process says when it joins. Strings are borrowed for the call. */
struct pl_hello {
	const char *id;
	enum pl_role role;
	const char *exchange_address, *http_address, *grpc_address, *kernels_fingerprint, *version, *isa;
	const char *probe_address;           /* where to see whether it still runs (probe.h); NULL, "": nowhere */
	uint64_t memory_bytes, expert_bytes; /* for experts, and what one of them takes there; 0: not said */
	uint32_t threads, pid;
	struct pl_speed speed; /* of an expert node */
};

/* What it reports three times per lease: totals since its start. */
struct pl_load {
	uint64_t epoch, rows, calls, tokens, memory_used_bytes;
	uint32_t sequences, queue;
	struct pl_calls expert_calls; /* of a router */
	struct pl_device device;
};

/* What is wrong with the experts that a node loads: said once, and shown until the expert that
 * showed it last is right, or another process has the node's id. A load that failed may have been
 * an accident: it is shown as long as the dead are, as is a device that failed. */
struct pl_problem {
	enum pl_problem_kind { PL_PROBLEM_NONE, PL_PROBLEM_WRONG, PL_PROBLEM_FAILED, PL_PROBLEM_DEVICE } kind;
	uint32_t cell;
	uint64_t times, last_ns;
	char text[PL_PROBLEM_BYTES];
};

struct pl_node {
	enum pl_presence presence;
	enum pl_role role;
	char id[CAD_MAP_ID_BYTES];
	char exchange_address[CAD_EXCHANGE_ADDRESS_BYTES], http_address[CAD_MAP_ADDRESS_BYTES],
		grpc_address[CAD_MAP_ADDRESS_BYTES], probe_address[CAD_MAP_ADDRESS_BYTES];
	char kernels_fingerprint[PL_TEXT_BYTES], version[PL_TEXT_BYTES], isa[PL_TEXT_BYTES];
	uint64_t memory_bytes, expert_bytes; /* as it said; control.c corrects the second */
	uint32_t threads, pid;
	struct pl_speed measured; /* as it reported */
	double speed;             /* as plans take it (speed.h) */
	uint64_t session;         /* of its stream; the caller's number; 0: none */
	/* LIVE: end of the lease; EXPECTED, BROKEN: end of the grace; DEAD: when it is forgotten */
	uint64_t until_ns;
	bool gone; /* it said goodbye, or its host says so: not one that may be behind a cut */
	struct pl_load load;
	uint64_t load_ns; /* when that arrived; 0: never */
	double rows_per_second, tokens_per_second;
	struct pl_problem problem;
};

struct pl_registry {
	uint64_t lease_ns;  /* a process is dead after this long without a report */
	uint64_t grace_ns;  /* how long a process has to come back after its stream broke */
	uint64_t forget_ns; /* how long the dead are shown */
	struct pl_node nodes[CAD_PROCESSES_MAX];
};

void pl_registry_init(struct pl_registry *registry, uint64_t lease_ns, uint64_t grace_ns, uint64_t forget_ns);

/*
 * A process joins; `slot` is its place. A known process that is alive and uses another stream is
 * refused (CAD_ERR_REFUSED), unless it is the same process (pid, and host and port of the
 * exchange), whose old stream is not yet known to be broken: then `superseded` is that stream's
 * session, else 0. CAD_ERR_INVALID: an id that is not allowed, or an address too long.
 * CAD_ERR_EXHAUSTED: so many of its role live already (common/base/limits.h).
 */
CAD_MUST_USE enum cad_status pl_registry_join(struct pl_registry *registry, const struct pl_hello *hello,
	uint64_t session, uint64_t now_ns, uint32_t *slot, uint64_t *superseded, struct cad_error *error);
/* A node that was alive before this service restarted, and has until `until_ns` to come back. */
CAD_MUST_USE enum cad_status pl_registry_expect(struct pl_registry *registry, const struct pl_hello *hello,
	uint64_t until_ns, uint32_t *slot, struct cad_error *error);
/* Its exchange address has changed. CAD_ERR_INVALID: too long, or an expert node without one. */
CAD_MUST_USE enum cad_status pl_registry_address(
	struct pl_node *node, const char *exchange_address, struct cad_error *error);
/* An expert node has joined, or its experts are larger than it said: how fast each counts as, beside
 * the others. */
void pl_registry_compare(struct pl_registry *registry, const struct pl_speed_work *work);
/* A report renews the lease. Only for LIVE nodes. */
void pl_registry_renew(struct pl_registry *registry, uint32_t slot, const struct pl_load *load, uint64_t now_ns);
/* Its stream broke. */
void pl_registry_broken(struct pl_registry *registry, uint32_t slot, uint64_t now_ns);
/* It said goodbye. */
void pl_registry_leave(struct pl_registry *registry, uint32_t slot, uint64_t now_ns);
/* The slot of one node that has just become dead (call again for more), or -1. Its session is left
 * in place if its stream is still open: the caller closes it. Also forgets nodes that have been
 * dead for long. */
int pl_registry_expire(struct pl_registry *registry, uint64_t now_ns);
/* The service did not run for `late_ns`, until now: that was nobody's silence. What is left of a
 * lease or a grace is left still. */
void pl_registry_postpone(struct pl_registry *registry, uint64_t late_ns, uint64_t now_ns);
/* When pl_registry_expire next has something to do; UINT64_MAX: never, unless something changes. */
uint64_t pl_registry_deadline_ns(const struct pl_registry *registry);

int pl_registry_find(const struct pl_registry *registry, const char *id); /* slot or -1 */
/* Of the LIVE process behind a stream; the same. */
int pl_registry_find_session(const struct pl_registry *registry, uint64_t session);
/* LIVE, or gone so recently that it may return; its experts still count as held. */
static inline bool pl_node_counts(const struct pl_node *node)
{
	return node->presence == PL_LIVE || node->presence == PL_BROKEN || node->presence == PL_EXPECTED;
}
/* A process that may connect to expert nodes: a router, or an expert node that fetches experts.
 * Also one that was given up, which may be behind a cut and still work with its last map; until it
 * is forgotten. */
static inline bool pl_node_is_peer(const struct pl_node *node)
{
	return node->presence != PL_FREE && !node->gone && node->exchange_address[0];
}
/* "" or what is to be shown of a node's problem now. */
const char *pl_registry_problem(const struct pl_registry *registry, uint32_t slot, uint64_t now_ns);
/* Nodes of a role with such a presence; those that count (pl_node_counts). */
uint32_t pl_registry_count(const struct pl_registry *registry, enum pl_role role, enum pl_presence presence);
uint32_t pl_registry_counted(const struct pl_registry *registry, enum pl_role role);

#endif
