/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The UCX link: active messages between workers, one context and one worker a transport, in SINGLE
 * mode.
 *
 * Measured on UCX 1.13 to 1.20; what is done here and why:
 * - Every message carries UCP_AM_SEND_FLAG_REPLY: the reply endpoint is the only trustworthy
 *   identity of a sender.
 * - All 65,536 message ids have a handler, registered in ascending order: UCX 1.13 to 1.20 index
 *   the table with the id from the wire before checking it.
 * - Calls are taken with PERSISTENT_DATA: an eager payload is used where UCX put it and released
 *   later, but never inside the callback that brought it.
 *   Large payloads stay at the sender (rendezvous) until there is a buffer.
 * - Shared memory (not the default): a peer that dies while it writes can leave this worker deaf
 *   for ever. The sign is a worker that is always BUSY to arm and
 *   never progresses; then all connections are given up, and worker and context are rebuilt, with
 *   another address.
 * end.c and peers.c say what endpoints need.
 */
#include "common/transport/ucx/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	WEDGED_TRIES = 1000,
	EMPTY_WAKES_MAX = 100,
};
static const uint64_t WEDGED_NS = 300 * CAD_NS_PER_MS, EMPTY_WAKE_NS = 200 * CAD_NS_PER_US;

static bool names_shared_memory(const char *transports)
{
	static const char *const names[] = { "posix", "sysv", "cma", "knem", "xpmem", "shm", "sm", "mm", "all",
		"shared_memory", "^" };
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (strstr(transports, names[i]))
			return true;
	return false;
}

/* ---- messages ---- */

static ucs_status_t on_message(void *context, const void *header, size_t header_bytes, void *data, size_t bytes,
	const ucp_am_recv_param_t *parameters)
{
	struct cad_ucx_handler *handler = context;
	struct cad_ucx_link *link = handler->link;
	bool named = parameters->recv_attr & UCP_AM_RECV_ATTR_FIELD_REPLY_EP;
	struct cad_link_end *end = named ? cad_ucx_end_of(link, parameters->reply_ep) : NULL;

	/* UCS_OK: for a rendezvous this tells the sender "done" and moves nothing */
	bool first = handler->kind == CADRE_WIRE_KNOCK || handler->kind == CADRE_WIRE_HELLO;
	if (end && first && cad_ucx_stays(end))
		return UCS_OK;
	if (!end || handler->kind == CADRE_WIRE_KNOCK || cad_ucx_is_knocking(link, end)) {
		if (named)
			cad_ucx_stranger(link, parameters->reply_ep, handler->kind, header, header ? header_bytes : 0);
		return UCS_OK;
	}

	if (!end->heard)
		cad_ucx_peer_heard(link, end);
	bool remote = parameters->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV,
	     keepable = parameters->recv_attr & UCP_AM_RECV_ATTR_FLAG_DATA;
	struct cad_link_payload payload = {
		.bytes = bytes,
		.data = remote ? NULL : data,
		.handle = bytes ? data : NULL,
		.keepable = !remote && keepable,
	};
	link->current = data;
	link->current_received = false;
	bool kept =
		link->options.events->message(end->owner, handler->kind, header, header ? header_bytes : 0, &payload);
	link->current = NULL;
	if (!kept || bytes == 0)
		return UCS_OK;
	if (link->current_received)
		return remote ? UCS_INPROGRESS : UCS_OK;
	link->kept++;

	return UCS_INPROGRESS; /* only this or UCS_OK: anything else is an assertion in UCX */
}

/* UCX no longer keeps the payload, but inside the callback that delivered it the callback's result
 * says so. */
static void payload_let_go(struct cad_ucx_link *link, const struct cad_link_payload *payload)
{
	if (link->current == payload->handle) {
		link->current_received = true;
		return;
	}
	link->kept--;
	if (payload->data)
		ucp_am_data_release(link->worker, payload->handle);
}

static void on_received(void *request, ucs_status_t status, size_t bytes, void *op)
{
	(void)bytes;
	cad_ucx_operation_done(request, op, status);
}

