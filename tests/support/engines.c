/* SPDX-License-Identifier: Apache-2.0 */
#include "common/cluster/settings_message.h"
#include "tests/support/engines.h"

#include "embedded/embedded.h"
#include "kernels/quantum.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A fixture that cannot be made ends the test program: nothing after it would mean anything. */
static void must(enum cad_status status, const struct cad_error *error)
{
	if (status == CAD_OK)
		return;
	fprintf(stderr, "fixture: %s: %s\n", cad_status_name(status), error ? error->text : "");
	abort();
}

static void on_event(void *user, const struct rt_event *event)
{
	(void)user;
	struct te_request *request = event->context;
	if (event->kind == RT_EVENT_TOKEN)
		atomic_fetch_add(&request->tokens, 1);
	if (event->kind != RT_EVENT_FINISHED && event->kind != RT_EVENT_FAILED)
		return;
	request->status = event->kind == RT_EVENT_FAILED ? event->status : CAD_OK;
	snprintf(request->text, sizeof request->text, "%s", event->kind == RT_EVENT_FAILED ? event->text : "");
	memcpy(request->digest, event->digest, sizeof request->digest);
	request->usage = event->usage;
	atomic_store(&request->ended, true);
}

static void identity(const struct te_cluster *cluster, const char *name, struct cad_transport_options *options)
{
	cad_transport_options_default(options);
	cad_identity_fill(&options->identity, "test", name, cluster->fingerprint, &cluster->settings);
	options->ping_interval_ms = 20;
	/* real threads may be held up; virtual time is never late */
	options->ping_timeout_ms = cluster->threaded ? 2000 : 60;
	options->handshake_timeout_ms = cluster->threaded ? 5000 : 200;
}

static void wake_transport(void *context)
{
	struct te_node *node = context;
	if (node->transport)
		cad_transport_wake(node->transport);
}

static void *node_thread(void *argument)
{
	struct te_node *node = argument;
	const struct cad_clock *clock = cad_transport_clock(node->transport);
	while (!atomic_load(&node->stop) || !ex_engine_idle(node->engine)) {
		cad_transport_poll(node->transport, cad_clock_now_ns(clock) + 20 * CAD_NS_PER_MS);
		ex_engine_deliver(node->engine);
	}
	return NULL;
}

static void on_connection(struct cad_transport *transport, struct cad_connection *connection,
	enum cad_connection_state state, enum cad_status status, const char *text)
{
	(void)status;
	(void)text;
	if (state == CAD_CONNECTION_CLOSED)
		ex_engine_connection_lost(cad_transport_user(transport), connection);
}

static void create_node(struct te_cluster *cluster, uint32_t index)
{
	struct te_node *node = &cluster->nodes[index];
	struct cad_error error;
	struct ex_engine_options engine;

	snprintf(node->name, sizeof node->name, "node-%u", index);
	ex_engine_options_default(&engine);
	engine.mode = cluster->threaded ? EX_ENGINE_THREADED : EX_ENGINE_INLINE;
	engine.model = cluster->model;
	engine.device = cluster->device;
	engine.threads = 1;
	engine.settings = &cluster->settings;
	engine.clock = cluster->clock;
	engine.wake = wake_transport;
	engine.wake_context = node;
	must(ex_engine_create(&engine, &node->engine, &error), &error);
	struct cad_transport_options transport;
	identity(cluster, node->name, &transport);
	ex_engine_wire_limits(node->engine, 256, &transport.limits);
	transport.user = node->engine;
	transport.on_request = ex_engine_on_request;
	transport.on_connection = on_connection;
	must(cluster->transport(cluster->context, &transport, &node->transport, &error), &error);
	must(cad_transport_listen(node->transport, node->name, &error), &error);
	node->live = true;
	if (cluster->threaded && pthread_create(&node->thread, NULL, node_thread, node) != 0)
		abort();
}

static void *router_thread(void *argument)
{
	rt_engine_run(argument);
	return NULL;
}

static void create_router(struct te_cluster *cluster, uint32_t index)
{
	struct cad_error error;
	char name[16];

	snprintf(name, sizeof name, "router-%u", index);
	must(cluster->device->ops->queue_create(cluster->device, 1, &cluster->queues[index]), NULL);
	struct rt_engine_options options = {
		.model = cluster->model,
		.device = cluster->device,
		.queue = cluster->queues[index],
		.wire = CADRE_ROW_FIX16,
		.quanta = cluster->settings.quanta,
		.transport_create = cluster->transport,
		.transport_context = cluster->context,
		.step_tokens_max = 64,
		.kv_bytes = 8 << 20,
		.call_timeout_ms = 100,
		.hedge_max = 0.5,
		.on_event = on_event,
	};
	identity(cluster, name, &options.transport);
	must(rt_engine_create(&options, &cluster->routers[index], &error), &error);
	if (cluster->threaded &&
		pthread_create(&cluster->router_threads[index], NULL, router_thread, cluster->routers[index]) != 0)
		abort();
}

