/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The placement service over real gRPC on loopback: the members are common/cluster/member.h, as
 * routers and expert nodes have it; only the weights are not there.
 */
#include "cadre/v1/placement.pb-c.h"
#include "common/process/access.h"
#include "common/base/log.h"
#include "common/cluster/member.h"
#include "common/cluster/settings_message.h"
#include "orchestration/placement/service.h"
#include "kernels/source.h"
#include "tests/support/must.h"
#include "proto/cadre_wire.h"
#include "tests/support/rpc_fixture.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define MODEL CADRE_SOURCE_DIR "/tests/golden/mixtral-a/model"
#define JOIN "/cadre.v1.Placement/Join"
#define GET_MAP "/cadre.v1.Placement/GetMap"
#define GET_STATUS "/cadre.v1.Placement/GetStatus"
#define WATCH_MAP "/cadre.v1.Placement/WatchMap"

enum { MEMBERS = 3 }; /* two expert nodes and a router */

struct world;

struct member {
	struct world *world;
	struct cad_member *member;
	char id[16], address[32], http[32];
	bool router, gone;
	uint32_t held_count;
	Cadre__V1__ExpertId held[1024], *held_list[1024];
	struct cad_map *map;
	uint64_t map_epoch;
	uint32_t from_nodes; /* experts that it was to get from others */
	/* the peers that it was told of last */
	uint32_t peers_count;
	char peer_address[32];          /* of the router, as it was told */
	const char *secret;             /* its own */
	char why[CAD_ERROR_TEXT_BYTES]; /* it has not joined; "": it has, or was not told yet */
	bool refused;
};

/* What a status said; looked at after the call, because an assertion must not leave a callback
 * half-way. */
struct seen_status {
	char cluster[16], fingerprint[40], architecture[16];
	uint32_t unplaced, cells, experts, routers, nodes;
	bool settings_equal;
};

struct world {
	struct rpc_fixture fixture;
	struct cad_model *model;
	char fingerprint[33], router_checksum[33];
	struct pl_state *state;
	struct pl_checkpoint *checkpoint;
	struct pl_service *service;
	struct member members[MEMBERS];
	const char *secret; /* of the service; NULL: none */
	bool drained;
	/* run_until: */
	bool (*met)(struct world *world);
	bool met_flag;
	uint64_t epoch_before;
	struct seen_status seen;
	unsigned broken_promises; /* of the service, seen in callbacks; looked at in teardown */
	uv_timer_t poll;
};

static void start_service(struct world *world)
{
	struct cad_error error;
	char address[32];
	uint16_t port;
	const struct pl_checkpoint_options checkpoint = {
		.directory = MODEL,
		.cluster = "test",
		.state = world->state,
		.loop = &world->fixture.loop,
	};

	must(pl_checkpoint_open(&checkpoint, &world->checkpoint, &error), &error);
	const struct pl_service_options service = {
		.reactor = world->fixture.reactor, .cluster = "test", .secret = world->secret, .checkpoint = world->checkpoint, .state = world->state, .clock = &cad_clock_system,
		.control = {
			.lease_ns = 2 * CAD_NS_PER_S,
			.grace_ns = 200 * CAD_NS_PER_MS,
			.rejoin_ns = 3600 * CAD_NS_PER_S, /* longer than any test may take */
			.settle_ns = 50 * CAD_NS_PER_MS,
			.forget_ns = 60 * CAD_NS_PER_S,
			.publish_interval_ns = 20 * CAD_NS_PER_MS,
			.free_grace_ns = 100 * CAD_NS_PER_MS,
			.retry_ns = CAD_NS_PER_S,
			.loads_max = 8,
			.moves_max = 4,
			.experts_min = 2,
			.copies_min = 1,
			.level_on_join = true,
		},
	};
	must(pl_service_create(&service, &world->service, &error), &error);
	snprintf(address, sizeof address, "127.0.0.1:%u", world->fixture.port);
	must(pl_service_listen(world->service, address, NULL, &port, &error), &error);
	world->fixture.port = port;
	snprintf(world->fixture.target, sizeof world->fixture.target, "127.0.0.1:%u", port);
	pl_service_start(world->service);
}

