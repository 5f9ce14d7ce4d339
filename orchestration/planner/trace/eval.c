/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What `cadrectl eval` writes (safetensors): of sequence i, experts.i i32 [layers, tokens, k] and
 * expert_weights.i f32 beside it, in ascending order of experts, and router_logits.i, whose last
 * dimension is the number of experts. Every sequence is a request; its experts are put in order of
 * selection, by falling weight.
 */
#include "orchestration/planner/trace/eval.h"

#include "common/model/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct sequence {
	struct cad_tensor experts, weights, logits;
};

static bool find_sequence(const struct cad_safetensors *file, size_t index, struct sequence *sequence)
{
	char name[40];
	snprintf(name, sizeof name, "experts.%zu", index);
	sequence->experts = cad_safetensors_find(file, name);
	snprintf(name, sizeof name, "expert_weights.%zu", index);
	sequence->weights = cad_safetensors_find(file, name);
	snprintf(name, sizeof name, "router_logits.%zu", index);
	sequence->logits = cad_safetensors_find(file, name);
	return sequence->experts.data != NULL;
}

static enum cad_status check_sequence(
	const struct sequence *s, const struct sequence *first, size_t index, struct cad_error *error)
{
	const struct cad_tensor *experts = &s->experts, *weights = &s->weights, *logits = &s->logits;
	bool good = weights->data && logits->data && experts->dtype == CAD_DTYPE_I32 &&
		weights->dtype == CAD_DTYPE_F32 && experts->rank == 3 && weights->rank == 3 && logits->rank == 3 &&
		memcmp(experts->shape, weights->shape, 3 * sizeof experts->shape[0]) == 0 &&
		experts->shape[0] == logits->shape[0] && experts->shape[1] == logits->shape[1] &&
		experts->shape[0] == first->experts.shape[0] && experts->shape[2] == first->experts.shape[2] &&
		logits->shape[2] == first->logits.shape[2];
	return good
		? CAD_OK
		: cad_error_set(error, CAD_ERR_CORRUPT,
			  "experts.%zu, expert_weights.%zu and router_logits.%zu do not fit together, or not those of sequence 0",
			  index, index, index);
}

/* One token of one layer, by falling weight; equal weights by ascending expert. */
static enum cad_status read_cell(const struct sequence *s, uint64_t cell, uint32_t k, uint32_t experts, uint16_t *ids,
	float *scores, struct cad_error *error)
{
	for (uint32_t i = 0; i < k; i++) {
		int32_t id;
		float score;
		memcpy(&id, (const char *)s->experts.data + (cell * k + i) * sizeof id, sizeof id);
		memcpy(&score, (const char *)s->weights.data + (cell * k + i) * sizeof score, sizeof score);
		if (id < 0 || id >= PL_TRACE_EXPERTS_MAX)
			return cad_error_set(error, CAD_ERR_CORRUPT, "expert %d, but there are %u", id, experts);
		uint32_t place = i;
		for (; place > 0 && score > scores[place - 1]; place--) {
			ids[place] = ids[place - 1];
			scores[place] = scores[place - 1];
		}
		ids[place] = (uint16_t)id;
		scores[place] = score;
	}
	return pl_trace_check_cell(ids, k, experts, error);
}

static enum cad_status read_sequence(
	const struct sequence *s, size_t index, uint64_t begin, struct pl_trace *trace, struct cad_error *error)
{
	uint64_t tokens = s->experts.shape[1];
	for (uint32_t layer = 0; layer < trace->layers; layer++)
		for (uint64_t token = 0; token < tokens; token++) {
			uint16_t *ids = pl_trace_cell(trace, layer, begin + token);
			enum cad_status status = read_cell(s, layer * tokens + token, trace->k, trace->experts, ids,
				trace->scores + (ids - trace->ids), error);
			if (status != CAD_OK)
				return cad_error_prefix(error, "experts.%zu, layer %u, token %llu", index, layer,
					(unsigned long long)token);
		}
	for (uint64_t token = 0; token < tokens; token++)
		trace->request[begin + token] = begin ? trace->request[begin - 1] + 1 : 0;

	return CAD_OK;
}

static enum cad_status read_file(
	const struct cad_safetensors *file, uint64_t cells_max, struct pl_trace **trace, struct cad_error *error)
{
	struct sequence first, s;
	struct pl_trace *made;
	uint64_t tokens = 0;

	if (!find_sequence(file, 0, &first))
		return cad_error_set(error, CAD_ERR_CORRUPT,
			"there is no tensor experts.0: this is not the output of 'cadrectl eval' for a model with experts");
	for (size_t i = 0; find_sequence(file, i, &s); i++) {
		enum cad_status status = check_sequence(&s, &first, i, error);
		if (status != CAD_OK)
			return status;
		/* no sum of these overflows: each has 4 bytes in the file or more, or is checked
		 * below */
		tokens += s.experts.shape[1];
	}

	uint64_t layers = first.experts.shape[0], k = first.experts.shape[2], experts = first.logits.shape[2];
	if (layers > PL_TRACE_LAYERS_MAX || k > PL_TRACE_TOPK_MAX || experts > PL_TRACE_EXPERTS_MAX)
		return cad_error_set(error, CAD_ERR_EXHAUSTED,
			"%llu layers, %llu experts, %llu per token: more than a trace can have",
			(unsigned long long)layers, (unsigned long long)experts, (unsigned long long)k);
	if (layers && k && tokens > cells_max / layers / k)
		return cad_error_set(error, CAD_ERR_EXHAUSTED, "more than %llu tokens; split the trace",
			(unsigned long long)(cells_max / layers / k));
	enum cad_status status =
		pl_trace_create((uint32_t)layers, (uint32_t)experts, (uint32_t)k, tokens, true, &made, error);
	if (status != CAD_OK)
		return status;
	uint64_t begin = 0;
	for (size_t i = 0; status == CAD_OK && find_sequence(file, i, &s); i++) {
		status = read_sequence(&s, i, begin, made, error);
		begin += s.experts.shape[1];
	}

	if (status != CAD_OK)
		pl_trace_free(made);
	else
		*trace = made;
	return status;
}

enum cad_status pl_trace_decode_eval(const uint8_t *bytes, size_t size, const struct pl_trace_source *source,
	struct pl_trace **trace, struct cad_error *error)
{
	struct cad_safetensors *file;
	enum cad_status status = cad_safetensors_open_memory("safetensors", bytes, size, &file, error);
	if (status != CAD_OK)
		return status;
	status = read_file(file, source->cells_max, trace, error);
	cad_safetensors_close(file);
	return status;
}
