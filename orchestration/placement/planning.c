/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/placement/planning.h"

#include "common/base/plural.h"
#include "orchestration/planner/predict/measure.h"
#include "orchestration/planner/solve/solve.h"
#include "orchestration/planner/trace/read.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PL_HOLD_SHARE 0.2
/* the solver's, and as many for each measurement */
enum { TOKENS_MAX = 32768, GROUPS = 16, GROUPS_MIN = 4 };
#define PL_TRACE_CELLS_LIVE_MAX (1ull << 30) /* of a trace that comes over the network: 2 GiB of ids */

void pl_planning_order_fini(struct pl_planning_order *order)
{
	pl_situation_fini(&order->situation);
	for (char **text = order->befores; text && *text; text++)
		free(*text);
	free(order->befores);
	pl_plan_free(order->recent);
	pl_trace_free(order->trace);
	free(order->encoded);
	pl_plan_free(order->given);
	pl_cluster_fini(&order->given_nodes);
	*order = (struct pl_planning_order){ 0 };
}

void pl_planning_result_fini(struct pl_planning_result *result)
{
	pl_cluster_fini(&result->nodes);
	pl_plan_free(result->before);
	pl_plan_free(result->plan);
	*result = (struct pl_planning_result){ 0 };
}

/* ---- copies ---- */

static uint32_t wanted_copies(uint32_t experts, double share) { return (uint32_t)((1 + share) * experts + 0.5); }

/* Of the layer that has most. */
static uint32_t present_copies(const struct pl_plan *present)
{
	uint32_t most = present->experts;
	for (uint32_t l = 0; l < present->layers; l++) {
		uint32_t copies = 0;
		for (uint32_t e = 0; e < present->experts; e++)
			copies += pl_plan_count(present, l, e);
		most = copies > most ? copies : most;
	}
	return most;
}

enum cad_status pl_planning_room(const struct pl_situation *situation, double copies, struct cad_error *error)
{
	const struct pl_cluster *cluster = &situation->cluster;
	uint32_t experts = situation->present->experts, layers = situation->present->layers, usable = 0;
	double room = 0, wanted = (double)layers * wanted_copies(experts, copies);

	for (uint32_t n = 0; n < cluster->nodes_count; n++) {
		uint64_t fit = pl_cluster_room(cluster, n);
		usable += !cluster->nodes[n].forbidden;
		room += fit < (uint64_t)layers * experts ? (double)fit : (double)layers * experts;
	}
	if (wanted <= room)
		return CAD_OK;
	return cad_error_set(error, CAD_ERR_EXHAUSTED,
		"%.4g %% extra copies make %.0f copies of experts, and the %u expert %s room for %.0f: ask for at most %.4g %%",
		100 * copies, wanted, usable, cad_plural(usable, "node has", "nodes have"), room,
		room > (double)layers * experts ? floor(1000 * (room / layers / experts - 1)) / 10 : 0.0);
}

/* ---- the tokens ---- */

static enum cad_status check_trace(
	const struct pl_planning_order *order, const struct pl_trace *trace, struct cad_error *error)
{
	const struct pl_shape *shape = &order->shape;

	if (trace->layers != shape->layers_count || trace->experts != shape->experts || trace->k != order->topk)
		return cad_error_set(error, CAD_ERR_INVALID,
			"the trace has %u layers of %u experts, %u per token; the model has %u of %u, %u per token: record one of this model",
			trace->layers, trace->experts, trace->k, shape->layers_count, shape->experts, order->topk);
	for (uint32_t l = 0; l < trace->layers; l++)
		if (trace->layer[l] != shape->layers[l])
			return cad_error_set(error, CAD_ERR_INVALID,
				"the trace has layer %u, which is no MoE layer of the model: record one of this model",
				trace->layer[l]);
	return CAD_OK;
}

static enum cad_status take_trace(struct pl_planning_order *order, struct cad_error *error)
{
	const struct pl_trace_source source = {
		.format = PL_TRACE_OWN,
		.cells_max = PL_TRACE_CELLS_LIVE_MAX,
	};
	enum cad_status status = CAD_OK;

	if (!order->trace && order->encoded) {
		status = pl_trace_parse(
			"the trace", order->encoded, order->encoded_bytes, &source, &order->trace, error);
		free(order->encoded);
		order->encoded = NULL;
	}
	if (status == CAD_OK && order->trace)
		status = check_trace(order, order->trace, error);
	return status;
}

/* What is planned on, and what is measured on; held NULL: the same. */
struct tokens {
	struct pl_trace *planned, *held;
	struct pl_sample *planned_sample, *held_sample;
};

static void tokens_fini(struct tokens *tokens)
{
	pl_sample_free(tokens->held_sample);
	pl_sample_free(tokens->planned_sample);
	pl_trace_free(tokens->held);
	pl_trace_free(tokens->planned);
}

