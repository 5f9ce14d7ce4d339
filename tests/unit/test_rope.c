/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inverse frequencies against those of transformers 5.23.0 with torch 2.15.0 (CPU): `inv_freq` of
 * LlamaRotaryEmbedding built from a LlamaConfig with the parameters of each case, printed with as
 * many digits as an f32 needs.
 */
#include "common/model/spec.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const float default_128[] = {
	1.0f,
	0.86596435f,
	0.7498942f,
	0.64938164f,
	0.56234133f,
	0.48696753f,
	0.4216965f,
	0.36517414f,
	0.31622776f,
	0.27384198f,
	0.23713736f,
	0.2053525f,
	0.17782794f,
	0.15399265f,
	0.13335215f,
	0.1154782f,
	0.1f,
	0.08659643f,
	0.074989416f,
	0.064938165f,
	0.05623413f,
	0.048696753f,
	0.04216965f,
	0.03651741f,
	0.03162278f,
	0.027384195f,
	0.023713736f,
	0.020535251f,
	0.017782794f,
	0.015399265f,
	0.013335215f,
	0.01154782f,
	0.01f,
	0.008659643f,
	0.0074989423f,
	0.0064938166f,
	0.0056234132f,
	0.0048696753f,
	0.004216965f,
	0.0036517414f,
	0.0031622779f,
	0.0027384197f,
	0.0023713738f,
	0.002053525f,
	0.0017782794f,
	0.0015399265f,
	0.0013335214f,
	0.001154782f,
	0.001f,
	0.00086596434f,
	0.0007498942f,
	0.00064938166f,
	0.0005623413f,
	0.0004869675f,
	0.0004216965f,
	0.0003651741f,
	0.0003162278f,
	0.00027384196f,
	0.00023713738f,
	0.0002053525f,
	0.00017782794f,
	0.00015399265f,
	0.00013335215f,
	0.00011547819f,
};
static const float default_24[] = {
	1.0f,
	0.31622776f,
	0.099999994f,
	0.03162278f,
	0.009999999f,
	0.003162278f,
	0.001f,
	0.00031622784f,
	9.999997e-05f,
	3.1622774e-05f,
	1.0000003e-05f,
	3.162277e-06f,
};
static const float default_2[] = {
	1.0f,
};
static const float linear_64[] = {
	0.33333334f,
	0.24996473f,
	0.18744712f,
	0.1405655f,
	0.10540926f,
	0.07904579f,
	0.05927598f,
	0.044450715f,
	0.033333335f,
	0.024996473f,
	0.018744709f,
	0.014056549f,
	0.010540926f,
	0.007904579f,
	0.005927598f,
	0.004445072f,
	0.0033333332f,
	0.0024996474f,
	0.0018744711f,
	0.0014056549f,
	0.0010540927f,
	0.00079045794f,
	0.0005927598f,
	0.00044450714f,
	0.00033333336f,
	0.00024996474f,
	0.0001874471f,
	0.00014056549f,
	0.000105409265f,
	7.904579e-05f,
	5.927598e-05f,
	4.4450717e-05f,
};
static const float llama3_128[] = {
	1.0f,
	0.8146172f,
	0.6636013f,
	0.540581f,
	0.44036663f,
	0.35873023f,
	0.29222783f,
	0.23805381f,
	0.19392276f,
	0.15797281f,
	0.12868738f,
	0.10483095f,
	0.0853971f,
	0.06956595f,
	0.05666962f,
	0.04616405f,
	0.03760603f,
	0.03063452f,
	0.024955409f,
	0.020329105f,
	0.01656044f,
	0.01349042f,
	0.010989529f,
	0.008952259f,
	0.007292665f,
	0.0059407307f,
	0.0048394212f,
	0.003942276f,
	0.003211446f,
	0.0021665706f,
	0.0013718937f,
	0.00085675146f,
	0.000524846f,
	0.00031269365f,
	0.00017850779f,
	9.556212e-05f,
	7.7846555e-05f,
	6.3415144e-05f,
	5.165907e-05f,
	4.2082367e-05f,
	3.4281024e-05f,
	2.792591e-05f,
	2.2748929e-05f,
	1.853167e-05f,
	1.5096218e-05f,
	1.2297639e-05f,
	1.0017869e-05f,
	8.160728e-06f,
	6.6478697e-06f,
	5.4154693e-06f,
	4.4115345e-06f,
	3.5937119e-06f,
	2.9274997e-06f,
	2.3847917e-06f,
	1.9426925e-06f,
	1.5825508e-06f,
	1.2891732e-06f,
	1.0501826e-06f,
	8.554969e-07f,
	6.9690253e-07f,
	5.677088e-07f,
	4.6246538e-07f,
	3.7673226e-07f,
	3.068926e-07f,
};
static const float llama3_16[] = {
	1.0f,
	0.07940301f,
	0.004700754f,
	0.00091158313f,
	0.00017677668f,
	3.4281024e-05f,
	6.6478697e-06f,
	1.2891732e-06f,
};
static const float yarn_128[] = {
	1.0f,
	0.8058422f,
	0.64938164f,
	0.52329916f,
	0.4216965f,
	0.33982083f,
	0.27384198f,
	0.2206734f,
	0.17782794f,
	0.14330126f,
	0.1154782f,
	0.0930572f,
	0.074989416f,
	0.060429644f,
	0.048696753f,
	0.0392419f,
	0.03162278f,
	0.025482967f,
	0.020535251f,
	0.016548172f,
	0.013335215f,
	0.010746079f,
	0.008659643f,
	0.006978306f,
	0.0053753215f,
	0.004131738f,
	0.0031684227f,
	0.0024234224f,
	0.0018482766f,
	0.0014051124f,
	0.001064361f,
	0.0008029598f,
	0.00060294115f,
	0.00045032357f,
	0.00033424055f,
	0.0002462584f,
	0.00017984115f,
	0.00012993149f,
	9.262301e-05f,
	6.490394e-05f,
	4.4456985e-05f,
	3.5825316e-05f,
	2.8869548e-05f,
	2.3264301e-05f,
	1.8747356e-05f,
	1.5107409e-05f,
	1.2174189e-05f,
	9.810475e-06f,
	7.905694e-06f,
	6.3707416e-06f,
	5.1338125e-06f,
	4.1370427e-06f,
	3.3338035e-06f,
	2.6865196e-06f,
	2.164911e-06f,
	1.7445766e-06f,
	1.4058534e-06f,
	1.1328959e-06f,
	9.129353e-07f,
	7.356818e-07f,
	5.9284343e-07f,
	4.7773824e-07f,
	3.8498163e-07f,
	3.1023444e-07f,
};
static const float yarn_16[] = {
	1.0f,
	0.23717082f,
	0.049999997f,
	0.007905695f,
	0.0025f,
	0.00079056947f,
	0.00025f,
	7.905695e-05f,
};
static const float yarn_64_exact[] = {
	1.0f,
	0.6890443f,
	0.47478205f,
	0.32714587f,
	0.225418f,
	0.15532298f,
	0.107024424f,
	0.073744565f,
	0.050813273f,
	0.031705696f,
	0.019335f,
	0.011592049f,
	0.0067949593f,
	0.003860359f,
	0.0020937927f,
	0.0010526022f,
	0.00045648392f,
	0.0001293187f,
	3.830881e-05f,
	2.6396468e-05f,
	1.8188337e-05f,
	1.253257e-05f,
	8.635496e-06f,
	5.9502395e-06f,
	4.0999785e-06f,
	2.8250668e-06f,
	1.9465963e-06f,
	1.341291e-06f,
	9.2420896e-07f,
	6.368209e-07f,
	4.3879785e-07f,
	3.0235114e-07f,
};
static const float yarn_64[] = {
	1.0f,
	0.7498942f,
	0.56234133f,
	0.4216965f,
	0.31622776f,
	0.23713736f,
	0.17782794f,
	0.13335215f,
	0.1f,
	0.074989416f,
	0.05623413f,
	0.039006926f,
	0.02687936f,
	0.018378144f,
	0.012447956f,
	0.008334509f,
	0.0055000004f,
	0.0035619973f,
	0.0022493652f,
	0.0013705135f,
	0.0007905694f,
	0.0004149904f,
	0.00017782794f,
	3.3338034e-05f,
	2.5e-05f,
	1.8747354e-05f,
	1.40585325e-05f,
	1.0542412e-05f,
	7.9056945e-06f,
	5.9284343e-06f,
	4.4456983e-06f,
	3.3338035e-06f,
};
static const float yarn_4[] = {
	1.0f,
	0.005f,
};

