/* SPDX-License-Identifier: Apache-2.0 */
#include "router-svc/moe/await.h"

#include "common/base/plural.h"
#include "router-svc/moe/combine.h"
#include "router-svc/moe/dispatch.h"
#include "router-svc/moe/hedge.h"

enum { POLL_MS_MAX = 50 };

static void forget_doomed(struct rt_exchange *exchange, struct rt_work *work)
{
	uint64_t now = cad_transport_now_ns(exchange->transport);
	for (uint32_t row = 0; row < work->rows; row++) {
		struct rt_sequence *sequence = work->batch->row_span[work->first + row]->sequence;
		uint32_t tokens = sequence->usage.generated_tokens;
		if (sequence->request.deadline_ns != 0 && now >= sequence->request.deadline_ns)
			rt_sequence_doom(sequence, CAD_ERR_DEADLINE,
				"the deadline passed after %u %s, waiting for experts of layer %u", tokens,
				cad_plural(tokens, "token", "tokens"), work->layer);
		if (sequence->doomed != CAD_OK)
			rt_work_forget(work, row);
	}
}

/* Whether open pairs may find a node, a shipment or credit that they did not find before. */
static bool look_again(const struct rt_exchange *exchange, const struct rt_work *work, uint64_t now)
{
	if (work->open == 0)
		return false;
	if (work->version != exchange->routes.version)
		return true;
	if (work->retry_at_ns != 0)
		return now >= work->retry_at_ns;
	return work->freed != exchange->freed;
}

void rt_await_sums(struct rt_exchange *exchange, struct rt_work *work)
{
	while (work->open + work->sent > 0) {
		uint64_t now = cad_transport_now_ns(exchange->transport), until = now + POLL_MS_MAX * CAD_NS_PER_MS;
		if (look_again(exchange, work, now))
			rt_dispatch_open(exchange, work);
		if (work->open > 0 && work->retry_at_ns != 0 && work->retry_at_ns < until)
			until = work->retry_at_ns;
		uint64_t due = rt_route_table_tick(&exchange->routes), late = rt_hedge_due_ns(exchange, work, now);
		until = due < until ? due : until;
		size_t handled = rt_exchange_poll(exchange, late < until ? late : until);
		rt_shipments_reclaim(exchange);
		if (work->open + work->sent == 0)
			break;
		if (handled == 0) /* what has come was read */
			rt_hedge_late(exchange, work);
		exchange->idle(exchange->idle_context);
		if (work->open > 0)
			forget_doomed(exchange, work);
	}
	CAD_ASSERT(
		work->shipments == 0); /* what is out for nothing may be so for longer than the work's memory lives */
	rt_shipments_reclaim(exchange);
}
