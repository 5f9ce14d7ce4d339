/* SPDX-License-Identifier: Apache-2.0 */
/* A step of an expert node without an engine around it: which calls it
 * takes, and what it counts. */
#include "expert-svc/serve/reply.h"
#include "expert-svc/step.h"
#include "tests/support/expert_calls.h"
#include "tests/support/must.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdatomic.h>
#include <stdlib.h>

/* Requests are collected until the test runs them. */
struct bench {
	struct cad_transport *transport;
	struct ex_store *store;
	struct ex_inbox inbox;
	struct ex_counters counters;
	struct ex_work work;
	struct ex_step step;
	struct cad_request *requests[8];
	size_t count;
};

static void collect(struct cad_transport *transport, struct cad_request *request)
{
	struct bench *bench = cad_transport_user(transport);
	bench->requests[bench->count++] = request;
}

static void reply(void *context, struct ex_job *job)
{
	ex_reply_send(job);
	ex_inbox_release(context, job);
}

static void bench_open(struct bench *bench, struct expert_world *world)
{
	const struct cad_model_spec *spec = cad_model_spec(world->model);
	struct cad_transport_options options;
	struct cad_error error;

	*bench = (struct bench){ 0 };
	expert_transport_options(world, "node", &options);
	options.user = bench;
	options.on_request = collect;
	must(cad_transport_local_create(&options, world->hub, &bench->transport, &error), &error);
	must(cad_transport_listen(bench->transport, "node", &error), &error);

	const struct ex_store_options store = { .model = world->model, .device = world->device };
	must(ex_store_create(&store, &bench->store, &error), &error);
	for (uint32_t e = 0; e < 2 * 16; e++) {
		struct ex_loaded loaded;
		must(ex_store_load(bench->store, e / 16, e % 16, NULL, &loaded, &error), &error);
	}

	assert_int_equal(ex_inbox_init(&bench->inbox, 8), CAD_OK);
	assert_int_equal(ex_work_init(&bench->work, spec->layers_count, spec->gate.experts), CAD_OK);
	bench->step = (struct ex_step){
		.inbox = &bench->inbox,
		.store = bench->store,
		.spec = spec,
		.quanta = world->settings.quanta,
		.clock = &cad_clock_system,
		.counters = &bench->counters,
		.work = &bench->work,
		.answer = reply,
		.context = &bench->inbox,
	};
	assert_int_equal(ex_batch_init(&bench->step.batch, world->device, 32, 128, 8, 16, 64), CAD_OK);
	assert_int_equal(
		ex_exec_init(&bench->step.exec, world->queue, 32, 128, world->hidden, spec->expert.size), CAD_OK);
}

static void bench_close(struct bench *bench)
{
	cad_transport_destroy(bench->transport);
	ex_exec_fini(&bench->step.exec);
	ex_batch_fini(&bench->step.batch);
	ex_inbox_fini(&bench->inbox);
	ex_store_destroy(bench->store);
	ex_work_fini(&bench->work);
}

/* One step of a layer, in which so many calls waited. */
static void check_work(const struct bench *bench, uint32_t layer, uint32_t rows, uint32_t calls)
{
	const struct ex_layer_work *work = &bench->work.layer[layer];
	uint64_t pairs = 0, activated = 0;

	for (uint32_t e = 0; e < bench->work.experts; e++) {
		uint64_t of_expert = ex_work_read(&bench->work.pairs[layer * bench->work.experts + e]);
		pairs += of_expert;
		activated += of_expert > 0;
	}
	assert_int_equal(ex_work_read(&work->steps), 1);
	assert_int_equal(ex_work_read(&work->rows), rows);
	assert_int_equal(ex_work_read(&work->pairs), 4 * rows);
	assert_int_equal(pairs, 4 * rows);
	assert_int_equal(ex_work_read(&work->activated), activated);
	assert_int_equal(ex_work_read(&work->waiting), calls);
	assert_true(ex_work_read(&work->service_ns) > 0);
}

/* What was collected becomes jobs, in the order in which it came. */
static void bench_take(struct bench *bench)
{
	for (size_t i = 0; i < bench->count; i++) {
		struct ex_job *job = ex_inbox_acquire(&bench->inbox);
		job->request = bench->requests[i];
		job->call = cad_request_view(job->request);
		job->payload = cad_request_answer_buffer(job->request)->bytes;
		job->received_ns = cad_request_received_ns(job->request);
		ex_inbox_put(&bench->inbox, job);
	}
}

/* A router's calls, 3, 4, 5 ... rows, which wait in the bench's inbox. */
struct calls {
	struct expert_client *client;
	struct expert_case cases[8];
	struct expert_call calls[8];
	int64_t *sums[8];
	size_t count;
};

static void calls_send(
	struct calls *c, struct bench *bench, struct expert_world *world, const uint32_t *layers, size_t count)
{
	struct cad_random random = { 1 };
	bool ready;
	*c = (struct calls){ .client = expert_client_create(world, "router"), .count = count };
	struct cad_connection *connection = expert_client_connect(c->client, "node", &ready);
	struct cad_transport *transport = expert_client_transport(c->client);

