/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Telemetry for people and machines: its part of the message of GetStatus, and its metrics; both
 * from telemetry.h alone. The service's thread.
 */
#ifndef CADRE_ORCHESTRATION_PLACEMENT_STATUS_TELEMETRY_H
#define CADRE_ORCHESTRATION_PLACEMENT_STATUS_TELEMETRY_H

#include "cadre/v1/placement.pb-c.h"
#include "common/process/metrics.h"
#include "orchestration/placement/telemetry.h"

enum { PL_STATUS_TRAFFIC_MAX = 1024, PL_STATUS_HOTTEST_MAX = 16 };

/* What the message points to; lives as long as it. */
struct pl_status_telemetry {
	Cadre__V1__Figures figures[PL_TELEMETRY_WINDOWS], *figures_list[PL_TELEMETRY_WINDOWS];
	Cadre__V1__Traffic traffic[PL_STATUS_TRAFFIC_MAX], *traffic_list[PL_STATUS_TRAFFIC_MAX];
	Cadre__V1__HotExpert hottest[PL_STATUS_HOTTEST_MAX], *hottest_list[PL_STATUS_HOTTEST_MAX];
	Cadre__V1__RoutingSample sample;
};
/* fine: with the hottest experts. */
void pl_status_telemetry_fill(struct pl_status_telemetry *status, const struct pl_telemetry *telemetry, bool fine,
	uint64_t now_ns, Cadre__V1__ClusterStatus *message);
/* Of an expert node; NULL: it did nothing. */
Cadre__V1__NodeWork *pl_status_telemetry_work(
	const struct pl_telemetry *telemetry, uint32_t slot, uint64_t now_ns, Cadre__V1__NodeWork *message);
/* Of a router; NULL: it routed nothing. */
Cadre__V1__RouterWork *pl_status_telemetry_router(
	const struct pl_telemetry *telemetry, uint32_t slot, uint64_t now_ns, Cadre__V1__RouterWork *message);

/* NULL: no memory, or no registry. */
struct pl_telemetry_metrics;
struct pl_telemetry_metrics *pl_telemetry_metrics_create(struct cad_metrics *metrics);
void pl_telemetry_metrics_destroy(struct pl_telemetry_metrics *metrics); /* NULL is fine, here and below */
/* Does something once a second. Returns when to call again; UINT64_MAX: there is no need. */
uint64_t pl_telemetry_metrics_update(
	struct pl_telemetry_metrics *metrics, const struct pl_telemetry *telemetry, uint64_t now_ns);

#endif
