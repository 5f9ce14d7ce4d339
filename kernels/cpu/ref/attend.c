/* SPDX-License-Identifier: Apache-2.0 */
/* The definition of attention over pages. */
#include "kernels/exp.h"
#include "kernels/cpu/forms.h"

#include <string.h>

static float bf16(uint16_t half)
{
	uint32_t bits = (uint32_t)half << 16;
	float value;
	memcpy(&value, &bits, sizeof value);
	return value;
}

/* Element i of row `row` of n. */
static float kept(enum cad_kv type, const uint8_t *x, size_t row, size_t n, size_t i)
{
	size_t at = row * n + kn_kv_place(type, i, n);
	switch (type) {
	case CAD_KV_F32: return ((const float *)x)[at];
	case CAD_KV_BF16: return bf16(((const uint16_t *)x)[at]);
	case CAD_KV_INT8: return (float)((const int8_t *)x)[at];
	}
	return NAN;
}

static float page_sum(const float p[KN_PAGE_KEYS])
{
	float s[16];
	for (size_t i = 0; i < 16; i++)
		s[i] = p[2 * i] + p[2 * i + 1];
	for (size_t half = 8; half > 0; half /= 2)
		for (size_t i = 0; i < half; i++)
			s[i] = s[i] + s[i + half];
	return s[0];
}

/* Element d of value j; what is kept past a value is no matter. */
static float value_at(const struct kn_attend_block *b, enum cad_kv type, const uint8_t *keys, size_t j, size_t d)
{
	if (b->latent)
		return d < b->key_size ? kept(type, keys, d, KN_PAGE_KEYS, j) : 0.0f;
	return kept(type, keys + kn_kv_values_offset(type, b->key_size), j, b->value_size, d);
}

/* The query's keys on this page are lo .. hi - 1. */
static void attend_query(
	struct kn_attend_block *b, size_t query, enum cad_kv type, const uint8_t *keys, size_t lo, size_t hi)
{
	const float *scales = kn_attend_scales(b, keys);
	bool int8 = type == CAD_KV_INT8;
	float p[KN_PAGE_KEYS] = { 0 }, m = b->m[query], *out = kn_attend_out(b, query);
	for (size_t j = lo; j < hi; j++) {
		float s = 0.0f;
		for (size_t d = 0; d < b->key_size; d++)
			s = fmaf(*kn_attend_q(b, query, d), kept(type, keys, d, KN_PAGE_KEYS, j), s);
		p[j] = (int8 ? s * scales[j] : s) * b->scale;
		m = p[j] > m ? p[j] : m;
	}

	float alpha = kn_exp_1(b->m[query] - m);
	for (size_t j = lo; j < hi; j++)
		p[j] = kn_exp_1(p[j] - m);
	b->l[query] = fmaf(b->l[query], alpha, page_sum(p));
	b->m[query] = m;

	for (size_t j = lo; j < hi && int8; j++)
		p[j] = p[j] * scales[kn_attend_value_scales(b) + j];
	for (size_t d = 0; d < b->value_size; d++) {
		float sum = out[d] * alpha;
		for (size_t j = lo; j < hi; j++)
			sum = fmaf(p[j], value_at(b, type, keys, j, d), sum);
		out[d] = sum;
	}
}

void kn_ref_attend_pages(struct kn_attend_block *b, const struct kn_attend_pages *pages)
{
	for (size_t page = 0; page < pages->count; page++) {
		uint32_t first = pages->first + (uint32_t)(page * KN_PAGE_KEYS), last = first + KN_PAGE_KEYS;
		for (size_t i = 0; i < b->count; i++) {
			uint32_t lo = b->begin[i] > first ? b->begin[i] : first,
				 hi = b->end[i] < last ? b->end[i] : last;
			if (lo < hi)
				attend_query(b, i, pages->type, pages->part[page], lo - first, hi - first);
		}
	}
}
