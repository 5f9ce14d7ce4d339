/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/cli/evaluation.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static enum cad_status read_sequence(
	const json_t *ids, size_t index, struct cl_sequence *sequence, const char *path, struct cad_error *error)
{
	size_t count = json_array_size(ids);
	if (!json_is_array(ids) || count == 0 || count > UINT32_MAX / 2)
		return cad_error_set(
			error, CAD_ERR_CORRUPT, "%s: sequences[%zu] is not an array with token ids", path, index);
	sequence->tokens = malloc(count * sizeof *sequence->tokens);
	if (!sequence->tokens)
		return cad_error_set(error, CAD_ERR_MEMORY, "no memory for %zu tokens", count);

	for (size_t i = 0; i < count; i++) {
		const json_t *id = json_array_get(ids, i);
		json_int_t value = json_integer_value(id);
		if (!json_is_integer(id) || value < 0 || value > INT32_MAX)
			return cad_error_set(
				error, CAD_ERR_CORRUPT, "%s: sequences[%zu][%zu] is not a token id", path, index, i);
		sequence->tokens[i] = (int32_t)value;
	}

	sequence->count = (uint32_t)count;
	return CAD_OK;
}

enum cad_status cl_evaluation_read(const char *path, struct cl_evaluation *eval, struct cad_error *error)
{
	json_error_t json_error;
	json_t *root = json_load_file(path, 0, &json_error);

	/* "unable to open PATH: why" */
	if (!root && json_error.line < 1)
		return cad_error_set(error, CAD_ERR_NOT_FOUND, "%s", json_error.text);
	if (!root)
		return cad_error_set(
			error, CAD_ERR_CORRUPT, "%s: %s (line %d)", path, json_error.text, json_error.line);
	const json_t *sequences = json_object_get(root, "sequences"), *greedy = json_object_get(root, "greedy_tokens");
	enum cad_status status = CAD_OK;
	if (!json_is_array(sequences) || json_array_size(sequences) == 0)
		status = cad_error_set(
			error, CAD_ERR_CORRUPT, "%s: \"sequences\" is not an array with at least one sequence", path);
	else if (greedy &&
		(!json_is_integer(greedy) || json_integer_value(greedy) < 0 || json_integer_value(greedy) > 1 << 20))
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

static void free_results(struct cl_sequence *s)
{
	free(s->logits);
	free(s->router_logits);
	free(s->experts);
	free(s->weights);
	free(s->greedy);
	*s = (struct cl_sequence){ .tokens = s->tokens, .count = s->count };
}

static bool allocate(const struct cl_evaluation *eval, struct cl_sequence *s)
{
	size_t n = s->count, slots = (size_t)eval->layers * n * eval->topk;
	free_results(s);
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

static void take_logits(const struct cl_evaluation *eval, struct cl_sequence *s, const struct rt_event *event)
{
	for (uint32_t r = 0; r < event->rows && event->first_position + r < s->count; r++) {
		size_t position = event->first_position + r;
		memcpy(s->logits + position * eval->vocab, event->logits + (size_t)r * event->logits_stride,
			eval->vocab * sizeof *s->logits);
		for (uint32_t layer = 0; layer < eval->layers; layer++) {
			size_t from = (size_t)layer * event->layer_stride + r, to = (size_t)layer * s->count + position;
			memcpy(s->router_logits + to * eval->experts, event->router_logits + from * eval->experts,
				eval->experts * sizeof *s->router_logits);
			memcpy(s->experts + to * eval->topk, event->ids + from * eval->topk,
				eval->topk * sizeof *s->experts);
			memcpy(s->weights + to * eval->topk, event->weights + from * eval->topk,
				eval->topk * sizeof *s->weights);
			sort_choice(s->experts + to * eval->topk, s->weights + to * eval->topk, eval->topk);
		}
	}
}

static void on_event(void *user, const struct rt_event *event)
{
	struct cl_evaluation *eval = user;
	struct cl_sequence *s = event->context;

	if (event->kind == RT_EVENT_LOGITS)
		take_logits(eval, s, event);
	if (event->kind == RT_EVENT_TOKEN && s->greedy_count < eval->greedy_tokens)
		s->greedy[s->greedy_count++] = event->token;
	if (event->kind != RT_EVENT_FINISHED && event->kind != RT_EVENT_FAILED)
		return;
	eval->ended++;
	if (event->kind == RT_EVENT_FAILED && eval->status == CAD_OK)
		eval->status = cad_error_set(
			&eval->error, event->status, "sequence %zu: %s", (size_t)(s - eval->sequences), event->text);
}

static enum cad_status compute(struct cl_evaluation *eval, struct em_embedded *em, struct cad_error *error)
{
	const struct cad_model_spec *model = cad_model_spec(em_model(em));
	eval->vocab = model->vocab;
	eval->layers = cad_model_spec_moe_layers(model);
	eval->experts = model->gate.experts;
	eval->topk = model->gate.topk;
	eval->ended = 0;
	eval->status = CAD_OK;

	for (size_t i = 0; i < eval->count; i++) {
		struct cl_sequence *s = &eval->sequences[i];
		if (!allocate(eval, s))
			return cad_error_set(error, CAD_ERR_MEMORY, "no memory for the results of sequence %zu", i);
		uint64_t id;
		struct rt_request request = {
			.prompt = s->tokens,
			.prompt_count = s->count,
			.max_tokens = eval->greedy_tokens > 0 ? eval->greedy_tokens : 1,
			.ignore_eos = true,
			.want_logits = true,
			.context = s,
		};
		enum cad_status status;
		while ((status = rt_engine_submit(em_router(em), &request, &id, error)) == CAD_ERR_EXHAUSTED)
			rt_engine_turn(em_router(em), 0);
		if (status != CAD_OK)
			return cad_error_prefix(error, "sequence %zu", i);
	}

	while (eval->ended < eval->count)
		rt_engine_turn(em_router(em), cad_clock_now_ns(rt_engine_clock(em_router(em))) + CAD_NS_PER_MS);
	return eval->status == CAD_OK ? CAD_OK : cad_error_set(error, eval->status, "%s", eval->error.text);
}

/* Whoever writes the sequences down knows how long they are: no other limit holds here. */
static uint32_t longest(const struct cl_evaluation *eval)
{
	uint64_t most = 0;
	for (size_t i = 0; i < eval->count; i++) {
		uint64_t tokens = (uint64_t)eval->sequences[i].count + eval->greedy_tokens + 1;
		most = tokens > most ? tokens : most;
	}
	return most < CAD_POSITIONS_MAX ? (uint32_t)most : CAD_POSITIONS_MAX;
}

enum cad_status cl_evaluation_run(struct cl_evaluation *eval, const struct em_options *options, struct cad_error *error)
{
	struct em_options embedded = *options;
	struct em_embedded *em = NULL;

	embedded.router.on_event = on_event;
	embedded.router.user = eval;
	embedded.router.keep_logits = true;
	embedded.router.context_max = longest(eval);
	enum cad_status status = em_create(&embedded, &em, error);
	if (status == CAD_OK)
		status = compute(eval, em, error);
	if (status != CAD_OK && em)
		em_blame(em, error);
	em_destroy(em);
	return status;
}

void cl_evaluation_fini(struct cl_evaluation *eval)
{
	for (size_t i = 0; eval->sequences && i < eval->count; i++) {
		free_results(&eval->sequences[i]);
		free(eval->sequences[i].tokens);
	}
	free(eval->sequences);
	*eval = (struct cl_evaluation){ 0 };
}
