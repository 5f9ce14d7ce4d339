/*
 * The UCX link: active messages between workers, one context and one worker a transport, in SINGLE mode.
 *
 * Measured on UCX 1.13 to 1.20; what is done here and why:
 * - Every message carries UCP_AM_SEND_FLAG_REPLY: the reply endpoint is the only trustworthy identity of a sender.
 * - All 65,536 message ids have a handler, registered in ascending order: UCX 1.13 to 1.20 index the table with the id from the wire before checking it.
 * - Endpoints are in error handling mode PEER. Nothing is closed inside a UCX callback: the upper hears `lost`, closes later, and the end is gone
 *   when every operation of it has come back.
 * - Calls are taken with PERSISTENT_DATA: an eager payload is used where UCX put it and released later, but never inside the callback that brought it.
 *   Large payloads stay at the sender (rendezvous) until there is a buffer.
 * - Shared memory (not the default): a peer that dies while it writes can leave this worker deaf for ever. The sign is a worker that is always BUSY to arm and
 *   never progresses; then all connections are given up, and worker and context are made anew on the same port.
 */
#include "common/transport_link.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <ucp/api/ucp.h>

enum {
	ACCEPTS_MAX = 64,
	HOST_BYTES = 256,
	RENDEZVOUS_BYTES = 256 << 10,      /* over a network: eager below */
	WEDGED_TRIES = 1000,
	PAYLOAD_ALIGNMENT = 64,
};
static const uint64_t WEDGED_NS = 300 * CAD_NS_PER_MS, QUIET_NS = 20 * CAD_NS_PER_MS, QUIET_NS_MAX = 2 * CAD_NS_PER_S;

struct handler { struct ucx_link *link; uint8_t kind; };

/* A piece of memory and its registration; outlives a rebuilt context. */
struct registration {
	ucp_mem_h memory;
	struct cad_buffer buffer;
	struct registration *next, **previous;
};

enum end_state { END_FREE, END_OPEN, END_CLOSING };
struct cad_link_end {
	struct ucx_link *link;
	void *owner;
	ucp_ep_h endpoint;
	enum end_state state;
	bool close_pending, same_host, lost_said;
	uint32_t operations;               /* UCX still has memory of the upper's */
};

struct ucx_link {
	struct cad_link base;
	struct cad_link_options options;
	char *devices, *transports;        /* NULL: what the environment says, or the defaults */
	bool shared_memory;
	uint64_t spin_ns;
	ucp_context_h context;
	ucp_worker_h worker;
	ucp_listener_h listener;
	int event_fd;
	struct cad_waker *waker;
	_Atomic bool woken;
	struct handler handlers[CADRE_WIRE_KIND_COUNT];
	struct cad_link_end *ends;
	uint32_t open;                     /* ends that are not FREE */
	uint32_t kept;                     /* payloads of this worker that the upper keeps */
	ucp_conn_request_h accepts[ACCEPTS_MAX];
	uint32_t accepts_count;
	struct registration *registrations;
	const void *current;               /* the payload whose callback is running */
	bool current_received;
	uint64_t busy_since_ns;
	uint32_t busy_count;
	bool wedged;
	struct sockaddr_storage listen_address;
	socklen_t listen_address_bytes;
	char address[HOST_BYTES + 16];
};

/* ---- settings ---- */

