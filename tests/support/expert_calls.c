/* SPDX-License-Identifier: Apache-2.0 */
#include "common/cluster/settings_message.h"
#include "tests/support/expert_calls.h"
#include "tests/support/must.h"

#include "kernels/cpu/cpu.h"
#include "kernels/source.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *need(size_t bytes)
{
	void *memory = aligned_alloc(64, kn_round_up(bytes + 1, 64));
	assert_non_null(memory);
	return memset(memory, 0, kn_round_up(bytes + 1, 64));
}

void expert_world_init(struct expert_world *world, const char *golden)
{
	char path[256];
	struct cad_error error = { 0 };

	*world = (struct expert_world){ 0 };
	snprintf(path, sizeof path, "tests/golden/%s/model", golden); /* tests run in the top folder */
	must(cad_model_open(path, &world->model, &error), &error);
	const struct cad_model_spec *spec = cad_model_spec(world->model);
	world->hidden = spec->hidden;
	world->experts = spec->gate.experts;
	must(kn_device_open(&(struct kn_device_options){ 0 }, &world->device, &error), &error);
	assert_int_equal(world->device->ops->queue_create(world->device, 1, &world->queue), CAD_OK);
	must(kn_cpu_open(KN_ISA_AUTO, &world->reference, &error), &error);
	assert_int_equal(world->reference->ops->queue_create(world->reference, 1, &world->own), CAD_OK);
	float quanta[CAD_LAYERS_MAX];
	for (uint32_t i = 0; i < spec->layers_count; i++)
		quanta[i] = spec->layers[i].moe ? ldexpf(1, -16 - (int)(i % 3)) : 0;
	must(cad_settings_init(&world->settings,
		     &(struct cad_settings){
			     .wire = CADRE_ROW_FIX16,
			     .layers = spec->layers_count,
			     .quanta = quanta,
		     },
		     &error),
		&error);
	assert_int_equal(cad_local_hub_create(&world->hub), CAD_OK);
}

void expert_world_fini(struct expert_world *world)
{
	cad_local_hub_destroy(world->hub);
	cad_settings_fini(&world->settings);
	world->own->ops->queue_destroy(world->own);
	world->reference->ops->destroy(world->reference);
	world->queue->ops->queue_destroy(world->queue);
	world->device->ops->destroy(world->device);
	cad_model_close(world->model);
}

float expert_quantum(const struct expert_world *world, uint32_t layer) { return world->settings.quanta[layer]; }

/* ---- cases ---- */

static float normal(struct cad_random *random)
{
	double u = cad_random_unit(random) + 0x1p-54, v = cad_random_unit(random);
	return (float)(sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v));
}

void expert_case_init(struct expert_case *c, const struct expert_world *world, uint32_t layer, uint32_t rows,
	uint32_t topk, struct cad_random *random)
{
	size_t ld = kn_ld(world->hidden);
	*c = (struct expert_case){ .layer = layer, .rows = rows, .topk = topk };
	c->x = need(rows * ld * sizeof *c->x);
	c->ids = need(rows * topk * sizeof *c->ids);
	c->weights = need(rows * topk * sizeof *c->weights);
	c->expected = need(rows * world->hidden * sizeof *c->expected);

	for (uint32_t r = 0; r < rows; r++) {
		float scale = ldexpf(1, (int)cad_random_below(random, 8) - 4);
		for (uint32_t i = 0; i < world->hidden; i++)
			c->x[r * ld + i] = normal(random) * scale;
		for (uint32_t k = 0; k < topk;) {
			int32_t id = (int32_t)cad_random_below(random, world->experts);
			bool fresh = true;
			for (uint32_t j = 0; j < k; j++)
				fresh &= c->ids[r * topk + j] != id;
			if (!fresh)
				continue;
			c->weights[r * topk + k] = (float)cad_random_unit(random);
			c->ids[r * topk + k++] = id;
		}
	}
}

void expert_case_fini(struct expert_case *c)
{
	free(c->x);
	free(c->ids);
	free(c->weights);
	free(c->expected);
}

/* As the wire rounds it. */
static void row_over_wire(const struct expert_world *world, const struct expert_case *c, uint32_t row, float *x)
{
	struct cadre_wire_row head;
	uint8_t *data = need(world->hidden * 4);
	size_t bytes;

	world->own->ops->rows_pack(world->own,
		&(struct kn_rows_pack){
			.x = c->x,
			.ldx = kn_ld(world->hidden),
			.n = world->hidden,
			.index = &row,
			.rows = 1,
			.type = world->settings.wire,
			.heads = &head,
			.data = data,
			.data_bytes = &bytes,
		});
	world->own->ops->rows_unpack(world->own,
		&(struct kn_rows_unpack){
			.heads = &head,
			.data = data,
			.rows = 1,
			.n = world->hidden,
			.x = x,
			.ldx = kn_ld(world->hidden),
		});
	free(data);
}

