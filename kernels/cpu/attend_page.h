/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One page for a block of queries, tile by tile: what avx2_attend.c and avx512_attend.c share. The
 * includer defines, before it includes this:
 *   page_scores(type, b, query, count, page, s)   s[r] = 32 sums of products of queries query ..
 *                                                 query + count - 1, not scaled; fetches the values
 *   row_softmax(s, lo, hi, scale, &m, &l, p)      -> alpha; p[j] of the keys lo .. hi - 1
 *   page_values(type, b, query, count, page, lo, hi, p, alpha)   out = out * alpha, then the chain
 *       over keys lo .. hi - 1; fetches the next page's keys
 * `type` is the page's, as a constant.
 * Rows of a tile need not see the same keys: the keys that all see go through the tile, what stands
 * before and after goes row by row, ascending.
 */
#ifndef CADRE_KERNELS_CPU_ATTEND_PAGE_H
#define CADRE_KERNELS_CPU_ATTEND_PAGE_H

struct kn_attend_tile {
	_Alignas(64) float s[KN_ATTEND_TILE][KN_PAGE_KEYS], p[KN_ATTEND_TILE][KN_PAGE_KEYS];
	float alpha[KN_ATTEND_TILE];
	size_t lo[KN_ATTEND_TILE], hi[KN_ATTEND_TILE];
};

KN_TILE void attend_tile_row(const enum cad_kv type, struct kn_attend_block *b, size_t query, struct kn_attend_tile *t,
	size_t r, const struct kn_attend_page *page, size_t lo, size_t hi)
{
	page_values(type, b, query + r, 1, page, lo, hi, &t->p[r], &t->alpha[r]);
	t->alpha[r] = 1.0f;
}

KN_TILE void attend_page_tile(const enum cad_kv type, struct kn_attend_block *b, size_t query, size_t count,
	const struct kn_attend_page *page)
{
	struct kn_attend_tile t;
	uint32_t first = page->first;
	size_t lo = 0, hi = KN_PAGE_KEYS, meet = 0;

	for (size_t r = 0; r < count; r++) {
		uint32_t begin = b->begin[query + r], end = b->end[query + r];
		t.lo[r] = begin > first ? begin - first : 0;
		t.hi[r] = end < first + KN_PAGE_KEYS ? (end > first ? end - first : 0) : KN_PAGE_KEYS;
		meet += t.lo[r] < t.hi[r];
		lo = t.lo[r] > lo ? t.lo[r] : lo;
		hi = t.hi[r] < hi ? t.hi[r] : hi;
	}

	if (meet == 0)
		return;
	page_scores(type, b, query, count, page, t.s);
	for (size_t r = 0; r < count; r++)
		if (t.lo[r] < t.hi[r])
			t.alpha[r] = row_softmax(
				t.s[r], t.lo[r], t.hi[r], b->scale, &b->m[query + r], &b->l[query + r], t.p[r]);
	bool together = meet == count && lo < hi;
	for (size_t r = 0; r < count; r++) {
		size_t end = together ? lo : t.hi[r];
		if (t.lo[r] < end)
			attend_tile_row(type, b, query, &t, r, page, t.lo[r], end);
	}

	if (!together)
		return;
	page_values(type, b, query, count, page, lo, hi, t.p, t.alpha);

	for (size_t r = 0; r < count; r++) {
		t.alpha[r] = 1.0f;
		if (hi < t.hi[r])
			attend_tile_row(type, b, query, &t, r, page, hi, t.hi[r]);
	}
}

KN_TILE void attend_page_block(const enum cad_kv type, struct kn_attend_block *b, const struct kn_attend_page *page)
{
	for (size_t query = 0; query < b->count; query += KN_ATTEND_TILE) {
		size_t count = b->count - query < KN_ATTEND_TILE ? b->count - query : KN_ATTEND_TILE;
		attend_page_tile(type, b, query, count, page);
	}
}

static void attend_page_f32(struct kn_attend_block *b, const struct kn_attend_page *page)
{
	attend_page_block(CAD_KV_F32, b, page);
}

static void attend_page_bf16(struct kn_attend_block *b, const struct kn_attend_page *page)
{
	attend_page_block(CAD_KV_BF16, b, page);
}

static void attend_page_of(struct kn_attend_block *b, const struct kn_attend_page *page)
{
	switch (page->type) {
	case CAD_KV_F32: attend_page_f32(b, page); break;
	case CAD_KV_BF16: attend_page_bf16(b, page); break;
	}
}

#endif
