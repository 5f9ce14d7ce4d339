/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a model is, as data: the differences between architectures are fields here, never branches
 * elsewhere.
 *
 * config.h makes a spec from a Hugging Face config.json; after that it is immutable and may be read
 * by any thread.
 * The spec owns nothing but its own memory (`layers`); `cad_model_spec_fini` frees that.
 *
 * Symbols: H hidden size, V vocabulary, L layers, E experts, K experts per token, F ffn size, D
 * head size.
 */
#ifndef CADRE_COMMON_MODEL_SPEC_H
#define CADRE_COMMON_MODEL_SPEC_H

#include "common/base/limits.h"
#include "common/base/status.h"
#include "common/model/rope.h"
#include "common/model/tensor.h"

#include <stdbool.h>
#include <stdint.h>

enum {
	CAD_STOP_IDS_MAX = 16,
	CAD_ATTENTIONS_MAX = 8, /* kinds of attention that the layers of a model have */
	CAD_ROPES_MAX = 4,      /* of rotations */
	CAD_MODEL_NAME_BYTES = 64,
};

/* How weights are kept: as the checkpoint has them (bf16 stays bf16, f16 and f32 become f32: no
 * value changes), rounded to bf16, to nearest even, the same for rows that are rounded too and sums
 * in the order of AMX (BF16_ROWS) or of Hopper's tensor cores (BF16_SM90), or quantised
 * (kernels/quantise.h) to integers of 8 or 4 bits with a scale per group: then products are made in
 * integers. */
enum cad_weights {
	CAD_WEIGHTS_AS_IS,
	CAD_WEIGHTS_BF16,
	CAD_WEIGHTS_BF16_ROWS,
	CAD_WEIGHTS_BF16_SM90,
	CAD_WEIGHTS_INT8,
	CAD_WEIGHTS_INT4,
};
static inline bool cad_weights_quantised(enum cad_weights weights) { return weights >= CAD_WEIGHTS_INT8; }
const char *cad_weights_name(enum cad_weights weights); /* "f32" (as is), "bf16" (all three), "int8", "int4" */
/* Of "bf16", BF16_ROWS. False: there are none of this name. */
bool cad_weights_find(const char *name, enum cad_weights *weights);
/* How the KV cache keeps keys and values: as they were computed, or rounded. */
enum cad_kv { CAD_KV_F32, CAD_KV_BF16, CAD_KV_INT8 };
/* In which numbers, and in which order, products with weights are summed. BF16, BF16_SM90:
 * activations and weights are rounded to bf16; the second is of experts alone. INT8, INT4:
 * activations are integers of 8 bits, weights of 8 or 4. */
enum cad_profile {
	CAD_PROFILE_F32,
	CAD_PROFILE_BF16,
	CAD_PROFILE_BF16_SM90,
	CAD_PROFILE_INT8,
	CAD_PROFILE_INT4,
};
/* The profile that weights are kept for. */
static inline enum cad_profile cad_weights_profile(enum cad_weights weights)
{
	switch (weights) {
	case CAD_WEIGHTS_BF16_ROWS: return CAD_PROFILE_BF16;
	case CAD_WEIGHTS_BF16_SM90: return CAD_PROFILE_BF16_SM90;
	case CAD_WEIGHTS_INT8: return CAD_PROFILE_INT8;
	case CAD_WEIGHTS_INT4: return CAD_PROFILE_INT4;
	case CAD_WEIGHTS_AS_IS:
	case CAD_WEIGHTS_BF16: break;
	}
	return CAD_PROFILE_F32;
}

enum cad_attention_kind { CAD_ATTENTION_GROUPED, CAD_ATTENTION_LATENT };
/* per head (qwen3) or over the whole projection (olmoe) */
enum cad_qk_norm { CAD_QK_NORM_NONE, CAD_QK_NORM_HEAD, CAD_QK_NORM_PROJECTION };
struct cad_attention_spec {
	enum cad_attention_kind kind;
	uint32_t heads, kv_heads; /* heads % kv_heads == 0 */
	uint32_t head_size;       /* of q and k */
	uint32_t value_size;      /* of v; == head_size but for latent attention */
	bool q_bias, k_bias, v_bias, o_bias;
	enum cad_qk_norm qk_norm;
	float clip_qkv;       /* 0: off; q, k (after their norms) and v are clamped to [-clip, clip] */
	bool qk_norm_plain;   /* that norm has no weights */
	bool qk_norm_last;    /* after the rotation, not before it */
	bool position_scaled; /* q is multiplied by the model's position_scale */
	float value_divisor;  /* v is divided by this; 0: as it is */
	float scale;          /* scores are multiplied by this */
	bool sinks;           /* one learned logit per head joins the softmax (gpt_oss) */
	/* latent attention: q_rank 0: queries are not compressed; the epsilon of its own norms */
	uint32_t q_rank, kv_rank, nope_size, rope_size;
	bool down_bias;
	float latent_epsilon;
};

