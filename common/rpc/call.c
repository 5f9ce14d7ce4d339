/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A call on the server.
 *
 *     armed -> accepted -> admitted -> start, messages, half close -> finishing -> closed (done) ->
 *     freed with its last reference
 *
 * RECV_CLOSE_ON_SERVER is started exactly once for each accepted call: it is how a cancel, a
 * deadline or a lost connection is noticed. For a call that is answered inside its handler it rides
 * with the answer, so that a unary call costs two events.
 */
#include "common/rpc/call.h"

#include "common/rpc/internal.h"
#include "common/rpc/server.h"

#include <grpc/support/alloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { HEADER_OVERHEAD_BYTES = 32 }; /* as HTTP/2 counts headers */

static void pump(struct cad_rpc_call *call);

/* ---- life ---- */

static void call_free(struct cad_rpc_call *call)
{
	cad_rpc_out_fini(&call->out);
	cad_rpc_arena_reset(&call->arena);
	if (call->received)
		grpc_byte_buffer_destroy(call->received);
	if (!call->entry)
		grpc_call_details_destroy(&call->details);
	grpc_metadata_array_destroy(&call->metadata);
	grpc_slice_unref(call->sentence);
	if (call->core)
		grpc_call_unref(call->core);
	cad_rpc_server_call_gone(call->server, call);
	free(call);
}

void cad_rpc_call_acquire(struct cad_rpc_call *call) { call->references++; }

void cad_rpc_call_release(struct cad_rpc_call *call)
{
	if (--call->references == 0)
		call_free(call);
}

/* The event holds a reference until it has run. */
static void batch(struct cad_rpc_call *call, const grpc_op *ops, size_t count, struct cad_rpc_event *event)
{
	call->references++;
	cad_rpc_batch(call->core, ops, count, event);
}

static void watch_close(struct cad_rpc_call *call)
{
	if (call->close_started)
		return;
	call->close_started = true;
	grpc_op op = { .op = GRPC_OP_RECV_CLOSE_ON_SERVER };
	op.data.recv_close_on_server.cancelled = &call->cancelled;
	batch(call, &op, 1, &call->on_close);
}

static void closed(struct cad_rpc_call *call)
{
	call->dead = true;
	cad_rpc_out_clear(&call->out);
	if (!call->done_is_owed)
		return;
	call->done_is_owed = false;
	if (call->entry->method->on.done)
		call->entry->method->on.done(call, call->cancelled != 0);
}

static void close_event(struct cad_rpc_event *event, bool ok)
{
	(void)ok;
	struct cad_rpc_call *call = CAD_CONTAINER_OF(event, struct cad_rpc_call, on_close);
	closed(call);
	cad_rpc_call_release(call);
}

/* ---- reading ---- */

static void deliver(struct cad_rpc_call *call)
{
	ProtobufCMessage *message;
	struct cad_error error;
	enum cad_rpc_code code;
	size_t bytes_max = (size_t)cad_rpc_server_settings(call->server)->receive_bytes_max;
	enum cad_status status = cad_rpc_decode_buffer(
		call->entry->request, call->received, bytes_max, &call->arena, &message, &code, &error);

	grpc_byte_buffer_destroy(call->received);
	call->received = NULL;
	if (status != CAD_OK) {
		cad_rpc_call_abort(call, code, "%s", error.text);
		return;
	}

	call->done_is_owed = true;
	call->entry->method->on.message(call, message);
}

static void read_event(struct cad_rpc_event *event, bool ok)
{
	struct cad_rpc_call *call = CAD_CONTAINER_OF(event, struct cad_rpc_call, on_read);
	call->reading = false;
	if (!call->dead && !call->finishing) {
		if (call->received) {
			deliver(call);
		} else {
			call->half_closed = true; /* or broken, or too large: then the close event follows */
			if (ok && !grpc_call_failed_before_recv_message(call->core) &&
				call->entry->method->on.half_close)
				call->entry->method->on.half_close(call);
		}
	}

	cad_rpc_call_release(call);
}

