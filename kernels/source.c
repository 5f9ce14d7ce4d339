/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/source.h"

#include "common/cluster/settings.h"
#include "kernels/image.h"
#include "kernels/values.h"

#include <string.h>

struct kn_source kn_source_of(struct cad_tensor tensor)
{
	if (!tensor.data)
		return (struct kn_source){ 0 };
	struct kn_source source = {
		.data = tensor.data,
		.dtype = tensor.dtype,
		.n = tensor.shape[0],
		.k = tensor.rank > 1 ? tensor.shape[1] : 1,
		.row_step = tensor.row_step,
		.value_step = tensor.value_step,
		.scales = tensor.scales,
		.mixed = tensor.mixed,
	};
	bool in_rows = cad_dtype_quantised(tensor.dtype) || (cad_dtype_scaled(tensor.dtype) && !tensor.scales.data);
	CAD_ASSERT(!in_rows || kn_source_bytes(&source) == tensor.bytes); /* packed.h */
	return source;
}

enum cad_dtype kn_kept_dtype(const struct cad_tensor *tensor, enum cad_role role, enum cad_weights weights)
{
	if (tensor->rank < 2)
		return tensor->dtype;
	struct kn_source source = { .dtype = tensor->dtype, .mixed = tensor->mixed };
	return kn_matrix_dtype(kn_stored_dtype(&source), kn_role_weights(role, weights));
}

static struct kn_source find(const struct cad_model *model, enum cad_role role, uint32_t layer, uint32_t expert)
{
	return kn_source_of(cad_model_tensor(model, role, layer, expert));
}

struct kn_expert_source kn_expert_source_of(const struct cad_model *model, uint32_t layer, uint32_t expert)
{
	return (struct kn_expert_source){
		.gate = find(model, CAD_ROLE_EXPERT_GATE, layer, expert),
		.up = find(model, CAD_ROLE_EXPERT_UP, layer, expert),
		.down = find(model, CAD_ROLE_EXPERT_DOWN, layer, expert),
		.gate_bias = find(model, CAD_ROLE_EXPERT_GATE_BIAS, layer, expert),
		.up_bias = find(model, CAD_ROLE_EXPERT_UP_BIAS, layer, expert),
		.down_bias = find(model, CAD_ROLE_EXPERT_DOWN_BIAS, layer, expert),
		.spec = &cad_model_spec(model)->expert,
	};
}

void kn_expert_checksum(
	const struct cad_model *model, uint32_t layer, uint32_t expert, enum cad_weights weights, char hex[33])
{
	const char *recorded = cad_model_expert_recorded(model, layer, expert);
	if (recorded) {
		memcpy(hex, recorded, 33);
		return;
	}

	struct kn_expert_source source = kn_expert_source_of(model, layer, expert);
	kn_image_checksum(&source, weights, hex);
	cad_model_forget_expert(model, layer, expert);
}

struct kn_expert_source kn_ffn_source_of(const struct cad_model *model, uint32_t layer)
{
	const struct cad_model_spec *spec = cad_model_spec(model);
	bool moe = spec->layers[layer].moe;
	/* a shared expert has no biases: its layer has no such tensors, and none is found */
	return (struct kn_expert_source){
		.gate = find(model, moe ? CAD_ROLE_SHARED_GATE : CAD_ROLE_FFN_GATE, layer, 0),
		.up = find(model, moe ? CAD_ROLE_SHARED_UP : CAD_ROLE_FFN_UP, layer, 0),
		.down = find(model, moe ? CAD_ROLE_SHARED_DOWN : CAD_ROLE_FFN_DOWN, layer, 0),
		.gate_bias = find(model, CAD_ROLE_FFN_GATE_BIAS, layer, 0),
		.up_bias = find(model, CAD_ROLE_FFN_UP_BIAS, layer, 0),
		.down_bias = find(model, CAD_ROLE_FFN_DOWN_BIAS, layer, 0),
		.spec = moe ? &spec->shared : &spec->dense,
	};
}

/* Rows first .. first + n - 1 of kv_b_proj, as they are stored. */
static struct kn_source rows_of(const struct kn_source *up, size_t first, size_t n)
{
	struct kn_source rows = *up;
	size_t step = up->scales.data ? up->k : kn_row_bytes(up->dtype, up->k);

	rows.data = (const uint8_t *)up->data + first * step;
	rows.n = n;
	rows.scales.first += first;
	return rows;
}

