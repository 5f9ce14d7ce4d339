/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/planner/trace/synthetic.h"

#include "common/base/clock.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SEGMENTS = 16, TASKS_MAX = 1024, GROUPS_MAX = 256, BALANCE_ROUNDS = 200 };

struct generator {
	const struct pl_synthetic *settings;
	struct cad_random random;
	struct pl_trace *trace;
	uint32_t *community;       /* [layers][experts] */
	double *popularity;        /* [layers][experts], mean 1 over a community or a layer */
	double *drift;             /* [layers][experts]: log of what popularity changes by, in all */
	double *weight;            /* [layers][topics][experts], of the current segment */
	double *topics;            /* [tasks][topics], each row ascending to 1 */
	double *task, *task_drift; /* [tasks]: ascending to 1, of the current segment; and as `drift` */
	double *key;               /* [experts] scratch */
	uint64_t *order;           /* [experts] scratch */
};

static double gaussian(struct cad_random *random)
{
	double radius = sqrt(-2 * log(1 - cad_random_unit(random)));
	return radius * cos(6.283185307179586 * cad_random_unit(random));
}

static void shuffle(struct cad_random *random, uint64_t *order, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		uint64_t j = cad_random_below(random, i + 1);
		order[i] = order[j];
		order[j] = i;
	}
}

/* ---- settings ---- */

static bool between(double value, double low, double high) { return value >= low && value <= high; }

static enum cad_status check(const struct pl_synthetic *s, struct cad_error *error)
{
	if (s->layers == 0 || s->layers > PL_TRACE_LAYERS_MAX || s->experts == 0 || s->experts > 4096 || s->k == 0 ||
		s->k > PL_TRACE_TOPK_MAX || s->tokens == 0)
		return cad_error_set(error, CAD_ERR_RANGE,
			"1 to %d layers, 1 to 4096 experts, 1 to %d of them per token, and at least one token",
			PL_TRACE_LAYERS_MAX, PL_TRACE_TOPK_MAX);
	if (s->k > s->experts)
		return cad_error_set(
			error, CAD_ERR_INVALID, "a token cannot select %u of %u experts", s->k, s->experts);
	if (s->communities == 0 || s->communities > 1024 || (s->communities & (s->communities - 1)) ||
		s->experts % s->communities)
		return cad_error_set(error, CAD_ERR_INVALID,
			"the number of communities, %u, must be a power of two up to 1024 that divides the number of experts, %u",
			s->communities, s->experts);
	if (!between(s->strength, 0, 1) || !between(s->locality, 0, 1) || !between(s->zipf, 0, 10) ||
		!between(s->drift, 0, 10) || !between(s->task_skew, 0, 10))
		return cad_error_set(error, CAD_ERR_RANGE,
			"strength and locality are from 0 to 1, zipf, drift and task skew from 0 to 10");
	if (s->groups &&
		(s->groups > GROUPS_MAX || s->experts % s->groups || s->groups_kept == 0 ||
			s->groups_kept > s->groups || s->experts / s->groups * s->groups_kept < s->k))
		return cad_error_set(error, CAD_ERR_INVALID,
			"%u of %u groups: at most %d groups, a number that divides that of the experts, %u, and those kept must hold %u experts",
			s->groups_kept, s->groups, GROUPS_MAX, s->experts, s->k);
	if (s->tasks == 0 || s->tasks > TASKS_MAX || s->request_tokens == 0 || s->request_tokens > 1000000)
		return cad_error_set(
			error, CAD_ERR_RANGE, "1 to %d tasks, and 1 to 1000000 tokens per request", TASKS_MAX);

	return CAD_OK;
}

/* ---- before the first token ---- */

static void make_communities(struct generator *g)
{
	const struct pl_synthetic *s = g->settings;
	uint32_t size = s->experts / s->communities;
	for (uint32_t layer = 0; layer < s->layers; layer++) {
		uint32_t *community = g->community + (size_t)layer * s->experts;
		double *popularity = g->popularity + (size_t)layer * s->experts, sum = 0;
		shuffle(&g->random, g->order, s->experts);
		for (uint32_t place = 0; place < s->experts; place++) {
			uint64_t expert = g->order[place];
			community[expert] = place / size;
			popularity[expert] = pow(1 + (double)(place % size), -s->zipf);
			sum += popularity[expert];
		}
		if (s->zipf_of_layer) {
			sum = 0;
			shuffle(&g->random, g->order, s->experts);
			for (uint32_t place = 0; place < s->experts; place++)
				sum += popularity[g->order[place]] = pow(1 + (double)place, -s->zipf);
		}
		for (uint32_t expert = 0; expert < s->experts; expert++) {
			popularity[expert] *= s->experts / sum;
			g->drift[(size_t)layer * s->experts + expert] = s->drift * gaussian(&g->random);
		}
	}
}

