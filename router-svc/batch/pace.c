/* SPDX-License-Identifier: Apache-2.0 */
#include "router-svc/batch/pace.h"

#include <math.h>
#include <stdbool.h>

enum {
	SEEN_MIN = 2,    /* steps before an average counts: the first one may have found cold caches */
	AVERAGE = 8,     /* steps */
	STALE_STEPS = 64 /* after which a measurement is repeated */
};
static const double OUTLIER = 2; /* times the average: what a step counts at most */

static uint32_t bucket_of(uint32_t rows)
{
	uint32_t bucket = 31 - (uint32_t)__builtin_clz(rows);
	return bucket < RT_PACE_BUCKETS ? bucket : RT_PACE_BUCKETS - 1;
}

static bool is_stale(const struct rt_pace *pace, uint32_t bucket)
{
	return pace->steps - pace->decode[bucket].step > STALE_STEPS;
}

uint32_t rt_pace_rows(const struct rt_pace *pace, uint32_t decoding)
{
	if (pace->stretch == 0 || decoding == 0)
		return UINT32_MAX;

	uint32_t bucket = bucket_of(decoding);
	if (pace->decode[bucket].seen < SEEN_MIN || is_stale(pace, bucket))
		return 0;

	double ns = (pace->stretch - 1) * pace->decode[bucket].ns, rows = 2.0 * pace->rows_most;
	if (ns * pace->prompt_rows < rows * pace->prompt_ns)
		rows = ns * pace->prompt_rows / pace->prompt_ns;
	return rows > decoding ? (uint32_t)rows : decoding;
}

static void decode_took(struct rt_pace *pace, uint32_t bucket, double ns)
{
	double average = pace->decode[bucket].ns;
	uint32_t seen = pace->decode[bucket].seen;

	if (seen > 0)
		ns = fmin(ns, OUTLIER * average);
	if (seen > 1 && is_stale(pace, bucket))
		seen = 1; /* an old average counts as one step */
	seen += seen < AVERAGE;
	pace->decode[bucket].ns += (ns - average) / seen;
	pace->decode[bucket].seen = seen;
	pace->decode[bucket].step = pace->steps;
}

static void prompts_took(struct rt_pace *pace, uint32_t rows, double ns, double decode_ns)
{
	double more = ns > decode_ns ? ns - decode_ns : 0;

	if (pace->prompt_rows > 0)
		more = fmin(more, OUTLIER * (decode_ns + rows * pace->prompt_ns / pace->prompt_rows));
	pace->prompt_rows += (rows - pace->prompt_rows) / AVERAGE;
	pace->prompt_ns += (more - pace->prompt_ns) / AVERAGE;
	if (rows > pace->rows_most)
		pace->rows_most = rows;
}

void rt_pace_took(struct rt_pace *pace, uint32_t decoding, uint32_t prompt_rows, uint64_t ns)
{
	if (decoding == 0)
		return;

	uint32_t bucket = bucket_of(decoding);
	pace->steps++;
	if (prompt_rows == 0)
		decode_took(pace, bucket, (double)ns);
	else if (pace->decode[bucket].seen >= SEEN_MIN)
		prompts_took(pace, prompt_rows, (double)ns, pace->decode[bucket].ns);
}
