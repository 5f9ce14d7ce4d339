/* SPDX-License-Identifier: Apache-2.0 */
/* Whole checkpoints: the golden ones open and are what they should be; damaged copies of them are
 * refused with a sentence. */
#include "common/base/file.h"
#include "common/model/safetensors.h"
#include "kernels/source.h"
#include "tests/support/golden_copy.h"
#include "tests/support/must.h"

#include <dirent.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define GOLDEN CADRE_SOURCE_DIR "/tests/golden/"

static struct cad_model *open_golden(const char *name)
{
	char path[256];
	snprintf(path, sizeof path, GOLDEN "%s/model", name);
	struct cad_model *model = NULL;
	struct cad_error error;
	if (cad_model_open(path, &model, &error) != CAD_OK)
		fail_msg("%s: %s", name, error.text);
	return model;
}

/* Whether the page of an address takes memory of this process. */
static bool is_resident(const void *address)
{
	uint64_t entry = 0, page = (uintptr_t)address / (uint64_t)sysconf(_SC_PAGESIZE);
	FILE *map = fopen("/proc/self/pagemap", "rb");
	assert_non_null(map);
	assert_int_equal(fseek(map, (long)(page * sizeof entry), SEEK_SET), 0);
	assert_int_equal(fread(&entry, sizeof entry, 1, map), 1);
	fclose(map);
	return entry >> 63;
}

static void hash_and_look(const struct cad_model *model, const void *tensor, bool router)
{
	char hex[33], again[33];
	uint8_t digest[CAD_DIGEST_BYTES];
	volatile uint8_t first = *(const uint8_t *)tensor;
	assert_true(is_resident(tensor));
	if (router) {
		cad_model_router_part(model, 1, digest);
		assert_false(is_resident(tensor));
	} else {
		kn_expert_checksum(model, 1, 3, CAD_WEIGHTS_AS_IS, hex);
		assert_false(is_resident(tensor));
		kn_expert_checksum(model, 1, 3, CAD_WEIGHTS_AS_IS, again);
		assert_string_equal(hex, again);
	}
	assert_int_equal(*(const uint8_t *)tensor, first);
}

/* Who has read a checkpoint does not keep its files in its memory. */
static void what_was_read_is_forgotten(void **state)
{
	(void)state;
	struct cad_model *model = open_golden("olmoe-a");
	hash_and_look(model, cad_model_tensor(model, CAD_ROLE_EXPERT_UP, 1, 3).data, false);
	hash_and_look(model, cad_model_tensor(model, CAD_ROLE_Q, 1, 0).data, true);
	cad_model_close(model);
}

/* ---- a copy of a checkpoint that may be damaged ---- */

static void change_json(
	const struct golden_copy *copy, const char *file, const char *object, const char *key, json_t *value)
{
	json_t *root = json_load_file(golden_copy_path(copy, file), 0, NULL);
	assert_non_null(root);
	json_t *inside = object ? json_object_get(root, object) : root;
	if (value)
		json_object_set_new(inside, key, value);
	else
		json_object_del(inside, key);
	assert_int_equal(json_dump_file(root, golden_copy_path(copy, file), 0), 0);
	json_decref(root);
}

enum damage { DROP, RENAME, TO_HEAD, TO_MLP, SWAP_SHAPE, FLATTEN, RETYPE, ADD };

/* Writes model.safetensors again with one tensor (whose name ends with `tail`) changed; ADD adds
 * one of that very name. */
static void damage(const struct golden_copy *copy, enum damage how, const char *tail)
{
	static const float zero = 0;
	const char *path = golden_copy_path(copy, "model.safetensors");
	struct cad_safetensors *file;

	assert_int_equal(cad_safetensors_open(path, &file, NULL), CAD_OK);
	size_t count = cad_safetensors_count(file), kept = 0;
	struct cad_tensor *tensors = calloc(count + 1, sizeof *tensors);
	assert_non_null(tensors);
	bool done = false;
	if (how == ADD) {
		tensors[kept++] = (struct cad_tensor){
			.name = tail,
			.data = &zero,
			.dtype = CAD_DTYPE_F32,
			.rank = 1,
			.shape = { 1 },
			.bytes = 4,
		};
		done = true;
	}

	for (size_t i = 0; i < count; i++) {
		struct cad_tensor t = cad_safetensors_at(file, i);
		size_t length = strlen(t.name), tail_length = strlen(tail);
		if (!done && length >= tail_length && strcmp(t.name + length - tail_length, tail) == 0) {
			done = true;
			uint64_t first = t.shape[0];
			switch (how) {
			case DROP: continue;
			case RENAME: t.name = "model.layers.0.unheard_of"; break;
			case TO_HEAD: t.name = "lm_head.weight"; break;
			case TO_MLP: t.name = "model.layers.0.mlp.gate.weight"; break;
			case SWAP_SHAPE:
				t.shape[0] = t.shape[1];
				t.shape[1] = first;
				break;
			case FLATTEN:
				t.shape[0] *= t.shape[1];
				t.rank = 1;
				break;
			case RETYPE:
				t.dtype = CAD_DTYPE_U8;
				t.bytes /= 2;
				break; /* from 16 bits an element */
			case ADD: break;
			}
		}
		tensors[kept++] = t;
	}

	assert_true(done);

	/* a new file: the old one stays mapped */
	assert_int_equal(cad_safetensors_write(path, tensors, kept, NULL), CAD_OK);
	free(tensors);
	cad_safetensors_close(file);
}

