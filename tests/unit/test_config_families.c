/* SPDX-License-Identifier: Apache-2.0 */
/* config.json -> spec: what each family's file means. */
#include "common/model/config.h"
#include "common/model/tensors.h"
#include "tests/support/golden_config.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void mixtral(void **state)
{
	(void)state;
	struct cad_model_spec s = golden_spec("mixtral-b", "{}");
	assert_string_equal(s.architecture, "mixtral");
	assert_int_equal(s.hidden, 72);
	assert_int_equal(s.vocab, 384);
	assert_int_equal(s.layers_count, 3);
	assert_int_equal(s.positions_max, 2048);
	assert_int_equal(s.dtype, CAD_DTYPE_F16);
	assert_float_equal(s.norm_epsilon, 1e-6f, 0);
	assert_false(s.tied_embeddings);
	assert_int_equal(s.attention.heads, 6);
	assert_int_equal(s.attention.kv_heads, 3);
	assert_int_equal(s.attention.head_size, 24);
	assert_int_equal(s.attention.value_size, 24);
	assert_float_equal(s.attention.scale, 0.20412415f, 1e-8);
	assert_false(s.attention.q_bias || s.attention.o_bias || s.attention.sinks);
	assert_int_equal(s.rope.kind, CAD_ROPE_DEFAULT);
	assert_int_equal(s.rope.size, 24);
	assert_float_equal(s.rope.theta, 10000, 0);
	assert_float_equal(s.rope.attention_factor, 1, 0);
	assert_int_equal(s.gate.experts, 5);
	assert_int_equal(s.gate.topk, 1);
	assert_true(s.gate.renormalise);
	assert_int_equal(s.gate.groups, 1);
	assert_float_equal(s.gate.scale, 1, 0);
	assert_int_equal(s.expert.size, 136);
	assert_int_equal(s.dense.size, 0);
	assert_int_equal(s.bos_id, 1);
	assert_int_equal(s.eos_ids_count, 1);
	assert_int_equal(s.eos_ids[0], 2);
	for (uint32_t i = 0; i < 3; i++) {
		assert_int_equal(s.layers[i].window, 16);
		assert_true(s.layers[i].moe && s.layers[i].rope);
	}

	cad_model_spec_fini(&s);
}

/* Noise in the router is for training; the spec has no place for it. */
static void jitter_changes_nothing(void **state)
{
	(void)state;
	struct cad_model_spec with = golden_spec("mixtral-b", "{\"router_jitter_noise\": 0.5}"),
			      without = golden_spec("mixtral-b", "{\"router_jitter_noise\": \"(absent)\"}");
	assert_memory_equal(with.layers, without.layers, 3 * sizeof *with.layers);
	free(with.layers);
	free(without.layers);
	with.layers = without.layers = NULL;
	assert_memory_equal(&with, &without, sizeof with);
}

static void olmoe(void **state)
{
	(void)state;
	struct cad_model_spec s = golden_spec("olmoe-a", "{}");
	assert_int_equal(s.attention.qk_norm, CAD_QK_NORM_PROJECTION);
	assert_float_equal(s.attention.clip_qkv, 0, 0);
	assert_false(s.gate.renormalise);
	assert_int_equal(s.bos_id, -1);
	cad_model_spec_fini(&s);
	s = golden_spec("olmoe-b", "{}");
	assert_float_equal(s.attention.clip_qkv, 0.75f, 0);
	assert_true(s.gate.renormalise && s.tied_embeddings);
	assert_int_equal(s.attention.kv_heads, 2);
	assert_int_equal(s.attention.head_size, 8);
	assert_int_equal(s.dtype, CAD_DTYPE_F32);
	cad_model_spec_fini(&s);
}

