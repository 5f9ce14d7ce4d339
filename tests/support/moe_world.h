/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A router's exchange (router-svc/moe) in virtual time, with expert nodes that a test plays: each
 * answers, refuses or keeps silent as its script says, and then answers. What a node answers for a
 * pair depends on the expert and the weight (a small whole number) alone, so the sums say whether
 * every pair was added exactly once.
 */
#ifndef CADRE_TESTS_SUPPORT_MOE_WORLD_H
#define CADRE_TESTS_SUPPORT_MOE_WORLD_H

#include "router-svc/moe/await.h"
#include "router-svc/moe/dispatch.h"
#include "tests/support/sim.h"

enum {
	MOE_NODES = 3,
	MOE_ROWS = 12,
	MOE_TOPK = 2,
	MOE_EXPERTS = 6,
	MOE_LAYERS = 2,
	MOE_HIDDEN = 64,
	MOE_ROWS_OF_A_CALL = 8,
	MOE_TIMEOUT_MS = 40,
	MOE_SCRIPT_MAX = 8,
	MOE_SILENCE = 200, /* beside the wire's statuses, in a script: the request is kept until the end */
};

struct moe_world;
struct moe_node {
	struct moe_world *world;
	char name[8];
	float speed; /* as the map says it; 0: 1 */
	struct cad_transport *transport;
	uint8_t script[MOE_SCRIPT_MAX]; /* what it says to its next calls; CADRE_WIRE_OK after them */
	uint32_t script_count, said;
	uint32_t calls, rows, answered; /* calls and rows that came, calls that were answered with sums */
	uint64_t last_call_ns;
	struct cad_request *kept[MOE_SCRIPT_MAX];
	uint32_t kept_count;
};

struct moe_world {
	struct cad_sim *sim;
	const struct cad_clock *clock;
	struct cad_model_spec spec;
	struct kn_device *device;
	struct kn_queue *queue;
	struct moe_node nodes[MOE_NODES];
	struct rt_exchange exchange;
	uint64_t epoch;
	/* one work of MOE_ROWS rows, each of a sequence of its own */
	struct rt_sequence *sequences[MOE_ROWS];
	struct rt_batch batch;
	struct rt_work work;
	int32_t ids[MOE_ROWS * MOE_TOPK];
	float weights[MOE_ROWS * MOE_TOPK];
	uint16_t work_nodes[MOE_ROWS * MOE_TOPK];
	const char *node_ids[MOE_ROWS * MOE_TOPK];
	uint8_t slots[MOE_ROWS * MOE_TOPK];
	struct rt_expert_counts counts[MOE_EXPERTS];
	float *x;
	int64_t *sums;
	void (*idle)(struct moe_world *world); /* between polls of a wait; NULL: nothing */
};

void moe_world_open(struct moe_world *world);
void moe_world_close(struct moe_world *world);

/* The next map: holders[e] is a set of nodes, bit n for node n, in every layer. */
void moe_publish(struct moe_world *world, const uint8_t holders[MOE_EXPERTS]);
/* The same with only some nodes alive: a set, too. */
void moe_publish_live(struct moe_world *world, const uint8_t holders[MOE_EXPERTS], uint8_t live);
/* Until every node of the map is connected. */
void moe_connect(struct moe_world *world);
/* Rows with experts (row, row + 1), or what the test has written to ids since open. */
void moe_dispatch(struct moe_world *world);
void moe_wait(struct moe_world *world);
/* Every pair of the row was added exactly once; or nothing was. */
void moe_expect_row(const struct moe_world *world, uint32_t row);
void moe_expect_nothing(const struct moe_world *world, uint32_t row);
void moe_expect_all(const struct moe_world *world);
uint64_t moe_now(const struct moe_world *world);
/* What the node says to its next calls: a status, or MOE_SILENCE. */
void moe_say(struct moe_world *world, uint32_t node, uint8_t what, uint32_t times);
/* A work, from its dispatch until nothing is owed for it; in milliseconds.
 * Every pair is added once. */
uint64_t moe_run(struct moe_world *world);
void moe_clear_sums(struct moe_world *world);
/* Lets things happen for a while, as the engine's idle turns do. */
void moe_pass(struct moe_world *world, uint64_t ms);
/* Answers what the node kept, long after the router has given it up. */
void moe_answer_late(struct moe_node *node);

#endif
