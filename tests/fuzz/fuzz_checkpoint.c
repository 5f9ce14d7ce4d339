/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes choose a small checkpoint: keys of its config.json, sizes, the dtype of each tensor, the form
 * of its files, one thing that is wrong with it, and the numerics to compute it in. It is refused
 * with a sentence before any weight is packed, or it loads, and a few steps of it run. No
 * assertion fails, whatever the bytes. (Whether the numbers are right is what tests/checkpoints
 * asks.)
 */
#include "common/base/log.h"
#include "common/model/config.h"
#include "common/model/tensors.h"
#include "orchestration/cli/evaluation.h"
#include "tests/fuzz/model_directory.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

enum {
	CONFIG_BYTES = 2048,
	TENSORS_MAX = 512,
	DATA_BYTES_MAX = 1 << 20,
	HEADER_BYTES_MAX = TENSORS_MAX * 256,
	POSITIONS_MAX = 512,
	PROMPT_TOKENS = 40, /* more than a page of keys */
};

static char directory[] = "/tmp/cadre-fuzz-checkpoint-XXXXXX";

/* ---- choices ---- */

struct choices {
	const uint8_t *next, *end;
};

/* 0 .. n - 1; 0 when there are no bytes left. */
static uint32_t choose(struct choices *c, uint32_t n)
{
	uint32_t byte = c->next < c->end ? *c->next++ : 0;
	return byte % n;
}

static bool flip(struct choices *c) { return choose(c, 2); }

/* ---- config.json ---- */

struct text {
	char bytes[CONFIG_BYTES];
	size_t count;
};

__attribute__((format(printf, 2, 3))) static void add(struct text *t, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	int count = vsnprintf(t->bytes + t->count, sizeof t->bytes - t->count, format, arguments);
	va_end(arguments);
	CAD_ASSERT(count >= 0 && (size_t)count < sizeof t->bytes - t->count);
	t->count += (size_t)count;
}

static void add_rope(struct choices *c, struct text *t)
{
	static const char *const kinds[] = { "default", "linear", "llama3", "yarn", "dynamic", "longrope",
		"proportional" };
	static const char *const values[] = { "1.0", "2.0", "0.5", "8", "64", "1e30", "-1", "null" };
	static const char *const keys[] = { "factor", "low_freq_factor", "high_freq_factor",
		"original_max_position_embeddings", "beta_fast", "beta_slow", "attention_factor", "mscale",
		"partial_rotary_factor" };

	add(t, ", \"%s\": {\"rope_type\": \"%s\", \"rope_theta\": %s", flip(c) ? "rope_parameters" : "rope_scaling",
		kinds[choose(c, 7)], flip(c) ? "10000.0" : values[choose(c, 8)]);
	for (uint32_t i = choose(c, 6); i > 0; i--)
		add(t, ", \"%s\": %s", keys[choose(c, 9)], values[choose(c, 8)]);
	add(t, "}");
}

/* Any key with any value. */
static void add_key(struct choices *c, struct text *t)
{
	static const char *const keys[] = { "head_dim", "num_key_value_heads", "sliding_window", "use_sliding_window",
		"mlp_only_layers", "decoder_sparse_step", "clip_qkv", "attention_bias", "mlp_bias", "layer_types",
		"tie_word_embeddings", "partial_rotary_factor", "rms_norm_eps", "torch_dtype", "hidden_act",
		"bos_token_id", "eos_token_id", "num_experts_per_tok", "router_jitter_noise", "max_window_layers",
		"rope_scaling", "quantization_config", "intermediate_size", "unheard_of" };
	static const char *const values[] = { "null", "true", "false", "0", "1", "2", "3", "5", "7", "-1", "0.5", "1e9",
		"\"x\"", "\"bfloat16\"", "[]", "[0]", "[1, 0]", "{}", "[\"full_attention\"]", "4096" };
	add(t, ", \"%s\": %s", keys[choose(c, 24)], values[choose(c, 20)]);
}

