/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checkpoints whose matrices are stored in FP8 or MXFP4: they compute the bits of the checkpoint that has
 * what those stand for in f32, packed or not, and move as others do; scales that are not there, do not
 * fit or are not numbers are refused by name.
 *
 * Both checkpoints are made here, of a config and random values; what a value stands for is computed by
 * the formats' definitions.
 */
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/model/archs.h"
#include "common/model/config.h"
#include "common/model/tensors.h"
#include "kernels/image.h"
#include "kernels/packed.h"
#include "kernels/source.h"
#include "orchestration/cli/evaluation.h"
#include "tests/support/must.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { TENSORS_MAX = 256, BLOCK = 128, GROUP = 32, NAME_BYTES = 160 };

#define COMMON \
	"\"num_hidden_layers\": 2, \"num_attention_heads\": 3, \"num_key_value_heads\": 1, \"head_dim\": 44, \"vocab_size\": 40," \
	" \"max_position_embeddings\": 64, \"rms_norm_eps\": 1e-5"
#define FP8(block) ", \"quantization_config\": {\"quant_method\": \"fp8\", \"weight_block_size\": " block "}"
#define MXFP4 ", \"quantization_config\": {\"quant_method\": \"mxfp4\"}"
static const struct form {
	const char *name, *config, *stored;
	bool fused;
	enum cad_role plain; /* all the same */
} forms[] = {
	{ "each",
		"{\"model_type\": \"qwen2_moe\", \"hidden_size\": 200, \"intermediate_size\": 260, \"moe_intermediate_size\": 150, \"shared_expert_intermediate_size\": 129,"
		" \"num_experts\": 3, \"num_experts_per_tok\": 2, \"mlp_only_layers\": [0], " COMMON,
		FP8("[128, 128]"), false, 0 },
	{ "fused",
		"{\"model_type\": \"mixtral\", \"hidden_size\": 257, \"intermediate_size\": 150, \"num_local_experts\": 3, \"num_experts_per_tok\": 2, " COMMON,
		FP8("[128, 128]"), true, 0 },
	{ "shared",
		"{\"model_type\": \"granitemoeshared\", \"hidden_size\": 128, \"intermediate_size\": 70, \"shared_intermediate_size\": 200, \"num_local_experts\": 3, \"num_experts_per_tok\": 2, " COMMON,
		FP8("[128, 128]"), true, 0 },
	{ "one scale",
		"{\"model_type\": \"mixtral\", \"hidden_size\": 130, \"intermediate_size\": 33, \"num_local_experts\": 3, \"num_experts_per_tok\": 1, " COMMON,
		FP8("null"), false, 0 },
	{ "one scale, fused",
		"{\"model_type\": \"mixtral\", \"hidden_size\": 130, \"intermediate_size\": 33, \"num_local_experts\": 3, \"num_experts_per_tok\": 1, " COMMON,
		FP8("null"), true, 0 },
	{ "gate alone",
		"{\"model_type\": \"qwen2_moe\", \"hidden_size\": 136, \"intermediate_size\": 40, \"moe_intermediate_size\": 150, \"shared_expert_intermediate_size\": 129,"
		" \"num_experts\": 3, \"num_experts_per_tok\": 2, \"mlp_only_layers\": [0], " COMMON,
		FP8("[128, 128]"), false, CAD_ROLE_EXPERT_UP },
	{ "mxfp4",
		"{\"model_type\": \"gpt_oss\", \"hidden_size\": 96, \"intermediate_size\": 160, \"num_local_experts\": 3, \"num_experts_per_tok\": 2, \"sliding_window\": 5,"
		" \"rope_scaling\": {\"rope_type\": \"default\"}, " COMMON,
		MXFP4, true, 0 },
	{ "latent attention",
		"{\"model_type\": \"deepseek_v3\", \"hidden_size\": 200, \"intermediate_size\": 260, \"moe_intermediate_size\": 150, \"n_shared_experts\": 1,"
		" \"n_routed_experts\": 4, \"num_experts_per_tok\": 2, \"n_group\": 2, \"topk_group\": 1, \"first_k_dense_replace\": 1, \"q_lora_rank\": 130,"
		" \"kv_lora_rank\": 140, \"qk_nope_head_dim\": 40, \"qk_rope_head_dim\": 8, \"v_head_dim\": 36, \"num_hidden_layers\": 2,"
		" \"num_attention_heads\": 3, \"num_key_value_heads\": 3, \"vocab_size\": 40, \"max_position_embeddings\": 64, \"rms_norm_eps\": 1e-5",
		FP8("[128, 128]"), false, 0 },
};
enum { FORMS = sizeof forms / sizeof *forms };

