/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/planner/predict/measure.h"

#include "orchestration/planner/objective/replicas.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const struct cad_choice pl_router_choices[] = { { "cover", PL_ROUTER_COVER }, { "guard", PL_ROUTER_GUARD },
	{ NULL, 0 } };

enum { THREADS_MAX = 64, GUARD_FROM_TOKENS = 200, HISTOGRAM = CAD_TOPK_MAX + 1 };

/* One thread's view: the counts of the batch that is being walked, and of the layer. */
struct walk {
	const struct pl_sample *sample;
	const struct pl_cluster *cluster;
	enum pl_router router;
	struct pl_replicas replicas;
	uint32_t nodes;
	uint32_t *unit; /* [nodes] */
	bool units;
	double *part;   /* [nodes] all nodes' speed over its own: rows times this, over all rows, is its load */
	uint32_t *load; /* [nodes] */
	uint32_t *rows, *activated; /* [nodes] of the batch */
	uint32_t *mark;             /* [experts][nodes]: the batch that activated it last, plus one */
	uint64_t histogram[HISTOGRAM];
	uint16_t *homes;              /* [tokens][k] of the layer that was walked last */
	struct pl_layer_metrics *out; /* may be NULL */
	double batches, batch_load, batch_max, batch_mean;
};

static void walk_fini(struct walk *walk)
{
	pl_replicas_fini(&walk->replicas);
	free(walk->unit);
	free(walk->part);
	free(walk->mark);
	free(walk->homes);
}

static enum cad_status walk_init(
	struct walk *walk, const struct pl_sample *sample, const struct pl_cluster *cluster, enum pl_router router)
{
	uint32_t nodes = cluster->nodes_count;
	*walk = (struct walk){ .sample = sample, .cluster = cluster, .router = router, .nodes = nodes };
	enum cad_status status = pl_replicas_init(&walk->replicas, sample->trace->experts, nodes);
	walk->unit = calloc(4 * (size_t)nodes, sizeof *walk->unit);
	walk->part = calloc(nodes, sizeof *walk->part);
	walk->mark = malloc((size_t)sample->trace->experts * nodes * sizeof *walk->mark);
	walk->homes = malloc((size_t)sample->tokens * sample->trace->k * sizeof *walk->homes + 1);
	if (status != CAD_OK || !walk->unit || !walk->part || !walk->mark || !walk->homes) {
		walk_fini(walk);
		return CAD_ERR_MEMORY;
	}

	walk->load = walk->unit + nodes;
	walk->rows = walk->load + nodes;
	walk->activated = walk->rows + nodes;
	walk->units = pl_cluster_units(cluster, walk->unit);
	double speed = 0;
	for (uint32_t n = 0; n < nodes; n++)
		speed += cluster->nodes[n].speed;
	for (uint32_t n = 0; n < nodes; n++)
		walk->part[n] = speed / cluster->nodes[n].speed;

	return CAD_OK;
}

/* Distinct nodes, racks, nodes that are not the source, and nodes that the layer before (NULL:
 * there is none) did not touch. */
static void count_token(struct walk *walk, const uint16_t *homes, const uint16_t *before, uint32_t k, uint32_t source)
{
	uint64_t racks[PL_REPLICAS_WORDS] = { 0 }, known[PL_REPLICAS_WORDS] = { 0 };
	uint16_t touched[CAD_TOPK_MAX];
	uint32_t nodes = pl_distinct_nodes(homes, k, touched), remote = 0, fresh = 0, distinct_racks = 0;

	for (uint32_t j = 0; before && j < k; j++)
		if (before[j] != CAD_COVER_NONE)
			cad_map_set_add(known, before[j]);
	for (uint32_t i = 0; i < nodes; i++) {
		uint32_t rack = walk->cluster->nodes[touched[i]].rack;
		remote += touched[i] != source;
		fresh += before && !cad_map_set_has(known, touched[i]);
		distinct_racks += !cad_map_set_has(racks, rack);
		cad_map_set_add(racks, rack);
	}

	walk->histogram[nodes]++;
	walk->out->nodes += nodes;
	walk->out->remote += remote;
	walk->out->fresh += fresh;
	walk->out->racks += distinct_racks;
}

static void end_batch(struct walk *walk)
{
	uint32_t rows = 0, activated = 0, activated_max = 0;
	double most = 0;
	for (uint32_t n = 0; n < walk->nodes; n++) {
		rows += walk->rows[n];
		most = fmax(most, walk->rows[n] * walk->part[n]);
		activated += walk->activated[n];
		activated_max = walk->activated[n] > activated_max ? walk->activated[n] : activated_max;
	}

	memset(walk->rows, 0, 2 * walk->nodes * sizeof *walk->rows);
	walk->batches++;
	walk->batch_load += rows ? most / rows : 1;
	walk->batch_max += activated_max;
	walk->batch_mean += (double)activated / walk->nodes;
}

