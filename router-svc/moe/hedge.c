/* SPDX-License-Identifier: Apache-2.0 */
#include "router-svc/moe/hedge.h"

#include "common/base/log.h"
#include "common/cluster/cover.h"
#include "router-svc/moe/combine.h"
#include "router-svc/moe/dispatch.h"

#include <stdatomic.h>

/* What could not be hedged, for want of copies, budget or credit, is looked at again. */
enum { AGAIN_MS = 10 };

static void count(_Atomic uint64_t *counter, uint64_t more)
{
	atomic_fetch_add_explicit(counter, more, memory_order_relaxed);
}

static void watch(struct rt_shipment *shipment, uint64_t late_awake_ns)
{
	struct rt_work *work = shipment->work;
	shipment->late_awake_ns = late_awake_ns;
	work->late_awake_ns = late_awake_ns < work->late_awake_ns ? late_awake_ns : work->late_awake_ns;
}

void rt_hedge_watch(struct rt_shipment *shipment)
{
	uint64_t late_ns = rt_route_table_late_ns(&shipment->exchange->routes, shipment->peer, shipment->rows);
	shipment->sent_awake_ns = rt_exchange_awake_ns(shipment->exchange);
	watch(shipment, late_ns == UINT64_MAX ? UINT64_MAX : shipment->sent_awake_ns + late_ns);
}

void rt_hedge_allow(struct rt_exchange *exchange)
{
	uint64_t most = rt_hedge_budget_max(exchange), budget = exchange->hedge_budget + exchange->hedge_share;
	exchange->hedge_budget = budget < most ? budget : most;
}

uint64_t rt_hedge_due_ns(const struct rt_exchange *exchange, const struct rt_work *work, uint64_t now_ns)
{
	uint64_t awake_ns = rt_exchange_awake_ns(exchange);
	if (work->late_awake_ns == UINT64_MAX)
		return UINT64_MAX;
	return work->late_awake_ns > awake_ns ? now_ns + (work->late_awake_ns - awake_ns) : now_ns;
}

/* ---- a hedge ---- */

/* Fills hedge_nodes: for each pair of a shipment the node of another copy. Returns on how many
 * nodes they are; 0: a pair has none. The shipment is late, and so its own node is not among
 * them. */
static uint32_t choose(struct rt_exchange *exchange, const struct rt_shipment *shipment)
{
	struct rt_route_table *routes = &exchange->routes;
	const struct rt_work *work = shipment->work;
	uint32_t nodes_count = 0;

	rt_route_table_begin(routes, shipment->pairs);
	for (uint32_t i = 0, k; i < shipment->pairs; i += k) {
		int32_t experts[CAD_TOPK_MAX];
		uint32_t row = shipment->slots[i] / work->topk;
		for (k = 0; i + k < shipment->pairs && shipment->slots[i + k] / work->topk == row; k++)
			experts[k] = work->ids[shipment->slots[i + k]];
		if (!rt_route_table_choose_copies(routes, work->layer, experts, k, exchange->hedge_nodes + i))
			return 0;
	}

	for (uint32_t node = 0; node < routes->map->nodes_count; node++)
		nodes_count += rt_route_table_booked(routes, node);
	return nodes_count;
}

/* The pairs of a late shipment that go to one node. */
static void collect(struct rt_shipment *hedge, const struct rt_shipment *late, uint16_t node)
{
	for (uint32_t i = 0; i < late->pairs; i++)
		if (late->exchange->hedge_nodes[i] == node)
			rt_shipment_add(hedge, late->slots[i]);
}

static bool send_to(struct rt_exchange *exchange, struct rt_shipment *late, uint16_t node)
{
	struct rt_peer *peer = &exchange->routes.peers[exchange->routes.node_peer[node]];
	struct rt_shipment *hedge = rt_shipment_take(exchange, late->work, peer);
	if (!hedge)
		return false;

	collect(hedge, late, node);
	if (hedge->rows > rt_shipment_rows_max(exchange, peer) || rt_dispatch_call(hedge) != CAD_OK) {
		rt_shipment_give_back(hedge);
		return false;
	}

	hedge->hedged = late;
	hedge->next_hedge = late->hedges;
	late->hedges = hedge;
	late->hedges_owed++;
	exchange->hedge_budget -= RT_HEDGE_CALL;
	count(&exchange->stats.hedge_calls, 1);

	return true;
}

