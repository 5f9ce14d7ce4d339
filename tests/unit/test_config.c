/* SPDX-License-Identifier: Apache-2.0 */
/* config.json -> spec: rotation and ends of sequences, and a sentence for every value that cannot be.
 * What each family's file means is in test_config_families.c. */
#include "common/base/file.h"
#include "common/model/config.h"
#include "tests/support/golden_config.h"
#include "tests/support/must.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* The factor on cos and sin; the numbers are attention_scaling of
 * transformers' rotary embeddings. */
static void yarn_attention_factor(void **state)
{
	(void)state;
	static const struct {
		const char *scaling;
		double factor;
	} cases[] = {
		{ "\"factor\": 4", 1.138629436111989 },
		{ "\"factor\": 32", 1.3465735902799727 },
		{ "\"factor\": 1", 1 },
		{ "\"factor\": 40, \"mscale\": 1.0, \"mscale_all_dim\": 0.5", 1.1557219901962608 },
		{ "\"factor\": 40, \"mscale\": 1.0, \"mscale_all_dim\": 1.0", 1 },
		/* one of the two alone counts for nothing */
		{ "\"factor\": 40, \"mscale\": 0.5", 1.3688879454113936 },
		{ "\"factor\": 4, \"attention_factor\": 0.5", 0.5 },
		{ "\"factor\": 4, \"attention_factor\": null", 1.138629436111989 },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char changes[256];
		snprintf(changes, sizeof changes,
			"{\"rope_scaling\": {\"rope_type\": \"yarn\", \"original_max_position_embeddings\": 64, %s}}",
			cases[i].scaling);
		struct cad_model_spec s = golden_spec("llama-a", changes);
		assert_float_equal(s.rope.attention_factor, cases[i].factor, 1e-14);
		cad_model_spec_fini(&s);
	}

	/* original_max_position_embeddings: beside rope_scaling, inside it, or
	 * max_position_embeddings */
	struct cad_model_spec s =
		golden_spec("llama-a", "{\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 4}}");
	assert_int_equal(s.rope.original_positions, 512);
	cad_model_spec_fini(&s);
	s = golden_spec("llama-a",
		"{\"original_max_position_embeddings\": 32, \"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 4, \"original_max_position_embeddings\": 64}}");
	assert_int_equal(s.rope.original_positions, 32);
	cad_model_spec_fini(&s);
}

/* Which of two settings is in force, as convert_rope_params_to_dict of transformers 5.24.0 has it. */
static void rope_scaling_goes_first(void **state)
{
	(void)state;
	static const struct {
		const char *changes;
		enum cad_rope_kind kind;
		double theta;
	} cases[] = {
		{ "\"rope_scaling\": {\"type\": \"linear\", \"factor\": 2}, \"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 7e4}",
			CAD_ROPE_LINEAR, 5e3 },
		{ "\"rope_scaling\": {\"type\": \"linear\", \"factor\": 2, \"rope_theta\": 6e4}, \"rope_parameters\": {\"rope_type\": \"default\"}",
			CAD_ROPE_LINEAR, 6e4 },
		{ "\"rope_scaling\": {}, \"rope_parameters\": {\"rope_type\": \"linear\", \"factor\": 2, \"rope_theta\": 7e4}",
			CAD_ROPE_LINEAR, 7e4 },
		{ "\"rope_scaling\": null, \"rope_parameters\": {\"rope_type\": \"dynamic\", \"factor\": 2}",
			CAD_ROPE_DYNAMIC, 5e3 },
		{ "\"rope_scaling\": {\"rope_type\": \"default\"}, \"rope_parameters\": {\"rope_type\": \"linear\", \"factor\": 2}",
			CAD_ROPE_DEFAULT, 5e3 },
		{ "\"rope_scaling\": {}, \"rope_parameters\": null", CAD_ROPE_DEFAULT, 5e3 },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char changes[512];
		snprintf(changes, sizeof changes, "{\"rope_theta\": 5000.0, %s}", cases[i].changes);
		struct cad_model_spec s = golden_spec("llama-a", changes);
		assert_int_equal(s.rope.kind, cases[i].kind);
		assert_float_equal(s.rope.theta, cases[i].theta, 0);
		cad_model_spec_fini(&s);
	}
}

