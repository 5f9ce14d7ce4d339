/* SPDX-License-Identifier: Apache-2.0 */
#include "router-svc/moe/combine.h"

#include "common/base/log.h"
#include "router-svc/moe/hedge.h"

#include <stdatomic.h>

enum { RETRY_BUSY_MS = 2, RETRY_NOT_HELD_MS = 5 };

/* The shipment's pairs go to `to`. */
static void settle(struct rt_shipment *shipment, enum rt_slot to)
{
	struct rt_work *work = shipment->work;
	for (uint32_t i = 0; i < shipment->pairs; i++)
		work->slots[shipment->slots[i]] = (uint8_t)to;
	work->sent -= shipment->pairs;
	if (to == RT_SLOT_OPEN)
		work->open += shipment->pairs;
}

static void doom_rows(struct rt_shipment *shipment, enum cad_status status, const char *what, uint32_t detail)
{
	for (uint32_t r = 0; r < shipment->rows; r++)
		rt_sequence_doom(shipment->work->batch->row_span[shipment->row_index[r]]->sequence, status,
			"layer %u on node '%s': %s (%u)", shipment->work->layer, shipment->peer->id, what, detail);
}

/* Adds the sums, books bytes and nodes per request. A poisoned row fails
 * its request and no other. */
static void take_answer(struct rt_shipment *shipment, const struct cad_answer_view *view)
{
	struct rt_exchange *exchange = shipment->exchange;
	struct rt_work *work = shipment->work;
	uint32_t hidden = exchange->spec->hidden;
	struct kn_combine_add add = {
		.heads = view->sums,
		.data = view->data,
		.rows = shipment->rows,
		.n = hidden,
		.index = shipment->row_index,
		.sums = work->sums,
	};

	exchange->queue->ops->combine_add(exchange->queue, &add);
	uint64_t received = sizeof view->answer;
	for (uint32_t r = 0; r < shipment->rows; r++) {
		struct rt_sequence *sequence = work->batch->row_span[shipment->row_index[r]]->sequence;
		uint64_t row_received = sizeof *view->sums + (uint64_t)view->sums[r].width * hidden;
		received += row_received;
		sequence->usage.nodes_touched++;
		sequence->usage.bytes_sent += shipment->row_bytes[r];
		sequence->usage.bytes_received += row_received;
		if (view->sums[r].poisoned)
			rt_sequence_doom(sequence, CAD_ERR_NOT_FINITE,
				"layer %u, expert %u gave NaN or infinity (node '%s'): the checkpoint or the node is damaged",
				work->layer, view->sums[r].expert, shipment->peer->id);
	}

	for (uint32_t i = 0; i < shipment->pairs; i++)
		work->batch->row_span[work->first + shipment->slots[i] / work->topk]->sequence->usage.bytes_sent +=
			sizeof(struct cadre_wire_pair);
	atomic_fetch_add_explicit(&exchange->stats.nodes_touched, shipment->rows, memory_order_relaxed);
	atomic_fetch_add_explicit(&exchange->stats.bytes_received, received, memory_order_relaxed);
	shipment->peer->bytes_received += received;
}

/* The rows go out again, by the map of that moment. */
static void retry_later(struct rt_shipment *shipment, uint32_t delay_ms, const char *why)
{
	atomic_fetch_add_explicit(&shipment->exchange->stats.retried, 1, memory_order_relaxed);
	cad_log_debug("exchange", "sending a call's rows again", CAD_S("node", shipment->peer->id),
		CAD_U("layer", shipment->work->layer), CAD_S("why", why));
	settle(shipment, RT_SLOT_OPEN);
	uint64_t at = cad_transport_now_ns(shipment->exchange->transport) + delay_ms * CAD_NS_PER_MS;
	if (shipment->work->retry_at_ns == 0 || at < shipment->work->retry_at_ns)
		shipment->work->retry_at_ns = at;
}

static void take_refusal(struct rt_shipment *shipment, const struct cadre_wire_answer *answer, bool elsewhere)
{
	switch (answer->header.status) {
	case CADRE_WIRE_BUSY: retry_later(shipment, RETRY_BUSY_MS, "the node is busy"); return;

	/* somebody else may; or the map is about to say who does: asking again at
	 * once would only make noise */
	case CADRE_WIRE_NOT_HELD:
		retry_later(shipment, elsewhere ? 0 : RETRY_NOT_HELD_MS, "the node does not hold the expert");
		return;
	case CADRE_WIRE_EXPIRED: retry_later(shipment, RETRY_NOT_HELD_MS, "its deadline passed there"); return;
	default:
		doom_rows(shipment, CAD_ERR_INTERNAL,
			answer->header.status == CADRE_WIRE_BAD_CALL
				? "the node says that the call does not fit its model"
				: "the node failed",
			answer->detail);
		settle(shipment, RT_SLOT_DONE);
	}
}

