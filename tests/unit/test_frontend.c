/*
 * The router's front end over a real port, with an engine that this test plays: it sees what is submitted, cancelled and paused, and sends the events that
 * it wants to, from this thread or from one of its own.
 */
#include "router-svc/frontend/frontend.h"
#include "cadre/v1/inference.pb-c.h"
#include "grpc/health/v1/health.pb-c.h"
#include "tests/support/rpc_fixture.h"

#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define MODEL CADRE_SOURCE_DIR "/tests/golden/mixtral-a/model"
#define GENERATE "/cadre.v1.Inference/Generate"

enum { CONTEXT = 300, REQUESTS_MAX = 64 };

/* --- the engine --- */

struct fake_request {
	void *context;
	uint64_t id, deadline_ns;
	int32_t prompt[CONTEXT];
	size_t prompt_count;
	uint32_t max_tokens;
	struct kn_sampling sampling;
	bool want_routing;
	atomic_bool cancelled, paused;
	unsigned pauses;
	uint32_t generated;
	bool over;
};

struct fake {
	struct fake_request requests[REQUESTS_MAX];
	_Atomic uint32_t count;
	uint32_t limit;
	bool submitted;
};

static enum cad_status fake_submit(void *engine, const struct rt_request *request, uint64_t *id, struct cad_error *error)
{
	struct fake *fake = engine;
	uint32_t index = atomic_load(&fake->count);
	if (index >= fake->limit)
		return cad_error_set(error, CAD_ERR_EXHAUSTED, "%u requests are the limit", fake->limit);
	struct fake_request *copy = &fake->requests[index];
	copy->context = request->context;
	copy->id = *id = index + 100;
	copy->deadline_ns = request->deadline_ns;
	copy->prompt_count = request->prompt_count;
	memcpy(copy->prompt, request->prompt, request->prompt_count * sizeof *copy->prompt);
	copy->max_tokens = request->max_tokens;
	copy->sampling = request->sampling;
	copy->want_routing = request->want_routing;
	atomic_store(&fake->count, index + 1);
	fake->submitted = true;
	return CAD_OK;
}

static struct fake_request *fake_find(struct fake *fake, uint64_t id)
{
	assert_true(id >= 100 && id < 100 + REQUESTS_MAX);
	return &fake->requests[id - 100];
}

static void fake_cancel(void *engine, uint64_t id) { atomic_store(&fake_find(engine, id)->cancelled, true); }

static void fake_pause(void *engine, uint64_t id, bool paused)
{
	struct fake_request *request = fake_find(engine, id);
	request->pauses += paused;
	atomic_store(&request->paused, paused);
}

static struct rt_event fake_event(const struct fake_request *request, enum rt_event_kind kind)
{
	struct rt_event event = { .kind = kind, .request = request->id, .context = request->context };
	event.usage.prompt_tokens = (uint32_t)request->prompt_count;
	event.usage.generated_tokens = request->generated;
	event.usage.first_token_us = 5;
	event.usage.total_us = 10 * request->generated;
	event.usage.dropped = 2 * request->generated;
	memset(event.digest, (int)request->generated, sizeof event.digest);
	return event;
}

static void fake_token(struct fake_request *request, int32_t token)
{
	request->generated++;
	struct rt_event event = fake_event(request, RT_EVENT_TOKEN);
	event.token = token;
	rt_frontend_on_event(NULL, &event);
}

static void fake_finish(struct fake_request *request, enum rt_finish_reason reason)
{
	struct rt_event event = fake_event(request, RT_EVENT_FINISHED);
	event.reason = reason;
	request->over = true;
	rt_frontend_on_event(NULL, &event);
}

static void fake_fail(struct fake_request *request, enum cad_status status, const char *text)
{
	struct rt_event event = fake_event(request, RT_EVENT_FAILED);
	event.status = status;
	event.text = text;
	request->over = true;
	rt_frontend_on_event(NULL, &event);
}

/* --- a router --- */

static struct cad_model *model;
static struct cad_tokenizer *tokenizer;

struct router {
	struct rpc_fixture rpc;
	struct fake fake;
	struct rt_frontend *frontend;
	bool gone;
};

static void router_open_with(struct router *router, struct rt_frontend_options options)
{
	struct cad_error error;
	uint16_t port;
	memset(router, 0, sizeof *router);
	rpc_fixture_open_loop(&router->rpc);
	router->fake.limit = REQUESTS_MAX;
	options.reactor = router->rpc.reactor;
	options.model = model;
	options.settings_fingerprint = "abc";
	options.engine = (struct rt_frontend_engine){ &router->fake, fake_submit, fake_cancel, fake_pause, &cad_clock_system, CONTEXT };
	assert_int_equal(rt_frontend_create(&options, &router->frontend, &error), CAD_OK);
	assert_int_equal(rt_frontend_listen(router->frontend, "127.0.0.1:0", NULL, &port, &error), CAD_OK);
	rt_frontend_start(router->frontend);
	rt_frontend_set_serving(router->frontend, true);
	rpc_fixture_connect(&router->rpc, port, NULL, NULL);
}

static void router_open(struct router *router)
{
	router_open_with(router, (struct rt_frontend_options){ .tokenizer = tokenizer, .capacity_policy = RT_CAPACITY_DROP, .capacity_factor = 1.5f });
}

static void router_gone(void *context) { ((struct router *)context)->gone = true; }

/* Every request ends, as the engine's contract says, before everything goes. */
static void router_close(struct router *router)
{
	rt_frontend_drain(router->frontend, 0, router_gone, router);
	rpc_run_until(&router->rpc, &router->gone);
	for (uint32_t i = 0; i < router->fake.count; i++)
		if (!router->fake.requests[i].over)
			fake_fail(&router->fake.requests[i], CAD_ERR_CANCELLED, "the engine stops");
	rpc_fixture_close(&router->rpc);
	assert_int_equal(rt_frontend_streams(router->frontend), 0);
	rt_frontend_destroy(router->frontend);
}

/* --- a client --- */

