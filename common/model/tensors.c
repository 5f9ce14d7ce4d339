/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What each role of a tensor is called and which shape it has. Names are those of the published
 * checkpoints; a family's own names (families/) go before these.
 */
#include "common/model/tensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATTERN_BYTES = 128 };

static const struct cad_tensor_name common_names[] = {
	{ CAD_ROLE_EMBED, "model.embed_tokens.weight" },
	{ CAD_ROLE_FINAL_NORM, "model.norm.weight" },
	{ CAD_ROLE_LM_HEAD, "lm_head.weight" },
	{ CAD_ROLE_ATTENTION_NORM, "model.layers.{l}.input_layernorm.weight" },
	{ CAD_ROLE_Q, "model.layers.{l}.self_attn.q_proj.weight" },
	{ CAD_ROLE_Q_BIAS, "model.layers.{l}.self_attn.q_proj.bias" },
	{ CAD_ROLE_K, "model.layers.{l}.self_attn.k_proj.weight" },
	{ CAD_ROLE_K_BIAS, "model.layers.{l}.self_attn.k_proj.bias" },
	{ CAD_ROLE_V, "model.layers.{l}.self_attn.v_proj.weight" },
	{ CAD_ROLE_V_BIAS, "model.layers.{l}.self_attn.v_proj.bias" },
	{ CAD_ROLE_O, "model.layers.{l}.self_attn.o_proj.weight" },
	{ CAD_ROLE_O_BIAS, "model.layers.{l}.self_attn.o_proj.bias" },
	{ CAD_ROLE_Q_NORM, "model.layers.{l}.self_attn.q_norm.weight" },
	{ CAD_ROLE_K_NORM, "model.layers.{l}.self_attn.k_norm.weight" },
	{ CAD_ROLE_SINKS, "model.layers.{l}.self_attn.sinks" },
	{ CAD_ROLE_Q_DOWN, "model.layers.{l}.self_attn.q_a_proj.weight" },
	{ CAD_ROLE_Q_DOWN_BIAS, "model.layers.{l}.self_attn.q_a_proj.bias" },
	{ CAD_ROLE_Q_DOWN_NORM, "model.layers.{l}.self_attn.q_a_layernorm.weight" },
	{ CAD_ROLE_Q_UP, "model.layers.{l}.self_attn.q_b_proj.weight" },
	{ CAD_ROLE_KV_DOWN, "model.layers.{l}.self_attn.kv_a_proj_with_mqa.weight" },
	{ CAD_ROLE_KV_DOWN_BIAS, "model.layers.{l}.self_attn.kv_a_proj_with_mqa.bias" },
	{ CAD_ROLE_KV_DOWN_NORM, "model.layers.{l}.self_attn.kv_a_layernorm.weight" },
	{ CAD_ROLE_KV_UP, "model.layers.{l}.self_attn.kv_b_proj.weight" },
	{ CAD_ROLE_FFN_NORM, "model.layers.{l}.post_attention_layernorm.weight" },
	{ CAD_ROLE_FFN_GATE, "model.layers.{l}.mlp.gate_proj.weight" },
	{ CAD_ROLE_FFN_UP, "model.layers.{l}.mlp.up_proj.weight" },
	{ CAD_ROLE_FFN_DOWN, "model.layers.{l}.mlp.down_proj.weight" },
	{ CAD_ROLE_FFN_GATE_BIAS, "model.layers.{l}.mlp.gate_proj.bias" },
	{ CAD_ROLE_FFN_UP_BIAS, "model.layers.{l}.mlp.up_proj.bias" },
	{ CAD_ROLE_FFN_DOWN_BIAS, "model.layers.{l}.mlp.down_proj.bias" },
	{ CAD_ROLE_GATE, "model.layers.{l}.mlp.gate.weight" },
	{ CAD_ROLE_SELECTION_BIAS, "model.layers.{l}.mlp.gate.e_score_correction_bias" },
	{ CAD_ROLE_SHARED_GATE, "model.layers.{l}.mlp.shared_experts.gate_proj.weight" },
	{ CAD_ROLE_SHARED_UP, "model.layers.{l}.mlp.shared_experts.up_proj.weight" },
	{ CAD_ROLE_SHARED_DOWN, "model.layers.{l}.mlp.shared_experts.down_proj.weight" },
	{ CAD_ROLE_SHARED_SCORE, "model.layers.{l}.mlp.shared_expert_gate.weight" },
	{ CAD_ROLE_EXPERT_GATE, "model.layers.{l}.mlp.experts.{e}.gate_proj.weight" },
	{ CAD_ROLE_EXPERT_UP, "model.layers.{l}.mlp.experts.{e}.up_proj.weight" },
	{ CAD_ROLE_EXPERT_DOWN, "model.layers.{l}.mlp.experts.{e}.down_proj.weight" },
	{ CAD_ROLE_EXPERT_GATE_BIAS, "model.layers.{l}.mlp.experts.{e}.gate_proj.bias" },
	{ CAD_ROLE_EXPERT_UP_BIAS, "model.layers.{l}.mlp.experts.{e}.up_proj.bias" },
	{ CAD_ROLE_EXPERT_DOWN_BIAS, "model.layers.{l}.mlp.experts.{e}.down_proj.bias" },
};

