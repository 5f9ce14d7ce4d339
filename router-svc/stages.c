/* SPDX-License-Identifier: Apache-2.0 */
#include "router-svc/stages.h"

#include <stdatomic.h>

const char *const rt_stage_names[RT_STAGE_COUNT] = { "embed", "attention", "gate", "dispatch", "shared", "wait",
	"combine", "dense", "head", "sample" };

void rt_stages_begin(struct rt_stages *stages) { stages->since_ns = cad_clock_now_ns(stages->clock); }

void rt_stage_end(struct rt_stages *stages, enum rt_stage stage)
{
	uint64_t now = cad_clock_now_ns(stages->clock);
	atomic_fetch_add_explicit(&stages->ns[stage], now - stages->since_ns, memory_order_relaxed);
	stages->since_ns = now;
}
