/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any text as config.json, and what stands behind a line of "---" as generation_config.json:
 * refused with a sentence, or a spec within the limits that spec.h states, whose rotary frequencies
 * are numbers.
 */
#include "common/base/log.h"
#include "common/model/config.h"

#include <math.h>
#include <string.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

/* Warnings about every other text would be all that it does. */
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	cad_log_setup(CAD_LOG_ERROR, CAD_LOG_LOGFMT);
	return 0;
}

static void check_gate(const struct cad_gate_spec *gate)
{
	CAD_ASSERT(gate->experts <= CAD_EXPERTS_MAX && gate->topk >= 1 && gate->topk <= CAD_TOPK_MAX &&
		gate->topk <= gate->experts);
	CAD_ASSERT(gate->groups >= 1 && gate->experts % gate->groups == 0 && gate->groups_kept >= 1 &&
		gate->groups_kept <= gate->groups);
	CAD_ASSERT(gate->topk <= gate->groups_kept * (gate->experts / gate->groups));
	CAD_ASSERT(isfinite(gate->scale) && gate->scale > 0);
}

static void check_attention(const struct cad_attention_spec *a)
{
	CAD_ASSERT(a->heads >= 1 && a->kv_heads >= 1 && a->heads <= CAD_HEADS_MAX && a->heads % a->kv_heads == 0);
	CAD_ASSERT(a->head_size >= 2 && a->head_size <= CAD_HEAD_SIZE_MAX && a->value_size >= 1 &&
		a->value_size <= CAD_HEAD_SIZE_MAX);
	CAD_ASSERT(isfinite(a->scale) && a->scale > 0 && a->clip_qkv >= 0 && isfinite(a->clip_qkv));
}

static void check_rope(const struct cad_rope_spec *rope)
{
	CAD_ASSERT(rope->size >= 2 && rope->size <= CAD_HEAD_SIZE_MAX && rope->size % 2 == 0);
	CAD_ASSERT(isfinite(rope->attention_factor) && rope->attention_factor > 0);
	float inv_freq[CAD_HEAD_SIZE_MAX / 2];
	static const uint32_t lengths[] = { 1, CAD_POSITIONS_MAX };
	for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++) {
		cad_rope_inv_freq(rope, cad_rope_rotation(rope, lengths[l]), inv_freq);
		for (uint32_t i = 0; i < rope->size / 2; i++)
			CAD_ASSERT(isfinite(inv_freq[i]) && inv_freq[i] >= 0 &&
				inv_freq[i] <= (rope->kind == CAD_ROPE_LONGROPE ? 100.01f : 1));
	}
}

static void check_layers(const struct cad_model_spec *spec)
{
	CAD_ASSERT(spec->attentions_count >= 1 && spec->attentions_count <= CAD_ATTENTIONS_MAX);
	CAD_ASSERT(spec->ropes_count >= 1 && spec->ropes_count <= CAD_ROPES_MAX);
	for (uint32_t i = 0; i < spec->attentions_count; i++)
		check_attention(&spec->attentions[i]);
	for (uint32_t i = 0; i < spec->ropes_count; i++) {
		check_rope(&spec->ropes[i]);
		CAD_ASSERT(spec->ropes_count == 1 || !cad_rope_varies(&spec->ropes[i]));
	}
	for (uint32_t i = 0; i < spec->layers_count; i++) {
		CAD_ASSERT(spec->layers[i].attention_at < spec->attentions_count &&
			spec->layers[i].rope_at < spec->ropes_count);
		CAD_ASSERT(!spec->layers[i].rope || cad_rope_of(spec, i)->size <= cad_attention_of(spec, i)->head_size);
	}
}

static void check(const struct cad_model_spec *spec)
{
	CAD_ASSERT(spec->hidden >= 1 && spec->hidden <= CAD_HIDDEN_MAX && spec->vocab >= 1 &&
		spec->vocab <= CAD_VOCAB_MAX);
	CAD_ASSERT(spec->layers && spec->layers_count >= 1 && spec->layers_count <= CAD_LAYERS_MAX);
	CAD_ASSERT(spec->positions_max >= 1 && spec->positions_max <= CAD_POSITIONS_MAX);
	check_layers(spec);
	CAD_ASSERT(isfinite(spec->norm_epsilon) && spec->norm_epsilon > 0);
	uint32_t moe = cad_model_spec_moe_layers(spec);
	CAD_ASSERT((moe > 0) == (spec->gate.experts > 0) && (moe > 0) == (spec->expert.size > 0) &&
		(moe < spec->layers_count) == (spec->dense.size > 0));
	if (moe)
		check_gate(&spec->gate);
	CAD_ASSERT(spec->expert.size <= CAD_FFN_MAX && spec->dense.size <= CAD_FFN_MAX &&
		spec->shared.size <= CAD_FFN_MAX);
	CAD_ASSERT(
		spec->eos_ids_count <= CAD_STOP_IDS_MAX && spec->bos_id >= -1 && spec->bos_id < (int32_t)spec->vocab);
	for (uint32_t i = 0; i < spec->eos_ids_count; i++)
		CAD_ASSERT(spec->eos_ids[i] >= 0 && spec->eos_ids[i] < (int32_t)spec->vocab);
	CAD_ASSERT(spec->context_max >= spec->positions_max && spec->context_max <= CAD_POSITIONS_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	static const char line[] = "\n---\n";
	const char *config = (const char *)bytes, *generation = memmem(bytes, size, line, sizeof line - 1);
	size_t config_bytes = size, generation_bytes = 0;

	if (generation) {
		config_bytes = (size_t)(generation - config);
		generation += sizeof line - 1;
		generation_bytes = size - config_bytes - (sizeof line - 1);
	}

	struct cad_model_spec spec;
	struct cad_error error;
	if (cad_model_spec_parse(
		    "fuzz/config.json", config, config_bytes, generation, generation_bytes, &spec, &error) == CAD_OK) {
		check(&spec);
		cad_model_spec_fini(&spec);
	} else {
		CAD_ASSERT(error.status < 0 && strlen(error.text) > 0);
	}

	return 0;
}
