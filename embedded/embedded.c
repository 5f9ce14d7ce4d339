/* SPDX-License-Identifier: Apache-2.0 */
#include "common/cluster/settings_message.h"
#include "embedded/embedded.h"

#include "common/base/bytes.h"
#include "common/transport/local.h"
#include "expert-svc/engine.h"
#include "expert-svc/speed.h"
#include "kernels/packed.h"
#include "kernels/quantum.h"

#include <stdio.h>
#include <stdlib.h>

struct em_node {
	char name[16];
	struct ex_engine *engine;
	struct cad_transport *transport;
};

struct em_embedded {
	struct cad_model *model;
	struct kn_device *device;
	struct kn_queue *queue;
	/* of the experts; those above, or their own */
	struct kn_device *experts_device;
	struct kn_queue *experts_queue;
	struct cad_settings settings;
	char model_fingerprint[33];
	struct cad_local_hub *hub;
	struct em_node nodes[EM_NODES_MAX];
	uint32_t nodes_count;
	uint32_t *owner; /* [layers][E]: node of each expert */
	struct rt_engine *router;
};

static void identity(const struct em_embedded *em, const char *name, struct cad_transport_options *transport)
{
	cad_transport_options_default(transport);
	cad_identity_fill(&transport->identity, "embedded", name, em->model_fingerprint, &em->settings);
}

/* The router's end, created by its engine; every node's end hangs on it. */
static enum cad_status create_router_transport(void *context, const struct cad_transport_options *options,
	struct cad_transport **transport, struct cad_error *error)
{
	struct em_embedded *em = context;
	enum cad_status status = cad_transport_local_create(options, em->hub, transport, error);
	for (uint32_t i = 0; status == CAD_OK && i < em->nodes_count; i++)
		cad_transport_local_attach(*transport, em->nodes[i].transport);
	return status;
}

static enum cad_status create_settings(
	struct em_embedded *em, const struct em_options *options, struct cad_error *error)
{
	struct cad_settings settings = options->settings;
	enum cad_status status = cad_settings_complete(&settings, error);

	if (status == CAD_OK) /* before anything is loaded */
		status = kn_packed_check_experts(em->model, cad_settings_expert_weights(&settings), error);
	if (status == CAD_OK)
		status = kn_packed_check_router(em->model, cad_settings_router_weights(&settings), error);
	if (status != CAD_OK)
		return status;

	settings.layers = cad_model_spec(em->model)->layers_count;
	settings.quanta = malloc(settings.layers * sizeof *settings.quanta);
	if (!settings.quanta)
		return cad_error_set(error, CAD_ERR_MEMORY, "no memory for the quantum table");

	status = kn_quantum_table(
		em->queue, em->model, cad_settings_expert_weights(&settings), settings.wire, settings.quanta, error);
	if (status == CAD_OK)
		status = cad_settings_init(&em->settings, &settings, error);
	free(settings.quanta);

	return status;
}

static enum cad_status create_node(
	struct em_embedded *em, struct em_node *node, uint32_t index, bool telemetry, struct cad_error *error)
{
	snprintf(node->name, sizeof node->name, "local-%u", index);
	struct ex_engine_options engine;
	ex_engine_options_default(&engine);
	engine.mode = EX_ENGINE_INLINE;
	engine.model = em->model;
	engine.device = em->experts_device;
	engine.queue = em->experts_queue;
	engine.settings = &em->settings;
	engine.telemetry = telemetry;
	enum cad_status status = ex_engine_create(&engine, &node->engine, error);
	if (status != CAD_OK)
		return status;
	struct cad_transport_options transport;
	identity(em, node->name, &transport);
	ex_engine_wire_limits(node->engine, CADRE_ROWS_MAX, &transport.limits);
	transport.user = node->engine;
	transport.on_request = ex_engine_on_request;
	status = cad_transport_local_create(&transport, em->hub, &node->transport, error);

	return status == CAD_OK ? cad_transport_listen(node->transport, node->name, error) : status;
}

/* Contiguous blocks, or a shuffle: every node gets its share of every layer. */
static void assign_owners(struct em_embedded *em, uint64_t seed)
{
	const struct cad_model_spec *spec = cad_model_spec(em->model);
	uint32_t experts = spec->gate.experts;
	struct cad_random random = { seed };
	for (uint32_t layer = 0; layer < spec->layers_count; layer++) {
		uint32_t *owner = em->owner + (size_t)layer * experts;
		for (uint32_t e = 0; e < experts; e++)
			owner[e] = (uint32_t)((uint64_t)e * em->nodes_count / experts);
		for (uint32_t e = experts; seed != 0 && e > 1; e--) {
			uint32_t other = (uint32_t)cad_random_below(&random, e), swapped = owner[e - 1];
			owner[e - 1] = owner[other];
			owner[other] = swapped;
		}
	}
}

