/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls waiting for a step: a bounded first-in first-out queue, fed by the exchange thread, emptied
 * by the thread that runs steps.
 *
 * A job is one call from its arrival to its answer. Jobs are allocated once, with the inbox; the
 * exchange thread takes a free one for each request, puts it in, and gets it back through the
 * outbox when it is done. Only ex_inbox_wait blocks, and nothing allocates after creation.
 */
#ifndef CADRE_EXPERT_SVC_SERVE_INBOX_H
#define CADRE_EXPERT_SVC_SERVE_INBOX_H

#include "common/base/mailbox.h"
#include "common/transport/transport.h"

#include <stdatomic.h>

struct ex_job {
	struct ex_job *next; /* in the free list, or in the queue */
	struct cad_request *request;
	const struct cad_connection *connection;
	const struct cad_call_view *call;
	uint8_t *payload;                  /* of the answer: sums, then data; room for cad_wire_answer_bytes_max */
	uint64_t received_ns, deadline_ns; /* 0: no deadline */
	_Atomic bool abandoned;            /* nobody waits for the answer any longer */
	/* Progress; the stepping thread's. */
	uint32_t rows_done;
	size_t call_data_bytes, answer_data_bytes; /* of the rows that are done */
	uint64_t compute_ns;                       /* of the steps that it took part in */
	/* The outcome. */
	uint64_t done_ns;
	enum cadre_wire_status status;
	uint32_t detail;
};

struct ex_inbox {
	struct ex_job *jobs; /* [capacity] */
	struct ex_job *free; /* the exchange thread's */
	struct cad_mailbox *arrivals;
	struct ex_job *first, **last; /* the queue, oldest first; the stepping thread's */
	_Atomic uint32_t held;        /* jobs that are not free */
	uint32_t capacity;
};

CAD_MUST_USE enum cad_status ex_inbox_init(struct ex_inbox *inbox, uint32_t capacity);
void ex_inbox_fini(struct ex_inbox *inbox);

/* The exchange thread. NULL: all are in use. The job is zeroed. */
struct ex_job *ex_inbox_acquire(struct ex_inbox *inbox);
void ex_inbox_put(struct ex_inbox *inbox, struct ex_job *job);
/* The same when exchange and step are one thread: straight into the queue. */
void ex_inbox_append(struct ex_inbox *inbox, struct ex_job *job);
void ex_inbox_release(struct ex_inbox *inbox, struct ex_job *job);

/* The stepping thread: moves what has arrived into the queue; sleeps until something arrives or
 * ex_inbox_wake. */
void ex_inbox_collect(struct ex_inbox *inbox);
void ex_inbox_wait(struct ex_inbox *inbox);
void ex_inbox_wake(struct ex_inbox *inbox); /* any thread */
/* Unlinks *at, which points to a job inside the queue; the next one then takes its place. */
struct ex_job *ex_inbox_remove(struct ex_inbox *inbox, struct ex_job **at);

#endif