static void make_config(struct choices *c, struct text *t)
{
	static const char *const families[] = { "mixtral", "olmoe", "qwen3_moe", "llama" };
	uint32_t heads = 1 + choose(c, 6), kv_heads = flip(c) ? heads : 1, head = 1 + choose(c, 40);
	bool own_head = flip(c);

	add(t, "{\"model_type\": \"%s\", \"hidden_size\": %u, \"num_hidden_layers\": %u, \"num_attention_heads\": %u, \"num_key_value_heads\": %u",
		families[choose(c, 4)], own_head ? 1 + choose(c, 70) : heads * head, 1 + choose(c, 3), heads, kv_heads);
	if (own_head)
		add(t, ", \"head_dim\": %u", flip(c) ? head : 216 + head);
	uint32_t experts = 1 + choose(c, 6);
	add(t, ", \"vocab_size\": %u, \"max_position_embeddings\": %u, \"rms_norm_eps\": 1e-6, \"intermediate_size\": %u, \"moe_intermediate_size\": %u, \"num_experts\": %u, \"num_experts_per_tok\": %u, \"tie_word_embeddings\": %s",
		1 + choose(c, 40), POSITIONS_MAX / 4 + choose(c, 64), 1 + choose(c, 70), 1 + choose(c, 70), experts,
		1 + choose(c, experts), flip(c) ? "true" : "false");
	if (flip(c))
		add_rope(c, t);
	for (uint32_t i = choose(c, 4); i > 0; i--)
		add_key(c, t);
	add(t, "}");
}

/* ---- tensors ---- */

struct file {
	struct entry {
		char name[128], dtype[8];
		uint64_t shape[3];
		uint32_t rank;
		size_t bytes;
	} tensors[TENSORS_MAX];
	size_t count, data_bytes;
	bool full;
};

/* Of most the dtype of all, or one of three. */
static const char *choose_dtype(struct choices *c, uint32_t all)
{
	static const char *const dtypes[] = { "F32", "BF16", "F16", "F32", "BF16", "F16", "F64", "U8" };
	return dtypes[all < 3 ? all : all == 3 ? choose(c, 3) : choose(c, 8)];
}

static size_t dtype_bytes(const char *dtype)
{
	return strcmp(dtype, "F64") == 0 ? 8 : strcmp(dtype, "F32") == 0 ? 4 : strcmp(dtype, "U8") == 0 ? 1 : 2;
}

static void add_tensor(struct file *f, const char *name, const char *dtype, uint32_t rank, const uint64_t *shape)
{
	size_t bytes = dtype_bytes(dtype);

	if (f->count == TENSORS_MAX) {
		f->full = true;
		return;
	}
	struct entry *entry = &f->tensors[f->count++];
	snprintf(entry->name, sizeof entry->name, "%s", name);
	snprintf(entry->dtype, sizeof entry->dtype, "%s", dtype);
	entry->rank = rank;
	for (uint32_t d = 0; d < rank; d++) {
		entry->shape[d] = shape[d];
		bytes *= shape[d] < DATA_BYTES_MAX ? shape[d] : DATA_BYTES_MAX;
		f->full = f->full || bytes > DATA_BYTES_MAX;
		if (f->full)
			return;
	}
	entry->bytes = bytes;
	f->data_bytes += bytes;
	f->full = f->full || f->data_bytes > DATA_BYTES_MAX;
}

static void add_role(struct choices *c, struct file *f, const struct cad_model_spec *spec, const struct cad_arch *arch,
	enum cad_role role, uint32_t layer, uint32_t dtypes, bool fused)
{
	struct cad_tensor_want want = cad_tensor_wanted(spec, role, layer);
	char name[128];

	if (!want.wanted)
		return;
	if (!cad_role_is_expert(role)) {
		if (cad_tensor_name(arch, role, layer, 0, name, sizeof name))
			add_tensor(f, name, choose_dtype(c, dtypes), want.rank, want.shape);
		return;
	}
	if (fused && cad_tensor_fused_name(arch, role, layer, name, sizeof name)) {
		want = cad_tensor_fused_wanted(arch, spec, role, want, false);
		if (role != CAD_ROLE_EXPERT_UP && role != CAD_ROLE_EXPERT_UP_BIAS)
			add_tensor(f, name, choose_dtype(c, dtypes), want.rank, want.shape);
		return;
	}
	for (uint32_t e = 0; e < spec->gate.experts && !f->full; e++)
		if (cad_tensor_name(arch, role, layer, e, name, sizeof name))
			add_tensor(f, name, choose_dtype(c, dtypes), want.rank, want.shape);
}