/* Whether a hedge of so many calls is allowed now. */
static bool allowed(struct rt_exchange *exchange, uint32_t calls)
{
	if (exchange->shipments_used + calls > exchange->shipments_count / 2)
		return false;
	if (exchange->hedge_budget >= (uint64_t)calls * RT_HEDGE_CALL)
		return true;
	count(&exchange->stats.hedges_refused, 1);
	return false;
}

static void tell_requests(const struct rt_shipment *shipment, bool hedged, bool won)
{
	const struct rt_sequence *last = NULL;
	for (uint32_t r = 0; r < shipment->rows; r++) {
		struct rt_sequence *sequence = shipment->work->batch->row_span[shipment->row_index[r]]->sequence;
		if (sequence == last)
			continue;
		last = sequence; /* rows of a sequence follow each other */
		sequence->usage.calls_hedged += hedged;
		sequence->usage.hedges_won += won;
	}
}

/* A hedge that there is already goes on when there cannot be another one. */
static void hedge(struct rt_exchange *exchange, struct rt_shipment *late)
{
	uint32_t calls = exchange->hedge_share > 0 ? choose(exchange, late) : 0;
	if (calls == 0 || !allowed(exchange, calls))
		return;

	count(&exchange->stats.hedged, !late->hedges);
	tell_requests(late, !late->hedges, false);
	rt_combine_drop_hedge(late);
	for (uint32_t node = 0; node < exchange->routes.map->nodes_count; node++)
		if (rt_route_table_booked(&exchange->routes, node) && !send_to(exchange, late, (uint16_t)node)) {
			rt_combine_hedge_failed(late);
			return;
		}

	cad_log_debug("exchange", "hedging a late call", CAD_S("node", late->peer->id),
		CAD_U("layer", late->work->layer), CAD_U("rows", late->rows), CAD_U("calls", calls));
}

/* ---- what is late ---- */

static void judge(struct rt_exchange *exchange, struct rt_shipment *shipment)
{
	if (!shipment->late) {
		shipment->late = true;
		rt_route_table_late(&exchange->routes, shipment->peer, 1);
		count(&exchange->stats.late, 1);
	}

	shipment->late_awake_ns = rt_exchange_awake_ns(exchange) + AGAIN_MS * CAD_NS_PER_MS;
	if (shipment->hedged)
		hedge(exchange, shipment->hedged); /* it is late itself: elsewhere, if somebody has copies of all */
	else if (!shipment->hedges)
		hedge(exchange, shipment);
}

void rt_hedge_late(struct rt_exchange *exchange, struct rt_work *work)
{
	uint64_t awake_ns = rt_exchange_awake_ns(exchange);
	if (awake_ns < work->late_awake_ns)
		return;

	for (uint32_t i = 0; i < exchange->shipments_count; i++) {
		struct rt_shipment *shipment = &exchange->shipments[i];
		if (shipment->work == work && shipment->out && shipment->late_awake_ns <= awake_ns)
			judge(exchange, shipment);
	}

	work->late_awake_ns = UINT64_MAX;
	for (uint32_t i = 0; i < exchange->shipments_count; i++)
		if (exchange->shipments[i].work == work && exchange->shipments[i].out)
			watch(&exchange->shipments[i], exchange->shipments[i].late_awake_ns);
}

void rt_hedge_again(struct rt_shipment *shipment)
{
	watch(shipment, rt_exchange_awake_ns(shipment->exchange) + AGAIN_MS * CAD_NS_PER_MS);
}

void rt_hedge_won(const struct rt_shipment *shipment)
{
	count(&shipment->exchange->stats.hedges_won, 1);
	tell_requests(shipment, false, true);
}
