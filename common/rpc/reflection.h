/* SPDX-License-Identifier: Apache-2.0 */
/* The services grpc.reflection.v1 and v1alpha of a server, so that standard tools work without
 * .proto files. Runs on the owner thread of the server's reactor (rpc.h has the rule). */
#ifndef CADRE_COMMON_RPC_REFLECTION_H
#define CADRE_COMMON_RPC_REFLECTION_H

#include "common/rpc/server.h"

struct cad_rpc_reflection;

/* Answers with the descriptors of every .proto file of Cadre, for the services that were added:
 * call it after the last add. Also compares the method tables with the descriptors (protoc-c drops
 * the word "stream"), CAD_ERR_INTERNAL and a sentence if they differ. */
CAD_MUST_USE enum cad_status cad_rpc_reflection_create(
	struct cad_rpc_server *server, struct cad_rpc_reflection **reflection, struct cad_error *error);
void cad_rpc_reflection_destroy(struct cad_rpc_reflection *reflection); /* after the server has gone */

#endif
