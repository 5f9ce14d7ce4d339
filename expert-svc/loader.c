/* SPDX-License-Identifier: Apache-2.0 */
#include "expert-svc/loader.h"

#include "common/base/background.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SLICE_MS = 20 }; /* of waiting, between two looks at whether a load is still wished */
static const uint64_t PROGRESS_NS = CAD_NS_PER_S / 2; /* between two reports of a load */
/* A load with a rate that was held up catches up with so much at most. */
static const uint64_t CREDIT_NS = 50 * CAD_NS_PER_MS;

enum wish { WISH_NONE, WISH_FREE, WISH_HOLD };

/* How to load, and what that points to. */
struct order {
	struct ex_load load;
	char node[CADRE_NAME_BYTES], checksum[33], address[];
};

/* What is measured of loads, by where the expert came from. */
struct figures {
	struct cad_counter *bytes;
	struct cad_histogram *seconds;
	_Atomic uint64_t loads;
};

struct ex_loader {
	struct ex_loader_options options;
	uint32_t layers, experts;
	struct figures nodes, checkpoint;
	struct cad_counter *failures[EX_SOURCE_FAILURES];
	pthread_mutex_t lock; /* of all that follows */
	pthread_cond_t work;
	uint8_t *wishes;                /* [layers][experts], enum wish */
	bool *busy;                     /* [layers][experts]: a thread works on it; its next wish waits */
	struct order **orders;          /* [layers][experts]: of a wish to hold; NULL: from the checkpoint */
	uint32_t frees, loads, running; /* how many of each */
	uint32_t freeing;               /* of those running: no load begins until its room is there */
	struct ex_load_report *first, **last;
	bool stop;
	unsigned threads_count;
	pthread_t threads[EX_ASKERS_MAX];
};

/* A wish that a thread fulfils. */
struct piece {
	struct ex_loader *loader;
	size_t index;
	bool hold;
	struct order *order;
	uint64_t read_bytes, reported_ns;
	uint64_t paced_ns; /* what was read so far has its time until then */
};

/* The first expert with that wish that no thread works on; `paced`: whose load has a rate. With the
 * lock held. */
static bool find(const struct ex_loader *loader, enum wish wish, bool paced, size_t *index)
{
	for (size_t i = 0; i < (size_t)loader->layers * loader->experts; i++) {
		bool has_rate = loader->orders[i] && loader->orders[i]->load.bytes_per_second > 0;
		if (loader->wishes[i] == wish && !loader->busy[i] && has_rate == paced) {
			*index = i;
			return true;
		}
	}
	return false;
}

/* Takes a piece of work; false: none can be done now. Frees make room, so they are done before
 * loads. `paced`: only loads with a rate, else all others. With the lock held. */
static bool take(struct ex_loader *loader, bool paced, struct piece *piece)
{
	*piece = (struct piece){ .loader = loader };
	piece->hold = paced || !(loader->frees > 0 && find(loader, WISH_FREE, false, &piece->index));
	if (piece->hold &&
		!(loader->loads > 0 && loader->freeing == 0 && !(paced && loader->frees > 0) &&
			find(loader, WISH_HOLD, paced, &piece->index)))
		return false;
	*(piece->hold ? &loader->loads : &loader->frees) -= 1;
	loader->wishes[piece->index] = WISH_NONE;
	piece->order = loader->orders[piece->index];
	loader->orders[piece->index] = NULL;
	loader->busy[piece->index] = true;
	loader->running++;
	loader->freeing += !piece->hold;
	return true;
}

/* ---- reports ---- */

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

static struct ex_load_report *report_of(const struct piece *piece)
{
	uint32_t experts = piece->loader->experts;
	return report_create((uint32_t)(piece->index / experts), (uint32_t)(piece->index % experts));
}

static void report_put(struct ex_loader *loader, struct ex_load_report *report)
{
	pthread_mutex_lock(&loader->lock);
	put(loader, report);
	pthread_mutex_unlock(&loader->lock);
	loader->options.changed(loader->options.context);
}

