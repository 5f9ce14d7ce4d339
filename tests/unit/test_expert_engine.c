/* SPDX-License-Identifier: Apache-2.0 */
/* The expert engine behind the in-process link: exact sums however pairs are split, refusals, poison,
 * memory, and experts that come and go while it serves. */
#include "expert-svc/serve/reply.h"
#include "expert-svc/step.h"
#include "expert-svc/transfer/load.h"
#include "kernels/image.h"
#include "kernels/source.h"
#include "tests/support/expert_calls.h"
#include "tests/support/must.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint64_t seed;

/* One engine behind a server transport of the hub. */
struct node {
	struct ex_engine *engine;
	struct cad_transport *transport;
	pthread_t thread;
	_Atomic bool stop;
};

static void wake(void *context) { cad_transport_wake(((struct node *)context)->transport); }

static void on_closed(struct cad_transport *transport, struct cad_connection *connection,
	enum cad_connection_state state, enum cad_status status, const char *text)
{
	(void)status;
	(void)text;
	if (state == CAD_CONNECTION_CLOSED)
		ex_engine_connection_lost(cad_transport_user(transport), connection);
}

static void node_create(
	struct node *node, const struct expert_world *world, const char *name, struct ex_engine_options *options)
{
	struct cad_transport_options transport;
	struct cad_error error = { 0 };

	*node = (struct node){ 0 };
	options->model = world->model;
	options->device = world->device;
	options->settings = &world->settings;
	options->wake = wake;
	options->wake_context = node;
	must(ex_engine_create(options, &node->engine, &error), &error);
	expert_transport_options(world, name, &transport);
	transport.user = node->engine;
	transport.on_request = ex_engine_on_request;
	transport.on_connection = on_closed;
	must(cad_transport_local_create(&transport, world->hub, &node->transport, &error), &error);
	must(cad_transport_listen(node->transport, name, &error), &error);
}

static void node_load(
	struct node *node, const struct expert_world *world, bool (*takes)(int32_t expert, int part), int part)
{
	struct ex_loaded loaded;
	struct cad_error error;
	const struct cad_model_spec *spec = cad_model_spec(world->model);
	for (uint32_t l = 0; l < spec->layers_count; l++)
		for (uint32_t e = 0; spec->layers[l].moe && e < world->experts; e++)
			if (!takes || takes((int32_t)e, part))
				must(ex_engine_load(node->engine, l, e, &loaded, &error), &error);
}

static void node_turn(struct node *node, uint64_t until_ns)
{
	cad_transport_poll(node->transport, until_ns);
	ex_engine_deliver(node->engine);
}

static void *node_run(void *argument)
{
	struct node *node = argument;
	while (!atomic_load(&node->stop))
		node_turn(node, cad_clock_now_ns(&cad_clock_system) + 100 * CAD_NS_PER_MS);
	return NULL;
}

static void node_start(struct node *node) { assert_int_equal(pthread_create(&node->thread, NULL, node_run, node), 0); }

static void node_stop(struct node *node)
{
	atomic_store(&node->stop, true);
	cad_transport_wake(node->transport);
	pthread_join(node->thread, NULL);
}

static void node_destroy(struct node *node)
{
	while (!ex_engine_idle(node->engine))
		node_turn(node, cad_clock_now_ns(&cad_clock_system) + CAD_NS_PER_MS);
	cad_transport_destroy(node->transport);
	ex_engine_destroy(node->engine);
}

/* Everything in the test's thread, but the compute thread of a threaded engine. */
static void run_until(struct expert_client *client, struct node *nodes, size_t nodes_count, const bool *flag)
{
	for (int turns = 0; !*flag; turns++) {
		if (turns > 200000)
			fail_msg("nothing happens any more");
		uint64_t until_ns = turns < 100 ? 0 : cad_clock_now_ns(&cad_clock_system) + CAD_NS_PER_MS / 10;
		for (size_t i = 0; i < nodes_count; i++)
			node_turn(&nodes[i], until_ns);
		cad_transport_poll(expert_client_transport(client), until_ns);
	}
}

