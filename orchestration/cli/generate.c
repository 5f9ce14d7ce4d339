/* SPDX-License-Identifier: Apache-2.0 */
/* `cadrectl generate`: a prompt in, text out as it comes. */
#include "common/base/file.h"
#include "common/base/plural.h"
#include "orchestration/cli/command.h"
#include "orchestration/cli/run_options.h"
#include "orchestration/cli/request.h"
#include "orchestration/cli/routing.h"
#include "orchestration/cli/run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct options {
	struct cl_run_options run;
	const char *tokens, *stop, *save;
	uint32_t max_tokens, top_k;
	double temperature, top_p, min_p;
	uint64_t seed;
	bool ignore_eos, routing;
	enum cl_format format;
};

static const struct cad_option table[] = {
	CL_RUN_OPTIONS(struct options, run),
	CAD_OPTION_STRING(struct options, tokens, "tokens", "", "the prompt as token ids, 1,2,3, used unchanged"),
	CAD_OPTION_U32(struct options, max_tokens, "max-tokens", "128", 0, UINT32_MAX,
		"maximum number of tokens to generate; 0: until the end of sequence"),
	CAD_OPTION_BOOL(struct options, ignore_eos, "ignore-eos", "false", "continue past the end of sequence"),
	CAD_OPTION_F64(struct options, temperature, "temperature", "0", 0, 1e6,
		"sampling temperature; 0: always the most likely token"),
	CAD_OPTION_U32(struct options, top_k, "top-k", "0", 0, UINT32_MAX,
		"sample only from this many most likely tokens; 0: off"),
	CAD_OPTION_F64(struct options, top_p, "top-p", "0", 0, 1,
		"sample only from the most likely tokens that together have this probability; 0: off"),
	CAD_OPTION_F64(struct options, min_p, "min-p", "0", 0, 1,
		"sample only from tokens at least this fraction as likely as the most likely one; 0: off"),
	CAD_OPTION_U64(
		struct options, seed, "seed", "0", 0, UINT64_MAX, "seed of the sampling: equal seeds give equal texts"),
	CAD_OPTION_STRING(struct options, stop, "stop", "", "stop before this string"),
	CAD_OPTION_BOOL(struct options, routing, "routing", "false",
		"report which experts fired, and where: in short, and with -o json or --save for each token"),
	CAD_OPTION_FILE(
		struct options, save, "save", "", "also write the answer as JSON to this file, for 'cadrectl verify'"),
	CL_FORMAT_OPTION(struct options, format, "table: the text as it arrives; json: one object at the end"),
};

static const char *const rivals[] = { CL_RUN_RIVALS, NULL };

static enum cad_status check(const void *values, struct cad_error *error)
{
	return cl_run_options_check(&((const struct options *)values)->run, error);
}

static enum cad_status check_files(const void *values, struct cad_error *error)
{
	return cl_access_check_files(&((const struct options *)values)->run.access, error);
}

static const struct cad_options_spec spec = {
	.program = "cadrectl generate",
	.summary = "Continues a prompt, on a router of the cluster or in this process (--model).",
	.positional = "PROMPT",
	.positional_max = 1,
	.table = table,
	.count = sizeof table / sizeof *table,
	.rivals = rivals,
	.check = check,
	.check_files = check_files,
};

struct progress {
	struct cl_result result;
	bool print;
	bool printed;
	enum cad_status status;
	struct cad_error error;
};

static bool on_response(void *context, const Cadre__V1__GenerateResponse *response)
{
	struct progress *progress = context;
	progress->status = cl_result_add(&progress->result, response, &progress->error);
	size_t size;
	const char *text = cl_response_text(response, &size);
	if (progress->print && size > 0) {
		fwrite(text, 1, size, stdout);
		if (fflush(stdout) != 0)
			return false; /* the reader has gone; main says so */
		progress->printed = true;
	}
	return progress->status == CAD_OK;
}

static enum cad_status make_request(
	const struct options *options, struct cad_options *parsed, struct cl_request *request, struct cad_error *error)
{
	bool prompt = cad_options_positional_count(parsed) == 1;
	if (prompt == (options->tokens[0] != 0))
		return cad_error_set(error, CAD_ERR_INVALID,
			prompt ? "a prompt and --tokens exclude each other" : "give a prompt, or --tokens 1,2,3");
	*request = (struct cl_request){
		.max_tokens = options->max_tokens,
		.ignore_eos = options->ignore_eos,
		.routing = options->routing,
		.temperature = (float)options->temperature,
		.top_k = options->top_k,
		.top_p = (float)options->top_p,
		.min_p = (float)options->min_p,
		.seed = options->seed,
	};
	request->stop = options->stop[0] ? strdup(options->stop) : NULL;
	request->text = prompt ? strdup(cad_options_positional(parsed, 0)) : NULL;
	if ((prompt && !request->text) || (options->stop[0] && !request->stop))
		return cad_error_set(error, CAD_ERR_MEMORY, "out of memory for the prompt");
	return prompt ? CAD_OK : cl_request_parse_ids(options->tokens, &request->ids, error);
}

