/* SPDX-License-Identifier: Apache-2.0 */
/* `cadrectl trace generate`: synthetic traces, with a placement that is known to be good. */
#include "orchestration/planner/trace/own.h"
#include "orchestration/planner/trace/synthetic.h"

#include "common/base/file.h"
#include "orchestration/cli/command.h"
#include "orchestration/cli/trace_shape.h"

#include <stdio.h>
#include <stdlib.h>

struct options {
	struct pl_synthetic synthetic;
	const char *output, *best;
	uint32_t nodes;
};

#define S(member) synthetic.member
static const struct cad_option table[] = {
	CAD_OPTION_FILE(struct options, output, "output", NULL, "file to write, in Cadre's own format"),
	CAD_OPTION_FILE(struct options, best, "best", "", "file for the best known placement, as JSON (with --nodes)"),
	CAD_OPTION_U32(struct options, nodes, "nodes", "8", 1, 65535,
		"nodes of that placement; must divide the communities or the groups"),
	CAD_OPTION_U32(struct options, S(layers), "layers", "4", 1, PL_TRACE_LAYERS_MAX, "MoE layers"),
	CAD_OPTION_U32(struct options, S(experts), "experts", "64", 1, 4096, "experts per layer"),
	CAD_OPTION_U32(struct options, S(k), "top-k", "8", 1, PL_TRACE_TOPK_MAX, "experts that a token selects"),
	CAD_OPTION_U64(struct options, S(tokens), "tokens", "20000", 1, UINT32_MAX, "tokens"),
	CAD_OPTION_U64(
		struct options, S(seed), "seed", "1", 0, UINT64_MAX, "equal seeds and settings give equal traces"),
	CAD_OPTION_U32(struct options, S(communities), "communities", "8", 1, 1024,
		"communities planted in every layer: a power of two that divides the experts; 1: none"),
	CAD_OPTION_F64(struct options, S(strength), "strength", "0.8", 0, 1,
		"probability that an expert comes from the community of the token's topic, else from its neighbour, and so on"),
	CAD_OPTION_F64(struct options, S(zipf), "zipf", "0.5", 0, 10, "popularity of experts: (rank + 1)^-zipf"),
	CAD_OPTION_BOOL(struct options, S(zipf_of_layer), "zipf-of-layer", "false",
		"rank experts over the whole layer, which makes communities uneven, not within each community"),
	CAD_OPTION_U32(struct options, S(groups), "groups", "0", 0, 256,
		"groups of consecutive experts, for group-limited routing; 0: none"),
	CAD_OPTION_U32(
		struct options, S(groups_kept), "groups-kept", "4", 1, 256, "groups that a token may select from"),
	CAD_OPTION_U32(struct options, S(tasks), "tasks", "8", 1, 1024,
		"tasks; every request belongs to one, and prefers its topics"),
	CAD_OPTION_F64(struct options, S(task_skew), "task-skew", "1", 0, 10, "how much tasks differ; 0: not at all"),
	CAD_OPTION_F64(struct options, S(locality), "locality", "0.6", 0, 1,
		"probability that a token keeps the topic of the one before"),
	CAD_OPTION_F64(struct options, S(drift), "drift", "0", 0, 10,
		"change of the mixture of tasks and of popularity from beginning to end: e^(drift x gaussian)"),
	CAD_OPTION_U32(struct options, S(request_tokens), "request-tokens", "128", 1, 1000000,
		"tokens per request, on average"),
	CAD_OPTION_BOOL(struct options, S(scores), "scores", "false", "also write the gate's scores"),
};

static const struct cad_options_spec spec = {
	.program = "cadrectl trace generate",
	.summary = "Makes a synthetic trace, and a placement that is known to be good for it.",
	.table = table,
	.count = sizeof table / sizeof *table,
};

static void print_layer(const struct pl_trace *trace, uint32_t layer, const uint16_t *node, FILE *stream)
{
	fprintf(stream, "%s\n  \"%u\": {", layer ? "," : "", trace->layer[layer]);
	for (uint32_t expert = 0; expert < trace->experts; expert++)
		fprintf(stream, "%s\"%u\": [%u]", expert ? ", " : "", expert,
			node[(size_t)layer * trace->experts + expert]);
	fputc('}', stream);
}

static enum cad_status write_best(
	const struct options *options, const struct pl_synthetic_trace *made, struct cad_error *error)
{
	const struct pl_trace *trace = made->trace;
	struct pl_known_cost cost;
	struct cad_file_writer file;
	bool planted;
	uint16_t *node = calloc((size_t)trace->layers * trace->experts, sizeof *node);

	if (!node)
		return cad_error_set(error, CAD_ERR_MEMORY, "no memory for a placement");

	enum cad_status status =
		pl_synthetic_place(&options->synthetic, made, options->nodes, node, &planted, &cost, error);
	if (status == CAD_OK)
		status = cad_file_writer_open(&file, options->best, error);
	if (status == CAD_OK) {
		fprintf(file.stream,
			"{\"format\": \"cadre-placement-1\", \"planner\": \"%s\", \"nodes\": %u, \"slots_per_node\": %u, \"seconds\": 0,\n \"nodes_per_token\": %.6f, \"load_mean\": %.6f, "
			"\"load_worst\": %.6f,\n \"layers\": {",
			planted ? "planted" : "groups", options->nodes, trace->experts / options->nodes,
			cost.nodes_per_token, cost.load_mean, cost.load_worst);
		for (uint32_t layer = 0; layer < trace->layers; layer++)
			print_layer(trace, layer, node, file.stream);
		fputs("}}\n", file.stream);
		status = cad_file_writer_commit(&file, error);
	}

	if (status == CAD_OK)
		printf("%s: %s, %.4f nodes per token on %u nodes, load max/mean %.3f, of the worst layer %.3f\n",
			options->best, planted ? "communities" : "groups", cost.nodes_per_token, options->nodes,
			cost.load_mean, cost.load_worst);
	free(node);
	return status;
}

int cl_trace_generate(int argc, char **argv)
{
	struct options options;
	struct cad_options *parsed;
	struct cad_error error;
	struct pl_synthetic_trace made = { 0 };
	int exit_code;

	if (!cad_options_main(&spec, argc, argv, &options, &parsed, &exit_code))
		return exit_code;

	enum cad_status status = pl_synthetic_create(&options.synthetic, &made, &error);
	if (status == CAD_OK)
		status = pl_trace_write(options.output, made.trace, &error);
	if (status == CAD_OK) {
		printf("%s: ", options.output);
		cl_trace_print_shape(made.trace);
		printf("\n");
	}
	if (status == CAD_OK && options.best[0])
		status = write_best(&options, &made, &error);
	exit_code = status == CAD_OK ? CL_EXIT_OK : cl_fail("trace generate", &error);
	pl_synthetic_fini(&made);
	cad_options_destroy(parsed);

	return exit_code;
}
