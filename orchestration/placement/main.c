/* SPDX-License-Identifier: Apache-2.0 */
/* cadre-placement: who is alive, which expert lives where. This file is wiring: options, then
 * everything from below to above, then the loop. */
#include "common/base/address.h"
#include "common/process/admin.h"
#include "common/base/log.h"
#include "common/process/options.h"
#include "common/process/process.h"
#include "orchestration/placement/service.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <uv.h>

struct options {
	const char *model, *grpc, *http, *state, *cluster;
	bool plaintext_anywhere, rebalance, mixed_kernels;
	enum cadre_row_type wire;
	enum cad_weights weights;
	uint64_t lease_ns, grace_ns, rejoin_ns, settle_ns, free_grace_ns, shuffle;
	uint32_t experts_min, copies, loads_max, moves_max;
	enum cad_log_level log_level;
	enum cad_log_format log_format;
};

static const struct cad_option table[] = {
	CAD_OPTION_STRING(
		struct options, model, "model", NULL, "directory of the checkpoint; the same files as on every node"),
	CAD_OPTION_STRING(
		struct options, grpc, "grpc", "127.0.0.1:7300", "where to serve gRPC, HOST:PORT; port 0: any"),
	CAD_OPTION_BOOL(struct options, plaintext_anywhere, "grpc-plaintext-anywhere", "false",
		"allow gRPC without TLS on addresses other than loopback"),
	CAD_OPTION_STRING(struct options, http, "http", "127.0.0.1:7301",
		"where to serve /metrics, /healthz and /readyz; port 0: any"),
	CAD_OPTION_STRING(struct options, state, "state", "",
		"SQLite file that a restart continues from; empty: nothing is kept"),
	CAD_OPTION_STRING(struct options, cluster, "cluster", "cadre",
		"name of the cluster; processes of another cluster are refused"),
	CAD_OPTION_ENUM(struct options, wire, "wire", "fix16", cad_wire_choices, "how rows go to the experts"),
	CAD_OPTION_ENUM(struct options, weights, "weights", "f32", cad_weights_choices,
		"how weights are stored: f32 is lossless, bf16 rounds"),
	CAD_OPTION_U32(struct options, experts_min, "experts-min", "1", 0, CAD_NODES_MAX,
		"expert nodes to wait for before the first placement"),
	CAD_OPTION_DURATION(struct options, settle_ns, "settle", "200ms", 0, 600 * CAD_NS_PER_S,
		"how long to wait after the last join, before the first placement"),
	CAD_OPTION_U32(struct options, copies, "copies", "1", 1, CAD_NODES_MAX,
		"copies of every expert, on different nodes, where memory allows"),
	CAD_OPTION_BOOL(struct options, rebalance, "rebalance", "true",
		"move experts to nodes that join, until layers are even"),
	CAD_OPTION_U64(struct options, shuffle, "shuffle", "0", 0, UINT64_MAX,
		"place experts in an order that this seed shuffles; 0: in runs"),
	CAD_OPTION_BOOL(struct options, mixed_kernels, "mixed-kernels", "false",
		"also place experts on nodes whose kernels give other bits"),
	CAD_OPTION_DURATION(struct options, lease_ns, "lease", "5s", 100 * CAD_NS_PER_MS, 3600 * CAD_NS_PER_S,
		"a process that has not reported for this long is dead"),
	CAD_OPTION_DURATION(struct options, grace_ns, "grace", "200ms", 0, 3600 * CAD_NS_PER_S,
		"a process whose stream broke is dead after this long"),
	CAD_OPTION_DURATION(struct options, rejoin_ns, "rejoin", "10s", 0, 3600 * CAD_NS_PER_S,
		"how long known processes have to come back after a restart"),
	CAD_OPTION_DURATION(struct options, free_grace_ns, "free-grace", "1s", 0, 3600 * CAD_NS_PER_S,
		"how long a copy that left the map is kept after the last router stopped using it"),
	CAD_OPTION_U32(struct options, loads_max, "loads-max", "32", 1, 65536, "loads at once on one node"),
	CAD_OPTION_U32(struct options, moves_max, "moves-max", "4", 1, 65536,
		"moves at once in the cluster, of experts that stay in service"),
	CAD_OPTION_ENUM(
		struct options, log_level, "log-level", "info", cad_log_level_choices, "lowest level that is logged"),
	CAD_OPTION_ENUM(
		struct options, log_format, "log-format", "logfmt", cad_log_format_choices, "format of log lines"),
};