/* Time on each node over what it would be if all had rows by their speed. */
static void end_layer(struct walk *walk)
{
	struct pl_layer_metrics *out = walk->out;
	uint64_t total = 0;

	for (uint32_t n = 0; n < walk->nodes; n++)
		total += walk->load[n] /= walk->units ? walk->unit[n] : 1;
	for (uint32_t n = 0; n < walk->nodes; n++) {
		out->node_load[n] = total ? walk->load[n] * walk->part[n] / (double)total : 1;
		if (n == 0 || out->node_load[n] > out->load) {
			out->load = out->node_load[n];
			out->busiest = n;
		}
	}

	double tokens = walk->sample->tokens ? walk->sample->tokens : 1,
	       batches = walk->batches > 0 ? walk->batches : 1;
	out->nodes /= tokens;
	out->remote /= tokens;
	out->racks /= tokens;
	out->fresh /= tokens;
	out->batch_load = walk->batches > 0 ? walk->batch_load / batches : 1;
	out->activated = walk->batch_max / batches;
	out->activated_mean = walk->batch_mean / batches;
}

/* The layer before must have been walked before, but for the first. */
static void walk_layer(struct walk *walk, const struct pl_plan *plan, uint32_t layer, struct pl_layer_metrics *out)
{
	const struct pl_trace *trace = walk->sample->trace;
	uint32_t k = trace->k, nodes = walk->nodes;
	uint64_t pairs = 0;

	walk->out = out;
	walk->batches = walk->batch_load = walk->batch_max = walk->batch_mean = 0;
	pl_replicas_load(&walk->replicas, plan, layer);
	memset(walk->load, 0, 3 * (size_t)nodes * sizeof *walk->load);
	memset(walk->mark, 0, (size_t)trace->experts * nodes * sizeof *walk->mark);

	for (uint32_t t = 0; t < walk->sample->tokens; t++) {
		const uint16_t *ids = pl_trace_row(trace, layer, walk->sample->token[t]);
		uint16_t homes[CAD_TOPK_MAX];
		float mean = (float)pairs / (float)nodes * (walk->units ? PL_UNIT : 1);
		bool guard = walk->router == PL_ROUTER_GUARD && t > GUARD_FROM_TOKENS;
		const struct cad_cover_load load = { walk->load, walk->units ? walk->unit : NULL, 1.03f * mean,
			guard ? 0.05f * mean : 0 };
		pl_replicas_cover(&walk->replicas, ids, k, &load, homes);
		uint16_t *before = walk->homes + (size_t)t * k;
		if (out)
			count_token(walk, homes, layer > 0 ? before : NULL, k,
				trace->request[walk->sample->token[t]] % nodes);
		memcpy(before, homes, k * sizeof *homes);
		for (uint32_t j = 0; j < k; j++) {
			if (homes[j] == CAD_COVER_NONE)
				continue;
			uint32_t *mark = &walk->mark[(size_t)ids[j] * nodes + homes[j]];
			pairs++;
			walk->rows[homes[j]]++;
			walk->activated[homes[j]] += *mark != t / PL_BATCH + 1;
			*mark = t / PL_BATCH + 1;
		}
		if ((t + 1) % PL_BATCH == 0)
			end_batch(walk);
	}

	if (out)
		end_layer(walk);
}

struct job {
	const struct pl_sample *sample;
	const struct pl_plan *plan;
	const struct pl_cluster *cluster;
	enum pl_router router;
	struct pl_metrics *metrics;
	pthread_mutex_t lock; /* of the histogram and the status */
	uint64_t histogram[HISTOGRAM];
	enum cad_status status;
	/* runs of layers, each walked by one thread: a layer is compared with the one before */
	uint32_t shares;
	atomic_uint next;
};

static void *run(void *context)
{
	struct job *job = context;
	struct walk walk;
	enum cad_status status = walk_init(&walk, job->sample, job->cluster, job->router);

	for (uint32_t share; status == CAD_OK && (share = atomic_fetch_add(&job->next, 1)) < job->shares;) {
		uint32_t layers = job->plan->layers, first = share * layers / job->shares;
		if (first > 0)
			walk_layer(&walk, job->plan, first - 1, NULL);
		for (uint32_t l = first; l < (share + 1) * layers / job->shares; l++)
			walk_layer(&walk, job->plan, l, &job->metrics->layer[l]);
	}

	pthread_mutex_lock(&job->lock);
	if (status != CAD_OK)
		job->status = status;
	for (uint32_t i = 0; i < HISTOGRAM && status == CAD_OK; i++)
		job->histogram[i] += walk.histogram[i];
	pthread_mutex_unlock(&job->lock);
	if (status == CAD_OK)
		walk_fini(&walk);

	return NULL;
}

