/* SPDX-License-Identifier: Apache-2.0 */
/* Every key of config.json is read, or known to change nothing, or refused; and docs/CONFIG.md says the
 * same as the table in the code. */
#include "common/base/file.h"
#include "common/model/config.h"
#include "common/model/known_keys.h"
#include "tests/support/must.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A config of each family, and the fields of its class in transformers 5.24.0. */
static const struct family {
	const char *name, *golden, *fields;
} families[] = {
	{ "llama", "llama-a",
		"vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads hidden_act"
		" max_position_embeddings initializer_range rms_norm_eps use_cache pad_token_id bos_token_id eos_token_id"
		" pretraining_tp tie_word_embeddings rope_parameters attention_bias attention_dropout mlp_bias head_dim" },
	{ "mixtral", "mixtral-a",
		"vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads head_dim"
		" hidden_act max_position_embeddings initializer_range rms_norm_eps use_cache pad_token_id bos_token_id"
		" eos_token_id tie_word_embeddings sliding_window attention_dropout num_experts_per_tok num_local_experts"
		" output_router_logits router_aux_loss_coef router_jitter_noise rope_parameters" },
	{ "olmoe", "olmoe-a",
		"vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads hidden_act"
		" max_position_embeddings initializer_range rms_norm_eps use_cache pad_token_id bos_token_id eos_token_id"
		" tie_word_embeddings rope_parameters attention_bias attention_dropout clip_qkv num_experts_per_tok num_experts"
		" output_router_logits router_aux_loss_coef norm_topk_prob" },
	{ "qwen2_moe", "qwen2moe-a",
		"vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads hidden_act"
		" max_position_embeddings initializer_range rms_norm_eps use_cache tie_word_embeddings rope_parameters"
		" use_sliding_window sliding_window max_window_layers attention_dropout decoder_sparse_step"
		" moe_intermediate_size shared_expert_intermediate_size num_experts_per_tok num_experts norm_topk_prob"
		" output_router_logits router_aux_loss_coef mlp_only_layers qkv_bias layer_types pad_token_id bos_token_id"
		" eos_token_id" },
	{ "qwen3_moe", "qwen3moe-b",
		"vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads hidden_act"
		" max_position_embeddings initializer_range rms_norm_eps use_cache tie_word_embeddings rope_parameters"
		" attention_bias use_sliding_window sliding_window attention_dropout decoder_sparse_step moe_intermediate_size"
		" num_experts_per_tok num_experts norm_topk_prob output_router_logits router_aux_loss_coef mlp_only_layers"
		" pad_token_id bos_token_id eos_token_id num_local_experts" },
	{ "glm4_moe", "glm4moe-a",
		"vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads hidden_act"
		" max_position_embeddings initializer_range rms_norm_eps use_cache tie_word_embeddings rope_parameters"
		" attention_bias attention_dropout moe_intermediate_size num_experts_per_tok output_router_logits"
		" n_shared_experts n_routed_experts routed_scaling_factor n_group topk_group first_k_dense_replace"
		" norm_topk_prob use_qk_norm bos_token_id eos_token_id pad_token_id num_mtp_layers num_nextn_predict_layers"
		" num_local_experts" },
	{ "glm4_moe_lite", "deepseekv3-a",
		"vocab_size hidden_size intermediate_size moe_intermediate_size num_hidden_layers num_attention_heads"
		" num_key_value_heads n_shared_experts n_routed_experts output_router_logits routed_scaling_factor"
		" kv_lora_rank q_lora_rank qk_rope_head_dim v_head_dim qk_nope_head_dim n_group topk_group"
		" num_experts_per_tok norm_topk_prob hidden_act max_position_embeddings initializer_range rms_norm_eps"
		" use_cache pad_token_id bos_token_id eos_token_id pretraining_tp tie_word_embeddings rope_parameters"
		" rope_interleave mlp_layer_types attention_bias attention_dropout num_local_experts head_dim" },
	{ "mistral4", "mistral4-a",
		"vocab_size hidden_size intermediate_size moe_intermediate_size num_hidden_layers num_attention_heads"
		" num_key_value_heads n_shared_experts n_routed_experts output_router_logits routed_scaling_factor"
		" kv_lora_rank q_lora_rank qk_rope_head_dim v_head_dim qk_nope_head_dim n_group topk_group"
		" num_experts_per_tok first_k_dense_replace norm_topk_prob hidden_act max_position_embeddings"
		" initializer_range rms_norm_eps use_cache pad_token_id bos_token_id eos_token_id pretraining_tp"
		" tie_word_embeddings rope_parameters rope_interleave attention_bias attention_dropout num_local_experts" },
	{ "minimax_m2", "minimaxm2-a",
		"vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads head_dim"
		" hidden_act max_position_embeddings initializer_range rms_norm_eps use_cache pad_token_id bos_token_id"
		" eos_token_id tie_word_embeddings attention_dropout num_experts_per_tok num_local_experts num_experts"
		" output_router_logits router_aux_loss_coef router_jitter_noise rope_parameters" },
	{ "ernie4_5_moe", "ernie45moe-a",
		"vocab_size pad_token_id bos_token_id eos_token_id hidden_size intermediate_size num_hidden_layers"
		" num_attention_heads num_key_value_heads hidden_act max_position_embeddings initializer_range rms_norm_eps"
		" use_cache tie_word_embeddings rope_parameters use_bias moe_intermediate_size moe_k moe_num_experts"
		" moe_num_shared_experts moe_layer_start_index moe_layer_end_index moe_layer_interval moe_norm_min num_experts"
		" num_experts_per_tok output_router_logits router_aux_loss_coef" },
	{ "deepseek_v2", "deepseekv2-a",
		"vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads"
		" hidden_act max_position_embeddings initializer_range rms_norm_eps use_cache pad_token_id bos_token_id"
		" eos_token_id pretraining_tp tie_word_embeddings rope_parameters attention_bias attention_dropout mlp_bias"
		" head_dim first_k_dense_replace kv_lora_rank q_lora_rank n_group n_routed_experts output_router_logits"
		" n_shared_experts qk_nope_head_dim qk_rope_head_dim routed_scaling_factor topk_group topk_method"
		" norm_topk_prob v_head_dim num_experts_per_tok moe_intermediate_size num_experts" },
	{ "aria_text", "granitemoe-a",
		"vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads"
		" hidden_act max_position_embeddings initializer_range rms_norm_eps use_cache pad_token_id bos_token_id"
		" eos_token_id pretraining_tp tie_word_embeddings rope_parameters attention_bias attention_dropout mlp_bias"
		" head_dim moe_num_experts moe_topk moe_num_shared_experts" },
	{ "axk1", "deepseekv3-a",
		"vocab_size hidden_size intermediate_size moe_intermediate_size num_hidden_layers num_attention_heads"
		" num_key_value_heads n_shared_experts n_routed_experts output_router_logits routed_scaling_factor"
		" kv_lora_rank q_lora_rank qk_rope_head_dim v_head_dim qk_nope_head_dim n_group topk_group"
		" num_experts_per_tok norm_topk_prob hidden_act max_position_embeddings initializer_range rms_norm_eps"
		" use_cache pad_token_id bos_token_id eos_token_id pretraining_tp tie_word_embeddings rope_parameters"
		" rope_interleave attention_bias attention_dropout mlp_layer_types num_local_experts" },
	{ "deepseek_v3", "deepseekv3-a",
		"vocab_size hidden_size intermediate_size moe_intermediate_size num_hidden_layers num_attention_heads"
		" num_key_value_heads n_shared_experts n_routed_experts output_router_logits routed_scaling_factor"
		" kv_lora_rank q_lora_rank qk_rope_head_dim v_head_dim qk_nope_head_dim n_group topk_group"
		" num_experts_per_tok first_k_dense_replace norm_topk_prob hidden_act max_position_embeddings"
		" initializer_range rms_norm_eps use_cache pad_token_id bos_token_id eos_token_id pretraining_tp"
		" tie_word_embeddings rope_parameters rope_interleave attention_bias attention_dropout num_mtp_layers"
		" num_local_experts" },
	{ "kimi_k2", "deepseekv3-a", "" },
	{ "llama4_text", "llama4-a",
		"vocab_size hidden_size intermediate_size intermediate_size_mlp num_hidden_layers num_attention_heads"
		" num_key_value_heads head_dim hidden_act max_position_embeddings initializer_range rms_norm_eps use_cache"
		" pad_token_id bos_token_id eos_token_id tie_word_embeddings attention_dropout num_experts_per_tok"
		" num_local_experts moe_layers interleave_moe_layer_step use_qk_norm output_router_logits router_aux_loss_coef"
		" router_jitter_noise rope_parameters no_rope_layers no_rope_layer_interval attention_chunk_size layer_types"
		" attn_temperature_tuning floor_scale attn_scale attention_bias" },
	{ "flex_olmo", "forms/flexolmo",
		"vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads"
		" hidden_act max_position_embeddings initializer_range rms_norm_eps use_cache pad_token_id bos_token_id"
		" eos_token_id tie_word_embeddings rope_parameters attention_bias attention_dropout num_experts_per_tok"
		" num_experts output_router_logits router_aux_loss_coef norm_topk_prob num_local_experts" },
	{ "dots1", "forms/dots1",
		"vocab_size hidden_size intermediate_size moe_intermediate_size num_hidden_layers num_attention_heads"
		" num_key_value_heads n_shared_experts n_routed_experts output_router_logits n_group topk_group"
		" num_experts_per_tok first_k_dense_replace norm_topk_prob hidden_act max_position_embeddings"
		" initializer_range rms_norm_eps use_cache tie_word_embeddings rope_parameters attention_bias"
		" attention_dropout routed_scaling_factor sliding_window max_window_layers layer_types pad_token_id"
		" bos_token_id eos_token_id num_local_experts" },
	{ "solar_open", "forms/solaropen",
		"vocab_size hidden_size num_hidden_layers num_attention_heads num_key_value_heads hidden_act"
		" max_position_embeddings initializer_range rms_norm_eps use_cache tie_word_embeddings rope_parameters"
		" attention_bias attention_dropout moe_intermediate_size num_experts_per_tok output_router_logits"
		" n_shared_experts n_routed_experts routed_scaling_factor n_group topk_group norm_topk_prob bos_token_id"
		" eos_token_id pad_token_id head_dim num_local_experts" },
	{ "exaone_moe", "forms/exaonemoe",
		"vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads"
		" hidden_act max_position_embeddings initializer_range rms_norm_eps use_cache bos_token_id eos_token_id"
		" pad_token_id tie_word_embeddings rope_parameters attention_dropout sliding_window"
		" sliding_window_pattern layer_types mlp_layer_types first_k_dense_replace moe_intermediate_size"
		" num_experts num_experts_per_tok output_router_logits num_shared_experts norm_topk_prob"
		" routed_scaling_factor n_group topk_group" },
	{ "flint", "forms/flint",
		"vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads"
		" hidden_act max_position_embeddings initializer_range rms_norm_eps use_cache tie_word_embeddings"
		" rope_parameters sliding_window attention_dropout decoder_sparse_step moe_intermediate_size"
		" shared_expert_intermediate_size num_experts_per_tok num_experts norm_topk_prob output_router_logits"
		" router_aux_loss_coef mlp_only_layers layer_types pad_token_id bos_token_id eos_token_id head_dim"
		" attention_bias" },
	{ "hunyuan_v1_moe", "forms/hunyuanv1moe",
		"vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads"
		" hidden_act max_position_embeddings initializer_range rms_norm_eps use_cache pad_token_id bos_token_id"
		" eos_token_id eod_token_id sep_token_id pretraining_tp tie_word_embeddings rope_parameters"
		" attention_bias attention_dropout num_experts output_router_logits moe_topk head_dim num_experts_per_tok"
		" num_local_experts" },
	{ "hy_v3", "forms/hyv3",
		"vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads"
		" head_dim hidden_act max_position_embeddings initializer_range rms_norm_eps use_cache pad_token_id"
		" bos_token_id eos_token_id tie_word_embeddings attention_bias attention_dropout mlp_bias num_experts"
		" num_experts_per_tok num_shared_experts moe_intermediate_size router_scaling_factor"
		" enable_moe_fp32_combine mlp_layer_types output_router_logits rope_parameters num_local_experts" },
	{ "kolibri1", "forms/kolibri1",
		"vocab_size hidden_size num_hidden_layers num_attention_heads num_key_value_heads hidden_act"
		" max_position_embeddings initializer_range rms_norm_eps use_cache tie_word_embeddings rope_parameters"
		" sliding_window attention_dropout moe_intermediate_size num_experts_per_tok num_experts norm_topk_prob"
		" output_router_logits pad_token_id bos_token_id eos_token_id head_dim shared_expert_intermediate_size"
		" layer_types" },
	{ "mellum", "qwen3moe-a",
		"vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads hidden_act"
		" max_position_embeddings initializer_range rms_norm_eps use_cache tie_word_embeddings rope_parameters"
		" attention_bias sliding_window attention_dropout moe_intermediate_size num_experts_per_tok num_experts"
		" norm_topk_prob output_router_logits router_aux_loss_coef pad_token_id bos_token_id eos_token_id head_dim"
		" layer_types mlp_layer_types num_mtp_layers mtp_layer_types mtp_mlp_layer_types" },
	{ "mimo_v2_flash", "glm4moe-a",
		"vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads hidden_act"
		" max_position_embeddings initializer_range rms_norm_eps use_cache tie_word_embeddings rope_parameters"
		" attention_bias attention_dropout moe_intermediate_size num_experts_per_tok output_router_logits"
		" n_routed_experts routed_scaling_factor n_group topk_group norm_topk_prob bos_token_id eos_token_id"
		" pad_token_id head_dim v_head_dim sliding_window layer_types mlp_layer_types attention_value_scale" },
	{ "granitemoe", "granitemoe-a", "" },
	{ "granitemoeshared", "granitemoe-a",
		"vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads hidden_act"
		" max_position_embeddings initializer_range rms_norm_eps use_cache pad_token_id bos_token_id eos_token_id"
		" tie_word_embeddings rope_parameters attention_bias attention_dropout embedding_multiplier logits_scaling"
		" residual_multiplier attention_multiplier num_local_experts num_experts_per_tok output_router_logits"
		" router_aux_loss_coef shared_intermediate_size" },
	{ "gpt_oss", "gptoss-a",
		"num_hidden_layers num_local_experts vocab_size hidden_size intermediate_size head_dim num_attention_heads"
		" num_key_value_heads sliding_window tie_word_embeddings hidden_act initializer_range max_position_embeddings"
		" rms_norm_eps rope_parameters attention_dropout num_experts_per_tok swiglu_alpha swiglu_limit"
		" router_aux_loss_coef output_router_logits use_cache layer_types pad_token_id bos_token_id eos_token_id"
		" attention_bias" },
};
enum { FAMILIES = sizeof families / sizeof *families };
/* Of PreTrainedConfig, which each of them has, and what to_dict adds. */
static const char base_fields[] =
	"transformers_version architectures output_hidden_states return_dict dtype chunk_size_feed_forward"
	" is_encoder_decoder id2label label2id problem_type _name_or_path model_type output_attentions";

