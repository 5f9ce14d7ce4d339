/* SPDX-License-Identifier: Apache-2.0 */
/* What `cadrectl plan` says: a table for people, JSON for programs. */
#include "common/base/plural.h"
#include "orchestration/cli/plan.h"
#include "orchestration/planner/trace/reservoir.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WORST_LAYERS = 5, MAP_ROWS_MAX = 64, MAP_NODES_MAX = 128 };

/* ---- warnings ---- */

enum { WARNINGS_MAX = 2, WARNING_BYTES = 256 };

static size_t warnings_of(
	const struct cl_plan_options *options, const struct cl_plan_case *c, char texts[WARNINGS_MAX][WARNING_BYTES])
{
	/* what a holdout sets aside was recorded all the same */
	uint64_t tokens = c->trace->tokens + (c->held && !options->measure[0] ? c->held->tokens : 0);
	size_t count = 0;

	if (options->tokens_max && tokens > options->tokens_max)
		tokens = options->tokens_max;
	if (tokens < PL_RESERVOIR_TOKENS_MIN)
		snprintf(texts[count++], WARNING_BYTES,
			"the plan is made from %llu %s; made from fewer than %d it may not hold for others: record more",
			(unsigned long long)tokens, cad_plural(tokens, "token", "tokens"), PL_RESERVOIR_TOKENS_MIN);
	if (c->cluster.nodes_count > c->trace->experts)
		snprintf(texts[count++], WARNING_BYTES,
			"there are %u nodes for the %u experts of a layer: some of them only hold copies, or nothing",
			c->cluster.nodes_count, c->trace->experts);
	return count;
}

void cl_plan_warn(const struct cl_plan_options *options, const struct cl_plan_case *c)
{
	char texts[WARNINGS_MAX][WARNING_BYTES];
	size_t count = warnings_of(options, c, texts);

	for (size_t i = 0; i < count; i++)
		fprintf(stderr, "cadrectl plan: warning: %s\n", texts[i]);
}

/* ---- the table ---- */

static void print_head(
	const struct cl_plan_options *options, const struct cl_plan_case *c, const struct cl_plan_result *r)
{
	const struct pl_plan *plan = r->solution.plan;
	uint32_t requests = pl_trace_requests(c->trace), rounds = r->solution.rounds;

	printf("%u %s of %u experts, %u per token, on %u %s; planned on %llu tokens of %u %s", plan->layers,
		cad_plural(plan->layers, "layer", "layers"), plan->experts, c->trace->k, plan->nodes,
		cad_plural(plan->nodes, "node", "nodes"), (unsigned long long)c->trace->tokens, requests,
		cad_plural(requests, "request", "requests"));
	if (c->held)
		printf(", measured on %llu others", (unsigned long long)c->held->tokens);
	printf("\n%u %s in %.1f s; --rounds %u --seed %llu repeats this plan\n\n", rounds,
		cad_plural(rounds, "round", "rounds"), r->solution.seconds, rounds, (unsigned long long)options->seed);
}

static void print_row(
	const char *name, const char *format, double before, double after, double planned, const double *what_if)
{
	char text[4][32];
	snprintf(text[0], sizeof text[0], format, before);
	snprintf(text[1], sizeof text[1], format, after);
	snprintf(text[2], sizeof text[2], format, planned);
	printf("%-44s %11s %11s %11s", name, text[0], text[1], text[2]);
	if (what_if) {
		snprintf(text[3], sizeof text[3], format, *what_if);
		printf(" %11s", text[3]);
	}
	putchar('\n');
}

/* The new plan on what it was planned on. */
static const struct pl_metrics *trained(const struct cl_plan_case *c, const struct cl_plan_result *r)
{
	return c->held ? &r->planned_on : &r->new_metrics;
}

static void print_metrics(const struct cl_plan_case *c, const struct cl_plan_result *r, const struct cl_plan_result *w)
{
	const struct pl_metrics *b = &r->old_metrics, *a = &r->new_metrics, *p = trained(c, r),
				*o = w ? &w->new_metrics : NULL;
	printf("%-44s %11s %11s %11s%s\n", "", c->present ? "present" : "in blocks", "planned", "(trained on)",
		o ? "     what if" : "");
#define ROW(name, format, member) print_row(name, format, b->member, a->member, p->member, o ? &o->member : NULL)
	ROW("nodes touched per token and layer", "%.3f", nodes_per_token);
	ROW("  99th percentile of tokens", "%.2f", nodes_p99);
	ROW("  in the worst layer", "%.3f", nodes_per_token_worst_layer);
	if (a->layers > 1)
		ROW("  not touched in the layer before", "%.3f", fresh_nodes_per_token);
	if (c->cluster.racks_count > 1)
		ROW("racks touched per token and layer", "%.3f", racks_per_token);
	ROW("bytes sent per token and layer", "%.0f", bytes_per_token_layer);
	ROW("time of the busiest node over the mean", "%.3f", load_mean);
	ROW("  in the worst layer", "%.3f", load_worst);
	ROW("  in batches of 64 tokens", "%.3f", batch_load_mean);
	ROW("experts run by the busiest node for 64 tokens", "%.2f", activated_max);
	ROW("extra copies, as a share of the experts", "%.3f", replicas);
#undef ROW
	putchar('\n');
	if (c->held)
		printf("expected on as many new tokens: the busiest node gets %.3f times the mean (%.3f in the worst layer); a smaller sample overstates this\n\n",
			r->expected.mean, r->expected.worst);
}

