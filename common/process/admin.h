/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The HTTP side of every process: /metrics, /healthz, /readyz.
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

struct cad_admin_options {
	const char *address;         /* "127.0.0.1:0", "[::1]:9100", ":9100" is loopback; port 0 chooses */
	struct cad_metrics *metrics; /* borrowed */
	/* Not ready (or not healthy): 503 and the text, one line. NULL: always. */
	bool (*ready)(void *context, char *text, size_t text_bytes);
	bool (*healthy)(void *context, char *text, size_t text_bytes);
	void *context;
};

CAD_MUST_USE enum cad_status cad_admin_create(
	const struct cad_admin_options *options, struct cad_admin **admin, struct cad_error *error);
/* Stops the thread; no callback runs after it returns. NULL is allowed. */
void cad_admin_destroy(struct cad_admin *admin);
/* "127.0.0.1:41234": where it really listens. */
const char *cad_admin_address(const struct cad_admin *admin);

#endif
