/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/placement/telemetry_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const uint32_t pl_telemetry_windows_s[PL_TELEMETRY_WINDOWS] = { 10, 60, 600 };

/* The seconds of a time that is looked at; false: there is none. */
struct window {
	uint64_t from, to;
	double seconds;
};

static bool window_of(const struct pl_telemetry *telemetry, uint64_t from_ns, uint64_t to_ns, struct window *window)
{
	uint64_t start_ns = telemetry->options.now_ns;

	window->from = pl_second_of(from_ns < start_ns ? start_ns : from_ns);
	window->to = pl_second_of(to_ns);
	window->seconds = window->to > window->from ? (double)(window->to - window->from) : 0;
	return window->to > window->from;
}

static bool totals_between(const struct pl_source *source, enum pl_role role, const struct window *window,
	struct pl_totals *begin, struct pl_totals *end)
{
	return source && source->role == role && pl_series_at(&source->series, window->from, begin) &&
		pl_series_at(&source->series, window->to, end);
}

/* ---- the cluster ---- */

static void add_routers(const struct pl_telemetry *telemetry, const struct window *window, uint64_t sums[PL_R_TOTALS])
{
	struct pl_totals begin, end;

	for (uint32_t slot = 0; slot < CAD_PROCESSES_MAX; slot++) {
		if (!totals_between(telemetry->sources[slot], PL_ROLE_ROUTER, window, &begin, &end))
			continue;
		for (uint32_t i = 0; i < PL_R_TOTALS; i++)
			sums[i] += end.wide[i] - begin.wide[i];
	}
}

/* The nodes over which is averaged: those that live, and those that worked. */
struct worker {
	const uint32_t *begin, *end; /* totals of layers; NULL: none */
	double speed;
};

static uint32_t find_workers(
	const struct pl_telemetry *telemetry, const struct window *window, struct worker workers[CAD_NODES_MAX])
{
	const struct pl_registry *registry = telemetry->options.registry;
	uint32_t count = 0;

	for (uint32_t slot = 0; slot < CAD_PROCESSES_MAX && count < CAD_NODES_MAX; slot++) {
		const struct pl_node *node = &registry->nodes[slot];
		struct pl_totals begin, end;
		bool lives = node->role == PL_ROLE_EXPERT && node->presence == PL_LIVE;
		if (totals_between(telemetry->sources[slot], PL_ROLE_EXPERT, window, &begin, &end) &&
			(lives || end.wide[PL_N_STEPS] != begin.wide[PL_N_STEPS]))
			workers[count++] = (struct worker){ begin.narrow, end.narrow, node->speed };
		else if (lives)
			workers[count++] = (struct worker){ NULL, NULL, node->speed };
	}
	return count;
}

/* Of one layer, over all nodes; load_max: pairs over the share that is fair by speed. */
struct spread {
	double load_max, pairs, activated_max, activated;
};

static struct spread spread_of(const struct worker *workers, uint32_t count, uint32_t row)
{
	struct spread spread = { 0 };
	double speeds = 0;

	for (uint32_t i = 0; i < count; i++)
		speeds += workers[i].speed;
	for (uint32_t i = 0; i < count; i++) {
		uint32_t since[PL_L_TOTALS] = { 0 };
		for (uint32_t j = 0; workers[i].begin && j < PL_L_TOTALS; j++)
			since[j] = workers[i].end[row * PL_L_TOTALS + j] - workers[i].begin[row * PL_L_TOTALS + j];
		double pairs = since[PL_L_PAIRS], load = pairs * (speeds / workers[i].speed),
		       activated = since[PL_L_STEPS] ? (double)since[PL_L_ACTIVATED] / since[PL_L_STEPS] : 0;
		spread.pairs += pairs;
		spread.activated += activated;
		spread.load_max = load > spread.load_max ? load : spread.load_max;
		spread.activated_max = activated > spread.activated_max ? activated : spread.activated_max;
	}
	spread.load_max /= spread.pairs > 0 ? spread.pairs : 1;
	return spread;
}

static void fill_balance(const struct pl_telemetry *telemetry, const struct window *window, struct pl_figures *figures)
{
	struct worker workers[CAD_NODES_MAX];
	uint32_t count = find_workers(telemetry, window, workers), layers = 0;

	for (uint32_t row = 0; row < telemetry->options.shape.layers_count; row++) {
		struct spread spread = spread_of(workers, count, row);
		if (spread.pairs <= 0)
			continue;
		layers++;
		figures->load_max_over_mean += spread.load_max;
		figures->activated_max_over_mean +=
			spread.activated > 0 ? spread.activated_max * count / spread.activated : 1;
		figures->activated += spread.activated / count;
	}
	figures->load_max_over_mean /= layers ? layers : 1;
	figures->activated_max_over_mean /= layers ? layers : 1;
	figures->activated /= layers ? layers : 1;
}

