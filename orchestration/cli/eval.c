/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/cli/eval.h"

#include "common/base/file.h"
#include "common/model/safetensors.h"
#include "orchestration/cli/command.h"
#include "orchestration/cli/evaluation.h"
#include "orchestration/cli/run_options.h"

#include <stdio.h>
#include <stdlib.h>

struct options {
	const char *model, *input, *output;
	struct cl_engine engine;
};

static const struct cad_option table[] = {
	CAD_OPTION_DIRECTORY(struct options, model, "model", NULL, "directory of the checkpoint"),
	CAD_OPTION_FILE(struct options, input, "input", NULL, "JSON file with the sequences"),
	CAD_OPTION_FILE(struct options, output, "output", NULL, "safetensors file to write"),
	CL_ENGINE_OPTIONS(struct options, engine),
};

static enum cad_status check(const void *values, struct cad_error *error)
{
	return cl_engine_check(&((const struct options *)values)->engine, error);
}

static const struct cad_options_spec spec = {
	.program = "cadrectl eval",
	.summary =
		"Computes whole sequences with the embedded engine and writes logits, routing and greedy continuations.",
	.table = table,
	.count = sizeof table / sizeof *table,
	.check = check,
};

static enum cad_status write_output(const struct cl_evaluation *eval, const char *path, struct cad_error *error)
{
	enum { TENSORS = 6, NAME_BYTES = 40 };
	struct cad_tensor *tensors = calloc(eval->count * TENSORS, sizeof *tensors);

	char(*names)[NAME_BYTES] = calloc(eval->count * TENSORS, sizeof *names);
	size_t count = 0;
	enum cad_status status =
		tensors && names ? CAD_OK : cad_error_set(error, CAD_ERR_MEMORY, "no memory for the list of tensors");
	for (size_t i = 0; status == CAD_OK && i < eval->count; i++) {
		const struct cl_sequence *s = &eval->sequences[i];
		bool moe = eval->layers > 0;
		const struct {
			const char *name;
			const void *data;
			enum cad_dtype dtype;
			uint32_t rank;
			uint64_t shape[3];
		} list[TENSORS] = {
			{ "tokens", s->tokens, CAD_DTYPE_I32, 1, { s->count } },
			{ "logits", s->logits, CAD_DTYPE_F32, 2, { s->count, eval->vocab } },
			{ "greedy", s->greedy, CAD_DTYPE_I32, 1, { eval->greedy_tokens } },
			{ "router_logits", s->router_logits, CAD_DTYPE_F32, 3,
				{ eval->layers, s->count, eval->experts } },
			{ "experts", s->experts, CAD_DTYPE_I32, 3, { eval->layers, s->count, eval->topk } },
			{ "expert_weights", s->weights, CAD_DTYPE_F32, 3, { eval->layers, s->count, eval->topk } },
		};
		for (size_t t = 0; t < (moe ? TENSORS : 3); t++, count++) {
			snprintf(names[count], NAME_BYTES, "%s.%zu", list[t].name, i);
			tensors[count] = (struct cad_tensor){
				.data = list[t].data,
				.dtype = list[t].dtype,
				.rank = list[t].rank,
				.name = names[count],
				.bytes = 4,
			};
			for (uint32_t d = 0; d < list[t].rank; d++) {
				tensors[count].shape[d] = list[t].shape[d];
				tensors[count].bytes *= list[t].shape[d];
			}
		}
	}

	if (status == CAD_OK)
		status = cad_safetensors_write(path, tensors, count, error);
	free(tensors);
	free(names);

	return status;
}

/* Before anything is computed: it would be lost. */
static enum cad_status check_output(const char *path, struct cad_error *error)
{
	struct cad_file_writer writer;
	enum cad_status status = cad_file_writer_open(&writer, path, error);

	if (status == CAD_OK)
		cad_file_writer_abandon(&writer);
	return status;
}

int cl_eval(int argc, char **argv)
{
	struct options options;
	struct cad_options *parsed;
	int exit_code;

	if (!cad_options_main(&spec, argc, argv, &options, &parsed, &exit_code))
		return exit_code;

	struct cl_evaluation eval = { 0 };
	struct cad_error error;
	struct em_options embedded = cl_engine_embedded(&options.engine);
	embedded.model = options.model;
	enum cad_status status = cl_evaluation_read(options.input, &eval, &error);
	if (status == CAD_OK)
		status = check_output(options.output, &error);
	if (status == CAD_OK)
		status = cl_evaluation_run(&eval, &embedded, &error);
	if (status == CAD_OK)
		status = write_output(&eval, options.output, &error);
	exit_code = status == CAD_OK ? CL_EXIT_OK : cl_fail("eval", &error);
	cl_evaluation_fini(&eval);
	cad_options_destroy(parsed);

	return exit_code;
}
