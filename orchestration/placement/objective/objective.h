/*
 * What makes a placement good: the terms, their weights, and the one figure that the solver makes small. The maths is in docs/PLANNER.md.
 *
 * Everything is per layer and per token. In units of "nodes that a token touches":
 *
 *   cost = nodes   * (nodes touched + racks * racks touched beyond the first)
 *        + load    * sum over nodes of excess(load of the node / its fair share)       excess(r) = x + 10 x^2 with x = max(0, r - load_max)
 *        + active  * (distinct experts that the busiest node runs for a decode batch / the mean over nodes - 1)
 *        + move    * copies that must be loaded / experts of the layer
 *        + affinity * nodes touched that the layer before did not touch
 *
 * Plain data and pure functions; any thread.
 */
#ifndef CADRE_PLACEMENT_OBJECTIVE_H
#define CADRE_PLACEMENT_OBJECTIVE_H

#include "common/options.h"
#include "common/status.h"

struct pl_weights {
	double nodes, racks, load, active, move, affinity;
	double load_max;             /* load over fair share that costs nothing */
	double drift;                /* how far the mixture of requests is taken to change: 0.5 = each kind may be half as much more */
};

enum pl_profile { PL_PROFILE_DECODE, PL_PROFILE_PREFILL, PL_PROFILE_MIXED };
extern const struct cad_choice pl_profile_choices[];

struct pl_weights pl_weights_of(enum pl_profile profile);

#endif
