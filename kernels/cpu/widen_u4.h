/* SPDX-License-Identifier: Apache-2.0 */
/* A group of a panel of u4, widened: what int8 computes with. Pays where many rows meet it. */
#ifndef CADRE_KERNELS_CPU_WIDEN_U4_H
#define CADRE_KERNELS_CPU_WIDEN_U4_H

#include "kernels/cpu/layout.h"
#include "kernels/cpu/tile.h"

#include <immintrin.h>
#include <string.h>

enum { KN_S8_GROUP_BYTES = KN_STEP_BYTES * (1 + KN_GROUP / 4) };

/* Of 8 columns in a sub-group: s in each word, z * s in each byte; nibble: their nibbles, lowest in
 * their lanes. */
struct kn_u4_factors {
	__m256i s, zs;
};
static inline struct kn_u4_factors kn_u4_factors_of(__m256i nibble)
{
	const __m256i odd = _mm256_setr_epi32(0x10001, 0x30003, 0x50005, 0x70007, 0x90009, 0xb000b, 0xd000d, 0xf000f),
		      products = _mm256_broadcastsi128_si256(_mm_setr_epi8(7, 7 * 3, 7 * 5, 7 * 7, 7 * 9, 7 * 11,
			      7 * 13, 7 * 15, 8, 8 * 3, 8 * 5, 8 * 7, 8 * 9, 8 * 11, 8 * 13, 8 * 15)),
		      first_bytes = _mm256_broadcastsi128_si256(
			      _mm_setr_epi8(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12));
	__m256i index = _mm256_shuffle_epi8(_mm256_and_si256(nibble, _mm256_set1_epi32(15)), first_bytes);
	return (struct kn_u4_factors){ _mm256_permutevar8x32_epi32(odd, nibble), _mm256_shuffle_epi8(products, index) };
}

/* to [KN_S8_GROUP_BYTES]: 32-byte aligned, as `group` is. u * s is at most 225: a product of words
 * is that of both bytes. */
static inline void kn_widen_u4(const uint8_t *group, uint8_t *to)
{
	const __m256i low_bits = _mm256_set1_epi8(0x0f);
	const uint8_t *steps = group + 2 * KN_STEP_BYTES;

	memcpy(to, group, KN_STEP_BYTES);
	for (size_t j = 0; j < KN_SUBGROUPS; j++)
		for (size_t at = 0; at < KN_STEP_BYTES; at += 32) {
			__m256i subscales = _mm256_load_si256((const __m256i *)(group + KN_STEP_BYTES + at));
			struct kn_u4_factors f = kn_u4_factors_of(_mm256_srli_epi32(subscales, 4 * (int)j));
			for (size_t step = j * (KN_SUBGROUP / 8); step < (j + 1) * (KN_SUBGROUP / 8); step++) {
				__m256i both = _mm256_load_si256((const __m256i *)(steps + step * KN_STEP_BYTES + at)),
					low = _mm256_and_si256(both, low_bits),
					high = _mm256_and_si256(_mm256_srli_epi16(both, 4), low_bits);
				__m256i *out = (__m256i *)(to + (1 + 2 * step) * KN_STEP_BYTES + at);
				_mm256_store_si256(out, _mm256_sub_epi8(_mm256_mullo_epi16(low, f.s), f.zs));
				_mm256_store_si256(out + KN_STEP_BYTES / sizeof *out,
					_mm256_sub_epi8(_mm256_mullo_epi16(high, f.s), f.zs));
			}
		}
}

#endif
