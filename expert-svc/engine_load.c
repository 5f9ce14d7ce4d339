/* SPDX-License-Identifier: Apache-2.0 */
/* Loading every expert of a model: the embedded form. */
#include "expert-svc/engine.h"

#include <pthread.h>
#include <stdatomic.h>

struct load_all {
	const struct ex_load_all *options;
	pthread_t caller;
	uint64_t total; /* experts of MoE layers */
	_Atomic uint64_t done;
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
	uint32_t experts = options->spec->gate.experts, layer = (uint32_t)(index / experts),
		 expert = (uint32_t)(index % experts);
	struct ex_loaded loaded;
	struct cad_error error;

	if (!options->spec->layers[layer].moe || atomic_load(&all->status) != CAD_OK)
		return;
	enum cad_status status =
		ex_engine_load(options->engine(options->engine_context, layer, expert), layer, expert, &loaded, &error);
	if (status != CAD_OK) {
		fail(all, status, &error);
		return;
	}
	uint64_t done = atomic_fetch_add(&all->done, 1) + 1;
	if (options->progress && pthread_equal(pthread_self(), all->caller))
		options->progress(options->progress_context, done, all->total);
}

static void load_some(void *context, size_t begin, size_t end)
{
	for (size_t i = begin; i < end; i++)
		load_one(context, i);
}

enum cad_status ex_engine_load_all(const struct ex_load_all *options, struct cad_error *error)
{
	const struct cad_model_spec *spec = options->spec;
	struct load_all all = {
		.options = options,
		.caller = pthread_self(),
		.total = (uint64_t)cad_model_spec_moe_layers(spec) * spec->gate.experts,
	};

	pthread_mutex_init(&all.lock, NULL);
	cad_workers_for(options->workers, (size_t)spec->layers_count * spec->gate.experts, 1, load_some, &all);
	pthread_mutex_destroy(&all.lock);
	enum cad_status status = (enum cad_status)atomic_load(&all.status);
	if (status != CAD_OK && error)
		*error = all.error;
	if (status == CAD_OK && options->progress)
		options->progress(options->progress_context, all.total, all.total);

	return status;
}
