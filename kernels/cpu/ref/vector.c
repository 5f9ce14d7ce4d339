/* SPDX-License-Identifier: Apache-2.0 */
/* The definition of the operators on rows: norm, softmax, rotation, sum. */
#include "kernels/exp.h"
#include "kernels/cpu/forms.h"

/* Halves of 8, 4, 2, 1 lanes are added. */
static float lanes_sum(float lanes[16])
{
	for (size_t half = 8; half > 0; half /= 2)
		for (size_t i = 0; i < half; i++)
			lanes[i] = lanes[i] + lanes[i + half];
	return lanes[0];
}

void kn_ref_softmax(const float *x, size_t n, float *p)
{
	float most = -INFINITY, lanes[16] = { 0 };
	for (size_t i = 0; i < n; i++)
		most = x[i] > most ? x[i] : most;
	for (size_t i = 0; i < n; i++) {
		p[i] = kn_exp_1(x[i] - most);
		lanes[i % 16] += p[i];
	}
	float sum = lanes_sum(lanes);
	for (size_t i = 0; i < n; i++)
		p[i] = p[i] / sum;
}

void kn_ref_rmsnorm(const float *x, const float *weight, size_t n, float epsilon, float *out)
{
	float lanes[16] = { 0 };
	for (size_t i = 0; i < n; i++)
		lanes[i % 16] = fmaf(x[i], x[i], lanes[i % 16]);
	float mean = lanes_sum(lanes) / (float)n;
	float scale = 1.0f / sqrtf(mean + epsilon);
	for (size_t i = 0; i < n; i++)
		out[i] = x[i] * scale * weight[i];
}

void kn_ref_rope(float *x, const float *cosines, const float *sines, size_t size, bool interleaved)
{
	for (size_t i = 0; i < size / 2; i++) {
		float *a = interleaved ? &x[2 * i] : &x[i], *b = interleaved ? a + 1 : a + size / 2;
		float turned = fmaf(*a, cosines[i], -(*b * sines[i]));
		*b = fmaf(*b, cosines[i], *a * sines[i]);
		*a = turned;
	}
}

void kn_ref_add(float *x, const float *y, size_t n, float scale)
{
	for (size_t i = 0; i < n; i++)
		x[i] = x[i] + y[i] * scale;
}
