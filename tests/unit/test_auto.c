/* SPDX-License-Identifier: Apache-2.0 */
/* Planning for a live cluster, and the automatic mode over it: it follows what tokens choose, and
 * moves nothing for noise. */
#include "orchestration/placement/auto.h"
#include "orchestration/planner/predict/measure.h"
#include "orchestration/planner/trace/own.h"
#include "orchestration/planner/trace/reservoir.h"
#include "orchestration/planner/trace/synthetic.h"
#include "tests/support/must.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LAYERS = 2, EXPERTS = 16, NODES = 4, K = 4, EXPERT_BYTES = 1 << 20, ROUNDS = 12, HALF_LIFE_S = 60 };

#define BACK_NS (600 * CAD_NS_PER_S)

static const uint32_t layers[] = { 0, 1 };

struct world {
	struct pl_state *state;
	struct pl_history *history;
	struct pl_rebalance_table *table;
	struct pl_rebalances *rebalances;
	struct pl_auto automatic;
	struct cad_clock clock;
	uint64_t now_ns, tokens;
	double bytes_per_second;
	struct pl_plan *present; /* where experts are */
	struct pl_trace *next;   /* what the ground gives next */
	struct pl_planning_result result;
	bool planned;
	unsigned applied, entries;
	uint64_t left_ns[LAYERS][EXPERTS][NODES]; /* when an expert left a node; 0: never */
	unsigned moves, back;                     /* back: to where it was within BACK_NS */
	char last[600];
};

static uint64_t now(void *context) { return ((struct world *)context)->now_ns; }

/* Tokens whose experts come from 4 communities, which the seed chooses;
 * strength 0: from anywhere. */
static struct pl_trace *tokens_like(uint64_t seed, double strength, uint64_t sample, uint64_t count)
{
	struct cad_error error;
	struct pl_synthetic_trace made;
	const struct pl_synthetic settings = {
		.layers = LAYERS,
		.experts = EXPERTS,
		.k = K,
		.tokens = count * sample,
		.seed = seed,
		.communities = strength > 0 ? 4 : 1,
		.strength = strength,
		.tasks = 1,
		.request_tokens = 20,
	};
	struct pl_trace *last = NULL;

	must(pl_synthetic_create(&settings, &made, &error), &error);
	if (sample == 1)
		last = made.trace;
	else
		must(pl_trace_split(made.trace, 1 - 1.0 / (double)sample, NULL, &last, &error), &error);
	if (sample == 1)
		made.trace = NULL;
	pl_synthetic_fini(&made);
	return last;
}

static struct pl_plan *copy_plan(const struct pl_plan *plan)
{
	uint32_t same[NODES] = { 0, 1, 2, 3 };
	struct pl_plan *copy;
	assert_int_equal(pl_plan_renumber(plan, same, NODES, &copy), CAD_OK);
	return copy;
}

static enum cad_status situation(void *context, struct pl_situation *found, struct cad_error *error)
{
	*found = (struct pl_situation){ .present = copy_plan(((struct world *)context)->present) };
	must(pl_cluster_create(NODES, 0, &found->cluster, error), error);
	found->cluster.expert_bytes = EXPERT_BYTES;
	for (uint32_t n = 0; n < NODES; n++)
		found->cluster.nodes[n].memory_bytes = (uint64_t)LAYERS * 6 * EXPERT_BYTES;
	return CAD_OK;
}

static enum cad_status check(
	void *context, const struct pl_cluster *nodes, const struct pl_plan *plan, struct cad_error *error)
{
	(void)context, (void)nodes, (void)plan, (void)error;
	return CAD_OK;
}

static void count_moves(struct world *world, const struct pl_plan *plan)
{
	for (uint32_t i = 0; i < LAYERS * EXPERTS * NODES; i++) {
		uint32_t l = i / NODES / EXPERTS, e = i / NODES % EXPERTS, n = i % NODES;
		bool was = pl_plan_holds(world->present, l, e, n), is = pl_plan_holds(plan, l, e, n);
		uint64_t *left_ns = &world->left_ns[l][e][n];
		world->moves += is && !was;
		world->back += is && !was && *left_ns && world->now_ns - *left_ns < BACK_NS;
		*left_ns = was && !is ? world->now_ns : *left_ns;
	}
}

