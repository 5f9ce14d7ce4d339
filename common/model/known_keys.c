/* SPDX-License-Identifier: Apache-2.0 */
#include "common/model/known_keys.h"

#include "common/base/json.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* clang-format off */
static const struct cad_known_key common_keys[] = {
	CAD_READ("model_type"),
	CAD_READ("hidden_size"),
	CAD_READ("vocab_size"),
	CAD_READ("num_hidden_layers"),
	CAD_READ("max_position_embeddings"),
	CAD_READ("rms_norm_eps"),
	CAD_READ("tie_word_embeddings"),
	CAD_READ("dtype"),
	CAD_READ("torch_dtype"),
	CAD_READ("hidden_act"),
	CAD_READ("quantization_config"),
	CAD_READ("bos_token_id"),
	CAD_READ("eos_token_id"),
	CAD_READ("num_attention_heads"),
	CAD_READ("num_key_value_heads"),
	CAD_READ("head_dim"),
	CAD_READ("intermediate_size"),
	CAD_READ("layer_types"),
	CAD_READ("rope_theta"),
	CAD_READ("rope_scaling"),
	CAD_READ("rope_parameters"),
	CAD_READ("partial_rotary_factor"),
	CAD_READ("original_max_position_embeddings"),
	CAD_READ("rope_scaling.type"),
	CAD_READ("rope_scaling.rope_type"),
	CAD_READ("rope_scaling.rope_theta"),
	CAD_READ("rope_scaling.factor"),
	CAD_READ("rope_scaling.original_max_position_embeddings"),
	CAD_READ("rope_scaling.attention_factor"),
	CAD_READ("rope_scaling.beta_fast"),
	CAD_READ("rope_scaling.beta_slow"),
	CAD_READ("rope_scaling.mscale"),
	CAD_READ("rope_scaling.mscale_all_dim"),
	CAD_READ("rope_scaling.truncate"),
	CAD_READ("rope_scaling.short_factor"),
	CAD_READ("rope_scaling.long_factor"),
	CAD_READ("rope_scaling.low_freq_factor"),
	CAD_READ("rope_scaling.high_freq_factor"),
	CAD_READ("rope_scaling.partial_rotary_factor"),
	CAD_READ("rope_scaling.full_attention"),
	CAD_READ("rope_scaling.sliding_attention"),
	CAD_READ("quantization_config.quant_method"),
	CAD_READ("quantization_config.weight_block_size"),
	CAD_READ("quantization_config.fmt"),
	CAD_NO_USE("architectures", CAD_KEY_ORIGIN),
	CAD_NO_USE("transformers_version", CAD_KEY_ORIGIN),
	CAD_NO_USE("auto_map", CAD_KEY_ORIGIN),
	CAD_NO_USE("_name_or_path", CAD_KEY_ORIGIN),
	CAD_NO_USE("name_or_path", CAD_KEY_ORIGIN),
	CAD_NO_USE("_commit_hash", CAD_KEY_ORIGIN),
	CAD_NO_USE("finetuning_task", CAD_KEY_ORIGIN),
	CAD_NO_USE("task_specific_params", CAD_KEY_ORIGIN),
	CAD_NO_USE("tokenizer_class", CAD_KEY_ORIGIN),
	CAD_NO_USE("prefix", CAD_KEY_ORIGIN),
	CAD_NO_USE("model_max_length", CAD_KEY_ORIGIN),
	CAD_NO_USE("max_sequence_length", CAD_KEY_ORIGIN),
	CAD_NO_USE("unsloth_fixed", CAD_KEY_ORIGIN),
	CAD_NO_USE("unsloth_version", CAD_KEY_ORIGIN),
	CAD_NO_USE("initializer_range", CAD_KEY_TRAINING),
	CAD_NO_USE("attention_dropout", CAD_KEY_TRAINING),
	CAD_NO_USE("hidden_dropout", CAD_KEY_TRAINING),
	CAD_NO_USE("resid_pdrop", CAD_KEY_TRAINING),
	CAD_NO_USE("embd_pdrop", CAD_KEY_TRAINING),
	CAD_NO_USE("classifier_dropout", CAD_KEY_TRAINING),
	CAD_NO_USE("gradient_checkpointing", CAD_KEY_TRAINING),
	CAD_NO_USE("_gradient_checkpointing", CAD_KEY_TRAINING),
	CAD_NO_USE("use_cache", CAD_KEY_LIBRARY),
	CAD_NO_USE("output_attentions", CAD_KEY_LIBRARY),
	CAD_NO_USE("output_hidden_states", CAD_KEY_LIBRARY),
	CAD_NO_USE("return_dict", CAD_KEY_LIBRARY),
	CAD_NO_USE("torchscript", CAD_KEY_LIBRARY),
	CAD_NO_USE("use_bfloat16", CAD_KEY_LIBRARY),
	CAD_NO_USE("tf_legacy_loss", CAD_KEY_LIBRARY),
	CAD_NO_USE("chunk_size_feed_forward", CAD_KEY_LIBRARY),
	CAD_NO_USE("attn_implementation", CAD_KEY_LIBRARY),
	CAD_NO_USE("_attn_implementation", CAD_KEY_LIBRARY),
	CAD_NO_USE("_attn_implementation_autoset", CAD_KEY_LIBRARY),
	CAD_NO_USE("experts_implementation", CAD_KEY_LIBRARY),
	CAD_NO_USE("_experts_implementation", CAD_KEY_LIBRARY),
	CAD_NO_USE("id2label", CAD_KEY_LABELS),
	CAD_NO_USE("label2id", CAD_KEY_LABELS),
	CAD_NO_USE("num_labels", CAD_KEY_LABELS),
	CAD_NO_USE("problem_type", CAD_KEY_LABELS),
	CAD_NO_USE("pad_token_id", CAD_KEY_NO_TEXT),
	CAD_NO_USE("sep_token_id", CAD_KEY_NO_TEXT),
	CAD_NO_USE("decoder_start_token_id", CAD_KEY_NO_TEXT),
	CAD_NO_USE("max_length", CAD_KEY_GENERATION),
	CAD_NO_USE("min_length", CAD_KEY_GENERATION),
	CAD_NO_USE("do_sample", CAD_KEY_GENERATION),
	CAD_NO_USE("early_stopping", CAD_KEY_GENERATION),
	CAD_NO_USE("num_beams", CAD_KEY_GENERATION),
	CAD_NO_USE("num_beam_groups", CAD_KEY_GENERATION),
	CAD_NO_USE("diversity_penalty", CAD_KEY_GENERATION),
	CAD_NO_USE("temperature", CAD_KEY_GENERATION),
	CAD_NO_USE("top_k", CAD_KEY_GENERATION),
	CAD_NO_USE("top_p", CAD_KEY_GENERATION),
	CAD_NO_USE("typical_p", CAD_KEY_GENERATION),
	CAD_NO_USE("repetition_penalty", CAD_KEY_GENERATION),
	CAD_NO_USE("length_penalty", CAD_KEY_GENERATION),
	CAD_NO_USE("no_repeat_ngram_size", CAD_KEY_GENERATION),
	CAD_NO_USE("encoder_no_repeat_ngram_size", CAD_KEY_GENERATION),
	CAD_NO_USE("encoder_repetition_penalty", CAD_KEY_GENERATION),
	CAD_NO_USE("bad_words_ids", CAD_KEY_GENERATION),
	CAD_NO_USE("num_return_sequences", CAD_KEY_GENERATION),
	CAD_NO_USE("output_scores", CAD_KEY_GENERATION),
	CAD_NO_USE("return_dict_in_generate", CAD_KEY_GENERATION),
	CAD_NO_USE("forced_bos_token_id", CAD_KEY_GENERATION),
	CAD_NO_USE("forced_eos_token_id", CAD_KEY_GENERATION),
	CAD_NO_USE("remove_invalid_values", CAD_KEY_GENERATION),
	CAD_NO_USE("exponential_decay_length_penalty", CAD_KEY_GENERATION),
	CAD_NO_USE("suppress_tokens", CAD_KEY_GENERATION),
	CAD_NO_USE("begin_suppress_tokens", CAD_KEY_GENERATION),
	CAD_NO_USE("epsilon_cutoff", CAD_KEY_GENERATION),
	CAD_NO_USE("eta_cutoff", CAD_KEY_GENERATION),
	CAD_NO_USE("num_assistant_tokens", CAD_KEY_GENERATION),
	CAD_NO_USE("num_assistant_tokens_schedule", CAD_KEY_GENERATION),
	CAD_NO_USE("assistant_confidence_threshold", CAD_KEY_GENERATION),
	CAD_NO_USE("assistant_lookbehind", CAD_KEY_GENERATION),
	CAD_NO_USE("target_lookbehind", CAD_KEY_GENERATION),
	CAD_ONLY("is_causal", "every position sees those before it", "true"),
	CAD_NO_USE("is_decoder", CAD_KEY_UNREAD),
	CAD_ONLY("is_encoder_decoder", CAD_KEY_NO_ENCODER, "false"),
	CAD_ONLY("add_cross_attention", CAD_KEY_NO_ENCODER, "false"),
	CAD_ONLY("tie_encoder_decoder", CAD_KEY_NO_ENCODER, "false"),
	CAD_ONLY("pruned_heads", "no head is missing", "{}"),
	CAD_NO_USE("rope_scaling.finetuned", CAD_KEY_ORIGIN),
	CAD_NO_USE("quantization_config.activation_scheme", "activations are as --numerics says"),
	CAD_NO_USE("quantization_config.scale_fmt", "the tensors say it"),
	CAD_NO_USE("quantization_config.modules_to_not_convert", "the tensors say it"),
	CAD_NO_USE("quantization_config.ignored_layers", "the tensors say it"),
	CAD_NO_USE("quantization_config.dequantize", CAD_KEY_LIBRARY),
	CAD_ONLY("quantization_config.expert_dtype", "as the others are", "\"fp8\""),
};