static void rotary_kinds(void **state)
{
	(void)state;
	struct cad_model_spec s = golden_spec("llama-a",
		"{\"rope_scaling\": {\"type\": \"longrope\", \"original_max_position_embeddings\": 128,"
		" \"short_factor\": [1,1,1,1,1,1,1,2], \"long_factor\": [1,2,3,4,5,6,7,8.5]}}");
	assert_int_equal(s.rope.kind, CAD_ROPE_LONGROPE);
	assert_float_equal(s.rope.short_factors[7], 2, 0);
	assert_float_equal(s.rope.long_factors[7], 8.5, 0);
	assert_float_equal(s.rope.attention_factor, 1.1338934190276817, 1e-14); /* sqrt(1 + ln 4 / ln 128) */
	assert_int_equal(s.context_max, 512);
	cad_model_spec_fini(&s);

	/* equal or crossed factors of llama3: nothing is between the two wavelengths */
	s = golden_spec("llama-a",
		"{\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 4, \"high_freq_factor\": 2}}");
	assert_float_equal(s.rope.high_freq_factor, 2, 0);
	cad_model_spec_fini(&s);

	/* a plain rotation turns whole heads, whatever the fraction */
	s = golden_spec("mixtral-a", "{\"partial_rotary_factor\": 0.25}");
	assert_int_equal(s.rope.size, 16);
	assert_false(s.rope.odd);
	cad_model_spec_fini(&s);
	s = golden_spec("llama-a",
		"{\"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": 8, \"partial_rotary_factor\": 0.95}}");
	assert_int_equal(s.rope.size, 16);
	assert_true(s.rope.odd);
	cad_model_spec_fini(&s);
}

/* How long a sequence may be without being told otherwise. */
static void positions_that_a_scaling_covers(void **state)
{
	(void)state;
	static const struct {
		const char *scaling;
		uint32_t context;
	} cases[] = {
		{ "null", 512 },
		{ "{\"rope_type\": \"default\"}", 512 },
		{ "{\"rope_type\": \"linear\", \"factor\": 4}", 2048 },
		{ "{\"rope_type\": \"yarn\", \"factor\": 2}", 1024 },
		{ "{\"rope_type\": \"yarn\", \"factor\": 2.5, \"original_max_position_embeddings\": 512}", 1280 },
		/* max_position_embeddings is what came of it already */
		{ "{\"rope_type\": \"yarn\", \"factor\": 4, \"original_max_position_embeddings\": 128}", 512 },
		{ "{\"rope_type\": \"yarn\", \"factor\": 2, \"original_max_position_embeddings\": 64}", 512 },
		{ "{\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 1, \"high_freq_factor\": 4}", 512 },
		/* longer ones cost a prefill per token */
		{ "{\"rope_type\": \"dynamic\", \"factor\": 4}", 512 },
		{ "{\"rope_type\": \"linear\", \"factor\": 1000000}", CAD_POSITIONS_MAX },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char changes[256];
		snprintf(changes, sizeof changes, "{\"rope_scaling\": %s}", cases[i].scaling);
		struct cad_model_spec s = golden_spec("llama-a", changes);
		assert_int_equal(s.positions_max, 512);
		assert_int_equal(s.context_max, cases[i].context);
		cad_model_spec_fini(&s);
	}
}

static void end_of_sequence(void **state)
{
	(void)state;
	static const struct {
		const char *config, *generation;
		uint32_t count;
		int32_t ids[3];
	} cases[] = {
		{ "7", NULL, 1, { 7 } },
		{ "[7, 8]", NULL, 2, { 7, 8 } },
		{ "7", "{}", 1, { 7 } },
		{ "7", "{\"eos_token_id\": null}", 1, { 7 } },
		{ "7", "{\"eos_token_id\": [1, 2, 383]}", 3, { 1, 2, 383 } },
		{ "[7, 8]", "{\"eos_token_id\": 0}", 1, { 0 } },
		{ "null", NULL, 0, { 0 } },
		{ "null", "{\"eos_token_id\": 5}", 1, { 5 } },
		/* those that the vocabulary does not have cannot come */
		{ "384", NULL, 0, { 0 } },
		{ "-1", NULL, 0, { 0 } },
		{ "[384, 7, 99999999999]", NULL, 1, { 7 } },
		{ "7", "{\"eos_token_id\": [383, 384]}", 1, { 383 } },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char changes[64];
		snprintf(changes, sizeof changes, "{\"eos_token_id\": %s}", cases[i].config);
		struct cad_model_spec spec;
		struct cad_error error;
		must(golden_parse(
			     golden_change(golden_config("mixtral-b"), changes), cases[i].generation, &spec, &error),
			&error);
		assert_int_equal(spec.eos_ids_count, cases[i].count);
		assert_memory_equal(spec.eos_ids, cases[i].ids, cases[i].count * sizeof *spec.eos_ids);
		cad_model_spec_fini(&spec);
	}

	struct cad_model_spec spec;
	struct cad_error error;
	assert_int_equal(golden_parse(golden_config("mixtral-b"), "{\"eos_token_id\": [1, 2.5]}", &spec, &error),
		CAD_ERR_INVALID);
	assert_non_null(strstr(error.text, "generation_config.json: eos_token_id must be"));
	spec = golden_spec("mixtral-b", "{\"bos_token_id\": 384}");
	assert_int_equal(spec.bos_id, -1);
	cad_model_spec_fini(&spec);
	spec = golden_spec("mixtral-b", "{\"bos_token_id\": 383}");
	assert_int_equal(spec.bos_id, 383);
	cad_model_spec_fini(&spec);
	assert_int_equal(
		golden_parse(golden_config("mixtral-b"), "{\"eos_token_id\": ", &spec, &error), CAD_ERR_CORRUPT);
	assert_non_null(strstr(error.text, "generation_config.json is not valid JSON"));
}

