/* SPDX-License-Identifier: Apache-2.0 */
/* The node's tie to placement, against a placement service that the test plays: hello, orders,
 * reports, a broken stream, and the way out. Also the loader alone. */
#include "cadre/v1/placement.pb-c.h"
#include "common/process/access.h"
#include "common/cluster/own_address.h"
#include "expert-svc/control.h"
#include "expert-svc/loader.h"
#include "kernels/source.h"
#include "tests/support/bell.h"
#include "tests/support/expert_calls.h"
#include "tests/support/must.h"
#include "tests/support/rpc_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- a placement service ---- */

#define TOKEN "0123456789abcdef" /* that a member sends with each attempt to join */

struct placement {
	struct cad_rpc_call *call; /* the Join that is open */
	unsigned hellos, loads, loaded, freed, failed;
	size_t held; /* of the last hello */
	uint64_t memory_bytes;
	char id[64], address[64], checksum[33], why[256], source[64], passed_over[256];
	unsigned addresses; /* reports of another one */
	bool until;         /* what the test waits for */
	bool (*wanted)(const struct placement *placement);
};

static void send_order(struct placement *placement, bool hold, const uint32_t (*ids)[2], size_t count)
{
	Cadre__V1__ExpertId id[4], *list[4];
	Cadre__V1__LoadOrder load = CADRE__V1__LOAD_ORDER__INIT;
	Cadre__V1__FreeOrder release = CADRE__V1__FREE_ORDER__INIT;
	Cadre__V1__NodeOrder order = CADRE__V1__NODE_ORDER__INIT;

	for (size_t i = 0; i < count; i++) {
		cadre__v1__expert_id__init(&id[i]);
		id[i].layer = ids[i][0];
		id[i].expert = ids[i][1];
		list[i] = &id[i];
	}

	load.n_experts = release.n_experts = count;
	load.experts = release.experts = list;
	order.order_case = hold ? CADRE__V1__NODE_ORDER__ORDER_LOAD : CADRE__V1__NODE_ORDER__ORDER_FREE;
	if (hold)
		order.load = &load;
	else
		order.free = &release;
	assert_int_equal(cad_rpc_call_send(placement->call, &order.base), CAD_OK);
}

/* One expert, from another node. */
static void send_order_from(struct placement *placement, uint32_t layer, uint32_t expert)
{
	Cadre__V1__ExpertId id = CADRE__V1__EXPERT_ID__INIT, *ids = &id;
	Cadre__V1__ExpertSource source = CADRE__V1__EXPERT_SOURCE__INIT, *sources = &source;
	Cadre__V1__LoadOrder load = CADRE__V1__LOAD_ORDER__INIT;
	Cadre__V1__NodeOrder order = CADRE__V1__NODE_ORDER__INIT;

	id.layer = layer;
	id.expert = expert;
	source.node = (char *)(uintptr_t) "node-b";
	source.exchange_address = (char *)(uintptr_t) "address of b";
	source.checksum = (char *)(uintptr_t) "00112233445566778899aabbccddeeff";
	source.bytes_per_second = 4000000;
	load.n_experts = load.n_sources = 1;
	load.experts = &ids;
	load.sources = &sources;
	order.order_case = CADRE__V1__NODE_ORDER__ORDER_LOAD;
	order.load = &load;
	assert_int_equal(cad_rpc_call_send(placement->call, &order.base), CAD_OK);
}

/* How the node asks another one: which has nothing. */
static enum cad_status ask_in_vain(void *context, const struct ex_ask *ask, uint8_t *image,
	enum ex_source_failure *failure, struct cad_error *error)
{
	(void)image;
	CAD_ASSERT(strcmp(ask->node, "node-b") == 0 && strcmp(ask->address, "address of b") == 0);
	CAD_ASSERT(ask->layer == 1 && ask->expert == 2 && ask->part_bytes < EX_PART_BYTES * 2);
	*(bool *)context = true;
	*failure = EX_SOURCE_NOT_HELD;
	return cad_error_set(error, CAD_ERR_PEER_LOST, "node-b: it does not hold the expert");
}

