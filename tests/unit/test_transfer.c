/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Experts from node to node, with the threads of real nodes over the in-process link: loader
 * threads ask, exchange threads carry, a giver unpacks; calls of a router go on beside them.
 */
#include "expert-svc/transfer/asker.h"
#include "expert-svc/transfer/giver.h"
#include "kernels/image.h"
#include "kernels/source.h"
#include "tests/support/expert_calls.h"
#include "tests/support/must.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LAYER = 1, EXPERTS = 8, ASKERS = 2 };

/* ---- a node: an engine, a transport and its thread ---- */

struct node {
	struct expert_world *world;
	struct ex_engine *engine;
	struct cad_transport *transport;
	struct ex_asker *asker;
	struct ex_giver *giver;
	pthread_t thread;
	_Atomic bool stop, hung;
	bool runs;
};

static void wake(void *context) { cad_transport_wake(((struct node *)context)->transport); }

static void on_connection(struct cad_transport *transport, struct cad_connection *connection,
	enum cad_connection_state state, enum cad_status status, const char *text)
{
	(void)transport;
	if (cad_connection_user(connection))
		ex_asker_connection(connection, state, status, text);
}

static void on_request(struct cad_transport *transport, struct cad_request *request)
{
	ex_engine_request(((struct node *)cad_transport_user(transport))->engine, request);
}

static void on_fetch(struct cad_transport *transport, struct cad_part *part)
{
	ex_giver_fetch(((struct node *)cad_transport_user(transport))->giver, part);
}

static void *exchange(void *argument)
{
	struct node *node = argument;
	while (!atomic_load(&node->stop) || !ex_giver_idle(node->giver) || !ex_asker_idle(node->asker)) {
		if (atomic_load(&node->hung)) {
			nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
			continue;
		}
		uint64_t until_ns = ex_asker_turn(node->asker),
			 most_ns = cad_transport_now_ns(node->transport) + 20 * CAD_NS_PER_MS;
		cad_transport_poll(node->transport, until_ns < most_ns ? until_ns : most_ns);
		ex_giver_deliver(node->giver);
	}
	return NULL;
}

static void node_open(struct node *node, struct expert_world *world, const char *name)
{
	struct ex_engine_options engine;
	struct cad_transport_options options;
	struct cad_error error;

	memset(node, 0, sizeof *node);
	node->world = world;
	ex_engine_options_default(&engine);
	engine.model = world->model;
	engine.device = world->device;
	engine.queue = world->queue;
	engine.settings = &world->settings;
	must(ex_engine_create(&engine, &node->engine, &error), &error);

	expert_transport_options(world, name, &options);
	options.user = node;
	options.on_connection = on_connection;
	options.on_request = on_request;
	options.on_fetch = on_fetch;
	options.fetches_max = 2 * ASKERS;
	options.ping_interval_ms = 50;
	options.ping_timeout_ms = 100;
	must(cad_transport_local_create(&options, world->hub, &node->transport, &error), &error);
	must(cad_transport_listen(node->transport, name, &error), &error);
	must(ex_asker_create(node->transport, ASKERS, &node->asker, &error), &error);
	const struct ex_giver_options giver = {
		.engine = node->engine,
		.parts_max = 2 * ASKERS,
		.wake = wake,
		.context = node,
	};
	must(ex_giver_create(&giver, &node->giver, &error), &error);
	assert_int_equal(pthread_create(&node->thread, NULL, exchange, node), 0);
	node->runs = true;
}

static void node_close(struct node *node)
{
	if (!node->runs)
		return;
	node->runs = false;
	ex_asker_stop(node->asker);
	atomic_store(&node->stop, true);
	cad_transport_wake(node->transport);
	pthread_join(node->thread, NULL);
	ex_giver_destroy(node->giver);
	ex_asker_destroy(node->asker);
	cad_transport_destroy(node->transport);
	ex_engine_destroy(node->engine);
}

struct pair {
	struct expert_world world;
	struct node giver, asker;
	struct kn_expert_source form;
	size_t image_bytes;
};

static void pair_open(struct pair *p)
{
	struct ex_loaded loaded;
	struct cad_error error;
	expert_world_init(&p->world, "olmoe-a");
	node_open(&p->giver, &p->world, "giver");
	node_open(&p->asker, &p->world, "asker");
	for (uint32_t e = 0; e < EXPERTS; e++)
		must(ex_engine_load(p->giver.engine, LAYER, e, &loaded, &error), &error);
	p->form = ex_store_image(ex_engine_store(p->giver.engine), LAYER, 0);
	p->image_bytes = (size_t)kn_image_bytes(&p->form);
}

