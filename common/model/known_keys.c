/* SPDX-License-Identifier: Apache-2.0 */
#include "common/model/known_keys.h"

#include "common/base/json.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* families that have them */
static const char EXPERTS[] = "-llama";
static const char GRANITE[] = "granitemoe granitemoeshared";
static const char ORIGIN[] = "says where the model comes from or what it is for";
static const char TRAINING[] = "training";
static const char LIBRARY[] = "how a library computes it, not what";
static const char LABELS[] = "classification";
static const char NO_TEXT[] = "a token that no text needs";
static const char GENERATION[] = "generation; a request says its own";
static const char UNREAD[] = "not read by these families";
static const char NO_MTP[] = "layers that predict further tokens are not used";
static const char ALWAYS[] = "it is so in this family";
static const char NO_ENCODER[] = "there is no encoder";

#define ALL NULL
#define READ(key, families) \
	{ \
		key, families, NULL, NULL \
	}
#define OF_NO_USE(key, families, why) \
	{ \
		key, families, why, NULL \
	}

/* clang-format off */
static const struct cad_known_key known[] = {
	/* read by all: config.c, config_rope.c, families/ */
	READ("model_type", ALL),
	READ("hidden_size", ALL),
	READ("vocab_size", ALL),
	READ("num_hidden_layers", ALL),
	READ("max_position_embeddings", ALL),
	READ("rms_norm_eps", ALL),
	READ("tie_word_embeddings", ALL),
	READ("dtype", ALL),
	READ("torch_dtype", ALL),
	READ("hidden_act", ALL),
	READ("quantization_config", ALL),
	READ("bos_token_id", ALL),
	READ("eos_token_id", ALL),
	READ("num_attention_heads", ALL),
	READ("num_key_value_heads", ALL),
	READ("head_dim", ALL),
	READ("intermediate_size", ALL),
	READ("layer_types", ALL),
	READ("rope_theta", ALL),
	READ("rope_scaling", ALL),
	READ("rope_parameters", ALL),
	READ("partial_rotary_factor", ALL),
	READ("original_max_position_embeddings", ALL),
	/* read by some: families/ */
	READ("attention_bias", "llama olmoe qwen3_moe glm4_moe granitemoe granitemoeshared"),
	READ("mlp_bias", "llama"),
	READ("sliding_window", "mixtral qwen2_moe qwen3_moe"),
	READ("use_sliding_window", "qwen2_moe qwen3_moe"),
	READ("num_local_experts", EXPERTS),
	READ("num_experts", EXPERTS),
	READ("n_routed_experts", EXPERTS),
	READ("num_experts_per_tok", EXPERTS),
	READ("experts_per_token", EXPERTS),
	READ("norm_topk_prob", "olmoe qwen2_moe qwen3_moe glm4_moe"),
	READ("clip_qkv", "olmoe"),
	READ("moe_intermediate_size", "qwen2_moe qwen3_moe glm4_moe ernie4_5_moe"),
	READ("decoder_sparse_step", "qwen2_moe qwen3_moe"),
	READ("mlp_only_layers", "qwen2_moe qwen3_moe"),
	READ("qkv_bias", "qwen2_moe"),
	READ("max_window_layers", "qwen2_moe"),
	READ("shared_expert_intermediate_size", "qwen2_moe"),
	READ("use_qk_norm", "glm4_moe"),
	READ("n_group", "glm4_moe"),
	READ("topk_group", "glm4_moe"),
	READ("first_k_dense_replace", "glm4_moe"),
	READ("moe_layer_freq", "glm4_moe"),
	READ("routed_scaling_factor", "glm4_moe"),
	READ("n_shared_experts", "glm4_moe"),
	READ("num_nextn_predict_layers", "glm4_moe"),
	READ("num_mtp_layers", "glm4_moe"),
	READ("rotary_dim", "minimax_m2"),
	READ("num_mtp_modules", "minimax_m2"),
	READ("attention_multiplier", GRANITE),
	READ("embedding_multiplier", GRANITE),
	READ("residual_multiplier", GRANITE),
	READ("logits_scaling", GRANITE),
	READ("shared_intermediate_size", "granitemoeshared"),
	READ("moe_num_experts", EXPERTS),
	READ("moe_k", EXPERTS),
	READ("moe_num_shared_experts", "ernie4_5_moe"),
	READ("moe_layer_start_index", "ernie4_5_moe"),
	READ("moe_layer_end_index", "ernie4_5_moe"),
	READ("moe_layer_interval", "ernie4_5_moe"),
	READ("moe_norm_min", "ernie4_5_moe"),
	READ("use_bias", "ernie4_5_moe"),
	/* read of the rotary settings: config_rope.c */
	READ("rope_scaling.type", ALL),
	READ("rope_scaling.rope_type", ALL),
	READ("rope_scaling.rope_theta", ALL),
	READ("rope_scaling.factor", ALL),
	READ("rope_scaling.original_max_position_embeddings", ALL),
	READ("rope_scaling.attention_factor", ALL),
	READ("rope_scaling.beta_fast", ALL),
	READ("rope_scaling.beta_slow", ALL),
	READ("rope_scaling.mscale", ALL),
	READ("rope_scaling.mscale_all_dim", ALL),
	READ("rope_scaling.truncate", ALL),
	READ("rope_scaling.short_factor", ALL),
	READ("rope_scaling.long_factor", ALL),
	READ("rope_scaling.low_freq_factor", ALL),
	READ("rope_scaling.high_freq_factor", ALL),
	READ("rope_scaling.partial_rotary_factor", ALL),
	READ("rope_scaling.full_attention", ALL),
	READ("rope_scaling.sliding_attention", ALL),
	/* of no consequence */
	OF_NO_USE("architectures", ALL, ORIGIN),
	OF_NO_USE("transformers_version", ALL, ORIGIN),
	OF_NO_USE("_name_or_path", ALL, ORIGIN),
	OF_NO_USE("name_or_path", ALL, ORIGIN),
	OF_NO_USE("_commit_hash", ALL, ORIGIN),
	OF_NO_USE("finetuning_task", ALL, ORIGIN),
	OF_NO_USE("task_specific_params", ALL, ORIGIN),
	OF_NO_USE("tokenizer_class", ALL, ORIGIN),
	OF_NO_USE("prefix", ALL, ORIGIN),
	OF_NO_USE("model_max_length", ALL, ORIGIN),
	OF_NO_USE("max_sequence_length", ALL, ORIGIN),
	OF_NO_USE("unsloth_fixed", ALL, ORIGIN),
	OF_NO_USE("unsloth_version", ALL, ORIGIN),
	OF_NO_USE("initializer_range", ALL, TRAINING),
	OF_NO_USE("attention_dropout", ALL, TRAINING),
	OF_NO_USE("hidden_dropout", ALL, TRAINING),
	OF_NO_USE("resid_pdrop", ALL, TRAINING),
	OF_NO_USE("embd_pdrop", ALL, TRAINING),
	OF_NO_USE("classifier_dropout", ALL, TRAINING),
	OF_NO_USE("gradient_checkpointing", ALL, TRAINING),
	OF_NO_USE("_gradient_checkpointing", ALL, TRAINING),
	OF_NO_USE("output_router_logits", EXPERTS, TRAINING),
	OF_NO_USE("router_aux_loss_coef", EXPERTS, TRAINING),
	OF_NO_USE("router_z_loss_coef", EXPERTS, TRAINING),
	OF_NO_USE("router_jitter_noise", EXPERTS, TRAINING),
	OF_NO_USE("use_cache", ALL, LIBRARY),
	OF_NO_USE("output_attentions", ALL, LIBRARY),
	OF_NO_USE("output_hidden_states", ALL, LIBRARY),
	OF_NO_USE("return_dict", ALL, LIBRARY),
	OF_NO_USE("torchscript", ALL, LIBRARY),
	OF_NO_USE("use_bfloat16", ALL, LIBRARY),
	OF_NO_USE("tf_legacy_loss", ALL, LIBRARY),
	OF_NO_USE("chunk_size_feed_forward", ALL, LIBRARY),
	OF_NO_USE("attn_implementation", ALL, LIBRARY),
	OF_NO_USE("_attn_implementation", ALL, LIBRARY),
	OF_NO_USE("_attn_implementation_autoset", ALL, LIBRARY),
	OF_NO_USE("experts_implementation", ALL, LIBRARY),
	OF_NO_USE("_experts_implementation", ALL, LIBRARY),
	OF_NO_USE("pretraining_tp", "llama", LIBRARY),
	OF_NO_USE("id2label", ALL, LABELS),
	OF_NO_USE("label2id", ALL, LABELS),
	OF_NO_USE("num_labels", ALL, LABELS),
	OF_NO_USE("problem_type", ALL, LABELS),
	OF_NO_USE("pad_token_id", ALL, NO_TEXT),
	OF_NO_USE("sep_token_id", ALL, NO_TEXT),
	OF_NO_USE("decoder_start_token_id", ALL, NO_TEXT),
	OF_NO_USE("max_length", ALL, GENERATION),
	OF_NO_USE("min_length", ALL, GENERATION),
	OF_NO_USE("do_sample", ALL, GENERATION),
	OF_NO_USE("early_stopping", ALL, GENERATION),
	OF_NO_USE("num_beams", ALL, GENERATION),
	OF_NO_USE("num_beam_groups", ALL, GENERATION),
	OF_NO_USE("diversity_penalty", ALL, GENERATION),
	OF_NO_USE("temperature", ALL, GENERATION),
	OF_NO_USE("top_k", ALL, GENERATION),
	OF_NO_USE("top_p", ALL, GENERATION),
	OF_NO_USE("typical_p", ALL, GENERATION),
	OF_NO_USE("repetition_penalty", ALL, GENERATION),
	OF_NO_USE("length_penalty", ALL, GENERATION),
	OF_NO_USE("no_repeat_ngram_size", ALL, GENERATION),
	OF_NO_USE("encoder_no_repeat_ngram_size", ALL, GENERATION),
	OF_NO_USE("encoder_repetition_penalty", ALL, GENERATION),
	OF_NO_USE("bad_words_ids", ALL, GENERATION),
	OF_NO_USE("num_return_sequences", ALL, GENERATION),
	OF_NO_USE("output_scores", ALL, GENERATION),
	OF_NO_USE("return_dict_in_generate", ALL, GENERATION),
	OF_NO_USE("forced_bos_token_id", ALL, GENERATION),
	OF_NO_USE("forced_eos_token_id", ALL, GENERATION),
	OF_NO_USE("remove_invalid_values", ALL, GENERATION),
	OF_NO_USE("exponential_decay_length_penalty", ALL, GENERATION),
	OF_NO_USE("suppress_tokens", ALL, GENERATION),
	OF_NO_USE("begin_suppress_tokens", ALL, GENERATION),
	OF_NO_USE("epsilon_cutoff", ALL, GENERATION),
	OF_NO_USE("eta_cutoff", ALL, GENERATION),
	OF_NO_USE("num_assistant_tokens", ALL, GENERATION),
	OF_NO_USE("num_assistant_tokens_schedule", ALL, GENERATION),
	OF_NO_USE("assistant_confidence_threshold", ALL, GENERATION),
	OF_NO_USE("assistant_lookbehind", ALL, GENERATION),
	OF_NO_USE("target_lookbehind", ALL, GENERATION),
	OF_NO_USE("max_window_layers", "qwen3_moe", UNREAD),
	OF_NO_USE("mtp_transformer_layers", "minimax_m2", NO_MTP),
	OF_NO_USE("use_mtp", "minimax_m2", NO_MTP),
	OF_NO_USE("moe_capacity", "ernie4_5_moe", TRAINING),
	{ "moe_gate", "ernie4_5_moe", ALWAYS, "\"topk\"" },
	{ "moe_use_aux_free", "ernie4_5_moe", ALWAYS, "true" },
	OF_NO_USE("attn_type_list", "minimax_m2", UNREAD),
	OF_NO_USE("shared_intermediate_size", "minimax_m2", UNREAD),
	{ "use_qk_norm", "minimax_m2", ALWAYS, "true" },
	{ "qk_norm_type", "minimax_m2", ALWAYS, "\"per_layer\"" },
	{ "use_routing_bias", "minimax_m2", ALWAYS, "true" },
	{ "scoring_func", "minimax_m2", ALWAYS, "\"sigmoid\"" },
	{ "is_causal", ALL, "every position sees those before it", "true" },
	OF_NO_USE("is_decoder", ALL, UNREAD),
	{ "is_encoder_decoder", ALL, NO_ENCODER, "false" },
	{ "add_cross_attention", ALL, NO_ENCODER, "false" },
	{ "tie_encoder_decoder", ALL, NO_ENCODER, "false" },
	{ "pruned_heads", ALL, "no head is missing", "{}" },
	OF_NO_USE("rope_scaling.finetuned", ALL, ORIGIN),
};
/* clang-format on */
enum { KNOWN = sizeof known / sizeof *known };