bool pl_telemetry_between(
	const struct pl_telemetry *telemetry, uint64_t from_ns, uint64_t to_ns, struct pl_figures *figures)
{
	struct window window;
	uint64_t sums[PL_R_TOTALS] = { 0 };

	*figures = (struct pl_figures){ 0 };
	if (!window_of(telemetry, from_ns, to_ns, &window))
		return false;
	add_routers(telemetry, &window, sums);
	fill_balance(telemetry, &window, figures);

	double rows = sums[PL_R_ROWS] ? (double)sums[PL_R_ROWS] : 1;
	figures->seconds = window.seconds;
	figures->tokens = sums[PL_R_TOKENS];
	figures->sampled = sums[PL_R_SAMPLED];
	figures->lost = sums[PL_R_LOST];
	figures->rows = sums[PL_R_ROWS];
	figures->nodes_per_token = (double)sums[PL_R_NODES] / rows;
	figures->sent_per_token = (double)sums[PL_R_SENT] / rows;
	figures->received_per_token = (double)sums[PL_R_RECEIVED] / rows;
	figures->bytes_per_token = figures->sent_per_token + figures->received_per_token;
	return figures->rows > 0 || figures->load_max_over_mean > 0;
}

/* ---- one process ---- */

/* What a process counted; false: it did not report. */
static bool since_of(const struct pl_telemetry *telemetry, uint32_t slot, enum pl_role role,
	const struct window *window, double *since, uint32_t count)
{
	const struct pl_source *source = telemetry->sources[slot];
	struct pl_totals begin, end;

	if (!totals_between(source, role, window, &begin, &end) ||
		strcmp(source->id, telemetry->options.registry->nodes[slot].id) != 0)
		return false;
	for (uint32_t i = 0; i < count; i++)
		since[i] = (double)(end.wide[i] - begin.wide[i]);
	return true;
}

bool pl_telemetry_router(const struct pl_telemetry *telemetry, uint32_t slot, uint64_t from_ns, uint64_t to_ns,
	struct pl_router_figures *figures)
{
	struct window window;
	double since[PL_R_TOTALS];

	*figures = (struct pl_router_figures){ 0 };
	if (!window_of(telemetry, from_ns, to_ns, &window) ||
		!since_of(telemetry, slot, PL_ROLE_ROUTER, &window, since, PL_R_TOTALS))
		return false;

	figures->tokens_per_second = since[PL_R_TOKENS] / window.seconds;
	figures->calls_per_second = since[PL_R_CALLS] / window.seconds;
	figures->hedged_per_second = since[PL_R_HEDGED] / window.seconds;
	return since[PL_R_TOKENS] + since[PL_R_CALLS] > 0;
}

bool pl_telemetry_node(const struct pl_telemetry *telemetry, uint32_t slot, uint64_t from_ns, uint64_t to_ns,
	struct pl_node_figures *figures)
{
	struct window window;
	double since[PL_N_TOTALS];

	*figures = (struct pl_node_figures){ 0 };
	if (!window_of(telemetry, from_ns, to_ns, &window) ||
		!since_of(telemetry, slot, PL_ROLE_EXPERT, &window, since, PL_N_TOTALS))
		return false;

	double steps = since[PL_N_STEPS] > 0 ? since[PL_N_STEPS] : 1;
	figures->rows_per_second = since[PL_N_ROWS] / window.seconds;
	figures->pairs_per_second = since[PL_N_PAIRS] / window.seconds;
	figures->steps_per_second = since[PL_N_STEPS] / window.seconds;
	figures->busy = since[PL_N_SERVICE_US] * 1e-6 / window.seconds;
	figures->waiting = since[PL_N_WAITING] / steps;
	figures->step_s = since[PL_N_SERVICE_US] * 1e-6 / steps;
	return since[PL_N_STEPS] > 0;
}

/* ---- the last minute ---- */

static bool is_shown(uint64_t ten, uint64_t now_ten) { return ten > 0 && ten + PL_TENS > now_ten && ten <= now_ten; }

/* When it began: the whole tens of the last minute, and what has passed of the one that runs. */
static uint64_t shown_from_ns(const struct pl_telemetry *telemetry, uint64_t now_ns)
{
	uint64_t begin_ns = (pl_ten_of(now_ns) - PL_TENS) * 10 * CAD_NS_PER_S, start_ns = telemetry->options.now_ns;
	return pl_ten_of(now_ns) < PL_TENS || begin_ns < start_ns ? start_ns : begin_ns;
}