/* What a person wants to know besides the text; on stderr, so that the text can be piped. */
static void print_summary(const struct cl_result *result)
{
	double seconds = (double)result->total_us * 1e-6,
	       decode = (double)(result->total_us - result->first_token_us) * 1e-6;

	fprintf(stderr, "-- %llu %s in %.2f s, first after %.0f ms", (unsigned long long)result->generated_tokens,
		cad_plural(result->generated_tokens, "token", "tokens"), seconds,
		(double)result->first_token_us * 1e-3);
	if (result->generated_tokens > 1 && decode > 0)
		fprintf(stderr, ", then %.1f tokens/s", (double)(result->generated_tokens - 1) / decode);
	if (result->resumed > 0)
		fprintf(stderr, "; resumed %llu %s", (unsigned long long)result->resumed,
			cad_plural(result->resumed, "time", "times"));
	cl_line(stderr, "; ended by %s; digest %s", cl_finish_name(result->finish_reason), result->digest);
	if (result->dropped || result->spilled)
		cl_line(stderr, "-- capacity policy %s: %llu dropped, %llu spilled (token, layer, slot)",
			result->policy, (unsigned long long)result->dropped, (unsigned long long)result->spilled);
	if (result->absent_slots)
		cl_line(stderr,
			"-- no node held some experts: %llu (token, layer, slot) left out, %llu (token, layer) with no expert at all",
			(unsigned long long)result->absent_slots, (unsigned long long)result->absent_rows);
}

static enum cad_status save_json(const json_t *json, struct cad_file_writer *save, struct cad_error *error)
{
	/* commit checks whether that worked */
	(void)json_dumpf(json, save->stream, JSON_COMPACT | JSON_ENSURE_ASCII);
	fputc('\n', save->stream);
	return cad_file_writer_commit(save, error);
}

static void print_text(const struct progress *progress, bool routing)
{
	const struct cl_result *result = &progress->result;
	if (!progress->printed) /* a model without a tokenizer, or a prompt that ended at once */
		for (size_t i = 0; i < result->ids.count; i++)
			printf("%s%d", i ? " " : "", result->ids.ids[i]);
	putchar('\n');
	fflush(stdout);
	print_summary(result);
	if (routing)
		cl_routing_print(stderr, result->routing);
}

/* Of an answer that took several streams, no router has seen all of it. */
static void take_report(struct cl_result *result, const struct cl_run_report *report)
{
	result->resumed = report->resumed;
	result->gap_us = report->gap_us;
	if (report->resumed == 0)
		return;
	result->first_token_us = report->first_token_us;
	result->total_us = report->total_us;
}

static enum cad_status print_result(const struct options *options, const struct cl_request *request,
	const struct progress *progress, const char *where, struct cad_file_writer *save, struct cad_error *error)
{
	json_t *json = cl_result_to_json(&progress->result, request, where);
	enum cad_status status =
		json ? CAD_OK : cad_error_set(error, CAD_ERR_MEMORY, "out of memory for the answer as JSON");

	if (options->format == CL_FORMAT_TABLE)
		print_text(progress, options->routing);
	else if (status == CAD_OK) {
		(void)json_dumpf(json, stdout, JSON_COMPACT | JSON_ENSURE_ASCII); /* main checks whether that worked */
		putchar('\n');
	}

	if (status == CAD_OK && save->stream)
		status = save_json(json, save, error);
	json_decref(json);
	return status;
}

int cl_generate(int argc, char **argv)
{
	struct options options;
	struct cad_options *parsed;
	struct cad_error error;
	struct cl_request request = { 0 };
	struct cl_request_message message;
	struct cl_run_report report = { .where = "" };
	struct cad_file_writer save = { .stream = NULL }; /* opened first: the answer will have a place */
	int exit_code;

	if (!cad_options_main(&spec, argc, argv, &options, &parsed, &exit_code))
		return exit_code;

	struct progress progress = { .print = options.format == CL_FORMAT_TABLE };
	struct cl_run run = { .on_response = on_response, .context = &progress };
	enum cad_status status = make_request(&options, parsed, &request, &error);
	struct cl_cluster cluster = { .root = NULL };
	if (status == CAD_OK)
		status = cl_run_from_options(&options.run, &run, &cluster, &error);
	if (status == CAD_OK && options.save[0])
		status = cad_file_writer_open(&save, options.save, &error);
	if (status == CAD_ERR_INVALID || status == CAD_ERR_NOT_FOUND) {
		(void)cl_fail("generate", &error);
		exit_code = CL_EXIT_USAGE;
	} else {
		if (status == CAD_OK) {
			cl_request_to_message(&request, &message);
			status = cl_run_generate(&run, &message.message, &report, &error);
		}
		if (status == CAD_OK && progress.status != CAD_OK) {
			error = progress.error;
			status = progress.status;
		}
		if (status == CAD_OK && !progress.result.finished && !ferror(stdout))
			status = cad_error_set(&error, CAD_ERR_PROTOCOL,
				"the answer of %s ended without a finish reason", report.where);
		if (status == CAD_OK && progress.result.finished) {
			take_report(&progress.result, &report);
			status = print_result(&options, &request, &progress, report.where, &save, &error);
		}
		exit_code = status == CAD_OK ? CL_EXIT_OK : cl_fail("generate", &error);
	}

	if (save.stream)
		cad_file_writer_abandon(&save);
	cl_cluster_fini(&cluster);
	cl_request_fini(&request);
	cl_result_fini(&progress.result);
	cad_options_destroy(parsed);

	return exit_code;
}