void cad_transport_ucx_environment(char **argv)
{
	static const char *const settings[][2] = {
		{ "UCX_TCP_CM_REUSEADDR", "y" },       /* or a restarted process cannot bind its port */
		{ "UCX_TCP_PUT_ENABLE", "n" },          /* 1.13 aborts (tcp_ep.c:939) when a live peer is closed while it takes a large message */
		{ "UCX_TCP_CONN_NB", "y" },            /* a server connects back to its client: blocking, one bad client would stall it for seconds */
		{ "UCX_TCP_SNDBUF", "4M" },            /* large messages: up to three times faster */
		{ "UCX_TCP_RCVBUF", "4M" },
		{ "UCX_TCP_RX_SEG_SIZE", "512K" },
		{ "UCX_TCP_KEEPIDLE", "2s" },          /* an idle dead link is seen in 5 s, not in 28 s */
		{ "UCX_TCP_KEEPINTVL", "1s" },
		{ "UCX_TCP_KEEPCNT", "3" },
		{ "UCX_POSIX_ERROR_HANDLING", "y" },   /* or shared memory is never used with error handling */
		{ "UCX_SYSV_ERROR_HANDLING", "y" },
		{ "UCX_CMA_MEMORY_INVALIDATE", "y" },  /* or large transfers go over TCP all the same */
		{ "UCX_POSIX_SEG_SIZE", "20K" },       /* a row of 16 KB in one piece; never above 64K, the length has 16 bits */
		{ "UCX_SYSV_SEG_SIZE", "20K" },
	};
	static const char *const early[][2] = {        /* read before main */
		{ "UCX_HANDLE_ERRORS", "none" },       /* SIGSEGV and its like are the program's */
		{ "UCX_DEBUG_SIGNO", "0" },            /* so is SIGHUP */
		{ "UCX_VFS_ENABLE", "n" },             /* no thread of its own */
		{ "UCX_WARN_UNUSED_ENV_VARS", "n" },
	};
	for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
		setenv(settings[i][0], settings[i][1], 0);
	bool again = false;
	for (size_t i = 0; i < sizeof early / sizeof *early; i++) {
		again |= !getenv(early[i][0]);
		setenv(early[i][0], early[i][1], 0);
	}
	if (!argv || !again || getenv("CADRE_UCX_STARTED_AGAIN"))
		return;
	setenv("CADRE_UCX_STARTED_AGAIN", "1", 1);
	char path[4096];
	ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);   /* its target, so that the process keeps its name */
	if (length > 0) {
		path[length] = 0;
		execv(path, argv);   /* when it fails, UCX merely keeps its own signal handlers */
	}
}

static bool names_shared_memory(const char *transports)
{
	static const char *const names[] = { "posix", "sysv", "cma", "knem", "xpmem", "shm", "sm", "mm", "all", "shared_memory", "^" };
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (strstr(transports, names[i]))
			return true;
	return false;
}

static enum cad_status ucx_failed(struct cad_error *error, const char *what, ucs_status_t status) { return cad_error_set(error, CAD_ERR_IO, "UCX: %s: %s", what, ucs_status_string(status)); }

/* ---- ends ---- */

static struct cad_link_end *end_get(struct ucx_link *link, void *owner)
{
	for (uint32_t i = 0; i < link->options.connections_max; i++) {
		struct cad_link_end *end = &link->ends[i];
		if (end->state != END_FREE)
			continue;
		*end = (struct cad_link_end){ .link = link, .owner = owner, .state = END_OPEN };
		link->open++;
		return end;
	}
	return NULL;
}

static void end_put(struct cad_link_end *end)
{
	end->state = END_FREE;
	end->link->open--;
}

static void end_lost(struct cad_link_end *end, enum cad_status status, const char *text)
{
	if (end->state != END_OPEN || end->lost_said)
		return;
	end->lost_said = true;
	end->link->options.events->lost(end->owner, status, text);
}

static void on_error(void *context, ucp_ep_h endpoint, ucs_status_t status)
{
	(void)endpoint;
	bool unreachable = status == UCS_ERR_NOT_CONNECTED || status == UCS_ERR_UNREACHABLE || status == UCS_ERR_REJECTED;
	end_lost(context, unreachable ? CAD_ERR_UNREACHABLE : CAD_ERR_PEER_LOST, ucs_status_string(status));
}

static ucs_status_t endpoint_open(struct cad_link_end *end, ucp_ep_params_t *parameters)
{
	parameters->field_mask |= UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE | UCP_EP_PARAM_FIELD_ERR_HANDLER;
	parameters->err_mode = UCP_ERR_HANDLING_MODE_PEER;   /* both ends must say the same */
	parameters->err_handler.cb = on_error;
	parameters->err_handler.arg = end;
	return ucp_ep_create(end->link->worker, parameters, &end->endpoint);
}

/* A hint for how to send, nothing more. */
static bool address_is_here(const struct sockaddr_storage *address)
{
	struct ifaddrs *list;
	bool here = false;
	if (getifaddrs(&list) != 0)
		return false;
	for (struct ifaddrs *at = list; at && !here; at = at->ifa_next) {
		if (!at->ifa_addr || at->ifa_addr->sa_family != address->ss_family)
			continue;
		if (address->ss_family == AF_INET)
			here = memcmp(&((const struct sockaddr_in *)(const void *)at->ifa_addr)->sin_addr, &((const struct sockaddr_in *)address)->sin_addr, sizeof(struct in_addr)) == 0;
		else if (address->ss_family == AF_INET6)
			here = memcmp(&((const struct sockaddr_in6 *)(const void *)at->ifa_addr)->sin6_addr, &((const struct sockaddr_in6 *)address)->sin6_addr, sizeof(struct in6_addr)) == 0;
	}
	freeifaddrs(list);
	return here;
}

