/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/cli/trace_shape.h"

#include "common/base/plural.h"

#include <stdio.h>

void cl_trace_print_tokens(const struct pl_trace *trace)
{
	uint32_t requests = pl_trace_requests(trace);

	printf("%llu %s of %u %s", (unsigned long long)trace->tokens, cad_plural(trace->tokens, "token", "tokens"),
		requests, cad_plural(requests, "request", "requests"));
}

void cl_trace_print_shape(const struct pl_trace *trace)
{
	cl_trace_print_tokens(trace);
	printf(", %u %s, %u %s, %u per token", trace->layers, cad_plural(trace->layers, "layer", "layers"),
		trace->experts, cad_plural(trace->experts, "expert", "experts"), trace->k);
}
