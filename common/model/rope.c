/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inverse frequencies of the rotary embedding.
 *
 * transformers (modeling_rope_utils.py) computes them in f32 tensors with a few Python doubles in
 * between, and the difference is visible: an exponent rounded to f32 moves a frequency by up to
 * 1e-6 of itself, and a position multiplies that. So the steps below are those of transformers,
 * each rounded to f32 where a tensor is; only the power is taken in double and then rounded, which
 * is within one unit of what any good powf gives.
 */
#include "common/model/rope.h"

#include <math.h>

/* base ** (2i / size) */
static float power(const struct cad_rope_spec *rope, uint32_t i)
{
	float exponent = (float)(2 * i) / (float)rope->size;
	return (float)pow((double)(float)rope->theta, (double)exponent);
}

static float llama3(const struct cad_rope_spec *rope, float inv_freq)
{
	double positions = rope->original_positions, low = rope->low_freq_factor, high = rope->high_freq_factor;
	float wavelength = (float)(2 * M_PI) / inv_freq;

	if (wavelength > (float)(positions / low))
		return inv_freq / (float)rope->factor;
	if (wavelength < (float)(positions / high))
		return inv_freq;
	float smooth = ((float)positions / wavelength - (float)low) / (float)(high - low);
	return (1.0f - smooth) * inv_freq / (float)rope->factor + smooth * inv_freq;
}

/* The element of a head at which a rotation turns so many times over the original context. */
static double yarn_correction(const struct cad_rope_spec *rope, double rotations)
{
	return rope->size * log(rope->original_positions / (rotations * 2 * M_PI)) / (2 * log(rope->theta));
}

static void yarn(const struct cad_rope_spec *rope, float *inv_freq)
{
	double low = yarn_correction(rope, rope->beta_fast), high = yarn_correction(rope, rope->beta_slow);
	if (rope->truncate) {
		low = floor(low);
		high = ceil(high);
	}

	low = fmax(low, 0);
	high = fmin(high, rope->size - 1);
	if (low == high)
		high += 0.001;
	for (uint32_t i = 0; i < rope->size / 2; i++) {
		float ramp = fminf(fmaxf(((float)i - (float)low) / (float)(high - low), 0), 1);
		float keep = 1.0f - ramp, base = power(rope, i);
		float extrapolated = 1.0f / base, interpolated = 1.0f / ((float)rope->factor * base);
		inv_freq[i] = interpolated * (1.0f - keep) + extrapolated * keep;
	}
}

void cad_rope_inv_freq(const struct cad_rope_spec *rope, float *inv_freq)
{
	if (rope->kind == CAD_ROPE_YARN) {
		yarn(rope, inv_freq);
		return;
	}
	for (uint32_t i = 0; i < rope->size / 2; i++) {
		float plain = 1.0f / power(rope, i);
		switch (rope->kind) {
		case CAD_ROPE_LINEAR: inv_freq[i] = plain / (float)rope->factor; break;
		case CAD_ROPE_LLAMA3: inv_freq[i] = llama3(rope, plain); break;
		case CAD_ROPE_DEFAULT:
		case CAD_ROPE_YARN: inv_freq[i] = plain; break;
		}
	}
}
