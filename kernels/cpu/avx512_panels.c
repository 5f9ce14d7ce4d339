/* SPDX-License-Identifier: Apache-2.0 */
/* Turning words around waits for memory: this is AVX2's. */
#include "kernels/cpu/forms.h"

void kn_avx512_lanes_store(const uint8_t *line, size_t words, uint32_t *rows, size_t ld)
{
	kn_avx2_lanes_store(line, words, rows, ld);
}
