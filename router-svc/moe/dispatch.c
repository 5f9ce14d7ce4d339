/* SPDX-License-Identifier: Apache-2.0 */
#include "router-svc/moe/dispatch.h"

#include "common/cluster/cover.h"
#include "router-svc/moe/absent.h"
#include "router-svc/moe/combine.h"
#include "router-svc/moe/hedge.h"
#include "router-svc/moe/probe.h"

#include <stdatomic.h>
#include <string.h>

/* Takes up to rows_max rows, from *row on, that have open pairs for this node. */
static void collect(struct rt_shipment *shipment, uint16_t node, uint32_t rows_max, uint32_t *row)
{
	const struct rt_work *work = shipment->work;
	for (; *row < work->rows && shipment->rows < rows_max; ++*row)
		for (uint32_t at = *row * work->topk; at < (*row + 1) * work->topk; at++)
			if (work->slots[at] == RT_SLOT_OPEN && work->nodes[at] == node)
				rt_shipment_add(shipment, at);
}

/* Groups and pairs, by a counting sort over experts that keeps rows ascending. `slots` is in order
 * of rows. */
static uint32_t write_pairs(struct rt_exchange *exchange, const struct rt_shipment *shipment,
	struct cadre_wire_group *groups, struct cadre_wire_pair *pairs)
{
	const struct rt_work *work = shipment->work;
	uint32_t experts = exchange->spec->gate.experts, groups_count = 0, total = 0;

	memset(exchange->expert_at, 0, (experts + 1) * sizeof *exchange->expert_at);
	for (uint32_t i = 0; i < shipment->pairs; i++)
		exchange->expert_at[work->ids[shipment->slots[i]]]++;
	for (uint32_t e = 0; e < experts; e++) {
		uint32_t count = exchange->expert_at[e];
		exchange->expert_at[e] = total;
		total += count;
		if (count > 0 && groups)
			groups[groups_count] = (struct cadre_wire_group){ .expert = e, .pairs = count };
		groups_count += count > 0;
	}

	uint32_t row = 0; /* of the shipment; rows ascend with the slots */
	for (uint32_t i = 0; groups && i < shipment->pairs; i++) {
		uint32_t at = shipment->slots[i];
		while (shipment->row_index[row] != work->first + at / work->topk)
			row++;
		pairs[exchange->expert_at[work->ids[at]]++] = (struct cadre_wire_pair){
			.row = row,
			.weight = work->weights[at],
		};
	}

	return groups_count;
}

/* By what this node's calls have taken so far. */
static uint64_t deadline_ns(const struct rt_shipment *shipment)
{
	uint64_t most_ns = shipment->exchange->call_timeout_ns;
	return shipment->work->patient ? most_ns
				       : rt_latency_deadline_ns(&shipment->peer->latency, shipment->rows, most_ns);
}

enum cad_status rt_dispatch_call(struct rt_shipment *shipment)
{
	struct rt_exchange *exchange = shipment->exchange;
	const struct rt_work *work = shipment->work;
	size_t hidden = exchange->spec->hidden, data_bytes = 0;
	uint32_t groups = write_pairs(exchange, shipment, NULL, NULL);
	struct cad_call_layout layout = cad_wire_call_layout(shipment->rows, 0, groups, shipment->pairs);
	struct cadre_wire_row *heads = (struct cadre_wire_row *)(shipment->payload.bytes + layout.rows);
	struct kn_rows_pack pack = {
		.x = work->x,
		.ldx = work->ldx,
		.n = hidden,
		.index = shipment->row_index,
		.rows = shipment->rows,
		.type = exchange->wire,
		.heads = heads,
		.data = shipment->payload.bytes + layout.data,
		.data_bytes = &data_bytes,
	};

	exchange->queue->ops->rows_pack(exchange->queue, &pack);
	if (exchange->queue->ops->wait(exchange->queue) != CAD_OK)
		return CAD_ERR_INTERNAL;

	layout = cad_wire_call_layout(shipment->rows, data_bytes, groups, shipment->pairs);
	memset(shipment->payload.bytes + layout.data + data_bytes, 0, layout.groups - layout.data - data_bytes);
	write_pairs(exchange, shipment, (struct cadre_wire_group *)(shipment->payload.bytes + layout.groups),
		(struct cadre_wire_pair *)(shipment->payload.bytes + layout.pairs));
	uint64_t now = cad_transport_now_ns(exchange->transport);
	struct cad_call_start start = {
		.call = { .epoch = exchange->routes.map->epoch,
			.data_bytes = data_bytes,
			.layer = work->layer,
			.rows = shipment->rows,
			.row_elements = exchange->spec->hidden,
			.pairs = shipment->pairs,
			.groups = groups },
		.payload = &shipment->payload,
		.payload_bytes = layout.bytes,
		.answer = &shipment->answer,
		.deadline_ns = now + deadline_ns(shipment),
		.done = rt_combine_done,
		.context = shipment,
	};
	struct cad_call *handle;
	enum cad_status status = cad_call_start(shipment->peer->connection, &start, &handle);
	if (status != CAD_OK)
		return status;
	shipment->out = true;
	rt_route_table_sent(&exchange->routes, shipment->peer, shipment->pairs);
	rt_hedge_watch(shipment);
	for (uint32_t r = 0; r < shipment->rows; r++)
		shipment->row_bytes[r] = (uint32_t)(sizeof *heads + cadre_row_bytes(heads[r].type, hidden));
	atomic_fetch_add_explicit(&exchange->stats.calls, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&exchange->stats.bytes_sent, layout.bytes + sizeof start.call, memory_order_relaxed);
	shipment->peer->bytes_sent += layout.bytes + sizeof start.call;

