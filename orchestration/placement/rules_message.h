/* SPDX-License-Identifier: Apache-2.0 */
/* What operators have said about single nodes and experts, as messages. Pure; any thread. */
#ifndef CADRE_ORCHESTRATION_PLACEMENT_RULES_MESSAGE_H
#define CADRE_ORCHESTRATION_PLACEMENT_RULES_MESSAGE_H

#include "cadre/v1/placement.pb-c.h"
#include "orchestration/placement/control.h"

enum { PL_RULES_SHOWN_MAX = 1024 };

/* What a status points to: do not move it. */
struct pl_rules_message {
	Cadre__V1__Pin pins[PL_RULES_SHOWN_MAX], *pins_list[PL_RULES_SHOWN_MAX];
	Cadre__V1__WantedCopies copies[PL_RULES_SHOWN_MAX], *copies_list[PL_RULES_SHOWN_MAX];
};

Cadre__V1__Duty pl_duty_to_proto(enum pl_duty duty);
/* Pins and copies of a status, which borrows from both. */
void pl_rules_to_proto(const struct pl_rules *rules, const struct pl_shape *shape, struct pl_rules_message *message,
	Cadre__V1__ClusterStatus *status);

#endif