/* A call that was given up took as long as that, at least. Refusals say nothing about the next
 * call. */
static void measure(struct rt_shipment *shipment, enum cad_status status, const struct cad_answer_view *view)
{
	const struct rt_exchange *exchange = shipment->exchange;
	uint64_t now_ns = cad_transport_now_ns(exchange->transport);
	bool answered = status == CAD_OK && view->answer.header.status == CADRE_WIRE_OK;
	struct rt_call_end end = {
		.now_ns = now_ns,
		.failed = !answered && status != CAD_ERR_CANCELLED,
		.took = answered || status == CAD_ERR_DEADLINE,
		.answered = answered && !shipment->late, /* what hung then says little about now */
		.rows = shipment->rows,
		.pairs = shipment->pairs,
		.queue_ns = answered ? view->answer.queue_us * CAD_NS_PER_US : 0,
		.compute_ns = answered ? view->answer.compute_us * CAD_NS_PER_US : 0,
		.ns = rt_exchange_awake_at(exchange, now_ns) - shipment->sent_awake_ns,
	};
	rt_route_table_ended(&shipment->exchange->routes, shipment->peer, &end);
}

void rt_combine_drop_hedge(struct rt_shipment *shipment)
{
	for (struct rt_shipment *hedge = shipment->hedges, *next; hedge; hedge = next) {
		next = hedge->next_hedge;
		rt_shipment_leave(hedge);
	}
	shipment->hedges = NULL;
	shipment->hedges_owed = 0;
}

/* Everything of a hedge has come. */
static void take_hedge(struct rt_shipment *hedged)
{
	struct rt_work *work = hedged->work;
	for (struct rt_shipment *hedge = hedged->hedges; hedge; hedge = hedge->next_hedge) {
		take_answer(hedge, &hedge->view);
		for (uint32_t i = 0; i < hedge->pairs; i++)
			work->node_ids[hedge->slots[i]] = hedge->peer->id;
	}
	rt_hedge_won(hedged);
}

/* Experts whose copies were left out, and are answered for. */
static void take_held(struct rt_shipment *shipment)
{
	struct rt_route_table *routes = &shipment->exchange->routes;
	const struct rt_work *work = shipment->work;
	for (uint32_t i = 0; i < shipment->pairs && routes->open_copies.count > 0; i++)
		rt_route_table_held(routes, shipment->peer, work->layer, (uint32_t)work->ids[shipment->slots[i]]);
}

static void take_sums(struct rt_shipment *shipment, const struct cad_answer_view *view)
{
	struct rt_shipment *first = shipment;
	take_held(shipment);

	if (shipment->hedged) {
		first = shipment->hedged;
		shipment->view = *view;
		if (--first->hedges_owed > 0)
			return; /* the last one decides */
		take_hedge(first);
	} else {
		take_answer(shipment, view);
	}

	settle(first, RT_SLOT_DONE);
	rt_combine_drop_hedge(first);
	rt_shipment_leave(first);
}

void rt_combine_hedge_failed(struct rt_shipment *hedged)
{
	rt_combine_drop_hedge(hedged);
	if (hedged->out) {
		rt_hedge_again(hedged);
		return;
	}
	retry_later(hedged, RETRY_BUSY_MS, "neither its call nor the hedge was answered");
	rt_shipment_leave(hedged);
}

static void take_failure(struct rt_shipment *shipment, enum cad_status status, const struct cad_answer_view *view)
{
	/* what is known of the node's calls has been too little once: it does not cut these rows
	 * off again */
	shipment->work->patient |= status == CAD_ERR_DEADLINE;
	bool elsewhere = status == CAD_OK && view->answer.header.status == CADRE_WIRE_NOT_HELD &&
		rt_route_table_not_held(
			&shipment->exchange->routes, shipment->peer, shipment->work->layer, view->answer.detail);

	if (shipment->hedged) {
		rt_combine_hedge_failed(shipment->hedged);
	} else if (!shipment->hedges) {
		if (status == CAD_OK)
			take_refusal(shipment, &view->answer, elsewhere);
		else
			retry_later(shipment, 0, cad_status_text(status));
		rt_shipment_leave(shipment);
	} /* else the hedge goes on alone */
}

void rt_combine_done(void *context, struct cad_call *handle, enum cad_status status, const struct cad_answer_view *view)
{
	(void)handle;
	struct rt_shipment *shipment = context;

	measure(shipment, status, view);
	shipment->out = false;
	rt_route_table_late(&shipment->exchange->routes, shipment->peer, -(int)shipment->late);
	shipment->exchange->freed++;

	if (!shipment->work)
		rt_shipment_leave(shipment); /* nobody waits for it */
	else if (status == CAD_OK && view->answer.header.status == CADRE_WIRE_OK)
		take_sums(shipment, view);
	else
		take_failure(shipment, status, view);
}
