/* SPDX-License-Identifier: Apache-2.0 */
#include "common/process/cores.h"

#include "common/process/cgroup.h"

#include <sched.h>
#include <stdio.h>

/* The file has "QUOTA PERIOD" in microseconds, or "max PERIOD". */
static void read_v2(const struct cad_cgroup *group, long long *quota, long long *period)
{
	char path[PATH_MAX + 32];
	snprintf(path, sizeof path, "%s/cpu.max", group->directory);
	FILE *file = fopen(path, "re");
	if (!file)
		return;
	if (fscanf(file, "%lld %lld", quota, period) != 2)
		*quota = 0;
	fclose(file);
}

/* UINT64_MAX: it has no quota. */
static uint64_t quota_of(const struct cad_cgroup *group)
{
	long long quota = 0, period = 0;
	if (group->v1) {
		quota = (long long)cad_cgroup_figure(group, "cpu.cfs_quota_us", ""); /* -1: none */
		period = (long long)cad_cgroup_figure(group, "cpu.cfs_period_us", "");
	} else {
		read_v2(group, &quota, &period);
	}
	return quota > 0 && period > 0 ? (uint64_t)((quota - 1) / period + 1) : UINT64_MAX;
}

unsigned cad_cores(const char *root)
{
	cpu_set_t set;
	struct cad_cgroup group;
	uint64_t cores = sched_getaffinity(0, sizeof set, &set) == 0 ? (uint64_t)CPU_COUNT(&set) : 1;

	cad_cgroup_own(root, "cpu", &group);
	do {
		uint64_t quota = quota_of(&group);
		cores = quota < cores ? quota : cores;
	} while (cad_cgroup_up(&group));
	return cores > 0 ? (unsigned)cores : 1;
}
