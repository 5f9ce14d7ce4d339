/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/cli/http_get.h"

#include "common/base/clock.h"
#include "common/base/lookup.h"
#include "common/base/utf8.h"
#include "orchestration/cli/command.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LOOK_MS = 100 }; /* after which it sees that it was interrupted */

struct get {
	const char *address;
	int fd;
	uint64_t until_ns, end_ns; /* of what it waits for; of everything */
	struct cad_error *error;
};

static uint64_t now_ns(void) { return cad_clock_now_ns(&cad_clock_system); }

static enum cad_status broken(const struct get *get, int number)
{
	return cad_error_set(get->error, CAD_ERR_UNREACHABLE, "%s: %s", get->address, strerror(number));
}

/* In milliseconds, at least one. */
static enum cad_status time_left(const struct get *get, int *ms)
{
	uint64_t now = now_ns();
	if (cl_interrupted())
		return cad_error_set(get->error, CAD_ERR_CANCELLED, "interrupted");
	if (now >= get->until_ns)
		return cad_error_set(get->error, CAD_ERR_DEADLINE, "%s: no answer in time", get->address);
	*ms = (int)((get->until_ns - now + CAD_NS_PER_MS - 1) / CAD_NS_PER_MS);
	return CAD_OK;
}

/* Until the socket can be read or written. */
static enum cad_status wait_for(const struct get *get, short events)
{
	for (;;) {
		struct pollfd look = { .fd = get->fd, .events = events };
		int ms;
		enum cad_status status = time_left(get, &ms);
		if (status != CAD_OK)
			return status;
		int count = poll(&look, 1, ms);
		if (count < 0 && errno != EINTR)
			return broken(get, errno);
		if (count > 0)
			return CAD_OK;
	}
}

static enum cad_status connect_one(struct get *get, const struct addrinfo *to)
{
	int failed = 0;
	socklen_t size = sizeof failed;

	get->fd = socket(to->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (get->fd < 0)
		return broken(get, errno);
	if (connect(get->fd, to->ai_addr, to->ai_addrlen) == 0)
		return CAD_OK;

	enum cad_status status = errno == EINPROGRESS ? wait_for(get, POLLOUT) : broken(get, errno);
	if (status == CAD_OK && getsockopt(get->fd, SOL_SOCKET, SO_ERROR, &failed, &size) == 0 && failed)
		status = broken(get, failed);
	if (status != CAD_OK)
		close(get->fd);
	return status;
}

/* Each address gets its part of the time: the first may be one where nobody answers any more. */
static enum cad_status connect_any(struct get *get, const struct addrinfo *found)
{
	enum cad_status status = CAD_ERR_UNREACHABLE;
	uint64_t left = 0;
	for (const struct addrinfo *to = found; to; to = to->ai_next)
		left++;

	for (const struct addrinfo *to = found; to; to = to->ai_next, left--) {
		uint64_t now = now_ns();
		get->until_ns = now + (get->end_ns > now ? (get->end_ns - now) / left : 0);
		status = connect_one(get, to);
		if (status != CAD_ERR_UNREACHABLE && status != CAD_ERR_DEADLINE)
			break;
	}
	get->until_ns = get->end_ns;
	return status;
}

static enum cad_status find(const struct get *get, struct cad_lookup *lookup, const struct addrinfo **found)
{
	for (;;) {
		int ms;
		enum cad_status status = time_left(get, &ms);
		if (status == CAD_ERR_DEADLINE)
			return cad_error_set(get->error, status, "%s: no name server answers", get->address);
		if (status == CAD_OK)
			status = cad_lookup_wait(lookup, ms < LOOK_MS ? (uint32_t)ms : LOOK_MS, found, get->error);
		if (status != CAD_AGAIN)
			return status;
	}
}

static enum cad_status find_and_connect(struct get *get)
{
	struct cad_address parts;
	const struct addrinfo *found;
	enum cad_status status = cad_address_parse(get->address, &parts, get->error);
	if (status != CAD_OK)
		return status;
	struct cad_lookup *lookup = cad_lookup_start(&parts);
	if (!lookup)
		return cad_error_set(get->error, CAD_ERR_MEMORY, "%s: no memory or thread to look it up", get->address);

	status = find(get, lookup, &found);
	if (status == CAD_OK)
		status = connect_any(get, found);
	cad_lookup_leave(lookup);
	return status;
}

static enum cad_status send_all(const struct get *get, const char *text, size_t bytes)
{
	while (bytes > 0) {
		ssize_t sent = send(get->fd, text, bytes, MSG_NOSIGNAL);
		if (sent < 0 && errno != EAGAIN)
			return broken(get, errno);
		if (sent > 0) {
			text += sent;
			bytes -= (size_t)sent;
			continue;
		}
		enum cad_status status = wait_for(get, POLLOUT);
		if (status != CAD_OK)
			return status;
	}
	return CAD_OK;
}

/* What the server sends until it closes, or as much as there is room for; terminated. */
static enum cad_status receive(const struct get *get, char *text, size_t size)
{
	size_t total = 0;

	while (total < size - 1) {
		enum cad_status status = wait_for(get, POLLIN);
		if (status != CAD_OK)
			return status;
		ssize_t got = recv(get->fd, text + total, size - 1 - total, 0);
		if (got < 0 && errno != EAGAIN)
			return broken(get, errno);
		if (got == 0)
			break;
		total += got > 0 ? (size_t)got : 0;
	}
	text[total] = 0;
	return CAD_OK;
}

/* "HTTP/1.1 503 Service Unavailable", headers, an empty line, the body. */
static enum cad_status read_answer(const struct get *get, const char *text, struct cl_http_answer *answer)
{
	const char *body = strstr(text, "\r\n\r\n");
	int code;

	if (!body || sscanf(text, "HTTP/1.%*1d %3d ", &code) != 1)
		return cad_error_set(get->error, CAD_ERR_PROTOCOL,
			"%s: this is no answer of HTTP; is it the address of --http?", get->address);
	answer->code = code;
	snprintf(answer->text, sizeof answer->text, "%s", body + 4);
	answer->text[strcspn(answer->text, "\r\n")] = 0;
	cad_utf8_make_printable(answer->text);
	return CAD_OK;
}

enum cad_status cl_http_get(const char *address, const char *path, uint32_t timeout_ms, struct cl_http_answer *answer,
	struct cad_error *error)
{
	char request[CAD_ADDRESS_BYTES + 128], text[4096];
	uint64_t end_ns = now_ns() + timeout_ms * CAD_NS_PER_MS;
	struct get get = { .address = address, .until_ns = end_ns, .end_ns = end_ns, .error = error };

	enum cad_status status = find_and_connect(&get);
	if (status != CAD_OK)
		return status;

	int bytes = snprintf(
		request, sizeof request, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", path, address);
	CAD_ASSERT(bytes > 0 && (size_t)bytes < sizeof request);
	status = send_all(&get, request, (size_t)bytes);
	if (status == CAD_OK)
		status = receive(&get, text, sizeof text);
	if (status == CAD_OK)
		status = read_answer(&get, text, answer);
	close(get.fd);

	return status;
}
