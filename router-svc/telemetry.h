/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a router reports of its routing: a sample of whole tokens, and the bytes that went to each
 * node and came back. The engine's thread puts it into a ring, one other thread takes it out;
 * neither waits for the other, and nothing is allocated after init.
 *
 * Up to RT_TELEMETRY_TOKENS_PER_S every token is sampled. Above, a token is chosen by a hash of its
 * request and position, which must lie below a bound: so the choice is fair, and does not depend on
 * which tokens are computed together. The bound follows the rate of the second before, and goes
 * with each token as its share. A token that finds the ring full is counted as lost.
 */
#ifndef CADRE_ROUTER_SVC_TELEMETRY_H
#define CADRE_ROUTER_SVC_TELEMETRY_H

#include "common/cluster/map.h"

#include <stdatomic.h>

enum {
	RT_TELEMETRY_TOKENS_PER_S = 1000,
	RT_TELEMETRY_BYTES_MAX = 8 << 20, /* of the ring; 58 layers with 8 experts per token: 8192 tokens */
	RT_TELEMETRY_RECORDS_MAX = 8192,
};

struct rt_telemetry_record {
	enum { RT_TELEMETRY_TOKEN, RT_TELEMETRY_TRAFFIC } kind;
	float share; /* a token's: the chance by which it was chosen */
	union {
		uint64_t request; /* a token's, followed by uint16_t [layers][topk]; 0xffff: dropped */
		struct {
			uint64_t sent, received; /* bytes since it was told last */
			char node[CAD_MAP_ID_BYTES];
		} traffic;
	};
};

struct rt_telemetry {
	uint32_t layers, topk; /* MoE layers */
	uint32_t capacity;     /* records; a power of two */
	size_t record_bytes;
	uint8_t *records;
	_Atomic uint64_t written, taken; /* records */
	/* tokens: all; not chosen; chosen, but there was no room. Each of the others has a
	 * record. */
	_Atomic uint64_t tokens, passed, lost;
	_Atomic bool aggregate; /* no token is sampled, and none counts as lost */
	/* the engine's */
	uint64_t bound; /* of a token's hash */
	float share;
	uint64_t begun_ns, tokens_before; /* of the second that runs */
};

CAD_MUST_USE enum cad_status rt_telemetry_init(struct rt_telemetry *telemetry, uint32_t layers, uint32_t topk);
void rt_telemetry_fini(struct rt_telemetry *telemetry); /* zeroed is fine */

/* ---- the engine's thread ---- */

/* Whenever the engine has a turn. True: a second is over, traffic should be told. */
bool rt_telemetry_turn(struct rt_telemetry *telemetry, uint64_t now_ns);
/* A token went through all layers, for the first time: ids [layers][stride][topk], -1: dropped. */
void rt_telemetry_token(
	struct rt_telemetry *telemetry, uint64_t request, uint32_t position, const int32_t *ids, uint32_t stride);
/* False: the ring is full. */
bool rt_telemetry_traffic(struct rt_telemetry *telemetry, const char *node, uint64_t sent, uint64_t received);

/* ---- the thread that reports ---- */

/* The record at a position of the ring, from `taken` on and before `written`. */
static inline const struct rt_telemetry_record *rt_telemetry_at(const struct rt_telemetry *telemetry, uint64_t position)
{
	return (const struct rt_telemetry_record *)(const void *)(telemetry->records +
		(position & (telemetry->capacity - 1)) * telemetry->record_bytes);
}
static inline const uint16_t *rt_telemetry_ids(const struct rt_telemetry_record *record)
{
	return (const uint16_t *)(record + 1);
}
static inline size_t rt_telemetry_ids_bytes(const struct rt_telemetry *telemetry)
{
	return (size_t)telemetry->layers * telemetry->topk * sizeof(uint16_t);
}

#endif
