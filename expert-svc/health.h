/* SPDX-License-Identifier: Apache-2.0 */
/* The state of the node's device as metrics: what is known of it. */
#ifndef CADRE_EXPERT_SVC_HEALTH_H
#define CADRE_EXPERT_SVC_HEALTH_H

#include "common/process/metrics.h"
#include "kernels/kernels.h"

struct ex_health {
	struct cad_gauge *values[KN_HEALTH_COUNT], *throttled[KN_THROTTLE_COUNT]; /* NULL: not known so far */
};

/* Zeroed before the first time. One thread. */
void ex_health_show(struct ex_health *health, struct cad_metrics *metrics, const struct kn_health *now);

enum { EX_THROTTLED_BYTES = 48 };
/* "power, heat"; "": its clocks are as they should be. */
void ex_health_throttled_text(const struct kn_health *now, char text[EX_THROTTLED_BYTES]);

#endif
