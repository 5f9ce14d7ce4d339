/* SPDX-License-Identifier: Apache-2.0 */
/* `cadrectl trace show`: what is in a trace, as far as placement cares. */
#include "orchestration/planner/trace/read.h"

#include "orchestration/cli/command.h"
#include "orchestration/cli/trace_shape.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

struct options {
	enum cl_format format;
};

static const struct cad_option table[] = {
	CL_FORMAT_OPTION(struct options, format, "output format"),
};

static const struct cad_options_spec spec = {
	.program = "cadrectl trace show",
	.summary =
		"Shows what is in a trace: its shape, where it comes from, and how even and how repetitive each layer's routing is.",
	.positional = "TRACE",
	.positional_names = CAD_OPTION_NAMES_FILE,
	.positional_max = 1,
	.table = table,
	.count = sizeof table / sizeof *table,
};

struct layer_facts {
	uint32_t used, hottest; /* experts that were selected at all; the one that was selected most */
	double hottest_ratio;   /* its rows over the mean of all experts */
	double top_share;       /* of all rows, those of the busiest eighth of the experts */
	/* of a token's experts, those that the token before it in its request selected too */
	double repeated;
	uint64_t empty; /* slots without an expert */
};

static int descending(const void *a, const void *b)
{
	uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
	return (left < right) - (left > right);
}

static uint32_t common(const uint16_t *a, const uint16_t *b, uint32_t k)
{
	uint32_t count = 0;
	for (uint32_t i = 0; i < k && a[i] != PL_TRACE_NONE; i++)
		for (uint32_t j = 0; j < k; j++)
			count += a[i] == b[j];
	return count;
}

/* rows [experts] is scratch. */
static struct layer_facts look_at(const struct pl_trace *trace, uint32_t layer, uint64_t *rows)
{
	struct layer_facts facts = { 0 };
	uint64_t all = 0, followers = 0, repeated = 0, top = 0;

	for (uint32_t expert = 0; expert < trace->experts; expert++)
		rows[expert] = 0;
	for (uint64_t token = 0; token < trace->tokens; token++) {
		const uint16_t *ids = pl_trace_row(trace, layer, token);
		uint32_t count = 0;
		for (; count < trace->k && ids[count] != PL_TRACE_NONE; count++)
			rows[ids[count]]++;
		all += count;
		if (token && trace->request[token] == trace->request[token - 1]) {
			repeated += common(ids, ids - trace->k, trace->k);
			followers += count;
		}
	}

	for (uint32_t expert = 0; expert < trace->experts; expert++) {
		facts.used += rows[expert] > 0;
		facts.hottest = rows[expert] > rows[facts.hottest] ? expert : facts.hottest;
	}

	facts.hottest_ratio = all ? (double)rows[facts.hottest] * trace->experts / (double)all : 0;
	qsort(rows, trace->experts, sizeof *rows, descending);
	for (uint32_t i = 0; i < (trace->experts + 7) / 8; i++)
		top += rows[i];
	facts.top_share = all ? (double)top / (double)all : 0;
	facts.repeated = followers ? (double)repeated / (double)followers : 0;
	facts.empty = trace->tokens * trace->k - all;

	return facts;
}

static void print_table(const struct pl_trace *trace, const struct layer_facts *facts)
{
	printf("model       %s\nprovenance  %s\n", trace->model[0] ? trace->model : "unknown",
		trace->provenance[0] ? trace->provenance : "unknown");
	cl_trace_print_shape(trace);
	printf(", %s scores\n\n", trace->scores ? "with" : "without");
	printf("layer  experts used  hottest (x mean)  busiest eighth    kept from the last token\n");
	for (uint32_t i = 0; i < trace->layers; i++)
		printf("%5u  %12u  %7u (%5.2f)  %13.1f%%  %25.1f%%\n", trace->layer[i], facts[i].used, facts[i].hottest,
			facts[i].hottest_ratio, 100 * facts[i].top_share, 100 * facts[i].repeated);
}

static enum cad_status print_json(
	const struct pl_trace *trace, const struct layer_facts *facts, struct cad_error *error)
{
	json_t *layers = json_array();
	for (uint32_t i = 0; i < trace->layers; i++)
		(void)json_array_append_new(layers,
			json_pack("{s:I, s:I, s:I, s:f, s:f, s:f, s:I}", "layer", (json_int_t)trace->layer[i],
				"experts_used", (json_int_t)facts[i].used, "hottest", (json_int_t)facts[i].hottest,
				"hottest_ratio", facts[i].hottest_ratio, "busiest_eighth", facts[i].top_share,
				"repeated", facts[i].repeated, "empty_slots", (json_int_t)facts[i].empty));
	json_t *root = json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:b, s:o}", "model", trace->model, "provenance",
		trace->provenance, "tokens", (json_int_t)trace->tokens, "requests",
		(json_int_t)pl_trace_requests(trace), "experts", (json_int_t)trace->experts, "top_k",
		(json_int_t)trace->k, "scores", trace->scores != NULL, "layers", layers);
	if (!root)
		return cad_error_set(error, CAD_ERR_INVALID, "the trace's names are not UTF-8, or memory is short");
	(void)json_dumpf(root, stdout, JSON_INDENT(1)); /* main checks whether that worked */
	putchar('\n');
	json_decref(root);

	return CAD_OK;
}

static enum cad_status show(const char *path, enum cl_format format, struct cad_error *error)
{
	struct pl_trace *trace;
	enum cad_status status = pl_trace_read(path, &trace, error);

	if (status != CAD_OK)
		return status;

	struct layer_facts *facts = calloc(trace->layers, sizeof *facts);
	uint64_t *rows = calloc(trace->experts, sizeof *rows);
	if (!facts || !rows) {
		status = cad_error_set(error, CAD_ERR_MEMORY, "no memory to look at %s", path);
		goto free_all;
	}

	for (uint32_t layer = 0; layer < trace->layers; layer++)
		facts[layer] = look_at(trace, layer, rows);
	if (format == CL_FORMAT_JSON)
		status = print_json(trace, facts, error);
	else
		print_table(trace, facts);

free_all:
	free(rows);
	free(facts);
	pl_trace_free(trace);

	return status;
}

int cl_trace_show(int argc, char **argv)
{
	struct options options;
	struct cad_options *parsed;
	struct cad_error error;
	int exit_code;

	if (!cad_options_main(&spec, argc, argv, &options, &parsed, &exit_code))
		return exit_code;

	if (cad_options_positional_count(parsed) != 1) {
		fprintf(stderr, "cadrectl trace show: give the file of a trace\n");
		exit_code = CL_EXIT_USAGE;
	} else if (show(cad_options_positional(parsed, 0), options.format, &error) != CAD_OK) {
		exit_code = cl_fail("trace show", &error);
	} else {
		exit_code = CL_EXIT_OK;
	}

	cad_options_destroy(parsed);
	return exit_code;
}
