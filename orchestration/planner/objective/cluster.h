/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The nodes that a plan is made for, and what must hold there: room, speed, link, failure domain,
 * rack, pins.
 *
 * Filled by one of the two makers, then plain data that any thread may read; freed with
 * pl_cluster_fini. Reading a file blocks and allocates.
 */
#ifndef CADRE_ORCHESTRATION_PLANNER_OBJECTIVE_CLUSTER_H
#define CADRE_ORCHESTRATION_PLANNER_OBJECTIVE_CLUSTER_H

#include "common/base/limits.h"
#include "common/base/status.h"

#include <stdbool.h>
#include <stdint.h>

enum { PL_CLUSTER_ID_BYTES = 64, PL_CLUSTER_ANY = 0xffffffff };

struct pl_cluster_node {
	char id[PL_CLUSTER_ID_BYTES];
	uint64_t memory_bytes; /* for experts of all layers; 0: see `slots` */
	uint64_t expert_bytes; /* that one takes there; 0: as in the cluster */
	uint32_t slots;        /* experts of one layer that fit; 0: see `memory_bytes` */
	double speed;          /* relative to the others: 2 computes twice as many rows per second */
	double link;           /* relative to the others: 2 moves twice as many bytes per second */
	/* copies of an expert are never in one domain; PL_CLUSTER_ANY: a domain of its own */
	uint32_t domain;
	uint32_t rack;  /* 0 when racks are not named */
	bool forbidden; /* holds nothing: it is being emptied */
};

/* An expert that must be on a node, or must not. */
struct pl_cluster_rule {
	uint32_t layer, expert, node; /* PL_CLUSTER_ANY as layer: in every layer */
	bool forbidden;
};

struct pl_cluster {
	struct pl_cluster_node *nodes;
	struct pl_cluster_rule *rules;
	uint32_t nodes_count, rules_count, racks_count;
	uint64_t expert_bytes; /* of one expert; 0: unknown */
	uint64_t image_bytes;  /* of one as it moves; 0: as much as it takes on the node that loads it */
};

/* Equal nodes, "n0" and so on. */
CAD_MUST_USE enum cad_status pl_cluster_create(
	uint32_t nodes, uint32_t slots, struct pl_cluster *cluster, struct cad_error *error);
/*
 * {"expert_bytes": 4718592, "image_bytes": 4718592, "nodes": [{"id": "e0", "slots": 36,
 * "memory_bytes": 8589934592, "expert_bytes": 4792320, "speed": 1, "link": 1, "domain": "power-a",
 * "rack": "r1", "forbidden": false}, ...], "pin": [{"layer": 3, "expert": 7, "node": "e0"}],
 * "forbid": [{"expert": 7, "node": "e1"}]} A node needs only "id" and either "slots" or "memory_bytes". Unknown keys are errors.
 */
CAD_MUST_USE enum cad_status pl_cluster_read(const char *path, struct pl_cluster *cluster, struct cad_error *error);
/* The same from memory, for tests and the fuzzer; errors call it `name`. */
CAD_MUST_USE enum cad_status pl_cluster_parse(
	const char *name, const char *text, size_t bytes, struct pl_cluster *cluster, struct cad_error *error);
void pl_cluster_fini(struct pl_cluster *cluster); /* takes a zeroed one too */

/* What an expert takes on a node; 0: unknown. */
uint64_t pl_cluster_expert_bytes(const struct pl_cluster *cluster, uint32_t node);
/* What is read to load one there; 0: unknown. */
uint64_t pl_cluster_image_bytes(const struct pl_cluster *cluster, uint32_t node);
/* Experts of all layers that the memory of a node holds: none on a forbidden one, UINT64_MAX where
 * their size is unknown. */
uint64_t pl_cluster_room(const struct pl_cluster *cluster, uint32_t node);
/* Index of a node or PL_CLUSTER_ANY. */
uint32_t pl_cluster_find(const struct pl_cluster *cluster, const char *id);

#endif