struct answer {
	struct rpc_result result;
	int32_t ids[2000];
	size_t ids_count;
	char text[20000];
	bool finished, something, first;
	Cadre__V1__FinishReason reason;
	char digest[40], policy[16];
	uint32_t prompt_tokens, generated_tokens;
	uint64_t dropped;
	float factor;
	uint32_t routing_rows, next_position;
	uint64_t routing_sum;
	unsigned routing_messages;
};

static void answer_routing(struct answer *answer, const Cadre__V1__GenerateResponse *response)
{
	answer->routing_messages += response->n_routing > 0;
	for (size_t i = 0; i < response->n_routing; i++) {
		const Cadre__V1__TokenRouting *row = response->routing[i];
		assert_int_equal(row->position, answer->next_position++);
		answer->routing_rows++;
		for (size_t j = 0; j < row->n_layers; j++) {
			const Cadre__V1__LayerRouting *layer = row->layers[j];
			assert_true(layer->n_experts == layer->n_weights && layer->n_experts == layer->n_nodes);
			for (size_t k = 0; k < layer->n_experts; k++) {
				char name[32];
				snprintf(name, sizeof name, "node-%u", layer->experts[k] % 3);
				assert_string_equal(layer->nodes[k], layer->experts[k] == 5 ? "" : name);
				assert_true(layer->weights[k] == (float)layer->experts[k] / 8);
				answer->routing_sum += row->position * 100 + layer->layer * 10 + layer->experts[k];
			}
		}
	}
}

static void answer_message(struct rpc_result *result, const ProtobufCMessage *message)
{
	struct answer *answer = (struct answer *)result;
	const Cadre__V1__GenerateResponse *response = (const Cadre__V1__GenerateResponse *)message;
	assert_false(answer->finished);
	answer->something = true;
	assert_true(answer->ids_count + response->n_token_ids <= sizeof answer->ids / sizeof answer->ids[0]);
	if (response->n_token_ids > 0)
		memcpy(answer->ids + answer->ids_count, response->token_ids, response->n_token_ids * sizeof(int32_t));
	answer->ids_count += response->n_token_ids;
	assert_true(strlen(answer->text) + strlen(response->text) < sizeof answer->text);
	strcat(answer->text, response->text);
	answer_routing(answer, response);
	if (response->finish_reason) {
		answer->finished = true;
		answer->reason = response->finish_reason;
		snprintf(answer->digest, sizeof answer->digest, "%s", response->digest);
		snprintf(answer->policy, sizeof answer->policy, "%s", response->capacity->policy);
		answer->factor = response->capacity->factor;
		answer->dropped = response->capacity->dropped;
		answer->prompt_tokens = response->usage->prompt_tokens;
		answer->generated_tokens = response->usage->generated_tokens;
	} else {
		assert_true(!response->usage && !response->capacity && !*response->digest);
	}
}

static void answer_start(struct router *router, const Cadre__V1__GenerateRequest *request, const struct cad_rpc_call_options *options, struct answer *answer)
{
	memset(answer, 0, sizeof *answer);
	answer->result.on_message = answer_message;
	rpc_start(&router->rpc, GENERATE, &request->base, &cadre__v1__generate_response__descriptor, options, &answer->result);
}

/* A request that is admitted; returns the engine's side of it. */
static struct fake_request *admitted(struct router *router, const Cadre__V1__GenerateRequest *request, const struct cad_rpc_call_options *options, struct answer *answer)
{
	router->fake.submitted = false;
	answer_start(router, request, options, answer);
	rpc_run_until(&router->rpc, &router->fake.submitted);
	return &router->fake.requests[router->fake.count - 1];
}

static void request_of_text(Cadre__V1__GenerateRequest *request, const char *text)
{
	cadre__v1__generate_request__init(request);
	request->prompt_case = CADRE__V1__GENERATE_REQUEST__PROMPT_TEXT;
	request->text = (char *)(uintptr_t)text;
}

static void ids_of(const char *text, struct cad_ids *ids)
{
	struct cad_error error;
	*ids = (struct cad_ids){ 0 };
	assert_int_equal(cad_tokenizer_encode(tokenizer, text, strlen(text), false, SIZE_MAX, ids, &error), CAD_OK);
}

/* --- tests --- */

