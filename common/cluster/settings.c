/* SPDX-License-Identifier: Apache-2.0 */
#include "common/cluster/settings.h"

#include "cadre/v1/types.pb-c.h"
#include "common/model/spec.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

const struct cad_choice cad_wire_choices[] = { { "fix16", CADRE_ROW_FIX16 }, { "bf16", CADRE_ROW_BF16 },
	{ "f32", CADRE_ROW_F32 }, { NULL, 0 } };
const struct cad_choice cad_weights_choices[] = { { "f32", CAD_WEIGHTS_AS_IS }, { "bf16", CAD_WEIGHTS_BF16 },
	{ NULL, 0 } };
static const struct cad_choice profile_choices[] = { { "f32", CAD_PROFILE_F32 }, { NULL, 0 } };

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

const char *cad_profile_name(enum cad_profile profile) { return name_of(profile_choices, profile); }
const char *cad_wire_name(enum cadre_row_type wire) { return name_of(cad_wire_choices, wire); }
const char *cad_weights_name(enum cad_weights weights) { return name_of(cad_weights_choices, weights); }
enum cad_status cad_profile_parse(const char *name, enum cad_profile *profile)
{
	return value_of(profile_choices, name, profile);
}
enum cad_status cad_wire_parse(const char *name, enum cadre_row_type *wire)
{
	return value_of(cad_wire_choices, name, wire);
}
enum cad_status cad_weights_parse(const char *name, enum cad_weights *weights)
{
	return value_of(cad_weights_choices, name, weights);
}

static bool is_quantum(float value)
{
	int exponent;
	return value == 0 || (value >= FLT_MIN && isfinite(value) && frexpf(value, &exponent) == 0.5f);
}

enum cad_status cad_settings_init(struct cad_settings *settings, enum cad_profile profile, enum cadre_row_type wire,
	enum cad_weights weights, const float *quanta, uint32_t layers, struct cad_error *error)
{
	if (layers == 0 || layers > CAD_LAYERS_MAX)
		return cad_error_set(error, CAD_ERR_INVALID, "the quantum table has %u layers; a model has 1 to %d",
			layers, CAD_LAYERS_MAX);
	for (uint32_t i = 0; i < layers; i++)
		if (!is_quantum(quanta[i]))
			return cad_error_set(error, CAD_ERR_INVALID,
				"the quantum of layer %u is %g, which is not a power of two", i, (double)quanta[i]);
	float *copy = malloc(layers * sizeof *copy);
	if (!copy)
		return cad_error_set(error, CAD_ERR_MEMORY, "no memory for a quantum table of %u layers", layers);
	memcpy(copy, quanta, layers * sizeof *copy);
	*settings = (struct cad_settings){
		.profile = profile,
		.wire = wire,
		.weights = weights,
		.layers = layers,
		.quanta = copy,
	};

	return CAD_OK;
}

void cad_settings_fini(struct cad_settings *settings)
{
	free(settings->quanta);
	*settings = (struct cad_settings){ 0 };
}

static void hex_of(XXH128_hash_t hash, char hex[33])
{
	snprintf(hex, 33, "%016llx%016llx", (unsigned long long)hash.high64, (unsigned long long)hash.low64);
}

void cad_settings_text(const struct cad_settings *settings, char text[CADRE_TEXT_BYTES])
{
	char table[33];
	hex_of(XXH3_128bits(settings->quanta, settings->layers * sizeof *settings->quanta), table);
	snprintf(text, CADRE_TEXT_BYTES, "profile=%s wire=%s weights=%s quanta=%u:%.8s",
		cad_profile_name(settings->profile), cad_wire_name(settings->wire), cad_weights_name(settings->weights),
		settings->layers, table);
}

/* Over names, not numbers, so that a reordered enum changes nothing; the table as little-endian
 * f32. */
void cad_settings_fingerprint(const struct cad_settings *settings, char hex[33])
{
	char head[CADRE_TEXT_BYTES];
	int length = snprintf(head, sizeof head, "cadre settings 1\nprofile=%s\nwire=%s\nweights=%s\nlayers=%u\n",
		cad_profile_name(settings->profile), cad_wire_name(settings->wire), cad_weights_name(settings->weights),
		settings->layers);
	XXH3_state_t state;

	XXH3_128bits_reset(&state);
	XXH3_128bits_update(&state, head, (size_t)length);
	XXH3_128bits_update(&state, settings->quanta, settings->layers * sizeof *settings->quanta);
	hex_of(XXH3_128bits_digest(&state), hex);
}

void cad_settings_to_proto(
	const struct cad_settings *settings, struct cad_settings_storage *storage, Cadre__V1__Settings *message)
{
	cad_settings_fingerprint(settings, storage->fingerprint);
	cadre__v1__settings__init(message);
	message->profile = (char *)cad_profile_name(settings->profile);
	message->wire = (char *)cad_wire_name(settings->wire);
	message->weights = (char *)cad_weights_name(settings->weights);
	message->n_quanta = settings->layers;
	message->quanta = settings->quanta;
	message->fingerprint = storage->fingerprint;
}

enum cad_status cad_settings_from_proto(
	const Cadre__V1__Settings *message, struct cad_settings *settings, struct cad_error *error)
{
	enum cad_profile profile;
	enum cadre_row_type wire;
	enum cad_weights weights;

	if (cad_profile_parse(message->profile, &profile) != CAD_OK)
		return cad_error_set(error, CAD_ERR_INVALID,
			"the cluster uses the numerics profile '%s', which this program does not know",
			message->profile);
	if (cad_wire_parse(message->wire, &wire) != CAD_OK)
		return cad_error_set(error, CAD_ERR_INVALID,
			"the cluster uses the wire form '%s', which this program does not know", message->wire);
	if (cad_weights_parse(message->weights, &weights) != CAD_OK)
		return cad_error_set(error, CAD_ERR_INVALID,
			"the cluster keeps weights as '%s', which this program does not know", message->weights);
	if (message->n_quanta > CAD_LAYERS_MAX)
		return cad_error_set(error, CAD_ERR_INVALID, "the quantum table has %zu layers; a model has at most %d",
			message->n_quanta, CAD_LAYERS_MAX);
	struct cad_settings made;
	enum cad_status status =
		cad_settings_init(&made, profile, wire, weights, message->quanta, (uint32_t)message->n_quanta, error);
	if (status != CAD_OK)
		return status;
	char fingerprint[33];
	cad_settings_fingerprint(&made, fingerprint);

	if (strcmp(fingerprint, message->fingerprint) != 0) {
		cad_settings_fini(&made);
		return cad_error_set(error, CAD_ERR_CORRUPT,
			"the cluster's settings name fingerprint '%s', but their own is %s: the programs are different versions",
			message->fingerprint, fingerprint);
	}

	*settings = made;
	return CAD_OK;
}

/* Zero padded, always terminated. */
static void put(char *to, size_t bytes, const char *text)
{
	memset(to, 0, bytes);
	memcpy(to, text, strnlen(text, bytes - 1));
}

void cad_identity_fill(struct cadre_wire_identity *identity, const char *cluster, const char *node,
	const char *model_fingerprint, const struct cad_settings *settings)
{
	char hex[33], text[CADRE_TEXT_BYTES];
	cad_settings_fingerprint(settings, hex);
	cad_settings_text(settings, text);
	put(identity->cluster, sizeof identity->cluster, cluster);
	put(identity->node, sizeof identity->node, node);
	put(identity->model, sizeof identity->model, model_fingerprint);
	put(identity->settings, sizeof identity->settings, hex);
	put(identity->settings_text, sizeof identity->settings_text, text);
}
