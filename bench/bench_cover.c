/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cover of a token (common/cluster/cover.h) in nanoseconds: what the router pays for every row
 * and layer, and the planner for every token that a change touches.
 *
 * Tokens are a generated trace's: 256 experts, communities, popularity by Zipf. Communities live
 * together, in blocks of the nodes; copies go to the expert with most uses a replica and to the
 * least loaded node, as EPLB deals them out. The rules:
 *
 *   plain   no load: ties go to the lower index
 *   load    ties go to the smaller load, as in the planner's search
 *   guard   in batches of 512 tokens, busy nodes count for less and nodes may be unusable (none
 *           is), as in the router
 *
 * `least` is a pass over the same tokens that reads every replica of their experts and counts a row
 * at each slot's first one: about the least that a rule over lists of copies does. All take turns
 * batch by batch, on one thread; ratio = rule / least. Medians over the repeats, with the lowest
 * and the highest.
 */
#include "limits.h"
#include "report.h"

#include "common/base/clock.h"
#include "common/cluster/cover.h"
#include "orchestration/planner/trace/synthetic.h"

#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXPERTS = 256, COMMUNITIES = 32, TOKENS = 20000, BATCH = 512, NODES_MAX = 320, REPEATS_MAX = 101, UNIT = 64 };
enum rule { LEAST, PLAIN, LOAD, GUARD, RULES };
static const char *const rule_names[RULES] = { "least", "plain", "load", "guard" };
static const uint32_t ks[] = { 1, 2, 4, 6, 8 }, nodes_counts[] = { 4, 8, 32, 128, 320 };
static const double copies[] = { 0, 0.125, 0.25, 1 };
#define COUNT(array) (sizeof(array) / sizeof *(array))

struct options {
	const char *csv;
	unsigned k, nodes, repeats;
};

static const struct argp_option option_table[] = {
	{ "k", 'k', "N", 0, "only tokens with N experts (default: 1, 2, 4, 6 and 8)", 0 },
	{ "nodes", 'n', "N", 0, "only N nodes (default: 4, 8, 32, 128 and 320)", 0 },
	{ "repeats", 'r', "N", 0, "repeats of each timing, of which the median is reported (default 9)", 0 },
	{ "csv", 'c', "DIR", 0, "also write DIR/cover-MACHINE.csv", 0 },
	{ 0 },
};

static error_t parse_option(int key, char *value, struct argp_state *state)
{
	struct options *o = state->input;
	switch (key) {
	case 'k': o->k = (unsigned)atoi(value); return 0;
	case 'n': o->nodes = (unsigned)atoi(value); return 0;
	case 'r': o->repeats = (unsigned)atoi(value); return 0;
	case 'c': o->csv = value; return 0;
	case ARGP_KEY_END:
		if (o->repeats < 1 || o->repeats > REPEATS_MAX)
			argp_error(state, "--repeats takes 1 to %d", REPEATS_MAX);
		return 0;
	default: return ARGP_ERR_UNKNOWN;
	}
}

static _Noreturn void die(const char *why)
{
	fprintf(stderr, "bench_cover: %s\n", why);
	exit(1);
}

/* ---- tokens and maps ---- */

struct tokens {
	uint32_t k;
	int32_t *experts; /* [TOKENS][k] */
	double uses[EXPERTS];
	uint32_t order[EXPERTS]; /* neighbouring communities side by side */
};

static void draw(struct tokens *tokens, uint32_t k)
{
	const struct pl_synthetic settings = {
		.layers = 1,
		.experts = EXPERTS,
		.k = k,
		.tokens = TOKENS,
		.seed = 1,
		.communities = COMMUNITIES,
		.strength = 0.4,
		.zipf = 0.8,
		.zipf_of_layer = true,
		.tasks = 8,
		.task_skew = 1,
		.locality = 0.6,
		.request_tokens = 128,
	};
	struct pl_synthetic_trace made;
	struct cad_error error;

	if (pl_synthetic_create(&settings, &made, &error) != CAD_OK)
		die(error.text);
	*tokens = (struct tokens){ .k = k, .experts = malloc((size_t)TOKENS * k * sizeof *tokens->experts) };
	if (!tokens->experts)
		die("no memory");
	for (size_t i = 0; i < (size_t)TOKENS * k; i++) {
		uint16_t id = made.trace->ids[i];
		tokens->experts[i] = id == PL_TRACE_NONE ? -1 : id;
		if (id != PL_TRACE_NONE)
			tokens->uses[id]++;
	}

	uint32_t at = 0;
	for (uint32_t c = 0; c < COMMUNITIES; c++)
		for (uint32_t e = 0; e < EXPERTS; e++)
			if (made.community[e] == c)
				tokens->order[at++] = e;
	pl_synthetic_fini(&made);
}