static void bad_requests(void **state)
{
	(void)state;
	struct router router;
	router_open(&router);
	uint32_t vocab = cad_model_spec(model)->vocab;
	int32_t good[CONTEXT] = { 1, 2, 3 }, outside[] = { 1, (int32_t)vocab, 3 }, negative[] = { -1 }, many[65] = { 0 };
	char *stops[17], *empty[] = { "x", "" }, huge[302], *too_long[] = { huge };
	memset(huge, 'x', sizeof huge);
	huge[301] = 0;
	for (size_t i = 0; i < 17; i++)
		stops[i] = "x";
	Cadre__V1__Tokens tokens = CADRE__V1__TOKENS__INIT;
	Cadre__V1__Sampling sampling = CADRE__V1__SAMPLING__INIT;
	char long_text[20001] = { 0 };
	for (size_t i = 0; i < sizeof long_text - 1; i++)
		long_text[i] = i % 2 ? 'a' : ' ';
	char outside_sentence[200];
	snprintf(outside_sentence, sizeof outside_sentence, "tokens.ids[1] is %u, but this model's vocabulary has %u ids, from 0 to %u", vocab, vocab, vocab - 1);
	for (int i = 0;; i++) {
		Cadre__V1__GenerateRequest request;
		request_of_text(&request, "hello");
		sampling = (Cadre__V1__Sampling)CADRE__V1__SAMPLING__INIT;
		tokens = (Cadre__V1__Tokens){ tokens.base, 3, good };
		const char *sentence;
		switch (i) {
		case 0: request.prompt_case = 0; sentence = "the request has no prompt: set `text` or `tokens`"; break;
		case 1: request.text = ""; sentence = "the prompt is empty"; break;
		case 2: request.prompt_case = CADRE__V1__GENERATE_REQUEST__PROMPT_TOKENS; request.tokens = &tokens; tokens.n_ids = 0; sentence = "the prompt is empty"; break;
		case 3: request.prompt_case = CADRE__V1__GENERATE_REQUEST__PROMPT_TOKENS; request.tokens = &tokens; tokens.ids = outside; sentence = outside_sentence; break;
		case 4: request.prompt_case = CADRE__V1__GENERATE_REQUEST__PROMPT_TOKENS; request.tokens = &tokens; tokens.ids = negative; tokens.n_ids = 1; sentence = "tokens.ids[0] is -1"; break;
		case 5: request.prompt_case = CADRE__V1__GENERATE_REQUEST__PROMPT_TOKENS; request.tokens = &tokens; tokens.n_ids = CONTEXT; sentence = "the prompt has 300 tokens, but prompt and answer together may have at most 300 here"; break;
		case 6: request.text = long_text; sentence = "the prompt has more than 299 tokens, but prompt and answer together may have at most 300 here"; break;
		case 7: request.prompt_case = CADRE__V1__GENERATE_REQUEST__PROMPT_TOKENS; request.tokens = &tokens; request.max_tokens = 298; sentence = "max_tokens is 298, but after a prompt of 3 tokens there is room for 297"; break;
		case 8: request.sampling = &sampling; sampling.temperature = -1; sentence = "sampling.temperature is -1; it must be 0 (greedy) or a positive number"; break;
		case 9: request.sampling = &sampling; sampling.temperature = NAN; sentence = "sampling.temperature is nan"; break;
		case 10: request.sampling = &sampling; sampling.temperature = INFINITY; sentence = "sampling.temperature is inf"; break;
		case 11: request.sampling = &sampling; sampling.top_p = 1.5f; sentence = "sampling.top_p is 1.5; it must be from 0 (off) to 1"; break;
		case 12: request.sampling = &sampling; sampling.min_p = -0.5f; sentence = "sampling.min_p is -0.5"; break;
		case 13: request.stop = stops; request.n_stop = 17; sentence = "17 stop strings are more than the limit of 16"; break;
		case 14: request.stop = empty; request.n_stop = 2; sentence = "stop[1] has 0 bytes; a stop string may have 1 to 256"; break;
		case 15: request.stop = too_long; request.n_stop = 1; sentence = "stop[0] has 301 bytes"; break;
		case 16: request.stop_ids = many; request.n_stop_ids = 65; sentence = "65 stop ids are more than the limit of 64"; break;
		case 17: request.stop_ids = outside; request.n_stop_ids = 2; sentence = "stop_ids[1] is "; break;
		default: sentence = NULL;
		}
		if (!sentence)
			break;
		struct answer answer;
		answer_start(&router, &request, NULL, &answer);
		rpc_run_until(&router.rpc, &answer.result.done);
		assert_int_equal(answer.result.code, CAD_RPC_INVALID_ARGUMENT);
		if (!strstr(answer.result.text, sentence))
			fail_msg("case %d: %s", i, answer.result.text);
	}
	assert_int_equal(router.fake.count, 0);
	router_close(&router);
}

static void an_answer(void **state)
{
	(void)state;
	static const char text[] = "Hello, w\xc3\xb6rld! \xf0\x9f\x98\x80 \xe4\xbd\xa0\xe5\xa5\xbd and so on.";
	struct router router;
	router_open(&router);
	Cadre__V1__GenerateRequest request;
	request_of_text(&request, "once upon a time");
	request.max_tokens = 77;
	Cadre__V1__Sampling sampling = CADRE__V1__SAMPLING__INIT;
	sampling = (Cadre__V1__Sampling){ sampling.base, 0.5f, 7, 0.25f, 0.125f, 1ull << 63 };
	request.sampling = &sampling;
	struct answer answer;
	struct fake_request *engine = admitted(&router, &request, NULL, &answer);
	assert_int_equal(rt_frontend_streams(router.frontend), 1);
	/* the prompt has the post-processor's special tokens */
	struct cad_ids prompt = { 0 }, ids;
	struct cad_error error;
	assert_int_equal(cad_tokenizer_encode(tokenizer, "once upon a time", 16, true, SIZE_MAX, &prompt, &error), CAD_OK);
	assert_int_equal(engine->prompt_count, prompt.count);
	assert_memory_equal(engine->prompt, prompt.ids, prompt.count * sizeof *prompt.ids);
	assert_int_equal(engine->max_tokens, 77);
	assert_true(engine->sampling.temperature == 0.5f && engine->sampling.top_k == 7 && engine->sampling.top_p == 0.25f && engine->sampling.min_p == 0.125f &&
	            engine->sampling.seed == 1ull << 63);
	assert_int_equal(engine->deadline_ns, 0);
	ids_of(text, &ids);
	for (size_t i = 0; i < ids.count; i++) {
		fake_token(engine, ids.ids[i]);
		answer.something = false;
		rpc_run_until(&router.rpc, &answer.something);   /* a token leaves as soon as it is there */
		assert_int_equal(answer.ids_count, i + 1);
		assert_true(strncmp(answer.text, text, strlen(answer.text)) == 0 || i == 0);
	}
	fake_finish(engine, RT_FINISH_LENGTH);
	rpc_run_until(&router.rpc, &answer.result.done);
	assert_int_equal(answer.result.code, CAD_RPC_OK);
	struct cad_text whole = { 0 };
	assert_int_equal(cad_tokenizer_decode(tokenizer, ids.ids, ids.count, true, &whole, &error), CAD_OK);
	assert_string_equal(answer.text, whole.bytes);
	assert_memory_equal(answer.ids, ids.ids, ids.count * sizeof *ids.ids);
	assert_true(answer.finished);
	assert_int_equal(answer.reason, CADRE__V1__FINISH_REASON__FINISH_REASON_LENGTH);
	assert_int_equal(answer.generated_tokens, ids.count);
	assert_int_equal(answer.prompt_tokens, prompt.count);
	char digest[33];
	for (size_t i = 0; i < 16; i++)
		snprintf(digest + 2 * i, 3, "%02x", (unsigned)ids.count);
	assert_string_equal(answer.digest, digest);
	assert_string_equal(answer.policy, "drop");
	assert_true(answer.factor == 1.5f && answer.dropped == 2 * ids.count);
	assert_false(engine->cancelled);
	assert_int_equal(rt_frontend_streams(router.frontend), 0);
	cad_text_fini(&whole);
	cad_ids_fini(&ids);
	cad_ids_fini(&prompt);
	router_close(&router);
}