static struct cad_link_end *end_of(struct ucx_link *link, const ucp_am_recv_param_t *parameters)
{
	if (!(parameters->recv_attr & UCP_AM_RECV_ATTR_FIELD_REPLY_EP))
		return NULL;
	for (uint32_t i = 0; i < link->options.connections_max; i++)
		if (link->ends[i].state == END_OPEN && link->ends[i].endpoint == parameters->reply_ep)
			return &link->ends[i];
	return NULL;
}

/* ---- messages ---- */

static ucs_status_t on_message(void *context, const void *header, size_t header_bytes, void *data, size_t bytes, const ucp_am_recv_param_t *parameters)
{
	struct handler *handler = context;
	struct ucx_link *link = handler->link;
	struct cad_link_end *end = end_of(link, parameters);
	if (!end)
		return UCS_OK;   /* nobody that we know; for a rendezvous this tells the sender "done" and moves nothing */
	bool remote = parameters->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV, keepable = parameters->recv_attr & UCP_AM_RECV_ATTR_FLAG_DATA;
	struct cad_link_payload payload = { .bytes = bytes, .data = remote ? NULL : data, .handle = bytes ? data : NULL, .keepable = !remote && keepable };
	link->current = data;
	link->current_received = false;
	bool kept = link->options.events->message(end->owner, handler->kind, header, header ? header_bytes : 0, &payload);
	link->current = NULL;
	if (!kept || bytes == 0)
		return UCS_OK;
	if (link->current_received)
		return remote ? UCS_INPROGRESS : UCS_OK;
	link->kept++;
	return UCS_INPROGRESS;   /* only this or UCS_OK: anything else is an assertion in UCX */
}

static void operation_done(void *request, struct cad_link_op *op, ucs_status_t status)
{
	struct cad_link_end *end = op->link_private[0];
	if (request)
		ucp_request_free(request);
	end->operations--;
	op->done(op, status == UCS_OK ? CAD_OK : CAD_ERR_PEER_LOST);
}

static void on_sent(void *request, ucs_status_t status, void *op) { operation_done(request, op, status); }

static void on_received(void *request, ucs_status_t status, size_t bytes, void *op)
{
	(void)bytes;
	operation_done(request, op, status);
}

/* UCX decides by guesses of link speed, and differently in every version. Shared memory is left to it: rendezvous above the segment size must stay. */
static uint32_t send_flags(const struct cad_link_end *end, size_t bytes)
{
	uint32_t flags = UCP_AM_SEND_FLAG_REPLY;
	if (end->same_host && end->link->shared_memory)
		return flags;
	return flags | (bytes >= RENDEZVOUS_BYTES ? UCP_AM_SEND_FLAG_RNDV : UCP_AM_SEND_FLAG_EAGER);
}

static enum cad_status ucx_send(struct cad_link_end *end, const struct cad_link_message *message, struct cad_link_op *op)
{
	ucp_request_param_t parameters = { .op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_FLAGS | UCP_OP_ATTR_FIELD_MEMORY_TYPE,
		                           .cb.send = on_sent,
		                           .user_data = op,
		                           .flags = send_flags(end, message->payload_bytes),
		                           .memory_type = UCS_MEMORY_TYPE_HOST };
	CAD_ASSERT(end->state == END_OPEN);
	if (message->buffer) {
		parameters.op_attr_mask |= UCP_OP_ATTR_FIELD_MEMH;
		parameters.memh = ((struct registration *)message->buffer->registration)->memory;
	}
	op->link_private[0] = end;
	end->operations++;
	ucs_status_ptr_t request = ucp_am_send_nbx(end->endpoint, message->kind, message->header, message->header_bytes, message->payload, message->payload_bytes, &parameters);
	if (request && !UCS_PTR_IS_ERR(request))
		return CAD_AGAIN;
	end->operations--;
	return request ? CAD_ERR_PEER_LOST : CAD_OK;
}

/* The payload is not UCX's to keep any more, but inside the callback that brought it the callback's result says so. */
static void payload_let_go(struct ucx_link *link, const struct cad_link_payload *payload)
{
	if (link->current == payload->handle) {
		link->current_received = true;
		return;
	}
	link->kept--;
	if (payload->data)
		ucp_am_data_release(link->worker, payload->handle);
}

