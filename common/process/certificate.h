/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a certificate says of who shows it: a role and a name. Whether it may be believed is the
 * handshake's business, before.
 *
 *     URI in the subject alternative name    cadre://ROLE/NAME
 *     else organisational unit               OU = ROLE, and the name is the CN
 *     else                                   no role, and the name is the CN, or the first DNS name
 *
 * What speaks of Cadre and is not understood is an error, never passed over: two URIs of Cadre's, a
 * role or a name in one that there is not, two units that are different roles. URIs of others, and
 * units that are no role, say nothing.
 *
 * Functions that allocate and do not block; any thread, but for a cache, which is its owner's.
 */
#ifndef CADRE_COMMON_PROCESS_CERTIFICATE_H
#define CADRE_COMMON_PROCESS_CERTIFICATE_H

#include "common/base/status.h"
#include "common/process/caller.h"

struct cad_certificate {
	enum cad_caller_role role; /* CAD_CALLER_NOBODY: it names none */
	char name[CAD_CALLER_NAME_BYTES];
};

/* Of the first certificate in PEM form. CAD_ERR_INVALID: none can be read, it contradicts
 * itself, or its name is too long or has control characters, which no log should show. */
CAD_MUST_USE enum cad_status cad_certificate_read(
	const char *pem, size_t size, struct cad_certificate *certificate, struct cad_error *error);

/* The same, for whoever reads the same certificates again and again: OpenSSL takes a third of a
 * millisecond for one. Zeroed at first; what it keeps is bounded. */
enum { CAD_CERTIFICATES_KEPT = 256 };
struct cad_certificates {
	struct cad_certificate_kept *kept[CAD_CERTIFICATES_KEPT];
};
CAD_MUST_USE enum cad_status cad_certificates_read(struct cad_certificates *certificates, const char *pem, size_t size,
	struct cad_certificate *certificate, struct cad_error *error);
void cad_certificates_fini(struct cad_certificates *certificates);

/* CAD_ERR_NOT_FOUND: a URI of somebody else's. CAD_ERR_INVALID: its scheme is cadre, in whatever
 * case, and it is not cadre://ROLE/NAME. */
CAD_MUST_USE enum cad_status cad_role_uri_parse(
	const char *uri, size_t size, struct cad_certificate *certificate, struct cad_error *error);

#endif
