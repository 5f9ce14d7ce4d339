/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The HTTP side of every process: /metrics, /healthz, /readyz, and whatever pages the program adds
 * (the console of the placement service).
 *
 * One thread of its own (libmicrohttpd); the callbacks run in it, so they must read through
 * atomics, snapshots or locks. It answers GET and HEAD, has bounds on connections and on time, and
 * listens on loopback unless an address says otherwise. There is no authentication: bind it to a
 * network that only operators can reach.
 */
#ifndef CADRE_COMMON_PROCESS_ADMIN_H
#define CADRE_COMMON_PROCESS_ADMIN_H

#include "common/process/metrics.h"

#include <stdbool.h>

struct cad_admin;
struct cad_admin_request; /* lives for the callback */

const char *cad_admin_path(const struct cad_admin_request *request);
/* The argument of "?name=value", decoded; NULL when there is none. */
const char *cad_admin_argument(const struct cad_admin_request *request, const char *name);

/* A page: `body` from malloc, freed by the server. Not OK: the answer is 404 for CAD_ERR_NOT_FOUND,
 * 400 for CAD_ERR_INVALID, else 500. */
struct cad_admin_page {
	const char *path; /* "/api/status"; a trailing '*' matches every path with that beginning */
	const char *content_type;
	enum cad_status (*render)(void *context, const struct cad_admin_request *request, char **body, size_t *bytes);
	void *context;
};

struct cad_admin_options {
	const char *address;         /* "127.0.0.1:0", "[::1]:9100", ":9100" is loopback; port 0 chooses */
	struct cad_metrics *metrics; /* borrowed */
	/* Not ready (or not healthy): 503 and the text, one line. NULL: always. */
	bool (*ready)(void *context, char *text, size_t text_bytes);
	bool (*healthy)(void *context, char *text, size_t text_bytes);
	void *context;
	const struct cad_admin_page *pages; /* borrowed until destroy */
	size_t pages_count;
};

CAD_MUST_USE enum cad_status cad_admin_create(
	const struct cad_admin_options *options, struct cad_admin **admin, struct cad_error *error);
/* Stops the thread; no callback runs after it returns. NULL is allowed. */
void cad_admin_destroy(struct cad_admin *admin);
/* "127.0.0.1:41234": where it really listens. */
const char *cad_admin_address(const struct cad_admin *admin);

#endif