void cad_rpc_call_read(struct cad_rpc_call *call)
{
	if (call->dead || call->reading || call->half_closed || call->finishing)
		return;
	call->reading = true;
	grpc_op op = { .op = GRPC_OP_RECV_MESSAGE };
	op.data.recv_message.recv_message = &call->received;
	batch(call, &op, 1, &call->on_read);
}

/* ---- writing ---- */

static void write_event(struct cad_rpc_event *event, bool ok)
{
	struct cad_rpc_call *call = CAD_CONTAINER_OF(event, struct cad_rpc_call, on_write);
	cad_rpc_out_written(&call->out);

	if (call->close_with_write) {
		closed(call);
	} else if (!ok) {
		call->dead = true; /* done comes with the close event */
		cad_rpc_out_clear(&call->out);
	} else {
		pump(call);
		if (!call->dead && !call->finishing && cad_rpc_out_has_room_again(&call->out) && call->entry &&
			call->entry->method->on.writable)
			call->entry->method->on.writable(call);
	}

	cad_rpc_call_release(call);
}

static size_t status_ops(struct cad_rpc_call *call, grpc_op *ops)
{
	size_t count = 0;
	ops[count].op = GRPC_OP_SEND_STATUS_FROM_SERVER;
	ops[count].data.send_status_from_server.status = (grpc_status_code)call->code;
	ops[count++].data.send_status_from_server.status_details = &call->sentence;
	call->status_sent = true;
	if (!call->close_started) {
		call->close_started = call->close_with_write = true;
		ops[count].op = GRPC_OP_RECV_CLOSE_ON_SERVER;
		ops[count++].data.recv_close_on_server.cancelled = &call->cancelled;
	}

	return count;
}

static void pump(struct cad_rpc_call *call)
{
	if (call->out.writing || call->dead || call->status_sent || call->cut)
		return;

	bool last = call->finishing && cad_rpc_out_is_last(&call->out), first = !call->headers_sent;
	if (!call->out.first && !last && !(first && call->headers_wanted))
		return;
	grpc_op ops[4] = { 0 };
	size_t count = 0;
	if (first) {
		ops[count++].op = GRPC_OP_SEND_INITIAL_METADATA;
		call->headers_sent = true;
	}

	count += cad_rpc_out_write(&call->out, &ops[count]);
	if (last)
		count += status_ops(call, ops + count);
	call->write_age = 0;
	batch(call, ops, count, &call->on_write);
}

enum cad_status cad_rpc_call_send(struct cad_rpc_call *call, const ProtobufCMessage *message)
{
	if (call->dead || call->finishing)
		return CAD_ERR_CANCELLED;
	cad_rpc_out_push(&call->out, message);
	pump(call);
	return cad_rpc_out_state(&call->out);
}

void cad_rpc_call_forget_message(struct cad_rpc_call *call) { cad_rpc_arena_reset(&call->arena); }

void cad_rpc_call_send_headers(struct cad_rpc_call *call)
{
	call->headers_wanted = true;
	pump(call);
}

static void status_set(struct cad_rpc_call *call, enum cad_rpc_code code, const char *format, va_list arguments)
{
	char text[2 * CAD_ERROR_TEXT_BYTES] = "";
	if (format)
		vsnprintf(text, sizeof text, format, arguments);
	struct cad_error sentence;
	cad_error_set(&sentence, CAD_ERR_INTERNAL, "%s", text); /* cuts between characters */
	call->finishing = true;
	call->code = code;
	grpc_slice_unref(call->sentence);
	call->sentence = grpc_slice_from_copied_string(sentence.text); /* gRPC percent-encodes it */
}

void cad_rpc_call_finish(struct cad_rpc_call *call, enum cad_rpc_code code, const char *format, ...)
{
	if (call->finishing || call->dead)
		return;
	va_list arguments;
	va_start(arguments, format);
	status_set(call, code, format, arguments);
	va_end(arguments);
	pump(call);
}

void cad_rpc_call_reply(struct cad_rpc_call *call, const ProtobufCMessage *message)
{
	if (call->finishing || call->dead)
		return;
	cad_rpc_out_push(&call->out, message);
	cad_rpc_call_finish(call, CAD_RPC_OK, NULL);
}

