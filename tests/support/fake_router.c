/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/fake_router.h"
#include "tests/support/must.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct cad_model *fake_model;
struct cad_tokenizer *fake_tokenizer;
static const char settings[] = "profile=f32 router=f32";

int fake_model_open(void **state)
{
	(void)state;
	struct cad_error error;
	if (cad_model_open(FAKE_MODEL, &fake_model, &error) ||
		cad_tokenizer_open(FAKE_MODEL "/tokenizer.json", &fake_tokenizer, &error)) {
		print_error("%s\n", error.text);
		return -1;
	}
	return 0;
}

int fake_model_close(void **state)
{
	(void)state;
	cad_tokenizer_close(fake_tokenizer);
	cad_model_close(fake_model);
	return 0;
}

/* ---- the engine ---- */

static enum cad_status fake_submit(
	void *engine, const struct rt_request *request, uint64_t *id, struct cad_error *error)
{
	struct fake *fake = engine;
	uint32_t index = atomic_load(&fake->count);

	if (index >= fake->limit)
		return cad_error_set(error, CAD_ERR_EXHAUSTED, "%u requests are the limit", fake->limit);

	struct fake_request *copy = &fake->requests[index];
	copy->context = request->context;
	copy->id = *id = index + 100;
	copy->deadline_ns = request->deadline_ns;
	copy->prompt_count = request->prompt_count;
	memcpy(copy->prompt, request->prompt, request->prompt_count * sizeof *copy->prompt);
	copy->received_count = request->received_count;
	copy->generated = (uint32_t)request->received_count;
	if (request->received_count > 0)
		memcpy(copy->received, request->received, request->received_count * sizeof *copy->received);
	memcpy(copy->received_digest, request->received_digest, sizeof copy->received_digest);
	copy->max_tokens = request->max_tokens;
	copy->sampling = request->sampling;
	copy->want_routing = request->want_routing;
	copy->trial = request->trial;
	atomic_store(&fake->count, index + 1);
	fake->submitted = true;

	return CAD_OK;
}

static uint64_t fake_now_ns(void *context)
{
	return cad_clock_now_ns(&cad_clock_system) + ((struct fake *)context)->ahead_ns;
}

static uint64_t fake_advanced_ns(void *context) { return ((struct fake *)context)->advanced_ns; }

static struct fake_request *fake_find(struct fake *fake, uint64_t id)
{
	assert_true(id >= 100 && id < 100 + FAKE_REQUESTS_MAX);
	return &fake->requests[id - 100];
}

static void fake_cancel(void *engine, uint64_t id) { atomic_store(&fake_find(engine, id)->cancelled, true); }

static void fake_pause(void *engine, uint64_t id, bool paused)
{
	struct fake_request *request = fake_find(engine, id);
	request->pauses += paused;
	atomic_store(&request->paused, paused);
}

static struct rt_event fake_event(const struct fake_request *request, enum rt_event_kind kind)
{
	struct rt_event event = { .kind = kind, .request = request->id, .context = request->context };
	event.usage.prompt_tokens = (uint32_t)request->prompt_count;
	event.usage.generated_tokens = request->generated;
	event.usage.first_token_us = 5;
	event.usage.total_us = 10 * request->generated;
	event.usage.dropped = 2 * request->generated;
	memset(event.digest, (int)request->generated, sizeof event.digest);
	return event;
}

/* One that is no text is the last. */
static void token_event(struct fake_request *request, int32_t token, bool is_text)
{
	request->generated++;
	struct rt_event event = fake_event(request, RT_EVENT_TOKEN);
	event.token = token;
	event.is_text = is_text;
	event.is_last = !is_text;
	rt_frontend_on_event(NULL, &event);
}

void fake_token(struct fake_request *request, int32_t token) { token_event(request, token, true); }

void fake_last_token(struct fake_request *request, int32_t token) { token_event(request, token, false); }

void fake_finish(struct fake_request *request, enum rt_finish_reason reason)
{
	struct rt_event event = fake_event(request, RT_EVENT_FINISHED);
	event.reason = reason;
	request->over = true;
	rt_frontend_on_event(NULL, &event);
}

void fake_fail(struct fake_request *request, enum cad_status status, const char *text)
{
	struct rt_event event = fake_event(request, RT_EVENT_FAILED);
	event.status = status;
	event.text = text;
	request->over = true;
	rt_frontend_on_event(NULL, &event);
}

