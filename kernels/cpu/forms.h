/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The forms of the CPU: one inner kernel per name in KN_FORM_LIST, written three times: kn_ref_NAME
 * (ref/: the definition, scalar, in the declared order), kn_avx2_NAME (cpu/avx2_*.c) and
 * kn_avx512_NAME (cpu/avx512*.c). All give equal bits. A form without anything faster calls
 * another's. Two more forms are avx2 and avx512 but for integers: avxvnni and amx, whose kernels
 * are those of KN_FORM_INT_LIST, and amx's those of KN_FORM_BF16_LIST too.
 *
 * Inner kernels run on one thread, allocate nothing, and keep no state. Vectors of f32 are
 * unaligned unless said. To add a kernel: a line in the list with its contract above it, and the
 * three functions; forms.c makes the tables.
 */
#ifndef CADRE_KERNELS_CPU_FORMS_H
#define CADRE_KERNELS_CPU_FORMS_H

#include "kernels/cpu/layout.h"
#include "kernels/cpu/tune.h"

#include <math.h>
#include <stdbool.h>

/*
 * y[r][c] = chain of fma over k ascending of x[r][k] * W[c][k], from +0; r < rows, c < 64 * panels.
 * Row r of x is row index[r] (row r when index is NULL).
 * `weights` is the first panel, the others follow at panel_bytes; storage by the function. k is
 * k_pad: even, and x has that many elements.
 * y's rows have room for whole panels; nothing else of y is touched. y is not x.
 */
struct kn_gemm {
	const float *x;
	size_t ldx;
	const uint8_t *q; /* instead of x, for gemm_s8 and gemm_u4: quantised rows (layout.h) */
	size_t ldq;
	const uint32_t *index;
	size_t rows, k;
	const uint8_t *weights;
	size_t panels, panel_bytes;
	float *y;
	size_t ldy;
};

/* h[r][32 p + i] = act(gate, up) of panel p: t[r][64 p ..] = g16 u16 g16 u16; bias has t's columns,
 * or is NULL, and is added first. limit: of the clamped one. */
struct kn_act {
	const float *t;
	size_t ldt, rows, panels;
	const float *bias;
	float limit;
	float *h;
	size_t ldh;
};

/*
 * Queries of one KV head over one sequence, that walk its pages together. Query i sees the keys
 * begin[i] .. end[i] - 1; m, l and out are what struct kn_attend says, of the chunk at hand. The
 * queries are kept tile by tile with d slowest, so that a tile reads them in one stream; the stride
 * of out, a line more than whole lines, spreads its rows over the sets of a cache. value_size is that
 * of values as they are kept (layout.h), and so many elements of a key where that is the value too.
 */
struct kn_attend_block {
	size_t count, key_size, value_size, ldo;
	bool latent;
	float scale;
	uint32_t begin[KN_ATTEND_QUERIES], end[KN_ATTEND_QUERIES];
	float m[KN_ATTEND_QUERIES], l[KN_ATTEND_QUERIES];
	_Alignas(64) float out[KN_ATTEND_QUERIES * (KN_VALUE_SIZE_MAX + 16)]; /* [count][ldo] */
	_Alignas(64) float q[KN_ATTEND_QUERIES * KN_KEY_SIZE_MAX];            /* [tiles][key_size][tile] */
};
static inline float *kn_attend_q(struct kn_attend_block *b, size_t query, size_t d)
{
	return &b->q[(query / KN_ATTEND_TILE * kn_round_up(b->key_size, 8) + d) * KN_ATTEND_TILE +
		query % KN_ATTEND_TILE];
}
static inline float *kn_attend_out(struct kn_attend_block *b, size_t query) { return b->out + query * b->ldo; }
static inline const float *kn_attend_scales(const struct kn_attend_block *b, const uint8_t *part)
{
	return kn_kv_scales(b->key_size, b->latent ? 0 : b->value_size, part);
}
/* The values' scales behind the keys': latent, they are the same. */
static inline size_t kn_attend_value_scales(const struct kn_attend_block *b) { return b->latent ? 0 : KN_PAGE_KEYS; }