static enum cad_status ucx_receive(struct cad_link_end *end, const struct cad_link_payload *payload,
	struct cad_buffer *buffer, struct cad_link_op *op)
{
	struct cad_ucx_link *link = end->link;
	CAD_ASSERT(payload->bytes <= buffer->capacity); /* a smaller buffer is an overrun in UCX */

	if (payload->data) {
		memcpy(buffer->bytes, payload->data, payload->bytes);
		payload_let_go(link, payload);
		return CAD_OK;
	}

	payload_let_go(link, payload);
	ucp_request_param_t parameters = {
		.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA |
			UCP_OP_ATTR_FIELD_MEMORY_TYPE | UCP_OP_ATTR_FIELD_MEMH,
		.cb.recv_am = on_received,
		.user_data = op,
		.memory_type = UCS_MEMORY_TYPE_HOST,
		.memh = ((struct cad_ucx_registration *)buffer->registration)->memory,
	};
	op->link_private[0] = end;
	end->operations++;
	ucs_status_ptr_t request =
		ucp_am_recv_data_nbx(link->worker, payload->handle, buffer->bytes, payload->bytes, &parameters);
	if (request && !UCS_PTR_IS_ERR(request))
		return CAD_AGAIN;
	end->operations--;

	return request ? CAD_ERR_PEER_LOST : CAD_OK;
}

static void ucx_release(struct cad_link *base, const struct cad_link_payload *payload)
{
	struct cad_ucx_link *link = (struct cad_ucx_link *)base;
	CAD_ASSERT(link->current != payload->handle);
	link->kept--;
	ucp_am_data_release(link->worker, payload->handle);
}

/* ---- the wedge ---- */

/* BUSY for long, and progress finds nothing: a peer died between taking a place in our
 * shared-memory queue and filling it. This worker no longer receives anything. */
static void wedge_watch(struct cad_ucx_link *link)
{
	uint64_t now = cad_clock_now_ns(&cad_clock_system);
	if (link->busy_since_ns == 0)
		link->busy_since_ns = now;
	if (++link->busy_count > WEDGED_TRIES && now - link->busy_since_ns > WEDGED_NS)
		link->wedged = true;
}

void cad_link_ucx_wedge(struct cad_link *base) { ((struct cad_ucx_link *)base)->wedged = true; }

/* UCX does not bind a port that the system still holds for closed connections, and looks for ever
 * for one of a range that has none left: so it is given one port that is free. The variable is
 * there already when other threads run, and only its value is another. */
static enum cad_status worker_start(struct cad_ucx_link *link, struct cad_error *error)
{
	unsigned first = link->port, last = first + CAD_UCX_PORTS - 1;
	char range[16];
	if (first == 0)
		return cad_ucx_context_start(link, error);

	for (unsigned port = first; port <= last && port <= UINT16_MAX; port++) {
		if (!cad_ucx_port_is_free(link->host, (uint16_t)port))
			continue;
		snprintf(range, sizeof range, "%u-%u", port, port);
		setenv("UCX_TCP_PORT_RANGE", range, 1);
		if (cad_ucx_context_start(link, error) == CAD_OK)
			return CAD_OK;
		cad_ucx_context_destroy(link);
	}
	return cad_error_set(error, CAD_ERR_IO,
		"its %u ports from %u on are in use, or held by the system for a minute after the connections of a process that has ended",
		CAD_UCX_PORTS, first);
}

static enum cad_status worker_anew(struct cad_ucx_link *link, struct cad_error *error)
{
	cad_ucx_peers_forget(link);
	cad_ucx_context_destroy(link);
	return worker_start(link, error);
}

static size_t wedge_repair(struct cad_ucx_link *link)
{
	for (uint32_t i = 0; i < link->options.connections_max; i++)
		cad_ucx_end_lost(&link->ends[i], CAD_ERR_CANCELLED, "UCX is being restarted in this process");
	if (link->open > 0 || link->kept > 0)
		return 0;
	struct cad_error error;
	if (worker_anew(link, &error) !=
		CAD_OK) { /* not even UCX starts any longer: a supervisor must restart the process */
		fprintf(stderr, "%s\n", error.text);
		abort();
	}

	link->wedged = false;
	link->busy_since_ns = link->busy_count = 0;
	link->base.rebuilds++;

	return 1;
}