/* The stop string lies across tokens; what comes after it is not the client's any more. */
static void stop_strings(void **state)
{
	(void)state;
	for (int at_once = 0; at_once < 2; at_once++) {
		struct router router;
		router_open(&router);
		Cadre__V1__GenerateRequest request;
		request_of_text(&request, "x");
		request.stop = (char *[]){ "never", "so much" };
		request.n_stop = 2;
		struct answer answer;
		struct fake_request *engine = admitted(&router, &request, NULL, &answer);
		struct cad_ids ids, before;
		ids_of("and so on, and so much more than this", &ids);
		ids_of("and so on, and so much", &before);
		for (size_t i = 0; i < ids.count; i++) {
			fake_token(engine, ids.ids[i]);
			answer.something = false;
			if (!at_once && !answer.finished)
				rpc_run_until(&router.rpc, &answer.something);
		}
		rpc_run_until(&router.rpc, &answer.result.done);
		assert_int_equal(answer.result.code, CAD_RPC_OK);
		assert_int_equal(answer.reason, CADRE__V1__FINISH_REASON__FINISH_REASON_STOP);
		const char *text = answer.text[0] == ' ' ? answer.text + 1 : answer.text;
		assert_string_equal(text, "and so on, and ");
		/* tokens, usage and digest up to the token that completed the stop string, and no further */
		assert_true(answer.ids_count < ids.count);
		assert_int_equal(answer.generated_tokens, answer.ids_count);
		char digest[3];
		snprintf(digest, sizeof digest, "%02x", (unsigned)answer.ids_count);
		assert_memory_equal(answer.digest, digest, 2);
		assert_true(engine->cancelled);
		cad_ids_fini(&ids);
		cad_ids_fini(&before);
		router_close(&router);
	}
}

static void stop_ids_have_no_text(void **state)
{
	(void)state;
	struct router router;
	router_open(&router);
	struct cad_ids ids;
	ids_of("one two", &ids);
	Cadre__V1__GenerateRequest request;
	request_of_text(&request, "x");
	request.stop_ids = &ids.ids[ids.count - 1];
	request.n_stop_ids = 1;
	struct answer answer;
	struct fake_request *engine = admitted(&router, &request, NULL, &answer);
	for (size_t i = 0; i < ids.count; i++)
		fake_token(engine, ids.ids[i]);
	fake_finish(engine, RT_FINISH_STOP);
	rpc_run_until(&router.rpc, &answer.result.done);
	assert_int_equal(answer.reason, CADRE__V1__FINISH_REASON__FINISH_REASON_STOP);
	assert_int_equal(answer.ids_count, ids.count);
	struct cad_text whole = { 0 };
	struct cad_error error;
	assert_int_equal(cad_tokenizer_decode(tokenizer, ids.ids, ids.count - 1, true, &whole, &error), CAD_OK);
	assert_string_equal(answer.text, whole.bytes ? whole.bytes : "");
	cad_text_fini(&whole);
	cad_ids_fini(&ids);
	router_close(&router);
}

/* A sequence that ends inside a character: the decoder's replacement for it comes with the last message. */
static void nothing_is_held_back_at_the_end(void **state)
{
	(void)state;
	struct router router;
	router_open(&router);
	struct cad_ids ids;
	ids_of("ab so \xf0\x9f\xa6\x84", &ids);   /* an animal that no small vocabulary has as one token */
	Cadre__V1__GenerateRequest request;
	request_of_text(&request, "x");
	request.stop = (char *[]){ "so much" };
	request.n_stop = 1;
	for (size_t count = 1; count <= ids.count; count++) {
		struct answer answer;
		struct fake_request *engine = admitted(&router, &request, NULL, &answer);
		for (size_t i = 0; i < count; i++)
			fake_token(engine, ids.ids[i]);
		fake_finish(engine, RT_FINISH_LENGTH);
		rpc_run_until(&router.rpc, &answer.result.done);
		struct cad_text whole = { 0 };
		struct cad_error error;
		assert_int_equal(cad_tokenizer_decode(tokenizer, ids.ids, count, true, &whole, &error), CAD_OK);
		assert_string_equal(answer.text, whole.bytes ? whole.bytes : "");
		assert_int_equal(answer.reason, CADRE__V1__FINISH_REASON__FINISH_REASON_LENGTH);
		cad_text_fini(&whole);
	}
	cad_ids_fini(&ids);
	router_close(&router);
}

static void a_client_that_goes(void **state)
{
	(void)state;
	struct router router;
	router_open(&router);
	Cadre__V1__GenerateRequest request;
	request_of_text(&request, "x");
	struct answer answer;
	/* by cancelling */
	struct fake_request *engine = admitted(&router, &request, NULL, &answer);
	fake_token(engine, 5);
	rpc_run_until(&router.rpc, &answer.something);
	cad_rpc_client_cancel(answer.result.call);
	rpc_run_until(&router.rpc, &answer.result.done);
	assert_int_equal(answer.result.code, CAD_RPC_CANCELLED);
	while (rt_frontend_streams(router.frontend) > 0) {
		struct answer probe;   /* something that keeps the loop turning */
		cadre__v1__generate_request__init(&request);
		answer_start(&router, &request, NULL, &probe);
		rpc_run_until(&router.rpc, &probe.result.done);
	}
	assert_true(engine->cancelled);
	fake_token(engine, 5);   /* was under way */
	fake_fail(engine, CAD_ERR_CANCELLED, "cancelled");
	/* by its deadline, which the engine is told, too */
	request_of_text(&request, "x");
	uint64_t before = cad_clock_now_ns(&cad_clock_system);
	engine = admitted(&router, &request, &(struct cad_rpc_call_options){ .timeout_ms = 100 }, &answer);
	assert_in_range(engine->deadline_ns, before, cad_clock_now_ns(&cad_clock_system) + 200 * CAD_NS_PER_MS);
	rpc_run_until(&router.rpc, &answer.result.done);
	assert_int_equal(answer.result.code, CAD_RPC_DEADLINE_EXCEEDED);
	router_close(&router);
	assert_true(engine->cancelled);
}

