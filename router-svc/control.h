/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A router's part in the cluster: joins the placement service, hands maps to the engine, and
 * reports load and which nodes the engine does not reach.
 *
 * Everything runs on the owner thread of the reactor, except what is for any thread.
 *
 * Order at the end: rt_control_leave, which calls back; the engine's thread has stopped; destroy
 * the reactor; rt_control_destroy.
 */
#ifndef CADRE_ROUTER_SVC_CONTROL_H
#define CADRE_ROUTER_SVC_CONTROL_H

#include "common/base/note.h"
#include "common/cluster/member.h"
#include "router-svc/engine.h"

struct rt_control;

struct rt_control_options { /* all borrowed to the end */
	struct cad_member_self self;
	struct rt_engine *engine;
	const char *grpc_address, *model_fingerprint;
	/* Whether the placement service refuses it, each time that it says so or no longer does;
	 * rt_control_apart has the reason. */
	void (*refused)(void *context, bool refused);
	/* Whether nothing may be known of single tokens and experts, each time that it joins. */
	void (*routing)(void *context, bool aggregate);
	void *context;
};

CAD_MUST_USE enum cad_status rt_control_create(
	const struct rt_control_options *options, struct rt_control **control, struct cad_error *error);
/* Says goodbye; left(context) when that is done. */
void rt_control_leave(struct rt_control *control, void (*left)(void *context), void *context);
void rt_control_destroy(struct rt_control *control); /* NULL is fine */

/* ---- any thread ---- */

/* The engine reaches other nodes than before. */
void rt_control_reach_changed(struct rt_control *control);
/* Why it is not joined, in the words of the placement service where it refuses; empty: it is, or
 * has not been answered yet. */
void rt_control_apart(const struct rt_control *control, char text[CAD_NOTE_BYTES]);
/* Empty, unless the placement service says that this router is itself behind a cut. */
void rt_control_discounted(const struct rt_control *control, char text[CAD_NOTE_BYTES]);

#endif
