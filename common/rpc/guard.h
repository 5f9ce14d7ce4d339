/* SPDX-License-Identifier: Apache-2.0 */
/* Keeps gRPC servers away from the limit of file descriptors. Any thread. */
#ifndef CADRE_COMMON_RPC_GUARD_H
#define CADRE_COMMON_RPC_GUARD_H

#include <stdint.h>

/* Connections that were refused for want of file descriptors, in this process. */
uint64_t cad_rpc_refused_connections(void);

#endif
