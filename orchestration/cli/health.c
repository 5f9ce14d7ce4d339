/* SPDX-License-Identifier: Apache-2.0 */
/* `cadrectl health`: ask one process how it is, where there is neither a shell nor curl. */
#include "common/base/clock.h"
#include "orchestration/cli/ask.h"
#include "orchestration/cli/command.h"

#include <jansson.h>
#include <stdio.h>

struct options {
	struct cl_process process;
	bool ready, generate;
	uint64_t timeout_ns;
	enum cl_format format;
};

static const struct cad_option table[] = {
	CL_PROCESS_OPTIONS(struct options, process),
	CAD_OPTION_BOOL(struct options, ready, "ready", "false",
		"ask whether it is ready (/readyz; SERVING), not only whether it works (/healthz)"),
	CAD_OPTION_BOOL(struct options, generate, "generate", "false",
		"a router, over HTTP: whether it generates a token now (/readyz?generate)"),
	CAD_OPTION_DURATION(
		struct options, timeout_ns, "timeout", "5s", CAD_NS_PER_MS, 3600 * CAD_NS_PER_S, "for the answer"),
	CL_FORMAT_OPTION(struct options, format, "output format"),
};

static enum cad_status check(const void *values, struct cad_error *error)
{
	const struct options *options = values;
	if (!cl_process_name(&options->process)[0])
		return cad_error_set(error, CAD_ERR_INVALID,
			"give --http HOST:PORT of the process, or --grpc HOST:PORT of a router or the placement service");
	if (options->generate && !options->process.http[0])
		return cad_error_set(error, CAD_ERR_INVALID, "--generate asks over HTTP: give --http HOST:PORT");
	return cl_process_check(&options->process, error);
}

static enum cad_status check_files(const void *values, struct cad_error *error)
{
	return cl_access_check_files(&((const struct options *)values)->process.access, error);
}

static const char *const rivals[] = { CL_PROCESS_RIVALS, NULL };

static const struct cad_options_spec spec = {
	.program = "cadrectl health",
	.summary =
		"Asks one process how it is: 0 when the answer is yes, 3 when it is no, 1 when there is none. For probes of containers without a shell or curl.",
	.table = table,
	.count = sizeof table / sizeof *table,
	.rivals = rivals,
	.check = check,
	.check_files = check_files,
};

static void print(const struct options *options, enum cad_status status, const char *why)
{
	const char *name = cl_process_name(&options->process);
	const char *asked = options->generate ? "generating" : options->ready ? "ready" : "healthy";

	if (options->format == CL_FORMAT_TABLE) {
		cl_line(stdout, "%s is %s%s%s%s", name, status == CAD_OK ? "" : "not ", asked, *why ? ": " : "", why);
		return;
	}
	json_t *json = json_pack(
		"{s:s, s:s, s:b, s:s}", "address", name, "asked", asked, "answer", status == CAD_OK, "why", why);
	cl_print_json(json);
}

static int ask(struct options *options)
{
	struct cl_client client;
	struct cad_error error;
	enum cad_status status = cl_process_resolve(&options->process, &error);

	if (status == CAD_OK)
		status = cl_process_open(&options->process, &client, &error);
	if (status == CAD_OK) {
		enum cl_question question = options->generate ? CL_GENERATES
			: options->ready                      ? CL_IS_READY
							      : CL_IS_ALIVE;
		status = cl_process_ask(
			&options->process, &client, question, (uint32_t)(options->timeout_ns / CAD_NS_PER_MS), &error);
		cl_client_close(&client);
	}
	if (status != CAD_OK && status != CAD_AGAIN)
		return cl_fail("health", &error);

	print(options, status, status == CAD_OK ? "" : error.text);
	return status == CAD_OK ? CL_EXIT_OK : CL_EXIT_NOT_READY;
}

int cl_health(int argc, char **argv)
{
	struct options options = { .ready = false };
	struct cad_options *parsed;
	int exit_code;

	if (!cad_options_main(&spec, argc, argv, &options, &parsed, &exit_code))
		return exit_code;
	exit_code = ask(&options);
	cad_options_destroy(parsed);
	return exit_code;
}
