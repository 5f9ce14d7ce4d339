/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cadre-expert: holds the experts that the placement service gives it and answers the calls of
 * routers.
 *
 *   exchange thread   polls the transport (UCX): calls to the engine, answers back
 *   compute thread    runs steps (engine.c), on a queue of --threads threads
 *   load threads      pack experts from the checkpoint (store/loader.c)
 *   main thread       the placement service's stream (control.c), signals
 *   HTTP thread       /metrics, /healthz, /readyz
 */
#include "common/process/admin.h"
#include "common/base/log.h"
#include "common/cluster/member.h"
#include "common/process/options.h"
#include "common/process/process.h"
#include "common/rpc/reactor.h"
#include "common/transport/ucx.h"
#include "expert-svc/control.h"
#include "expert-svc/engine.h"
#include "kernels/source.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

struct settings {
	const char *placement, *model, *listen, *advertise, *http, *id, *cluster, *secret_file, *ucx_devices,
		*ucx_transports;
	uint64_t memory, drain_ns, spin_ns;
	uint32_t memory_nodes, threads, load_threads, requests_max, rows_max, step_rows, step_pairs, connections_max,
		credit_calls;
	uint64_t credit_bytes;
	enum kn_isa isa;
	enum cad_log_level log_level;
	enum cad_log_format log_format;
};

static const struct cad_option table[] = {
	CAD_OPTION_STRING(struct settings, placement, "placement", NULL, "address of the placement service, host:port"),
	CAD_OPTION_STRING(
		struct settings, model, "model", NULL, "directory of the checkpoint; the same files on every node"),
	CAD_OPTION_STRING(struct settings, listen, "listen", "127.0.0.1:0",
		"where the token exchange listens, host:port; port 0 chooses one"),
	CAD_OPTION_STRING(struct settings, advertise, "advertise", "",
		"exchange address that is announced to routers; empty: the one of --listen"),
	CAD_OPTION_STRING(struct settings, http, "http", "127.0.0.1:0",
		"where to serve /metrics, /healthz and /readyz, host:port"),
	CAD_OPTION_STRING(struct settings, id, "id", "",
		"name of this node, stable over restarts; empty: host name and process id"),
	CAD_OPTION_STRING(
		struct settings, cluster, "cluster", "", "refuse to join a cluster with another name; empty: any"),
	CAD_OPTION_STRING(struct settings, secret_file, "secret-file", "",
		"file with the cluster secret, which routers must know too; empty: none"),
	CAD_OPTION_BYTES(struct settings, memory, "memory", "0", 0, UINT64_MAX,
		"memory for expert weights; 0: four fifths of what is free at start"),
	CAD_OPTION_U32(struct settings, memory_nodes, "memory-nodes", "1", 1, CAD_NODES_MAX,
		"expert nodes on this machine, which share those four fifths"),
	CAD_OPTION_U32(struct settings, threads, "threads", "0", 0, KN_THREADS_MAX,
		"compute threads; 0: one for each core of this process"),
	CAD_OPTION_U32(
		struct settings, load_threads, "load-threads", "1", 1, 16, "threads that load experts during serving"),
	CAD_OPTION_ENUM(struct settings, isa, "isa", "auto", kn_isa_choices,
		"instruction set of the kernels; all give the same bits"),
	CAD_OPTION_U32(struct settings, requests_max, "requests-max", "256", 1, 65536,
		"calls held at once; further ones are refused"),
	CAD_OPTION_U32(struct settings, rows_max, "rows-max", "2048", 1, CADRE_ROWS_MAX, "maximum rows of one call"),
	CAD_OPTION_U32(struct settings, step_rows, "step-rows", "2048", 1, CADRE_ROWS_MAX,
		"rows computed together; sizes the activations"),
	CAD_OPTION_U32(struct settings, step_pairs, "step-pairs", "8192", 1, CADRE_PAIRS_MAX,
		"pairs of row and expert computed together; sizes the activations"),
	CAD_OPTION_U32(struct settings, connections_max, "connections-max", "64", 1, CAD_EXPERT_CONNECTIONS_MAX,
		"routers connected at once"),
	CAD_OPTION_U32(struct settings, credit_calls, "credit-calls", "16", 1, 4096,
		"unanswered calls allowed to each router"),
	CAD_OPTION_BYTES(struct settings, credit_bytes, "credit-bytes", "64M", 65536, UINT64_MAX,
		"bytes of unanswered calls allowed to each router"),
	CAD_OPTION_STRING(struct settings, ucx_devices, "ucx-devices", "",
		"network devices of the exchange, as in UCX_NET_DEVICES; empty: that variable, else loopback"),
	CAD_OPTION_STRING(struct settings, ucx_transports, "ucx-transports", "",
		"transports of the exchange, as in UCX_TLS; empty: that variable, else tcp"),
	CAD_OPTION_DURATION(struct settings, spin_ns, "ucx-spin", "0", 0, CAD_NS_PER_S,
		"how long the exchange polls before it sleeps; only for machines with cores to spare"),
	CAD_OPTION_DURATION(struct settings, drain_ns, "drain", "10s", 0, 3600 * CAD_NS_PER_S,
		"how long to keep answering after SIGTERM or Ctrl-C"),
	CAD_OPTION_ENUM(
		struct settings, log_level, "log-level", "info", cad_log_level_choices, "lowest level that is logged"),
	CAD_OPTION_ENUM(
		struct settings, log_format, "log-format", "logfmt", cad_log_format_choices, "format of log lines"),
};

