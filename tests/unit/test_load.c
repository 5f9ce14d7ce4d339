/* SPDX-License-Identifier: Apache-2.0 */
/* Loading an expert from a node that lies, dies, is slow, or does not have it: what is held in the
 * end is right, and the report says where it came from. The node is a function here; over the
 * exchange it is in test_transfer.c. */
#include "common/process/metrics.h"
#include "expert-svc/loader.h"
#include "kernels/image.h"
#include "kernels/source.h"
#include "tests/support/bell.h"
#include "tests/support/expert_calls.h"
#include "tests/support/must.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LAYER = 2, EXPERT = 7 };

/* ---- a node that gives, more or less ---- */

enum manner { GIVES, LIES, DIES, LACKS, CREEPS };
struct node {
	struct ex_engine *engine; /* what it holds */
	enum manner manner;
	uint32_t part_bytes; /* of the last time */
	int policy;          /* of the thread that asked */
	_Atomic bool asked;
};

static enum cad_status ask(void *context, const struct ex_ask *ask, uint8_t *image, enum ex_source_failure *failure,
	struct cad_error *error)
{
	struct node *node = context;
	uint64_t most = node->manner == DIES ? ask->image_bytes / 2 : ask->image_bytes;

	node->part_bytes = ask->part_bytes;
	node->policy = sched_getscheduler(0);
	atomic_store(&node->asked, true);
	assert_string_equal(ask->node, "node-a");
	assert_string_equal(ask->address, "address of a");
	if (node->manner == LACKS) {
		*failure = EX_SOURCE_NOT_HELD;
		return cad_error_set(error, CAD_ERR_PEER_LOST, "node-a: it does not hold the expert");
	}
	for (uint64_t at = 0; at < most;) {
		uint64_t left = most - at, bytes = left < ask->part_bytes ? left : ask->part_bytes;
		bytes = node->manner == CREEPS ? 1 : bytes;
		assert_int_equal(ex_store_read(ex_engine_store(node->engine), ask->layer, ask->expert, at,
					 (size_t)bytes, image + at),
			CAD_OK);
		at += bytes;
		if (node->manner == CREEPS)
			nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
		if (!ask->come(ask->context, at))
			return CAD_ERR_CANCELLED;
	}
	if (node->manner == DIES) {
		*failure = EX_SOURCE_LOST;
		return cad_error_set(error, CAD_ERR_PEER_LOST, "node-a: no answer to a ping within 900 ms");
	}
	image[most / 3] ^= node->manner == LIES ? 0x10 : 0;
	return CAD_OK;
}

/* ---- a world ---- */

struct setting {
	struct expert_world world;
	struct node node;
	struct ex_engine *engine;
	struct ex_loader *loader;
	struct cad_metrics *metrics;
	struct bell bell;
	char checksum[33];
	uint64_t image_bytes;
};

static struct ex_engine *engine_for(const struct expert_world *world)
{
	struct ex_engine_options options;
	struct ex_engine *engine;
	struct cad_error error;
	ex_engine_options_default(&options);
	options.model = world->model;
	options.device = world->device;
	options.queue = world->queue;
	options.settings = &world->settings;
	must(ex_engine_create(&options, &engine, &error), &error);
	return engine;
}

static void setting_open(struct setting *s, const char *golden, enum cad_weights weights, enum manner manner)
{
	struct ex_loaded loaded;
	struct cad_error error;
	memset(s, 0, sizeof *s);
	expert_world_init(&s->world, golden);
	s->world.settings.weights = weights;
	bell_init(&s->bell);
	s->node = (struct node){ .engine = engine_for(&s->world), .manner = manner };
	s->engine = engine_for(&s->world);
	must(ex_engine_load(s->node.engine, LAYER, EXPERT, &loaded, &error), &error);
	kn_expert_checksum(s->world.model, LAYER, EXPERT, weights, s->checksum);
	assert_string_equal(loaded.checksum, s->checksum);
	struct kn_expert_source image = ex_store_image(ex_engine_store(s->engine), LAYER, EXPERT);
	s->image_bytes = kn_image_bytes(&image);
	assert_int_equal(cad_metrics_create(&s->metrics), CAD_OK);
	const struct ex_loader_options options = {
		.engine = s->engine,
		.threads = 2,
		.ask = ask,
		.asker = &s->node,
		.metrics = s->metrics,
		.changed = bell_ring,
		.context = &s->bell,
	};
	must(ex_loader_create(&options, &s->loader, &error), &error);
}

