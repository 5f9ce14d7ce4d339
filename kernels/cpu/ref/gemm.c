/* SPDX-License-Identifier: Apache-2.0 */
/* The definition of GEMM on panels and of the activations: scalar, one loop per sum, in the declared
 * order (kernels.h, cpu/forms.h). */
#include "kernels/cpu/bf16.h"
#include "kernels/cpu/forms.h"
#include "kernels/exp.h"
#include "kernels/image.h"
#include "kernels/sm90.h"

static float f32_of_bf16(uint16_t half)
{
	uint32_t bits = (uint32_t)half << 16;
	float f;
	memcpy(&f, &bits, sizeof f);
	return f;
}

static float weight_bf16(const uint8_t *panel, size_t column, size_t k)
{
	return f32_of_bf16(((const uint16_t *)panel)[k / 2 * 128 + column * 2 + k % 2]);
}

static float weight_f32(const uint8_t *panel, size_t column, size_t k)
{
	return ((const float *)panel)[k * KN_PANEL_COLS + column];
}

static float weight_f8(const uint8_t *panel, size_t column, size_t k)
{
	float scale = ((const float *)kn_f8_group(panel, k))[column] / KN_F8_SCALE;
	return kn_f32_of_f8(kn_f8_step(panel, k)[column]) * scale;
}

static float weight_mxfp4(const uint8_t *panel, size_t column, size_t k)
{
	float scale = ldexpf(1.0f, kn_mxfp4_group(panel, k)[column] - 127);
	return kn_f4_values[kn_mxfp4_step(panel, k)[column] >> k % 2 * 4 & 15] * scale;
}

static void gemm(const struct kn_gemm *g, float (*weight)(const uint8_t *, size_t, size_t))
{
	for (size_t r = 0; r < g->rows; r++) {
		const float *x = g->x + (g->index ? g->index[r] : r) * g->ldx;
		for (size_t c = 0; c < g->panels * KN_PANEL_COLS; c++) {
			const uint8_t *panel = g->weights + c / KN_PANEL_COLS * g->panel_bytes;
			float acc = 0.0f;
			for (size_t k = 0; k < g->k; k++)
				acc = fmaf(x[k], weight(panel, c % KN_PANEL_COLS, k), acc);
			g->y[r * g->ldy + c] = acc;
		}
	}
}

/* One output of profile bf16: of each 32 values of k a chain over the even ones and one over the
 * odd. */
static float bf16_sum(const float *x, const uint8_t *panel, size_t column, size_t count)
{
	float acc = 0.0f;
	for (size_t block = 0; block < count; block += KN_K_UNIT) {
		float sum[2] = { 0.0f, 0.0f };
		for (size_t k = block; k < block + KN_K_UNIT; k++)
			sum[k % 2] = fmaf(f32_of_bf16(kn_bf16_of(x[k])), weight_bf16(panel, column, k), sum[k % 2]);
		acc = acc + (sum[0] + sum[1]);
	}
	return acc;
}

static void gemm_rounded(const struct kn_gemm *g, float (*sum)(const float *, const uint8_t *, size_t, size_t))
{
	for (size_t r = 0; r < g->rows; r++) {
		const float *x = g->x + (g->index ? g->index[r] : r) * g->ldx;
		for (size_t c = 0; c < g->panels * KN_PANEL_COLS; c++)
			g->y[r * g->ldy + c] =
				sum(x, g->weights + c / KN_PANEL_COLS * g->panel_bytes, c % KN_PANEL_COLS, g->k);
	}
}

void kn_ref_gemm_bf16_rows(const struct kn_gemm *g)
{
	unsigned csr = kn_mode_begin(KN_MODE_FLUSH);
	gemm_rounded(g, bf16_sum);
	kn_mode_end(csr);
}

/* One output of profile bf16-sm90. */
static float sm90_sum(const float *x, const uint8_t *panel, size_t column, size_t count)
{
	float acc = 0.0f;
	for (size_t k = 0; k < count; k += KN_SM90_BLOCK) {
		uint16_t a[KN_SM90_BLOCK], b[KN_SM90_BLOCK];
		for (size_t i = 0; i < KN_SM90_BLOCK; i++) {
			a[i] = kn_bf16_of(x[k + i]);
			b[i] = kn_bf16_of(weight_bf16(panel, column, k + i));
		}
		acc = kn_sm90_add(acc, a, b);
	}
	return acc;
}

void kn_ref_gemm_bf16_sm90(const struct kn_gemm *g) { gemm_rounded(g, sm90_sum); }

void kn_ref_gemm_bf16(const struct kn_gemm *g) { gemm(g, weight_bf16); }
void kn_ref_gemm_f32(const struct kn_gemm *g) { gemm(g, weight_f32); }
void kn_ref_gemm_f8(const struct kn_gemm *g) { gemm(g, weight_f8); }
void kn_ref_gemm_mxfp4(const struct kn_gemm *g) { gemm(g, weight_mxfp4); }

static float silu(float g, float u, float limit)
{
	(void)limit;
	return g / (1.0f + kn_exp_1(-g)) * u;
}

/* Comparisons written so that NaN stays NaN. */
static float swiglu_clamped(float g, float u, float limit)
{
	g = g > limit ? limit : g;
	u = u > limit ? limit : u;
	u = u < -limit ? -limit : u;
	float z = g * 1.702f;
	return (u + 1.0f) * (g / (1.0f + kn_exp_1(-z)));
}

static void act(const struct kn_act *a, float (*fn)(float, float, float))
{
	for (size_t r = 0; r < a->rows; r++)
		for (size_t i = 0; i < a->panels * 32; i++) {
			size_t at = i / 16 * 32 + i % 16;
			float g = a->t[r * a->ldt + at], u = a->t[r * a->ldt + at + 16];
			if (a->bias) {
				g = g + a->bias[at];
				u = u + a->bias[at + 16];
			}
			a->h[r * a->ldh + i] = fn(g, u, a->limit);
		}
}

void kn_ref_silu(const struct kn_act *a) { act(a, silu); }
void kn_ref_swiglu_clamped(const struct kn_act *a) { act(a, swiglu_clamped); }

void kn_ref_exp(const float *x, size_t n, float *y)
{
	for (size_t i = 0; i < n; i++)
		y[i] = kn_exp_1(x[i]);
}