static const char *find_pattern(const struct cad_tensor_name *names, size_t count, enum cad_role role)
{
	for (size_t i = 0; i < count; i++)
		if (names[i].role == role)
			return names[i].pattern;
	return NULL;
}

static const char *pattern_of(const struct cad_arch *arch, enum cad_role role)
{
	const char *own = find_pattern(arch->names, arch->names_count, role);
	return own ? own : find_pattern(common_names, sizeof common_names / sizeof *common_names, role);
}

static void fill_pattern(const char *pattern, uint32_t layer, uint32_t expert, char *name, size_t bytes)
{
	size_t at = 0;
	while (*pattern && at < bytes) {
		if (*pattern == '{') {
			at += (size_t)snprintf(name + at, bytes - at, "%u", pattern[1] == 'l' ? layer : expert);
			pattern += 3;
		} else {
			name[at++] = *pattern++;
		}
	}

	CAD_ASSERT(at < bytes);
	name[at] = 0;
}

bool cad_tensor_name(
	const struct cad_arch *arch, enum cad_role role, uint32_t layer, uint32_t expert, char *name, size_t bytes)
{
	const char *pattern = pattern_of(arch, role);
	if (!pattern)
		return false;
	fill_pattern(pattern, layer, expert, name, bytes);
	return true;
}

bool cad_tensor_other_name(const struct cad_arch *arch, const char *name, char *other, size_t bytes)
{
	const char *part = arch->renamed ? strstr(name, arch->renamed) : NULL;
	if (!part)
		return false;
	int length = snprintf(
		other, bytes, "%.*s%s%s", (int)(part - name), name, arch->renamed_to, part + strlen(arch->renamed));
	CAD_ASSERT(length > 0 && (size_t)length < bytes);
	return true;
}

/* ---- fused experts ---- */

static bool is_bias(enum cad_role role) { return role >= CAD_ROLE_EXPERT_GATE_BIAS; }
static bool is_down(enum cad_role role) { return role == CAD_ROLE_EXPERT_DOWN || role == CAD_ROLE_EXPERT_DOWN_BIAS; }

/* Gate stands before up in one tensor, which is named by gate's role. */
static enum cad_role first_of(enum cad_role role)
{
	switch (role) {
	case CAD_ROLE_EXPERT_UP: return CAD_ROLE_EXPERT_GATE;
	case CAD_ROLE_EXPERT_UP_BIAS: return CAD_ROLE_EXPERT_GATE_BIAS;
	case CAD_ROLE_SHARED_UP: return CAD_ROLE_SHARED_GATE;
	default: return role;
	}
}

bool cad_tensor_fused_name(const struct cad_arch *arch, enum cad_role role, uint32_t layer, char *name, size_t bytes)
{
	const char *own = find_pattern(arch->fused_names, arch->fused_names_count, first_of(role));
	if (own) {
		fill_pattern(own, layer, 0, name, bytes);
		return true;
	}
	if (arch->fused == CAD_FUSED_NONE || !cad_role_is_expert(role) || is_bias(role))
		return false;

	/* beside the tensors of each: "model.layers.3.mlp.experts." */
	char pattern[PATTERN_BYTES];
	const char *each = pattern_of(arch, role), *number = strstr(each, "{e}");
	int length = snprintf(pattern, sizeof pattern, "%.*s%s", (int)(number - each), each,
		is_down(role) ? "down_proj" : "gate_up_proj");
	CAD_ASSERT((size_t)length < sizeof pattern);
	fill_pattern(pattern, layer, 0, name, bytes);
	return true;
}