static enum cad_status ucx_receive(struct cad_link_end *end, const struct cad_link_payload *payload, struct cad_buffer *buffer, struct cad_link_op *op)
{
	struct ucx_link *link = end->link;
	CAD_ASSERT(payload->bytes <= buffer->capacity);   /* a smaller buffer is an overrun in UCX */
	if (payload->data) {
		memcpy(buffer->bytes, payload->data, payload->bytes);
		payload_let_go(link, payload);
		return CAD_OK;
	}
	payload_let_go(link, payload);
	ucp_request_param_t parameters = { .op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_MEMORY_TYPE | UCP_OP_ATTR_FIELD_MEMH,
		                           .cb.recv_am = on_received,
		                           .user_data = op,
		                           .memory_type = UCS_MEMORY_TYPE_HOST,
		                           .memh = ((struct registration *)buffer->registration)->memory };
	op->link_private[0] = end;
	end->operations++;
	ucs_status_ptr_t request = ucp_am_recv_data_nbx(link->worker, payload->handle, buffer->bytes, payload->bytes, &parameters);
	if (request && !UCS_PTR_IS_ERR(request))
		return CAD_AGAIN;
	end->operations--;
	return request ? CAD_ERR_PEER_LOST : CAD_OK;
}

static void ucx_release(struct cad_link *base, const struct cad_link_payload *payload)
{
	struct ucx_link *link = (struct ucx_link *)base;
	CAD_ASSERT(link->current != payload->handle);
	link->kept--;
	ucp_am_data_release(link->worker, payload->handle);
}

/* ---- closing ---- */

static void on_endpoint_closed(void *request, ucs_status_t status, void *context)
{
	(void)status;
	((struct cad_link_end *)context)->close_pending = false;
	ucp_request_free(request);
}

static void ucx_close(struct cad_link_end *end)
{
	CAD_ASSERT(end->state == END_OPEN);
	end->state = END_CLOSING;
	if (!end->endpoint)
		return;
	ucp_request_param_t parameters = { .op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS | UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA,
		                           .flags = UCP_EP_CLOSE_FLAG_FORCE,   /* no farewell to a peer that may be gone; all operations come back with an error */
		                           .cb.send = on_endpoint_closed,
		                           .user_data = end };
	end->close_pending = true;
	ucs_status_ptr_t request = ucp_ep_close_nbx(end->endpoint, &parameters);
	if (!request || UCS_PTR_IS_ERR(request))
		end->close_pending = false;
}

static size_t ends_closed(struct ucx_link *link)
{
	size_t closed = 0;
	for (uint32_t i = 0; i < link->options.connections_max && link->open > 0; i++) {
		struct cad_link_end *end = &link->ends[i];
		if (end->state != END_CLOSING || end->close_pending || end->operations > 0)
			continue;
		end_put(end);
		link->options.events->closed(end->owner);
		closed++;
	}
	return closed;
}

/* ---- context and worker ---- */

static void on_connect(ucp_conn_request_h request, void *context)
{
	struct ucx_link *link = context;
	if (link->accepts_count == ACCEPTS_MAX || link->wedged)
		ucp_listener_reject(link->listener, request);
	else
		link->accepts[link->accepts_count++] = request;   /* the endpoint is made outside this callback */
}

static size_t accept_waiting(struct ucx_link *link)
{
	uint32_t count = link->accepts_count;
	link->accepts_count = 0;
	for (uint32_t i = 0; i < count; i++) {
		ucp_conn_request_attr_t attributes = { .field_mask = UCP_CONN_REQUEST_ATTR_FIELD_CLIENT_ADDR };
		ucs_status_t known = ucp_conn_request_query(link->accepts[i], &attributes);
		struct cad_link_end *end = end_get(link, NULL);
		void *owner = end ? link->options.events->accept(link->options.upper, end) : NULL;
		if (!owner) {
			ucp_listener_reject(link->listener, link->accepts[i]);
			if (end)
				end_put(end);
			continue;
		}
		end->owner = owner;
		end->same_host = known == UCS_OK && address_is_here(&attributes.client_address);
		ucp_ep_params_t parameters = { .field_mask = UCP_EP_PARAM_FIELD_CONN_REQUEST, .conn_request = link->accepts[i] };
		ucs_status_t status = endpoint_open(end, &parameters);
		if (status != UCS_OK) {
			end->endpoint = NULL;
			end_lost(end, CAD_ERR_PEER_LOST, ucs_status_string(status));
		}
	}
	return count;
}