static bool takes_half(int32_t expert, int part) { return expert % 2 == part; }
static bool takes_third(int32_t expert, int part) { return expert % 3 == part; }
static bool takes_low(int32_t expert, int part) { return expert < part; }

static void options_small(struct ex_engine_options *options, enum ex_engine_mode mode)
{
	ex_engine_options_default(options);
	options->mode = mode;
	options->threads = 1;
	options->requests_max = 16;
	options->step_rows_max = 64;
	options->step_pairs_max = 256;
}

/* The case over `parts` engines; their sums must be those of each pair computed alone. */
static void check_split(const struct expert_world *world, const struct expert_case *c, bool (*takes)(int32_t, int),
	int parts, struct ex_engine_options options)
{
	struct node nodes[3];
	struct expert_call calls[3];
	struct cad_connection *connections[3];
	int64_t *sums = calloc(c->rows, world->hidden * sizeof *sums);
	struct expert_client *client = expert_client_create(world, "router");

	for (int i = 0; i < parts; i++) {
		char name[16];
		bool ready;
		snprintf(name, sizeof name, "node-%d", i);
		node_create(&nodes[i], world, name, &options);
		node_load(&nodes[i], world, takes, i);
		connections[i] = expert_client_connect(client, name, &ready);
		run_until(client, nodes, (size_t)i + 1, &ready);
	}

	for (int i = 0; i < parts; i++)
		expert_call_start(&calls[i], client, connections[i], world, c, takes, i, sums, 0);
	for (int i = 0; i < parts; i++) {
		run_until(client, nodes, (size_t)parts, &calls[i].done);
		assert_int_equal(calls[i].status, CAD_OK);
		assert_int_equal(calls[i].wire, CADRE_WIRE_OK);
		assert_int_equal(calls[i].poisoned_rows, 0);
		expert_call_fini(&calls[i], client);
	}

	assert_memory_equal(sums, c->expected, c->rows * world->hidden * sizeof *sums);
	expert_client_destroy(client);
	for (int i = 0; i < parts; i++)
		node_destroy(&nodes[i]);
	free(sums);
}

static void same_sums_however_split(void **state)
{
	(void)state;
	static const char *const models[] = { "olmoe-a", "mixtral-b", "qwen3moe-b" };
	static const uint32_t rows[] = { 1, 2, 15, 16, 17, 63, 64 };
	struct cad_random random = { seed };
	for (size_t m = 0; m < 3; m++) {
		struct expert_world world;
		expert_world_init(&world, models[m]);
		const struct cad_model_spec *spec = cad_model_spec(world.model);
		for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
			struct expert_case c;
			struct ex_engine_options options;
			uint32_t layer = (uint32_t)cad_random_below(&random, spec->layers_count);
			while (!spec->layers[layer].moe)
				layer = (layer + 1) % spec->layers_count;
			expert_case_init(&c, &world, layer, rows[i], spec->gate.topk, &random);
			expert_case_expect(&c, &world);
			options_small(&options, EX_ENGINE_INLINE);
			check_split(&world, &c, NULL, 1, options);
			options_small(&options, EX_ENGINE_THREADED);
			check_split(&world, &c, takes_half, 2, options);
			options.threads = 2;
			/* steps smaller than the call */
			options.step_rows_max = 1 + (uint32_t)cad_random_below(&random, 5);
			check_split(&world, &c, takes_third, 3, options);
			options.step_rows_max = 64;
			options.step_pairs_max = 1; /* as many as there are experts, then */
			check_split(&world, &c, takes_half, 2, options);
			expert_case_fini(&c);
		}
		expert_world_fini(&world);
	}
}

