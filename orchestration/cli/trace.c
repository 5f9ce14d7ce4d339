/* SPDX-License-Identifier: Apache-2.0 */
/* `cadrectl trace import | export | split`: traces between formats, and cut in two. */
#include "orchestration/planner/trace/csv.h"
#include "orchestration/planner/trace/json.h"
#include "orchestration/planner/trace/own.h"
#include "orchestration/planner/trace/read.h"

#include "common/base/file.h"
#include "orchestration/cli/command.h"
#include "orchestration/cli/trace_shape.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- import ---- */

static const struct cad_choice from_choices[] = { { "auto", PL_TRACE_AUTO }, { "cadre", PL_TRACE_OWN },
	{ "csv", PL_TRACE_CSV }, { "json", PL_TRACE_JSON }, { "eval", PL_TRACE_EVAL }, { "answer", PL_TRACE_ANSWER },
	{ NULL, 0 } };
static const struct cad_choice phase_choices[] = { { "all", PL_TRACE_PHASE_ALL }, { "prefill", PL_TRACE_PHASE_PREFILL },
	{ "decode", PL_TRACE_PHASE_DECODE }, { NULL, 0 } };

enum { IMPORT_FILES_MAX = 100000 };

struct import_options {
	const char *output, *model, *provenance;
	enum pl_trace_format from;
	enum pl_trace_phase phase;
	uint32_t experts;
};

static const struct cad_option import_table[] = {
	CAD_OPTION_FILE(struct import_options, output, "output", NULL, "file to write, in Cadre's own format"),
	CAD_OPTION_ENUM(struct import_options, from, "from", "auto", from_choices,
		"format of the files; auto: recognised by content"),
	CAD_OPTION_U32(struct import_options, experts, "experts", "0", 0, PL_TRACE_EXPERTS_MAX,
		"experts per layer; 0: the highest id that occurs, plus one"),
	CAD_OPTION_ENUM(struct import_options, phase, "phase", "all", phase_choices,
		"part of JSON requests and answers to take: the prompt (prefill), what was generated (decode), or all"),
	CAD_OPTION_STRING(struct import_options, model, "model", "", "name of the model that was traced"),
	CAD_OPTION_STRING(struct import_options, provenance, "provenance", "", "where the trace comes from"),
};

static const struct cad_options_spec import_spec = {
	.program = "cadrectl trace import",
	.summary =
		"Reads traces (CSV, requests in JSON, the output of 'cadrectl eval' or of 'generate --routing -o json', or Cadre's own) and writes one in Cadre's own format, the requests of the files one after another.",
	.positional = "FILE...",
	.positional_names = CAD_OPTION_NAMES_FILE,
	.positional_max = IMPORT_FILES_MAX,
	.table = import_table,
	.count = sizeof import_table / sizeof *import_table,
};

/* Reads all files and joins them. */
static enum cad_status import_files(const struct import_options *options, const struct cad_options *parsed,
	struct pl_trace **trace, struct cad_error *error)
{
	size_t count = cad_options_positional_count(parsed), read = 0;
	struct pl_trace_source source = {
		.format = options->from,
		.phase = options->phase,
		.experts = options->experts,
	};
	struct pl_trace **parts = calloc(count, sizeof(*parts));

	if (!parts)
		return cad_error_set(error, CAD_ERR_MEMORY, "no memory for %zu traces", count);

	enum cad_status status = CAD_OK;
	while (status == CAD_OK && read < count) {
		status = pl_trace_read_as(cad_options_positional(parsed, read), &source, &parts[read], error);
		read += status == CAD_OK;
	}

	if (status == CAD_OK && count == 1) {
		*trace = parts[--read];
	} else if (status == CAD_OK) {
		status = pl_trace_join(parts, count, trace, error);
	}

	while (read > 0)
		pl_trace_free(parts[--read]);
	free(parts);
	return status;
}

int cl_trace_import(int argc, char **argv)
{
	struct import_options options;
	struct cad_options *parsed;
	struct cad_error error;
	struct pl_trace *trace = NULL;
	int exit_code;

	if (!cad_options_main(&import_spec, argc, argv, &options, &parsed, &exit_code))
		return exit_code;

	if (cad_options_positional_count(parsed) == 0) {
		fprintf(stderr, "cadrectl trace import: give the files to read\n");
		cad_options_destroy(parsed);
		return CL_EXIT_USAGE;
	}

	enum cad_status status = import_files(&options, parsed, &trace, &error);
	if (status == CAD_OK)
		status = pl_trace_set_names(trace, options.model[0] ? options.model : NULL,
			options.provenance[0] ? options.provenance : NULL, &error);
	if (status == CAD_OK)
		status = pl_trace_write(options.output, trace, &error);
	if (status == CAD_OK) {
		printf("%s: ", options.output);
		cl_trace_print_shape(trace);
		printf("\n");
	}
	exit_code = status == CAD_OK ? CL_EXIT_OK : cl_fail("trace import", &error);
	pl_trace_free(trace);
	cad_options_destroy(parsed);

	return exit_code;
}

