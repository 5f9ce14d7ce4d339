#include "orchestration/placement/objective/layer.h"

#include "common/clock.h"

#include <stdlib.h>
#include <string.h>

enum { FEATURE_LAYERS = 4, ROUNDS = 8, SAMPLE_REQUESTS = 2048, REQUESTS_MAX = 16384 };

/* ---- decode order ---- */

/* Which lane a request goes to is the one with the fewest tokens so far; the order is then one token of each lane after the other, while all lanes have one. */
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

/* ---- kinds of requests ---- */

struct features {
	uint32_t width, requests;
	uint64_t divisor;            /* of the trace's requests so many that follow each other are one here: 1 but in very long traces */
	float *rows;                 /* [requests][width]: how often each expert of a few layers was used, each row of length 1 */
	float *centres;              /* [kinds][width] */
	uint8_t *kind;               /* [requests] */
};

static void collect_features(const struct pl_trace *trace, struct features *features)
{
	uint32_t layers = trace->layers < FEATURE_LAYERS ? trace->layers : FEATURE_LAYERS;
	for (uint64_t t = 0; t < trace->tokens; t++) {
		float *row = features->rows + trace->request[t] / features->divisor * features->width;
		for (uint32_t l = 0; l < layers; l++) {
			const uint16_t *ids = pl_trace_row(trace, (uint32_t)((uint64_t)l * trace->layers / layers), t);
			for (uint32_t j = 0; j < trace->k && ids[j] != PL_TRACE_NONE; j++)
				row[l * trace->experts + ids[j]] += 1;
		}
	}
	for (uint32_t r = 0; r < features->requests; r++) {
		float *row = features->rows + (size_t)r * features->width, sum = 0;
		for (uint32_t i = 0; i < features->width; i++)
			sum += row[i] * row[i];
		for (uint32_t i = 0; i < features->width && sum > 0; i++)
			row[i] /= __builtin_sqrtf(sum);
	}
}

static float distance(const float *a, const float *b, uint32_t width)
{
	float sum = 0;
	for (uint32_t i = 0; i < width; i++)
		sum += (a[i] - b[i]) * (a[i] - b[i]);
	return sum;
}

/* k-means; the first centre is the first request, each further one the request that is farthest from those so far. */
static void cluster(struct features *features, uint32_t kinds)
{
	uint32_t step = features->requests / SAMPLE_REQUESTS + 1, width = features->width, counts[PL_KINDS_MAX];
	for (uint32_t c = 0; c < kinds; c++) {
		uint32_t best = 0;
		float best_distance = -1;
		for (uint32_t r = 0; r < features->requests && c > 0; r += step) {
			float nearest = distance(features->rows + (size_t)r * width, features->centres, width);
			for (uint32_t o = 1; o < c; o++) {
				float d = distance(features->rows + (size_t)r * width, features->centres + (size_t)o * width, width);
				nearest = d < nearest ? d : nearest;
			}
			if (nearest > best_distance) {
				best = r;
				best_distance = nearest;
			}
		}
		memcpy(features->centres + (size_t)c * width, features->rows + (size_t)best * width, width * sizeof *features->rows);
	}
	for (uint32_t round = 0; round <= ROUNDS; round++) {
		bool last = round == ROUNDS;   /* the last round only sorts, and sorts all */
		for (uint32_t r = 0; r < features->requests; r += last ? 1 : step) {
			uint32_t best = 0;
			float best_distance = distance(features->rows + (size_t)r * width, features->centres, width);
			for (uint32_t c = 1; c < kinds; c++) {
				float d = distance(features->rows + (size_t)r * width, features->centres + (size_t)c * width, width);
				if (d < best_distance) {
					best = c;
					best_distance = d;
				}
			}
			features->kind[r] = (uint8_t)best;
		}
		if (last)
			break;
		memset(features->centres, 0, (size_t)kinds * width * sizeof *features->centres);
		memset(counts, 0, sizeof counts);
		for (uint32_t r = 0; r < features->requests; r += step) {
			float *centre = features->centres + (size_t)features->kind[r] * width, *row = features->rows + (size_t)r * width;
			for (uint32_t i = 0; i < width; i++)
				centre[i] += row[i];
			counts[features->kind[r]]++;
		}
		for (uint32_t c = 0; c < kinds; c++)
			for (uint32_t i = 0; i < width && counts[c] > 0; i++)
				features->centres[(size_t)c * width + i] /= (float)counts[c];
	}
}

