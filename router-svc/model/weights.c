/* SPDX-License-Identifier: Apache-2.0 */
#include "router-svc/model/weights.h"

#include "common/base/progress.h"
#include "common/base/workers.h"
#include "kernels/packed.h"
#include "kernels/source.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

/* What all parts are loaded with. */
struct loading {
	struct rt_weights *weights;
	const struct cad_model *model;
	enum cad_weights storage;
	uint8_t (*digests)[CAD_DIGEST_BYTES]; /* of each part */
	_Atomic int status;                   /* of the first part that failed */
	pthread_mutex_t lock;                 /* of error */
	struct cad_error error;
	struct cad_progress progress;
};

/* The loading of one part; the first failure sticks, so that a list of tensors reads as a list. */
struct loader {
	const struct loading *all;
	enum cad_status status;
};

static struct kn_source source_of(const struct loader *loader, enum cad_role role, uint32_t layer)
{
	return kn_source_of(cad_model_tensor(loader->all->model, role, layer, 0));
}

static void load_matrix(struct loader *loader, enum cad_role role, uint32_t layer, struct kn_matrix *matrix)
{
	struct kn_source source = source_of(loader, role, layer);
	struct kn_device *device = loader->all->weights->device;
	enum cad_weights storage = kn_role_weights(role, loader->all->storage);
	if (loader->status == CAD_OK && source.data)
		loader->status = device->ops->matrix_create(device, &source, storage, matrix);
}

static void load_vector(struct loader *loader, enum cad_role role, uint32_t layer, float **vector)
{
	struct kn_source source = source_of(loader, role, layer);
	struct kn_device *device = loader->all->weights->device;
	if (loader->status == CAD_OK && source.data)
		loader->status = device->ops->vector_create(device, &source, vector);
}

/* kv_b_proj, for each head apart. */
static void load_heads(struct loader *loader, uint32_t layer, struct rt_latent_weights *w)
{
	const struct cad_attention_spec *spec = cad_attention_of(loader->all->weights->spec, layer);
	struct kn_device *device = loader->all->weights->device;
	struct kn_source up = source_of(loader, CAD_ROLE_KV_UP, layer);
	enum cad_weights storage = kn_role_weights(CAD_ROLE_KV_UP, loader->all->storage);
	if (loader->status != CAD_OK || !up.data)
		return;

	void *turned = malloc((size_t)spec->kv_rank * spec->nope_size * sizeof(float));
	w->keys = calloc(spec->heads, sizeof *w->keys);
	w->values = calloc(spec->heads, sizeof *w->values);
	if (!turned || !w->keys || !w->values)
		loader->status = CAD_ERR_MEMORY;
	for (uint32_t head = 0; head < spec->heads && loader->status == CAD_OK; head++) {
		struct kn_source keys = kn_latent_keys(spec, &up, head, turned),
				 values = kn_latent_values(spec, &up, head);
		loader->status = device->ops->matrix_create(device, &keys, storage, &w->keys[head]);
		if (loader->status == CAD_OK)
			loader->status = device->ops->matrix_create(device, &values, storage, &w->values[head]);
	}
	free(turned);
}

static void load_latent(struct loader *loader, uint32_t layer, struct rt_latent_weights *w)
{
	load_matrix(loader, CAD_ROLE_Q_DOWN, layer, &w->q_down);
	load_vector(loader, CAD_ROLE_Q_DOWN_BIAS, layer, &w->q_down_bias);
	load_vector(loader, CAD_ROLE_Q_DOWN_NORM, layer, &w->q_down_norm);
	load_matrix(loader, CAD_ROLE_Q_UP, layer, &w->q_up);
	load_matrix(loader, CAD_ROLE_KV_DOWN, layer, &w->kv_down);
	load_vector(loader, CAD_ROLE_KV_DOWN_BIAS, layer, &w->kv_down_bias);
	load_vector(loader, CAD_ROLE_KV_DOWN_NORM, layer, &w->kv_down_norm);
	load_heads(loader, layer, w);
}

static void load_ffn(struct loader *loader, uint32_t layer, struct kn_expert *ffn)
{
	struct kn_expert_source source = kn_ffn_source_of(loader->all->model, layer);
	struct kn_device *device = loader->all->weights->device;
	if (loader->status == CAD_OK && source.gate.data)
		loader->status = device->ops->expert_create(device, &source, loader->all->storage, ffn);
}

