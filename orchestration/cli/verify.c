/* SPDX-License-Identifier: Apache-2.0 */
/* `cadrectl verify`: asks again for an answer that was kept as JSON, and compares what must be
 * equal. */
#include "common/base/plural.h"
#include "orchestration/cli/command.h"
#include "orchestration/cli/run_options.h"
#include "orchestration/cli/request.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct options {
	struct cl_run_options run;
	enum cl_format format;
};

static const struct cad_option table[] = {
	CL_RUN_OPTIONS(struct options, run),
	CL_FORMAT_OPTION(struct options, format, "output format"),
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
	.program = "cadrectl verify",
	.summary =
		"Computes the answer in FILE again (from 'cadrectl generate -o json'; - is standard input) and compares digests. Fails if they differ.",
	.positional = "FILE",
	.positional_names = CAD_OPTION_NAMES_FILE,
	.positional_max = 1,
	.table = table,
	.count = sizeof table / sizeof *table,
	.rivals = rivals,
	.check = check,
	.check_files = check_files,
};

struct again {
	struct cl_result result;
	enum cad_status status;
	struct cad_error error;
};

static bool on_response(void *context, const Cadre__V1__GenerateResponse *response)
{
	struct again *again = context;
	again->status = cl_result_add(&again->result, response, &again->error);
	return again->status == CAD_OK;
}

static enum cad_status read_answer(const char *path, json_t **answer, struct cad_error *error)
{
	json_error_t json_error;
	json_t *read = strcmp(path, "-") == 0 ? json_loadf(stdin, JSON_ALLOW_NUL, &json_error)
					      : json_load_file(path, JSON_ALLOW_NUL, &json_error);

	/* "unable to open PATH: why" */
	if (!read && json_error.line < 1)
		return cad_error_set(error, CAD_ERR_NOT_FOUND, "%s", json_error.text);
	if (!read)
		return cad_error_set(
			error, CAD_ERR_CORRUPT, "%s: %s (line %d)", path, json_error.text, json_error.line);
	if (!json_is_string(json_object_get(read, "digest")) || !json_is_array(json_object_get(read, "token_ids"))) {
		json_decref(read);
		return cad_error_set(error, CAD_ERR_CORRUPT,
			"%s: it has no \"digest\" and \"token_ids\": the output of 'cadrectl generate -o json' is needed",
			path);
	}

	*answer = read;
	return CAD_OK;
}

/* The first token that differs, or -1. */
static json_int_t first_difference(const json_t *ids, const struct cl_result *result)
{
	size_t count = json_array_size(ids);
	for (size_t i = 0; i < count && i < result->ids.count; i++)
		if (json_integer_value(json_array_get(ids, i)) != result->ids.ids[i])
			return (json_int_t)i;
	return count == result->ids.count ? -1 : (json_int_t)(count < result->ids.count ? count : result->ids.count);
}

/* Of the answer; "" if the program that kept it did not know them. */
static const char *settings_of(const json_t *answer)
{
	const char *settings = json_string_value(json_object_get(answer, "settings"));
	return settings ? settings : "";
}

static json_int_t absent_slots(const json_t *answer)
{
	return json_integer_value(json_object_get(json_object_get(answer, "absent"), "slots"));
}

/* Why answers may differ without anything being wrong. */
static void print_reasons(const json_t *answer, const struct cl_result *result)
{
	const char *settings = settings_of(answer);
	const char *policy = json_string_value(json_object_get(json_object_get(answer, "capacity"), "policy"));
	json_int_t before = absent_slots(answer), now = (json_int_t)result->absent_slots;

	if (settings[0] && result->settings[0] && strcmp(settings, result->settings) != 0)
		cl_line(stdout,
			"The settings differ, and with them the answer may: it was computed with '%s', now with '%s'.",
			settings, result->settings);
	if (policy && strcmp(policy, "none") != 0)
		cl_line(stdout,
			"The answer was computed under capacity policy '%s', under which it may depend on the requests beside it.",
			policy);
	if (before != 0 || now != 0)
		cl_line(stdout,
			"Experts that no node held were left out: %lld (token, layer, slot) of the answer, %lld now. Without them the answer is another.",
			(long long)before, (long long)now);
}

