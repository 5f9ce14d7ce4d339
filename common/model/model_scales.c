/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checkpoints whose matrices others have quantised: the scales beside them. Where they are is found,
 * and their shape checked, when the model is opened; their values are looked at by who loads them.
 *
 * FP8, as DeepSeek-V3 has it: "X.weight" and "X.weight_scale_inv", or "X" and "X_scale_inv" of fused
 * experts. MXFP4, as gpt-oss has it: "X_blocks" [...][groups][16] and "X_scales" [...][groups].
 */
#include "common/model/internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MXFP4_GROUP = 32, MXFP4_BYTES = MXFP4_GROUP / 2 };
/* A scale is below 2^120: by any larger one, the largest values of FP8 would overflow. */
static const float SCALE_END = 0x1p120f;
static const char BLOCKS[] = "_blocks", SCALES[] = "_scales", SCALE_INV[] = "_scale_inv";

static const char *path_of(const struct cad_model *model, const struct cad_shard_tensor *tensor)
{
	return model->shards.list[tensor->shard].path;
}

static enum cad_status missing(
	const struct cad_model *model, const struct cad_shard_tensor *of, const char *name, struct cad_error *error)
{
	return cad_error_set(error, CAD_ERR_CORRUPT,
		"%s: tensor '%s' has dtype %s, but its scales, tensor '%s', are in none of the files",
		path_of(model, of), of->tensor.name, cad_dtype_name(of->tensor.dtype), name);
}

static bool is_scale(enum cad_dtype dtype)
{
	return dtype == CAD_DTYPE_F32 || dtype == CAD_DTYPE_BF16 || dtype == CAD_DTYPE_F8_E8M0;
}

/* One number, whatever its dimensions; or one of each of `count`. */
static bool is_single(const struct cad_tensor *scales, uint64_t count)
{
	uint64_t elements = 1;
	for (uint32_t i = 0; i < scales->rank && i < 4; i++)
		elements *= scales->shape[i];
	return scales->rank <= 4 && elements == count && (count == 1 || scales->shape[0] == count);
}

/* Of [rows][columns] values, or of each of as many as the first dimension of three says. */
static enum cad_status check_shape(const struct cad_model *model, const struct cad_shard_tensor *of,
	const struct cad_shard_tensor *scales, const uint64_t *wants, struct cad_error *error)
{
	const struct cad_tensor *tensor = &scales->tensor;
	uint32_t rank = of->tensor.rank;
	char has[96], text[96];

	if (tensor->rank == rank && memcmp(tensor->shape, wants, rank * sizeof *wants) == 0)
		return CAD_OK;
	return cad_error_set(error, CAD_ERR_CORRUPT, "%s: tensor '%s' has shape [%s], but the scales of '%s' have [%s]",
		path_of(model, scales), tensor->name, cad_model_shape_text(tensor->rank, tensor->shape, has),
		of->tensor.name, cad_model_shape_text(rank, wants, text));
}

static enum cad_status check_dtype(const struct cad_model *model, const struct cad_shard_tensor *of,
	const struct cad_shard_tensor *scales, struct cad_error *error)
{
	if (is_scale(scales->tensor.dtype))
		return CAD_OK;
	return cad_error_set(error, CAD_ERR_UNSUPPORTED,
		"%s: tensor '%s', the scales of '%s', has dtype %s; scales must be f32, bf16 or f8_e8m0",
		path_of(model, scales), scales->tensor.name, of->tensor.name, cad_dtype_name(scales->tensor.dtype));
}

static void take_scales(struct cad_model *model, struct cad_tensor *tensor, const struct cad_shard_tensor *from,
	uint64_t rows, uint64_t columns)
{
	uint64_t width = tensor->shape[tensor->rank - 1];
	tensor->scales = (struct cad_scales){
		.data = from->tensor.data,
		.dtype = from->tensor.dtype,
		.rows = rows,
		.columns = columns,
		.ld = (width + columns - 1) / columns,
		.count = (width + columns - 1) / columns,
		.bytes = from->tensor.bytes,
		.name = from->tensor.name,
	};
	model->used[from - model->shards.tensors] = CAD_USE_SCALES;
}