/* "1.4 GB" */
static void print_size(double bytes)
{
	static const char *const units[] = { "B", "kB", "MB", "GB", "TB", "PB" };
	size_t unit = 0;
	for (; bytes >= 1000 && unit < 5; unit++)
		bytes /= 1000;
	printf("%.4g %s", bytes, units[unit]);
}

static void print_moves(const struct cl_plan_case *c, const struct cl_plan_result *r)
{
	const struct pl_moves *m = &r->moves;
	if (c->present) {
		printf("from the present map: %llu %s to load, %llu to free", (unsigned long long)m->loads,
			cad_plural(m->loads, "copy", "copies"), (unsigned long long)m->frees);
		if (m->bytes) {
			printf("; ");
			print_size((double)m->bytes);
			printf(", %.1f s for node '%s', which loads most", m->seconds, c->cluster.nodes[m->busiest].id);
		}
		putchar('\n');
	}
}

/* How much better a plan could be: an estimate, and a bound. */
static void print_gap(const struct cl_plan_case *c, const struct cl_plan_result *r)
{
	if (r->solution.gap > 0)
		printf("searches from other starts ended %.2f %% above this plan's objective: an estimate of what is left to gain\n",
			100 * r->solution.gap);
	else
		printf("no second search has finished: more time may find a better plan\n");
	printf("lower bound: no plan of this size can touch fewer than %.3f nodes per token on the tokens planned on (this plan: %.3f)\n\n",
		r->bound, trained(c, r)->nodes_per_token);
}

static int by_nodes(const void *a, const void *b)
{
	const struct pl_layer_metrics *x = *(const struct pl_layer_metrics *const *)a,
				      *y = *(const struct pl_layer_metrics *const *)b;
	return x->nodes != y->nodes ? (x->nodes < y->nodes ? 1 : -1) : (x > y ? 1 : -1);
}

static void print_worst(const struct cl_plan_case *c, const struct cl_plan_result *r)
{
	const struct pl_metrics *m = &r->new_metrics;
	const struct pl_layer_metrics **order = malloc(m->layers * sizeof(*order));

	if (!order)
		return;

	for (uint32_t l = 0; l < m->layers; l++)
		order[l] = &m->layer[l];
	qsort(order, m->layers, sizeof(*order), by_nodes);
	printf("%-6s %8s %8s %8s %12s  %-20s %s\n", "LAYER", "NODES", "BEFORE", "BUSIEST", "EXPERTS/64", "BUSIEST NODE",
		"BEGAN AS");

	for (uint32_t i = 0; i < m->layers && i < WORST_LAYERS; i++) {
		uint32_t l = (uint32_t)(order[i] - m->layer);
		printf("%-6u %8.3f %8.3f %8.3f %12.2f  %-20s %s\n", r->solution.plan->layer[l], order[i]->nodes,
			r->old_metrics.layer[l].nodes, order[i]->load, order[i]->activated,
			c->cluster.nodes[order[i]->busiest].id, r->solution.start[l]);
	}

	free(order);
	putchar('\n');
}

/* A character a layer and node: how busy it is. Many layers or nodes are thinned out evenly. */
static void print_map(const struct cl_plan_result *r)
{
	static const char shades[] = " .:-=+*#%@";
	static const double from[] = { 0.5, 0.8, 0.9, 0.95, 0.99, 1.01, 1.05, 1.10, 1.25 };
	const struct pl_metrics *m = &r->new_metrics;
	uint32_t nodes = r->solution.plan->nodes, rows = m->layers < MAP_ROWS_MAX ? m->layers : MAP_ROWS_MAX,
		 columns = nodes < MAP_NODES_MAX ? nodes : MAP_NODES_MAX;

	printf("load of each node over the mean: ' ' below 0.5, . 0.5, : 0.8, - 0.9, = 0.95, + 0.99, * 1.01, # 1.05, %% 1.10, @ 1.25 and more\n");

	for (uint32_t i = 0; i < rows; i++) {
		uint32_t l = (uint32_t)((uint64_t)i * m->layers / rows);
		printf("%6u |", r->solution.plan->layer[l]);
		for (uint32_t j = 0; j < columns; j++) {
			double load = m->layer[l].node_load[(uint64_t)j * nodes / columns];
			size_t shade = 0;
			while (shade < sizeof from / sizeof *from && load >= from[shade])
				shade++;
			putchar(shades[shade]);
		}
		printf("|\n");
	}
}

