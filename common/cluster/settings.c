/* SPDX-License-Identifier: Apache-2.0 */
#include "common/cluster/settings.h"

#include "common/base/digest.h"
#include "common/model/spec.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

const struct cad_choice cad_profile_choices[] = { { "f32", CAD_PROFILE_F32 }, { "bf16", CAD_PROFILE_BF16 },
	{ "bf16-sm90", CAD_PROFILE_BF16_SM90 }, { "int8", CAD_PROFILE_INT8 }, { "int4", CAD_PROFILE_INT4 },
	{ NULL, 0 } };
const struct cad_choice cad_router_profile_choices[] = { { "same", CAD_PROFILE_SAME }, { "f32", CAD_PROFILE_F32 },
	{ "bf16", CAD_PROFILE_BF16 }, { "int8", CAD_PROFILE_INT8 }, { "int4", CAD_PROFILE_INT4 }, { NULL, 0 } };
const struct cad_choice cad_wire_choices[] = { { "auto", CAD_WIRE_AUTO }, { "fix16", CADRE_ROW_FIX16 },
	{ "bf16", CADRE_ROW_BF16 }, { "f32", CADRE_ROW_F32 }, { "q8", CADRE_ROW_Q8 }, { NULL, 0 } };
const struct cad_choice cad_weights_choices[] = { { "f32", CAD_WEIGHTS_AS_IS }, { "bf16", CAD_WEIGHTS_BF16 },
	{ NULL, 0 } };
const struct cad_choice cad_kv_choices[] = { { "f32", CAD_KV_F32 }, { "bf16", CAD_KV_BF16 }, { "int8", CAD_KV_INT8 },
	{ NULL, 0 } };

static const char *name_of(const struct cad_choice *choice, uint32_t value)
{
	while (choice->name && choice->value != value)
		choice++;
	return choice->name ? choice->name : "unknown";
}

static enum cad_status value_of(const struct cad_choice *choice, const char *name, uint32_t *value)
{
	while (choice->name && strcmp(choice->name, name) != 0)
		choice++;
	if (!choice->name)
		return CAD_ERR_INVALID;
	*value = choice->value;
	return CAD_OK;
}

const char *cad_profile_name(enum cad_profile profile) { return name_of(cad_profile_choices, profile); }
const char *cad_wire_name(enum cadre_row_type wire) { return name_of(cad_wire_choices, wire); }
const char *cad_kv_name(enum cad_kv kv) { return name_of(cad_kv_choices, kv); }
enum cad_status cad_profile_parse(const char *name, enum cad_profile *profile)
{
	return value_of(cad_profile_choices, name, profile);
}
enum cad_status cad_wire_parse(const char *name, enum cadre_row_type *wire)
{
	return value_of(cad_wire_choices + 1, name, wire); /* settings are never "auto" */
}
enum cad_status cad_weights_parse(const char *name, enum cad_weights *weights)
{
	return value_of(cad_weights_choices, name, weights);
}
enum cad_status cad_kv_parse(const char *name, enum cad_kv *kv) { return value_of(cad_kv_choices, name, kv); }

static enum cad_weights weights_of(enum cad_profile profile, enum cad_weights in_f32)
{
	switch (profile) {
	case CAD_PROFILE_BF16: return CAD_WEIGHTS_BF16_ROWS;
	case CAD_PROFILE_BF16_SM90: return CAD_WEIGHTS_BF16_SM90;
	case CAD_PROFILE_INT8: return CAD_WEIGHTS_INT8;
	case CAD_PROFILE_INT4: return CAD_WEIGHTS_INT4;
	case CAD_PROFILE_F32: break;
	}
	return in_f32;
}

enum cad_weights cad_settings_expert_weights(const struct cad_settings *settings)
{
	return weights_of(settings->profile, settings->weights);
}

enum cad_weights cad_settings_router_weights(const struct cad_settings *settings)
{
	return weights_of(settings->router_profile, settings->weights);
}

/* The wire that a profile's rows lose nothing by; fix16, bf16 and f32 all go with f32. */
static enum cadre_row_type wire_of(enum cad_profile profile)
{
	switch (profile) {
	case CAD_PROFILE_BF16:
	case CAD_PROFILE_BF16_SM90: return CADRE_ROW_BF16;
	case CAD_PROFILE_INT8:
	case CAD_PROFILE_INT4: return CADRE_ROW_Q8;
	case CAD_PROFILE_F32: break;
	}
	return CADRE_ROW_FIX16;
}

enum cad_status cad_settings_complete(struct cad_settings *settings, struct cad_error *error)
{
	bool f32 = settings->profile == CAD_PROFILE_F32;
	enum cadre_row_type wire = wire_of(settings->profile);
	const char *profile = cad_profile_name(settings->profile);

