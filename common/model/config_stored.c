/* SPDX-License-Identifier: Apache-2.0 */
/* Source: transformers 5 quantization_config.py (FineGrainedFP8Config, Mxfp4Config). Which tensors are
 * stored how, the tensors say. */
#include "common/model/config_stored.h"

#include "common/model/known_keys.h"

#include <string.h>

enum { BLOCK = 128 };

/* [128, 128], or null: one scale for a matrix. Absent: as DeepSeek-V3 has it. */
static void read_block(const struct cad_keys *keys, struct cad_stored_spec *stored)
{
	static const char key[] = "weight_block_size";
	const json_t *size = json_object_get(keys->object, key);
	bool square = !size ||
		(json_array_size(size) == 2 && json_integer_value(json_array_get(size, 0)) == BLOCK &&
			json_integer_value(json_array_get(size, 1)) == BLOCK);

	if (!square && !json_is_null(size))
		cad_keys_fail(keys, CAD_ERR_UNSUPPORTED, key,
			"is not [128, 128], nor null for one scale for each matrix: other blocks are not supported");
	stored->rows = stored->columns = square ? BLOCK : 0;
}

static void read_fp8(const struct cad_keys *keys, struct cad_stored_spec *stored)
{
	const char *format = cad_keys_text_or(keys, "fmt", "e4m3");

	stored->kind = CAD_STORED_FP8;
	if (strcmp(format, "e4m3") != 0 && strcmp(format, "float8_e4m3fn") != 0) /* MiniMax-M2 calls it so */
		cad_keys_fail(keys, CAD_ERR_UNSUPPORTED, "fmt", "is '%.32s'; FP8 is supported as e4m3", format);
	read_block(keys, stored);
}

void cad_config_read_stored(const struct cad_keys *keys, const struct cad_arch *arch, struct cad_model_spec *spec)
{
	static const char key[] = "quantization_config";
	const json_t *object = cad_keys_get(keys, key);
	struct cad_keys inside = *keys;

	if (!object)
		return;
	if (!json_is_object(object)) {
		cad_keys_fail(keys, CAD_ERR_INVALID, key, "must be an object or null");
		return;
	}

	inside.object = object;
	inside.prefix = "quantization_config.";
	const char *method = cad_keys_text_or(&inside, "quant_method", "");
	if (strcmp(method, "fp8") == 0)
		read_fp8(&inside, &spec->stored);
	else if (strcmp(method, "mxfp4") == 0)
		spec->stored.kind = CAD_STORED_MXFP4;
	else
		cad_keys_fail(&inside, CAD_ERR_UNSUPPORTED, "quant_method",
			"is '%.32s'; supported are fp8 and mxfp4, or a checkpoint with f32, f16 or bf16 weights",
			method);
	cad_known_keys_check(&inside, "quantization_config.", arch);
}