/* Pages of one chunk, as one KV head has them (layout.h): the keys first .. first + 32 * count - 1 of
 * the sequence. part[count] is what will be read next. */
struct kn_attend_pages {
	enum cad_kv type;
	uint32_t first;
	size_t count;
	const uint8_t *part[KN_CHUNK_KEYS / KN_PAGE_KEYS + 1];
};

/* What a row of sums becomes (struct kn_combine_finish): times quantum, + share * shared where there
 * is one, times scale; added to x unless apart. */
struct kn_finish {
	float quantum, share, scale;
	bool apart;
	const float *shared; /* [n] or NULL */
};

/* What decides how a row crosses the wire: the bits of max|x| (NaN is the largest), and the squares
 * of x / 2^e summed as in kn_rmsnorm, e the frexp exponent of max|x| (0 for a zero row or one that
 * is not finite), so that nothing overflows. `most` is max|x| / 2^e. */
struct kn_row_measure {
	uint32_t most_bits;
	int exponent;
	float most, squares;
};
/* 2^-exponent as two factors, for it may be out of range itself. */
static inline void kn_row_scales(int exponent, float scales[2])
{
	int half = -exponent / 2;
	scales[0] = ldexpf(1.0f, half);
	scales[1] = ldexpf(1.0f, -exponent - half);
}

/* Kernels that have forms of their own on processors with instructions for them. */
#define KN_FORM_INT_LIST(X) \
	/* GEMM on integers: for each group, ascending, acc = fma((float)dot, x's scale * the */ \
	/* column's, acc), acc = +0 at first, dot exact */ \
	X(void, gemm_s8, (const struct kn_gemm *g)) \
	X(void, gemm_u4, (const struct kn_gemm *g))

/* Those that AMX has an instruction for, and no other. */
#define KN_FORM_BF16_LIST(X) \
	/* GEMM on panels of bf16 by rows rounded to bf16, in the order of profile bf16 (struct */ \
	/* kn_linear); k is a multiple of KN_K_UNIT */ \
	X(void, gemm_bf16_rows, (const struct kn_gemm *g))

