/* SPDX-License-Identifier: Apache-2.0 */
/* The definition of how a panel's columns become rows again. */
#include "kernels/cpu/forms.h"

#include <string.h>

void kn_ref_lanes_store(const uint8_t *line, size_t words, uint32_t *rows, size_t ld)
{
	for (size_t w = 0; w < words; w++)
		for (size_t c = 0; c < 16; c++)
			memcpy(&rows[c * ld + w], line + (w * KN_PANEL_COLS + c) * sizeof *rows, sizeof *rows);
}