/* Whether inputs stand before outputs. */
static bool is_turned(const struct cad_arch *arch, enum cad_role role, bool blocks)
{
	bool turned = arch->fused == CAD_FUSED_COLUMNS || arch->fused == CAD_FUSED_IN_TURN;
	return turned && cad_role_is_expert(role) && !is_bias(role) && !blocks;
}

struct cad_tensor_want cad_tensor_fused_wanted(const struct cad_arch *arch, const struct cad_model_spec *spec,
	enum cad_role role, struct cad_tensor_want one, bool blocks)
{
	uint64_t rows = is_down(role) ? one.shape[0] : 2 * one.shape[0], experts = spec->gate.experts;

	if (!cad_role_is_expert(role))
		return (struct cad_tensor_want){ .wanted = true, .rank = 2, .shape = { rows, one.shape[1] } };
	if (is_bias(role))
		return (struct cad_tensor_want){ .wanted = true, .rank = 2, .shape = { experts, rows } };
	if (is_turned(arch, role, blocks))
		return (struct cad_tensor_want){
			.wanted = true,
			.rank = 3,
			.shape = { experts, one.shape[1], rows },
		};
	return (struct cad_tensor_want){ .wanted = true, .rank = 3, .shape = { experts, rows, one.shape[1] } };
}

/* Of [E][n] or [E][2n], one expert's. */
static struct cad_tensor bias_part(const struct cad_tensor *fused, enum cad_role role, uint32_t expert, bool in_turn)
{
	uint64_t element = cad_dtype_bytes(fused->dtype), all = fused->shape[1], n = is_down(role) ? all : all / 2,
		 first = role != first_of(role) ? (in_turn ? 1 : n) : 0;
	return (struct cad_tensor){
		.data = (const char *)fused->data + (expert * all + first) * element,
		.dtype = fused->dtype,
		.rank = 1,
		.shape = { n },
		.bytes = n * element,
		.name = fused->name,
		.row_step = in_turn && !is_down(role) ? 2 * element : 0,
	};
}

/* Rows first, first + step, ... of a matrix. */
static void take_rows(
	const struct cad_tensor *fused, uint64_t matrix, uint64_t first, uint64_t step, struct cad_tensor *part)
{
	struct cad_scales scales = fused->scales;
	uint64_t height = fused->shape[fused->rank - 2], row = fused->bytes / fused->shape[0];
	if (fused->rank == 3)
		row /= height;

	part->data = (const char *)fused->data + (matrix * height + first) * row;
	part->row_step = step > 1 ? step * row : 0;
	if (scales.data) { /* a row of them that two parts share counts as the second's */
		uint64_t down = (height + scales.rows - 1) / scales.rows,
			 row_bytes = scales.ld * cad_dtype_bytes(scales.dtype), end = first + part->shape[0],
			 begin_row = first / scales.rows, end_row = end < height ? end / scales.rows : down;
		scales.data = (const char *)scales.data + (matrix * down + begin_row) * row_bytes;
		scales.first = first % scales.rows;
		scales.bytes = step > 1 ? down / step * row_bytes : (end_row - begin_row) * row_bytes;
		scales.ld *= step;
		part->scales = scales;
	}
}

struct cad_tensor cad_tensor_fused_part(
	const struct cad_arch *arch, const struct cad_tensor *fused, enum cad_role role, uint32_t expert)
{
	bool blocks = fused->dtype == CAD_DTYPE_MXFP4, in_turn = arch->fused == CAD_FUSED_IN_TURN,
	     turned = is_turned(arch, role, blocks), second = role != first_of(role);
	if (is_bias(role))
		return bias_part(fused, role, expert, in_turn);

	const uint64_t *shape = fused->shape + (fused->rank - 2); /* of one expert, or of the shared one */
	uint64_t each = fused->rank == 3 ? fused->bytes / fused->shape[0] : fused->bytes, all = shape[turned],
		 n = is_down(role) ? all : all / 2, k = shape[!turned];
	struct cad_tensor part = {
		.dtype = fused->dtype,
		.rank = 2,
		.shape = { n, k },
		.bytes = is_down(role) ? each : each / 2,
		.name = fused->name,
	};
	bool alternate = in_turn && !is_down(role);
	uint64_t first = second ? (alternate ? 1 : n) : 0;

	if (turned) {
		uint64_t element = cad_dtype_bytes(fused->dtype);
		part.data = (const char *)fused->data + expert * each + first * element;
		part.row_step = alternate ? 2 * element : element;
		part.value_step = all * element;
	} else {
		take_rows(fused, fused->rank == 3 ? expert : 0, first, alternate ? 2 : 1, &part);
	}
	return part;
}

