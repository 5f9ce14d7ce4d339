/* SPDX-License-Identifier: Apache-2.0 */
#include "common/process/admin.h"

#include "common/base/address.h"
#include "common/base/clock.h"
#include "common/base/log.h"

#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	CONNECTIONS_MAX = CAD_ADMIN_CONNECTIONS_MAX,
	CONNECTION_MEMORY_BYTES = 16384,
	BACKLOG = 1024,   /* connections that the kernel keeps while the thread is busy */
	ACCEPTS_MAX = 16, /* before what has arrived on the others is looked at again */
	ACCEPT_PAUSE_MS = 100,
	TEXT_BYTES = 512,
};

/* libmicrohttpd closes the descriptor; here it is only looked at, and shut down. */
struct connection {
	bool used, asked, ended, cut; /* asked: the whole request came; ended: the peer sends no more */
	int fd;
	uint64_t since_ns;              /* the connection; once asked, the request */
	struct MHD_Connection *waiting; /* for an answer that is not there yet; NULL: it is not */
};

/* libmicrohttpd parses and answers. Which connections it has, and for how long, is decided here:
 * 0.9.75 does not notice an end that comes together with data, lets each byte prolong a request's
 * time, and accepts nobody when it is full. */
struct cad_admin {
	struct cad_admin_options options;
	struct MHD_Daemon *daemon;
	char address[CAD_ADDRESS_BYTES];
	int listener, stop;
	pthread_t thread;
	/* The thread's own. */
	uint64_t accept_from_ns; /* not before: no descriptor was left */
	uint64_t again_ns;       /* when those that wait are looked at; none wait: any */
	unsigned connections_count, waiting_count;
	struct connection connections[CONNECTIONS_MAX];
};

/* ---- answers ---- */

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
	MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
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

static struct connection *mark_asked(struct MHD_Connection *connection)
{
	struct connection *asking =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
	if (!asking->asked)
		asking->since_ns = cad_clock_now_ns(&cad_clock_system);
	asking->asked = true;
	return asking;
}

/* The library leaves the connection alone until it is resumed, and then
 * asks for its answer again. */
static enum MHD_Result put_off(struct cad_admin *admin, struct connection *asking, struct MHD_Connection *connection)
{
	if (asking->cut)
		return MHD_NO;
	if (admin->waiting_count == CAD_ADMIN_WAITING_MAX)
		return send_text(connection, MHD_HTTP_SERVICE_UNAVAILABLE, "too many are waiting for this answer");
	if (admin->waiting_count++ == 0)
		admin->again_ns = cad_clock_now_ns(&cad_clock_system) + CAD_ADMIN_AGAIN_MS * CAD_NS_PER_MS;
	asking->waiting = connection;
	MHD_suspend_connection(connection);
	return MHD_YES;
}

static enum MHD_Result send_generates(
	struct cad_admin *admin, struct connection *asking, struct MHD_Connection *connection)
{
	char text[TEXT_BYTES] = "ok";
	if (!admin->options.generates)
		return send_text(connection, MHD_HTTP_NOT_FOUND, "this process generates nothing; try /readyz");
	enum cad_status status = admin->options.generates(admin->options.context, text, sizeof text);
	if (status == CAD_AGAIN)
		return put_off(admin, asking, connection);
	return send_text(connection, status == CAD_OK ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE, text);
}

static bool asks_whether_it_generates(const struct cad_admin *admin, struct MHD_Connection *connection)
{
	static const char key[] = "generate";
	return admin->options.ready_generates ||
		MHD_lookup_connection_value_n(connection, MHD_GET_ARGUMENT_KIND, key, sizeof key - 1, NULL, NULL) ==
		MHD_YES;
}

static enum MHD_Result on_http_request(void *context, struct MHD_Connection *connection, const char *path,
	const char *method, const char *version, const char *upload, size_t *upload_bytes, void **state)
{
	static int seen;
	struct cad_admin *admin = context;

	(void)version;
	(void)upload;
	if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0) {
		mark_asked(connection);
		return send_text(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET and HEAD are supported");
	}

	if (!*state) { /* the headers; a response belongs to the second call */
		*state = &seen;
		return MHD_YES;
	}

	struct connection *asking = mark_asked(connection);
	*upload_bytes = 0;
	if (strcmp(path, "/metrics") == 0)
		return send_metrics(admin, connection);
	if (strcmp(path, "/healthz") == 0)
		return send_state(admin, connection, admin->options.healthy);
	if (strcmp(path, "/readyz") == 0)
		return asks_whether_it_generates(admin, connection)
			? send_generates(admin, asking, connection)
			: send_state(admin, connection, admin->options.ready);

	return send_text(connection, MHD_HTTP_NOT_FOUND, "not found; try /metrics, /healthz or /readyz");
}

