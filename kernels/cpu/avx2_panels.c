/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cpu/forms.h"
#include "kernels/cpu/transpose.h"

void kn_avx2_lanes_store(const uint8_t *line, size_t words, uint32_t *rows, size_t ld)
{
	for (size_t w = 0; w < words; w += 8)
		for (size_t c = 0; c < 16; c += 8)
			kn_transpose_8(
				(const uint32_t *)line + w * KN_PANEL_COLS + c, KN_PANEL_COLS, rows + c * ld + w, ld);
}
