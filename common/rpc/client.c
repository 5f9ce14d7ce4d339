/* SPDX-License-Identifier: Apache-2.0 */
/* Client: channels and streams. */
#include "common/rpc/client.h"

#include "common/base/clock.h"
#include "common/base/lookup.h"
#include "common/base/network.h"
#include "common/rpc/internal.h"

#include <grpc/support/alloc.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { RESOLVE_EVERY_MS = 500 };

struct cad_rpc_channel {
	grpc_channel *core;
	struct cad_rpc_reactor *reactor;
	char *target, *server_name;
	struct cad_rpc_watched *tls; /* NULL: plaintext */
	struct cad_rpc_channel_config config;
	size_t references; /* the program's, and one per call */
	/* of a target that could not be reached */
	struct cad_lookup *lookup; /* where it is now; NULL: nobody looks */
	uint64_t look_ns;          /* not before */
	uint64_t found;            /* where it was last; 0: not known */
	bool unresolved;           /* it was nowhere, when gRPC or the channel looked */
};

struct cad_rpc_client_call {
	struct cad_rpc_channel *channel;
	grpc_call *core;
	const ProtobufCMessageDescriptor *reply;
	const struct cad_rpc_client_handler *handler;
	void *context;
	unsigned references; /* events in flight: the call ends with the last */
	struct cad_rpc_event on_start, on_headers, on_read, on_write, on_status;

	/* written by gRPC while operations are in flight */
	grpc_metadata_array headers, trailers;
	grpc_status_code code;
	grpc_slice sentence;
	grpc_byte_buffer *received;

	bool reading, read_all;
	bool close_wanted, close_sent;
	bool cancelled; /* by the program: no more messages */
	bool over;      /* the status is in */
	bool answered;  /* the server's headers came */
	bool reply_is_bad;
	struct cad_error bad_reply;
	struct cad_rpc_out out;
	struct cad_rpc_arena arena;
};

/* ---- channel ---- */

static void config_fill(struct cad_rpc_channel_config *config)
{
#define DEFAULT(field, value) \
	if (config->field == 0) \
	config->field = value
	DEFAULT(receive_bytes_max, 16 << 20);
	DEFAULT(keepalive_timeout_ms, 20000);
	DEFAULT(connect_ms, 2000);
	DEFAULT(backoff_ms_max, 5000);
	DEFAULT(decoded_bytes_max, 64u << 20);
	DEFAULT(out_high_bytes, 256u << 10);
#undef DEFAULT
}

static grpc_channel *core_create(const struct cad_rpc_channel *channel)
{
	const struct cad_rpc_channel_config *config = &channel->config;
	grpc_arg arguments[16] = {
		cad_rpc_integer_argument(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, config->receive_bytes_max),
		cad_rpc_integer_argument(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, config->backoff_ms_max),
		/* despite its name, what an attempt to connect has at least */
		cad_rpc_integer_argument(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, config->connect_ms),
		cad_rpc_integer_argument(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS,
			config->backoff_ms_max < 200 ? config->backoff_ms_max : 200),
		cad_rpc_integer_argument(GRPC_ARG_ENABLE_CHANNELZ, 0),
		/* message.c does it, with a limit */
		cad_rpc_integer_argument(GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0),
		/* no surprises from the environment */
		cad_rpc_integer_argument(GRPC_ARG_ENABLE_HTTP_PROXY, 0),
		cad_rpc_integer_argument(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1), /* no TXT look-ups */
		cad_rpc_integer_argument(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, config->own_connection),
		/* or a name that has got another address is looked up only half a minute later */
		cad_rpc_integer_argument(GRPC_ARG_DNS_MIN_TIME_BETWEEN_RESOLUTIONS_MS, RESOLVE_EVERY_MS),
	};
	size_t count = 10;

	if (config->keepalive_time_ms) {
		arguments[count++] = cad_rpc_integer_argument(GRPC_ARG_KEEPALIVE_TIME_MS, config->keepalive_time_ms);
		arguments[count++] =
			cad_rpc_integer_argument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, config->keepalive_timeout_ms);
		arguments[count++] = cad_rpc_integer_argument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
	}

	if (config->server_name)
		arguments[count++] = (grpc_arg){
			.type = GRPC_ARG_STRING,
			.key = (char *)(uintptr_t)GRPC_SSL_TARGET_NAME_OVERRIDE_ARG,
			.value.string = (char *)(uintptr_t)config->server_name,
		};
	grpc_channel_credentials *credentials = cad_rpc_channel_credentials(channel->tls);
	grpc_channel *core = grpc_channel_create(channel->target, credentials,
		&(grpc_channel_args){
			.num_args = count,
			.args = arguments,
		});
	grpc_channel_credentials_release(credentials);
	return core;
}

