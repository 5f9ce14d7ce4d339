/* SPDX-License-Identifier: Apache-2.0 */
/* cadre-placement: who is alive, which expert lives where. This file is wiring: options, then
 * everything from below to above, then the loop. */
#include "common/base/address.h"
#include "common/base/log.h"
#include "common/model/model.h"
#include "common/process/service.h"
#include "common/rpc/tls.h"
#include "orchestration/placement/service.h"
#include "orchestration/planner/trace/reservoir.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum routing_detail { ROUTING_TOKENS, ROUTING_AGGREGATE };

static const struct cad_choice routing_choices[] = { { "tokens", ROUTING_TOKENS }, { "aggregate", ROUTING_AGGREGATE },
	{ NULL, 0 } };

struct options {
	struct cad_service_options service; /* the first: cad_service_log */
	const char *state, *cluster;
	bool level_on_join, mixed_kernels;
	struct cad_settings settings;
	uint64_t lease_ns, grace_ns, rejoin_ns, settle_ns, free_grace_ns, move_stall_ns, shuffle, bytes_per_second;
	uint64_t routing_half_life_ns;
	enum routing_detail routing_detail;
	uint32_t experts_min, copies_min, loads_max, moves_max, routing_tokens;
};

static const struct cad_option table[] = {
	CAD_SERVICE_OPTIONS(struct options, service, ":7301", ""),
	CAD_SERVICE_GRPC_OPTIONS(struct options, service, ":7300"),
	CAD_SERVICE_TLS_OPTIONS(
		struct options, service, ", which is then called over TLS", "the certificates of those who call"),
	CAD_SERVICE_ACCESS_OPTIONS(struct options, service),
	CAD_SERVICE_SECRET_OPTION(struct options, service),
	CAD_OPTION_FILE(struct options, state, "state", "",
		"SQLite file that a restart continues from; empty: nothing is kept"),
	CAD_OPTION_STRING(struct options, cluster, "cluster", "cadre",
		"name of the cluster; processes of another cluster are refused"),
	CAD_SETTINGS_OPTIONS(struct options, settings, ""),
	CAD_OPTION_U32(struct options, experts_min, "experts-min", "1", 0, CAD_NODES_MAX,
		"expert nodes to wait for before the first placement"),
	CAD_OPTION_DURATION(struct options, settle_ns, "settle", "200ms", 0, 600 * CAD_NS_PER_S,
		"how long to wait after the last join, before the first placement and after all expert nodes were lost"),
	CAD_OPTION_U32(struct options, copies_min, "copies-min", "1", 1, CAD_NODES_MAX,
		"copies of every expert at least, on different nodes, where memory allows"),
	CAD_OPTION_BOOL(struct options, level_on_join, "level-on-join", "true",
		"move experts to nodes that join, until layers are even; what a plan has put elsewhere stays there"),
	CAD_OPTION_U64(struct options, shuffle, "shuffle", "0", 0, UINT64_MAX,
		"place experts in an order that this seed shuffles; 0: in runs"),
	CAD_OPTION_BOOL(struct options, mixed_kernels, "mixed-kernels", "false",
		"also place experts on nodes whose kernels give other bits"),
	CAD_OPTION_DURATION(struct options, lease_ns, "lease", "5s", 100 * CAD_NS_PER_MS, 3600 * CAD_NS_PER_S,
		"a process that has not reported for this long is dead"),
	CAD_OPTION_DURATION(struct options, grace_ns, "grace", "200ms", 0, 3600 * CAD_NS_PER_S,
		"a process whose stream broke is dead after this long"),
	CAD_OPTION_DURATION(struct options, rejoin_ns, "rejoin", "10s", 0, 3600 * CAD_NS_PER_S,
		"how long known processes have to come back after a restart, unless their hosts say that they are gone"),
	CAD_OPTION_DURATION(struct options, free_grace_ns, "free-grace", "1s", 0, 3600 * CAD_NS_PER_S,
		"how long a copy that left the map is kept after the last router stopped using it"),
	CAD_OPTION_U32(struct options, loads_max, "loads-max", "32", 1, 65536, "loads at once on one node"),
	CAD_OPTION_U32(struct options, moves_max, "moves-max", "4", 1, 65536,
		"moves at once in the cluster, of experts that stay in service"),
	CAD_OPTION_BYTES(struct options, bytes_per_second, "bytes-per-second", "200M", 0, UINT64_MAX,
		"of all moves together, unless the command that moves says otherwise; 0: as fast as it goes"),
	CAD_OPTION_DURATION(struct options, move_stall_ns, "move-stall", "30s", CAD_NS_PER_S, 3600 * CAD_NS_PER_S,
		"a load that has not come on for this long is given up"),
	CAD_OPTION_ENUM(struct options, routing_detail, "routing-detail", "tokens", routing_choices,
		"what the cluster knows of routing, which is as confidential as prompts; tokens: samples of whole tokens, for plans and recordings, and counts by expert; aggregate: sums over experts alone: no plans from live routing, no recordings, no return_routing, no metrics by expert"),
	CAD_OPTION_U32(struct options, routing_tokens, "routing-tokens", "20000", 0, PL_RESERVOIR_TOKENS_MAX,
		"tokens of live routing to keep for plans, which want 10000 or more; 2 bytes for each expert of each MoE layer that a token selects: 19 MB for 58 layers and 8 experts; 0: none"),
	CAD_OPTION_DURATION(struct options, routing_half_life_ns, "routing-half-life", "10m", 0,
		7 * 24 * 3600 * CAD_NS_PER_S, "time in which a token's chance to be among them halves; 0s: never"),
};

