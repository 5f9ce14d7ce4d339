/* SPDX-License-Identifier: Apache-2.0 */
/* Hashes of a model: fingerprints of what it is, and checksums of what is in it. */
#include "common/model/internal.h"

#include <string.h>
#define XXH_INLINE_ALL /* a state on the stack, so that hashing cannot fail */
#include <xxhash.h>

static void hash_text(XXH128_hash_t hash, char hex[33]) { cad_digest_text(hash.high64, hash.low64, hex); }

static void hash_part(XXH3_state_t *state, const void *bytes, size_t size)
{
	uint64_t length = size; /* so that no byte can move from one part to the next unseen */
	XXH3_128bits_update(state, &length, sizeof length);
	XXH3_128bits_update(state, bytes, size);
}

/* ---- fingerprints ---- */

void cad_model_hash_config(struct cad_model *model, const struct cad_model_config *config)
{
	hash_text(XXH3_128bits(config->config, config->config_bytes), model->config_checksum);
}

void cad_model_hash_headers(struct cad_model *model, const struct cad_model_config *config)
{
	XXH3_state_t state;
	XXH3_INITSTATE(&state);
	XXH3_128bits_reset(&state);
	hash_part(&state, config->config, config->config_bytes);
	for (size_t i = 0; i < model->shards.count; i++) {
		size_t bytes;
		const void *header = cad_safetensors_header(model->shards.list[i].file, &bytes);
		hash_part(&state, header, bytes);
	}
	hash_text(XXH3_128bits_digest(&state), model->fingerprint);
}

void cad_model_fingerprint(const struct cad_model *model, char hex[33])
{
	memcpy(hex, model->fingerprint, sizeof model->fingerprint);
}

void cad_model_config_checksum(const struct cad_model *model, char hex[33])
{
	memcpy(hex, model->config_checksum, sizeof model->config_checksum);
}

void cad_model_files(const struct cad_model *model, char hex[33])
{
	XXH3_state_t state;
	XXH3_INITSTATE(&state);
	XXH3_128bits_reset(&state);
	for (size_t i = 0; i < model->shards.count; i++) {
		struct cad_file_identity identity = cad_safetensors_identity(model->shards.list[i].file);
		XXH3_128bits_update(&state, &identity, sizeof identity);
	}
	hash_text(XXH3_128bits_digest(&state), hex);
}

/* ---- checksums ---- */

void cad_model_tensor_checksum(const struct cad_tensor *tensor, char hex[33])
{
	hash_text(XXH3_128bits(tensor->data, tensor->bytes), hex);
}

uint32_t cad_model_router_parts(const struct cad_model *model) { return model->spec.layers_count + 1; }

struct cad_tensor cad_model_part_tensor(const struct cad_model *model, uint32_t part, enum cad_role role)
{
	bool layer = part < model->spec.layers_count;
	CAD_ASSERT(part <= model->spec.layers_count);
	if (cad_role_is_expert(role) || cad_role_is_layer(role) != layer || cad_model_is_twin(model, role))
		return (struct cad_tensor){ 0 };
	return cad_model_tensor(model, role, layer ? part : 0, 0);
}

/* A digest that was recorded as text. */
static void parse_digest(const char *hex, uint8_t digest[CAD_DIGEST_BYTES])
{
	for (size_t i = 0; i < CAD_DIGEST_BYTES; i++) {
		unsigned byte = 0;
		for (size_t d = 0; d < 2; d++) {
			char c = hex[2 * i + d];
			byte = byte << 4 | (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10);
		}
		digest[i] = (uint8_t)byte;
	}
}

static void hash_router_part(const struct cad_model *model, uint32_t part, uint8_t digest[CAD_DIGEST_BYTES])
{
	XXH3_state_t state;
	XXH128_canonical_t canonical;

	XXH3_INITSTATE(&state);
	XXH3_128bits_reset(&state);
	for (enum cad_role role = 0; role < CAD_ROLE_EXPERT_GATE; role++) {
		struct cad_tensor tensor = cad_model_part_tensor(model, part, role);
		if (tensor.data)
			hash_part(&state, tensor.data, tensor.bytes);
		if (tensor.scales.data)
			hash_part(&state, tensor.scales.data, tensor.scales.bytes);
	}
	XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(&state));
	memcpy(digest, canonical.digest, CAD_DIGEST_BYTES);
}

uint64_t cad_model_router_part(const struct cad_model *model, uint32_t part, uint8_t digest[CAD_DIGEST_BYTES])
{
	char key[CAD_PACKED_KEY_BYTES];
	uint64_t bytes = 0;

	if (model->is_packed)
		parse_digest(cad_safetensors_note(model->shards.list[0].file, cad_packed_part_key(part, key)), digest);
	else
		hash_router_part(model, part, digest);

	/* after all were read: a page fault maps the pages around it too */
	for (enum cad_role role = 0; role < CAD_ROLE_EXPERT_GATE; role++) {
		struct cad_tensor tensor = cad_model_part_tensor(model, part, role);
		cad_file_forget(tensor.data, tensor.bytes);
		cad_file_forget(tensor.scales.data, tensor.scales.bytes);
		bytes += tensor.bytes + tensor.scales.bytes;
	}

	return bytes;
}

void cad_model_router_checksum(const struct cad_model *model, const uint8_t (*digests)[CAD_DIGEST_BYTES], char hex[33])
{
	hash_text(XXH3_128bits(digests, cad_model_router_parts(model) * (size_t)CAD_DIGEST_BYTES), hex);
}
