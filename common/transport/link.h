/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What moves messages for the protocol (protocol.h): a narrow interface that UCX, the in-process
 * hub and the simulator implement.
 *
 * A link belongs to the thread that polls it; only `wake` may be called from elsewhere. It knows
 * connections ("ends"), messages (a kind, a small header, perhaps a payload) and operations; it
 * knows nothing of hellos, credits or calls. Everything above it ("upper") gets events through
 * struct cad_link_events, and only from inside `progress` and `wait`, never from inside another
 * function here.
 *
 * Operations. `send` and `receive` return CAD_OK: finished, the memory is the caller's again;
 * CAD_AGAIN: op->done is called later, exactly once, even if the end is closed or the peer dies; a
 * failure: it never began, and done is not called. Until then header, payload and buffer are the
 * link's.
 *
 * Ends. `lost` is a hint that the peer is gone (CAD_ERR_CANCELLED: that this side can no longer
 * hear it); by itself it ends nothing. The upper calls `close` (forced: no farewell, and operations
 * in flight finish with an error), and the link calls `closed` once, after the last op->done of
 * that end. Only then is the end gone.
 */
#ifndef CADRE_COMMON_TRANSPORT_LINK_H
#define CADRE_COMMON_TRANSPORT_LINK_H

#include "common/base/clock.h"
#include "common/base/status.h"
#include "common/transport/buffer.h"
#include "proto/cadre_wire.h"

#include <stdbool.h>

enum { CAD_LINK_HEADER_BYTES_MAX = 640 };
_Static_assert(sizeof(struct cadre_wire_challenge) <= CAD_LINK_HEADER_BYTES_MAX, "every header fits");

struct cad_link_end;

struct cad_link_op {
	void (*done)(struct cad_link_op *op, enum cad_status status);
	void *link_private[2];
};

/* The payload of a message that has just arrived. */
struct cad_link_payload {
	/* in memory, readable while the event runs, and until `release` when kept; NULL: still at
	 * the sender; get it with `receive` */
	const uint8_t *data;
	size_t bytes;
	bool keepable; /* `data` may be kept and used in place */
	void *handle;  /* for receive and release; NULL when bytes == 0 */
};

struct cad_link_events {
	/* A peer connects: returns the owner of the new end, or NULL to refuse it. */
	void *(*accept)(void *upper, struct cad_link_end *end);
	/* True: the payload is kept; `receive` was or will be called, or else `release`. False: it
	 * is no longer needed. `release` must not be called in here. */
	bool (*message)(void *owner, uint8_t kind, const void *header, size_t header_bytes,
		const struct cad_link_payload *payload);
	void (*lost)(void *owner, enum cad_status status, const char *text);
	void (*closed)(void *owner);
	/* Of an end that connects, before anything has come by it: what was sent has reached
	 * nobody, and is to be sent again. Not every link says so. */
	void (*again)(void *owner);
	/* For links that run several uppers in one thread (the simulator, a client with attached
	 * servers): does what poll does without waiting, when `waited_ns` of the time since the
	 * last turn were spent waiting. Returns how many events it handled. */
	size_t (*turn)(void *upper, uint64_t waited_ns);
	uint64_t (*next_ns)(void *upper); /* the latest clock time at which it wants a turn */
};

struct cad_link_options {
	const struct cad_link_events *events;
	void *upper;
	const struct cad_clock *clock;
	uint32_t connections_max;
	uint32_t sends_max; /* of one end, that are not done */
};

struct cad_link_message {
	uint8_t kind;
	const void *header;
	size_t header_bytes; /* <= CAD_LINK_HEADER_BYTES_MAX */
	const void *payload; /* NULL when payload_bytes == 0 */
	size_t payload_bytes;
	const struct cad_buffer *buffer; /* that contains the payload, or NULL: plain memory */
};

struct cad_link {
	const struct cad_link_ops *ops;
	const struct cad_clock *clock;
	uint64_t rebuilds;
	/* what is sent here is used in place until it is answered: a healthy peer may hold it for
	 * long */
	bool in_place;
	/* attached: the upper of another link, polled by the same thread, gives this one's its
	 * turns; nobody polls it */
	bool is_attached;
	uint32_t attached_count; /* links that are attached to this one */
};

struct cad_link_ops {
	const char *name;
	enum cad_status (*listen)(struct cad_link *link, const char *address, struct cad_error *error);
	const char *(*address)(const struct cad_link *link);
	/* From now on peers with these addresses may connect. NULL: all may. */
	enum cad_status (*announce)(
		struct cad_link *link, const char *const *addresses, size_t count, struct cad_error *error);
	/* Starts; sends may be posted at once. CAD_ERR_UNREACHABLE: nobody listens there; later
	 * failures are reported by `lost`. */
	enum cad_status (*connect)(struct cad_link *link, const char *address, void *owner, struct cad_link_end **end,
		struct cad_error *error);
	enum cad_status (*send)(
		struct cad_link_end *end, const struct cad_link_message *message, struct cad_link_op *op);
	/* Exactly payload->bytes bytes into the start of buffer. Uses up the handle, even if it
	 * fails. */
	enum cad_status (*receive)(struct cad_link_end *end, const struct cad_link_payload *payload,
		struct cad_buffer *buffer, struct cad_link_op *op);
	/* Gives up a kept payload; also after its end is closed. */
	void (*release)(struct cad_link *link, const struct cad_link_payload *payload);
	void (*close)(struct cad_link_end *end);
	/* Runs what is ready, and returns how much moved. 0: nothing left for now. */
	size_t (*progress)(struct cad_link *link);
	/* Sleeps until something is ready, `wake`, or until_ns. True: woken. */
	bool (*wait)(struct cad_link *link, uint64_t until_ns);
	void (*wake)(struct cad_link *link);
	/* Of the uppers that are attached to this one's: a turn for each, and the clock time at
	 * which one of them wants it at the latest. Only called when attached_count > 0. */
	size_t (*attached_turn)(struct cad_link *link, uint64_t waited_ns);
	uint64_t (*attached_next_ns)(const struct cad_link *link);
	/* `pinned` NULL: of the host. */
	enum cad_status (*buffer_create)(
		struct cad_link *link, size_t bytes, const struct cad_pinned_memory *pinned, struct cad_buffer *buffer);
	void (*buffer_destroy)(struct cad_link *link, struct cad_buffer *buffer);
	/* All ends are closed, all kept payloads released, all buffers destroyed. */
	void (*destroy)(struct cad_link *link);
};

#endif
