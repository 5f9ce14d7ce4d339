/* SPDX-License-Identifier: Apache-2.0 */
/* The placement service's telemetry on a clock of its own: totals of any window, what is kept for
 * plans, and reports that cannot be. */
#include "orchestration/placement/series.h"
#include "orchestration/placement/telemetry_message.h"
#include "tests/support/must.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LAYERS = 2, TOPK = 2, EXPERTS = 8, ROUTER = 3, NODE = 5, SESSION = 77, NODE_SESSION = 78 };
#define START_NS (1000 * CAD_NS_PER_S)

/* ---- series ---- */

static uint64_t between(const struct pl_series *series, uint64_t from, uint64_t to)
{
	struct pl_totals begin, end;
	assert_true(pl_series_at(series, from, &begin) && pl_series_at(series, to, &end));
	assert_int_equal(end.narrow[2] - begin.narrow[2], 2 * (end.wide[0] - begin.wide[0]));
	return end.wide[0] - begin.wide[0];
}

static void add(struct pl_series *series, uint64_t second, uint32_t amount)
{
	uint64_t *wide;
	uint32_t *narrow;
	pl_series_now(series, second, &wide, &narrow);
	wide[0] += amount;
	narrow[2] += 2 * amount;
}

static void test_a_series_knows_each_second(void **state)
{
	struct pl_series series;
	struct pl_totals totals;

	(void)state;
	assert_int_equal(pl_series_init(&series, 1, 3), CAD_OK);
	assert_false(pl_series_at(&series, 5, &totals));
	add(&series, 10, 1);
	add(&series, 10, 2);
	add(&series, 13, 4);
	assert_int_equal(between(&series, 0, 9), 0);
	assert_int_equal(between(&series, 9, 10), 3);
	assert_int_equal(between(&series, 10, 12), 0);
	assert_int_equal(between(&series, 11, 100), 4);
	assert_int_equal(between(&series, 0, 100), 7);

	/* a long silence, and then what is older than the series */
	add(&series, 10 + 2 * PL_SERIES_SECONDS, 8);
	assert_int_equal(between(&series, 13, 9 + 2 * PL_SERIES_SECONDS), 0);
	assert_int_equal(between(&series, 9 + 2 * PL_SERIES_SECONDS, 10 + 2 * PL_SERIES_SECONDS), 8);
	for (uint32_t second = 1; second < PL_SERIES_SECONDS; second++)
		add(&series, 10 + 2 * PL_SERIES_SECONDS + second, 1);
	assert_int_equal(between(&series, 0, 1 << 20), PL_SERIES_SECONDS - 1);
	pl_series_fini(&series);
	assert_int_equal(pl_series_init(&series, 1, 3), CAD_OK);
	assert_false(pl_series_at(&series, 5, &totals));
	pl_series_fini(&series);
}

/* ---- reports ---- */

struct world {
	struct pl_registry registry;
	struct pl_telemetry *telemetry;
	struct pl_reported reported;
	uint64_t requests[64];
	uint16_t ids[64 * LAYERS * TOPK];
	Cadre__V1__NodeTraffic traffic, *traffic_list[1];
};

static const uint32_t layers[LAYERS] = { 1, 4 };

static void fill_node(struct world *world, uint32_t slot, const char *id, enum pl_role role, uint64_t session)
{
	struct pl_node *node = &world->registry.nodes[slot];
	node->presence = PL_LIVE;
	node->role = role;
	node->session = session;
	node->speed = 1;
	snprintf(node->id, sizeof node->id, "%s", id);
}

static int setup(void **state)
{
	struct world *world = calloc(1, sizeof *world);
	const struct pl_telemetry_options options = {
		.shape = { layers, LAYERS, EXPERTS },
		.topk = TOPK,
		.registry = &world->registry,
		.cluster = "test",
		.model = "models/m",
		.tokens = 50,
		.half_life_s = 60,
		.seed = 1,
		.now_ns = START_NS,
	};
	struct cad_error error;

	fill_node(world, ROUTER, "r0", PL_ROLE_ROUTER, SESSION);
	fill_node(world, NODE, "e0", PL_ROLE_EXPERT, NODE_SESSION);
	must(pl_telemetry_create(&options, &world->telemetry, &error), &error);
	*state = world;
	return 0;
}

