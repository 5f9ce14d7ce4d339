/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The router's part of a checkpoint, packed for its device: everything but the routed experts.
 * Created once, by the device's workers, then read-only.
 */
#ifndef CADRE_ROUTER_SVC_MODEL_WEIGHTS_H
#define CADRE_ROUTER_SVC_MODEL_WEIGHTS_H

#include "common/model/model.h"
#include "kernels/kernels.h"

/* Latent attention. kv_b_proj is kept for each head apart, as kn_linear_heads takes it: the part that
 * makes keys, turned around, and the part that makes values. */
struct rt_latent_weights {
	struct kn_matrix q_down, q_up;     /* n == 0: queries are not compressed (rt_layer_weights.q) */
	struct kn_matrix kv_down;          /* [kv_rank + rope_size][H] */
	float *q_down_norm, *kv_down_norm; /* [q_rank], [kv_rank] */
	float *q_down_bias, *kv_down_bias; /* NULL: none */
	struct kn_matrix *keys, *values;   /* [heads]: [kv_rank][nope_size], [value_size][kv_rank] */
};

struct rt_layer_weights {
	float *attention_norm, *ffn_norm;   /* [H]; NULL: none */
	float *attention_after, *ffn_after; /* [H]: of what each adds; NULL: none */
	struct kn_matrix q, k, v, o;
	float *q_bias, *k_bias, *v_bias, *o_bias; /* NULL: none */
	float *q_norm, *k_norm;                   /* [D] or [heads * D], [kv_heads * D]; NULL: none */
	float *sinks;                             /* [heads]; NULL: none */
	struct rt_latent_weights latent;
	struct kn_expert ffn;                /* of a dense layer, or the shared expert; ffn == 0: none */
	const struct kn_expert *ffn_list[1]; /* it alone, as kn_ffn takes it */
	struct kn_matrix gate;               /* MoE layers: [E][H] */
	float *gate_bias, *selection_bias;   /* [E]; NULL: none */
	struct kn_matrix shared_score;       /* [1][H]: how much of the shared expert counts; n == 0: all */
};

struct rt_weights {
	struct kn_device *device;
	const struct cad_model_spec *spec;
	struct kn_table embed;
	float *final_norm;
	struct kn_matrix lm_head;
	float *ones;                     /* [CAD_HEAD_SIZE_MAX], for norms without weights; NULL: there are none */
	float *inv_freq[CAD_ROPES_MAX];  /* of each rope: [size / 2], of rotation 0 (cad_rope_rotation) */
	struct rt_layer_weights *layers; /* [L] */
	char checksum[33];               /* cad_model_router_checksum of what was loaded */
};

CAD_MUST_USE enum cad_status rt_weights_init(struct rt_weights *weights, struct kn_device *device,
	const struct cad_model *model, enum cad_weights storage, struct cad_error *error);
void rt_weights_fini(struct rt_weights *weights);

#endif