static void set_flag(void *context) { *(bool *)context = true; }

static void stop_service(struct world *world)
{
	world->drained = false;
	pl_service_drain(world->service, set_flag, &world->drained);
	rpc_run_until(&world->fixture, &world->drained);
	pl_service_destroy(world->service);
	pl_checkpoint_close(world->checkpoint);
}

static int setup(void **state)
{
	struct world *world = calloc(1, sizeof *world);
	struct cad_error error;

	rpc_fixture_open(&world->fixture, NULL);
	must(pl_state_open("", &world->state, &error), &error);
	must(cad_model_open(MODEL, &world->model, &error), &error);
	cad_model_fingerprint(world->model, world->fingerprint);
	uint8_t digests[64][CAD_DIGEST_BYTES];
	for (uint32_t i = 0; i < cad_model_router_parts(world->model); i++)
		cad_model_router_part(world->model, i, digests[i]);
	cad_model_router_checksum(world->model, (const uint8_t(*)[CAD_DIGEST_BYTES])digests, world->router_checksum);
	start_service(world);
	const struct cad_rpc_channel_config config = { .backoff_ms_max = 500 };
	must(cad_rpc_channel_create(
		     world->fixture.reactor, world->fixture.target, NULL, &config, &world->fixture.channel, &error),
		&error);
	*state = world;

	return 0;
}

static void leave(struct world *world, int index)
{
	struct member *member = &world->members[index];
	if (member->member)
		cad_member_leave(member->member, set_flag, &member->gone);
	else
		member->gone = true;
	member->member = NULL;
}

static int teardown(void **state)
{
	struct world *world = *state;
	for (int i = 0; i < MEMBERS; i++) {
		bool there = world->members[i].member;
		leave(world, i);
		if (there)
			rpc_run_until(&world->fixture, &world->members[i].gone);
		cad_map_release(world->members[i].map);
	}

	stop_service(world);
	rpc_fixture_close(&world->fixture);
	pl_state_close(world->state);
	cad_model_close(world->model);
	int code = world->broken_promises ? -1 : 0;
	free(world);

	return code;
}

/* ---- members ---- */

static void fill_hello(void *context, Cadre__V1__NodeHello *hello)
{
	struct member *member = context;
	hello->role = member->router ? CADRE__V1__ROLE__ROLE_ROUTER : CADRE__V1__ROLE__ROLE_EXPERT;
	hello->exchange_address = member->address;
	hello->http_address = member->http;
	hello->router_checksum = member->router ? member->world->router_checksum : "";
	hello->model_fingerprint = member->world->fingerprint;
	hello->memory_bytes = 1ull << 30;
	hello->pid = 7;
	hello->epoch = member->map_epoch;
	for (uint32_t i = 0; i < member->held_count; i++)
		member->held_list[i] = &member->held[i];
	hello->held = member->held_list;
	hello->n_held = member->held_count;
}

static void fill_load(void *context, Cadre__V1__NodeLoad *load) { load->epoch = ((struct member *)context)->map_epoch; }

static void take_map(void *context, struct cad_map *map)
{
	struct member *member = context;
	member->world->broken_promises += map->epoch <= member->map_epoch;
	cad_map_release(member->map);
	member->map = map;
	member->map_epoch = map->epoch;
}

static void report(struct member *member, const Cadre__V1__ExpertId *id, Cadre__V1__ExpertState state,
	const char *checksum, const char *passed_over)
{
	Cadre__V1__ExpertReport expert = CADRE__V1__EXPERT_REPORT__INIT;
	Cadre__V1__NodeReport message = CADRE__V1__NODE_REPORT__INIT;

	expert.id = (Cadre__V1__ExpertId *)id;
	expert.state = state;
	expert.checksum = (char *)checksum;
	expert.passed_over = (char *)passed_over;
	expert.read_bytes = 1;
	message.report_case = CADRE__V1__NODE_REPORT__REPORT_EXPERT;
	message.expert = &expert;
	/* an order comes to a joined member alone */
	member->world->broken_promises += cad_member_report(member->member, &message) != CAD_OK;
}

