/* SPDX-License-Identifier: Apache-2.0 */
/* Loading every expert of a model: the embedded form. */
#include "common/base/progress.h"
#include "expert-svc/engine.h"

#include <pthread.h>
#include <stdatomic.h>

struct load_all {
	const struct ex_load_all *options;
	const struct cad_model_spec *spec;
	uint64_t expert_bytes;
	struct cad_progress progress;
	_Atomic int status;   /* the first failure */
	pthread_mutex_t lock; /* of error */
	struct cad_error error;
};

static void fail(struct load_all *all, enum cad_status status, const struct cad_error *error)
{
	pthread_mutex_lock(&all->lock);
	if (atomic_load(&all->status) == CAD_OK) {
		all->error = *error;
		atomic_store(&all->status, status);
	}
	pthread_mutex_unlock(&all->lock);
}

/* One expert; the index is over all layers, dense ones too. */
static void load_one(struct load_all *all, size_t index)
{
	const struct ex_load_all *options = all->options;
	uint32_t experts = all->spec->gate.experts, layer = (uint32_t)(index / experts),
		 expert = (uint32_t)(index % experts);
	struct ex_loaded loaded;
	struct cad_error error;

	if (!all->spec->layers[layer].moe || atomic_load(&all->status) != CAD_OK)
		return;
	enum cad_status status =
		ex_engine_load(options->engine(options->engine_context, layer, expert), layer, expert, &loaded, &error);
	if (status == CAD_OK)
		cad_progress_add(&all->progress, all->expert_bytes);
	else
		fail(all, status, &error);
}

static void load_some(void *context, size_t begin, size_t end)
{
	for (size_t i = begin; i < end; i++)
		load_one(context, i);
}

enum cad_status ex_engine_load_all(const struct ex_load_all *options, struct cad_error *error)
{
	const struct cad_model_spec *spec = cad_model_spec(options->model);
	size_t experts = spec->gate.experts;
	struct load_all all = {
		.options = options,
		.spec = spec,
		.expert_bytes = cad_model_sizes(options->model).expert,
	};

	pthread_mutex_init(&all.lock, NULL);
	cad_progress_begin(&all.progress, &cad_clock_system, "experts",
		cad_model_spec_moe_layers(spec) * experts * all.expert_bytes);
	cad_workers_for(options->workers, spec->layers_count * experts, 1, load_some, &all);
	enum cad_status status = (enum cad_status)atomic_load(&all.status);
	if (status == CAD_OK)
		cad_progress_end(&all.progress);
	else if (error)
		*error = all.error;
	pthread_mutex_destroy(&all.lock);

	return status;
}