static const struct {
	const char *name;
	struct cad_rope_spec rope;
	const float *expected;
	uint32_t count;
} cases[] = {
	/* Mixtral's head with Llama's base */
	{ "default_128", { .kind = CAD_ROPE_DEFAULT, .size = 128, .theta = 1e4, .factor = 1 }, default_128, 64 },
	{ "default_24", { .kind = CAD_ROPE_DEFAULT, .size = 24, .theta = 1e6, .factor = 1 }, default_24, 12 },
	{ "default_2", { .kind = CAD_ROPE_DEFAULT, .size = 2, .theta = 5e5, .factor = 1 }, default_2, 1 },
	{ "linear_64", { .kind = CAD_ROPE_LINEAR, .size = 64, .theta = 1e4, .factor = 3 }, linear_64, 32 },
	/* Llama-3.1 */
	{ "llama3_128",
		{
			.kind = CAD_ROPE_LLAMA3,
			.size = 128,
			.theta = 5e5,
			.factor = 8,
			.low_freq_factor = 1,
			.high_freq_factor = 4,
			.original_positions = 8192,
		},
		llama3_128, 64 },
	{ "llama3_16",
		{
			.kind = CAD_ROPE_LLAMA3,
			.size = 16,
			.theta = 5e5,
			.factor = 8,
			.low_freq_factor = 1,
			.high_freq_factor = 4,
			.original_positions = 64,
		},
		llama3_16, 8 },
	/* Qwen3 */
	{ "yarn_128",
		{
			.kind = CAD_ROPE_YARN,
			.size = 128,
			.theta = 1e6,
			.factor = 4,
			.beta_fast = 32,
			.beta_slow = 1,
			.truncate = true,
			.original_positions = 32768,
		},
		yarn_128, 64 },
	{ "yarn_16",
		{
			.kind = CAD_ROPE_YARN,
			.size = 16,
			.theta = 1e4,
			.factor = 4,
			.beta_fast = 32,
			.beta_slow = 1,
			.truncate = true,
			.original_positions = 64,
		},
		yarn_16, 8 },
	/* gpt-oss */
	{ "yarn_64_exact",
		{
			.kind = CAD_ROPE_YARN,
			.size = 64,
			.theta = 150000,
			.factor = 32,
			.beta_fast = 32,
			.beta_slow = 1,
			.original_positions = 4096,
		},
		yarn_64_exact, 32 },
	/* DeepSeek-V3 */
	{ "yarn_64",
		{
			.kind = CAD_ROPE_YARN,
			.size = 64,
			.theta = 1e4,
			.factor = 40,
			.beta_fast = 32,
			.beta_slow = 1,
			.truncate = true,
			.original_positions = 4096,
		},
		yarn_64, 32 },
	/* both ends of the ramp at 0 */
	{ "yarn_4",
		{
			.kind = CAD_ROPE_YARN,
			.size = 4,
			.theta = 1e4,
			.factor = 2,
			.beta_fast = 32,
			.beta_slow = 1,
			.truncate = true,
			.original_positions = 2,
		},
		yarn_4, 2 },
};

