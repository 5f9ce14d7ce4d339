/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Latent attention (DeepSeek-V2, arXiv 2405.04434), in its absorbed form alone: the cache keeps one
 * compressed key for all heads, and what would expand it stands in the queries and behind the sums.
 * The expanded form has the same value in exact arithmetic and other bits, and is never mixed in.
 *
 * On the engine's thread, as attention.h.
 */
#ifndef CADRE_ROUTER_SVC_MODEL_LATENT_H
#define CADRE_ROUTER_SVC_MODEL_LATENT_H

#include "router-svc/model/attention.h"

/* From normed rows to the heads' output, ready for the output projection: queries and keys, rotation,
 * KV cache, attention. */
void rt_attend_latent(const struct rt_attention *a);

#endif