static int teardown(void **state)
{
	struct world *world = *state;
	pl_telemetry_destroy(world->telemetry);
	free(world);
	return 0;
}

/* Of `tokens` tokens, `sampled` of them of one request; each token goes to
 * 1.5 nodes, in each layer. */
static Cadre__V1__RoutingReport report_of(struct world *world, uint32_t tokens, uint32_t sampled)
{
	Cadre__V1__RoutingReport report = CADRE__V1__ROUTING_REPORT__INIT;

	for (uint32_t i = 0; i < sampled; i++) {
		world->requests[i] = 9;
		for (uint32_t cell = 0; cell < LAYERS; cell++) {
			world->ids[(i * LAYERS + cell) * TOPK] = (uint16_t)(i % EXPERTS);
			world->ids[(i * LAYERS + cell) * TOPK + 1] = (uint16_t)((i + 1) % EXPERTS);
		}
	}
	cadre__v1__node_traffic__init(&world->traffic);
	world->traffic.node = "e0";
	world->traffic.bytes_sent = 300 * tokens;
	world->traffic.bytes_received = 100 * tokens;
	world->traffic_list[0] = &world->traffic;
	report.traffic = world->traffic_list;
	report.n_traffic = 1;
	report.tokens = tokens;
	report.routed_rows = tokens * LAYERS;
	report.nodes_touched = tokens * 3;
	report.share = 1;
	report.requests = world->requests;
	report.n_requests = sampled;
	report.experts.data = (uint8_t *)world->ids;
	report.experts.len = sampled * LAYERS * TOPK * sizeof *world->ids;
	return report;
}

static uint64_t at(double seconds) { return START_NS + (uint64_t)(seconds * (double)CAD_NS_PER_S); }

static void take(struct world *world, double seconds, const Cadre__V1__RoutingReport *report)
{
	struct cad_error error;
	must(pl_telemetry_take_routing(world->telemetry, SESSION, &world->reported, at(seconds), report, &error),
		&error);
}

static void test_figures_of_a_window(void **state)
{
	struct world *world = *state;
	struct pl_figures figures;

	assert_false(pl_telemetry_between(world->telemetry, START_NS, at(10), &figures));
	for (uint32_t second = 1; second <= 20; second++) {
		Cadre__V1__RoutingReport report = report_of(world, second <= 10 ? 4 : 10, 2);
		take(world, second + 0.5, &report);
	}

	assert_true(pl_telemetry_between(world->telemetry, at(0), at(10), &figures));
	assert_int_equal(figures.tokens, 40);
	assert_int_equal(figures.sampled, 20);
	assert_int_equal(figures.rows, 80);
	assert_true(figures.seconds == 10);
	assert_true(figures.nodes_per_token == 1.5);
	assert_true(figures.sent_per_token == 150 && figures.received_per_token == 50);
	assert_true(figures.bytes_per_token == 200);

	assert_true(pl_telemetry_between(world->telemetry, at(10), at(20), &figures));
	assert_int_equal(figures.tokens, 100);
	assert_true(pl_telemetry_between(world->telemetry, 0, at(20), &figures));
	assert_true(figures.seconds == 20);
	assert_int_equal(figures.tokens, 140);
	assert_false(pl_telemetry_between(world->telemetry, at(30), at(40), &figures));
	assert_false(pl_telemetry_between(world->telemetry, at(20), at(10), &figures));
}

/* Another process with the slot of one that has gone begins at 0. */
static void test_a_slot_of_somebody_else(void **state)
{
	struct world *world = *state;
	struct pl_figures figures;
	Cadre__V1__RoutingReport report = report_of(world, 10, 0);

	take(world, 1, &report);
	fill_node(world, ROUTER, "r1", PL_ROLE_ROUTER, SESSION);
	take(world, 2, &report);
	assert_true(pl_telemetry_between(world->telemetry, at(0), at(9), &figures));
	assert_int_equal(figures.tokens, 10);
}

