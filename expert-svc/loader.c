/* SPDX-License-Identifier: Apache-2.0 */
#include "expert-svc/loader.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum wish { WISH_NONE, WISH_FREE, WISH_HOLD };

struct ex_loader {
	struct ex_engine *engine;
	uint32_t layers, experts;
	void (*changed)(void *context);
	void *context;
	pthread_mutex_t lock; /* of all that follows */
	pthread_cond_t work;
	uint8_t *wishes;                /* [layers][experts], enum wish */
	bool *busy;                     /* [layers][experts]: a thread works on it; its next wish waits */
	uint32_t frees, loads, running; /* how many of each */
	struct ex_load_report *first, **last;
	bool stop;
	unsigned threads_count;
	pthread_t threads[EX_LOADER_THREADS_MAX];
};

/* The first expert with that wish that no thread works on. With the lock held. */
static bool find(const struct ex_loader *loader, enum wish wish, size_t *index)
{
	for (size_t i = 0; i < (size_t)loader->layers * loader->experts; i++)
		if (loader->wishes[i] == wish && !loader->busy[i]) {
			*index = i;
			return true;
		}
	return false;
}

/* Takes a piece of work; false: none can be done now. With the lock held. */
static bool take(struct ex_loader *loader, size_t *index, bool *hold)
{
	*hold = !(loader->frees > 0 && find(loader, WISH_FREE, index));
	if (*hold && !(loader->loads > 0 && find(loader, WISH_HOLD, index)))
		return false;
	*(*hold ? &loader->loads : &loader->frees) -= 1;
	loader->wishes[*index] = WISH_NONE;
	loader->busy[*index] = true;
	loader->running++;
	return true;
}

static void work(struct ex_loader *loader, bool hold, struct ex_load_report *report)
{
	struct cad_error error;
	if (!hold) {
		/* What was not held is not held now: the wish is fulfilled either way. */
		enum cad_status status = ex_engine_free(loader->engine, report->layer, report->expert);
		report->outcome = status == CAD_OK || status == CAD_ERR_NOT_FOUND ? EX_LOAD_FREED : EX_LOAD_FAILED;
		return;
	}

	report->outcome = EX_LOAD_LOADED;
	if (ex_engine_load(loader->engine, report->layer, report->expert, &report->loaded, &error) != CAD_OK) {
		report->outcome = EX_LOAD_FAILED;
		snprintf(report->text, sizeof report->text, "%.255s", error.text);
	}
}

static void put(struct ex_loader *loader, struct ex_load_report *report)
{
	*loader->last = report;
	loader->last = &report->next;
}

/* An order without its report would leave the placement service waiting without end: no memory for
 * these bytes ends the process. */
static struct ex_load_report *report_create(uint32_t layer, uint32_t expert)
{
	struct ex_load_report *report = calloc(1, sizeof *report);
	CAD_ASSERT(report);
	report->layer = layer;
	report->expert = expert;
	return report;
}

static void *run(void *argument)
{
	struct ex_loader *loader = argument;
	pthread_mutex_lock(&loader->lock);

	while (!loader->stop) {
		size_t index;
		bool hold;
		if (!take(loader, &index, &hold)) {
			pthread_cond_wait(&loader->work, &loader->lock);
			continue;
		}
		pthread_mutex_unlock(&loader->lock);
		struct ex_load_report *report =
			report_create((uint32_t)(index / loader->experts), (uint32_t)(index % loader->experts));
		work(loader, hold, report);
		pthread_mutex_lock(&loader->lock);
		put(loader, report);
		loader->busy[index] = false;
		loader->running--;
		pthread_cond_broadcast(&loader->work); /* the expert may have a new wish */
		pthread_mutex_unlock(&loader->lock);
		loader->changed(loader->context);
		pthread_mutex_lock(&loader->lock);
	}

	pthread_mutex_unlock(&loader->lock);
	return NULL;
}