static void failures_of_the_engine(void **state)
{
	(void)state;
	static const struct { enum cad_status status; enum cad_rpc_code code; } table[] = {
		{ CAD_ERR_DEADLINE, CAD_RPC_DEADLINE_EXCEEDED }, { CAD_ERR_NOT_FINITE, CAD_RPC_INTERNAL }, { CAD_ERR_UNREACHABLE, CAD_RPC_UNAVAILABLE },
		{ CAD_ERR_CANCELLED, CAD_RPC_UNAVAILABLE }, { CAD_ERR_EXHAUSTED, CAD_RPC_RESOURCE_EXHAUSTED },
	};
	struct router router;
	router_open(&router);
	Cadre__V1__GenerateRequest request;
	request_of_text(&request, "x");
	struct answer answer;
	for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
		struct fake_request *engine = admitted(&router, &request, NULL, &answer);
		fake_token(engine, 5);
		fake_fail(engine, table[i].status, "what happened, and what to change");
		rpc_run_until(&router.rpc, &answer.result.done);
		assert_int_equal(answer.result.code, table[i].code);
		assert_string_equal(answer.result.text, "what happened, and what to change");
		assert_int_equal(answer.ids_count, 1);   /* what there was came first */
	}
	router.fake.limit = router.fake.count;
	answer_start(&router, &request, NULL, &answer);
	rpc_run_until(&router.rpc, &answer.result.done);
	assert_int_equal(answer.result.code, CAD_RPC_RESOURCE_EXHAUSTED);
	assert_non_null(strstr(answer.result.text, "requests are the limit"));
	router_close(&router);
}

enum { LAYERS = 4, TOPK = 2, STRIDE = 400 };

static void fake_routing(struct fake_request *request, uint32_t first, uint32_t rows, uint64_t *sum)
{
	static int32_t ids[LAYERS * STRIDE * TOPK];
	static float weights[LAYERS * STRIDE * TOPK];
	static const char *nodes[LAYERS * STRIDE * TOPK];
	static char names[3][8] = { "node-0", "node-1", "node-2" };
	static const uint32_t layers[LAYERS] = { 1, 2, 4, 7 };
	for (uint32_t layer = 0; layer < LAYERS; layer++)
		for (uint32_t row = 0; row < rows; row++)
			for (uint32_t k = 0; k < TOPK; k++) {
				size_t at = (layer * STRIDE + row) * TOPK + k;
				int32_t expert = (int32_t)((first + row + layer + 3 * k) % 7);
				bool dropped = expert == 6;
				ids[at] = dropped ? -1 : expert;
				weights[at] = dropped ? 0 : (float)expert / 8;
				nodes[at] = dropped || expert == 5 ? NULL : names[expert % 3];
				if (!dropped)
					*sum += (first + row) * 100 + layers[layer] * 10 + (uint32_t)expert;
			}
	struct rt_event event = fake_event(request, RT_EVENT_ROUTING);
	event.first_position = first;
	event.rows = rows;
	event.layer_stride = STRIDE;
	event.moe_layers = LAYERS;
	event.topk = TOPK;
	event.layers = layers;
	event.ids = ids;
	event.weights = weights;
	event.nodes = nodes;
	rt_frontend_on_event(NULL, &event);
}

static void routing_is_returned(void **state)
{
	(void)state;
	struct router router;
	router_open(&router);
	Cadre__V1__GenerateRequest request;
	request_of_text(&request, "x");
	request.return_routing = true;
	struct answer answer;
	struct fake_request *engine = admitted(&router, &request, NULL, &answer);
	assert_true(engine->want_routing);
	uint64_t sum = 0;
	uint32_t position = 0;
	while (position < 8 * STRIDE) {   /* a long prompt in chunks: several messages */
		fake_routing(engine, position, STRIDE, &sum);
		position += STRIDE;
	}
	for (int i = 0; i < 5; i++) {
		fake_token(engine, 5);
		fake_routing(engine, position++, 1, &sum);
	}
	fake_finish(engine, RT_FINISH_LENGTH);
	rpc_run_until(&router.rpc, &answer.result.done);
	assert_int_equal(answer.result.code, CAD_RPC_OK);
	assert_int_equal(answer.routing_rows, 8 * STRIDE + 5);
	assert_true(answer.routing_sum == sum);
	assert_true(answer.routing_messages >= 3);
	assert_int_equal(answer.ids_count, 5);
	router_close(&router);
}