/* Tasks prefer topics at random; scaling rows and columns in turn makes every topic equally
 * frequent over all tasks. */
static void make_tasks(struct generator *g)
{
	const struct pl_synthetic *s = g->settings;
	uint32_t topics = s->communities;

	for (size_t i = 0; i < (size_t)s->tasks * topics; i++)
		g->topics[i] = exp(s->task_skew * gaussian(&g->random));
	for (uint32_t task = 0; task < s->tasks; task++)
		g->task_drift[task] = s->drift * gaussian(&g->random);
	for (int round = 0; round < BALANCE_ROUNDS; round++) {
		for (uint32_t topic = 0; topic < topics; topic++) {
			double sum = 0;
			for (uint32_t task = 0; task < s->tasks; task++)
				sum += g->topics[task * topics + topic];
			for (uint32_t task = 0; task < s->tasks; task++)
				g->topics[task * topics + topic] *= s->tasks / sum;
		}
		for (uint32_t task = 0; task < s->tasks; task++) {
			double sum = 0;
			for (uint32_t topic = 0; topic < topics; topic++)
				sum += g->topics[task * topics + topic];
			for (uint32_t topic = 0; topic < topics; topic++)
				g->topics[task * topics + topic] *= topics / sum;
		}
	}

	for (uint32_t task = 0; task < s->tasks; task++) {
		double sum = 0;
		for (uint32_t topic = 0; topic < topics; topic++)
			g->topics[task * topics + topic] = sum += g->topics[task * topics + topic] / topics;
	}
}

/* How far up the tree topic and community meet: 0: they are one. */
static uint32_t distance(uint32_t topic, uint32_t community)
{
	return topic == community ? 0 : 32 - (uint32_t)__builtin_clz(topic ^ community);
}

/* What an expert at each distance weighs before popularity: the probability of drawing from there,
 * over the experts there. */
static void level_weights(const struct pl_synthetic *s, double weight[33])
{
	uint32_t levels = (uint32_t)__builtin_ctz(s->communities);
	double left = 1, size = (double)s->experts / s->communities;
	for (uint32_t level = 0; level <= levels; level++) {
		double mass = level < levels ? left * s->strength : left;
		weight[level] = mass / (level ? size * (double)(1u << (level - 1)) : size);
		left -= mass;
	}
}

/* The weights of a part of the trace, `time` from 0 to 1. */
static void begin_segment(struct generator *g, double time)
{
	const struct pl_synthetic *s = g->settings;
	double level[33], sum = 0;

	level_weights(s, level);

	for (uint32_t layer = 0; layer < s->layers; layer++)
		for (uint32_t topic = 0; topic < s->communities; topic++)
			for (uint32_t expert = 0; expert < s->experts; expert++) {
				size_t i = (size_t)layer * s->experts + expert;
				g->weight[((size_t)layer * s->communities + topic) * s->experts + expert] =
					level[distance(topic, g->community[i])] * g->popularity[i] *
						exp(time * g->drift[i]) +
					1e-12;
			}
	for (uint32_t task = 0; task < s->tasks; task++)
		g->task[task] = sum += exp(time * g->task_drift[task]);
	for (uint32_t task = 0; task < s->tasks; task++)
		g->task[task] /= sum;
}

/* ---- tokens ---- */

static uint32_t draw(struct cad_random *random, const double *ascending, uint32_t count)
{
	double unit = cad_random_unit(random);
	uint32_t i = 0;
	while (i + 1 < count && unit >= ascending[i])
		i++;
	return i;
}

/* Keys of the experts in groups that are not kept become infinite. A group counts by the sum of its
 * two best scores, -log(key). */
static void keep_groups(const struct pl_synthetic *s, double *key)
{
	double score[GROUPS_MAX];
	uint32_t size = s->experts / s->groups;

	for (uint32_t group = 0; group < s->groups; group++) {
		double best = INFINITY, second = INFINITY;
		for (uint32_t i = group * size; i < (group + 1) * size; i++) {
			second = key[i] < best ? best : key[i] < second ? key[i] : second;
			best = key[i] < best ? key[i] : best;
		}
		score[group] = -log(best) - (size > 1 ? log(second) : 0);
	}

	for (uint32_t group = 0; group < s->groups; group++) {
		uint32_t better = 0;
		for (uint32_t other = 0; other < s->groups; other++)
			better += score[other] > score[group] || (score[other] == score[group] && other < group);
		for (uint32_t i = group * size; better >= s->groups_kept && i < (group + 1) * size; i++)
			key[i] = INFINITY;
	}
}