static void setting_close(struct setting *s)
{
	ex_loader_destroy(s->loader);
	cad_metrics_destroy(s->metrics);
	ex_engine_destroy(s->engine);
	ex_engine_destroy(s->node.engine);
	expert_world_fini(&s->world);
}

static void order(struct setting *s, uint64_t bytes_per_second)
{
	ex_loader_load(s->loader, LAYER, EXPERT,
		&(struct ex_load){
			.node = "node-a",
			.address = "address of a",
			.checksum = s->checksum,
			.bytes_per_second = bytes_per_second,
		});
}

/* What the node holds is the expert. */
static void check_held(struct setting *s)
{
	char checksum[33];
	uint8_t *image = malloc(s->image_bytes);
	assert_non_null(image);
	assert_int_equal(ex_store_read(ex_engine_store(s->engine), LAYER, EXPERT, 0, s->image_bytes, image), CAD_OK);
	kn_image_bytes_checksum(image, s->image_bytes, checksum);
	assert_string_equal(checksum, s->checksum);
	free(image);
}

static void metric_is(struct setting *s, const char *line)
{
	char *text;
	size_t bytes;
	assert_int_equal(cad_metrics_render(s->metrics, &text, &bytes), CAD_OK);
	if (!strstr(text, line))
		fail_msg("'%s' is not in:\n%s", line, text);
	free(text);
}

/* ---- cases ---- */

static void from_a_node(void **state)
{
	(void)state;
	static const struct {
		const char *golden;
		enum cad_weights weights;
	} cases[] = { { "olmoe-a", CAD_WEIGHTS_AS_IS }, { "olmoe-a", CAD_WEIGHTS_BF16 },
		{ "mixtral-a", CAD_WEIGHTS_AS_IS }, { "mixtral-a", CAD_WEIGHTS_BF16 } };
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct setting s;
		setting_open(&s, cases[i].golden, cases[i].weights, GIVES);
		order(&s, 0);
		struct ex_load_report *report = bell_await(&s.bell, s.loader);
		assert_int_equal(report->outcome, EX_LOAD_LOADED);
		assert_string_equal(report->source, "node-a");
		assert_string_equal(report->passed_over, "");
		assert_string_equal(report->loaded.checksum, s.checksum);
		assert_int_equal(report->loaded.bytes, ex_engine_expert_bytes(s.engine));
		assert_int_equal(report->read_bytes, s.image_bytes);
		free(report);
		check_held(&s);

		order(&s, 0); /* again costs nothing */
		report = bell_await(&s.bell, s.loader);
		assert_int_equal(report->outcome, EX_LOAD_LOADED);
		assert_string_equal(report->source, "");
		assert_string_equal(report->loaded.checksum, s.checksum);
		free(report);
		assert_int_equal(ex_loader_counts(s.loader).from_nodes, 1);
		assert_int_equal(ex_loader_counts(s.loader).from_checkpoint, 0);
		metric_is(&s, "cadre_expert_load_seconds_count{source=\"node\"} 1");
		setting_close(&s);
	}
}

