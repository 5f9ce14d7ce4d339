/* SPDX-License-Identifier: Apache-2.0 */
/* UCX's side of the link: what it needs in the environment, context and worker, the worker's
 * address, registered memory. */
#include "common/transport/ucx/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sodium.h>

enum { PAYLOAD_ALIGNMENT = 64 };
static const uint64_t QUIET_NS = 20 * CAD_NS_PER_MS, QUIET_NS_MAX = 2 * CAD_NS_PER_S;

void cad_transport_ucx_environment(char **argv)
{
	static const char *const settings[][2] = {
		/* 1.13 aborts (tcp_ep.c:939) when a live peer is closed while it takes a large
		 * message */
		{ "UCX_TCP_PUT_ENABLE", "n" },
		/* a server connects back to its client: blocking, one bad client would stall it for
		 * seconds */
		{ "UCX_TCP_CONN_NB", "y" },
		{ "UCX_TCP_SNDBUF", "4M" }, /* large messages: up to three times faster */
		{ "UCX_TCP_RCVBUF", "4M" },
		{ "UCX_TCP_RX_SEG_SIZE", "512K" },
		{ "UCX_TCP_KEEPIDLE", "2s" }, /* an idle dead link is seen in 5 s, not in 28 s */
		{ "UCX_TCP_KEEPINTVL", "1s" },
		{ "UCX_TCP_KEEPCNT", "3" },
		{ "UCX_POSIX_ERROR_HANDLING", "y" }, /* or shared memory is never used with error handling */
		{ "UCX_SYSV_ERROR_HANDLING", "y" },
		{ "UCX_CMA_MEMORY_INVALIDATE", "y" }, /* or large transfers go over TCP all the same */
		/* a row of 16 KB in one piece; never above 64K, the length has 16 bits */
		{ "UCX_POSIX_SEG_SIZE", "20K" },
		{ "UCX_SYSV_SEG_SIZE", "20K" },
	};
	static const char *const early[][2] = {
		/* read before main */
		{ "UCX_HANDLE_ERRORS", "none" }, /* SIGSEGV and its like are the program's */
		{ "UCX_DEBUG_SIGNO", "0" },      /* so is SIGHUP */
		{ "UCX_VFS_ENABLE", "n" },       /* no thread of its own */
		/* no hooks in malloc, mmap and madvise: buffers are registered here, once (and
		 * ThreadSanitizer dies of them) */
		{ "UCX_MEM_EVENTS", "n" },
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

	/* its target, so that the process keeps its name */
	ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
	if (length > 0) {
		path[length] = 0;
		execv(path, argv); /* when it fails, UCX merely keeps its own signal handlers */
	}
}

static enum cad_status ucx_failed(struct cad_error *error, const char *what, ucs_status_t status)
{
	return cad_error_set(error, CAD_ERR_IO, "UCX: %s: %s", what, ucs_status_string(status));
}

/* ---- context and worker ---- */

static enum cad_status context_create(struct cad_ucx_link *link, struct cad_error *error)
{
	ucp_config_t *config;
	ucs_status_t status = ucp_config_read(NULL, NULL, &config);

	if (status != UCS_OK)
		return ucx_failed(error, "reading UCX_* from the environment", status);

	status = ucp_config_modify(config, "TLS", link->transports);
	if (status == UCS_OK)
		status = ucp_config_modify(config, "NET_DEVICES", link->devices);
	/* over shared memory nothing else tells of a peer that died */
	if (status == UCS_OK && link->shared_memory)
		status = ucp_config_modify(config, "KEEPALIVE_INTERVAL", "500ms");
	ucp_params_t parameters = {
		.field_mask = UCP_PARAM_FIELD_FEATURES | UCP_PARAM_FIELD_ESTIMATED_NUM_EPS |
			UCP_PARAM_FIELD_MT_WORKERS_SHARED | UCP_PARAM_FIELD_NAME,
		.features = UCP_FEATURE_AM | UCP_FEATURE_WAKEUP,
		.estimated_num_eps = link->options.connections_max,
		.mt_workers_shared = 0,
		.name = "cadre",
	};
	if (status == UCS_OK)
		status = ucp_init(&parameters, config, &link->context);
	ucp_config_release(config);

	return status == UCS_OK
		? CAD_OK
		: cad_error_set(error, CAD_ERR_IO, "UCX: cannot start with transports '%s' on devices '%s': %s",
			  link->transports, link->devices, ucs_status_string(status));
}

static ucs_status_t handlers_set(struct cad_ucx_link *link)
{
	for (uint32_t id = 0; id <= UINT16_MAX; id++) {
		ucp_am_handler_param_t parameters = {
			.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_CB |
				UCP_AM_HANDLER_PARAM_FIELD_ARG | UCP_AM_HANDLER_PARAM_FIELD_FLAGS,
			.id = id,
			.cb = link->on_message,
			.arg = &link->handlers[id < CADRE_WIRE_KIND_COUNT ? id : 0], /* kind 0 is none */
			.flags = UCP_AM_FLAG_WHOLE_MSG | (id == CADRE_WIRE_CALL ? UCP_AM_FLAG_PERSISTENT_DATA : 0),
		};
		ucs_status_t status = ucp_worker_set_am_recv_handler(link->worker, &parameters);
		if (status != UCS_OK)
			return status;
	}
	return UCS_OK;
}

static enum cad_status worker_create(struct cad_ucx_link *link, struct cad_error *error)
{
	ucp_worker_params_t parameters = {
		.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE | UCP_WORKER_PARAM_FIELD_AM_ALIGNMENT,
		.thread_mode = UCS_THREAD_MODE_SINGLE,
		.am_alignment = PAYLOAD_ALIGNMENT,
	};
	ucs_status_t status = ucp_worker_create(link->context, &parameters, &link->worker);

	if (status != UCS_OK)
		return ucx_failed(error, "making a worker", status);
	if ((status = ucp_worker_get_efd(link->worker, &link->event_fd)) != UCS_OK)
		return ucx_failed(error, "making an event descriptor", status);

	ucp_worker_attr_t attributes = { .field_mask = UCP_WORKER_ATTR_FIELD_MAX_AM_HEADER };
	status = ucp_worker_query(link->worker, &attributes);
	if (status != UCS_OK || attributes.max_am_header < CAD_LINK_HEADER_BYTES_MAX)
		return cad_error_set(error, CAD_ERR_UNSUPPORTED,
			"UCX: headers of %zu bytes at most, %d are needed: use other transports (UCX_TLS)",
			attributes.max_am_header, CAD_LINK_HEADER_BYTES_MAX);
	if ((status = handlers_set(link)) != UCS_OK)
		return ucx_failed(error, "setting message handlers", status);
	return CAD_OK;
}

static ucs_status_t memory_map(struct cad_ucx_link *link, struct cad_ucx_registration *registration)
{
	ucp_mem_map_params_t parameters = {
		.field_mask = UCP_MEM_MAP_PARAM_FIELD_ADDRESS | UCP_MEM_MAP_PARAM_FIELD_LENGTH |
			UCP_MEM_MAP_PARAM_FIELD_MEMORY_TYPE,
		.address = registration->buffer.bytes,
		.length = registration->buffer.capacity,
		.memory_type = UCS_MEMORY_TYPE_HOST,
	};
	return ucp_mem_map(link->context, &parameters, &registration->memory);
}

static void memory_unmap(struct cad_ucx_link *link, struct cad_ucx_registration *registration)
{
	if (registration->memory)
		ucp_mem_unmap(link->context, registration->memory);
	registration->memory = NULL;
}

static enum cad_status memories_map(struct cad_ucx_link *link, struct cad_error *error)
{
	for (struct cad_ucx_registration *r = link->registrations; r; r = r->next) {
		ucs_status_t status = memory_map(link, r);
		if (status != UCS_OK)
			return ucx_failed(error, "registering memory again", status);
	}
	return CAD_OK;
}

/* A closed endpoint is still being taken apart inside; destroying the worker too early is an
 * assertion in 1.13. */
void cad_ucx_context_destroy(struct cad_ucx_link *link)
{
	if (link->worker) {
		uint64_t now = cad_clock_now_ns(&cad_clock_system), end = now + QUIET_NS_MAX, quiet = now + QUIET_NS;
		while ((now = cad_clock_now_ns(&cad_clock_system)) < quiet && now < end)
			if (ucp_worker_progress(link->worker) > 0)
				quiet = now + QUIET_NS;
	}

	for (struct cad_ucx_registration *r = link->registrations; r; r = r->next)
		memory_unmap(link, r);
	if (link->worker)
		ucp_worker_destroy(link->worker);
	link->worker = NULL;
	if (link->context)
		ucp_cleanup(link->context);
	link->context = NULL;
}

/* What the worker is reached by. */
static enum cad_status address_make(
	struct cad_ucx_link *link, const struct cad_ucx_sockets *before, struct cad_error *error)
{
	struct cad_exchange_address address = { .session = 0 };
	ucp_worker_attr_t attributes = { .field_mask = UCP_WORKER_ATTR_FIELD_ADDRESS };
	ucs_status_t status = ucp_worker_query(link->worker, &attributes);

	if (status != UCS_OK)
		return ucx_failed(error, "asking for the worker's address", status);
	if (attributes.address_length > sizeof address.worker) {
		ucp_worker_release_address(link->worker, attributes.address);
		return cad_error_set(error, CAD_ERR_UNSUPPORTED,
			"UCX: a worker address of %zu bytes, at most %zu can be told to peers: use fewer devices or transports than '%s' on '%s'",
			attributes.address_length, sizeof address.worker, link->transports, link->devices);
	}

	memcpy(address.worker, attributes.address, attributes.address_length);
	address.worker_bytes = attributes.address_length;
	ucp_worker_release_address(link->worker, attributes.address);
	cad_ucx_library(address.library);
	if (!cad_ucx_sockets_new(before, address.host)) /* no TCP among the transports */
		snprintf(address.host, sizeof address.host, "%s:0", link->devices);
	while (address.session == 0)
		randombytes_buf(&address.session, sizeof address.session);
	link->session = address.session;
	cad_exchange_address_text(&address, link->address);

	return CAD_OK;
}

enum cad_status cad_ucx_context_start(struct cad_ucx_link *link, struct cad_error *error)
{
	struct cad_ucx_sockets before;
	cad_ucx_sockets_now(&before);
	enum cad_status status = context_create(link, error);
	if (status == CAD_OK)
		status = worker_create(link, error);
	if (status == CAD_OK)
		status = address_make(link, &before, error);
	if (status == CAD_OK)
		status = memories_map(link, error);
	return status;
}

/* ---- buffers ---- */

enum cad_status cad_ucx_buffer_create(
	struct cad_link *base, size_t bytes, const struct cad_pinned_memory *pinned, struct cad_buffer *out)
{
	struct cad_ucx_link *link = (struct cad_ucx_link *)base;
	struct cad_ucx_registration *registration = calloc(1, sizeof *registration);

	if (!registration)
		return CAD_ERR_MEMORY;

	enum cad_status status = cad_buffer_map(bytes, pinned, &registration->buffer);
	if (status == CAD_OK && memory_map(link, registration) != UCS_OK) {
		cad_buffer_unmap(&registration->buffer);
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

void cad_ucx_buffer_destroy(struct cad_link *base, struct cad_buffer *buffer)
{
	struct cad_ucx_link *link = (struct cad_ucx_link *)base;
	struct cad_ucx_registration *registration = buffer->registration;

	*registration->previous = registration->next;
	if (registration->next)
		registration->next->previous = registration->previous;
	memory_unmap(link, registration);
	cad_buffer_unmap(&registration->buffer);
	free(registration);
	*buffer = (struct cad_buffer){ .bytes = NULL };
}