struct kn_source kn_latent_values(const struct cad_attention_spec *spec, const struct kn_source *up, uint32_t head)
{
	size_t each = spec->nope_size + spec->value_size;
	return rows_of(up, head * each + spec->nope_size, spec->value_size);
}

struct kn_source kn_latent_keys(
	const struct cad_attention_spec *spec, const struct kn_source *up, uint32_t head, void *turned)
{
	size_t each = spec->nope_size + spec->value_size;
	struct kn_source rows = rows_of(up, head * each, spec->nope_size);
	bool plain = kn_source_is_plain(up);
	enum cad_dtype dtype = plain ? up->dtype : CAD_DTYPE_F32;
	size_t bytes = cad_dtype_bytes(dtype);
	float row[CAD_KV_RANK_MAX];

	for (size_t n = 0; n < rows.n && turned; n++) {
		const uint8_t *in = plain ? (const uint8_t *)rows.data + n * rows.k * bytes : (const uint8_t *)row;
		uint8_t *out = (uint8_t *)turned + n * bytes;
		if (!plain)
			kn_source_values(&rows, n, 0, rows.k, row);
		for (size_t k = 0; k < rows.k; k++, in += bytes, out += rows.n * bytes)
			memcpy(out, in, bytes);
	}
	return kn_source_plain(turned, dtype, rows.k, rows.n);
}

/* NULL: of its image. */
static uint64_t one_expert_bytes(
	const struct kn_device *device, const struct kn_expert_source *source, enum cad_weights weights)
{
	if (device)
		return device->ops->expert_bytes(device, source, weights);
	struct kn_expert_source image = kn_image_of(source, weights);
	return kn_image_bytes(&image);
}

static uint64_t most_expert_bytes(
	const struct kn_device *device, const struct cad_model *model, enum cad_weights weights)
{
	const struct cad_model_spec *spec = cad_model_spec(model);
	uint64_t most = 0;

	for (uint32_t layer = 0; layer < spec->layers_count; layer++)
		for (uint32_t expert = 0; spec->layers[layer].moe && expert < spec->gate.experts; expert++) {
			struct kn_expert_source source = kn_expert_source_of(model, layer, expert);
			uint64_t bytes = one_expert_bytes(device, &source, weights);
			most = bytes > most ? bytes : most;
		}
	return most;
}

uint64_t kn_expert_bytes(const struct kn_device *device, const struct cad_model *model, enum cad_weights weights)
{
	return most_expert_bytes(device, model, weights);
}

uint64_t kn_expert_image_bytes(const struct cad_model *model, enum cad_weights weights)
{
	return most_expert_bytes(NULL, model, weights);
}

static uint64_t tensor_bytes(const struct kn_device *device, struct cad_tensor tensor, enum cad_weights weights)
{
	struct kn_source source = kn_source_of(tensor);
	if (!source.data)
		return 0;
	return tensor.rank > 1 ? device->ops->matrix_bytes(device, &source, weights)
			       : device->ops->vector_bytes(device, source.n);
}

/* Of the matrices for each head that kv_b_proj becomes. */
static uint64_t heads_bytes(
	const struct kn_device *device, const struct cad_model *model, uint32_t layer, enum cad_weights weights)
{
	const struct cad_attention_spec *spec = cad_attention_of(cad_model_spec(model), layer);
	struct kn_source up = find(model, CAD_ROLE_KV_UP, layer, 0);

	if (!up.data)
		return 0;
	struct kn_source keys = kn_latent_keys(spec, &up, 0, NULL), values = kn_latent_values(spec, &up, 0);
	return spec->heads *
		(device->ops->matrix_bytes(device, &keys, weights) +
			device->ops->matrix_bytes(device, &values, weights));
}

static bool is_ffn(enum cad_role role)
{
	return (role >= CAD_ROLE_FFN_GATE && role <= CAD_ROLE_FFN_DOWN_BIAS) ||
		(role >= CAD_ROLE_SHARED_GATE && role <= CAD_ROLE_SHARED_DOWN);
}