/* ---- values ---- */

static uint32_t state;
static uint32_t next(void) { return state = state * 1664525 + 1013904223; }
static float noise(void) { return (float)(int32_t)next() * 0x1p-31f; }

static float of_f8(uint8_t byte)
{
	int exponent = byte >> 3 & 15, mantissa = byte & 7;
	float value = exponent ? ldexpf((float)(8 + mantissa), exponent - 10) : ldexpf((float)mantissa, -9);
	return byte & 0x80 ? -value : value;
}

static float of_f4(unsigned nibble)
{
	unsigned exponent = nibble >> 1 & 3, mantissa = nibble & 1;
	float value = exponent ? ldexpf((float)(2 + mantissa), (int)exponent - 2) : (float)mantissa * 0.5f;
	return nibble & 8 ? -value : value;
}

/* ---- two checkpoints ---- */

struct list {
	struct cad_tensor tensors[TENSORS_MAX];
	char names[TENSORS_MAX][NAME_BYTES];
	size_t count;
};

static void *add(struct list *list, const char *name, const char *tail, enum cad_dtype dtype, uint32_t rank,
	const uint64_t *shape)
{
	size_t bytes = cad_dtype_bytes(dtype);
	assert_true(list->count < TENSORS_MAX);
	char *own = list->names[list->count];
	snprintf(own, NAME_BYTES, "%s%s", name, tail);
	struct cad_tensor *tensor = &list->tensors[list->count++];
	*tensor = (struct cad_tensor){ .dtype = dtype, .rank = rank, .name = own };
	for (uint32_t i = 0; i < rank; i++)
		bytes *= tensor->shape[i] = shape[i];
	tensor->bytes = bytes;
	tensor->data = calloc(bytes, 1);
	assert_non_null(tensor->data);
	return (void *)(uintptr_t)tensor->data;
}

static void free_list(struct list *list)
{
	for (size_t i = 0; i < list->count; i++)
		free((void *)(uintptr_t)list->tensors[i].data);
	list->count = 0;
}

/* [many][rows][columns] in FP8, and what it stands for in `wide`. */
static void add_fp8(struct list *list, const char *name, uint32_t rank, const uint64_t *shape, bool single, float *wide)
{
	uint64_t many = rank == 3 ? shape[0] : 1, rows = shape[rank - 2], columns = shape[rank - 1],
		 height = single ? rows : BLOCK, width = single ? columns : BLOCK, down = (rows + height - 1) / height,
		 across = (columns + width - 1) / width;
	const uint64_t scales_shape[3] = { rank == 3 ? many : down, rank == 3 ? down : across, across };
	uint8_t *values = add(list, name, "", CAD_DTYPE_F8_E4M3, rank, shape);
	float *scales = add(list, name, "_scale_inv", CAD_DTYPE_F32, single && rank == 2 ? 0 : rank, scales_shape);

	for (uint64_t i = 0; i < many * down * across; i++)
		scales[i] = (1 + noise() / 2) * 0x1p-11f;
	for (uint64_t i = 0; i < many * rows * columns; i++) {
		uint64_t matrix = i / (rows * columns), row = i / columns % rows, column = i % columns;
		do
			values[i] = (uint8_t)(next() >> 24);
		while ((values[i] & 0x7f) == 0x7f);
		wide[i] = of_f8(values[i]) * scales[(matrix * down + row / height) * across + column / width];
	}
}