void cad_rpc_call_abort(struct cad_rpc_call *call, enum cad_rpc_code code, const char *format, ...)
{
	if (call->dead || call->status_sent)
		return;
	cad_rpc_out_clear(&call->out);
	va_list arguments;
	va_start(arguments, format);
	status_set(call, code, format, arguments);
	va_end(arguments);
	pump(call);
}

bool cad_rpc_call_stalls(struct cad_rpc_call *call, unsigned ticks_max)
{
	return call->out.writing && !call->dead && !call->cut && ++call->write_age > ticks_max;
}

void cad_rpc_call_cut(struct cad_rpc_call *call, enum cad_rpc_code code, const char *sentence)
{
	cad_rpc_out_clear(&call->out);
	call->cut = call->finishing = true;
	call->code = code;
	/* a status that is sent in the usual way would wait behind the write */
	grpc_call_cancel_with_status(call->core, (grpc_status_code)code, sentence, NULL);
}

/* ---- accepting ---- */

static bool authorized(struct cad_rpc_call *call)
{
	const struct cad_rpc_server_config *config = cad_rpc_server_settings(call->server);
	if (!config->authorize || call->entry->method->right == CAD_RIGHT_PROBE)
		return true;
	struct cad_error why = { .text = "" };
	enum cad_rpc_code code = config->authorize(config->authorize_context, call, &why);
	if (code != CAD_RPC_OK)
		cad_rpc_call_finish(call, code, "%s", why.text);
	return code == CAD_RPC_OK;
}

/* Those that gRPC keeps to itself (authority, timeout, encodings) are not among them. */
static bool headers_fit(struct cad_rpc_call *call)
{
	size_t size = call->entry ? 0 : GRPC_SLICE_LENGTH(call->details.method) + GRPC_SLICE_LENGTH(call->details.host),
	       size_max = (size_t)cad_rpc_server_settings(call->server)->metadata_bytes_max;

	for (size_t i = 0; i < call->metadata.count; i++)
		size += GRPC_SLICE_LENGTH(call->metadata.metadata[i].key) +
			GRPC_SLICE_LENGTH(call->metadata.metadata[i].value) + HEADER_OVERHEAD_BYTES;
	if (size > size_max)
		cad_rpc_call_finish(call, CAD_RPC_RESOURCE_EXHAUSTED,
			"the headers of this call have %zu bytes, and this server takes %zu: send less metadata", size,
			size_max);
	return size <= size_max;
}

static void begin(struct cad_rpc_call *call)
{
	if (!cad_rpc_server_admit(call->server, call)) {
		cad_rpc_call_finish(call, CAD_RPC_RESOURCE_EXHAUSTED,
			"the server has reached its limit of %u concurrent calls; try again later",
			cad_rpc_server_settings(call->server)->calls_max);
		return;
	}

	if (!headers_fit(call))
		return;
	if (!call->entry) {
		char *path = grpc_slice_to_c_string(call->details.method);
		cad_rpc_call_finish(call, CAD_RPC_UNIMPLEMENTED, "this server has no method %.200s", path);
		gpr_free(path);
		return;
	}

	if (!authorized(call))
		return;
	enum cad_rpc_kind kind = call->entry->method->kind;
	if (kind == CAD_RPC_UNARY || kind == CAD_RPC_SERVER_STREAM) {
		call->half_closed = true; /* the only message came with the call */
		if (call->received)
			deliver(call);
		else
			cad_rpc_call_finish(call, CAD_RPC_INVALID_ARGUMENT,
				"%s needs one request message, and there was none", call->entry->path);
		return;
	}

	watch_close(call);
	call->done_is_owed = true;
	if (call->entry->method->on.start)
		call->entry->method->on.start(call);
	else
		cad_rpc_call_read(call);
}

static void new_event(struct cad_rpc_event *event, bool ok)
{
	struct cad_rpc_call *call = CAD_CONTAINER_OF(event, struct cad_rpc_call, on_new);
	if (ok) {
		cad_rpc_server_arm(call->server, call->entry);
		begin(call);
		watch_close(call); /* unless it went out with the answer */
	}
	cad_rpc_call_release(call);
}

