/* SPDX-License-Identifier: Apache-2.0 */
/* Loops that compilers turn into vector code; what they compute, cpu/ref/quantise.c says plainly. */
#include "kernels/quantise.h"

float kn_quantise_group(const float *x, size_t n, size_t count, int range, int8_t *q)
{
	uint32_t most = 0;
	for (size_t i = 0; i < n; i++) {
		uint32_t bits;
		memcpy(&bits, &x[i], sizeof bits);
		bits &= 0x7fffffff;
		most = bits > most ? bits : most;
	}

	struct kn_scale s = kn_scale_of(most, range);
	if (s.inverse == 0.0f) {
		memset(q, 0, count);
		return s.scale;
	}
	/* Adding 3 * 2^22 rounds to an integer, to nearest even, and leaves it in the low bits. */
	for (size_t i = 0; i < n; i++) {
		float moved = x[i] * s.inverse + 0x1.8p23f;
		uint32_t bits;
		memcpy(&bits, &moved, sizeof bits);
		q[i] = (int8_t)bits;
	}
	memset(q + n, 0, count - n);
	return s.scale;
}
