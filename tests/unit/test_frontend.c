/* SPDX-License-Identifier: Apache-2.0 */
/* The router's front end: what it refuses, and what its answers are made of. */
#include "grpc/health/v1/health.pb-c.h"
#include "common/tokenizer/decode.h"
#include "tests/support/fake_router.h"
#include "tests/support/must.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A request that is refused, and what its parts point to. */
struct bad {
	Cadre__V1__GenerateRequest request;
	Cadre__V1__Tokens tokens;
	Cadre__V1__Sampling sampling;
	int32_t good[FAKE_CONTEXT], outside[3], negative[1], many[65];
	char *stops[17], *empty[2], *too_long[1], x[2], nothing[1], huge[302], long_text[20001];
	char outside_sentence[200];
};

static void bad_init(struct bad *b)
{
	uint32_t vocab = cad_model_spec(fake_model)->vocab;
	*b = (struct bad){
		.good = { 1, 2, 3 },
		.outside = { 1, (int32_t)vocab, 3 },
		.negative = { -1 },
		.empty = { b->x, b->nothing },
		.too_long = { b->huge },
		.x = "x",
	};

	memset(b->huge, 'x', sizeof b->huge - 1);
	for (size_t i = 0; i < 17; i++)
		b->stops[i] = b->x;
	for (size_t i = 0; i < sizeof b->long_text - 1; i++)
		b->long_text[i] = i % 2 ? 'a' : ' ';
	snprintf(b->outside_sentence, sizeof b->outside_sentence,
		"tokens.ids[1] is %u, but this model's vocabulary has %u ids, from 0 to %u", vocab, vocab, vocab - 1);
}

/* Each kind makes its index-th bad request of a good one and returns what is said of
 * it; NULL: there are no more. */
static const char *bad_prompt(struct bad *b, int index)
{
	switch (index) {
	case 0: b->request.prompt_case = 0; return "the request has no prompt: set `text` or `tokens`";
	case 1: b->request.text = ""; return "the prompt is empty";
	case 2:
		b->request.prompt_case = CADRE__V1__GENERATE_REQUEST__PROMPT_TOKENS;
		b->request.tokens = &b->tokens;
		b->tokens.n_ids = 0;
		return "the prompt is empty";
	case 3:
		b->request.prompt_case = CADRE__V1__GENERATE_REQUEST__PROMPT_TOKENS;
		b->request.tokens = &b->tokens;
		b->tokens.ids = b->outside;
		return b->outside_sentence;
	case 4:
		b->request.prompt_case = CADRE__V1__GENERATE_REQUEST__PROMPT_TOKENS;
		b->request.tokens = &b->tokens;
		b->tokens.ids = b->negative;
		b->tokens.n_ids = 1;
		return "tokens.ids[0] is -1";
	case 5:
		b->request.prompt_case = CADRE__V1__GENERATE_REQUEST__PROMPT_TOKENS;
		b->request.tokens = &b->tokens;
		b->tokens.n_ids = FAKE_CONTEXT;
		return "the prompt has 300 tokens, but prompt and answer together may have at most 300 here";
	case 6:
		b->request.text = b->long_text;
		return "the prompt has more than 299 tokens, but prompt and answer together may have at most 300 here";
	case 7:
		b->request.prompt_case = CADRE__V1__GENERATE_REQUEST__PROMPT_TOKENS;
		b->request.tokens = &b->tokens;
		b->request.max_tokens = 298;
		return "max_tokens is 298, but after a prompt of 3 tokens only 297";
	default: return NULL;
	}
}

static const char *bad_sampling(struct bad *b, int index)
{
	switch (index) {
	case 0:
		b->request.sampling = &b->sampling;
		b->sampling.temperature = -1;
		return "sampling.temperature is -1; it must be 0 (greedy) or a positive number";
	case 1:
		b->request.sampling = &b->sampling;
		b->sampling.temperature = NAN;
		return "sampling.temperature is nan";
	case 2:
		b->request.sampling = &b->sampling;
		b->sampling.temperature = INFINITY;
		return "sampling.temperature is inf";
	case 3:
		b->request.sampling = &b->sampling;
		b->sampling.top_p = 1.5f;
		return "sampling.top_p is 1.5; it must be from 0 (off) to 1";
	case 4:
		b->request.sampling = &b->sampling;
		b->sampling.min_p = -0.5f;
		return "sampling.min_p is -0.5";
	default: return NULL;
	}
}