static const struct cad_option_alias aliases[] = { { "settle-ms", "settle", "ms" }, { "lease-ms", "lease", "ms" },
	{ "grace-ms", "grace", "ms" }, { "rejoin-ms", "rejoin", "ms" }, { "free-grace-ms", "free-grace", "ms" },
	{ "copies", "copies-min", NULL }, { "rebalance", "level-on-join", NULL } };

static enum cad_status check(const void *values, struct cad_error *error)
{
	const struct options *options = values;
	if (strlen(options->cluster) == 0 || strlen(options->cluster) >= CADRE_NAME_BYTES)
		return cad_error_set(error, CAD_ERR_INVALID, "--cluster '%.80s': 1 to %d bytes are needed",
			options->cluster, CADRE_NAME_BYTES - 1);
	struct cad_service_addresses ignored;
	enum cad_status status = cad_settings_check(&options->settings, error);
	return status == CAD_OK ? cad_service_check(&options->service, &ignored, error) : status;
}

/* The file, or where it is to be made, may be written. A directory that is not there may be made by whoever
 * starts the service, as systemd does; what is in the file is for the start. */
static enum cad_status check_state(const char *path, struct cad_error *error)
{
	const char *slash = strrchr(path, '/');
	char directory[4096] = ".";
	struct stat file;
	int problem = 0;

	if (slash)
		snprintf(directory, sizeof directory, "%.*s", slash == path ? 1 : (int)(slash - path), path);
	if (stat(path, &file) == 0 && S_ISDIR(file.st_mode))
		problem = EISDIR;
	else if (access(directory, W_OK | X_OK) != 0 || (access(path, F_OK) == 0 && access(path, R_OK | W_OK) != 0))
		problem = errno;

	return problem == 0 || problem == ENOENT
		? CAD_OK
		: cad_error_set(error, CAD_ERR_IO, "--state %s: %s", path, strerror(problem));
}

static enum cad_status check_files(const void *values, struct cad_error *error)
{
	const struct options *o = values;
	enum cad_status status = cad_service_check_files(&o->service, error);
	if (status == CAD_OK)
		status = cad_model_check(o->service.model, error);
	return status == CAD_OK && *o->state ? check_state(o->state, error) : status;
}

static const struct cad_options_spec spec = {
	.program = "cadre-placement",
	.summary = "Keeps track of a cluster: who is alive, and which expert lives where.",
	.table = table,
	.count = sizeof table / sizeof table[0],
	.aliases = aliases,
	.aliases_count = sizeof aliases / sizeof aliases[0],
	.check = check,
	.check_files = check_files,
	.log = cad_service_log,
};

struct program {
	struct options options;
	struct cad_service service;
	struct pl_state *state;
	struct pl_checkpoint *checkpoint;
	struct cad_rpc_reactor *reactor;
	struct pl_service *placement;
	_Atomic bool started; /* the service is there, for those who ask whether it is ready */
};

static bool ready(void *context, char *text, size_t bytes)
{
	struct program *p = context;
	if (atomic_load(&p->started))
		return pl_service_ready(p->placement, text, bytes);
	snprintf(text, bytes, "starting: the checkpoint has not been read yet");
	return false;
}

static void on_drained(void *context)
{
	struct program *p = context;
	cad_rpc_reactor_stop(p->reactor);
}

static void on_signal(void *context, int signal)
{
	struct program *p = context;
	if (!p->service.signals) /* a second one */
		return;
	cad_log_info("placement", "stopping", CAD_I("signal", signal));
	cad_service_unwatch(&p->service);
	pl_service_drain(p->placement, on_drained, p);
}

/* Not options, since nobody has needed another: for how long `cadrectl status` shows the dead, how
 * often maps come that only add copies, and when a node is asked again for an expert that it failed
 * to load. */
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
		.stall_ns = options->move_stall_ns,
		.bytes_per_second = options->bytes_per_second,
		.copies_min = options->copies_min,
		.seed = options->shuffle,
		.level_on_join = options->level_on_join,
		.mixed_kernels = options->mixed_kernels,
	};
}