static void test_tokens_are_kept_for_plans(void **state)
{
	struct world *world = *state;
	struct pl_telemetry_state seen;
	struct pl_trace *trace;
	struct cad_error error;

	pl_telemetry_state(world->telemetry, &seen);
	assert_int_equal(seen.oldest_ns, 0);
	assert_int_equal(pl_telemetry_trace(world->telemetry, &trace, &error), CAD_ERR_NOT_FOUND);

	for (uint32_t second = 1; second <= 10; second++) {
		Cadre__V1__RoutingReport report = report_of(world, 20, 10);
		report.lost = 1;
		take(world, second, &report);
	}
	pl_telemetry_state(world->telemetry, &seen);
	assert_int_equal(seen.tokens_seen, 200);
	assert_int_equal(seen.tokens_sampled, 100);
	assert_int_equal(seen.tokens_lost, 10);
	assert_int_equal(seen.tokens_kept, 50);
	assert_int_equal(seen.tokens_max, 50);
	assert_in_range(seen.oldest_ns, at(1), at(9));
	assert_int_equal(seen.newest_ns, at(10));

	must(pl_telemetry_trace(world->telemetry, &trace, &error), &error);
	assert_int_equal(trace->tokens, 50);
	assert_int_equal(trace->layers, LAYERS);
	assert_int_equal(trace->layer[1], 4);
	assert_int_equal(trace->experts, EXPERTS);
	assert_int_equal(pl_trace_requests(trace), 1);
	assert_string_equal(trace->model, "models/m");
	assert_non_null(strstr(trace->provenance, "'test'"));
	pl_trace_free(trace);
}

/* Two routers number their requests alike. */
static void test_requests_of_two_routers_stay_apart(void **state)
{
	struct world *world = *state;
	struct pl_reported reported = { 0 };
	struct pl_trace *trace;
	struct cad_error error;
	Cadre__V1__RoutingReport report = report_of(world, 4, 4);

	fill_node(world, ROUTER + 1, "r1", PL_ROLE_ROUTER, 99);
	take(world, 1, &report);
	must(pl_telemetry_take_routing(world->telemetry, 99, &reported, at(1), &report, &error), &error);
	must(pl_telemetry_trace(world->telemetry, &trace, &error), &error);
	assert_int_equal(pl_trace_requests(trace), 2);
	pl_trace_free(trace);
}

/* ---- the work of expert nodes ---- */

struct work {
	Cadre__V1__WorkReport message;
	Cadre__V1__LayerWork layers[LAYERS], *list[LAYERS];
	uint32_t experts[LAYERS][EXPERTS], pairs[LAYERS][EXPERTS];
};

/* `pairs` in each layer, two steps; all of one expert. */
static void fill_work(struct work *work, uint32_t expert, uint32_t pairs, uint32_t activated)
{
	*work = (struct work){ .message = CADRE__V1__WORK_REPORT__INIT };
	for (uint32_t i = 0; i < LAYERS; i++) {
		Cadre__V1__LayerWork *layer = work->list[i] = &work->layers[i];
		cadre__v1__layer_work__init(layer);
		layer->layer = layers[i];
		layer->steps = 2;
		layer->rows = pairs;
		layer->pairs = pairs;
		layer->activated = activated;
		layer->waiting_calls = 6;
		layer->service_us = 100000;
		layer->experts = work->experts[i];
		layer->expert_pairs = work->pairs[i];
		layer->n_experts = layer->n_expert_pairs = 1;
		work->experts[i][0] = expert;
		work->pairs[i][0] = pairs;
	}
	work->message.layers = work->list;
	work->message.n_layers = LAYERS;
}

static void take_work(struct world *world, uint64_t session, double seconds, const struct work *work)
{
	struct cad_error error;
	must(pl_telemetry_take_work(world->telemetry, session, at(seconds), &work->message, &error), &error);
}