/*
 * A name that gRPC did not find is looked up again after pauses that grow to two minutes, whatever
 * one asks for. So after a call that did not reach its target, the channel looks for itself: when
 * the target is somewhere else than before, or somewhere at last, gRPC begins again. As long as
 * nobody says where it is, gRPC keeps what it knows.
 */
static void look_up(struct cad_rpc_channel *channel, const char *sentence)
{
	struct cad_address address;
	struct cad_error ignored;
	union cad_ip numeric;
	uint64_t now_ns = cad_clock_now_ns(&cad_clock_system);

	channel->unresolved |= strstr(sentence, "DNS resolution failed") != NULL;
	if (channel->lookup || now_ns < channel->look_ns)
		return;
	channel->look_ns = now_ns + RESOLVE_EVERY_MS * CAD_NS_PER_MS;
	if (cad_address_parse(channel->target, &address, &ignored) == CAD_OK && !cad_ip_of_text(address.host, &numeric))
		channel->lookup = cad_lookup_start(&address);
}

static bool is_looking(const struct cad_rpc_channel *channel)
{
	const struct addrinfo *found;
	struct cad_error ignored;
	return channel->lookup && cad_lookup_wait(channel->lookup, 0, &found, &ignored) == CAD_AGAIN;
}

static bool has_moved(struct cad_rpc_channel *channel)
{
	const struct addrinfo *at;
	struct cad_error ignored;
	uint64_t found = 0; /* whatever the order */

	enum cad_status status = channel->lookup ? cad_lookup_wait(channel->lookup, 0, &at, &ignored) : CAD_AGAIN;
	if (status == CAD_AGAIN)
		return false;
	bool nowhere = status != CAD_OK;
	for (; !nowhere && at; at = at->ai_next)
		found += XXH3_64bits(at->ai_addr, at->ai_addrlen);
	cad_lookup_leave(channel->lookup);
	channel->lookup = NULL;

	bool moved = !nowhere && (channel->unresolved || (channel->found != 0 && found != channel->found));
	channel->unresolved = nowhere;
	if (!nowhere)
		channel->found = found;
	return moved;
}

/* Files that have changed, a target that has moved. A running call keeps the connection that it
 * has, and another one would have to share it. */
static void take_up_news(struct cad_rpc_channel *channel)
{
	if (channel->references > 1)
		return;
	bool fresh = channel->tls && cad_rpc_tls_is_fresh(channel->tls);
	if (!has_moved(channel) && !fresh)
		return;
	grpc_channel_destroy(channel->core);
	channel->core = core_create(channel);
}

enum cad_status cad_rpc_channel_create(struct cad_rpc_reactor *reactor, const char *target,
	const struct cad_tls_files *tls, const struct cad_rpc_channel_config *config, struct cad_rpc_channel **created,
	struct cad_error *error)
{
	struct cad_rpc_watched *watched = NULL;
	enum cad_status status = tls ? cad_rpc_tls_watch(tls, &watched, error) : CAD_OK;

	if (status != CAD_OK)
		return status;

	struct cad_rpc_channel *channel = cad_rpc_must(calloc(1, sizeof *channel));
	if (config)
		channel->config = *config;
	config_fill(&channel->config);
	channel->target = cad_rpc_must(strdup(target));
	if (channel->config.server_name)
		channel->config.server_name = channel->server_name = cad_rpc_must(strdup(channel->config.server_name));
	channel->tls = watched;
	channel->core = core_create(channel);
	channel->reactor = reactor;
	channel->references = 1;
	cad_rpc_reactor_acquire(reactor);
	*created = channel;

	return CAD_OK;
}

static void channel_release(struct cad_rpc_channel *channel)
{
	if (--channel->references)
		return;
	struct cad_rpc_reactor *reactor = channel->reactor;
	grpc_channel_destroy(channel->core);
	cad_lookup_leave(channel->lookup);
	cad_rpc_tls_unwatch(channel->tls);
	free(channel->target);
	free(channel->server_name);
	free(channel);
	cad_rpc_reactor_release(reactor);
}

