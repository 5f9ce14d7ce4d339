/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/planner/trace/reservoir.h"

#include "common/base/clock.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct slot {
	double key, time_s;
	uint64_t request, sequence; /* sequence: which token of all that were added */
};

struct pl_reservoir {
	struct pl_reservoir_options options;
	struct cad_random random;
	double ageing; /* of keys, a second */
	uint64_t seen;
	uint32_t kept;
	uint32_t *heap;     /* [kept] slots, the least key first */
	struct slot *slots; /* [tokens] */
	uint16_t *ids;      /* [tokens][layers][k] */
	uint16_t *cells;    /* [layers][k]: the token that is looked at */
	uint32_t *layer;    /* [layers] */
};

enum cad_status pl_reservoir_create(
	const struct pl_reservoir_options *options, struct pl_reservoir **reservoir, struct cad_error *error)
{
	const struct pl_reservoir_options *o = options;
	if (o->layers == 0 || o->layers > PL_TRACE_LAYERS_MAX || o->k == 0 || o->k > PL_TRACE_TOPK_MAX ||
		o->experts == 0 || o->experts > PL_TRACE_EXPERTS_MAX)
		return cad_error_set(error, CAD_ERR_RANGE,
			"a reservoir for %u layers, %u experts and %u of them per token: no model has that", o->layers,
			o->experts, o->k);
	if (o->tokens == 0 || o->tokens > PL_RESERVOIR_TOKENS_MAX || !(o->half_life_s >= 0) || isinf(o->half_life_s))
		return cad_error_set(error, CAD_ERR_RANGE,
			"a reservoir keeps 1 to %d tokens, not %u, with a half-life of 0 s or more, not %g s",
			PL_RESERVOIR_TOKENS_MAX, o->tokens, o->half_life_s);
	struct pl_reservoir *made = calloc(1, sizeof *made);
	if (!made)
		return cad_error_set(error, CAD_ERR_MEMORY, "no memory for a reservoir");
	size_t cells = (size_t)o->layers * o->k;
	*made = (struct pl_reservoir){
		.options = *o,
		.random = { o->seed },
		.ageing = o->half_life_s > 0 ? log(2) / o->half_life_s : 0,
		.heap = calloc(o->tokens, sizeof *made->heap),
		.slots = calloc(o->tokens, sizeof *made->slots),
		.ids = calloc(o->tokens, cells * sizeof *made->ids),
		.cells = calloc(cells, sizeof *made->cells),
		.layer = calloc(o->layers, sizeof *made->layer),
	};
	if (!made->heap || !made->slots || !made->ids || !made->cells || !made->layer) {
		pl_reservoir_destroy(made);
		return cad_error_set(error, CAD_ERR_MEMORY, "no memory for a reservoir of %u tokens", o->tokens);
	}

	for (uint32_t i = 0; i < o->layers; i++)
		made->layer[i] = o->layer ? o->layer[i] : i;
	made->options.layer = made->layer;
	*reservoir = made;

	return CAD_OK;
}

void pl_reservoir_destroy(struct pl_reservoir *reservoir)
{
	if (!reservoir)
		return;
	free(reservoir->heap);
	free(reservoir->slots);
	free(reservoir->ids);
	free(reservoir->cells);
	free(reservoir->layer);
	free(reservoir);
}

uint64_t pl_reservoir_seen(const struct pl_reservoir *reservoir) { return reservoir->seen; }
uint32_t pl_reservoir_kept(const struct pl_reservoir *reservoir) { return reservoir->kept; }

static double key_at(const struct pl_reservoir *reservoir, uint32_t place)
{
	return reservoir->slots[reservoir->heap[place]].key;
}

static void swap(struct pl_reservoir *reservoir, uint32_t a, uint32_t b)
{
	uint32_t slot = reservoir->heap[a];
	reservoir->heap[a] = reservoir->heap[b];
	reservoir->heap[b] = slot;
}

static void sift_up(struct pl_reservoir *reservoir, uint32_t place)
{
	for (; place > 0 && key_at(reservoir, place) < key_at(reservoir, (place - 1) / 2); place = (place - 1) / 2)
		swap(reservoir, place, (place - 1) / 2);
}

static void sift_down(struct pl_reservoir *reservoir, uint32_t place)
{
	for (;;) {
		uint32_t least = place;
		for (uint32_t child = 2 * place + 1; child <= 2 * place + 2 && child < reservoir->kept; child++)
			if (key_at(reservoir, child) < key_at(reservoir, least))
				least = child;
		if (least == place)
			return;
		swap(reservoir, place, least);
		place = least;
	}
}