static const struct cad_option_alias aliases[] = { { "drain-timeout", "drain", NULL } };

static enum cad_status check(const void *values, struct cad_error *error)
{
	const struct settings *s = values;
	if (*s->id && !cad_process_name_is_legal(s->id))
		return cad_error_set(error, CAD_ERR_INVALID,
			"--id is '%.80s'; a node's name has at most %d letters, digits and . _ : -", s->id,
			CAD_MAP_ID_BYTES - 1);
	if (!cad_address_is_complete(s->placement))
		return cad_error_set(
			error, CAD_ERR_INVALID, "--placement '%s' is not an address: give HOST:PORT", s->placement);
	if (*s->advertise && !cad_address_is_complete(s->advertise))
		return cad_error_set(
			error, CAD_ERR_INVALID, "--advertise '%s' is not an address: give HOST:PORT", s->advertise);
	if (!*s->advertise && strncmp(s->listen, "0.0.0.0:", 8) == 0)
		return cad_error_set(error, CAD_ERR_INVALID,
			"routers cannot connect to --listen %s: listen on the address of one interface, or give --advertise HOST:PORT",
			s->listen);

	return CAD_OK;
}

static const struct cad_options_spec spec = {
	.program = "cadre-expert",
	.summary = "Holds experts of a model for a Cadre cluster and answers the calls of its routers.",
	.table = table,
	.count = sizeof table / sizeof table[0],
	.aliases = aliases,
	.aliases_count = sizeof aliases / sizeof aliases[0],
	.check = check,
};

struct node {
	struct settings settings;
	char id[CADRE_NAME_BYTES];
	char kernels_fingerprint[33];
	char *secret;
	struct cad_model *model;
	struct kn_device *device;
	struct kn_device_info device_info;
	struct cad_cluster_facts facts;
	struct cad_metrics *metrics;
	struct ex_engine *engine;
	struct cad_transport *transport;
	struct cad_admin *admin;
	uv_loop_t loop;
	struct cad_rpc_reactor *reactor;
	_Atomic(struct ex_control *) control; /* the HTTP thread is there before it */
	struct cad_signals *signals;
	uv_timer_t drain_timer;
	/* the exchange thread */
	pthread_t exchange;
	_Atomic bool exchange_stop;
	_Atomic uint64_t exchange_beat_ns;
	_Atomic uint64_t exchange_stats[sizeof(struct cad_transport_stats) / sizeof(uint64_t)];
	/* the way out */
	_Atomic bool draining;
	bool left;
	uint64_t drain_until_ns, quiet_since_ns, calls_seen;
};

enum { DRAIN_TICK_MS = 20, EXCHANGE_TURN_MS = 200, EXCHANGE_STUCK_S = 10 };
static const uint64_t QUIET_NS = 500 * CAD_NS_PER_MS; /* no call for this long: routers have gone elsewhere */