/* Another member, which holds the expert, and the checksum that it has. */
static void check_source(struct member *member, const Cadre__V1__ExpertSource *source, const char *checksum)
{
	struct world *world = member->world;
	bool known = false;
	for (int i = 0; i < MEMBERS; i++)
		known = known ||
			(&world->members[i] != member && strcmp(source->node, world->members[i].id) == 0 &&
				strcmp(source->exchange_address, world->members[i].address) == 0);
	world->broken_promises += !known || strcmp(source->checksum, checksum) != 0;
	member->from_nodes++;
}

static void take_load(void *context, const Cadre__V1__LoadOrder *order)
{
	struct member *member = context;
	for (size_t i = 0; i < order->n_experts; i++) {
		const Cadre__V1__ExpertId *id = order->experts[i];
		char checksum[33];
		kn_expert_checksum(member->world->model, id->layer, id->expert, CAD_WEIGHTS_AS_IS, checksum);
		cadre__v1__expert_id__init(&member->held[member->held_count]);
		member->held[member->held_count].layer = id->layer;
		member->held[member->held_count++].expert = id->expert;
		bool from_node = i < order->n_sources && order->sources[i]->node[0];
		if (from_node)
			check_source(member, order->sources[i], checksum);
		report(member, id, CADRE__V1__EXPERT_STATE__EXPERT_STATE_LOADING, "", "");
		report(member, id, CADRE__V1__EXPERT_STATE__EXPERT_STATE_LOADED, checksum,
			from_node ? "it was no good" : "");
	}
}

static void take_free(void *context, const Cadre__V1__FreeOrder *order)
{
	struct member *member = context;
	for (size_t i = 0; i < order->n_experts; i++) {
		for (uint32_t k = 0; k < member->held_count; k++)
			if (member->held[k].layer == order->experts[i]->layer &&
				member->held[k].expert == order->experts[i]->expert)
				member->held[k] = member->held[--member->held_count];
		report(member, order->experts[i], CADRE__V1__EXPERT_STATE__EXPERT_STATE_FREED, "", "");
	}
}

static void take_peers(void *context, const Cadre__V1__Peers *peers)
{
	struct member *member = context;
	member->peers_count = (uint32_t)peers->n_peers;
	for (size_t i = 0; i < peers->n_peers; i++)
		if (strcmp(peers->peers[i]->id, "router") == 0)
			snprintf(member->peer_address, sizeof member->peer_address, "%s",
				peers->peers[i]->exchange_address);
}

static void take_joined(void *context, enum cad_membership membership, const char *why)
{
	struct member *member = context;
	snprintf(member->why, sizeof member->why, "%s", membership == CAD_JOINED ? "" : why);
	member->refused = membership == CAD_MEMBER_REFUSED;
}

static void join(struct world *world, int index)
{
	struct member *member = &world->members[index];
	struct cad_error error;

	member->world = world;
	member->router = index == MEMBERS - 1;
	member->gone = false;
	snprintf(member->id, sizeof member->id, member->router ? "router" : "node-%d", index);
	snprintf(member->address, sizeof member->address, "127.0.0.1:%d", 7400 + index);
	static const struct cad_access plain;
	const struct cad_member_options options = {
		.self = {
			.access = &plain,
			.reactor = world->fixture.reactor,
			.placement = world->fixture.target,
			.id = member->id,
			.cluster = "test",
			.secret = member->secret,
			.settings = pl_checkpoint_settings(world->checkpoint),
		},
		.joined = take_joined,
		.context = member,
		.hello = fill_hello,
		.load = fill_load,
		.map = take_map,
		.order_load = take_load,
		.order_free = take_free,
		.order_peers = take_peers,
	};
	must(cad_member_create(&options, &member->member, &error), &error);
}