/* ---- connections ---- */

/* The library keeps no more than CONNECTIONS_MAX, so one is free. */
static void on_http_connection(void *context, struct MHD_Connection *connection, void **socket_context,
	enum MHD_ConnectionNotificationCode code)
{
	struct cad_admin *admin = context;
	struct connection *which = *socket_context;

	if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
		which->used = false;
		admin->connections_count--;
		return;
	}

	for (which = admin->connections; which->used;)
		which++;
	*which = (struct connection){
		.used = true,
		.fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd,
		.since_ns = cad_clock_now_ns(&cad_clock_system),
	};
	admin->connections_count++;
	*socket_context = which;
}

/* The library sees the hang-up at its next turn, and closes. What a peer does not read is thrown
 * away, or the kernel would keep it for minutes. */
static void cut(struct connection *connection, const char *why)
{
	const struct linger none = { .l_onoff = 1 };
	if (connection->asked)
		setsockopt(connection->fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
	shutdown(connection->fd, SHUT_RDWR);
	connection->cut = true;
	cad_log_debug("admin", "closed", CAD_S("why", why));
}

/* Everything that came before the peer's end has been read. */
static bool is_read(const struct connection *connection)
{
	char byte;
	return recv(connection->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) <= 0;
}

static uint64_t deadline_ns(const struct cad_admin *admin, const struct connection *connection)
{
	unsigned ms = connection->asked ? admin->options.answer_ms : admin->options.request_ms;
	return connection->since_ns + ms * CAD_NS_PER_MS;
}

static void cut_what_is_over(struct cad_admin *admin, uint64_t now_ns)
{
	for (struct connection *c = admin->connections; c < admin->connections + CONNECTIONS_MAX; c++) {
		if (!c->used || c->cut)
			continue;
		if (now_ns >= deadline_ns(admin, c))
			cut(c, c->asked ? "the answer was not taken in time" : "no whole request in time");
		else if (c->ended && !c->asked && is_read(c))
			cut(c, "the peer ended it before its request was whole");
	}
}

static bool goes_before(const struct connection *a, const struct connection *b)
{
	return a->asked != b->asked ? b->asked : a->since_ns < b->since_ns;
}

/* Those that wait are asked for again. */
static void resume_waiting(struct cad_admin *admin)
{
	for (struct connection *c = admin->connections; c < admin->connections + CONNECTIONS_MAX; c++)
		if (c->used && c->waiting) {
			MHD_resume_connection(c->waiting);
			c->waiting = NULL;
		}
	admin->waiting_count = 0;
}

/* Whoever has asked by now is answered first: often that is enough. Those that wait, who are few,
 * would not be closed at once. */
static void make_room(struct cad_admin *admin)
{
	struct connection *first = NULL;
	unsigned before = admin->connections_count;

	MHD_run(admin->daemon);
	if (admin->connections_count < before)
		return;

	for (struct connection *c = admin->connections; c < admin->connections + CONNECTIONS_MAX; c++)
		if (c->used && !c->cut && !c->waiting && (!first || goes_before(c, first)))
			first = c;
	if (first)
		cut(first, "room for the next");
	MHD_run(admin->daemon);
}

static int accept_one(struct cad_admin *admin, struct sockaddr_storage *from, socklen_t *size)
{
	*size = sizeof *from;
	return accept4(admin->listener, (struct sockaddr *)from, size, SOCK_CLOEXEC | SOCK_NONBLOCK);
}

static bool is_short_of_descriptors(int fd)
{
	return fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM);
}

/* accept4 wants a descriptor before it looks whether anybody is there. */
static bool is_anybody_there(const struct cad_admin *admin)
{
	struct pollfd look = { .fd = admin->listener, .events = POLLIN };
	return poll(&look, 1, 0) == 1;
}

static void accept_some(struct cad_admin *admin, uint64_t now_ns)
{
	struct sockaddr_storage from;
	socklen_t size;

	for (int i = 0; i < ACCEPTS_MAX && is_anybody_there(admin); i++) {
		int fd = accept_one(admin, &from, &size);
		if (is_short_of_descriptors(fd)) {
			make_room(admin);
			fd = accept_one(admin, &from, &size);
		}

		if (is_short_of_descriptors(fd)) {
			admin->accept_from_ns = now_ns + ACCEPT_PAUSE_MS * CAD_NS_PER_MS;
			return;
		}
		if (fd < 0)
			continue; /* that one has gone */

		if (admin->connections_count == CONNECTIONS_MAX)
			make_room(admin);
		MHD_add_connection(admin->daemon, fd, (struct sockaddr *)&from, size); /* closes it if it fails */
	}
}

/* ---- the thread ---- */