static enum cad_status sort_kinds(struct pl_sample *sample, uint32_t kinds)
{
	const struct pl_trace *trace = sample->trace;
	uint32_t requests = trace->request[trace->tokens - 1] + 1;
	struct features features = { .divisor = requests / REQUESTS_MAX + 1 };
	features.requests = (uint32_t)((requests + features.divisor - 1) / features.divisor);
	sample->kinds = kinds < features.requests ? kinds : features.requests;
	sample->kind_share[0] = 1;
	if (sample->kinds <= 1)
		return CAD_OK;
	features.width = (trace->layers < FEATURE_LAYERS ? trace->layers : FEATURE_LAYERS) * trace->experts;
	features.rows = calloc((size_t)features.requests * features.width, sizeof *features.rows);
	features.centres = calloc((size_t)sample->kinds * features.width, sizeof *features.centres);
	features.kind = calloc(features.requests, 1);
	enum cad_status status = features.rows && features.centres && features.kind ? CAD_OK : CAD_ERR_MEMORY;
	if (status == CAD_OK) {
		collect_features(trace, &features);
		cluster(&features, sample->kinds);
		sample->kind_share[0] = 0;
		for (uint32_t t = 0; t < sample->tokens; t++) {
			sample->kind[t] = features.kind[trace->request[sample->token[t]] / features.divisor];
			sample->kind_share[sample->kind[t]] += 1.0 / sample->tokens;
		}
	}
	free(features.kind);
	free(features.centres);
	free(features.rows);
	return status;
}

enum cad_status pl_sample_create(const struct pl_trace *trace, uint32_t tokens_max, uint32_t kinds, struct pl_sample **sample)
{
	struct pl_sample *made = calloc(1, sizeof *made);
	if (!made)
		return CAD_ERR_MEMORY;
	uint64_t stride = tokens_max && trace->tokens > tokens_max ? (trace->tokens + tokens_max - 1) / tokens_max : 1, count = (trace->tokens + stride - 1) / stride;
	made->trace = trace;
	made->kinds = 1;
	made->token = malloc((count + 1) * sizeof *made->token);
	made->kind = calloc(count + 1, 1);
	enum cad_status status = made->token && made->kind ? decode_order(trace, stride, made) : CAD_ERR_MEMORY;
	if (status == CAD_OK && count > 0)
		status = sort_kinds(made, kinds < PL_KINDS_MAX ? kinds : PL_KINDS_MAX);
	if (status != CAD_OK) {
		pl_sample_free(made);
		return status;
	}
	*sample = made;
	return CAD_OK;
}

void pl_sample_free(struct pl_sample *sample)
{
	if (sample) {
		free(sample->token);
		free(sample->kind);
	}
	free(sample);
}

enum cad_status pl_layer_init(struct pl_layer *layer, const struct pl_sample *sample, uint32_t index, uint32_t stride)
{
	const struct pl_trace *trace = sample->trace;
	uint32_t tokens = (sample->tokens + stride - 1) / stride;
	*layer = (struct pl_layer){ .sample = sample, .experts = trace->experts, .k = trace->k, .tokens = tokens };
	layer->ids = malloc((size_t)tokens * trace->k * sizeof *layer->ids + 1);
	layer->kind = malloc(tokens + 1);
	layer->start = calloc(trace->experts + 2, sizeof *layer->start);
	layer->uses = malloc((size_t)tokens * trace->k * sizeof *layer->uses + 1);
	if (!layer->ids || !layer->kind || !layer->start || !layer->uses) {
		pl_layer_fini(layer);
		return CAD_ERR_MEMORY;
	}
	for (uint32_t t = 0; t < layer->tokens; t++) {
		uint16_t *ids = layer->ids + (size_t)t * layer->k;
		memcpy(ids, pl_trace_row(trace, index, sample->token[(size_t)t * stride]), layer->k * sizeof *ids);
		layer->kind[t] = sample->kind[(size_t)t * stride];
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

void pl_layer_fini(struct pl_layer *layer)
{
	free(layer->ids);
	free(layer->kind);
	free(layer->start);
	free(layer->uses);
	*layer = (struct pl_layer){ 0 };
}