void cl_plan_print_table(const struct cl_plan_options *options, const struct cl_plan_case *c,
	const struct cl_plan_result *r, const char *what, const struct cl_plan_case *other,
	const struct cl_plan_result *w)
{
	print_head(options, c, r);
	if (w)
		printf("what if %s: %u %s, %.1f %% more copies than experts\n\n", what, other->cluster.nodes_count,
			cad_plural(other->cluster.nodes_count, "node", "nodes"), 100 * w->new_metrics.replicas);
	print_metrics(c, r, w);
	print_moves(c, r);
	print_gap(c, r);
	print_worst(c, r);
	print_map(r);
}

/* ---- JSON ---- */

static json_t *metrics_to_json(const struct pl_metrics *m)
{
	return json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "nodes_per_token",
		m->nodes_per_token, "nodes_p99", m->nodes_p99, "nodes_per_token_worst_layer",
		m->nodes_per_token_worst_layer, "racks_per_token", m->racks_per_token, "fresh_nodes_per_token",
		m->fresh_nodes_per_token, "bytes_per_token_layer", m->bytes_per_token_layer, "load_mean", m->load_mean,
		"load_worst", m->load_worst, "batch_load_mean", m->batch_load_mean, "activated_ratio",
		m->activated_ratio, "activated_max", m->activated_max, "replicas", m->replicas);
}

static json_t *result_to_json(
	const struct cl_plan_options *options, const struct cl_plan_case *c, const struct cl_plan_result *r)
{
	uint32_t slots = 0, used = pl_plan_used_max(r->solution.plan);
	for (uint32_t n = 0; n < c->cluster.nodes_count; n++)
		slots = c->cluster.nodes[n].slots > slots ? c->cluster.nodes[n].slots : slots;
	/* with --nodes the nodes are numbers, and have no ids */
	json_t *json = pl_plan_to_json(r->solution.plan, options->cluster[0] ? &c->cluster : NULL, "cadre",
		slots > used ? slots : used, r->solution.seconds);
	json_t *more = json_pack("{s:I, s:I, s:f, s:f, s:f, s:o, s:o, s:o}", "rounds", (json_int_t)r->solution.rounds,
		"seed", (json_int_t)options->seed, "objective", r->solution.value, "gap_estimate", r->solution.gap,
		"nodes_per_token_bound", r->bound, "before", metrics_to_json(&r->old_metrics), "predicted",
		metrics_to_json(&r->new_metrics), "trained", metrics_to_json(trained(c, r)));
	if (c->held)
		(void)json_object_set_new(more, "expected",
			json_pack("{s:f, s:f}", "load_mean", r->expected.mean, "load_worst", r->expected.worst));
	if (c->cluster.racks_count > 1) {
		json_t *racks = json_array();
		for (uint32_t n = 0; n < c->cluster.nodes_count; n++)
			(void)json_array_append_new(racks, json_integer(c->cluster.nodes[n].rack));
		(void)json_object_set_new(more, "racks", racks);
	}

	if (c->present)
		(void)json_object_set_new(more, "moves",
			json_pack("{s:I, s:I, s:I, s:f}", "loads", (json_int_t)r->moves.loads, "frees",
				(json_int_t)r->moves.frees, "bytes", (json_int_t)r->moves.bytes, "seconds",
				r->moves.seconds));
	char texts[WARNINGS_MAX][WARNING_BYTES];
	size_t warnings = warnings_of(options, c, texts);
	json_t *list = json_array();
	for (size_t i = 0; i < warnings; i++)
		(void)json_array_append_new(list, json_string(texts[i]));
	(void)json_object_set_new(more, "warnings", list);
	if (json && more)
		(void)json_object_update(json, more);
	json_decref(more);

	return json;
}

enum cad_status cl_plan_print_json(const struct cl_plan_options *options, const struct cl_plan_case *c,
	const struct cl_plan_result *r, const char *what, const struct cl_plan_case *other,
	const struct cl_plan_result *w, struct cad_error *error)
{
	json_t *json = result_to_json(options, c, r);
	if (json && w) {
		json_t *changed = result_to_json(options, other, w);
		if (changed)
			(void)json_object_set_new(changed, "what", json_string(what));
		(void)json_object_set_new(json, "what_if", changed);
	}

	if (!json)
		return cad_error_set(error, CAD_ERR_MEMORY, "out of memory for the JSON");
	cl_print_json(json);

	return CAD_OK;
}
