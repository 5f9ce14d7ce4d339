/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `cadrectl eval`: whole sequences through the embedded engine, every logit and every routing
 * decision written to a safetensors file, for comparison with other implementations. Input:
 * {"sequences": [[ids], ...], "greedy_tokens": N}. Output, for sequence i of n tokens: tokens.i i32
 * [n], logits.i f32 [n, V], router_logits.i f32 [layers, n, E] (MoE layers only, raw), experts.i
 * i32 [layers, n, K] ascending, expert_weights.i f32 [layers, n, K] beside them, greedy.i i32 [N].
 */
#ifndef CADRE_ORCHESTRATION_CLI_EVAL_H
#define CADRE_ORCHESTRATION_CLI_EVAL_H

/* argv[0] is the command's name. Returns the exit code; prints its own errors. */
int cl_eval(int argc, char **argv);

#endif