enum { KEYS_MAX = 512 };

/* Those that a family knows: its own, those of all, and those of experts. */
static size_t known_of(const char *family, const struct cad_known_key *known[KEYS_MAX])
{
	const struct cad_arch *arch = cad_arch_find(family);
	assert_non_null(arch);
	size_t counts[3] = { arch->keys_count }, n = 0;
	const struct cad_known_key *lists[] = { arch->keys, cad_known_keys(&counts[1]),
		cad_known_expert_keys(&counts[2]) };

	for (size_t l = 0; l < (arch->dense ? 2 : 3); l++)
		for (size_t i = 0; i < counts[l]; i++) {
			assert_true(n < KEYS_MAX);
			known[n++] = &lists[l][i];
		}
	return n;
}

static json_t *load_config(const struct family *family)
{
	char path[256];
	snprintf(path, sizeof path, CADRE_SOURCE_DIR "/tests/golden/%s/model/config.json", family->golden);
	json_t *object = json_load_file(path, 0, NULL), *text = object ? json_object_get(object, "text_config") : NULL;
	assert_non_null(object);
	if (text) { /* a part of a larger model */
		json_incref(text);
		json_decref(object);
		object = text;
	}
	if (strcmp(json_string_value(json_object_get(object, "model_type")), family->name) == 0)
		return object;

	/* a relative's: what it says more goes */
	const char *key;
	json_t *value;
	void *next;
	json_object_set_new(object, "model_type", json_string(family->name));
	json_object_foreach_safe(object, next, key, value)
	{
		if (!cad_known_key_find(cad_arch_find(family->name), "", key))
			json_object_del(object, key);
	}
	return object;
}

