/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/placement/status_telemetry.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the message ---- */

static uint64_t before(uint64_t now_ns, uint64_t window_s)
{
	uint64_t window_ns = window_s * CAD_NS_PER_S;
	return now_ns > window_ns ? now_ns - window_ns : 0;
}

static void fill_figures(struct pl_status_telemetry *status, const struct pl_telemetry *telemetry, uint64_t now_ns,
	Cadre__V1__ClusterStatus *message)
{
	message->figures = status->figures_list;
	for (int i = 0; i < PL_TELEMETRY_WINDOWS; i++) {
		uint32_t window_s = pl_telemetry_windows_s[i];
		struct pl_figures figures;
		if (!pl_telemetry_between(telemetry, before(now_ns, window_s), now_ns, &figures))
			continue;
		Cadre__V1__Figures *to = &status->figures[message->n_figures];
		cadre__v1__figures__init(to);
		to->window_s = window_s;
		to->seconds = figures.seconds;
		to->tokens = figures.tokens;
		to->tokens_per_second = (double)figures.tokens / figures.seconds;
		to->nodes_per_token = figures.nodes_per_token;
		to->bytes_sent_per_token = figures.sent_per_token;
		to->bytes_received_per_token = figures.received_per_token;
		to->load_max_over_mean = figures.load_max_over_mean;
		to->activated_max_over_mean = figures.activated_max_over_mean;
		to->activated = figures.activated;
		status->figures_list[message->n_figures++] = to;
	}
}

static void fill_traffic(struct pl_status_telemetry *status, const struct pl_telemetry *telemetry, uint64_t now_ns,
	Cadre__V1__ClusterStatus *message)
{
	const struct pl_registry *registry = pl_telemetry_options(telemetry)->registry;
	struct pl_link_figures links[PL_STATUS_TRAFFIC_MAX];
	size_t count = pl_telemetry_links(telemetry, now_ns, links, PL_STATUS_TRAFFIC_MAX);

	message->traffic = status->traffic_list;
	message->n_traffic = count < PL_STATUS_TRAFFIC_MAX ? count : PL_STATUS_TRAFFIC_MAX;
	for (size_t i = 0; i < message->n_traffic; i++) {
		Cadre__V1__Traffic *to = status->traffic_list[i] = &status->traffic[i];
		cadre__v1__traffic__init(to);
		to->router = (char *)registry->nodes[links[i].router].id;
		to->node = (char *)registry->nodes[links[i].node].id;
		to->sent_bytes_per_second = links[i].sent_per_second;
		to->received_bytes_per_second = links[i].received_per_second;
	}
}

static void fill_hottest(struct pl_status_telemetry *status, const struct pl_telemetry *telemetry, uint64_t now_ns,
	Cadre__V1__ClusterStatus *message)
{
	struct pl_hot_expert hottest[PL_STATUS_HOTTEST_MAX];

	message->hottest = status->hottest_list;
	message->n_hottest = pl_telemetry_hottest(telemetry, now_ns, hottest, PL_STATUS_HOTTEST_MAX);
	for (size_t i = 0; i < message->n_hottest; i++) {
		Cadre__V1__HotExpert *to = status->hottest_list[i] = &status->hottest[i];
		cadre__v1__hot_expert__init(to);
		to->layer = hottest[i].layer;
		to->expert = hottest[i].expert;
		to->share = hottest[i].share;
		to->over_fair = hottest[i].over_fair;
	}
}

static uint64_t age_ms(uint64_t now_ns, uint64_t then_ns)
{
	return then_ns > 0 && now_ns > then_ns ? (now_ns - then_ns) / CAD_NS_PER_MS : 0;
}

static void fill_sample(struct pl_status_telemetry *status, const struct pl_telemetry *telemetry, uint64_t now_ns,
	Cadre__V1__ClusterStatus *message)
{
	struct pl_telemetry_state state;

	pl_telemetry_state(telemetry, &state);
	message->sample = &status->sample;
	cadre__v1__routing_sample__init(&status->sample);
	status->sample.seen = state.tokens_seen;
	status->sample.sampled = state.tokens_sampled;
	status->sample.lost = state.tokens_lost;
	status->sample.kept = state.tokens_kept;
	status->sample.kept_max = pl_telemetry_options(telemetry)->aggregate ? 0 : state.tokens_max;
	status->sample.half_life_s = state.half_life_s;
	status->sample.oldest_ms = age_ms(now_ns, state.oldest_ns);
	status->sample.newest_ms = age_ms(now_ns, state.newest_ns);
}

void pl_status_telemetry_fill(struct pl_status_telemetry *status, const struct pl_telemetry *telemetry, bool fine,
	uint64_t now_ns, Cadre__V1__ClusterStatus *message)
{
	message->routing_detail = pl_telemetry_options(telemetry)->aggregate
		? CADRE__V1__ROUTING_DETAIL__ROUTING_DETAIL_AGGREGATE
		: CADRE__V1__ROUTING_DETAIL__ROUTING_DETAIL_TOKENS;
	fill_figures(status, telemetry, now_ns, message);
	fill_traffic(status, telemetry, now_ns, message);
	if (fine)
		fill_hottest(status, telemetry, now_ns, message);
	fill_sample(status, telemetry, now_ns, message);
}

