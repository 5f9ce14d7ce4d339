/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dispatch and combine: rows go out to the nodes that hold their experts, exact integer sums come
 * back.
 *
 * The words of this folder:
 *
 *   slot      one of the K experts that the gate chose for a row.
 *   pair      a row and the expert of one of its slots: owed one answer, unless it was dropped.
 *   work      one micro-batch at one MoE layer: rows with K slots each, and what is owed for them.
 *   shipment  the rows of one work, with their pairs, that go to one node in one message, until its
 *             answer is added. A row goes once to each node; a node gets more than one shipment
 *             when it has more rows than one may carry.
 *   call      what the transport makes of a shipment: it ends with an answer, a refusal of the node
 *             (busy, not held, expired) or a failure (deadline, peer lost). Counters and options
 *             that users see speak of expert calls.
 *   hedge     the pairs of a shipment whose call is late, sent once more, to nodes with copies: one
 *             or several shipments, each with some of the pairs, together with all of them.
 *
 * An answer counts as a whole or not at all: a call that fails returns its shipment's pairs, and
 * they are sent again, by the map in force at that moment. Because integer sums have no order, none
 * of this can change a bit. A hedge counts as a whole, too: what its shipments answer is kept until
 * the last has come, and then all of it is added; or the hedged shipment's own answer is, and
 * nothing of the hedge.
 *
 * Who lost is out for longer than its work may live. So a shipment leaves its work: from then on it
 * has none, its answer counts for nothing, and its memory is free when the transport is done with
 * it. When a work has ended, no shipment refers to it. At most half of the shipments are ever out
 * for nothing: a hedge or a probe begins only when at most half are in use, itself among them, and
 * a shipment without a work was part of one. To one node no more can be out than its credit.
 *
 * The engine's thread owns everything here. All memory is allocated at init. Waiting polls the
 * transport, so its callbacks run inside.
 */
#ifndef CADRE_ROUTER_SVC_MOE_EXCHANGE_H
#define CADRE_ROUTER_SVC_MOE_EXCHANGE_H

#include "router-svc/batch/scheduler.h"
#include "router-svc/moe/policies.h"
#include "router-svc/moe/route_table.h"

enum { RT_HEDGE_CALL = 1000000 }; /* one call, in the budget of hedges */

enum rt_slot { RT_SLOT_OPEN, RT_SLOT_SENT, RT_SLOT_DONE };

struct rt_work {
	const struct rt_batch *batch;
	uint32_t layer;       /* in the model */
	uint32_t first, rows; /* of the batch */
	uint32_t topk;
	int32_t *ids;    /* [rows][topk]; -1: dropped, nothing is owed */
	float *weights;  /* [rows][topk] */
	uint16_t *nodes; /* [rows][topk] out: index of the node in the map; CAD_COVER_NONE */
	/* [rows][topk] out: the same by name, for reports; valid while the peer table lives */
	const char **node_ids;
	uint8_t *slots; /* [rows][topk]: enum rt_slot */
	const float *x; /* device, [batch rows][ldx]: what experts read */
	size_t ldx;
	int64_t *sums;                   /* device, [batch rows][H] */
	struct rt_expert_counts *counts; /* [E], of the layer */
	uint32_t open, sent;             /* pairs in each state */
	/* of the route table, and of the exchange, when open pairs were last looked at */
	uint64_t version, freed;
	/* a node refused: look again at this time, and not before, unless the routes change; 0:
	 * no */
	uint64_t retry_at_ns;
	bool patient;           /* a call was given up: from now on each has the whole call timeout */
	uint32_t shipments;     /* that refer to this work */
	uint64_t late_awake_ns; /* not before, one of them is late */
};

struct rt_exchange_stats {
	_Atomic uint64_t calls, retried, bytes_sent, bytes_received, nodes_touched, routed_rows;
	/* calls that were late; of them, those whose pairs went to copies too, and those that this
	 * ended sooner; what would have gone, but for hedge_max; calls sent for it */
	_Atomic uint64_t late, hedged, hedges_won, hedges_refused, hedge_calls;
	_Atomic uint64_t probes, rows_diverted; /* calls of probe.h; (row, layer) kept from a node or copy */
};

/* With the two buffers of its call. When it has left its work, and its call is over, it is
 * spent: the device may still be reading the answer. After the device's next wait it is free
 * again. */