static enum cad_status apply(void *context, const struct pl_cluster *nodes, const struct pl_plan *plan,
	uint64_t bytes_per_second, struct cad_error *error)
{
	struct world *world = context;
	(void)nodes, (void)bytes_per_second, (void)error;
	world->applied++;
	count_moves(world, plan);
	pl_plan_free(world->present);
	world->present = copy_plan(plan);
	return CAD_OK;
}

static void pause_moves(void *context, bool paused) { (void)context, (void)paused; }

static enum cad_status stop(void *context, struct cad_error *error)
{
	(void)context, (void)error;
	return CAD_OK;
}

static void progress(void *context, struct pl_control_progress *made)
{
	(void)context;
	*made = (struct pl_control_progress){ .settled = true };
}

static bool figures(void *context, uint64_t from_ns, uint64_t to_ns, struct pl_point *point)
{
	(void)context, (void)from_ns, (void)to_ns, (void)point;
	return false;
}

static enum cad_status trace(void *context, struct pl_trace **made, struct cad_error *error)
{
	struct world *world = context;
	(void)error;
	*made = world->next;
	world->next = NULL;
	return CAD_OK;
}

/* In the foreground. */
static enum cad_status plan(void *context, struct pl_planning_order *order, struct cad_error *error)
{
	struct world *world = context;
	atomic_bool never = false;
	(void)error;
	order->shape = (struct pl_shape){ .layers = layers, .layers_count = LAYERS, .experts = EXPERTS };
	order->topk = K;
	order->threads = 1;
	order->row_bytes = 100;
	order->time_limit_ns = UINT64_MAX;
	order->rounds_max = ROUNDS;
	pl_planning_run(order, &never, &world->result);
	world->planned = true;
	return CAD_OK;
}

static void plan_cancel(void *context) { (void)context; }

static bool judge(void *context, const struct pl_planning_result *result, char reason[PL_REBALANCE_TEXT_BYTES])
{
	return pl_auto_judge(&((struct world *)context)->automatic, result, reason);
}

static uint64_t tokens(void *context) { return ((struct world *)context)->tokens; }
static double bytes_per_second(void *context) { return ((struct world *)context)->bytes_per_second; }

static int setup(void **state)
{
	static struct world world;
	struct cad_error error;

	world = (struct world){ .now_ns = 1000 * CAD_NS_PER_S, .bytes_per_second = 1e9 };
	world.clock = (struct cad_clock){ now, &world };
	assert_int_equal(pl_plan_contiguous(LAYERS, EXPERTS, NODES, &world.present), CAD_OK);
	must(pl_state_open("", &world.state, &error), &error);
	must(pl_history_open(world.state, &world.history, &error), &error);
	must(pl_rebalance_table_open(world.state, &world.table, &error), &error);
	const struct pl_rebalances_options options = {
		.table = world.table,
		.history = world.history,
		.clock = &world.clock,
		.unix_ms = 1764489600000,
		.recent_ms = 15 * HALF_LIFE_S * 1000, /* as the service does it */
		.ground = { situation, check, apply, pause_moves, stop, progress, figures, trace, plan, plan_cancel,
			judge, &world },
	};
	must(pl_rebalances_create(&options, &world.rebalances, &error), &error);
	world.automatic = (struct pl_auto){
		.table = world.table,
		.rebalances = world.rebalances,
		.history = world.history,
		.clock = &world.clock,
		.tokens = tokens,
		.bytes_per_second = bytes_per_second,
		.context = &world,
	};
	pl_auto_init(&world.automatic);
	*state = &world;
	return 0;
}

static int teardown(void **state)
{
	struct world *world = *state;
	pl_trace_free(world->next);
	pl_rebalances_destroy(world->rebalances);
	pl_rebalance_table_close(world->table);
	pl_history_close(world->history);
	pl_state_close(world->state);
	pl_plan_free(world->present);
	return 0;
}

static void on_entry(void *context, const struct pl_history_entry *entry)
{
	struct world *world = context;
	world->entries++;
	snprintf(world->last, sizeof world->last, "%s: %s", entry->what, entry->why);
}

static void last_says(struct world *world, const char *text)
{
	struct cad_error error;
	world->entries = 0;
	must(pl_history_read(world->history, 0, on_entry, world, &error), &error);
	if (!strstr(world->last, text))
		fail_msg("'%s' does not say '%s'", world->last, text);
}

