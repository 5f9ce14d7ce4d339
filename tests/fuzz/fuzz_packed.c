/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as the model.safetensors of a packed model, beside a fixed config.json: refused with a
 * sentence, or every tensor that may be read after kn_packed_check_* is there, and is what was
 * packed or said not to be. The seeds are what `cadrectl model pack` makes of a checkpoint with
 * this config.
 */
#include "kernels/image.h"
#include "kernels/packed.h"
#include "kernels/source.h"
#include "tests/fuzz/model_directory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

/* an MoE layer and a dense one, a tied embedding, rows of an odd length */
static const char config[] =
	"{\"model_type\": \"qwen3_moe\", \"torch_dtype\": \"bfloat16\", \"hidden_size\": 6, \"num_hidden_layers\": 2, "
	"\"num_attention_heads\": 1, \"num_key_value_heads\": 1, \"head_dim\": 4, \"num_experts\": 2, "
	"\"num_experts_per_tok\": 1, \"moe_intermediate_size\": 5, \"intermediate_size\": 3, \"vocab_size\": 8, "
	"\"max_position_embeddings\": 16, \"rms_norm_eps\": 1e-6, \"rope_theta\": 1e4, \"norm_topk_prob\": true, "
	"\"decoder_sparse_step\": 1, \"mlp_only_layers\": [0], \"tie_word_embeddings\": true, \"attention_bias\": false, "
	"\"hidden_act\": \"silu\"}";
static char directory[] = "/tmp/cadre-fuzz-packed-XXXXXX";

static void clean(void) { directory_remove(directory); }

static void read_experts(const struct cad_model *model)
{
	const struct cad_model_spec *spec = cad_model_spec(model);
	struct cad_error error;
	char has[33], recorded[33];

	if (!is_good(kn_packed_check_experts(model, cad_model_packed(model)->experts, &error), &error))
		return;
	float quanta[2] = { 0 };
	enum cad_status status = cad_model_quanta_recorded(model, quanta, &error);
	if (status != CAD_AGAIN && is_good(status, &error))
		CAD_ASSERT(quanta[0] == 0 && quanta[1] > 0 && quanta[1] < 0x1p121f);
	for (uint32_t e = 0; e < spec->gate.experts; e++) {
		struct kn_expert_source source = kn_expert_source_of(model, 1, e);
		kn_image_checksum(&source, cad_model_packed(model)->experts, has);
		kn_expert_checksum(model, 1, e, cad_model_packed(model)->experts, recorded);
		bool same = strcmp(has, recorded) == 0;
		CAD_ASSERT(is_good(kn_packed_verify_expert(model, 1, e, &error), &error) == same);
	}
}

static void read_router(const struct cad_model *model)
{
	struct cad_error error;
	uint8_t digest[CAD_DIGEST_BYTES];
	unsigned sum = 0;

	if (!is_good(kn_packed_check_router(model, cad_model_packed(model)->router, &error), &error))
		return;
	for (uint32_t part = 0; part < cad_model_router_parts(model); part++) {
		(void)is_good(cad_model_router_verify(model, part, &error), &error);
		(void)cad_model_router_part(model, part, digest);
		for (enum cad_role role = 0; role < CAD_ROLE_EXPERT_GATE; role++) {
			struct kn_source source = kn_source_of(cad_model_part_tensor(model, part, role));
			for (size_t i = 0; source.data && i < kn_source_bytes(&source); i++)
				sum += ((const uint8_t *)source.data)[i];
		}
	}
	volatile unsigned sink = sum; /* so that the reads happen */
	(void)sink;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	static bool made;
	struct cad_model *model;
	struct cad_error error;

	if (!made) {
		CAD_ASSERT(mkdtemp(directory) && atexit(clean) == 0);
		directory_write(directory, "config.json", config, sizeof config - 1);
		made = true;
	}

	directory_write(directory, "model.safetensors", bytes, size);
	if (!is_good(cad_model_open(directory, &model, &error), &error))
		return 0;
	if (cad_model_packed(model)) {
		read_experts(model);
		read_router(model);
	}
	cad_model_close(model);

	return 0;
}
