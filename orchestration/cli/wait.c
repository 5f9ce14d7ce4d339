/* SPDX-License-Identifier: Apache-2.0 */
/* `cadrectl wait`: return when one process, or a whole cluster, is ready. */
#include "cadre/v1/placement.pb-c.h"
#include "common/base/address.h"
#include "common/base/clock.h"
#include "common/base/limits.h"
#include "common/base/plural.h"
#include "common/process/process.h"
#include "orchestration/cli/ask.h"
#include "orchestration/cli/cluster_file.h"
#include "orchestration/cli/command.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define GET_STATUS "/cadre.v1.Placement/GetStatus"

enum { POLL_MS = 100, SAY_MS = 1000, SAY_AGAIN_MS = 10000, ANSWER_MS = 4000 };

struct options {
	struct cl_process process;
	const char *placement;
	bool generate;
	uint32_t experts, routers;
	uint64_t timeout_ns;
	enum cl_format format;
};

static const struct cad_option table[] = {
	CL_PROCESS_OPTIONS(struct options, process),
	CL_TOKEN_OPTION(struct options, process.access),
	CAD_OPTION_STRING(struct options, placement, "placement", "",
		"HOST:PORT of the placement service, whose whole cluster is waited for; asked where neither --http nor --grpc is given, or less strongly; empty: the one in run/cluster.json"),
	CAD_OPTION_U32(
		struct options, experts, "experts", "1", 0, CAD_NODES_MAX, "cluster: expert nodes that must live"),
	CAD_OPTION_U32(struct options, routers, "routers", "1", 0, CAD_ROUTERS_MAX,
		"cluster: routers that must be ready; their HTTP ports are asked, which must be reachable from here; 0: none is asked"),
	CAD_OPTION_BOOL(struct options, generate, "generate", "false",
		"until routers generate a token (/readyz?generate), not only until they are ready; HTTP alone"),
	CAD_OPTION_DURATION(struct options, timeout_ns, "timeout", "60s", 0, 24 * 3600 * CAD_NS_PER_S,
		"how long to wait; 0s: as long as it takes"),
	CL_FORMAT_OPTION(struct options, format, "output format"),
};

static enum cad_status check(const void *values, struct cad_error *error)
{
	const struct options *options = values;
	if (options->generate && options->process.grpc[0] && !options->process.http[0])
		return cad_error_set(error, CAD_ERR_INVALID, "--generate asks over HTTP: give --http HOST:PORT");
	enum cad_status status = cad_address_option("placement", options->placement, error);
	return status == CAD_OK ? cl_process_check(&options->process, error) : status;
}

static enum cad_status check_files(const void *values, struct cad_error *error)
{
	return cl_access_check_files(&((const struct options *)values)->process.access, error);
}

static const char *const rivals[] = { CL_PROCESS_RIVALS, "placement", NULL };

static const struct cad_options_spec spec = {
	.program = "cadrectl wait",
	.summary =
		"Waits until one process is ready (--http, --grpc), or a whole cluster: every expert is on a live node, and routers are ready. Says on stderr what it waits for. Exits with 0 when it is ready, with 3 when the time is up.",
	.table = table,
	.count = sizeof table / sizeof *table,
	.rivals = rivals,
	.check = check,
	.check_files = check_files,
};

static enum cl_question question_of(const struct options *options)
{
	return options->generate ? CL_GENERATES : CL_IS_READY;
}

/* ---- the cluster ---- */

struct router {
	char id[CAD_PROCESS_NAME_BYTES], http[CAD_ADDRESS_BYTES];
};

/* What is kept of the placement service's answer. */
struct view {
	const char *placement;
	uint32_t unplaced, experts_all, experts_live, routers_count;
	struct router routers[CAD_ROUTERS_MAX]; /* live ones */
};

static bool on_status(void *context, const ProtobufCMessage *message)
{
	struct view *view = context;
	const Cadre__V1__ClusterStatus *status = (const Cadre__V1__ClusterStatus *)message;

	view->unplaced = status->experts_unplaced;
	view->experts_all = status->moe_layers * status->experts_per_layer;
	view->experts_live = view->routers_count = 0;
	for (size_t i = 0; i < status->n_nodes; i++) {
		const Cadre__V1__NodeStatus *node = status->nodes[i];
		if (node->state != CADRE__V1__NODE_STATE__NODE_STATE_LIVE)
			continue;
		if (node->role == CADRE__V1__ROLE__ROLE_EXPERT) {
			view->experts_live++;
		} else if (view->routers_count < CAD_ROUTERS_MAX) {
			struct router *router = &view->routers[view->routers_count++];
			snprintf(router->id, sizeof router->id, "%s", node->id);
			snprintf(router->http, sizeof router->http, "%s", node->http_address);
		}
	}
	return true;
}

