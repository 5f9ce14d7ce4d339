/* SPDX-License-Identifier: Apache-2.0 */
#include "common/base/condition.h"

#include "common/base/clock.h"

void cad_condition_init(pthread_cond_t *condition)
{
	pthread_condattr_t monotonic;
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(condition, &monotonic);
	pthread_condattr_destroy(&monotonic);
}

struct timespec cad_condition_deadline(uint64_t ns)
{
	uint64_t end_ns = cad_clock_now_ns(&cad_clock_system) + ns;
	return (struct timespec){ .tv_sec = (time_t)(end_ns / CAD_NS_PER_S), .tv_nsec = (long)(end_ns % CAD_NS_PER_S) };
}