/* ---- loading ---- */

static uint64_t now_ns(void) { return cad_clock_now_ns(&cad_clock_system); }

/* No later order has come for the expert, and the process goes on. */
static bool is_wished(struct piece *piece)
{
	struct ex_loader *loader = piece->loader;
	pthread_mutex_lock(&loader->lock);
	bool wished = !loader->stop && loader->wishes[piece->index] == WISH_NONE;
	pthread_mutex_unlock(&loader->lock);
	return wished;
}

/* What was read has its time by the order's rate. False: it is not wished any more. */
static bool pace(struct piece *piece, uint64_t bytes)
{
	uint64_t rate = piece->order ? piece->order->load.bytes_per_second : 0, slice_ns = SLICE_MS * CAD_NS_PER_MS,
		 now = now_ns();
	if (rate > 0) {
		if (piece->paced_ns + CREDIT_NS < now)
			piece->paced_ns = now - CREDIT_NS;
		piece->paced_ns += (uint64_t)((double)bytes / (double)rate * 1e9);
	}

	while (is_wished(piece)) {
		now = now_ns();
		if (now >= piece->paced_ns)
			return true;
		uint64_t left_ns = piece->paced_ns - now;
		nanosleep(&(struct timespec){ .tv_nsec = (long)(left_ns < slice_ns ? left_ns : slice_ns) }, NULL);
	}
	return false;
}

static void source_name(const char *node, char name[CADRE_NAME_BYTES])
{
	snprintf(name, CADRE_NAME_BYTES, "%s", !node ? "" : node[0] ? node : "checkpoint");
}

static bool on_read(void *context, const char *node, uint64_t bytes)
{
	struct piece *piece = context;
	uint64_t now = now_ns();

	piece->read_bytes += bytes;
	if (now >= piece->reported_ns + PROGRESS_NS) {
		struct ex_load_report *report = report_of(piece);
		report->outcome = EX_LOAD_UNDER_WAY;
		report->read_bytes = piece->read_bytes;
		source_name(node, report->source);
		piece->reported_ns = now;
		report_put(piece->loader, report);
	}
	return pace(piece, bytes);
}

static void count(struct ex_loader *loader, const struct ex_load_result *result, uint64_t began_ns)
{
	if (!result->node)
		return;
	struct figures *from = result->node[0] ? &loader->nodes : &loader->checkpoint;
	atomic_fetch_add(&from->loads, 1);
	if (!loader->options.metrics)
		return;
	cad_counter_add(from->bytes, result->image_bytes);
	cad_histogram_observe(from->seconds, (double)(now_ns() - began_ns) * 1e-9);
}

/* False: it was given up, and the next wish says what becomes of the expert. */
static bool load(struct piece *piece, struct ex_load_report *report)
{
	static const struct ex_load plain = { .node = NULL };
	struct ex_loader *loader = piece->loader;
	uint64_t began_ns = now_ns();
	struct ex_load_result result;
	struct cad_error error;
	const struct ex_load_run run = {
		.engine = loader->options.engine,
		.ask = loader->options.ask,
		.asker = loader->options.asker,
		.layer = report->layer,
		.expert = report->expert,
		.load = piece->order ? &piece->order->load : &plain,
		.read = on_read,
		.context = piece,
	};

	piece->reported_ns = piece->paced_ns = began_ns;
	enum cad_status status = ex_load_run(&run, &result, &error);
	snprintf(report->passed_over, sizeof report->passed_over, "%s", result.passed_over);
	if (result.failure != EX_SOURCE_FINE && loader->options.metrics)
		cad_counter_add(loader->failures[result.failure], 1);
	if (status == CAD_ERR_CANCELLED)
		return false;
	report->outcome = status == CAD_OK ? EX_LOAD_LOADED : EX_LOAD_FAILED;
	if (status != CAD_OK) {
		snprintf(report->text, sizeof report->text, "%.255s", error.text);
		return true;
	}
	report->loaded = result.loaded;
	report->read_bytes = result.image_bytes;
	source_name(result.node, report->source);
	count(loader, &result, began_ns);
	return true;
}