/* The next look, at these tokens, after as many were sampled. */
static void look_now(struct world *world, struct pl_trace *next)
{
	pl_trace_free(world->next);
	world->next = next;
	world->tokens += PL_RESERVOIR_TOKENS_MIN;
	(void)pl_rebalances_turn(world->rebalances);
	(void)pl_auto_turn(&world->automatic);
	if (world->planned)
		pl_rebalances_planned(world->rebalances, &world->result);
	pl_planning_result_fini(&world->result);
	world->planned = false;
	(void)pl_rebalances_turn(world->rebalances);
}

static void look(struct world *world, struct pl_trace *next)
{
	world->now_ns += world->automatic.settings.every_ns;
	look_now(world, next);
}

static void turn_on(struct world *world) { pl_auto_set(&world->automatic, &(struct pl_auto_settings){ .on = true }); }

/* ---- the mode ---- */

static void off_it_does_nothing_and_remembers_what_it_is_told(void **state)
{
	struct world *world = *state;

	look(world, tokens_like(1, 0.9, 1, 4000));
	assert_int_equal(world->applied, 0);
	assert_int_equal(world->automatic.looks, 0);
	const struct pl_auto_settings wanted = { .on = true, .gain_min = 0.05, .every_ns = 60 * CAD_NS_PER_S };
	pl_auto_set(&world->automatic, &wanted);
	pl_auto_set(&world->automatic, &(struct pl_auto_settings){ .on = true });
	pl_auto_init(&world->automatic); /* as after a restart */
	assert_true(world->automatic.settings.on && world->automatic.settings.gain_min == 0.05);
	assert_int_equal(world->automatic.settings.every_ns, 60 * CAD_NS_PER_S);
	assert_int_equal(world->automatic.settings.bytes_per_hour, 20ull << 30);
}

static void it_moves_experts_that_are_used_together(void **state)
{
	struct world *world = *state;

	turn_on(world);
	look(world, tokens_like(1, 0.9, 1, 4000));
	assert_int_equal(world->applied, 1);
	last_says(world, "automatic rebalance (1)");
	/* the same tokens again: there is nothing to gain */
	for (int i = 0; i < 5; i++)
		look(world, tokens_like(1, 0.9, 2, 4000));
	assert_int_equal(world->applied, 1);
}

static void it_follows_drift_without_going_back_and_forth(void **state)
{
	struct world *world = *state;

	turn_on(world);
	for (uint64_t mix = 1; mix <= 3; mix++) {
		for (int i = 0; i < 4; i++)
			look(world, tokens_like(mix, 0.9, (uint64_t)i + 1, 4000));
		assert_int_equal(world->applied, mix); /* once for each mix */
	}
}

static void it_moves_nothing_for_noise(void **state)
{
	struct world *world = *state;

	turn_on(world);
	for (uint64_t seed = 1; seed <= 8; seed++)
		look(world, tokens_like(seed, 0, 1, 4000));
	assert_int_equal(world->applied, 0);
	assert_int_equal(world->automatic.looks, 8);
	last_says(world, "auto: no placement was found that is worth its moves");
	assert_true(world->entries < 6); /* the same reason again is one entry */
}

static void it_waits_for_other_tokens(void **state)
{
	struct world *world = *state;

	turn_on(world);
	world->tokens -= 1; /* of the next look */
	look(world, tokens_like(1, 0.9, 1, 4000));
	assert_int_equal(world->applied, 0);
	last_says(world, "fewer than 10000 tokens were sampled");
}

/* ---- drift ---- */

/* Half an hour: the mix of domains stands still, goes once around, and stands still again. */
enum {
	DOMAINS = 5,
	DRIFT_S = 1800,
	STILL_S = 300,
	LOOK_S = 30,
	WINDOW_S = 60,
	REQUESTS_S = 4, /* per second */
	REQUEST_TOKENS = 16,
	WINDOW_TOKENS = WINDOW_S * REQUESTS_S * REQUEST_TOKENS,
};