static void load_layer(struct loader *loader, uint32_t layer)
{
	struct rt_layer_weights *w = &loader->all->weights->layers[layer];
	const struct cad_model_spec *spec = loader->all->weights->spec;

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
	load_latent(loader, layer, &w->latent);
	load_vector(loader, CAD_ROLE_FFN_NORM, layer, &w->ffn_norm);
	load_vector(loader, CAD_ROLE_ATTENTION_AFTER, layer, &w->attention_after);
	load_vector(loader, CAD_ROLE_FFN_AFTER, layer, &w->ffn_after);
	load_ffn(loader, layer, &w->ffn);
	w->ffn_list[0] = &w->ffn;
	if (spec->layers[layer].moe) {
		load_matrix(loader, CAD_ROLE_GATE, layer, &w->gate);
		load_vector(loader, CAD_ROLE_GATE_BIAS, layer, &w->gate_bias);
		load_vector(loader, CAD_ROLE_SELECTION_BIAS, layer, &w->selection_bias);
		load_matrix(loader, CAD_ROLE_SHARED_SCORE, layer, &w->shared_score);
	}
}

/* Norms without weights multiply by these, which changes nothing. */
static void load_ones(struct loader *loader)
{
	struct rt_weights *weights = loader->all->weights;
	float ones[CAD_HEAD_SIZE_MAX];
	struct kn_source source = { .data = ones, .dtype = CAD_DTYPE_F32, .n = CAD_HEAD_SIZE_MAX, .k = 1 };

	for (size_t i = 0; i < CAD_HEAD_SIZE_MAX; i++)
		ones[i] = 1.0f;
	if (cad_model_spec_needs_ones(weights->spec))
		loader->status = weights->device->ops->vector_create(weights->device, &source, &weights->ones);
}

/* What is in no layer. */
static void load_rest(struct loader *loader)
{
	struct rt_weights *weights = loader->all->weights;
	const struct cad_model_spec *spec = weights->spec;
	struct kn_device *device = weights->device;
	struct kn_source embed = source_of(loader, CAD_ROLE_EMBED, 0);
	float inv_freq[CAD_HEAD_SIZE_MAX / 2];
	struct kn_source rope = { .data = inv_freq, .dtype = CAD_DTYPE_F32, .k = 1 };

	load_ones(loader);
	for (uint32_t i = 0; i < spec->ropes_count && loader->status == CAD_OK; i++) {
		rope.n = spec->ropes[i].size / 2;
		cad_rope_inv_freq(&spec->ropes[i], 0, inv_freq);
		loader->status = device->ops->vector_create(device, &rope, &weights->inv_freq[i]);
	}
	if (loader->status == CAD_OK)
		loader->status = device->ops->table_create(device, &embed, loader->all->storage, &weights->embed);
	load_vector(loader, CAD_ROLE_FINAL_NORM, 0, &weights->final_norm);
	load_matrix(loader, CAD_ROLE_LM_HEAD, 0, &weights->lm_head);
}

static void fail(struct loading *loading, enum cad_status status, const struct cad_error *error)
{
	pthread_mutex_lock(&loading->lock);
	if (atomic_load(&loading->status) == CAD_OK) {
		loading->error = *error;
		atomic_store(&loading->status, status);
	}
	pthread_mutex_unlock(&loading->lock);
}

static enum cad_status no_memory(const struct cad_model *model, enum cad_status status, struct cad_error *error)
{
	return cad_error_set(
		error, status, "the router's part of model '%s' does not fit into memory", cad_model_directory(model));
}

/* Packs, then verifies and hashes, while the file's pages are in memory. */
static void load_part(struct loading *loading, uint32_t part)
{
	struct loader loader = { loading, CAD_OK };
	struct cad_error error;
	enum cad_status status = cad_model_router_check(loading->model, part, &error);

	if (status == CAD_OK && part == loading->weights->spec->layers_count)
		load_rest(&loader);
	else if (status == CAD_OK)
		load_layer(&loader, part);
	if (status == CAD_OK)
		status = loader.status == CAD_OK ? cad_model_router_verify(loading->model, part, &error)
						 : no_memory(loading->model, loader.status, &error);
	if (status == CAD_OK)
		cad_progress_add(
			&loading->progress, cad_model_router_part(loading->model, part, loading->digests[part]));
	else
		fail(loading, status, &error);
}

/* Part 0 is the last one of the checksum's, what is in no layer: the largest comes first. */
static void load_parts(void *context, size_t begin, size_t end)
{
	struct loading *loading = context;
	uint32_t layers = loading->weights->spec->layers_count;

	for (size_t i = begin; i < end && atomic_load(&loading->status) == CAD_OK; i++)
		load_part(loading, i == 0 ? layers : (uint32_t)i - 1);
}

static enum cad_status load_all(struct loading *loading, struct cad_error *error)
{
	struct rt_weights *weights = loading->weights;
	const struct cad_model *model = loading->model;
	uint32_t parts = cad_model_router_parts(model);