/* One call to one node; what its wire status is. */
static struct expert_call one_call(
	const struct expert_world *world, struct node *node, const struct expert_case *c, uint64_t deadline_ns)
{
	struct expert_call call;
	bool ready;
	int64_t *sums = calloc(c->rows, world->hidden * sizeof *sums);
	struct expert_client *client = expert_client_create(world, "router");
	struct cad_connection *connection = expert_client_connect(client, "node", &ready);

	run_until(client, node, 1, &ready);
	expert_call_start(&call, client, connection, world, c, NULL, 0, sums, deadline_ns);
	run_until(client, node, 1, &call.done);
	assert_int_equal(call.status, CAD_OK);
	if (call.wire == CADRE_WIRE_OK && call.poisoned_rows == 0 && !deadline_ns)
		assert_memory_equal(sums, c->expected, c->rows * world->hidden * sizeof *sums);
	expert_call_fini(&call, client);
	expert_client_destroy(client);
	free(sums);

	return call;
}

static uint64_t far_future(void *context)
{
	(void)context;
	return cad_clock_now_ns(&cad_clock_system) + 3600 * CAD_NS_PER_S;
}

static void refusals(void **state)
{
	(void)state;
	static const struct cad_clock late = { far_future, NULL };
	for (int threaded = 0; threaded < 2; threaded++) {
		struct expert_world world;
		struct cad_random random = { seed };
		struct expert_case c;
		struct ex_engine_options options;
		struct node node;
		struct ex_loaded loaded;
		struct cad_error error;
		expert_world_init(&world, "qwen3moe-b"); /* every second layer routes */
		const struct cad_model_spec *spec = cad_model_spec(world.model);
		uint32_t dense = spec->layers[0].moe ? 1 : 0;
		assert_false(spec->layers[dense].moe);
		expert_case_init(&c, &world, 1 - dense, 9, 3, &random);
		expert_case_expect(&c, &world);
		options_small(&options, threaded ? EX_ENGINE_THREADED : EX_ENGINE_INLINE);
		node_create(&node, &world, "node", &options);

		/* the lowest expert that is missing is named */
		c.ids[0] = 0;
		c.ids[1] = 1;
		c.ids[2] = 7;
		expert_case_expect(&c, &world);
		struct expert_call call = one_call(&world, &node, &c, 0);
		assert_int_equal(call.wire, CADRE_WIRE_NOT_HELD);
		assert_int_equal(call.detail, 0);
		node_load(&node, &world, takes_low, 7);
		call = one_call(&world, &node, &c, 0);
		assert_int_equal(call.wire, CADRE_WIRE_NOT_HELD);
		assert_int_equal(call.detail, 7);
		must(ex_engine_load(node.engine, c.layer, 7, &loaded, &error), &error);
		assert_int_equal(one_call(&world, &node, &c, 0).wire, CADRE_WIRE_OK);
		assert_int_equal(ex_engine_free(node.engine, c.layer, 0), CAD_OK);
		assert_int_equal(one_call(&world, &node, &c, 0).wire, CADRE_WIRE_NOT_HELD);
		must(ex_engine_load(node.engine, c.layer, 0, &loaded, &error), &error);

		c.layer = dense;
		call = one_call(&world, &node, &c, 0);
		assert_int_equal(call.wire, CADRE_WIRE_BAD_CALL);
		assert_int_equal(call.detail, dense);
		c.layer = 1 - dense;
		node_destroy(&node);

		options.clock = &late;
		node_create(&node, &world, "node", &options);
		node_load(&node, &world, NULL, 0);
		assert_int_equal(
			one_call(&world, &node, &c, cad_clock_now_ns(&cad_clock_system) + 600 * CAD_NS_PER_S).wire,
			CADRE_WIRE_EXPIRED);
		assert_int_equal(one_call(&world, &node, &c, 0).wire, CADRE_WIRE_OK);
		struct ex_engine_stats stats = ex_engine_stats(node.engine);
		assert_int_equal(stats.expired, 1);
		assert_int_equal(stats.calls, 1);
		node_destroy(&node);
		expert_case_fini(&c);
		expert_world_fini(&world);
	}
}