static const char *bad_stop(struct bad *b, int index)
{
	switch (index) {
	case 0:
		b->request.stop = b->stops;
		b->request.n_stop = 17;
		return "17 stop strings are more than the limit of 16";
	case 1:
		b->request.stop = b->empty;
		b->request.n_stop = 2;
		return "stop[1] has 0 bytes; a stop string may have 1 to 256";
	case 2:
		b->request.stop = b->too_long;
		b->request.n_stop = 1;
		return "stop[0] has 301 bytes";
	case 3:
		b->request.stop_ids = b->many;
		b->request.n_stop_ids = 65;
		return "65 stop ids are more than the limit of 64";
	case 4:
		b->request.stop_ids = b->outside;
		b->request.n_stop_ids = 2;
		return "stop_ids[1] is ";
	default: return NULL;
	}
}

static void bad_requests(void **state)
{
	(void)state;
	static const char *(*const kinds[])(struct bad *, int) = { bad_prompt, bad_sampling, bad_stop };
	struct fake_router router;
	static struct bad b;
	bad_init(&b);
	fake_router_open(&router);

	for (size_t kind = 0; kind < sizeof kinds / sizeof *kinds; kind++)
		for (int i = 0;; i++) {
			fake_request_of_text(&b.request, "hello");
			b.sampling = (Cadre__V1__Sampling)CADRE__V1__SAMPLING__INIT;
			b.tokens = (Cadre__V1__Tokens)CADRE__V1__TOKENS__INIT;
			b.tokens.n_ids = 3;
			b.tokens.ids = b.good;
			const char *sentence = kinds[kind](&b, i);
			if (!sentence)
				break;

			struct fake_answer answer;
			fake_answer_start(&router, &b.request, NULL, &answer);
			rpc_run_until(&router.rpc, &answer.result.done);
			assert_int_equal(answer.result.code, CAD_RPC_INVALID_ARGUMENT);
			if (!strstr(answer.result.text, sentence))
				fail_msg("kind %zu, case %d: %s", kind, i, answer.result.text);
		}

	assert_int_equal(router.fake.count, 0);
	fake_router_close(&router);
}

static void an_answer(void **state)
{
	(void)state;
	static const char text[] = "Hello, w\xc3\xb6rld! \xf0\x9f\x98\x80 \xe4\xbd\xa0\xe5\xa5\xbd and so on.";
	struct fake_router router;
	fake_router_open(&router);
	Cadre__V1__GenerateRequest request;
	fake_request_of_text(&request, "once upon a time");
	request.max_tokens = 77;
	Cadre__V1__Sampling sampling = CADRE__V1__SAMPLING__INIT;
	sampling = (Cadre__V1__Sampling){ sampling.base, 0.5f, 7, 0.25f, 0.125f, 1ull << 63 };
	request.sampling = &sampling;
	struct fake_answer answer;
	struct fake_request *engine = fake_admitted(&router, &request, NULL, &answer);
	assert_int_equal(rt_frontend_streams(router.frontend), 1);

	/* the prompt has the post-processor's special tokens */
	struct cad_ids prompt = { 0 }, ids;
	struct cad_error error;
	must(cad_tokenizer_encode(fake_tokenizer, "once upon a time", 16, true, SIZE_MAX, &prompt, &error), &error);
	assert_int_equal(engine->prompt_count, prompt.count);
	assert_memory_equal(engine->prompt, prompt.ids, prompt.count * sizeof *prompt.ids);
	assert_int_equal(engine->max_tokens, 77);
	assert_true(engine->sampling.temperature == 0.5f && engine->sampling.top_k == 7 &&
		engine->sampling.top_p == 0.25f && engine->sampling.min_p == 0.125f &&
		engine->sampling.seed == 1ull << 63);
	assert_int_equal(engine->deadline_ns, 0);
	fake_ids_of(text, &ids);

	for (size_t i = 0; i < ids.count; i++) {
		fake_token(engine, ids.ids[i]);
		answer.something = false;
		rpc_run_until(&router.rpc, &answer.something); /* a token leaves as soon as it is there */
		assert_int_equal(answer.ids_count, i + 1);
		assert_true(strncmp(answer.text, text, strlen(answer.text)) == 0 || i == 0);
	}

	fake_finish(engine, RT_FINISH_LENGTH);
	rpc_run_until(&router.rpc, &answer.result.done);
	assert_int_equal(answer.result.code, CAD_RPC_OK);
	struct cad_text whole = { 0 };
	must(cad_tokenizer_decode(fake_tokenizer, ids.ids, ids.count, true, &whole, &error), &error);
	assert_string_equal(answer.text, whole.bytes);
	assert_int_equal(answer.bytes_count, whole.size);
	assert_memory_equal(answer.bytes, whole.bytes, whole.size);
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
	fake_router_close(&router);
}