static void refuses(const struct golden_copy *copy, enum cad_status wanted, const char *one, const char *two)
{
	struct cad_model *model = NULL;
	struct cad_error error = { .text = "" };
	enum cad_status status = cad_model_open(copy->directory, &model, &error);
	if (status != wanted || error.status != wanted || !strstr(error.text, one) || !strstr(error.text, two))
		fail_msg("%s, '%s'; wanted %s, '%s', '%s'", cad_status_name(status), error.text,
			cad_status_name(wanted), one, two);
	assert_null(model);
}

static void opens(const struct golden_copy *copy)
{
	struct cad_model *model;
	struct cad_error error;
	must(cad_model_open(copy->directory, &model, &error), &error);
	cad_model_close(model);
}

/* ---- good ones ---- */

static void golden_sizes(void **state)
{
	(void)state;

	/* total_parameters as the index of each sharded case says; the others counted from their
	 * shapes */
	static const struct {
		const char *name;
		uint64_t parameters, active, expert, total;
	} cases[] = {
		{ "mixtral-a", 805440, 289344, 43008, 1610880 },
		{ "mixtral-b", 590832, 238320, 58752, 1181664 },
		{ "olmoe-a", 726080, 283712, 18432, 1452160 },
		{ "olmoe-b", 249552, 94032, 23040, 998208 },
		{ "qwen3moe-a", 567104, 290624, 15360, 1134208 },
		{ "qwen3moe-b", 203032, 149272, 10752, 406064 },
		{ "llama-a", 171456, 171456, 0, 342912 },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct cad_model *model = open_golden(cases[i].name);
		const struct cad_model_spec *spec = cad_model_spec(model);
		struct cad_model_sizes sizes = cad_model_sizes(model);
		assert_int_equal(sizes.parameters, cases[i].parameters);
		assert_int_equal(sizes.active_parameters, cases[i].active);
		assert_int_equal(sizes.expert, cases[i].expert);
		assert_int_equal(sizes.total, cases[i].total);
		assert_int_equal(sizes.router + sizes.expert * spec->gate.experts * cad_model_spec_moe_layers(spec),
			sizes.total);
		assert_true(sizes.files > sizes.total);
		cad_model_close(model);
	}
}

static void is_shape(struct cad_tensor tensor, const char *name, enum cad_dtype dtype, uint64_t n, uint64_t k)
{
	assert_non_null(tensor.data);
	assert_string_equal(tensor.name, name);
	assert_int_equal(tensor.dtype, dtype);
	assert_int_equal(tensor.rank, k ? 2 : 1);
	assert_int_equal(tensor.shape[0], n);
	if (k)
		assert_int_equal(tensor.shape[1], k);
	assert_int_equal(tensor.bytes, n * (k ? k : 1) * cad_dtype_bytes(dtype));
}