/* The k smallest keys, ascending. */
static void select_experts(const double *key, uint32_t experts, uint32_t k, uint16_t *ids)
{
	uint32_t count = 0;
	for (uint32_t expert = 0; expert < experts; expert++) {
		if (count == k && key[expert] >= key[ids[k - 1]])
			continue;
		uint32_t place = count < k ? count++ : k - 1;
		for (; place > 0 && key[expert] < key[ids[place - 1]]; place--)
			ids[place] = ids[place - 1];
		ids[place] = (uint16_t)expert;
	}
}

/* Drawing without replacement by weight: the least of exponential times, each over its weight. */
static void make_cell(struct generator *g, uint32_t layer, uint64_t token, uint32_t topic)
{
	const struct pl_synthetic *s = g->settings;
	const double *weight = g->weight + ((size_t)layer * s->communities + topic) * s->experts;
	size_t cell = ((size_t)layer * s->tokens + token) * s->k;
	uint16_t *ids = g->trace->ids + cell;

	for (uint32_t expert = 0; expert < s->experts; expert++)
		g->key[expert] = -log(1 - cad_random_unit(&g->random)) / weight[expert] + 1e-300;
	if (s->groups)
		keep_groups(s, g->key);
	select_experts(g->key, s->experts, s->k, ids);
	double sum = 0; /* scores: softmax of -log(key) over the selected ones */
	for (uint32_t i = 0; s->scores && i < s->k; i++)
		sum += g->key[ids[0]] / g->key[ids[i]];
	for (uint32_t i = 0; s->scores && i < s->k; i++)
		g->trace->scores[cell + i] = (float)(g->key[ids[0]] / g->key[ids[i]] / sum);
}

static void make_tokens(struct generator *g)
{
	const struct pl_synthetic *s = g->settings;
	uint32_t request = 0, task = 0, topic = 0;
	uint64_t left = 0, segment = 0;
	for (uint64_t token = 0; token < s->tokens; token++) {
		/* a short trace may begin several at once */
		while (segment < SEGMENTS && token >= s->tokens / SEGMENTS * segment)
			begin_segment(g, (double)segment++ / (SEGMENTS - 1));
		bool begins = left == 0;
		if (begins) {
			left = 1 + cad_random_below(&g->random, 2 * (uint64_t)s->request_tokens - 1);
			task = draw(&g->random, g->task, s->tasks);
			request += token > 0;
		}
		if (begins || cad_random_unit(&g->random) >= s->locality)
			topic = draw(&g->random, g->topics + (size_t)task * s->communities, s->communities);
		g->trace->request[token] = request;
		for (uint32_t layer = 0; layer < s->layers; layer++)
			make_cell(g, layer, token, topic);
		left--;
	}
}

/* The trace says how to make it again. */
static enum cad_status name_trace(struct generator *g, struct cad_error *error)
{
	const struct pl_synthetic *s = g->settings;
	char text[512], groups[64] = "";

	if (s->groups)
		snprintf(groups, sizeof groups, " groups=%u groups-kept=%u", s->groups, s->groups_kept);
	snprintf(text, sizeof text,
		"generated: layers=%u experts=%u top-k=%u tokens=%llu seed=%llu communities=%u strength=%g zipf=%g%s%s tasks=%u task-skew=%g locality=%g drift=%g request-tokens=%u",
		s->layers, s->experts, s->k, (unsigned long long)s->tokens, (unsigned long long)s->seed, s->communities,
		s->strength, s->zipf, s->zipf_of_layer ? " zipf-of-layer" : "", groups, s->tasks, s->task_skew,
		s->locality, s->drift, s->request_tokens);
	return pl_trace_set_names(g->trace, "synthetic", text, error);
}

enum cad_status pl_synthetic_create(
	const struct pl_synthetic *settings, struct pl_synthetic_trace *made, struct cad_error *error)
{
	const struct pl_synthetic *s = settings;
	enum cad_status status = check(s, error);

	if (status != CAD_OK)
		return status;

	size_t cells = (size_t)s->layers * s->experts;
	struct generator g = { .settings = s, .random = { s->seed } };
	status = pl_trace_create(s->layers, s->experts, s->k, s->tokens, s->scores, &g.trace, error);
	if (status != CAD_OK)
		return status;
	g.community = calloc(cells, sizeof *g.community);
	g.popularity = calloc(cells, sizeof *g.popularity);
	g.drift = calloc(cells, sizeof *g.drift);
	g.weight = calloc(cells * s->communities, sizeof *g.weight);
	g.topics = calloc((size_t)s->tasks * s->communities, sizeof *g.topics);
	g.task = calloc(s->tasks, sizeof *g.task);
	g.task_drift = calloc(s->tasks, sizeof *g.task_drift);
	g.key = calloc(s->experts, sizeof *g.key);
	g.order = calloc(s->experts, sizeof *g.order);

	if (!g.community || !g.popularity || !g.drift || !g.weight || !g.topics || !g.task || !g.task_drift || !g.key ||
		!g.order)
		status = cad_error_set(error, CAD_ERR_MEMORY, "no memory to generate a trace");
	else
		status = name_trace(&g, error);
	if (status == CAD_OK) {
		make_communities(&g);
		make_tasks(&g);
		make_tokens(&g);
		*made = (struct pl_synthetic_trace){ .trace = g.trace, .community = g.community };
	} else {
		pl_trace_free(g.trace);
		free(g.community);
	}

	free(g.popularity);
	free(g.drift);
	free(g.weight);
	free(g.topics);
	free(g.task);
	free(g.task_drift);
	free(g.key);
	free(g.order);

	return status;
}

