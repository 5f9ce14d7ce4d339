/* SPDX-License-Identifier: Apache-2.0 */
/* The service grpc.health.v1.Health of a server, Check and Watch; it runs on the owner thread of
 * the server's reactor (rpc.h has the rule). And the question that it answers. */
#ifndef CADRE_COMMON_RPC_HEALTH_H
#define CADRE_COMMON_RPC_HEALTH_H

#include "common/rpc/blocking.h"
#include "common/rpc/server.h"

#include <stdbool.h>

struct cad_rpc_health;

/* Adds the service, with "" (the whole server) NOT_SERVING until it is set. Before start. */
CAD_MUST_USE enum cad_status cad_rpc_health_create(
	struct cad_rpc_server *server, struct cad_rpc_health **health, struct cad_error *error);
void cad_rpc_health_set(struct cad_rpc_health *health, const char *service, bool serving);
/* Sets everything to NOT_SERVING for good, and ends every Watch (they would hold up a drain): call
 * it before drain. */
void cad_rpc_health_shutdown(struct cad_rpc_health *health);
void cad_rpc_health_destroy(struct cad_rpc_health *health); /* after the server has gone */

/* Whether a server as a whole is SERVING. Blocks (blocking.h); a failure: it has not answered. */
CAD_MUST_USE enum cad_status cad_rpc_health_ask(
	struct cad_rpc_blocking *client, int64_t timeout_ms, bool *serving, struct cad_error *error);

#endif
