/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a process that joins and the placement service prove to each other that they know the cluster
 * secret, without sending it.
 *
 *   member                                        service
 *   challenge: nonce, id                   ->
 *                                          <-     challenge: nonce, mac ("cadre placement", nonces, cluster)
 *   hello: ..., mac ("cadre member", nonces, id, role, cluster, exchange address)
 *                                          ->     compares
 *
 * A mac is HMAC-SHA-256 under the secret over a label of its own (16 bytes), the member's nonce,
 * the service's, and the texts in this order, each behind its length in 4 bytes, the lowest first;
 * the role is "router" or "expert". So none can be replayed, reflected, or carried to another
 * process or address. Any thread; nothing allocates.
 */
#ifndef CADRE_COMMON_CLUSTER_PROOF_H
#define CADRE_COMMON_CLUSTER_PROOF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct Cadre__V1__NodeHello;

enum { CAD_PROOF_BYTES = 32 }; /* of a nonce, and of a mac */

struct cad_proof_nonces {
	uint8_t member[CAD_PROOF_BYTES], service[CAD_PROOF_BYTES];
};

void cad_proof_nonce(uint8_t nonce[CAD_PROOF_BYTES]);
void cad_proof_of_service(
	const char *secret, const struct cad_proof_nonces *nonces, const char *cluster, uint8_t mac[CAD_PROOF_BYTES]);
void cad_proof_of_member(const char *secret, const struct cad_proof_nonces *nonces,
	const struct Cadre__V1__NodeHello *hello, uint8_t mac[CAD_PROOF_BYTES]);
/* In constant time. */
bool cad_proof_right(const uint8_t mac[CAD_PROOF_BYTES], const void *theirs, size_t bytes);

#endif