/* [many][rows][columns] in MXFP4. */
static void add_mxfp4(struct list *list, const char *name, const uint64_t *shape, float *wide)
{
	const uint64_t blocks_shape[4] = { shape[0], shape[1], shape[2] / GROUP, GROUP / 2 };
	uint8_t *blocks = add(list, name, "_blocks", CAD_DTYPE_U8, 4, blocks_shape),
		*scales = add(list, name, "_scales", CAD_DTYPE_U8, 3, blocks_shape);

	for (uint64_t g = 0; g < shape[0] * shape[1] * shape[2] / GROUP; g++) {
		scales[g] = (uint8_t)(120 + next() % 5);
		for (uint64_t i = 0; i < GROUP; i++) {
			unsigned nibble = next() >> 28;
			blocks[g * GROUP / 2 + i / 2] |= (uint8_t)(nibble << i % 2 * 4);
			wide[g * GROUP + i] = ldexpf(of_f4(nibble), scales[g] - 127);
		}
	}
}

static void add_plain(struct list *list, const char *name, uint32_t rank, const uint64_t *shape, const float *values)
{
	float *data = add(list, name, "", CAD_DTYPE_F32, rank, shape);
	memcpy(data, values, list->tensors[list->count - 1].bytes);
}

struct made {
	const struct form *form;
	struct cad_model_spec spec;
	const struct cad_arch *arch;
	struct list stored, plain;
	char stored_directory[64], plain_directory[64];
};

/* One tensor that both have as it is, or only in what they have of it. */
static void add_both(struct made *m, enum cad_role role, uint32_t layer, uint32_t expert)
{
	struct cad_tensor_want want = cad_tensor_wanted(&m->spec, role, layer);
	bool matrix = want.rank == 2 && cad_role_is_layer(role) && role != CAD_ROLE_GATE &&
		m->spec.stored.kind == CAD_STORED_FP8 && role != m->form->plain;
	char name[NAME_BYTES];
	uint64_t count = want.shape[0] * (want.rank == 2 ? want.shape[1] : 1);
	float *wide = malloc(count * sizeof *wide);

	assert_true(wide && cad_tensor_name(m->arch, role, layer, expert, name, sizeof name));
	for (uint64_t i = 0; i < count; i++)
		wide[i] = want.rank == 2 ? noise() / sqrtf((float)want.shape[1]) * 2 : 1 + noise() / 4;
	if (matrix)
		add_fp8(&m->stored, name, want.rank, want.shape, m->spec.stored.rows == 0, wide);
	else
		add_plain(&m->stored, name, want.rank, want.shape, wide);
	add_plain(&m->plain, name, want.rank, want.shape, wide);
	free(wide);
}

/* Where row r of gate or up is among the rows of both. */
static uint64_t row_of(const struct made *m, enum cad_role role, uint64_t r, uint64_t rows)
{
	bool up = role == CAD_ROLE_EXPERT_UP || role == CAD_ROLE_EXPERT_UP_BIAS || role == CAD_ROLE_SHARED_UP;
	if (m->arch->fused == CAD_FUSED_IN_TURN)
		return 2 * r + up;
	return up ? rows + r : r;
}