static uint64_t now_ns(void) { return cad_clock_now_ns(&cad_clock_system); }

/* ---- the exchange thread ---- */

static void on_connection(struct cad_transport *transport, struct cad_connection *connection,
	enum cad_connection_state state, enum cad_status status, const char *text)
{
	struct node *node = cad_transport_user(transport);
	if (state == CAD_CONNECTION_READY) {
		cad_log_info("exchange", "router connected", CAD_S("router", cad_connection_peer(connection)));
		return;
	}
	ex_engine_connection_lost(node->engine, connection);
	cad_log_write(status == CAD_ERR_PROTOCOL || status == CAD_ERR_REFUSED ? CAD_LOG_WARN : CAD_LOG_INFO, "exchange",
		(const struct cad_log_field[]){ CAD_S("msg", "connection closed"),
			CAD_S("router", cad_connection_peer(connection)), CAD_S("why", text) },
		3);
}

static void on_request(struct cad_transport *transport, struct cad_request *request)
{
	struct node *node = cad_transport_user(transport);
	ex_engine_request(node->engine, request);
}

static void wake_exchange(void *context) { cad_transport_wake(((struct node *)context)->transport); }

/* The HTTP thread reads copies: a transport belongs to its own thread. */
static void copy_stats(struct node *node)
{
	uint64_t values[sizeof(struct cad_transport_stats) / sizeof(uint64_t)];
	memcpy(values, cad_transport_stats(node->transport), sizeof values);
	for (size_t i = 0; i < sizeof values / sizeof values[0]; i++)
		atomic_store_explicit(&node->exchange_stats[i], values[i], memory_order_relaxed);
	atomic_store_explicit(&node->exchange_beat_ns, now_ns(), memory_order_relaxed);
}

static void *exchange_thread(void *argument)
{
	struct node *node = argument;
	/* To the end: nothing that was accepted stays unanswered. */
	while (!atomic_load(&node->exchange_stop) || !ex_engine_idle(node->engine)) {
		cad_transport_poll(node->transport, now_ns() + EXCHANGE_TURN_MS * CAD_NS_PER_MS);
		ex_engine_deliver(node->engine);
		copy_stats(node);
	}
	return NULL;
}

/* ---- HTTP ---- */

static bool is_ready(void *context, char *text, size_t bytes)
{
	struct node *node = context;
	struct ex_control *control = atomic_load(&node->control);

	if (atomic_load(&node->draining))
		snprintf(text, bytes, "draining");
	else if (!control || !ex_control_ready(control))
		snprintf(text, bytes,
			control && ex_control_joined(control) ? "loading experts: %u left" : "not joined yet",
			control ? ex_control_waiting(control) : 0);
	else
		return true;
	return false;
}

static bool is_healthy(void *context, char *text, size_t bytes)
{
	struct node *node = context;
	uint64_t beat_ns = atomic_load(&node->exchange_beat_ns), silent_ns = now_ns() - beat_ns;
	if (beat_ns == 0 || silent_ns < EXCHANGE_STUCK_S * CAD_NS_PER_S) /* 0: it has not begun */
		return true;
	snprintf(text, bytes, "the exchange thread has done nothing for %llu s",
		(unsigned long long)(silent_ns / CAD_NS_PER_S));
	return false;
}

static double read_u64(void *context)
{
	return (double)atomic_load_explicit((_Atomic uint64_t *)context, memory_order_relaxed);
}

static void register_exchange_metrics(struct node *node)
{
	static const struct {
		size_t offset;
		const char *name, *help;
	} counters[] = {
		{ offsetof(struct cad_transport_stats, bytes_sent), "cadre_exchange_sent_bytes_total",
			"bytes of messages sent" },
		{ offsetof(struct cad_transport_stats, bytes_received), "cadre_exchange_received_bytes_total",
			"bytes of messages received" },
		{ offsetof(struct cad_transport_stats, answers), "cadre_exchange_answers_total", "answers sent" },
		{ offsetof(struct cad_transport_stats, connections_opened), "cadre_exchange_connections_opened_total",
			"connections that were opened" },
		{ offsetof(struct cad_transport_stats, connections_lost), "cadre_exchange_connections_lost_total",
			"connections that were lost" },
		{ offsetof(struct cad_transport_stats, protocol_errors), "cadre_exchange_protocol_errors_total",
			"connections closed because a peer broke the protocol" },
		{ offsetof(struct cad_transport_stats, rebuilds), "cadre_exchange_rebuilds_total",
			"times the exchange was rebuilt after it went deaf" },
	};
	for (size_t i = 0; i < sizeof counters / sizeof counters[0]; i++)
		cad_metrics_counter_read(node->metrics, counters[i].name, counters[i].help, NULL, 0, read_u64,
			(void *)&node->exchange_stats[counters[i].offset / sizeof(uint64_t)]);
}