/* Returns whether all is equal. */
static bool compare(const json_t *answer, const struct cl_result *result, const char *where, enum cl_format format)
{
	const char *before = json_string_value(json_object_get(answer, "digest"));
	json_int_t difference = first_difference(json_object_get(answer, "token_ids"), result);
	bool equal = difference < 0 && strcmp(before, result->digest) == 0;
	if (format == CL_FORMAT_JSON) {
		json_t *json = json_pack("{s:b, s:s, s:s, s:s, s:s, s:o, s:I, s:I, s:s}", "equal", equal, "digest",
			result->digest, "expected_digest", before, "settings", result->settings, "expected_settings",
			settings_of(answer), "first_difference",
			difference < 0 ? json_null() : json_integer(difference), "absent_slots",
			(json_int_t)result->absent_slots, "expected_absent_slots", absent_slots(answer), "computed_by",
			where);
		cl_print_json(json);
		return equal;
	}

	if (equal)
		cl_line(stdout, "equal: %zu %s, digest %s, computed again by %s", result->ids.count,
			cad_plural(result->ids.count, "token", "tokens"), result->digest, where);
	else if (difference < 0)
		cl_line(stdout, "DIFFERENT: the same %zu tokens, but from other logits: digest %s, was %s",
			result->ids.count, result->digest, before);
	else
		cl_line(stdout, "DIFFERENT from token %lld on: digest %s, was %s", (long long)difference,
			result->digest, before);
	if (!equal)
		print_reasons(answer, result);
	return equal;
}

static enum cad_status run_again(const struct cl_run_options *options, const json_t *answer, struct again *again,
	struct cl_run_report *report, struct cad_error *error)
{
	struct cl_request request;
	struct cl_request_message message;
	struct cl_run run = { .on_response = on_response, .context = again };
	struct cl_cluster cluster = { .root = NULL };
	enum cad_status status = cl_request_from_json(json_object_get(answer, "request"), &request, error);

	if (status != CAD_OK)
		return status;

	status = cl_run_from_options(options, &run, &cluster, error);
	if (status == CAD_OK) {
		cl_request_to_message(&request, &message);
		status = cl_run_generate(&run, &message.message, report, error);
	}

	if (status == CAD_OK && again->status != CAD_OK) {
		*error = again->error;
		status = again->status;
	}

	if (status == CAD_OK && !again->result.finished)
		status = cad_error_set(
			error, CAD_ERR_PROTOCOL, "the answer of %s ended without a finish reason", report->where);
	cl_cluster_fini(&cluster);
	cl_request_fini(&request);

	return status;
}

int cl_verify(int argc, char **argv)
{
	struct options options;
	struct cad_options *parsed;
	struct cad_error error;
	struct again again = { .status = CAD_OK };
	json_t *answer = NULL;
	struct cl_run_report report = { .where = "" };
	int exit_code;

	if (!cad_options_main(&spec, argc, argv, &options, &parsed, &exit_code))
		return exit_code;

	if (cad_options_positional_count(parsed) != 1) {
		fprintf(stderr, "cadrectl verify: give the file with the answer ('-' for standard input)\n");
		cad_options_destroy(parsed);
		return CL_EXIT_USAGE;
	}

	enum cad_status status = read_answer(cad_options_positional(parsed, 0), &answer, &error);
	if (status == CAD_OK)
		status = run_again(&options.run, answer, &again, &report, &error);
	if (status != CAD_OK)
		exit_code = cl_fail("verify", &error);
	else
		exit_code = compare(answer, &again.result, report.where, options.format) ? CL_EXIT_OK : CL_EXIT_FAILED;
	json_decref(answer);
	cl_result_fini(&again.result);
	cad_options_destroy(parsed);

	return exit_code;
}