static struct ex_engine *owner_of(void *context, uint32_t layer, uint32_t expert)
{
	const struct em_embedded *em = context;
	return em->nodes[em->owner[(size_t)layer * cad_model_spec(em->model)->gate.experts + expert]].engine;
}

/* What does not fit is known before anything is read. */
static enum cad_status reserve_experts(const struct em_embedded *em, struct cad_error *error)
{
	const struct cad_model_spec *spec = cad_model_spec(em->model);
	struct kn_device *device = em->experts_device;
	size_t experts = (size_t)cad_model_spec_moe_layers(spec) * spec->gate.experts;
	uint64_t bytes = experts > 0 ? ex_engine_expert_bytes(em->nodes[0].engine) : 0;
	char all[CAD_BYTES_TEXT_BYTES], has[EX_MEMORY_TEXT_BYTES];

	if (experts == 0 || device->ops->expert_reserve(device, bytes, experts) == CAD_OK)
		return CAD_OK;
	return cad_error_set(error, CAD_ERR_EXHAUSTED, "the %zu experts of this model take %s, but %s", experts,
		cad_bytes_text(bytes * experts, all), ex_memory_free_text(device, has));
}

static enum cad_status load_experts(struct em_embedded *em, struct cad_error *error)
{
	const struct ex_load_all all = {
		.model = em->model,
		.workers = em->device->workers,
		.engine = owner_of,
		.engine_context = em,
	};
	return ex_engine_load_all(&all, error);
}

/* The map that a placement service would publish: every node live, every expert where it was
 * loaded. */
static enum cad_status give_map(struct em_embedded *em, struct cad_error *error)
{
	const struct cad_model_spec *spec = cad_model_spec(em->model);
	uint32_t experts = spec->gate.experts, layers_count = 0;
	struct cad_map_node nodes[EM_NODES_MAX];
	uint32_t layers[CAD_LAYERS_MAX];
	struct cad_map_replica *replicas = malloc(((size_t)spec->layers_count * experts + 1) * sizeof *replicas);

	if (!replicas)
		return cad_error_set(error, CAD_ERR_MEMORY, "no memory for the map");

	size_t replicas_count = 0;
	for (uint32_t i = 0; i < em->nodes_count; i++)
		nodes[i] = (struct cad_map_node){
			.id = em->nodes[i].name,
			.exchange_address = cad_transport_address(em->nodes[i].transport),
			.http_address = "",
			.live = true,
		};
	for (uint32_t layer = 0; layer < spec->layers_count; layer++) {
		if (!spec->layers[layer].moe)
			continue;
		layers[layers_count++] = layer;
		for (uint32_t e = 0; e < experts; e++)
			replicas[replicas_count++] = (struct cad_map_replica){
				.layer = layer,
				.expert = e,
				.node = em->owner[(size_t)layer * experts + e],
			};
	}

	struct cad_map_source source = {
		.epoch = 1,
		.nodes = nodes,
		.nodes_count = em->nodes_count,
		.layers = layers,
		.layers_count = layers_count,
		.experts = experts,
		.replicas = replicas,
		.replicas_count = replicas_count,
	};
	struct cad_map *map;
	enum cad_status status = cad_map_create(&source, &map, error);
	if (status == CAD_OK) {
		rt_engine_map(em->router, map);
		cad_map_release(map);
	}

	free(replicas);
	return status;
}

static enum cad_status open_devices(struct em_embedded *em, const struct em_options *options, struct cad_error *error)
{
	const struct kn_device_options cpu = { .isa = options->isa };
	unsigned threads = options->threads > 0 ? options->threads : kn_threads_default();
	enum cad_status status = kn_device_open(&cpu, &em->device, error);
	if (status != CAD_OK)
		return status;
	em->experts_device = em->device; /* as long as there is no other: the way out goes by both */
	if (em->device->ops->queue_create(em->device, threads, &em->queue) != CAD_OK)
		return cad_error_set(error, CAD_ERR_MEMORY, "cannot start %u compute threads", threads);

	em->experts_queue = em->queue;
	if (options->experts.kind == KN_DEVICE_CPU)
		return CAD_OK;
	em->experts_queue = NULL;
	status = kn_device_open(&options->experts, &em->experts_device, error);
	if (status != CAD_OK)
		em->experts_device = em->device;
	else if (em->experts_device->ops->queue_create(em->experts_device, 1, &em->experts_queue) != CAD_OK)
		status = cad_error_set(error, CAD_ERR_MEMORY, "no memory on the experts' device for a queue");
	return status;
}

/* Who helps with packing; NULL: nobody any more. */
static void set_workers(struct em_embedded *em, struct cad_workers *workers)
{
	em->device->workers = workers;
	em->experts_device->workers = workers;
}