/* What was not held is not held now: the wish is fulfilled either way. */
static void release(struct piece *piece, struct ex_load_report *report)
{
	enum cad_status status = ex_engine_free(piece->loader->options.engine, report->layer, report->expert);
	report->outcome = status == CAD_OK || status == CAD_ERR_NOT_FOUND ? EX_LOAD_FREED : EX_LOAD_FAILED;
}

static void work(struct ex_loader *loader, bool paced)
{
	pthread_mutex_lock(&loader->lock);

	while (!loader->stop) {
		struct piece piece;
		if (!take(loader, paced, &piece)) {
			pthread_cond_wait(&loader->work, &loader->lock);
			continue;
		}
		pthread_mutex_unlock(&loader->lock);
		struct ex_load_report *report = report_of(&piece);
		bool said = true;
		if (piece.hold)
			said = load(&piece, report);
		else
			release(&piece, report);
		free(piece.order);
		pthread_mutex_lock(&loader->lock);
		if (said)
			put(loader, report);
		else
			free(report);
		loader->busy[piece.index] = false;
		loader->running--;
		loader->freeing -= !piece.hold;
		pthread_cond_broadcast(&loader->work); /* the expert may have a new wish */
		pthread_mutex_unlock(&loader->lock);
		loader->options.changed(loader->options.context);
		pthread_mutex_lock(&loader->lock);
	}

	pthread_mutex_unlock(&loader->lock);
}

/* Loads with a rate can wait for whatever else the machine has to do. */
static void *run_paced(void *loader)
{
	cad_background();
	work(loader, true);
	return NULL;
}

/* What is needed does not wait for a load that takes its time. */
static void *run_needed(void *loader)
{
	work(loader, false);
	return NULL;
}

/* ---- life ---- */

static void metrics_register(struct ex_loader *loader, struct cad_metrics *metrics)
{
	static const char *const reasons[EX_SOURCE_FAILURES] = {
		[EX_SOURCE_UNREACHABLE] = "unreachable",
		[EX_SOURCE_LOST] = "lost",
		[EX_SOURCE_NOT_HELD] = "not_held",
		[EX_SOURCE_REFUSED] = "refused",
		[EX_SOURCE_SLOW] = "slow",
		[EX_SOURCE_WRONG] = "wrong_bytes",
	};
	const struct {
		const char *name;
		struct figures *figures;
	} froms[] = { { "node", &loader->nodes }, { "checkpoint", &loader->checkpoint } };

	for (size_t i = 0; i < sizeof froms / sizeof *froms; i++) {
		const struct cad_label label = { "source", froms[i].name };
		froms[i].figures->bytes = cad_metrics_counter(
			metrics, "cadre_expert_load_bytes_total", "bytes of experts loaded, by source", &label, 1);
		froms[i].figures->seconds =
			cad_metrics_histogram(metrics, "cadre_expert_load_seconds", "time to load an expert, by source",
				&label, 1, cad_histogram_seconds, cad_histogram_seconds_count);
	}
	for (size_t i = EX_SOURCE_FINE + 1; i < EX_SOURCE_FAILURES; i++)
		loader->failures[i] = cad_metrics_counter(metrics, "cadre_expert_source_failures_total",
			"loads that another node should have been the source of, and was not, by reason",
			&(struct cad_label){ "reason", reasons[i] }, 1);
}

