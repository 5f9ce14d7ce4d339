/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Routers and expert nodes as engines in one process, over a transport of the caller's choice, with
 * the test in the place of the placement service: it says which node holds what, and publishes
 * maps. For clusters without processes: in threads over the in-process link, or in virtual time
 * over the simulator.
 */
#ifndef CADRE_TESTS_SUPPORT_ENGINES_H
#define CADRE_TESTS_SUPPORT_ENGINES_H

#include "common/cluster/settings.h"
#include "expert-svc/engine.h"
#include "router-svc/engine.h"

#include <pthread.h>

enum { TE_NODES_MAX = 8, TE_ROUTERS_MAX = 2, TE_REQUESTS_MAX = 32 };

struct te_request {
	int32_t prompt[128];
	uint32_t prompt_count, max_tokens;
	uint64_t deadline_ns;
	uint64_t id;
	/* out */
	_Atomic bool ended;
	enum cad_status status;
	uint8_t digest[16];
	struct rt_usage usage;
	_Atomic uint32_t tokens;
	char text[CAD_ERROR_TEXT_BYTES];
};

struct te_node {
	char name[16];
	struct ex_engine *engine;
	struct cad_transport *transport;
	bool live;        /* in the maps that are published */
	pthread_t thread; /* THREADED: polls the transport */
	_Atomic bool stop;
};

struct te_cluster {
	struct cad_model *model;
	const struct cad_model_spec *spec;
	struct kn_device *device;
	struct cad_settings settings;
	char fingerprint[33];
	struct te_node nodes[TE_NODES_MAX];
	uint32_t nodes_count, routers_count;
	struct rt_engine *routers[TE_ROUTERS_MAX];
	struct kn_queue *queues[TE_ROUTERS_MAX];
	pthread_t router_threads[TE_ROUTERS_MAX];
	uint32_t *owner; /* [layers][E]: node; TE_NODES_MAX: nobody */
	bool copies;     /* the node after the owner has one, too */
	uint64_t epoch;
	/* Creates a transport for the router or node; the first thing that knows which link it
	 * is. */
	enum cad_status (*transport)(void *context, const struct cad_transport_options *options,
		struct cad_transport **transport, struct cad_error *error);
	void *context;
	const struct cad_clock *clock; /* of the transports */
	bool threaded;
};

/* Opens the golden checkpoint, makes nodes and routers, loads the experts (spread by `seed`) and
 * publishes the first map. Asserts on failure. */
void te_create(struct te_cluster *cluster, const char *model, uint32_t nodes, uint32_t routers, uint64_t seed,
	bool threaded, const struct cad_clock *clock,
	enum cad_status (*transport)(void *context, const struct cad_transport_options *options,
		struct cad_transport **transport, struct cad_error *error),
	void *context);
void te_destroy(struct te_cluster *cluster);
/* Stops polling a threaded node and destroys its transport: what a crash
 * looks like to the others. */
void te_kill(struct te_cluster *cluster, uint32_t index);
/* Gives the experts of `dead` to the live ones and publishes the next map. */
void te_reassign(struct te_cluster *cluster, uint32_t dead);
void te_publish(struct te_cluster *cluster);
/* Gives every expert a copy on the node after its owner, and publishes the next map. */
void te_copy(struct te_cluster *cluster);

/* `count` different requests, decided by the seed. */
void te_requests(struct te_request *requests, uint32_t count, uint32_t vocab, uint64_t seed);
void te_submit(struct te_cluster *cluster, uint32_t router, struct te_request *request);
bool te_all_ended(const struct te_request *requests, uint32_t count);
/* The same requests, each alone, on one node in this thread: what the digests must be. */
void te_expected(const char *model, struct te_request *requests, uint32_t count);

#endif
