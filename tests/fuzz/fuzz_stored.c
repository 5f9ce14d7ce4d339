/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as the model.safetensors of a checkpoint whose matrices are in FP8 or in MXFP4, beside a fixed
 * config.json that the first byte chooses: refused with a sentence, or every value is there to be read,
 * and an expert that was packed gives back what was read. The seeds are checkpoints with these configs.
 */
#include "common/base/log.h"
#include "kernels/image.h"
#include "kernels/packed.h"
#include "kernels/source.h"
#include "tests/fuzz/model_directory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

#define SIZES \
	"\"num_hidden_layers\": 1, \"num_attention_heads\": 1, \"num_key_value_heads\": 1, \"head_dim\": 4, \"num_local_experts\": 2, " \
	"\"num_experts_per_tok\": 1, \"vocab_size\": 4, \"max_position_embeddings\": 16, \"rms_norm_eps\": 1e-6, \"tie_word_embeddings\": true, "
/* blocks of FP8 that are not whole, one scale for a matrix, MXFP4 */
static const char *const configs[] = {
	"{\"model_type\": \"mixtral\", \"hidden_size\": 3, \"intermediate_size\": 130, " SIZES
	"\"quantization_config\": {\"quant_method\": \"fp8\", \"weight_block_size\": [128, 128]}}",
	"{\"model_type\": \"mixtral\", \"hidden_size\": 3, \"intermediate_size\": 5, " SIZES
	"\"quantization_config\": {\"quant_method\": \"fp8\", \"weight_block_size\": null}}",
	"{\"model_type\": \"gpt_oss\", \"hidden_size\": 32, \"intermediate_size\": 32, \"sliding_window\": 4, " SIZES
	"\"rope_scaling\": {\"rope_type\": \"default\"}, \"quantization_config\": {\"quant_method\": \"mxfp4\"}}",
};
enum { CONFIGS = sizeof configs / sizeof *configs };
static char directory[] = "/tmp/cadre-fuzz-stored-XXXXXX";
static struct kn_device *device;

static void clean(void) { directory_remove(directory); }

/* In one way to keep weights; the values of a type that is widened come back only as such. */
static void pack(const struct cad_model *model, uint32_t expert, enum cad_weights weights)
{
	struct kn_expert_source source = kn_expert_source_of(model, 0, expert), image = kn_image_of(&source, weights);
	size_t bytes = (size_t)kn_image_bytes(&image);
	uint8_t *out = malloc(bytes);
	char read[33], back[33];
	struct kn_expert packed;

	CAD_ASSERT(out);
	kn_image_checksum(&source, weights, read);
	CAD_ASSERT(device->ops->expert_create(device, &source, weights, &packed) == CAD_OK);
	CAD_ASSERT(device->ops->expert_unpack(device, &packed, &image, 0, bytes, out) == CAD_OK);
	device->ops->expert_destroy(device, &packed);
	kn_image_bytes_checksum(out, bytes, back);
	CAD_ASSERT(strcmp(read, back) == 0);
	free(out);
}

static void read_router(const struct cad_model *model)
{
	struct cad_error error;
	uint8_t digest[CAD_DIGEST_BYTES];
	char sum[33];

	for (uint32_t part = 0; part < cad_model_router_parts(model); part++) {
		if (!is_good(cad_model_router_check(model, part, &error), &error))
			continue;
		(void)cad_model_router_part(model, part, digest);
		for (enum cad_role role = 0; role < CAD_ROLE_EXPERT_GATE; role++) {
			struct kn_source source = kn_source_of(cad_model_part_tensor(model, part, role));
			struct kn_expert_source alone = { .down = source };
			if (source.data)
				kn_image_checksum(&alone, CAD_WEIGHTS_AS_IS, sum);
		}
	}
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc, (void)argv;
	cad_log_setup(CAD_LOG_ERROR, CAD_LOG_LOGFMT);
	CAD_ASSERT(mkdtemp(directory) && atexit(clean) == 0);
	CAD_ASSERT(kn_device_open(&(struct kn_device_options){ 0 }, &device, NULL) == CAD_OK);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	static const enum cad_weights ways[] = { CAD_WEIGHTS_AS_IS, CAD_WEIGHTS_BF16, CAD_WEIGHTS_INT8,
		CAD_WEIGHTS_INT4 };
	struct cad_model *model;
	struct cad_error error;

	if (size == 0)
		return 0;
	const char *config = configs[bytes[0] % CONFIGS];
	directory_write(directory, "config.json", config, strlen(config));
	directory_write(directory, "model.safetensors", bytes + 1, size - 1);
	if (!is_good(cad_model_open(directory, &model, &error), &error))
		return 0;
	if (!cad_model_packed(model)) {
		read_router(model);
		for (uint32_t e = 0; e < 2; e++)
			if (is_good(cad_model_expert_check(model, 0, e, &error), &error))
				for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
					pack(model, e, ways[i]);
	}
	cad_model_close(model);

	return 0;
}