void fake_routing(struct fake_request *request, uint32_t first, uint32_t rows, uint64_t *sum)
{
	static int32_t ids[FAKE_LAYERS * FAKE_STRIDE * FAKE_TOPK];
	static float weights[FAKE_LAYERS * FAKE_STRIDE * FAKE_TOPK];
	static const char *nodes[FAKE_LAYERS * FAKE_STRIDE * FAKE_TOPK];
	static char names[3][8] = { "node-0", "node-1", "node-2" };
	static const uint32_t layers[FAKE_LAYERS] = { 1, 2, 4, 7 };

	for (uint32_t layer = 0; layer < FAKE_LAYERS; layer++)
		for (uint32_t row = 0; row < rows; row++)
			for (uint32_t k = 0; k < FAKE_TOPK; k++) {
				size_t at = (layer * FAKE_STRIDE + row) * FAKE_TOPK + k;
				int32_t expert = (int32_t)((first + row + layer + 3 * k) % 7);
				bool dropped = expert == 6;
				ids[at] = dropped ? -1 : expert;
				weights[at] = dropped ? 0 : (float)expert / 8;
				nodes[at] = dropped || expert == 5 ? NULL : names[expert % 3];
				if (!dropped)
					*sum += (first + row) * 100 + layers[layer] * 10 + (uint32_t)expert;
			}
	struct rt_event event = fake_event(request, RT_EVENT_ROUTING);
	event.first_position = first;
	event.rows = rows;
	event.layer_stride = FAKE_STRIDE;
	event.moe_layers = FAKE_LAYERS;
	event.topk = FAKE_TOPK;
	event.layers = layers;
	event.ids = ids;
	event.weights = weights;
	event.nodes = nodes;
	rt_frontend_on_event(NULL, &event);
}

/* ---- a router ---- */

void fake_router_open_with(struct fake_router *router, struct rt_frontend_options options)
{
	struct cad_error error;
	uint16_t port;

	memset(router, 0, sizeof *router);
	rpc_fixture_open_loop(&router->rpc);
	router->fake.limit = FAKE_REQUESTS_MAX;
	options.reactor = router->rpc.reactor;
	options.model = fake_model;
	options.settings_fingerprint = "abc";
	options.settings = settings;
	router->fake.clock = (struct cad_clock){ fake_now_ns, &router->fake };
	options.engine = (struct rt_stream_engine){
		.engine = &router->fake,
		.submit = fake_submit,
		.cancel = fake_cancel,
		.pause = fake_pause,
		.advanced_ns = fake_advanced_ns,
		.clock = &router->fake.clock,
		.context_max = FAKE_CONTEXT,
		.rows_max = FAKE_STRIDE,
	};
	must(rt_frontend_create(&options, &router->frontend, &error), &error);
	must(rt_frontend_listen(router->frontend, "127.0.0.1:0", NULL, &port, &error), &error);
	rt_frontend_start(router->frontend);
	rt_frontend_set_serving(router->frontend, true);
	rpc_fixture_connect(&router->rpc, port, NULL, NULL);
}

void fake_router_open(struct fake_router *router)
{
	fake_router_open_with(router,
		(struct rt_frontend_options){
			.tokenizer = fake_tokenizer,
			.policies = { .capacity = RT_CAPACITY_DROP, .capacity_factor = 1.5f },
		});
}

void fake_router_gone(void *context) { ((struct fake_router *)context)->gone = true; }

/* Every request ends, as the engine's contract says, before everything goes. */
void fake_router_close(struct fake_router *router)
{
	rt_frontend_drain(router->frontend, 0, fake_router_gone, router);
	rpc_run_until(&router->rpc, &router->gone);
	for (uint32_t i = 0; i < router->fake.count; i++)
		if (!router->fake.requests[i].over)
			fake_fail(&router->fake.requests[i], CAD_ERR_CANCELLED, "the engine stops");
	rpc_fixture_close(&router->rpc);
	assert_int_equal(rt_frontend_streams(router->frontend), 0);
	rt_frontend_destroy(router->frontend);
}

/* ---- a client ---- */