static enum cad_status create_http(struct program *p, struct cad_error *error)
{
	const struct cad_service_health health = { .ready = ready, .context = p };
	return cad_service_http(&p->service, &health, error);
}

static enum cad_status open_state(struct program *p, struct cad_error *error)
{
	enum cad_status status = pl_state_open(p->options.state, &p->state, error);
	if (status == CAD_OK && pl_state_loss(p->state)[0])
		cad_log_error("placement", "starting without the state file; the nodes will say what they hold",
			CAD_S("error", pl_state_loss(p->state)));
	return status;
}

static enum cad_status open_checkpoint(struct program *p, struct cad_error *error)
{
	const struct pl_checkpoint_options options = {
		.directory = p->options.service.model,
		.cluster = p->options.cluster,
		.settings = p->options.settings,
		.state = p->state,
		.loop = &p->service.loop,
	};
	return pl_checkpoint_open(&options, &p->checkpoint, error);
}

static enum cad_status create_reactor(struct program *p, struct cad_error *error)
{
	return cad_rpc_reactor_create(&p->service.loop, &p->reactor, error);
}

static enum cad_status create_placement(struct program *p, struct cad_error *error)
{
	const struct pl_service_options options = {
		.reactor = p->reactor,
		.cluster = p->options.cluster,
		.secret = p->service.secret,
		.callers = {
			.bearers = &p->service.bearers,
			.certificates = p->options.service.tls_authority[0],
			.audit = &p->service.audit,
		},
		.checkpoint = p->checkpoint,
		.metrics = p->service.metrics,
		.control = control_options(&p->options),
		.routing_tokens = p->options.routing_tokens,
		.routing_aggregate = p->options.routing_detail == ROUTING_AGGREGATE,
		.routing_half_life_s = (double)p->options.routing_half_life_ns / (double)CAD_NS_PER_S,
		.state = p->state,
		.clock = &cad_clock_system,
	};
	enum cad_status status = pl_service_create(&options, &p->placement, error);
	if (status == CAD_OK)
		atomic_store(&p->started, true);
	return status;
}

static enum cad_status serve(struct program *p, struct cad_error *error)
{
	const struct cad_service_options *o = &p->options.service;
	char address[CAD_ADDRESS_BYTES];
	uint16_t port;
	enum cad_status status =
		pl_service_listen(p->placement, p->service.at.grpc, cad_service_tls(&p->service), &port, error);
	if (status != CAD_OK)
		return status;

	p->service.tls = &cad_rpc_service_tls;
	status = cad_service_watch(&p->service, on_signal, p, error);
	if (status != CAD_OK)
		return status;

	pl_service_start(p->placement);
	cad_address_taken(p->service.at.grpc, port, address, sizeof address);
	cad_log_info("placement", "serving", CAD_S("grpc", address), CAD_S("http", cad_admin_address(p->service.admin)),
		CAD_S("cluster", p->options.cluster), CAD_S("model", o->model));

	return CAD_OK;
}

/* In this order. The HTTP port comes before the checkpoint, which may take a while to read: a
 * service that reads is seen to be alive. */
static enum cad_status (*const startup[])(struct program *p, struct cad_error *error) = {
	create_http,
	open_state,
	open_checkpoint,
	create_reactor,
	create_placement,
	serve,
};

static enum cad_status start(struct program *p, struct cad_error *error)
{
	for (size_t i = 0; i < sizeof startup / sizeof startup[0]; i++) {
		enum cad_status status = startup[i](p, error);
		if (status != CAD_OK)
			return status;
	}
	return CAD_OK;
}

/* After the reactor has run. */
static void finish(struct program *p)
{
	cad_service_unhttp(&p->service);
	cad_rpc_reactor_destroy(p->reactor);
	pl_service_destroy(p->placement);
	pl_checkpoint_close(p->checkpoint);
	pl_state_close(p->state);
	cad_service_fini(&p->service);
}

int main(int argc, char **argv)
{
	static struct program program;
	struct program *p = &program;
	struct cad_options *parsed;
	struct cad_error error;
	int exit_code;

	if (!cad_options_main(&spec, argc, argv, &p->options, &parsed, &exit_code))
		return exit_code;
	if (cad_service_init(&p->service, "placement", &p->options.service, parsed, &error) != CAD_OK ||
		start(p, &error) != CAD_OK)
		/* The process ends here, and with it everything that was made so far. */
		_exit(cad_service_failed(&p->service, &error));

	cad_rpc_reactor_run(p->reactor);
	finish(p);
	cad_options_destroy(parsed);
	cad_log_info("placement", "stopped");

	return 0;
}