struct rt_shipment {
	struct rt_exchange *exchange;
	struct rt_shipment *next;
	struct cad_buffer payload, answer;
	struct rt_work *work; /* NULL: it has left it */
	struct rt_peer *peer;
	bool out;  /* its call is not over */
	bool late; /* and it took longer than such calls do */
	/* of a hedge: what it carries pairs of; the next of the same hedge; its answer, once it
	 * is there */
	struct rt_shipment *hedged, *next_hedge;
	struct cad_answer_view view;
	/* of one that is hedged: the shipments of the hedge, and how many of them have not
	 * answered */
	struct rt_shipment *hedges;
	uint32_t hedges_owed;
	uint32_t rows, pairs;
	uint64_t sent_awake_ns; /* rt_exchange_awake_ns */
	uint64_t late_awake_ns; /* when it is late; when it was, the next time to hedge it */
	uint32_t *row_index;    /* [rows_max]: rows of the batch */
	uint32_t *row_bytes;    /* [rows_max]: sent for the row */
	uint32_t *slots;        /* [rows_max * topk]: row * topk + slot in the work */
};

struct rt_exchange {
	struct cad_transport *transport;
	struct kn_queue *queue;
	const struct cad_model_spec *spec;
	enum cadre_row_type wire;
	uint32_t rows_max; /* of one shipment */
	uint64_t call_timeout_ns;
	/* How long this thread has polled, up to the last poll's end, and when the
	 * poll began that runs; 0: none */
	uint64_t awake_ns, poll_ns;
	struct rt_route_table routes;
	struct rt_shipment *shipments, *free_shipment, *spent_shipment;
	uint32_t shipments_count, shipments_used; /* used: neither free nor spent */
	/* Of calls, in RT_HEDGE_CALL: each that is sent brings hedge_share, each of a hedge
	 * takes a whole one. */
	uint64_t hedge_budget, hedge_share;
	uint16_t *hedge_nodes; /* [rows_max * topk] scratch: where the pairs of a shipment may also go */
	uint64_t freed;        /* goes up when shipments or credit are free again */
	enum rt_absent_policy absent;
	int64_t *zeros;      /* [H]; host */
	uint32_t *expert_at; /* [E + 1] scratch of the counting sort */
	struct rt_exchange_stats stats;
	/* Runs between polls of a wait: the engine takes its commands here (cancellations,
	 * maps). */
	void (*idle)(void *context);
	void *idle_context;
};

struct rt_exchange_options {
	struct cad_transport *transport;
	struct kn_queue *queue;
	const struct cad_model_spec *spec;
	enum cadre_row_type wire;
	uint32_t rows_max, shipments_max;
	uint32_t call_timeout_ms;
	enum rt_absent_policy absent;
	double hedge_max;        /* calls of hedges, as a part of all others; 0: none */
	uint64_t breaker_p99_ns; /* a node whose calls take longer is left out; 0: no time is too long */
	void (*idle)(void *context);
	void *idle_context;
};

/* So much of the budget can be saved up; an exchange begins with it, since what a young one has
 * sent so far would not pay for one hedge. */
static inline uint64_t rt_hedge_budget_max(const struct rt_exchange *exchange)
{
	return (uint64_t)exchange->shipments_count / 2 * RT_HEDGE_CALL;
}

CAD_MUST_USE enum cad_status rt_exchange_init(
	struct rt_exchange *exchange, const struct rt_exchange_options *options, struct cad_error *error);
/* Destroys the transport too: calls in flight end inside. */
void rt_exchange_fini(struct rt_exchange *exchange);
/* One that is free, for a work; NULL: none is, even after what is spent was made free. */
struct rt_shipment *rt_shipment_take(struct rt_exchange *exchange, struct rt_work *work, struct rt_peer *peer);
/* One more pair: row * topk + slot in the work; rows ascend. */
void rt_shipment_add(struct rt_shipment *shipment, uint32_t at);
/* How many rows one to this peer may carry. */
uint32_t rt_shipment_rows_max(const struct rt_exchange *exchange, const struct rt_peer *peer);
/* It was not sent. */
void rt_shipment_give_back(struct rt_shipment *shipment);
/* It leaves its work; when its call is over, too, it is spent. */
void rt_shipment_leave(struct rt_shipment *shipment);
/* Waits for the device, when shipments are spent, and makes them free. */
void rt_shipments_reclaim(struct rt_exchange *exchange);
/* cad_transport_poll; whoever has an exchange polls its transport by this alone. */
size_t rt_exchange_poll(struct rt_exchange *exchange, uint64_t until_ns);
/* A clock that runs while the transport is polled, and stands still while this thread computes:
 * what a node may have answered all the while does not count as its time. */
uint64_t rt_exchange_awake_ns(const struct rt_exchange *exchange);
/* The same, when the transport's clock says this. */
uint64_t rt_exchange_awake_at(const struct rt_exchange *exchange, uint64_t now_ns);

/* The open pairs of a row (of the work) are owed nothing any longer; those that are
 * under way end by their calls. */
void rt_work_forget(struct rt_work *work, uint32_t row);

#endif
