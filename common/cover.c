#include "common/cover.h"

/* The node that holds most of the experts in `open` (a bit a slot); its slots in *covered. CAD_COVER_NONE: nobody holds any. */
static uint16_t best_node(const struct cad_map_replicas *replicas, uint32_t k, uint32_t open, const bool *usable, const uint32_t *load, uint32_t *covered)
{
	uint16_t best = CAD_COVER_NONE;
	int best_count = 0;
	for (uint32_t slot = 0; slot < k; slot++) {
		if (!(open >> slot & 1))
			continue;
		for (uint32_t r = 0; r < replicas[slot].count; r++) {
			uint16_t node = replicas[slot].nodes[r];
			if (!usable[node])
				continue;
			uint32_t slots = 0;
			for (uint32_t other = slot; other < k; other++)   /* earlier open slots would have offered this node already */
				for (uint32_t i = 0; (open >> other & 1) && i < replicas[other].count; i++)
					slots |= (uint32_t)(replicas[other].nodes[i] == node) << other;
			int count = __builtin_popcount(slots);
			bool tie = count == best_count, lighter = tie && load && load[node] < load[best], lower = tie && (!load || load[node] == load[best]) && node < best;
			if (count > best_count || lighter || lower) {
				best = node;
				best_count = count;
				*covered = slots;
			}
		}
	}
	return best;
}

void cad_cover(const struct cad_map *map, uint32_t layer, const int32_t *experts, uint32_t k, const bool *usable, const uint32_t *load, uint16_t *nodes)
{
	struct cad_map_replicas replicas[CAD_TOPK_MAX];
	uint32_t open = 0;   /* slots with more than one replica: only these leave a choice, but all count */
	CAD_ASSERT(k <= CAD_TOPK_MAX);
	for (uint32_t slot = 0; slot < k; slot++) {
		nodes[slot] = CAD_COVER_NONE;
		if (experts[slot] < 0)
			continue;
		replicas[slot] = cad_map_replicas(map, layer, (uint32_t)experts[slot]);
		open |= 1u << slot;
	}
	while (open) {
		uint32_t covered = 0;
		uint16_t node = best_node(replicas, k, open, usable, load, &covered);
		if (node == CAD_COVER_NONE)
			return;
		for (uint32_t slot = 0; slot < k; slot++)
			if (covered >> slot & 1)
				nodes[slot] = node;
		open &= ~covered;
	}
}