/* ---- running ---- */

static size_t ucx_progress(struct cad_link *base)
{
	struct cad_ucx_link *link = (struct cad_ucx_link *)base;
	size_t moved = ucp_worker_progress(link->worker);

	if (moved > 0)
		link->busy_since_ns = link->busy_count = link->empty_wakes = 0;
	if (!link->wedged)
		moved += cad_ucx_peers_attend(link);
	moved += cad_ucx_ends_closed(link);
	if (link->wedged)
		moved += wedge_repair(link);
	return moved;
}

static bool woken(struct cad_ucx_link *link)
{
	cad_waker_take(link->waker);
	return atomic_exchange_explicit(&link->woken, false, memory_order_acq_rel);
}

static bool ucx_wait(struct cad_link *base, uint64_t until_ns)
{
	struct cad_ucx_link *link = (struct cad_ucx_link *)base;
	uint64_t now = cad_clock_now_ns(base->clock);

	if (woken(link))
		return true;

	for (uint64_t spin_end = now + link->spin_ns; now < spin_end && now < until_ns;
		now = cad_clock_now_ns(base->clock))
		if (ucx_progress(base) > 0)
			return false;
	if (until_ns <= now)
		return false;
	uint64_t timeout = until_ns - now;
	if (link->wedged) { /* it is never quiet, so it cannot be slept upon */
		cad_waker_sleep((int[]){ link->waker->fd }, 1, timeout < CAD_NS_PER_MS ? timeout : CAD_NS_PER_MS);
		return woken(link);
	}
	/* UCX asks when it may write to a process that is stopped, and has nothing to write
	 * before that one answers: its descriptor is readable all the while. What comes
	 * meanwhile waits for so long. */
	if (link->empty_wakes >= EMPTY_WAKES_MAX) {
		link->empty_wakes--; /* the next wait sees whether it still is */
		cad_waker_sleep((int[]){ link->waker->fd }, 1, timeout < EMPTY_WAKE_NS ? timeout : EMPTY_WAKE_NS);
		return woken(link);
	}

	ucs_status_t status = ucp_worker_arm(link->worker); /* right before sleeping, always */
	if (status != UCS_OK) {
		wedge_watch(link);
		return false;
	}

	link->busy_since_ns = link->busy_count = 0;
	link->empty_wakes += cad_waker_sleep((int[]){ link->event_fd, link->waker->fd }, 2, timeout);
	return woken(link);
}

static void ucx_wake(struct cad_link *base)
{
	struct cad_ucx_link *link = (struct cad_ucx_link *)base;
	atomic_store_explicit(&link->woken, true, memory_order_release);
	cad_waker_signal(link->waker);
}

/* ---- addresses ---- */

/* What UCX reads when it makes a worker; there is no other way to tell it. */
static void variable_set(const char *name, const char *value, char **before)
{
	const char *old = getenv(name);
	*before = old ? strdup(old) : NULL;
	if (value)
		setenv(name, value, 1);
}

static void variable_back(const char *name, const char *before)
{
	if (before)
		setenv(name, before, 1);
	else
		unsetenv(name);
}

static void listen_forget(struct cad_ucx_link *link)
{
	if (!link->listens)
		return;
	variable_back("UCX_TCP_PORT_RANGE", link->ports_before);
	variable_back("UCX_TCP_AF_PRIO", link->family_before);
	free(link->ports_before);
	free(link->family_before);
	link->listens = false;
	link->port = 0;
}

/* A worker listens from its first moment: so this makes another one, there. Port and family stay in
 * the environment as long as the link lives, for when its worker must be rebuilt. */
static enum cad_status listen_at(
	struct cad_ucx_link *link, const struct cad_address *address, char *devices, struct cad_error *error)
{
	char *devices_before = link->devices;
	listen_forget(link);
	link->listens = true;
	link->port = address->port;
	snprintf(link->host, sizeof link->host, "%s", address->host);
	variable_set("UCX_TCP_PORT_RANGE", NULL, &link->ports_before);
	variable_set("UCX_TCP_AF_PRIO", address->v6 ? "inet6,inet" : NULL, &link->family_before);