static void qwen3_moe(void **state)
{
	(void)state;
	struct cad_model_spec s = golden_spec("qwen3moe-a", "{}");
	assert_int_equal(s.attention.qk_norm, CAD_QK_NORM_HEAD);
	assert_int_equal(s.attention.head_size, 32);
	assert_false(s.layers[0].moe);
	assert_true(s.layers[1].moe && s.layers[2].moe && s.layers[3].moe);
	assert_int_equal(cad_model_spec_moe_layers(&s), 3);
	assert_int_equal(s.dense.size, 160);
	assert_int_equal(s.expert.size, 40);
	cad_model_spec_fini(&s);
	s = golden_spec("qwen3moe-b", "{}");
	assert_true(s.attention.q_bias && s.attention.k_bias && s.attention.v_bias && s.attention.o_bias);
	assert_true(!s.layers[0].moe && s.layers[1].moe && !s.layers[2].moe && s.layers[3].moe);
	assert_int_equal(s.rope.kind, CAD_ROPE_YARN);
	assert_true(s.rope.truncate);
	assert_float_equal(s.rope.factor, 4, 0);
	assert_float_equal(s.rope.attention_factor, 1.1386294361119891, 1e-15); /* 0.1 ln 4 + 1 */
	assert_int_equal(s.rope.original_positions, 64);
	assert_float_equal(s.rope.beta_fast, 32, 0);
	assert_float_equal(s.rope.beta_slow, 1, 0);
	cad_model_spec_fini(&s);
}

/* Qwen's sliding_window is a number even where nothing slides. */
static void qwen_window_needs_its_switch(void **state)
{
	(void)state;
	struct cad_model_spec s =
		golden_spec("qwen3moe-a", "{\"sliding_window\": 4096, \"use_sliding_window\": false}");
	assert_int_equal(s.layers[2].window, 0);
	cad_model_spec_fini(&s);
	s = golden_spec("qwen3moe-a", "{\"sliding_window\": 4096, \"use_sliding_window\": true}");
	assert_int_equal(s.layers[0].window, 4096);
	assert_int_equal(s.layers[3].window, 4096);
	cad_model_spec_fini(&s);
	s = golden_spec("mixtral-a", "{\"sliding_window\": 4096}");
	assert_int_equal(s.layers[1].window, 4096);
	cad_model_spec_fini(&s);
}

static void qwen_without_experts_is_dense(void **state)
{
	(void)state;
	struct cad_model_spec s = golden_spec(
		"qwen3moe-a", "{\"mlp_only_layers\": [0, 1, 2, 3], \"moe_intermediate_size\": \"(absent)\"}");
	assert_int_equal(cad_model_spec_moe_layers(&s), 0);
	assert_int_equal(s.gate.experts, 0);
	assert_int_equal(s.expert.size, 0);
	cad_model_spec_fini(&s);
}

static void llama(void **state)
{
	(void)state;
	struct cad_model_spec s = golden_spec("llama-a", "{}");
	assert_int_equal(s.gate.experts, 0);
	assert_int_equal(s.dense.size, 176);
	assert_int_equal(s.rope.kind, CAD_ROPE_LLAMA3);
	assert_float_equal(s.rope.low_freq_factor, 1, 0);
	assert_float_equal(s.rope.high_freq_factor, 4, 0);
	assert_true(s.tied_embeddings);
	cad_model_spec_fini(&s);
	s = golden_spec("llama-a", "{\"num_key_value_heads\": null, \"attention_bias\": true, \"mlp_bias\": true}");
	assert_int_equal(s.attention.kv_heads, 4);
	assert_true(s.attention.o_bias && s.dense.bias);
	cad_model_spec_fini(&s);
}