/* A tensor with gate and up, and of all experts or of the shared one; plain, each has its own. */
static void add_fused(struct made *m, enum cad_role first, enum cad_role second, uint32_t layer)
{
	struct cad_tensor_want one = cad_tensor_wanted(&m->spec, first, layer),
			       all = cad_tensor_fused_wanted(m->arch, &m->spec, first, one, true);
	bool expert = cad_role_is_expert(first);
	uint64_t rows = one.shape[0], columns = one.rank == 2 ? one.shape[1] : 1, parts = second != first ? 2 : 1,
		 copies = expert ? m->spec.gate.experts : 1, count = copies * parts * rows * columns;
	float *wide = malloc(count * sizeof *wide), *part = malloc(rows * columns * sizeof *part);
	char name[NAME_BYTES];

	assert_true(wide && part && cad_tensor_fused_name(m->arch, first, layer, name, sizeof name));
	for (uint64_t i = 0; i < count; i++)
		wide[i] = noise() / 4;
	if (one.rank == 1)
		add_plain(&m->stored, name, all.rank, all.shape, wide);
	else if (m->spec.stored.kind == CAD_STORED_MXFP4)
		add_mxfp4(&m->stored, name, all.shape, wide);
	else
		add_fp8(&m->stored, name, all.rank, all.shape, m->spec.stored.rows == 0, wide);

	for (uint64_t e = 0; e < copies; e++)
		for (enum cad_role role = first;; role = second) {
			for (uint64_t r = 0; r < rows; r++) {
				uint64_t row = parts == 2 ? row_of(m, role, r, rows) : r;
				memcpy(part + r * columns, wide + (e * parts * rows + row) * columns,
					columns * sizeof *part);
			}
			assert_true(cad_tensor_name(m->arch, role, layer, (uint32_t)e, name, sizeof name));
			add_plain(&m->plain, name, one.rank, one.shape, part);
			if (role == second)
				break;
		}
	free(wide);
	free(part);
}

static void add_layer(struct made *m, uint32_t layer)
{
	static const enum cad_role pairs[][2] = {
		{ CAD_ROLE_EXPERT_GATE, CAD_ROLE_EXPERT_UP },
		{ CAD_ROLE_EXPERT_DOWN, CAD_ROLE_EXPERT_DOWN },
		{ CAD_ROLE_EXPERT_GATE_BIAS, CAD_ROLE_EXPERT_UP_BIAS },
		{ CAD_ROLE_EXPERT_DOWN_BIAS, CAD_ROLE_EXPERT_DOWN_BIAS },
	};

	for (enum cad_role role = CAD_ROLE_ATTENTION_NORM; role < CAD_ROLE_COUNT; role++) {
		bool expert = cad_role_is_expert(role);
		if (!cad_tensor_wanted(&m->spec, role, layer).wanted || (expert && m->form->fused))
			continue;
		for (uint32_t e = 0; e < (expert ? m->spec.gate.experts : 1); e++)
			add_both(m, role, layer, e);
	}
	for (size_t i = 0; m->form->fused && i < sizeof pairs / sizeof *pairs; i++)
		if (cad_tensor_wanted(&m->spec, pairs[i][0], layer).wanted)
			add_fused(m, pairs[i][0], pairs[i][1], layer);
}

static void write_file(const char *directory, const char *name, const char *text)
{
	char path[128];
	snprintf(path, sizeof path, "%s/%s", directory, name);
	FILE *file = fopen(path, "w");
	assert_true(file && fputs(text, file) >= 0 && fclose(file) == 0);
}

/* Larger elements first. */
static void write_list(struct list *list, const char *directory)
{
	static struct cad_tensor sorted[TENSORS_MAX];
	size_t count = 0;
	char path[128];
	struct cad_error error;

	for (size_t element = 4; element > 0; element /= 2)
		for (size_t i = 0; i < list->count; i++)
			if (cad_dtype_bytes(list->tensors[i].dtype) == element)
				sorted[count++] = list->tensors[i];
	snprintf(path, sizeof path, "%s/model.safetensors", directory);
	must(cad_safetensors_write(path, sorted, count, &error), &error);
}

