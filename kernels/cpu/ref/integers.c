/* SPDX-License-Identifier: Apache-2.0 */
/* The definition of the quantiser and of GEMM on integers (quantise.h, kernels.h). */
#include "kernels/cpu/forms.h"

static int weight_s8(const uint8_t *lines, size_t column, size_t k)
{
	return (int8_t)lines[k / 4 * KN_STEP_BYTES + column * 4 + k % 4];
}

static int weight_u4(const uint8_t *lines, size_t column, size_t k)
{
	const uint8_t *steps = lines + KN_STEP_BYTES;
	int u = steps[k / 8 * KN_STEP_BYTES + column * 4 + k % 4] >> (k % 8 / 4 * 4) & 15;
	uint32_t subscales;
	memcpy(&subscales, lines + column * sizeof subscales, sizeof subscales);
	return (u - kn_int4_zero(subscales, k / KN_SUBGROUP)) * kn_int4_subscale(subscales, k / KN_SUBGROUP);
}

/* weight: of the lines of a group, after its scales */
static void gemm(const struct kn_gemm *g, enum kn_storage storage, int (*weight)(const uint8_t *, size_t, size_t))
{
	for (size_t r = 0; r < g->rows; r++) {
		const uint8_t *x = g->q + (g->index ? g->index[r] : r) * g->ldq;
		for (size_t c = 0; c < g->panels * KN_PANEL_COLS; c++) {
			const uint8_t *at = g->weights + c / KN_PANEL_COLS * g->panel_bytes;
			float acc = 0.0f;
			for (size_t k = 0; k < g->k; k += KN_GROUP, at += kn_group_bytes(storage)) {
				int32_t dot = 0;
				for (size_t i = 0; i < KN_GROUP; i++)
					dot += (int8_t)x[k + i] * weight(at + KN_STEP_BYTES, c % KN_PANEL_COLS, i);
				float scale =
					kn_row_q_scales(x, g->k)[k / KN_GROUP] * ((const float *)at)[c % KN_PANEL_COLS];
				acc = fmaf((float)dot, scale, acc);
			}
			g->y[r * g->ldy + c] = acc;
		}
	}
}

void kn_ref_gemm_s8(const struct kn_gemm *g) { gemm(g, KN_STORAGE_S8, weight_s8); }
void kn_ref_gemm_u4(const struct kn_gemm *g) { gemm(g, KN_STORAGE_U4, weight_u4); }

void kn_ref_quantise(const float *x, size_t n, int8_t *q, float *scale, int32_t *sums)
{
	uint32_t most = 0;
	for (size_t i = 0; i < n; i++) {
		uint32_t bits;
		memcpy(&bits, &x[i], sizeof bits);
		bits &= 0x7fffffff; /* compared as integers: NaN is the largest */
		most = bits > most ? bits : most;
	}

	struct kn_scale s = kn_scale_of(most, KN_RANGE_INT8);
	*scale = s.scale;
	memset(sums, 0, KN_ROW_SUMS * sizeof *sums);
	for (size_t i = 0; i < KN_GROUP; i++) {
		q[i] = (int8_t)(i < n && s.inverse != 0.0f ? rintf(x[i] * s.inverse) : 0.0f);
		sums[0] += q[i];
		sums[1 + i / KN_SUBGROUP] += q[i];
	}
}
