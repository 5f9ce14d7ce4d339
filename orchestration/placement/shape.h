/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What to place: the MoE layers of the model and their experts, numbered as *cells*: cell = row *
 * experts + expert, where row counts MoE layers only. Plain data, owned by main, immutable; read by
 * everything in this folder.
 */
#ifndef CADRE_ORCHESTRATION_PLACEMENT_SHAPE_H
#define CADRE_ORCHESTRATION_PLACEMENT_SHAPE_H

#include "common/base/limits.h"

#include <stdint.h>

struct pl_shape {
	const uint32_t *layers; /* [layers_count]: index in the model, ascending */
	uint32_t layers_count;  /* MoE layers; 0 for a dense model */
	uint32_t experts;       /* per layer */
};

static inline uint32_t pl_shape_cells(const struct pl_shape *shape) { return shape->layers_count * shape->experts; }
static inline uint32_t pl_cell_layer(const struct pl_shape *shape, uint32_t cell)
{
	return shape->layers[cell / shape->experts];
}
static inline uint32_t pl_cell_expert(const struct pl_shape *shape, uint32_t cell) { return cell % shape->experts; }

/* The cell of (layer, expert), or UINT32_MAX when the model has no such expert. */
static inline uint32_t pl_shape_cell(const struct pl_shape *shape, uint32_t layer, uint32_t expert)
{
	if (expert >= shape->experts)
		return UINT32_MAX;
	for (uint32_t row = 0; row < shape->layers_count; row++)
		if (shape->layers[row] == layer)
			return row * shape->experts + expert;
	return UINT32_MAX;
}

#endif
