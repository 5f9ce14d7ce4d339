/* SPDX-License-Identifier: Apache-2.0 */
/* What a change of the placement does, as commands print it. Any thread. */
#ifndef CADRE_ORCHESTRATION_CLI_EFFECT_H
#define CADRE_ORCHESTRATION_CLI_EFFECT_H

#include "cadre/v1/operate.pb-c.h"

#include <stddef.h>

struct json_t;

/* {"before": {"nodes_per_token": ...}, "after": null}: null is what is not known; NULL effect:
 * null. Returns NULL when out of memory. */
struct json_t *cl_effect_to_json(const Cadre__V1__Effect *effect);

/* "nodes per token 2.82 -> 2.39, bytes per token 30822 -> 26112, load 1.09 -> 1.04"; "" when
 * nothing is known. */
enum { CL_EFFECT_TEXT_BYTES = 224 };
void cl_effect_text(const Cadre__V1__Effect *effect, char text[CL_EFFECT_TEXT_BYTES]);

#endif
