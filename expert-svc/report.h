/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reports of work to the placement service: what work.h has counted since the last one, of the
 * layers in which there was any.
 *
 * The thread of the reactor. Memory is taken at creation.
 */
#ifndef CADRE_EXPERT_SVC_REPORT_H
#define CADRE_EXPERT_SVC_REPORT_H

#include "common/cluster/member.h"
#include "expert-svc/work.h"

#include <stdbool.h>

struct ex_report;

/* `work` is borrowed. */
CAD_MUST_USE enum cad_status ex_report_create(const struct ex_work *work, struct ex_report **report);
void ex_report_destroy(struct ex_report *report); /* NULL is fine */
/* Leaves out all that was counted until now: a stream begins. experts: also by expert. */
void ex_report_begin(struct ex_report *report, bool experts);
/* Nothing, when nothing was done; when it cannot be sent now, the next one has it. */
void ex_report_send(struct ex_report *report, struct cad_member *member);

#endif
