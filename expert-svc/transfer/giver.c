/* SPDX-License-Identifier: Apache-2.0 */
#include "expert-svc/transfer/giver.h"

#include "common/base/background.h"
#include "common/base/mailbox.h"
#include "kernels/image.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

/* One part, from its FETCH to its answer. */
struct job {
	struct job *next; /* of the free ones */
	struct cad_part *part;
	enum cadre_wire_status status;
	uint64_t image_bytes;
};

struct ex_giver {
	struct ex_giver_options options;
	struct job *jobs, *free; /* the exchange thread's */
	uint32_t held;
	struct cad_mailbox *asked, *ready;
	pthread_t thread;
	bool started;
	_Atomic bool stop;
	struct cad_counter *given, *given_bytes, *refused;
};

/* ---- the giver's thread ---- */

static enum cadre_wire_status wire_status(enum cad_status status)
{
	switch (status) {
	case CAD_OK: return CADRE_WIRE_OK;
	case CAD_ERR_NOT_FOUND: return CADRE_WIRE_NOT_HELD;
	case CAD_ERR_RANGE: return CADRE_WIRE_BAD_CALL;
	default: return CADRE_WIRE_INTERNAL;
	}
}

static void unpack(struct ex_giver *giver, struct job *job)
{
	const struct cadre_wire_fetch *fetch = cad_part_asked(job->part);
	struct ex_store *store = ex_engine_store(giver->options.engine);
	enum cad_status status = CAD_ERR_RANGE;

	if (fetch->version == CADRE_IMAGE_VERSION && fetch->kind == kn_image_kind(ex_store_weights(store)))
		status = ex_store_read(
			store, fetch->layer, fetch->expert, fetch->offset, fetch->bytes, cad_part_bytes(job->part));
	job->status = wire_status(status);
	job->image_bytes = 0;
	if (status == CAD_OK) {
		struct kn_expert_source image = ex_store_image(store, fetch->layer, fetch->expert);
		job->image_bytes = kn_image_bytes(&image);
	}
}

static void *run(void *argument)
{
	struct ex_giver *giver = argument;
	cad_background();
	while (!atomic_load(&giver->stop)) {
		struct job *job = cad_mailbox_take(giver->asked);
		if (!job) {
			cad_mailbox_wait(giver->asked, UINT64_MAX);
			continue;
		}
		unpack(giver, job);
		CAD_ASSERT(cad_mailbox_put(giver->ready, job) == CAD_OK); /* it has room for every job */
	}
	return NULL;
}

/* ---- the exchange thread ---- */

void ex_giver_fetch(struct ex_giver *giver, struct cad_part *part)
{
	struct job *job = giver->free;
	CAD_ASSERT(job); /* as many as the transport's */
	giver->free = job->next;
	giver->held++;
	job->part = part;
	CAD_ASSERT(cad_mailbox_put(giver->asked, job) == CAD_OK);
}

static void count(struct ex_giver *giver, const struct job *job)
{
	if (!giver->options.metrics)
		return;
	if (job->status == CADRE_WIRE_OK) {
		cad_counter_add(giver->given, 1);
		cad_counter_add(giver->given_bytes, cad_part_asked(job->part)->bytes);
	} else {
		cad_counter_add(giver->refused, 1);
	}
}

void ex_giver_deliver(struct ex_giver *giver)
{
	struct job *job;
	while ((job = cad_mailbox_take(giver->ready))) {
		count(giver, job);
		cad_part_answer(job->part, job->status, job->image_bytes);
		job->next = giver->free;
		giver->free = job;
		giver->held--;
	}
}

bool ex_giver_idle(const struct ex_giver *giver) { return giver->held == 0; }

/* ---- life ---- */

void ex_giver_destroy(struct ex_giver *giver)
{
	if (!giver)
		return;

	CAD_ASSERT(giver->held == 0);
	if (giver->started) {
		atomic_store(&giver->stop, true);
		cad_mailbox_wake(giver->asked);
		pthread_join(giver->thread, NULL);
	}
	cad_mailbox_destroy(giver->asked);
	cad_mailbox_destroy(giver->ready);
	free(giver->jobs);
	free(giver);
}

static void metrics_register(struct ex_giver *giver, struct cad_metrics *metrics)
{
	static const char name[] = "cadre_expert_parts_total",
			  help[] = "parts of experts that other nodes asked for, by outcome";
	giver->given = cad_metrics_counter(metrics, name, help, &(struct cad_label){ "outcome", "given" }, 1);
	giver->refused = cad_metrics_counter(metrics, name, help, &(struct cad_label){ "outcome", "refused" }, 1);
	giver->given_bytes = cad_metrics_counter(
		metrics, "cadre_expert_parts_bytes_total", "bytes of parts of experts given to other nodes", NULL, 0);
}

enum cad_status ex_giver_create(
	const struct ex_giver_options *options, struct ex_giver **giver, struct cad_error *error)
{
	struct ex_giver *made = calloc(1, sizeof *made);
	enum cad_status status = CAD_ERR_MEMORY;
	if (made) {
		made->options = *options;
		made->jobs = calloc(options->parts_max, sizeof *made->jobs);
		status = cad_mailbox_create(options->parts_max, NULL, NULL, &made->asked);
	}
	if (status == CAD_OK)
		status = cad_mailbox_create(options->parts_max, options->wake, options->context, &made->ready);
	if (status != CAD_OK || !made->jobs) {
		ex_giver_destroy(made);
		return cad_error_set(error, CAD_ERR_MEMORY, "no memory for giving experts to other nodes");
	}

	for (uint32_t i = 0; i < options->parts_max; i++) {
		made->jobs[i].next = made->free;
		made->free = &made->jobs[i];
	}
	if (options->metrics)
		metrics_register(made, options->metrics);
	if (pthread_create(&made->thread, NULL, run, made) != 0) {
		ex_giver_destroy(made);
		return cad_error_set(
			error, CAD_ERR_EXHAUSTED, "cannot start a thread for giving experts: see ulimit -u");
	}
	made->started = true;
	*giver = made;
	return CAD_OK;
}
