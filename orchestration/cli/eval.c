#include "orchestration/cli/eval.h"

#include "common/model/safetensors.h"
#include "orchestration/cli/run_options.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct options {
	const char *model, *input, *output;
	struct cl_engine engine;
};

static const struct cad_option table[] = {
	CAD_OPTION_STRING(struct options, model, "model", NULL, "directory of the checkpoint"),
	CAD_OPTION_STRING(struct options, input, "input", NULL, "JSON file with the sequences"),
	CAD_OPTION_STRING(struct options, output, "output", NULL, "safetensors file to write"),
	CL_ENGINE_OPTIONS(struct options, engine),
};
static const struct cad_options_spec spec = {
	.program = "cadrectl eval",
	.summary = "Computes whole sequences with the embedded engine and writes logits, routing and greedy continuations.",
	.table = table,
	.count = sizeof table / sizeof *table,
};

/* One sequence and what comes of it. */
struct sequence {
	int32_t *tokens, *experts, *greedy;
	uint32_t count, greedy_count;
	float *logits, *router_logits, *weights;
	bool ended;
};

struct eval {
	struct sequence *sequences;
	size_t count, ended;
	uint32_t greedy_tokens, vocab, layers, experts, topk;
	enum cad_status status;      /* of the first sequence that failed */
	struct cad_error error;
};

static enum cad_status read_sequence(const json_t *ids, size_t index, struct sequence *sequence, const char *path, struct cad_error *error)
{
	size_t count = json_array_size(ids);
	if (!json_is_array(ids) || count == 0 || count > UINT32_MAX / 2)
		return cad_error_set(error, CAD_ERR_CORRUPT, "%s: sequences[%zu] is not an array with token ids", path, index);
	sequence->tokens = malloc(count * sizeof *sequence->tokens);
	if (!sequence->tokens)
		return cad_error_set(error, CAD_ERR_MEMORY, "no memory for %zu tokens", count);
	for (size_t i = 0; i < count; i++) {
		const json_t *id = json_array_get(ids, i);
		json_int_t value = json_integer_value(id);
		if (!json_is_integer(id) || value < 0 || value > INT32_MAX)
			return cad_error_set(error, CAD_ERR_CORRUPT, "%s: sequences[%zu][%zu] is not a token id", path, index, i);
		sequence->tokens[i] = (int32_t)value;
	}
	sequence->count = (uint32_t)count;
	return CAD_OK;
}

static enum cad_status read_input(const char *path, struct eval *eval, struct cad_error *error)
{
	json_error_t json_error;
	json_t *root = json_load_file(path, 0, &json_error);
	if (!root)
		return cad_error_set(error, CAD_ERR_CORRUPT, "%s: %s (line %d)", path, json_error.text, json_error.line);
	const json_t *sequences = json_object_get(root, "sequences"), *greedy = json_object_get(root, "greedy_tokens");
	enum cad_status status = CAD_OK;
	if (!json_is_array(sequences) || json_array_size(sequences) == 0)
		status = cad_error_set(error, CAD_ERR_CORRUPT, "%s: \"sequences\" is not an array with at least one sequence", path);
	else if (greedy && (!json_is_integer(greedy) || json_integer_value(greedy) < 0 || json_integer_value(greedy) > 1 << 20))
		status = cad_error_set(error, CAD_ERR_CORRUPT, "%s: \"greedy_tokens\" is not a count", path);
	eval->count = json_array_size(sequences);
	eval->greedy_tokens = (uint32_t)json_integer_value(greedy);
	eval->sequences = status == CAD_OK ? calloc(eval->count, sizeof *eval->sequences) : NULL;
	if (status == CAD_OK && !eval->sequences)
		status = cad_error_set(error, CAD_ERR_MEMORY, "no memory for %zu sequences", eval->count);
	for (size_t i = 0; status == CAD_OK && i < eval->count; i++)
		status = read_sequence(json_array_get(sequences, i), i, &eval->sequences[i], path, error);
	json_decref(root);
	return status;
}

