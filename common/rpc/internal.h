/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to common/rpc/: what its files share, gRPC's own headers included. Same rule of ownership
 * as rpc.h.
 *
 * gRPC core aborts the process when memory runs out; this layer does the same (cad_rpc_must), so
 * that no call is left half built.
 */
#ifndef CADRE_COMMON_RPC_INTERNAL_H
#define CADRE_COMMON_RPC_INTERNAL_H

#include "common/base/container.h"
#include "common/process/caller.h"
#include "common/rpc/codec.h"
#include "common/rpc/rpc.h"

#include <grpc/byte_buffer.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/slice.h>
#include <grpc/support/log.h>

struct cad_rpc_reactor;
struct cad_rpc_server;
struct cad_rpc_server_config;
struct cad_rpc_service;
struct cad_rpc_method;

static inline void *cad_rpc_must(void *allocated)
{
	CAD_ASSERT(allocated);
	return allocated;
}

/* ---- events ---- */

/*
 * A batch that gRPC accepts gives exactly one event, so references are counted by events in flight
 * and nothing else.
 * ThreadSanitizer does not see the synchronisation inside libgrpc: an event that is handed to the
 * core happens before the same event coming out. */
#if defined(__SANITIZE_THREAD__)
#define CAD_RPC_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define CAD_RPC_TSAN 1
#endif
#endif
#ifdef CAD_RPC_TSAN
void __tsan_acquire(void *address);
void __tsan_release(void *address);
static inline void cad_rpc_event_out(struct cad_rpc_event *event) { __tsan_release(event); }
static inline void cad_rpc_event_in(struct cad_rpc_event *event) { __tsan_acquire(event); }
#else
static inline void cad_rpc_event_out(struct cad_rpc_event *event) { (void)event; }
static inline void cad_rpc_event_in(struct cad_rpc_event *event) { (void)event; }
#endif

/* ---- the reactor (reactor.c) ---- */

grpc_completion_queue *cad_rpc_reactor_queue(const struct cad_rpc_reactor *reactor);
/* Servers, channels and calls count themselves: run goes on until all are gone. */
void cad_rpc_reactor_acquire(struct cad_rpc_reactor *reactor);
void cad_rpc_reactor_release(struct cad_rpc_reactor *reactor);
/* Starts operations on a call: exactly one event follows. gRPC refuses only after a bug, so a
 * refusal aborts. */
void cad_rpc_batch(grpc_call *call, const grpc_op *ops, size_t count, struct cad_rpc_event *event);

/* ---- gRPC's own words (words.c) ---- */

/* What it calls errors are mostly a peer's; ours come back as statuses with a sentence. The same
 * words are a warning at most every 10 seconds, with how often they were left out since then. */
void cad_rpc_log(gpr_log_func_args *line);
/* While set, this thread's failures inside gRPC are logged at debug level: the caller has a better
 * sentence. */
extern _Thread_local bool cad_rpc_quiet;
/* The same for all threads: the program tells people itself what became of its calls. */
extern _Atomic bool cad_rpc_hushed;

/* ---- messages (message.c) ---- */

grpc_slice cad_rpc_encode(const ProtobufCMessage *message);
/* Decompresses where needed, into at most bytes_max (gRPC's own decompression has no limit and is
 * switched off), and decodes. `code` says what to answer. */
CAD_MUST_USE enum cad_status cad_rpc_decode_buffer(const ProtobufCMessageDescriptor *type, grpc_byte_buffer *buffer,
	size_t bytes_max, struct cad_rpc_arena *arena, ProtobufCMessage **message, enum cad_rpc_code *code,
	struct cad_error *error);

/* The value of a key, NULL if absent. */
const uint8_t *cad_rpc_metadata_find(const grpc_metadata_array *array, const char *key, size_t *size);
bool cad_rpc_metadata_is_single(const grpc_metadata_array *array, const char *key); /* it is there once */

/* ---- what a call sends (out.c) ---- */

/* Messages that wait, and at most one write in flight. A message counts as written when it has
 * passed HTTP/2's flow control, so a slow reader stalls the queue here. */
struct cad_rpc_out {
	struct cad_rpc_out_message *first, **end;
	size_t bytes; /* of those that wait */
	size_t high_bytes, low_bytes;
	grpc_byte_buffer *sending; /* gRPC's while the write is in flight */
	bool writing, was_full;
};
void cad_rpc_out_init(struct cad_rpc_out *out, size_t high_bytes, size_t low_bytes);
void cad_rpc_out_clear(struct cad_rpc_out *out); /* what waits is not sent */
void cad_rpc_out_fini(struct cad_rpc_out *out);
void cad_rpc_out_push(struct cad_rpc_out *out, const ProtobufCMessage *message);
/* What to tell the program that has just pushed: CAD_FULL from high_bytes on. */
enum cad_status cad_rpc_out_state(struct cad_rpc_out *out);
/* Once after CAD_FULL: low_bytes or less wait. */
bool cad_rpc_out_has_room_again(struct cad_rpc_out *out);
bool cad_rpc_out_is_last(const struct cad_rpc_out *out); /* none or one waits */
/* Begins a write; the first message goes into *op, if one waits. Returns how many operations that
 * is, 0 or 1; whatever else goes with the write is the caller's to add. */
