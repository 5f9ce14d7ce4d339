/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bearer tokens, as a token file has them: what callers show to be served, and who they then are
 * (caller.h).
 *
 *     # one token a line: TOKEN [ROLE [NAME]]
 *     3f9c...             a client without a name
 *     77ab... client      alice
 *     c1d0... client      alice      (alice's next one: several tokens may have one name)
 *     02e5... inspect     dashboard
 *     8a41... node        gpu-rack
 *     e09b... operator    bob
 *
 * "generate", as this role was called before, is "client". Lines that are empty or begin with '#'
 * say nothing. Errors name file and line, never a token. Any thread may read a table that nobody
 * changes; reading a file blocks and allocates.
 */
#ifndef CADRE_COMMON_PROCESS_BEARER_H
#define CADRE_COMMON_PROCESS_BEARER_H

#include "common/base/status.h"
#include "common/process/caller.h"
#include "common/process/process.h"

enum { CAD_BEARERS_MAX = 1024, CAD_BEARER_BYTES_MAX = 4096 };

struct cad_bearer {
	char *token;
	unsigned char hash[32]; /* compared instead of the token */
	enum cad_caller_role role;
	char name[CAD_PROCESS_NAME_BYTES]; /* empty: none */
};

struct cad_bearers {
	struct cad_bearer *entries;
	size_t count; /* 0: nobody is asked for a token */
};

/* At least one token and at most CAD_BEARERS_MAX, each of 16 to CAD_BEARER_BYTES_MAX printable
 * characters and in one line only. On success *bearers is the caller's to fini. */
CAD_MUST_USE enum cad_status cad_bearers_read(const char *path, struct cad_bearers *bearers, struct cad_error *error);
/* The same of a file's content, which `path` names in errors. */
CAD_MUST_USE enum cad_status cad_bearers_parse(
	const char *text, size_t size, const char *path, struct cad_bearers *bearers, struct cad_error *error);
void cad_bearers_fini(struct cad_bearers *bearers);

/* Which one was sent; NULL: none of them. Takes the same time whatever was
 * sent, but for its length. */
const struct cad_bearer *cad_bearers_find(const struct cad_bearers *bearers, const void *sent, size_t size);

#endif
