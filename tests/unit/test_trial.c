/* SPDX-License-Identifier: Apache-2.0 */
/* /readyz?generate of a router: one token for all who ask, no more often than once in a while, and
 * an answer even when nobody else has one. */
#include "router-svc/frontend/trial.h"
#include "tests/support/fake_router.h"
#include "tests/support/must.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct world {
	struct fake_router router;
	struct cad_metrics *metrics;
	char why[CAD_NOTE_BYTES];
};

static void open_world(struct world *world)
{
	assert_int_equal(cad_metrics_create(&world->metrics), CAD_OK);
	fake_router_open_with(
		&world->router, (struct rt_frontend_options){ .tokenizer = fake_tokenizer, .metrics = world->metrics });
}

static void close_world(struct world *world)
{
	fake_router_close(&world->router);
	cad_metrics_destroy(world->metrics);
}

static enum cad_status ask(struct world *world) { return rt_frontend_generates(world->router.frontend, world->why); }

/* Asks for the first time; returns the engine's side of the trial. */
static struct fake_request *begin(struct world *world)
{
	world->router.fake.submitted = false;
	assert_int_equal(ask(world), CAD_AGAIN);
	rpc_run_until(&world->router.rpc, &world->router.fake.submitted);
	return &world->router.fake.requests[world->router.fake.count - 1];
}

/* Until what the engine has said is known. */
static enum cad_status settle(struct world *world)
{
	enum cad_status status;
	while ((status = ask(world)) == CAD_AGAIN) {
		struct fake_answer answer = { .result.done = false };
		Cadre__V1__GetModelRequest request = CADRE__V1__GET_MODEL_REQUEST__INIT;
		rpc_call(&world->router.rpc, "/cadre.v1.Inference/GetModel", &request.base,
			&cadre__v1__get_model_response__descriptor, NULL, &answer.result);
	}
	return status;
}

static void pass(struct world *world, uint64_t ms) { world->router.fake.ahead_ns += ms * CAD_NS_PER_MS; }

static void page_has(struct world *world, const char *line)
{
	char *text;
	size_t bytes;
	assert_int_equal(cad_metrics_render(world->metrics, &text, &bytes), CAD_OK);
	if (!strstr(text, line))
		fail_msg("no %s in\n%s", line, text);
	free(text);
}

static void a_token_is_the_answer(void **state)
{
	(void)state;
	static struct world world;
	open_world(&world);

	struct fake_request *trial = begin(&world);
	assert_true(trial->trial);
	assert_int_equal(trial->prompt_count, 1);
	assert_int_equal(trial->max_tokens, 1);
	assert_true(trial->deadline_ns <= cad_clock_now_ns(&cad_clock_system) + RT_TRIAL_MS * CAD_NS_PER_MS);
	assert_int_equal(rt_frontend_streams(world.router.frontend), 0);
	for (int i = 0; i < 10; i++)
		assert_int_equal(ask(&world), CAD_AGAIN);
	fake_last_token(trial, 7);
	fake_finish(trial, RT_FINISH_LENGTH);
	assert_int_equal(settle(&world), CAD_OK);
	pass(&world, RT_TRIAL_KEEP_MS - 500);
	assert_int_equal(ask(&world), CAD_OK);
	assert_int_equal(world.router.fake.count, 1); /* for all of them */

	pass(&world, 500);
	int32_t token = trial->prompt[0];
	trial = begin(&world);
	assert_int_equal(world.router.fake.count, 2);
	assert_true(trial->prompt[0] != token);
	fake_last_token(trial, 7);
	fake_finish(trial, RT_FINISH_LENGTH);
	assert_int_equal(settle(&world), CAD_OK);
	page_has(&world, "cadre_router_trials_total{outcome=\"passed\"} 2\n");
	page_has(&world, "cadre_router_first_token_seconds_count 0\n");
	page_has(&world, "cadre_router_generate_total{code=\"OK\"} 0\n");
	close_world(&world);
}