/* The stop string lies across tokens; what comes after it is not the client's any more. */
static void stop_strings(void **state)
{
	(void)state;
	for (int at_once = 0; at_once < 2; at_once++) {
		struct fake_router router;
		fake_router_open(&router);
		Cadre__V1__GenerateRequest request;
		fake_request_of_text(&request, "x");
		request.stop = (char *[]){ "never", "so much" };
		request.n_stop = 2;
		struct fake_answer answer;
		struct fake_request *engine = fake_admitted(&router, &request, NULL, &answer);
		struct cad_ids ids, before;
		fake_ids_of("and so on, and so much more than this", &ids);
		fake_ids_of("and so on, and so much", &before);
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
		/* tokens, usage and digest up to the token that completed the stop string, and no
		 * further */
		assert_true(answer.ids_count < ids.count);
		assert_int_equal(answer.generated_tokens, answer.ids_count);
		char digest[3];
		snprintf(digest, sizeof digest, "%02x", (unsigned)answer.ids_count);
		assert_memory_equal(answer.digest, digest, 2);
		assert_true(engine->cancelled);
		cad_ids_fini(&ids);
		cad_ids_fini(&before);
		fake_router_close(&router);
	}
}

static void stop_ids_have_no_text(void **state)
{
	(void)state;
	struct fake_router router;
	fake_router_open(&router);
	struct cad_ids ids;
	fake_ids_of("one two", &ids);
	Cadre__V1__GenerateRequest request;
	fake_request_of_text(&request, "x");
	request.stop_ids = &ids.ids[ids.count - 1];
	request.n_stop_ids = 1;
	struct fake_answer answer;
	struct fake_request *engine = fake_admitted(&router, &request, NULL, &answer);
	for (size_t i = 0; i + 1 < ids.count; i++)
		fake_token(engine, ids.ids[i]);
	fake_last_token(engine, ids.ids[ids.count - 1]);
	fake_finish(engine, RT_FINISH_STOP);
	rpc_run_until(&router.rpc, &answer.result.done);
	assert_int_equal(answer.reason, CADRE__V1__FINISH_REASON__FINISH_REASON_STOP);
	assert_int_equal(answer.ids_count, ids.count);
	struct cad_text whole = { 0 };
	struct cad_error error;
	must(cad_tokenizer_decode(fake_tokenizer, ids.ids, ids.count - 1, true, &whole, &error), &error);
	assert_string_equal(answer.text, whole.bytes ? whole.bytes : "");
	cad_text_fini(&whole);
	cad_ids_fini(&ids);
	fake_router_close(&router);
}

/* A sequence that ends inside a character: the decoder's replacement for it comes with the last
 * message. */