static void make(struct made *m, const struct form *form)
{
	char config[1024];
	struct cad_error error;

	state = 7;
	*m = (struct made){ .form = form };
	snprintf(config, sizeof config, "%s%s}", form->config, form->stored);
	must(cad_model_spec_parse("config.json", config, strlen(config), NULL, 0, &m->spec, &error), &error);
	m->arch = cad_arch_find(m->spec.architecture);
	for (enum cad_role role = 0; role < CAD_ROLE_ATTENTION_NORM; role++)
		if (cad_tensor_wanted(&m->spec, role, 0).wanted)
			add_both(m, role, 0, 0);
	for (uint32_t layer = 0; layer < m->spec.layers_count; layer++)
		add_layer(m, layer);

	strcpy(m->stored_directory, "/tmp/cadre-test-stored-XXXXXX");
	strcpy(m->plain_directory, "/tmp/cadre-test-stored-XXXXXX");
	assert_true(mkdtemp(m->stored_directory) && mkdtemp(m->plain_directory));
	write_list(&m->stored, m->stored_directory);
	write_list(&m->plain, m->plain_directory);
	write_file(m->stored_directory, "config.json", config);
	snprintf(config, sizeof config, "%s}", form->config);
	write_file(m->plain_directory, "config.json", config);
}

static void remove_directory(const char *directory)
{
	char path[128];
	snprintf(path, sizeof path, "%s/config.json", directory);
	(void)remove(path);
	snprintf(path, sizeof path, "%s/model.safetensors", directory);
	(void)remove(path);
	assert_int_equal(rmdir(directory), 0);
}

static void unmake(struct made *m)
{
	remove_directory(m->stored_directory);
	remove_directory(m->plain_directory);
	free_list(&m->stored);
	free_list(&m->plain);
	cad_model_spec_fini(&m->spec);
}

/* ---- what they compute ---- */

static struct cl_evaluation evaluate(
	const char *directory, struct cad_settings settings, uint32_t nodes, enum kn_isa isa)
{
	enum { TOKENS = 21 };
	struct cl_evaluation evaluation = {
		.sequences = calloc(1, sizeof *evaluation.sequences),
		.count = 1,
		.greedy_tokens = 3,
	};
	struct em_options options = {
		.model = directory,
		.threads = 1,
		.nodes = nodes,
		.isa = isa,
		.settings = settings,
		.router.kv_bytes = 8 << 20,
	};
	struct cad_error error;

	assert_non_null(evaluation.sequences);
	evaluation.sequences->count = TOKENS;
	evaluation.sequences->tokens = calloc(TOKENS, sizeof(int32_t));
	assert_non_null(evaluation.sequences->tokens);
	for (int32_t i = 0; i < TOKENS; i++)
		evaluation.sequences->tokens[i] = i * 11 % 40;
	must(cl_evaluation_run(&evaluation, &options, &error), &error);
	return evaluation;
}

static void same_with(const char *one, const char *other, struct cad_settings settings, uint32_t nodes, enum kn_isa isa)
{
	struct cl_evaluation a = evaluate(one, settings, nodes, isa), b = evaluate(other, settings, 1, KN_ISA_AUTO);
	size_t count = (size_t)a.sequences->count * a.vocab;
	assert_memory_equal(a.sequences->logits, b.sequences->logits, count * sizeof(float));
	for (size_t i = 0; i < count; i++)
		assert_true(isfinite(a.sequences->logits[i]));
	assert_memory_equal(a.sequences->greedy, b.sequences->greedy, 3 * sizeof(int32_t));
	cl_evaluation_fini(&a);
	cl_evaluation_fini(&b);
}

static void same(const char *one, const char *other, struct cad_settings settings, uint32_t nodes)
{
	same_with(one, other, settings, nodes, KN_ISA_AUTO);
}

static const struct cad_settings ways[] = {
	{ .wire = CADRE_ROW_F32 },
	{ .weights = CAD_WEIGHTS_BF16 },
	{ .profile = CAD_PROFILE_BF16, .router_profile = CAD_PROFILE_SAME },
	{ .profile = CAD_PROFILE_INT8, .router_profile = CAD_PROFILE_SAME },
	{ .profile = CAD_PROFILE_INT4, .router_profile = CAD_PROFILE_SAME },
};
enum { WAYS = sizeof ways / sizeof *ways };

