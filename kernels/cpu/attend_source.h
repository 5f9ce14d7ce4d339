/* SPDX-License-Identifier: Apache-2.0 */
/* What the inner loops of attention read: between attend_pages.h and the forms. */
#ifndef CADRE_KERNELS_CPU_ATTEND_SOURCE_H
#define CADRE_KERNELS_CPU_ATTEND_SOURCE_H

#include "kernels/cpu/forms.h"
#include "kernels/cpu/tile.h"

#include <immintrin.h>

/* What an inner loop reads; and what it fetches for later, into the second cache (the first one's few
 * misses at a time would hold up the loop): from `ahead` on, one byte for 2^slower that it reads. */
struct kn_attend_source {
	const uint8_t *x, *ahead;
	unsigned slower;
};

/* With elements i .. i + count - 1 (constants but for i). */
KN_TILE void kn_attend_fetch(const enum cad_kv type, const struct kn_attend_source *from, size_t i, const size_t count)
{
	const char *at = (const char *)from->ahead + (i * kn_kv_element_bytes(type) >> from->slower);
	for (size_t line = 0; line < count * kn_kv_element_bytes(type); line += 64)
		_mm_prefetch(at + line, _MM_HINT_T1);
}

#endif