static void nothing_is_held_back_at_the_end(void **state)
{
	(void)state;
	struct fake_router router;
	fake_router_open(&router);
	struct cad_ids ids;
	fake_ids_of("ab so \xf0\x9f\xa6\x84", &ids); /* an animal that no small vocabulary has as one token */
	Cadre__V1__GenerateRequest request;
	fake_request_of_text(&request, "x");
	request.stop = (char *[]){ "so much" };
	request.n_stop = 1;

	for (size_t count = 1; count <= ids.count; count++) {
		struct fake_answer answer;
		struct fake_request *engine = fake_admitted(&router, &request, NULL, &answer);
		for (size_t i = 0; i < count; i++)
			fake_token(engine, ids.ids[i]);
		fake_finish(engine, RT_FINISH_LENGTH);
		rpc_run_until(&router.rpc, &answer.result.done);
		struct cad_text whole = { 0 };
		struct cad_error error;
		must(cad_tokenizer_decode(fake_tokenizer, ids.ids, count, true, &whole, &error), &error);
		assert_string_equal(answer.text, whole.bytes ? whole.bytes : "");
		assert_int_equal(answer.reason, CADRE__V1__FINISH_REASON__FINISH_REASON_LENGTH);
		cad_text_fini(&whole);
	}

	cad_ids_fini(&ids);
	fake_router_close(&router);
}

static void routing_is_returned(void **state)
{
	(void)state;
	struct fake_router router;
	fake_router_open(&router);
	Cadre__V1__GenerateRequest request;
	fake_request_of_text(&request, "x");
	request.return_routing = true;
	struct fake_answer answer;
	struct fake_request *engine = fake_admitted(&router, &request, NULL, &answer);
	assert_true(engine->want_routing);
	uint64_t sum = 0;
	uint32_t position = 0;
	while (position < 8 * FAKE_STRIDE) { /* a long prompt in chunks: several messages */
		fake_routing(engine, position, FAKE_STRIDE, &sum);
		position += FAKE_STRIDE;
	}

	for (int i = 0; i < 5; i++) {
		fake_token(engine, 5);
		fake_routing(engine, position++, 1, &sum);
	}

	fake_finish(engine, RT_FINISH_LENGTH);
	rpc_run_until(&router.rpc, &answer.result.done);
	assert_int_equal(answer.result.code, CAD_RPC_OK);
	assert_int_equal(answer.routing_rows, 8 * FAKE_STRIDE + 5);
	assert_true(answer.routing_sum == sum);
	assert_true(answer.routing_messages >= 3);
	assert_int_equal(answer.ids_count, 5);
	fake_router_close(&router);
}

static void tokens_of(struct rpc_result *result, const ProtobufCMessage *message)
{
	const Cadre__V1__TokenizeResponse *response = (const Cadre__V1__TokenizeResponse *)message;
	struct cad_ids *ids = result->user;
	ids->count = response->n_ids;
	ids->ids = malloc((ids->count + 1) * sizeof *ids->ids);
	memcpy(ids->ids, response->ids, ids->count * sizeof *ids->ids);
}

static void text_of(struct rpc_result *result, const ProtobufCMessage *message)
{
	const Cadre__V1__DetokenizeResponse *response = (const Cadre__V1__DetokenizeResponse *)message;
	strcpy(result->user, response->text);
	assert_int_equal(response->text_bytes.len, strlen(response->text));
	assert_memory_equal(response->text_bytes.data, response->text, response->text_bytes.len);
}

struct zero_text {
	char text[100], bytes[100];
	size_t bytes_count;
};

static void zero_text_of(struct rpc_result *result, const ProtobufCMessage *message)
{
	const Cadre__V1__DetokenizeResponse *response = (const Cadre__V1__DetokenizeResponse *)message;
	struct zero_text *text = result->user;
	strcpy(text->text, response->text);
	text->bytes_count = response->text_bytes.len;
	memcpy(text->bytes, response->text_bytes.data, text->bytes_count);
}

/* U+0000 of the model's vocabulary: strings of messages end there, so U+FFFD stands for it, and the
 * bytes tell what was meant. */