void pl_synthetic_fini(struct pl_synthetic_trace *made)
{
	pl_trace_free(made->trace);
	free(made->community);
	*made = (struct pl_synthetic_trace){ 0 };
}

/* ---- the known placement ---- */

static void layer_cost(const struct pl_trace *trace, uint32_t layer, const uint16_t *node, uint32_t nodes,
	uint64_t *rows, double *nodes_per_token, double *load)
{
	uint64_t touched = 0, most = 0, all = 0;
	memset(rows, 0, nodes * sizeof *rows);

	for (uint64_t token = 0; token < trace->tokens; token++) {
		const uint16_t *ids = pl_trace_row(trace, layer, token);
		for (uint32_t i = 0; i < trace->k && ids[i] != PL_TRACE_NONE; i++) {
			bool fresh = true;
			for (uint32_t j = 0; j < i; j++)
				fresh = fresh && node[ids[j]] != node[ids[i]];
			touched += fresh;
			rows[node[ids[i]]]++;
			all++;
		}
	}

	for (uint32_t n = 0; n < nodes; n++)
		most = rows[n] > most ? rows[n] : most;
	*nodes_per_token = (double)touched / (double)trace->tokens;
	*load = all ? (double)most * nodes / (double)all : 1;
}

static struct pl_known_cost cost_of(const struct pl_trace *trace, const uint16_t *node, uint32_t nodes, uint64_t *rows)
{
	struct pl_known_cost cost = { 0 };
	for (uint32_t layer = 0; layer < trace->layers; layer++) {
		double touched, load;
		layer_cost(trace, layer, node + (size_t)layer * trace->experts, nodes, rows, &touched, &load);
		cost.nodes_per_token += touched / trace->layers;
		cost.load_mean += load / trace->layers;
		cost.load_worst = load > cost.load_worst ? load : cost.load_worst;
	}
	return cost;
}

/* count parts (communities or groups), an equal number of neighbours to every node. part NULL: an
 * expert's part is its group. */
static void place_parts(
	const struct pl_trace *trace, const uint32_t *part, uint32_t count, uint32_t nodes, uint16_t *node)
{
	for (size_t i = 0, cells = (size_t)trace->layers * trace->experts; i < cells; i++) {
		uint32_t index = part ? part[i] : (uint32_t)(i % trace->experts) / (trace->experts / count);
		node[i] = (uint16_t)(index / (count / nodes));
	}
}

enum cad_status pl_synthetic_place(const struct pl_synthetic *settings, const struct pl_synthetic_trace *made,
	uint32_t nodes, uint16_t *node, bool *planted, struct pl_known_cost *cost, struct cad_error *error)
{
	const struct pl_synthetic *s = settings;
	bool by_community = nodes && s->communities % nodes == 0,
	     by_group = nodes && s->groups && s->groups % nodes == 0;

	if (!by_community && !by_group)
		return cad_error_set(error, CAD_ERR_INVALID,
			"a best placement is known for a number of nodes that divides the %u communities or the %u groups, not for %u nodes",
			s->communities, s->groups, nodes);
	uint64_t *rows = calloc(nodes, sizeof *rows);
	if (!rows)
		return cad_error_set(error, CAD_ERR_MEMORY, "no memory to measure a placement");
	struct pl_known_cost of_groups = { 0 };
	if (by_group) {
		place_parts(made->trace, NULL, s->groups, nodes, node);
		of_groups = cost_of(made->trace, node, nodes, rows);
	}

	*planted = by_community;
	if (by_community) {
		place_parts(made->trace, made->community, s->communities, nodes, node);
		*cost = cost_of(made->trace, node, nodes, rows);
	}

	if (by_group && (!by_community || of_groups.nodes_per_token < cost->nodes_per_token)) {
		place_parts(made->trace, NULL, s->groups, nodes, node);
		*cost = of_groups;
		*planted = false;
	}

	free(rows);
	return CAD_OK;
}