void cad_rpc_channel_destroy(struct cad_rpc_channel *channel)
{
	if (channel)
		channel_release(channel);
}

/* ---- life of a call ---- */

static void call_free(struct cad_rpc_client_call *call)
{
	cad_rpc_out_fini(&call->out);
	cad_rpc_arena_reset(&call->arena);
	if (call->received)
		grpc_byte_buffer_destroy(call->received);
	grpc_metadata_array_destroy(&call->headers);
	grpc_metadata_array_destroy(&call->trailers);
	grpc_slice_unref(call->sentence);
	grpc_call_unref(call->core);
	channel_release(call->channel);
	free(call);
}

/* What gRPC's sentence does not say of a connection that did not come about, or says in words of
 * its own; NULL: nothing. In TLS 1.3 the server learns of a client's certificate when the client
 * takes the connection for made, and then just ends it. */
static const char *hint(const struct cad_rpc_watched *tls, const char *sentence)
{
	if (tls && strstr(sentence, "certificate verify failed"))
		return "the server's certificate is not from an authority that is trusted here, or has expired: compare its issuer with --tls-authority";
	if (tls && strstr(sentence, "is not in peer certificate"))
		return "the server's certificate does not have the name by which it is called here: use one that it has, or have it issued with this one (subjectAltName)";
	if (tls && strstr(sentence, "wrong version number"))
		return "the server does not speak TLS: turn it on there (--tls-certificate, --tls-key), or call it without";
	if (strstr(sentence, "Trying to connect an http1.x server"))
		return "an HTTP server answers there, not gRPC: is it the address of --http? give that of --grpc";
	if (!strstr(sentence, "Socket closed") && !strstr(sentence, "Connection reset"))
		return NULL;
	if (!tls)
		return "the server ended the connection: it may want TLS (--tls-authority)";
	return cad_rpc_tls_presents(tls)
		? "the server ended the connection: it may not accept the certificate that was presented: another authority, or expired"
		: "the server ended the connection: it may want a certificate, and none was presented (--tls-certificate)";
}

/* The same; and where the call did not get to anybody, the channel looks for whom it was for. */
static const char *explain(struct cad_rpc_client_call *call, const char *sentence)
{
	struct cad_rpc_channel *channel = call->channel;
	bool unavailable = call->code == GRPC_STATUS_UNAVAILABLE, late = call->code == GRPC_STATUS_DEADLINE_EXCEEDED;
	if (call->answered || (!unavailable && !late))
		return NULL;
	bool waits = is_looking(channel);
	look_up(channel, sentence);
	return unavailable ? hint(channel->tls, sentence) : waits ? "no name server answers" : NULL;
}

static void say_status(struct cad_rpc_client_call *call)
{
	char *sentence = grpc_slice_to_c_string(call->sentence);
	const char *more = explain(call, sentence);
	struct cad_error whole;

	if (more)
		cad_error_set(&whole, CAD_ERR_IO, "%s (%s)", more, sentence);
	call->handler->done(call, (enum cad_rpc_code)call->code, more ? whole.text : sentence);
	gpr_free(sentence);
}

/* The last event is back: tell the program, and free. */
static void release(struct cad_rpc_client_call *call)
{
	if (--call->references)
		return;

	call->over = true;
	if (call->reply_is_bad)
		call->handler->done(call, CAD_RPC_INTERNAL, call->bad_reply.text);
	else
		say_status(call);
	call_free(call);
}

static void batch(struct cad_rpc_client_call *call, const grpc_op *ops, size_t count, struct cad_rpc_event *event)
{
	call->references++;
	cad_rpc_batch(call->core, ops, count, event);
}

static void reply_reject(struct cad_rpc_client_call *call)
{
	call->reply_is_bad = true;
	grpc_call_cancel(call->core, NULL);
}

static void deliver(struct cad_rpc_client_call *call)
{
	ProtobufCMessage *message;
	enum cad_rpc_code code;
	enum cad_status status = cad_rpc_decode_buffer(call->reply, call->received,
		(size_t)call->channel->config.receive_bytes_max, &call->arena, &message, &code, &call->bad_reply);

	grpc_byte_buffer_destroy(call->received);
	call->received = NULL;
	if (status != CAD_OK)
		reply_reject(call);
	else if (call->handler->message && !call->cancelled)
		call->handler->message(call, message);
}