static enum cad_status context_create(struct ucx_link *link, struct cad_error *error)
{
	ucp_config_t *config;
	ucs_status_t status = ucp_config_read(NULL, NULL, &config);
	if (status != UCS_OK)
		return ucx_failed(error, "reading UCX_* from the environment", status);
	if (link->transports)
		status = ucp_config_modify(config, "TLS", link->transports);
	if (status == UCS_OK && link->devices)
		status = ucp_config_modify(config, "NET_DEVICES", link->devices);
	ucp_params_t parameters = { .field_mask = UCP_PARAM_FIELD_FEATURES | UCP_PARAM_FIELD_ESTIMATED_NUM_EPS | UCP_PARAM_FIELD_MT_WORKERS_SHARED | UCP_PARAM_FIELD_NAME,
		                    .features = UCP_FEATURE_AM | UCP_FEATURE_WAKEUP,
		                    .estimated_num_eps = link->options.connections_max,
		                    .mt_workers_shared = 0,
		                    .name = "cadre" };
	if (status == UCS_OK)
		status = ucp_init(&parameters, config, &link->context);
	ucp_config_release(config);
	return status == UCS_OK ? CAD_OK
	                        : cad_error_set(error, CAD_ERR_IO, "UCX: cannot start with transports '%s' on devices '%s': %s", link->transports ? link->transports : getenv("UCX_TLS"),
	                                        link->devices ? link->devices : getenv("UCX_NET_DEVICES"), ucs_status_string(status));
}

static ucs_status_t handlers_set(struct ucx_link *link)
{
	for (uint32_t id = 0; id <= UINT16_MAX; id++) {
		ucp_am_handler_param_t parameters = {
			.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_CB | UCP_AM_HANDLER_PARAM_FIELD_ARG | UCP_AM_HANDLER_PARAM_FIELD_FLAGS,
			.id = id,
			.cb = on_message,
			.arg = &link->handlers[id < CADRE_WIRE_KIND_COUNT ? id : 0],   /* kind 0 is none */
			.flags = UCP_AM_FLAG_WHOLE_MSG | (id == CADRE_WIRE_CALL ? UCP_AM_FLAG_PERSISTENT_DATA : 0),
		};
		ucs_status_t status = ucp_worker_set_am_recv_handler(link->worker, &parameters);
		if (status != UCS_OK)
			return status;
	}
	return UCS_OK;
}

static enum cad_status worker_create(struct ucx_link *link, struct cad_error *error)
{
	ucp_worker_params_t parameters = { .field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE | UCP_WORKER_PARAM_FIELD_AM_ALIGNMENT,
		                           .thread_mode = UCS_THREAD_MODE_SINGLE,
		                           .am_alignment = PAYLOAD_ALIGNMENT };
	ucs_status_t status = ucp_worker_create(link->context, &parameters, &link->worker);
	if (status != UCS_OK)
		return ucx_failed(error, "making a worker", status);
	if ((status = ucp_worker_get_efd(link->worker, &link->event_fd)) != UCS_OK)
		return ucx_failed(error, "making an event descriptor", status);
	ucp_worker_attr_t attributes = { .field_mask = UCP_WORKER_ATTR_FIELD_MAX_AM_HEADER };
	status = ucp_worker_query(link->worker, &attributes);
	if (status != UCS_OK || attributes.max_am_header < CAD_LINK_HEADER_BYTES_MAX)
		return cad_error_set(error, CAD_ERR_UNSUPPORTED, "UCX: headers of %zu bytes at most, %d are needed: use other transports (UCX_TLS)", attributes.max_am_header,
		                     CAD_LINK_HEADER_BYTES_MAX);
	if ((status = handlers_set(link)) != UCS_OK)
		return ucx_failed(error, "setting message handlers", status);
	return CAD_OK;
}

static ucs_status_t memory_map(struct ucx_link *link, struct registration *registration)
{
	ucp_mem_map_params_t parameters = { .field_mask = UCP_MEM_MAP_PARAM_FIELD_ADDRESS | UCP_MEM_MAP_PARAM_FIELD_LENGTH | UCP_MEM_MAP_PARAM_FIELD_MEMORY_TYPE,
		                            .address = registration->buffer.bytes,
		                            .length = registration->buffer.capacity,
		                            .memory_type = UCS_MEMORY_TYPE_HOST };
	return ucp_mem_map(link->context, &parameters, &registration->memory);
}

static enum cad_status memories_map(struct ucx_link *link, struct cad_error *error)
{
	for (struct registration *r = link->registrations; r; r = r->next) {
		ucs_status_t status = memory_map(link, r);
		if (status != UCS_OK)
			return ucx_failed(error, "registering memory again", status);
	}
	return CAD_OK;
}

