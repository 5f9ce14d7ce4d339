/* SPDX-License-Identifier: Apache-2.0 */
#include "router-svc/engine_metrics.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

/* One line per metric. The member says where the value is in struct rt_engine_stats. */
static const struct {
	const char *name, *help;
	size_t offset;
	bool wide, counter;
	double unit; /* what the value is multiplied with */
} table[] = {
#define COUNTER(member, text, about) \
	{ \
		text, about, offsetof(struct rt_engine_stats, member), true, true, 1 \
	}
#define GAUGE(member, text, about) \
	{ \
		text, about, offsetof(struct rt_engine_stats, member), \
			sizeof(((struct rt_engine_stats *)0)->member) == 8, false, 1 \
	}
#define SECONDS(member, text, about) \
	{ \
		text, about, offsetof(struct rt_engine_stats, member), true, false, 1e-9 \
	}
	COUNTER(steps, "cadre_router_steps_total", "Steps computed."),
	COUNTER(tokens_prefilled, "cadre_router_tokens_prefilled_total", "Prompt tokens computed."),
	COUNTER(tokens_generated, "cadre_router_tokens_generated_total", "Rows computed to generate tokens."),
	COUNTER(requests, "cadre_router_requests_total", "Requests accepted."),
	COUNTER(finished, "cadre_router_requests_finished_total", "Requests that completed."),
	COUNTER(failed, "cadre_router_requests_failed_total", "Requests that failed."),
	COUNTER(cancelled, "cadre_router_requests_cancelled_total", "Requests that were cancelled."),
	COUNTER(preempted, "cadre_router_preemptions_total",
		"Times that a sequence gave up its KV pages and was computed again."),
	COUNTER(calls, "cadre_router_expert_calls_total", "Calls sent to expert nodes."),
	COUNTER(calls_retried, "cadre_router_expert_calls_retried_total",
		"Calls that failed and whose rows were sent again."),
	COUNTER(calls_late, "cadre_router_expert_calls_late_total",
		"Calls that took more than twice as long as 99 of 100 such calls to the node, and 5 ms more."),
	COUNTER(calls_hedged, "cadre_router_expert_calls_hedged_total",
		"Late calls whose rows were sent to other nodes with copies too."),
	COUNTER(hedges_won, "cadre_router_hedges_won_total", "Hedges that were complete before the late call was."),
	COUNTER(hedges_refused, "cadre_router_hedges_refused_total",
		"Times that a late call with copies was not hedged because of --hedge-max."),
	COUNTER(hedge_calls, "cadre_router_hedge_calls_total", "Calls sent for hedges, of all calls sent."),
	COUNTER(breakers_opened, "cadre_router_breakers_opened_total",
		"Times that a circuit breaker opened, of a node or of an expert's copy."),
	COUNTER(probes, "cadre_router_breaker_probes_total", "Calls sent to nodes whose breaker is half open."),
	COUNTER(rows_diverted, "cadre_router_rows_diverted_total",
		"Rows kept from a node that holds a copy for them, summed over MoE layers: its breaker is open, or it is late."),
	COUNTER(bytes_sent, "cadre_router_exchange_sent_bytes_total", "Bytes of calls sent to expert nodes."),
	COUNTER(bytes_received, "cadre_router_exchange_received_bytes_total", "Bytes of answers from expert nodes."),
	COUNTER(nodes_touched, "cadre_router_nodes_touched_total",
		"Nodes that a row was sent to, summed over rows and MoE layers."),
	COUNTER(routed_rows, "cadre_router_routed_rows_total", "Rows routed, summed over MoE layers."),
	COUNTER(dropped, "cadre_router_capacity_dropped_total",
		"(token, layer, slot) triples that the capacity policy dropped, of ended requests."),
	COUNTER(spilled, "cadre_router_capacity_spilled_total",
		"(token, layer, slot) triples that the capacity policy spilled, of ended requests."),
	COUNTER(absent, "cadre_router_absent_total",
		"(token, layer, slot) triples that --absent-experts renormalise left out, of ended requests."),
	GAUGE(running, "cadre_router_sequences_running", "Sequences that take part in steps."),
	GAUGE(waiting, "cadre_router_sequences_waiting", "Sequences that are waiting for room."),
	GAUGE(paused, "cadre_router_sequences_paused",
		"Sequences that compute nothing because their clients do not read."),
	GAUGE(kv_pages, "cadre_router_kv_pages", "KV pages of 32 tokens in total."),
	GAUGE(kv_pages_free, "cadre_router_kv_pages_free", "KV pages that are free."),
	GAUGE(connections, "cadre_router_connections", "Expert nodes that are connected."),
	GAUGE(unreached, "cadre_router_nodes_unreached", "Expert nodes of the map that are not connected."),
	SECONDS(call_p99_ns, "cadre_router_expert_call_p99_seconds",
		"What 99 of 100 calls to the slowest expert node do not exceed; 0: not known."),
	GAUGE(breakers, "cadre_router_breakers_open", "Expert nodes whose circuit breaker is not closed."),
	GAUGE(open_copies, "cadre_router_breaker_copies_open",
		"Copies of experts that are left out because their node says that it does not hold them."),
	GAUGE(epoch, "cadre_router_map_epoch", "Epoch of the map in use."),
#undef COUNTER
#undef GAUGE
#undef SECONDS
};
enum { TABLE_COUNT = sizeof table / sizeof *table };

