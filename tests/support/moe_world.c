/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/moe_world.h"

#include "tests/support/exchange.h"
#include "tests/support/must.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { WIDTH = 4 };

uint64_t moe_now(const struct moe_world *world) { return cad_clock_now_ns(world->clock); }

/* What an expert gives for element i of any row. */
static int32_t value(uint32_t expert, uint32_t i) { return (int32_t)((expert + 1) * 1000 + i); }

/* ---- nodes ---- */

static void answer_sums(struct moe_node *node, struct cad_request *request)
{
	const struct cad_call_view *view = cad_request_view(request);
	struct cad_buffer *buffer = cad_request_answer_buffer(request);
	uint32_t rows = view->call.rows;
	size_t heads = rows * sizeof(struct cadre_wire_sum), data = (size_t)rows * MOE_HIDDEN * WIDTH;

	assert_non_null(buffer);
	memset(buffer->bytes, 0, heads + data);
	for (uint32_t r = 0; r < rows; r++)
		((struct cadre_wire_sum *)(void *)buffer->bytes)[r].width = WIDTH;
	int32_t *sums = (int32_t *)(void *)(buffer->bytes + heads);
	for (uint32_t g = 0, pair = 0; g < view->call.groups; g++)
		for (uint32_t i = 0; i < view->groups[g].pairs; i++, pair++)
			for (uint32_t e = 0; e < MOE_HIDDEN; e++)
				sums[view->pairs[pair].row * MOE_HIDDEN + e] +=
					value(view->groups[g].expert, e) * (int32_t)view->pairs[pair].weight;
	node->answered++;
	cad_request_answer(request, &(struct cadre_wire_answer){ .data_bytes = data }, heads + data);
}

static void refuse(struct cad_request *request, uint8_t status)
{
	uint32_t detail = status == CADRE_WIRE_NOT_HELD ? cad_request_view(request)->groups[0].expert : 7;
	cad_request_answer(request, &(struct cadre_wire_answer){ .header.status = status, .detail = detail }, 0);
}

static void on_request(struct cad_transport *transport, struct cad_request *request)
{
	struct moe_node *node = cad_transport_user(transport);
	uint8_t says = node->said < node->script_count ? node->script[node->said++] : CADRE_WIRE_OK;

	node->calls++;
	node->rows += cad_request_view(request)->call.rows;
	node->last_call_ns = moe_now(node->world);
	if (says == MOE_SILENCE)
		node->kept[node->kept_count++] = request;
	else if (says == CADRE_WIRE_OK)
		answer_sums(node, request);
	else
		refuse(request, says);
}

void moe_answer_late(struct moe_node *node)
{
	for (; node->kept_count > 0; node->kept_count--)
		answer_sums(node, node->kept[node->kept_count - 1]);
}

static void node_open(struct moe_world *world, uint32_t index)
{
	struct moe_node *node = &world->nodes[index];
	struct cad_transport_options options;
	struct cad_error error;

	*node = (struct moe_node){ .world = world };
	snprintf(node->name, sizeof node->name, "n%u", index);
	exchange_options(&options, node->name, true);
	options.limits = (struct cad_wire_limits){ 1 << 20, MOE_ROWS_OF_A_CALL, MOE_HIDDEN, MOE_LAYERS, MOE_EXPERTS };
	options.user = node;
	options.on_request = on_request;
	options.on_connection = NULL;
	must(cad_transport_sim_create(&options, world->sim, &node->transport, &error), &error);
	must(cad_transport_listen(node->transport, node->name, &error), &error);
}

/* ---- the router ---- */

static void on_connection(struct cad_transport *transport, struct cad_connection *connection,
	enum cad_connection_state state, enum cad_status status, const char *text)
{
	struct moe_world *world = cad_transport_user(transport);
	struct rt_peer *peer = cad_connection_user(connection);
	rt_route_table_connection(&world->exchange.routes, peer, state, status, text);
}

static void idle(void *context)
{
	struct moe_world *world = context;
	if (world->idle)
		world->idle(world);
}

