/* SPDX-License-Identifier: Apache-2.0 */
#include "common/cluster/proof.h"

#include "cadre/v1/placement.pb-c.h"

#include <sodium.h>
#include <string.h>

_Static_assert(CAD_PROOF_BYTES == crypto_auth_hmacsha256_BYTES, "a mac is HMAC-SHA-256");

enum { LABEL_BYTES = 16 };
static const char LABEL_SERVICE[LABEL_BYTES] = "cadre placement", LABEL_MEMBER[LABEL_BYTES] = "cadre member";

void cad_proof_nonce(uint8_t nonce[CAD_PROOF_BYTES]) { randombytes_buf(nonce, CAD_PROOF_BYTES); }

static void mac_of(const char *secret, const char label[LABEL_BYTES], const struct cad_proof_nonces *nonces,
	const char *const *texts, size_t count, uint8_t mac[CAD_PROOF_BYTES])
{
	crypto_auth_hmacsha256_state state;
	crypto_auth_hmacsha256_init(&state, (const unsigned char *)secret, strlen(secret));
	crypto_auth_hmacsha256_update(&state, (const unsigned char *)label, LABEL_BYTES);
	crypto_auth_hmacsha256_update(&state, nonces->member, CAD_PROOF_BYTES);
	crypto_auth_hmacsha256_update(&state, nonces->service, CAD_PROOF_BYTES);

	for (size_t i = 0; i < count; i++) {
		size_t size = strlen(texts[i]);
		const uint8_t length[4] = { (uint8_t)size, (uint8_t)(size >> 8), (uint8_t)(size >> 16),
			(uint8_t)(size >> 24) };
		crypto_auth_hmacsha256_update(&state, length, sizeof length);
		crypto_auth_hmacsha256_update(&state, (const unsigned char *)texts[i], size);
	}
	crypto_auth_hmacsha256_final(&state, mac);
}

void cad_proof_of_service(
	const char *secret, const struct cad_proof_nonces *nonces, const char *cluster, uint8_t mac[CAD_PROOF_BYTES])
{
	mac_of(secret, LABEL_SERVICE, nonces, &cluster, 1, mac);
}

void cad_proof_of_member(const char *secret, const struct cad_proof_nonces *nonces, const Cadre__V1__NodeHello *hello,
	uint8_t mac[CAD_PROOF_BYTES])
{
	const char *role = hello->role == CADRE__V1__ROLE__ROLE_EXPERT ? "expert" : "router";
	const char *const texts[] = { hello->id, role, hello->cluster, hello->exchange_address };
	mac_of(secret, LABEL_MEMBER, nonces, texts, sizeof texts / sizeof texts[0], mac);
}

bool cad_proof_right(const uint8_t mac[CAD_PROOF_BYTES], const void *theirs, size_t bytes)
{
	return bytes == CAD_PROOF_BYTES && sodium_memcmp(mac, theirs, CAD_PROOF_BYTES) == 0;
}