const struct cad_known_key *cad_known_keys(size_t *count)
{
	*count = KNOWN;
	return known;
}

bool cad_known_key_is_of(const struct cad_known_key *entry, const char *family)
{
	size_t length = strlen(family);
	bool without = entry->families && *entry->families == '-';

	for (const char *at = entry->families ? entry->families + without : NULL; at;
		at = strchr(at, ' ') ? strchr(at, ' ') + 1 : NULL)
		if (strncmp(at, family, length) == 0 && (at[length] == 0 || at[length] == ' '))
			return !without;
	return !entry->families || without;
}

static const struct cad_known_key *find(const char *inside, const char *key, const char *family)
{
	size_t length = strlen(inside);

	for (size_t i = 0; i < KNOWN; i++)
		if (strncmp(known[i].key, inside, length) == 0 && strcmp(known[i].key + length, key) == 0 &&
			cad_known_key_is_of(&known[i], family))
			return &known[i];
	return NULL;
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

void cad_known_keys_check(const struct cad_keys *keys, const char *inside, const char *family)
{
	const char *key;
	const json_t *value;

	json_object_foreach((json_t *)keys->object, key, value)
	{
		const struct cad_known_key *entry = find(inside, key, family);
		bool good = entry && entry->only ? json_is_null(value) || is_value(value, entry->only)
						 : entry || says_nothing(value);
		if (!good)
			refuse(keys, key, family);
	}
}