/* Consumes the object. */
static enum cad_status parse(json_t *object, struct cad_error *error)
{
	char *text = json_dumps(object, 0);
	struct cad_model_spec spec;

	assert_non_null(text);
	*error = (struct cad_error){ 0 };
	enum cad_status status = cad_model_spec_parse("config.json", text, strlen(text), NULL, 0, &spec, error);
	if (status == CAD_OK)
		cad_model_spec_fini(&spec);
	free(text);
	json_decref(object);
	return status;
}

static enum cad_status parse_with(
	const struct family *family, const char *key, const char *value, struct cad_error *error)
{
	json_t *object = load_config(family);
	json_object_set_new(object, key, json_loads(value, JSON_DECODE_ANY, NULL));
	return parse(object, error);
}

static void every_key_once(void **state)
{
	(void)state;
	for (size_t f = 0; f < FAMILIES; f++) {
		const struct cad_known_key *known[KEYS_MAX];
		size_t count = known_of(families[f].name, known);
		for (size_t i = 0; i < count; i++)
			if (cad_known_key_find(cad_arch_find(families[f].name), "", known[i]->key) != known[i])
				fail_msg("%s of %s is there twice", known[i]->key, families[f].name);
	}
}

/* Every family that runs is looked at here. */
static void every_family(void **state)
{
	(void)state;
	char list[4096];
	for (char *name = strtok((char *)cad_arch_list(list, sizeof list), ", "); name; name = strtok(NULL, ", ")) {
		size_t f = 0;
		while (f < FAMILIES && strcmp(families[f].name, name) != 0)
			f++;
		if (f == FAMILIES)
			fail_msg("%s is not among the families of this test", name);
	}
}

