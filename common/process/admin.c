/* SPDX-License-Identifier: Apache-2.0 */
#include "common/process/admin.h"

#include "common/base/address.h"
#include "common/base/log.h"

#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CONNECTIONS_MAX = 64, CONNECTION_MEMORY_BYTES = 16384, IDLE_SECONDS = 30, TEXT_BYTES = 256 };

struct cad_admin {
	struct cad_admin_options options;
	struct MHD_Daemon *daemon;
	char address[CAD_ADDRESS_BYTES];
};

static enum MHD_Result send_response(struct MHD_Connection *connection, unsigned code, const char *type, char *body,
	size_t bytes, enum MHD_ResponseMemoryMode mode)
{
	struct MHD_Response *response = MHD_create_response_from_buffer(bytes, body, mode);
	if (!response) {
		if (mode == MHD_RESPMEM_MUST_FREE)
			free(body);
		return MHD_NO;
	}
	MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
	MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
	enum MHD_Result result = MHD_queue_response(connection, code, response);
	MHD_destroy_response(response);
	return result;
}

static enum MHD_Result send_text(struct MHD_Connection *connection, unsigned code, const char *text)
{
	char body[TEXT_BYTES + 2];
	int bytes = snprintf(body, sizeof body, "%s\n", text);
	return send_response(connection, code, "text/plain; charset=utf-8", body,
		(size_t)bytes < sizeof body ? (size_t)bytes : sizeof body - 1, MHD_RESPMEM_MUST_COPY);
}

static enum MHD_Result send_state(const struct cad_admin *admin, struct MHD_Connection *connection,
	bool (*state)(void *context, char *text, size_t text_bytes))
{
	char text[TEXT_BYTES] = "ok";
	bool good = !state || state(admin->options.context, text, sizeof text);
	return send_text(connection, good ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE, text);
}

static enum MHD_Result send_metrics(const struct cad_admin *admin, struct MHD_Connection *connection)
{
	char *text;
	size_t bytes;
	if (cad_metrics_render(admin->options.metrics, &text, &bytes) != CAD_OK)
		return send_text(connection, MHD_HTTP_INTERNAL_SERVER_ERROR, "no memory for the page");
	return send_response(connection, MHD_HTTP_OK, "text/plain; version=0.0.4; charset=utf-8", text, bytes,
		MHD_RESPMEM_MUST_FREE);
}

static enum MHD_Result on_http_request(void *context, struct MHD_Connection *connection, const char *path,
	const char *method, const char *version, const char *upload, size_t *upload_bytes, void **state)
{
	static int seen;
	const struct cad_admin *admin = context;

	(void)version;
	(void)upload;
	if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
		return send_text(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET and HEAD are supported");
	if (!*state) { /* the headers; a response belongs to the second call */
		*state = &seen;
		return MHD_YES;
	}

	*upload_bytes = 0;
	if (strcmp(path, "/metrics") == 0)
		return send_metrics(admin, connection);
	if (strcmp(path, "/healthz") == 0)
		return send_state(admin, connection, admin->options.healthy);
	if (strcmp(path, "/readyz") == 0)
		return send_state(admin, connection, admin->options.ready);

	return send_text(connection, MHD_HTTP_NOT_FOUND, "not found; try /metrics, /healthz or /readyz");
}

static void address_text(int fd, char *text, size_t bytes)
{
	struct sockaddr_storage bound;
	socklen_t size = sizeof bound;
	char host[NI_MAXHOST], port[NI_MAXSERV];
	if (getsockname(fd, (struct sockaddr *)&bound, &size) != 0 ||
		getnameinfo((struct sockaddr *)&bound, size, host, sizeof host, port, sizeof port,
			NI_NUMERICHOST | NI_NUMERICSERV) != 0)
		snprintf(text, bytes, "unknown");
	else
		snprintf(text, bytes, bound.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}

static enum cad_status listen_on(const char *address, int *fd, struct cad_error *error)
{
	char whole[CAD_ADDRESS_BYTES];
	struct cad_address parts;

	if (*address == ':' && snprintf(whole, sizeof whole, "127.0.0.1%s", address) < (int)sizeof whole)
		address = whole;
	enum cad_status status = cad_address_parse(address, &parts, error);
	if (status != CAD_OK)
		return status;
	struct addrinfo want = { .ai_flags = AI_PASSIVE | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM }, *found;
	int failed = getaddrinfo(parts.host, parts.port_text, &want, &found);
	if (failed)
		return cad_error_set(
			error, CAD_ERR_INVALID, "cannot find the HTTP address '%s': %s", address, gai_strerror(failed));
	int one = 1, made = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (made >= 0)
		setsockopt(made, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (made < 0 || bind(made, found->ai_addr, found->ai_addrlen) != 0 || listen(made, CONNECTIONS_MAX) != 0) {
		status = cad_error_set(
			error, CAD_ERR_IO, "cannot listen for HTTP on '%s': %s", address, strerror(errno));
		if (made >= 0)
			close(made);
	} else {
		*fd = made;
	}

	freeaddrinfo(found);
	return status;
}

/* What the library complains about is of interest only when somebody looks for it. */
__attribute__((format(printf, 2, 0))) static void on_http_log(void *context, const char *format, va_list arguments)
{
	char text[TEXT_BYTES];
	(void)context;
	if (!cad_log_enabled(CAD_LOG_DEBUG))
		return;
	vsnprintf(text, sizeof text, format, arguments);
	text[strcspn(text, "\n")] = 0;
	cad_log_debug("admin", "http", CAD_S("text", text));
}

enum cad_status cad_admin_create(
	const struct cad_admin_options *options, struct cad_admin **admin, struct cad_error *error)
{
	int fd;
	enum cad_status status = listen_on(options->address, &fd, error);

	if (status != CAD_OK)
		return status;

	struct cad_admin *made = calloc(1, sizeof *made);
	if (!made) {
		status = cad_error_set(error, CAD_ERR_MEMORY, "no memory for the HTTP server");
		goto close_fd;
	}

	made->options = *options;
	address_text(fd, made->address, sizeof made->address);

	/* The daemon owns fd from here on. */
	made->daemon = MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_EPOLL | MHD_USE_ERROR_LOG, 0, NULL,
		NULL, on_http_request, made, MHD_OPTION_EXTERNAL_LOGGER, on_http_log, NULL, MHD_OPTION_LISTEN_SOCKET,
		fd, MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS_MAX, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
		(size_t)CONNECTION_MEMORY_BYTES, MHD_OPTION_CONNECTION_TIMEOUT, IDLE_SECONDS, MHD_OPTION_END);

	if (!made->daemon) {
		status = cad_error_set(error, CAD_ERR_INTERNAL,
			"cannot start the HTTP server on '%s': no thread or no file descriptor is left (see ulimit -u and -n)",
			options->address);
		goto free_made;
	}

	*admin = made;
	return CAD_OK;

free_made:
	free(made);
close_fd:
	close(fd);

	return status;
}

void cad_admin_destroy(struct cad_admin *admin)
{
	if (!admin)
		return;
	MHD_stop_daemon(admin->daemon);
	free(admin);
}

const char *cad_admin_address(const struct cad_admin *admin) { return admin->address; }