enum cad_status ex_loader_create(
	const struct ex_loader_options *options, struct ex_loader **loader, struct cad_error *error)
{
	const struct cad_model_spec *spec = cad_model_spec(ex_engine_model(options->engine));
	CAD_ASSERT(options->threads >= 1 && options->threads <= EX_LOADER_THREADS_MAX);
	struct ex_loader *made = calloc(1, sizeof *made);
	if (!made)
		return cad_error_set(error, CAD_ERR_MEMORY, "no memory for the loader");
	*made = (struct ex_loader){
		.options = *options,
		.layers = spec->layers_count,
		.experts = spec->gate.experts,
	};
	made->last = &made->first;
	pthread_mutex_init(&made->lock, NULL);
	pthread_cond_init(&made->work, NULL);
	enum cad_status status = CAD_OK;
	made->wishes = calloc((size_t)made->layers * made->experts, sizeof *made->wishes);
	made->busy = calloc((size_t)made->layers * made->experts, sizeof *made->busy);
	made->orders = calloc((size_t)made->layers * made->experts, sizeof *made->orders);
	if (!made->wishes || !made->busy || !made->orders)
		status = cad_error_set(error, CAD_ERR_MEMORY, "no memory for the loader");
	if (status == CAD_OK && options->metrics)
		metrics_register(made, options->metrics);
	while (status == CAD_OK && made->threads_count < ex_loader_threads(options->threads)) {
		bool paced = made->threads_count < options->threads;
		if (pthread_create(&made->threads[made->threads_count], NULL, paced ? run_paced : run_needed, made) !=
			0)
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
	for (size_t i = 0; loader->orders && i < (size_t)loader->layers * loader->experts; i++)
		free(loader->orders[i]);
	free(loader->orders);
	free(loader->wishes);
	free(loader->busy);
	free(loader);
}

/* ---- orders ---- */

static struct order *order_create(const struct ex_load *load)
{
	const char *address = load->node ? load->address : "";
	struct order *order = calloc(1, sizeof *order + strlen(address) + 1);
	CAD_ASSERT(order);
	order->load.bytes_per_second = load->bytes_per_second;
	strcpy(order->address, address);
	if (load->node) {
		snprintf(order->node, sizeof order->node, "%s", load->node);
		snprintf(order->checksum, sizeof order->checksum, "%s", load->checksum);
		order->load.node = order->node;
		order->load.address = order->address;
		order->load.checksum = order->checksum;
	}
	return order;
}

/* `order`: taken; NULL: none. */
static void wish(struct ex_loader *loader, uint32_t layer, uint32_t expert, enum wish wish, struct order *order)
{
	size_t index = (size_t)layer * loader->experts + expert;
	pthread_mutex_lock(&loader->lock);
	uint8_t *old = &loader->wishes[index];
	loader->frees -= *old == WISH_FREE;
	loader->loads -= *old == WISH_HOLD;
	*old = (uint8_t)wish;
	free(loader->orders[index]);
	loader->orders[index] = order;
	*(wish == WISH_HOLD ? &loader->loads : &loader->frees) += 1;
	pthread_cond_broadcast(&loader->work); /* not every thread takes every piece */
	pthread_mutex_unlock(&loader->lock);
}

/* The model has it; else its report says that it does not. */
static bool exists(struct ex_loader *loader, uint32_t layer, uint32_t expert)
{
	struct ex_loaded none;
	struct cad_error error;
	if (layer < loader->layers && expert < loader->experts)
		return true;
	struct ex_load_report *report = report_create(layer, expert);
	report->outcome = EX_LOAD_FAILED;
	if (ex_engine_load(loader->options.engine, layer, expert, &none, &error) != CAD_OK)
		snprintf(report->text, sizeof report->text, "%.255s", error.text);
	report_put(loader, report);
	return false;
}

void ex_loader_load(struct ex_loader *loader, uint32_t layer, uint32_t expert, const struct ex_load *load)
{
	bool plain = !load->node && load->bytes_per_second == 0;
	if (exists(loader, layer, expert))
		wish(loader, layer, expert, WISH_HOLD, plain ? NULL : order_create(load));
}

void ex_loader_free(struct ex_loader *loader, uint32_t layer, uint32_t expert)
{
	if (exists(loader, layer, expert))
		wish(loader, layer, expert, WISH_FREE, NULL);
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

struct ex_loader_counts ex_loader_counts(const struct ex_loader *loader)
{
	return (struct ex_loader_counts){ atomic_load(&loader->nodes.loads), atomic_load(&loader->checkpoint.loads) };
}
