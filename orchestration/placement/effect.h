/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a placement costs, and what a change of it does: predicted by the planner, or measured by
 * the cluster, by the same definitions (orchestration/planner/predict/measure.h).
 *
 * Plain data; any thread.
 */
#ifndef CADRE_ORCHESTRATION_PLACEMENT_EFFECT_H
#define CADRE_ORCHESTRATION_PLACEMENT_EFFECT_H

#include <math.h>
#include <stdbool.h>

/* Means over tokens and MoE layers. NAN throughout: not known. */
struct pl_point {
	double nodes_per_token;
	double bytes_per_token; /* both ways */
	double load_max_over_mean;
};

struct pl_effect {
	struct pl_point before, after;
};

#define PL_POINT_UNKNOWN ((struct pl_point){ NAN, NAN, NAN })
#define PL_EFFECT_UNKNOWN ((struct pl_effect){ PL_POINT_UNKNOWN, PL_POINT_UNKNOWN })

static inline bool pl_point_known(const struct pl_point *point) { return !isnan(point->nodes_per_token); }

#endif