/* ---- what is wanted ---- */

static struct cad_tensor_want vector(bool wanted, uint64_t n)
{
	return (struct cad_tensor_want){
		.wanted = wanted,
		.rank = 1,
		.shape = { n },
	};
}

static struct cad_tensor_want matrix(bool wanted, uint64_t n, uint64_t k)
{
	return (struct cad_tensor_want){
		.wanted = wanted,
		.rank = 2,
		.shape = { n, k },
	};
}

static struct cad_tensor_want attention_wanted(const struct cad_model_spec *spec, enum cad_role role, uint32_t layer)
{
	const struct cad_attention_spec *a = cad_attention_of(spec, layer);
	bool latent = a->kind == CAD_ATTENTION_LATENT, grouped = !latent,
	     projection = a->qk_norm == CAD_QK_NORM_PROJECTION;
	uint64_t hidden = spec->hidden, head = a->head_size, q = a->heads * head, k = a->kv_heads * head,
		 v = (uint64_t)a->kv_heads * a->value_size;

	switch (role) {
	case CAD_ROLE_Q: return matrix(grouped || a->q_rank == 0, q, hidden);
	case CAD_ROLE_K: return matrix(grouped, k, hidden);
	case CAD_ROLE_V: return matrix(grouped, v, hidden);
	case CAD_ROLE_O: return matrix(true, hidden, (uint64_t)a->heads * a->value_size);
	case CAD_ROLE_Q_BIAS: return vector(a->q_bias, q);
	case CAD_ROLE_K_BIAS: return vector(a->k_bias, k);
	case CAD_ROLE_V_BIAS: return vector(a->v_bias, v);
	case CAD_ROLE_O_BIAS: return vector(a->o_bias, hidden);
	case CAD_ROLE_Q_NORM: return vector(a->qk_norm != CAD_QK_NORM_NONE && !a->qk_norm_plain, projection ? q : head);
	case CAD_ROLE_K_NORM: return vector(a->qk_norm != CAD_QK_NORM_NONE && !a->qk_norm_plain, projection ? k : head);
	case CAD_ROLE_SINKS: return vector(a->sinks, a->heads);
	case CAD_ROLE_Q_DOWN: return matrix(latent && a->q_rank, a->q_rank, hidden);
	case CAD_ROLE_Q_DOWN_BIAS: return vector(latent && a->q_rank && a->down_bias, a->q_rank);
	case CAD_ROLE_Q_DOWN_NORM: return vector(latent && a->q_rank, a->q_rank);
	case CAD_ROLE_Q_UP: return matrix(latent && a->q_rank, q, a->q_rank);
	case CAD_ROLE_KV_DOWN: return matrix(latent, a->kv_rank + a->rope_size, hidden);
	case CAD_ROLE_KV_DOWN_BIAS: return vector(latent && a->down_bias, a->kv_rank + a->rope_size);
	case CAD_ROLE_KV_DOWN_NORM: return vector(latent, a->kv_rank);
	case CAD_ROLE_KV_UP: return matrix(latent, (uint64_t)a->heads * (a->nope_size + a->value_size), a->kv_rank);
	default: return (struct cad_tensor_want){ 0 };
	}
}

static struct cad_tensor_want ffn_wanted(const struct cad_model_spec *spec, enum cad_role role, bool moe)
{
	uint64_t hidden = spec->hidden, dense = spec->dense.size, expert = spec->expert.size,
		 shared = spec->shared.size, experts = spec->gate.experts;
	bool bias = moe && spec->expert.bias, dense_bias = !moe && spec->dense.bias;

