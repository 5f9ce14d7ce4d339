/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Telemetry in the answer of GetStatus, as `cadrectl status` and `cadrectl top` show it. One
 * thread.
 */
#ifndef CADRE_ORCHESTRATION_CLI_FIGURES_H
#define CADRE_ORCHESTRATION_CLI_FIGURES_H

#include "cadre/v1/placement.pb-c.h"

#include <jansson.h>
#include <stdio.h>

/* The window of so many seconds; NULL: nothing was reported in it. */
const Cadre__V1__Figures *cl_figures_find(const Cadre__V1__ClusterStatus *status, uint32_t window_s);

/* What there is of: figures of all windows, the busiest links, the hottest experts, the sample;
 * each followed by an empty line. */
void cl_figures_print(FILE *stream, const Cadre__V1__ClusterStatus *status);
/* At most `max` lines of hottest experts, none wider than 80 columns. */
void cl_figures_print_hottest(FILE *stream, const Cadre__V1__ClusterStatus *status, size_t max);

/* Adds "routing_detail", "figures", "traffic", "hottest" and "sample". */
void cl_figures_to_json(const Cadre__V1__ClusterStatus *status, json_t *object);
json_t *cl_work_to_json(const Cadre__V1__NodeStatus *node);    /* null: it did nothing */
json_t *cl_calls_to_json(const Cadre__V1__ExpertCalls *calls); /* a router's; NULL: it says nothing of calls */

/* "1.2K": bytes in few columns. */
void cl_short_bytes(double bytes, char text[16]);

#endif
