#include "common/cover.h"

#include <string.h>

/* The nodes that hold any of a token's experts, each with a bit for every slot that it could serve. Only what was met is ever written or read. */
struct candidates {
	uint64_t met[CAD_MAP_NODES_MAX / 64];
	uint32_t slots[CAD_MAP_NODES_MAX];
	uint16_t list[CAD_MAP_NODES_MAX];
	uint32_t count;
};

/* Returns the slots that somebody can serve; of those, *choice are the ones that more than one node might. */
static inline uint32_t collect(struct candidates *all, const struct cad_map_replicas *replicas, uint32_t k, uint32_t nodes_count, const bool *usable, uint32_t *choice)
{
	uint32_t open = 0, count = 0, several = 0;
	memset(all->met, 0, (nodes_count + 63) / 64 * sizeof *all->met);
	for (uint32_t slot = 0; slot < k; slot++) {
		several |= (uint32_t)(replicas[slot].count > 1) << slot;
		for (uint32_t r = 0; r < replicas[slot].count; r++) {
			uint16_t node = replicas[slot].nodes[r];
			if (usable && !usable[node])
				continue;
			uint64_t bit = 1ull << (node & 63);
			if (!(all->met[node >> 6] & bit)) {
				all->met[node >> 6] |= bit;
				all->list[count++] = node;
				all->slots[node] = 0;
			}
			all->slots[node] |= 1u << slot;
			open |= 1u << slot;
		}
	}
	all->count = count;
	*choice = open & several;
	return open;
}

/* Where in the list the next node of the cover stands: the one with most of the slots in `open`. */
static inline uint32_t next_plain(const struct candidates *all, uint32_t open, const uint32_t *load)
{
	uint32_t best = 0;
	uint64_t best_key = 0;   /* experts, then what is missing to the highest load, then what is missing to the highest index */
	for (uint32_t i = 0; i < all->count; i++) {
		uint16_t node = all->list[i];
		uint64_t key = (uint64_t)__builtin_popcount(all->slots[node] & open) << 48 | (uint64_t)(load ? UINT32_MAX - load[node] : 0) << 16 | (uint16_t)~node;
		if (key > best_key) {
			best = i;
			best_key = key;
		}
	}
	return best;
}

static uint32_t next_guarded(const struct candidates *all, uint32_t open, const struct cad_cover_load *load)
{
	uint32_t best = UINT32_MAX;
	float best_score = 0;
	for (uint32_t i = 0; i < all->count; i++) {
		uint16_t node = all->list[i];
		int experts = __builtin_popcount(all->slots[node] & open);
		if (experts == 0)
			continue;
		float over = (float)load->node[node] - load->calm, score = (float)experts - (over > 0 ? over / load->point : 0);
		uint32_t rows = load->node[node], best_rows = best == UINT32_MAX ? 0 : load->node[all->list[best]];
		bool better = best == UINT32_MAX || score > best_score
		              || (score == best_score && (rows < best_rows || (rows == best_rows && node < all->list[best])));
		if (better) {
			best = i;
			best_score = score;
		}
	}
	return best;
}

/* Each slot to the least loaded of the chosen nodes that hold it; slots in `several` have a choice. */
static inline void assign(const struct candidates *all, const uint16_t *chosen, uint32_t chosen_count, uint32_t k, uint32_t served, uint32_t several,
                          const struct cad_cover_load *load, uint16_t *nodes)
{
	for (uint32_t c = 0; c < chosen_count; c++)
		for (uint32_t own = all->slots[chosen[c]] & ~several; own; own &= own - 1)
			nodes[__builtin_ctz(own)] = chosen[c];
	if (!several && !load)
		return;
	for (uint32_t slot = 0; slot < k; slot++) {
		if (!(served >> slot & 1))
			continue;
		uint16_t best = nodes[slot];
		if (several >> slot & 1) {
			best = CAD_COVER_NONE;
			for (uint32_t c = 0; c < chosen_count; c++) {
				uint16_t node = chosen[c];
				if (!(all->slots[node] >> slot & 1))
					continue;
				bool lighter = best != CAD_COVER_NONE && load && load->node[node] < load->node[best];
				bool lower = best != CAD_COVER_NONE && (!load || load->node[node] == load->node[best]) && node < best;
				if (best == CAD_COVER_NONE || lighter || lower)
					best = node;
			}
			nodes[slot] = best;
		}
		if (load)
			load->node[best] += load->unit ? load->unit[best] : 1;
	}
}