	switch (role) {
	case CAD_ROLE_FFN_GATE:
	case CAD_ROLE_FFN_UP: return matrix(!moe, dense, hidden);
	case CAD_ROLE_FFN_DOWN: return matrix(!moe, hidden, dense);
	case CAD_ROLE_FFN_GATE_BIAS:
	case CAD_ROLE_FFN_UP_BIAS: return vector(dense_bias, dense);
	case CAD_ROLE_FFN_DOWN_BIAS: return vector(dense_bias, hidden);
	case CAD_ROLE_GATE: return matrix(moe, experts, hidden);
	case CAD_ROLE_GATE_BIAS: return vector(moe && spec->gate.linear_bias, experts);
	case CAD_ROLE_SELECTION_BIAS: return vector(moe && spec->gate.selection_bias, experts);
	case CAD_ROLE_SHARED_GATE:
	case CAD_ROLE_SHARED_UP: return matrix(moe && shared, shared, hidden);
	case CAD_ROLE_SHARED_DOWN: return matrix(moe && shared, hidden, shared);
	case CAD_ROLE_SHARED_SCORE: return matrix(moe && spec->shared_gate, 1, hidden);
	case CAD_ROLE_EXPERT_GATE:
	case CAD_ROLE_EXPERT_UP: return matrix(moe, expert, hidden);
	case CAD_ROLE_EXPERT_DOWN: return matrix(moe, hidden, expert);
	case CAD_ROLE_EXPERT_GATE_BIAS:
	case CAD_ROLE_EXPERT_UP_BIAS: return vector(bias, expert);
	case CAD_ROLE_EXPERT_DOWN_BIAS: return vector(bias, hidden);
	default: return (struct cad_tensor_want){ 0 };
	}
}

struct cad_tensor_want cad_tensor_wanted(const struct cad_model_spec *spec, enum cad_role role, uint32_t layer)
{
	switch (role) {
	case CAD_ROLE_EMBED: return matrix(true, spec->vocab, spec->hidden);
	case CAD_ROLE_LM_HEAD: return matrix(!spec->tied_embeddings, spec->vocab, spec->hidden);
	case CAD_ROLE_FINAL_NORM: return vector(true, spec->hidden);
	case CAD_ROLE_ATTENTION_NORM:
	case CAD_ROLE_FFN_NORM: return vector(spec->norms != CAD_NORMS_AFTER, spec->hidden);
	case CAD_ROLE_ATTENTION_AFTER: return vector(spec->norms != CAD_NORMS_BEFORE, spec->hidden);
	case CAD_ROLE_FFN_AFTER:
		return vector(spec->norms != CAD_NORMS_BEFORE || (spec->norm_of_experts && spec->layers[layer].moe),
			spec->hidden);
	default:
		return role < CAD_ROLE_FFN_NORM ? attention_wanted(spec, role, layer)
						: ffn_wanted(spec, role, spec->layers[layer].moe);
	}
}

/* ---- what is not ---- */

static bool is_real(enum cad_dtype dtype)
{
	switch (dtype) {
	case CAD_DTYPE_I64:
	case CAD_DTYPE_I32:
	case CAD_DTYPE_I16:
	case CAD_DTYPE_I8:
	case CAD_DTYPE_U64:
	case CAD_DTYPE_U32:
	case CAD_DTYPE_U16:
	case CAD_DTYPE_U8:
	case CAD_DTYPE_BOOL: return false;
	default: return true;
	}
}

bool cad_tensor_is_computed(const char *name)
{
	static const char frequencies[] = ".rotary_emb.inv_freq";
	size_t length = strlen(name), tail = sizeof frequencies - 1;
	return length >= tail && strcmp(name + length - tail, frequencies) == 0;
}

/* They stand behind those that a token goes through. */
bool cad_tensor_is_further(const struct cad_model_spec *spec, const char *name)
{
	static const char layers[] = "model.layers.";
	if (strncmp(name, layers, sizeof layers - 1) != 0)
		return false;
	unsigned long layer = strtoul(name + sizeof layers - 1, NULL, 10);
	return layer >= spec->layers_count && layer - spec->layers_count < spec->further_layers;
}

/* By which an FP8 checkpoint would have activations rounded, which is for --numerics to say. */
static bool is_activation_scale(const struct cad_model_spec *spec, const char *name)
{
	static const char *const tails[] = { "activation_scale", ".input_scale" };
	size_t length = strlen(name);
	for (size_t i = 0; i < sizeof tails / sizeof *tails && spec->stored.kind == CAD_STORED_FP8; i++)
		if (length >= strlen(tails[i]) && strcmp(name + length - strlen(tails[i]), tails[i]) == 0)
			return true;
	return false;
}

bool cad_tensor_is_missed(const struct cad_model_spec *spec, const struct cad_tensor *tensor)
{
	static const char *const parts[] = { "model.layers.", "model.norm.", "model.embed_tokens.", "lm_head." };
	if (!is_real(tensor->dtype) || cad_tensor_is_further(spec, tensor->name) ||
		is_activation_scale(spec, tensor->name))
		return false;
	for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
		if (strncmp(tensor->name, parts[i], strlen(parts[i])) == 0)
			return true;
	return false;
}