/* ---- the way out ---- */

static void after_leaving(void *context) { ((struct node *)context)->left = true; }

/* Stops when the placement service is left and routers have gone elsewhere, or when time is up. */
static void on_drain_tick(uv_timer_t *timer)
{
	struct node *node = timer->data;
	uint64_t now = now_ns(), calls = ex_engine_stats(node->engine).calls;

	if (calls != node->calls_seen || !ex_engine_idle(node->engine)) {
		node->calls_seen = calls;
		node->quiet_since_ns = now;
	}

	if (!node->left || (now < node->drain_until_ns && now - node->quiet_since_ns < QUIET_NS))
		return;
	uv_close((uv_handle_t *)timer, NULL);
	cad_signals_close(node->signals);
	cad_rpc_reactor_stop(node->reactor);
}

static void on_signal(void *context, int number)
{
	struct node *node = context;
	if (atomic_exchange(&node->draining, true)) {
		cad_log_warn("expert", "second signal: stopping now");
		node->drain_until_ns = 0;
		return;
	}

	cad_log_info("expert", "draining", CAD_S("signal", strsignal(number)),
		CAD_F("seconds", (double)node->settings.drain_ns * 1e-9));
	node->drain_until_ns = now_ns() + node->settings.drain_ns;
	node->quiet_since_ns = now_ns();
	uv_timer_start(&node->drain_timer, on_drain_tick, DRAIN_TICK_MS, DRAIN_TICK_MS);
	ex_control_leave(node->control, after_leaving, node);
}

/* ---- beginning ---- */

static enum cad_status open_model(struct node *node, struct cad_error *error)
{
	enum cad_status status = cad_model_open(node->settings.model, &node->model, error);
	if (status != CAD_OK)
		return status;

	status = kn_device_open(&(struct kn_device_options){ .isa = node->settings.isa }, &node->device, error);
	if (status != CAD_OK)
		return status;
	node->device->ops->describe(node->device, &node->device_info);
	struct kn_queue *queue;
	status = node->device->ops->queue_create(node->device, 1, &queue);
	if (status != CAD_OK)
		return cad_error_set(error, status, "cannot make a compute queue");
	status = kn_fingerprint(queue, node->kernels_fingerprint, error);
	node->device->ops->queue_destroy(queue);

	return status;
}

/* How much of the device this node may fill with weights. */
static enum cad_status size_memory(struct node *node, struct cad_error *error)
{
	(void)error;
	struct settings *s = &node->settings;
	uint64_t free_bytes = node->device_info.memory_bytes;
	if (s->memory == 0)
		s->memory = free_bytes / 5 * 4 / s->memory_nodes;
	else if (s->memory > free_bytes)
		cad_log_warn("expert",
			"--memory exceeds the free memory: this node may be killed before it has used that much",
			CAD_U("memory_bytes", s->memory), CAD_U("free_bytes", free_bytes));
	return CAD_OK;
}

static bool interrupted(void *context)
{
	(void)context;
	return cad_signals_pending();
}

/* Learns the cluster's settings, and that this is the same model. */
static enum cad_status ask_cluster(struct node *node, struct cad_error *error)
{
	char fingerprint[33];
	enum cad_status status = cad_cluster_ask(node->settings.placement, interrupted, NULL, &node->facts, error);

	if (status != CAD_OK)
		return status;

