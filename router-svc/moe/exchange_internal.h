/* Shared by dispatch.c (rows out) and combine.c (sums back). */
#ifndef CADRE_ROUTER_SVC_MOE_EXCHANGE_INTERNAL_H
#define CADRE_ROUTER_SVC_MOE_EXCHANGE_INTERNAL_H

#include "router-svc/moe/exchange.h"

/* One call and its two buffers; taken from exchange->free_call, put back when its answer (or
 * failure) was dealt with. */
struct rt_moe_call {
	struct rt_exchange *exchange;
	struct rt_moe_call *next;
	struct cad_buffer payload, answer;
	struct rt_work *work;
	struct rt_peer *peer;
	uint32_t rows, pairs;
	uint32_t *row_index; /* [rows_max]: rows of the batch */
	uint32_t *row_bytes; /* [rows_max]: sent for the row */
	uint32_t *slots;     /* [rows_max * topk]: row * topk + slot in the work */
};

/* combine.c: what the transport calls when a call ended. */
void rt_moe_call_done(void *context, struct cad_call *call, enum cad_status status, const struct cad_answer_view *view);
/* dispatch.c: sends what is open and has a node. */
void rt_dispatch_open(struct rt_exchange *exchange, struct rt_work *work);

#endif
