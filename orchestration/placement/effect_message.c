/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/placement/effect_message.h"

/* NULL: it is not known. */
static Cadre__V1__EffectPoint *point_to_proto(const struct pl_point *point, Cadre__V1__EffectPoint *message)
{
	if (!pl_point_known(point))
		return NULL;
	cadre__v1__effect_point__init(message);
	message->nodes_per_token = point->nodes_per_token;
	message->bytes_per_token = point->bytes_per_token;
	message->load_max_over_mean = point->load_max_over_mean;
	return message;
}

Cadre__V1__Effect *pl_effect_to_proto(const struct pl_effect *effect, struct pl_effect_message *message)
{
	cadre__v1__effect__init(&message->effect);
	message->effect.before = point_to_proto(&effect->before, &message->before);
	message->effect.after = point_to_proto(&effect->after, &message->after);
	return &message->effect;
}
