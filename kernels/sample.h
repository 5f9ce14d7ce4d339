/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sampling: logits to a token, on the host, from (logits, settings, seed, position) alone, and no
 * other state, batch or thread. Randomness is Philox4x32-10 (Salmon et al., SC'11) keyed by (seed,
 * absolute position). Re-entrant; `scratch` is the caller's.
 */
#ifndef CADRE_KERNELS_SAMPLE_H
#define CADRE_KERNELS_SAMPLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * temperature 0 is greedy (lowest index of the largest logit); top_k, top_p, min_p: 0 is off.
 * Order: temperature, then top-k, then top-p, then min-p, as transformers' processors run. Tokens
 * rank by logit, equal ones by ascending id, and weigh e^((logit - max) / temperature). top_k keeps
 * the first k (exactly: of tokens that tie at the border the lower ids stay); top_p keeps a token
 * while the sum of those ranked before it is below top_p of the sum of what top-k left; min_p drops
 * tokens below min_p times the best. The draw is by one Philox number in [0, 1) over the kept
 * weights in ascending order of id.
 */
struct kn_sampling {
	float temperature, top_p, min_p;
	uint32_t top_k;
	uint64_t seed;
};

size_t kn_sample_scratch_bytes(size_t vocab);
/* logits [vocab]; position: the absolute index of the token that is being chosen. -1 when any logit
 * is NaN or infinite, of whichever token: what the others say is not to be trusted then. */
int32_t kn_sample(
	const struct kn_sampling *sampling, const float *logits, size_t vocab, uint64_t position, void *scratch);

/* Whether kn_sample would choose from them. */
bool kn_logits_finite(const float *logits, size_t vocab);

/* The response digest, one link: d = XXH3-128(d_before, token id, XXH3-128 of the vocab f32
 * logits). d is 16 bytes, zero at the start. */
void kn_digest_add(uint8_t digest[16], int32_t token, const float *logits, size_t vocab);

#endif