static uint64_t layer_bytes(
	const struct kn_device *device, const struct cad_model *model, uint32_t layer, enum cad_weights weights)
{
	struct kn_expert_source ffn = kn_ffn_source_of(model, layer);
	uint64_t bytes = ffn.gate.data ? device->ops->expert_bytes(device, &ffn, weights) : 0;

	for (enum cad_role role = CAD_ROLE_ATTENTION_NORM; role < CAD_ROLE_EXPERT_GATE; role++)
		if (role == CAD_ROLE_KV_UP)
			bytes += heads_bytes(device, model, layer, kn_role_weights(role, weights));
		else if (!is_ffn(role))
			bytes += tensor_bytes(
				device, cad_model_tensor(model, role, layer, 0), kn_role_weights(role, weights));
	return bytes;
}

uint64_t kn_router_bytes(const struct kn_device *device, const struct cad_model *model, enum cad_weights weights)
{
	const struct cad_model_spec *spec = cad_model_spec(model);
	struct kn_source embed = find(model, CAD_ROLE_EMBED, 0, 0);
	uint64_t bytes = device->ops->table_bytes(device, &embed, weights) +
		tensor_bytes(device, cad_model_tensor(model, CAD_ROLE_FINAL_NORM, 0, 0), weights) +
		tensor_bytes(device, cad_model_tensor(model, CAD_ROLE_LM_HEAD, 0, 0), weights);

	if (cad_model_spec_needs_ones(spec))
		bytes += device->ops->vector_bytes(device, CAD_HEAD_SIZE_MAX);
	for (uint32_t i = 0; i < spec->ropes_count; i++)
		bytes += device->ops->vector_bytes(device, spec->ropes[i].size / 2);
	for (uint32_t layer = 0; layer < spec->layers_count; layer++)
		bytes += layer_bytes(device, model, layer, weights);
	return bytes;
}

struct kn_kv kn_kv_of(const struct cad_model_spec *spec, uint32_t attention_at, enum cad_kv type, size_t pages)
{
	const struct cad_attention_spec *a = &spec->attentions[attention_at];
	bool latent = a->kind == CAD_ATTENTION_LATENT;
	return (struct kn_kv){
		.type = type,
		.layers = cad_model_spec_layers_of(spec, attention_at),
		.pages = pages,
		.kv_heads = latent ? 1 : a->kv_heads,
		.key_size = latent ? a->kv_rank + a->rope_size : a->head_size,
		.value_size = latent ? a->kv_rank : a->value_size,
		.latent = latent,
	};
}

uint64_t kn_kv_page_bytes(const struct kn_device *device, const struct cad_model_spec *spec, enum cad_kv type)
{
	uint64_t bytes = 0;
	for (uint32_t i = 0; i < spec->attentions_count; i++) {
		struct kn_kv page = kn_kv_of(spec, i, type, 1);
		if (page.layers == 0)
			continue;
		bytes += device->ops->kv_bytes(device, &page);
	}
	return bytes;
}

uint64_t kn_kv_token_bytes(const struct kn_device *device, const struct cad_model_spec *spec, enum cad_kv type)
{
	return kn_kv_page_bytes(device, spec, type) / KN_PAGE_KEYS;
}

uint64_t kn_kv_token_values(const struct cad_model_spec *spec)
{
	uint64_t values = 0;
	for (uint32_t i = 0; i < spec->attentions_count; i++) {
		struct kn_kv kv = kn_kv_of(spec, i, CAD_KV_F32, 1);
		values += kv.layers * kv.kv_heads * (kv.key_size + (kv.latent ? 0 : kv.value_size));
	}
	return values;
}

uint64_t kn_kv_token_values_expanded(const struct cad_model_spec *spec)
{
	uint64_t values = 0;
	for (uint32_t layer = 0; layer < spec->layers_count; layer++) {
		const struct cad_attention_spec *a = cad_attention_of(spec, layer);
		values += (uint64_t)a->kv_heads * (a->head_size + a->value_size);
	}
	return values;
}

struct cad_model_packed kn_packed_sizes(const struct kn_device *device, const struct cad_model *model,
	enum cad_weights experts, enum cad_weights router, enum cad_kv kv)
{
	const struct cad_model_spec *spec = cad_model_spec(model);
	return (struct cad_model_packed){
		.weights = cad_weights_name(experts),
		.kv = cad_kv_name(kv),
		.expert = kn_expert_bytes(device, model, experts),
		.router = kn_router_bytes(device, model, router),
		.kv_per_token = kn_kv_token_bytes(device, spec, kv),
		.kv_values = kn_kv_token_values(spec),
		.kv_values_expanded = kn_kv_token_values_expanded(spec),
	};
}
