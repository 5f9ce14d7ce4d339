/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loading and freeing on threads of their own, while serving goes on.
 *
 * It keeps one wish per expert (hold it, or not), so orders that arrive twice or contradict each
 * other need no queue: the last one counts, and a load that is no longer wished is given up. Frees
 * are done before loads, because they make room. Loads with a rate have threads of their own, in
 * the background (cad_background), so loads without one never wait for them. Reports come back one
 * per finished order, and while a load is under way now and then one that says how far it is;
 * `changed` rings when there is one.
 *
 * An expert comes from the node that its order names, if it names one, else from the checkpoint. It
 * is served when its image has the checksum that the order says; if the node fails in any way, the
 * checkpoint follows at once, and the report says what happened.
 *
 * Orders and reports: any thread; none blocks longer than a short lock. Allocates orders, reports,
 * and an image for each load from a node, or of an expert that is quantised.
 */
#ifndef CADRE_EXPERT_SVC_LOADER_H
#define CADRE_EXPERT_SVC_LOADER_H

#include "expert-svc/engine.h"
#include "expert-svc/transfer/load.h"

struct ex_loader;

enum ex_load_outcome { EX_LOAD_LOADED, EX_LOAD_FREED, EX_LOAD_FAILED, EX_LOAD_UNDER_WAY };
struct ex_load_report {
	struct ex_load_report *next; /* the loader's */
	uint32_t layer, expert;
	enum ex_load_outcome outcome;
	struct ex_loaded loaded;       /* LOADED */
	char source[CADRE_NAME_BYTES]; /* LOADED, UNDER_WAY: the node's id, "checkpoint", or "": it was held already */
	uint64_t read_bytes;           /* of the image, so far */
	char passed_over[256]; /* why it did not come from the node of the order; "": it did, or there was none */
	char text[256];        /* FAILED: why */
};

enum { EX_LOADER_THREADS_MAX = (EX_ASKERS_MAX - 1) / 2 };
/* All that are started when so many are for loads with a rate: one more than these is for
 * frees and for loads without. */
static inline unsigned ex_loader_threads(unsigned paced) { return 2 * paced + 1; }

struct ex_loader_options {
	struct ex_engine *engine;
	unsigned threads; /* for loads with a rate; the others are started beside them */
	/* How an image is got from a node (ex_asker_get), and its context; NULL: all experts come
	 * from the checkpoint. */
	ex_ask_fn *ask;
	void *asker;
	struct cad_metrics *metrics; /* NULL: none are kept */
	/* Called in a loader's thread, or inside an order for an expert that does not exist; must
	 * not block. */
	void (*changed)(void *context);
	void *context;
};
CAD_MUST_USE enum cad_status ex_loader_create(
	const struct ex_loader_options *options, struct ex_loader **loader, struct cad_error *error);
/* Gives up what is being loaded, and discards the rest: afterwards no thread runs and `changed` is
 * no longer called. */
void ex_loader_stop(struct ex_loader *loader);
/* Stops it, if that was not done. NULL is allowed. */
void ex_loader_destroy(struct ex_loader *loader);

/* The node should hold the expert, or not. An expert that the model does not have is reported as
 * FAILED. */
void ex_loader_load(struct ex_loader *loader, uint32_t layer, uint32_t expert, const struct ex_load *load);
void ex_loader_free(struct ex_loader *loader, uint32_t layer, uint32_t expert);
/* The oldest report, for the caller to free; NULL: none. */
struct ex_load_report *ex_loader_take(struct ex_loader *loader);
/* Orders that are not finished. */
uint32_t ex_loader_waiting(struct ex_loader *loader);

/* Experts loaded since creation, from nodes and from the checkpoint. */
struct ex_loader_counts {
	uint64_t from_nodes, from_checkpoint;
};
struct ex_loader_counts ex_loader_counts(const struct ex_loader *loader);

#endif