	while (bench->count < count) {
		cad_transport_poll(bench->transport, 0);
		cad_transport_poll(transport, 0);
		for (size_t i = 0; ready && i < count && cad_transport_stats(transport)->calls < count; i++) {
			expert_case_init(&c->cases[i], world, layers[i], 3 + (uint32_t)i, 4, &random);
			expert_case_expect(&c->cases[i], world);
			c->sums[i] = calloc(c->cases[i].rows, world->hidden * sizeof **c->sums);
			expert_call_start(
				&c->calls[i], c->client, connection, world, &c->cases[i], NULL, 0, c->sums[i], 0);
		}
	}
	bench_take(bench);
}

static void calls_receive(struct calls *c, struct bench *bench)
{
	for (size_t i = 0; i < c->count; i++)
		while (!c->calls[i].done) {
			cad_transport_poll(bench->transport, 0);
			cad_transport_poll(expert_client_transport(c->client), 0);
		}
}

static void calls_fini(struct calls *c)
{
	for (size_t i = 0; i < c->count; i++) {
		expert_call_fini(&c->calls[i], c->client);
		expert_case_fini(&c->cases[i]);
		free(c->sums[i]);
	}
	expert_client_destroy(c->client);
}

/* Calls that are there at once: the oldest one's layer is one step, whatever lies between; each
 * call gets its own sums. */
static void calls_of_a_layer_are_one_step(void **state)
{
	(void)state;
	static const uint32_t layers[] = { 0, 0, 1, 0, 1 };
	enum { CALLS = sizeof layers / sizeof *layers };
	struct expert_world world;
	struct bench bench;
	struct calls c;
	expert_world_init(&world, "olmoe-a");
	bench_open(&bench, &world);
	calls_send(&c, &bench, &world, layers, CALLS);

	assert_true(ex_step_run(&bench.step));
	assert_int_equal(atomic_load(&bench.counters.rows), 3 + 4 + 6);
	assert_int_equal(atomic_load(&bench.counters.pairs), 4 * (3 + 4 + 6));
	assert_true(ex_step_run(&bench.step));
	assert_false(ex_step_run(&bench.step));
	assert_int_equal(atomic_load(&bench.counters.steps), 2);
	assert_int_equal(atomic_load(&bench.counters.calls), CALLS);
	check_work(&bench, 0, 3 + 4 + 6, 3);
	check_work(&bench, 1, 5 + 7, 2);

	calls_receive(&c, &bench);
	for (size_t i = 0; i < CALLS; i++) {
		assert_int_equal(c.calls[i].wire, CADRE_WIRE_OK);
		assert_memory_equal(c.sums[i], c.cases[i].expected, c.cases[i].rows * world.hidden * sizeof **c.sums);
	}

	calls_fini(&c);
	bench_close(&bench);
	expert_world_fini(&world);
}

/* ---- a device that fails ---- */

static const struct kn_ops *working;
static struct kn_ops failing;
static unsigned waits, times_told;

static enum cad_status fail_to_wait(struct kn_queue *queue)
{
	assert_int_equal(working->wait(queue), CAD_OK);
	waits++;
	return CAD_ERR_INTERNAL;
}

static void tell(void *context)
{
	(void)context;
	times_told++;
}

/* What waits then is answered; of the device nothing is asked any more. */
static void run_on_a_failing_device(struct bench *bench, struct calls *c, struct expert_world *world)
{
	static const uint32_t layers[] = { 0, 0, 1 };
	struct kn_queue *queue = bench->step.exec.queue;

	calls_send(c, bench, world, layers, 3);
	working = queue->ops;
	failing = *working;
	failing.wait = fail_to_wait;
	queue->ops = &failing;
	waits = times_told = 0;
	while (ex_step_run(&bench->step))
		;
	queue->ops = working;
	calls_receive(c, bench);
}

static void calls_of_a_failed_device_go_elsewhere(void **state)
{
	(void)state;
	struct expert_world world;
	struct bench bench;
	struct calls c;
	expert_world_init(&world, "olmoe-a");
	bench_open(&bench, &world);
	bench.step.device_failed = tell;
	run_on_a_failing_device(&bench, &c, &world);

	assert_int_equal(waits, 1);
	assert_int_equal(times_told, 1);
	for (size_t i = 0; i < c.count; i++)
		assert_int_equal(c.calls[i].wire, CADRE_WIRE_NOT_HELD);
	assert_int_equal(atomic_load(&bench.counters.not_held), 3);
	assert_int_equal(atomic_load(&bench.counters.calls), 0);

	calls_fini(&c);
	bench_close(&bench);
	expert_world_fini(&world);
}

/* In one process with its router there is no elsewhere: the requests end. */
static void calls_of_a_failed_device_fail_where_nobody_leaves(void **state)
{
	(void)state;
	struct expert_world world;
	struct bench bench;
	struct calls c;
	expert_world_init(&world, "olmoe-a");
	bench_open(&bench, &world);
	run_on_a_failing_device(&bench, &c, &world);

	assert_int_equal(waits, 2);
	for (size_t i = 0; i < c.count; i++)
		assert_int_equal(c.calls[i].wire, CADRE_WIRE_INTERNAL);
	assert_int_equal(atomic_load(&bench.counters.internal), 3);

	calls_fini(&c);
	bench_close(&bench);
	expert_world_fini(&world);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(calls_of_a_layer_are_one_step),
		cmocka_unit_test(calls_of_a_failed_device_go_elsewhere),
		cmocka_unit_test(calls_of_a_failed_device_fail_where_nobody_leaves),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