static void load(struct te_cluster *cluster, uint32_t layer, uint32_t expert, uint32_t node)
{
	struct ex_loaded loaded;
	struct cad_error error;
	must(ex_engine_load(cluster->nodes[node].engine, layer, expert, &loaded, &error), &error);
	cluster->owner[layer * cluster->spec->gate.experts + expert] = node;
}

void te_create(struct te_cluster *cluster, const char *model, uint32_t nodes, uint32_t routers, uint64_t seed,
	bool threaded, const struct cad_clock *clock,
	enum cad_status (*transport)(void *context, const struct cad_transport_options *options,
		struct cad_transport **transport, struct cad_error *error),
	void *context)
{
	struct cad_error error;
	*cluster = (struct te_cluster){
		.transport = transport,
		.context = context,
		.clock = clock,
		.threaded = threaded,
		.nodes_count = nodes,
		.routers_count = routers,
	};
	must(cad_model_open(model, &cluster->model, &error), &error);
	cluster->spec = cad_model_spec(cluster->model);
	cad_model_fingerprint(cluster->model, cluster->fingerprint);
	must(kn_device_open(&(struct kn_device_options){ 0 }, &cluster->device, &error), &error);
	struct kn_queue *queue;
	float quanta[CAD_LAYERS_MAX];
	must(cluster->device->ops->queue_create(cluster->device, 1, &queue), NULL);
	must(kn_quantum_table(queue, cluster->model, CAD_WEIGHTS_AS_IS, CADRE_ROW_FIX16, quanta, &error), &error);
	cluster->device->ops->queue_destroy(queue);
	must(cad_settings_init(&cluster->settings,
		     &(struct cad_settings){
			     .wire = CADRE_ROW_FIX16,
			     .layers = cluster->spec->layers_count,
			     .quanta = quanta,
		     },
		     &error),
		&error);
	cluster->owner = malloc(cluster->spec->layers_count * cluster->spec->gate.experts * sizeof *cluster->owner);
	for (uint32_t i = 0; i < nodes; i++)
		create_node(cluster, i);
	struct cad_random random = { seed };
	for (uint32_t layer = 0; layer < cluster->spec->layers_count; layer++)
		for (uint32_t e = 0; cluster->spec->layers[layer].moe && e < cluster->spec->gate.experts; e++)
			load(cluster, layer, e, (uint32_t)cad_random_below(&random, nodes));
	for (uint32_t i = 0; i < routers; i++)
		create_router(cluster, i);
	te_publish(cluster);
}

void te_publish(struct te_cluster *cluster)
{
	uint32_t experts = cluster->spec->gate.experts, layers[CAD_LAYERS_MAX], layers_count = 0;
	struct cad_map_node nodes[TE_NODES_MAX];
	struct cad_map_replica *replicas = malloc(cluster->spec->layers_count * experts * 2 * sizeof *replicas);
	size_t count = 0;

	for (uint32_t i = 0; i < cluster->nodes_count; i++)
		nodes[i] = (struct cad_map_node){
			.id = cluster->nodes[i].name,
			.exchange_address = cluster->nodes[i].name,
			.http_address = "",
			.live = cluster->nodes[i].live,
		};
	for (uint32_t layer = 0; layer < cluster->spec->layers_count; layer++) {
		if (!cluster->spec->layers[layer].moe)
			continue;
		layers[layers_count++] = layer;
		for (uint32_t e = 0; e < experts; e++) {
			for (uint32_t copy = 0; copy <= cluster->copies; copy++) {
				uint32_t node = (cluster->owner[layer * experts + e] + copy) % cluster->nodes_count;
				if (cluster->nodes[node].live)
					replicas[count++] = (struct cad_map_replica){
						.layer = layer,
						.expert = e,
						.node = node,
					};
			}
		}
	}

	struct cad_map_source source = {
		.epoch = ++cluster->epoch,
		.nodes = nodes,
		.nodes_count = cluster->nodes_count,
		.layers = layers,
		.layers_count = layers_count,
		.experts = experts,
		.replicas = replicas,
		.replicas_count = count,
	};
	struct cad_map *map;
	struct cad_error error;
	must(cad_map_create(&source, &map, &error), &error);
	for (uint32_t i = 0; i < cluster->routers_count; i++)
		rt_engine_map(cluster->routers[i], map);
	cad_map_release(map);
	free(replicas);
}

