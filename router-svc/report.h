/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reports of routing to the placement service: what telemetry.h has collected, in messages.
 *
 * The thread of the reactor. Memory is taken at creation; what cannot be sent now stays in the
 * ring.
 */
#ifndef CADRE_ROUTER_SVC_REPORT_H
#define CADRE_ROUTER_SVC_REPORT_H

#include "common/cluster/member.h"
#include "router-svc/engine.h"

struct rt_report;

/* The engine has telemetry, and is borrowed. */
CAD_MUST_USE enum cad_status rt_report_create(struct rt_engine *engine, struct rt_report **report);
void rt_report_destroy(struct rt_report *report); /* NULL is fine */
/* Leaves out all that was counted until now: a stream begins. */
void rt_report_begin(struct rt_report *report);
void rt_report_send(struct rt_report *report, struct cad_member *member);

#endif
