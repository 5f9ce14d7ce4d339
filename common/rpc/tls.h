/* SPDX-License-Identifier: Apache-2.0 */
/* The TLS files of this process's servers and channels (struct cad_tls_files). Any thread;
 * blocks on files, allocates. */
#ifndef CADRE_COMMON_RPC_TLS_H
#define CADRE_COMMON_RPC_TLS_H

#include "common/process/service.h"

/*
 * Those of all servers and channels together, for struct cad_service. `reread` reads all of them
 * again, whether they look changed or not; they are in force from the next handshake on. Where some
 * cannot be used, the old ones stay in force.
 */
extern const struct cad_service_tls cad_rpc_service_tls;

#endif