/* ---- events ---- */

static void pump(struct cad_rpc_client_call *call)
{
	if (call->out.writing || call->over || call->close_sent || (!call->out.first && !call->close_wanted))
		return;

	bool last = call->close_wanted && cad_rpc_out_is_last(&call->out);
	grpc_op ops[2] = { 0 };
	size_t count = cad_rpc_out_write(&call->out, &ops[0]);
	if (last) {
		call->close_sent = true;
		ops[count++].op = GRPC_OP_SEND_CLOSE_FROM_CLIENT;
	}

	batch(call, ops, count, &call->on_write);
}

/* The sending side is broken; the status will say why. */
static void stop_sending(struct cad_rpc_client_call *call)
{
	cad_rpc_out_clear(&call->out);
	call->close_sent = true;
}

static void write_event(struct cad_rpc_event *event, bool ok)
{
	struct cad_rpc_client_call *call = CAD_CONTAINER_OF(event, struct cad_rpc_client_call, on_write);
	cad_rpc_out_written(&call->out);

	if (!ok) {
		stop_sending(call);
	} else if (!call->over) {
		pump(call);
		if (cad_rpc_out_has_room_again(&call->out) && call->handler->writable && !call->cancelled)
			call->handler->writable(call);
	}

	release(call);
}

static void start_event(struct cad_rpc_event *event, bool ok)
{
	struct cad_rpc_client_call *call = CAD_CONTAINER_OF(event, struct cad_rpc_client_call, on_start);
	call->out.writing = false;
	if (ok)
		pump(call);
	else
		stop_sending(call);
	release(call);
}

static void read_event(struct cad_rpc_event *event, bool ok)
{
	struct cad_rpc_client_call *call = CAD_CONTAINER_OF(event, struct cad_rpc_client_call, on_read);
	call->reading = false;
	if (ok && call->received)
		deliver(call);
	else
		call->read_all = true; /* the status follows */
	release(call);
}

static void headers_event(struct cad_rpc_event *event, bool ok)
{
	struct cad_rpc_client_call *call = CAD_CONTAINER_OF(event, struct cad_rpc_client_call, on_headers);
	call->answered = ok;
	if (ok && call->handler->headers && !call->cancelled)
		call->handler->headers(call);
	release(call);
}

static void status_event(struct cad_rpc_event *event, bool ok)
{
	(void)ok;
	struct cad_rpc_client_call *call = CAD_CONTAINER_OF(event, struct cad_rpc_client_call, on_status);
	call->over = true;
	release(call);
}

/* ---- starting ---- */

static bool metadata_legal(const struct cad_rpc_call_options *options)
{
	for (size_t i = 0; options && i < options->metadata_count; i++) {
		grpc_slice key = grpc_slice_from_static_string(options->metadata[i].key),
			   value = grpc_slice_from_static_string(options->metadata[i].value);
		if (!grpc_header_key_is_legal(key) ||
			(!grpc_is_binary_header(key) && !grpc_header_nonbin_value_is_legal(value)))
			return false;
	}
	return true;
}

static struct cad_rpc_client_call *call_create(struct cad_rpc_channel *channel, const char *path,
	const ProtobufCMessageDescriptor *reply, const struct cad_rpc_call_options *options,
	const struct cad_rpc_client_handler *handler, void *context)
{
	CAD_ASSERT(handler->done);
	struct cad_rpc_client_call *call = cad_rpc_must(calloc(1, sizeof *call));
	call->channel = channel;
	channel->references++;
	call->reply = reply;
	call->handler = handler;
	call->context = context;
	call->sentence = grpc_empty_slice();
	call->on_start.run = start_event;
	call->on_headers.run = headers_event;
	call->on_read.run = read_event;
	call->on_write.run = write_event;
	call->on_status.run = status_event;
	cad_rpc_out_init(&call->out, channel->config.out_high_bytes, channel->config.out_high_bytes / 4);
	grpc_metadata_array_init(&call->headers);
	grpc_metadata_array_init(&call->trailers);
	cad_rpc_arena_init(&call->arena, channel->config.decoded_bytes_max);
	gpr_timespec deadline = gpr_inf_future(GPR_CLOCK_MONOTONIC);
	if (options && options->timeout_ms > 0)
		deadline = gpr_time_add(
			gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(options->timeout_ms, GPR_TIMESPAN));
	grpc_slice method = grpc_slice_from_copied_string(path);
	call->core = grpc_channel_create_call(channel->core, NULL, GRPC_PROPAGATE_DEFAULTS,
		cad_rpc_reactor_queue(channel->reactor), method, NULL, deadline, NULL);
	grpc_slice_unref(method);

	return call;
}