/* ---- waiting ---- */

static void poll_world(uv_timer_t *timer)
{
	struct world *world = timer->data;
	if (world->met(world))
		world->met_flag = true;
}

static void close_poll(uv_handle_t *handle) { ((struct world *)handle->data)->met_flag = true; }

static void run_until(struct world *world, bool (*met)(struct world *world))
{
	world->met = met;
	world->met_flag = false;
	uv_timer_init(&world->fixture.loop, &world->poll);
	world->poll.data = world;
	uv_timer_start(&world->poll, poll_world, 0, 2);
	rpc_run_until(&world->fixture, &world->met_flag);
	world->met_flag = false;
	uv_close((uv_handle_t *)&world->poll, close_poll);
	rpc_run_until(&world->fixture, &world->met_flag);
}

static bool router_sees_everything(struct world *world)
{
	const struct cad_map *map = world->members[MEMBERS - 1].map;
	return map && cad_map_unplaced(map) == 0;
}

static bool router_sees_no_node_0(struct world *world)
{
	return cad_map_node_find(world->members[MEMBERS - 1].map, "node-0") == CAD_MAP_NONE;
}

static void gather(struct world *world)
{
	for (int i = 0; i < MEMBERS; i++)
		join(world, i);
	run_until(world, router_sees_everything);
}

/* ---- stories ---- */

static void status_of(struct rpc_result *result, const ProtobufCMessage *message)
{
	const Cadre__V1__ClusterStatus *status = (const Cadre__V1__ClusterStatus *)message;
	struct world *world = result->user;
	struct seen_status *seen = &world->seen;
	struct cad_settings settings;
	struct cad_error error;

	snprintf(seen->cluster, sizeof seen->cluster, "%s", status->cluster);
	snprintf(seen->fingerprint, sizeof seen->fingerprint, "%s", status->model_fingerprint);
	snprintf(seen->architecture, sizeof seen->architecture, "%s", status->architecture);
	seen->unplaced = status->experts_unplaced;
	seen->cells = status->moe_layers * status->experts_per_layer;
	seen->nodes = (uint32_t)status->n_nodes;
	for (size_t i = 0; i < status->n_nodes; i++) {
		seen->experts += status->nodes[i]->experts;
		seen->routers += status->nodes[i]->role == CADRE__V1__ROLE__ROLE_ROUTER;
	}

	if (cad_settings_from_proto(status->settings, &settings, &error) == CAD_OK) {
		char hex[33], served[33];
		cad_settings_fingerprint(&settings, hex);
		cad_settings_fingerprint(pl_checkpoint_settings(world->checkpoint), served);
		seen->settings_equal = strcmp(hex, served) == 0;
		cad_settings_fini(&settings);
	}
}

static void nodes_join_and_a_router_gets_the_map(void **state)
{
	struct world *world = *state;
	char text[200];
	struct rpc_result early = { 0 }, result = { .on_message = status_of, .user = world }, map = { 0 };
	Cadre__V1__GetMapRequest get_map = CADRE__V1__GET_MAP_REQUEST__INIT;
	Cadre__V1__GetStatusRequest get_status = CADRE__V1__GET_STATUS_REQUEST__INIT;

	rpc_call(&world->fixture, GET_MAP, &get_map.base, &cadre__v1__map__descriptor, NULL, &early);
	assert_int_equal(early.code, CAD_RPC_UNAVAILABLE);
	assert_string_equal(early.text, "there is no map yet: 0 of 2 expert nodes have joined");
	gather(world);
	assert_true(pl_service_ready(world->service, text, sizeof text));
	rpc_call(&world->fixture, GET_STATUS, &get_status.base, &cadre__v1__cluster_status__descriptor, NULL, &result);
	assert_int_equal(result.code, CAD_RPC_OK);
	assert_int_equal(result.messages, 1);
	assert_string_equal(world->seen.cluster, "test");
	assert_string_equal(world->seen.fingerprint, world->fingerprint);
	assert_string_equal(world->seen.architecture, "mixtral");
	assert_int_equal(world->seen.nodes, MEMBERS);
	assert_int_equal(world->seen.routers, 1);
	assert_int_equal(world->seen.unplaced, 0);
	assert_int_equal(world->seen.experts, world->seen.cells);
	assert_true(world->seen.settings_equal);
	rpc_call(&world->fixture, GET_MAP, &get_map.base, &cadre__v1__map__descriptor, NULL, &map);
	assert_int_equal(map.code, CAD_RPC_OK);
	assert_true(map.bytes > 50);
}