static const struct cad_option_alias aliases[] = { { "settle-ms", "settle", "ms" }, { "lease-ms", "lease", "ms" },
	{ "grace-ms", "grace", "ms" }, { "rejoin-ms", "rejoin", "ms" }, { "free-grace-ms", "free-grace", "ms" } };

static enum cad_status check(const void *values, struct cad_error *error)
{
	const struct options *options = values;
	if (!cad_address_is_complete(options->grpc))
		return cad_error_set(error, CAD_ERR_INVALID,
			"--grpc '%s' is not an address to listen on: give HOST:PORT, for example 127.0.0.1:7300",
			options->grpc);
	if (!cad_address_is_loopback(options->grpc) && !options->plaintext_anywhere)
		return cad_error_set(error, CAD_ERR_INVALID,
			"--grpc %s can be reached from other machines, without TLS: add --grpc-plaintext-anywhere if the network is yours alone, or use 127.0.0.1",
			options->grpc);
	if (strlen(options->cluster) == 0 || strlen(options->cluster) >= CADRE_NAME_BYTES)
		return cad_error_set(error, CAD_ERR_INVALID, "--cluster '%.80s': 1 to %d bytes are needed",
			options->cluster, CADRE_NAME_BYTES - 1);

	return CAD_OK;
}

static const struct cad_options_spec spec = {
	.program = "cadre-placement",
	.summary = "Keeps track of a cluster: who is alive, and which expert lives where.",
	.table = table,
	.count = sizeof table / sizeof table[0],
	.aliases = aliases,
	.aliases_count = sizeof aliases / sizeof aliases[0],
	.check = check,
};

struct program {
	struct options options;
	uv_loop_t loop;
	struct cad_metrics *metrics;
	struct pl_state *state;
	struct pl_checkpoint *checkpoint;
	struct cad_rpc_reactor *reactor;
	struct pl_service *service;
	struct cad_admin *admin;
	struct cad_signals *signals;
	_Atomic bool started; /* the service is there, for those who ask whether it is ready */
};

static bool ready(void *context, char *text, size_t bytes)
{
	struct program *program = context;
	if (atomic_load(&program->started))
		return pl_service_ready(program->service, text, bytes);
	snprintf(text, bytes, "starting: the checkpoint has not been read yet");
	return false;
}

static void on_drained(void *context)
{
	struct program *program = context;
	cad_rpc_reactor_stop(program->reactor);
}

static void on_signal(void *context, int signal)
{
	struct program *program = context;
	if (!program->signals)
		return;
	cad_log_info("placement", "stopping", CAD_I("signal", signal));
	cad_signals_close(program->signals);
	program->signals = NULL;
	pl_service_drain(program->service, on_drained, program);
}

/* Not options, since nobody has needed another: for how long `cadrectl status` shows the dead, how often maps
 * come that only add copies, and when a node is asked again for an expert that it failed to load. */
static const uint64_t FORGET_NS = 600 * CAD_NS_PER_S, PUBLISH_INTERVAL_NS = 50 * CAD_NS_PER_MS,
		      RETRY_NS = 10 * CAD_NS_PER_S;

static struct pl_control_options control_options(const struct options *options)
{
	return (struct pl_control_options){
		.lease_ns = options->lease_ns,
		.grace_ns = options->grace_ns,
		.rejoin_ns = options->rejoin_ns,
		.settle_ns = options->settle_ns,
		.forget_ns = FORGET_NS,
		.publish_interval_ns = PUBLISH_INTERVAL_NS,
		.free_grace_ns = options->free_grace_ns,
		.retry_ns = RETRY_NS,
		.loads_max = options->loads_max,
		.moves_max = options->moves_max,
		.experts_min = options->experts_min,
		.copies = options->copies,
		.seed = options->shuffle,
		.rebalance = options->rebalance,
		.mixed_kernels = options->mixed_kernels,
	};
}