static enum cad_status create(struct em_embedded *em, const struct em_options *options, struct cad_error *error)
{
	enum cad_status status = cad_model_open(options->model, &em->model, error);
	if (status == CAD_OK)
		status = open_devices(em, options, error);
	if (status != CAD_OK)
		return status;
	const struct cad_model_spec *spec = cad_model_spec(em->model);
	cad_model_fingerprint(em->model, em->model_fingerprint);
	struct cad_workers *workers = NULL;
	status = cad_workers_create(kn_threads_default(), &workers, error);
	set_workers(em, workers);
	if (status == CAD_OK)
		status = create_settings(em, options, error);
	em->nodes_count = spec->gate.experts == 0 ? 0
		: options->nodes == 0             ? 1
		: options->nodes < EM_NODES_MAX   ? options->nodes
						  : EM_NODES_MAX;
	em->owner = malloc(((size_t)spec->layers_count * spec->gate.experts + 1) * sizeof *em->owner);
	if (status == CAD_OK && (!em->owner || cad_local_hub_create(&em->hub) != CAD_OK))
		status = cad_error_set(error, CAD_ERR_MEMORY, "no memory for the exchange");
	for (uint32_t i = 0; status == CAD_OK && i < em->nodes_count; i++)
		status = create_node(em, &em->nodes[i], i, options->router.telemetry, error);
	if (status != CAD_OK)
		return status;
	assign_owners(em, options->placement_seed);
	status = reserve_experts(em, error);
	if (status == CAD_OK)
		status = load_experts(em, error);
	if (status != CAD_OK)
		return status;
	struct rt_engine_options router = options->router;
	router.model = em->model;
	router.device = em->device;
	router.queue = em->queue;
	router.weights = cad_settings_router_weights(&em->settings);
	router.kv = em->settings.kv;
	router.wire = em->settings.wire;
	router.quanta = em->settings.quanta;

	/* experts compute in the thread that would wait for them: there is nothing to overlap */
	if (router.micro_batches == 0)
		router.micro_batches = 1;
	identity(em, "router", &router.transport);
	router.transport_create = create_router_transport;
	router.transport_context = em;
	status = rt_engine_create(&router, &em->router, error);

	return status == CAD_OK && em->nodes_count > 0 ? give_map(em, error) : status;
}

enum cad_status em_create(const struct em_options *options, struct em_embedded **embedded, struct cad_error *error)
{
	struct em_embedded *em = calloc(1, sizeof *em);
	if (!em)
		return cad_error_set(error, CAD_ERR_MEMORY, "no memory for the embedded engine");

	enum cad_status status = create(em, options, error);
	if (em->experts_device) {
		cad_workers_destroy(em->device->workers);
		set_workers(em, NULL);
	}
	if (status != CAD_OK) {
		em_blame(em, error);
		em_destroy(em);
		return status;
	}
	*embedded = em;
	return CAD_OK;
}

void em_destroy(struct em_embedded *em)
{
	if (!em)
		return;

	rt_engine_destroy(em->router);

	for (uint32_t i = 0; i < em->nodes_count; i++) {
		if (em->nodes[i].transport)
			cad_transport_destroy(em->nodes[i].transport);
		ex_engine_destroy(em->nodes[i].engine);
	}

	if (em->hub)
		cad_local_hub_destroy(em->hub);
	free(em->owner);
	cad_settings_fini(&em->settings);
	if (em->experts_device != em->device) {
		if (em->experts_queue)
			em->experts_queue->ops->queue_destroy(em->experts_queue);
		em->experts_device->ops->destroy(em->experts_device);
	}
	if (em->queue)
		em->device->ops->queue_destroy(em->queue);
	if (em->device)
		em->device->ops->destroy(em->device);
	if (em->model)
		cad_model_close(em->model);
	free(em);
}

struct rt_engine *em_router(const struct em_embedded *embedded) { return embedded->router; }
const struct cad_model *em_model(const struct em_embedded *embedded) { return embedded->model; }
const struct cad_settings *em_settings(const struct em_embedded *embedded) { return &embedded->settings; }
void em_blame(const struct em_embedded *em, struct cad_error *error)
{
	if (em->experts_device)
		kn_device_blame(em->experts_device, error);
}
const char *em_isa_name(const struct em_embedded *embedded)
{
	struct kn_device_info info;
	embedded->device->ops->describe(embedded->device, &info);
	return info.isa;
}

enum cad_status em_speed_measure(struct kn_device *device, const struct kn_expert_source *like,
	enum cad_weights weights, unsigned threads, struct em_speed *speed)
{
	struct ex_speed measured;
	enum cad_status status = ex_speed_measure_like(device, like, weights, threads, &measured);
	if (status == CAD_OK)
		*speed = (struct em_speed){ measured.read_bytes_per_second, measured.multiply_adds_per_second,
			measured.step_s };
	return status;
}