static void answer_routing(struct fake_answer *answer, const Cadre__V1__GenerateResponse *response)
{
	answer->routing_messages += response->n_routing > 0;
	for (size_t i = 0; i < response->n_routing; i++) {
		const Cadre__V1__TokenRouting *row = response->routing[i];
		assert_int_equal(row->position, answer->next_position++);
		answer->routing_rows++;
		for (size_t j = 0; j < row->n_layers; j++) {
			const Cadre__V1__LayerRouting *layer = row->layers[j];
			assert_true(layer->n_experts == layer->n_weights && layer->n_experts == layer->n_nodes);
			for (size_t k = 0; k < layer->n_experts; k++) {
				char name[32];
				snprintf(name, sizeof name, "node-%u", layer->experts[k] % 3);
				assert_string_equal(layer->nodes[k], layer->experts[k] == 5 ? "" : name);
				assert_true(layer->weights[k] == (float)layer->experts[k] / 8);
				answer->routing_sum += row->position * 100 + layer->layer * 10 + layer->experts[k];
			}
		}
	}
}

static void answer_message(struct rpc_result *result, const ProtobufCMessage *message)
{
	struct fake_answer *answer = (struct fake_answer *)result;
	const Cadre__V1__GenerateResponse *response = (const Cadre__V1__GenerateResponse *)message;

	assert_false(answer->finished);
	assert_true((answer->fingerprint[0] == 0) == (response->fingerprint[0] != 0)); /* the first has it */
	if (response->fingerprint[0])
		snprintf(answer->fingerprint, sizeof answer->fingerprint, "%s", response->fingerprint);
	assert_true((response->digest_so_far[0] != 0) == (response->n_token_ids > 0 && !response->finish_reason));
	if (response->digest_so_far[0])
		snprintf(answer->digest_so_far, sizeof answer->digest_so_far, "%s", response->digest_so_far);
	answer->something = true;
	assert_true(answer->ids_count + response->n_token_ids <= sizeof answer->ids / sizeof answer->ids[0]);
	if (response->n_token_ids > 0)
		memcpy(answer->ids + answer->ids_count, response->token_ids, response->n_token_ids * sizeof(int32_t));
	answer->ids_count += response->n_token_ids;
	assert_true(strlen(answer->text) + strlen(response->text) < sizeof answer->text);
	strcat(answer->text, response->text);
	assert_true(answer->bytes_count + response->text_bytes.len <= sizeof answer->bytes);
	if (response->text_bytes.len > 0)
		memcpy(answer->bytes + answer->bytes_count, response->text_bytes.data, response->text_bytes.len);
	answer->bytes_count += response->text_bytes.len;
	answer_routing(answer, response);

	if (response->finish_reason) {
		answer->finished = true;
		answer->reason = response->finish_reason;
		snprintf(answer->digest, sizeof answer->digest, "%s", response->digest);
		assert_string_equal(response->settings, settings);
		snprintf(answer->policy, sizeof answer->policy, "%s", response->capacity->policy);
		answer->factor = response->capacity->factor;
		answer->dropped = response->capacity->dropped;
		answer->prompt_tokens = response->usage->prompt_tokens;
		answer->generated_tokens = response->usage->generated_tokens;
	} else {
		assert_true(!response->usage && !response->capacity && !*response->digest && !*response->settings);
	}
}

void fake_answer_start(struct fake_router *router, const Cadre__V1__GenerateRequest *request,
	const struct cad_rpc_call_options *options, struct fake_answer *answer)
{
	memset(answer, 0, sizeof *answer);
	answer->result.on_message = answer_message;
	rpc_start(&router->rpc, "/cadre.v1.Inference/Generate", &request->base,
		&cadre__v1__generate_response__descriptor, options, &answer->result);
}

/* A request that is fake_admitted; returns the engine's side of it. */
struct fake_request *fake_admitted(struct fake_router *router, const Cadre__V1__GenerateRequest *request,
	const struct cad_rpc_call_options *options, struct fake_answer *answer)
{
	router->fake.submitted = false;
	fake_answer_start(router, request, options, answer);
	rpc_run_until(&router->rpc, &router->fake.submitted);
	return &router->fake.requests[router->fake.count - 1];
}

void fake_request_of_text(Cadre__V1__GenerateRequest *request, const char *text)
{
	cadre__v1__generate_request__init(request);
	request->prompt_case = CADRE__V1__GENERATE_REQUEST__PROMPT_TEXT;
	request->text = (char *)(uintptr_t)text;
}

void fake_ids_of(const char *text, struct cad_ids *ids)
{
	struct cad_error error;
	*ids = (struct cad_ids){ 0 };
	must(cad_tokenizer_encode(fake_tokenizer, text, strlen(text), false, SIZE_MAX, ids, &error), &error);
}