	cad_model_fingerprint(node->model, fingerprint);
	if (*node->settings.cluster && strcmp(node->settings.cluster, node->facts.cluster) != 0)
		return cad_error_set(error, CAD_ERR_REFUSED,
			"the placement service at %s belongs to cluster '%s', not to '%s' as --cluster says",
			node->settings.placement, node->facts.cluster, node->settings.cluster);
	if (strcmp(fingerprint, node->facts.model_fingerprint) != 0)
		return cad_error_set(error, CAD_ERR_REFUSED,
			"the checkpoint in '%s' has fingerprint %s, but the cluster serves %s: give --model the same files everywhere",
			node->settings.model, fingerprint, node->facts.model_fingerprint);

	return CAD_OK;
}

static enum cad_status create_engine(struct node *node, struct cad_error *error)
{
	struct ex_engine_options options;
	uint64_t expert_bytes = kn_expert_bytes(node->device, node->model, node->facts.settings.weights);

	if (node->settings.memory < expert_bytes)
		return cad_error_set(error, CAD_ERR_EXHAUSTED,
			"there are %llu bytes for expert weights, but one expert of this model takes %llu: give this node more with --memory",
			(unsigned long long)node->settings.memory, (unsigned long long)expert_bytes);
	ex_engine_options_default(&options);
	options.mode = EX_ENGINE_THREADED;
	options.model = node->model;
	options.device = node->device;
	options.threads = node->settings.threads;
	options.settings = &node->facts.settings;
	options.memory_bytes = node->settings.memory;
	options.requests_max = node->settings.requests_max;
	options.step_rows_max = node->settings.step_rows;
	options.step_pairs_max = node->settings.step_pairs;
	options.metrics = node->metrics;
	options.wake = wake_exchange;
	options.wake_context = node;

	return ex_engine_create(&options, &node->engine, error);
}

static const char *or_null(const char *text) { return *text ? text : NULL; }

static enum cad_status create_exchange(struct node *node, struct cad_error *error)
{
	const struct settings *s = &node->settings;
	struct cad_transport_options options;
	char fingerprint[33];

	if (*s->secret_file) {
		enum cad_status status = cad_secret_read(s->secret_file, "cluster secret", &node->secret, error);
		if (status != CAD_OK)
			return status;
	}

	cad_transport_options_default(&options);
	cad_model_fingerprint(node->model, fingerprint);
	cad_identity_fill(&options.identity, node->facts.cluster, node->id, fingerprint, &node->facts.settings);
	ex_engine_wire_limits(node->engine, s->rows_max, &options.limits);
	options.secret = node->secret;
	options.connections_max = s->connections_max;
	options.calls_max = s->requests_max;
	options.credit_calls = s->credit_calls;

	/* one full call always goes */
	options.credit_bytes =
		s->credit_bytes > options.limits.payload_bytes_max ? s->credit_bytes : options.limits.payload_bytes_max;
	options.user = node;
	options.on_connection = on_connection;
	options.on_request = on_request;
	struct cad_ucx_options ucx = {
		.devices = or_null(s->ucx_devices),
		.transports = or_null(s->ucx_transports),
		.spin_us = (uint32_t)(s->spin_ns / CAD_NS_PER_US),
	};
	enum cad_status status = cad_transport_ucx_create(&options, &ucx, &node->transport, error);
	return status == CAD_OK ? cad_transport_listen(node->transport, s->listen, error) : status;
}

static enum cad_status create_http(struct node *node, struct cad_error *error)
{
	struct cad_admin_options options = {
		.address = node->settings.http,
		.metrics = node->metrics,
		.ready = is_ready,
		.healthy = is_healthy,
		.context = node,
	};
	register_exchange_metrics(node);
	return cad_admin_create(&options, &node->admin, error);
}

static enum cad_status create_control(struct node *node, struct cad_error *error)
{
	int failed = uv_loop_init(&node->loop);
	if (failed)
		return cad_error_set(error, CAD_ERR_INTERNAL, "cannot make an event loop: %s", uv_strerror(failed));