struct cad_rpc_call *cad_rpc_call_create(struct cad_rpc_server *server, const struct cad_rpc_entry *entry)
{
	struct cad_rpc_call *call = cad_rpc_must(calloc(1, sizeof *call));
	call->server = server;
	call->entry = entry;
	call->references = 1;
	call->on_new.run = new_event;
	call->on_read.run = read_event;
	call->on_write.run = write_event;
	call->on_close.run = close_event;
	call->sentence = grpc_empty_slice();
	const struct cad_rpc_server_config *config = cad_rpc_server_settings(server);
	cad_rpc_out_init(&call->out, config->out_high_bytes, config->out_low_bytes);
	grpc_metadata_array_init(&call->metadata);
	if (!entry)
		grpc_call_details_init(&call->details);
	cad_rpc_arena_init(&call->arena, config->decoded_bytes_max);

	return call;
}

/* ---- inspection ---- */

void *cad_rpc_call_context(const struct cad_rpc_call *call)
{
	return call->entry ? call->entry->service->context : NULL;
}
const struct cad_rpc_method *cad_rpc_call_method(const struct cad_rpc_call *call)
{
	return call->entry ? call->entry->method : NULL;
}
const struct cad_caller *cad_rpc_call_caller(const struct cad_rpc_call *call) { return &call->caller; }
void *cad_rpc_call_state(const struct cad_rpc_call *call) { return call->state; }
void cad_rpc_call_set_state(struct cad_rpc_call *call, void *state) { call->state = state; }
struct cad_rpc_reactor *cad_rpc_call_reactor(const struct cad_rpc_call *call)
{
	return cad_rpc_server_reactor(call->server);
}
bool cad_rpc_call_is_alive(const struct cad_rpc_call *call) { return !call->dead && !call->finishing; }
bool cad_rpc_call_is_cut(const struct cad_rpc_call *call) { return call->cut; }
size_t cad_rpc_call_queued_bytes(const struct cad_rpc_call *call) { return call->out.bytes; }

void cad_rpc_call_peer(const struct cad_rpc_call *call, char *text, size_t size)
{
	char *peer = grpc_call_get_peer(call->core);
	snprintf(text, size, "%s", peer ? peer : "");
	gpr_free(peer);
}

int64_t cad_rpc_call_time_left_ms(const struct cad_rpc_call *call)
{
	gpr_timespec deadline = call->entry ? call->deadline : call->details.deadline;
	if (gpr_time_cmp(deadline, gpr_inf_future(deadline.clock_type)) == 0)
		return -1;
	gpr_timespec left = gpr_time_sub(deadline, gpr_now(deadline.clock_type));
	int64_t left_ms = left.tv_sec * 1000 + left.tv_nsec / 1000000;
	return left_ms < 0 ? 0 : left_ms;
}

enum cad_status cad_rpc_call_bearer(const struct cad_rpc_call *call, const void **token, size_t *size)
{
	static const char scheme[] = "bearer "; /* in any case, says HTTP */
	const size_t scheme_size = sizeof scheme - 1;
	size_t header_size;
	const uint8_t *header = cad_rpc_metadata_find(&call->metadata, "authorization", &header_size);

	if (!header)
		return CAD_ERR_NOT_FOUND;
	if (!cad_rpc_metadata_is_single(&call->metadata, "authorization"))
		return CAD_ERR_INVALID;
	if (header_size < scheme_size || strncasecmp((const char *)header, scheme, scheme_size) != 0)
		return CAD_ERR_INVALID;
	*token = header + scheme_size;
	*size = header_size - scheme_size;

	return CAD_OK;
}

bool cad_rpc_call_peer_property(const struct cad_rpc_call *call, const char *name, char *text, size_t size)
{
	grpc_auth_context *context = grpc_call_auth_context(call->core);
	if (!context)
		return false;

	grpc_auth_property_iterator iterator = grpc_auth_context_find_properties_by_name(context, name);
	const grpc_auth_property *property = grpc_auth_property_iterator_next(&iterator);
	bool fits = property && property->value_length < size && grpc_auth_context_peer_is_authenticated(context);
	if (fits) {
		memcpy(text, property->value, property->value_length);
		text[property->value_length] = 0;
	}

	grpc_auth_context_release(context);
	return fits;
}
