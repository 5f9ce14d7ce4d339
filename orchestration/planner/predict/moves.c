/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/planner/predict/moves.h"

struct pl_moves pl_moves_between(
	const struct pl_plan *from, const struct pl_plan *to, const struct pl_cluster *cluster, double rate)
{
	struct pl_moves moves = { 0 };
	double most = -1; /* bytes, over a link of 1 */

	for (uint32_t n = 0; n < to->nodes; n++) {
		uint64_t loads = 0;
		for (uint32_t l = 0; l < to->layers; l++)
			for (uint32_t e = 0; e < to->experts; e++) {
				bool has = pl_plan_holds(from, l, e, n), wants = pl_plan_holds(to, l, e, n);
				loads += wants && !has;
				moves.frees += has && !wants;
			}
		uint64_t bytes = loads * pl_cluster_image_bytes(cluster, n);
		moves.loads += loads;
		moves.bytes += bytes;
		double needs = (double)bytes / cluster->nodes[n].link;
		if (needs > most) {
			most = needs;
			moves.busiest = n;
		}
	}

	moves.seconds = rate > 0 && most > 0 ? most / rate : 0;
	return moves;
}
