/* SPDX-License-Identifier: Apache-2.0 */
/* The router's front end, and answers whose streams broke: what is refused, and that a joint is not
 * seen. */
#include "tests/support/fake_router.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- what is refused ---- */

/* A request, of which each case spoils something. */
struct bad {
	Cadre__V1__GenerateRequest request;
	Cadre__V1__Tokens tokens;
	Cadre__V1__Resume resume;
	int32_t good[FAKE_CONTEXT], outside[2], negative[1], eos[1];
	char *stops[1];
	struct cad_ids of_text;
};

static void bad_init(struct bad *b)
{
	const struct cad_model_spec *spec = cad_model_spec(fake_model);

	assert_true(spec->eos_ids_count > 0);
	*b = (struct bad){
		.good = { 5, 6, 3 },
		.outside = { 5, (int32_t)spec->vocab },
		.negative = { -1 },
		.eos = { spec->eos_ids[0] },
		.stops = { "x" },
	};
	fake_ids_of("a box of it", &b->of_text);
}

static void bad_reset(struct bad *b)
{
	cadre__v1__generate_request__init(&b->request);
	cadre__v1__tokens__init(&b->tokens);
	cadre__v1__resume__init(&b->resume);
	b->tokens.ids = b->resume.token_ids = b->good;
	b->tokens.n_ids = b->resume.n_token_ids = 3;
	b->resume.digest = "00112233445566778899aabbccddeeff";
	b->request.prompt_case = CADRE__V1__GENERATE_REQUEST__PROMPT_TOKENS;
	b->request.tokens = &b->tokens;
	b->request.resume = &b->resume;
	b->request.max_tokens = 5;
}

static void bad_tokens(struct bad *b, int32_t *ids, size_t count)
{
	b->resume.token_ids = ids;
	b->resume.n_token_ids = count;
}

/* Makes the index-th bad request of a good one and returns what is said of it; NULL: there are no
 * more. */
static const char *spoil(struct bad *b, int index)
{
	switch (index) {
	case 0: bad_tokens(b, NULL, 0); return "resume has no token_ids: to ask from the beginning, leave `resume` out";
	case 1: b->resume.digest = ""; return "resume.digest is '', but must be 32 hex digits";
	case 2:
		b->resume.digest = "00112233445566778899aabbccddeef";
		return "resume.digest is '00112233445566778899aabbccddeef',";
	case 3: b->resume.digest = "00112233445566778899aabbccddeefg"; return "resume.digest is ";
	case 4: b->resume.digest = "00112233445566778899aabbccddeeff0"; return "resume.digest is ";
	case 5:
		bad_tokens(b, b->good, FAKE_CONTEXT - 3);
		return "the prompt has 3 tokens and resume.token_ids 297, but prompt and answer together may have at most 300 here: nothing is left to resume";
	case 6: bad_tokens(b, b->outside, 2); return "resume.token_ids[1] is ";
	case 7: bad_tokens(b, b->negative, 1); return "resume.token_ids[0] is -1";
	case 8:
		b->request.max_tokens = 0;
		return "max_tokens is 0, but with `resume` it counts what is left of the answer";
	case 9:
		b->resume.no_limit = true;
		return "max_tokens is 5, but resume.no_limit says that the first request had 0";
	case 10:
		b->request.max_tokens = 295;
		return "max_tokens is 295, but after a prompt of 3 tokens and 3 of the answer only 294 of the 300";
	case 11:
		b->request.stop_ids = &b->good[1];
		b->request.n_stop_ids = 1;
		return "resume.token_ids[1] is 6, which ends the answer: nothing is left to resume";
	case 12: bad_tokens(b, b->eos, 1); return "which ends the answer: nothing is left to resume";
	case 13:
		b->request.stop = b->stops;
		b->request.n_stop = 1;
		bad_tokens(b, b->of_text.ids, b->of_text.count);
		return "completes a stop string, which ends the answer: nothing is left to resume";
	case 14:
		b->resume.fingerprint = "another/model";
		return "the answer comes from model/settings 'another/model', but this router computes with '";
	default: return NULL;
	}
}

static void bad_resumes(void **state)
{
	(void)state;
	struct fake_router router;
	static struct bad b;
	struct fake_answer answer;
	const char *sentence;
	bad_init(&b);
	fake_router_open(&router);

	for (int i = 0; bad_reset(&b), (sentence = spoil(&b, i)) != NULL; i++) {
		fake_answer_start(&router, &b.request, NULL, &answer);
		rpc_run_until(&router.rpc, &answer.result.done);
		assert_int_equal(answer.result.code, CAD_RPC_INVALID_ARGUMENT);
		if (!strstr(answer.result.text, sentence))
			fail_msg("case %d: %s", i, answer.result.text);
	}
	assert_int_equal(router.fake.count, 0);

	/* what makes it a good one again */
	bad_reset(&b);
	b.request.ignore_eos = true;
	bad_tokens(&b, b.eos, 1);
	assert_int_equal(fake_admitted(&router, &b.request, NULL, &answer)->received[0], b.eos[0]);
	cad_ids_fini(&b.of_text);
	fake_router_close(&router);
}

/* ---- answers that go on ---- */

enum { JOINTS_MAX = 60 };

/* An answer, and how far it was after each of its messages of one token. */
struct story {
	struct cad_ids ids;
	struct fake_answer whole;
	size_t text_size[JOINTS_MAX];
	char digests[JOINTS_MAX][40];
};

