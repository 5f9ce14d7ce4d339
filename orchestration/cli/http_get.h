/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One GET to the HTTP port of a process (common/process/admin.h), for images that hold no
 * curl. Blocks, at most for the time that it is given, and for as long as a host name
 * takes; Ctrl-C ends it (command.h).
 */
#ifndef CADRE_ORCHESTRATION_CLI_HTTP_GET_H
#define CADRE_ORCHESTRATION_CLI_HTTP_GET_H

#include "common/base/status.h"

#include <stdint.h>

struct cl_http_answer {
	int code;        /* 200 */
	char text[1024]; /* what fits of the body, without the line's end */
};

/* `path` with its query. CAD_ERR_UNREACHABLE: nobody listens there, or the name is unknown;
 * CAD_ERR_DEADLINE; CAD_ERR_PROTOCOL: it is not HTTP; CAD_ERR_CANCELLED. The sentence names the
 * address. */
CAD_MUST_USE enum cad_status cl_http_get(const char *address, const char *path, uint32_t timeout_ms,
	struct cl_http_answer *answer, struct cad_error *error);

#endif
