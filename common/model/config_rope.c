/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rotary part of config.json, as transformers 4 (`rope_theta` beside `rope_scaling`) and 5
 * (`rope_parameters`) write it.
 * Source: transformers 5 modeling_rope_utils.py, RotaryEmbeddingConfigMixin and the function of
 * each kind.
 */
#include "common/model/config_rope.h"

#include "common/base/log.h"
#include "common/model/known_keys.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const double FACTOR_MIN = 1e-2, FACTOR_MAX = 1e6; /* a frequency stays below 128 */

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
}

/* How many positions a scaling is meant for. That of llama3 says nothing of it: there,
 * max_position_embeddings counts what came of it. */
static void set_context(struct cad_model_spec *spec)
{
	double covered = 0;

	for (uint32_t i = 0; i < spec->ropes_count; i++) {
		const struct cad_rope_spec *rope = &spec->ropes[i];
		if (rope->kind == CAD_ROPE_LINEAR || rope->kind == CAD_ROPE_YARN || rope->kind == CAD_ROPE_LONGROPE)
			covered = fmax(covered, rope->factor * rope->original_positions);
	}
	spec->context_max = covered >= CAD_POSITIONS_MAX ? CAD_POSITIONS_MAX : (uint32_t)covered;
	if (spec->context_max < spec->positions_max)
		spec->context_max = spec->positions_max;
}

/* A factor for each pair of a head, as many as there turn out to be (cad_config_check_rope). */
static uint32_t read_factors(const struct cad_keys *keys, const char *key, float factors[CAD_HEAD_SIZE_MAX / 2])
{
	const json_t *list = cad_keys_get(keys, key);
	size_t count = json_array_size(list);

	if (!json_is_array(list) || count == 0 || count > CAD_HEAD_SIZE_MAX / 2) {
		cad_keys_fail(keys, CAD_ERR_INVALID, key, "must be a list of numbers, one for each pair of a head");
		return 0;
	}
	for (size_t i = 0; i < count; i++) {
		double factor = json_number_value(json_array_get(list, i));
		if (!(factor >= FACTOR_MIN && factor <= FACTOR_MAX)) {
			cad_keys_fail(keys, CAD_ERR_RANGE, key, "holds something other than numbers from %g to %g",
				FACTOR_MIN, FACTOR_MAX);
			return 0;
		}
		factors[i] = (float)factor;
	}
	return (uint32_t)count;
}

static void read_longrope(const struct cad_keys *keys, const struct cad_model_spec *spec, struct cad_rope_spec *rope)
{
	uint32_t pairs = read_factors(keys, "short_factor", rope->short_factors);
	if (read_factors(keys, "long_factor", rope->long_factors) != pairs)
		cad_keys_fail(keys, CAD_ERR_INVALID, "long_factor", "is not as long as short_factor");
	rope->pairs = pairs;
	if (rope->original_positions < 2)
		cad_keys_fail(keys, CAD_ERR_RANGE, "original_max_position_embeddings", "is %u; it must be at least 2",
			rope->original_positions);
	rope->factor = cad_keys_number_or(
		keys, "factor", 1, FACTOR_MAX, (double)spec->positions_max / rope->original_positions);
	double inferred = rope->factor <= 1 ? 1 : sqrt(1 + log(rope->factor) / log(rope->original_positions));
	rope->attention_factor = cad_keys_number_or(keys, "attention_factor", 1e-6, 1e6, inferred);
}

static void read_kind(const struct cad_keys *keys, const struct cad_keys *scaling, const struct cad_model_spec *spec,
	struct cad_rope_spec *rope)
{
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
	} else if (strcmp(kind, "dynamic") == 0) {
		rope->alpha = cad_keys_number_or(scaling, "alpha", 0, FACTOR_MAX, 0); /* only Hunyuan's may have it */
		rope->kind = rope->alpha > 0 ? CAD_ROPE_DEFAULT : CAD_ROPE_DYNAMIC;
		rope->original_positions = spec->positions_max;
		rope->factor = rope->alpha > 0 ? 1 : cad_keys_number(scaling, "factor", 1, FACTOR_MAX);
	} else if (strcmp(kind, "longrope") == 0) {
		rope->kind = CAD_ROPE_LONGROPE;
		read_longrope(scaling, spec, rope);
	} else if (strcmp(kind, "proportional") == 0) {
		rope->kind = CAD_ROPE_PROPORTIONAL;
		rope->factor = cad_keys_number_or(scaling, "factor", 1, FACTOR_MAX, 1);
	} else {
		cad_keys_fail(scaling, CAD_ERR_UNSUPPORTED, "rope_type",
			"is '%.32s'; supported are default, linear, dynamic, yarn, longrope, llama3 and proportional",
			kind);
	}
}