static void no_field_of_the_classes_is_missing(void **state)
{
	(void)state;
	for (size_t f = 0; f < FAMILIES; f++) {
		const char *lists[] = { families[f].fields, base_fields };
		for (size_t l = 0; l < 2; l++)
			for (const char *at = lists[l]; *at;) {
				size_t length = strcspn(at, " ");
				char key[64];
				snprintf(key, sizeof key, "%.*s", (int)length, at);
				if (!cad_known_key_find(cad_arch_find(families[f].name), "", key))
					fail_msg("%s of %s", key, families[f].name);
				at += length + (at[length] == ' ');
			}
	}
}

/* Both kinds of layers, so that the sizes of both are asked for. */
static json_t *dense_and_sparse(const json_t *config)
{
	json_t *list = json_array();
	for (json_int_t i = json_integer_value(json_object_get(config, "num_hidden_layers")); i > 0; i--)
		json_array_append_new(list, json_string(i == 1 ? "sparse" : "dense"));
	return list;
}

/* A value that no key can have is told, unless nobody looks. */
static void keys_that_are_read_are_read(void **state)
{
	(void)state;
	struct cad_error error;

	for (size_t f = 0; f < FAMILIES; f++) {
		const struct cad_known_key *known[KEYS_MAX];
		size_t count = known_of(families[f].name, known);
		for (size_t i = 0; i < count; i++) {
			const char *key = known[i]->key;
			if (known[i]->why || strchr(key, '.'))
				continue;
			json_t *object = load_config(&families[f]);
			json_object_del(object, "rope_scaling");
			if (strcmp(families[f].name, "gpt_oss") == 0) /* which must have something of the kind */
				json_object_set_new(
					object, "rope_parameters", json_pack("{s:s}", "rope_type", "default"));
			if (cad_known_key_find(cad_arch_find(families[f].name), "", "use_sliding_window")) {
				json_object_set_new(object, "use_sliding_window", json_true());
				json_object_set_new(object, "mlp_only_layers", json_pack("[i]", 0));
			}
			if (strcmp(families[f].name, "mellum") == 0)
				json_object_set_new(object, "mlp_layer_types", dense_and_sparse(object));
			if (json_integer_value(json_object_get(object, "first_k_dense_replace")) == 0 &&
				json_object_get(object, "first_k_dense_replace"))
				json_object_set_new(object, "first_k_dense_replace", json_integer(1));
			json_object_set_new(object, key, json_pack("{s:i}", "odd", 1));
			if (parse(object, &error) == CAD_OK)
				fail_msg("%s of %s is not read", key, families[f].name);
			bool inside = strcmp(key, "rope_scaling") == 0 || strcmp(key, "rope_parameters") == 0;
			if (!strstr(error.text, key) || (strstr(error.text, "is not known") != NULL) != inside)
				fail_msg("%s of %s: %s", key, families[f].name, error.text);
		}
	}
}