static void test_load_is_over_all_live_nodes(void **state)
{
	struct world *world = *state;
	struct pl_figures figures;
	struct pl_node_figures node;
	struct work work;

	fill_node(world, NODE + 1, "e1", PL_ROLE_EXPERT, 79);
	fill_node(world, NODE + 2, "e2", PL_ROLE_EXPERT, 80); /* does nothing */
	fill_work(&work, 3, 30, 8);
	take_work(world, NODE_SESSION, 1, &work);
	fill_work(&work, 4, 10, 4);
	take_work(world, 79, 2, &work);

	assert_true(pl_telemetry_between(world->telemetry, at(0), at(9), &figures));
	assert_true(figures.load_max_over_mean > 2.249 && figures.load_max_over_mean < 2.251); /* 30 of 40 / 3 */
	assert_true(figures.activated > 1.999 && figures.activated < 2.001);                   /* (8 / 2 + 4 / 2) / 3 */
	assert_true(figures.activated_max_over_mean > 1.999 && figures.activated_max_over_mean < 2.001);
	assert_true(pl_telemetry_between(world->telemetry, at(1), at(9), &figures));
	assert_true(figures.load_max_over_mean > 2.999); /* one of three does all */

	/* which is twice as fast as the others, or does a fifth of what it should */
	world->registry.nodes[NODE + 1].speed = 2;
	assert_true(pl_telemetry_between(world->telemetry, at(1), at(9), &figures));
	assert_true(figures.load_max_over_mean > 1.999 && figures.load_max_over_mean < 2.001);
	assert_true(pl_telemetry_between(world->telemetry, at(0), at(9), &figures));
	assert_true(figures.load_max_over_mean > 2.999); /* 30 of 40 on a quarter */
	assert_false(pl_telemetry_between(world->telemetry, at(2), at(9), &figures));

	assert_true(pl_telemetry_node(world->telemetry, NODE, at(0), at(10), &node));
	assert_true(node.rows_per_second == 6 && node.pairs_per_second == 6);
	assert_true(node.steps_per_second > 0.39 && node.steps_per_second < 0.41);
	assert_true(node.busy > 0.019 && node.busy < 0.021);
	assert_true(node.waiting == 3);
	assert_true(node.step_s > 0.049 && node.step_s < 0.051);
	assert_false(pl_telemetry_node(world->telemetry, NODE + 2, at(0), at(10), &node));
}

/* However unevenly its reports come. */
static void test_what_a_router_did(void **state)
{
	struct world *world = *state;
	struct pl_router_figures router;
	Cadre__V1__RoutingReport report = report_of(world, 30, 0);

	report.calls = 200;
	report.calls_hedged = 3;
	assert_false(pl_telemetry_router(world->telemetry, ROUTER, at(0), at(10), &router));
	take(world, 4, &report);
	take(world, 4.1, &report);
	take(world, 9, &report);
	assert_true(pl_telemetry_router(world->telemetry, ROUTER, at(0), at(10), &router));
	assert_true(router.tokens_per_second == 9);
	assert_true(router.calls_per_second == 60);
	assert_true(router.hedged_per_second == 0.9);
	assert_false(pl_telemetry_router(world->telemetry, ROUTER, at(10), at(20), &router));
	assert_false(pl_telemetry_router(world->telemetry, NODE, at(0), at(10), &router));
}

static void test_the_hottest_experts_of_the_last_minute(void **state)
{
	struct world *world = *state;
	struct pl_hot_expert hottest[4];
	struct work work;
	Cadre__V1__RoutingReport report = report_of(world, 40, 0);

	assert_int_equal(pl_telemetry_hottest(world->telemetry, at(1), hottest, 4), 0);
	fill_work(&work, 3, 30, 8);
	work.pairs[1][0] = 31;
	take_work(world, NODE_SESSION, 1, &work);
	assert_int_equal(pl_telemetry_hottest(world->telemetry, at(2), hottest, 4), 4);
	assert_true(hottest[0].share == 1 && hottest[0].over_fair == 4); /* all that is known of yet */
	assert_true(hottest[1].share == 1 && hottest[2].share == 0);
	take(world, 2, &report);
	fill_work(&work, 5, 10, 8);
	work.pairs[1][0] = 9;
	take_work(world, NODE_SESSION, 15, &work);
	assert_int_equal(pl_telemetry_hottest(world->telemetry, at(20), hottest, 4), 4);
	assert_int_equal(hottest[0].layer, 4);
	assert_int_equal(hottest[0].expert, 3);
	assert_true(hottest[0].share == 31. / 40 && hottest[0].over_fair > 3.09 && hottest[0].over_fair < 3.11);
	assert_int_equal(hottest[1].expert, 3);
	assert_true(hottest[1].share == 0.75);
	assert_int_equal(hottest[2].expert, 5);
	assert_int_equal(hottest[2].layer, 1);
	assert_true(hottest[2].share == 0.25);

	assert_int_equal(pl_telemetry_hottest(world->telemetry, at(75), hottest, 1), 1);
	assert_int_equal(hottest[0].expert, 5); /* the other is a minute ago */
	assert_true(hottest[0].share == 1);     /* and the router's report */
	assert_int_equal(pl_telemetry_hottest(world->telemetry, at(120), hottest, 4), 0);
}