	return CAD_OK;
}

/* The device has failed, and so has the step: nothing is owed for these pairs any more. */
static void give_up(struct rt_exchange *exchange, const struct rt_shipment *shipment)
{
	for (uint32_t i = 0; i < shipment->pairs; i++)
		shipment->work->slots[shipment->slots[i]] = RT_SLOT_DONE;
	shipment->work->open -= shipment->pairs;
	exchange->freed++; /* the wait looks at the others, with the same end */
}

/* CAD_OK: the pairs are SENT. Anything else: nothing happened. */
static enum cad_status send_shipment(struct rt_exchange *exchange, struct rt_shipment *shipment)
{
	struct rt_work *work = shipment->work;
	enum cad_status status = rt_dispatch_call(shipment);
	if (status == CAD_ERR_INTERNAL)
		give_up(exchange, shipment);
	if (status != CAD_OK)
		return status;

	for (uint32_t i = 0; i < shipment->pairs; i++)
		work->slots[shipment->slots[i]] = RT_SLOT_SENT;
	work->open -= shipment->pairs;
	work->sent += shipment->pairs;
	rt_hedge_allow(exchange);

	return CAD_OK;
}

static void send_node(struct rt_exchange *exchange, struct rt_work *work, uint16_t node)
{
	struct rt_peer *peer = &exchange->routes.peers[exchange->routes.node_peer[node]];
	uint32_t rows_max = rt_shipment_rows_max(exchange, peer);

	for (uint32_t row = 0; row < work->rows;) {
		struct rt_shipment *shipment = rt_shipment_take(exchange, work, peer);
		if (!shipment)
			return; /* every answer frees one, and makes the wait look again */
		collect(shipment, node, rows_max, &row);
		/* no rows are left; no credit, or the connection has just gone: an answer or the
		 * route table says when to look again */
		if (shipment->rows == 0 || send_shipment(exchange, shipment) != CAD_OK) {
			rt_shipment_give_back(shipment);
			return;
		}
	}
}

void rt_dispatch_open(struct rt_exchange *exchange, struct rt_work *work)
{
	struct rt_route_table *routes = &exchange->routes;
	work->version = routes->version;
	work->freed = exchange->freed;
	work->retry_at_ns = 0;
	if (!routes->map)
		return;
	int32_t open_ids[CAD_TOPK_MAX];
	uint32_t rows_diverted = 0;
	rt_absent_apply(exchange, work);
	rt_route_table_begin(routes, work->open);

	for (uint32_t row = 0; row < work->rows; row++) {
		size_t at = (size_t)row * work->topk;
		uint16_t nodes[CAD_TOPK_MAX];
		bool any = false;
		for (uint32_t k = 0; k < work->topk; k++) {
			bool open = work->slots[at + k] == RT_SLOT_OPEN;
			open_ids[k] = open ? work->ids[at + k] : -1;
			any = any || open;
		}
		if (!any)
			continue;
		bool diverted = rt_route_table_choose(routes, work->layer, open_ids, work->topk, nodes);
		work->batch->row_span[work->first + row]->sequence->usage.rows_diverted += diverted;
		rows_diverted += diverted;
		for (uint32_t k = 0; k < work->topk; k++)
			if (work->slots[at + k] == RT_SLOT_OPEN) {
				work->nodes[at + k] = nodes[k];
				work->node_ids[at + k] = nodes[k] == CAD_COVER_NONE
					? NULL
					: routes->peers[routes->node_peer[nodes[k]]].id;
			}
	}

	atomic_fetch_add_explicit(&exchange->stats.rows_diverted, rows_diverted, memory_order_relaxed);
	for (uint32_t node = 0; node < routes->map->nodes_count && work->open > 0; node++)
		if (rt_route_table_booked(routes, node))
			send_node(exchange, work, (uint16_t)node);
}

void rt_dispatch(struct rt_exchange *exchange, struct rt_work *work)
{
	work->open = work->sent = 0;
	work->patient = false;
	work->shipments = 0;
	work->late_awake_ns = UINT64_MAX;
	for (uint32_t i = 0; i < work->rows * work->topk; i++) {
		work->slots[i] = work->ids[i] < 0 ? RT_SLOT_DONE : RT_SLOT_OPEN;
		work->nodes[i] = CAD_COVER_NONE;
		work->node_ids[i] = NULL;
		work->open += work->ids[i] >= 0;
	}
	for (uint32_t row = 0; row < work->rows; row++)
		work->batch->row_span[work->first + row]->sequence->usage.routed_rows++;
	atomic_fetch_add_explicit(&exchange->stats.routed_rows, work->rows, memory_order_relaxed);
	rt_dispatch_open(exchange, work);
	rt_probe(exchange, work);
}