enum cad_status ex_loader_create(struct ex_engine *engine, unsigned threads, void (*changed)(void *context),
	void *context, struct ex_loader **loader, struct cad_error *error)
{
	const struct cad_model_spec *spec = cad_model_spec(ex_engine_model(engine));
	CAD_ASSERT(threads >= 1 && threads <= EX_LOADER_THREADS_MAX);
	struct ex_loader *made = calloc(1, sizeof *made);
	if (!made)
		return cad_error_set(error, CAD_ERR_MEMORY, "no memory for the loader");
	*made = (struct ex_loader){
		.engine = engine,
		.layers = spec->layers_count,
		.experts = spec->gate.experts,
		.changed = changed,
		.context = context,
	};
	made->last = &made->first;
	pthread_mutex_init(&made->lock, NULL);
	pthread_cond_init(&made->work, NULL);
	enum cad_status status = CAD_OK;
	made->wishes = calloc((size_t)made->layers * made->experts, sizeof *made->wishes);
	made->busy = calloc((size_t)made->layers * made->experts, sizeof *made->busy);
	if (!made->wishes || !made->busy)
		status = cad_error_set(error, CAD_ERR_MEMORY, "no memory for the loader");
	while (status == CAD_OK && made->threads_count < threads) {
		if (pthread_create(&made->threads[made->threads_count], NULL, run, made) != 0)
			status = cad_error_set(
				error, CAD_ERR_EXHAUSTED, "cannot start a thread for loading: see ulimit -u");
		else
			made->threads_count++;
	}

	if (status != CAD_OK) {
		ex_loader_destroy(made);
		return status;
	}

	*loader = made;
	return CAD_OK;
}

void ex_loader_stop(struct ex_loader *loader)
{
	pthread_mutex_lock(&loader->lock);
	loader->stop = true;
	pthread_cond_broadcast(&loader->work);
	pthread_mutex_unlock(&loader->lock);
	for (unsigned i = 0; i < loader->threads_count; i++)
		pthread_join(loader->threads[i], NULL);
	loader->threads_count = 0;
}

void ex_loader_destroy(struct ex_loader *loader)
{
	if (!loader)
		return;

	ex_loader_stop(loader);
	struct ex_load_report *report;
	while ((report = ex_loader_take(loader)))
		free(report);
	pthread_cond_destroy(&loader->work);
	pthread_mutex_destroy(&loader->lock);
	free(loader->wishes);
	free(loader->busy);
	free(loader);
}

void ex_loader_order(struct ex_loader *loader, uint32_t layer, uint32_t expert, bool hold)
{
	if (layer >= loader->layers || expert >= loader->experts) {
		struct ex_load_report *report = report_create(layer, expert);
		work(loader, true, report); /* the engine says what is wrong with it */
		pthread_mutex_lock(&loader->lock);
		put(loader, report);
		pthread_mutex_unlock(&loader->lock);
		loader->changed(loader->context);
		return;
	}

	pthread_mutex_lock(&loader->lock);
	uint8_t *wish = &loader->wishes[(size_t)layer * loader->experts + expert];
	loader->frees -= *wish == WISH_FREE;
	loader->loads -= *wish == WISH_HOLD;
	*wish = hold ? WISH_HOLD : WISH_FREE;
	*(hold ? &loader->loads : &loader->frees) += 1;
	pthread_cond_signal(&loader->work);
	pthread_mutex_unlock(&loader->lock);
}

struct ex_load_report *ex_loader_take(struct ex_loader *loader)
{
	pthread_mutex_lock(&loader->lock);
	struct ex_load_report *report = loader->first;
	if (report) {
		loader->first = report->next;
		if (!loader->first)
			loader->last = &loader->first;
		report->next = NULL;
	}
	pthread_mutex_unlock(&loader->lock);
	return report;
}

uint32_t ex_loader_waiting(struct ex_loader *loader)
{
	pthread_mutex_lock(&loader->lock);
	uint32_t waiting = loader->frees + loader->loads + loader->running;
	pthread_mutex_unlock(&loader->lock);
	return waiting;
}