/* The 99th percentile, between two values as numpy does it. */
static double percentile_99(const uint64_t *histogram)
{
	uint64_t total = 0, seen = 0;
	for (uint32_t i = 0; i < HISTOGRAM; i++)
		total += histogram[i];
	if (total == 0)
		return 0;
	double rank = 0.99 * (double)(total - 1), low = -1;
	uint64_t below = (uint64_t)rank;
	for (uint32_t i = 0; i < HISTOGRAM; i++) {
		seen += histogram[i];
		if (low < 0 && seen > below)
			low = i;
		if (low >= 0 && seen > below + 1)
			return low + (rank - (double)below) * (i - low);
	}

	return low;
}

static void sum_up(struct job *job)
{
	struct pl_metrics *m = job->metrics;
	double layers = m->layers ? m->layers : 1;

	for (uint32_t l = 0; l < m->layers; l++) {
		const struct pl_layer_metrics *layer = &m->layer[l];
		m->nodes_per_token += layer->nodes / layers;
		m->racks_per_token += layer->racks / layers;
		m->fresh_nodes_per_token += l > 0 ? layer->fresh / (layers - 1) : 0;
		m->bytes_per_token_layer += layer->remote * PL_ROW_BYTES / layers;
		m->load_mean += layer->load / layers;
		m->batch_load_mean += layer->batch_load / layers;
		m->activated_ratio +=
			(layer->activated_mean > 0 ? layer->activated / layer->activated_mean : 1) / layers;
		m->activated_max += layer->activated / layers;
		m->load_worst = layer->load > m->load_worst ? layer->load : m->load_worst;
		m->nodes_per_token_worst_layer =
			layer->nodes > m->nodes_per_token_worst_layer ? layer->nodes : m->nodes_per_token_worst_layer;
	}

	m->nodes_p99 = percentile_99(job->histogram);
	m->replicas = (double)pl_plan_copies(job->plan) / ((double)job->plan->experts * layers) - 1;
}

enum cad_status pl_measure(const struct pl_sample *sample, const struct pl_plan *plan, const struct pl_cluster *cluster,
	enum pl_router router, uint32_t threads, struct pl_metrics *metrics)
{
	struct pl_metrics made = { .layers = plan->layers };
	pthread_t thread[THREADS_MAX];
	uint32_t started = 0;

	CAD_ASSERT(plan->layers == sample->trace->layers && plan->experts == sample->trace->experts &&
		plan->nodes == cluster->nodes_count);
	made.layer = calloc(plan->layers, sizeof *made.layer);
	double *loads = calloc((size_t)plan->layers * plan->nodes, sizeof *loads);
	if (!made.layer || !loads) {
		free(made.layer);
		free(loads);
		return CAD_ERR_MEMORY;
	}

	for (uint32_t l = 0; l < plan->layers; l++)
		made.layer[l].node_load = loads + (size_t)l * plan->nodes;
	struct job job = {
		.sample = sample,
		.plan = plan,
		.cluster = cluster,
		.router = router,
		.metrics = &made,
		.lock = PTHREAD_MUTEX_INITIALIZER,
	};
	threads = threads ? threads : (uint32_t)sysconf(_SC_NPROCESSORS_ONLN);
	job.shares = threads < plan->layers ? threads : plan->layers;
	while (started + 1 < job.shares && started < THREADS_MAX &&
		pthread_create(&thread[started], NULL, run, &job) == 0)
		started++;
	run(&job);
	for (uint32_t i = 0; i < started; i++)
		pthread_join(thread[i], NULL);
	sum_up(&job);
	if (job.status != CAD_OK) {
		pl_metrics_fini(&made);
		return job.status;
	}

	*metrics = made;
	return CAD_OK;
}

struct pl_busiest_load pl_expected_load(
	const struct pl_metrics *planned, uint64_t planned_tokens, const struct pl_metrics *held, uint64_t held_tokens)
{
	struct pl_busiest_load expected = { 0, 0 };
	double part = planned_tokens && held_tokens ? sqrt(2 / (1 + (double)planned_tokens / (double)held_tokens)) : 1;

	for (uint32_t l = 0; l < planned->layers; l++) {
		double load = planned->layer[l].load + part * (held->layer[l].load - planned->layer[l].load);
		expected.mean += load / planned->layers;
		expected.worst = load > expected.worst ? load : expected.worst;
	}
	return expected;
}

void pl_metrics_fini(struct pl_metrics *metrics)
{
	if (metrics->layer)
		free(metrics->layer[0].node_load);
	free(metrics->layer);
	*metrics = (struct pl_metrics){ 0 };
}
