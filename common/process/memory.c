/* SPDX-License-Identifier: Apache-2.0 */
#include "common/process/memory.h"

#include "common/process/cgroup.h"

#include <limits.h>
#include <malloc.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* Below the limit of one cgroup; UINT64_MAX: it has none. */
static uint64_t free_in(const struct cad_cgroup *group)
{
	uint64_t limit = cad_cgroup_figure(group, group->v1 ? "memory.limit_in_bytes" : "memory.max", "");
	uint64_t used = cad_cgroup_figure(group, group->v1 ? "memory.usage_in_bytes" : "memory.current", "");
	uint64_t cache =
		cad_cgroup_figure(group, "memory.stat", group->v1 ? "total_inactive_file " : "inactive_file ") +
		cad_cgroup_figure(group, "memory.stat", group->v1 ? "total_active_file " : "active_file ");

	if (limit == 0)
		return UINT64_MAX;
	used -= cache < used ? cache : used;
	return limit > used ? limit - used : 0;
}

uint64_t cad_memory_free_bytes(const char *root)
{
	char path[PATH_MAX];
	struct cad_cgroup group;
	snprintf(path, sizeof path, "%s/proc/meminfo", root);
	uint64_t least = cad_kernel_figure(path, "MemAvailable:") * 1024;

	cad_cgroup_own(root, "memory", &group);
	do {
		uint64_t here = free_in(&group);
		least = here < least ? here : least;
	} while (cad_cgroup_up(&group));

	return least;
}

/* Resident, and not in use by malloc's account. It has the program's and its libraries' pages,
 * too, which do not change much. */
static uint64_t unused_bytes(void)
{
	uint64_t resident = cad_kernel_figure("/proc/self/status", "VmRSS:") * 1024, used = mallinfo2().uordblks;
	return resident > used ? resident - used : 0;
}

void cad_memory_trim(uint64_t *least_bytes)
{
	uint64_t unused = unused_bytes();
	if (*least_bytes != 0 && unused > *least_bytes + CAD_MEMORY_KEPT_BYTES) {
		malloc_trim(0);
		unused = unused_bytes();
	}

	if (*least_bytes == 0 || unused < *least_bytes)
		*least_bytes = unused;
}
