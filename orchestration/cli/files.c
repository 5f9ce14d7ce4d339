/* SPDX-License-Identifier: Apache-2.0 */
/* The commands that work on files alone: tokenize, and model inspect. */
#include "common/model/inspect.h"
#include "common/tokenizer/tokenize_file.h"
#include "common/cluster/settings.h"
#include "kernels/packed.h"
#include "kernels/source.h"
#include "orchestration/cli/command.h"

#include <stdio.h>

/* ---- tokenize ---- */

struct tokenize_options {
	const char *tokenizer, *input, *output;
};

static const struct cad_option tokenize_table[] = {
	CAD_OPTION_FILE(struct tokenize_options, tokenizer, "tokenizer", NULL, "tokenizer.json"),
	CAD_OPTION_FILE(
		struct tokenize_options, input, "input", NULL, "file of lines {\"text\": ...}; '-' is standard input"),
	CAD_OPTION_FILE(struct tokenize_options, output, "output", NULL,
		"file to write, lines {\"ids\": [...], \"decoded\": ...}; '-' is standard output"),
};

static const struct cad_options_spec tokenize_spec = {
	.program = "cadrectl tokenize",
	.summary = "Turns texts into token ids (with the special tokens of the post-processor) and back (without).",
	.table = tokenize_table,
	.count = sizeof tokenize_table / sizeof *tokenize_table,
};

int cl_tokenize(int argc, char **argv)
{
	struct tokenize_options options;
	struct cad_options *parsed;
	struct cad_error error;
	int exit_code;

	if (!cad_options_main(&tokenize_spec, argc, argv, &options, &parsed, &exit_code))
		return exit_code;

	enum cad_status status = cad_tokenize_file(options.tokenizer, options.input, options.output, &error);
	exit_code = status == CAD_OK ? CL_EXIT_OK : cl_fail("tokenize", &error);
	cad_options_destroy(parsed);
	return exit_code;
}

/* ---- model inspect ---- */

struct inspect_options {
	uint32_t nodes;
	uint64_t memory, router_memory;
	struct cad_settings settings;
	enum cl_format format;
};

static const struct cad_option inspect_table[] = {
	CAD_OPTION_U32(struct inspect_options, nodes, "nodes", "3", 1, 100000, "number of expert nodes to size for"),
	CAD_OPTION_BYTES(struct inspect_options, memory, "memory", "0", 0, UINT64_MAX,
		"memory of each expert node for experts, as of cadre-expert: says whether they fit; 0: not said"),
	CAD_OPTION_BYTES(struct inspect_options, router_memory, "router-memory", "0", 0, UINT64_MAX,
		"memory of each router for weights and KV cache: says how many tokens fit; 0: not said"),
	CAD_KEPT_OPTIONS(struct inspect_options, settings, "as on the placement service: "),
	CL_FORMAT_OPTION(struct inspect_options, format, "output format"),
};

static enum cad_status inspect_check(const void *values, struct cad_error *error)
{
	return cad_settings_check(&((const struct inspect_options *)values)->settings, error);
}

static const struct cad_options_spec inspect_spec = {
	.program = "cadrectl model inspect",
	.summary = "Shows what is in a checkpoint, packed or not, and what it needs per node.",
	.positional = "DIR",
	.positional_names = CAD_OPTION_NAMES_DIRECTORY,
	.positional_max = 1,
	.table = inspect_table,
	.count = sizeof inspect_table / sizeof *inspect_table,
	.check = inspect_check,
};

static enum cad_status inspect(
	const struct cad_model *model, const struct inspect_options *options, struct cad_error *error)
{
	struct kn_device *device;
	struct cad_settings settings = options->settings;
	enum cad_status status = cad_settings_complete(&settings, error);

	if (status == CAD_OK)
		status = kn_device_open(&(struct kn_device_options){ 0 }, &device, error);
	if (status != CAD_OK)
		return status;

	const struct cad_packed *form = cad_model_packed(model); /* then options have nothing to say */
	enum cad_weights experts = form ? form->experts : cad_settings_expert_weights(&settings),
			 router = form ? form->router : cad_settings_router_weights(&settings);
	status = kn_packed_check_experts(model, experts, error);
	if (status == CAD_OK)
		status = kn_packed_check_router(model, router, error);
	if (status != CAD_OK)
		goto destroy_device;

	struct cad_model_packed packed = kn_packed_sizes(device, model, experts, router, settings.kv);
	struct cad_model_cluster cluster = { options->nodes, options->memory, options->router_memory };
	status = cad_model_inspect(model, &packed, &cluster, stdout, options->format == CL_FORMAT_JSON, error);

destroy_device:
	device->ops->destroy(device);
	return status;
}

int cl_model_inspect(int argc, char **argv)
{
	struct inspect_options options = { 0 };
	struct cad_options *parsed;
	struct cad_error error;
	struct cad_model *model;
	int exit_code;

	if (!cad_options_main(&inspect_spec, argc, argv, &options, &parsed, &exit_code))
		return exit_code;

	if (cad_options_positional_count(parsed) != 1) {
		fprintf(stderr, "cadrectl model inspect: give the directory of a checkpoint\n");
		cad_options_destroy(parsed);
		return CL_EXIT_USAGE;
	}

	enum cad_status status = cad_model_open(cad_options_positional(parsed, 0), &model, &error);
	if (status == CAD_OK) {
		status = inspect(model, &options, &error);
		cad_model_close(model);
	}

	exit_code = status == CAD_OK ? CL_EXIT_OK : cl_fail("model inspect", &error);
	cad_options_destroy(parsed);
	return exit_code;
}
