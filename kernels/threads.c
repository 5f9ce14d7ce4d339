/* SPDX-License-Identifier: Apache-2.0 */
/* How many threads make sense: the affinity mask, bounded by the cgroup's CPU quota. */
#include "kernels/kernels.h"

#include <sched.h>
#include <stdio.h>

/* Cores of the cgroup v2 quota, rounded up; 0 when there is none. */
static unsigned quota_cores(void)
{
	FILE *file = fopen("/sys/fs/cgroup/cpu.max", "r");
	if (!file)
		return 0;
	unsigned long quota, period;
	int fields = fscanf(file, "%lu %lu", &quota, &period); /* "max 100000" when unlimited: no number is read */
	fclose(file);
	return fields == 2 && period > 0 ? (unsigned)((quota + period - 1) / period) : 0;
}

unsigned kn_threads_default(void)
{
	cpu_set_t set;
	unsigned cores = sched_getaffinity(0, sizeof set, &set) == 0 ? (unsigned)CPU_COUNT(&set) : 1,
		 quota = quota_cores();
	if (quota > 0 && quota < cores)
		cores = quota;
	return cores < 1 ? 1 : cores > KN_THREADS_MAX ? KN_THREADS_MAX : cores;
}
