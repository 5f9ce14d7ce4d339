/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How this process reaches a server: the TLS files by which it knows the server and shows who it
 * is, and the bearer token that it sends. Reading blocks on files and allocates.
 */
#ifndef CADRE_COMMON_PROCESS_ACCESS_H
#define CADRE_COMMON_PROCESS_ACCESS_H

#include "common/process/tls_files.h"

struct cad_access {
	const struct cad_tls_files *tls; /* borrowed; NULL: plaintext */
	char *bearer;                    /* "Bearer TOKEN", as the header 'authorization' has it; NULL: none */
};

/* With the first token of a file (bearer.h); cad_secret_free is the caller's. */
CAD_MUST_USE enum cad_status cad_access_bearer(const char *token_file, char **bearer, struct cad_error *error);

#endif