Cadre__V1__NodeWork *pl_status_telemetry_work(
	const struct pl_telemetry *telemetry, uint32_t slot, uint64_t now_ns, Cadre__V1__NodeWork *message)
{
	struct pl_node_figures figures;

	if (!pl_telemetry_node(telemetry, slot, before(now_ns, pl_telemetry_windows_s[0]), now_ns, &figures))
		return NULL;
	cadre__v1__node_work__init(message);
	message->rows_per_second = figures.rows_per_second;
	message->pairs_per_second = figures.pairs_per_second;
	message->steps_per_second = figures.steps_per_second;
	message->busy = figures.busy;
	message->waiting = figures.waiting;
	message->step_ms = figures.step_s * 1e3;
	return message;
}

Cadre__V1__RouterWork *pl_status_telemetry_router(
	const struct pl_telemetry *telemetry, uint32_t slot, uint64_t now_ns, Cadre__V1__RouterWork *message)
{
	struct pl_router_figures figures;

	if (!pl_telemetry_router(telemetry, slot, before(now_ns, pl_telemetry_windows_s[0]), now_ns, &figures))
		return NULL;
	cadre__v1__router_work__init(message);
	message->tokens_per_second = figures.tokens_per_second;
	message->calls_per_second = figures.calls_per_second;
	message->hedged_per_second = figures.hedged_per_second;
	return message;
}

/* ---- metrics ---- */

/* One line each: where in struct pl_figures, the metric's name, what it says. */
#define FIGURES(X) \
	X(nodes_per_token, "cadre_placement_nodes_per_token", \
		"Expert nodes that a row of a token is sent to, mean over tokens and MoE layers; NaN: no token in the window") \
	X(sent_per_token, "cadre_placement_bytes_sent_per_token", \
		"Bytes of whole calls, with headers and lists of experts, for a token in one MoE layer, mean over tokens and layers") \
	X(received_per_token, "cadre_placement_bytes_received_per_token", \
		"Bytes of whole answers, with headers, for a token in one MoE layer, mean over tokens and layers") \
	X(load_max_over_mean, "cadre_placement_load_max_over_mean", \
		"(row, expert) pairs of the busiest node over the part that is fair by speed, mean over MoE layers") \
	X(activated_max_over_mean, "cadre_placement_activated_max_over_mean", \
		"Distinct experts in a step of the node with most over the mean of all, mean over MoE layers") \
	X(activated, "cadre_placement_activated", \
		"Distinct experts in a step of a node, mean over nodes and MoE layers")

/* Its names may be those of processes that have gone; the gauge stays. */
struct link_metric {
	char router[CAD_MAP_ID_BYTES], node[CAD_MAP_ID_BYTES];
	struct cad_gauge *sent, *received;
};

struct pl_telemetry_metrics {
	struct cad_metrics *metrics;
	struct {
#define X(member, name, help) struct cad_gauge *member;
		FIGURES(X)
#undef X
		struct cad_gauge *tokens_per_second;
	} windows[PL_TELEMETRY_WINDOWS];
	struct cad_counter *seen, *sampled, *lost;
	struct cad_gauge *kept, *oldest_s;
	struct pl_telemetry_state told;
	uint64_t updated_ns;
	struct link_metric links[PL_STATUS_TRAFFIC_MAX];
	size_t links_count;
};

struct pl_telemetry_metrics *pl_telemetry_metrics_create(struct cad_metrics *metrics)
{
	struct pl_telemetry_metrics *made = metrics ? calloc(1, sizeof *made) : NULL;
	if (!made)
		return NULL;

	made->metrics = metrics;
	for (int i = 0; i < PL_TELEMETRY_WINDOWS; i++) {
		char text[16];
		snprintf(text, sizeof text, "%us", pl_telemetry_windows_s[i]);
		const struct cad_label window = { "window", text };
#define X(member, name, help) made->windows[i].member = cad_metrics_gauge(metrics, name, help, &window, 1);
		FIGURES(X)
#undef X
		made->windows[i].tokens_per_second =
			cad_metrics_gauge(metrics, "cadre_placement_routed_tokens_per_second",
				"Tokens that went through all layers, each once", &window, 1);
	}
	const char *tokens = "cadre_placement_routing_tokens_total",
		   *help = "Tokens that routers computed (seen), reported whole (sampled), or had no room for (lost)";
	made->seen = cad_metrics_counter(metrics, tokens, help, &(struct cad_label){ "outcome", "seen" }, 1);
	made->sampled = cad_metrics_counter(metrics, tokens, help, &(struct cad_label){ "outcome", "sampled" }, 1);
	made->lost = cad_metrics_counter(metrics, tokens, help, &(struct cad_label){ "outcome", "lost" }, 1);
	made->kept = cad_metrics_gauge(metrics, "cadre_placement_routing_sample_tokens",
		"Whole tokens of live routing that are kept for plans", NULL, 0);
	made->oldest_s = cad_metrics_gauge(metrics, "cadre_placement_routing_sample_age_seconds",
		"Age of the oldest token that is kept; NaN: none is", NULL, 0);
	return made;
}

