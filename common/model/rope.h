/* SPDX-License-Identifier: Apache-2.0 */
/* Rotary embedding. inv_freq is computed once, in f32 and in the steps of transformers, so that it
 * is what transformers stores. */
#ifndef CADRE_COMMON_MODEL_ROPE_H
#define CADRE_COMMON_MODEL_ROPE_H

#include <stdbool.h>
#include <stdint.h>

enum cad_rope_kind { CAD_ROPE_DEFAULT, CAD_ROPE_LINEAR, CAD_ROPE_LLAMA3, CAD_ROPE_YARN };
struct cad_rope_spec {
	enum cad_rope_kind kind;
	uint32_t size;    /* elements of a head that are rotated; even */
	bool interleaved; /* pairs (2i, 2i+1) as DeepSeek does, else (i, i + size/2) */
	double theta;
	double factor;
	double low_freq_factor, high_freq_factor; /* llama3 */
	double beta_fast, beta_slow;              /* yarn */
	bool truncate;                            /* yarn: round the correction range to integers */
	double mscale, mscale_all_dim;            /* yarn; 0 when absent */
	uint32_t original_positions;              /* llama3, yarn */
	/* cos and sin are multiplied by this; already resolved, 1 by default */
	double attention_factor;
};
/* inv_freq[size / 2]. Source: transformers modeling_rope_utils.py, the function of each kind. */
void cad_rope_inv_freq(const struct cad_rope_spec *rope, float *inv_freq);

#endif
