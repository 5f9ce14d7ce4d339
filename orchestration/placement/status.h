/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state of the cluster, for people and machines: the message of GetStatus, and the metrics.
 *
 * A status is one block of memory that borrows from its source: make it, send it, destroy it.
 * Metrics belong to their registry; they are updated after every turn by the thread that runs
 * control.h.
 */
#ifndef CADRE_ORCHESTRATION_PLACEMENT_STATUS_H
#define CADRE_ORCHESTRATION_PLACEMENT_STATUS_H

#include "common/process/metrics.h"
#include "orchestration/placement/checkpoint.h"
#include "orchestration/placement/control.h"
#include "orchestration/placement/door.h"
#include "orchestration/placement/state_rebalances.h"
#include "orchestration/placement/telemetry.h"

struct Cadre__V1__ClusterStatus;

struct pl_status_source {
	const char *cluster;
	const struct pl_checkpoint *checkpoint;
	const struct pl_control *control;
	const struct pl_door *door; /* NULL: nobody was refused */
	const struct pl_state *state;
	const struct pl_telemetry *telemetry;
	bool fine;                            /* with what is told of single experts, which is for operators */
	const struct pl_rebalance *rebalance; /* under way, or being measured; NULL: none is */
	bool auto_on;
	uint64_t now_ns, started_ns;
};

struct pl_status;
CAD_MUST_USE enum cad_status pl_status_create(const struct pl_status_source *source, struct pl_status **status);
const struct Cadre__V1__ClusterStatus *pl_status_message(const struct pl_status *status);
void pl_status_destroy(struct pl_status *status);

struct pl_status_metrics {
	struct cad_gauge *state_lost, *epoch, *unplaced, *experts_live, *routers_live, *nodes_absent, *nodes_drained,
		*routers_discounted, *rows_per_second, *tokens_per_second;
	struct cad_counter *joins, *refusals, *deaths, *loads_ordered, *frees_ordered, *loads_failed, *devices_failed,
		*checksums_wrong, *maps_published, *state_errors, *absences, *loads_stalled, *sources_failed;
	struct pl_control_stats seen; /* what the counters have already counted */
};
/* metrics NULL: nothing is kept. */
void pl_status_metrics_create(
	struct pl_status_metrics *status, struct cad_metrics *metrics, const struct pl_state *state);
void pl_status_metrics_update(struct pl_status_metrics *status, const struct pl_control *control);

#endif