static void watchers_get_the_present_map_and_the_next(void **state)
{
	struct world *world = *state;
	gather(world);
	struct rpc_result present = { .cancel_at = 1 }, next = { .cancel_at = 1 };
	Cadre__V1__WatchMapRequest request = CADRE__V1__WATCH_MAP_REQUEST__INIT;
	rpc_call(&world->fixture, WATCH_MAP, &request.base, &cadre__v1__map__descriptor, NULL, &present);
	assert_int_equal(present.messages, 1);
	request.after_epoch = world->members[MEMBERS - 1].map_epoch;
	rpc_start(&world->fixture, WATCH_MAP, &request.base, &cadre__v1__map__descriptor, NULL, &next);
	leave(world, 0);
	rpc_run_until(&world->fixture, &next.done);
	assert_int_equal(next.messages, 1);
}

static void lost_node_is_replaced(void **state)
{
	struct world *world = *state;
	gather(world);
	leave(world, 0);
	run_until(world, router_sees_no_node_0);
	run_until(world, router_sees_everything);
	assert_int_equal(world->members[1].held_count,
		pl_shape_cells(&(struct pl_shape){ NULL, 4, world->members[2].map->experts }));
}

static bool node_0_has_experts(struct world *world) { return world->members[0].held_count > 0; }

/* What was lost comes from the checkpoint; to the node that comes back it comes from the other one,
 * until that is no good. */
static void who_comes_back_is_given_sources(void **state)
{
	struct world *world = *state;
	gather(world);
	leave(world, 0);
	rpc_run_until(&world->fixture, &world->members[0].gone);
	world->members[0].held_count = 0; /* a new process */
	run_until(world, router_sees_no_node_0);
	run_until(world, router_sees_everything);
	assert_int_equal(world->members[0].from_nodes + world->members[1].from_nodes, 0);
	join(world, 0);
	run_until(world, node_0_has_experts);
	assert_in_range(world->members[0].from_nodes, 1, 4); /* moves at once */
	assert_int_equal(world->broken_promises, 0);
}

static bool router_has_another_map(struct world *world)
{
	return world->members[MEMBERS - 1].map_epoch > world->epoch_before;
}

static void restart_does_not_disturb(void **state)
{
	struct world *world = *state;
	gather(world);
	struct cad_map *before = cad_map_acquire(world->members[2].map);
	uint32_t held[2] = { world->members[0].held_count, world->members[1].held_count };
	stop_service(world);
	start_service(world);
	world->epoch_before = before->epoch;
	run_until(world, router_has_another_map);
	assert_int_equal(world->members[2].map_epoch, before->epoch + 1);
	assert_int_equal(world->members[0].held_count, held[0]);
	assert_int_equal(world->members[1].held_count, held[1]);

	for (uint32_t row = 0; row < before->layers_count; row++)
		for (uint32_t expert = 0; expert < before->experts; expert++) {
			struct cad_map_replicas a = cad_map_replicas(before, before->layers[row], expert),
						b = cad_map_replicas(
							world->members[2].map, before->layers[row], expert);
			assert_int_equal(a.count, 1);
			assert_int_equal(b.count, 1);
			assert_string_equal(before->nodes[a.nodes[0]].id, world->members[2].map->nodes[b.nodes[0]].id);
		}
	cad_map_release(before);
}