static void bits_of_what_they_stand_for(void **unused)
{
	(void)unused;
	for (size_t f = 0; f < FORMS; f++) {
		struct made m;
		print_message("%s\n", forms[f].name);
		make(&m, &forms[f]);
		for (size_t w = 0; w < WAYS; w++)
			same(m.stored_directory, m.plain_directory, ways[w], 1 + w % 2);
		same_with(m.stored_directory, m.plain_directory, ways[0], 1, KN_ISA_REF);
		same_with(m.stored_directory, m.plain_directory, ways[0], 1, KN_ISA_AVX2);
		unmake(&m);
	}
}

static bool go_on(void *context, uint64_t done, uint64_t total) { return (void)context, (void)done, (void)total, true; }

static void pack_and_compare(const struct made *m, struct cad_settings way, enum cad_weights weights)
{
	struct cad_model *model;
	struct cad_error error;
	char directory[] = "/tmp/cadre-test-stored-XXXXXX", path[128], *config;
	size_t bytes;

	assert_non_null(mkdtemp(directory));
	must(cad_model_open(m->stored_directory, &model, &error), &error);
	snprintf(path, sizeof path, "%s/config.json", m->stored_directory);
	must(cad_file_read(path, 1 << 20, &config, &bytes, &error), &error);
	write_file(directory, "config.json", config);
	free(config);
	snprintf(path, sizeof path, "%s/model.safetensors", directory);
	struct kn_packing packing = {
		.model = model,
		.path = path,
		.go_on = go_on,
		.weights = { weights, weights },
	};
	must(kn_packed_write(&packing, &error), &error);
	cad_model_close(model);
	same(directory, m->plain_directory, way, 2);
	remove_directory(directory);
}

/* As stored; and rounded, but for what is in f32 in every profile. */
static void bits_of_packed_models(void **unused)
{
	(void)unused;
	for (size_t f = 0; f < FORMS; f++) {
		struct made m;
		make(&m, &forms[f]);
		pack_and_compare(&m, ways[0], CAD_WEIGHTS_AS_IS);
		pack_and_compare(&m, ways[2], CAD_WEIGHTS_BF16_ROWS);
		unmake(&m);
	}
}

/* ---- moves ---- */

struct collected {
	uint8_t *next, *end;
};
static bool collect(void *context, const void *bytes, size_t count)
{
	struct collected *c = context;
	assert_true(c->next + count <= c->end);
	memcpy(c->next, bytes, count);
	c->next += count;
	return true;
}

/* What is read of the files comes back from what was packed, and packs again. */
static void moves(struct kn_device *device, const struct kn_expert_source *source, enum cad_weights weights)
{
	struct kn_expert_source image = kn_image_of(source, weights);
	size_t bytes = (size_t)kn_image_bytes(&image);
	uint8_t *read = malloc(bytes), *back = malloc(bytes);
	struct collected collected = { read, read + bytes };
	struct kn_expert expert;

	assert_true(read && back && kn_image_read(source, weights, collect, &collected));
	assert_ptr_equal(collected.next, collected.end);
	assert_int_equal(device->ops->expert_create(device, source, weights, &expert), CAD_OK);
	assert_int_equal(expert.bytes, device->ops->expert_bytes(device, source, weights));
	assert_int_equal(device->ops->expert_unpack(device, &expert, &image, 0, bytes, back), CAD_OK);
	assert_memory_equal(read, back, bytes);
	device->ops->expert_destroy(device, &expert);

	struct kn_expert_source moved = kn_image_at(&image, read);
	memset(back, 0, bytes);
	assert_int_equal(device->ops->expert_create(device, &moved, weights, &expert), CAD_OK);
	for (size_t at = 0; at < bytes; at += 1000)
		assert_int_equal(device->ops->expert_unpack(
					 device, &expert, &image, at, bytes - at < 1000 ? bytes - at : 1000, back + at),
			CAD_OK);
	assert_memory_equal(read, back, bytes);
	device->ops->expert_destroy(device, &expert);
	free(read);
	free(back);
}

