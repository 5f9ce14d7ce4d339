/* SPDX-License-Identifier: Apache-2.0 */
/* gRPC's own words, for the log: on any of its threads. */
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/rpc/internal.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <xxhash.h>

enum { LINES = 16, AGAIN_S = 10 };

_Thread_local bool cad_rpc_quiet;
_Atomic bool cad_rpc_hushed;

/* What was said last. */
static struct line {
	uint64_t hash, said_ns, left_out;
} lines[LINES];
static pthread_mutex_t lines_mutex = PTHREAD_MUTEX_INITIALIZER;

/* A client that tries in vain, and a stranger who does so often, would fill the log. */
static bool is_due(const char *message, uint64_t *left_out)
{
	uint64_t hash = XXH3_64bits(message, strlen(message)), now_ns = cad_clock_now_ns(&cad_clock_system);

	pthread_mutex_lock(&lines_mutex);
	struct line *line = &lines[hash % LINES];
	bool known = line->hash == hash, due = !known || now_ns - line->said_ns >= AGAIN_S * CAD_NS_PER_S;
	*left_out = known ? line->left_out : 0;
	if (due)
		*line = (struct line){ .hash = hash, .said_ns = now_ns };
	else
		line->left_out++;
	pthread_mutex_unlock(&lines_mutex);

	return due;
}

void cad_rpc_log(gpr_log_func_args *line)
{
	uint64_t left_out;

	if (line->severity != GPR_LOG_SEVERITY_ERROR || cad_rpc_quiet || atomic_load(&cad_rpc_hushed) ||
		!is_due(line->message, &left_out))
		cad_log_debug("grpc", line->message);
	else if (left_out > 0)
		cad_log_warn("grpc", line->message, CAD_U("left_out", left_out));
	else
		cad_log_warn("grpc", line->message);
}