static void test_traffic_of_the_last_minute(void **state)
{
	struct world *world = *state;
	struct pl_link_figures links[2];
	Cadre__V1__RoutingReport report = report_of(world, 10, 0);

	take(world, 5, &report);
	world->traffic.bytes_sent = 9;
	take(world, 9, &report);
	assert_int_equal(pl_telemetry_links(world->telemetry, at(10), links, 2), 1);
	assert_int_equal(links[0].router, ROUTER);
	assert_int_equal(links[0].node, NODE);
	assert_true(links[0].sent_per_second > 300.8 && links[0].sent_per_second < 301); /* over 10 s so far */
	assert_true(links[0].received_per_second > 199.9 && links[0].received_per_second < 200.1);
	assert_int_equal(pl_telemetry_links(world->telemetry, at(75), links, 2), 0);
}

/* More pairs than are kept: the sums have them all. */
static void test_traffic_is_bounded(void **state)
{
	struct world *world = *state;
	struct pl_traffic traffic[CAD_NODES_MAX];
	static struct pl_link_figures links[PL_TRAFFIC_MAX + 1];
	struct pl_figures figures;

	for (uint32_t i = 0; i < CAD_NODES_MAX; i++)
		traffic[i] = (struct pl_traffic){ i, 100, 1 };
	for (uint32_t router = 0; router < 10; router++) {
		char id[16];
		snprintf(id, sizeof id, "r%u", router);
		fill_node(world, 600 + router, id, PL_ROLE_ROUTER, 1000 + router);
		const struct pl_routing_report report = {
			.rows = 512,
			.traffic = traffic,
			.traffic_count = CAD_NODES_MAX,
		};
		pl_telemetry_routing(world->telemetry, 600 + router, at(1), &report);
	}
	assert_int_equal(pl_telemetry_links(world->telemetry, at(2), links, PL_TRAFFIC_MAX + 1), PL_TRAFFIC_MAX);
	assert_true(pl_telemetry_between(world->telemetry, at(0), at(2), &figures));
	assert_true(figures.sent_per_token == 100);

	/* what has gone silent gives its place to others */
	const struct pl_routing_report late = {
		.rows = 1, .traffic = &(struct pl_traffic){ 700, 7, 7 }, .traffic_count = 1
	};
	pl_telemetry_routing(world->telemetry, 600, at(200), &late);
	assert_int_equal(pl_telemetry_links(world->telemetry, at(200), links, PL_TRAFFIC_MAX), 1);
	assert_int_equal(links[0].node, 700);
}

static void refuse_work(struct world *world, uint64_t session, const struct work *work, const char *words)
{
	struct pl_figures figures;
	struct cad_error error = { 0 };

	assert_int_equal(
		pl_telemetry_take_work(world->telemetry, session, at(5), &work->message, &error), CAD_ERR_INVALID);
	if (!strstr(error.text, words))
		fail_msg("'%s' does not say '%s'", error.text, words);
	assert_false(pl_telemetry_between(world->telemetry, at(0), at(9), &figures));
}