struct drift {
	struct cad_random random;
	double popular[DOMAINS][LAYERS][EXPERTS];
	struct pl_reservoir *recent;
	struct pl_trace *window; /* of this minute */
	uint64_t tokens;         /* in it */
	uint64_t requests;
	/* cost, summed up over minutes; even: of the frozen one, had all nodes the same load */
	double automatic, frozen, even;
};

static double uniform(struct drift *drift) { return ((double)(cad_random_next(&drift->random) >> 11) + 0.5) * 0x1p-53; }

static double gaussian(struct drift *drift)
{
	double radius = sqrt(-2 * log(uniform(drift)));
	return radius * cos(2 * M_PI * uniform(drift));
}

/* Experts go in pairs, whatever the domain; which are used most is the domain's. */
static void draw(struct drift *drift, const double *popular, uint16_t *ids)
{
	double weight[EXPERTS];

	memcpy(weight, popular, sizeof weight);
	for (uint32_t k = 0; k < K; k++) {
		double sum = 0;
		uint32_t e = 0;
		for (uint32_t i = 0; i < EXPERTS; i++)
			sum += weight[i];
		for (double at = uniform(drift) * sum; e + 1 < EXPERTS && (weight[e] == 0 || at >= weight[e]); e++)
			at -= weight[e];
		ids[k] = (uint16_t)e;
		weight[e] = 0;
		weight[e ^ 1] *= 30;
	}
}

static void request(struct drift *drift, double second)
{
	double around = fmin(fmax((second - STILL_S) / (DRIFT_S - 2 * STILL_S), 0), 1) * DOMAINS;
	uint32_t domain = (uint32_t)(lround(around + 0.5 * gaussian(drift)) + DOMAINS) % DOMAINS;

	for (uint32_t t = 0; t < REQUEST_TOKENS; t++, drift->tokens++) {
		uint16_t ids[LAYERS * K];
		for (uint32_t l = 0; l < LAYERS; l++) {
			draw(drift, drift->popular[domain][l], ids + l * K);
			memcpy(pl_trace_cell(drift->window, l, drift->tokens), ids + l * K, K * sizeof *ids);
		}
		drift->window->request[drift->tokens] = (uint32_t)(drift->tokens / REQUEST_TOKENS);
		assert_int_equal(pl_reservoir_add(drift->recent, second, 1, drift->requests, ids), CAD_OK);
	}
	drift->requests++;
}

static double cost(struct world *world, const struct drift *drift, const struct pl_plan *plan, double *nodes)
{
	struct pl_situation found;
	struct cad_error error;
	struct pl_sample *sample;
	struct pl_metrics metrics;

	must(situation(world, &found, &error), &error);
	assert_int_equal(pl_sample_create(drift->window, 0, &sample), CAD_OK);
	assert_int_equal(pl_measure(sample, plan, &found.cluster, PL_ROUTER_COVER, 1, &metrics), CAD_OK);
	*nodes = metrics.nodes_per_token;
	double load = metrics.load_mean;
	pl_metrics_fini(&metrics);
	pl_sample_free(sample);
	pl_situation_fini(&found);
	return *nodes * (1 + 0.75 * fmax(0, load - 1.1));
}

static void drift_init(struct drift *drift)
{
	const struct pl_reservoir_options options = {
		.layers = LAYERS,
		.experts = EXPERTS,
		.k = K,
		.tokens = 4000,
		.half_life_s = HALF_LIFE_S,
		.seed = 1,
	};
	struct cad_error error;

	*drift = (struct drift){ .random = { 1 } };
	for (uint32_t d = 0; d < DOMAINS; d++)
		for (uint32_t i = 0; i < LAYERS * EXPERTS; i++)
			drift->popular[d][i / EXPERTS][i % EXPERTS] = exp(gaussian(drift));
	must(pl_reservoir_create(&options, &drift->recent, &error), &error);
	must(pl_trace_create(LAYERS, EXPERTS, K, WINDOW_TOKENS, false, &drift->window, &error), &error);
}

static void look_at_drift(struct world *world, struct drift *drift)
{
	struct pl_trace *sample;
	struct cad_error error;
	must(pl_reservoir_trace(drift->recent, &sample, &error), &error);
	look_now(world, sample);
}