/* The next copy: which expert, and onto which node. */
static void add_copy(const struct tokens *tokens, uint32_t nodes, bool (*holds)[NODES_MAX], uint32_t *replicas)
{
	double load[NODES_MAX] = { 0 };
	uint32_t hottest = EXPERTS, lightest = nodes;

	for (uint32_t e = 0; e < EXPERTS; e++) {
		for (uint32_t n = 0; n < nodes; n++)
			load[n] += holds[e][n] ? tokens->uses[e] / replicas[e] : 0;
		if (replicas[e] < nodes &&
			(hottest == EXPERTS ||
				tokens->uses[e] / replicas[e] > tokens->uses[hottest] / replicas[hottest]))
			hottest = e;
	}

	for (uint32_t n = 0; n < nodes; n++)
		if (!holds[hottest][n] && (lightest == nodes || load[n] < load[lightest]))
			lightest = n;
	holds[hottest][lightest] = true;
	replicas[hottest]++;
}

static struct cad_map *place(const struct tokens *tokens, uint32_t nodes_count, double copied)
{
	static bool holds[EXPERTS][NODES_MAX];
	static struct cad_map_replica list[2 * EXPERTS];
	struct cad_map_node nodes[NODES_MAX];
	char ids[NODES_MAX][8];
	uint32_t replicas[EXPERTS], layer = 0;
	size_t count = 0;

	memset(holds, 0, sizeof holds);
	for (uint32_t i = 0; i < EXPERTS; i++) {
		holds[tokens->order[i]][i * nodes_count / EXPERTS] = true;
		replicas[i] = 1;
	}

	for (uint32_t i = 0; i < (uint32_t)(copied * EXPERTS); i++)
		add_copy(tokens, nodes_count, holds, replicas);
	for (uint32_t n = 0; n < nodes_count; n++) {
		snprintf(ids[n], sizeof ids[n], "n%u", n);
		nodes[n] = (struct cad_map_node){
			.id = ids[n],
			.exchange_address = "x:1",
			.http_address = "",
			.live = true,
		};
		for (uint32_t e = 0; e < EXPERTS; e++)
			if (holds[e][n])
				list[count++] = (struct cad_map_replica){ layer, e, n };
	}

	const struct cad_map_source source = {
		.epoch = 1,
		.nodes = nodes,
		.nodes_count = nodes_count,
		.layers = &layer,
		.layers_count = 1,
		.experts = EXPERTS,
		.replicas = list,
		.replicas_count = count,
	};
	struct cad_map *map;
	struct cad_error error;
	if (cad_map_create(&source, &map, &error) != CAD_OK)
		die(error.text);

	return map;
}

/* ---- timing ---- */

static void cover_least(const struct cad_map *map, const int32_t *experts, uint32_t k, uint32_t *load, uint16_t *nodes)
{
	uint32_t all = 0;
	for (uint32_t slot = 0; slot < k; slot++) {
		struct cad_map_replicas replicas = cad_map_replicas(map, 0, (uint32_t)experts[slot]);
		for (uint32_t r = 0; r < replicas.count; r++)
			all += replicas.nodes[r];
		nodes[slot] = replicas.nodes[0];
		load[nodes[slot]]++;
	}
	__asm__ volatile("" : : "r"(all));
}

/* What a rule needs beside the tokens. */
struct scene {
	const struct cad_map *map;
	const struct tokens *tokens;
	uint32_t busy[NODES_MAX], unit[NODES_MAX];
	uint64_t usable[NODES_MAX / 64];
	uint16_t nodes[BATCH][CAD_TOPK_MAX];
	double touched[RULES]; /* nodes of all tokens */
};

static void cover_batch(struct scene *scene, uint32_t from, uint32_t to, enum rule rule)
{
	const struct cad_map *map = scene->map;
	uint32_t k = scene->tokens->k;
	float mean = (float)(to - from) * (float)k * UNIT / (float)map->nodes_count;
	const struct cad_cover_load load = { .node = scene->busy },
				    guarded = { scene->busy, scene->unit, 1.03f * mean, 0.05f * mean };

	memset(scene->busy, 0, sizeof scene->busy);

	for (uint32_t t = from; t < to; t++) {
		const int32_t *experts = scene->tokens->experts + (size_t)t * k;
		uint16_t *nodes = scene->nodes[t - from];
		switch (rule) {
		case LEAST: cover_least(map, experts, k, scene->busy, nodes); break;
		case PLAIN: cad_cover(map, 0, experts, k, NULL, NULL, nodes); break;
		case LOAD: cad_cover(map, 0, experts, k, NULL, &load, nodes); break;
		default: cad_cover(map, 0, experts, k, scene->usable, &guarded, nodes); break;
		}
	}
}

