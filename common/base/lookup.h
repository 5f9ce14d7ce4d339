/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looking up the addresses of a host, which the C library may take tens of seconds for where no
 * name server answers. A thread of its own does it, so that whoever asked can go on, or lose
 * interest: the thread then ends by itself, and a process does not wait for it when it exits.
 *
 * A lookup belongs to the thread that started it. Nothing blocks but cad_lookup_wait.
 */
#ifndef CADRE_COMMON_BASE_LOOKUP_H
#define CADRE_COMMON_BASE_LOOKUP_H

#include "common/base/address.h"

#include <netdb.h>

struct cad_lookup;

/* NULL: there is no memory or thread for it. */
struct cad_lookup *cad_lookup_start(const struct cad_address *address);
/*
 * CAD_OK: `found` are its addresses, for SOCK_STREAM, best first, valid until cad_lookup_leave.
 * CAD_AGAIN: not after so many milliseconds. CAD_ERR_UNREACHABLE, and the resolver's sentence: it
 * has none.
 */
CAD_MUST_USE enum cad_status cad_lookup_wait(
	struct cad_lookup *lookup, uint32_t timeout_ms, const struct addrinfo **found, struct cad_error *error);
void cad_lookup_leave(struct cad_lookup *lookup); /* NULL is allowed */

#endif
