/* SPDX-License-Identifier: Apache-2.0 */
/* The definition of rows and sums on the wire. */
#include "kernels/cpu/forms.h"
#include "kernels/exp.h"
#include "kernels/image.h"

static uint32_t bits_of(float x)
{
	uint32_t bits;
	memcpy(&bits, &x, sizeof bits);
	return bits;
}

static float from_bits(uint32_t bits)
{
	float x;
	memcpy(&x, &bits, sizeof x);
	return x;
}

struct kn_row_measure kn_ref_row_measure(const float *x, size_t n)
{
	struct kn_row_measure m = { 0 };
	for (size_t i = 0; i < n; i++) {
		uint32_t bits = bits_of(x[i]) & 0x7fffffff; /* compared as integers: NaN is the largest */
		m.most_bits = bits > m.most_bits ? bits : m.most_bits;
	}

	if (m.most_bits == 0 || m.most_bits >= 0x7f800000)
		return m;
	m.most = frexpf(from_bits(m.most_bits), &m.exponent);
	float scales[2], lanes[16] = { 0 };
	kn_row_scales(m.exponent, scales);
	for (size_t i = 0; i < n; i++) {
		float scaled = x[i] * scales[0] * scales[1];
		lanes[i % 16] = fmaf(scaled, scaled, lanes[i % 16]);
	}

	for (size_t half = 8; half > 0; half /= 2)
		for (size_t i = 0; i < half; i++)
			lanes[i] = lanes[i] + lanes[i + half];
	m.squares = lanes[0];
	return m;
}

void kn_ref_row_to_fix16(const float *x, size_t n, float inverse, uint8_t *data)
{
	for (size_t i = 0; i < n; i++) {
		float q = rintf(x[i] * inverse);
		int16_t v = (int16_t)(q < 32767.0f ? q : 32767.0f);
		memcpy(data + 2 * i, &v, sizeof v);
	}
}

void kn_ref_row_from_fix16(const uint8_t *data, size_t n, float scale, float *x)
{
	for (size_t i = 0; i < n; i++) {
		int16_t v;
		memcpy(&v, data + 2 * i, sizeof v);
		x[i] = (float)v * scale;
	}
}

/* Round to nearest even; never called with NaN. */
void kn_ref_row_to_bf16(const float *x, size_t n, uint8_t *data)
{
	for (size_t i = 0; i < n; i++) {
		uint16_t v = kn_bf16_of(x[i]);
		memcpy(data + 2 * i, &v, sizeof v);
	}
}

void kn_ref_row_from_bf16(const uint8_t *data, size_t n, float *x)
{
	for (size_t i = 0; i < n; i++) {
		uint16_t v;
		memcpy(&v, data + 2 * i, sizeof v);
		x[i] = from_bits((uint32_t)v << 16);
	}
}

void kn_ref_row_from_q8(const uint8_t *q, size_t n, float scale, float *x)
{
	for (size_t i = 0; i < n; i++)
		x[i] = (float)(int8_t)q[i] * scale;
}

bool kn_ref_sums_round(int64_t *sums, const float *y, size_t n, float weight, double inverse)
{
	bool good = true;
	for (size_t i = 0; i < n; i++) {
		/* 48 bits, then a power of two: exact until rint */
		double q = rint((double)weight * (double)y[i] * inverse);
		if (fabs(q) < 0x1p53)
			sums[i] += (int64_t)q;
		else
			good = false; /* NaN too */
	}
	return good;
}

uint8_t kn_ref_sums_width(const int64_t *sums, size_t n)
{
	uint64_t most = 0;
	for (size_t i = 0; i < n; i++)
		most |= (uint64_t)(sums[i] ^ sums[i] >> 63); /* as many bits below the sign as the value needs */
	return most < 1u << 15 ? 2 : most < 1u << 23 ? 3 : most < 1u << 31 ? 4 : 8;
}

void kn_ref_sums_store(const int64_t *sums, size_t n, uint8_t width, uint8_t *data)
{
	for (size_t i = 0; i < n; i++)
		memcpy(data + i * width, &sums[i], width);
}

void kn_ref_sums_add(int64_t *sums, const uint8_t *data, size_t n, uint8_t width)
{
	for (size_t i = 0; i < n; i++) {
		uint64_t v = 0;
		memcpy(&v, data + i * width, width);
		unsigned shift = 64 - 8 * (unsigned)width;
		/* unsigned, so that a hostile sum of 64 bits wraps instead of being undefined */
		sums[i] = (int64_t)((uint64_t)sums[i] + (uint64_t)((int64_t)(v << shift) >> shift));
	}
}

void kn_ref_sums_finish(float *x, int64_t *sums, size_t n, const struct kn_finish *f)
{
	for (size_t i = 0; i < n; i++) {
		float routed = (float)sums[i] * f->quantum, sum = f->shared ? routed + f->share * f->shared[i] : routed;
		x[i] = f->apart ? f->scale * sum : x[i] + f->scale * sum;
		sums[i] = 0;
	}
}