static void parts_of_heads_rotate(void **state)
{
	(void)state;
	struct cad_model_spec s = golden_spec("glm4moe-a", "{\"partial_rotary_factor\": \"(absent)\"}");
	assert_int_equal(s.attention.head_size, 24);
	assert_int_equal(s.rope.size, 12);
	assert_true(s.attention.q_bias && !s.attention.o_bias && s.gate.selection_bias);
	assert_int_equal(s.further_layers, 1);
	cad_model_spec_fini(&s);
	s = golden_spec("glm4moe-a",
		"{\"partial_rotary_factor\": \"(absent)\", \"rope_theta\": \"(absent)\", \"rope_parameters\": {\"rope_type\": \"linear\", \"factor\": 2, \"partial_rotary_factor\": 0.25}}");
	assert_int_equal(s.rope.size, 6);
	cad_model_spec_fini(&s);
	s = golden_spec("minimaxm2-a", "{}");
	assert_int_equal(s.rope.size, 12);
	assert_int_equal(s.attention.qk_norm, CAD_QK_NORM_PROJECTION);
	assert_int_equal(s.further_layers, 3);
	cad_model_spec_fini(&s);
}

static void factors_of_granite(void **state)
{
	(void)state;
	struct cad_model_spec s = golden_spec("granitemoe-a", "{}");
	assert_float_equal(s.attention.scale, 0.0625f, 0);
	assert_float_equal(s.embed_scale, 12, 0);
	assert_float_equal(s.branch_scale, 0.6f, 0);
	assert_float_equal(s.logits_divisor, 6, 0);
	assert_true(s.gate.softmax_after_topk && s.shared.size == 56 && !s.shared_gate);
	cad_model_spec_fini(&s);
	s = golden_spec("granitemoe-a",
		"{\"attention_multiplier\": null, \"embedding_multiplier\": null, \"residual_multiplier\": null, \"logits_scaling\": null, \"shared_intermediate_size\": null}");
	assert_float_equal(s.attention.scale * s.embed_scale * s.branch_scale * s.logits_divisor, 1, 0);
	assert_int_equal(s.shared.size, 0);
	cad_model_spec_fini(&s);
}

static void layers_with_experts_of_ernie(void **state)
{
	(void)state;
	static const struct {
		const char *changes;
		bool moe[4];
	} cases[] = {
		{ "{}", { false, true, true, true } },
		{ "{\"moe_layer_start_index\": \"(absent)\", \"moe_layer_end_index\": -1}",
			{ false, true, true, true } },
		{ "{\"moe_layer_start_index\": 0, \"moe_layer_end_index\": 2}", { true, true, true, false } },
		{ "{\"moe_layer_start_index\": 0, \"moe_layer_interval\": 2}", { false, true, false, true } },
		{ "{\"moe_layer_end_index\": 99}", { false, true, true, true } },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct cad_model_spec s = golden_spec("ernie45moe-a", cases[i].changes);
		for (size_t l = 0; l < 4; l++)
			assert_int_equal(s.layers[l].moe, cases[i].moe[l]);
		assert_true(s.rope.interleaved && s.gate.score == CAD_SCORE_SOFTMAX && s.gate.selection_bias);
		assert_int_equal(s.shared.size, 64);
		cad_model_spec_fini(&s);
	}
}

