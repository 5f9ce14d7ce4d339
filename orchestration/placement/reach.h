/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which router reaches which expert node, and what follows from it. The placement service sees a
 * node by another way than routers do, so it asks those: each reports which nodes of its map it has
 * no finished hello with, and since when.
 *
 *     a pair      reached <-> missing, which is *absent* after PL_REACH_ABSENT_NS
 *     a node      is *whole* when every router that counts reaches it; *usable* from then on, until one of
 *                 them finds it absent; usable again when it is whole and its hold-off
 *                 is over, which
 *                 doubles with each absence that follows soon
 *     a router    counts unless, of the nodes that any router reaches, more than half are absent to it:
 *                 then it is itself the fault. So nodes that nobody reaches discredit no router
 *
 * Without a live router every node is whole. A router that is still connecting, that is, reaches
 * one more at least every PL_REACH_ABSENT_NS, finds none absent that it has never reached.
 *
 * Slots are those of registry.h, times the caller's. One thread; nothing blocks; memory is
 * allocated when a router joins.
 */
#ifndef CADRE_ORCHESTRATION_PLACEMENT_REACH_H
#define CADRE_ORCHESTRATION_PLACEMENT_REACH_H

#include "common/base/clock.h"
#include "orchestration/placement/registry.h"

#define PL_REACH_ABSENT_NS CAD_NS_PER_S
#define PL_REACH_HOLD_NS CAD_NS_PER_S
#define PL_REACH_HOLD_NS_MAX (60 * CAD_NS_PER_S)
/* a node that was usable for so long has no past */
#define PL_REACH_STEADY_NS (300 * CAD_NS_PER_S)

struct pl_reach;

CAD_MUST_USE enum cad_status pl_reach_create(struct pl_reach **reach);
void pl_reach_destroy(struct pl_reach *reach); /* NULL is fine */

/* A new process, or one with a new exchange address: nobody reaches it, or it nobody. */
CAD_MUST_USE enum cad_status pl_reach_router(struct pl_reach *reach, uint32_t slot, uint64_t now_ns);
void pl_reach_node(struct pl_reach *reach, uint32_t slot, uint64_t now_ns);
/* Known from before a restart of the service: usable, and in maps from this epoch on. Routers that
 * have reported with such a map are taken to reach it until they report otherwise. */
void pl_reach_restore(struct pl_reach *reach, uint32_t slot, uint64_t epoch);
/* Whether it was told of the process of this slot by one of these. */
bool pl_reach_knows(const struct pl_reach *reach, uint32_t slot);
/* It is dead. */
void pl_reach_drop(struct pl_reach *reach, uint32_t slot);
/* A map with the node was published; only the first matters. */
void pl_reach_listed(struct pl_reach *reach, uint32_t slot, uint64_t epoch, uint64_t now_ns);

/* A router's report: of the nodes in its map of this epoch, these are
 * missing, all others reached. */
struct pl_missing {
	uint32_t slot;
	uint64_t silent_ns; /* since it was heard of last */
};
void pl_reach_report(struct pl_reach *reach, uint32_t router, uint64_t epoch, const struct pl_missing *missing,
	size_t missing_count, uint64_t now_ns);
/* The service did not run for so long: reports of that time are still to come. */
void pl_reach_postpone(struct pl_reach *reach, uint64_t late_ns);

/* Looks at everything that lives. Whether other nodes are usable or undecided now than
 * before. Logs what changed. */
bool pl_reach_judge(struct pl_reach *reach, const struct pl_registry *registry, uint64_t now_ns);
/* When to judge again though nothing is reported; UINT64_MAX: never. */
uint64_t pl_reach_deadline_ns(const struct pl_reach *reach);

/* As judged last. */
bool pl_reach_whole(const struct pl_reach *reach, uint32_t slot);
bool pl_reach_usable(const struct pl_reach *reach, uint32_t slot);
/* A live node that was never usable, and of which routers may still say that they reach it. */
bool pl_reach_undecided(const struct pl_reach *reach, uint32_t slot);
bool pl_reach_counts(const struct pl_reach *reach, uint32_t router);
uint64_t pl_reach_absences(const struct pl_reach *reach); /* in all: nodes that were usable, and then not */
/* A live node of which it is not clear yet whether routers will reach it: until when that is
 * waited for; 0: there is none. */
uint64_t pl_reach_pending_ns(const struct pl_reach *reach);
/* Nodes in hold-off that are whole become usable at once, because they are
 * needed. Whether there were any. */
bool pl_reach_release(struct pl_reach *reach, uint64_t now_ns);

/* For people: of a node, how many of the live routers reach it; of a router, how many of
 * the nodes that any router reaches. `text` says why a node is not usable, or a router does
 * not count; else it is "". */
struct pl_reach_view {
	uint32_t reached, of;
	char text[160];
};
void pl_reach_view(const struct pl_reach *reach, const struct pl_registry *registry, uint32_t slot, uint64_t now_ns,
	struct pl_reach_view *view);

#endif
