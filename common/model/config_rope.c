/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rotary part of config.json, as transformers 4 (`rope_theta` beside `rope_scaling`) and 5
 * (`rope_parameters`) write it.
 * Source: transformers 5 modeling_rope_utils.py, RotaryEmbeddingConfigMixin and the function of
 * each kind.
 */
#include "common/model/config_rope.h"

#include <math.h>
#include <string.h>

static const double FACTOR_MAX = 1e6;

static double mscale_of(double factor, double mscale) { return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1; }

static void read_yarn(const struct cad_keys *keys, const struct cad_model_spec *spec, struct cad_rope_spec *rope)
{
	rope->factor = cad_keys_number_or(keys, "factor", 1, FACTOR_MAX, 0);
	if (rope->factor == 0)
		rope->factor = (double)spec->positions_max / rope->original_positions;
	rope->beta_fast = cad_keys_number_or(keys, "beta_fast", 0, 1e6, 0);
	rope->beta_slow = cad_keys_number_or(keys, "beta_slow", 0, 1e6, 0);
	if (rope->beta_fast == 0)
		rope->beta_fast = 32;
	if (rope->beta_slow == 0)
		rope->beta_slow = 1;
	rope->truncate = cad_keys_bool_or(keys, "truncate", true);
	rope->mscale = cad_keys_number_or(keys, "mscale", 0, 1e3, 0);
	rope->mscale_all_dim = cad_keys_number_or(keys, "mscale_all_dim", 0, 1e3, 0);
	double inferred = rope->mscale != 0 && rope->mscale_all_dim != 0
		? mscale_of(rope->factor, rope->mscale) / mscale_of(rope->factor, rope->mscale_all_dim)
		: mscale_of(rope->factor, 1);
	rope->attention_factor = cad_keys_number_or(keys, "attention_factor", 1e-6, 1e6, inferred);
}

static void read_llama3(const struct cad_keys *keys, struct cad_rope_spec *rope)
{
	rope->factor = cad_keys_number(keys, "factor", 1, FACTOR_MAX);
	rope->low_freq_factor = cad_keys_number(keys, "low_freq_factor", 1e-6, 1e6);
	rope->high_freq_factor = cad_keys_number(keys, "high_freq_factor", 1e-6, 1e6);
	if (rope->high_freq_factor <= rope->low_freq_factor)
		cad_keys_fail(keys, CAD_ERR_RANGE, "high_freq_factor",
			"is %g; it must be more than low_freq_factor, %g", rope->high_freq_factor,
			rope->low_freq_factor);
}

static void read_kind(const struct cad_keys *keys, const struct cad_keys *scaling, struct cad_model_spec *spec)
{
	struct cad_rope_spec *rope = &spec->rope;
	const char *kind = cad_keys_text_or(scaling, "rope_type", NULL);

	if (!kind)
		kind = cad_keys_text_or(scaling, "type", "default");

	/* Phi-3 style: a value beside rope_scaling goes before the one inside. */
	uint32_t inside =
		cad_keys_u32_or(scaling, "original_max_position_embeddings", 1, CAD_POSITIONS_MAX, spec->positions_max);
	rope->original_positions =
		cad_keys_u32_or(keys, "original_max_position_embeddings", 1, CAD_POSITIONS_MAX, inside);

	if (strcmp(kind, "default") == 0) {
		rope->kind = CAD_ROPE_DEFAULT;
	} else if (strcmp(kind, "linear") == 0) {
		rope->kind = CAD_ROPE_LINEAR;
		rope->factor = cad_keys_number(scaling, "factor", 1, FACTOR_MAX);
	} else if (strcmp(kind, "llama3") == 0) {
		rope->kind = CAD_ROPE_LLAMA3;
		read_llama3(scaling, rope);
	} else if (strcmp(kind, "yarn") == 0) {
		rope->kind = CAD_ROPE_YARN;
		read_yarn(scaling, spec, rope);
	} else {
		cad_keys_fail(scaling, CAD_ERR_UNSUPPORTED, "rope_type",
			"is '%.32s'; supported are default, linear, llama3 and yarn", kind);
	}
}

void cad_config_read_rope(const struct cad_keys *keys, const struct cad_arch *arch, struct cad_model_spec *spec)
{
	bool version5 = cad_keys_get(keys, "rope_parameters") != NULL;
	const char *key = version5 ? "rope_parameters" : "rope_scaling";
	const json_t *object = cad_keys_get(keys, key);

	if (object && !json_is_object(object)) {
		cad_keys_fail(keys, CAD_ERR_INVALID, key, "must be an object or null");
		return;
	}

	struct cad_keys scaling = *keys;
	scaling.prefix = version5 ? "rope_parameters." : "rope_scaling.";
	scaling.object = object; /* NULL reads as an object without keys */
	if (cad_keys_get(&scaling, "full_attention") || cad_keys_get(&scaling, "sliding_attention"))
		cad_keys_fail(
			keys, CAD_ERR_UNSUPPORTED, key, "differs by layer type, which no supported architecture has");
	double partial = cad_keys_number_or(keys, "partial_rotary_factor", 0, 1, 1);
	if (cad_keys_number_or(&scaling, "partial_rotary_factor", 0, 1, partial) != 1)
		cad_keys_fail(keys, CAD_ERR_UNSUPPORTED, "partial_rotary_factor",
			"is not 1: these architectures rotate whole heads");
	struct cad_rope_spec *rope = &spec->rope;
	rope->factor = 1;
	rope->attention_factor = 1;
	rope->truncate = true;
	double outside = cad_keys_number_or(keys, "rope_theta", 2, 1e15, arch->rope_theta);
	rope->theta = cad_keys_number_or(&scaling, "rope_theta", 2, 1e15, outside);
	read_kind(keys, &scaling, spec);
}
