/*
 * The forms of the CPU: one inner kernel per name in KN_FORM_LIST, written three times: kn_ref_NAME (ref/: the definition, scalar, in the declared
 * order), kn_avx2_NAME (cpu/avx2_*.c) and kn_avx512_NAME (cpu/avx512_*.c). All give equal bits. A form that has nothing faster to offer calls another's.
 *
 * Inner kernels run on one thread, allocate nothing, and keep no state. Vectors of f32 are unaligned unless said. To add a kernel: a line in the list
 * with its contract above it, and the three functions; forms.c makes the tables.
 */
#ifndef CADRE_KERNELS_FORMS_H
#define CADRE_KERNELS_FORMS_H

#include "kernels/kernels.h"

/*
 * y[r][c] = chain of fma over k ascending of x[r][k] * W[c][k], from +0; r < rows, c < 64 * panels. Row r of x is row index[r] (row r when index is NULL).
 * `weights` is the first panel, the others follow at panel_bytes; storage by the function. k is k_pad: even, and x has that many elements.
 * y's rows have room for whole panels; nothing else of y is touched. y is not x.
 */
struct kn_gemm {
	const float *x;
	size_t ldx;
	const uint32_t *index;
	size_t rows, k;
	const uint8_t *weights;
	size_t panels, panel_bytes;
	float *y;
	size_t ldy;
};

/* h[r][32 p + i] = act(gate, up) of panel p: t[r][64 p ..] = g16 u16 g16 u16; bias has t's columns, or is NULL, and is added first. limit: of the clamped one. */
struct kn_act {
	const float *t;
	size_t ldt, rows, panels;
	const float *bias;
	float limit;
	float *h;
	size_t ldh;
};

#define KN_FORM_LIST(X) \
	/* GEMM on panels (see above) */ \
	X(void, gemm_bf16, (const struct kn_gemm *g)) \
	X(void, gemm_f32, (const struct kn_gemm *g)) \
	/* SILU: g / (1 + exp(-g)) * u */ \
	X(void, silu, (const struct kn_act *a)) \
	/* SWIGLU_CLAMPED (gpt_oss): g = min(g, limit); u = max(min(u, limit), -limit); (u + 1) * (g / (1 + exp(-1.702 g))) */ \
	X(void, swiglu_clamped, (const struct kn_act *a)) \
	/* y[i] = kn_exp(x[i]), i < n; y may be x */ \
	X(void, exp, (const float *x, size_t n, float *y))

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

/* The form of `isa` (AUTO: the fastest), or NULL when this machine cannot run it. */
const struct kn_form *kn_form_find(enum kn_isa isa);

#endif