/* Starts the first batch, whose ops[0] becomes the request's headers. */
static void start(
	struct cad_rpc_client_call *call, const struct cad_rpc_call_options *options, grpc_op *ops, size_t count)
{
	size_t metadata_count = options ? options->metadata_count : 0;
	grpc_metadata *metadata = cad_rpc_must(calloc(metadata_count + 1, sizeof *metadata));

	for (size_t i = 0; i < metadata_count; i++) {
		metadata[i].key = grpc_slice_from_copied_string(options->metadata[i].key);
		metadata[i].value = grpc_slice_from_copied_string(options->metadata[i].value);
	}

	ops[0].op = GRPC_OP_SEND_INITIAL_METADATA;
	ops[0].data.send_initial_metadata.metadata = metadata;
	ops[0].data.send_initial_metadata.count = metadata_count;
	if (call->channel->config.wait_for_ready)
		ops[0].flags =
			GRPC_INITIAL_METADATA_WAIT_FOR_READY | GRPC_INITIAL_METADATA_WAIT_FOR_READY_EXPLICITLY_SET;
	batch(call, ops, count, &call->on_start);
	for (size_t i = 0; i < metadata_count; i++) { /* gRPC has references of its own */
		grpc_slice_unref(metadata[i].key);
		grpc_slice_unref(metadata[i].value);
	}

	free(metadata);
}

static void status_op(struct cad_rpc_client_call *call, grpc_op *op)
{
	op->op = GRPC_OP_RECV_STATUS_ON_CLIENT;
	op->data.recv_status_on_client.trailing_metadata = &call->trailers;
	op->data.recv_status_on_client.status = &call->code;
	op->data.recv_status_on_client.status_details = &call->sentence;
}

static void headers_op(struct cad_rpc_client_call *call, grpc_op *op)
{
	op->op = GRPC_OP_RECV_INITIAL_METADATA;
	op->data.recv_initial_metadata.recv_initial_metadata = &call->headers;
}

enum cad_status cad_rpc_stream(struct cad_rpc_channel *channel, const char *path,
	const ProtobufCMessageDescriptor *reply, const struct cad_rpc_call_options *options,
	const struct cad_rpc_client_handler *handler, void *context, struct cad_rpc_client_call **started)
{
	if (!metadata_legal(options))
		return CAD_ERR_INVALID;

	take_up_news(channel);
	struct cad_rpc_client_call *call = call_create(channel, path, reply, options, handler, context);
	call->out.writing = true; /* until the headers are out */
	grpc_op op = { 0 };
	start(call, options, &op, 1);
	op = (grpc_op){ 0 };
	status_op(call, &op);
	batch(call, &op, 1, &call->on_status);
	op = (grpc_op){ 0 };
	headers_op(call, &op); /* on its own: it completes only when the server answers */
	batch(call, &op, 1, &call->on_headers);
	cad_rpc_client_read(call);
	*started = call;

	return CAD_OK;
}

/* ---- using ---- */

void *cad_rpc_client_context(const struct cad_rpc_client_call *call) { return call->context; }

enum cad_status cad_rpc_client_send(struct cad_rpc_client_call *call, const ProtobufCMessage *message)
{
	if (call->over || call->cancelled || call->close_wanted || call->close_sent)
		return CAD_ERR_CANCELLED;
	cad_rpc_out_push(&call->out, message);
	pump(call);
	return cad_rpc_out_state(&call->out);
}

void cad_rpc_client_close_send(struct cad_rpc_client_call *call)
{
	call->close_wanted = true;
	pump(call);
}

void cad_rpc_client_read(struct cad_rpc_client_call *call)
{
	if (call->reading || call->read_all || call->reply_is_bad)
		return;
	call->reading = true;
	grpc_op op = { .op = GRPC_OP_RECV_MESSAGE };
	op.data.recv_message.recv_message = &call->received;
	batch(call, &op, 1, &call->on_read);
}

void cad_rpc_client_cancel(struct cad_rpc_client_call *call)
{
	call->cancelled = true;
	grpc_call_cancel(call->core, NULL);
}