static const struct cad_known_key expert_keys[] = {
	CAD_READ("num_local_experts"),
	CAD_READ("num_experts"),
	CAD_READ("n_routed_experts"),
	CAD_READ("num_experts_per_tok"),
	CAD_READ("experts_per_token"),
	CAD_READ("moe_num_experts"),
	CAD_READ("moe_k"),
	CAD_NO_USE("output_router_logits", CAD_KEY_TRAINING),
	CAD_NO_USE("router_aux_loss_coef", CAD_KEY_TRAINING),
	CAD_NO_USE("router_z_loss_coef", CAD_KEY_TRAINING),
	CAD_NO_USE("router_jitter_noise", CAD_KEY_TRAINING),
};
/* clang-format on */

const struct cad_known_key *cad_known_keys(size_t *count)
{
	*count = sizeof common_keys / sizeof *common_keys;
	return common_keys;
}

const struct cad_known_key *cad_known_expert_keys(size_t *count)
{
	*count = sizeof expert_keys / sizeof *expert_keys;
	return expert_keys;
}

static const struct cad_known_key *find_in(
	const struct cad_known_key *keys, size_t count, const char *inside, const char *key)
{
	size_t length = strlen(inside);

	for (size_t i = 0; i < count; i++)
		if (strncmp(keys[i].key, inside, length) == 0 && strcmp(keys[i].key + length, key) == 0)
			return &keys[i];
	return NULL;
}

