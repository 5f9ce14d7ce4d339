/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gets images of experts from other expert nodes: loader threads wait here for what the exchange
 * thread fetches. A connection to a source is made when it is needed, and closed when it has not
 * been for a while.
 *
 * Two parts of an image are on their way at most, so that one travels while the other is looked at;
 * who takes its time over a part asks for less. Memory is allocated at creation: two buffers for
 * each loader thread. The transport outlives it.
 */
#ifndef CADRE_EXPERT_SVC_TRANSFER_ASKER_H
#define CADRE_EXPERT_SVC_TRANSFER_ASKER_H

#include "common/transport/transport.h"

struct ex_asker;

enum { EX_PART_BYTES = 256 << 10, EX_ASKERS_MAX = 33 };

/* What went wrong with a source. */
enum ex_source_failure {
	EX_SOURCE_FINE,
	EX_SOURCE_UNREACHABLE, /* no connection */
	EX_SOURCE_LOST,        /* it went, or was silent, on the way */
	EX_SOURCE_NOT_HELD,    /* it does not have the expert, or no longer */
	EX_SOURCE_REFUSED,     /* it says that it cannot */
	EX_SOURCE_SLOW,        /* nothing came for EX_SOURCE_PATIENCE_S */
	EX_SOURCE_WRONG,       /* its bytes are others than they should be; the caller's to find out */
	EX_SOURCE_FAILURES,
};
enum { EX_SOURCE_PATIENCE_S = 10 };

struct ex_ask {
	const char *node, *address; /* the source's id, for sentences; and its exchange address */
	uint32_t layer, expert;
	enum cadre_image_kind kind;
	uint64_t image_bytes;
	uint32_t part_bytes; /* 0: EX_PART_BYTES, which is also the most */
	/* After each part, in order: this many bytes are in `image` now. It may block; false: give
	 * up. */
	bool (*come)(void *context, uint64_t bytes);
	void *context;
};

/* Any loader thread, at most as many at once as were announced. Blocks until the image is there
 * (CAD_OK), `come` has said no (CAD_ERR_CANCELLED), or the source failed: *failure and the sentence
 * say how. */
typedef enum cad_status ex_ask_fn(void *asker, const struct ex_ask *ask, uint8_t *image,
	enum ex_source_failure *failure, struct cad_error *error);
ex_ask_fn ex_asker_get;

/* Before the exchange thread runs, or on it. */
CAD_MUST_USE enum cad_status ex_asker_create(
	struct cad_transport *transport, unsigned askers, struct ex_asker **asker, struct cad_error *error);
/* Nobody waits, and nobody will: its connections are closed in the next turns, until it is idle,
 * which the exchange thread sees. */
void ex_asker_stop(struct ex_asker *asker);
bool ex_asker_idle(const struct ex_asker *asker);
/* Idle, and before the transport goes. NULL is allowed. */
void ex_asker_destroy(struct ex_asker *asker);

/* The exchange thread. In each turn, before it polls; returns when the next turn must be at the
 * latest. */
uint64_t ex_asker_turn(struct ex_asker *asker);
/* From on_connection, of connections whose user is not NULL: they are the asker's. */
void ex_asker_connection(
	struct cad_connection *connection, enum cad_connection_state state, enum cad_status status, const char *text);

#endif