static enum cad_status tokens_init(struct tokens *tokens, struct pl_planning_order *order, struct cad_error *error)
{
	*tokens = (struct tokens){ .planned = order->trace };
	order->trace = NULL;
	struct pl_trace *whole = tokens->planned;
	enum cad_status status = CAD_OK;

	/* a plan that is given has not seen any of them */
	if (!order->given && whole->tokens >= PL_PLANNING_HOLD_FROM && pl_trace_requests(whole) >= 2) {
		status = pl_trace_split(whole, 1 - PL_HOLD_SHARE, &tokens->planned, &tokens->held, error);
		if (status != CAD_OK)
			tokens->planned = tokens->held = NULL;
		pl_trace_free(whole);
	}

	if (status == CAD_OK)
		status = pl_sample_create(tokens->planned, TOKENS_MAX, &tokens->planned_sample);
	if (status == CAD_OK && tokens->held)
		status = pl_sample_create(tokens->held, TOKENS_MAX, &tokens->held_sample);
	return status == CAD_OK ? CAD_OK : cad_error_set(error, status, "out of memory for the tokens to plan on");
}

/* ---- what the plan does ---- */

static struct pl_point point_of(const struct pl_planning_order *order, double nodes, double load)
{
	return (struct pl_point){
		.nodes_per_token = nodes,
		.bytes_per_token = nodes * order->row_bytes + order->token_bytes,
		.load_max_over_mean = load,
	};
}

static double cost_of(const struct pl_weights *weights, const struct pl_point *point)
{
	return point->nodes_per_token * (1 + weights->load * fmax(0, point->load_max_over_mean - weights->load_max));
}

static enum cad_status measure_one(const struct pl_planning_result *result, const struct pl_sample *sample,
	const struct pl_plan *plan, uint32_t threads, struct pl_metrics *metrics)
{
	return pl_measure(sample, plan, &result->nodes, PL_ROUTER_COVER, threads, metrics);
}

/* Nodes per token that are saved for the requests of one group, as a share; none in it: NAN. */
static enum cad_status group_saves(const struct pl_planning_result *result, const struct pl_sample *whole,
	uint32_t group, uint32_t threads, struct pl_sample *part, double *saved)
{
	struct pl_metrics before = { 0 }, after = { 0 };

	part->tokens = 0;
	for (uint32_t i = 0; i < whole->tokens; i++)
		if (whole->trace->request[whole->token[i]] % GROUPS == group)
			part->token[part->tokens++] = whole->token[i];
	*saved = NAN;
	if (part->tokens == 0)
		return CAD_OK;

	enum cad_status status = measure_one(result, part, result->before, threads, &before);
	if (status == CAD_OK)
		status = measure_one(result, part, result->plan, threads, &after);
	if (status == CAD_OK)
		*saved = 1 - after.nodes_per_token / before.nodes_per_token;
	pl_metrics_fini(&before);
	pl_metrics_fini(&after);
	return status;
}

/* Tokens of a request are alike, so requests are what varies: the standard error of the mean over
 * groups of them. */
static enum cad_status estimate_error(
	struct pl_planning_result *result, const struct pl_sample *sample, uint32_t threads)
{
	struct pl_sample part = { .trace = sample->trace, .token = malloc((sample->tokens + 1) * sizeof *part.token) };
	double sum = 0, squares = 0, saved;
	uint32_t groups = 0;
	enum cad_status status = part.token ? CAD_OK : CAD_ERR_MEMORY;

	for (uint32_t g = 0; g < GROUPS && status == CAD_OK; g++) {
		status = group_saves(result, sample, g, threads, &part, &saved);
		if (status != CAD_OK || isnan(saved))
			continue;
		sum += saved;
		squares += saved * saved;
		groups++;
	}
	free(part.token);

	result->gain_error = INFINITY;
	if (groups >= GROUPS_MIN) {
		double variance = (squares - sum * sum / groups) / (groups - 1);
		result->gain_error = sqrt(fmax(0, variance) / groups);
	}
	return status;
}

