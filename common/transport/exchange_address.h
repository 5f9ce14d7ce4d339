/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The address by which peers connect over UCX, as one text:
 *
 *     192.0.2.7:7400/ucx-1.13.1/0123456789abcdef/AAECAwQF...
 *     host:port     library    session           what UCX calls a worker address, base64url
 *
 * It is made by a worker and dies with it; the session is a random number that tells one
 * worker from the next at the same port, which UCX does not. Peers get each other's text from
 * the placement service. Two libraries that do not work together can abort each other's
 * processes, and their worker addresses do not say what made them: compare before connecting.
 * Nothing here needs UCX; any thread.
 */
#ifndef CADRE_COMMON_TRANSPORT_EXCHANGE_ADDRESS_H
#define CADRE_COMMON_TRANSPORT_EXCHANGE_ADDRESS_H

#include "common/base/address.h"
#include "common/base/limits.h"

enum { CAD_EXCHANGE_LIBRARY_BYTES = 32, CAD_EXCHANGE_WORKER_BYTES_MAX = 2800 };

struct cad_exchange_address {
	/* where it listens, for people and for checks: the first interface that it uses */
	char host[CAD_ADDRESS_BYTES];
	char library[CAD_EXCHANGE_LIBRARY_BYTES]; /* "ucx-1.13.1" */
	uint64_t session;                         /* never 0 */
	size_t worker_bytes;
	uint8_t worker[CAD_EXCHANGE_WORKER_BYTES_MAX];
};

/* CAD_ERR_INVALID and a sentence when any part is missing, or too long. */
CAD_MUST_USE enum cad_status cad_exchange_address_parse(
	const char *text, struct cad_exchange_address *address, struct cad_error *error);
void cad_exchange_address_text(const struct cad_exchange_address *address, char text[CAD_EXCHANGE_ADDRESS_BYTES]);
/* Of any exchange address, also those of other links: what stands before the first '/'. */
void cad_exchange_address_host(const char *text, char host[CAD_ADDRESS_BYTES]);

/* Whether processes with these two libraries are known to work together. False when in doubt. */
bool cad_exchange_libraries_work(const char *a, const char *b);

#endif
