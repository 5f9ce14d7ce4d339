/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What other threads ask of the router's engine, until its thread looks: requests, wishes about
 * them, the newest map. Nothing here is ever lost, waits for room, or makes the engine's thread
 * allocate or free.
 *
 *   places      as many as sequences may live, each with a word of wishes: the id of the sequence
 *               that has the place, and whether it is to be cancelled or paused. A wish is a bit of
 *               that word: it needs no room, and has no effect when the sequence has ended.
 *   submitted   sequences that the engine has not taken yet, at most one per place
 *   map         the newest that the engine has not taken; an older one is dropped
 *   given back  sequences that ended, maps that were replaced: their memory is freed by the thread
 *               that brings the next request or map, or by destroy
 *
 * Threads: by function. Submit takes a mutex that the engine's thread never takes, and allocates;
 * everything else returns at once.
 */
#ifndef CADRE_ROUTER_SVC_INBOX_H
#define CADRE_ROUTER_SVC_INBOX_H

#include "common/cluster/map.h"
#include "router-svc/batch/sequence.h"

struct rt_inbox;

/* sequences_max: besides a trial. `wake` is called, on any thread, when there is something new and
 * there was nothing. */
CAD_MUST_USE enum cad_status rt_inbox_create(
	uint32_t sequences_max, void (*wake)(void *context), void *context, struct rt_inbox **inbox);
/* Frees what was given back, and what was never taken. NULL is allowed. */
void rt_inbox_destroy(struct rt_inbox *inbox);

/* ---- any thread ---- */

/* Copies the request into a sequence (batch/sequence.h). `id` is written before the engine can see
 * it; ids ascend. CAD_ERR_EXHAUSTED when all places are taken, the trial's for a trial;
 * CAD_ERR_MEMORY. */
CAD_MUST_USE enum cad_status rt_inbox_submit(struct rt_inbox *inbox, const struct rt_request *request,
	uint32_t tokens_max, uint64_t now_ns, uint64_t *id, struct cad_error *error);
void rt_inbox_cancel(struct rt_inbox *inbox, uint64_t id);
void rt_inbox_pause(struct rt_inbox *inbox, uint64_t id, bool paused);
/* One thread at a time. Takes a reference of its own. */
void rt_inbox_map(struct rt_inbox *inbox, struct cad_map *map);

/* ---- the engine's thread ---- */

/* Whether anything has arrived since the last call. */
bool rt_inbox_news(struct rt_inbox *inbox);
/* All that were submitted, linked by `after`, in no order. */
struct rt_sequence *rt_inbox_submitted(struct rt_inbox *inbox);
/* With its reference; NULL: none. */
struct cad_map *rt_inbox_newest_map(struct rt_inbox *inbox);
struct rt_wishes {
	bool cancel, pause;
};
struct rt_wishes rt_inbox_wishes(const struct rt_inbox *inbox, const struct rt_sequence *sequence);
/* The sequence has ended, and is in no list. */
void rt_inbox_give_back(struct rt_inbox *inbox, struct rt_sequence *sequence);
/* A reference that is no longer needed; at most one for each map that was taken. NULL is
 * allowed. */
void rt_inbox_give_back_map(struct rt_inbox *inbox, struct cad_map *map);

#endif
