/* SPDX-License-Identifier: Apache-2.0 */
#include "router-svc/moe/exchange.h"

#include <stdlib.h>

enum cad_status rt_exchange_init(
	struct rt_exchange *exchange, const struct rt_exchange_options *options, struct cad_error *error)
{
	const struct cad_gate_spec *gate = &options->spec->gate;
	*exchange = (struct rt_exchange){
		.transport = options->transport,
		.queue = options->queue,
		.spec = options->spec,
		.wire = options->wire,
		.rows_max = options->rows_max,
		.call_timeout_ns = options->call_timeout_ms * CAD_NS_PER_MS,
		.shipments_count = options->shipments_max,
		.absent = options->absent,
		.hedge_share = (uint64_t)(options->hedge_max * RT_HEDGE_CALL),
		.idle = options->idle,
		.idle_context = options->idle_context,
	};
	exchange->hedge_budget = rt_hedge_budget_max(exchange);
	size_t pairs_max = (size_t)options->rows_max * gate->topk;
	size_t payload_bytes =
		cad_wire_call_bytes_max(options->rows_max, options->spec->hidden, gate->experts, pairs_max);
	size_t answer_bytes = cad_wire_answer_bytes_max(options->rows_max, options->spec->hidden);
	enum cad_status status = rt_route_table_init(&exchange->routes, options->transport);
	exchange->routes.breaker_p99_ns = options->breaker_p99_ns;
	exchange->shipments = calloc(options->shipments_max, sizeof *exchange->shipments);
	exchange->expert_at = malloc((gate->experts + 1) * sizeof *exchange->expert_at);
	exchange->zeros = calloc(options->spec->hidden, sizeof *exchange->zeros);
	exchange->hedge_nodes = malloc((pairs_max + 1) * sizeof *exchange->hedge_nodes);
	if (!exchange->shipments || !exchange->expert_at || !exchange->zeros || !exchange->hedge_nodes)
		status = CAD_ERR_MEMORY;
	for (uint32_t i = 0; i < options->shipments_max && status == CAD_OK; i++) {
		struct rt_shipment *shipment = &exchange->shipments[i];
		shipment->exchange = exchange;
		shipment->row_index = malloc(options->rows_max * sizeof *shipment->row_index);
		shipment->row_bytes = malloc(options->rows_max * sizeof *shipment->row_bytes);
		shipment->slots = malloc((pairs_max + 1) * sizeof *shipment->slots);
		if (!shipment->row_index || !shipment->row_bytes || !shipment->slots)
			status = CAD_ERR_MEMORY;
		if (status == CAD_OK)
			status = cad_buffer_create(options->transport, payload_bytes, &shipment->payload);
		if (status == CAD_OK)
			status = cad_buffer_create(options->transport, answer_bytes, &shipment->answer);
		shipment->next = exchange->free_shipment;
		exchange->free_shipment = shipment;
	}

	if (status == CAD_OK)
		return CAD_OK;
	rt_exchange_fini(exchange);
	return cad_error_set(
		error, status, "no memory for %u expert calls of %u rows", options->shipments_max, options->rows_max);
}

void rt_shipments_reclaim(struct rt_exchange *exchange)
{
	if (!exchange->spent_shipment)
		return;

	/* a failure is told again by the step's own wait */
	(void)exchange->queue->ops->wait(exchange->queue);
	while (exchange->spent_shipment) {
		struct rt_shipment *shipment = exchange->spent_shipment;
		exchange->spent_shipment = shipment->next;
		shipment->next = exchange->free_shipment;
		exchange->free_shipment = shipment;
	}
	exchange->freed++;
}

struct rt_shipment *rt_shipment_take(struct rt_exchange *exchange, struct rt_work *work, struct rt_peer *peer)
{
	if (!exchange->free_shipment)
		rt_shipments_reclaim(exchange);
	struct rt_shipment *shipment = exchange->free_shipment;
	if (!shipment)
		return NULL;

	exchange->free_shipment = shipment->next;
	exchange->shipments_used++;
	work->shipments++;
	shipment->work = work;
	shipment->peer = peer;
	shipment->rows = shipment->pairs = 0;
	shipment->out = shipment->late = false;
	shipment->hedged = shipment->hedges = NULL;

