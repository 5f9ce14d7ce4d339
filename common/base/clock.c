/* SPDX-License-Identifier: Apache-2.0 */
#include "common/base/clock.h"

#include <time.h>

static uint64_t system_now_ns(void *context)
{
	(void)context;
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * CAD_NS_PER_S + (uint64_t)t.tv_nsec;
}

const struct cad_clock cad_clock_system = { .now_ns = system_now_ns };

uint64_t cad_unix_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / CAD_NS_PER_MS;
}

/* SplitMix64, Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators (OOPSLA 2014). */
uint64_t cad_random_next(struct cad_random *random)
{
	uint64_t z = random->state += 0x9e3779b97f4a7c15u;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

uint64_t cad_random_below(struct cad_random *random, uint64_t bound)
{
	uint64_t floor = (0 - bound) % bound, value; /* the first 2^64 mod bound values would be met once too often */
	do
		value = cad_random_next(random);
	while (value < floor);
	return value % bound;
}

double cad_random_unit(struct cad_random *random) { return (double)(cad_random_next(random) >> 11) * 0x1p-53; }
