/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/cli/effect.h"

#include <jansson.h>
#include <stdio.h>

/* The load is 0 where no node has reported any. */
static json_t *point_to_json(const Cadre__V1__EffectPoint *point)
{
	if (!point)
		return json_null();
	return json_pack("{s:f, s:f, s:o}", "nodes_per_token", point->nodes_per_token, "bytes_per_token",
		point->bytes_per_token, "load_max_over_mean",
		point->load_max_over_mean > 0 ? json_real(point->load_max_over_mean) : json_null());
}

json_t *cl_effect_to_json(const Cadre__V1__Effect *effect)
{
	return effect ? json_pack("{s:o, s:o}", "before", point_to_json(effect->before), "after",
				point_to_json(effect->after))
		      : json_null();
}

/* One figure of both points; "?" where it is not known. */
static void print_figure(char text[24], const Cadre__V1__EffectPoint *point, double value, const char *format)
{
	if (point && value > 0)
		snprintf(text, 24, format, value);
	else
		snprintf(text, 24, "?");
}

void cl_effect_text(const Cadre__V1__Effect *effect, char text[CL_EFFECT_TEXT_BYTES])
{
	char nodes[2][24], bytes[2][24], load[2][24];

	text[0] = 0;
	if (!effect || (!effect->before && !effect->after))
		return;
	const Cadre__V1__EffectPoint *points[] = { effect->before, effect->after };
	for (int i = 0; i < 2; i++) {
		const Cadre__V1__EffectPoint *point = points[i];
		print_figure(nodes[i], point, point ? point->nodes_per_token : 0, "%.3f");
		print_figure(bytes[i], point, point ? point->bytes_per_token : 0, "%.0f");
		print_figure(load[i], point, point ? point->load_max_over_mean : 0, "%.3f");
	}
	snprintf(text, CL_EFFECT_TEXT_BYTES, "nodes per token %s -> %s, bytes per token %s -> %s, load %s -> %s",
		nodes[0], nodes[1], bytes[0], bytes[1], load[0], load[1]);
}