static Cadre__V1__GenerateRequest story_request(void)
{
	static char *stops[] = { "so much", "never" };
	Cadre__V1__GenerateRequest request;

	fake_request_of_text(&request, "once upon");
	request.max_tokens = 100;
	request.stop = stops;
	request.n_stop = 2;
	return request;
}

static void tell(struct fake_router *router, const char *text, struct story *story)
{
	Cadre__V1__GenerateRequest request = story_request();
	struct fake_request *engine = fake_admitted(router, &request, NULL, &story->whole);
	size_t i = 0;

	fake_ids_of(text, &story->ids);
	for (; i < story->ids.count && !story->whole.finished; i++) {
		assert_true(i < JOINTS_MAX);
		fake_token(engine, story->ids.ids[i]);
		story->whole.something = false;
		rpc_run_until(&router->rpc, &story->whole.something);
		story->text_size[i] = strlen(story->whole.text);
		strcpy(story->digests[i], story->whole.digest_so_far);
	}
	story->ids.count = i; /* those that the client got */
	if (!story->whole.finished)
		fake_finish(engine, RT_FINISH_LENGTH);
	rpc_run_until(&router->rpc, &story->whole.result.done);
}

/* A client that lost its stream after `joint` tokens, and a router that continues. */
static void tell_on(struct fake_router *router, struct story *story, size_t joint, struct fake_answer *rest)
{
	Cadre__V1__GenerateRequest request = story_request();
	Cadre__V1__Resume resume = CADRE__V1__RESUME__INIT;

	resume.token_ids = story->ids.ids;
	resume.n_token_ids = joint;
	resume.digest = story->digests[joint - 1];
	resume.fingerprint = story->whole.fingerprint;
	request.resume = &resume;
	request.max_tokens = 100 - (uint32_t)joint;
	struct fake_request *engine = fake_admitted(router, &request, NULL, rest);
	assert_int_equal(engine->received_count, joint);
	assert_memory_equal(engine->received, story->ids.ids, joint * sizeof(int32_t));
	for (int i = 0; i < 16; i++)
		assert_int_equal(engine->received_digest[i], joint);
	assert_int_equal(engine->max_tokens, 100 - joint);

	for (size_t i = joint; i < story->ids.count; i++)
		fake_token(engine, story->ids.ids[i]);
	if (story->whole.reason == CADRE__V1__FINISH_REASON__FINISH_REASON_LENGTH)
		fake_finish(engine, RT_FINISH_LENGTH);
	rpc_run_until(&router->rpc, &rest->result.done);
	assert_int_equal(rest->result.code, CAD_RPC_OK);
}

/* Stop strings and characters across the joint: what the client has, and what is sent then, are
 * together what one stream gives. */
static void an_answer_goes_on_at_every_joint(void **state)
{
	(void)state;
	static const char *const texts[] = { "and so on, and so much more",
		"w\xc3\xb6rld \xf0\x9f\xa6\x84 so \xe4\xbd\xa0\xe5\xa5\xbd" };
	for (size_t t = 0; t < 2; t++) {
		struct fake_router router;
		static struct story story;
		static struct fake_answer rest;
		fake_router_open(&router);
		tell(&router, texts[t], &story);
		assert_int_equal(story.whole.reason,
			t ? CADRE__V1__FINISH_REASON__FINISH_REASON_LENGTH
			  : CADRE__V1__FINISH_REASON__FINISH_REASON_STOP);

		for (size_t joint = 1; joint < story.ids.count; joint++) {
			tell_on(&router, &story, joint, &rest);
			assert_int_equal(rest.ids_count, story.ids.count - joint);
			assert_memory_equal(rest.ids, story.ids.ids + joint, rest.ids_count * sizeof *rest.ids);
			assert_string_equal(rest.text, story.whole.text + story.text_size[joint - 1]);
			assert_string_equal(rest.digest, story.whole.digest);
			assert_int_equal(rest.reason, story.whole.reason);
			assert_int_equal(rest.generated_tokens, story.whole.generated_tokens);
			assert_int_equal(rest.prompt_tokens, story.whole.prompt_tokens);
		}
		cad_ids_fini(&story.ids);
		fake_router_close(&router);
	}
}

/* The first request had max_tokens 0. */
static void an_answer_without_limit_goes_on(void **state)
{
	(void)state;
	struct fake_router router;
	fake_router_open(&router);
	Cadre__V1__GenerateRequest request = story_request();
	Cadre__V1__Resume resume = CADRE__V1__RESUME__INIT;
	struct fake_answer answer;
	resume.token_ids = (int32_t[]){ 5 };
	resume.n_token_ids = 1;
	resume.digest = "00112233445566778899aAbBcCdDeEfF";
	resume.no_limit = true;
	request.resume = &resume;
	request.max_tokens = 0;
	struct fake_request *engine = fake_admitted(&router, &request, NULL, &answer);
	assert_int_equal(engine->max_tokens, 0);
	for (int i = 0; i < 16; i++)
		assert_int_equal(engine->received_digest[i], 0x11 * i);
	fake_router_close(&router);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bad_resumes),
		cmocka_unit_test(an_answer_goes_on_at_every_joint),
		cmocka_unit_test(an_answer_without_limit_goes_on),
	};
	return cmocka_run_group_tests(tests, fake_model_open, fake_model_close);
}
