/*
 * What moves messages for the protocol of transport.c: a narrow interface that UCX, the in-process
 * hub and the simulator implement.
 *
 * A link belongs to the thread that polls it; only `wake` may be called from elsewhere. It knows
 * connections ("ends"), messages (a kind, a small header, perhaps a payload) and operations; it
 * knows nothing of hellos, credits or calls. Everything above it ("upper") hears of events through
 * struct cad_link_events, and only from inside `progress` and `wait`, never from inside another
 * function here.
 *
 * Operations. `send` and `receive` return CAD_OK: finished, the memory is the caller's again;
 * CAD_AGAIN: op->done comes later, exactly once, also when the end is closed or the peer dies; a
 * failure: it never began, done does not come. Until then header, payload and buffer are the
 * link's.
 *
 * Ends. `lost` is a hint that the peer is gone; nothing ends by it. The upper calls `close`
 * (forced: no farewell, whatever is under way finishes with an error), and the link says `closed`
 * once, after the last op->done of that end. Only then is the end gone.
 */
#ifndef CADRE_COMMON_TRANSPORT_LINK_H
#define CADRE_COMMON_TRANSPORT_LINK_H

#include "common/transport/transport.h"

#include <stdatomic.h>

enum { CAD_LINK_HEADER_BYTES_MAX = 640 };
_Static_assert(sizeof(struct cadre_wire_challenge) <= CAD_LINK_HEADER_BYTES_MAX, "every header fits");

struct cad_link_end;

struct cad_link_op {
	void (*done)(struct cad_link_op *op, enum cad_status status);
	void *link_private[2];
};

/* The payload of a message that has just come. */
struct cad_link_payload {
	/* in memory, readable while the event runs, and until `release` when kept; NULL: still at
	 * the sender, to be had by `receive` */
	const uint8_t *data;
	size_t bytes;
	bool keepable; /* `data` may be kept and used in place */
	void *handle;  /* for receive and release; NULL when bytes == 0 */
};

struct cad_link_events {
	/* Somebody connects: the owner of the new end, or NULL to turn it away. */
	void *(*accept)(void *upper, struct cad_link_end *end);
	/* True: the payload is kept; `receive` was or will be called, or else `release`. False: it
	 * is done with. `release` must not be called in here. */
	bool (*message)(void *owner, uint8_t kind, const void *header, size_t header_bytes,
		const struct cad_link_payload *payload);
	void (*lost)(void *owner, enum cad_status status, const char *text);
	void (*closed)(void *owner);
	/* For links that run several uppers in one thread (the simulator, an attached server): does
	 * what poll does without waiting, when `waited_ns` of the time since the last turn were
	 * spent waiting. */
	size_t (*turn)(void *upper, uint64_t waited_ns);
	uint64_t (*next_ns)(void *upper); /* the clock time at which it wants a turn at the latest */
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
	const struct cad_buffer *buffer; /* that the payload lies in, or NULL: plain memory */
};

struct cad_link {
	const struct cad_link_ops *ops;
	const struct cad_clock *clock;
	uint64_t rebuilds;
	/* what is sent here is used where it lies until it is answered: a healthy peer may have it
	 * for long */
	bool in_place;
};

struct cad_link_ops {
	const char *name;
	enum cad_status (*listen)(struct cad_link *link, const char *address, struct cad_error *error);
	const char *(*address)(const struct cad_link *link);
	/* Starts; sends may be posted at once. CAD_ERR_UNREACHABLE: nobody there; anything that
	 * comes later is `lost`. */
	enum cad_status (*connect)(struct cad_link *link, const char *address, void *owner, struct cad_link_end **end,
		struct cad_error *error);
	enum cad_status (*send)(
		struct cad_link_end *end, const struct cad_link_message *message, struct cad_link_op *op);
	/* Exactly payload->bytes bytes into the start of buffer. Uses up the handle, also when it
	 * fails. */
	enum cad_status (*receive)(struct cad_link_end *end, const struct cad_link_payload *payload,
		struct cad_buffer *buffer, struct cad_link_op *op);
	/* Gives up a kept payload; also after its end is closed. */
	void (*release)(struct cad_link *link, const struct cad_link_payload *payload);
	void (*close)(struct cad_link_end *end);
	/* Runs what is ready; how much moved. 0: nothing left for now. */
	size_t (*progress)(struct cad_link *link);
	/* Sleeps until something is ready, `wake`, or until_ns. True: woken. */
	bool (*wait)(struct cad_link *link, uint64_t until_ns);
	void (*wake)(struct cad_link *link);
	enum cad_status (*buffer_create)(struct cad_link *link, size_t bytes, struct cad_buffer *buffer);
	void (*buffer_destroy)(struct cad_link *link, struct cad_buffer *buffer);
	/* All ends are closed, all kept payloads released, all buffers destroyed. */
	void (*destroy)(struct cad_link *link);
};

/* `context`: struct cad_local_hub *, const struct cad_ucx_options *. */
typedef enum cad_status cad_link_create_fn(
	const struct cad_link_options *options, void *context, struct cad_link **link, struct cad_error *error);
cad_link_create_fn cad_link_local_create, cad_link_ucx_create;
/* The protocol over such a link; the three cad_transport_*_create are this. */
enum cad_status cad_transport_create(const struct cad_transport_options *options, cad_link_create_fn *create,
	void *context, struct cad_transport **transport, struct cad_error *error);

struct cad_link *cad_transport_link(struct cad_transport *transport);

/* For tests: as if a peer had died while it wrote to this process's shared memory. */
void cad_link_ucx_wedge(struct cad_link *link);

/* Payloads from `client` are used in place by `server`, and waiting on client waits for either. */
void cad_link_local_attach(struct cad_link *client, struct cad_link *server);
void cad_link_local_detach(struct cad_link *client, struct cad_link *server);

/* Wakes a thread that sleeps in poll(2): an eventfd that is written only once until it is seen.
 * Counted, because both ends of a local connection hold it. */
struct cad_waker {
	_Atomic uint32_t references;
	_Atomic uint32_t signalled;
	int fd;
};
enum cad_status cad_waker_create(struct cad_waker **waker);
void cad_waker_acquire(struct cad_waker *waker);
void cad_waker_release(struct cad_waker *waker);
void cad_waker_signal(struct cad_waker *waker); /* any thread */
bool cad_waker_take(struct cad_waker *waker);   /* owner: was it signalled since the last take? */
/* Sleeps on the descriptors (and in ns, which poll(2) cannot); `timeout_ns` 0 does not sleep. */
void cad_link_sleep(const int *fds, size_t count, uint64_t timeout_ns);

/* Memory for buffers: page-aligned, and touched only when used, so that a generous pool costs
 * address space alone. */
enum cad_status cad_link_memory_create(size_t bytes, struct cad_buffer *buffer);
void cad_link_memory_destroy(struct cad_buffer *buffer);

#endif