/* What is wrong with a value, and what the sentence must contain (which is always behind
 * "config.json: "). */
static const struct refusal {
	const char *name, *changes;
	enum cad_status status;
	const char *text;
} refusals[] = {
	{ "mixtral-a", "{\"model_type\": \"(absent)\"}", CAD_ERR_INVALID, "model_type is missing" },
	{ "mixtral-a", "{\"model_type\": 5}", CAD_ERR_INVALID, "model_type is a whole number; it must be a text" },
	{ "mixtral-a", "{\"model_type\": \"gpt2\"}", CAD_ERR_UNSUPPORTED,
		"model_type is 'gpt2'; supported are mixtral, olmoe, qwen3_moe, llama" },
	{ "granitemoe-a", "{\"logits_scaling\": 0}", CAD_ERR_RANGE, "logits_scaling is 0" },
	{ "ernie45moe-a", "{\"use_bias\": true}", CAD_ERR_UNSUPPORTED, "use_bias is true: an output matrix" },
	{ "ernie45moe-a", "{\"moe_layer_end_index\": -2}", CAD_ERR_RANGE, "moe_layer_end_index is -2" },
	{ "minimaxm2-a", "{\"rotary_dim\": 26}", CAD_ERR_RANGE,
		"partial_rotary_factor makes 26 elements of a head rotate; it must be from 2 to 24" },
	{ "minimaxm2-a", "{\"rotary_dim\": 13}", CAD_ERR_RANGE, "it must be an even number" },
	{ "minimaxm2-a", "{\"use_routing_bias\": false}", CAD_ERR_UNSUPPORTED, "use_routing_bias is a key" },
	{ "glm4moe-a", "{\"n_group\": 5}", CAD_ERR_RANGE, "n_group is 5, which does not divide the 16 experts" },
	{ "mixtral-a", "{\"hidden_size\": \"(absent)\"}", CAD_ERR_INVALID, "hidden_size is missing" },
	{ "mixtral-a", "{\"hidden_size\": null}", CAD_ERR_INVALID, "hidden_size is missing" },
	{ "mixtral-a", "{\"hidden_size\": 0}", CAD_ERR_RANGE, "hidden_size is 0; it must be from 1 to 65536" },
	{ "mixtral-a", "{\"hidden_size\": -64}", CAD_ERR_RANGE, "hidden_size is -64" },
	{ "mixtral-a", "{\"hidden_size\": 65537}", CAD_ERR_RANGE, "hidden_size is 65537" },
	{ "mixtral-a", "{\"hidden_size\": \"64\"}", CAD_ERR_INVALID,
		"hidden_size is a text; it must be a whole number" },
	{ "mixtral-a", "{\"hidden_size\": 64.0}", CAD_ERR_INVALID,
		"hidden_size is a number; it must be a whole number" },
	{ "mixtral-a", "{\"hidden_size\": [64]}", CAD_ERR_INVALID, "hidden_size is a list" },
	{ "mixtral-a", "{\"hidden_size\": true}", CAD_ERR_INVALID, "hidden_size is true" },
	{ "mixtral-a", "{\"hidden_size\": 9223372036854775807}", CAD_ERR_RANGE, "hidden_size is 9223372036854775807" },
	{ "mixtral-a", "{\"hidden_size\": 1e20}", CAD_ERR_RANGE, "hidden_size is 1e+20; it must be from 1 to 65536" },
	{ "mixtral-a", "{\"rms_norm_eps\": {\"__float__\": \"NaN\"}}", CAD_ERR_INVALID,
		"rms_norm_eps is NaN; it must be a number" },
	{ "mixtral-a", "{\"hidden_size\": 66}", CAD_ERR_RANGE,
		"hidden_size is 66, which num_attention_heads, 4, does not divide" },
	{ "mixtral-a", "{\"hidden_size\": 2048}", CAD_ERR_RANGE, "hidden_size over num_attention_heads is 512" },
	{ "mixtral-a", "{\"hidden_size\": 60}", CAD_ERR_RANGE, "head_dim makes 15 elements of a head rotate" },
	{ "mixtral-a", "{\"vocab_size\": 0}", CAD_ERR_RANGE, "vocab_size is 0" },
	{ "mixtral-a", "{\"num_hidden_layers\": 0}", CAD_ERR_RANGE,
		"num_hidden_layers is 0; it must be from 1 to 512" },
	{ "mixtral-a", "{\"num_hidden_layers\": 513}", CAD_ERR_RANGE, "num_hidden_layers is 513" },
	{ "mixtral-a", "{\"max_position_embeddings\": 0}", CAD_ERR_RANGE, "max_position_embeddings is 0" },
	{ "mixtral-a", "{\"rms_norm_eps\": 0}", CAD_ERR_RANGE, "rms_norm_eps is 0" },
	{ "mixtral-a", "{\"rms_norm_eps\": -1e-5}", CAD_ERR_RANGE, "rms_norm_eps is -1e-05" },
	{ "mixtral-a", "{\"rms_norm_eps\": \"1e-5\"}", CAD_ERR_INVALID, "rms_norm_eps is a text; it must be a number" },
	{ "mixtral-a", "{\"num_attention_heads\": 0}", CAD_ERR_RANGE, "num_attention_heads is 0" },
	{ "mixtral-a", "{\"num_key_value_heads\": 3}", CAD_ERR_RANGE,
		"num_attention_heads is 4, which num_key_value_heads, 3, does not divide" },
	{ "mixtral-a", "{\"num_key_value_heads\": 0}", CAD_ERR_RANGE, "num_key_value_heads is 0" },
	{ "mixtral-a", "{\"head_dim\": 257}", CAD_ERR_RANGE, "head_dim is 257" },
	{ "mixtral-a", "{\"head_dim\": 15}", CAD_ERR_RANGE, "head_dim makes 15 elements of a head rotate" },
	{ "mixtral-a", "{\"hidden_act\": \"gelu\"}", CAD_ERR_UNSUPPORTED,
		"hidden_act is 'gelu'; only silu is supported" },
	{ "mixtral-a", "{\"tie_word_embeddings\": 1}", CAD_ERR_INVALID,
		"tie_word_embeddings is a whole number; it must be true or false" },
	{ "mixtral-a", "{\"torch_dtype\": \"int8\"}", CAD_ERR_UNSUPPORTED, "torch_dtype is 'int8'" },
	{ "mixtral-a", "{\"dtype\": \"float32\"}", CAD_ERR_INVALID,
		"dtype and torch_dtype are two names for one value, but differ" },
	{ "mixtral-a", "{\"quantization_config\": {\"quant_method\": \"gptq\"}}", CAD_ERR_UNSUPPORTED,
		"quantization_config.quant_method is 'gptq'; supported are fp8 and mxfp4" },
	{ "mixtral-a", "{\"quantization_config\": {}}", CAD_ERR_UNSUPPORTED, "quantization_config.quant_method is ''" },
	{ "mixtral-a", "{\"quantization_config\": \"fp8\"}", CAD_ERR_INVALID, "quantization_config must be an object" },
	{ "mixtral-a", "{\"quantization_config\": {\"quant_method\": \"fp8\", \"fmt\": \"e5m2\"}}", CAD_ERR_UNSUPPORTED,
		"quantization_config.fmt is 'e5m2'" },
	{ "mixtral-a", "{\"quantization_config\": {\"quant_method\": \"fp8\", \"weight_block_size\": [64, 128]}}",
		CAD_ERR_UNSUPPORTED, "quantization_config.weight_block_size is not [128, 128]" },
	{ "mixtral-a", "{\"quantization_config\": {\"quant_method\": \"fp8\", \"expert_dtype\": \"fp4\"}}",
		CAD_ERR_UNSUPPORTED, "quantization_config.expert_dtype is a key that is not known" },
	{ "mixtral-a", "{\"num_local_experts\": 0}", CAD_ERR_RANGE,
		"num_local_experts is 0; it must be from 1 to 1024" },
	{ "mixtral-a", "{\"num_local_experts\": 1025}", CAD_ERR_RANGE, "num_local_experts is 1025" },
	{ "mixtral-a", "{\"num_local_experts\": 1}", CAD_ERR_RANGE,
		"num_experts_per_tok is 2, but there are only 1 experts" },
	{ "mixtral-a", "{\"num_experts\": 9}", CAD_ERR_INVALID,
		"num_local_experts and num_experts are two names for one value" },
	{ "mixtral-a", "{\"num_experts_per_tok\": 0}", CAD_ERR_RANGE, "num_experts_per_tok is 0" },
	{ "mixtral-a", "{\"num_experts_per_tok\": 33, \"num_local_experts\": 64}", CAD_ERR_RANGE,
		"num_experts_per_tok is 33; it must be from 1 to 32" },
	{ "mixtral-a", "{\"intermediate_size\": 0}", CAD_ERR_RANGE, "intermediate_size is 0" },
	{ "mixtral-a", "{\"sliding_window\": 0}", CAD_ERR_RANGE, "sliding_window is 0" },
	{ "mixtral-a", "{\"bos_token_id\": \"1\"}", CAD_ERR_INVALID, "bos_token_id must be a token" },
	{ "mixtral-a", "{\"eos_token_id\": [1, \"2\"]}", CAD_ERR_INVALID,
		"eos_token_id must be a token, or a list of tokens" },
	{ "mixtral-a", "{\"eos_token_id\": [1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]}", CAD_ERR_EXHAUSTED,
		"eos_token_id lists 17 tokens; at most 16" },
	{ "mixtral-a", "{\"rope_theta\": 0}", CAD_ERR_RANGE, "rope_theta is 0" },
	{ "mixtral-a", "{\"rope_scaling\": []}", CAD_ERR_INVALID, "rope_scaling must be an object or null" },
	{ "mixtral-a", "{\"rope_scaling\": {\"rope_type\": \"axial\"}}", CAD_ERR_UNSUPPORTED,
		"rope_scaling.rope_type is 'axial'; supported are default, linear, dynamic, yarn, longrope, llama3 and proportional" },
	{ "mixtral-a", "{\"rope_parameters\": {\"rope_type\": 3}}", CAD_ERR_INVALID,
		"rope_parameters.rope_type is a whole number" },
	{ "mixtral-a", "{\"rope_scaling\": {\"rope_type\": \"linear\"}}", CAD_ERR_INVALID,
		"rope_scaling.factor is missing" },
	{ "mixtral-a", "{\"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": 0.5}}", CAD_ERR_RANGE,
		"rope_scaling.factor is 0.5" },
	{ "mixtral-a", "{\"rope_parameters\": {\"rope_theta\": -1}}", CAD_ERR_RANGE,
		"rope_parameters.rope_theta is -1" },
	{ "mixtral-a", "{\"rope_parameters\": {\"full_attention\": {\"rope_type\": \"default\"}}}", CAD_ERR_UNSUPPORTED,
		"rope_parameters differs by layer type" },
	{ "mixtral-a", "{\"partial_rotary_factor\": 2}", CAD_ERR_RANGE, "partial_rotary_factor is 2" },
	{ "mixtral-a", "{\"layer_types\": [\"full_attention\"]}", CAD_ERR_INVALID,
		"layer_types must be a list of 4 texts" },
	{ "mixtral-a",
		"{\"layer_types\": [\"full_attention\", \"full_attention\", \"full_attention\", \"linear_attention\"]}",
		CAD_ERR_UNSUPPORTED, "layer_types says 'linear_attention' of layer 3" },
	{ "mixtral-a",
		"{\"layer_types\": [\"full_attention\", \"sliding_attention\", \"full_attention\", \"full_attention\"]}",
		CAD_ERR_INVALID, "layer_types says that layer 1 slides" },
	{ "mixtral-b", "{\"layer_types\": [\"sliding_attention\", \"full_attention\", \"sliding_attention\"]}",
		CAD_ERR_UNSUPPORTED, "layer_types says that layer 1 does not slide" },
	{ "llama-a", "{\"mlp_bias\": 1}", CAD_ERR_INVALID, "mlp_bias is a whole number" },
	{ "llama-a", "{\"rope_scaling\": {\"rope_type\": \"dynamic\"}}", CAD_ERR_INVALID,
		"rope_scaling.factor is missing" },
	{ "llama-a", "{\"rope_scaling\": {\"rope_type\": \"longrope\", \"short_factor\": [1, 2]}}", CAD_ERR_INVALID,
		"rope_scaling.long_factor must be a list of numbers" },
	{ "llama-a",
		"{\"rope_scaling\": {\"rope_type\": \"longrope\", \"short_factor\": [1, 2], \"long_factor\": [1]}}",
		CAD_ERR_INVALID, "rope_scaling.long_factor is not as long as short_factor" },
	{ "llama-a",
		"{\"rope_scaling\": {\"rope_type\": \"longrope\", \"short_factor\": [1, 0], \"long_factor\": [1, 1]}}",
		CAD_ERR_RANGE, "rope_scaling.short_factor holds something other than numbers from 0.01" },
	{ "llama-a",
		"{\"rope_scaling\": {\"rope_type\": \"longrope\", \"short_factor\": [1, 2], \"long_factor\": [1, 2]}}",
		CAD_ERR_INVALID, "short_factor has 2 numbers, but 8 pairs of a head rotate" },
	{ "llama-a",
		"{\"rope_scaling\": {\"rope_type\": \"longrope\", \"original_max_position_embeddings\": 1, \"short_factor\": [1], \"long_factor\": [1]}}",
		CAD_ERR_RANGE, "rope_scaling.original_max_position_embeddings is 1; it must be at least 2" },
	{ "llama-a", "{\"partial_rotary_factor\": 0.5}", CAD_ERR_UNSUPPORTED,
		"partial_rotary_factor is 0.5: with rope_type llama3, these architectures rotate whole heads" },
	{ "llama-a", "{\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 2, \"partial_rotary_factor\": 0.95}}",
		CAD_ERR_UNSUPPORTED, "partial_rotary_factor is 0.95" },
	{ "llama-a", "{\"rope_scaling\": \"yarn\"}", CAD_ERR_INVALID, "rope_scaling must be an object or null" },
	{ "llama-a", "{\"rope_parameters\": [1]}", CAD_ERR_INVALID, "rope_parameters must be an object or null" },
	{ "llama-a", "{\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 1}}",
		CAD_ERR_INVALID, "rope_scaling.high_freq_factor is missing" },
	{ "llama-a",
		"{\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 8, \"original_max_position_embeddings\": 0}}",
		CAD_ERR_RANGE, "rope_scaling.original_max_position_embeddings is 0" },
	{ "llama-a", "{\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 8, \"attention_factor\": 0}}",
		CAD_ERR_RANGE, "rope_scaling.attention_factor is 0" },
	{ "olmoe-a", "{\"clip_qkv\": 0}", CAD_ERR_RANGE, "clip_qkv is 0" },
	{ "olmoe-a", "{\"norm_topk_prob\": \"yes\"}", CAD_ERR_INVALID,
		"norm_topk_prob is a text; it must be true or false" },
	{ "qwen3moe-a", "{\"decoder_sparse_step\": 0}", CAD_ERR_RANGE, "decoder_sparse_step is 0" },
	{ "qwen3moe-a", "{\"mlp_only_layers\": [4]}", CAD_ERR_RANGE,
		"mlp_only_layers contains something other than layers from 0 to 3" },
	{ "qwen3moe-a", "{\"mlp_only_layers\": [0.0]}", CAD_ERR_RANGE, "mlp_only_layers contains something other" },
	{ "qwen3moe-a", "{\"mlp_only_layers\": 0}", CAD_ERR_INVALID, "mlp_only_layers must be a list of layers" },
	{ "qwen3moe-a", "{\"moe_intermediate_size\": \"(absent)\"}", CAD_ERR_INVALID,
		"moe_intermediate_size is missing" },
	{ "deepseekv2-a", "{\"norm_topk_prob\": true}", CAD_ERR_UNSUPPORTED, "norm_topk_prob is true" },
	{ "deepseekv2-a", "{\"topk_method\": \"random\"}", CAD_ERR_UNSUPPORTED, "topk_method is 'random'" },
	{ "deepseekv3-a", "{\"n_group\": 3}", CAD_ERR_RANGE, "n_group is 3, which does not divide the 16 experts" },
	{ "deepseekv3-a", "{\"topk_group\": 5}", CAD_ERR_RANGE, "topk_group is 5, but there are only 4 groups" },
	{ "deepseekv3-a", "{\"topk_group\": 1, \"num_experts_per_tok\": 5}", CAD_ERR_RANGE,
		"num_experts_per_tok is 5, but the 1 groups that are kept hold only 4" },
	{ "deepseekv3-a", "{\"n_group\": 16, \"topk_group\": 8}", CAD_ERR_RANGE,
		"n_group is 16, but a group needs at least two" },
	{ "deepseekv3-a", "{\"qk_nope_head_dim\": 250}", CAD_ERR_RANGE,
		"qk_nope_head_dim and qk_rope_head_dim are together 266" },
	{ "deepseekv3-a", "{\"qk_rope_head_dim\": 15}", CAD_ERR_RANGE, "15 elements of a head rotate" },
	{ "gptoss-a", "{\"head_dim\": \"(absent)\"}", CAD_ERR_INVALID, "head_dim is missing" },
	{ "gptoss-a", "{\"sliding_window\": \"(absent)\"}", CAD_ERR_INVALID, "sliding_window is missing" },
	{ "gptoss-a", "{\"swiglu_alpha\": 1.5}", CAD_ERR_UNSUPPORTED, "swiglu_alpha is not 1.702" },
	{ "gptoss-a", "{\"rope_scaling\": null}", CAD_ERR_INVALID, "rope_scaling is missing" },
	{ "gptoss-a", "{\"sliding_window\": null}", CAD_ERR_INVALID,
		"layer_types says that layer 0 slides, but no sliding_window" },
};

