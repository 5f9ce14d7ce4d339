/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/placement/telemetry.h"

#include "orchestration/placement/telemetry_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- life ---- */

static enum cad_status make_reservoir(struct pl_telemetry *telemetry, struct cad_error *error)
{
	const struct pl_telemetry_options *o = &telemetry->options;
	const struct pl_reservoir_options reservoir = {
		.layers = o->shape.layers_count,
		.experts = o->shape.experts,
		.k = o->topk,
		.layer = o->shape.layers,
		.tokens = o->tokens,
		.half_life_s = o->half_life_s,
		.seed = o->seed,
	};
	return o->tokens > 0 ? pl_reservoir_create(&reservoir, &telemetry->reservoir, error) : CAD_OK;
}

enum cad_status pl_telemetry_create(
	const struct pl_telemetry_options *options, struct pl_telemetry **telemetry, struct cad_error *error)
{
	struct pl_telemetry *made = calloc(1, sizeof *made);
	uint32_t cells = pl_shape_cells(&options->shape);
	enum cad_status status = CAD_OK;
	if (!made)
		return cad_error_set(error, CAD_ERR_MEMORY, "no memory for telemetry");

	made->options = *options;
	if (cells > 0 && !options->aggregate) {
		made->hot = calloc((size_t)PL_TENS * cells, sizeof *made->hot);
		status = made->hot
			? make_reservoir(made, error)
			: cad_error_set(error, CAD_ERR_MEMORY, "no memory to count what %u experts do", cells);
	}
	if (status != CAD_OK) {
		pl_telemetry_destroy(made);
		return status;
	}

	*telemetry = made;
	return CAD_OK;
}

static void drop_source(struct pl_telemetry *telemetry, uint32_t slot)
{
	struct pl_source *source = telemetry->sources[slot];

	if (!source)
		return;
	telemetry->links_count -= source->links_count;
	pl_series_fini(&source->series);
	free(source->links);
	free(source);
	telemetry->sources[slot] = NULL;
}

void pl_telemetry_destroy(struct pl_telemetry *telemetry)
{
	if (!telemetry)
		return;
	for (uint32_t slot = 0; slot < CAD_PROCESSES_MAX; slot++)
		drop_source(telemetry, slot);
	pl_reservoir_destroy(telemetry->reservoir);
	free(telemetry->hot);
	free(telemetry);
}

const struct pl_telemetry_options *pl_telemetry_options(const struct pl_telemetry *telemetry)
{
	return &telemetry->options;
}

/* NULL: there is no memory, and the report is left out. */
static struct pl_source *source_of(struct pl_telemetry *telemetry, uint32_t slot)
{
	const struct pl_node *node = &telemetry->options.registry->nodes[slot];
	struct pl_source *source = telemetry->sources[slot];
	uint32_t layers = telemetry->options.shape.layers_count;

	if (source && strcmp(source->id, node->id) == 0 && source->role == node->role)
		return source;
	drop_source(telemetry, slot);
	source = calloc(1, sizeof *source);
	if (!source)
		return NULL;
	telemetry->sources[slot] = source;
	memcpy(source->id, node->id, sizeof source->id);
	source->role = node->role;
	source->requests = ++telemetry->sources_made << 40;
	if (pl_series_init(&source->series, node->role == PL_ROLE_ROUTER ? PL_R_TOTALS : PL_N_TOTALS,
		    node->role == PL_ROLE_ROUTER ? 0 : layers * PL_L_TOTALS) == CAD_OK)
		return source;
	drop_source(telemetry, slot);
	return NULL;
}

/* ---- routers ---- */

static void keep_tokens(struct pl_telemetry *telemetry, const struct pl_source *source, uint64_t now_ns,
	const struct pl_routing_report *report)
{
	size_t ids = (size_t)telemetry->options.shape.layers_count * telemetry->options.topk;
	double time_s = (double)(now_ns - telemetry->options.now_ns) / (double)CAD_NS_PER_S;

	for (size_t i = 0; telemetry->reservoir && i < report->sampled; i++) /* they were checked */
		CAD_ASSERT(pl_reservoir_add(telemetry->reservoir, time_s, report->share,
				   source->requests + report->requests[i], report->ids + i * ids) == CAD_OK);
}

/* Known by now, or with nothing to show any more. */
static struct pl_link *find_link(struct pl_source *router, uint32_t node, uint64_t ten, uint32_t *from)
{
	struct pl_link *stale = NULL;

	for (uint32_t tried = 0; tried < router->links_count; tried++, ++*from) {
		struct pl_link *link = &router->links[*from % router->links_count];
		bool shown = false;
		if (link->node == node)
			return link;
		for (uint32_t i = 0; !stale && i < PL_TENS; i++)
			shown = shown || link->tens[i].ten + PL_TENS > ten;
		stale = stale || shown ? stale : link;
	}
	if (stale)
		*stale = (struct pl_link){ .node = node };
	return stale;
}

/* NULL: there are too many, and this one counts only in the sums. */
static struct pl_link *link_of(
	struct pl_telemetry *telemetry, struct pl_source *router, uint32_t node, uint64_t ten, uint32_t *from)
{
	struct pl_link *link = find_link(router, node, ten, from);

