/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looks after the node's device: a thread that asks it every second, and when somebody has reason to,
 * how it is and whether it has failed. A device that fails does so for good, and takes its memory with it; the node
 * then has nothing to give, and leaves (main.c).
 *
 * A device that does not fail alone needs no thread.
 */
#ifndef CADRE_EXPERT_SVC_WATCH_H
#define CADRE_EXPERT_SVC_WATCH_H

#include "common/base/status.h"
#include "kernels/kernels.h"

struct cad_metrics;
struct ex_watch;

struct ex_watch_options {
	struct kn_device *device;    /* borrowed */
	struct cad_metrics *metrics; /* NULL: none are kept */
	/* Once, in the watch's thread. */
	void (*failed)(void *context, const char *why);
	void *context;
};

CAD_MUST_USE enum cad_status ex_watch_create(
	const struct ex_watch_options *options, struct ex_watch **watch, struct cad_error *error);
/* NULL is allowed. `failed` is not called afterwards. */
void ex_watch_destroy(struct ex_watch *watch);
/* What was seen last; false: nothing is known. Any thread. */
bool ex_watch_health(struct ex_watch *watch, struct kn_health *health);
/* Look now: something has failed. Any thread; does not wait. */
void ex_watch_look(struct ex_watch *watch);

#endif