static enum cad_status listener_create(struct ucx_link *link, struct cad_error *error)
{
	ucp_listener_params_t parameters = { .field_mask = UCP_LISTENER_PARAM_FIELD_SOCK_ADDR | UCP_LISTENER_PARAM_FIELD_CONN_HANDLER,
		                             .sockaddr = { .addr = (const struct sockaddr *)&link->listen_address, .addrlen = link->listen_address_bytes },
		                             .conn_handler = { .cb = on_connect, .arg = link } };
	ucs_status_t status = ucp_listener_create(link->worker, &parameters, &link->listener);
	if (status != UCS_OK) {
		link->listener = NULL;
		return cad_error_set(error, CAD_ERR_IO, "UCX: listening: %s", ucs_status_string(status));
	}
	ucp_listener_attr_t attributes = { .field_mask = UCP_LISTENER_ATTR_FIELD_SOCKADDR };
	if ((status = ucp_listener_query(link->listener, &attributes)) != UCS_OK)
		return ucx_failed(error, "asking for the port", status);
	link->listen_address = attributes.sockaddr;
	return CAD_OK;
}

/* A closed endpoint is still being taken apart inside; destroying the worker too early is an assertion in 1.13. */
static void context_destroy(struct ucx_link *link)
{
	for (uint32_t i = 0; i < link->accepts_count; i++)
		ucp_listener_reject(link->listener, link->accepts[i]);
	link->accepts_count = 0;
	if (link->listener)
		ucp_listener_destroy(link->listener);
	link->listener = NULL;
	if (link->worker) {
		uint64_t now = cad_clock_now_ns(&cad_clock_system), end = now + QUIET_NS_MAX, quiet = now + QUIET_NS;
		while ((now = cad_clock_now_ns(&cad_clock_system)) < quiet && now < end)
			if (ucp_worker_progress(link->worker) > 0)
				quiet = now + QUIET_NS;
	}
	for (struct registration *r = link->registrations; r; r = r->next)
		ucp_mem_unmap(link->context, r->memory);
	if (link->worker)
		ucp_worker_destroy(link->worker);
	link->worker = NULL;
	if (link->context)
		ucp_cleanup(link->context);
	link->context = NULL;
}

static enum cad_status context_start(struct ucx_link *link, struct cad_error *error)
{
	enum cad_status status = context_create(link, error);
	if (status == CAD_OK)
		status = worker_create(link, error);
	if (status == CAD_OK)
		status = memories_map(link, error);
	return status;
}

/* ---- the wedge ---- */

/* BUSY for long, and progress finds nothing: a peer died between taking a place in our shared-memory queue and filling it. This worker hears nobody any more. */
static void wedge_watch(struct ucx_link *link)
{
	uint64_t now = cad_clock_now_ns(&cad_clock_system);
	if (link->busy_since_ns == 0)
		link->busy_since_ns = now;
	if (++link->busy_count > WEDGED_TRIES && now - link->busy_since_ns > WEDGED_NS)
		link->wedged = true;
}

void cad_link_ucx_wedge(struct cad_link *base) { ((struct ucx_link *)base)->wedged = true; }