static void a_zero_in_the_text(void **state)
{
	(void)state;
	enum { ZERO = 3 }; /* the token <0x00> */
	static const int32_t zero = ZERO;
	struct fake_router router;
	struct fake_answer answer;
	struct cad_ids ids;
	Cadre__V1__GenerateRequest request;
	fake_router_open(&router);
	fake_request_of_text(&request, "x");
	fake_ids_of("one two", &ids);
	struct fake_request *engine = fake_admitted(&router, &request, NULL, &answer);

	for (size_t i = 0; i < ids.count; i++)
		fake_token(engine, ids.ids[i]);
	fake_token(engine, zero);
	fake_token(engine, zero);
	for (size_t i = 0; i < ids.count; i++)
		fake_token(engine, ids.ids[i]);
	fake_finish(engine, RT_FINISH_LENGTH);
	rpc_run_until(&router.rpc, &answer.result.done);
	assert_int_equal(answer.result.code, CAD_RPC_OK);
	assert_string_equal(answer.text, "one two\xef\xbf\xbd\xef\xbf\xbd one two");
	assert_int_equal(answer.bytes_count, 17);
	assert_memory_equal(answer.bytes, "one two\0\0 one two", 17);

	Cadre__V1__DetokenizeRequest detokenize = CADRE__V1__DETOKENIZE_REQUEST__INIT;
	struct zero_text text = { 0 };
	detokenize.ids = answer.ids;
	detokenize.n_ids = answer.ids_count;
	struct rpc_result result = { .on_message = zero_text_of, .user = &text };
	rpc_call(&router.rpc, "/cadre.v1.Inference/Detokenize", &detokenize.base,
		&cadre__v1__detokenize_response__descriptor, NULL, &result);
	assert_string_equal(text.text, answer.text);
	assert_int_equal(text.bytes_count, 17);
	assert_memory_equal(text.bytes, "one two\0\0 one two", 17);
	cad_ids_fini(&ids);
	fake_router_close(&router);
}

static void model_of(struct rpc_result *result, const ProtobufCMessage *message)
{
	(void)result;
	const Cadre__V1__GetModelResponse *response = (const Cadre__V1__GetModelResponse *)message;
	const struct cad_model_spec *spec = cad_model_spec(fake_model);
	assert_string_equal(response->directory, FAKE_MODEL);
	assert_string_equal(response->architecture, "mixtral");
	assert_string_equal(response->settings_fingerprint, "abc");
	assert_int_equal(strlen(response->fingerprint), 32);
	assert_int_equal(response->context_max, FAKE_CONTEXT);
	assert_int_equal(response->vocab, spec->vocab);
	assert_int_equal(response->experts, spec->gate.experts);
	assert_int_equal(response->experts_per_token, spec->gate.topk);
	assert_int_equal(response->n_eos_ids, spec->eos_ids_count);
	assert_true(response->parameters > response->active_parameters && response->active_parameters > 0);
}

