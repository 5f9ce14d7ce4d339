/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loading and freeing on threads of their own, while serving goes on.
 *
 * It keeps one wish per expert (hold it, or not), so orders that arrive twice or contradict each
 * other need no queue: the last one counts. Frees are done before loads, because they make room.
 * Reports come back one per finished order; `changed` rings when there is one.
 *
 * Orders and reports: any thread; none blocks longer than a short lock. Allocates reports.
 */
#ifndef CADRE_EXPERT_SVC_LOADER_H
#define CADRE_EXPERT_SVC_LOADER_H

#include "expert-svc/engine.h"

struct ex_loader;

enum ex_load_outcome { EX_LOAD_LOADED, EX_LOAD_FREED, EX_LOAD_FAILED };
struct ex_load_report {
	struct ex_load_report *next; /* the loader's */
	uint32_t layer, expert;
	enum ex_load_outcome outcome;
	struct ex_loaded loaded; /* LOADED */
	char text[256];          /* FAILED: why */
};

enum { EX_LOADER_THREADS_MAX = 16 };

/* `changed` is called in a loader's thread, or inside ex_loader_order for an expert that does not
 * exist, and must not block. */
CAD_MUST_USE enum cad_status ex_loader_create(struct ex_engine *engine, unsigned threads,
	void (*changed)(void *context), void *context, struct ex_loader **loader, struct cad_error *error);
/* Finishes what is being done and discards the rest: afterwards no thread runs and `changed` is no
 * longer called. */
void ex_loader_stop(struct ex_loader *loader);
/* Stops it, if that was not done. NULL is allowed. */
void ex_loader_destroy(struct ex_loader *loader);

/* The node should hold the expert, or not. An expert that the model does not have is reported as
 * FAILED. */
void ex_loader_order(struct ex_loader *loader, uint32_t layer, uint32_t expert, bool hold);
/* The oldest report, for the caller to free; NULL: none. */
struct ex_load_report *ex_loader_take(struct ex_loader *loader);
/* Orders that are not finished. */
uint32_t ex_loader_waiting(struct ex_loader *loader);

#endif