/* Enough of them are ready; else why not, by the word of the last that is not. */
static enum cad_status ask_routers(
	const struct options *options, const struct view *view, uint32_t timeout_ms, struct cad_error *error)
{
	enum cad_status status = CAD_OK;
	uint32_t ready = 0;

	if (view->routers_count < options->routers)
		return cad_error_set(error, CAD_AGAIN, "%u of %u %s joined", view->routers_count, options->routers,
			cad_plural(options->routers, "router has", "routers have"));

	for (uint32_t i = 0; i < view->routers_count && ready < options->routers; i++) {
		const struct router *router = &view->routers[i];
		const struct cl_process process = { .http = router->http };
		struct cad_error one;
		enum cad_status asked = cl_process_ask(&process, NULL, question_of(options), timeout_ms, &one);
		if (asked == CAD_OK)
			ready++;
		else
			status = cad_error_set(
				error, asked, "%s (%s) is not ready: %.300s", router->id, router->http, one.text);
	}
	return ready >= options->routers ? CAD_OK : status;
}

static enum cad_status ask_cluster(const struct options *options, struct cl_client *client, struct view *view,
	uint32_t timeout_ms, struct cad_error *error)
{
	Cadre__V1__GetStatusRequest request = CADRE__V1__GET_STATUS_REQUEST__INIT;
	enum cad_status status = cl_client_call(client, GET_STATUS, &request.base,
		&cadre__v1__cluster_status__descriptor, timeout_ms, on_status, view, NULL, error);

	if (status != CAD_OK)
		return cad_error_prefix(error, "placement service %s", view->placement);
	if (view->experts_live < options->experts)
		return cad_error_set(error, CAD_AGAIN, "%u of %u expert %s joined", view->experts_live,
			options->experts, cad_plural(options->experts, "node has", "nodes have"));
	if (view->unplaced > 0)
		return cad_error_set(
			error, CAD_AGAIN, "%u of %u experts are on no node", view->unplaced, view->experts_all);
	return ask_routers(options, view, timeout_ms, error);
}

/* ---- waiting ---- */

struct wait {
	const struct options *options;
	struct cl_client client;
	struct view *view; /* NULL: one process */
	uint64_t begun_ns, said_ns;
	char said[CAD_ERROR_TEXT_BYTES];
};

static uint64_t now_ns(void) { return cad_clock_now_ns(&cad_clock_system); }

/* What has changed, at most once in a second; what has not, now and then. */
static void say(struct wait *wait, const char *why)
{
	uint64_t now = now_ns(), since_ms = wait->said_ns ? (now - wait->said_ns) / CAD_NS_PER_MS : UINT64_MAX;

	if (since_ms < SAY_MS || (since_ms < SAY_AGAIN_MS && strcmp(wait->said, why) == 0))
		return;
	cl_line(stderr, "cadrectl wait: waiting: %s", why);
	snprintf(wait->said, sizeof wait->said, "%s", why);
	wait->said_ns = now;
}

static void rest(struct wait *wait, uint64_t left_ns)
{
	uint64_t ms = left_ns / CAD_NS_PER_MS < POLL_MS ? left_ns / CAD_NS_PER_MS : POLL_MS;
	struct timespec time = { .tv_nsec = (long)(ms * CAD_NS_PER_MS) };

	if (wait->client.rpc)
		cad_rpc_blocking_pause(wait->client.rpc, ms); /* it goes on connecting */
	else
		(void)nanosleep(&time, NULL);
}

static uint64_t left_ns_of(const struct wait *wait)
{
	uint64_t spent_ns = now_ns() - wait->begun_ns, all_ns = wait->options->timeout_ns;
	return all_ns == 0 ? UINT64_MAX : all_ns > spent_ns ? all_ns - spent_ns : 0;
}

/* Near the end there is little time for an answer: that none came then says less than what was said
 * before. */