static void roles(void **state)
{
	(void)state;
	struct cad_model *model = open_golden("mixtral-b");
	is_shape(cad_model_tensor(model, CAD_ROLE_EMBED, 0, 0), "model.embed_tokens.weight", CAD_DTYPE_F16, 384, 72);
	is_shape(cad_model_tensor(model, CAD_ROLE_LM_HEAD, 99, 99), "lm_head.weight", CAD_DTYPE_F16, 384, 72);
	is_shape(cad_model_tensor(model, CAD_ROLE_Q, 2, 99), "model.layers.2.self_attn.q_proj.weight", CAD_DTYPE_F16,
		144, 72);
	is_shape(cad_model_tensor(model, CAD_ROLE_O, 1, 0), "model.layers.1.self_attn.o_proj.weight", CAD_DTYPE_F16, 72,
		144);
	is_shape(cad_model_tensor(model, CAD_ROLE_FFN_NORM, 0, 0), "model.layers.0.post_attention_layernorm.weight",
		CAD_DTYPE_F16, 72, 0);
	is_shape(cad_model_tensor(model, CAD_ROLE_GATE, 0, 0), "model.layers.0.block_sparse_moe.gate.weight",
		CAD_DTYPE_F16, 5, 72);
	is_shape(cad_model_tensor(model, CAD_ROLE_EXPERT_GATE, 2, 4),
		"model.layers.2.block_sparse_moe.experts.4.w1.weight", CAD_DTYPE_F16, 136, 72);
	is_shape(cad_model_tensor(model, CAD_ROLE_EXPERT_UP, 2, 4),
		"model.layers.2.block_sparse_moe.experts.4.w3.weight", CAD_DTYPE_F16, 136, 72);
	is_shape(cad_model_tensor(model, CAD_ROLE_EXPERT_DOWN, 2, 4),
		"model.layers.2.block_sparse_moe.experts.4.w2.weight", CAD_DTYPE_F16, 72, 136);
	assert_null(cad_model_tensor(model, CAD_ROLE_Q_BIAS, 0, 0).data);
	assert_null(cad_model_tensor(model, CAD_ROLE_FFN_GATE, 0, 0).data);
	assert_null(cad_model_tensor(model, CAD_ROLE_EXPERT_GATE_BIAS, 0, 0).data);
	cad_model_close(model);

	model = open_golden("qwen3moe-b");
	is_shape(cad_model_tensor(model, CAD_ROLE_Q_BIAS, 0, 0), "model.layers.0.self_attn.q_proj.bias", CAD_DTYPE_BF16,
		112, 0);
	is_shape(cad_model_tensor(model, CAD_ROLE_K_NORM, 3, 0), "model.layers.3.self_attn.k_norm.weight",
		CAD_DTYPE_BF16, 16, 0);
	is_shape(cad_model_tensor(model, CAD_ROLE_FFN_DOWN, 0, 0), "model.layers.0.mlp.down_proj.weight",
		CAD_DTYPE_BF16, 56, 96);

	/* tied */
	is_shape(cad_model_tensor(model, CAD_ROLE_LM_HEAD, 0, 0), "model.embed_tokens.weight", CAD_DTYPE_BF16, 448, 56);
	assert_null(cad_model_tensor(model, CAD_ROLE_EXPERT_UP, 0, 0).data); /* a dense layer */
	assert_null(cad_model_tensor(model, CAD_ROLE_GATE, 0, 0).data);
	is_shape(cad_model_tensor(model, CAD_ROLE_EXPERT_UP, 1, 7), "model.layers.1.mlp.experts.7.up_proj.weight",
		CAD_DTYPE_BF16, 32, 56);
	cad_model_close(model);

	model = open_golden("olmoe-b");
	is_shape(cad_model_tensor(model, CAD_ROLE_Q_NORM, 0, 0), "model.layers.0.self_attn.q_norm.weight",
		CAD_DTYPE_F32, 48, 0);
	is_shape(cad_model_tensor(model, CAD_ROLE_K_NORM, 0, 0), "model.layers.0.self_attn.k_norm.weight",
		CAD_DTYPE_F32, 16, 0);
	cad_model_close(model);

	model = open_golden("llama-a");
	assert_null(cad_model_tensor(model, CAD_ROLE_EXPERT_UP, 0, 0).data);
	cad_model_close(model);
}

/* The bytes of a tensor are those of the file, found here by hand. */
static void data_is_that_of_the_file(void **state)
{
	(void)state;
	struct cad_model *model = open_golden("mixtral-a");
	struct cad_tensor tensor = cad_model_tensor(model, CAD_ROLE_FINAL_NORM, 0, 0);
	char *bytes;
	size_t size;
	assert_int_equal(
		cad_file_read(GOLDEN "mixtral-a/model/model.safetensors", SIZE_MAX - 1, &bytes, &size, NULL), CAD_OK);
	uint64_t header_bytes = 0;
	memcpy(&header_bytes, bytes, 8);
	json_t *header = json_loadb(bytes + 8, header_bytes, 0, NULL);
	assert_non_null(header);
	json_t *offsets = json_object_get(json_object_get(header, "model.norm.weight"), "data_offsets");
	size_t at = (size_t)json_integer_value(json_array_get(offsets, 0));
	assert_memory_equal(tensor.data, bytes + 8 + header_bytes + at, tensor.bytes);
	json_decref(header);
	free(bytes);
	cad_model_close(model);
}

