/* SPDX-License-Identifier: Apache-2.0 */
#include "common/model/packed.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXPONENT_MAX = 120, EXPONENT_BYTES = 8 };

const char *cad_packed_expert_key(uint32_t layer, uint32_t expert, char key[CAD_PACKED_KEY_BYTES])
{
	snprintf(key, CAD_PACKED_KEY_BYTES, "expert.%u.%u", layer, expert);
	return key;
}

const char *cad_packed_tensor_key(const char *name, char key[CAD_PACKED_KEY_BYTES])
{
	snprintf(key, CAD_PACKED_KEY_BYTES, "tensor.%s", name);
	return key;
}

const char *cad_packed_part_key(uint32_t part, char key[CAD_PACKED_KEY_BYTES])
{
	snprintf(key, CAD_PACKED_KEY_BYTES, "part.%u", part);
	return key;
}

bool cad_packed_is(const struct cad_safetensors *file)
{
	const char *format = cad_safetensors_note(file, "format");
	return format && strcmp(format, CAD_PACKED_FORMAT) == 0;
}

static enum cad_status read_weights(const struct cad_safetensors *file, const char *path, const char *key,
	enum cad_weights *weights, struct cad_error *error)
{
	const char *name = cad_safetensors_note(file, key);
	if (name && cad_weights_find(name, weights))
		return CAD_OK;
	return cad_error_set(error, CAD_ERR_UNSUPPORTED,
		"%s is a packed model whose '%s' is '%.32s'; this version of Cadre knows f32, bf16, int8 and int4",
		path, key, name ? name : "");
}

enum cad_status cad_packed_read(
	const struct cad_safetensors *file, const char *path, struct cad_packed *packed, struct cad_error *error)
{
	const char *version = cad_safetensors_note(file, "version");
	char own[16];

	snprintf(own, sizeof own, "%d", CAD_PACKED_VERSION);
	if (!version || strcmp(version, own) != 0)
		return cad_error_set(error, CAD_ERR_UNSUPPORTED,
			"%s is a packed model of version '%.32s', and this version of Cadre reads version %s: pack the checkpoint again",
			path, version ? version : "", own);

	struct cad_packed read;
	enum cad_status status = read_weights(file, path, "experts", &read.experts, error);
	if (status == CAD_OK)
		status = read_weights(file, path, "router", &read.router, error);
	if (status == CAD_OK)
		*packed = read;

	return status;
}

enum cad_status cad_packed_checksum(const struct cad_safetensors *file, const char *path, const char *key,
	const char **hex, struct cad_error *error)
{
	const char *text = cad_safetensors_note(file, key);
	if (text && strlen(text) == 32 && strspn(text, "0123456789abcdef") == 32) {
		*hex = text;
		return CAD_OK;
	}
	return cad_error_set(error, CAD_ERR_CORRUPT,
		"%s is a packed model whose '%.200s' is '%.40s', which is not a checksum: it is damaged", path, key,
		text ? text : "");
}

/* ---- quanta ---- */

char *cad_packed_quanta_text(const float *quanta, uint32_t layers)
{
	char *text = malloc((size_t)layers * EXPONENT_BYTES + 1), *end = text;
	for (uint32_t i = 0; text && i < layers; i++)
		end += quanta[i] > 0 ? sprintf(end, "%s%d", i ? " " : "", ilogbf(quanta[i]))
				     : sprintf(end, "%s-", i ? " " : "");
	return text;
}

/* One of them; NULL: it is none. */
static const char *read_quantum(const char *text, float *quantum)
{
	char *end;

	*quantum = 0;
	if (text[0] == '-' && (text[1] == ' ' || text[1] == 0))
		return text + 1;
	long exponent = strtol(text, &end, 10);
	if (end == text || exponent < -EXPONENT_MAX || exponent > EXPONENT_MAX)
		return NULL;
	*quantum = ldexpf(1.0f, (int)exponent);
	return end;
}

enum cad_status cad_packed_quanta(const struct cad_safetensors *file, const char *path,
	const struct cad_model_spec *spec, float *quanta, struct cad_error *error)
{
	const char *text = cad_safetensors_note(file, "quanta"), *next = text;

	if (!text)
		return CAD_AGAIN;
	for (uint32_t i = 0; i < spec->layers_count && next; i++) {
		next = read_quantum(next, &quanta[i]);
		if (next && i + 1 < spec->layers_count)
			next = *next == ' ' ? next + 1 : NULL;
		if ((quanta[i] > 0) != spec->layers[i].moe)
			next = NULL;
	}
	if (next && *next == 0)
		return CAD_OK;
	return cad_error_set(error, CAD_ERR_CORRUPT,
		"%s is a packed model whose 'quanta' is '%.64s', and not an exponent for each of its layers with experts: it is damaged",
		path, text);
}
