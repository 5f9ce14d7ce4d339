/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The HTTP side of every process: /metrics, /healthz, /readyz.
 *
 * One thread of its own (HTTP by libmicrohttpd); the callbacks run in it, so they must read through
 * atomics, snapshots or locks. It answers GET and HEAD, and listens on loopback unless an address
 * says otherwise. There is no authentication: bind it to a network that only operators can reach.
 *
 * A newcomer is never refused on account of connections that others hold. Each connection carries
 * one request: it is closed when it is answered, when the peer ends it before the request is whole,
 * and when a time limit of CAD_ADMIN_* has passed, which single bytes do not prolong. With
 * CAD_ADMIN_CONNECTIONS_MAX connections, or without a file descriptor for the next, the oldest one
 * without a whole request is closed; if all have asked, the oldest of all. Memory: 16 KiB a
 * connection, and a page of metrics for each that is being sent one.
 */
#ifndef CADRE_COMMON_PROCESS_ADMIN_H
#define CADRE_COMMON_PROCESS_ADMIN_H

#include "common/process/metrics.h"

#include <stdbool.h>

struct cad_admin;

enum {
	CAD_ADMIN_CONNECTIONS_MAX = 64,
	CAD_ADMIN_REQUEST_MS = 5000, /* from the connection to the end of its request */
	CAD_ADMIN_ANSWER_MS = 10000, /* from there until the peer has taken the answer */
	CAD_ADMIN_AGAIN_MS = 10,
	CAD_ADMIN_WAITING_MAX = 8, /* connections that wait for an answer; further ones get 503 at once */
};

struct cad_admin_options {
	const char *address;         /* "127.0.0.1:0", "[::1]:9100"; port 0 chooses */
	struct cad_metrics *metrics; /* borrowed */
	/* Not ready (or not healthy): 503 and the text, one line. NULL: always. */
	bool (*ready)(void *context, char *text, size_t text_bytes);
	bool (*healthy)(void *context, char *text, size_t text_bytes);
	/* For /readyz?generate, and with ready_generates for every /readyz. CAD_OK: 200. CAD_AGAIN:
	 * it is asked again every CAD_ADMIN_AGAIN_MS, for as long as an answer may take, while the
	 * connection waits and the others are served. Else 503. NULL: 404. */
	enum cad_status (*generates)(void *context, char *text, size_t text_bytes);
	bool ready_generates;
	void *context;
	unsigned request_ms, answer_ms; /* 0: CAD_ADMIN_* */
};

CAD_MUST_USE enum cad_status cad_admin_create(
	const struct cad_admin_options *options, struct cad_admin **admin, struct cad_error *error);
/* Stops the thread; no callback runs after it returns. NULL is allowed. */
void cad_admin_destroy(struct cad_admin *admin);
/* "127.0.0.1:41234": where it really listens. */
const char *cad_admin_address(const struct cad_admin *admin);

#endif