static void fingerprints_and_checksums(void **state)
{
	(void)state;
	struct golden_copy copy = golden_copy_create("mixtral-a");
	struct cad_model *model = open_golden("mixtral-a"), *same;
	assert_int_equal(cad_model_open(copy.directory, &same, NULL), CAD_OK);
	char a[33], b[33];
	cad_model_fingerprint(model, a);
	cad_model_fingerprint(same, b);
	assert_string_equal(a, b); /* where the files lie does not matter */
	assert_int_equal(strlen(a), 32);
	assert_int_equal(strspn(a, "0123456789abcdef"), 32);
	kn_expert_checksum(model, 3, 7, CAD_WEIGHTS_AS_IS, a);
	kn_expert_checksum(same, 3, 7, CAD_WEIGHTS_AS_IS, b);
	assert_string_equal(a, b);
	kn_expert_checksum(model, 3, 6, CAD_WEIGHTS_AS_IS, b);
	assert_string_not_equal(a, b);
	kn_expert_checksum(model, 2, 7, CAD_WEIGHTS_AS_IS, b);
	assert_string_not_equal(a, b);
	cad_model_close(same);

	/* One bit of expert (3, 7): its checksum changes, the fingerprint does not. */
	struct cad_tensor down = cad_model_tensor(model, CAD_ROLE_EXPERT_DOWN, 3, 7);
	char *bytes;
	size_t size;
	assert_int_equal(
		cad_file_read(golden_copy_path(&copy, "model.safetensors"), SIZE_MAX - 1, &bytes, &size, NULL), CAD_OK);
	uint64_t header_bytes;
	memcpy(&header_bytes, bytes, 8);
	const char *first = NULL;
	struct cad_safetensors *file;
	assert_int_equal(cad_safetensors_open(GOLDEN "mixtral-a/model/model.safetensors", &file, NULL), CAD_OK);
	first = cad_safetensors_at(file, 0).data;
	struct cad_tensor again = cad_safetensors_find(file, down.name);
	bytes[8 + header_bytes + (size_t)((const char *)again.data - first) + down.bytes - 1] ^= 1;
	cad_safetensors_close(file);
	golden_copy_write(golden_copy_path(&copy, "model.safetensors"), bytes, size);
	free(bytes);
	assert_int_equal(cad_model_open(copy.directory, &same, NULL), CAD_OK);
	kn_expert_checksum(same, 3, 7, CAD_WEIGHTS_AS_IS, b);
	assert_string_not_equal(a, b);
	kn_expert_checksum(model, 3, 6, CAD_WEIGHTS_AS_IS, a);
	kn_expert_checksum(same, 3, 6, CAD_WEIGHTS_AS_IS, b);
	assert_string_equal(a, b);
	cad_model_fingerprint(model, a);
	cad_model_fingerprint(same, b);
	assert_string_equal(a, b);
	cad_model_close(same);

	/* Another config is another model. */
	change_json(&copy, "config.json", NULL, "rope_theta", json_real(10000));
	assert_int_equal(cad_model_open(copy.directory, &same, NULL), CAD_OK);
	cad_model_fingerprint(same, b);
	assert_string_not_equal(a, b);
	cad_model_close(same);
	cad_model_close(model);
	golden_copy_remove(&copy);
}

static void router_checksum_of(const struct cad_model *model, char hex[33])
{
	uint8_t digests[64][CAD_DIGEST_BYTES];
	assert_in_range(cad_model_router_parts(model), 2, 64);
	for (uint32_t i = 0; i < cad_model_router_parts(model); i++)
		cad_model_router_part(model, i, digests[i]);
	cad_model_router_checksum(model, (const uint8_t(*)[CAD_DIGEST_BYTES])digests, hex);
}

/* One bit of any tensor changes what routers compute with, unless it is a routed expert's; the
 * fingerprint sees none of them. */
static void router_checksum_sees_what_routers_compute_with(const char *name)
{
	struct golden_copy copy = golden_copy_create(name);
	struct cad_model *model, *other;
	struct cad_safetensors *file;
	char before[33], after[33], fingerprint[33], same[33], files[33], other_files[33] = "", *bytes;
	size_t size;

	assert_int_equal(cad_model_open(copy.directory, &model, NULL), CAD_OK);
	router_checksum_of(model, before);
	cad_model_fingerprint(model, fingerprint);
	cad_model_files(model, files);
	assert_int_equal(
		cad_file_read(golden_copy_path(&copy, "model.safetensors"), SIZE_MAX - 1, &bytes, &size, NULL), CAD_OK);
	assert_int_equal(cad_safetensors_open(golden_copy_path(&copy, "model.safetensors"), &file, NULL), CAD_OK);
	const char *first = cad_safetensors_at(file, 0).data;
	size_t data = size, count = cad_safetensors_count(file), experts = 0;
	for (size_t i = 0; i < count; i++)
		data -= cad_safetensors_at(file, i).bytes;

	for (size_t i = 0; i < count; i++) {
		struct cad_tensor tensor = cad_safetensors_at(file, i);
		char *byte = &bytes[data + (size_t)((const char *)tensor.data - first) + tensor.bytes - 1];
		bool expert = strstr(tensor.name, ".experts.");
		experts += expert;
		if (expert && experts % 16 != 1)
			continue;
		*byte ^= 1;
		golden_copy_write(golden_copy_path(&copy, "model.safetensors"), bytes, size);
		*byte ^= 1;
		assert_int_equal(cad_model_open(copy.directory, &other, NULL), CAD_OK);
		router_checksum_of(other, after);
		if ((strcmp(before, after) == 0) != expert)
			fail_msg("%s: '%s' and '%s'", tensor.name, before, after);
		cad_model_fingerprint(other, same);
		assert_string_equal(fingerprint, same);
		cad_model_files(other, other_files);
		cad_model_close(other);
	}

	assert_string_not_equal(files, other_files);
	cad_safetensors_close(file);
	free(bytes);
	cad_model_close(model);
	golden_copy_remove(&copy);
}