bool pl_reservoir_age(const struct pl_reservoir *reservoir, double *oldest_s, double *newest_s)
{
	for (uint32_t i = 0; i < reservoir->kept; i++) {
		double time_s = reservoir->slots[i].time_s;
		*oldest_s = i == 0 || time_s < *oldest_s ? time_s : *oldest_s;
		*newest_s = i == 0 || time_s > *newest_s ? time_s : *newest_s;
	}
	return reservoir->kept > 0;
}

enum cad_status pl_reservoir_add(
	struct pl_reservoir *reservoir, double time_s, double share, uint64_t request, const uint16_t *ids)
{
	const struct pl_reservoir_options *o = &reservoir->options;
	size_t cells = (size_t)o->layers * o->k;

	/* a unit of 0 gives the greatest key: infinity, which is one */
	double key = reservoir->ageing * time_s - log(share) - log(-log(1 - cad_random_unit(&reservoir->random)));
	bool full = reservoir->kept == o->tokens;

	if (!full || key > key_at(reservoir, 0)) {
		memcpy(reservoir->cells, ids, cells * sizeof *ids);
		for (uint32_t layer = 0; layer < o->layers; layer++)
			if (pl_trace_check_cell(reservoir->cells + (size_t)layer * o->k, o->k, o->experts, NULL) !=
				CAD_OK)
				return CAD_ERR_INVALID;
		uint32_t slot = full ? reservoir->heap[0] : reservoir->kept;
		reservoir->slots[slot] = (struct slot){
			.key = key,
			.time_s = time_s,
			.request = request,
			.sequence = reservoir->seen,
		};
		memcpy(reservoir->ids + slot * cells, reservoir->cells, cells * sizeof *ids);
		if (full) {
			sift_down(reservoir, 0);
		} else {
			reservoir->heap[slot] = slot;
			sift_up(reservoir, reservoir->kept++);
		}
	}

	reservoir->seen++;
	return CAD_OK;
}

/* ---- what is kept ---- */

struct entry {
	uint64_t group, sequence; /* group: the request, later the sequence of its first token */
	uint32_t slot;
};

static int by_group(const void *a, const void *b)
{
	const struct entry *left = a, *right = b;
	if (left->group != right->group)
		return left->group < right->group ? -1 : 1;
	return (left->sequence > right->sequence) - (left->sequence < right->sequence);
}

enum cad_status pl_reservoir_trace(
	const struct pl_reservoir *reservoir, struct pl_trace **trace, struct cad_error *error)
{
	const struct pl_reservoir_options *o = &reservoir->options;
	struct pl_trace *made = NULL;

	if (reservoir->kept == 0)
		return cad_error_set(error, CAD_ERR_NOT_FOUND, "no token has been recorded yet");

	enum cad_status status = pl_trace_create(o->layers, o->experts, o->k, reservoir->kept, false, &made, error);
	if (status != CAD_OK)
		return status;
	struct entry *entries = calloc(reservoir->kept, sizeof *entries);
	if (!entries) {
		pl_trace_free(made);
		return cad_error_set(error, CAD_ERR_MEMORY, "no memory to order %u tokens", reservoir->kept);
	}

	for (uint32_t i = 0; i < reservoir->kept; i++)
		entries[i] = (struct entry){ reservoir->slots[i].request, reservoir->slots[i].sequence, i };
	qsort(entries, reservoir->kept, sizeof *entries, by_group);
	uint64_t request = 0, first = 0;
	for (uint32_t i = 0; i < reservoir->kept; i++) {
		if (i == 0 || entries[i].group != request)
			first = entries[i].sequence;
		request = entries[i].group;
		entries[i].group = first;
	}

	qsort(entries, reservoir->kept, sizeof *entries, by_group);

	for (uint32_t i = 0; i < reservoir->kept; i++) {
		made->request[i] = i ? made->request[i - 1] + (entries[i].group != entries[i - 1].group) : 0;
		for (uint32_t layer = 0; layer < o->layers; layer++)
			memcpy(pl_trace_cell(made, layer, i),
				reservoir->ids + ((size_t)entries[i].slot * o->layers + layer) * o->k,
				o->k * sizeof *made->ids);
	}

	memcpy(made->layer, reservoir->layer, o->layers * sizeof *made->layer);
	free(entries);
	*trace = made;

	return CAD_OK;
}
