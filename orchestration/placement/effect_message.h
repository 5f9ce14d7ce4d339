/* SPDX-License-Identifier: Apache-2.0 */
/* An effect as a message. Pure; any thread. */
#ifndef CADRE_ORCHESTRATION_PLACEMENT_EFFECT_MESSAGE_H
#define CADRE_ORCHESTRATION_PLACEMENT_EFFECT_MESSAGE_H

#include "cadre/v1/operate.pb-c.h"
#include "orchestration/placement/effect.h"

/* A message that points into itself: do not move it. */
struct pl_effect_message {
	Cadre__V1__Effect effect;
	Cadre__V1__EffectPoint before, after;
};

Cadre__V1__Effect *pl_effect_to_proto(const struct pl_effect *effect, struct pl_effect_message *message);

#endif