	link->devices = devices;
	enum cad_status status = worker_anew(link, error);
	if (status != CAD_OK) { /* as it was, so that it can still be closed, or listen elsewhere */
		struct cad_error ignored;
		listen_forget(link);
		link->devices = devices_before;
		devices_before = devices;
		(void)!worker_anew(link, &ignored);
	}

	free(devices_before);
	return status;
}

static enum cad_status ucx_listen(struct cad_link *base, const char *text, struct cad_error *error)
{
	struct cad_ucx_link *link = (struct cad_ucx_link *)base;
	struct cad_address address;
	char interface[IF_NAMESIZE];
	enum cad_status status =
		cad_ucx_listen_check(text, link->devices_asked ? link->devices : NULL, &address, interface, error);

	if (status != CAD_OK)
		return status;
	if (link->open > 0)
		return cad_error_set(
			error, CAD_ERR_INVALID, "listening on '%s': this transport has connections already", text);
	char *devices = strdup(link->devices_asked || !interface[0] ? link->devices : interface);
	if (!devices)
		return cad_error_set(error, CAD_ERR_MEMORY, "out of memory for a UCX transport");

	struct cad_error why;
	status = listen_at(link, &address, devices, &why);
	if (status != CAD_OK)
		return cad_error_set(error, status, "the exchange cannot listen on '%s': %s", text, why.text);
	return CAD_OK;
}

static const char *ucx_address(const struct cad_link *base) { return ((const struct cad_ucx_link *)base)->address; }

static enum cad_status ucx_connect(
	struct cad_link *base, const char *text, void *owner, struct cad_link_end **out, struct cad_error *error)
{
	struct cad_ucx_link *link = (struct cad_ucx_link *)base;
	struct cad_exchange_address address;
	enum cad_status status = cad_ucx_address_read(text, &address, error);

	if (status != CAD_OK)
		return status;
	struct cad_ucx_peer *peer = cad_ucx_peer(link, &address);
	if (peer && ++peer->unanswered > CAD_UCX_UNANSWERED_MAX)
		link->wedged = true;
	if (!peer || link->wedged)
		return cad_error_set(error, CAD_ERR_UNREACHABLE,
			"connecting to '%s': UCX is being restarted; try again later", address.host);
	if (peer->unusable)
		return cad_error_set(error, CAD_ERR_UNREACHABLE,
			"connecting to '%s': UCX has no way there from '%s': see --ucx-devices on both sides",
			address.host, link->devices);

	struct cad_link_end *end = cad_ucx_end_get(link, owner);
	if (!end)
		return cad_error_set(
			error, CAD_ERR_EXHAUSTED, "connecting to '%s': too many connections", address.host);
	ucs_status_t result = cad_ucx_knock(end, peer);
	if (result != UCS_OK) {
		cad_ucx_end_put(end);
		return cad_error_set(error, CAD_ERR_UNREACHABLE, "connecting to '%s' from '%s': %s", address.host,
			link->devices, ucs_status_string(result));
	}

	*out = end;
	return CAD_OK;
}

/* ---- creation ---- */

static void ucx_destroy(struct cad_link *base)
{
	struct cad_ucx_link *link = (struct cad_ucx_link *)base;
	CAD_ASSERT(link->open == 0 && link->kept == 0);
	cad_ucx_peers_forget(link);
	cad_ucx_context_destroy(link);
	cad_ucx_peers_free(link);
	listen_forget(link);
	while (link->registrations) {
		struct cad_ucx_registration *registration = link->registrations;
		link->registrations = registration->next;
		cad_buffer_unmap(&registration->buffer);
		free(registration);
	}

	cad_waker_release(link->waker);
	free(link->ends);
	free(link->devices);
	free(link->transports);
	free(link);
}