/* NaN and infinity in a row poison that row alone, and name its lowest expert. */
static void poison(void **state)
{
	(void)state;
	static const float values[] = { NAN, INFINITY, -INFINITY };
	struct expert_world world;
	struct ex_engine_options options;
	struct node node;
	struct cad_random random = { seed };
	expert_world_init(&world, "mixtral-a");
	options_small(&options, EX_ENGINE_THREADED);
	node_create(&node, &world, "node", &options);
	node_load(&node, &world, NULL, 0);

	for (size_t i = 0; i < 3; i++) {
		struct expert_case c;
		expert_case_init(&c, &world, 2, 8, 2, &random);
		c.x[3 * kn_ld(world.hidden) + 5] = values[i];
		struct expert_call call = one_call(&world, &node, &c, 0);
		assert_int_equal(call.wire, CADRE_WIRE_OK);
		assert_int_equal(call.poisoned_rows, 1);
		assert_int_equal(call.poisoned_expert, c.ids[6] < c.ids[7] ? c.ids[6] : c.ids[7]);
		expert_case_fini(&c);
	}

	assert_int_equal(ex_engine_stats(node.engine).poisoned_rows, 3);
	node_destroy(&node);
	expert_world_fini(&world);
}

/* More calls than the engine holds are turned away, and the others are not harmed. */
static void busy(void **state)
{
	(void)state;
	enum { CALLS = 5 };
	struct expert_world world;
	struct cad_random random = { seed };
	struct expert_case c;
	struct expert_call calls[CALLS];
	struct ex_engine_options options;
	struct node node;
	bool ready;
	expert_world_init(&world, "mixtral-a");
	expert_case_init(&c, &world, 0, 4, 2, &random);
	expert_case_expect(&c, &world);
	options_small(&options, EX_ENGINE_THREADED);
	options.requests_max = 2;
	node_create(&node, &world, "node", &options);
	node_load(&node, &world, NULL, 0);
	struct expert_client *client = expert_client_create(&world, "router");
	struct cad_connection *connection = expert_client_connect(client, "node", &ready);
	run_until(client, &node, 1, &ready);
	int64_t *sums = calloc(CALLS * c.rows, world.hidden * sizeof *sums);
	for (size_t i = 0; i < CALLS; i++)
		expert_call_start(
			&calls[i], client, connection, &world, &c, NULL, 0, sums + i * c.rows * world.hidden, 0);

	/* Nothing is delivered until all have come: two are held, three find no place. */
	while (ex_engine_stats(node.engine).busy < CALLS - 2) {
		cad_transport_poll(expert_client_transport(client), 0);
		cad_transport_poll(node.transport, 0);
	}

	for (size_t i = 0; i < CALLS; i++) {
		run_until(client, &node, 1, &calls[i].done);
		assert_int_equal(calls[i].wire, i < 2 ? CADRE_WIRE_OK : CADRE_WIRE_BUSY);
		if (i < 2)
			assert_memory_equal(
				sums + i * c.rows * world.hidden, c.expected, c.rows * world.hidden * sizeof *sums);
		expert_call_fini(&calls[i], client);
	}

	free(sums);
	expert_client_destroy(client);
	node_destroy(&node);
	expert_case_fini(&c);
	expert_world_fini(&world);
}

static void memory_is_bounded(void **state)
{
	(void)state;
	struct expert_world world;
	struct ex_engine_options options;
	struct ex_engine *engine;
	struct ex_loaded loaded;
	struct cad_error error;
	char checksum[33];
	expert_world_init(&world, "olmoe-a");
	options_small(&options, EX_ENGINE_INLINE);
	options.model = world.model;
	options.device = world.device;
	options.queue = world.queue;
	options.settings = &world.settings;
	must(ex_engine_create(&options, &engine, &error), &error);
	uint64_t one = ex_engine_expert_bytes(engine);
	assert_true(one > 0);
	ex_engine_destroy(engine);
	options.memory_bytes = 2 * one + one / 2;
	must(ex_engine_create(&options, &engine, &error), &error);
	must(ex_engine_load(engine, 0, 3, &loaded, &error), &error);
	assert_int_equal(loaded.bytes, one);
	kn_expert_checksum(world.model, 0, 3, CAD_WEIGHTS_AS_IS, checksum);
	assert_string_equal(loaded.checksum, checksum);
	must(ex_engine_load(engine, 0, 3, &loaded, &error), &error); /* again costs nothing */
	assert_int_equal(ex_engine_memory_used(engine), one);
	must(ex_engine_load(engine, 1, 0, &loaded, &error), &error);
	assert_int_equal(ex_engine_load(engine, 1, 1, &loaded, &error), CAD_ERR_EXHAUSTED);
	assert_non_null(strstr(error.text, "raise --memory"));
	assert_int_equal(ex_engine_held(engine), 2);
	assert_int_equal(ex_engine_free(engine, 0, 3), CAD_OK);
	assert_int_equal(ex_engine_free(engine, 0, 3), CAD_ERR_NOT_FOUND);
	assert_int_equal(ex_engine_free(engine, 99, 3), CAD_ERR_NOT_FOUND);
	assert_false(ex_engine_holds(engine, 0, 3));
	must(ex_engine_load(engine, 1, 1, &loaded, &error), &error);
	assert_int_equal(ex_engine_load(engine, 0, 16, &loaded, &error), CAD_ERR_RANGE);
	assert_int_equal(ex_engine_load(engine, 4, 0, &loaded, &error), CAD_ERR_RANGE);
	assert_int_equal(expert_load_all(engine, &error), CAD_ERR_EXHAUSTED);
	ex_engine_destroy(engine);
	expert_world_fini(&world);
}

