/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A router's front end over a real port with an engine that a test plays: it sees what is
 * submitted, cancelled and paused, and sends the events that it wants to, from the test's thread or
 * from one of its own. The checkpoint is a golden one.
 */
#ifndef CADRE_TESTS_SUPPORT_FAKE_ROUTER_H
#define CADRE_TESTS_SUPPORT_FAKE_ROUTER_H

#include "cadre/v1/inference.pb-c.h"
#include "router-svc/frontend/frontend.h"
#include "tests/support/rpc_fixture.h"

#define FAKE_MODEL CADRE_SOURCE_DIR "/tests/golden/mixtral-a/model"

enum { FAKE_CONTEXT = 300, FAKE_REQUESTS_MAX = 64 };
enum { FAKE_LAYERS = 4, FAKE_TOPK = 2, FAKE_STRIDE = 400 }; /* of fake_routing */

extern struct cad_model *fake_model;
extern struct cad_tokenizer *fake_tokenizer;
/* Group set-up and tear-down of cmocka. */
int fake_model_open(void **state);
int fake_model_close(void **state);

/* ---- the engine ---- */

struct fake_request {
	void *context;
	uint64_t id, deadline_ns;
	int32_t prompt[FAKE_CONTEXT];
	size_t prompt_count;
	int32_t received[FAKE_CONTEXT];
	size_t received_count;
	uint8_t received_digest[16];
	uint32_t max_tokens;
	struct kn_sampling sampling;
	bool want_routing, trial;
	atomic_bool cancelled, paused;
	unsigned pauses;
	uint32_t generated; /* with those received */
	bool over;
};

struct fake {
	struct fake_request requests[FAKE_REQUESTS_MAX];
	_Atomic uint32_t count;
	uint32_t limit;
	bool submitted;
	uint64_t advanced_ns; /* what the engine says of its last computation; 0: none */
	uint64_t ahead_ns;    /* its clock, of the system's */
	struct cad_clock clock;
};

/* What the engine says about a request. Usage and digest are functions of the tokens generated so
 * far. */
void fake_token(struct fake_request *request, int32_t token);
void fake_last_token(struct fake_request *request, int32_t token); /* one that ends the answer */
void fake_finish(struct fake_request *request, enum rt_finish_reason reason);
void fake_fail(struct fake_request *request, enum cad_status status, const char *text);
/* Rows from `first` on, at most FAKE_STRIDE; adds what a client should see to *sum
 * (fake_answer.routing_sum). */
void fake_routing(struct fake_request *request, uint32_t first, uint32_t rows, uint64_t *sum);

/* ---- a router ---- */

struct fake_router {
	struct rpc_fixture rpc;
	struct fake fake;
	struct rt_frontend *frontend;
	bool gone;
};

void fake_router_open(struct fake_router *router);
/* Without reactor, model, engine and settings, which are filled. */
void fake_router_open_with(struct fake_router *router, struct rt_frontend_options options);
/* Every request ends, as the engine's contract says, before everything goes. */
void fake_router_close(struct fake_router *router);
void fake_router_gone(void *context); /* for rt_frontend_drain: sets gone of the router that it is given */

/* ---- a client ---- */

/* Checks each message as it comes, and gathers. */
struct fake_answer {
	struct rpc_result result;
	int32_t ids[2000];
	size_t ids_count;
	char text[20000], bytes[20000]; /* `text` and `text_bytes` of all messages */
	size_t bytes_count;
	bool finished, something, first;
	Cadre__V1__FinishReason reason;
	char digest[40], digest_so_far[40], fingerprint[100], policy[16];
	uint32_t prompt_tokens, generated_tokens;
	uint64_t dropped;
	float factor;
	uint32_t routing_rows, next_position;
	uint64_t routing_sum;
	unsigned routing_messages;
};

void fake_request_of_text(Cadre__V1__GenerateRequest *request, const char *text);
void fake_answer_start(struct fake_router *router, const Cadre__V1__GenerateRequest *request,
	const struct cad_rpc_call_options *options, struct fake_answer *answer);
/* A request that is admitted; returns the engine's side of it. */
struct fake_request *fake_admitted(struct fake_router *router, const Cadre__V1__GenerateRequest *request,
	const struct cad_rpc_call_options *options, struct fake_answer *answer);
/* Without special tokens. */
void fake_ids_of(const char *text, struct cad_ids *ids);

#endif