static void families_that_only_parse(void **state)
{
	(void)state;
	struct cad_model_spec s = golden_spec("qwen2moe-a", "{}");
	assert_true(
		s.attention.q_bias && s.attention.k_bias && s.attention.v_bias && !s.attention.o_bias && s.shared_gate);
	assert_int_equal(s.shared.size, 88);
	assert_int_equal(s.layers[0].window, 0);
	cad_model_spec_fini(&s);
	s = golden_spec("deepseekv2-a", "{}");
	assert_int_equal(s.attention.kind, CAD_ATTENTION_LATENT);
	assert_int_equal(s.attention.q_rank, 0);
	assert_int_equal(s.attention.kv_rank, 32);
	assert_int_equal(s.attention.head_size, 40);
	assert_int_equal(s.attention.value_size, 20);
	assert_int_equal(s.rope.size, 16);
	assert_true(s.rope.interleaved && !s.layers[0].moe && s.layers[1].moe);
	assert_int_equal(s.gate.groups, 4);
	assert_int_equal(s.gate.groups_kept, 2);
	assert_int_equal(s.gate.group_score, CAD_GROUP_SCORE_MAX);
	assert_true(s.gate.dropped_zero);
	assert_float_equal(s.gate.scale, 2.5f, 0);
	assert_int_equal(s.shared.size, 80);
	cad_model_spec_fini(&s);
	s = golden_spec("deepseekv3-a", "{}");
	assert_int_equal(s.gate.score, CAD_SCORE_SIGMOID);
	assert_int_equal(s.gate.group_score, CAD_GROUP_SCORE_TOP2);
	assert_true(s.gate.selection_bias && s.gate.renormalise);
	assert_float_equal(s.gate.renormalise_epsilon, 1e-20f, 0);
	assert_float_equal(s.rope.attention_factor, 1, 0);        /* mscale over mscale_all_dim */
	assert_float_equal(s.attention.scale, 0.20499101f, 1e-8); /* 40^-0.5 (0.1 ln 4 + 1)^2 */
	assert_int_equal(s.attention.q_rank, 40);
	assert_float_equal(s.attention.latent_epsilon, 1e-6f, 0);
	assert_true(!s.attention.down_bias && !s.attention.o_bias && !s.gate.dropped_zero);
	cad_model_spec_fini(&s);
	s = golden_spec("gptoss-a", "{}");
	assert_true(s.attention.sinks && s.gate.softmax_after_topk && s.gate.linear_bias && s.expert.bias &&
		!s.rope.truncate);
	assert_int_equal(s.expert.activation, CAD_ACTIVATION_SWIGLU_CLAMPED);
	assert_float_equal(s.expert.limit, 7, 0);
	assert_int_equal(s.layers[0].window, 24);
	assert_int_equal(s.layers[1].window, 0);
	assert_int_equal(s.layers[2].window, 24);
	cad_model_spec_fini(&s);
}