	uv_timer_init(&node->loop, &node->drain_timer);
	node->drain_timer.data = node;
	enum cad_status status = cad_rpc_reactor_create(&node->loop, &node->reactor, error);
	if (status == CAD_OK)
		status = cad_signals_create(&node->loop, on_signal, node, &node->signals, error);
	if (status != CAD_OK)
		return status;
	struct ex_control_options options = {
		.reactor = node->reactor,
		.placement = node->settings.placement,
		.settings = &node->facts.settings,
		.engine = node->engine,
		.load_threads = node->settings.load_threads,
		.memory_bytes = node->settings.memory,
		.id = node->id,
		.exchange_address =
			*node->settings.advertise ? node->settings.advertise : cad_transport_address(node->transport),
		.http_address = cad_admin_address(node->admin),
		.kernels_fingerprint = node->kernels_fingerprint,
		.isa = node->device_info.isa,
		.threads = node->settings.threads,
	};
	struct ex_control *control;
	status = ex_control_create(&options, &control, error);
	if (status == CAD_OK)
		atomic_store(&node->control, control);

	return status;
}

static enum cad_status node_create(struct node *node, struct cad_error *error)
{
	struct settings *s = &node->settings;
	if (s->threads == 0)
		s->threads = kn_threads_default();
	if (*s->id)
		snprintf(node->id, sizeof node->id, "%s", s->id);
	else
		cad_process_name(node->id, sizeof node->id);
	enum cad_status status = cad_metrics_create(&node->metrics);
	if (status != CAD_OK)
		return cad_error_set(error, status, "no memory for metrics");

	/* HTTP before the wait for the placement service: a node that waits is alive. */
	enum cad_status (*const stages[])(struct node * node, struct cad_error * error) = { open_model, size_memory,
		create_http, ask_cluster, create_engine, create_exchange, create_control };
	for (size_t i = 0; i < sizeof stages / sizeof stages[0]; i++) {
		status = stages[i](node, error);
		if (status != CAD_OK)
			return status;
	}

	status = cad_metrics_status(node->metrics);
	if (status != CAD_OK)
		return cad_error_set(error, status, "no memory for metrics");
	if (pthread_create(&node->exchange, NULL, exchange_thread, node) != 0)
		return cad_error_set(error, CAD_ERR_EXHAUSTED, "cannot start a thread for the exchange: see ulimit -u");

	return CAD_OK;
}

/* After the reactor has run. */
static void node_destroy(struct node *node)
{
	cad_admin_destroy(node->admin);
	atomic_store(&node->exchange_stop, true);
	cad_transport_wake(node->transport);
	pthread_join(node->exchange, NULL);
	cad_rpc_reactor_destroy(node->reactor);
	ex_control_destroy(atomic_load(&node->control));
	cad_transport_destroy(node->transport);
	ex_engine_destroy(node->engine);
	CAD_ASSERT(uv_loop_close(&node->loop) == 0);
	cad_metrics_destroy(node->metrics);
	cad_settings_fini(&node->facts.settings);
	if (node->secret)
		explicit_bzero(node->secret, strlen(node->secret));
	free(node->secret);
	node->device->ops->destroy(node->device);
	cad_model_close(node->model);
}

int main(int argc, char **argv)
{
	static struct node node;
	struct cad_options *options;
	struct cad_error error;
	int exit_code;

	cad_transport_ucx_environment(argv);
	if (!cad_options_main(&spec, argc, argv, &node.settings, &options, &exit_code))
		return exit_code;
	cad_log_setup(node.settings.log_level, node.settings.log_format);

	if (cad_process_init(&error) != CAD_OK || node_create(&node, &error) != CAD_OK) {
		/* The process ends here, and with it everything that was made so far. */
		bool asked_to = error.status == CAD_ERR_CANCELLED;
		cad_log_write(asked_to ? CAD_LOG_INFO : CAD_LOG_ERROR, "expert",
			&(struct cad_log_field)CAD_S("msg", error.text), 1);
		_exit(asked_to ? 0 : 1);
	}

	cad_log_info("expert", "serving", CAD_S("id", node.id),
		CAD_S("exchange", cad_transport_address(node.transport)), CAD_S("http", cad_admin_address(node.admin)),
		CAD_S("isa", node.device_info.isa), CAD_U("threads", node.settings.threads),
		CAD_U("memory_bytes", node.settings.memory), CAD_S("version", cad_version));
	cad_rpc_reactor_run(node.reactor);
	node_destroy(&node);
	cad_options_destroy(options);
	cad_log_info("expert", "stopped");

	return 0;
}
