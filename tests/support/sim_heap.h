/* SPDX-License-Identifier: Apache-2.0 */
/* The events of the simulator: a heap by time, and of one time by the order in which they were
 * made. */
#ifndef CADRE_TESTS_SUPPORT_SIM_HEAP_H
#define CADRE_TESTS_SUPPORT_SIM_HEAP_H

#include "common/base/status.h"

#include <stddef.h>
#include <stdint.h>

struct cad_link_end;
struct sim_link;
struct sim_message;

enum happening {
	HAPPENS_CALL,
	HAPPENS_TIMER,
	HAPPENS_ACCEPT,
	HAPPENS_MESSAGE,
	HAPPENS_SENT,
	HAPPENS_RECEIVED,
	HAPPENS_LOST,
	HAPPENS_CLOSED
};

struct happens {
	uint64_t at_ns, order;
	enum happening what;
	struct sim_link *link;       /* whose; NULL for CALL */
	struct cad_link_end *end;    /* counted */
	struct sim_message *message; /* counted */
	void (*fn)(void *context);
	void *context;
};

/* Zero-initialise; free(items) ends it. */
struct sim_heap {
	struct happens *items; /* [0] is the earliest */
	size_t count, capacity;
};

CAD_MUST_USE enum cad_status sim_heap_put(struct sim_heap *heap, struct happens happens);
struct happens sim_heap_take(struct sim_heap *heap); /* the earliest; there is one */

#endif