/* The same model, as transformers 4 and as transformers 5 writes it. */
static void keys_of_both_generations(void **state)
{
	(void)state;
	static const struct {
		const char *name, *changes;
	} cases[] = {
		{ "mixtral-a",
			"{\"rope_theta\": \"(absent)\", \"rope_parameters\": {\"rope_theta\": 1000000.0, \"rope_type\": \"default\"},"
			" \"torch_dtype\": \"(absent)\", \"dtype\": \"bfloat16\", \"num_local_experts\": \"(absent)\", \"num_experts\": 8}" },
		{ "olmoe-a",
			"{\"rope_theta\": \"(absent)\", \"rope_scaling\": \"(absent)\", \"rope_parameters\": {\"rope_type\": \"default\"}, \"num_experts\": \"(absent)\","
			" \"num_local_experts\": 16}" },
		{ "qwen3moe-b",
			"{\"rope_theta\": \"(absent)\", \"rope_scaling\": \"(absent)\", \"dtype\": \"bfloat16\","
			" \"rope_parameters\": {\"rope_theta\": 10000, \"rope_type\": \"yarn\", \"factor\": 4.0, \"original_max_position_embeddings\": 64}}" },
		{ "llama-a",
			"{\"rope_scaling\": {\"type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 1, \"high_freq_factor\": 4, \"original_max_position_embeddings\": 64}}" },
		{ "deepseekv3-a", "{\"n_routed_experts\": \"(absent)\", \"num_local_experts\": 16}" },
		{ "qwen3moe-b",
			"{\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": null, \"original_max_position_embeddings\": 64, \"beta_fast\": null}}" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct cad_model_spec a = golden_spec(cases[i].name, "{}"),
				      b = golden_spec(cases[i].name, cases[i].changes);
		assert_int_equal(a.layers_count, b.layers_count);
		assert_memory_equal(a.layers, b.layers, a.layers_count * sizeof *a.layers);
		free(a.layers);
		free(b.layers);
		a.layers = b.layers = NULL;
		assert_memory_equal(&a, &b, sizeof a);
	}
}

/* Layers of either type have a rotation of their own, and what the file does not say is the family's. */
static void mellum(void **state)
{
	(void)state;
	struct cad_model_spec s = golden_spec("configs/mellum2-12b-a2.5b",
		"{\"rope_parameters\": {\"full_attention\": {\"rope_type\": \"yarn\", \"rope_theta\": 6e5, \"factor\": 4,"
		" \"original_max_position_embeddings\": 65536}, \"sliding_attention\": {\"rope_type\": \"default\"}}}");
	assert_int_equal(s.attentions_count, 1);
	assert_int_equal(s.ropes_count, 2);
	assert_int_equal(s.ropes[0].kind, CAD_ROPE_YARN);
	assert_float_equal(s.ropes[0].theta, 6e5, 0);
	assert_int_equal(s.ropes[0].size, 128);
	assert_int_equal(s.ropes[1].kind, CAD_ROPE_DEFAULT);
	assert_float_equal(s.ropes[1].theta, 1e4, 0);
	assert_int_equal(s.ropes[1].size, 128);
	assert_int_equal(s.context_max, 262144);
	for (uint32_t i = 0; i < s.layers_count; i++) {
		assert_int_equal(s.layers[i].rope_at, i % 4 != 3);
		assert_int_equal(s.layers[i].window, i % 4 != 3 ? 1024 : 0);
	}
	cad_model_spec_fini(&s);

	s = golden_spec(
		"configs/mellum2-12b-a2.5b", "{\"rope_parameters\": null, \"layer_types\": null, \"head_dim\": null}");
	assert_float_equal(s.ropes[0].theta, 5e5, 0);
	assert_float_equal(s.ropes[1].theta, 1e4, 0);
	assert_int_equal(s.attention.head_size, 128);
	assert_int_equal(s.layers[0].window, 0);
	cad_model_spec_fini(&s);
}

static void mimo_v2_flash(void **state)
{
	(void)state;
	static const char config[] = "configs/mimo-v2-flash";
	struct cad_model_spec s = golden_spec(config, "{}");
	const struct cad_attention_spec *full = &s.attentions[0], *sliding = &s.attentions[1];
	assert_int_equal(s.attentions_count, 2);
	assert_int_equal(full->kv_heads, 4);
	assert_int_equal(sliding->kv_heads, 8);
	assert_true(!full->sinks && sliding->sinks);
	assert_int_equal(full->head_size, 192);
	assert_int_equal(full->value_size, 128);
	assert_float_equal(full->value_divisor, 1 / 0.707f, 1e-6);
	assert_int_equal(s.ropes[0].size, 64);
	assert_float_equal(s.ropes[0].theta, 5e6, 0);
	assert_float_equal(s.ropes[1].theta, 1e4, 0);
	assert_float_equal(s.norm_epsilon, 1e-5f, 0);
	for (uint32_t i = 0; i < s.layers_count; i++) {
		bool slides = i != 0 && (i + 1) % 6 != 0;
		assert_int_equal(s.layers[i].attention_at, slides);
		assert_int_equal(s.layers[i].rope_at, slides);
		assert_int_equal(s.layers[i].window, slides ? 129 : 0);
		assert_int_equal(s.layers[i].moe, i > 0);
	}
	cad_model_spec_fini(&s);

	/* what the file does not say is the same */
	struct cad_model_spec t = golden_spec(config,
		"{\"hybrid_layer_pattern\": null, \"moe_layer_freq\": null, \"swa_num_key_value_heads\": null,"
		" \"sliding_window_size\": null, \"sliding_window\": null, \"swa_rope_theta\": null, \"head_dim\": null,"
		" \"attention_value_scale\": null}");
	assert_int_equal(t.attentions[1].kv_heads, 8);
	assert_float_equal(t.attention.value_divisor, 0, 0); /* null is none */
	assert_int_equal(t.layers[1].window, 129);
	assert_true(t.layers[46].window && !t.layers[47].window && !t.layers[0].moe && t.layers[1].moe);
	cad_model_spec_fini(&t);
	t = golden_spec(config, "{\"attention_value_scale\": \"(absent)\"}");
	assert_float_equal(t.attention.value_divisor, 1 / 0.707f, 1e-6);
	cad_model_spec_fini(&t);
}

/* Dense layers are where the list says, and without one the first is. */
static void glm4_moe_lite(void **state)
{
	(void)state;
#define LITE \
	"\"model_type\": \"glm4_moe_lite\", \"scoring_func\": \"(absent)\", \"ep_size\": \"(absent)\", \"moe_layer_freq\": \"(absent)\"," \
	" \"routed_scaling_factor\": \"(absent)\""
	struct cad_model_spec s = golden_spec(
		"deepseekv3-a", "{" LITE ", \"mlp_layer_types\": [\"sparse\", \"dense\", \"sparse\", \"dense\"]}");
	assert_int_equal(s.attention.kind, CAD_ATTENTION_LATENT);
	assert_true(s.gate.selection_bias && s.gate.score == CAD_SCORE_SIGMOID);
	assert_float_equal(s.gate.scale, 1.8f, 0);
	assert_true(s.layers[0].moe && !s.layers[1].moe && s.layers[2].moe && !s.layers[3].moe);
	cad_model_spec_fini(&s);
	s = golden_spec("deepseekv3-a", "{" LITE ", \"rope_interleave\": false}");
	assert_true(!s.layers[0].moe && s.layers[1].moe && s.layers[3].moe && !s.rope.interleaved);
	cad_model_spec_fini(&s);
}

/* Queries grow with their position; how much of a head rotates is a share of it. */
static void mistral4(void **state)
{
	(void)state;
	struct cad_model_spec s = golden_spec("mistral4-a", "{}");
	assert_int_equal(s.attention.kind, CAD_ATTENTION_LATENT);
	assert_true(s.attention.position_scaled && s.gate.dropped_zero && s.gate.renormalise);
	assert_float_equal(s.position_scale.factor, 0.1f, 0);
	assert_int_equal(s.position_scale.positions, 48);
	assert_int_equal(s.position_scale.first, 0);
	assert_true(!s.rope.odd && s.layers[0].moe);
	cad_model_spec_fini(&s);

	struct cad_error error;
	json_t *object = golden_config("mistral4-a");
	json_object_set_new(json_object_get(object, "rope_parameters"), "partial_rotary_factor", json_real(0.25));
	assert_int_equal(golden_parse(object, NULL, &s, &error), CAD_ERR_INVALID);
	assert_non_null(strstr(error.text, "makes 8 elements of a head of 32 rotate, but qk_rope_head_dim is 16"));
}

/* The list says 1 of layers that rotate; they see chunks. */
static void llama4_text(void **state)
{
	(void)state;
	struct cad_model_spec s = golden_spec("llama4-a", "{}");
	assert_true(s.nested && s.rope.interleaved && s.expert.weighs_input && s.gate.choice_by_logit);
	assert_int_equal(s.gate.score, CAD_SCORE_SIGMOID);
	assert_int_equal(s.attentions_count, 2);
	assert_true(s.attentions[0].qk_norm_plain && s.attentions[0].qk_norm_last && !s.attentions[0].position_scaled);
	assert_int_equal(s.attentions[1].qk_norm, CAD_QK_NORM_NONE);
	assert_true(s.attentions[1].position_scaled);
	assert_int_equal(s.position_scale.positions, 16);
	assert_int_equal(s.position_scale.first, 1);
	assert_int_equal(s.shared.size, 40);
	for (uint32_t i = 0; i < 4; i++) {
		assert_true(s.layers[i].moe);
		assert_int_equal(s.layers[i].rope, i != 3);
		assert_int_equal(s.layers[i].chunk, i != 3 ? 32 : 0);
		assert_int_equal(s.layers[i].attention_at, i == 3);
	}
	cad_model_spec_fini(&s);
}

/* Where the file does not say which layers slide, and which have experts, the family does. */
static void layers_of_families(void **state)
{
	(void)state;
	static const struct {
		const char *name, *values, *windows, *experts,
			*rotate; /* a letter for each layer: it has them, or not */
	} cases[] = {
		{ "dots1", "{\"max_window_layers\": 2}", "--w", "-ee", "rrr" },
		{ "dots1", "{\"sliding_window\": null, \"max_window_layers\": 0}", "---", "-ee", "rrr" },
		{ "solaropen", "{}", "---", "eee", "rrr" },
		{ "exaonemoe", "{\"mlp_layer_types\": null}", "w-w", "-ee", "r-r" },
		{ "exaonemoe", "{\"layer_types\": [\"full_attention\", \"sliding_attention\", \"full_attention\"]}",
			"-w-", "e-e", "-r-" },
		{ "exaonemoe",
			"{\"sliding_window_pattern\": \"LLLG\", \"layer_types\": [\"sliding_attention\","
			" \"sliding_attention\", \"full_attention\"]}",
			"ww-", "e-e", "rr-" },
		{ "exaonemoe", "{\"sliding_window\": null}", "---", "e-e", "rrr" },
		{ "flint", "{\"layer_types\": null, \"mlp_only_layers\": null, \"num_hidden_layers\": 8}", "--www-w-",
			"--eeeeee", "--rrr-r-" },
		{ "hyv3", "{\"mlp_layer_types\": null}", "---", "-ee", "rrr" },
		{ "kolibri1", "{\"layer_types\": null, \"num_hidden_layers\": 6}", "wwww-w", "eeeeee", "rrrr-r" },
		{ "kolibri1", "{\"layer_types\": null, \"sliding_window\": null}", "---", "eee", "rrr" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char name[64];
		snprintf(name, sizeof name, "forms/%s", cases[i].name);
		struct cad_model_spec s = golden_spec(name, cases[i].values);
		assert_int_equal(s.layers_count, strlen(cases[i].windows));
		for (uint32_t l = 0; l < s.layers_count; l++)
			if ((s.layers[l].window > 0) != (cases[i].windows[l] == 'w') ||
				s.layers[l].moe != (cases[i].experts[l] == 'e') ||
				s.layers[l].rope != (cases[i].rotate[l] == 'r'))
				fail_msg("layer %u of %s with %s", l, cases[i].name, cases[i].values);
		cad_model_spec_fini(&s);
	}
}

/* What stands for the family where the file says nothing. */
static void what_families_begin_with(void **state)
{
	(void)state;
	struct cad_model_spec s = golden_spec("forms/kolibri1",
		"{\"head_dim\": null, \"sliding_window\": \"(absent)\", \"shared_expert_intermediate_size\": null}");
	assert_int_equal(s.attention.head_size, 128);
	assert_int_equal(s.layers[0].window, 513);
	assert_int_equal(s.shared.size, 512);
	assert_int_equal(s.norms, CAD_NORMS_AROUND);
	assert_true(s.gate.choice_by_logit && !s.gate.renormalise);
	cad_model_spec_fini(&s);
	s = golden_spec("forms/hyv3", "{\"rope_theta\": null, \"num_shared_experts\": null}");
	assert_float_equal(s.rope.theta, 11158840, 0);
	assert_float_equal(s.gate.scale, 2.826f, 0);
	assert_int_equal(s.shared.size, 12);
	assert_int_equal(s.further_layers, 1);
	cad_model_spec_fini(&s);
	s = golden_spec("forms/flexolmo", "{}");
	assert_int_equal(s.norms, CAD_NORMS_AFTER);
	cad_model_spec_fini(&s);
	s = golden_spec("minimaxm2-a", "{\"head_dim\": null, \"rotary_dim\": null}");
	assert_int_equal(s.attention.head_size, 128);
	cad_model_spec_fini(&s);
}

/* alpha stretches theta, once and for all positions; lists of numbers for each layer are one. */
static void hunyuan(void **state)
{
	(void)state;
	struct cad_model_spec s = golden_spec("forms/hunyuanv1moe", "{}");
	assert_int_equal(s.rope.kind, CAD_ROPE_DEFAULT);
	assert_float_equal(s.rope.theta, 1e4 * 1e4, 1e-6); /* 1e4 * 1000^(8 / 6) */
	assert_true(s.attention.qk_norm_last);
	assert_int_equal(s.gate.topk, 3);
	assert_int_equal(s.shared.size, 20);
	cad_model_spec_fini(&s);
	s = golden_spec("forms/hunyuanv1moe", "{\"rope_scaling\": {\"type\": \"dynamic\", \"factor\": 2}}");
	assert_int_equal(s.rope.kind, CAD_ROPE_DYNAMIC);
	cad_model_spec_fini(&s);

	static const char *const refused[][2] = {
		{ "{\"moe_topk\": [3, 2, 3]}", "moe_topk" },
		{ "{\"moe_topk\": []}", "moe_topk" },
		{ "{\"moe_topk\": [3, null, 3]}", "moe_topk" },
		{ "{\"moe_topk\": [7, 7, 7]}", "moe_topk" },
		{ "{\"num_experts\": [6, 5, 6]}", "num_experts" },
		{ "{\"moe_intermediate_size\": [21, 21, 21]}", "moe_intermediate_size" },
		{ "{\"num_shared_expert\": [2, 2, 2]}", "num_shared_expert" },
		{ "{\"attention_head_dim\": 16}", "attention_head_dim" },
		{ "{\"head_dim\": 2, \"attention_head_dim\": 2}", "alpha" },
		{ "{\"mlp_bias\": true}", "mlp_bias" },
	};
	for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
		struct cad_error error = { 0 };
		json_t *object = golden_change(golden_config("forms/hunyuanv1moe"), refused[i][0]);
		assert_int_not_equal(golden_parse(object, NULL, &s, &error), CAD_OK);
		if (!strstr(error.text, refused[i][1]))
			fail_msg("%s: %s", refused[i][0], error.text);
	}
}

/* Dense layers stand among those with experts, and only these have a norm behind. */
static void axk1(void **state)
{
	(void)state;
	struct cad_model_spec s = golden_spec("deepseekv3-a", "{\"model_type\": \"axk1\", \"moe_layer_freq\": 2}");
	assert_true(!s.layers[0].moe && !s.layers[1].moe && s.layers[2].moe && !s.layers[3].moe);
	assert_true(s.norm_of_experts);
	assert_true(cad_tensor_wanted(&s, CAD_ROLE_FFN_AFTER, 2).wanted);
	assert_true(!cad_tensor_wanted(&s, CAD_ROLE_FFN_AFTER, 1).wanted);
	cad_model_spec_fini(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(mixtral),
		cmocka_unit_test(jitter_changes_nothing),
		cmocka_unit_test(olmoe),
		cmocka_unit_test(qwen3_moe),
		cmocka_unit_test(qwen_window_needs_its_switch),
		cmocka_unit_test(qwen_without_experts_is_dense),
		cmocka_unit_test(llama),
		cmocka_unit_test(parts_of_heads_rotate),
		cmocka_unit_test(factors_of_granite),
		cmocka_unit_test(layers_with_experts_of_ernie),
		cmocka_unit_test(families_that_only_parse),
		cmocka_unit_test(keys_of_both_generations),
		cmocka_unit_test(llama4_text),
		cmocka_unit_test(mellum),
		cmocka_unit_test(mimo_v2_flash),
		cmocka_unit_test(glm4_moe_lite),
		cmocka_unit_test(mistral4),
		cmocka_unit_test(layers_of_families),
		cmocka_unit_test(what_families_begin_with),
		cmocka_unit_test(hunyuan),
		cmocka_unit_test(axk1),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
