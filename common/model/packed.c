/* SPDX-License-Identifier: Apache-2.0 */
#include "common/model/packed.h"

#include <stdio.h>
#include <string.h>

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
