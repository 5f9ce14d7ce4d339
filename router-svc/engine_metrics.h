/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine's counters as metrics: read when the page is rendered, nothing is counted twice.
 * Registered once at start-up; the result lives as long as the registry and must be freed after it,
 * and both before the engine. Those by expert are as confidential as prompts, and may be left out.
 */
#ifndef CADRE_ROUTER_SVC_ENGINE_METRICS_H
#define CADRE_ROUTER_SVC_ENGINE_METRICS_H

#include "common/process/metrics.h"
#include "router-svc/engine.h"

struct rt_engine_metrics;

CAD_MUST_USE enum cad_status rt_engine_metrics_create(struct cad_metrics *metrics, const struct rt_engine *engine,
	const struct cad_model_spec *spec, const struct rt_policies *policies, bool by_expert,
	struct rt_engine_metrics **out);
/* Values by expert are 0 from now on, or no longer. Any thread; NULL is fine. */
void rt_engine_metrics_aggregate(struct rt_engine_metrics *metrics, bool aggregate);
void rt_engine_metrics_destroy(struct rt_engine_metrics *metrics);

#endif