	if (settings->router_profile == CAD_PROFILE_SAME) /* routers compute on CPUs, whose bf16 is faster */
		settings->router_profile =
			settings->profile == CAD_PROFILE_BF16_SM90 ? CAD_PROFILE_BF16 : settings->profile;
	if (settings->wire == CAD_WIRE_AUTO)
		settings->wire = wire;
	if (f32 ? settings->wire == CADRE_ROW_Q8 : settings->wire != wire)
		return cad_error_set(error, CAD_ERR_INVALID,
			"--wire %s does not go with --numerics %s, whose rows go as %s%s",
			cad_wire_name(settings->wire), profile, f32 ? "fix16, bf16 or f32" : cad_wire_name(wire),
			f32 ? "" : " alone");
	if (settings->weights == CAD_WEIGHTS_BF16 && !f32 && settings->router_profile != CAD_PROFILE_F32)
		return cad_error_set(error, CAD_ERR_INVALID,
			"--weights bf16 does not go with --numerics %s and --router-numerics %s: it rounds what is computed in f32",
			profile, cad_profile_name(settings->router_profile));
	return CAD_OK;
}

enum cad_status cad_settings_check(const struct cad_settings *settings, struct cad_error *error)
{
	struct cad_settings copy = *settings;
	return cad_settings_complete(&copy, error);
}

static bool is_quantum(float value)
{
	int exponent;
	return value == 0 || (value >= FLT_MIN && isfinite(value) && frexpf(value, &exponent) == 0.5f);
}

enum cad_status cad_settings_init(
	struct cad_settings *settings, const struct cad_settings *from, struct cad_error *error)
{
	uint32_t layers = from->layers;
	struct cad_settings complete = *from;
	enum cad_status status = cad_settings_complete(&complete, error);
	if (status != CAD_OK)
		return status;
	if (layers == 0 || layers > CAD_LAYERS_MAX)
		return cad_error_set(error, CAD_ERR_INVALID, "the quantum table has %u layers; a model has 1 to %d",
			layers, CAD_LAYERS_MAX);
	for (uint32_t i = 0; i < layers; i++)
		if (!is_quantum(from->quanta[i]))
			return cad_error_set(error, CAD_ERR_INVALID,
				"the quantum of layer %u is %g, which is not a power of two", i,
				(double)from->quanta[i]);
	float *copy = malloc(layers * sizeof *copy);
	if (!copy)
		return cad_error_set(error, CAD_ERR_MEMORY, "no memory for a quantum table of %u layers", layers);
	memcpy(copy, from->quanta, layers * sizeof *copy);
	*settings = complete;
	settings->quanta = copy;

	return CAD_OK;
}

void cad_settings_fini(struct cad_settings *settings)
{
	free(settings->quanta);
	*settings = (struct cad_settings){ 0 };
}

static void hex_of(XXH128_hash_t hash, char hex[33]) { cad_digest_text(hash.high64, hash.low64, hex); }

void cad_settings_text(const struct cad_settings *settings, char text[CADRE_TEXT_BYTES])
{
	char table[33];
	hex_of(XXH3_128bits(settings->quanta, settings->layers * sizeof *settings->quanta), table);
	snprintf(text, CADRE_TEXT_BYTES, "profile=%s router=%s wire=%s weights=%s kv=%s quanta=%u:%.8s",
		cad_profile_name(settings->profile), cad_profile_name(settings->router_profile),
		cad_wire_name(settings->wire), cad_weights_name(settings->weights), cad_kv_name(settings->kv),
		settings->layers, table);
}

/* Over names, not numbers, so that a reordered enum changes nothing; the table as little-endian
 * f32. */
void cad_settings_fingerprint(const struct cad_settings *settings, char hex[33])
{
	char head[CADRE_TEXT_BYTES];
	int length = snprintf(head, sizeof head,
		"cadre settings 1\nprofile=%s\nrouter=%s\nwire=%s\nweights=%s\nkv=%s\nlayers=%u\n",
		cad_profile_name(settings->profile), cad_profile_name(settings->router_profile),
		cad_wire_name(settings->wire), cad_weights_name(settings->weights), cad_kv_name(settings->kv),
		settings->layers);
	XXH3_state_t state;

	XXH3_128bits_reset(&state);
	XXH3_128bits_update(&state, head, (size_t)length);
	XXH3_128bits_update(&state, settings->quanta, settings->layers * sizeof *settings->quanta);
	hex_of(XXH3_128bits_digest(&state), hex);
}