/* With moves as cheap as an operator's, and forgotten, 53 of 128 lead back, for the same gain. */
static void drift_does_not_move_experts_back_and_forth(void **state)
{
	struct world *world = *state;
	const uint64_t begun_ns = world->now_ns;
	struct pl_plan *first = NULL;
	struct drift drift;
	double nodes;

	drift_init(&drift);
	pl_auto_set(&world->automatic, &(struct pl_auto_settings){ .on = true, .every_ns = LOOK_S * CAD_NS_PER_S });
	for (int64_t second = -90; second < DRIFT_S; second++) {
		world->now_ns = begun_ns + (uint64_t)(90 + second) * CAD_NS_PER_S;
		if (second % WINDOW_S == 0)
			drift.tokens = 0;
		for (uint32_t i = 0; i < REQUESTS_S; i++)
			request(&drift, (double)second);
		if (second % LOOK_S == 0)
			look_at_drift(world, &drift);
		if (second == 0) { /* it counts from where the first plan has left it */
			first = copy_plan(world->present);
			world->moves = world->back = world->applied = 0;
		}
		if (second < 0 || (second + 1) % WINDOW_S != 0)
			continue;
		drift.automatic += cost(world, &drift, world->present, &nodes);
		drift.frozen += cost(world, &drift, first, &nodes);
		drift.even += nodes;
	}

	double kept = (drift.frozen - drift.automatic) / (drift.frozen - drift.even);
	print_message("%u rebalances, %u moves, %u back; cost %.3f, frozen %.3f, even %.3f: %.0f %% of the gain\n",
		world->applied, world->moves, world->back, drift.automatic / 30, drift.frozen / 30, drift.even / 30,
		100 * kept);
	assert_true(world->moves > 0 && world->back * 20 <= world->moves);
	assert_true(kept > 0.5);
	pl_plan_free(first);
	pl_trace_free(drift.window);
	pl_reservoir_destroy(drift.recent);
}

/* ---- what a plan must be worth ---- */

static void worth_it(struct world *world, struct pl_planning_result *result, const char *says)
{
	char reason[PL_REBALANCE_TEXT_BYTES];
	assert_int_equal(pl_auto_judge(&world->automatic, result, reason), says == NULL);
	if (says)
		last_says(world, says);
}

static void each_reason_to_move_nothing_is_told(void **state)
{
	struct world *world = *state;
	struct pl_planning_result good = { .gain = 0.1, .gain_error = 0.01, .moves = { .loads = 4, .bytes = 4 << 20 } },
				  r;

	worth_it(world, &good, "it was turned off while the plan was made");
	turn_on(world);
	worth_it(world, &good, NULL);
	r = good;
	r.status = cad_error_set(&r.error, CAD_ERR_MEMORY, "out of memory for the plan");
	worth_it(world, &r, "out of memory for the plan");
	r = good;
	r.moves.loads = 0;
	worth_it(world, &r, "no placement was found that is worth its moves");
	r = good;
	r.gain = 0.029;
	worth_it(world, &r, "the gain that is predicted is 2 %, and more than 3 % is wanted");
	r = good;
	r.gain_error = 0.05;
	worth_it(world, &r, "within what chance does");
	r.gain_error = INFINITY;
	worth_it(world, &r, "within what chance does");
	r = good;
	r.moves.bytes = 21ull << 30;
	worth_it(world, &r, "would exceed the 20 GiB");
	world->bytes_per_second = 10000; /* a tenth of it for an hour: 3.4 MiB */
	worth_it(world, &good, "would cost more bytes than an hour of this traffic saves");
}

/* ---- planning ---- */

static struct pl_planning_order order_for(struct world *world, struct pl_trace *made)
{
	struct cad_error error;
	struct pl_planning_order order = {
		.shape = { .layers = layers, .layers_count = LAYERS, .experts = EXPERTS },
		.topk = K,
		.trace = made,
		.copies = -1,
		.time_limit_ns = UINT64_MAX,
		.rounds_max = ROUNDS,
		.threads = 1,
		.row_bytes = 100,
		.token_bytes = 10,
	};
	must(situation(world, &order.situation, &error), &error);
	return order;
}

