/* SPDX-License-Identifier: Apache-2.0 */
/* Metrics of rebalances and of the automatic mode. Updated by the service's thread; read by any. */
#ifndef CADRE_ORCHESTRATION_PLACEMENT_REBALANCE_METRICS_H
#define CADRE_ORCHESTRATION_PLACEMENT_REBALANCE_METRICS_H

#include "common/process/metrics.h"
#include "orchestration/placement/auto.h"

#include <stdatomic.h>

/* Do not move it once it is made. */
struct pl_rebalance_metrics {
	struct cad_counter *ended[PL_REBALANCE_UNDONE + 1], *moves, *bytes, *looks, *wanted;
	struct cad_gauge *running, *automatic;
	_Atomic double planning_seconds;
	struct pl_rebalances_stats seen; /* what the counters have already counted */
	uint64_t looks_seen, wanted_seen;
};

/* metrics NULL: nothing is kept. */
void pl_rebalance_metrics_create(struct pl_rebalance_metrics *made, struct cad_metrics *metrics);
void pl_rebalance_metrics_update(
	struct pl_rebalance_metrics *made, const struct pl_rebalances *rebalances, const struct pl_auto *automatic);

#endif