static uint32_t distinct(const uint16_t *nodes, uint32_t k)
{
	uint32_t count = 0;
	for (uint32_t slot = 0; slot < k; slot++) {
		bool again = false;
		for (uint32_t other = 0; other < slot; other++)
			again = again || nodes[other] == nodes[slot];
		count += !again;
	}
	return count;
}

/* Nanoseconds per token of every rule. They take turns batch by batch, so that whatever else the
 * machine does falls on all. */
static void walk(struct scene *scene, double ns[RULES])
{
	for (enum rule rule = LEAST; rule < RULES; rule++)
		ns[rule] = scene->touched[rule] = 0;
	for (uint32_t from = 0; from < TOKENS; from += BATCH) {
		uint32_t to = from + BATCH < TOKENS ? from + BATCH : TOKENS;
		for (enum rule rule = LEAST; rule < RULES; rule++) {
			uint64_t begin = cad_clock_now_ns(&cad_clock_system);
			cover_batch(scene, from, to, rule);
			ns[rule] += (double)(cad_clock_now_ns(&cad_clock_system) - begin) / TOKENS;
			for (uint32_t t = from; t < to; t++)
				scene->touched[rule] += distinct(scene->nodes[t - from], scene->tokens->k);
		}
	}
}

static void measure(const struct tokens *tokens, uint32_t nodes, double copied, unsigned repeats, FILE *csv)
{
	static struct scene scene;
	struct cad_map *map = place(tokens, nodes, copied);
	double ns[RULES][REPEATS_MAX], ratio[RULES][REPEATS_MAX], replicas = 0;

	scene = (struct scene){ .map = map, .tokens = tokens };
	memset(scene.usable, 0xff, sizeof scene.usable);
	for (uint32_t n = 0; n < nodes; n++)
		scene.unit[n] = UNIT;
	for (size_t i = 0; i < (size_t)TOKENS * tokens->k; i++)
		replicas += cad_map_replicas(map, 0, (uint32_t)tokens->experts[i]).count / (double)TOKENS;
	for (unsigned r = 0; r < repeats; r++) {
		double once[RULES];
		walk(&scene, once);
		for (enum rule rule = LEAST; rule < RULES; rule++) {
			ns[rule][r] = once[rule];
			ratio[rule][r] = once[rule] / once[LEAST];
		}
	}

	double least = report_median(ns[LEAST], repeats);
	for (enum rule rule = PLAIN; rule < RULES; rule++) {
		double middle = report_median(ns[rule], repeats), low = ns[rule][0], high = ns[rule][repeats - 1],
		       to_least = report_median(ratio[rule], repeats);
		double copies_percent = 100 * copied, touched = scene.touched[rule] / TOKENS;
		printf("%3u %6u %7.1f %9.2f  %-6s %9.1f %9.1f %9.1f %9.1f %7.2f %7.2f\n", tokens->k, nodes,
			copies_percent, replicas, rule_names[rule], middle, low, high, least, to_least, touched);
		if (csv)
			fprintf(csv, "%u,%u,%.1f,%.2f,%s,%.1f,%.1f,%.1f,%.1f,%.2f,%.4f\n", tokens->k, nodes,
				copies_percent, replicas, rule_names[rule], middle, low, high, least, to_least,
				touched);
	}

	cad_map_release(map);
}

int main(int argc, char **argv)
{
	struct options o = { .repeats = 9 };
	const struct argp argp = { option_table, parse_option, NULL,
		"Nanoseconds per token of the cover: which replica serves each expert.", NULL, NULL, NULL };

	argp_parse(&argp, argc, argv, 0, NULL, &o);
	FILE *csv = o.csv
		? report_open(o.csv, "cover",
			  "k,nodes,copies_percent,replicas_per_token,rule,ns_per_token,low,high,least_ns,ratio,nodes_per_token")
		: NULL;
	if (o.csv && !csv)
		return 1;
	char machine[64];
	printf("%s\n  k  nodes copies%%  replicas  rule    ns/token       low      high     least   ratio   nodes\n",
		limit_machine(machine));

	for (size_t i = 0; i < COUNT(ks); i++) {
		if (o.k && o.k != ks[i])
			continue;
		struct tokens tokens;
		draw(&tokens, ks[i]);
		for (size_t n = 0; n < COUNT(nodes_counts); n++)
			for (size_t c = 0; c < COUNT(copies) && (!o.nodes || o.nodes == nodes_counts[n]); c++)
				measure(&tokens, nodes_counts[n], copies[c], o.repeats, csv);
		free(tokens.experts);
	}

	return report_close(csv) ? 0 : 1;
}