static void router_open(struct moe_world *world)
{
	struct cad_transport_options options;
	struct cad_transport *transport;
	struct cad_error error;

	exchange_options(&options, "router", false);
	options.limits = (struct cad_wire_limits){ 1 << 20, MOE_ROWS_OF_A_CALL, MOE_HIDDEN, MOE_LAYERS, MOE_EXPERTS };
	options.user = world;
	options.on_connection = on_connection;
	must(cad_transport_sim_create(&options, world->sim, &transport, &error), &error);
	must(rt_exchange_init(&world->exchange,
		     &(struct rt_exchange_options){
			     .transport = transport,
			     .queue = world->queue,
			     .spec = &world->spec,
			     .wire = CADRE_ROW_FIX16,
			     .rows_max = MOE_ROWS_OF_A_CALL,
			     .shipments_max = 16,
			     .call_timeout_ms = MOE_TIMEOUT_MS,
			     .idle = idle,
			     .idle_context = world,
		     },
		     &error),
		&error);
}

static void work_open(struct moe_world *world)
{
	must(rt_batch_init(&world->batch, MOE_ROWS, MOE_ROWS), NULL);
	world->x = world->device->ops->alloc(world->device, MOE_ROWS * kn_ld(MOE_HIDDEN) * sizeof *world->x);
	world->sums = world->device->ops->alloc(world->device, MOE_ROWS * MOE_HIDDEN * sizeof *world->sums);
	assert_true(world->x && world->sums);
	moe_clear_sums(world);
	for (uint32_t r = 0; r < MOE_ROWS; r++) {
		struct rt_request request = { .prompt = (const int32_t[]){ 1 }, .prompt_count = 1 };
		world->sequences[r] = rt_sequence_create(&request, 4);
		assert_non_null(world->sequences[r]);
		world->batch.spans[r] = (struct rt_span){ .sequence = world->sequences[r], .first = r, .rows = 1 };
		world->batch.row_span[r] = &world->batch.spans[r];
		for (uint32_t i = 0; i < MOE_HIDDEN; i++)
			world->x[r * kn_ld(MOE_HIDDEN) + i] = (float)(r + i) / 16;
		for (uint32_t k = 0; k < MOE_TOPK; k++) {
			world->ids[r * MOE_TOPK + k] = (int32_t)((r + k) % MOE_EXPERTS);
			world->weights[r * MOE_TOPK + k] = 1;
		}
	}
	world->batch.rows = world->batch.spans_count = MOE_ROWS;
	world->work = (struct rt_work){
		.batch = &world->batch,
		.layer = 1,
		.rows = MOE_ROWS,
		.topk = MOE_TOPK,
		.ids = world->ids,
		.weights = world->weights,
		.nodes = world->work_nodes,
		.node_ids = world->node_ids,
		.slots = world->slots,
		.counts = world->counts,
		.x = world->x,
		.ldx = kn_ld(MOE_HIDDEN),
		.sums = world->sums,
	};
}

void moe_world_open(struct moe_world *world)
{
	struct cad_error error;
	struct cad_sim_options network = {
		.seed = 1,
		.delay_min_ns = 10 * CAD_NS_PER_US,
		.delay_max_ns = 100 * CAD_NS_PER_US,
	};

	*world = (struct moe_world){
		.spec = { .layers_count = MOE_LAYERS,
			.hidden = MOE_HIDDEN,
			.gate = { .experts = MOE_EXPERTS, .topk = MOE_TOPK } },
	};
	must(cad_sim_create(&network, &world->sim), NULL);
	world->clock = cad_sim_clock(world->sim);
	must(kn_device_open(&(struct kn_device_options){ .isa = KN_ISA_REF }, &world->device, &error), &error);
	must(world->device->ops->queue_create(world->device, 1, &world->queue), NULL);
	for (uint32_t i = 0; i < MOE_NODES; i++)
		node_open(world, i);
	router_open(world);
	work_open(world);
}

void moe_world_close(struct moe_world *world)
{
	rt_exchange_fini(&world->exchange);
	for (uint32_t i = 0; i < MOE_NODES; i++) {
		moe_answer_late(&world->nodes[i]);
		cad_transport_destroy(world->nodes[i].transport);
	}
	for (uint32_t r = 0; r < MOE_ROWS; r++)
		rt_sequence_destroy(world->sequences[r]);
	rt_batch_fini(&world->batch);
	world->device->ops->release(world->device, world->x, MOE_ROWS * kn_ld(MOE_HIDDEN) * sizeof *world->x);
	world->device->ops->release(world->device, world->sums, MOE_ROWS * MOE_HIDDEN * sizeof *world->sums);
	world->device->ops->queue_destroy(world->queue);
	world->device->ops->destroy(world->device);
	cad_sim_destroy(world->sim);
}

void moe_publish(struct moe_world *world, const uint8_t holders[MOE_EXPERTS])
{
	moe_publish_live(world, holders, (1 << MOE_NODES) - 1);
}

