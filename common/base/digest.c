/* SPDX-License-Identifier: Apache-2.0 */
#include "common/base/digest.h"

#include <inttypes.h>
#include <stdio.h>

void cad_digest_text(uint64_t high, uint64_t low, char text[CAD_DIGEST_TEXT_BYTES])
{
	snprintf(text, CAD_DIGEST_TEXT_BYTES, "%016" PRIx64 "%016" PRIx64, high, low);
}

void cad_digest_bytes_text(const uint8_t digest[CAD_DIGEST_BYTES], char text[CAD_DIGEST_TEXT_BYTES])
{
	uint64_t high = 0, low = 0;
	for (int i = 0; i < CAD_DIGEST_BYTES / 2; i++) {
		high = high << 8 | digest[i];
		low = low << 8 | digest[i + CAD_DIGEST_BYTES / 2];
	}
	cad_digest_text(high, low, text);
}
