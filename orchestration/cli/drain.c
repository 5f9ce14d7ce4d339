/* SPDX-License-Identifier: Apache-2.0 */
/* `cadrectl drain` and `cadrectl undrain`: an expert node is emptied before it is stopped. */
#include "cadre/v1/placement.pb-c.h"
#include "common/base/bytes.h"
#include "common/base/clock.h"
#include "common/base/plural.h"
#include "orchestration/cli/duty.h"
#include "orchestration/cli/operate.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

enum { ASK_EVERY_MS = 300 };

struct options {
	struct cl_change change;
	bool wait;
};

static const struct cad_option drain_table[] = {
	CAD_OPTION_BOOL(struct options, wait, "wait", "false", "until the node is safe to stop"),
	CL_CHANGE_OPTIONS(struct options, change),
};

static const struct cad_option undrain_table[] = {
	CL_CHANGE_OPTIONS(struct options, change),
};

static const struct cad_options_spec drain_spec = {
	.program = "cadrectl drain",
	.summary =
		"Moves all experts from an expert node to the others, so that it can be stopped without anybody noticing. It is given none, over restarts too, until 'cadrectl undrain'.",
	.positional = "NODE",
	.positional_max = 1,
	.table = drain_table,
	.count = sizeof drain_table / sizeof *drain_table,
	.check = cl_change_check,
	.check_files = cl_placement_check_files,
};

static const struct cad_options_spec undrain_spec = {
	.program = "cadrectl undrain",
	.summary = "Gives experts to a drained node again.",
	.positional = "NODE",
	.positional_max = 1,
	.table = undrain_table,
	.count = sizeof undrain_table / sizeof *undrain_table,
	.check = cl_change_check,
	.check_files = cl_placement_check_files,
};

/* The last answer. */
struct answer {
	uint32_t moves, experts;
	uint64_t bytes;
	Cadre__V1__Duty duty;
};

static bool on_drained(void *context, const ProtobufCMessage *message)
{
	struct answer *answer = context;
	const Cadre__V1__Drained *drained = (const Cadre__V1__Drained *)message;

	answer->moves = drained->moves;
	answer->bytes = drained->bytes;
	answer->experts = drained->experts;
	answer->duty = drained->duty;
	return true;
}

static enum cad_status ask(struct cl_session *session, Cadre__V1__DrainRequest *request, struct answer *answer,
	enum cad_rpc_code *code, struct cad_error *error)
{
	return cl_session_call(session, CL_PLACEMENT_METHOD("Drain"), &request->base, &cadre__v1__drained__descriptor,
		on_drained, answer, code, error);
}

/* Asks again and again, which changes nothing, until the node is safe to stop. A placement service
 * that restarts is waited for. */
static enum cad_status wait_for(
	struct cl_session *session, Cadre__V1__DrainRequest *request, struct answer *answer, struct cad_error *error)
{
	uint64_t heard_ns = cad_clock_now_ns(&cad_clock_system);
	struct answer now = *answer;

	request->change->dry_run = true;
	for (uint32_t said = UINT32_MAX; now.duty == CADRE__V1__DUTY__DUTY_DRAINING && !cl_interrupted();
		cad_rpc_blocking_pause(session->client.rpc, ASK_EVERY_MS)) {
		enum cad_rpc_code code = CAD_RPC_OK;
		enum cad_status status = ask(session, request, &now, &code, error);
		if (status == CAD_OK)
			heard_ns = cad_clock_now_ns(&cad_clock_system);
		else if (!cl_session_is_away(code, heard_ns))
			return status;
		if (status == CAD_OK && now.experts != said)
			fprintf(stderr, "%s: %u %s left\n", request->node, now.experts,
				cad_plural(now.experts, "expert is", "experts are"));
		said = now.experts;
	}

	answer->duty = now.duty;
	answer->experts = now.experts;
	if (now.duty == CADRE__V1__DUTY__DUTY_SAFE_TO_STOP)
		return CAD_OK;
	return cad_error_set(error, CAD_ERR_REFUSED, "node '%.63s' is no longer drained: somebody else has undone it",
		request->node);
}

/* Moves are made while the command waits, or after it has ended. */
static void print(const struct options *options, const char *node, const struct answer *answer)
{
	const char *duty = cl_duty_name(answer->duty), *moves = cad_plural(answer->moves, "move", "moves"),
		   *experts = cad_plural(answer->experts, "expert", "experts");
	char bytes[CAD_BYTES_TEXT_BYTES];

	cad_bytes_text(answer->bytes, bytes);
	if (options->change.placement.format == CL_FORMAT_JSON)
		cl_print_json(json_pack("{s:s, s:s, s:I, s:I, s:I, s:b}", "node", node, "state", duty, "moves",
			(json_int_t)answer->moves, "bytes", (json_int_t)answer->bytes, "experts",
			(json_int_t)answer->experts, "dry_run", options->change.dry_run));
	else if (options->change.dry_run)
		cl_line(stdout, "%s: %u %s, %s would be made; it is %s now", node, answer->moves, moves, bytes, duty);
	else if (answer->duty == CADRE__V1__DUTY__DUTY_SAFE_TO_STOP)
		cl_line(stdout, "%s: %s; %u %s, %s, and it has %u %s", node, duty, answer->moves, moves, bytes,
			answer->experts, experts);
	else
		cl_line(stdout, "%s: %s, and it has %u %s now; to come: %u %s, %s", node, duty, answer->experts,
			experts, answer->moves, moves, bytes);
}

static int run(int argc, char **argv, const struct cad_options_spec *spec, const char *command, bool undo)
{
	struct options options = { .wait = false };
	struct cad_options *parsed;
	struct cl_session session = { .address = NULL };
	struct answer answer = { 0 };
	struct cad_error error;
	Cadre__V1__DrainRequest request = CADRE__V1__DRAIN_REQUEST__INIT;
	Cadre__V1__Change change;
	int exit_code;

	if (!cad_options_main(spec, argc, argv, &options, &parsed, &exit_code))
		return exit_code;
	if (cad_options_positional_count(parsed) != 1) {
		fprintf(stderr, "cadrectl %s: give the id of an expert node; 'cadrectl status' has them\n", command);
		cad_options_destroy(parsed);
		return CL_EXIT_USAGE;
	}

	request.node = (char *)cad_options_positional(parsed, 0);
	request.undo = undo;
	request.change = cl_change_to_proto(&options.change, &change);
	enum cad_status status = cl_session_open(&session, &options.change.placement, &error);
	if (status == CAD_OK)
		status = ask(&session, &request, &answer, NULL, &error);
	if (status == CAD_OK && options.wait && !options.change.dry_run)
		status = wait_for(&session, &request, &answer, &error);
	if (status == CAD_OK)
		print(&options, request.node, &answer);
	exit_code = status == CAD_OK ? CL_EXIT_OK : cl_session_fail(&session, command, status, &error);

	cl_session_close(&session);
	cad_options_destroy(parsed);
	return exit_code;
}

int cl_drain(int argc, char **argv) { return run(argc, argv, &drain_spec, "drain", false); }

int cl_undrain(int argc, char **argv) { return run(argc, argv, &undrain_spec, "undrain", true); }