static enum cad_status serve(struct program *program, struct cad_error *error)
{
	const struct options *options = &program->options;
	char address[CAD_ADDRESS_BYTES];
	uint16_t port;
	enum cad_status status = cad_rpc_reactor_create(&program->loop, &program->reactor, error);

	if (status != CAD_OK)
		return status;

	const struct pl_service_options service = {
		.reactor = program->reactor,
		.cluster = options->cluster,
		.checkpoint = program->checkpoint,
		.metrics = program->metrics,
		.control = control_options(options),
		.state = program->state,
		.clock = &cad_clock_system,
	};
	status = pl_service_create(&service, &program->service, error);
	if (status != CAD_OK) {
		cad_rpc_reactor_stop(program->reactor);
		goto run_reactor;
	}

	atomic_store(&program->started, true);
	status = pl_service_listen(program->service, options->grpc, &port, error);
	if (status == CAD_OK)
		status = cad_signals_create(&program->loop, on_signal, program, &program->signals, error);
	if (status == CAD_OK) {
		pl_service_start(program->service);
		cad_address_taken(options->grpc, port, address, sizeof address);
		cad_log_info("placement", "serving", CAD_S("grpc", address),
			CAD_S("http", cad_admin_address(program->admin)), CAD_S("cluster", options->cluster),
			CAD_S("model", options->model));
	} else {
		pl_service_drain(program->service, on_drained, program);
	}

run_reactor:
	cad_rpc_reactor_run(program->reactor);
	cad_admin_destroy(program->admin); /* nothing calls the service any longer */
	program->admin = NULL;
	cad_signals_close(program->signals);
	cad_rpc_reactor_destroy(program->reactor);
	pl_service_destroy(program->service);

	return status;
}

static enum cad_status start(struct program *program, struct cad_error *error)
{
	const struct options *options = &program->options;
	enum cad_status status = cad_metrics_create(&program->metrics);

	if (status != CAD_OK)
		return cad_error_set(error, status, "out of memory for metrics");

	/* HTTP before the checkpoint, which may take a while to read: a service that reads is
	 * alive. */
	const struct cad_admin_options admin = {
		.address = options->http,
		.metrics = program->metrics,
		.ready = ready,
		.context = program,
	};
	status = cad_admin_create(&admin, &program->admin, error);
	if (status != CAD_OK)
		goto destroy_metrics;
	status = pl_state_open(options->state, &program->state, error);
	if (status != CAD_OK)
		goto destroy_admin;
	const struct pl_checkpoint_options checkpoint = {
		.directory = options->model,
		.cluster = options->cluster,
		.wire = options->wire,
		.weights = options->weights,
		.state = program->state,
		.loop = &program->loop,
	};
	status = pl_checkpoint_open(&checkpoint, &program->checkpoint, error);
	if (status != CAD_OK)
		goto close_state;
	status = serve(program, error);
	pl_checkpoint_close(program->checkpoint);

close_state:
	pl_state_close(program->state);
destroy_admin:
	cad_admin_destroy(program->admin);
destroy_metrics:
	cad_metrics_destroy(program->metrics);

	return status;
}

int main(int argc, char **argv)
{
	struct program program = { 0 };
	struct cad_options *parsed;
	struct cad_error error;
	int exit_code;

	if (!cad_options_main(&spec, argc, argv, &program.options, &parsed, &exit_code))
		return exit_code;

	cad_log_setup(program.options.log_level, program.options.log_format);
	enum cad_status status = cad_process_init(&error);
	if (status == CAD_OK && uv_loop_init(&program.loop) != 0)
		status = cad_error_set(&error, CAD_ERR_IO, "no event loop could be made");
	if (status == CAD_OK) {
		status = start(&program, &error);
		uv_run(&program.loop, UV_RUN_DEFAULT);
		uv_loop_close(&program.loop);
	}

	if (status != CAD_OK)
		fprintf(stderr, "cadre-placement: %s\n", error.text);
	cad_options_destroy(parsed);
	return status == CAD_OK ? 0 : 1;
}