void te_copy(struct te_cluster *cluster)
{
	uint32_t experts = cluster->spec->gate.experts;
	struct ex_loaded loaded;
	struct cad_error error;

	for (uint32_t layer = 0; layer < cluster->spec->layers_count; layer++)
		for (uint32_t e = 0; cluster->spec->layers[layer].moe && e < experts; e++) {
			uint32_t node = (cluster->owner[layer * experts + e] + 1) % cluster->nodes_count;
			must(ex_engine_load(cluster->nodes[node].engine, layer, e, &loaded, &error), &error);
		}
	cluster->copies = true;
	te_publish(cluster);
}

void te_reassign(struct te_cluster *cluster, uint32_t dead)
{
	uint32_t experts = cluster->spec->gate.experts, next = 0;
	cluster->nodes[dead].live = false;
	for (uint32_t layer = 0; layer < cluster->spec->layers_count; layer++)
		for (uint32_t e = 0; cluster->spec->layers[layer].moe && e < experts; e++) {
			if (cluster->owner[layer * experts + e] != dead)
				continue;
			while (!cluster->nodes[next % cluster->nodes_count].live)
				next++;
			load(cluster, layer, e, next++ % cluster->nodes_count);
		}
	te_publish(cluster);
}

void te_kill(struct te_cluster *cluster, uint32_t index)
{
	struct te_node *node = &cluster->nodes[index];
	atomic_store(&node->stop, true);
	cad_transport_wake(node->transport);
	pthread_join(node->thread, NULL);
	struct cad_transport *transport = node->transport;
	node->transport = NULL;
	cad_transport_destroy(transport);
}

void te_destroy(struct te_cluster *cluster)
{
	for (uint32_t i = 0; i < cluster->routers_count; i++) {
		rt_engine_stop(cluster->routers[i]);
		if (cluster->threaded)
			pthread_join(cluster->router_threads[i], NULL);
		rt_engine_destroy(cluster->routers[i]);
		cluster->device->ops->queue_destroy(cluster->queues[i]);
	}

	for (uint32_t i = 0; i < cluster->nodes_count; i++) {
		if (cluster->threaded && cluster->nodes[i].transport)
			te_kill(cluster, i);
		else if (cluster->nodes[i].transport)
			cad_transport_destroy(cluster->nodes[i].transport);
		ex_engine_destroy(cluster->nodes[i].engine);
	}

	free(cluster->owner);
	cad_settings_fini(&cluster->settings);
	cluster->device->ops->destroy(cluster->device);
	cad_model_close(cluster->model);
}

void te_requests(struct te_request *requests, uint32_t count, uint32_t vocab, uint64_t seed)
{
	struct cad_random random = { seed };
	for (uint32_t i = 0; i < count; i++) {
		memset(&requests[i], 0, sizeof requests[i]);
		requests[i].prompt_count = 1 + (uint32_t)cad_random_below(&random, 40);
		requests[i].max_tokens = 2 + (uint32_t)cad_random_below(&random, 8);
		for (uint32_t t = 0; t < requests[i].prompt_count; t++)
			requests[i].prompt[t] = (int32_t)cad_random_below(&random, vocab);
	}
}

static void submit(struct rt_engine *engine, struct te_request *request)
{
	struct cad_error error;
	struct rt_request wanted = {
		.prompt = request->prompt,
		.prompt_count = request->prompt_count,
		.max_tokens = request->max_tokens,
		.ignore_eos = true,
		.deadline_ns = request->deadline_ns,
		.context = request,
	};
	atomic_store(&request->ended, false);
	atomic_store(&request->tokens, 0);
	must(rt_engine_submit(engine, &wanted, &request->id, &error), &error);
}

void te_submit(struct te_cluster *cluster, uint32_t router, struct te_request *request)
{
	submit(cluster->routers[router], request);
}

bool te_all_ended(const struct te_request *requests, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		if (!atomic_load(&requests[i].ended))
			return false;
	return true;
}

void te_expected(const char *model, struct te_request *requests, uint32_t count)
{
	struct em_options options = {
		.model = model,
		.threads = 1,
		.router = { .kv_bytes = 8 << 20, .on_event = on_event },
	};
	struct em_embedded *embedded;
	struct cad_error error;

	must(em_create(&options, &embedded, &error), &error);

	for (uint32_t i = 0; i < count; i++) {
		submit(em_router(embedded), &requests[i]);
		while (!atomic_load(&requests[i].ended))
			rt_engine_turn(em_router(embedded), 0);
		must(requests[i].status, NULL);
	}

	em_destroy(embedded);
}
