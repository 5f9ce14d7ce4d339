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

const char *cad_rope_kind_name(enum cad_rope_kind kind)
{
	switch (kind) {
	case CAD_ROPE_DEFAULT: return "default";
	case CAD_ROPE_LINEAR: return "linear";
	case CAD_ROPE_LLAMA3: return "llama3";
	case CAD_ROPE_YARN: return "yarn";
	case CAD_ROPE_DYNAMIC: return "dynamic";
	case CAD_ROPE_LONGROPE: return "longrope";
	case CAD_ROPE_PROPORTIONAL: return "proportional";
	}
	return "unknown";
}

static float raised(float base, float exponent) { return (float)pow((double)base, (double)exponent); }

/* base ** (2i / size) */
static float power_of(float base, const struct cad_rope_spec *rope, uint32_t i)
{
	return raised(base, (float)(2 * i) / (float)(rope->size - rope->odd));
}

static float power(const struct cad_rope_spec *rope, uint32_t i) { return power_of((float)rope->theta, rope, i); }

static float llama3(const struct cad_rope_spec *rope, float inv_freq)
{
	double positions = rope->original_positions, low = rope->low_freq_factor, high = rope->high_freq_factor;
	float wavelength = (float)(2 * M_PI) / inv_freq;

	if (wavelength > (float)(positions / low))
		return inv_freq / (float)rope->factor;
	if (wavelength < (float)(positions / high) || high <= low) /* else nothing is between the two */
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

/* The base grows with the tokens of the sequence. */
static float dynamic(const struct cad_rope_spec *rope, uint32_t tokens, uint32_t i)
{
	double size = rope->size - rope->odd;
	float longer =
		(float)rope->factor * (float)tokens / (float)rope->original_positions - (float)(rope->factor - 1);
	return 1.0f / power_of((float)rope->theta * raised(longer, (float)(size / (size - 2))), rope, i);
}

bool cad_rope_varies(const struct cad_rope_spec *rope)
{
	return rope->kind == CAD_ROPE_DYNAMIC || rope->kind == CAD_ROPE_LONGROPE;
}

uint32_t cad_rope_rotation(const struct cad_rope_spec *rope, uint32_t tokens)
{
	if (!cad_rope_varies(rope) || tokens <= rope->original_positions)
		return 0;
	return rope->kind == CAD_ROPE_DYNAMIC ? tokens : 1;
}

void cad_rope_inv_freq(const struct cad_rope_spec *rope, uint32_t rotation, float *inv_freq)
{
	const float *factors = rotation == 0 ? rope->short_factors : rope->long_factors;

	if (rope->kind == CAD_ROPE_YARN) {
		yarn(rope, inv_freq);
		return;
	}
	for (uint32_t i = 0; i < rope->size / 2; i++) {
		float plain = 1.0f / power(rope, i);
		switch (rope->kind) {
		case CAD_ROPE_PROPORTIONAL: inv_freq[i] = i < rope->pairs ? plain / (float)rope->factor : 0; break;
		case CAD_ROPE_LINEAR: inv_freq[i] = plain / (float)rope->factor; break;
		case CAD_ROPE_LLAMA3: inv_freq[i] = llama3(rope, plain); break;
		case CAD_ROPE_LONGROPE: inv_freq[i] = 1.0f / (factors[i] * power(rope, i)); break;
		case CAD_ROPE_DYNAMIC: inv_freq[i] = rotation == 0 ? plain : dynamic(rope, rotation, i); break;
		case CAD_ROPE_DEFAULT:
		case CAD_ROPE_YARN: inv_freq[i] = plain; break;
		}
	}
}
