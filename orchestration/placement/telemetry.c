/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/placement/telemetry.h"

#include "orchestration/placement/series.h"
#include "orchestration/planner/trace/reservoir.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A router's totals. */
enum { TOKENS, SAMPLED, LOST, ROWS, NODES, SENT, RECEIVED, ROUTER_TOTALS };

/* One process that has reported. */
struct source {
	char id[CAD_MAP_ID_BYTES]; /* a slot may be given to another one */
	uint64_t requests;         /* what its numbers of requests begin with here */
	struct pl_series series;
};

struct pl_telemetry {
	struct pl_telemetry_options options;
	struct pl_reservoir *reservoir; /* NULL: no token is kept */
	uint64_t tokens, sampled, lost; /* of all routers */
	uint64_t sources_made;
	struct source *sources[CAD_PROCESSES_MAX]; /* by slot; NULL: it has not reported */
};

/* ---- life ---- */

enum cad_status pl_telemetry_create(
	const struct pl_telemetry_options *options, struct pl_telemetry **telemetry, struct cad_error *error)
{
	struct pl_telemetry *made = calloc(1, sizeof *made);
	if (!made)
		return cad_error_set(error, CAD_ERR_MEMORY, "no memory for telemetry");

	made->options = *options;
	const struct pl_reservoir_options reservoir = {
		.layers = options->shape.layers_count,
		.experts = options->shape.experts,
		.k = options->topk,
		.layer = options->shape.layers,
		.tokens = options->tokens,
		.half_life_s = options->half_life_s,
		.seed = options->seed,
	};
	enum cad_status status = CAD_OK;
	if (options->tokens > 0 && options->shape.layers_count > 0)
		status = pl_reservoir_create(&reservoir, &made->reservoir, error);
	if (status != CAD_OK) {
		pl_telemetry_destroy(made);
		return status;
	}

	*telemetry = made;
	return CAD_OK;
}

void pl_telemetry_destroy(struct pl_telemetry *telemetry)
{
	if (!telemetry)
		return;
	for (uint32_t slot = 0; slot < CAD_PROCESSES_MAX; slot++) {
		if (telemetry->sources[slot])
			pl_series_fini(&telemetry->sources[slot]->series);
		free(telemetry->sources[slot]);
	}
	pl_reservoir_destroy(telemetry->reservoir);
	free(telemetry);
}

const struct pl_telemetry_options *pl_telemetry_options(const struct pl_telemetry *telemetry)
{
	return &telemetry->options;
}

/* ---- reports ---- */

static uint64_t second_of(uint64_t ns) { return ns / CAD_NS_PER_S + 2; } /* as series.h wants it */

/* NULL: there is no memory, and the report is left out. */
static struct source *source_of(struct pl_telemetry *telemetry, uint32_t slot, uint32_t wide, uint32_t narrow)
{
	const char *id = telemetry->options.registry->nodes[slot].id;
	struct source *source = telemetry->sources[slot];

	if (source && strcmp(source->id, id) == 0 && source->series.wide == wide)
		return source;
	if (!source)
		source = calloc(1, sizeof *source);
	if (!source)
		return NULL;
	telemetry->sources[slot] = source;
	pl_series_fini(&source->series);
	if (pl_series_init(&source->series, wide, narrow) != CAD_OK) {
		free(source);
		telemetry->sources[slot] = NULL;
		return NULL;
	}
	memcpy(source->id, id, sizeof source->id);
	source->requests = ++telemetry->sources_made << 40;
	return source;
}

static void keep_tokens(struct pl_telemetry *telemetry, const struct source *source, uint64_t now_ns,
	const struct pl_routing_report *report)
{
	size_t ids = (size_t)telemetry->options.shape.layers_count * telemetry->options.topk;
	double time_s = (double)(now_ns - telemetry->options.now_ns) / (double)CAD_NS_PER_S;

	for (size_t i = 0; telemetry->reservoir && i < report->sampled; i++) /* they were checked */
		CAD_ASSERT(pl_reservoir_add(telemetry->reservoir, time_s, report->share,
				   source->requests + report->requests[i], report->ids + i * ids) == CAD_OK);
}

void pl_telemetry_routing(
	struct pl_telemetry *telemetry, uint32_t slot, uint64_t now_ns, const struct pl_routing_report *report)
{
	struct source *source = source_of(telemetry, slot, ROUTER_TOTALS, 0);
	uint64_t *wide;
	uint32_t *narrow;