#define KN_FORM_PLAIN_LIST(X) \
	/* GEMM on panels (see above) */ \
	X(void, gemm_bf16, (const struct kn_gemm *g)) \
	X(void, gemm_f32, (const struct kn_gemm *g)) \
	/* The same on weights that are the stored value times its scale, rounded to f32 (kernels/values.h) */ \
	X(void, gemm_f8, (const struct kn_gemm *g)) \
	X(void, gemm_mxfp4, (const struct kn_gemm *g)) \
	/* GEMM on panels of bf16 by rows rounded to bf16, in the order of profile bf16-sm90 (sm90.h); k is a */ \
	/* multiple of KN_K_UNIT */ \
	X(void, gemm_bf16_sm90, (const struct kn_gemm *g)) \
	/* KN_GROUP values of a row (quantise.h), all past the first n zero; n is a multiple of */ \
	/* 16. sums [KN_ROW_SUMS] as in layout.h */ \
	X(void, quantise, (const float *x, size_t n, int8_t *q, float *scale, int32_t *sums)) \
	/* SILU: g / (1 + exp(-g)) * u */ \
	X(void, silu, (const struct kn_act *a)) \
	/* SWIGLU_CLAMPED (gpt_oss): g = min(g, limit); u = max(min(u, limit), -limit); */ \
	/* (u + 1) * (g / (1 + exp(-1.702 g))) */ \
	X(void, swiglu_clamped, (const struct kn_act *a)) \
	/* y[i] = kn_exp(x[i]), i < n; y may be x */ \
	X(void, exp, (const float *x, size_t n, float *y)) \
	/* p[i] = e^(x[i] - max) / sum, as struct kn_gate says; p is not x */ \
	X(void, softmax, (const float *x, size_t n, float *p)) \
	/* One part of a row, as struct kn_rmsnorm says; out may be x */ \
	X(void, rmsnorm, (const float *x, const float *weight, size_t n, float epsilon, float *out)) \
	/* One head: its first `size` elements, as struct kn_rope says */ \
	X(void, rope, (float *x, const float *cosines, const float *sines, size_t size, bool interleaved)) \
	/* x[i] += y[i] * scale (the product rounded first); scale 1 is a plain sum */ \
	X(void, add, (float *x, const float *y, size_t n, float scale)) \
	/* Scores, softmax and values of the pages, ascending, for every query that sees any of their keys */ \
	X(void, attend_pages, (struct kn_attend_block * b, const struct kn_attend_pages *pages)) \
	/* Sixteen columns of a panel back as rows: rows[c * ld + w] is lane c of step w, whose line is at */ \
	/* line + 256 w (layout.h); w < words, a multiple of 8 as ld is, and rows 32-byte aligned */ \
	X(void, lanes_store, (const uint8_t *line, size_t words, uint32_t *rows, size_t ld)) \
	/* Rows on the wire; `data` has no alignment. fix16: min(rint(x * inverse), 32767), inverse a power of two. */ \
	/* bf16: to nearest even, NaN stays NaN */ \
	X(struct kn_row_measure, row_measure, (const float *x, size_t n)) \
	X(void, row_to_fix16, (const float *x, size_t n, float inverse, uint8_t *data)) \
	X(void, row_from_fix16, (const uint8_t *data, size_t n, float scale, float *x)) \
	X(void, row_to_bf16, (const float *x, size_t n, uint8_t *data)) \
	X(void, row_from_bf16, (const uint8_t *data, size_t n, float *x)) \
	/* q s8 */ \
	X(void, row_from_q8, (const uint8_t *q, size_t n, float scale, float *x)) \
	/* sums[i] += rint(weight * y[i] / quantum), the exact product rounded once; false when */ \
	/* any is NaN or 2^53 or more (sums are then worthless). inverse = 1 / quantum */ \
	X(bool, sums_round, (int64_t * sums, const float *y, size_t n, float weight, double inverse)) \
	/* The fewest bytes of 2, 3, 4, 8 that hold every sum */ \
	X(uint8_t, sums_width, (const int64_t *sums, size_t n)) \
	X(void, sums_store, (const int64_t *sums, size_t n, uint8_t width, uint8_t *data)) \
	X(void, sums_add, (int64_t * sums, const uint8_t *data, size_t n, uint8_t width)) \
	/* x[i] += (float)sums[i] * quantum + shared[i] (shared may be NULL); sums[i] = 0 */ \
	X(void, sums_finish, (float *x, int64_t *sums, size_t n, const struct kn_finish *f))

#define KN_FORM_LIST(X) KN_FORM_PLAIN_LIST(X) KN_FORM_BF16_LIST(X) KN_FORM_INT_LIST(X)

struct kn_form {
	const char *name;
	enum kn_isa isa;
#define X(result, name, arguments) result(*name) arguments;
	KN_FORM_LIST(X)
#undef X
};

#define X(result, name, arguments) \
	result kn_ref_##name arguments; \
	result kn_avx2_##name arguments; \
	result kn_avx512_##name arguments;
KN_FORM_LIST(X)
#undef X

#define X(result, name, arguments) \
	result kn_avxvnni_##name arguments; \
	result kn_amx_##name arguments;
KN_FORM_INT_LIST(X)
#undef X
#define X(result, name, arguments) result kn_amx_##name arguments;
KN_FORM_BF16_LIST(X)
#undef X

/* The form of `isa` (AUTO: the fastest), or NULL when this machine cannot run it. */
const struct kn_form *kn_form_find(enum kn_isa isa);

#endif