static void test_work_that_cannot_be_is_refused(void **state)
{
	struct world *world = *state;
	struct work work;

	fill_work(&work, 3, 30, 8);
	refuse_work(world, SESSION, &work, "'r0' reports work of experts and is not an expert node");
	work.layers[1].layer = 2;
	refuse_work(world, NODE_SESSION, &work, "from 'e0': layer 2, which has no experts");
	work.layers[1].layer = 1;
	refuse_work(world, NODE_SESSION, &work, "layer 1 after layer 1");
	work.message.n_layers = LAYERS + 1;
	refuse_work(world, NODE_SESSION, &work, "3 layers, and there are 2");
	fill_work(&work, EXPERTS, 30, 8);
	refuse_work(world, NODE_SESSION, &work, "layer 1: expert 8, out of range or order");
	fill_work(&work, 3, 30, 8);
	work.layers[0].n_experts = work.layers[0].n_expert_pairs = 2;
	refuse_work(world, NODE_SESSION, &work, "layer 1: expert 0, out of range or order");
	work.layers[0].n_expert_pairs = 1;
	refuse_work(world, NODE_SESSION, &work, "2 experts with 1 counts of pairs");
	work.layers[0].n_experts = work.layers[0].n_expert_pairs = EXPERTS + 1;
	refuse_work(world, NODE_SESSION, &work, "9 experts with 9 counts of pairs");
	fill_work(&work, 3, 30, 1000);
	refuse_work(world, NODE_SESSION, &work, "counts that cannot be");
	fill_work(&work, 3, 30, 8);
	work.layers[0].rows = UINT64_MAX;
	refuse_work(world, NODE_SESSION, &work, "counts that cannot be");
	fill_work(&work, 3, 30, 8);
	work.pairs[0][0] = UINT32_MAX;
	refuse_work(world, NODE_SESSION, &work, "4294967295 pairs of experts among 30");
}

/* Nothing of single tokens or experts is kept, whatever comes. */
static void test_aggregates_keep_no_token(void **state)
{
	struct world *world = *state;
	struct pl_telemetry_options options = *pl_telemetry_options(world->telemetry);
	struct pl_hot_expert hottest[4];
	struct pl_telemetry_state seen;
	struct pl_trace *trace;
	struct pl_figures figures;
	struct cad_error error;
	struct work work;
	Cadre__V1__RoutingReport report = report_of(world, 10, 10);

	pl_telemetry_destroy(world->telemetry);
	options.aggregate = true;
	must(pl_telemetry_create(&options, &world->telemetry, &error), &error);
	take(world, 1, &report);
	fill_work(&work, 3, 30, 8);
	take_work(world, NODE_SESSION, 1, &work);

	assert_int_equal(pl_telemetry_trace(world->telemetry, &trace, &error), CAD_ERR_NOT_FOUND);
	assert_non_null(strstr(error.text, "--routing-detail is 'aggregate'"));
	assert_int_equal(pl_telemetry_hottest(world->telemetry, at(2), hottest, 4), 0);
	pl_telemetry_state(world->telemetry, &seen);
	assert_int_equal(seen.tokens_kept, 0);
	assert_int_equal(seen.tokens_seen, 10);
	assert_true(pl_telemetry_between(world->telemetry, at(0), at(9), &figures));
	assert_true(figures.nodes_per_token == 1.5 && figures.load_max_over_mean == 1);
}

/* ---- what cannot be ---- */

static void refuse(struct world *world, uint64_t session, const Cadre__V1__RoutingReport *report, const char *words)
{
	struct pl_reported reported = { 0 };
	struct pl_telemetry_state before, after;
	struct cad_error error = { 0 };

	pl_telemetry_state(world->telemetry, &before);
	assert_int_equal(pl_telemetry_take_routing(world->telemetry, session, &reported, at(5), report, &error),
		CAD_ERR_INVALID);
	if (!strstr(error.text, words))
		fail_msg("'%s' does not say '%s'", error.text, words);
	pl_telemetry_state(world->telemetry, &after);
	assert_int_equal(after.tokens_seen, before.tokens_seen);
	assert_int_equal(after.tokens_sampled, before.tokens_sampled);
	assert_int_equal(after.tokens_lost, before.tokens_lost);
	assert_int_equal(after.tokens_kept, before.tokens_kept);
	assert_int_equal(after.newest_ns, before.newest_ns);
}