static enum cad_status predict(
	const struct pl_planning_order *order, const struct tokens *tokens, struct pl_planning_result *result)
{
	const struct pl_sample *planned = tokens->planned_sample, *held = tokens->held_sample;
	const struct pl_sample *on = held ? held : planned;
	struct pl_metrics old = { 0 }, old_planned = { 0 }, new = { 0 }, new_planned = { 0 };
	enum cad_status status = measure_one(result, on, result->before, order->threads, &old);

	if (status == CAD_OK)
		status = measure_one(result, on, result->plan, order->threads, &new);
	if (status == CAD_OK && held)
		status = measure_one(result, planned, result->before, order->threads, &old_planned);
	if (status == CAD_OK && held)
		status = measure_one(result, planned, result->plan, order->threads, &new_planned);
	if (status == CAD_OK) {
		/* few tokens overstate the load: of the old placement it is that of the many, of
		 * the new one what is expected of as many others */
		double before_load = held ? old_planned.load_mean : old.load_mean, after_load = new.load_mean;
		if (held)
			after_load = pl_expected_load(&new_planned, planned->tokens, &new, held->tokens).mean;
		result->predicted.before = point_of(order, old.nodes_per_token, before_load);
		result->predicted.after = point_of(order, new.nodes_per_token, after_load);
		const struct pl_weights weights = pl_weights_of(order->workload);
		result->gain =
			1 - cost_of(&weights, &result->predicted.after) / cost_of(&weights, &result->predicted.before);
		status = estimate_error(result, on, order->threads);
	}

	pl_metrics_fini(&old);
	pl_metrics_fini(&old_planned);
	pl_metrics_fini(&new);
	pl_metrics_fini(&new_planned);
	return status;
}

/* ---- the plan ---- */

static enum cad_status search(const struct pl_planning_order *order, const struct tokens *tokens,
	const atomic_bool *cancelled, struct pl_planning_result *result, struct cad_error *error)
{
	struct pl_solution solution = { 0 };
	struct pl_weights weights = pl_weights_of(order->workload);
	weights.move = order->move > 0 ? order->move : weights.move;
	const struct pl_solve_options options = {
		.trace = tokens->planned,
		.cluster = &result->nodes,
		.weights = weights,
		.copies = order->copies < 0 ? present_copies(result->before)
					    : wanted_copies(order->shape.experts, order->copies),
		.present = result->before,
		.recent = order->recent,
		.seed = 1,
		.rounds_max = order->rounds_max ? order->rounds_max : UINT32_MAX,
		.time_limit_ns = order->time_limit_ns,
		.clock = &cad_clock_system,
		.threads = order->threads,
		.tokens_max = TOKENS_MAX,
		.cancelled = cancelled,
	};
	enum cad_status status = pl_solve(&options, &solution, error);

	if (status == CAD_OK) {
		result->plan = solution.plan;
		result->seconds = solution.seconds;
		solution.plan = NULL;
	}
	pl_solution_fini(&solution);
	return status;
}

/* The plan that was given, for the nodes that there are. */
static enum cad_status take_given(
	struct pl_planning_order *order, struct pl_planning_result *result, struct cad_error *error)
{
	if (pl_plan_translate(order->given, &order->given_nodes, &result->nodes, &result->plan) != CAD_OK)
		return cad_error_set(error, CAD_ERR_MEMORY, "out of memory for the plan");
	return CAD_OK;
}

static enum cad_status run(struct pl_planning_order *order, const atomic_bool *cancelled,
	struct pl_planning_result *result, struct cad_error *error)
{
	struct tokens tokens = { 0 };
	enum cad_status status = take_trace(order, error);
	bool traced = order->trace;

	if (status == CAD_OK)
		status = pl_planning_take_recent(order, error);
	result->nodes = order->situation.cluster;
	result->before = order->situation.present;
	order->situation = (struct pl_situation){ 0 };
	if (status == CAD_OK && !traced && !order->given)
		status = cad_error_set(error, CAD_ERR_NOT_FOUND,
			"no routing is known to plan from: send requests first, or give --trace");
	if (status == CAD_OK && traced)
		status = tokens_init(&tokens, order, error);
	if (status == CAD_OK)
		status = order->given ? take_given(order, result, error)
				      : search(order, &tokens, cancelled, result, error);
	if (status == CAD_OK) {
		result->moves = pl_moves_between(result->before, result->plan, &result->nodes, 0);
		result->tokens_planned = traced && !order->given ? tokens.planned->tokens : 0;
		result->tokens_measured = !traced ? 0
			: order->given            ? tokens.planned->tokens
			: tokens.held             ? tokens.held->tokens
						  : 0;
	}
	if (status == CAD_OK && traced && predict(order, &tokens, result) != CAD_OK)
		status = cad_error_set(error, CAD_ERR_MEMORY, "out of memory while the plan was measured");
	if (status == CAD_OK && atomic_load(cancelled))
		status = cad_error_set(error, CAD_ERR_CANCELLED, "planning was cancelled");
	tokens_fini(&tokens);

	return status;
}

void pl_planning_run(struct pl_planning_order *order, const atomic_bool *cancelled, struct pl_planning_result *result)
{
	*result = (struct pl_planning_result){ .predicted = PL_EFFECT_UNKNOWN, .gain_error = INFINITY };
	result->status = run(order, cancelled, result, &result->error);
	pl_planning_order_fini(order);
}
