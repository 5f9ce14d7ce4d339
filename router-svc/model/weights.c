/* SPDX-License-Identifier: Apache-2.0 */
#include "router-svc/model/weights.h"

#include "kernels/source.h"

#include <stdlib.h>

/* One loading run; the first failure sticks, so that a list of tensors reads as a list. */
struct loader {
	struct rt_weights *weights;
	const struct cad_model *model;
	enum cad_weights storage;
	enum cad_status status;
	uint8_t (*digests)[CAD_DIGEST_BYTES]; /* of each layer, and of the rest */
};

static struct kn_source source_of(const struct loader *loader, enum cad_role role, uint32_t layer)
{
	return kn_source_of(cad_model_tensor(loader->model, role, layer, 0));
}

static void load_matrix(struct loader *loader, enum cad_role role, uint32_t layer, struct kn_matrix *matrix)
{
	struct kn_source source = source_of(loader, role, layer);
	struct kn_device *device = loader->weights->device;
	if (loader->status == CAD_OK && source.data)
		loader->status = device->ops->matrix_create(device, &source, loader->storage, matrix);
}

static void load_vector(struct loader *loader, enum cad_role role, uint32_t layer, float **vector)
{
	struct kn_source source = source_of(loader, role, layer);
	struct kn_device *device = loader->weights->device;
	if (loader->status == CAD_OK && source.data)
		loader->status = device->ops->vector_create(device, &source, vector);
}

static void load_ffn(struct loader *loader, uint32_t layer, struct kn_expert *ffn)
{
	struct kn_expert_source source = kn_ffn_source_of(loader->model, layer);
	struct kn_device *device = loader->weights->device;
	if (loader->status == CAD_OK && source.gate.data)
		loader->status = device->ops->expert_create(device, &source, loader->storage, ffn);
}

static void load_layer(struct loader *loader, uint32_t layer)
{
	struct rt_layer_weights *w = &loader->weights->layers[layer];
	const struct cad_model_spec *spec = loader->weights->spec;

	load_vector(loader, CAD_ROLE_ATTENTION_NORM, layer, &w->attention_norm);
	load_matrix(loader, CAD_ROLE_Q, layer, &w->q);
	load_matrix(loader, CAD_ROLE_K, layer, &w->k);
	load_matrix(loader, CAD_ROLE_V, layer, &w->v);
	load_matrix(loader, CAD_ROLE_O, layer, &w->o);
	load_vector(loader, CAD_ROLE_Q_BIAS, layer, &w->q_bias);
	load_vector(loader, CAD_ROLE_K_BIAS, layer, &w->k_bias);
	load_vector(loader, CAD_ROLE_V_BIAS, layer, &w->v_bias);
	load_vector(loader, CAD_ROLE_O_BIAS, layer, &w->o_bias);
	load_vector(loader, CAD_ROLE_Q_NORM, layer, &w->q_norm);
	load_vector(loader, CAD_ROLE_K_NORM, layer, &w->k_norm);
	load_vector(loader, CAD_ROLE_SINKS, layer, &w->sinks);
	load_vector(loader, CAD_ROLE_FFN_NORM, layer, &w->ffn_norm);
	load_ffn(loader, layer, &w->ffn);
	w->ffn_list[0] = &w->ffn;
	if (spec->layers[layer].moe) {
		load_matrix(loader, CAD_ROLE_GATE, layer, &w->gate);
		load_vector(loader, CAD_ROLE_GATE_BIAS, layer, &w->gate_bias);
		load_vector(loader, CAD_ROLE_SELECTION_BIAS, layer, &w->selection_bias);
	}

	/* now, while the file's pages are in memory */
	cad_model_router_part(loader->model, layer, loader->digests[layer]);
}