struct scalar {
	const struct rt_engine *engine;
	size_t index; /* into table, or a stage */
};
struct expert {
	const _Atomic uint64_t *value;
	const _Atomic bool *aggregate;
};

struct rt_engine_metrics {
	struct scalar scalars[TABLE_COUNT], stages[RT_STAGE_COUNT];
	struct expert *experts;
	_Atomic bool aggregate;
};

static double read_scalar(void *context)
{
	const struct scalar *scalar = context;
	struct rt_engine_stats stats;
	rt_engine_stats(scalar->engine, &stats);
	const char *at = (const char *)&stats + table[scalar->index].offset;
	double value = table[scalar->index].wide ? (double)*(const uint64_t *)(const void *)at
						 : (double)*(const uint32_t *)(const void *)at;
	return value * table[scalar->index].unit;
}

static double read_stage(void *context)
{
	const struct scalar *scalar = context;
	struct rt_engine_stats stats;
	rt_engine_stats(scalar->engine, &stats);
	return (double)stats.stage_ns[scalar->index] / (double)CAD_NS_PER_S;
}

static double read_expert(void *context)
{
	const struct expert *expert = context;
	if (atomic_load_explicit(expert->aggregate, memory_order_relaxed))
		return 0;
	return (double)atomic_load_explicit(expert->value, memory_order_relaxed);
}

static void register_expert(struct cad_metrics *metrics, const char *name, const char *help, uint32_t layer,
	uint32_t expert, const _Atomic uint64_t *value, struct expert *slot)
{
	char layer_text[12], expert_text[12];
	snprintf(layer_text, sizeof layer_text, "%u", layer);
	snprintf(expert_text, sizeof expert_text, "%u", expert);
	const struct cad_label labels[] = { { "layer", layer_text }, { "expert", expert_text } };
	slot->value = value; /* whose `aggregate` is set already */
	cad_metrics_counter_read(metrics, name, help, labels, 2, read_expert, slot);
}

enum cad_status rt_engine_metrics_create(struct cad_metrics *metrics, const struct rt_engine *engine,
	const struct cad_model_spec *spec, const struct rt_policies *policies, bool by_expert,
	struct rt_engine_metrics **out)
{
	struct rt_engine_metrics *m = calloc(1, sizeof *m);
	size_t experts = (size_t)spec->layers_count * spec->gate.experts;

	if (m)
		m->experts = calloc(experts * 4 + 1, sizeof *m->experts);
	if (!m || !m->experts) {
		free(m);
		return CAD_ERR_MEMORY;
	}

	for (size_t i = 0; i < TABLE_COUNT; i++) {
		m->scalars[i] = (struct scalar){ engine, i };
		if (table[i].counter)
			cad_metrics_counter_read(
				metrics, table[i].name, table[i].help, NULL, 0, read_scalar, &m->scalars[i]);
		else
			cad_metrics_gauge_read(
				metrics, table[i].name, table[i].help, NULL, 0, read_scalar, &m->scalars[i]);
	}

	for (size_t i = 0; i < RT_STAGE_COUNT; i++) {
		const struct cad_label label = { "stage", rt_stage_names[i] };
		m->stages[i] = (struct scalar){ engine, i };
		cad_metrics_counter_read(metrics, "cadre_router_stage_seconds_total", "Time in each stage of the step.",
			&label, 1, read_stage, &m->stages[i]);
	}

	const struct rt_expert_counts *counts = rt_engine_expert_counts(engine);
	for (size_t i = 0; i < experts * 4; i++)
		m->experts[i].aggregate = &m->aggregate;
	for (uint32_t layer = 0; by_expert && layer < spec->layers_count; layer++)
		for (uint32_t e = 0; spec->layers[layer].moe && e < spec->gate.experts; e++) {
			size_t at = (size_t)layer * spec->gate.experts + e;
			register_expert(metrics, "cadre_router_expert_rows_total", "Rows routed to each expert.", layer,
				e, &counts[at].routed, &m->experts[at * 4]);
			if (policies->absent != RT_ABSENT_WAIT)
				register_expert(metrics, "cadre_router_expert_absent_total",
					"Rows whose expert no node held, and that did not wait for it.", layer, e,
					&counts[at].absent, &m->experts[at * 4 + 3]);
			if (policies->capacity == RT_CAPACITY_NONE)
				continue;
			register_expert(metrics, "cadre_router_expert_dropped_total",
				"Rows dropped because the expert was full.", layer, e, &counts[at].dropped,
				&m->experts[at * 4 + 1]);
			register_expert(metrics, "cadre_router_expert_spilled_total",
				"Rows that went to another expert because this one was full.", layer, e,
				&counts[at].spilled, &m->experts[at * 4 + 2]);
		}
	*out = m;

	return CAD_OK;
}

void rt_engine_metrics_aggregate(struct rt_engine_metrics *metrics, bool aggregate)
{
	if (metrics)
		atomic_store_explicit(&metrics->aggregate, aggregate, memory_order_relaxed);
}

void rt_engine_metrics_destroy(struct rt_engine_metrics *m)
{
	if (!m)
		return;
	free(m->experts);
	free(m);
}
