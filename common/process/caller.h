/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who a call comes from, and what they may do: roles and rights. How a caller is identified is said
 * where calls arrive (common/rpc/authorize.h).
 *
 * Pure functions; any thread.
 */
#ifndef CADRE_COMMON_PROCESS_CALLER_H
#define CADRE_COMMON_PROCESS_CALLER_H

#include "common/base/address.h"

#include <stdbool.h>
#include <stddef.h>

/* Of a token or a certificate. */
enum cad_caller_role {
	CAD_CALLER_NOBODY, /* none: nobody has a role here, and the caller is not on this machine */
	CAD_CALLER_INSPECT,
	CAD_CALLER_CLIENT,
	CAD_CALLER_NODE,
	CAD_CALLER_OPERATOR,
};

/* What a method does: who may call it follows from that. */
enum cad_right {
	CAD_RIGHT_UNSAID, /* a programming error */
	CAD_RIGHT_PROBE,  /* tells whether the process works: everybody, and nobody is asked who they are */
	CAD_RIGHT_READ,
	CAD_RIGHT_GENERATE,
	CAD_RIGHT_JOIN,
	CAD_RIGHT_OPERATE, /* changes or records the cluster */
};

/* How it is known who calls; of one who is refused, what it has shown. */
enum cad_caller_by {
	CAD_BY_NOTHING,  /* the role is CAD_CALLER_NOBODY */
	CAD_BY_LOOPBACK, /* nobody has a role here, and the caller is on this machine: it may do everything */
	CAD_BY_TOKEN,
	CAD_BY_CERTIFICATE,
	CAD_BY_BOTH, /* a certificate, and a token that is in force within it */
};

enum { CAD_CALLER_NAME_BYTES = 128 };

struct cad_caller {
	enum cad_caller_role role;
	enum cad_caller_by by;
	char name[CAD_CALLER_NAME_BYTES]; /* "": none */
	char peer[CAD_ADDRESS_BYTES];     /* "10.0.0.7:51234"; where the call comes from, as the transport says */
};

const char *cad_caller_role_name(enum cad_caller_role role);
/* False: `text` names no role that one can be given. */
bool cad_caller_role_parse(const char *text, size_t size, enum cad_caller_role *role);
const char *cad_caller_by_name(enum cad_caller_by by);

/* Where nobody has a role: who it is, by where it is. */
void cad_caller_place(struct cad_caller *caller);
bool cad_caller_may(const struct cad_caller *caller, enum cad_right right);
/* Whether whoever has the role `wide` may do all that `narrow` may. */
bool cad_caller_role_covers(enum cad_caller_role wide, enum cad_caller_role narrow);
/* The roles that have a right, for a sentence: "'client' or 'operator'". */
const char *cad_right_holders(enum cad_right right);

#endif