static enum cad_status look(struct wait *wait, uint64_t left_ns, struct cad_error *error)
{
	uint64_t left_ms = left_ns / CAD_NS_PER_MS + 1;
	bool cut = left_ms < ANSWER_MS;
	uint32_t answer_ms = cut ? (uint32_t)left_ms : ANSWER_MS;
	struct cad_error now;
	enum cad_status status = wait->view
		? ask_cluster(wait->options, &wait->client, wait->view, answer_ms, &now)
		: cl_process_ask(&wait->options->process, &wait->client, question_of(wait->options), answer_ms, &now);

	if (status != CAD_OK && (!cut || status != CAD_ERR_DEADLINE || !error->text[0]))
		*error = now;
	return status;
}

/* CAD_OK; CAD_AGAIN: the time is up, and the sentence says what is missing; CAD_ERR_CANCELLED. */
static enum cad_status wait_for_it(struct wait *wait, struct cad_error *error)
{
	error->text[0] = 0;
	for (;;) {
		uint64_t left_ns = left_ns_of(wait); /* one look even when it is 0 */
		enum cad_status status = look(wait, left_ns, error);

		if (cl_interrupted())
			return CAD_ERR_CANCELLED;
		if (status == CAD_OK)
			return CAD_OK;
		if (left_ns == 0)
			return CAD_AGAIN;
		say(wait, error->text);
		rest(wait, left_ns_of(wait));
	}
}

static int finish(const struct wait *wait, enum cad_status status, const struct cad_error *error)
{
	uint64_t ms = (now_ns() - wait->begun_ns) / CAD_NS_PER_MS;
	bool ready = status == CAD_OK;

	if (status != CAD_OK && status != CAD_AGAIN)
		return cl_fail("wait", error);
	if (wait->options->format == CL_FORMAT_JSON) {
		json_t *json = json_pack("{s:b, s:I, s:s}", "ready", ready, "waited_ms", (json_int_t)ms, "why",
			ready ? "" : error->text);
		cl_print_json(json);
	} else if (ready) {
		printf("ready after %.1f s\n", (double)ms * 1e-3);
	}
	if (!ready) {
		struct cad_error said = *error;
		cad_options_tell_sources(&said);
		cl_line(stderr, "cadrectl wait: not ready after %.1f s: %s", (double)ms * 1e-3, said.text);
	}
	return ready ? CL_EXIT_OK : CL_EXIT_NOT_READY;
}

static int run(const struct options *options, const char *placement)
{
	struct wait wait = { .options = options, .begun_ns = now_ns() };
	struct cl_process process = options->process;
	struct cad_error error;

	if (placement) {
		process.http = "";
		process.grpc = placement;
		wait.view = malloc(sizeof *wait.view);
		if (!wait.view) {
			cad_error_set(&error, CAD_ERR_MEMORY, "out of memory");
			return cl_fail("wait", &error);
		}
		wait.view->placement = placement;
	}

	enum cad_status status = cl_process_open(&process, &wait.client, &error);
	if (status == CAD_OK) {
		status = wait_for_it(&wait, &error);
		cl_client_close(&wait.client);
	}
	free(wait.view);
	return finish(&wait, status, &error);
}

int cl_wait(int argc, char **argv)
{
	struct options options;
	struct cad_options *parsed;
	struct cad_error error;
	struct cl_cluster cluster = { .root = NULL };
	int exit_code;

	if (!cad_options_main(&spec, argc, argv, &options, &parsed, &exit_code))
		return exit_code;

	const char *placement = options.placement[0] ? options.placement : NULL;
	enum cad_status status = cl_process_resolve(&options.process, &error);
	if (cl_process_name(&options.process)[0])
		placement = NULL;
	else if (status == CAD_OK && !placement)
		status = cl_cluster_placement(&cluster, &placement, &options.process.access, &error);

	if (status == CAD_ERR_NOT_FOUND) {
		cl_line(stderr, "cadrectl wait: %s; or --http HOST:PORT of one process", error.text);
		exit_code = CL_EXIT_USAGE;
	} else {
		exit_code = status == CAD_OK ? run(&options, placement) : cl_fail("wait", &error);
	}

	cl_cluster_fini(&cluster);
	cad_options_destroy(parsed);
	return exit_code;
}
