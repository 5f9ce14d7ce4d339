/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/placement/speed.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#define BATCH 64
#define EQUAL 1.5 /* times the slowest: those below count as equally fast */

static bool is_known(double figure) { return figure > 0 && figure < 1e18; }

double pl_speed_rate(const struct pl_speed *speed, const struct pl_speed_work *work, uint64_t expert_bytes)
{
	if (!is_known(speed->read_bytes_per_second) || !is_known(speed->multiply_adds_per_second) || work->experts == 0)
		return 0;

	double chosen = (double)work->topk / work->experts, used = work->experts * (1 - pow(1 - chosen, BATCH)),
	       rows = BATCH * work->topk / used;
	double read_s = (double)expert_bytes / speed->read_bytes_per_second,
	       multiply_s = rows * work->multiply_adds / speed->multiply_adds_per_second;
	return 1 / (fmax(0, speed->step_s) + used * fmax(read_s, multiply_s));
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return x < y ? -1 : x > y;
}

/* The rate that one counts as: that of the slowest among those that count as equally fast. */
static double level_of(const double *sorted, uint32_t count, double rate)
{
	double level = sorted[0];
	for (uint32_t i = 1; i < count && sorted[i] <= rate; i++)
		if (sorted[i] >= level * EQUAL)
			level = sorted[i];
	return level;
}

/* To two binary digits after the first. */
static double round_speed(double speed)
{
	int exponent;
	double fraction = frexp(fmin(fmax(speed, 1 / PL_SPEED_MAX), PL_SPEED_MAX), &exponent);
	return ldexp(round(fraction * 8), exponent - 3);
}

void pl_speed_compare(const double *rates, uint32_t count, double *speeds)
{
	double sorted[CAD_NODES_MAX];
	uint32_t known = 0;

	for (uint32_t i = 0; i < count; i++)
		if (rates[i] > 0)
			sorted[known++] = rates[i];
	qsort(sorted, known, sizeof *sorted, by_value);
	double median = known > 0 ? level_of(sorted, known, sorted[(known - 1) / 2]) : 1;
	for (uint32_t i = 0; i < count; i++)
		speeds[i] = rates[i] > 0 ? round_speed(level_of(sorted, known, rates[i]) / median) : 1;
}