static void a_failure_is_kept_for_a_while(void **state)
{
	(void)state;
	static struct world world;
	open_world(&world);

	fake_fail(begin(&world), CAD_ERR_DEADLINE, "the deadline passed after 0 tokens");
	assert_int_equal(settle(&world), CAD_ERR_DEADLINE);
	assert_string_equal(world.why, "no token: the deadline passed after 0 tokens");
	pass(&world, RT_TRIAL_KEEP_MS - 500);
	assert_int_equal(ask(&world), CAD_ERR_DEADLINE);
	assert_int_equal(world.router.fake.count, 1);
	pass(&world, 500);
	fake_last_token(begin(&world), 7);
	fake_finish(&world.router.fake.requests[1], RT_FINISH_LENGTH);
	assert_int_equal(settle(&world), CAD_OK);
	page_has(&world, "cadre_router_trials_total{outcome=\"failed\"} 1\n");

	pass(&world, RT_TRIAL_KEEP_MS);
	world.router.fake.limit = world.router.fake.count; /* the engine takes nothing */
	assert_int_equal(ask(&world), CAD_AGAIN);
	assert_int_equal(settle(&world), CAD_ERR_EXHAUSTED);
	assert_string_equal(world.why, "no token: 2 requests are the limit");
	close_world(&world);
}

/* What clients' requests compute is proof enough, and a trial that is
 * running does not count then. */
static void a_busy_router_computes_nothing_for_it(void **state)
{
	(void)state;
	static struct world world;
	open_world(&world);
	struct fake *fake = &world.router.fake;

	fake->advanced_ns = cad_clock_now_ns(&fake->clock);
	assert_int_equal(ask(&world), CAD_OK);
	pass(&world, RT_TRIAL_KEEP_MS);
	struct fake_request *trial = begin(&world);
	fake->advanced_ns = cad_clock_now_ns(&fake->clock);
	assert_int_equal(ask(&world), CAD_OK);
	fake_fail(trial, CAD_ERR_DEADLINE, "late");
	assert_int_equal(ask(&world), CAD_OK);
	assert_int_equal(fake->count, 1);
	close_world(&world);
}

/* Neither the engine nor the reactor's thread says anything: the one who
 * asks is told all the same. */
static void silence_is_an_answer(void **state)
{
	(void)state;
	static struct world world;
	open_world(&world);

	struct fake_request *trial = begin(&world);
	pass(&world, RT_TRIAL_MS + RT_TRIAL_LATE_MS);
	assert_int_equal(ask(&world), CAD_ERR_DEADLINE);
	assert_non_null(strstr(world.why, "no word from the engine"));
	assert_int_equal(world.router.fake.count, 1); /* and no second is begun */
	fake_last_token(trial, 7);
	fake_finish(trial, RT_FINISH_LENGTH);
	rpc_run_until(&world.router.rpc, &(bool){ true });
	close_world(&world);
}

/* One that is wanted when the router stops is not begun: there is no engine any longer. */
static void none_is_begun_at_the_end(void **state)
{
	(void)state;
	static struct world world;
	open_world(&world);
	rt_frontend_drain(world.router.frontend, 0, fake_router_gone, &world.router);
	assert_int_equal(ask(&world), CAD_AGAIN);
	rpc_run_until(&world.router.rpc, &world.router.gone);
	assert_int_equal(world.router.fake.count, 0);
	rpc_fixture_close(&world.router.rpc);
	assert_int_equal(ask(&world), CAD_ERR_CANCELLED);
	rt_frontend_destroy(world.router.frontend);
	cad_metrics_destroy(world.metrics);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_token_is_the_answer),
		cmocka_unit_test(a_failure_is_kept_for_a_while),
		cmocka_unit_test(a_busy_router_computes_nothing_for_it),
		cmocka_unit_test(silence_is_an_answer),
		cmocka_unit_test(none_is_begun_at_the_end),
	};
	return cmocka_run_group_tests(tests, fake_model_open, fake_model_close);
}