static bool nodes_know_all(struct world *world)
{
	return world->members[0].peers_count == 3 && world->members[1].peers_count == 3;
}

static bool nodes_know_each_other(struct world *world)
{
	return world->members[0].peers_count == 2 && world->members[1].peers_count == 2;
}

/* One that was there before the router, and one that came after it: of it, and of each other. A
 * router that says goodbye is no peer any longer; it hears of nobody itself. */
static void nodes_hear_of_peers(void **state)
{
	struct world *world = *state;
	join(world, 0);
	join(world, MEMBERS - 1);
	join(world, 1);
	run_until(world, nodes_know_all);
	assert_string_equal(world->members[0].peer_address, world->members[MEMBERS - 1].address);
	assert_string_equal(world->members[1].peer_address, world->members[MEMBERS - 1].address);
	leave(world, MEMBERS - 1);
	run_until(world, nodes_know_each_other);
	assert_int_equal(world->members[MEMBERS - 1].peers_count, 0);
}

/* A socket on a free port; it listens, or refuses connections. */
static int open_port(char address[32], bool listens)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof in;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&in, sizeof in), 0);
	if (listens)
		assert_int_equal(listen(fd, 8), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &length), 0);
	snprintf(address, 32, "127.0.0.1:%u", ntohs(in.sin_port));
	return fd;
}

static bool router_has_everything_in_another_map(struct world *world)
{
	return router_has_another_map(world) && router_sees_everything(world);
}

/* One node dies while the service is away. It is not waited for, since its host refuses connections
 * to its HTTP port; one whose host accepts them is. */
static void after_a_restart_the_killed_are_not_waited_for(void **state)
{
	struct world *world = *state;
	int open = open_port(world->members[1].http, true), closed = open_port(world->members[0].http, false);
	gather(world);
	stop_service(world);
	leave(world, 0);
	rpc_run_until(&world->fixture, &world->members[0].gone);
	start_service(world);
	world->epoch_before = world->members[MEMBERS - 1].map_epoch;
	run_until(world, router_has_everything_in_another_map);
	assert_int_equal(cad_map_node_find(world->members[MEMBERS - 1].map, "node-0"), CAD_MAP_NONE);
	close(open);
	close(closed);
}

static void restart_with(struct world *world, const char *secret)
{
	stop_service(world);
	world->secret = secret;
	start_service(world);
}

static bool router_is_apart(struct world *world) { return world->members[MEMBERS - 1].why[0]; }

static void refusal_is(struct world *world, const char *secret, const char *why)
{
	struct member *router = &world->members[MEMBERS - 1];
	router->secret = secret;
	join(world, MEMBERS - 1);
	run_until(world, router_is_apart);
	if (strcmp(router->why, why) != 0)
		fail_msg("'%s' and not '%s'", router->why, why);
	assert_true(router->refused);
	leave(world, MEMBERS - 1);
	rpc_run_until(&world->fixture, &router->gone);
	router->why[0] = 0;
}

/* Only who knows the secret joins, each of the others hears which side has none. */
static void the_secret_decides(void **state)
{
	struct world *world = *state;
	const char *ours = "sixteen bytes and more", *other = "sixteen other bytes";

	refusal_is(world, ours,
		"'router' has a cluster secret, and this placement service has none: start it with the same --secret-file");
	restart_with(world, ours);
	refusal_is(world, NULL,
		"'router' has no cluster secret, and this placement service asks for one: start 'router' with the same --secret-file");
	refusal_is(world, other,
		"'router' does not know the cluster secret of this placement service: give both the same --secret-file");
	for (int i = 0; i < MEMBERS; i++)
		world->members[i].secret = ours;
	gather(world);

	/* one that is away refuses nobody */
	stop_service(world);
	run_until(world, router_is_apart);
	assert_false(world->members[MEMBERS - 1].refused);
	start_service(world);
}