static const struct cad_link_ops ucx_ops = {
	.name = "ucx",
	.listen = ucx_listen,
	.address = ucx_address,
	.announce = cad_ucx_announce,
	.connect = ucx_connect,
	.send = cad_ucx_send,
	.receive = ucx_receive,
	.release = ucx_release,
	.close = cad_ucx_end_close,
	.progress = ucx_progress,
	.wait = ucx_wait,
	.wake = ucx_wake,
	.buffer_create = cad_ucx_buffer_create,
	.buffer_destroy = cad_ucx_buffer_destroy,
	.destroy = ucx_destroy,
};

/* What was asked for, or what the environment says, or the default. */
static char *setting(const char *asked, const char *variable, const char *otherwise)
{
	const char *value = asked && *asked ? asked : getenv(variable);
	return strdup(value ? value : otherwise);
}

enum cad_status cad_link_ucx_create(
	const struct cad_link_options *options, void *context, struct cad_link **out, struct cad_error *error)
{
	const struct cad_ucx_options none = { .devices = NULL }, *ucx = context ? context : &none;
	struct cad_ucx_link *link = calloc(1, sizeof *link);

	if (!link)
		return cad_error_set(error, CAD_ERR_MEMORY, "out of memory for a UCX transport");

	link->base = (struct cad_link){ .ops = &ucx_ops, .clock = options->clock };
	link->options = *options;
	link->spin_ns = ucx->spin_us * CAD_NS_PER_US;
	link->on_message = on_message;
	link->devices = setting(ucx->devices, "UCX_NET_DEVICES", "lo");
	link->devices_asked = (ucx->devices && *ucx->devices) || getenv("UCX_NET_DEVICES");
	link->transports = setting(ucx->transports, "UCX_TLS", "tcp");
	link->ends = calloc(options->connections_max, sizeof *link->ends);
	for (uint8_t kind = 0; kind < CADRE_WIRE_KIND_COUNT; kind++)
		link->handlers[kind] = (struct cad_ucx_handler){ link, kind };
	enum cad_status status =
		link->devices && link->transports && link->ends ? cad_waker_create(&link->waker) : CAD_ERR_MEMORY;
	if (status != CAD_OK) {
		cad_error_set(error, status, "no memory or no file descriptor for a UCX transport: see ulimit -n");
		goto destroy_link;
	}

	link->shared_memory = names_shared_memory(link->transports);
	status = ucx->listen && *ucx->listen ? ucx_listen(&link->base, ucx->listen, error)
					     : cad_ucx_context_start(link, error);
	if (status != CAD_OK)
		goto destroy_link;
	*out = &link->base;
	return CAD_OK;

destroy_link:
	ucx_destroy(&link->base);
	return status;
}

enum cad_status cad_transport_ucx_check(const char *listen, const char *devices, struct cad_error *error)
{
	struct cad_address address;
	char interface[IF_NAMESIZE];
	const char *asked = devices && *devices ? devices : getenv("UCX_NET_DEVICES");
	return listen && *listen ? cad_ucx_listen_check(listen, asked, &address, interface, error) : CAD_OK;
}

enum cad_status cad_transport_ucx_try(const struct cad_ucx_options *ucx, struct cad_error *error)
{
	const struct cad_link_options options = { .clock = &cad_clock_system, .connections_max = 1, .sends_max = 1 };
	const char *devices = ucx->devices && *ucx->devices ? ucx->devices : getenv("UCX_NET_DEVICES");
	struct cad_ucx_options tried = *ucx;
	struct cad_address address;
	char interface[IF_NAMESIZE] = "";
	struct cad_link *link;
	enum cad_status status = CAD_OK;

	tried.listen = NULL; /* its port may be taken, by the very process that runs with these options */
	if (ucx->listen && *ucx->listen)
		status = cad_ucx_listen_check(ucx->listen, devices, &address, interface, error);
	if (!devices && interface[0])
		tried.devices = interface;
	if (status == CAD_OK)
		status = cad_link_ucx_create(&options, &tried, &link, error);
	if (status == CAD_OK)
		link->ops->destroy(link);
	return status;
}

enum cad_status cad_transport_ucx_create(const struct cad_transport_options *options, const struct cad_ucx_options *ucx,
	struct cad_transport **transport, struct cad_error *error)
{
	return cad_transport_create(options, cad_link_ucx_create, (void *)(uintptr_t)ucx, transport, error);
}