static bool go_on(void *context, const char *node, uint64_t bytes) { return (void)context, (void)node, bytes > 0; }

/* Both ways of loading pack the image that the placement service's checksum is over. */
static void rounded_and_quantised_from_the_checkpoint(void **state)
{
	(void)state;
	struct expert_world world;
	struct ex_engine_options options;
	struct cad_error error;
	expert_world_init(&world, "olmoe-a");
	options_small(&options, EX_ENGINE_INLINE);
	options.model = world.model;
	options.device = world.device;
	options.settings = &world.settings;

	for (enum cad_weights weights = CAD_WEIGHTS_BF16_ROWS; weights <= CAD_WEIGHTS_INT4; weights++) {
		struct ex_engine *engine;
		struct ex_loaded loaded;
		struct ex_load_result result;
		char checksum[33];
		world.settings.weights = weights;
		must(ex_engine_create(&options, &engine, &error), &error);
		must(ex_engine_load(engine, 1, 0, &loaded, &error), &error);
		kn_expert_checksum(world.model, 1, 0, weights, checksum);
		assert_string_equal(loaded.checksum, checksum);

		const struct ex_load_run run = {
			.engine = engine,
			.layer = 2,
			.expert = 5,
			.load = &(struct ex_load){ .node = NULL },
			.read = go_on,
		};
		must(ex_load_run(&run, &result, &error), &error);
		kn_expert_checksum(world.model, 2, 5, weights, checksum);
		assert_string_equal(result.loaded.checksum, checksum);

		struct kn_expert_source image = ex_store_image(ex_engine_store(engine), 2, 5);
		size_t bytes = (size_t)kn_image_bytes(&image);
		uint8_t *out = malloc(bytes);
		assert_int_equal(ex_store_read(ex_engine_store(engine), 2, 5, 0, bytes, out), CAD_OK);
		kn_image_bytes_checksum(out, bytes, checksum);
		assert_string_equal(result.loaded.checksum, checksum);
		free(out);
		ex_engine_destroy(engine);
	}
	expert_world_fini(&world);
}

