/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The paged KV cache: which page belongs to which sequence. A page holds 32 keys and values of
 * every layer. Layers of one kind of attention lie together in memory (struct kn_kv), those of
 * another, whose keys have other sizes, apart; a page has one number and a place in each.
 *
 * Owned and used by the engine's thread. All memory is allocated at init; afterwards the only
 * failure is "no page free".
 *
 *   tables  [slots][pages_per_sequence_max]   device memory: the page ids of the sequence in that
 *   slot, what attention walks; each sequence has its own on the host, and a step brings what is
 *   new to the device (rt_kv_upload)
 *   free    a stack of page ids
 *
 * What is kept per token belongs into pages, whatever it is: a compressed latent, keys of an indexer.
 *
 * What is kept per sequence does not: the state of linear attention or of a state-space layer, the last
 * inputs of a convolution. Families that have it do not run yet; its place is here, by these rules:
 *
 * - A sequence holds one state, for all such layers together: a row of a fixed table beside the pages,
 *   with a free stack of its own, out of the same bytes (--kv-memory). Only layers with keys count
 *   in `kv.layers`.
 * - It is held as pages are, not as the slot is: a sequence that pauses gives up its slot and keeps its
 *   state; rt_kv_release gives it back. Tables on the device name the state of a slot, as they name its
 *   pages, and rt_kv_upload brings it.
 * - Pages may be written again with the same bits; a state moves on with every token and cannot go
 *   back. It is that of exactly `computed` tokens of its sequence, so whoever sets `computed` sets the
 *   state: to zeros with 0 (preempt, a rotation that was outgrown), to a snapshot's with the
 *   snapshot's position. A step moves both on, or ends the sequence.
 * - A snapshot is a copy of a state after a whole number of pages, and knows how many. For preemption:
 *   a sequence may give up only the pages behind it, and goes on from there. For prefixes that are
 *   shared: pages up to a snapshot may be shared as they are, and what follows is computed; without
 *   one, no part of a prefix is of use to such layers. Snapshots are rows of the same table, and are
 *   given up before pages are: a sequence without any is computed from its first token.
 * - Same bits: chunks of a prompt end where the scheduler says. The operator's order of summation is
 *   therefore by token, or by blocks that begin at multiples of a fixed number of positions, and the
 *   state is kept in f32 between steps, whatever the type of keys.
 */
#ifndef CADRE_ROUTER_SVC_BATCH_KV_CACHE_H
#define CADRE_ROUTER_SVC_BATCH_KV_CACHE_H

#include "common/model/spec.h"
#include "kernels/kernels.h"

/* Where a layer's keys and values are. */
struct rt_kv_place {
	uint32_t kv, layer; /* of rt_kv_cache.kvs, and in it */
};

struct rt_kv_cache {
	struct kn_device *device;
	struct kn_queue *queue;
	struct kn_kv kvs[CAD_ATTENTIONS_MAX]; /* of each kind of attention */
	struct rt_kv_place *places;           /* [layers] */
	uint32_t *tables;                     /* device, [slots][pages_per_sequence_max] */
	uint32_t pages, slots, pages_per_sequence_max;
	uint32_t *free_pages, free_count;
	uint32_t *free_slots, free_slots_count;
};

/* As many pages of that type as `bytes` hold and sequences of `context_max` tokens can use, at least
 * enough for one short sequence (else CAD_ERR_MEMORY and a sentence with the bytes that are
 * needed). */
CAD_MUST_USE enum cad_status rt_kv_cache_init(struct rt_kv_cache *cache, struct kn_device *device,
	struct kn_queue *queue, const struct cad_model_spec *spec, enum cad_kv type, uint64_t bytes, uint32_t slots,
	uint32_t context_max, struct cad_error *error);
void rt_kv_cache_fini(struct rt_kv_cache *cache);

/* What one sequence holds. */
struct rt_kv_pages {
	uint32_t slot;                    /* UINT32_MAX: none */
	uint32_t *pages, count, capacity; /* the table; the array is the sequence's */
	uint32_t uploaded;                /* so many of them are on the device */
};
/* False when no slot is free. */
bool rt_kv_slot_acquire(struct rt_kv_cache *cache, struct rt_kv_pages *held);
/* Makes room for `tokens` tokens in all; false when pages ran out (those taken so far stay). */
bool rt_kv_grow(struct rt_kv_cache *cache, struct rt_kv_pages *held, uint32_t tokens);
/* Queues what the device's table of the sequence lacks; `held` stays as it is
 * until the queue's next wait. */
void rt_kv_upload(struct rt_kv_cache *cache, struct rt_kv_pages *held);
/* Gives back the slot and keeps the pages, for another slot later. */
void rt_kv_slot_release(struct rt_kv_cache *cache, struct rt_kv_pages *held);
/* Gives back pages and slot. */
void rt_kv_release(struct rt_kv_cache *cache, struct rt_kv_pages *held);

static inline uint32_t rt_kv_pages_for(uint32_t tokens) { return (tokens + KN_PAGE_KEYS - 1) / KN_PAGE_KEYS; }

#endif
