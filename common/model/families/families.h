/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The families of models: what each means by its config.json, what it calls its tensors, and its row
 * of the table (archs.h), one file for families that are kin. Source: transformers 5,
 * configuration_*.py and modeling_*.py of each model.
 *
 * Internal to common/model. Constant data; any thread may read it.
 */
#ifndef CADRE_COMMON_MODEL_FAMILIES_FAMILIES_H
#define CADRE_COMMON_MODEL_FAMILIES_FAMILIES_H

#include "common/model/archs.h"

/* All of them, in the order in which users are told. */
#define CAD_FAMILIES(FAMILY) \
	FAMILY(mixtral) \
	FAMILY(olmoe) \
	FAMILY(qwen3_moe) \
	FAMILY(llama) \
	FAMILY(qwen2_moe) \
	FAMILY(glm4_moe) \
	FAMILY(glm4_moe_lite) \
	FAMILY(minimax_m2) \
	FAMILY(ernie4_5_moe) \
	FAMILY(granitemoe) \
	FAMILY(granitemoeshared) \
	FAMILY(llama4_text) \
	FAMILY(mellum) \
	FAMILY(mimo_v2_flash) \
	FAMILY(mistral4) \
	FAMILY(flex_olmo) \
	FAMILY(dots1) \
	FAMILY(solar_open) \
	FAMILY(exaone_moe) \
	FAMILY(flint) \
	FAMILY(hunyuan_v1_moe) \
	FAMILY(hy_v3) \
	FAMILY(kolibri1) \
	FAMILY(aria_text) \
	FAMILY(axk1) \
	FAMILY(deepseek_v2) \
	FAMILY(deepseek_v3) \
	FAMILY(kimi_k2) \
	FAMILY(gpt_oss)

#define CAD_FAMILY_DECLARE(name) extern const struct cad_arch cad_arch_##name;
CAD_FAMILIES(CAD_FAMILY_DECLARE)

#endif