enum cad_status cad_model_find_scales(struct cad_model *model, struct cad_shard_tensor *tensor, struct cad_error *error)
{
	struct cad_tensor *values = &tensor->tensor;
	const struct cad_stored_spec *stored = &model->spec.stored;
	char name[CAD_NAME_BYTES];

	if (values->dtype != CAD_DTYPE_F8_E4M3 || values->scales.data || model->is_packed)
		return CAD_OK;
	if (stored->kind != CAD_STORED_FP8)
		return cad_error_set(error, CAD_ERR_UNSUPPORTED,
			"%s: tensor '%s' has dtype %s, but config.json has no quantization_config with quant_method fp8",
			path_of(model, tensor), values->name, cad_dtype_name(values->dtype));

	int length = snprintf(name, sizeof name, "%s%s", values->name, SCALE_INV);
	const struct cad_shard_tensor *scales =
		length < (int)sizeof name ? cad_shards_find(&model->shards, name) : NULL;
	if (!scales)
		return missing(model, tensor, name, error);

	const uint64_t *shape = values->shape, many = values->rank == 3 ? shape[0] : 1;
	uint64_t height = shape[values->rank - 2], width = shape[values->rank - 1],
		 rows = stored->rows ? stored->rows : height, columns = stored->rows ? stored->columns : width;
	const uint64_t down = (height + rows - 1) / rows, across = (width + columns - 1) / columns,
		       wants[3] = { values->rank == 3 ? many : down, values->rank == 3 ? down : across, across };
	enum cad_status status = check_dtype(model, tensor, scales, error);
	if (status == CAD_OK && (stored->rows || !is_single(&scales->tensor, many)))
		status = check_shape(model, tensor, scales, wants, error);
	if (status == CAD_OK)
		take_scales(model, values, scales, rows, columns);
	return status;
}

struct cad_shard_tensor *cad_model_find_blocks(const struct cad_model *model, const char *name)
{
	char blocks[CAD_NAME_BYTES];
	if (model->spec.stored.kind != CAD_STORED_MXFP4)
		return NULL;
	int length = snprintf(blocks, sizeof blocks, "%s%s", name, BLOCKS);
	return length < (int)sizeof blocks ? cad_model_find(model, blocks) : NULL;
}

enum cad_status cad_model_unfold_blocks(
	struct cad_model *model, struct cad_shard_tensor *tensor, struct cad_error *error)
{
	struct cad_tensor *values = &tensor->tensor, unfolded = *values;
	char name[CAD_NAME_BYTES], has[96];

	if (values->dtype == CAD_DTYPE_MXFP4)
		return CAD_OK;
	if (values->dtype != CAD_DTYPE_U8 || values->rank != 4 || values->shape[3] != MXFP4_BYTES)
		return cad_error_set(error, CAD_ERR_CORRUPT,
			"%s: tensor '%s' has dtype %s and shape [%s], but blocks of MXFP4 are u8 [experts, rows, groups, 16]",
			path_of(model, tensor), values->name, cad_dtype_name(values->dtype),
			cad_model_shape_text(values->rank, values->shape, has));

	unfolded.dtype = CAD_DTYPE_MXFP4;
	unfolded.rank = 3;
	unfolded.shape[2] = values->shape[2] * MXFP4_GROUP;
	snprintf(name, sizeof name, "%.*s%s", (int)(strlen(values->name) - strlen(BLOCKS)), values->name, SCALES);
	struct cad_shard_tensor *scales = cad_model_find(model, name);
	if (!scales)
		return missing(model, tensor, name, error);
	if (scales->tensor.dtype != CAD_DTYPE_U8 && scales->tensor.dtype != CAD_DTYPE_F8_E8M0)
		return cad_error_set(error, CAD_ERR_UNSUPPORTED,
			"%s: tensor '%s', the scales of '%s', has dtype %s; scales of MXFP4 must be u8",
			path_of(model, scales), scales->tensor.name, values->name,
			cad_dtype_name(scales->tensor.dtype));
	enum cad_status status =
		check_shape(model, &(struct cad_shard_tensor){ .tensor = unfolded }, scales, values->shape, error);
	if (status != CAD_OK)
		return status;
	*values = unfolded;
	take_scales(model, values, scales, 1, MXFP4_GROUP);
	values->scales.dtype = CAD_DTYPE_F8_E8M0;