size_t cad_rpc_out_write(struct cad_rpc_out *out, grpc_op *op);
void cad_rpc_out_written(struct cad_rpc_out *out); /* its event has come */

/* ---- credentials (tls.c), guard of file descriptors (guard.c) ---- */

CAD_MUST_USE enum cad_status cad_rpc_server_credentials(
	const struct cad_tls_files *tls, grpc_server_credentials **credentials, struct cad_error *error);
void cad_rpc_tls_cleanup(void); /* when gRPC is shut down */
/* The files of a channel, which may change. */
struct cad_rpc_watched;
CAD_MUST_USE enum cad_status cad_rpc_tls_watch(
	const struct cad_tls_files *tls, struct cad_rpc_watched **watched, struct cad_error *error);
void cad_rpc_tls_unwatch(struct cad_rpc_watched *watched);        /* NULL is allowed */
bool cad_rpc_tls_presents(const struct cad_rpc_watched *watched); /* a certificate */
/* Looks at the files: whether they are others than when credentials were created. */
bool cad_rpc_tls_is_fresh(struct cad_rpc_watched *watched);
grpc_channel_credentials *cad_rpc_channel_credentials(struct cad_rpc_watched *watched); /* NULL: plaintext */
/* False where this version of gRPC cannot be guarded. */
bool cad_rpc_guard_argument(unsigned reserve, grpc_arg *argument);

static inline grpc_arg cad_rpc_integer_argument(const char *key, int value)
{
	return (grpc_arg){
		.type = GRPC_ARG_INTEGER,
		.key = (char *)(uintptr_t)key,
		.value.integer = value,
	};
}

/* ---- calls (call.c) ---- */

struct cad_rpc_entry { /* a method of a server */
	const struct cad_rpc_service *service;
	const struct cad_rpc_method *method;
	const ProtobufCMessageDescriptor *request;
	char *path;
	void *handle; /* gRPC's */
};

struct cad_rpc_call {
	struct cad_rpc_server *server;
	const struct cad_rpc_entry *entry; /* NULL: a call to an unknown method */
	grpc_call *core;
	unsigned references; /* one per event in flight, and the program's */
	struct cad_rpc_event on_new, on_read, on_write, on_close;
	struct cad_rpc_call *next, **previous; /* the server's live calls */

	/* written by gRPC while operations are in flight */
	grpc_call_details details; /* unknown methods only */
	gpr_timespec deadline;
	grpc_metadata_array metadata;
	struct cad_caller caller; /* from the check of authorize.c on */
	grpc_byte_buffer *received;
	int cancelled;

	bool admitted;         /* one of the server's live calls */
	bool done_is_owed;     /* start or message was called */
	bool close_started;    /* RECV_CLOSE_ON_SERVER is out, exactly once per accepted call */
	bool close_with_write; /* ... as part of the last write */
	bool reading, half_closed;
	bool headers_sent, headers_wanted;
	bool finishing;   /* the final status is known */
	bool status_sent; /* ... and handed to gRPC */
	bool dead;        /* closed, cancelled or broken */
	bool cut;         /* because its client takes nothing */

	unsigned write_age; /* of the write that is in flight, in the server's stall ticks */

	struct cad_rpc_out out;
	enum cad_rpc_code code;
	grpc_slice sentence;
	struct cad_rpc_arena arena; /* the last request message */
	void *state;
};

/* One stall tick more; true when its write is older than ticks_max, and not cut off yet. */
bool cad_rpc_call_stalls(struct cad_rpc_call *call, unsigned ticks_max);
/* Ends it at once, past a write that the client does not take; done follows. The sentence is ASCII
 * without '%'. */
void cad_rpc_call_cut(struct cad_rpc_call *call, enum cad_rpc_code code, const char *sentence);
struct cad_rpc_call *cad_rpc_call_create(struct cad_rpc_server *server, const struct cad_rpc_entry *entry);

/* ---- the server, as its calls and services see it (server.c) ---- */

const struct cad_rpc_server_config *cad_rpc_server_settings(const struct cad_rpc_server *server);
struct cad_rpc_reactor *cad_rpc_server_reactor(const struct cad_rpc_server *server);
size_t cad_rpc_server_services(const struct cad_rpc_server *server, const struct cad_rpc_service *const **services);
/* A call was accepted: from here on it is a live one; false above the limit. */
bool cad_rpc_server_admit(struct cad_rpc_server *server, struct cad_rpc_call *call);
/* The last thing that a call does. */
void cad_rpc_server_call_gone(struct cad_rpc_server *server, const struct cad_rpc_call *call);
/* Asks gRPC for the next call of a method (NULL: unknown methods), unless the server is
 * draining. */
void cad_rpc_server_arm(struct cad_rpc_server *server, const struct cad_rpc_entry *entry);

#endif
