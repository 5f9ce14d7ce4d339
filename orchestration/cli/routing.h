/* SPDX-License-Identifier: Apache-2.0 */
/* What `cadrectl generate --routing` shows people: which experts an answer used, and where. */
#ifndef CADRE_ORCHESTRATION_CLI_ROUTING_H
#define CADRE_ORCHESTRATION_CLI_ROUTING_H

#include <jansson.h>
#include <stdio.h>

/* A line per layer. `routing` as in the JSON of an answer; NULL: none came. */
void cl_routing_print(FILE *stream, const json_t *routing);

#endif
