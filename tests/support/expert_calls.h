/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls to expert engines, for tests: a client transport of a hub, calls with random rows and
 * routing over a golden model, and what must come back, summed pair by pair with each expert run
 * alone. Asserts through cmocka.
 */
#ifndef CADRE_TESTS_SUPPORT_EXPERT_CALLS_H
#define CADRE_TESTS_SUPPORT_EXPERT_CALLS_H

#include "common/transport/local.h"
#include "expert-svc/engine.h"

enum { EXPERT_TEST_ROWS_MAX = 64 };

/* What one layer is asked: T rows, K distinct experts each. */
struct expert_case {
	uint32_t layer, rows, topk;
	float *x;          /* [rows][kn_ld(hidden)] */
	int32_t *ids;      /* [rows][topk], distinct in a row */
	float *weights;    /* [rows][topk] */
	int64_t *expected; /* [rows][hidden], filled by expert_case_expect */
};

struct expert_world {
	struct cad_model *model;
	struct kn_device *device;
	struct kn_queue *queue;
	/* what answers are compared with: the CPU as it is, whose memory is the host's */
	struct kn_device *reference;
	struct kn_queue *own; /* of the test's thread */
	struct cad_settings settings;
	struct cad_local_hub *hub;
	uint32_t hidden, experts;
};

void expert_world_init(struct expert_world *world, const char *golden); /* "olmoe-a" */
void expert_world_fini(struct expert_world *world);
float expert_quantum(const struct expert_world *world, uint32_t layer);

void expert_case_init(struct expert_case *c, const struct expert_world *world, uint32_t layer, uint32_t rows,
	uint32_t topk, struct cad_random *random);
void expert_case_expect(struct expert_case *c, const struct expert_world *world);
void expert_case_fini(struct expert_case *c);

/* Transport options of this world's model; `node` is its name. */
void expert_transport_options(
	const struct expert_world *world, const char *node, struct cad_transport_options *options);

/* A client: its own transport, one connection at a time to each server that it is told of. */
struct expert_client;
struct expert_client *expert_client_create(const struct expert_world *world, const char *name);
void expert_client_destroy(struct expert_client *client);
struct cad_transport *expert_client_transport(const struct expert_client *client);
/* Starts connecting; *ready turns true inside poll. */
struct cad_connection *expert_client_connect(struct expert_client *client, const char *address, bool *ready);

/* One call of the pairs whose expert `takes` says yes to (NULL: all). */
struct expert_call {
	struct cad_buffer payload, answer;
	bool done;
	enum cad_status status;
	enum cadre_wire_status wire;
	uint32_t detail, poisoned_rows, poisoned_expert;
	struct cadre_wire_answer head;
	int64_t *sums; /* [rows][hidden]: added to when the answer comes */
	const struct expert_case *of;
	uint32_t *index; /* the case's row of each row sent */
	const struct expert_world *world;
};
void expert_call_start(struct expert_call *call, struct expert_client *client, struct cad_connection *connection,
	const struct expert_world *world, const struct expert_case *c, bool (*takes)(int32_t expert, int part),
	int part, int64_t *sums, uint64_t deadline_ns);
void expert_call_fini(struct expert_call *call, struct expert_client *client);

/* Every expert of the model into one engine. */
enum cad_status expert_load_all(struct ex_engine *engine, struct cad_error *error);

#endif