/* One unit is the distance of neighbouring f32: what is asked for is far below 1e-6 of the
 * value. */
static void as_transformers(void **state)
{
	(void)state;
	int32_t most_units = 0;
	for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
		assert_int_equal(cases[c].count, cases[c].rope.size / 2);
		float got[CAD_HEAD_SIZE_MAX / 2];
		cad_rope_inv_freq(&cases[c].rope, 0, got);
		for (uint32_t i = 0; i < cases[c].count; i++) {
			int32_t a, b;
			memcpy(&a, &got[i], sizeof a);
			memcpy(&b, &cases[c].expected[i], sizeof b);
			int32_t units = a < b ? b - a : a - b;
			if (units > 2)
				fail_msg("%s[%u] is %.9g; transformers has %.9g", cases[c].name, i, (double)got[i],
					(double)cases[c].expected[i]);
			most_units = units > most_units ? units : most_units;
		}
	}

	print_message("at most %d units from transformers\n", most_units);
}

/* Nothing behind the last frequency is touched. */
static void writes_half_a_head(void **state)
{
	(void)state;
	float got[3] = { -1, -1, -1 };
	cad_rope_inv_freq(
		&(struct cad_rope_spec){
			.kind = CAD_ROPE_DEFAULT,
			.size = 4,
			.theta = 100,
			.factor = 1,
		},
		0, got);
	assert_float_equal(got[0], 1, 0);
	assert_float_equal(got[1], 0.1f, 1e-8);
	assert_float_equal(got[2], -1, 0);
}

