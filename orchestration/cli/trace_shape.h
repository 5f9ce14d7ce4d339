/* SPDX-License-Identifier: Apache-2.0 */
/* How much a trace holds, in the words that all commands have for it. One thread. */
#ifndef CADRE_ORCHESTRATION_CLI_TRACE_SHAPE_H
#define CADRE_ORCHESTRATION_CLI_TRACE_SHAPE_H

#include "orchestration/planner/trace/trace.h"

/* On stdout, without a newline: "12 tokens of 1 request"; then ", 4 layers,
 * 16 experts, 2 per token". */
void cl_trace_print_tokens(const struct pl_trace *trace);
void cl_trace_print_shape(const struct pl_trace *trace);

#endif
