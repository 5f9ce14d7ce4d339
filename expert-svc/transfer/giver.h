/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gives parts of the experts that this node holds to other expert nodes. Unpacking takes a while,
 * so a thread of its own does it, in the background (cad_background): between the exchange thread,
 * which hears of a part and sends it, and the thread of steps, which notices nothing.
 *
 * At most as many parts at once as the transport hands out (fetches_max). Nothing allocates after
 * creation. Engine and metrics outlive it.
 */
#ifndef CADRE_EXPERT_SVC_TRANSFER_GIVER_H
#define CADRE_EXPERT_SVC_TRANSFER_GIVER_H

#include "expert-svc/engine.h"

struct ex_giver;

struct ex_giver_options {
	struct ex_engine *engine;
	uint32_t parts_max;
	struct cad_metrics *metrics; /* NULL: none are kept */
	void (*wake)(void *context); /* parts are ready, ex_giver_deliver should run; the giver's thread */
	void *context;
};
CAD_MUST_USE enum cad_status ex_giver_create(
	const struct ex_giver_options *options, struct ex_giver **giver, struct cad_error *error);
/* No part may be held. NULL is allowed. */
void ex_giver_destroy(struct ex_giver *giver);

/* The exchange thread: takes the part (cad_transport_options.on_fetch), and sends those that are
 * ready. Idle: none is held. */
void ex_giver_fetch(struct ex_giver *giver, struct cad_part *part);
void ex_giver_deliver(struct ex_giver *giver);
bool ex_giver_idle(const struct ex_giver *giver);

#endif