static void every_refusal_has_its_sentence(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
		const struct refusal *r = &refusals[i];
		struct cad_model_spec spec = { .hidden = 12345 };
		struct cad_error error = { .text = "" };
		enum cad_status status =
			golden_parse(golden_change(golden_config(r->name), r->changes), NULL, &spec, &error);
		if (status != r->status || error.status != status || strncmp(error.text, "config.json: ", 13) != 0 ||
			!strstr(error.text, r->text))
			fail_msg("%s with %s: %s, '%s'; wanted %s, '%s'", r->name, r->changes, cad_status_name(status),
				error.text, cad_status_name(r->status), r->text);
		assert_int_equal(spec.hidden, 12345); /* written only on success */
	}
}

/* What Python writes and JSON does not allow is harmless where nobody reads it, and a value of another
 * kind where somebody does. */
static void json_of_python(void **state)
{
	(void)state;
	json_t *object = golden_config("mixtral-a");
	char *text = json_dumps(object, 0), *changed = malloc(strlen(text) + 512);
	assert_true(text && changed);
	static const struct {
		const char *first, *sentence;
	} cases[] = {
		{ "\"time_limit\": [0.0, Infinity], \"note\": NaN", NULL },
		{ "\"model_max_length\": 1000000000000000019884624838656", NULL },
		{ "\"time_step_limit\": [{\"__float__\": \"Infinity\"}]", NULL },
		{ "\"hidden_size\": 0, \"use_cache\": true, \"use_cache\": false", NULL }, /* the last counts */
		{ "\"clip_qkv\": 1e999, \"head_dim\": 99999999999999999999",
			"head_dim is 1e+20; it must be from 2 to 256" },
		{ "\"head_dim\": Infinity", "head_dim is Infinity; it must be a whole number" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		sprintf(changed, "{%s, %s", cases[i].first, text + 1);
		struct cad_model_spec spec;
		struct cad_error error;
		enum cad_status status =
			cad_model_spec_parse("config.json", changed, strlen(changed), NULL, 0, &spec, &error);
		if ((status == CAD_OK) != !cases[i].sentence ||
			(status != CAD_OK && !strstr(error.text, cases[i].sentence)))
			fail_msg("%s: %s", cases[i].first, status == CAD_OK ? "taken" : error.text);
		if (status == CAD_OK)
			cad_model_spec_fini(&spec);
	}
	free(changed);
	free(text);
	json_decref(object);
}

/* A language model in text_config, and what counts of what is beside it. */
static void nested_text(void **state)
{
	(void)state;
	static const struct {
		const char *outer, *text;
		const char *sentence; /* NULL: it is taken */
	} cases[] = {
		{ "{\"model_type\": \"picture\", \"tie_word_embeddings\": true, \"eos_token_id\": 9, \"vision_config\": {\"a\": 1}}",
			"{\"eos_token_id\": \"(absent)\"}", NULL },
		{ "{\"tie_word_embeddings\": true, \"eos_token_id\": 8}", "{\"eos_token_id\": 9}", NULL },
		{ "{\"model_type\": \"picture\"}", "{\"model_type\": \"(absent)\"}",
			"text_config.model_type is missing" },
		{ "{\"model_type\": \"picture\"}", "{\"model_type\": \"prose\"}",
			"text_config.model_type is 'prose'; supported are" },
		{ "{\"model_type\": \"picture\"}", "{\"hidden_size\": 0}", "text_config.hidden_size is 0" },
		{ "{\"model_type\": \"picture\"}", "{\"residual_multiplier\": 2}",
			"text_config.residual_multiplier is a key that is not known" },
		{ "{\"model_type\": \"picture\", \"quantization_config\": {\"quant_method\": \"gptq\"}}", "{}",
			"quantization_config.quant_method is 'gptq'" },
		{ "{\"model_type\": \"llama\"}", "{}", "hidden_size is missing" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		json_t *outer = json_loads(cases[i].outer, 0, NULL);
		assert_non_null(outer);
		json_object_set_new(outer, "text_config", golden_change(golden_config("mixtral-a"), cases[i].text));
		struct cad_model_spec spec;
		struct cad_error error;
		enum cad_status status = golden_parse(outer, NULL, &spec, &error);
		if ((status == CAD_OK) != !cases[i].sentence ||
			(status != CAD_OK && !strstr(error.text, cases[i].sentence)))
			fail_msg("%s: %s", cases[i].outer, status == CAD_OK ? "taken" : error.text);
		if (status != CAD_OK)
			continue;
		assert_string_equal(spec.architecture, "mixtral");
		assert_true(spec.nested && spec.tied_embeddings);
		assert_int_equal(spec.eos_ids_count, 1);
		assert_int_equal(spec.eos_ids[0], 9);
		cad_model_spec_fini(&spec);
	}
	struct cad_model_spec spec;
	struct cad_error error;
	assert_int_equal(
		golden_parse(json_pack("{s:s, s:i}", "model_type", "picture", "text_config", 1), NULL, &spec, &error),
		CAD_ERR_INVALID);
	assert_non_null(strstr(error.text, "text_config must be an object"));
}

/* Texts that are no configs at all. */
static void not_a_config(void **state)
{
	(void)state;
	static const struct {
		const char *text, *sentence;
	} cases[] = {
		{ "", "config.json is not valid JSON" },
		{ "[]", "config.json does not hold a JSON object" },
		{ "5", "config.json does not hold a JSON object" },
		{ "{\"rms_norm_eps\": nan}", "config.json is not valid JSON: invalid token near 'nan'" },
		{ "{\"a\": \"\xff\"}", "config.json is not valid JSON: unable to decode byte 0xff" },
		{ "{} {}", "config.json is not valid JSON: end of file expected" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct cad_model_spec spec;
		struct cad_error error;
		assert_int_equal(cad_model_spec_parse(
					 "config.json", cases[i].text, strlen(cases[i].text), NULL, 0, &spec, &error),
			CAD_ERR_CORRUPT);
		if (!strstr(error.text, cases[i].sentence))
			fail_msg("'%s': '%s'; wanted '%s'", cases[i].text, error.text, cases[i].sentence);
	}

	enum { DEPTH = 100000 };
	char *deep = malloc(DEPTH);
	assert_non_null(deep);
	memset(deep, '[', DEPTH);
	struct cad_model_spec spec;
	struct cad_error error;
	assert_int_equal(cad_model_spec_parse("config.json", deep, DEPTH, NULL, 0, &spec, &error), CAD_ERR_CORRUPT);
	assert_non_null(strstr(error.text, "maximum parsing depth reached"));
	free(deep);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(yarn_attention_factor),
		cmocka_unit_test(rope_scaling_goes_first),
		cmocka_unit_test(rotary_kinds),
		cmocka_unit_test(positions_that_a_scaling_covers),
		cmocka_unit_test(end_of_sequence),
		cmocka_unit_test(every_refusal_has_its_sentence),
		cmocka_unit_test(json_of_python),
		cmocka_unit_test(nested_text),
		cmocka_unit_test(not_a_config),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
