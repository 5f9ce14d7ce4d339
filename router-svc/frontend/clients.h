/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many streams each client has, so that none takes all of them. A client is a name: who it is
 * and how that is known is the caller's to say (grpc.c). Known while it has a stream; the reactor's
 * thread.
 */
#ifndef CADRE_ROUTER_SVC_FRONTEND_CLIENTS_H
#define CADRE_ROUTER_SVC_FRONTEND_CLIENTS_H

#include "common/base/status.h"

#include <stdint.h>

enum { RT_CLIENT_BUCKETS = 256 };

struct rt_client;

struct rt_clients {
	uint32_t streams_max; /* of one client; 0: no limit, and nobody is counted */
	struct rt_client *buckets[RT_CLIENT_BUCKETS];
};

/* One stream more. CAD_ERR_EXHAUSTED and a sentence above the limit; CAD_ERR_MEMORY. *client is
 * what leaves again, NULL where nobody is counted. */
CAD_MUST_USE enum cad_status rt_clients_enter(
	struct rt_clients *clients, const char *name, struct rt_client **client, struct cad_error *error);
void rt_clients_leave(struct rt_clients *clients, struct rt_client *client); /* NULL is allowed */

#endif