void expert_case_expect(struct expert_case *c, const struct expert_world *world)
{
	const struct kn_ops *ops = world->reference->ops;
	size_t ffn = cad_model_spec(world->model)->expert.size, ld = kn_ld(world->hidden);
	float *x = need(ld * sizeof *x), *y = need(ld * sizeof *y);
	void *scratch = need(ops->ffn_scratch_bytes(world->own, 1, world->hidden, ffn, false));
	double quantum = (double)expert_quantum(world, c->layer);

	memset(c->expected, 0, c->rows * world->hidden * sizeof *c->expected);

	for (uint32_t id = 0; id < world->experts; id++) {
		struct kn_expert expert;
		const struct kn_expert *list = &expert;
		struct kn_expert_source source = kn_expert_source_of(world->model, c->layer, id);
		assert_int_equal(ops->expert_create(world->reference, &source, CAD_WEIGHTS_AS_IS, &expert), CAD_OK);
		for (uint32_t p = 0; p < c->rows * c->topk; p++) {
			if (c->ids[p] != (int32_t)id)
				continue;
			row_over_wire(world, c, p / c->topk, x);
			ops->ffn(world->own,
				&(struct kn_ffn){
					.experts = &list,
					.experts_count = 1,
					.begin = (uint32_t[]){ 0, 1 },
					.x = x,
					.ldx = ld,
					.rows = 1,
					.hidden = world->hidden,
					.y = y,
					.ldy = ld,
					.scratch = scratch,
				});
			for (uint32_t i = 0; i < world->hidden; i++)
				c->expected[p / c->topk * world->hidden + i] +=
					(int64_t)rint((double)c->weights[p] * (double)y[i] / quantum);
		}
		ops->expert_destroy(world->reference, &expert);
	}

	free(x);
	free(y);
	free(scratch);
}

/* ---- clients ---- */

struct expert_client {
	struct cad_transport *transport;
};

static void on_connection(struct cad_transport *transport, struct cad_connection *connection,
	enum cad_connection_state state, enum cad_status status, const char *text)
{
	(void)transport;
	(void)status;
	(void)text;
	bool *ready = cad_connection_user(connection);
	/* the test may have left the block where it stood by the time that it closes */
	if (ready && state == CAD_CONNECTION_READY)
		*ready = true;
}

void expert_transport_options(const struct expert_world *world, const char *node, struct cad_transport_options *options)
{
	char fingerprint[33];
	const struct cad_gate_spec *gate = &cad_model_spec(world->model)->gate;

	cad_transport_options_default(options);
	cad_model_fingerprint(world->model, fingerprint);
	cad_identity_fill(&options->identity, "test", node, fingerprint, &world->settings);
	options->calls_max = 64;
	options->peer_timeout_ms = options->ping_timeout_ms = 60000; /* sanitizers are slow */
	options->limits = (struct cad_wire_limits){
		.payload_bytes_max = cad_wire_call_bytes_max(EXPERT_TEST_ROWS_MAX, world->hidden, gate->experts,
					     (size_t)EXPERT_TEST_ROWS_MAX * gate->experts) +
			/* room for either */
			cad_wire_answer_bytes_max(EXPERT_TEST_ROWS_MAX, world->hidden),
		.rows_max = EXPERT_TEST_ROWS_MAX,
		.row_elements = world->hidden,
		.layers = cad_model_spec(world->model)->layers_count,
		.experts = gate->experts,
	};
	options->on_connection = on_connection;
}

struct expert_client *expert_client_create(const struct expert_world *world, const char *name)
{
	struct cad_transport_options options;
	struct expert_client *client = need(sizeof *client);
	struct cad_error error;
	expert_transport_options(world, name, &options);
	must(cad_transport_local_create(&options, world->hub, &client->transport, &error), &error);
	return client;
}

void expert_client_destroy(struct expert_client *client)
{
	cad_transport_destroy(client->transport);
	free(client);
}

struct cad_transport *expert_client_transport(const struct expert_client *client) { return client->transport; }

struct cad_connection *expert_client_connect(struct expert_client *client, const char *address, bool *ready)
{
	struct cad_connection *connection;
	struct cad_error error;
	*ready = false;
	must(cad_transport_connect(client->transport, address, ready, &connection, &error), &error);
	return connection;
}

/* ---- calls ---- */