static void on_hello(struct placement *placement, const Cadre__V1__NodeHello *hello)
{
	placement->hellos++;
	placement->held = hello->n_held;
	placement->memory_bytes = hello->memory_bytes;
	snprintf(placement->id, sizeof placement->id, "%s", hello->id);
	snprintf(placement->address, sizeof placement->address, "%s", hello->exchange_address);
	assert_int_equal(hello->role, CADRE__V1__ROLE__ROLE_EXPERT);
	assert_int_equal(strlen(hello->model_fingerprint), 32);
	assert_int_equal(strlen(hello->settings_fingerprint), 32);
	assert_true(hello->settings[0]);
	Cadre__V1__NodeWelcome welcome = CADRE__V1__NODE_WELCOME__INIT;
	Cadre__V1__NodeOrder order = CADRE__V1__NODE_ORDER__INIT;
	welcome.cluster = (char *)"test";
	welcome.lease_ms = 60;
	order.order_case = CADRE__V1__NODE_ORDER__ORDER_WELCOME;
	order.welcome = &welcome;
	assert_int_equal(cad_rpc_call_send(placement->call, &order.base), CAD_OK);
}

static void on_expert(struct placement *placement, const Cadre__V1__ExpertReport *report)
{
	if (report->state == CADRE__V1__EXPERT_STATE__EXPERT_STATE_LOADED) {
		placement->loaded++;
		assert_true(report->bytes > 0);
		snprintf(placement->source, sizeof placement->source, "%s", report->source);
		snprintf(placement->passed_over, sizeof placement->passed_over, "%s", report->passed_over);
		if (report->id->layer == 0 && report->id->expert == 1)
			snprintf(placement->checksum, sizeof placement->checksum, "%s", report->checksum);
	} else if (report->state == CADRE__V1__EXPERT_STATE__EXPERT_STATE_FREED) {
		placement->freed++;
	} else {
		placement->failed++;
		snprintf(placement->why, sizeof placement->why, "%s", report->error);
	}
}

static void join_start(struct cad_rpc_call *call)
{
	struct placement *placement = cad_rpc_call_context(call);
	const void *token;
	size_t size;

	assert_null(placement->call);
	assert_int_equal(cad_rpc_call_bearer(call, &token, &size), CAD_OK);
	assert_true(size == strlen(TOKEN) && memcmp(token, TOKEN, size) == 0);
	placement->call = call;
	cad_rpc_call_read(call);
}

static void join_message(struct cad_rpc_call *call, const ProtobufCMessage *message)
{
	struct placement *placement = cad_rpc_call_context(call);
	const Cadre__V1__NodeReport *report = (const Cadre__V1__NodeReport *)message;

	if (report->report_case == CADRE__V1__NODE_REPORT__REPORT_HELLO)
		on_hello(placement, report->hello);
	else if (report->report_case == CADRE__V1__NODE_REPORT__REPORT_EXPERT)
		on_expert(placement, report->expert);
	else if (report->report_case == CADRE__V1__NODE_REPORT__REPORT_EXCHANGE_ADDRESS) {
		placement->addresses++;
		snprintf(placement->address, sizeof placement->address, "%s", report->exchange_address);
	} else
		placement->loads++;
	placement->until = placement->wanted && placement->wanted(placement);
	cad_rpc_call_read(call);
}

static void join_done(struct cad_rpc_call *call, bool cancelled)
{
	(void)cancelled;
	struct placement *placement = cad_rpc_call_context(call);
	placement->call = NULL;
}

static const struct cad_rpc_method methods[] = {
	{
		.name = "Join",
		.kind = CAD_RPC_BIDI,
		.on = { .start = join_start, .message = join_message, .done = join_done },
		.right = CAD_RIGHT_JOIN,
	},
};

static void wait_for(
	struct rpc_fixture *fixture, struct placement *placement, bool (*wanted)(const struct placement *placement))
{
	placement->wanted = wanted;
	placement->until = wanted(placement);
	rpc_run_until(fixture, &placement->until);
}

