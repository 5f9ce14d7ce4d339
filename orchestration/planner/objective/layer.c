/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/planner/objective/layer.h"

#include <stdlib.h>
#include <string.h>

/* Which lane a request goes to is the one with the fewest tokens so far; the order is then one
 * token of each lane after the other, while all lanes have one. */
static enum cad_status decode_order(const struct pl_trace *trace, uint64_t stride, struct pl_sample *sample)
{
	uint64_t count = (trace->tokens + stride - 1) / stride, fill[PL_LANES] = { 0 }, at[PL_LANES] = { 0 };
	uint64_t *lanes = malloc((count + 1) * sizeof *lanes);
	uint8_t *lane_of = malloc(count + 1);
	enum cad_status status = lanes && lane_of ? CAD_OK : CAD_ERR_MEMORY;

	for (uint64_t i = 0, end; status == CAD_OK && i < count; i = end) {
		uint32_t best = 0;
		for (uint32_t l = 1; l < PL_LANES; l++)
			best = fill[l] < fill[best] ? l : best;
		for (end = i; end < count && trace->request[end * stride] == trace->request[i * stride]; end++)
			lane_of[end] = (uint8_t)best;
		fill[best] += end - i;
	}

	if (status != CAD_OK)
		goto free_lanes;
	uint64_t shortest = fill[0], before = 0;
	for (uint32_t l = 0; l < PL_LANES; l++) {
		shortest = fill[l] < shortest ? fill[l] : shortest;
		at[l] = before;
		before += fill[l];
	}

	for (uint64_t i = 0; i < count; i++)
		lanes[at[lane_of[i]]++] = i * stride;
	uint64_t rest = shortest * PL_LANES;
	for (uint32_t l = 0; l < PL_LANES; l++)
		for (uint64_t i = 0; i < fill[l]; i++)
			sample->token[i < shortest ? i * PL_LANES + l : rest++] = lanes[at[l] - fill[l] + i];
	sample->tokens = (uint32_t)count;

free_lanes:
	free(lane_of);
	free(lanes);

	return status;
}

enum cad_status pl_sample_create(const struct pl_trace *trace, uint32_t tokens_max, struct pl_sample **sample)
{
	struct pl_sample *made = calloc(1, sizeof *made);
	if (!made)
		return CAD_ERR_MEMORY;

	uint64_t stride = tokens_max && trace->tokens > tokens_max ? (trace->tokens + tokens_max - 1) / tokens_max : 1,
		 count = (trace->tokens + stride - 1) / stride;
	made->trace = trace;
	made->token = malloc((count + 1) * sizeof *made->token);
	enum cad_status status = made->token ? decode_order(trace, stride, made) : CAD_ERR_MEMORY;
	if (status != CAD_OK) {
		pl_sample_free(made);
		return status;
	}

	*sample = made;
	return CAD_OK;
}

void pl_sample_free(struct pl_sample *sample)
{
	if (sample)
		free(sample->token);
	free(sample);
}

enum cad_status pl_layer_init(struct pl_layer *layer, const struct pl_sample *sample, uint32_t index, uint32_t stride)
{
	const struct pl_trace *trace = sample->trace;
	uint32_t tokens = (sample->tokens + stride - 1) / stride;

	*layer = (struct pl_layer){ .sample = sample, .experts = trace->experts, .k = trace->k, .tokens = tokens };
	layer->ids = malloc((size_t)tokens * trace->k * sizeof *layer->ids + 1);
	layer->start = calloc(trace->experts + 2, sizeof *layer->start);
	layer->uses = malloc((size_t)tokens * trace->k * sizeof *layer->uses + 1);
	if (!layer->ids || !layer->start || !layer->uses) {
		pl_layer_fini(layer);
		return CAD_ERR_MEMORY;
	}

	for (uint32_t t = 0; t < layer->tokens; t++) {
		uint16_t *ids = layer->ids + (size_t)t * layer->k;
		memcpy(ids, pl_trace_row(trace, index, sample->token[(size_t)t * stride]), layer->k * sizeof *ids);
		for (uint32_t j = 0; j < layer->k; j++)
			if (ids[j] != PL_TRACE_NONE) {
				layer->start[ids[j] + 2]++;
				layer->pairs++;
			}
	}

	for (uint32_t e = 0; e < layer->experts; e++)
		layer->start[e + 2] += layer->start[e + 1];
	for (uint32_t t = 0; t < layer->tokens; t++)
		for (uint32_t j = 0; j < layer->k; j++) {
			uint16_t id = layer->ids[(size_t)t * layer->k + j];
			if (id != PL_TRACE_NONE)
				layer->uses[layer->start[id + 1]++] = t;
		}
	return CAD_OK;
}

void pl_layer_count_pairs(const struct pl_layer *layer, float *together)
{
	size_t E = layer->experts;
	for (uint32_t t = 0; t < layer->tokens; t++) {
		const uint16_t *ids = layer->ids + (size_t)t * layer->k;
		for (uint32_t i = 0; i < layer->k && ids[i] != PL_TRACE_NONE; i++)
			for (uint32_t j = 0; j < i; j++) {
				together[ids[i] * E + ids[j]]++;
				together[ids[j] * E + ids[i]]++;
			}
	}
}

void pl_layer_fini(struct pl_layer *layer)
{
	free(layer->ids);
	free(layer->start);
	free(layer->uses);
	*layer = (struct pl_layer){ 0 };
}