static void a_slow_reader_is_paused(void **state)
{
	(void)state;
	struct router router;
	router_open(&router);
	Cadre__V1__GenerateRequest request;
	request_of_text(&request, "x");
	request.return_routing = true;   /* makes much of little: the reader's windows are large */
	struct answer slow, quick;
	struct fake_request *engine = admitted(&router, &request, NULL, &slow);
	slow.result.read_max = 1;   /* from now on it does not read */
	struct fake_request *other = admitted(&router, &request, NULL, &quick);
	/* The reader's windows, the call's queue and the ring fill up; then the sequence is paused, and stays so while the other goes on. */
	uint64_t sum = 0;
	uint32_t position = 0;
	for (int after = 0; after < 20; after += atomic_load(&engine->paused)) {
		if (!atomic_load(&engine->paused)) {
			fake_routing(engine, position, STRIDE, &sum);
			position += STRIDE;
			fake_token(engine, (int32_t)(3 + engine->generated % 100));
		}
		quick.something = false;
		fake_token(other, 5);
		rpc_run_until(&router.rpc, &quick.something);
		assert_true(quick.ids_count < 1500);
	}
	fake_token(engine, (int32_t)(3 + engine->generated % 100));   /* the step that was under way */
	assert_int_equal(engine->pauses, 1);
	assert_false(slow.result.done);
	assert_true(slow.ids_count + 64 < engine->generated);
	/* It reads again: the sequence goes on, and nothing was lost. */
	slow.result.read_max = 0;
	cad_rpc_client_read(slow.result.call);
	while (atomic_load(&engine->paused)) {
		slow.something = false;
		rpc_run_until(&router.rpc, &slow.something);
	}
	fake_finish(engine, RT_FINISH_LENGTH);
	rpc_run_until(&router.rpc, &slow.result.done);
	assert_int_equal(slow.result.code, CAD_RPC_OK);
	assert_int_equal(slow.ids_count, engine->generated);
	for (size_t i = 0; i < slow.ids_count; i++)
		assert_int_equal(slow.ids[i], 3 + i % 100);
	assert_int_equal(slow.routing_rows, position);
	assert_true(slow.routing_sum == sum);
	router_close(&router);
}

/* Routing alone can be too much, too: what waits for a reader is bounded in bytes. */
static void routing_that_nobody_reads_is_bounded(void **state)
{
	(void)state;
	struct router router;
	router_open(&router);
	Cadre__V1__GenerateRequest request;
	request_of_text(&request, "x");
	request.return_routing = true;
	struct answer slow;
	struct fake_request *engine = admitted(&router, &request, NULL, &slow);
	uint64_t sum = 0;
	uint32_t position = 0;
	for (; !atomic_load(&engine->paused); position += STRIDE) {
		fake_routing(engine, position, STRIDE, &sum);   /* faster than the reactor, which has no turn here */
		assert_true(position < 200 * STRIDE);
	}
	while (atomic_load(&engine->paused)) {
		slow.something = false;
		rpc_run_until(&router.rpc, &slow.something);
	}
	fake_token(engine, 5);
	fake_finish(engine, RT_FINISH_LENGTH);
	rpc_run_until(&router.rpc, &slow.result.done);
	assert_int_equal(slow.routing_rows, position);
	assert_true(slow.routing_sum == sum);
	router_close(&router);
}

static void tokens_of(struct rpc_result *result, const ProtobufCMessage *message)
{
	const Cadre__V1__TokenizeResponse *response = (const Cadre__V1__TokenizeResponse *)message;
	struct cad_ids *ids = result->user;
	ids->count = response->n_ids;
	ids->ids = malloc((ids->count + 1) * sizeof *ids->ids);
	memcpy(ids->ids, response->ids, ids->count * sizeof *ids->ids);
}

static void text_of(struct rpc_result *result, const ProtobufCMessage *message) { strcpy(result->user, ((const Cadre__V1__DetokenizeResponse *)message)->text); }

static void model_of(struct rpc_result *result, const ProtobufCMessage *message)
{
	(void)result;
	const Cadre__V1__GetModelResponse *response = (const Cadre__V1__GetModelResponse *)message;
	const struct cad_model_spec *spec = cad_model_spec(model);
	assert_string_equal(response->directory, MODEL);
	assert_string_equal(response->architecture, "mixtral");
	assert_string_equal(response->settings_fingerprint, "abc");
	assert_int_equal(strlen(response->fingerprint), 32);
	assert_int_equal(response->context_max, CONTEXT);
	assert_int_equal(response->vocab, spec->vocab);
	assert_int_equal(response->experts, spec->gate.experts);
	assert_int_equal(response->experts_per_token, spec->gate.topk);
	assert_int_equal(response->n_eos_ids, spec->eos_ids_count);
	assert_true(response->parameters > response->active_parameters && response->active_parameters > 0);
}

static void other_methods(void **state)
{
	(void)state;
	struct router router;
	router_open(&router);
	Cadre__V1__TokenizeRequest tokenize = CADRE__V1__TOKENIZE_REQUEST__INIT;
	Cadre__V1__DetokenizeRequest detokenize = CADRE__V1__DETOKENIZE_REQUEST__INIT;
	Cadre__V1__GetModelRequest get = CADRE__V1__GET_MODEL_REQUEST__INIT;
	tokenize.text = "Hello there";
	tokenize.no_special = true;
	struct cad_ids ids = { 0 }, expected;
	struct rpc_result result = { .on_message = tokens_of, .user = &ids };
	rpc_call(&router.rpc, "/cadre.v1.Inference/Tokenize", &tokenize.base, &cadre__v1__tokenize_response__descriptor, NULL, &result);
	assert_int_equal(result.code, CAD_RPC_OK);
	ids_of("Hello there", &expected);
	assert_int_equal(ids.count, expected.count);
	assert_memory_equal(ids.ids, expected.ids, ids.count * sizeof *ids.ids);
	char text[100] = "";
	result = (struct rpc_result){ .on_message = text_of, .user = text };
	detokenize.ids = ids.ids;
	detokenize.n_ids = ids.count;
	rpc_call(&router.rpc, "/cadre.v1.Inference/Detokenize", &detokenize.base, &cadre__v1__detokenize_response__descriptor, NULL, &result);
	assert_string_equal(text, "Hello there");
	ids.ids[0] = 1 << 30;
	result = (struct rpc_result){ 0 };
	rpc_call(&router.rpc, "/cadre.v1.Inference/Detokenize", &detokenize.base, &cadre__v1__detokenize_response__descriptor, NULL, &result);
	assert_int_equal(result.code, CAD_RPC_INVALID_ARGUMENT);
	result = (struct rpc_result){ .on_message = model_of };
	rpc_call(&router.rpc, "/cadre.v1.Inference/GetModel", &get.base, &cadre__v1__get_model_response__descriptor, NULL, &result);
	assert_int_equal(result.code, CAD_RPC_OK);
	assert_int_equal(result.messages, 1);
	cad_ids_fini(&ids);
	cad_ids_fini(&expected);
	router_close(&router);
}