/* What a Join stream says when its first message is wrong. */
static void refused(struct world *world, const Cadre__V1__NodeReport *message, enum cad_rpc_code code, const char *text)
{
	struct rpc_result result = { 0 };
	rpc_call(&world->fixture, JOIN, &message->base, &cadre__v1__node_order__descriptor, NULL, &result);
	assert_int_equal(result.code, code);
	if (!strstr(result.text, text))
		fail_msg("'%s' does not say '%s'", result.text, text);
}

static void wrong_beginnings_are_refused(void **state)
{
	struct world *world = *state;
	gather(world);
	Cadre__V1__NodeReport message = CADRE__V1__NODE_REPORT__INIT;
	Cadre__V1__NodeLoad load = CADRE__V1__NODE_LOAD__INIT;
	Cadre__V1__NodeHello hello = CADRE__V1__NODE_HELLO__INIT;
	message.report_case = CADRE__V1__NODE_REPORT__REPORT_LOAD;
	message.load = &load;
	refused(world, &message, CAD_RPC_INVALID_ARGUMENT, "the first message of a Join stream must be a hello");
	message.report_case = CADRE__V1__NODE_REPORT__REPORT_HELLO;
	message.hello = &hello;
	hello.id = "node-0";
	hello.model_fingerprint = world->fingerprint;
	hello.exchange_address = "127.0.0.1:1";
	hello.role = CADRE__V1__ROLE__ROLE_ROUTER; /* of release 0.2.0, which does not say its version */
	refused(world, &message, CAD_RPC_FAILED_PRECONDITION, "speaks version 1 of the token exchange");
	hello.exchange_version = CADRE_WIRE_VERSION + 1;
	refused(world, &message, CAD_RPC_FAILED_PRECONDITION, "run the same release everywhere");
	hello.exchange_version = CADRE_WIRE_VERSION;
	hello.role = CADRE__V1__ROLE__ROLE_UNSPECIFIED;
	refused(world, &message, CAD_RPC_INVALID_ARGUMENT, "names no role");
	hello.role = CADRE__V1__ROLE__ROLE_EXPERT;
	char settings_fingerprint[33];
	hello.settings_fingerprint = "0123";
	hello.settings = "other settings";
	refused(world, &message, CAD_RPC_FAILED_PRECONDITION,
		"runs with the settings 'other settings' (0123), but this cluster with");
	cad_settings_fingerprint(pl_checkpoint_settings(world->checkpoint), settings_fingerprint);
	hello.settings_fingerprint = settings_fingerprint;
	refused(world, &message, CAD_RPC_FAILED_PRECONDITION,
		"node id 'node-0' is already in use (pid 7, 127.0.0.1:7400)");
	hello.id = "router-9";
	hello.role = CADRE__V1__ROLE__ROLE_ROUTER;
	hello.router_checksum = "0123";
	char both[160];
	snprintf(both, sizeof both, "has the checksum '0123', in the placement service's files '%s'",
		world->router_checksum);
	refused(world, &message, CAD_RPC_FAILED_PRECONDITION, both);
	hello.role = CADRE__V1__ROLE__ROLE_EXPERT;
	hello.id = "node-9";
	hello.model_fingerprint = "x";
	refused(world, &message, CAD_RPC_FAILED_PRECONDITION, "start it with the same --model files");
	hello.id = "";
	hello.model_fingerprint = world->fingerprint;
	refused(world, &message, CAD_RPC_INVALID_ARGUMENT, "the node id '' is not allowed");
}

static bool node_is_refused(struct world *world) { return world->members[0].refused; }

/* One that has joined. */
static void what_is_no_exchange_address_ends_the_stream(void **state)
{
	struct world *world = *state;
	Cadre__V1__NodeReport message = CADRE__V1__NODE_REPORT__INIT;
	struct member *node = &world->members[0];

	gather(world);
	message.report_case = CADRE__V1__NODE_REPORT__REPORT_EXCHANGE_ADDRESS;
	message.exchange_address = "\x1b[31mE\n:1";
	assert_int_equal(cad_member_report(node->member, &message), CAD_OK);
	run_until(world, node_is_refused);
	assert_string_equal(
		node->why, "'node-0' has characters that cannot be shown in its exchange address: '?[31mE?:1'");
}