/* What the model calls for, in a form of the bytes' choice. */
static void list_tensors(struct choices *c, struct file *f, const struct cad_model_spec *spec)
{
	const struct cad_arch *arch = cad_arch_find(spec->architecture);
	uint32_t dtypes = choose(c, 5), head = choose(c, 3);

	for (enum cad_role role = 0; role < CAD_ROLE_ATTENTION_NORM; role++) {
		struct cad_model_spec form = *spec; /* of tied ones: one, the other, both */
		form.tied_embeddings = spec->tied_embeddings && head == 0;
		if (role != CAD_ROLE_EMBED || !spec->tied_embeddings || head != 1)
			add_role(c, f, &form, arch, role, 0, dtypes, false);
	}
	for (uint32_t layer = 0; layer < spec->layers_count && !f->full; layer++) {
		uint32_t fused = choose(c, 4);
		for (enum cad_role role = CAD_ROLE_ATTENTION_NORM; role < CAD_ROLE_COUNT && !f->full; role++)
			add_role(c, f, spec, arch, role, layer, dtypes,
				role == CAD_ROLE_EXPERT_DOWN ? fused & 1 : fused & 2);
	}
}

/* One thing that is wrong, or not. */
static void damage(struct choices *c, struct file *f)
{
	uint32_t how = choose(c, 12), low = choose(c, 256);
	struct entry *entry = &f->tensors[(low + choose(c, 256) * 256u) % f->count];
	const uint64_t shape[3] = { choose(c, 4), 3, 2 };

	switch (how) {
	case 0: entry->name[strlen(entry->name) - 1] = 'x'; break;
	case 1: entry->rank = entry->rank == 2 && entry->shape[0] == 1 ? 1 : entry->rank; break;
	case 2: {
		uint64_t first = entry->shape[0];
		if (entry->rank > 1) {
			entry->shape[0] = entry->shape[1];
			entry->shape[1] = first;
		}
		break;
	}
	case 3: add_tensor(f, "extra", choose_dtype(c, 4), choose(c, 4), shape); break;
	case 4: add_tensor(f, "model.layers.0.self_attn.q_proj.bias", "F32", 1, shape); break;
	case 5: add_tensor(f, "model.layers.0.mlp.experts.gate_up_proj", "F32", 3, shape); break;
	case 6: add_tensor(f, "model.layers.0.mlp.gate.weight", "BF16", 2, shape); break;
	default: break;
	}
}

/* Numbers about 1, and sometimes one that is none. */
static void put_value(FILE *out, const char *dtype, uint32_t *state, bool odd)
{
	*state = *state * 1664525 + 1013904223;
	float value = odd && *state >> 20 == 7 ? NAN : (float)(*state >> 16) / 65536.0f - 0.5f;
	uint32_t bits;
	uint16_t half;
	double wide = (double)value;

	memcpy(&bits, &value, sizeof bits);
	half = (uint16_t)(bits >> 16);
	if (strcmp(dtype, "F16") == 0)
		half = (uint16_t)(*state >> 16 & 0xbbff); /* below 2 */
	if (dtype_bytes(dtype) == 8)
		fwrite(&wide, sizeof wide, 1, out);
	else if (dtype_bytes(dtype) == 4)
		fwrite(&value, sizeof value, 1, out);
	else
		fwrite(&half, dtype_bytes(dtype), 1, out);
}

static const char *path_of(const char *name)
{
	static char path[96];
	snprintf(path, sizeof path, "%s/%s", directory, name);
	return path;
}