static void rotary_keys_that_are_read_are_read(void **state)
{
	(void)state;
	static const char *const kinds[] = { "default", "llama3", "yarn", "longrope" };
	size_t count;
	const struct cad_known_key *known = cad_known_keys(&count);

	for (size_t i = 0; i < count; i++) {
		if (known[i].why || strncmp(known[i].key, "rope_scaling.", 13) != 0)
			continue;
		bool is_read = false;
		for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
			json_t *object = load_config(&families[1]), *scaling;
			scaling = json_pack("{s:s, s:i, s:i, s:i, s:[i,i,i,i,i,i,i,i], s:[i,i,i,i,i,i,i,i]}",
				"rope_type", kinds[k], "factor", 4, "low_freq_factor", 1, "high_freq_factor", 4,
				"short_factor", 1, 1, 1, 1, 1, 1, 1, 1, "long_factor", 1, 1, 1, 1, 1, 1, 1, 1);
			assert_non_null(scaling);
			if (strcmp(known[i].key, "rope_scaling.type") == 0)
				json_object_del(scaling, "rope_type");
			json_object_set_new(scaling, known[i].key + 13, json_pack("{s:i}", "odd", 1));
			json_object_set_new(object, "rope_scaling", scaling);
			struct cad_error error;
			bool refused = parse(object, &error) != CAD_OK;
			is_read = is_read || (refused && !strstr(error.text, "is not known"));
		}
		if (!is_read)
			fail_msg("%s is not read", known[i].key);
	}
}

