/* SPDX-License-Identifier: Apache-2.0 */
/* Rotary embedding. inv_freq is computed once, in f32 and in the steps of transformers, so that it
 * is what transformers stores. */
#ifndef CADRE_COMMON_MODEL_ROPE_H
#define CADRE_COMMON_MODEL_ROPE_H

#include "common/base/limits.h"

#include <stdbool.h>
#include <stdint.h>

/* In DYNAMIC and LONGROPE the frequencies depend on how long the sequence is. */
enum cad_rope_kind {
	CAD_ROPE_DEFAULT,
	CAD_ROPE_LINEAR,
	CAD_ROPE_LLAMA3,
	CAD_ROPE_YARN,
	CAD_ROPE_DYNAMIC,
	CAD_ROPE_LONGROPE,
	CAD_ROPE_PROPORTIONAL,
};
const char *cad_rope_kind_name(enum cad_rope_kind kind); /* "default", ... */

struct cad_rope_spec {
	enum cad_rope_kind kind;
	uint32_t size;    /* elements of a head that are rotated; even */
	double partial;   /* partial_rotary_factor */
	bool odd;         /* one element less rotates: exponents are 2i / (size - 1) */
	bool interleaved; /* pairs (2i, 2i+1) as DeepSeek does, else (i, i + size/2) */
	double theta;
	double alpha; /* Hunyuan's own kind, of which theta has a power in it; 0: another */
	double factor;
	double low_freq_factor, high_freq_factor; /* llama3 */
	double beta_fast, beta_slow;              /* yarn */
	bool truncate;                            /* yarn: round the correction range to integers */
	double mscale, mscale_all_dim;            /* yarn; 0 when absent */
	uint32_t original_positions;              /* all but default; dynamic: max_position_embeddings */
	uint32_t pairs; /* proportional: so many of size / 2 turn; longrope: factors that there are */
	/* longrope: what frequencies are divided by, in sequences of up to original_positions tokens
	 * and in longer ones; [pairs], which is size / 2 */
	float short_factors[CAD_HEAD_SIZE_MAX / 2], long_factors[CAD_HEAD_SIZE_MAX / 2];
	/* cos and sin are multiplied by this; already resolved, 1 by default */
	double attention_factor;
	double query_factor; /* llama_4_scaling_beta: how much queries grow with their position; 0: not at all */
};
/*
 * Which frequencies hold for every position of a sequence that has so many tokens by now: sequences
 * with the same number rotate alike. 0: as short ones do, which is always so where the length does
 * not matter. When the number of a growing sequence changes, its earlier keys are no longer right.
 */
uint32_t cad_rope_rotation(const struct cad_rope_spec *rope, uint32_t tokens);
/* Whether there are other rotations than 0. */
bool cad_rope_varies(const struct cad_rope_spec *rope);
/* Those of one rotation: inv_freq[size / 2]. Source: transformers modeling_rope_utils.py, the function of each kind. */
void cad_rope_inv_freq(const struct cad_rope_spec *rope, uint32_t rotation, float *inv_freq);

#endif