static bool is_empty(const json_t *object) { return json_is_object(object) && json_object_size(object) == 0; }

/* The object that holds the settings, by the rule of transformers: a rope_scaling that is not empty
 * goes before rope_parameters, as a whole. */
static struct cad_keys find_scaling(const struct cad_keys *keys)
{
	const json_t *scaling = cad_keys_get(keys, "rope_scaling"), *parameters = cad_keys_get(keys, "rope_parameters");
	bool old = scaling && !is_empty(scaling);
	struct cad_keys found = *keys;

	if (scaling && !json_is_object(scaling))
		cad_keys_fail(keys, CAD_ERR_INVALID, "rope_scaling", "must be an object or null");
	if (parameters && !json_is_object(parameters))
		cad_keys_fail(keys, CAD_ERR_INVALID, "rope_parameters", "must be an object or null");
	if (old && parameters && !is_empty(parameters) && !json_equal(scaling, parameters) && cad_keys_ok(keys))
		cad_log_warn("model",
			"rope_scaling and rope_parameters differ; rope_scaling is in force, as in transformers",
			CAD_S("file", keys->file));
	found.prefix = old || !parameters ? "rope_scaling." : "rope_parameters.";
	found.object = old ? scaling : parameters; /* NULL reads as an object without keys */
	return found;
}

static bool is_old(const struct cad_keys *scaling) { return strcmp(scaling->prefix, "rope_scaling.") == 0; }

/* One rotation. Values inside of its object go before those beside it. */
static void read_rotation(const struct cad_keys *keys, const struct cad_keys *scaling, const struct cad_arch *arch,
	double theta, struct cad_model_spec *spec, struct cad_rope_spec *rope)
{
	rope->factor = 1;
	rope->attention_factor = 1;
	rope->truncate = true;
	double partial = cad_keys_number_or(
		keys, "partial_rotary_factor", 0, 1, arch->rope_partial > 0 ? arch->rope_partial : 1);
	rope->partial = cad_keys_number_or(scaling, "partial_rotary_factor", 0, 1, partial);
	rope->theta = cad_keys_number_or(scaling, "rope_theta", 2, 1e15, theta);
	rope->query_factor = cad_keys_number_or(scaling, "llama_4_scaling_beta", 0, 1e3, 0);
	read_kind(keys, scaling, spec, rope);
	if (arch->runs)
		cad_known_keys_check(scaling, "rope_scaling.", arch);
}

static const char *const LAYER_TYPES[] = { "full_attention", "sliding_attention" };
enum { TYPES = sizeof LAYER_TYPES / sizeof *LAYER_TYPES };

static bool has_layers_of(const struct cad_keys *keys, const char *type)
{
	const json_t *types = cad_keys_get(keys, "layer_types");
	for (size_t i = 0; i < json_array_size(types); i++) {
		const char *text = json_string_value(json_array_get(types, i));
		if (text && strcmp(text, type) == 0)
			return true;
	}
	return false;
}

/* A rotation for each type of layer, each in an object of its own or, where there is none, as the
 * family has it. */
static void read_by_type(const struct cad_keys *keys, const struct cad_keys *all, const struct cad_arch *arch,
	struct cad_model_spec *spec)
{
	if (arch->runs)
		cad_known_keys_check(all, "rope_scaling.", arch);
	bool nested = cad_keys_get(all, LAYER_TYPES[0]) || cad_keys_get(all, LAYER_TYPES[1]);
	if (!nested && all->object && !is_empty(all->object))
		cad_keys_fail(keys, CAD_ERR_UNSUPPORTED, is_old(all) ? "rope_scaling" : "rope_parameters",
			"must have an object for each type of layer, full_attention and sliding_attention, in this architecture");

