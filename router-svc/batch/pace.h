/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many rows of prompts may share a step with sequences that decode, so that those do not wait
 * much longer for their next token than without: the step is to take at most `stretch` times what
 * one without prompts takes. From what steps take here and now; nothing is assumed of the machine,
 * the model or the nodes but that a step of n times the rows takes at most about n times as long.
 *
 *   rows = (stretch - 1) * d / p
 *
 *   d  nanoseconds of a step that only decodes, by the number of sequences: a running average for
 *      each power of two. Where it is not known, or was last measured 64 steps ago, one step goes
 *      without prompts and measures it: below 1 % of the time.
 *   p  nanoseconds that a row of a prompt adds, over the last steps that had any. Rows get cheaper
 *      the more there are, so that rows computed from a p of fewer are too few: the next p is
 *      lower, and it settles where the step takes `stretch` times d.
 *
 * The first rows are as many as decode, and each time at most twice as many as ever before; never
 * fewer than decode, so that prompts always go on. A step that was held up (a node died) counts as
 * at most twice its average. The engine's thread only; plain data.
 */
#ifndef CADRE_ROUTER_SVC_BATCH_PACE_H
#define CADRE_ROUTER_SVC_BATCH_PACE_H

#include <stdint.h>

enum { RT_PACE_BUCKETS = 17 }; /* up to 65,536 rows */

struct rt_pace {
	double stretch; /* 0: no limit; else at least 1 */
	struct {
		double ns;
		uint32_t seen; /* steps that were measured, up to where more make no difference */
		uint64_t step; /* the last of them */
	} decode[RT_PACE_BUCKETS];
	double prompt_rows, prompt_ns; /* averages of a step; p is their ratio */
	uint32_t rows_most;            /* of prompts that a step beside decoding sequences has had */
	uint64_t steps;                /* in which somebody decoded */
};

/* Rows of prompts that the next step may have, beside `decoding` sequences. */
uint32_t rt_pace_rows(const struct rt_pace *pace, uint32_t decoding);
/* What a step has taken. */
void rt_pace_took(struct rt_pace *pace, uint32_t decoding, uint32_t prompt_rows, uint64_t ns);

#endif