static int wait_ms(const struct cad_admin *admin, uint64_t now_ns)
{
	MHD_UNSIGNED_LONG_LONG library_ms;
	uint64_t until_ns = UINT64_MAX;

	if (MHD_get_timeout(admin->daemon, &library_ms) == MHD_YES)
		until_ns = now_ns + library_ms * CAD_NS_PER_MS;
	if (admin->accept_from_ns > now_ns && admin->accept_from_ns < until_ns)
		until_ns = admin->accept_from_ns;
	if (admin->waiting_count > 0 && admin->again_ns < until_ns)
		until_ns = admin->again_ns;

	for (const struct connection *c = admin->connections; c < admin->connections + CONNECTIONS_MAX; c++)
		if (c->used && !c->cut && deadline_ns(admin, c) < until_ns)
			until_ns = deadline_ns(admin, c);

	if (until_ns == UINT64_MAX)
		return -1;
	return until_ns <= now_ns ? 0 : (int)((until_ns - now_ns + CAD_NS_PER_MS - 1) / CAD_NS_PER_MS);
}

enum { STOP, LISTENER, LIBRARY, FIRST };

/* Returns false when the thread is to stop. */
static bool turn(struct cad_admin *admin, int library)
{
	struct pollfd waited[FIRST + CONNECTIONS_MAX];
	struct connection *of[FIRST + CONNECTIONS_MAX];
	uint64_t now_ns = cad_clock_now_ns(&cad_clock_system);
	nfds_t count = FIRST;

	waited[STOP] = (struct pollfd){ .fd = admin->stop, .events = POLLIN };
	waited[LISTENER] = (struct pollfd){
		.fd = now_ns < admin->accept_from_ns ? -1 : admin->listener,
		.events = POLLIN,
	};
	waited[LIBRARY] = (struct pollfd){ .fd = library, .events = POLLIN };
	for (struct connection *c = admin->connections; c < admin->connections + CONNECTIONS_MAX; c++)
		if (c->used && !c->ended && !c->cut) {
			of[count] = c;
			waited[count++] = (struct pollfd){ .fd = c->fd, .events = POLLRDHUP };
		}

	if (poll(waited, count, wait_ms(admin, now_ns)) < 0)
		return true; /* a signal */
	for (nfds_t i = FIRST; i < count; i++)
		of[i]->ended = waited[i].revents != 0;
	if (admin->waiting_count > 0 && cad_clock_now_ns(&cad_clock_system) >= admin->again_ns)
		resume_waiting(admin);
	MHD_run(admin->daemon);
	now_ns = cad_clock_now_ns(&cad_clock_system);
	cut_what_is_over(admin, now_ns);
	if (waited[LISTENER].revents)
		accept_some(admin, now_ns);

	return !waited[STOP].revents;
}

static void *run(void *argument)
{
	struct cad_admin *admin = argument;
	int library = MHD_get_daemon_info(admin->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
	while (turn(admin, library)) {}
	return NULL;
}

/* ---- starting and stopping ---- */

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
	struct cad_address parts;
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
	if (made < 0 || bind(made, found->ai_addr, found->ai_addrlen) != 0 || listen(made, BACKLOG) != 0) {
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

static enum cad_status start(struct cad_admin *admin)
{
	admin->stop = eventfd(0, EFD_CLOEXEC);
	if (admin->stop < 0)
		return CAD_ERR_INTERNAL;

	admin->daemon = MHD_start_daemon(
		MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, NULL, NULL,
		on_http_request, admin, MHD_OPTION_EXTERNAL_LOGGER, on_http_log, NULL, MHD_OPTION_NOTIFY_CONNECTION,
		on_http_connection, admin, MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS_MAX,
		MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY_BYTES, MHD_OPTION_END);
	if (!admin->daemon)
		goto close_stop;
	if (pthread_create(&admin->thread, NULL, run, admin) != 0)
		goto stop_daemon;
	return CAD_OK;

stop_daemon:
	MHD_stop_daemon(admin->daemon);
close_stop:
	close(admin->stop);

	return CAD_ERR_INTERNAL;
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
	made->listener = fd;
	if (made->options.request_ms == 0)
		made->options.request_ms = CAD_ADMIN_REQUEST_MS;
	if (made->options.answer_ms == 0)
		made->options.answer_ms = CAD_ADMIN_ANSWER_MS;
	address_text(fd, made->address, sizeof made->address);

	status = start(made);
	if (status != CAD_OK) {
		status = cad_error_set(error, status,
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

	CAD_ASSERT(eventfd_write(admin->stop, 1) == 0);
	pthread_join(admin->thread, NULL);
	resume_waiting(admin); /* the library can close no other */
	MHD_stop_daemon(admin->daemon);
	close(admin->stop);
	close(admin->listener);
	free(admin);
}

const char *cad_admin_address(const struct cad_admin *admin) { return admin->address; }