enum cad_score { CAD_SCORE_SOFTMAX, CAD_SCORE_SIGMOID };
enum cad_group_score { CAD_GROUP_SCORE_MAX, CAD_GROUP_SCORE_TOP2 }; /* DeepSeek-V2, DeepSeek-V3 */
struct cad_gate_spec {
	uint32_t experts, topk;
	enum cad_score score;
	bool softmax_after_topk;      /* gpt_oss: top-k of the logits, softmax over the chosen ones */
	bool linear_bias;             /* the gate's linear layer has a bias */
	bool selection_bias;          /* added for the choice, not for the weight (DeepSeek-V3) */
	bool choice_by_logit;         /* to the logit, and not to the score (Kolibri) */
	uint32_t groups, groups_kept; /* 1, 1: no groups */
	enum cad_group_score group_score;
	bool dropped_zero; /* an expert outside the kept groups is chosen by 0 (DeepSeek-V2), not by nothing */
	bool renormalise;
	float renormalise_epsilon; /* added to the sum: 1e-20 in DeepSeek-V3, else 0 */
	float renormalise_least;   /* the sum is at least this: 1e-12 in ERNIE 4.5, else 0 */
	float scale;               /* routed scaling factor */
};

/* gpt_oss: (up + 1) * gate * sigmoid(1.702 gate), clamped */
enum cad_activation { CAD_ACTIVATION_SILU, CAD_ACTIVATION_SWIGLU_CLAMPED };
struct cad_ffn_spec {
	uint32_t size; /* F */
	enum cad_activation activation;
	float limit; /* of the clamped activation */
	bool bias;
	bool weighs_input; /* a pair's weight multiplies what the expert reads, not what it gives (llama4) */
};

/* Where the norms of a layer are: before attention and before the ffn; after each as well, before it is
 * added to the residual stream; or after alone. */
enum cad_norms { CAD_NORMS_BEFORE, CAD_NORMS_AROUND, CAD_NORMS_AFTER };

struct cad_layer_spec {
	bool moe;              /* else a dense ffn */
	uint32_t chunk;        /* sees keys of its own chunk of so many alone; 0: all */
	uint32_t window;       /* sliding window in keys, the token itself included; 0: all */
	bool rope;             /* this layer rotates q and k */
	uint32_t attention_at; /* which of the model's kinds of attention */
	uint32_t rope_at;      /* which of its rotations, if it rotates */
};

/* How a checkpoint's matrices are stored, where they are not as computed: in FP8 with a scale for each
 * block, or for each matrix (rows 0), or, experts alone, in MXFP4. Tensors that are f32, f16 or bf16 all
 * the same are so. */
enum cad_stored { CAD_STORED_PLAIN, CAD_STORED_FP8, CAD_STORED_MXFP4 };
struct cad_stored_spec {
	enum cad_stored kind;
	uint32_t rows, columns; /* of a block of FP8 */
};

/* Of a query at position p, from 0: 1 + factor * log(1 + floor((p + first) / positions)). */
struct cad_position_scale {
	float factor;
	uint32_t positions, first; /* 0: the model has none */
};

struct cad_model_spec {
	char architecture[CAD_MODEL_NAME_BYTES]; /* model_type: "mixtral", ... */
	uint32_t hidden, vocab, layers_count;
	uint32_t further_layers; /* that predict further tokens, which is not done: at most so many are in files */
	uint32_t positions_max;  /* max_position_embeddings */
	uint32_t context_max;    /* positions that the rotary scaling is meant for; at least positions_max */
	float norm_epsilon;
	enum cad_norms norms;
	bool norm_of_experts; /* with norms before: one more, of what experts and shared expert give together (axk1) */
	bool nested;          /* it is a part of a larger model: config.json has it as text_config */
	float embed_scale;    /* of the embeddings; 1 but for granite, as the next two are */
	float branch_scale;   /* of what attention, ffn and experts add to the residual stream */
	float logits_divisor;
	bool tied_embeddings;
	enum cad_dtype dtype; /* as config.json declares; tensors say their own */
	struct cad_stored_spec stored;
	/* Layers differ in heads, sizes and norms, or in how they rotate: each kind is here once, and a
	 * layer says which is its own. Most models have one, and call it by the short name. */
	union {
		struct cad_attention_spec attention, attentions[CAD_ATTENTIONS_MAX];
	};
	union {
		struct cad_rope_spec rope, ropes[CAD_ROPES_MAX];
	};
	uint32_t attentions_count, ropes_count;
	struct cad_position_scale position_scale;
	struct cad_gate_spec gate;                 /* experts == 0: a dense model */
	struct cad_ffn_spec expert, dense, shared; /* size 0: none of that kind */
	bool shared_gate;                          /* the shared expert is weighed by a sigmoid (qwen2_moe) */
	struct cad_layer_spec *layers;             /* [layers_count] */
	int32_t bos_id;                            /* -1: none */
	/* from config.json, replaced by those of generation_config.json if it has any */
	int32_t eos_ids[CAD_STOP_IDS_MAX];
	uint32_t eos_ids_count;
};

void cad_model_spec_fini(struct cad_model_spec *spec);
uint32_t cad_model_spec_moe_layers(const struct cad_model_spec *spec); /* how many layers route */
/* Whether any norm is without weights. */
bool cad_model_spec_needs_ones(const struct cad_model_spec *spec);
/* How many layers have that kind of attention. */
uint32_t cad_model_spec_layers_of(const struct cad_model_spec *spec, uint32_t attention_at);

static inline const struct cad_attention_spec *cad_attention_of(const struct cad_model_spec *spec, uint32_t layer)
{
	return &spec->attentions[spec->layers[layer].attention_at];
}
static inline const struct cad_rope_spec *cad_rope_of(const struct cad_model_spec *spec, uint32_t layer)
{
	return &spec->ropes[spec->layers[layer].rope_at];
}

#endif