static void pair_close(struct pair *p)
{
	node_close(&p->asker);
	node_close(&p->giver);
	expert_world_fini(&p->world);
}

/* ---- asking ---- */

struct seen {
	struct pair *pair;
	uint64_t bytes, stop_at;
	unsigned parts, when;
	void (*what)(struct pair *pair); /* when so many parts have come */
};

static bool come(void *context, uint64_t bytes)
{
	struct seen *seen = context;
	assert_true(bytes > seen->bytes);
	if (++seen->parts == seen->when)
		seen->what(seen->pair);
	seen->bytes = bytes;
	return seen->stop_at == 0 || bytes < seen->stop_at;
}

static enum cad_status get(struct pair *p, const char *address, uint32_t expert, uint32_t part_bytes, struct seen *seen,
	uint8_t *image, enum ex_source_failure *failure, struct cad_error *error)
{
	const struct ex_ask ask = {
		.kind = CADRE_IMAGE_FLOAT,
		.node = "giver",
		.address = address,
		.layer = LAYER,
		.expert = expert,
		.image_bytes = p->image_bytes,
		.part_bytes = part_bytes,
		.come = come,
		.context = seen,
	};
	seen->pair = p;
	return ex_asker_get(p->asker.asker, &ask, image, failure, error);
}

/* Threads of this process that run only where nobody else wants the core. */
static int in_the_background(void)
{
	DIR *tasks = opendir("/proc/self/task");
	int count = 0;
	assert_non_null(tasks);
	for (const struct dirent *task; (task = readdir(tasks));)
		count += task->d_name[0] != '.' && sched_getscheduler(atoi(task->d_name)) == SCHED_IDLE;
	closedir(tasks);
	return count;
}

static void check_image(const struct pair *p, uint32_t expert, const uint8_t *image)
{
	char checksum[33], right[33];
	kn_image_bytes_checksum(image, p->image_bytes, checksum);
	kn_expert_checksum(p->world.model, LAYER, expert, CAD_WEIGHTS_AS_IS, right);
	assert_string_equal(checksum, right);
}

/* ---- cases ---- */

static void whole_images(void **state)
{
	(void)state;
	static const uint32_t parts[] = { 0, 1000, 4096, 16 << 10 };
	struct pair p;
	pair_open(&p);
	uint8_t *image = malloc(p.image_bytes);
	for (uint32_t e = 0; e < EXPERTS; e++) {
		struct seen seen = { .bytes = 0 };
		enum ex_source_failure failure;
		struct cad_error error;
		must(get(&p, "giver", e, parts[e % 4], &seen, image, &failure, &error), &error);
		assert_int_equal(failure, EX_SOURCE_FINE);
		assert_int_equal(seen.bytes, p.image_bytes);
		check_image(&p, e, image);
	}
	assert_true(in_the_background() >= 1); /* the one that gave; the other may not have begun */
	free(image);
	pair_close(&p);
}

struct loader {
	struct pair *pair;
	uint32_t first;
};

static void *load_some(void *context)
{
	struct loader *loader = context;
	struct pair *p = loader->pair;
	uint8_t *image = malloc(p->image_bytes);
	for (uint32_t e = loader->first; e < EXPERTS; e += ASKERS) {
		struct seen seen = { .bytes = 0 };
		enum ex_source_failure failure;
		struct cad_error error;
		CAD_ASSERT(get(p, "giver", e, 3000, &seen, image, &failure, &error) == CAD_OK);
		check_image(p, e, image);
	}
	free(image);
	return NULL;
}

/* Two loader threads over one connection. */
static void two_at_once(void **state)
{
	(void)state;
	struct pair p;
	pthread_t threads[ASKERS];
	struct loader loaders[ASKERS];
	pair_open(&p);
	for (uint32_t i = 0; i < ASKERS; i++) {
		loaders[i] = (struct loader){ &p, i };
		assert_int_equal(pthread_create(&threads[i], NULL, load_some, &loaders[i]), 0);
	}
	for (uint32_t i = 0; i < ASKERS; i++)
		pthread_join(threads[i], NULL);
	pair_close(&p);
}

static void giver_ends(struct pair *p) { node_close(&p->giver); }
static void giver_hangs(struct pair *p) { atomic_store(&p->giver.hung, true); }
static void giver_frees(struct pair *p) { assert_int_equal(ex_engine_free(p->giver.engine, LAYER, 3), CAD_OK); }

