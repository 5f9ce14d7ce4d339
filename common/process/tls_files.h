/* SPDX-License-Identifier: Apache-2.0 */
/* The PEM files of TLS: which they are, and what they hold. Any thread; blocks on files,
 * allocates. */
#ifndef CADRE_COMMON_PROCESS_TLS_FILES_H
#define CADRE_COMMON_PROCESS_TLS_FILES_H

#include "common/base/status.h"

#include <stdbool.h>
#include <stdint.h>

/* Paths; NULL where there is none. A server needs certificate and key, and with `authority`
 * requires a client certificate signed by it; with clients_optional, it checks the one that is
 * shown. A client checks the server against `authority` (NULL: the system's), and presents
 * certificate and key if they are given. */
struct cad_tls_files {
	const char *certificate;
	const char *key;
	const char *authority;
	bool clients_optional;
};

/* What they hold; NULL where there is none. */
struct cad_tls_pem {
	char *certificate, *key, *authority;
	/* When the certificate, or one of its chain, expires, and from when on that is close; in
	 * Unix seconds. 0: there is no certificate. */
	int64_t expires_s, close_s;
};

/* Reads all files, and checks that they can be used: each is what it should be, certificate and
 * key belong together, and the certificate has not expired. The caller's to fini on success. */
CAD_MUST_USE enum cad_status cad_tls_pem_read(
	const struct cad_tls_files *files, struct cad_tls_pem *pem, struct cad_error *error);
/* Only checks, so that a wrong file is told at once, and not when a server or a channel is made
 * of it. Leaves pipes alone: they can be read once, by who needs them. */
CAD_MUST_USE enum cad_status cad_tls_files_check(const struct cad_tls_files *files, struct cad_error *error);
void cad_tls_pem_fini(struct cad_tls_pem *pem);

#endif