	return CAD_OK;
}

/* ---- their values ---- */

/* In the scales of a row of blocks; their count: none. */
static uint64_t first_bad(const struct cad_tensor *tensor, uint64_t row)
{
	const struct cad_scales *scales = &tensor->scales;

	if (tensor->dtype == CAD_DTYPE_MXFP4) { /* many, of a byte, of which one means NaN */
		const uint8_t *begin = (const uint8_t *)scales->data + (scales->first + row) * scales->ld,
			      *bad = memchr(begin, 0xff, scales->count);
		return bad ? (uint64_t)(bad - begin) : scales->count;
	}
	for (uint64_t i = 0; i < scales->count; i++)
		if (!(fabsf(cad_scale_at(scales, row, i * scales->columns)) < SCALE_END))
			return i;
	return scales->count;
}

/* Kernels widen FP8 by shifts, which make a number of NaN. */
static bool has_nan(const struct cad_tensor *tensor, uint64_t row)
{
	const uint64_t magnitude = 0x7f7f7f7f7f7f7f7f, high = 0x8080808080808080;
	uint64_t k = tensor->shape[1], step = tensor->row_step ? tensor->row_step : k, nan = 0, i = 0;
	const uint8_t *bytes = (const uint8_t *)tensor->data + row * step;

	for (; i + sizeof(uint64_t) <= k; i += sizeof(uint64_t)) { /* only of 0x7f, one more is 0x80 */
		uint64_t eight;
		memcpy(&eight, bytes + i, sizeof eight);
		nan |= ((eight & magnitude) + 0x0101010101010101) & high;
	}
	for (; i < k; i++)
		nan |= (bytes[i] & 0x7f) == 0x7f;
	return nan != 0;
}

static enum cad_status check_values(
	const struct cad_model *model, const struct cad_tensor *tensor, struct cad_error *error)
{
	const struct cad_scales *scales = &tensor->scales;
	uint64_t rows = scales->data ? tensor->shape[0] : 0;

	for (uint64_t row = 0; row < rows && tensor->dtype == CAD_DTYPE_F8_E4M3; row++)
		if (has_nan(tensor, row))
			return cad_error_set(error, CAD_ERR_CORRUPT, "%s: tensor '%s' has NaN in row %llu",
				model->directory, tensor->name, (unsigned long long)row);

	for (uint64_t row = 0, next; row < rows; row = next) {
		next = ((scales->first + row) / scales->rows + 1) * scales->rows - scales->first;
		uint64_t i = first_bad(tensor, row);
		if (i == scales->count)
			continue;
		return cad_error_set(error, CAD_ERR_CORRUPT,
			"%s: tensor '%s' has the scale %g for values of '%s', from row %llu and column %llu on: it must be a number below 2^%d",
			model->directory, scales->name, (double)cad_scale_at(scales, row, i * scales->columns),
			tensor->name, (unsigned long long)row, (unsigned long long)(i * scales->columns),
			tensor->dtype == CAD_DTYPE_MXFP4 ? 128 : 120);
	}
	return CAD_OK;
}

enum cad_status cad_model_expert_check(
	const struct cad_model *model, uint32_t layer, uint32_t expert, struct cad_error *error)
{
	enum cad_status status = CAD_OK;
	for (enum cad_role role = CAD_ROLE_EXPERT_GATE; role < CAD_ROLE_COUNT && status == CAD_OK; role++) {
		struct cad_tensor tensor = cad_model_tensor(model, role, layer, expert);
		status = check_values(model, &tensor, error);
	}
	return status;
}

enum cad_status cad_model_router_check(const struct cad_model *model, uint32_t part, struct cad_error *error)
{
	enum cad_status status = CAD_OK;
	for (enum cad_role role = 0; role < CAD_ROLE_EXPERT_GATE && status == CAD_OK; role++) {
		struct cad_tensor tensor = cad_model_part_tensor(model, part, role);
		status = check_values(model, &tensor, error);
	}
	return status;
}
