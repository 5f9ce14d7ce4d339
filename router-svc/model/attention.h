/* SPDX-License-Identifier: Apache-2.0 */
/* Attention of one layer. On the engine's thread; queues work of the device and waits for none. */
#ifndef CADRE_ROUTER_SVC_MODEL_ATTENTION_H
#define CADRE_ROUTER_SVC_MODEL_ATTENTION_H

struct rt_step;
struct rt_work;

/* Norm, q, k, v, rotation, KV cache, attention, output projection, residual, for the
 * rows of this micro-batch. */
void rt_attention(struct rt_step *step, const struct rt_work *work);

#endif