static void test_reports_that_cannot_be_are_refused(void **state)
{
	struct world *world = *state;
	Cadre__V1__RoutingReport report = report_of(world, 4, 4);

	refuse(world, NODE_SESSION, &report, "'e0' reports routing and is not a router");
	report.experts.len -= 2;
	refuse(world, SESSION, &report, "30 bytes of experts for 4 tokens of 2 layers and 2 experts per token");
	report = report_of(world, 4, 4);
	report.n_requests = 0;
	refuse(world, SESSION, &report, "32 bytes of experts for 0 tokens");
	report = report_of(world, 3, 4);
	refuse(world, SESSION, &report, "it samples 4 of 3 tokens");
	report = report_of(world, 4, 4);
	report.lost = 1;
	refuse(world, SESSION, &report, "it samples 5 of 4 tokens");
	report.lost = 5;
	refuse(world, SESSION, &report, "it counts 4 tokens, 5 of them lost");
	report.lost = 0;
	report.calls_hedged = UINT64_MAX;
	refuse(world, SESSION, &report, "calls, 18446744073709551615 of them hedged, which cannot be");
	report.calls_hedged = 0;
	report = report_of(world, 4, 4);
	report.tokens = UINT64_MAX;
	refuse(world, SESSION, &report, "which cannot be");
	report = report_of(world, 4, 4);
	world->ids[5] = EXPERTS;
	refuse(world, SESSION, &report, "token 1 of the sample, layer 1: expert 8, but there are 8");
	report = report_of(world, 4, 4);
	world->ids[7] = world->ids[6];
	refuse(world, SESSION, &report, "layer 4: expert 1 is selected twice");
	report = report_of(world, 4, 4);
	world->traffic.bytes_sent = UINT64_MAX;
	refuse(world, SESSION, &report, "traffic of more bytes");
	report = report_of(world, 4, 4);
	report.n_traffic = CAD_ROUTER_CONNECTIONS_MAX + 1;
	refuse(world, SESSION, &report, "a router has at most");
	static const float shares[] = { 0, -1, 1.5f, 0.0f / 0.0f };
	for (size_t i = 0; i < sizeof shares / sizeof *shares; i++) {
		report = report_of(world, 4, 4);
		report.share = shares[i];
		refuse(world, SESSION, &report, "share of");
	}
}

/* A dropped slot, a node that is not known any more, a stream that is about to be
 * closed: all of it happens. */
static void test_what_may_happen_is_taken(void **state)
{
	struct world *world = *state;
	struct pl_figures figures;
	Cadre__V1__RoutingReport report = report_of(world, 4, 4);

	world->ids[0] = PL_TRACE_NONE;
	world->traffic.node = "gone";
	take(world, 1, &report);
	assert_true(pl_telemetry_between(world->telemetry, at(0), at(9), &figures));
	assert_true(figures.bytes_per_token == 0);
	world->registry.nodes[ROUTER].presence = PL_DEAD;
	take(world, 2, &report);
	assert_true(pl_telemetry_between(world->telemetry, at(0), at(9), &figures));
	assert_int_equal(figures.tokens, 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_series_knows_each_second),
		cmocka_unit_test_setup_teardown(test_figures_of_a_window, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_slot_of_somebody_else, setup, teardown),
		cmocka_unit_test_setup_teardown(test_tokens_are_kept_for_plans, setup, teardown),
		cmocka_unit_test_setup_teardown(test_requests_of_two_routers_stay_apart, setup, teardown),
		cmocka_unit_test_setup_teardown(test_load_is_over_all_live_nodes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_a_router_did, setup, teardown),
		cmocka_unit_test_setup_teardown(test_the_hottest_experts_of_the_last_minute, setup, teardown),
		cmocka_unit_test_setup_teardown(test_traffic_of_the_last_minute, setup, teardown),
		cmocka_unit_test_setup_teardown(test_traffic_is_bounded, setup, teardown),
		cmocka_unit_test_setup_teardown(test_work_that_cannot_be_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_aggregates_keep_no_token, setup, teardown),
		cmocka_unit_test_setup_teardown(test_reports_that_cannot_be_are_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_may_happen_is_taken, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