enum cad_status rt_weights_init(struct rt_weights *weights, struct kn_device *device, const struct cad_model *model,
	enum cad_weights storage, struct cad_error *error)
{
	const struct cad_model_spec *spec = cad_model_spec(model);
	*weights = (struct rt_weights){ .device = device, .spec = spec };
	struct loader loader = { .weights = weights, .model = model, .storage = storage };
	weights->layers = calloc(spec->layers_count, sizeof *weights->layers);
	loader.digests = calloc(cad_model_router_parts(model), sizeof *loader.digests);
	if (!weights->layers || !loader.digests)
		loader.status = CAD_ERR_MEMORY;
	float inv_freq[CAD_HEAD_SIZE_MAX / 2];
	cad_rope_inv_freq(&spec->rope, inv_freq);
	struct kn_source rope = { .data = inv_freq, .dtype = CAD_DTYPE_F32, .n = spec->rope.size / 2, .k = 1 };
	if (loader.status == CAD_OK)
		loader.status = device->ops->vector_create(device, &rope, &weights->inv_freq);
	for (uint32_t layer = 0; layer < spec->layers_count && loader.status == CAD_OK; layer++)
		load_layer(&loader, layer);
	struct kn_source embed = source_of(&loader, CAD_ROLE_EMBED, 0);
	if (loader.status == CAD_OK)
		loader.status = device->ops->table_create(device, &embed, storage, &weights->embed);
	load_vector(&loader, CAD_ROLE_FINAL_NORM, 0, &weights->final_norm);
	load_matrix(&loader, spec->tied_embeddings ? CAD_ROLE_EMBED : CAD_ROLE_LM_HEAD, 0, &weights->lm_head);
	if (loader.status == CAD_OK) {
		cad_model_router_part(model, spec->layers_count, loader.digests[spec->layers_count]);
		cad_model_router_checksum(model, (const uint8_t(*)[CAD_DIGEST_BYTES])loader.digests, weights->checksum);
	}
	free(loader.digests);

	if (loader.status != CAD_OK) {
		rt_weights_fini(weights);
		return cad_error_set(error, loader.status, "the router's part of model '%s' does not fit into memory",
			cad_model_directory(model));
	}

	return CAD_OK;
}

void rt_weights_fini(struct rt_weights *weights)
{
	if (!weights->device)
		return;

	struct kn_device *device = weights->device;
	const struct kn_ops *ops = device->ops;
	const struct cad_model_spec *spec = weights->spec;
	size_t hidden = spec->hidden, head = spec->attention.head_size, q_size = spec->attention.heads * head,
	       k_size = spec->attention.kv_heads * head;
	bool per_head = spec->attention.qk_norm == CAD_QK_NORM_HEAD;
	for (uint32_t layer = 0; weights->layers && layer < spec->layers_count; layer++) {
		struct rt_layer_weights *w = &weights->layers[layer];
		struct {
			float *vector;
			size_t n;
		} vectors[] = {
			{ w->attention_norm, hidden },
			{ w->ffn_norm, hidden },
			{ w->q_bias, q_size },
			{ w->k_bias, k_size },
			{ w->v_bias, spec->attention.kv_heads * (size_t)spec->attention.value_size },
			{ w->o_bias, hidden },
			{ w->q_norm, per_head ? head : q_size },
			{ w->k_norm, per_head ? head : k_size },
			{ w->sinks, spec->attention.heads },
			{ w->gate_bias, spec->gate.experts },
			{ w->selection_bias, spec->gate.experts },
		};
		for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++)
			if (vectors[i].vector)
				ops->vector_destroy(device, vectors[i].vector, vectors[i].n);
		struct kn_matrix *matrices[] = { &w->q, &w->k, &w->v, &w->o, &w->gate };
		for (size_t i = 0; i < sizeof matrices / sizeof *matrices; i++)
			ops->matrix_destroy(device, matrices[i]);
		ops->expert_destroy(device, &w->ffn);
	}

	if (weights->final_norm)
		ops->vector_destroy(device, weights->final_norm, hidden);
	if (weights->inv_freq)
		ops->vector_destroy(device, weights->inv_freq, spec->rope.size / 2);
	ops->table_destroy(device, &weights->embed);
	ops->matrix_destroy(device, &weights->lm_head);
	free(weights->layers);
	*weights = (struct rt_weights){ 0 };
}