/* By hand: nothing need be aligned. */
static void write_tensors(struct choices *c, const struct file *f)
{
	static char header[HEADER_BYTES_MAX];
	size_t count = 0, at = 0;
	bool odd = choose(c, 8) == 7;
	uint32_t state = 1;

	for (size_t i = 0; i < f->count; i++) {
		const struct entry *entry = &f->tensors[i];
		count += (size_t)sprintf(header + count, "%s\"%s\": {\"dtype\": \"%s\", \"shape\": [", i ? ", " : "{",
			entry->name, entry->dtype);
		for (uint32_t d = 0; d < entry->rank; d++)
			count += (size_t)sprintf(
				header + count, "%s%llu", d ? ", " : "", (unsigned long long)entry->shape[d]);
		count += (size_t)sprintf(header + count, "], \"data_offsets\": [%zu, %zu]}", at, at + entry->bytes);
		at += entry->bytes;
		CAD_ASSERT(count + 256 < sizeof header);
	}
	count += (size_t)sprintf(header + count, "}");

	FILE *out = fopen(path_of("model.safetensors"), "wb");
	uint64_t length = count;
	CAD_ASSERT(out);
	fwrite(&length, sizeof length, 1, out);
	fwrite(header, 1, count, out);
	for (size_t i = 0; i < f->count; i++)
		for (size_t b = 0; b < f->tensors[i].bytes; b += dtype_bytes(f->tensors[i].dtype))
			put_value(out, f->tensors[i].dtype, &state, odd);
	CAD_ASSERT(fclose(out) == 0);
}

/* ---- running it ---- */

static void run(struct choices *c, uint32_t vocab)
{
	static const enum cad_profile profiles[] = { CAD_PROFILE_F32, CAD_PROFILE_F32, CAD_PROFILE_BF16,
		CAD_PROFILE_INT8, CAD_PROFILE_INT4, CAD_PROFILE_BF16_SM90 };
	static const enum cad_kv kinds[] = { CAD_KV_F32, CAD_KV_BF16, CAD_KV_INT8 };
	struct em_options options = {
		.model = directory,
		.threads = 1,
		.nodes = 1 + choose(c, 3),
		.isa = flip(c) ? KN_ISA_REF : KN_ISA_AUTO,
		.settings = {
			.profile = profiles[choose(c, 6)],
			.router_profile = CAD_PROFILE_SAME,
			.kv = kinds[choose(c, 3)],
		},
		.router = { .kv_bytes = 4 << 20, .chunk_tokens_max = choose(c, 20) },
	};
	struct cl_evaluation evaluation = {
		.sequences = calloc(1, sizeof *evaluation.sequences),
		.count = 1,
		.greedy_tokens = 2,
	};
	struct cad_error error;

	CAD_ASSERT(evaluation.sequences);
	struct cl_sequence *s = evaluation.sequences;
	s->count = 1 + choose(c, PROMPT_TOKENS);
	s->tokens = calloc(s->count, sizeof *s->tokens);
	CAD_ASSERT(s->tokens);
	for (uint32_t i = 0; i < s->count; i++)
		s->tokens[i] = (int32_t)(i * 7 % vocab);
	(void)is_good(cl_evaluation_run(&evaluation, &options, &error), &error);
	cl_evaluation_fini(&evaluation);
}

static void clean(void)
{
	(void)remove(path_of("config.json"));
	(void)remove(path_of("model.safetensors"));
	(void)rmdir(directory);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc, (void)argv;
	cad_log_setup(CAD_LOG_ERROR, CAD_LOG_LOGFMT);
	CAD_ASSERT(mkdtemp(directory) && atexit(clean) == 0);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	static struct file file;
	struct choices c = { bytes, bytes + size };
	struct text config = { .count = 0 };
	struct cad_model_spec spec;
	struct cad_error error;

	make_config(&c, &config);
	if (!is_good(cad_model_spec_parse("config.json", config.bytes, config.count, NULL, 0, &spec, &error), &error))
		return 0;

	file.count = file.data_bytes = 0;
	file.full = spec.positions_max > POSITIONS_MAX || spec.layers_count > 4;
	if (!file.full)
		list_tensors(&c, &file, &spec);
	if (!file.full)
		damage(&c, &file);
	uint32_t vocab = spec.vocab;
	cad_model_spec_fini(&spec);
	if (file.full)
		return 0;

	FILE *out = fopen(path_of("config.json"), "wb");
	CAD_ASSERT(out && fwrite(config.bytes, 1, config.count, out) == config.count && fclose(out) == 0);
	write_tensors(&c, &file);
	run(&c, vocab);

	return 0;
}
