/* SPDX-License-Identifier: Apache-2.0 */
/* The TLS files of this process's servers and channels (struct cad_tls_files). Any thread; blocks on files, allocates. */
#ifndef CADRE_COMMON_RPC_TLS_H
#define CADRE_COMMON_RPC_TLS_H

#include <stdbool.h>

/* Reads all of them again, whether they look changed or not; they are in force from the next handshake
 * on. False: some cannot be used, which the log says, and the old ones stay in force. */
bool cad_rpc_tls_reread(void);

#endif