	if (!source)
		return;
	pl_series_now(&source->series, second_of(now_ns), &wide, &narrow);
	wide[TOKENS] += report->tokens;
	wide[SAMPLED] += report->sampled;
	wide[LOST] += report->lost;
	wide[ROWS] += report->rows;
	wide[NODES] += report->nodes;
	for (size_t i = 0; i < report->traffic_count; i++) {
		wide[SENT] += report->traffic[i].sent;
		wide[RECEIVED] += report->traffic[i].received;
	}
	telemetry->tokens += report->tokens;
	telemetry->sampled += report->sampled;
	telemetry->lost += report->lost;
	keep_tokens(telemetry, source, now_ns, report);
}

/* ---- figures ---- */

/* What was counted between two seconds. */
static void add_between(const struct pl_series *series, uint64_t from, uint64_t to, uint64_t *sums)
{
	struct pl_totals begin, end;

	if (!pl_series_at(series, from, &begin) || !pl_series_at(series, to, &end))
		return;
	for (uint32_t i = 0; i < series->wide; i++)
		sums[i] += end.wide[i] - begin.wide[i];
}

bool pl_telemetry_between(
	const struct pl_telemetry *telemetry, uint64_t from_ns, uint64_t to_ns, struct pl_figures *figures)
{
	uint64_t start_ns = telemetry->options.now_ns, sums[ROUTER_TOTALS] = { 0 };

	from_ns = from_ns < start_ns ? start_ns : from_ns;
	uint64_t from = second_of(from_ns), to = second_of(to_ns);
	*figures = (struct pl_figures){ .seconds = to > from ? (double)(to - from) : 0 };
	for (uint32_t slot = 0; to > from && slot < CAD_PROCESSES_MAX; slot++)
		if (telemetry->sources[slot] && telemetry->sources[slot]->series.wide == ROUTER_TOTALS)
			add_between(&telemetry->sources[slot]->series, from, to, sums);

	double rows = sums[ROWS] ? (double)sums[ROWS] : 1;
	figures->tokens = sums[TOKENS];
	figures->sampled = sums[SAMPLED];
	figures->lost = sums[LOST];
	figures->rows = sums[ROWS];
	figures->nodes_per_token = (double)sums[NODES] / rows;
	figures->sent_per_token = (double)sums[SENT] / rows;
	figures->received_per_token = (double)sums[RECEIVED] / rows;
	figures->bytes_per_token = figures->sent_per_token + figures->received_per_token;
	return figures->rows > 0;
}

/* ---- the sample ---- */

enum cad_status pl_telemetry_trace(
	const struct pl_telemetry *telemetry, struct pl_trace **trace, struct cad_error *error)
{
	const struct pl_telemetry_options *o = &telemetry->options;
	char provenance[PL_TRACE_NAME_BYTES_MAX];
	struct pl_trace *made;

	if (!telemetry->reservoir)
		return cad_error_set(error, CAD_ERR_NOT_FOUND, "this placement service keeps no tokens");
	enum cad_status status = pl_reservoir_trace(telemetry->reservoir, &made, error);
	if (status != CAD_OK)
		return status;

	snprintf(provenance, sizeof provenance,
		"live routing of cluster '%s': %llu of %llu tokens, sampled with a half-life of %g s", o->cluster,
		(unsigned long long)made->tokens, (unsigned long long)telemetry->tokens, o->half_life_s);
	status = pl_trace_set_names(made, o->model, provenance, error);
	if (status != CAD_OK)
		pl_trace_free(made);
	else
		*trace = made;
	return status;
}

void pl_telemetry_state(const struct pl_telemetry *telemetry, struct pl_telemetry_state *state)
{
	double oldest_s, newest_s;

	*state = (struct pl_telemetry_state){
		.tokens_seen = telemetry->tokens,
		.tokens_sampled = telemetry->sampled,
		.tokens_lost = telemetry->lost,
		.tokens_max = telemetry->options.tokens,
		.half_life_s = telemetry->options.half_life_s,
	};
	if (!telemetry->reservoir || !pl_reservoir_age(telemetry->reservoir, &oldest_s, &newest_s))
		return;
	state->tokens_kept = pl_reservoir_kept(telemetry->reservoir);
	state->oldest_ns = telemetry->options.now_ns + (uint64_t)(oldest_s * (double)CAD_NS_PER_S);
	state->newest_ns = telemetry->options.now_ns + (uint64_t)(newest_s * (double)CAD_NS_PER_S);
}