static bool allocate(const struct eval *eval, struct sequence *s)
{
	size_t n = s->count, slots = (size_t)eval->layers * n * eval->topk;
	s->logits = malloc(n * eval->vocab * sizeof *s->logits);
	s->router_logits = malloc(((size_t)eval->layers * n * eval->experts + 1) * sizeof *s->router_logits);
	s->experts = malloc((slots + 1) * sizeof *s->experts);
	s->weights = malloc((slots + 1) * sizeof *s->weights);
	s->greedy = calloc(eval->greedy_tokens + 1, sizeof *s->greedy);
	return s->logits && s->router_logits && s->experts && s->weights && s->greedy;
}

/* One row's choice, ascending by expert. */
static void sort_choice(int32_t *ids, float *weights, uint32_t k)
{
	for (uint32_t i = 1; i < k; i++)
		for (uint32_t j = i; j > 0 && ids[j - 1] > ids[j]; j--) {
			int32_t id = ids[j];
			float weight = weights[j];
			ids[j] = ids[j - 1];
			weights[j] = weights[j - 1];
			ids[j - 1] = id;
			weights[j - 1] = weight;
		}
}

static void take_logits(const struct eval *eval, struct sequence *s, const struct rt_event *event)
{
	for (uint32_t r = 0; r < event->rows && event->first_position + r < s->count; r++) {
		size_t position = event->first_position + r;
		memcpy(s->logits + position * eval->vocab, event->logits + (size_t)r * event->logits_stride, eval->vocab * sizeof *s->logits);
		for (uint32_t layer = 0; layer < eval->layers; layer++) {
			size_t from = (size_t)layer * event->layer_stride + r, to = (size_t)layer * s->count + position;
			memcpy(s->router_logits + to * eval->experts, event->router_logits + from * eval->experts, eval->experts * sizeof *s->router_logits);
			memcpy(s->experts + to * eval->topk, event->ids + from * eval->topk, eval->topk * sizeof *s->experts);
			memcpy(s->weights + to * eval->topk, event->weights + from * eval->topk, eval->topk * sizeof *s->weights);
			sort_choice(s->experts + to * eval->topk, s->weights + to * eval->topk, eval->topk);
		}
	}
}

static void on_event(void *user, const struct rt_event *event)
{
	struct eval *eval = user;
	struct sequence *s = event->context;
	if (event->kind == RT_EVENT_LOGITS)
		take_logits(eval, s, event);
	if (event->kind == RT_EVENT_TOKEN && s->greedy_count < eval->greedy_tokens)
		s->greedy[s->greedy_count++] = event->token;
	if (event->kind != RT_EVENT_FINISHED && event->kind != RT_EVENT_FAILED)
		return;
	eval->ended++;
	if (event->kind == RT_EVENT_FAILED && eval->status == CAD_OK)
		eval->status = cad_error_set(&eval->error, event->status, "sequence %zu: %s", (size_t)(s - eval->sequences), event->text);
}