static void a_plan_is_measured_on_tokens_that_it_has_not_seen(void **state)
{
	struct world *world = *state;
	struct pl_planning_result result;
	atomic_bool never = false;
	struct pl_planning_order order = order_for(world, tokens_like(1, 0.9, 1, 4000));

	pl_planning_run(&order, &never, &result);
	must(result.status, &result.error);
	assert_true(result.tokens_planned + result.tokens_measured == 4000 && result.tokens_measured > 500);
	const struct pl_point *before = &result.predicted.before, *after = &result.predicted.after;
	assert_true(after->nodes_per_token < 0.8 * before->nodes_per_token);
	assert_true(fabs(before->bytes_per_token - (before->nodes_per_token * 100 + 10)) < 1e-9);
	assert_true(result.gain > 0.2 && result.gain_error > 0 && result.gain_error < 0.05);
	assert_true(result.moves.loads > 0 && result.moves.bytes == result.moves.loads * EXPERT_BYTES);
	pl_planning_result_fini(&result);

	order = order_for(world, tokens_like(1, 0.9, 1, 500));
	pl_planning_run(&order, &never, &result);
	must(result.status, &result.error);
	assert_int_equal(result.tokens_measured, 0); /* too few to hold some out */
	pl_planning_result_fini(&result);
}

static void a_plan_that_is_given_is_only_looked_at(void **state)
{
	struct world *world = *state;
	struct pl_planning_result result;
	struct cad_error error;
	atomic_bool never = false;
	struct pl_planning_order order = order_for(world, NULL);

	order.given = copy_plan(world->present);
	must(pl_cluster_create(NODES, 0, &order.given_nodes, &error), &error);
	snprintf(order.given_nodes.nodes[0].id, PL_CLUSTER_ID_BYTES, "n1"); /* the first two change places */
	snprintf(order.given_nodes.nodes[1].id, PL_CLUSTER_ID_BYTES, "n0");
	pl_planning_run(&order, &never, &result);
	must(result.status, &result.error);
	assert_int_equal(result.moves.loads, LAYERS * EXPERTS / 2);
	assert_true(pl_plan_holds(result.plan, 0, 0, 1));
	assert_false(pl_point_known(&result.predicted.before));
	pl_planning_result_fini(&result);
}

static void expect_failure(struct pl_planning_order *order, bool cancelled, enum cad_status status, const char *says)
{
	struct pl_planning_result result;
	atomic_bool cancel = cancelled;

	pl_planning_run(order, &cancel, &result);
	assert_int_equal(result.status, status);
	if (!strstr(result.error.text, says))
		fail_msg("'%s' does not say '%s'", result.error.text, says);
	pl_planning_result_fini(&result);
}

static void what_cannot_be_planned_is_said(void **state)
{
	struct world *world = *state;
	struct cad_error error;
	struct pl_trace *other;
	struct pl_planning_order order = order_for(world, NULL);

	expect_failure(&order, false, CAD_ERR_NOT_FOUND, "no routing is known");
	order = order_for(world, tokens_like(1, 0.9, 1, 4000));
	expect_failure(&order, true, CAD_ERR_CANCELLED, "cancelled");
	must(pl_trace_create(LAYERS, EXPERTS, K + 1, 10, false, &other, &error), &error);
	order = order_for(world, other);
	expect_failure(&order, false, CAD_ERR_INVALID, "5 per token; the model has 2 of 16, 4 per token");
	must(pl_trace_create(LAYERS, EXPERTS, K, 10, false, &other, &error), &error);
	other->layer[1] = 7;
	order = order_for(world, other);
	expect_failure(&order, false, CAD_ERR_INVALID, "layer 7, which is no MoE layer");
	order = order_for(world, NULL);
	order.encoded = strdup("CADRETR1 and then nonsense");
	order.encoded_bytes = strlen(order.encoded);
	expect_failure(&order, false, CAD_ERR_CORRUPT, "the trace");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(off_it_does_nothing_and_remembers_what_it_is_told),
		TEST(it_moves_experts_that_are_used_together),
		TEST(it_follows_drift_without_going_back_and_forth),
		TEST(it_moves_nothing_for_noise),
		TEST(drift_does_not_move_experts_back_and_forth),
		TEST(it_waits_for_other_tokens),
		TEST(each_reason_to_move_nothing_is_told),
		TEST(a_plan_is_measured_on_tokens_that_it_has_not_seen),
		TEST(a_plan_that_is_given_is_only_looked_at),
		TEST(what_cannot_be_planned_is_said),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
