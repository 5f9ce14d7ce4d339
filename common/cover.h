/*
 * The cover of a token: which replica of each of its experts serves it, so that the whole token stays on few nodes and the load stays even.
 * Shared by the router, which routes by it, and by whoever predicts what the router will do. Pure; allocates nothing; any thread.
 */
#ifndef CADRE_COMMON_COVER_H
#define CADRE_COMMON_COVER_H

#include "common/map.h"

enum { CAD_COVER_NONE = 0xffff };

/*
 * nodes[i] = the node that serves experts[i] of `layer`, or CAD_COVER_NONE when no usable node holds it (expert -1: a dropped slot, no node).
 * Greedy: again and again the node that holds most of the experts that are left; ties go to the smaller load, then to the lower index.
 * `usable` and `load` are indexed by node; load may be NULL. k <= CAD_TOPK_MAX.
 */
void cad_cover(const struct cad_map *map, uint32_t layer, const int32_t *experts, uint32_t k, const bool *usable, const uint32_t *load, uint16_t *nodes);

#endif