	loading->digests = calloc(parts, sizeof *loading->digests);
	if (!weights->layers || !loading->digests)
		return no_memory(model, CAD_ERR_MEMORY, error);

	cad_progress_begin(&loading->progress, &cad_clock_system, "router", cad_model_sizes(model).router);
	cad_workers_for(weights->device->workers, parts, 1, load_parts, loading);
	enum cad_status status = (enum cad_status)atomic_load(&loading->status);
	if (status != CAD_OK) {
		if (error)
			*error = loading->error;
		return status;
	}

	cad_model_router_checksum(model, (const uint8_t(*)[CAD_DIGEST_BYTES])loading->digests, weights->checksum);
	cad_progress_end(&loading->progress);
	return CAD_OK;
}

enum cad_status rt_weights_init(struct rt_weights *weights, struct kn_device *device, const struct cad_model *model,
	enum cad_weights storage, struct cad_error *error)
{
	const struct cad_model_spec *spec = cad_model_spec(model);
	struct loading loading = { .weights = weights, .model = model, .storage = storage };
	enum cad_status status = kn_packed_check_router(model, storage, error);

	if (status != CAD_OK)
		return status;

	*weights = (struct rt_weights){ .device = device, .spec = spec };
	weights->layers = calloc(spec->layers_count, sizeof *weights->layers);
	pthread_mutex_init(&loading.lock, NULL);
	status = load_all(&loading, error);
	pthread_mutex_destroy(&loading.lock);
	free(loading.digests);
	if (status != CAD_OK)
		rt_weights_fini(weights);

	return status;
}

void rt_weights_fini(struct rt_weights *weights)
{
	if (!weights->device)
		return;

	struct kn_device *device = weights->device;
	const struct kn_ops *ops = device->ops;
	const struct cad_model_spec *spec = weights->spec;
	size_t hidden = spec->hidden;
	for (uint32_t layer = 0; weights->layers && layer < spec->layers_count; layer++) {
		struct rt_layer_weights *w = &weights->layers[layer];
		const struct cad_attention_spec *a = cad_attention_of(spec, layer);
		size_t head = a->head_size, q_size = a->heads * head, k_size = a->kv_heads * head;
		bool per_head = a->qk_norm == CAD_QK_NORM_HEAD;
		struct {
			float *vector;
			size_t n;
		} vectors[] = {
			{ w->attention_norm, hidden },
			{ w->ffn_norm, hidden },
			{ w->attention_after, hidden },
			{ w->ffn_after, hidden },
			{ w->q_bias, q_size },
			{ w->k_bias, k_size },
			{ w->v_bias, a->kv_heads * (size_t)a->value_size },
			{ w->o_bias, hidden },
			{ w->q_norm, per_head ? head : q_size },
			{ w->k_norm, per_head ? head : k_size },
			{ w->sinks, a->heads },
			{ w->latent.q_down_norm, a->q_rank },
			{ w->latent.q_down_bias, a->q_rank },
			{ w->latent.kv_down_norm, a->kv_rank },
			{ w->latent.kv_down_bias, a->kv_rank + a->rope_size },
			{ w->gate_bias, spec->gate.experts },
			{ w->selection_bias, spec->gate.experts },
		};
		for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++)
			if (vectors[i].vector)
				ops->vector_destroy(device, vectors[i].vector, vectors[i].n);
		struct kn_matrix *matrices[] = { &w->q, &w->k, &w->v, &w->o, &w->gate, &w->shared_score,
			&w->latent.q_down, &w->latent.q_up, &w->latent.kv_down };
		for (size_t i = 0; i < sizeof matrices / sizeof *matrices; i++)
			ops->matrix_destroy(device, matrices[i]);
		for (uint32_t h = 0; h < a->heads; h++) {
			if (w->latent.keys)
				ops->matrix_destroy(device, &w->latent.keys[h]);
			if (w->latent.values)
				ops->matrix_destroy(device, &w->latent.values[h]);
		}
		free(w->latent.keys);
		free(w->latent.values);
		ops->expert_destroy(device, &w->ffn);
	}

	if (weights->final_norm)
		ops->vector_destroy(device, weights->final_norm, hidden);
	if (weights->ones)
		ops->vector_destroy(device, weights->ones, CAD_HEAD_SIZE_MAX);
	for (uint32_t i = 0; i < spec->ropes_count; i++)
		if (weights->inv_freq[i])
			ops->vector_destroy(device, weights->inv_freq[i], spec->ropes[i].size / 2);
	ops->table_destroy(device, &weights->embed);
	ops->matrix_destroy(device, &weights->lm_head);
	free(weights->layers);
	*weights = (struct rt_weights){ 0 };
}
