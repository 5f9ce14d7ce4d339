/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The node's connection to the placement service: the hello that says what it is and holds, load
 * and free orders for the loader, reports and load figures back.
 *
 * Everything runs on the owner thread of the reactor. While the placement service is away, the node
 * keeps serving with what it holds, for hours if necessary; the next hello reports what has
 * changed. Engine and strings are borrowed until destroy.
 */
#ifndef CADRE_EXPERT_SVC_CONTROL_H
#define CADRE_EXPERT_SVC_CONTROL_H

#include "common/base/note.h"
#include "common/cluster/member.h"
#include "expert-svc/engine.h"
#include "expert-svc/speed.h"
#include "expert-svc/transfer/asker.h"
#include "expert-svc/watch.h"

struct ex_control;

struct ex_control_options {
	struct cad_member_self self;
	struct ex_engine *engine;
	unsigned load_threads;
	/* How experts are got from other nodes (ex_asker_get), and its
	 * context; NULL: not at all. */
	ex_ask_fn *ask;
	void *asker;
	struct cad_metrics *metrics; /* of loads; NULL: none are kept */
	uint64_t memory_bytes;       /* as placement should count it */
	struct ex_speed speed;
	const char *kernels_fingerprint;
	/* The node's device, and who looks after it; shown where it is a GPU. NULL: nobody. */
	const struct kn_device_info *device;
	struct ex_watch *watch;
	/* Who may connect, and the context; on the reactor's thread. */
	void (*peers)(void *context, const char *const *addresses, size_t count);
	void *context;
};

CAD_MUST_USE enum cad_status ex_control_create(
	const struct ex_control_options *options, struct ex_control **control, struct cad_error *error);
/* Leaves the cluster: no further order is carried out; blocks until loads under way are given up,
 * for one that waits for another node EX_SOURCE_PATIENCE_S and the 5 s of a part at most. `left` is
 * called when nothing runs any longer. */
void ex_control_leave(struct ex_control *control, void (*left)(void *context), void *context);
/* Tells the placement service why the node is about to leave: its device has failed. */
void ex_control_device_failed(struct ex_control *control, const char *why);
/* After it has left and the reactor is destroyed. NULL is allowed. */
void ex_control_destroy(struct ex_control *control);

/* Any thread. Joined now; has at least once joined and carried out all its orders. */
bool ex_control_joined(const struct ex_control *control);
bool ex_control_ready(const struct ex_control *control);
uint64_t ex_control_epoch(const struct ex_control *control);
/* Why it is not joined, in the words of the placement service where it refuses; empty: it is, or
 * has not been answered yet. */
void ex_control_apart(const struct ex_control *control, char text[CAD_NOTE_BYTES]);
/* Orders that are not finished. */
uint32_t ex_control_waiting(const struct ex_control *control);

#endif