static void images(void **unused)
{
	(void)unused;
	struct kn_device *device;
	struct cad_error error;

	must(kn_device_open(&(struct kn_device_options){ 0 }, &device, &error), &error);
	for (size_t f = 0; f < FORMS; f++) {
		struct made m;
		struct cad_model *model;
		make(&m, &forms[f]);
		must(cad_model_open(m.stored_directory, &model, &error), &error);
		struct kn_expert_source source = kn_expert_source_of(model, 1, 2);
		for (enum cad_weights weights = CAD_WEIGHTS_AS_IS; weights <= CAD_WEIGHTS_INT4; weights++)
			moves(device, &source, weights);
		cad_model_close(model);
		unmake(&m);
	}
	device->ops->destroy(device);
}

/* ---- what is refused ---- */

static struct cad_tensor *tensor_of(struct list *list, const char *tail)
{
	for (size_t i = 0; i < list->count; i++) {
		size_t length = strlen(list->names[i]);
		if (length >= strlen(tail) && strcmp(list->names[i] + length - strlen(tail), tail) == 0)
			return &list->tensors[i];
	}
	fail_msg("no tensor is called ...%s", tail);
	return NULL;
}

enum harm { DROP, TURN, WRONG_TYPE, NOT_A_NUMBER, TOO_LARGE, NAN_VALUE };

static void harm(struct list *list, struct cad_tensor *tensor, enum harm how)
{
	float bad = how == TOO_LARGE ? 0x1p120f : NAN;
	uint64_t first = tensor->shape[0];

	switch (how) {
	case DROP: list->names[tensor - list->tensors][0] = 'x'; break;
	case TURN:
		tensor->shape[0] = tensor->shape[tensor->rank - 1];
		tensor->shape[tensor->rank - 1] = first;
		break;
	case NAN_VALUE: ((uint8_t *)(uintptr_t)tensor->data)[tensor->bytes - 1] = 0xff; break;
	case WRONG_TYPE: tensor->dtype = tensor->dtype == CAD_DTYPE_U8 ? CAD_DTYPE_I8 : CAD_DTYPE_I32; break;
	default:
		if (tensor->dtype == CAD_DTYPE_U8)
			((uint8_t *)(uintptr_t)tensor->data)[tensor->bytes - 1] = 0xff;
		else
			memcpy((uint8_t *)(uintptr_t)tensor->data + tensor->bytes - sizeof bad, &bad, sizeof bad);
	}
}