static void on_done(void *context, struct cad_call *started, enum cad_status status, const struct cad_answer_view *view)
{
	struct expert_call *call = context;
	(void)started;
	call->done = true;
	call->status = status;
	if (status != CAD_OK)
		return;
	call->head = view->answer;
	call->wire = (enum cadre_wire_status)view->answer.header.status;
	call->detail = view->answer.detail;
	if (call->wire != CADRE_WIRE_OK)
		return;

	for (uint32_t r = 0; r < view->answer.rows; r++)
		if (view->sums[r].poisoned) {
			call->poisoned_rows++;
			call->poisoned_expert = view->sums[r].expert;
		}
	if (call->poisoned_rows > 0)
		return;
	size_t n = call->world->hidden;
	const uint8_t *data = view->data;
	for (uint32_t r = 0; r < view->answer.rows; r++)
		for (size_t i = 0; i < n; i++, data += view->sums[r].width) {
			uint64_t bits = 0;
			memcpy(&bits, data, view->sums[r].width);
			unsigned shift = 64 - 8u * view->sums[r].width;
			call->sums[call->index[r] * n + i] += (int64_t)(bits << shift) >> shift;
		}
}

void expert_call_start(struct expert_call *call, struct expert_client *client, struct cad_connection *connection,
	const struct expert_world *world, const struct expert_case *c, bool (*takes)(int32_t expert, int part),
	int part, int64_t *sums, uint64_t deadline_ns)
{
	*call = (struct expert_call){ .sums = sums, .of = c, .world = world };
	call->index = need(c->rows * sizeof *call->index);
	uint32_t *place = need(c->rows * sizeof *place), rows = 0, pairs = 0, groups = 0;
	struct cadre_wire_group *group = need(world->experts * sizeof *group);
	struct cadre_wire_pair *pair = need(c->rows * c->topk * sizeof *pair);
	for (uint32_t r = 0; r < c->rows; r++) {
		bool any = false;
		for (uint32_t k = 0; k < c->topk; k++)
			any |= !takes || takes(c->ids[r * c->topk + k], part);
		place[r] = rows;
		if (any)
			call->index[rows++] = r;
	}

	for (uint32_t id = 0; id < world->experts; id++) {
		uint32_t before = pairs;
		for (uint32_t p = 0; p < c->rows * c->topk; p++)
			if (c->ids[p] == (int32_t)id && (!takes || takes((int32_t)id, part)))
				pair[pairs++] = (struct cadre_wire_pair){ place[p / c->topk], c->weights[p] };
		if (pairs > before)
			group[groups++] = (struct cadre_wire_group){ id, pairs - before };
	}

	if (rows == 0) { /* nothing for this part */
		call->done = true;
		goto free_scratch;
	}

	struct cadre_wire_row *heads = need(rows * sizeof *heads);
	uint8_t *data = need(rows * world->hidden * 4);
	size_t data_bytes;
	world->own->ops->rows_pack(world->own,
		&(struct kn_rows_pack){
			.x = c->x,
			.ldx = kn_ld(world->hidden),
			.n = world->hidden,
			.index = call->index,
			.rows = rows,
			.type = world->settings.wire,
			.heads = heads,
			.data = data,
			.data_bytes = &data_bytes,
		});
	struct cad_call_layout at = cad_wire_call_layout(rows, data_bytes, groups, pairs);
	assert_int_equal(cad_buffer_create(client->transport, at.bytes, &call->payload), CAD_OK);
	assert_int_equal(
		cad_buffer_create(client->transport, cad_wire_answer_bytes_max(rows, world->hidden), &call->answer),
		CAD_OK);
	memset(call->payload.bytes, 0, at.bytes);
	memcpy(call->payload.bytes + at.rows, heads, rows * sizeof *heads);
	memcpy(call->payload.bytes + at.data, data, data_bytes);
	memcpy(call->payload.bytes + at.groups, group, groups * sizeof *group);
	memcpy(call->payload.bytes + at.pairs, pair, pairs * sizeof *pair);
	struct cad_call_start start = {
		.call = { .layer = c->layer,
			.rows = rows,
			.row_elements = world->hidden,
			.pairs = pairs,
			.groups = groups,
			.data_bytes = data_bytes },
		.payload = &call->payload,
		.payload_bytes = at.bytes,
		.answer = &call->answer,
		.deadline_ns = deadline_ns,
		.done = on_done,
		.context = call,
	};
	struct cad_call *started;
	assert_int_equal(cad_call_start(connection, &start, &started), CAD_OK);
	free(heads);
	free(data);

free_scratch:
	free(place);
	free(group);
	free(pair);
}

void expert_call_fini(struct expert_call *call, struct expert_client *client)
{
	assert_true(call->done);
	if (call->payload.bytes) {
		cad_buffer_destroy(client->transport, &call->payload);
		cad_buffer_destroy(client->transport, &call->answer);
	}
	free(call->index);
}

static struct ex_engine *the_engine(void *context, uint32_t layer, uint32_t expert)
{
	(void)layer;
	(void)expert;
	return context;
}

enum cad_status expert_load_all(struct ex_engine *engine, struct cad_error *error)
{
	const struct ex_load_all all = {
		.model = ex_engine_model(engine),
		.engine = the_engine,
		.engine_context = engine,
	};
	return ex_engine_load_all(&all, error);
}