static void a_source_that_fails(void **state)
{
	(void)state;
	static const struct {
		void (*what)(struct pair *pair);
		enum ex_source_failure failure;
		const char *why;
	} cases[] = {
		{ giver_ends, EX_SOURCE_LOST, "giver: " },
		{ giver_hangs, EX_SOURCE_LOST, "giver: no answer to a ping" },
		{ giver_frees, EX_SOURCE_NOT_HELD, "giver: it does not hold the expert" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct pair p;
		struct seen seen = { .what = cases[i].what, .when = 1 };
		enum ex_source_failure failure;
		struct cad_error error;
		pair_open(&p);
		uint8_t *image = malloc(p.image_bytes);
		assert_int_equal(get(&p, "giver", 3, 1000, &seen, image, &failure, &error), CAD_ERR_PEER_LOST);
		if (failure != cases[i].failure || strncmp(error.text, cases[i].why, strlen(cases[i].why)) != 0)
			fail_msg("%zu: failure %d, '%s'", i, failure, error.text);

		/* the node asks others, and this one again when it is well */
		if (cases[i].what != giver_ends) {
			atomic_store(&p.giver.hung, false);
			seen = (struct seen){ .bytes = 0 };
			must(get(&p, "giver", 4, 0, &seen, image, &failure, &error), &error);
			check_image(&p, 4, image);
		}
		free(image);
		pair_close(&p);
	}
}

/* However much has come: what is there in the end is whole, or it is said that it is not. */
static void a_source_that_ends_at_any_point(void **state)
{
	(void)state;
	for (unsigned when = 1;; when++) {
		struct pair p;
		struct seen seen = { .what = giver_ends, .when = when };
		enum ex_source_failure failure;
		struct cad_error error;
		pair_open(&p);
		uint8_t *image = malloc(p.image_bytes);
		enum cad_status status = get(&p, "giver", 3, 1000, &seen, image, &failure, &error);
		bool beyond = when > (p.image_bytes + 999) / 1000;
		if (status == CAD_OK)
			check_image(&p, 3, image);
		else
			assert_true(failure == EX_SOURCE_LOST && !beyond);
		free(image);
		pair_close(&p);
		if (beyond)
			return;
	}
}

static void a_source_that_is_not_there(void **state)
{
	(void)state;
	struct pair p;
	struct seen seen = { .bytes = 0 };
	enum ex_source_failure failure;
	struct cad_error error;
	pair_open(&p);
	uint8_t *image = malloc(p.image_bytes);
	uint64_t began = cad_clock_now_ns(&cad_clock_system);
	assert_int_equal(get(&p, "nobody", 3, 0, &seen, image, &failure, &error), CAD_ERR_PEER_LOST);
	assert_int_equal(failure, EX_SOURCE_UNREACHABLE);
	assert_true(cad_clock_now_ns(&cad_clock_system) - began < 5 * CAD_NS_PER_S);
	free(image);
	pair_close(&p);
}

/* Who has seen enough gets nothing more; and another may come at once. */
static void given_up(void **state)
{
	(void)state;
	struct pair p;
	enum ex_source_failure failure;
	struct cad_error error;
	pair_open(&p);
	uint8_t *image = malloc(p.image_bytes);
	for (int i = 0; i < 8; i++) {
		struct seen seen = { .stop_at = 1 + (uint64_t)i * 1000 };
		assert_int_equal(get(&p, "giver", 2, 1000, &seen, image, &failure, &error), CAD_ERR_CANCELLED);
		assert_int_equal(failure, EX_SOURCE_FINE);
	}
	struct seen seen = { .bytes = 0 };
	must(get(&p, "giver", 2, 1000, &seen, image, &failure, &error), &error);
	check_image(&p, 2, image);
	free(image);
	pair_close(&p);
}

/* A node of another model would have another size; nothing of it is taken. */
static void another_size(void **state)
{
	(void)state;
	struct pair p;
	struct seen seen = { .bytes = 0 };
	enum ex_source_failure failure;
	struct cad_error error;
	pair_open(&p);
	uint8_t *image = malloc(p.image_bytes);
	p.image_bytes -= 2;
	assert_int_equal(get(&p, "giver", 3, 0, &seen, image, &failure, &error), CAD_ERR_PEER_LOST);
	assert_int_equal(failure, EX_SOURCE_REFUSED);
	assert_int_equal(seen.bytes, 0);
	free(image);
	pair_close(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(whole_images),
		cmocka_unit_test(two_at_once),
		cmocka_unit_test(a_source_that_fails),
		cmocka_unit_test(a_source_that_ends_at_any_point),
		cmocka_unit_test(a_source_that_is_not_there),
		cmocka_unit_test(given_up),
		cmocka_unit_test(another_size),
	};
	return cmocka_run_group_tests_name("transfer", tests, NULL, NULL);
}