static enum cad_status write_output(const struct eval *eval, const char *path, struct cad_error *error)
{
	enum { TENSORS = 6, NAME_BYTES = 40 };
	struct cad_tensor *tensors = calloc(eval->count * TENSORS, sizeof *tensors);
	char(*names)[NAME_BYTES] = calloc(eval->count * TENSORS, sizeof *names);
	size_t count = 0;
	enum cad_status status = tensors && names ? CAD_OK : cad_error_set(error, CAD_ERR_MEMORY, "no memory for the list of tensors");
	for (size_t i = 0; status == CAD_OK && i < eval->count; i++) {
		const struct sequence *s = &eval->sequences[i];
		bool moe = eval->layers > 0;
		const struct { const char *name; const void *data; enum cad_dtype dtype; uint32_t rank; uint64_t shape[3]; } list[TENSORS] = {
			{ "tokens", s->tokens, CAD_DTYPE_I32, 1, { s->count } },
			{ "logits", s->logits, CAD_DTYPE_F32, 2, { s->count, eval->vocab } },
			{ "greedy", s->greedy, CAD_DTYPE_I32, 1, { eval->greedy_tokens } },
			{ "router_logits", s->router_logits, CAD_DTYPE_F32, 3, { eval->layers, s->count, eval->experts } },
			{ "experts", s->experts, CAD_DTYPE_I32, 3, { eval->layers, s->count, eval->topk } },
			{ "expert_weights", s->weights, CAD_DTYPE_F32, 3, { eval->layers, s->count, eval->topk } },
		};
		for (size_t t = 0; t < (moe ? TENSORS : 3); t++, count++) {
			snprintf(names[count], NAME_BYTES, "%s.%zu", list[t].name, i);
			tensors[count] = (struct cad_tensor){ .data = list[t].data, .dtype = list[t].dtype, .rank = list[t].rank, .name = names[count], .bytes = 4 };
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

static enum cad_status run(const struct options *options, struct eval *eval, struct em_embedded *em, struct cad_error *error)
{
	const struct cad_model_spec *model = cad_model_spec(em_model(em));
	eval->vocab = model->vocab;
	eval->layers = cad_model_spec_moe_layers(model);
	eval->experts = model->gate.experts;
	eval->topk = model->gate.topk;
	for (size_t i = 0; i < eval->count; i++) {
		struct sequence *s = &eval->sequences[i];
		if (!allocate(eval, s))
			return cad_error_set(error, CAD_ERR_MEMORY, "no memory for the results of sequence %zu", i);
		uint64_t id;
		struct rt_request request = { .prompt = s->tokens, .prompt_count = s->count, .max_tokens = eval->greedy_tokens > 0 ? eval->greedy_tokens : 1, .ignore_eos = true,
			.want_logits = true, .context = s };
		enum cad_status status;
		while ((status = rt_engine_submit(em_router(em), &request, &id, error)) == CAD_ERR_EXHAUSTED)
			rt_engine_turn(em_router(em), 0);
		if (status != CAD_OK)
			return cad_error_prefix(error, "%s: sequence %zu", options->input, i);
	}
	while (eval->ended < eval->count)
		rt_engine_turn(em_router(em), cad_clock_now_ns(rt_engine_clock(em_router(em))) + CAD_NS_PER_MS);
	if (eval->status != CAD_OK)
		return cad_error_set(error, eval->status, "%s", eval->error.text);
	return write_output(eval, options->output, error);
}

int cl_eval(int argc, char **argv)
{
	struct options options;
	struct cad_options *parsed;
	int exit_code;
	if (!cad_options_main(&spec, argc, argv, &options, &parsed, &exit_code))
		return exit_code;
	struct eval eval = { 0 };
	struct em_embedded *em = NULL;
	struct cad_error error;
	enum cad_status status = read_input(options.input, &eval, &error);
	if (status == CAD_OK) {
		struct em_options embedded = cl_engine_embedded(&options.engine);
		embedded.model = options.model;
		embedded.router.on_event = on_event;
		embedded.router.user = &eval;
		status = em_create(&embedded, &em, &error);
	}
	if (status == CAD_OK)
		status = run(&options, &eval, em, &error);
	if (status != CAD_OK)
		fprintf(stderr, "cadrectl eval: %s\n", error.text);
	em_destroy(em);
	for (size_t i = 0; eval.sequences && i < eval.count; i++) {
		struct sequence *s = &eval.sequences[i];
		free(s->tokens);
		free(s->logits);
		free(s->router_logits);
		free(s->experts);
		free(s->weights);
		free(s->greedy);
	}
	free(eval.sequences);
	cad_options_destroy(parsed);
	return status == CAD_OK ? 0 : 1;
}