/* Texts that take long are tokenized beside the reactor. */
static void long_texts(void **state)
{
	(void)state;
	enum { BYTES = 30000 };
	struct router router;
	router_open(&router);
	char *text = malloc(BYTES + 1);
	for (size_t i = 0; i < BYTES; i++)
		text[i] = (char)(i % 7 == 6 ? ' ' : 'a' + i % 11);
	text[BYTES] = 0;
	Cadre__V1__TokenizeRequest tokenize = CADRE__V1__TOKENIZE_REQUEST__INIT;
	tokenize.text = text;
	tokenize.no_special = true;
	struct cad_ids ids = { 0 }, expected;
	struct rpc_result slow = { .on_message = tokens_of, .user = &ids }, gone = { 0 }, quick = { 0 };
	rpc_start(&router.rpc, "/cadre.v1.Inference/Tokenize", &tokenize.base, &cadre__v1__tokenize_response__descriptor, NULL, &slow);
	rpc_start(&router.rpc, "/cadre.v1.Inference/Tokenize", &tokenize.base, &cadre__v1__tokenize_response__descriptor,
	          &(struct cad_rpc_call_options){ .timeout_ms = 5 }, &gone);   /* may be over before its text is done */
	Cadre__V1__GetModelRequest get = CADRE__V1__GET_MODEL_REQUEST__INIT;
	rpc_call(&router.rpc, "/cadre.v1.Inference/GetModel", &get.base, &cadre__v1__get_model_response__descriptor, NULL, &quick);
	assert_int_equal(quick.code, CAD_RPC_OK);
	rpc_run_until(&router.rpc, &slow.done);
	rpc_run_until(&router.rpc, &gone.done);
	assert_int_equal(slow.code, CAD_RPC_OK);
	ids_of(text, &expected);
	assert_int_equal(ids.count, expected.count);
	assert_memory_equal(ids.ids, expected.ids, ids.count * sizeof *ids.ids);
	/* and back */
	Cadre__V1__DetokenizeRequest detokenize = CADRE__V1__DETOKENIZE_REQUEST__INIT;
	detokenize.ids = ids.ids;
	detokenize.n_ids = ids.count;
	char *back = calloc(1, BYTES + 100);
	struct rpc_result result = { .on_message = text_of, .user = back };
	rpc_call(&router.rpc, "/cadre.v1.Inference/Detokenize", &detokenize.base, &cadre__v1__detokenize_response__descriptor, NULL, &result);
	assert_string_equal(back, text);
	/* a prompt: too long for the context; and one whose client does not wait, at the very end of the router */
	Cadre__V1__GenerateRequest request;
	request_of_text(&request, text);
	struct answer refused, abandoned;
	answer_start(&router, &request, NULL, &refused);
	rpc_run_until(&router.rpc, &refused.result.done);
	assert_int_equal(refused.result.code, CAD_RPC_INVALID_ARGUMENT);
	answer_start(&router, &request, &(struct cad_rpc_call_options){ .timeout_ms = 5 }, &abandoned);
	rpc_run_until(&router.rpc, &abandoned.result.done);
	router_close(&router);
	cad_ids_fini(&ids);
	cad_ids_fini(&expected);
	free(back);
	free(text);
}

static void without_a_tokenizer(void **state)
{
	(void)state;
	struct router router;
	router_open_with(&router, (struct rt_frontend_options){ 0 });
	Cadre__V1__GenerateRequest request;
	request_of_text(&request, "x");
	struct answer answer;
	answer_start(&router, &request, NULL, &answer);
	rpc_run_until(&router.rpc, &answer.result.done);
	assert_int_equal(answer.result.code, CAD_RPC_FAILED_PRECONDITION);
	assert_non_null(strstr(answer.result.text, "no tokenizer.json"));
	Cadre__V1__TokenizeRequest tokenize = CADRE__V1__TOKENIZE_REQUEST__INIT;
	struct rpc_result result = { 0 };
	rpc_call(&router.rpc, "/cadre.v1.Inference/Tokenize", &tokenize.base, &cadre__v1__tokenize_response__descriptor, NULL, &result);
	assert_int_equal(result.code, CAD_RPC_FAILED_PRECONDITION);
	/* tokens are served */
	Cadre__V1__Tokens tokens = CADRE__V1__TOKENS__INIT;
	int32_t ids[] = { 4, 5 };
	tokens.ids = ids;
	tokens.n_ids = 2;
	request.prompt_case = CADRE__V1__GENERATE_REQUEST__PROMPT_TOKENS;
	request.tokens = &tokens;
	struct fake_request *engine = admitted(&router, &request, NULL, &answer);
	fake_token(engine, 6);
	fake_finish(engine, RT_FINISH_STOP);
	rpc_run_until(&router.rpc, &answer.result.done);
	assert_int_equal(answer.result.code, CAD_RPC_OK);
	assert_string_equal(answer.text, "");
	assert_int_equal(answer.ids[0], 6);
	assert_string_equal(answer.policy, "none");
	router_close(&router);
}

static void a_token_is_asked_for(void **state)
{
	(void)state;
	struct router router;
	router_open_with(&router, (struct rt_frontend_options){ .tokenizer = tokenizer, .bearer_tokens = (const char *const[]){ "old", "new" }, .bearer_tokens_count = 2 });
	static const struct { const char *header; enum cad_rpc_code code; } table[] = {
		{ "Bearer old", CAD_RPC_OK }, { "Bearer new", CAD_RPC_OK }, { "Bearer other", CAD_RPC_UNAUTHENTICATED }, { "Bearer ", CAD_RPC_UNAUTHENTICATED },
	};
	Cadre__V1__GetModelRequest get = CADRE__V1__GET_MODEL_REQUEST__INIT;
	for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
		struct cad_rpc_metadata header = { "authorization", table[i].header };
		struct rpc_result result = { 0 };
		rpc_call(&router.rpc, "/cadre.v1.Inference/GetModel", &get.base, &cadre__v1__get_model_response__descriptor,
		         &(struct cad_rpc_call_options){ .metadata = &header, .metadata_count = 1 }, &result);
		assert_int_equal(result.code, table[i].code);
	}
	/* health is open to probes */
	Grpc__Health__V1__HealthCheckRequest check = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
	check.service = "cadre.v1.Inference";
	struct rpc_result result = { 0 };
	rpc_call(&router.rpc, "/grpc.health.v1.Health/Check", &check.base, &grpc__health__v1__health_check_response__descriptor, NULL, &result);
	assert_int_equal(result.code, CAD_RPC_OK);
	router_close(&router);
}