static void router_checksums(void **state)
{
	(void)state;
	router_checksum_sees_what_routers_compute_with("mixtral-a");
	router_checksum_sees_what_routers_compute_with("olmoe-a");
}

/* ---- damaged ones ---- */

static void damaged_tensors(void **state)
{
	(void)state;
	static const struct {
		enum damage how;
		const char *tail;
		enum cad_status status;
		const char *one, *two;
	} cases[] = {
		{ DROP, "model.norm.weight", CAD_ERR_CORRUPT,
			"/model.safetensors: tensor 'model.norm.weight' is missing", "config.json calls for it" },
		{ DROP, "lm_head.weight", CAD_ERR_CORRUPT, "tensor 'lm_head.weight' is missing", "" },
		{ DROP, "layers.3.block_sparse_moe.experts.7.w2.weight", CAD_ERR_CORRUPT,
			"tensor 'model.layers.3.block_sparse_moe.experts.7.w2.weight' is missing", "" },
		{ RENAME, "layers.0.block_sparse_moe.gate.weight", CAD_ERR_CORRUPT,
			"tensor 'model.layers.0.block_sparse_moe.gate.weight' is missing", "" },
		{ SWAP_SHAPE, "layers.1.block_sparse_moe.experts.0.w1.weight", CAD_ERR_CORRUPT,
			"/model.safetensors: tensor 'model.layers.1.block_sparse_moe.experts.0.w1.weight'",
			"has shape [64, 112], but config.json calls for [112, 64]" },
		{ FLATTEN, "layers.2.self_attn.k_proj.weight", CAD_ERR_CORRUPT,
			"tensor 'model.layers.2.self_attn.k_proj.weight'",
			"has shape [2048], but config.json calls for [32, 64]" },
		{ RETYPE, "model.norm.weight", CAD_ERR_UNSUPPORTED,
			"/model.safetensors: tensor 'model.norm.weight' has dtype u8; weights must be f32, f16 or bf16",
			"" },
		{ ADD, "model.layers.4.input_layernorm.weight", CAD_ERR_CORRUPT,
			"/model.safetensors: tensor 'model.layers.4.input_layernorm.weight' is not one that config.json calls for",
			"" },
		{ ADD, "model.layers.0.self_attn.q_proj.bias", CAD_ERR_CORRUPT,
			"tensor 'model.layers.0.self_attn.q_proj.bias' is not one that", "" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct golden_copy copy = golden_copy_create("mixtral-a");
		damage(&copy, cases[i].how, cases[i].tail);
		refuses(&copy, cases[i].status, cases[i].one, cases[i].two);
		golden_copy_remove(&copy);
	}
}

/* Layers that predict further tokens stand behind the others, as many as config.json says. */
static void further_layers(void **state)
{
	(void)state;
	struct golden_copy copy = golden_copy_create("minimaxm2-a");
	struct cad_model *model;
	const char *first;

	damage(&copy, ADD, "model.layers.6.input_layernorm.weight");
	assert_int_equal(cad_model_open(copy.directory, &model, NULL), CAD_OK);
	assert_int_equal(cad_model_unread(model, &first), 1);
	assert_string_equal(first, "model.layers.6.input_layernorm.weight");
	struct cad_unread_tensors further = cad_model_unread_tensors(model, CAD_UNREAD_FURTHER);
	assert_int_equal(further.count, 1);
	assert_true(further.bytes > 0);
	assert_string_equal(further.first, "model.layers.6.input_layernorm.weight");
	assert_int_equal(cad_model_unread_tensors(model, CAD_UNREAD_OTHER).count, 0);
	cad_model_close(model);
	damage(&copy, ADD, "model.layers.7.input_layernorm.weight");
	refuses(&copy, CAD_ERR_CORRUPT, "tensor 'model.layers.7.input_layernorm.weight' is not one that", "");
	golden_copy_remove(&copy);
}

/* What old exporters leave behind disturbs nobody. */
static void harmless_extras(void **state)
{
	(void)state;
	struct golden_copy copy = golden_copy_create("llama-a");
	damage(&copy, ADD, "model.layers.0.self_attn.rotary_emb.inv_freq");
	opens(&copy);
	damage(&copy, ADD, "extra.buffer");
	struct cad_model *model;
	const char *first;
	assert_int_equal(cad_model_open(copy.directory, &model, NULL), CAD_OK);
	assert_int_equal(cad_model_unread(model, &first), 1);
	assert_string_equal(first, "extra.buffer");
	assert_int_equal(cad_model_unread_tensors(model, CAD_UNREAD_OTHER).count, 1);
	assert_string_equal(cad_model_unread_tensors(model, CAD_UNREAD_OTHER).first, "extra.buffer");
	assert_int_equal(cad_model_unread_tensors(model, CAD_UNREAD_COMPUTED).count, 1);
	assert_int_equal(cad_model_unread_tensors(model, CAD_UNREAD_FURTHER).count, 0);
	cad_model_close(model);
	damage(&copy, ADD, "model.layers.0.self_attn.q_proj.bias"); /* config.json calls for none */
	refuses(&copy, CAD_ERR_CORRUPT, "tensor 'model.layers.0.self_attn.q_proj.bias' is not one that config.json",
		"");
	golden_copy_remove(&copy);
}

static void tied_heads(void **state)
{
	(void)state;
	struct golden_copy copy = golden_copy_create("llama-a");
	damage(&copy, TO_HEAD, "model.embed_tokens.weight");
	struct cad_model *model;
	assert_int_equal(cad_model_open(copy.directory, &model, NULL), CAD_OK);
	is_shape(cad_model_tensor(model, CAD_ROLE_EMBED, 0, 0), "lm_head.weight", CAD_DTYPE_BF16, 512, 64);
	assert_false(cad_model_has_own_head(model));
	assert_int_equal(cad_model_sizes(model).parameters, 171456);
	cad_model_close(model);
	change_json(&copy, "config.json", NULL, "tie_word_embeddings", json_false());
	refuses(&copy, CAD_ERR_CORRUPT, "tensor 'model.embed_tokens.weight' is missing", "");
	golden_copy_remove(&copy);

	/* both are themselves */
	model = open_golden("forms/llama-own-head");
	assert_true(cad_model_has_own_head(model));
	assert_false(cad_model_spec(model)->tied_embeddings);
	cad_model_close(model);
}

static void fused_experts(void **state)
{
	(void)state;
	struct cad_model *model = open_golden("forms/qwen3moe-fused");
	is_shape(cad_model_tensor(model, CAD_ROLE_EXPERT_UP, 1, 3), "model.layers.1.mlp.experts.gate_up_proj",
		CAD_DTYPE_F32, 24, 32);
	is_shape(cad_model_tensor(model, CAD_ROLE_EXPERT_DOWN, 1, 3), "model.layers.1.mlp.experts.down_proj",
		CAD_DTYPE_F32, 32, 24);
	assert_int_equal(cad_model_sizes(model).expert, 3 * 24 * 32 * 4);
	cad_model_close(model);

	struct golden_copy copy = golden_copy_create("forms/qwen3moe-fused");
	damage(&copy, ADD, "model.layers.0.mlp.experts.0.gate_proj.weight");
	refuses(&copy, CAD_ERR_CORRUPT, "'model.layers.0.mlp.experts.0.gate_proj.weight' is not one that config.json",
		"");
	damage(&copy, SWAP_SHAPE, "experts.gate_up_proj");
	refuses(&copy, CAD_ERR_CORRUPT,
		"experts.gate_up_proj' has shape [48, 4, 32], but config.json calls for [4, 48, 32]", "");
	golden_copy_remove(&copy);

	/* gate and up of a shared expert */
	model = open_golden("granitemoe-a");
	struct cad_tensor gate = cad_model_tensor(model, CAD_ROLE_SHARED_GATE, 1, 0),
			  up = cad_model_tensor(model, CAD_ROLE_SHARED_UP, 1, 0);
	is_shape(gate, "model.layers.1.shared_mlp.input_linear.weight", CAD_DTYPE_BF16, 56, 64);
	is_shape(up, "model.layers.1.shared_mlp.input_linear.weight", CAD_DTYPE_BF16, 56, 64);
	assert_ptr_equal((const char *)up.data, (const char *)gate.data + gate.bytes);
	cad_model_close(model);
	copy = golden_copy_create("granitemoe-a");
	damage(&copy, SWAP_SHAPE, "layers.1.shared_mlp.input_linear.weight");
	refuses(&copy, CAD_ERR_CORRUPT, "input_linear.weight' has shape [64, 112], but config.json calls for [112, 64]",
		"");
	golden_copy_remove(&copy);

	/* as transformers 5 calls it */
	copy = golden_copy_create("mixtral-a");
	damage(&copy, TO_MLP, "model.layers.0.block_sparse_moe.gate.weight");
	opens(&copy);
	golden_copy_remove(&copy);
}

/* Tensors of the language model inside of a larger one are found by what stands before the embedding's
 * name. */
static void text_of_a_larger_model(void **state)
{
	(void)state;
	static const char *const forms[] = { "forms/nested-version4", "forms/nested-version5" };
	for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
		struct golden_copy copy = golden_copy_create(forms[i]);
		struct cad_model *model;
		struct cad_error error;
		must(cad_model_open(copy.directory, &model, &error), &error);
		is_shape(cad_model_tensor(model, CAD_ROLE_EMBED, 0, 0), "model.embed_tokens.weight", CAD_DTYPE_F32, 32,
			16);
		is_shape(cad_model_tensor(model, CAD_ROLE_LM_HEAD, 0, 0),
			i == 0 ? "lm_head.weight" : "model.embed_tokens.weight", CAD_DTYPE_F32, 32, 16);
		cad_model_close(model);

		/* others' embeddings are not the language model's */
		damage(&copy, ADD, "audio_tower.embed_tokens.weight");
		opens(&copy);
		damage(&copy, ADD, "embed_tokens.weight");
		opens(&copy);
		damage(&copy, ADD, "a_language_model.embed_tokens.weight");
		refuses(&copy, CAD_ERR_UNSUPPORTED, "several tensors are called '...embed_tokens.weight'", "");
		golden_copy_remove(&copy);

		copy = golden_copy_create(forms[i]);
		damage(&copy, DROP, "embed_tokens.weight");
		refuses(&copy, CAD_ERR_CORRUPT, "no tensor is called '...embed_tokens.weight'", "");
		golden_copy_remove(&copy);

		copy = golden_copy_create(forms[i]);
		damage(&copy, DROP, "layers.1.self_attn.k_proj.weight");
		refuses(&copy, CAD_ERR_CORRUPT, "tensor 'model.layers.1.self_attn.k_proj.weight' is missing", "");
		golden_copy_remove(&copy);
	}
}