void pl_telemetry_metrics_destroy(struct pl_telemetry_metrics *metrics) { free(metrics); }

static void update_windows(struct pl_telemetry_metrics *metrics, const struct pl_telemetry *telemetry, uint64_t now_ns)
{
	for (int i = 0; i < PL_TELEMETRY_WINDOWS; i++) {
		struct pl_figures figures;
		uint64_t from_ns = before(now_ns, pl_telemetry_windows_s[i]);
		bool known = pl_telemetry_between(telemetry, from_ns, now_ns, &figures);
#define X(member, name, help) cad_gauge_set(metrics->windows[i].member, known ? figures.member : (double)NAN);
		FIGURES(X)
#undef X
		cad_gauge_set(
			metrics->windows[i].tokens_per_second, known ? (double)figures.tokens / figures.seconds : 0);
	}
}

/* NULL: there are too many pairs of names. Both lists are in much the same order. */
static struct link_metric *link_metric(
	struct pl_telemetry_metrics *metrics, const char *router, const char *node, size_t *from)
{
	for (size_t tried = 0; tried < metrics->links_count; tried++, ++*from) {
		struct link_metric *link = &metrics->links[*from % metrics->links_count];
		if (strcmp(link->router, router) == 0 && strcmp(link->node, node) == 0)
			return link;
	}
	if (metrics->links_count == PL_STATUS_TRAFFIC_MAX)
		return NULL;

	struct link_metric *link = &metrics->links[metrics->links_count++];
	const struct cad_label labels[] = { { "router", router }, { "node", node } };
	snprintf(link->router, sizeof link->router, "%s", router);
	snprintf(link->node, sizeof link->node, "%s", node);
	link->sent = cad_metrics_gauge(metrics->metrics, "cadre_placement_link_sent_bytes_per_second",
		"Bytes of calls from a router to an expert node, in the last minute", labels, 2);
	link->received = cad_metrics_gauge(metrics->metrics, "cadre_placement_link_received_bytes_per_second",
		"Bytes of answers from an expert node to a router, in the last minute", labels, 2);
	return link;
}

static void update_links(struct pl_telemetry_metrics *metrics, const struct pl_telemetry *telemetry, uint64_t now_ns)
{
	const struct pl_registry *registry = pl_telemetry_options(telemetry)->registry;
	struct pl_link_figures links[PL_STATUS_TRAFFIC_MAX];
	size_t count = pl_telemetry_links(telemetry, now_ns, links, PL_STATUS_TRAFFIC_MAX), from = 0;

	for (size_t i = 0; i < metrics->links_count; i++) {
		cad_gauge_set(metrics->links[i].sent, 0);
		cad_gauge_set(metrics->links[i].received, 0);
	}
	for (size_t i = 0; i < count && i < PL_STATUS_TRAFFIC_MAX; i++) {
		struct link_metric *link = link_metric(
			metrics, registry->nodes[links[i].router].id, registry->nodes[links[i].node].id, &from);
		if (!link)
			continue;
		cad_gauge_set(link->sent, links[i].sent_per_second);
		cad_gauge_set(link->received, links[i].received_per_second);
	}
}

uint64_t pl_telemetry_metrics_update(
	struct pl_telemetry_metrics *metrics, const struct pl_telemetry *telemetry, uint64_t now_ns)
{
	struct pl_telemetry_state state;

	if (!metrics)
		return UINT64_MAX;
	if (metrics->updated_ns > 0 && now_ns < metrics->updated_ns + CAD_NS_PER_S)
		return metrics->updated_ns + CAD_NS_PER_S;
	metrics->updated_ns = now_ns;
	update_windows(metrics, telemetry, now_ns);
	update_links(metrics, telemetry, now_ns);
	pl_telemetry_state(telemetry, &state);
	cad_counter_add(metrics->seen, state.tokens_seen - metrics->told.tokens_seen);
	cad_counter_add(metrics->sampled, state.tokens_sampled - metrics->told.tokens_sampled);
	cad_counter_add(metrics->lost, state.tokens_lost - metrics->told.tokens_lost);
	cad_gauge_set(metrics->kept, (double)state.tokens_kept);
	cad_gauge_set(metrics->oldest_s,
		state.oldest_ns > 0 ? (double)(now_ns - state.oldest_ns) / (double)CAD_NS_PER_S : (double)NAN);
	metrics->told = state;
	return now_ns + CAD_NS_PER_S;
}
