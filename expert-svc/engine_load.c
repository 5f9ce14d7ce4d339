/* SPDX-License-Identifier: Apache-2.0 */
/* Loading every expert of a model: the embedded form. Packing is bound by one core's arithmetic, so
 * several threads pack. */
#include "expert-svc/engine.h"

#include <pthread.h>
#include <stdatomic.h>

struct load_all {
	const struct ex_load_all *options;
	uint64_t total; /* layers * experts, dense layers counted */
	_Atomic uint64_t next, done;
	_Atomic int status;   /* the first failure */
	pthread_mutex_t lock; /* of error */
	struct cad_error error;
};

/* The next expert, if there is one: index over all layers, dense ones skipped. */
static bool load_next(struct load_all *all)
{
	const struct cad_model_spec *spec = all->options->spec;
	uint64_t index = atomic_fetch_add(&all->next, 1), experts = spec->gate.experts;
	if (index >= all->total || atomic_load(&all->status) != CAD_OK)
		return false;

	uint32_t layer = (uint32_t)(index / experts), expert = (uint32_t)(index % experts);
	if (!spec->layers[layer].moe)
		return true;
	struct ex_loaded loaded;
	struct cad_error error;
	enum cad_status status = ex_engine_load(
		all->options->engine(all->options->engine_context, layer, expert), layer, expert, &loaded, &error);
	if (status == CAD_OK) {
		atomic_fetch_add(&all->done, 1);
		return true;
	}

	pthread_mutex_lock(&all->lock);
	if (atomic_load(&all->status) == CAD_OK) {
		all->error = error;
		atomic_store(&all->status, status);
	}

	pthread_mutex_unlock(&all->lock);
	return false;
}

static void *load_thread(void *argument)
{
	while (load_next(argument))
		;
	return NULL;
}

enum cad_status ex_engine_load_all(const struct ex_load_all *options, struct cad_error *error)
{
	const struct cad_model_spec *spec = options->spec;
	uint64_t total = (uint64_t)cad_model_spec_moe_layers(spec) * spec->gate.experts;
	struct load_all all = {
		.options = options,
		.total = (uint64_t)spec->layers_count * spec->gate.experts,
	};
	pthread_t helpers[KN_THREADS_MAX];
	unsigned helpers_count = 0, wanted = kn_threads_default() - 1;

	pthread_mutex_init(&all.lock, NULL);
	while (helpers_count < wanted && pthread_create(&helpers[helpers_count], NULL, load_thread, &all) == 0)
		helpers_count++;
	while (load_next(&all))
		if (options->progress)
			options->progress(options->progress_context, atomic_load(&all.done), total);
	for (unsigned i = 0; i < helpers_count; i++)
		pthread_join(helpers[i], NULL);
	pthread_mutex_destroy(&all.lock);
	enum cad_status status = (enum cad_status)atomic_load(&all.status);
	if (status != CAD_OK && error)
		*error = all.error;
	if (status == CAD_OK && options->progress)
		options->progress(options->progress_context, total, total);

	return status;
}