	if (link || telemetry->links_count == PL_TRAFFIC_MAX)
		return link;
	struct pl_link *links = realloc(router->links, (router->links_count + 1) * sizeof *links);
	if (!links)
		return NULL;
	router->links = links;
	telemetry->links_count++;
	links[router->links_count] = (struct pl_link){ .node = node };
	return &links[router->links_count++];
}

static void add_traffic(struct pl_telemetry *telemetry, struct pl_source *router, uint64_t now_ns,
	const struct pl_routing_report *report)
{
	uint64_t ten = pl_ten_of(now_ns);
	uint32_t from = 0; /* reports name nodes in an order that stays */

	for (size_t i = 0; i < report->traffic_count; i++) {
		const struct pl_traffic *traffic = &report->traffic[i];
		struct pl_link *link = link_of(telemetry, router, traffic->node, ten, &from);
		if (!link)
			continue;
		if (link->tens[ten % PL_TENS].ten != ten)
			link->tens[ten % PL_TENS] = (__typeof__(link->tens[0])){ .ten = ten };
		link->tens[ten % PL_TENS].sent += traffic->sent;
		link->tens[ten % PL_TENS].received += traffic->received;
	}
}

void pl_telemetry_routing(
	struct pl_telemetry *telemetry, uint32_t slot, uint64_t now_ns, const struct pl_routing_report *report)
{
	struct pl_source *source = source_of(telemetry, slot);
	uint64_t *wide;
	uint32_t *narrow;

	if (!source)
		return;
	pl_series_now(&source->series, pl_second_of(now_ns), &wide, &narrow);
	wide[PL_R_TOKENS] += report->tokens;
	wide[PL_R_SAMPLED] += report->sampled;
	wide[PL_R_LOST] += report->lost;
	wide[PL_R_ROWS] += report->rows;
	wide[PL_R_NODES] += report->nodes;
	wide[PL_R_CALLS] += report->calls;
	wide[PL_R_HEDGED] += report->hedged;
	for (size_t i = 0; i < report->traffic_count; i++) {
		wide[PL_R_SENT] += report->traffic[i].sent;
		wide[PL_R_RECEIVED] += report->traffic[i].received;
	}
	telemetry->tokens += report->tokens;
	telemetry->sampled += report->sampled;
	telemetry->lost += report->lost;
	add_traffic(telemetry, source, now_ns, report);
	keep_tokens(telemetry, source, now_ns, report);
	if (telemetry->options.on_sample && !telemetry->options.aggregate)
		telemetry->options.on_sample(telemetry->options.context, slot, report);
}

/* ---- expert nodes ---- */

static void heat(struct pl_telemetry *telemetry, uint64_t now_ns, const struct pl_work_layer *layer)
{
	const struct pl_shape *shape = &telemetry->options.shape;
	uint64_t ten = pl_ten_of(now_ns);
	uint32_t cells = pl_shape_cells(shape), *hot = telemetry->hot + ten % PL_TENS * cells;

	if (telemetry->hot_ten[ten % PL_TENS] != ten)
		memset(hot, 0, cells * sizeof *hot);
	telemetry->hot_ten[ten % PL_TENS] = ten;
	for (size_t i = 0; i < layer->experts_count; i++)
		hot[layer->row * shape->experts + layer->experts[i].expert] += layer->experts[i].pairs;
}

void pl_telemetry_work(struct pl_telemetry *telemetry, uint32_t slot, uint64_t now_ns,
	const struct pl_work_layer *layers, size_t count)
{
	struct pl_source *source = source_of(telemetry, slot);
	uint64_t *wide;
	uint32_t *narrow;

	if (!source)
		return;
	pl_series_now(&source->series, pl_second_of(now_ns), &wide, &narrow);
	for (size_t i = 0; i < count; i++) {
		const struct pl_work_layer *layer = &layers[i];
		uint32_t *of_layer = narrow + layer->row * PL_L_TOTALS;
		wide[PL_N_STEPS] += layer->steps;
		wide[PL_N_ROWS] += layer->rows;
		wide[PL_N_PAIRS] += layer->pairs;
		wide[PL_N_WAITING] += layer->waiting;
		wide[PL_N_SERVICE_US] += layer->service_us;
		of_layer[PL_L_STEPS] += (uint32_t)layer->steps;
		of_layer[PL_L_PAIRS] += (uint32_t)layer->pairs;
		of_layer[PL_L_ACTIVATED] += (uint32_t)layer->activated;
		if (telemetry->hot)
			heat(telemetry, now_ns, layer);
	}
}

/* ---- the sample ---- */

enum cad_status pl_telemetry_trace(
	const struct pl_telemetry *telemetry, struct pl_trace **trace, struct cad_error *error)
{
	const struct pl_telemetry_options *o = &telemetry->options;
	char provenance[PL_TRACE_NAME_BYTES_MAX];
	struct pl_trace *made;

	if (o->aggregate)
		return cad_error_set(error, CAD_ERR_NOT_FOUND,
			"the placement service keeps no tokens: its --routing-detail is 'aggregate'");
	if (!telemetry->reservoir)
		return cad_error_set(
			error, CAD_ERR_NOT_FOUND, "the placement service keeps no tokens: its --routing-tokens is 0");
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
