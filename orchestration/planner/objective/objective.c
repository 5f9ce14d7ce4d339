/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/planner/objective/objective.h"

const struct cad_choice pl_workload_choices[] = { { "decode", PL_WORKLOAD_DECODE }, { "prefill", PL_WORKLOAD_PREFILL },
	{ "mixed", PL_WORKLOAD_MIXED }, { NULL, 0 } };

/*
 * Decode waits for calls (nodes) and for the weights that the busiest node reads (active); prefill
 * for the busiest node's arithmetic (load) and for bytes.
 */
struct pl_weights pl_weights_of(enum pl_workload workload)
{
	struct pl_weights weights = {
		.nodes = 1,
		.racks = 0.5,
		.load = 0.75,
		.active = 0.01,
		.move = 0.02,
		.affinity = 0,
		.load_max = 1.1,
	};

	if (workload == PL_WORKLOAD_DECODE)
		weights.active = 0.25;
	if (workload == PL_WORKLOAD_PREFILL) {
		weights.load = 1.5;
		weights.active = 0;
	}

	return weights;
}
