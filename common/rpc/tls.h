/* SPDX-License-Identifier: Apache-2.0 */
/* The TLS files of this process's servers and channels (struct cad_tls_files). Any thread; blocks on files, allocates. */
#ifndef CADRE_COMMON_RPC_TLS_H
#define CADRE_COMMON_RPC_TLS_H

#include "common/process/service.h"

#include <stdbool.h>
#include <stdint.h>

/* Reads all of them again, whether they look changed or not; they are in force from the next handshake
 * on. False: some cannot be used, which the log says, and the old ones stay in force. */
bool cad_rpc_tls_reread(void);
/* Says in the log of which certificates in force the end is close, or has come. */
void cad_rpc_tls_warn(void);
/* When the first of them ends, in Unix seconds; 0: there are none. */
int64_t cad_rpc_tls_expires_s(void);
/* All three, for struct cad_service. */
extern const struct cad_service_tls cad_rpc_service_tls;

#endif