static void load_all_and_wrong_options(void **state)
{
	(void)state;
	struct expert_world world;
	struct ex_engine_options options;
	struct ex_engine *engine;
	struct cad_error error;
	expert_world_init(&world, "olmoe-a");
	options_small(&options, EX_ENGINE_INLINE);
	options.model = world.model;
	options.device = world.device;
	options.settings = &world.settings;
	must(ex_engine_create(&options, &engine, &error), &error);
	must(expert_load_all(engine, &error), &error);
	assert_int_equal(ex_engine_held(engine), 4 * 16);
	ex_engine_destroy(engine);

	world.settings.profile = (enum cad_profile)7;
	assert_int_equal(ex_engine_create(&options, &engine, &error), CAD_ERR_UNSUPPORTED);
	assert_non_null(strstr(error.text, "does not compute in profile"));
	world.settings.profile = CAD_PROFILE_F32;
	world.settings.layers = 3;
	assert_int_equal(ex_engine_create(&options, &engine, &error), CAD_ERR_INVALID);
	assert_non_null(strstr(error.text, "3 layers"));
	world.settings.layers = 4;
	world.settings.quanta[2] = 0;
	assert_int_equal(ex_engine_create(&options, &engine, &error), CAD_ERR_INVALID);
	assert_non_null(strstr(error.text, "layer 2"));
	struct cad_model *dense;
	must(cad_model_open("tests/golden/llama-a/model", &dense, &error), &error);
	struct cad_settings settings;
	float quanta[CAD_LAYERS_MAX] = { 0 };
	must(cad_settings_init(&settings,
		     &(struct cad_settings){
			     .wire = CADRE_ROW_FIX16,
			     .layers = cad_model_spec(dense)->layers_count,
			     .quanta = quanta,
		     },
		     &error),
		&error);
	options.model = dense;
	options.settings = &settings;
	assert_int_equal(ex_engine_create(&options, &engine, &error), CAD_ERR_UNSUPPORTED);
	assert_non_null(strstr(error.text, "dense"));
	cad_settings_fini(&settings);
	cad_model_close(dense);
	expert_world_fini(&world);
}

/* ---- several threads ---- */

struct router {
	const struct expert_world *world;
	const char *name;
	uint64_t seed;
	int rounds;
	int ok, not_held;
	int wrong; /* assertions belong to the main thread */
	pthread_t thread;
};

/* A router in a thread of its own: call after call, each checked. */
static void *route(void *argument)
{
	struct router *router = argument;
	const struct expert_world *world = router->world;
	struct cad_random random = { router->seed };
	struct expert_client *client = expert_client_create(world, router->name);
	bool ready;
	struct cad_connection *connection = expert_client_connect(client, "node", &ready);

	while (!ready)
		cad_transport_poll(
			expert_client_transport(client), cad_clock_now_ns(&cad_clock_system) + CAD_NS_PER_MS);
	struct expert_case c;
	expert_case_init(&c, world, (uint32_t)cad_random_below(&random, 4), 5, 4, &random);
	expert_case_expect(&c, world);
	int64_t *sums = malloc(c.rows * world->hidden * sizeof *sums);
	for (int i = 0; i < router->rounds; i++) {
		struct expert_call call;
		memset(sums, 0, c.rows * world->hidden * sizeof *sums);
		expert_call_start(&call, client, connection, world, &c, NULL, 0, sums, 0);
		while (!call.done)
			cad_transport_poll(expert_client_transport(client),
				cad_clock_now_ns(&cad_clock_system) + 100 * CAD_NS_PER_MS);
		if (call.wire == CADRE_WIRE_OK && memcmp(sums, c.expected, c.rows * world->hidden * sizeof *sums) == 0)
			router->ok++;
		else if (call.wire == CADRE_WIRE_NOT_HELD && call.detail == 6)
			router->not_held++;
		else
			router->wrong++;
		expert_call_fini(&call, client);
	}

	free(sums);
	expert_case_fini(&c);
	expert_client_destroy(client);

	return NULL;
}

struct mover {
	struct ex_engine *engine;
	_Atomic bool stop;
	int moves;
};

/* Frees and loads expert 6 of every layer, over and over. */
static void *move(void *argument)
{
	struct mover *mover = argument;
	struct ex_loaded loaded;
	struct cad_error error;

	while (!atomic_load(&mover->stop)) {
		for (uint32_t layer = 0; layer < 4; layer++)
			if (ex_engine_free(mover->engine, layer, 6) == CAD_OK &&
				ex_engine_load(mover->engine, layer, 6, &loaded, &error) == CAD_OK)
				mover->moves++;
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL); /* so that calls find it, too */
	}

	return NULL;
}

/* Three routers, one engine, experts that come and go: every answer is right, or says which expert
 * was away. */