/* ---- export ---- */

static const struct cad_choice to_choices[] = { { "csv", PL_TRACE_CSV }, { "json", PL_TRACE_JSON }, { NULL, 0 } };

struct export_options {
	const char *output;
	enum pl_trace_format to;
};

static const struct cad_option export_table[] = {
	CAD_OPTION_FILE(struct export_options, output, "output", "", "file to write; empty: standard output"),
	CAD_OPTION_ENUM(struct export_options, to, "to", "csv", to_choices,
		"csv: a row per token and layer; json: a line per request"),
};

static const struct cad_options_spec export_spec = {
	.program = "cadrectl trace export",
	.summary = "Writes a trace as text. Scores are left out.",
	.positional = "TRACE",
	.positional_names = CAD_OPTION_NAMES_FILE,
	.positional_max = 1,
	.table = export_table,
	.count = sizeof export_table / sizeof *export_table,
};

static void print_as(const struct pl_trace *trace, enum pl_trace_format to, FILE *stream)
{
	if (to == PL_TRACE_CSV)
		pl_trace_print_csv(trace, stream);
	else
		pl_trace_print_json(trace, stream);
}

/* The one positional argument, read; NULL: exit_code says why. */
static struct pl_trace *read_only_argument(const char *command, const struct cad_options *parsed, int *exit_code)
{
	struct cad_error error;
	struct pl_trace *trace;

	if (cad_options_positional_count(parsed) != 1) {
		fprintf(stderr, "cadrectl %s: give the file of a trace\n", command);
		*exit_code = CL_EXIT_USAGE;
		return NULL;
	}

	if (pl_trace_read(cad_options_positional(parsed, 0), &trace, &error) == CAD_OK)
		return trace;
	*exit_code = cl_fail(command, &error);
	return NULL;
}

int cl_trace_export(int argc, char **argv)
{
	struct export_options options;
	struct cad_options *parsed;
	struct cad_error error;
	struct cad_file_writer file;
	int exit_code;

	if (!cad_options_main(&export_spec, argc, argv, &options, &parsed, &exit_code))
		return exit_code;

	struct pl_trace *trace = read_only_argument("trace export", parsed, &exit_code);
	if (trace) {
		enum cad_status status = CAD_OK;
		if (options.output[0]) {
			status = cad_file_writer_open_private(&file, options.output, &error);
			if (status == CAD_OK) {
				print_as(trace, options.to, file.stream);
				status = cad_file_writer_commit(&file, &error);
			}
		} else {
			print_as(trace, options.to, stdout); /* main checks whether that worked */
		}
		exit_code = status == CAD_OK ? CL_EXIT_OK : cl_fail("trace export", &error);
	}

	pl_trace_free(trace);
	cad_options_destroy(parsed);
	return exit_code;
}

/* ---- split ---- */

struct split_options {
	const char *first, *second;
	double share;
};

static const struct cad_option split_table[] = {
	CAD_OPTION_FILE(struct split_options, first, "first", NULL, "file for the first part"),
	CAD_OPTION_FILE(struct split_options, second, "second", NULL, "file for the second part"),
	CAD_OPTION_F64(struct split_options, share, "share", "0.5", 0, 1,
		"share of the tokens that goes to the first part; the cut is between two requests"),
};

static const struct cad_options_spec split_spec = {
	.program = "cadrectl trace split",
	.summary = "Cuts a trace in two at a point in time, to plan on one part and measure on the other.",
	.positional = "TRACE",
	.positional_names = CAD_OPTION_NAMES_FILE,
	.positional_max = 1,
	.table = split_table,
	.count = sizeof split_table / sizeof *split_table,
};

int cl_trace_split(int argc, char **argv)
{
	struct split_options options;
	struct cad_options *parsed;
	struct cad_error error;
	struct pl_trace *first = NULL, *second = NULL;
	int exit_code;

	if (!cad_options_main(&split_spec, argc, argv, &options, &parsed, &exit_code))
		return exit_code;

	struct pl_trace *trace = read_only_argument("trace split", parsed, &exit_code);
	if (trace) {
		enum cad_status status = pl_trace_split(trace, options.share, &first, &second, &error);
		if (status == CAD_OK)
			status = pl_trace_write(options.first, first, &error);
		if (status == CAD_OK)
			status = pl_trace_write(options.second, second, &error);
		if (status == CAD_OK) {
			printf("%s: ", options.first);
			cl_trace_print_tokens(first);
			printf("\n%s: ", options.second);
			cl_trace_print_tokens(second);
			printf("\n");
		}
		exit_code = status == CAD_OK ? CL_EXIT_OK : cl_fail("trace split", &error);
	}

	pl_trace_free(first);
	pl_trace_free(second);
	pl_trace_free(trace);
	cad_options_destroy(parsed);

	return exit_code;
}