/* Always inlined, so that the usual k become loops of known length. */
static inline __attribute__((always_inline)) void cover(const struct cad_map_replicas *replicas, uint32_t k, uint32_t nodes_count, const bool *usable,
                                                        const struct cad_cover_load *load, uint16_t *nodes)
{
	bool single = true;
	for (uint32_t slot = 0; slot < k; slot++) {
		single = single && replicas[slot].count == 1 && (!usable || usable[replicas[slot].nodes[0]]);
		nodes[slot] = CAD_COVER_NONE;
	}
	if (single) {   /* nothing to choose */
		for (uint32_t slot = 0; slot < k; slot++) {
			nodes[slot] = replicas[slot].nodes[0];
			if (load)
				load->node[nodes[slot]] += load->unit ? load->unit[nodes[slot]] : 1;
		}
		return;
	}
	struct candidates all;
	uint16_t chosen[CAD_TOPK_MAX];
	uint32_t choice, open = collect(&all, replicas, k, nodes_count, usable, &choice), served = open, once = 0, several = 0, chosen_count = 0;
	while (open & choice) {
		uint32_t next = load && load->point > 0 ? next_guarded(&all, open, load) : next_plain(&all, open, load ? load->node : NULL);
		uint16_t node = all.list[next];
		all.list[next] = all.list[--all.count];
		chosen[chosen_count++] = node;
		several |= once & all.slots[node];
		once |= all.slots[node];
		open &= ~all.slots[node];
	}
	for (; open; open &= ~once) {   /* what is left has one node each: which comes first makes no difference */
		uint16_t node = replicas[__builtin_ctz(open)].nodes[0];
		chosen[chosen_count++] = node;
		several |= once & all.slots[node];
		once |= all.slots[node];
	}
	assign(&all, chosen, chosen_count, k, served, several, load, nodes);
}

void cad_cover_replicas(const struct cad_map_replicas *replicas, uint32_t k, uint32_t nodes_count, const bool *usable, const struct cad_cover_load *load, uint16_t *nodes)
{
	CAD_ASSERT(k <= CAD_TOPK_MAX && nodes_count <= CAD_MAP_NODES_MAX);
	switch (k) {
	case 2: cover(replicas, 2, nodes_count, usable, load, nodes); return;
	case 4: cover(replicas, 4, nodes_count, usable, load, nodes); return;
	case 6: cover(replicas, 6, nodes_count, usable, load, nodes); return;
	case 8: cover(replicas, 8, nodes_count, usable, load, nodes); return;
	default: cover(replicas, k, nodes_count, usable, load, nodes); return;
	}
}

void cad_cover(const struct cad_map *map, uint32_t layer, const int32_t *experts, uint32_t k, const bool *usable, const struct cad_cover_load *load, uint16_t *nodes)
{
	struct cad_map_replicas replicas[CAD_TOPK_MAX];
	CAD_ASSERT(k <= CAD_TOPK_MAX);
	for (uint32_t slot = 0; slot < k; slot++)
		replicas[slot] = experts[slot] < 0 ? (struct cad_map_replicas){ NULL, 0 } : cad_map_replicas(map, layer, (uint32_t)experts[slot]);
	cad_cover_replicas(replicas, k, map->nodes_count, usable, load, nodes);
}