static void truncated_files(void **state)
{
	(void)state;
	static const long sizes[] = { 0, 7, 8, 100, 17000, 1625663 };
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		struct golden_copy copy = golden_copy_create("mixtral-a");
		assert_int_equal(truncate(golden_copy_path(&copy, "model.safetensors"), sizes[i]), 0);
		refuses(&copy, CAD_ERR_CORRUPT, "/model.safetensors", "");
		golden_copy_remove(&copy);
	}

	struct golden_copy copy = golden_copy_create("olmoe-b");
	assert_int_equal(truncate(golden_copy_path(&copy, "model-00002-of-00003.safetensors"), 400000), 0);
	refuses(&copy, CAD_ERR_CORRUPT, "/model-00002-of-00003.safetensors", "truncated");
	golden_copy_remove(&copy);
}

static void bad_indexes(void **state)
{
	(void)state;
	static const char index[] = "model.safetensors.index.json", norm[] = "model.norm.weight";
	static const struct {
		const char *tensor, *file; /* file NULL: the entry goes */
		const char *text;
	} cases[] = {
		{ norm, "../model-00003-of-00003.safetensors",
			"into '../model-00003-of-00003.safetensors', which is not the name of a .safetensors file beside it" },
		{ norm, "/etc/passwd", "into '/etc/passwd', which is not the name" },
		{ norm, "config.json", "into 'config.json', which is not the name" },
		{ norm, ".safetensors", "into '.safetensors', which is not the name" },
		{ norm, "", "into '', which is not the name" },
		{ norm, "model-00009-of-00003.safetensors", "model.safetensors.index.json: " },
		{ norm, "model-00001-of-00003.safetensors",
			"puts tensor 'model.norm.weight' into model-00001-of-00003.safetensors, but it is not there" },
		{ "model.unheard_of", "model-00001-of-00003.safetensors",
			"puts tensor 'model.unheard_of' into model-00001-of-00003.safetensors, but it is not there" },
		{ norm, NULL, "tensor 'model.norm.weight' is not in model.safetensors.index.json" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct golden_copy copy = golden_copy_create("olmoe-b");
		change_json(
			&copy, index, "weight_map", cases[i].tensor, cases[i].file ? json_string(cases[i].file) : NULL);
		refuses(&copy, strstr(cases[i].text, "index.json: ") ? CAD_ERR_NOT_FOUND : CAD_ERR_CORRUPT,
			cases[i].text, copy.directory);
		golden_copy_remove(&copy);
	}

	static const struct {
		const char *json, *text;
	} texts[] = {
		{ "", "model.safetensors.index.json is not valid JSON" },
		{ "[]", "model.safetensors.index.json does not hold a JSON object" },
		{ "{}", "model.safetensors.index.json: weight_map is missing, empty or not an object" },
		{ "{\"weight_map\": {}}", "weight_map is missing, empty or not an object" },
		{ "{\"weight_map\": 3}", "weight_map is missing, empty or not an object" },
		{ "{\"weight_map\": {\"a\": 3}}", "weight_map puts tensor 'a' into ''" },
	};
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		struct golden_copy copy = golden_copy_create("olmoe-b");
		golden_copy_write(golden_copy_path(&copy, index), texts[i].json, strlen(texts[i].json));
		refuses(&copy, CAD_ERR_CORRUPT, texts[i].text, index);
		golden_copy_remove(&copy);
	}

	struct golden_copy copy = golden_copy_create("olmoe-b");
	assert_int_equal(rename(golden_copy_path(&copy, "model-00001-of-00003.safetensors"),
				 golden_copy_path(&copy, "model-00002-of-00003.safetensors")),
		0);
	refuses(&copy, CAD_ERR_NOT_FOUND, "/model-00001-of-00003.safetensors does not exist",
		"/model.safetensors.index.json: ");
	golden_copy_write(golden_copy_path(&copy, "model-00001-of-00003.safetensors"), "", 0);
	refuses(&copy, CAD_ERR_CORRUPT, "/model-00001-of-00003.safetensors has 0 bytes", "");
	golden_copy_remove(&copy);
}