/* Whatever is wrong with the node, the checkpoint follows, and the report names the node. */
static void from_the_checkpoint_then(void **state)
{
	(void)state;
	static const struct {
		enum manner manner;
		const char *why, *metric;
	} cases[] = {
		{ LIES, "node-a: it gave wrong bytes: their checksum is ",
			"cadre_expert_source_failures_total{reason=\"wrong_bytes\"} 1" },
		{ DIES, "node-a: no answer to a ping", "cadre_expert_source_failures_total{reason=\"lost\"} 1" },
		{ LACKS, "node-a: it does not hold the expert",
			"cadre_expert_source_failures_total{reason=\"not_held\"} 1" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct setting s;
		setting_open(&s, "olmoe-a", CAD_WEIGHTS_AS_IS, cases[i].manner);
		order(&s, 0);
		struct ex_load_report *report = bell_await(&s.bell, s.loader);
		assert_int_equal(report->outcome, EX_LOAD_LOADED);
		assert_string_equal(report->source, "checkpoint");
		if (strncmp(report->passed_over, cases[i].why, strlen(cases[i].why)) != 0)
			fail_msg("'%s'", report->passed_over);
		assert_string_equal(report->loaded.checksum, s.checksum);
		free(report);
		check_held(&s);
		metric_is(&s, cases[i].metric);
		metric_is(&s, "cadre_expert_load_seconds_count{source=\"checkpoint\"} 1");
		setting_close(&s);
	}
}

/* The bytes are those of the expert, but another checksum was ordered: nothing that differs from
 * the order is served as what was ordered. */
static void another_checksum_was_ordered(void **state)
{
	(void)state;
	struct setting s;
	setting_open(&s, "olmoe-a", CAD_WEIGHTS_AS_IS, GIVES);
	char right[33];
	memcpy(right, s.checksum, sizeof right);
	s.checksum[0] = s.checksum[0] == 'a' ? 'b' : 'a';
	order(&s, 0);
	struct ex_load_report *report = bell_await(&s.bell, s.loader);
	assert_string_equal(report->source, "checkpoint");
	assert_string_equal(report->loaded.checksum, right); /* and the placement service judges that */
	free(report);
	setting_close(&s);
}

/* A load that is not wished any more ends, whether its source creeps or its rate is low; what is
 * reported is the free. */
static void given_up(void **state)
{
	(void)state;
	for (int creeps = 0; creeps < 2; creeps++) {
		struct setting s;
		setting_open(&s, "olmoe-a", CAD_WEIGHTS_AS_IS, creeps ? CREEPS : GIVES);
		order(&s, creeps ? 0 : 1000);
		while (!atomic_load(&s.node.asked))
			sched_yield();
		ex_loader_free(s.loader, LAYER, EXPERT);
		struct ex_load_report *report;
		while ((report = bell_await(&s.bell, s.loader))->outcome == EX_LOAD_UNDER_WAY)
			free(report);
		assert_int_equal(report->outcome, EX_LOAD_FREED);
		free(report);
		assert_null(ex_loader_take(s.loader));
		assert_false(ex_engine_holds(s.engine, LAYER, EXPERT));

		s.node.manner = GIVES;
		order(&s, 0);
		report = bell_await(&s.bell, s.loader);
		assert_int_equal(report->outcome, EX_LOAD_LOADED);
		free(report);
		setting_close(&s);
	}
}

/* So does one of a process that ends. */
static void stopped(void **state)
{
	(void)state;
	struct setting s;
	setting_open(&s, "olmoe-a", CAD_WEIGHTS_AS_IS, CREEPS);
	order(&s, 0);
	ex_loader_load(s.loader, LAYER, EXPERT + 1, &(struct ex_load){ .bytes_per_second = 1000 });
	while (!atomic_load(&s.node.asked))
		sched_yield();
	uint64_t began = cad_clock_now_ns(&cad_clock_system);
	ex_loader_stop(s.loader);
	assert_true(cad_clock_now_ns(&cad_clock_system) - began < 5 * CAD_NS_PER_S); /* else minutes */
	assert_int_equal(ex_engine_held(s.engine), 0);
	setting_close(&s);
}

/* At a rate it takes its time, from either source, in parts that fit the rate, and says how far it
 * is. */
static void paced(void **state)
{
	(void)state;
	for (int checkpoint = 0; checkpoint < 2; checkpoint++) {
		struct setting s;
		setting_open(&s, "olmoe-a", CAD_WEIGHTS_AS_IS, GIVES);
		uint64_t began = cad_clock_now_ns(&cad_clock_system), rate = s.image_bytes, under_way = 0;
		if (checkpoint)
			ex_loader_load(s.loader, LAYER, EXPERT, &(struct ex_load){ .bytes_per_second = rate });
		else
			order(&s, rate);
		struct ex_load_report *report;
		while ((report = bell_await(&s.bell, s.loader))->outcome == EX_LOAD_UNDER_WAY) {
			assert_in_range(report->read_bytes, under_way + 1, s.image_bytes);
			assert_string_equal(report->source, checkpoint ? "checkpoint" : "node-a");
			under_way = report->read_bytes;
			free(report);
		}
		assert_int_equal(report->outcome, EX_LOAD_LOADED);
		free(report);
		assert_true(cad_clock_now_ns(&cad_clock_system) - began > 9 * CAD_NS_PER_S / 10);
		if (!checkpoint)
			assert_true(under_way > 0 && s.node.part_bytes == 16 << 10);
		check_held(&s);
		setting_close(&s);
	}
}

/* Loads with a rate leave the cores to those who want them; needed ones want them, too. */
static void in_the_background(void **state)
{
	(void)state;
	for (int moves = 0; moves < 2; moves++) {
		struct setting s;
		setting_open(&s, "olmoe-a", CAD_WEIGHTS_AS_IS, GIVES);
		order(&s, moves ? UINT32_MAX : 0);
		struct ex_load_report *report = bell_await(&s.bell, s.loader);
		assert_int_equal(report->outcome, EX_LOAD_LOADED);
		assert_int_equal(s.node.policy, moves ? SCHED_IDLE : sched_getscheduler(0));
		free(report);
		setting_close(&s);
	}
}

/* What is needed comes at once, whatever else takes its time; so do frees. */
static void needed_first(void **state)
{
	(void)state;
	struct setting s;
	struct ex_loaded loaded;
	struct cad_error error;
	setting_open(&s, "olmoe-a", CAD_WEIGHTS_AS_IS, CREEPS);
	must(ex_engine_load(s.engine, LAYER, 0, &loaded, &error), &error);
	for (uint32_t e = 1; e < EXPERT; e++)
		ex_loader_load(s.loader, LAYER, e, &(struct ex_load){ .bytes_per_second = 1000 });
	order(&s, 1000);
	while (ex_loader_waiting(s.loader) < EXPERT)
		sched_yield();
	ex_loader_load(s.loader, LAYER + 1, 0, &(struct ex_load){ .node = NULL });
	ex_loader_free(s.loader, LAYER, 0);
	for (int done = 0; done < 2;) {
		struct ex_load_report *report = bell_await(&s.bell, s.loader);
		assert_true(report->outcome == EX_LOAD_UNDER_WAY || report->expert == 0);
		done += report->outcome != EX_LOAD_UNDER_WAY;
		free(report);
	}
	assert_true(ex_engine_holds(s.engine, LAYER + 1, 0) && !ex_engine_holds(s.engine, LAYER, 0));
	setting_close(&s);
}

/* A later order replaces one that is being carried out: nobody serves the expert any more. */
static void ordered_again(void **state)
{
	(void)state;
	struct setting s;
	setting_open(&s, "olmoe-a", CAD_WEIGHTS_AS_IS, CREEPS);
	order(&s, 1000);
	while (!atomic_load(&s.node.asked))
		sched_yield();
	ex_loader_load(s.loader, LAYER, EXPERT, &(struct ex_load){ .node = NULL });
	struct ex_load_report *report;
	while ((report = bell_await(&s.bell, s.loader))->outcome == EX_LOAD_UNDER_WAY)
		free(report);
	assert_int_equal(report->outcome, EX_LOAD_LOADED);
	assert_string_equal(report->source, "checkpoint");
	free(report);
	check_held(&s);
	setting_close(&s);
}

/* ---- the store, read while it changes ---- */

struct reading {
	struct setting *setting;
	_Atomic bool stop;
	_Atomic unsigned read;
	unsigned missing;
};

static void *read_on(void *context)
{
	struct reading *reading = context;
	struct setting *s = reading->setting;
	uint8_t *image = malloc(s->image_bytes);
	char checksum[33];
	while (!atomic_load(&reading->stop)) {
		if (ex_store_read(ex_engine_store(s->engine), LAYER, EXPERT, 0, s->image_bytes, image) != CAD_OK) {
			reading->missing++;
			continue;
		}
		kn_image_bytes_checksum(image, s->image_bytes, checksum);
		CAD_ASSERT(strcmp(checksum, s->checksum) == 0);
		reading->read++;
	}
	free(image);
	return NULL;
}

static void freed_while_it_is_copied(void **state)
{
	(void)state;
	struct setting s;
	struct ex_loaded loaded;
	struct cad_error error;
	setting_open(&s, "olmoe-a", CAD_WEIGHTS_AS_IS, GIVES);
	struct reading reading = { .setting = &s };
	pthread_t thread;
	assert_int_equal(pthread_create(&thread, NULL, read_on, &reading), 0);
	for (int i = 0; i < 300; i++) {
		must(ex_engine_load(s.engine, LAYER, EXPERT, &loaded, &error), &error);
		if (i % 7 == 0)
			sched_yield();
		assert_int_equal(ex_engine_free(s.engine, LAYER, EXPERT), CAD_OK);
	}
	must(ex_engine_load(s.engine, LAYER, EXPERT, &loaded, &error), &error);
	while (atomic_load(&reading.read) == 0)
		sched_yield();
	atomic_store(&reading.stop, true);
	pthread_join(thread, NULL);
	setting_close(&s);
}

static void what_is_not_there_is_not_read(void **state)
{
	(void)state;
	struct setting s;
	setting_open(&s, "qwen3moe-a", CAD_WEIGHTS_AS_IS, GIVES); /* its layer 0 is dense */
	struct ex_store *store = ex_engine_store(s.node.engine);
	uint8_t bytes[2];
	assert_int_equal(ex_store_read(store, LAYER, EXPERT, s.image_bytes - 2, 2, bytes), CAD_OK);
	assert_int_equal(ex_store_read(store, LAYER, EXPERT, s.image_bytes - 1, 2, bytes), CAD_ERR_RANGE);
	assert_int_equal(ex_store_read(store, LAYER, EXPERT, UINT64_MAX, 2, bytes), CAD_ERR_RANGE);
	assert_int_equal(ex_store_read(store, LAYER, EXPERT + 1, 0, 2, bytes), CAD_ERR_NOT_FOUND);
	assert_int_equal(ex_store_read(store, 0, 0, 0, 2, bytes), CAD_ERR_RANGE);
	assert_int_equal(ex_store_read(store, 99, 0, 0, 2, bytes), CAD_ERR_RANGE);
	setting_close(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(from_a_node),
		cmocka_unit_test(from_the_checkpoint_then),
		cmocka_unit_test(another_checksum_was_ordered),
		cmocka_unit_test(given_up),
		cmocka_unit_test(stopped),
		cmocka_unit_test(paced),
		cmocka_unit_test(in_the_background),
		cmocka_unit_test(needed_first),
		cmocka_unit_test(ordered_again),
		cmocka_unit_test(freed_while_it_is_copied),
		cmocka_unit_test(what_is_not_there_is_not_read),
	};
	return cmocka_run_group_tests_name("load", tests, NULL, NULL);
}