static void refused(void **unused)
{
	(void)unused;
	static const struct {
		size_t form;
		const char *tensor;
		enum harm harm;
		const char *says;
	} cases[] = {
		{ 0, "layers.1.mlp.experts.2.up_proj.weight_scale_inv", DROP,
			"'model.layers.1.mlp.experts.2.up_proj.weight' has dtype f8_e4m3, but its scales, tensor 'model.layers.1.mlp.experts.2.up_proj.weight_scale_inv', are in none" },
		{ 0, "layers.0.mlp.down_proj.weight_scale_inv", TURN,
			"down_proj.weight_scale_inv' has shape [3, 2], but the scales of 'model.layers.0.mlp.down_proj.weight' have [2, 3]" },
		{ 1, "layers.0.block_sparse_moe.experts.down_proj_scale_inv", TURN, "but the scales of" },
		{ 0, "layers.0.self_attn.q_proj.weight_scale_inv", WRONG_TYPE, "has dtype i32; scales must be" },
		{ 0, "layers.0.self_attn.o_proj.weight_scale_inv", NOT_A_NUMBER,
			"'model.layers.0.self_attn.o_proj.weight_scale_inv' has the scale nan" },
		{ 0, "layers.1.mlp.experts.0.down_proj.weight_scale_inv", TOO_LARGE, "must be a number below 2^120" },
		{ 1, "layers.1.block_sparse_moe.experts.down_proj_scale_inv", NOT_A_NUMBER, "has the scale nan" },
		{ 0, "layers.1.mlp.experts.1.down_proj.weight", NAN_VALUE,
			"'model.layers.1.mlp.experts.1.down_proj.weight' has NaN in row 199" },
		{ 1, "layers.1.block_sparse_moe.experts.down_proj", NAN_VALUE,
			"experts.down_proj' has NaN in row 256" },
		{ 4, "layers.1.block_sparse_moe.experts.gate_up_proj_scale_inv", TURN, "but the scales of" },
		{ 6, "layers.1.mlp.experts.gate_up_proj_scales", DROP,
			"its scales, tensor 'model.layers.1.mlp.experts.gate_up_proj_scales', are in none" },
		{ 6, "layers.1.mlp.experts.down_proj_scales", TURN, "down_proj_scales' has shape [5, 96, 3], but" },
		{ 6, "layers.1.mlp.experts.down_proj_scales", WRONG_TYPE, "scales of MXFP4 must be u8" },
		{ 6, "layers.1.mlp.experts.down_proj_blocks", WRONG_TYPE, "blocks of MXFP4 are u8" },
		{ 6, "layers.1.mlp.experts.down_proj_blocks", TURN, "blocks of MXFP4 are u8" },
		{ 6, "layers.1.mlp.experts.gate_up_proj_scales", NOT_A_NUMBER,
			"'model.layers.1.mlp.experts.gate_up_proj_scales' has the scale nan" },
	};

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct made m;
		struct cad_model *model = NULL;
		struct cad_error error = { 0 };

		make(&m, &forms[cases[i].form]);
		harm(&m.stored, tensor_of(&m.stored, cases[i].tensor), cases[i].harm);
		write_list(&m.stored, m.stored_directory);
		enum cad_status status = cad_model_open(m.stored_directory, &model, &error);
		if (cases[i].harm >= NOT_A_NUMBER) {
			must(status, &error);
			for (uint32_t part = 0; part < cad_model_router_parts(model) && status == CAD_OK; part++)
				status = cad_model_router_check(model, part, &error);
			for (uint32_t e = 0; e < m.spec.gate.experts && status == CAD_OK; e++)
				status = kn_packed_verify_expert(model, 1, e, &error);
			struct em_options options = { .model = m.stored_directory, .threads = 1 };
			struct cl_evaluation evaluation = { .greedy_tokens = 1 };
			struct cad_error same_error = { 0 };
			options.router.kv_bytes = 8 << 20;
			assert_int_equal(cl_evaluation_run(&evaluation, &options, &same_error), CAD_ERR_CORRUPT);
			assert_non_null(strstr(same_error.text, cases[i].says));
		}
		if (status >= 0 || !strstr(error.text, cases[i].says))
			fail_msg("%s: %s", cases[i].tensor, error.text);
		cad_model_close(model);
		unmake(&m);
	}
}

/* FP8 where nothing says so, and of what is not a matrix of a layer. */
static void out_of_place(void **unused)
{
	(void)unused;
	struct made m;
	struct cad_model *model;
	struct cad_error error;
	char config[1024];

	make(&m, &forms[0]);
	snprintf(config, sizeof config, "%s}", forms[0].config);
	write_file(m.stored_directory, "config.json", config);
	assert_int_equal(cad_model_open(m.stored_directory, &model, &error), CAD_ERR_UNSUPPORTED);
	assert_non_null(strstr(error.text, "config.json has no quantization_config with quant_method fp8"));
	unmake(&m);

	make(&m, &forms[0]);
	struct cad_tensor *embed = tensor_of(&m.stored, "embed_tokens.weight");
	embed->dtype = CAD_DTYPE_F8_E4M3;
	embed->bytes /= 4;
	write_list(&m.stored, m.stored_directory);
	assert_int_equal(cad_model_open(m.stored_directory, &model, &error), CAD_ERR_UNSUPPORTED);
	assert_non_null(strstr(error.text, "'model.embed_tokens.weight' has dtype f8_e4m3"));
	unmake(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bits_of_what_they_stand_for),
		cmocka_unit_test(bits_of_packed_models),
		cmocka_unit_test(images),
		cmocka_unit_test(refused),
		cmocka_unit_test(out_of_place),
	};

	cad_log_setup(CAD_LOG_ERROR, CAD_LOG_LOGFMT);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