	spec->ropes_count = TYPES;
	for (uint32_t i = 0; i < TYPES; i++) {
		char prefix[64];
		struct cad_keys one = *all;
		const json_t *object = cad_keys_get(all, LAYER_TYPES[i]);
		snprintf(prefix, sizeof prefix, "%s%s.", all->prefix, LAYER_TYPES[i]);
		one.prefix = prefix;
		one.object = object;
		if (object && !json_is_object(object))
			cad_keys_fail(all, CAD_ERR_INVALID, LAYER_TYPES[i], "must be an object");
		if (nested && !object && has_layers_of(keys, LAYER_TYPES[i]))
			cad_keys_fail(all, CAD_ERR_INVALID, LAYER_TYPES[i], "is missing, but there are such layers");
		const char *theta_key = i == 0 ? "rope_theta" : arch->rope_sliding_key;
		double theta = i == 0 ? arch->rope_theta : arch->rope_sliding_theta;
		if (!nested && theta_key)
			theta = cad_keys_number_or(keys, theta_key, 2, 1e15, theta);
		read_rotation(keys, &one, arch, theta, spec, &spec->ropes[i]);
		if (cad_rope_varies(&spec->ropes[i]))
			cad_keys_fail(&one, CAD_ERR_UNSUPPORTED, "rope_type",
				"is %s: where layers rotate differently, a rotation that depends on the length of a sequence is not supported",
				cad_rope_kind_name(spec->ropes[i].kind));
	}
}

void cad_config_read_rope(const struct cad_keys *keys, const struct cad_arch *arch, struct cad_model_spec *spec)
{
	struct cad_keys scaling = find_scaling(keys);

	spec->ropes_count = 1;
	if (arch->rope_sliding_theta > 0) {
		read_by_type(keys, &scaling, arch, spec);
	} else {
		if (cad_keys_get(&scaling, LAYER_TYPES[0]) || cad_keys_get(&scaling, LAYER_TYPES[1]))
			cad_keys_fail(keys, CAD_ERR_UNSUPPORTED, is_old(&scaling) ? "rope_scaling" : "rope_parameters",
				"differs by layer type, which this architecture has not");
		double outside = cad_keys_number_or(keys, "rope_theta", 2, 1e15, arch->rope_theta);
		read_rotation(keys, &scaling, arch, outside, spec, &spec->rope);
	}
	set_context(spec);
}

/* These families rotate whole heads. Without a scaling, transformers does not look at
 * partial_rotary_factor; `proportional` leaves pairs at rest by it; with any other, the table gets
 * shorter, and fits a head only if no pair is lost. */
static void check_rotation(const struct cad_keys *keys, struct cad_rope_spec *rope)
{
	bool whole = rope->kind == CAD_ROPE_DEFAULT || rope->kind == CAD_ROPE_PROPORTIONAL;
	uint32_t rotated = whole ? rope->size : (uint32_t)(rope->size * rope->partial);

	if (rope->size % 2 != 0)
		cad_keys_fail(keys, CAD_ERR_RANGE, "head_dim",
			"makes %u elements of a head rotate; it must be an even number", rope->size);
	else if (rotated + 1 < rope->size || (rotated < rope->size && rope->kind == CAD_ROPE_YARN))
		cad_keys_fail(keys, CAD_ERR_UNSUPPORTED, "partial_rotary_factor",
			"is %g: with rope_type %s, these architectures rotate whole heads", rope->partial,
			cad_rope_kind_name(rope->kind));
	else if (rope->kind == CAD_ROPE_LONGROPE && rope->pairs != rope->size / 2)
		cad_keys_fail(keys, CAD_ERR_INVALID, "short_factor", "has %u numbers, but %u pairs of a head rotate",
			rope->pairs, rope->size / 2);
	else if (rope->alpha > 0 && rope->size == 2)
		cad_keys_fail(keys, CAD_ERR_RANGE, "alpha", "needs heads of more than 2 elements");
	else if (rope->alpha > 0)
		rope->theta *= pow(rope->alpha, (double)rope->size / (rope->size - 2));
	if (rope->kind == CAD_ROPE_PROPORTIONAL)
		rope->pairs = (uint32_t)(rope->partial * rope->size / 2);
	rope->odd = rotated < rope->size;
}

void cad_config_check_rope(const struct cad_keys *keys, struct cad_model_spec *spec)
{
	for (uint32_t i = 0; i < spec->ropes_count; i++)
		check_rotation(keys, &spec->ropes[i]);
}