static void other_methods(void **state)
{
	(void)state;
	struct fake_router router;
	fake_router_open(&router);
	Cadre__V1__TokenizeRequest tokenize = CADRE__V1__TOKENIZE_REQUEST__INIT;
	Cadre__V1__DetokenizeRequest detokenize = CADRE__V1__DETOKENIZE_REQUEST__INIT;
	Cadre__V1__GetModelRequest get = CADRE__V1__GET_MODEL_REQUEST__INIT;
	tokenize.text = "Hello there";
	tokenize.no_special = true;
	struct cad_ids ids = { 0 }, expected;
	struct rpc_result result = { .on_message = tokens_of, .user = &ids };
	rpc_call(&router.rpc, "/cadre.v1.Inference/Tokenize", &tokenize.base, &cadre__v1__tokenize_response__descriptor,
		NULL, &result);
	assert_int_equal(result.code, CAD_RPC_OK);
	fake_ids_of("Hello there", &expected);
	assert_int_equal(ids.count, expected.count);
	assert_memory_equal(ids.ids, expected.ids, ids.count * sizeof *ids.ids);
	char text[100] = "";
	result = (struct rpc_result){ .on_message = text_of, .user = text };
	detokenize.ids = ids.ids;
	detokenize.n_ids = ids.count;
	rpc_call(&router.rpc, "/cadre.v1.Inference/Detokenize", &detokenize.base,
		&cadre__v1__detokenize_response__descriptor, NULL, &result);
	assert_string_equal(text, "Hello there");
	ids.ids[0] = 1 << 30;
	result = (struct rpc_result){ 0 };
	rpc_call(&router.rpc, "/cadre.v1.Inference/Detokenize", &detokenize.base,
		&cadre__v1__detokenize_response__descriptor, NULL, &result);
	assert_int_equal(result.code, CAD_RPC_INVALID_ARGUMENT);
	result = (struct rpc_result){ .on_message = model_of };
	rpc_call(&router.rpc, "/cadre.v1.Inference/GetModel", &get.base, &cadre__v1__get_model_response__descriptor,
		NULL, &result);
	assert_int_equal(result.code, CAD_RPC_OK);
	assert_int_equal(result.messages, 1);
	cad_ids_fini(&ids);
	cad_ids_fini(&expected);
	fake_router_close(&router);
}

/* Texts that take long are tokenized beside the reactor. */
static void long_texts(void **state)
{
	(void)state;
	enum { BYTES = 30000 };
	struct fake_router router;
	fake_router_open(&router);
	char *text = malloc(BYTES + 1);
	for (size_t i = 0; i < BYTES; i++)
		text[i] = (char)(i % 7 == 6 ? ' ' : 'a' + i % 11);
	text[BYTES] = 0;
	Cadre__V1__TokenizeRequest tokenize = CADRE__V1__TOKENIZE_REQUEST__INIT;
	tokenize.text = text;
	tokenize.no_special = true;
	struct cad_ids ids = { 0 }, expected;
	struct rpc_result slow = { .on_message = tokens_of, .user = &ids }, gone = { 0 }, quick = { 0 };
	rpc_start(&router.rpc, "/cadre.v1.Inference/Tokenize", &tokenize.base,
		&cadre__v1__tokenize_response__descriptor, NULL, &slow);
	rpc_start(&router.rpc, "/cadre.v1.Inference/Tokenize", &tokenize.base,
		&cadre__v1__tokenize_response__descriptor,
		&(struct cad_rpc_call_options){
			.timeout_ms = 5,
		},
		&gone); /* may be over before its text is done */
	Cadre__V1__GetModelRequest get = CADRE__V1__GET_MODEL_REQUEST__INIT;
	rpc_call(&router.rpc, "/cadre.v1.Inference/GetModel", &get.base, &cadre__v1__get_model_response__descriptor,
		NULL, &quick);
	assert_int_equal(quick.code, CAD_RPC_OK);
	rpc_run_until(&router.rpc, &slow.done);
	rpc_run_until(&router.rpc, &gone.done);
	assert_int_equal(slow.code, CAD_RPC_OK);
	fake_ids_of(text, &expected);
	assert_int_equal(ids.count, expected.count);
	assert_memory_equal(ids.ids, expected.ids, ids.count * sizeof *ids.ids);

	/* and back */
	Cadre__V1__DetokenizeRequest detokenize = CADRE__V1__DETOKENIZE_REQUEST__INIT;
	detokenize.ids = ids.ids;
	detokenize.n_ids = ids.count;
	char *back = calloc(1, BYTES + 100);
	struct rpc_result result = { .on_message = text_of, .user = back };
	rpc_call(&router.rpc, "/cadre.v1.Inference/Detokenize", &detokenize.base,
		&cadre__v1__detokenize_response__descriptor, NULL, &result);
	assert_string_equal(back, text);

	/* a prompt: too long for the context; and one whose client does not wait, at the very end
	 * of the router */
	Cadre__V1__GenerateRequest request;
	fake_request_of_text(&request, text);
	struct fake_answer refused, abandoned;
	fake_answer_start(&router, &request, NULL, &refused);
	rpc_run_until(&router.rpc, &refused.result.done);
	assert_int_equal(refused.result.code, CAD_RPC_INVALID_ARGUMENT);
	fake_answer_start(&router, &request, &(struct cad_rpc_call_options){ .timeout_ms = 5 }, &abandoned);
	rpc_run_until(&router.rpc, &abandoned.result.done);
	fake_router_close(&router);
	cad_ids_fini(&ids);
	cad_ids_fini(&expected);
	free(back);
	free(text);
}