static bool said_hello(const struct placement *p) { return p->hellos == 1; }
static bool carried_out(const struct placement *p) { return p->loaded == 2 && p->failed == 1; }
static bool loaded_three(const struct placement *p) { return p->loaded == 3; }
static bool reported_load(const struct placement *p) { return p->loads >= 2; }
static bool moved(const struct placement *p) { return p->addresses == 1; }
static bool came_back(const struct placement *p) { return p->hellos == 2; }
static bool has_freed(const struct placement *p) { return p->freed == 2; }

/* ---- what the exchange is told ---- */

struct told {
	size_t count;
	char last[64];
	bool until;
};

static void on_peers(void *context, const char *const *addresses, size_t count)
{
	struct told *told = context;
	told->count = count;
	snprintf(told->last, sizeof told->last, "%s", count > 0 ? addresses[count - 1] : "");
	told->until = true;
}

static void send_peers(struct placement *placement)
{
	Cadre__V1__Peer peers[2] = { CADRE__V1__PEER__INIT, CADRE__V1__PEER__INIT };
	Cadre__V1__Peer *list[2] = { &peers[0], &peers[1] };
	Cadre__V1__Peers message = CADRE__V1__PEERS__INIT;
	Cadre__V1__NodeOrder order = CADRE__V1__NODE_ORDER__INIT;
	peers[0].id = peers[0].exchange_address = (char *)(uintptr_t) "router-1";
	peers[1].id = peers[1].exchange_address = (char *)(uintptr_t) "router-2";
	message.peers = list;
	message.n_peers = 2;
	order.order_case = CADRE__V1__NODE_ORDER__ORDER_PEERS;
	order.peers = &message;
	assert_int_equal(cad_rpc_call_send(placement->call, &order.base), CAD_OK);
}

static void set_flag(void *context) { *(bool *)context = true; }

static void engine_for(const struct expert_world *world, struct ex_engine **engine, uint64_t memory_bytes)
{
	struct ex_engine_options options;
	struct cad_error error;

	ex_engine_options_default(&options);
	options.model = world->model;
	options.device = world->device;
	options.queue = world->queue;
	options.settings = &world->settings;
	options.memory_bytes = memory_bytes;
	must(ex_engine_create(&options, engine, &error), &error);
}

/* Of the routers; and the placement service of a worker that was rebuilt. */
static void exchange_hears(struct rpc_fixture *fixture, struct placement *placement, struct told *told,
	struct cad_own_address *own_address)
{
	send_peers(placement);
	rpc_run_until(fixture, &told->until);
	assert_int_equal(told->count, 2);
	assert_string_equal(told->last, "router-2");
	cad_own_address_set(own_address, "127.0.0.1:7401");
	wait_for(fixture, placement, moved);
	assert_string_equal(placement->address, "127.0.0.1:7401");
}

static void settings_for(struct cad_settings *settings)
{
	float quantum = 0.25f;
	struct cad_error error;
	must(cad_settings_init(settings,
		     &(struct cad_settings){ .wire = CADRE_ROW_FIX16, .layers = 1, .quanta = &quantum }, &error),
		&error);
}

static struct cad_rpc_service stand_in(struct placement *placement)
{
	static struct cad_rpc_method all[RPC_METHODS_MAX];
	size_t count = rpc_all_methods(&cadre__v1__placement__descriptor, methods, 1, all);
	return (struct cad_rpc_service){ &cadre__v1__placement__descriptor, all, count, placement };
}

/* An order that names another node, which does not have the expert. */
static void from_another_node(struct rpc_fixture *fixture, struct placement *placement, const bool *asked)
{
	assert_true(strcmp(placement->source, "checkpoint") == 0 && !*asked);
	send_order_from(placement, 1, 2);
	wait_for(fixture, placement, loaded_three);
	assert_true(*asked);
	assert_string_equal(placement->source, "checkpoint");
	assert_string_equal(placement->passed_over, "node-b: it does not hold the expert");
}