/* The same tensor in two shards: which one is meant? */
static void tensor_in_two_shards(void **state)
{
	(void)state;
	struct golden_copy copy = golden_copy_create("olmoe-b");
	struct cad_safetensors *file;
	assert_int_equal(
		cad_safetensors_open(golden_copy_path(&copy, "model-00003-of-00003.safetensors"), &file, NULL), CAD_OK);
	struct cad_tensor twice = cad_safetensors_at(file, 0);
	assert_int_equal(cad_safetensors_write(golden_copy_path(&copy, "extra.safetensors"), &twice, 1, NULL), CAD_OK);
	change_json(&copy, "model.safetensors.index.json", "weight_map", twice.name, json_string("extra.safetensors"));
	cad_safetensors_close(file);
	refuses(&copy, CAD_ERR_CORRUPT, "extra.safetensors and in ", "/model-00003-of-00003.safetensors");
	golden_copy_remove(&copy);
}

static void directories_that_are_none(void **state)
{
	(void)state;
	struct cad_model *model;
	struct cad_error error;
	assert_int_equal(cad_model_open("/no/such/model", &model, &error), CAD_ERR_NOT_FOUND);
	assert_string_equal(error.text, "/no/such/model does not exist; give the directory of a model");
	assert_int_equal(cad_model_open(GOLDEN "README.md", &model, &error), CAD_ERR_NOT_FOUND);
	assert_non_null(strstr(error.text, "README.md/config.json does not exist"));
	assert_int_equal(cad_model_open("", &model, &error), CAD_ERR_NOT_FOUND);

	struct golden_copy copy = golden_copy_create("mixtral-a");
	assert_int_equal(unlink(golden_copy_path(&copy, "model.safetensors")), 0);
	refuses(&copy, CAD_ERR_NOT_FOUND, "has neither model.safetensors nor model.safetensors.index.json",
		copy.directory);
	assert_int_equal(mkdir(golden_copy_path(&copy, "model.safetensors"), 0700), 0);
	refuses(&copy, CAD_ERR_IO, "/model.safetensors is a directory, but must be a file", "");
	assert_int_equal(rmdir(golden_copy_path(&copy, "model.safetensors")), 0);
	assert_int_equal(unlink(golden_copy_path(&copy, "config.json")), 0);
	refuses(&copy, CAD_ERR_NOT_FOUND, "/config.json does not exist", "");
	assert_int_equal(mkdir(golden_copy_path(&copy, "config.json"), 0700), 0);
	refuses(&copy, CAD_ERR_IO, "/config.json is a directory, but must be a file", "");
	assert_int_equal(rmdir(golden_copy_path(&copy, "config.json")), 0);
	assert_int_equal(mkfifo(golden_copy_path(&copy, "config.json"), 0600), 0);
	refuses(&copy, CAD_ERR_IO, "/config.json is not a regular file", "");
	golden_copy_remove(&copy);
}