static void without_a_tokenizer(void **state)
{
	(void)state;
	struct fake_router router;
	fake_router_open_with(&router, (struct rt_frontend_options){ 0 });
	Cadre__V1__GenerateRequest request;
	fake_request_of_text(&request, "x");
	struct fake_answer answer;
	fake_answer_start(&router, &request, NULL, &answer);
	rpc_run_until(&router.rpc, &answer.result.done);
	assert_int_equal(answer.result.code, CAD_RPC_FAILED_PRECONDITION);
	assert_non_null(strstr(answer.result.text, "no tokenizer.json"));
	Cadre__V1__TokenizeRequest tokenize = CADRE__V1__TOKENIZE_REQUEST__INIT;
	struct rpc_result result = { 0 };
	rpc_call(&router.rpc, "/cadre.v1.Inference/Tokenize", &tokenize.base, &cadre__v1__tokenize_response__descriptor,
		NULL, &result);
	assert_int_equal(result.code, CAD_RPC_FAILED_PRECONDITION);

	/* tokens are served */
	Cadre__V1__Tokens tokens = CADRE__V1__TOKENS__INIT;
	int32_t ids[] = { 4, 5 };
	tokens.ids = ids;
	tokens.n_ids = 2;
	request.prompt_case = CADRE__V1__GENERATE_REQUEST__PROMPT_TOKENS;
	request.tokens = &tokens;
	struct fake_request *engine = fake_admitted(&router, &request, NULL, &answer);
	fake_token(engine, 6);
	fake_finish(engine, RT_FINISH_STOP);
	rpc_run_until(&router.rpc, &answer.result.done);
	assert_int_equal(answer.result.code, CAD_RPC_OK);
	assert_string_equal(answer.text, "");
	assert_int_equal(answer.ids[0], 6);
	assert_string_equal(answer.policy, "none");
	fake_router_close(&router);
}

static void a_token_is_asked_for(void **state)
{
	(void)state;
	static const char file[] = "old-0123456789ab\nnew-0123456789ab\n";
	struct cad_bearers bearers;
	struct cad_error error;
	must(cad_bearers_parse(file, sizeof file - 1, "test", &bearers, &error), &error);
	struct fake_router router;
	fake_router_open_with(
		&router, (struct rt_frontend_options){ .tokenizer = fake_tokenizer, .callers.bearers = &bearers });
	static const char wrong[] = "this router does not know the token that was sent",
			  other[] = "the header 'authorization' is not 'Bearer TOKEN'";
	static const struct {
		const char *header;
		enum cad_rpc_code code;
		const char *says;
	} table[] = {
		{ "Bearer old-0123456789ab", CAD_RPC_OK, "" },
		{ "bearer new-0123456789ab", CAD_RPC_OK, "" },
		{ "Bearer old-0123456789a", CAD_RPC_UNAUTHENTICATED, wrong },
		{ "Bearer old-0123456789abc", CAD_RPC_UNAUTHENTICATED, wrong },
		{ "Bearer ", CAD_RPC_UNAUTHENTICATED, wrong },
		{ "Basic old-0123456789ab", CAD_RPC_UNAUTHENTICATED, other },
		{ "old-0123456789ab", CAD_RPC_UNAUTHENTICATED, other },
		{ "", CAD_RPC_UNAUTHENTICATED, other },
		{ NULL, CAD_RPC_UNAUTHENTICATED, "requires a token: send the header 'authorization: Bearer TOKEN'" },
	};
	Cadre__V1__GetModelRequest get = CADRE__V1__GET_MODEL_REQUEST__INIT;
	for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
		struct cad_rpc_metadata header = { "authorization", table[i].header };
		struct rpc_result result = { 0 };
		rpc_call(&router.rpc, "/cadre.v1.Inference/GetModel", &get.base,
			&cadre__v1__get_model_response__descriptor,
			&(struct cad_rpc_call_options){ .metadata = &header, .metadata_count = header.value != NULL },
			&result);
		assert_int_equal(result.code, table[i].code);
		assert_non_null(strstr(result.text, table[i].says));
	}

	/* health is open to probes */
	Grpc__Health__V1__HealthCheckRequest check = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
	check.service = "cadre.v1.Inference";
	struct rpc_result result = { 0 };
	rpc_call(&router.rpc, "/grpc.health.v1.Health/Check", &check.base,
		&grpc__health__v1__health_check_response__descriptor, NULL, &result);
	assert_int_equal(result.code, CAD_RPC_OK);
	fake_router_close(&router);
	cad_bearers_fini(&bearers);
}

