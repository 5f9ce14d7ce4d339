/* SPDX-License-Identifier: Apache-2.0 */
/* Hashes of 128 bits (XXH3-128) as text: 32 hex digits, the highest first. Pure; any thread. */
#ifndef CADRE_COMMON_BASE_DIGEST_H
#define CADRE_COMMON_BASE_DIGEST_H

#include <stdint.h>

enum { CAD_DIGEST_BYTES = 16, CAD_DIGEST_TEXT_BYTES = 33 };

/* Of its halves, as XXH128_hash_t has them. */
void cad_digest_text(uint64_t high, uint64_t low, char text[CAD_DIGEST_TEXT_BYTES]);
/* Of its canonical form: big-endian. */
void cad_digest_bytes_text(const uint8_t digest[CAD_DIGEST_BYTES], char text[CAD_DIGEST_TEXT_BYTES]);

#endif