static void generation_config_is_optional(void **state)
{
	(void)state;
	struct golden_copy copy = golden_copy_create("mixtral-a");
	change_json(&copy, "generation_config.json", NULL, "eos_token_id", json_pack("[i, i]", 5, 6));
	struct cad_model *model;
	assert_int_equal(cad_model_open(copy.directory, &model, NULL), CAD_OK);
	assert_int_equal(cad_model_spec(model)->eos_ids_count, 2);
	cad_model_close(model);
	assert_int_equal(unlink(golden_copy_path(&copy, "generation_config.json")), 0);
	assert_int_equal(cad_model_open(copy.directory, &model, NULL), CAD_OK);
	assert_int_equal(cad_model_spec(model)->eos_ids_count, 1);
	assert_string_equal(cad_model_directory(model), copy.directory);
	cad_model_close(model);
	golden_copy_remove(&copy);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(golden_sizes),
		cmocka_unit_test(roles),
		cmocka_unit_test(data_is_that_of_the_file),
		cmocka_unit_test(fingerprints_and_checksums),
		cmocka_unit_test(router_checksums),
		cmocka_unit_test(what_was_read_is_forgotten),
		cmocka_unit_test(damaged_tensors),
		cmocka_unit_test(further_layers),
		cmocka_unit_test(harmless_extras),
		cmocka_unit_test(tied_heads),
		cmocka_unit_test(fused_experts),
		cmocka_unit_test(text_of_a_larger_model),
		cmocka_unit_test(truncated_files),
		cmocka_unit_test(bad_indexes),
		cmocka_unit_test(tensor_in_two_shards),
		cmocka_unit_test(directories_that_are_none),
		cmocka_unit_test(generation_config_is_optional),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