static void check_hello(const struct placement *placement)
{
	assert_string_equal(placement->id, "node-a");
	assert_string_equal(placement->address, "127.0.0.1:7400");
	assert_int_equal(placement->memory_bytes, 12345);
	assert_int_equal(placement->held, 0);
}

static void orders_and_reports(void **state)
{
	(void)state;
	struct rpc_fixture fixture;
	struct placement placement = { 0 };
	const struct cad_rpc_service service = stand_in(&placement);
	struct expert_world world;
	struct ex_engine *engine;
	struct ex_control *control;
	struct cad_error error;
	char checksum[33];
	bool left = false;
	expert_world_init(&world, "olmoe-a");
	engine_for(&world, &engine, 0);
	rpc_fixture_open(&fixture, NULL);
	cad_rpc_server_add(fixture.server, &service);
	rpc_fixture_start(&fixture, NULL, NULL, NULL);
	struct cad_settings settings;
	settings_for(&settings);
	struct told told = { .count = 0 };
	bool asked = false;
	struct cad_own_address own_address;
	cad_own_address_init(&own_address);
	cad_own_address_set(&own_address, "127.0.0.1:7400");
	struct ex_control_options options = {
		.self = {
			.access = &(struct cad_access){ .bearer = (char *)"Bearer " TOKEN },
			.reactor = fixture.reactor,
			.placement = fixture.target,
			.id = "node-a",
			.http_address = "127.0.0.1:1",
			.isa = "ref",
			.threads = 1,
			.settings = &settings,
			.own_address = &own_address,
		},
		.engine = engine,
		.load_threads = 2,
		.ask = ask_in_vain,
		.asker = &asked,
		.memory_bytes = 12345,
		.kernels_fingerprint = "k",
		.peers = on_peers,
		.context = &told,
	};
	must(ex_control_create(&options, &control, &error), &error);
	cad_settings_fini(&settings);

	wait_for(&fixture, &placement, said_hello);
	check_hello(&placement);
	assert_false(ex_control_ready(control));

	send_order(&placement, true, (const uint32_t[][2]){ { 0, 1 }, { 3, 15 }, { 9, 9 } }, 3);
	wait_for(&fixture, &placement, carried_out);
	kn_expert_checksum(world.model, 0, 1, CAD_WEIGHTS_AS_IS, checksum);
	assert_string_equal(placement.checksum, checksum);
	assert_non_null(strstr(placement.why, "no expert 9 in layer 9"));
	assert_true(ex_engine_holds(engine, 0, 1) && ex_engine_holds(engine, 3, 15));
	from_another_node(&fixture, &placement, &asked);
	wait_for(&fixture, &placement, reported_load); /* the lease is renewed by itself */
	assert_true(ex_control_ready(control) && ex_control_joined(control));
	exchange_hears(&fixture, &placement, &told, &own_address);

	cad_rpc_call_abort(placement.call, CAD_RPC_UNAVAILABLE, "the placement service goes");
	cad_own_address_set(&own_address, "127.0.0.1:7402"); /* while it is away */
	wait_for(&fixture, &placement, came_back);
	assert_string_equal(placement.address, "127.0.0.1:7402");
	assert_int_equal(placement.held, 3);
	assert_true(ex_control_ready(control)); /* it never stopped serving */
	send_order(&placement, false, (const uint32_t[][2]){ { 0, 1 }, { 2, 2 } }, 2);
	wait_for(&fixture, &placement, has_freed); /* what was not held is not held: freed, too */
	assert_false(ex_engine_holds(engine, 0, 1));
	assert_int_equal(ex_engine_held(engine), 2);

	ex_control_leave(control, set_flag, &left);
	rpc_run_until(&fixture, &left);
	rpc_fixture_close(&fixture);
	ex_control_destroy(control);
	ex_engine_destroy(engine);
	expert_world_fini(&world);
}

/* ---- the loader ---- */

static const struct ex_load plain = { .node = NULL };