	return shipment;
}

void rt_shipment_add(struct rt_shipment *shipment, uint32_t at)
{
	const struct rt_work *work = shipment->work;
	uint32_t row = work->first + at / work->topk;

	shipment->slots[shipment->pairs++] = at;
	if (shipment->rows == 0 || shipment->row_index[shipment->rows - 1] != row)
		shipment->row_index[shipment->rows++] = row;
}

uint32_t rt_shipment_rows_max(const struct rt_exchange *exchange, const struct rt_peer *peer)
{
	uint32_t rows_max = cad_connection_rows_max(peer->connection);
	return rows_max < exchange->rows_max ? rows_max : exchange->rows_max;
}

static void put(struct rt_shipment *shipment, struct rt_shipment **list)
{
	shipment->next = *list;
	*list = shipment;
	shipment->exchange->shipments_used--;
}

void rt_shipment_give_back(struct rt_shipment *shipment)
{
	shipment->work->shipments--;
	shipment->work = NULL;
	put(shipment, &shipment->exchange->free_shipment);
}

void rt_shipment_leave(struct rt_shipment *shipment)
{
	if (shipment->work)
		shipment->work->shipments--;
	shipment->work = NULL;
	if (!shipment->out)
		put(shipment, &shipment->exchange->spent_shipment);
}

size_t rt_exchange_poll(struct rt_exchange *exchange, uint64_t until_ns)
{
	exchange->poll_ns = cad_transport_now_ns(exchange->transport);
	size_t handled = cad_transport_poll(exchange->transport, until_ns);
	exchange->awake_ns = rt_exchange_awake_ns(exchange);
	exchange->poll_ns = 0;
	return handled;
}

uint64_t rt_exchange_awake_at(const struct rt_exchange *exchange, uint64_t now_ns)
{
	return exchange->awake_ns + (exchange->poll_ns ? now_ns - exchange->poll_ns : 0);
}

uint64_t rt_exchange_awake_ns(const struct rt_exchange *exchange)
{
	return rt_exchange_awake_at(exchange, exchange->poll_ns ? cad_transport_now_ns(exchange->transport) : 0);
}

void rt_exchange_fini(struct rt_exchange *exchange)
{
	if (!exchange->transport)
		return;

	/* Closing first: connections and calls end while what their callbacks touch is still there;
	 * only then may buffers go. */
	for (uint32_t i = 0; i < exchange->routes.peers_count; i++) {
		exchange->routes.peers[i].wanted = false;
		if (exchange->routes.peers[i].connection)
			cad_connection_close(
				exchange->routes.peers[i].connection, CAD_ERR_CANCELLED, "the router is stopping");
	}

	bool busy = true;
	for (int i = 0; busy && i < 1000; i++) {
		rt_exchange_poll(exchange, cad_transport_now_ns(exchange->transport) + CAD_NS_PER_MS);
		busy = false;
		for (uint32_t p = 0; p < exchange->routes.peers_count; p++)
			busy = busy || exchange->routes.peers[p].connection || exchange->routes.peers[p].shipments > 0;
	}

	for (uint32_t i = 0; exchange->shipments && i < exchange->shipments_count; i++) {
		struct rt_shipment *shipment = &exchange->shipments[i];
		if (shipment->payload.bytes)
			cad_buffer_destroy(exchange->transport, &shipment->payload);
		if (shipment->answer.bytes)
			cad_buffer_destroy(exchange->transport, &shipment->answer);
		free(shipment->row_index);
		free(shipment->row_bytes);
		free(shipment->slots);
	}

	free(exchange->shipments);
	exchange->shipments = NULL;
	free(exchange->expert_at);
	free(exchange->zeros);
	free(exchange->hedge_nodes);
	cad_transport_destroy(exchange->transport);
	rt_route_table_fini(&exchange->routes);
	exchange->transport = NULL;
}

void rt_work_forget(struct rt_work *work, uint32_t row)
{
	for (uint32_t at = row * work->topk; at < (row + 1) * work->topk; at++)
		if (work->slots[at] == RT_SLOT_OPEN) {
			work->slots[at] = RT_SLOT_DONE;
			work->open--;
		}
}