static const char stored[] = "quantization_config.";

static void keys_of_how_matrices_are_stored(void **state)
{
	(void)state;
	size_t count, prefix = sizeof stored - 1;
	const struct cad_known_key *known = cad_known_keys(&count);

	for (size_t i = 0; i < count; i++) {
		const char *key = known[i].key + prefix;
		struct cad_error error;
		if (strncmp(known[i].key, stored, prefix) != 0)
			continue;
		json_t *object = load_config(&families[1]), *inside = json_pack("{s:s}", "quant_method", "fp8");
		json_object_set_new(inside, key,
			known[i].only ? json_loads(known[i].only, JSON_DECODE_ANY, NULL)
				      : json_pack("{s:i}", "odd", 1));
		json_object_set_new(object, "quantization_config", inside);
		enum cad_status status = parse(object, &error);
		if ((status == CAD_OK) != (known[i].why != NULL) || strstr(error.text, "is not known"))
			fail_msg("%s: %s", known[i].key, error.text);
	}
}

static void harmless_keys_pass(void **state)
{
	(void)state;
	struct cad_error error;

	for (size_t f = 0; f < FAMILIES; f++) {
		const struct cad_known_key *known[KEYS_MAX];
		size_t count = known_of(families[f].name, known);
		for (size_t i = 0; i < count; i++) {
			const char *key = known[i]->key, *only = known[i]->only;
			if (!known[i]->why || strchr(key, '.'))
				continue;
			must(parse_with(&families[f], key, only ? only : "{\"odd\": 1}", &error), &error);
			if (only)
				assert_int_equal(parse_with(&families[f], key, "3", &error), CAD_ERR_UNSUPPORTED);
		}
	}
	must(parse_with(&families[0], "rope_scaling", "{\"rope_type\": \"linear\", \"factor\": 2, \"finetuned\": true}",
		     &error),
		&error);
}

