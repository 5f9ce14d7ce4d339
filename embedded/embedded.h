/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The embedded form: a router and its expert nodes in one process, with no network. `cadre-router
 * --local-experts` serves with it, `cadrectl eval` and `cadrectl generate --model` compute with it,
 * and every cluster must give the same bits.
 *
 * Router and experts are the same engines as in the two services, connected by the in-process link
 * (common/transport/local.h), and the experts compute inline, in the thread that runs the router's
 * engine, on the same queue, or on a GPU with a queue of its own. `nodes` above 1 spreads the experts over that many engines, which
 * changes nothing but the exchange.
 */
#ifndef CADRE_EMBEDDED_EMBEDDED_H
#define CADRE_EMBEDDED_EMBEDDED_H

#include "common/cluster/settings.h"
#include "router-svc/engine.h"

enum { EM_NODES_MAX = 64 };

struct em_options {
	const char *model; /* directory of the checkpoint */
	enum kn_isa isa;
	struct kn_device_options experts; /* where experts are; all else is on the CPU */
	unsigned threads;                 /* 0: kn_threads_default() */
	struct cad_settings settings;     /* as asked for; layers and quanta are filled in */
	uint32_t nodes;                   /* 0: 1 */
	uint64_t placement_seed;          /* 0: experts in contiguous blocks; else shuffled by this seed */
	struct rt_engine_options router;  /* sizes, capacity policy, on_event, user; the rest is filled in */
};

struct em_embedded;

/* Opens the checkpoint, packs it, computes the quantum table. Blocks. */
CAD_MUST_USE enum cad_status em_create(
	const struct em_options *options, struct em_embedded **embedded, struct cad_error *error);
/* Nothing may run the router's engine any longer. NULL is allowed. */
void em_destroy(struct em_embedded *embedded);

struct rt_engine *em_router(const struct em_embedded *embedded);
const struct cad_model *em_model(const struct em_embedded *embedded);
const struct cad_settings *em_settings(const struct em_embedded *embedded);
/* A request has failed, as `error` says; or the experts' device has. */
void em_blame(const struct em_embedded *embedded, struct cad_error *error);
const char *em_isa_name(const struct em_embedded *embedded);

/* How fast this machine computes experts of that shape and those types, as an expert node measures it before
 * it joins (expert-svc/speed.h): for estimates. Blocks a fraction of a second; reads no data of
 * `like`. */
struct em_speed {
	double read_bytes_per_second, multiply_adds_per_second, step_s;
};
CAD_MUST_USE enum cad_status em_speed_measure(struct kn_device *device, const struct kn_expert_source *like,
	enum cad_weights weights, unsigned threads, struct em_speed *speed);

#endif