const struct cad_known_key *cad_known_key_find(const struct cad_arch *arch, const char *inside, const char *key)
{
	size_t count;
	const struct cad_known_key *keys = cad_known_keys(&count),
				   *found = find_in(arch->keys, arch->keys_count, inside, key);

	if (!found)
		found = find_in(keys, count, inside, key);
	keys = cad_known_expert_keys(&count);
	return found || arch->dense ? found : find_in(keys, count, inside, key);
}

static bool is_value(const json_t *value, const char *text)
{
	json_t *other = json_loads(text, JSON_DECODE_ANY, NULL);
	bool equal = other && json_equal(value, other);
	json_decref(other);
	return equal;
}

/* Nothing, off, without a limit: what a key stands at in a file that does not want what it is for. */
static bool says_nothing(const json_t *value)
{
	if (json_is_string(value))
		return json_string_length(value) == 0;
	if (json_is_array(value)) {
		bool nothing = json_array_size(value) == 0;
		size_t i;
		const json_t *item;
		json_array_foreach(value, i, item)
		{
			bool item_says_nothing = !json_is_array(item) && says_nothing(item);
			if (!item_says_nothing && !(json_is_number(item) && json_number_value(item) == 0))
				return false;
			nothing = nothing || item_says_nothing;
		}
		return nothing;
	}
	return json_is_null(value) || json_is_false(value) || cad_json_not_finite(value) ||
		fabs(json_real_value(value)) >= 0x1p63 || (json_is_object(value) && json_object_size(value) == 0);
}

static void refuse(const struct cad_keys *keys, const char *key, const char *family)
{
	enum { NAME_BYTES = 64 };
	char name[NAME_BYTES + 1];
	size_t length = 0;

	for (; key[length] && length < NAME_BYTES; length++)
		name[length] = key[length] > ' ' && key[length] < 0x7f ? key[length] : '?';
	name[length] = 0;
	cad_keys_fail(keys, CAD_ERR_UNSUPPORTED, name,
		"is a key that is not known for model_type '%s', and may change what is computed: take it out of the file if it does not (docs/CONFIG.md)",
		family);
}

void cad_known_keys_check(const struct cad_keys *keys, const char *inside, const struct cad_arch *arch)
{
	const char *key;
	const json_t *value;

	json_object_foreach((json_t *)keys->object, key, value)
	{
		const struct cad_known_key *entry = cad_known_key_find(arch, inside, key);
		bool good = entry && entry->only ? json_is_null(value) || is_value(value, entry->only)
						 : entry || says_nothing(value);
		if (!good)
			refuse(keys, key, arch->name);
	}
}