static size_t wedge_repair(struct ucx_link *link)
{
	for (uint32_t i = 0; i < link->options.connections_max; i++)
		end_lost(&link->ends[i], CAD_ERR_PEER_LOST, "a peer died while it wrote to this process's shared memory; starting UCX again");
	if (link->open > 0 || link->kept > 0)
		return 0;
	struct cad_error error;
	bool listening = link->listener != NULL;
	context_destroy(link);
	enum cad_status status = context_start(link, &error);
	if (status == CAD_OK && listening)
		status = listener_create(link, &error);
	if (status != CAD_OK) {   /* not even UCX starts any more: a supervisor must start the process again */
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
	struct ucx_link *link = (struct ucx_link *)base;
	size_t moved = ucp_worker_progress(link->worker);
	if (moved > 0)
		link->busy_since_ns = link->busy_count = 0;
	if (link->accepts_count > 0)
		moved += accept_waiting(link);
	moved += ends_closed(link);
	if (link->wedged)
		moved += wedge_repair(link);
	return moved;
}

static bool woken(struct ucx_link *link)
{
	cad_waker_take(link->waker);
	return atomic_exchange_explicit(&link->woken, false, memory_order_acq_rel);
}

static bool ucx_wait(struct cad_link *base, uint64_t until_ns)
{
	struct ucx_link *link = (struct ucx_link *)base;
	uint64_t now = cad_clock_now_ns(base->clock);
	if (woken(link))
		return true;
	for (uint64_t spin_end = now + link->spin_ns; now < spin_end && now < until_ns; now = cad_clock_now_ns(base->clock))
		if (ucx_progress(base) > 0)
			return false;
	if (until_ns <= now)
		return false;
	uint64_t timeout = until_ns - now;
	if (link->wedged) {   /* it is never quiet, so it cannot be slept upon */
		cad_link_sleep((int[]){ link->waker->fd }, 1, timeout < CAD_NS_PER_MS ? timeout : CAD_NS_PER_MS);
		return woken(link);
	}
	ucs_status_t status = ucp_worker_arm(link->worker);   /* right before sleeping, always */
	if (status != UCS_OK) {
		wedge_watch(link);
		return false;
	}
	link->busy_since_ns = link->busy_count = 0;
	cad_link_sleep((int[]){ link->event_fd, link->waker->fd }, 2, timeout);
	return woken(link);
}

static void ucx_wake(struct cad_link *base)
{
	struct ucx_link *link = (struct ucx_link *)base;
	atomic_store_explicit(&link->woken, true, memory_order_release);
	cad_waker_signal(link->waker);
}

/* ---- addresses ---- */

/* "host:port", "[v6]:port". Host names are looked up, which may block. */
static enum cad_status address_parse(const char *text, char host[HOST_BYTES], struct sockaddr_storage *address, socklen_t *bytes, struct cad_error *error)
{
	const char *colon = strrchr(text, ':');
	size_t length = colon ? (size_t)(colon - text) : 0;
	if (!colon || length == 0 || length >= HOST_BYTES || colon[1] == 0)
		return cad_error_set(error, CAD_ERR_INVALID, "'%s' is not an address: host:port is needed", text);
	memcpy(host, text, length);
	host[length] = 0;
	char bare[HOST_BYTES];
	bool brackets = host[0] == '[' && host[length - 1] == ']';
	snprintf(bare, sizeof bare, "%.*s", (int)(brackets ? length - 2 : length), host + brackets);
	struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV }, *found;
	int problem = getaddrinfo(bare, colon + 1, &hints, &found);
	if (problem != 0)
		return cad_error_set(error, CAD_ERR_INVALID, "'%s' is not an address: %s", text, gai_strerror(problem));
	memcpy(address, found->ai_addr, found->ai_addrlen);
	*bytes = found->ai_addrlen;
	freeaddrinfo(found);
	return CAD_OK;
}

static enum cad_status ucx_listen(struct cad_link *base, const char *address, struct cad_error *error)
{
	struct ucx_link *link = (struct ucx_link *)base;
	char host[HOST_BYTES];
	if (link->listener)
		return cad_error_set(error, CAD_ERR_INVALID, "listening on '%s': this transport listens on '%s' already", address, link->address);
	enum cad_status status = address_parse(address, host, &link->listen_address, &link->listen_address_bytes, error);
	if (status == CAD_OK)
		status = listener_create(link, error);
	if (status != CAD_OK)
		return cad_error_prefix(error, "%s", address);
	const struct sockaddr_storage *a = &link->listen_address;
	uint16_t port = a->ss_family == AF_INET6 ? ((const struct sockaddr_in6 *)a)->sin6_port : ((const struct sockaddr_in *)a)->sin_port;
	snprintf(link->address, sizeof link->address, "%s:%u", host, ntohs(port));
	return CAD_OK;
}

static const char *ucx_address(const struct cad_link *base) { return ((const struct ucx_link *)base)->address; }

static enum cad_status ucx_connect(struct cad_link *base, const char *address, void *owner, struct cad_link_end **out, struct cad_error *error)
{
	struct ucx_link *link = (struct ucx_link *)base;
	struct sockaddr_storage peer;
	socklen_t bytes;
	char host[HOST_BYTES];
	enum cad_status status = address_parse(address, host, &peer, &bytes, error);
	if (status != CAD_OK)
		return status;
	if (link->wedged)
		return cad_error_set(error, CAD_ERR_UNREACHABLE, "connecting to '%s': UCX is being started again, try later", address);
	struct cad_link_end *end = end_get(link, owner);
	if (!end)
		return cad_error_set(error, CAD_ERR_EXHAUSTED, "connecting to '%s': too many connections", address);
	end->same_host = address_is_here(&peer);
	ucp_ep_params_t parameters = { .field_mask = UCP_EP_PARAM_FIELD_FLAGS | UCP_EP_PARAM_FIELD_SOCK_ADDR,
		                       .flags = UCP_EP_PARAMS_FLAGS_CLIENT_SERVER,
		                       .sockaddr = { .addr = (const struct sockaddr *)&peer, .addrlen = bytes } };
	ucs_status_t result = endpoint_open(end, &parameters);
	if (result != UCS_OK) {
		end_put(end);
		return cad_error_set(error, CAD_ERR_UNREACHABLE, "connecting to '%s': %s", address, ucs_status_string(result));
	}
	*out = end;
	return CAD_OK;
}