void moe_publish_live(struct moe_world *world, const uint8_t holders[MOE_EXPERTS], uint8_t live)
{
	static const uint32_t layers[MOE_LAYERS] = { 0, 1 };
	struct cad_map_node nodes[MOE_NODES];
	struct cad_map_replica replicas[MOE_LAYERS * MOE_EXPERTS * MOE_NODES];
	struct cad_map_source source = {
		.epoch = ++world->epoch,
		.nodes = nodes,
		.nodes_count = MOE_NODES,
		.layers = layers,
		.layers_count = MOE_LAYERS,
		.experts = MOE_EXPERTS,
		.replicas = replicas,
	};
	for (uint32_t n = 0; n < MOE_NODES; n++)
		nodes[n] = (struct cad_map_node){
			.id = world->nodes[n].name,
			.exchange_address = world->nodes[n].name,
			.http_address = "",
			.live = live >> n & 1,
			.speed = world->nodes[n].speed,
		};
	for (uint32_t layer = 0; layer < MOE_LAYERS; layer++)
		for (uint32_t e = 0; e < MOE_EXPERTS; e++)
			for (uint32_t n = 0; n < MOE_NODES; n++)
				if (holders[e] >> n & 1)
					replicas[source.replicas_count++] = (struct cad_map_replica){ layer, e, n };

	struct cad_map *map;
	struct cad_error error;
	must(cad_map_create(&source, &map, &error), &error);
	cad_map_release(rt_route_table_map(&world->exchange.routes, map));
}

void moe_connect(struct moe_world *world)
{
	uint64_t end = moe_now(world) + 2 * CAD_NS_PER_S;
	while (rt_route_table_connections(&world->exchange.routes) < MOE_NODES) {
		assert_true(moe_now(world) < end);
		(void)rt_route_table_tick(&world->exchange.routes);
		cad_transport_poll(world->exchange.transport, moe_now(world) + CAD_NS_PER_MS);
	}
}

void moe_dispatch(struct moe_world *world) { rt_dispatch(&world->exchange, &world->work); }

void moe_wait(struct moe_world *world) { rt_await_sums(&world->exchange, &world->work); }

static void expect(const struct moe_world *world, uint32_t row, bool added)
{
	for (uint32_t i = 0; i < MOE_HIDDEN; i++) {
		int64_t wanted = 0;
		for (uint32_t k = 0; added && k < MOE_TOPK; k++) {
			int32_t expert = world->ids[row * MOE_TOPK + k];
			int32_t weight = (int32_t)world->weights[row * MOE_TOPK + k];
			wanted += expert < 0 ? 0 : value((uint32_t)expert, i) * weight;
		}
		if (world->sums[row * MOE_HIDDEN + i] != wanted)
			fail_msg("row %u, element %u: %lld, not %lld", row, i,
				(long long)world->sums[row * MOE_HIDDEN + i], (long long)wanted);
	}
}

void moe_expect_row(const struct moe_world *world, uint32_t row) { expect(world, row, true); }

void moe_expect_nothing(const struct moe_world *world, uint32_t row) { expect(world, row, false); }

void moe_expect_all(const struct moe_world *world)
{
	for (uint32_t row = 0; row < MOE_ROWS; row++) {
		assert_int_equal(world->sequences[row]->doomed, CAD_OK);
		moe_expect_row(world, row);
	}
}

void moe_say(struct moe_world *world, uint32_t node, uint8_t what, uint32_t times)
{
	world->nodes[node].said = 0;
	world->nodes[node].script_count = times;
	memset(world->nodes[node].script, what, times);
}

void moe_clear_sums(struct moe_world *world) { memset(world->sums, 0, MOE_ROWS * MOE_HIDDEN * sizeof *world->sums); }

uint64_t moe_run(struct moe_world *world)
{
	uint64_t began = moe_now(world);
	moe_clear_sums(world);
	moe_dispatch(world);
	moe_wait(world);
	moe_expect_all(world);
	return (moe_now(world) - began) / CAD_NS_PER_MS;
}

void moe_pass(struct moe_world *world, uint64_t ms)
{
	for (uint64_t end = moe_now(world) + ms * CAD_NS_PER_MS; moe_now(world) < end;) {
		uint64_t due = rt_route_table_tick(&world->exchange.routes);
		rt_exchange_poll(&world->exchange, due < end ? due : end);
	}
}