static void loader_for(struct ex_engine *engine, unsigned threads, struct bell *bell, struct ex_loader **loader)
{
	const struct ex_loader_options options = {
		.engine = engine, .threads = threads, .changed = bell_ring, .context = bell
	};
	struct cad_error error;
	must(ex_loader_create(&options, loader, &error), &error);
}

/* Any number of orders, in any order: what was wished last is what is held in the end, and each
 * expert's last report says so. */
static void last_wish_counts(void **state)
{
	(void)state;
	struct expert_world world;
	struct ex_engine *engine;
	struct ex_loader *loader;
	struct bell bell;
	bell_init(&bell);
	uint64_t seed = (uint64_t)time(NULL);
	const char *given = getenv("CADRE_TEST_SEED");
	if (given)
		seed = strtoull(given, NULL, 0);
	printf("CADRE_TEST_SEED=%llu\n", (unsigned long long)seed);
	struct cad_random random = { seed };
	bool wish[4][16] = { { false } }, reported[4][16] = { { false } };
	expert_world_init(&world, "olmoe-a");
	engine_for(&world, &engine, 0);
	loader_for(engine, 3, &bell, &loader);

	for (int i = 0; i < 2000; i++) {
		uint32_t layer = (uint32_t)cad_random_below(&random, 4),
			 expert = (uint32_t)cad_random_below(&random, 16);
		wish[layer][expert] = cad_random_below(&random, 2) == 1;
		if (wish[layer][expert])
			ex_loader_load(loader, layer, expert, &plain);
		else
			ex_loader_free(loader, layer, expert);
	}

	struct ex_load_report *report;
	while (ex_loader_waiting(loader) > 0)
		sched_yield();
	ex_loader_stop(loader);

	while ((report = ex_loader_take(loader))) {
		assert_int_not_equal(report->outcome, EX_LOAD_FAILED);
		reported[report->layer][report->expert] = report->outcome == EX_LOAD_LOADED;
		free(report);
	}

	for (uint32_t layer = 0; layer < 4; layer++)
		for (uint32_t expert = 0; expert < 16; expert++) {
			assert_int_equal(ex_engine_holds(engine, layer, expert), wish[layer][expert]);
			assert_int_equal(reported[layer][expert], wish[layer][expert]);
		}
	ex_loader_destroy(loader);
	ex_engine_destroy(engine);
	expert_world_fini(&world);
}

/* Memory for two: a free that is ordered together with a load is done first, so that the load
 * fits. */
static void frees_make_room(void **state)
{
	(void)state;
	struct expert_world world;
	struct ex_engine *engine;
	struct ex_loader *loader;
	struct ex_loaded loaded;
	struct cad_error error;
	struct bell bell;
	bell_init(&bell);
	expert_world_init(&world, "olmoe-a");
	engine_for(&world, &engine, 0);
	uint64_t one = ex_engine_expert_bytes(engine);
	ex_engine_destroy(engine);
	engine_for(&world, &engine, 2 * one);
	must(ex_engine_load(engine, 0, 0, &loaded, &error), &error);
	must(ex_engine_load(engine, 0, 1, &loaded, &error), &error);
	loader_for(engine, 1, &bell, &loader);
	ex_loader_load(loader, 1, 0, &plain);
	struct ex_load_report *report = bell_await(&bell, loader);
	assert_int_equal(report->outcome, EX_LOAD_FAILED);
	assert_non_null(strstr(report->text, "raise --memory"));
	free(report);
	ex_loader_free(loader, 0, 0);
	ex_loader_load(loader, 1, 0, &plain);
	report = bell_await(&bell, loader);
	assert_int_equal(report->outcome, EX_LOAD_FREED);
	free(report);
	report = bell_await(&bell, loader);
	assert_int_equal(report->outcome, EX_LOAD_LOADED);
	assert_int_equal(report->loaded.bytes, one);
	free(report);
	ex_loader_destroy(loader);
	ex_engine_destroy(engine);
	expert_world_fini(&world);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(orders_and_reports), cmocka_unit_test(last_wish_counts),
		cmocka_unit_test(frees_make_room) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