static void streams_at_the_end(void **state)
{
	(void)state;
	struct router router;
	router_open(&router);
	Cadre__V1__GenerateRequest request;
	request_of_text(&request, "x");
	struct answer finishing, endless;
	struct fake_request *first = admitted(&router, &request, NULL, &finishing), *second = admitted(&router, &request, NULL, &endless);
	rt_frontend_drain(router.frontend, 100, router_gone, &router);
	fake_token(first, 5);
	fake_finish(first, RT_FINISH_LENGTH);
	rpc_run_until(&router.rpc, &finishing.result.done);
	assert_int_equal(finishing.result.code, CAD_RPC_OK);
	rpc_run_until(&router.rpc, &router.gone);
	assert_true(second->cancelled);
	rpc_run_until(&router.rpc, &endless.result.done);
	assert_int_not_equal(endless.result.code, CAD_RPC_OK);
	/* The engine stops, and says so for each request that it still has. */
	fake_fail(second, CAD_ERR_CANCELLED, "the engine stops");
	rpc_fixture_close(&router.rpc);
	rt_frontend_destroy(router.frontend);
}

/* --- an engine in a thread of its own --- */

struct crowd {
	struct router router;
	atomic_bool stop;
	struct cad_random random;
};

static void *crowd_engine(void *argument)
{
	struct crowd *crowd = argument;
	struct fake *fake = &crowd->router.fake;
	bool busy = true;
	while (busy || !atomic_load(&crowd->stop)) {
		busy = false;
		for (uint32_t i = 0; i < atomic_load(&fake->count); i++) {
			struct fake_request *request = &fake->requests[i];
			if (request->over)
				continue;
			busy = true;
			if (atomic_load(&request->cancelled))
				fake_fail(request, CAD_ERR_CANCELLED, "cancelled");
			else if (request->generated == request->max_tokens)
				fake_finish(request, RT_FINISH_LENGTH);
			else if (!atomic_load(&request->paused))
				fake_token(request, (int32_t)(10 + request->generated));
		}
		sched_yield();
	}
	return NULL;
}

static void an_engine_in_its_own_thread(void **state)
{
	(void)state;
	enum { CLIENTS = 40 };
	uint64_t seed = (uint64_t)time(NULL);
	print_message("seed %llu\n", (unsigned long long)seed);
	static struct crowd crowd;
	static struct answer answers[CLIENTS];
	memset(&crowd, 0, sizeof crowd);
	crowd.random.state = seed;
	router_open(&crowd.router);
	pthread_t thread;
	assert_int_equal(pthread_create(&thread, NULL, crowd_engine, &crowd), 0);
	Cadre__V1__GenerateRequest request;
	request_of_text(&request, "x");
	for (int i = 0; i < CLIENTS; i++) {
		request.max_tokens = 1 + (uint32_t)cad_random_below(&crowd.random, 250);
		answer_start(&crowd.router, &request, NULL, &answers[i]);
		if (cad_random_below(&crowd.random, 4) == 0)
			answers[i].result.cancel_at = 1 + (unsigned)cad_random_below(&crowd.random, 10);
	}
	for (int i = 0; i < CLIENTS; i++) {
		rpc_run_until(&crowd.router.rpc, &answers[i].result.done);
		for (size_t j = 0; j < answers[i].ids_count; j++)
			assert_int_equal(answers[i].ids[j], 10 + j);
		if (answers[i].result.cancel_at == 0 || answers[i].result.messages < answers[i].result.cancel_at) {
			assert_int_equal(answers[i].result.code, CAD_RPC_OK);
			assert_int_equal(answers[i].generated_tokens, answers[i].ids_count);
		}
	}
	rt_frontend_drain(crowd.router.frontend, 0, router_gone, &crowd.router);
	rpc_run_until(&crowd.router.rpc, &crowd.router.gone);
	atomic_store(&crowd.stop, true);
	pthread_join(thread, NULL);
	rpc_fixture_close(&crowd.router.rpc);
	rt_frontend_destroy(crowd.router.frontend);
}

static int open_model(void **state)
{
	(void)state;
	struct cad_error error;
	if (cad_model_open(MODEL, &model, &error) || cad_tokenizer_open(MODEL "/tokenizer.json", &tokenizer, &error)) {
		print_error("%s\n", error.text);
		return -1;
	}
	return 0;
}

static int close_model(void **state)
{
	(void)state;
	cad_tokenizer_close(tokenizer);
	cad_model_close(model);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bad_requests),
		cmocka_unit_test(an_answer),
		cmocka_unit_test(stop_strings),
		cmocka_unit_test(stop_ids_have_no_text),
		cmocka_unit_test(nothing_is_held_back_at_the_end),
		cmocka_unit_test(a_client_that_goes),
		cmocka_unit_test(failures_of_the_engine),
		cmocka_unit_test(routing_is_returned),
		cmocka_unit_test(a_slow_reader_is_paused),
		cmocka_unit_test(routing_that_nobody_reads_is_bounded),
		cmocka_unit_test(other_methods),
		cmocka_unit_test(long_texts),
		cmocka_unit_test(without_a_tokenizer),
		cmocka_unit_test(a_token_is_asked_for),
		cmocka_unit_test(streams_at_the_end),
		cmocka_unit_test(an_engine_in_its_own_thread),
	};
	return cmocka_run_group_tests(tests, open_model, close_model);
}