/* Values of ROPE_INIT_FUNCTIONS of transformers 5.24.0 with torch 2.15.0 (CPU), and which of them
 * hold for which sequences. */
static void frequencies_by_length(void **state)
{
	(void)state;
	static const struct cad_rope_spec plain = { .kind = CAD_ROPE_DEFAULT, .size = 8, .theta = 1e4 };
	static const struct cad_rope_spec dynamic = {
		.kind = CAD_ROPE_DYNAMIC,
		.size = 8,
		.theta = 1e4,
		.factor = 2,
		.original_positions = 64,
	};
	static const struct cad_rope_spec longrope = {
		.kind = CAD_ROPE_LONGROPE,
		.size = 8,
		.theta = 1e4,
		.factor = 4,
		.original_positions = 64,
		.pairs = 4,
		.short_factors = { 1, 1, 1.5f, 2 },
		.long_factors = { 1, 2, 4, 16 },
	};
	static const float of_130[] = { 1, 0.0688612089f, 0.00474186568f, 0.0003265306f };
	float first[4], other[4];

	assert_false(cad_rope_varies(&plain));
	assert_int_equal(cad_rope_rotation(&plain, 1 << 20), 0);
	assert_int_equal(cad_rope_rotation(&dynamic, 64), 0);
	assert_int_equal(cad_rope_rotation(&dynamic, 65), 65);
	assert_int_equal(cad_rope_rotation(&longrope, 64), 0);
	assert_int_equal(cad_rope_rotation(&longrope, 65), cad_rope_rotation(&longrope, 650));
	cad_rope_inv_freq(&plain, 0, first);
	cad_rope_inv_freq(&dynamic, 0, other);
	assert_memory_equal(first, other, sizeof first);
	cad_rope_inv_freq(&dynamic, 130, other);
	for (size_t i = 0; i < 4; i++)
		assert_float_equal(other[i], of_130[i], of_130[i] * 2e-7f);
	cad_rope_inv_freq(&longrope, 0, other);
	assert_float_equal(other[2], 0.01f / 1.5f, 1e-9);
	cad_rope_inv_freq(&longrope, 1, other);
	assert_float_equal(other[2], 0.01f / 4, 1e-9);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(as_transformers),
		cmocka_unit_test(writes_half_a_head),
		cmocka_unit_test(frequencies_by_length),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