/* ---- buffers ---- */

static enum cad_status ucx_buffer_create(struct cad_link *base, size_t bytes, struct cad_buffer *out)
{
	struct ucx_link *link = (struct ucx_link *)base;
	struct registration *registration = calloc(1, sizeof *registration);
	if (!registration)
		return CAD_ERR_MEMORY;
	enum cad_status status = cad_link_memory_create(bytes, &registration->buffer);
	if (status == CAD_OK && memory_map(link, registration) != UCS_OK) {
		cad_link_memory_destroy(&registration->buffer);
		status = CAD_ERR_MEMORY;
	}
	if (status != CAD_OK) {
		free(registration);
		return status;
	}
	registration->next = link->registrations;
	registration->previous = &link->registrations;
	if (registration->next)
		registration->next->previous = &registration->next;
	link->registrations = registration;
	*out = registration->buffer;
	out->registration = registration;
	return CAD_OK;
}

static void ucx_buffer_destroy(struct cad_link *base, struct cad_buffer *buffer)
{
	struct ucx_link *link = (struct ucx_link *)base;
	struct registration *registration = buffer->registration;
	*registration->previous = registration->next;
	if (registration->next)
		registration->next->previous = registration->previous;
	ucp_mem_unmap(link->context, registration->memory);
	cad_link_memory_destroy(&registration->buffer);
	free(registration);
	*buffer = (struct cad_buffer){ .bytes = NULL };
}

/* ---- creation ---- */

static void ucx_destroy(struct cad_link *base)
{
	struct ucx_link *link = (struct ucx_link *)base;
	CAD_ASSERT(link->open == 0 && link->kept == 0);
	context_destroy(link);
	while (link->registrations) {
		struct registration *registration = link->registrations;
		link->registrations = registration->next;
		cad_link_memory_destroy(&registration->buffer);
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
	.connect = ucx_connect,
	.send = ucx_send,
	.receive = ucx_receive,
	.release = ucx_release,
	.close = ucx_close,
	.progress = ucx_progress,
	.wait = ucx_wait,
	.wake = ucx_wake,
	.buffer_create = ucx_buffer_create,
	.buffer_destroy = ucx_buffer_destroy,
	.destroy = ucx_destroy,
};

/* What was asked for, or what the environment says, or the default. */
static char *setting(const char *asked, const char *variable, const char *otherwise)
{
	const char *value = asked ? asked : getenv(variable);
	return strdup(value ? value : otherwise);
}

enum cad_status cad_link_ucx_create(const struct cad_link_options *options, void *context, struct cad_link **out, struct cad_error *error)
{
	const struct cad_ucx_options none = { .devices = NULL }, *ucx = context ? context : &none;
	struct ucx_link *link = calloc(1, sizeof *link);
	if (!link)
		return cad_error_set(error, CAD_ERR_MEMORY, "out of memory for a UCX transport");
	link->base = (struct cad_link){ .ops = &ucx_ops, .clock = options->clock };
	link->options = *options;
	link->spin_ns = ucx->spin_us * CAD_NS_PER_US;
	link->devices = setting(ucx->devices, "UCX_NET_DEVICES", "lo");
	link->transports = setting(ucx->transports, "UCX_TLS", "tcp");
	link->ends = calloc(options->connections_max, sizeof *link->ends);
	for (uint8_t kind = 0; kind < CADRE_WIRE_KIND_COUNT; kind++)
		link->handlers[kind] = (struct handler){ link, kind };
	enum cad_status status = link->devices && link->transports && link->ends ? cad_waker_create(&link->waker) : CAD_ERR_MEMORY;
	if (status != CAD_OK) {
		cad_error_set(error, status, "no memory or no file descriptor for a UCX transport: see ulimit -n");
		goto destroy_link;
	}
	link->shared_memory = names_shared_memory(link->transports);
	if ((status = context_start(link, error)) != CAD_OK)
		goto destroy_link;
	*out = &link->base;
	return CAD_OK;
destroy_link:
	ucx_destroy(&link->base);
	return status;
}

enum cad_status cad_transport_ucx_create(const struct cad_transport_options *options, const struct cad_ucx_options *ucx, struct cad_transport **transport, struct cad_error *error)
{
	return cad_transport_create(options, cad_link_ucx_create, (void *)(uintptr_t)ucx, transport, error);
}