/* An inspect token may do all but generate; the table that the router looks at may change. */
static void a_token_has_a_role(void **state)
{
	(void)state;
	static const char before[] = "0123456789abcdef inspect watcher\n", after[] = "0123456789abcdef\n";
	struct cad_bearers bearers;
	struct cad_error error;
	must(cad_bearers_parse(before, sizeof before - 1, "test", &bearers, &error), &error);
	struct fake_router router;
	fake_router_open_with(
		&router, (struct rt_frontend_options){ .tokenizer = fake_tokenizer, .callers.bearers = &bearers });
	struct cad_rpc_metadata header = { "authorization", "Bearer 0123456789abcdef" };
	const struct cad_rpc_call_options options = { .metadata = &header, .metadata_count = 1 };
	struct rpc_result model = { 0 }, refused = { 0 }, admitted = { 0 };
	Cadre__V1__GetModelRequest get = CADRE__V1__GET_MODEL_REQUEST__INIT;
	Cadre__V1__GenerateRequest request = CADRE__V1__GENERATE_REQUEST__INIT;

	rpc_call(&router.rpc, "/cadre.v1.Inference/GetModel", &get.base, &cadre__v1__get_model_response__descriptor,
		&options, &model);
	assert_int_equal(model.code, CAD_RPC_OK);
	rpc_call(&router.rpc, "/cadre.v1.Inference/Generate", &request.base, &cadre__v1__generate_response__descriptor,
		&options, &refused);
	assert_int_equal(refused.code, CAD_RPC_PERMISSION_DENIED);
	assert_string_equal(refused.text,
		"the token of 'watcher' has the role 'inspect', which may not call Generate: that takes the role 'client' or 'operator'");

	cad_bearers_fini(&bearers);
	must(cad_bearers_parse(after, sizeof after - 1, "test", &bearers, &error), &error);
	rpc_call(&router.rpc, "/cadre.v1.Inference/Generate", &request.base, &cadre__v1__generate_response__descriptor,
		&options, &admitted);
	assert_int_equal(admitted.code, CAD_RPC_INVALID_ARGUMENT); /* it has no prompt */
	fake_router_close(&router);
	cad_bearers_fini(&bearers);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bad_requests),
		cmocka_unit_test(an_answer),
		cmocka_unit_test(stop_strings),
		cmocka_unit_test(stop_ids_have_no_text),
		cmocka_unit_test(nothing_is_held_back_at_the_end),
		cmocka_unit_test(routing_is_returned),
		cmocka_unit_test(a_zero_in_the_text),
		cmocka_unit_test(other_methods),
		cmocka_unit_test(long_texts),
		cmocka_unit_test(without_a_tokenizer),
		cmocka_unit_test(a_token_is_asked_for),
		cmocka_unit_test(a_token_has_a_role),
	};
	return cmocka_run_group_tests(tests, fake_model_open, fake_model_close);
}