static int by_heat(const void *a, const void *b)
{
	double left = ((const struct pl_hot_expert *)a)->over_fair,
	       right = ((const struct pl_hot_expert *)b)->over_fair;
	return (left < right) - (left > right);
}

static uint64_t heat_of(const struct pl_telemetry *telemetry, uint64_t now_ten, uint32_t cell)
{
	uint32_t cells = pl_shape_cells(&telemetry->options.shape);
	uint64_t pairs = 0;

	for (uint32_t i = 0; i < PL_TENS; i++)
		pairs += is_shown(telemetry->hot_ten[i], now_ten) ? telemetry->hot[i * cells + cell] : 0;
	return pairs;
}

/* Keeps the hottest so far, in order. */
static size_t insert_hot(struct pl_hot_expert *hottest, size_t count, size_t max, const struct pl_hot_expert *one)
{
	if (count == max && one->over_fair <= hottest[count - 1].over_fair)
		return count;
	count -= count == max;
	hottest[count++] = *one;
	qsort(hottest, count, sizeof *hottest, by_heat);
	return count;
}

/* That routers sent through each MoE layer; theirs is the second in which the tens begin, too. */
static double routed_tokens(const struct pl_telemetry *telemetry, uint64_t now_ns)
{
	uint64_t from_ns = shown_from_ns(telemetry, now_ns), sums[PL_R_TOTALS] = { 0 };
	struct window window;

	if (window_of(telemetry, from_ns ? from_ns - 1 : 0, now_ns, &window))
		add_routers(telemetry, &window, sums);
	return (double)sums[PL_R_ROWS] / telemetry->options.shape.layers_count;
}

size_t pl_telemetry_hottest(
	const struct pl_telemetry *telemetry, uint64_t now_ns, struct pl_hot_expert *hottest, size_t max)
{
	const struct pl_shape *shape = &telemetry->options.shape;
	uint64_t now_ten = pl_ten_of(now_ns), pairs[CAD_EXPERTS_MAX];
	double routed = telemetry->hot && max > 0 ? routed_tokens(telemetry, now_ns) : 0;
	size_t count = 0;

	for (uint32_t row = 0; telemetry->hot && max > 0 && row < shape->layers_count; row++) {
		uint64_t all = 0, most = 0;
		for (uint32_t expert = 0; expert < shape->experts; expert++) {
			pairs[expert] = heat_of(telemetry, now_ten, row * shape->experts + expert);
			all += pairs[expert];
			most = pairs[expert] > most ? pairs[expert] : most;
		}
		/* reports do not come at once, and some never come: so many
		 * tokens there were at least */
		double tokens = fmax(routed, fmax((double)most, (double)all / telemetry->options.topk));
		for (uint32_t expert = 0; all > 0 && expert < shape->experts; expert++) {
			double share = (double)pairs[expert] / tokens;
			const struct pl_hot_expert one = { shape->layers[row], expert, share,
				share * shape->experts / telemetry->options.topk };
			count = insert_hot(hottest, count, max, &one);
		}
	}
	return count;
}

static int by_bytes(const void *a, const void *b)
{
	const struct pl_link_figures *x = a, *y = b;
	double left = x->sent_per_second + x->received_per_second, right = y->sent_per_second + y->received_per_second;
	return (left < right) - (left > right);
}

size_t pl_telemetry_links(
	const struct pl_telemetry *telemetry, uint64_t now_ns, struct pl_link_figures *links, size_t max)
{
	struct pl_link_figures all[PL_TRAFFIC_MAX];
	uint64_t now_ten = pl_ten_of(now_ns);
	uint64_t from_ns = shown_from_ns(telemetry, now_ns);
	double seconds = now_ns > from_ns ? (double)(now_ns - from_ns) / (double)CAD_NS_PER_S : 1;
	size_t count = 0;

	for (uint32_t slot = 0; slot < CAD_PROCESSES_MAX; slot++) {
		const struct pl_source *router = telemetry->sources[slot];
		for (uint32_t i = 0; router && i < router->links_count; i++) {
			const struct pl_link *link = &router->links[i];
			uint64_t sent = 0, received = 0;
			for (uint32_t t = 0; t < PL_TENS; t++) {
				sent += is_shown(link->tens[t].ten, now_ten) ? link->tens[t].sent : 0;
				received += is_shown(link->tens[t].ten, now_ten) ? link->tens[t].received : 0;
			}
			if (sent + received > 0)
				all[count++] = (struct pl_link_figures){ slot, link->node, (double)sent / seconds,
					(double)received / seconds };
		}
	}
	qsort(all, count, sizeof *all, by_bytes);
	memcpy(links, all, (count < max ? count : max) * sizeof *links);
	return count;
}