/* One message, and what it is answered with. */
static void refuses(struct world *world, const char *method, const ProtobufCMessage *request, enum cad_rpc_code code,
	const char *says)
{
	char path[64];
	struct rpc_result result = { .done = false };

	snprintf(path, sizeof path, "/cadre.v1.Placement/%s", method);
	rpc_call(&world->fixture, path, request, &cadre__v1__rebalance__descriptor, NULL, &result);
	assert_int_equal(result.code, code);
	if (!strstr(result.text, says))
		fail_msg("'%s' does not say '%s'", result.text, says);
}

static void wrong_rebalances_are_refused(void **state)
{
	struct world *world = *state;
	Cadre__V1__StartRebalanceRequest start = CADRE__V1__START_REBALANCE_REQUEST__INIT;
	Cadre__V1__RebalanceOptions options = CADRE__V1__REBALANCE_OPTIONS__INIT;
	Cadre__V1__ChangeRebalanceRequest change = CADRE__V1__CHANGE_REBALANCE_REQUEST__INIT;
	Cadre__V1__ApplyMapRequest map = CADRE__V1__APPLY_MAP_REQUEST__INIT;
	Cadre__V1__Change reason = CADRE__V1__CHANGE__INIT;
	char long_reason[600];

	gather(world);
	refuses(world, "StartRebalance", &start.base, CAD_RPC_INVALID_ARGUMENT, "the first message must have options");
	start.part_case = CADRE__V1__START_REBALANCE_REQUEST__PART_TRACE;
	start.trace = (ProtobufCBinaryData){ 3, (uint8_t *)long_reason };
	refuses(world, "StartRebalance", &start.base, CAD_RPC_INVALID_ARGUMENT, "the first message must have options");
	start.part_case = CADRE__V1__START_REBALANCE_REQUEST__PART_OPTIONS;
	start.options = &options;
	refuses(world, "StartRebalance", &start.base, CAD_RPC_NOT_FOUND, "there is no routing to plan from");
	options.has_trace = true;
	refuses(world, "StartRebalance", &start.base, CAD_RPC_INVALID_ARGUMENT, "announced did not come");
	options.limit_copies = true;
	options.copies = -0.5;
	refuses(world, "StartRebalance", &start.base, CAD_RPC_INVALID_ARGUMENT, "-0.5 is no share of extra copies");
	memset(long_reason, 'x', sizeof long_reason);
	long_reason[sizeof long_reason - 1] = 0;
	reason.reason = long_reason;
	change.change = &reason;
	refuses(world, "ChangeRebalance", &change.base, CAD_RPC_INVALID_ARGUMENT, "the reason has 599 bytes");
	refuses(world, "ApplyMap", &map.base, CAD_RPC_INVALID_ARGUMENT, "a map has 1 to");
}

int main(void)
{
	cad_log_set_fd(open("/dev/null", O_WRONLY | O_CLOEXEC));
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(nodes_join_and_a_router_gets_the_map, setup, teardown),
		cmocka_unit_test_setup_teardown(watchers_get_the_present_map_and_the_next, setup, teardown),
		cmocka_unit_test_setup_teardown(lost_node_is_replaced, setup, teardown),
		cmocka_unit_test_setup_teardown(who_comes_back_is_given_sources, setup, teardown),
		cmocka_unit_test_setup_teardown(restart_does_not_disturb, setup, teardown),
		cmocka_unit_test_setup_teardown(nodes_hear_of_peers, setup, teardown),
		cmocka_unit_test_setup_teardown(after_a_restart_the_killed_are_not_waited_for, setup, teardown),
		cmocka_unit_test_setup_teardown(the_secret_decides, setup, teardown),
		cmocka_unit_test_setup_teardown(wrong_beginnings_are_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_no_exchange_address_ends_the_stream, setup, teardown),
		cmocka_unit_test_setup_teardown(wrong_rebalances_are_refused, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