static void freeing_while_serving(void **state)
{
	(void)state;
	enum { ROUTERS = 3 };
	static const char *const names[ROUTERS] = { "router-a", "router-b", "router-c" };
	struct expert_world world, own[ROUTERS];
	struct ex_engine_options options;
	struct node node;
	struct router routers[ROUTERS];
	expert_world_init(&world, "olmoe-a");
	options_small(&options, EX_ENGINE_THREADED);
	options.threads = 2;
	node_create(&node, &world, "node", &options);
	node_load(&node, &world, NULL, 0);
	node_start(&node);
	struct mover mover = { .engine = node.engine };
	pthread_t moving;
	assert_int_equal(pthread_create(&moving, NULL, move, &mover), 0);

	for (size_t i = 0; i < ROUTERS; i++) {
		own[i] = world; /* a queue belongs to one thread */
		assert_int_equal(world.device->ops->queue_create(world.device, 1, &own[i].queue), CAD_OK);
		routers[i] = (struct router){ .world = &own[i], .name = names[i], .seed = seed + i, .rounds = 150 };
		assert_int_equal(pthread_create(&routers[i].thread, NULL, route, &routers[i]), 0);
	}

	for (size_t i = 0; i < ROUTERS; i++) {
		pthread_join(routers[i].thread, NULL);
		world.device->ops->queue_destroy(own[i].queue);
		assert_int_equal(routers[i].wrong, 0);
		assert_int_equal(routers[i].ok + routers[i].not_held, 150);
		assert_true(routers[i].ok > 0);
	}

	atomic_store(&mover.stop, true);
	pthread_join(moving, NULL);
	assert_true(mover.moves > 0);
	assert_int_equal(ex_engine_held(node.engine), 64);
	node_stop(&node);
	node_destroy(&node);
	expert_world_fini(&world);
}

/* A router that goes away with calls in flight: the engine gets rid of them and serves the next
 * one. */
static void router_disappears(void **state)
{
	(void)state;
	struct expert_world world;
	struct cad_random random = { seed };
	struct expert_case c;
	struct expert_call calls[4];
	struct ex_engine_options options;
	struct node node;
	bool ready;
	expert_world_init(&world, "olmoe-a");
	expert_case_init(&c, &world, 1, 16, 4, &random);
	expert_case_expect(&c, &world);
	options_small(&options, EX_ENGINE_THREADED);
	node_create(&node, &world, "node", &options);
	node_load(&node, &world, NULL, 0);
	struct expert_client *client = expert_client_create(&world, "router");
	struct cad_connection *connection = expert_client_connect(client, "node", &ready);
	run_until(client, &node, 1, &ready);
	int64_t *sums = calloc(c.rows, world.hidden * sizeof *sums);
	for (int i = 0; i < 4; i++)
		expert_call_start(&calls[i], client, connection, &world, &c, NULL, 0, sums, 0);
	while (ex_engine_idle(node.engine))
		cad_transport_poll(node.transport, 0);
	cad_connection_close(connection, CAD_ERR_CANCELLED, "the test goes");
	while (!(calls[0].done && calls[1].done && calls[2].done && calls[3].done) || !ex_engine_idle(node.engine)) {
		node_turn(&node, 0);
		cad_transport_poll(expert_client_transport(client), 0);
	}

	for (int i = 0; i < 4; i++)
		expert_call_fini(&calls[i], client);
	expert_client_destroy(client);
	free(sums);
	assert_int_equal(one_call(&world, &node, &c, 0).wire, CADRE_WIRE_OK);
	node_destroy(&node);
	expert_case_fini(&c);
	expert_world_fini(&world);
}

int main(void)
{
	const char *given = getenv("CADRE_TEST_SEED");
	seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
	printf("CADRE_TEST_SEED=%llu\n", (unsigned long long)seed);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(same_sums_however_split),
		cmocka_unit_test(refusals),
		cmocka_unit_test(poison),
		cmocka_unit_test(busy),
		cmocka_unit_test(memory_is_bounded),
		cmocka_unit_test(rounded_and_quantised_from_the_checkpoint),
		cmocka_unit_test(load_all_and_wrong_options),
		cmocka_unit_test(freeing_while_serving),
		cmocka_unit_test(router_disappears),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
