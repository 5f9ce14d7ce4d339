/* SPDX-License-Identifier: Apache-2.0 */
/* What a tensor is for; the name that each architecture gives it is data (tensors.c). [n][k]: n
 * outputs of k inputs, row-major, as published. */
#ifndef CADRE_COMMON_MODEL_ROLES_H
#define CADRE_COMMON_MODEL_ROLES_H

#include <stdbool.h>

enum cad_role {
	CAD_ROLE_EMBED,      /* [V][H] */
	CAD_ROLE_FINAL_NORM, /* [H] */
	CAD_ROLE_LM_HEAD,    /* [V][H]; with tied embeddings this is EMBED */
	/* per layer */
	CAD_ROLE_ATTENTION_NORM, /* [H] */
	CAD_ROLE_Q,
	CAD_ROLE_Q_BIAS, /* [heads * D][H] */
	CAD_ROLE_K,
	CAD_ROLE_K_BIAS, /* [kv_heads * D][H] */
	CAD_ROLE_V,
	CAD_ROLE_V_BIAS,
	CAD_ROLE_O,
	CAD_ROLE_O_BIAS, /* [H][heads * D] */
	CAD_ROLE_Q_NORM,
	CAD_ROLE_K_NORM, /* [D], or [heads * D], [kv_heads * D] */
	CAD_ROLE_SINKS,  /* [heads] */
	/* latent attention: compressed to [q_rank][H] and [kv_rank + rope_size][H], normed, and expanded:
	 * [heads * D][q_rank], [heads * (nope_size + value_size)][kv_rank] */
	CAD_ROLE_Q_DOWN,
	CAD_ROLE_Q_DOWN_BIAS,
	CAD_ROLE_Q_DOWN_NORM,
	CAD_ROLE_Q_UP,
	CAD_ROLE_KV_DOWN,
	CAD_ROLE_KV_DOWN_BIAS,
	CAD_ROLE_KV_DOWN_NORM,
	CAD_ROLE_KV_UP,
	CAD_ROLE_FFN_NORM,        /* [H] */
	CAD_ROLE_ATTENTION_AFTER, /* [H]: of what attention gives */
	CAD_ROLE_FFN_AFTER,       /* [H]: of what ffn or experts give */
	CAD_ROLE_FFN_GATE,
	CAD_ROLE_FFN_UP,
	CAD_ROLE_FFN_DOWN, /* dense: [F][H], [F][H], [H][F] */
	CAD_ROLE_FFN_GATE_BIAS,
	CAD_ROLE_FFN_UP_BIAS,
	CAD_ROLE_FFN_DOWN_BIAS, /* [F], [F], [H] */
	CAD_ROLE_GATE,
	CAD_ROLE_GATE_BIAS,
	CAD_ROLE_SELECTION_BIAS, /* [E][H], [E], [E] */
	/* shared expert and its sigmoid gate [1][H] */
	CAD_ROLE_SHARED_GATE,
	CAD_ROLE_SHARED_UP,
	CAD_ROLE_SHARED_DOWN,
	CAD_ROLE_SHARED_SCORE,
	/* per layer and expert */
	CAD_ROLE_EXPERT_GATE,
	CAD_ROLE_EXPERT_UP,
	CAD_ROLE_EXPERT_DOWN, /* [F][H], [F][H], [H][F] */
	CAD_ROLE_EXPERT_GATE_BIAS,
	CAD_ROLE_EXPERT_UP_BIAS,
	CAD_ROLE_EXPERT_DOWN_BIAS,
	CAD_ROLE_COUNT
};

/* Whether the matrix of a role is used in f32 whatever the profile of the others: the gate and the shared
 * expert's score, so that quantised models route as well as the checkpoint does; those of latent
 * attention for each head, which are short; rows of the embedding are looked up, not multiplied. */
static inline bool cad_role_is_always_f32(enum cad_role role)
{
	return role == CAD_ROLE_GATE || role == CAD_ROLE_SHARED_SCORE || role == CAD_ROLE_EMBED ||
		role == CAD_ROLE_KV_UP;
}
static inline bool cad_role_is_expert(enum cad_role role) { return role >= CAD_ROLE_EXPERT_GATE; }
static inline bool cad_role_is_layer(enum cad_role role) { return role >= CAD_ROLE_ATTENTION_NORM; }

#endif
