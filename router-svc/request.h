/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests to the router's engine, and its events: types without functions. Every part of
 * router-svc may include this; it knows none of them.
 *
 * Who owns what until when. A request and its arrays are the caller's: submit copies what it needs,
 * and they may go when it returns. `context` is the caller's until the last event, FINISHED or
 * FAILED, exactly one of which comes. An event, and everything that it points to, is valid during
 * the call of its handler; to keep something, copy it there.
 */
#ifndef CADRE_ROUTER_SVC_REQUEST_H
#define CADRE_ROUTER_SVC_REQUEST_H

#include "common/base/status.h"
#include "kernels/sample.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { RT_STOP_IDS_MAX = 64 };

struct rt_request {
	const int32_t *prompt; /* [prompt_count], at least one, each in [0, V) */
	size_t prompt_count;
	/* [received_count]: an answer whose stream broke goes on after these tokens of it, with the
	 * digest after the last of them. They are computed like a prompt, give no events, and count
	 * in usage; none: from the beginning */
	const int32_t *received;
	size_t received_count;
	uint8_t received_digest[16];
	uint32_t max_tokens; /* after the received ones; 0: until end-of-sequence or the context is full */
	bool ignore_eos;
	struct kn_sampling sampling;
	/* [stop_ids_count]; the id that stops is returned as the last token, and gives no text */
	const int32_t *stop_ids;
	size_t stop_ids_count;
	bool want_routing;    /* RT_EVENT_ROUTING for every computed token */
	bool want_logits;     /* RT_EVENT_LOGITS for every computed token: evaluation; see keep_logits */
	bool trial;           /* nobody's: counted apart, in a place of its own; one at a time */
	uint64_t deadline_ns; /* engine clock; 0: none */
	void *context;        /* comes back in every event */
};

enum rt_event_kind { RT_EVENT_TOKEN, RT_EVENT_ROUTING, RT_EVENT_LOGITS, RT_EVENT_FINISHED, RT_EVENT_FAILED };
enum rt_finish_reason { RT_FINISH_LENGTH, RT_FINISH_STOP };

struct rt_usage {
	uint32_t prompt_tokens, generated_tokens;
	uint64_t first_token_us, total_us;   /* since submit; the first after those received */
	uint64_t nodes_touched, routed_rows; /* over (token, MoE layer); computed rows only */
	uint64_t bytes_sent, bytes_received; /* this request's share of rows and sums */
	uint64_t dropped, spilled;           /* (token, layer, slot) */
	uint64_t calls_hedged, hedges_won;   /* calls with rows of this request (moe/hedge.h) */
	uint64_t rows_diverted;              /* (token, MoE layer): kept from a node that is left out */
	uint64_t absent_slots, absent_rows;  /* (token, layer, slot); (token, layer) with no expert left */
	uint32_t recomputed_tokens;          /* after losing KV pages, or a rotation */
};

struct rt_event {
	enum rt_event_kind kind;
	uint64_t request; /* the id that submit gave */
	void *context;
	struct rt_usage usage;        /* so far */
	uint8_t digest[16];           /* after the last token so far */
	int32_t token;                /* TOKEN */
	bool is_text;                 /* TOKEN; false: an end-of-sequence or stop id */
	bool is_last;                 /* TOKEN; FINISHED follows at once */
	enum rt_finish_reason reason; /* FINISHED: the last event of the request */
	/* FAILED: the last event of the request; ERR_CANCELLED, ERR_DEADLINE, ERR_NOT_FINITE,
	 * ... */
	enum cad_status status;
	const char *text; /* FAILED: a sentence */
	/* ROUTING and LOGITS: rows for positions first_position .. + rows - 1. Arrays by MoE layer
	 * have layer_stride rows between one layer and the next */
	uint32_t first_position, rows, layer_stride;
	uint32_t moe_layers, experts, topk;
	const uint32_t *layers;     /* [moe_layers]: index in the model */
	const int32_t *ids;         /* [moe_layers][rows][topk]; -1 for a dropped slot */
	const float *weights;       /* [moe_layers][rows][topk]; 0 for a dropped slot */
	const char *const *nodes;   /* [moe_layers][rows][topk]: node ids; NULL: none */
	const float *router_logits; /* LOGITS: [moe_layers][rows][experts] */
	const float *logits;        /* LOGITS: [rows][logits_stride] */
	uint32_t logits_stride;
};
typedef void rt_event_fn(void *user, const struct rt_event *event);

#endif
