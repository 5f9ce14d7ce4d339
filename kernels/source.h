/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a checkpoint's tensors to what a device packs, and what that takes there: what an expert
 * node reserves, what placement counts with, and what `cadrectl model inspect` shows. The device is
 * asked and nothing is packed. Pure functions; any thread.
 */
#ifndef CADRE_KERNELS_SOURCE_H
#define CADRE_KERNELS_SOURCE_H

#include "common/model/fit.h"
#include "common/model/model.h"
#include "kernels/kernels.h"

static inline struct kn_source kn_source_plain(const void *data, enum cad_dtype dtype, size_t n, size_t k)
{
	return (struct kn_source){ .data = data, .dtype = dtype, .n = n, .k = k };
}
/* A matrix [n][k], a vector [n][1]; data NULL when the model has no such tensor. */
struct kn_source kn_source_of(struct cad_tensor tensor);
/* A routed expert of an MoE layer. */
struct kn_expert_source kn_expert_source_of(const struct cad_model *model, uint32_t layer, uint32_t expert);
/* Of its image (image.h): what replicas and moves are checked against. Reads it all, and forgets
 * it; of a packed model, which is for these weights (packed.h), it was recorded. */
void kn_expert_checksum(
	const struct cad_model *model, uint32_t layer, uint32_t expert, enum cad_weights weights, char hex[33]);
/* The ffn of a dense layer, or the shared expert of an MoE layer; gate.data NULL: it has none. */
struct kn_expert_source kn_ffn_source_of(const struct cad_model *model, uint32_t layer);

/* Of kv_b_proj of latent attention, [heads * (nope_size + value_size)][kv_rank], what linear_heads gets
 * for one head. Values: rows of it, [value_size][kv_rank]. Keys: rows turned around, [kv_rank][nope_size],
 * into `turned`, which has room for as many f32: what is stored with scales is widened; NULL: nothing is
 * read, for sizes. */
struct kn_source kn_latent_values(const struct cad_attention_spec *spec, const struct kn_source *up, uint32_t head);
struct kn_source kn_latent_keys(
	const struct cad_attention_spec *spec, const struct kn_source *up, uint32_t head, void *turned);

/* How the matrix of a role is kept when others are kept as `weights`. */
static inline enum cad_weights kn_role_weights(enum cad_role role, enum cad_weights weights)
{
	bool floats = cad_role_is_always_f32(role) && cad_weights_profile(weights) != CAD_PROFILE_F32;
	return floats ? CAD_WEIGHTS_AS_IS : weights;
}
/* The type that a tensor is kept in: vectors in their own. */
enum cad_dtype kn_kept_dtype(const struct cad_tensor *tensor, enum cad_role role, enum cad_weights weights);

/* Bytes of one packed expert: the same for all, or the most, where a checkpoint has layers of
 * different types. 0 for a dense model. */
uint64_t kn_expert_bytes(const struct kn_device *device, const struct cad_model *model, enum cad_weights weights);
/* All of these, and of keys and values, for whoever shows them (common/model/fit.h). */
struct cad_model_packed kn_packed_sizes(const struct kn_device *device, const struct cad_model *model,
	enum cad_weights experts, enum cad_weights router, enum cad_kv kv);
/* Bytes of an expert's image (image.h): what moves, whatever device packs it then. The most,
 * likewise. */
uint64_t kn_expert_image_bytes(const struct cad_model *model, enum cad_weights weights);
/* Bytes of all that a router packs: everything but routed experts. */
uint64_t kn_router_bytes(const struct kn_device *device, const struct cad_model *model, enum cad_weights weights);
/* What a router's KV cache of so many pages keeps for the layers of one kind of attention; it has no
 * memory yet. */
struct kn_kv kn_kv_of(const struct cad_model_spec *spec, uint32_t attention_at, enum cad_kv type, size_t pages);
/* Values of one position in a router's KV cache, in all layers; and how many they would be if keys and
 * values of all heads were kept, which latent attention does without. */
uint64_t kn_kv_token_values(const struct cad_model_spec *spec);
uint64_t kn_kv_token_values_expanded(const struct cad_model_spec *spec);
/* Bytes of one page, KN_PAGE_KEYS positions, in all layers; and of one position. */
uint64_t kn_kv_page_bytes(const struct kn_device *device, const struct cad_model_spec *spec, enum cad_kv type);
uint64_t kn_kv_token_bytes(const struct kn_device *device, const struct cad_model_spec *spec, enum cad_kv type);

#endif
