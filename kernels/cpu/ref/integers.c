/* SPDX-License-Identifier: Apache-2.0 */
/* The definition of the quantiser and of GEMM on integers (quantise.h, kernels.h). */
#include "kernels/cpu/forms.h"

static int weight_s8(const uint8_t *lines, size_t column, size_t k)
{
	return (int8_t)lines[k / 4 * KN_STEP_BYTES + column * 4 + k % 4];
}

static int weight_u4(const uint8_t *lines, size_t column, size_t k)
{
	return (lines[k / 8 * KN_STEP_BYTES + column * 4 + k % 4] >> (k % 8 / 4 * 4) & 15) - 8;
}

static void gemm(const struct kn_gemm *g, enum kn_storage storage, int (*weight)(const uint8_t *, size_t, size_t))
{
	size_t group = kn_storage_group(storage), group_bytes = kn_group_bytes(storage);
	for (size_t r = 0; r < g->rows; r++) {
		const uint8_t *x = g->q + (g->index ? g->index[r] : r) * g->ldq;
		for (size_t c = 0; c < g->panels * KN_PANEL_COLS; c++) {
			const uint8_t *at = g->weights + c / KN_PANEL_COLS * g->panel_bytes;
			float acc = 0.0f;
			for (size_t k = 0; k < g->k; k += group, at += group_bytes) {
				int32_t dot = 0;
				for (size_t i = 0; i < group; i++)
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

void kn_ref_quantise(const float *x, size_t n, size_t group, int8_t *q, float *scale, int32_t *sums)
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
	for (size_t i = 0; i < KN_GROUP / group; i++)
		sums[i] = 0;
	for (size_t i = 0; i < KN_GROUP; i++) {
		q[i] = (int8_t)(i < n && s.inverse != 0.0f ? rintf(x[i] * s.inverse) : 0.0f);
		sums[i / group] += q[i];
	}
}