static void unknown_keys(void **state)
{
	(void)state;
	static const struct {
		const char *value;
		bool taken;
	} cases[] = {
		{ "null", true },
		{ "false", true },
		{ "\"\"", true },
		{ "[]", true },
		{ "{}", true },
		{ "{\"__float__\": \"NaN\"}", true },
		{ "[0.0, {\"__float__\": \"Infinity\"}]", true },
		{ "1e30", true },
		{ "[null, 0]", true },
		{ "0", false },
		{ "0.0", false },
		{ "true", false },
		{ "1", false },
		{ "0.5", false },
		{ "\"alibi\"", false },
		{ "[0]", false },
		{ "[[]]", false },
		{ "[1, null]", false },
		{ "{\"a\": null}", false },
	};
	struct cad_error error;

	for (size_t f = 0; f < FAMILIES; f++)
		for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
			if ((parse_with(&families[f], "final_logit_softcapping", cases[i].value, &error) == CAD_OK) !=
				cases[i].taken)
				fail_msg("%s with %s: %s", families[f].name, cases[i].value, error.text);
	assert_int_equal(parse_with(&families[0], "final_logit_softcapping", "0.5", &error), CAD_ERR_UNSUPPORTED);
	assert_string_equal(error.text,
		"config.json: final_logit_softcapping is a key that is not known for model_type 'llama', and may change what is computed: take it out of the file if it does not (docs/CONFIG.md)");

	/* another family's, one that must have its value, one inside, and what must not reach a terminal */
	assert_int_equal(parse_with(&families[1], "clip_qkv", "8", &error), CAD_ERR_UNSUPPORTED);
	assert_int_equal(parse_with(&families[0], "sliding_window", "16", &error), CAD_ERR_UNSUPPORTED);
	assert_int_equal(parse_with(&families[0], "is_causal", "false", &error), CAD_ERR_UNSUPPORTED);
	assert_int_equal(parse_with(&families[0], "rope_scaling",
				 "{\"rope_type\": \"dynamic\", \"factor\": 2, \"alpha\": 1000}", &error),
		CAD_ERR_UNSUPPORTED);
	assert_non_null(strstr(error.text, "config.json: rope_scaling.alpha is a key that is not known"));
	assert_int_equal(parse_with(&families[0], "a\033[31m\xc3\xa4", "1", &error), CAD_ERR_UNSUPPORTED);
	assert_non_null(strstr(error.text, "config.json: a?[31m?? is a key"));
}

/* ---- the page ---- */

/* The rows of keys that some families share. */
static size_t page_has(const char *text, const struct cad_known_key *known, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		char row[512];
		const char *only = known[i].only, *tick = only ? "`" : "";
		if (!known[i].why)
			snprintf(row, sizeof row, "| `%s` |\n", known[i].key);
		else
			snprintf(row, sizeof row, "| `%s` | %s | %s%s%s |\n", known[i].key, known[i].why, tick,
				only ? only : "", tick);
		if (!strstr(text, row))
			fail_msg("docs/CONFIG.md has no row %s", row);
	}
	return count;
}

/* The row of a family's own keys. */
static void page_has_family(const char *text, const struct cad_arch *arch)
{
	char read[2048] = "", rest[2048] = "", row[5000];

	for (size_t i = 0; i < arch->keys_count; i++) {
		const struct cad_known_key *known = &arch->keys[i];
		char *to = known->why ? rest : read;
		size_t at = strlen(to), bytes = sizeof read - at;
		const char *comma = at > 0 ? ", " : "";
		int length = known->only ? snprintf(to + at, bytes, "%s`%s` (if `%s`)", comma, known->key, known->only)
					 : snprintf(to + at, bytes, "%s`%s`", comma, known->key);
		assert_true(length > 0 && (size_t)length < bytes);
	}
	snprintf(row, sizeof row, "| `%s` | %s | %s |\n", arch->name, read, rest);
	if (!strstr(text, row))
		fail_msg("docs/CONFIG.md has no row\n%s", row);
}

static void page_says_the_same(void **state)
{
	(void)state;
	char *text;
	size_t bytes, common, expert, rows = 0;
	struct cad_error error;
	const struct cad_known_key *keys = cad_known_keys(&common), *of_experts = cad_known_expert_keys(&expert);

	must(cad_file_read(CADRE_SOURCE_DIR "/docs/CONFIG.md", 1 << 20, &text, &bytes, &error), &error);
	size_t expected = page_has(text, keys, common) + page_has(text, of_experts, expert) + FAMILIES;
	for (size_t f = 0; f < FAMILIES; f++)
		page_has_family(text, cad_arch_find(families[f].name));
	for (const char *at = text; (at = strstr(at, "\n| `")) != NULL; at++)
		rows++;
	assert_int_equal(rows, expected);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_key_once),
		cmocka_unit_test(every_family),
		cmocka_unit_test(no_field_of_the_classes_is_missing),
		cmocka_unit_test(keys_that_are_read_are_read),
		cmocka_unit_test(rotary_keys_that_are_read_are_read),
		cmocka_unit_test(keys_of_how_matrices_are_stored),
		cmocka_unit_test(harmless_keys_pass),
		cmocka_unit_test(unknown_keys),
		cmocka_unit_test(page_says_the_same),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
