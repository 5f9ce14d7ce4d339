/* SPDX-License-Identifier: Apache-2.0 */
#include "common/process/memory.h"

#include <limits.h>
#include <malloc.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* The figure behind `key` in a file of lines "key figure". 0: there is none. */
static uint64_t figure_of(const char *path, const char *key)
{
	char line[256];
	unsigned long long value = 0;
	size_t size = strlen(key);
	FILE *file = fopen(path, "re");

	while (file && fgets(line, sizeof line, file))
		if (strncmp(line, key, size) == 0 && sscanf(line + size, " %llu", &value) == 1)
			break;
	if (file)
		fclose(file);
	return value;
}

/* Below the limit of one cgroup; UINT64_MAX: it has none ("max", or no such file). */
static uint64_t free_in(const char *directory)
{
	char path[PATH_MAX + 32];
	snprintf(path, sizeof path, "%s/memory.max", directory);
	uint64_t limit = figure_of(path, "");
	if (limit == 0)
		return UINT64_MAX;
	snprintf(path, sizeof path, "%s/memory.current", directory);
	uint64_t used = figure_of(path, "");
	snprintf(path, sizeof path, "%s/memory.stat", directory);
	uint64_t cache = figure_of(path, "inactive_file ") + figure_of(path, "active_file ");
	used -= cache < used ? cache : used;
	return limit > used ? limit - used : 0;
}

/* "/system.slice/cadre.service", from the line "0::/system.slice/cadre.service"; "" where there is
 * none. */
static void cgroup_of(const char *root, char *name, size_t bytes)
{
	char path[PATH_MAX], line[PATH_MAX];
	snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
	name[0] = 0;
	FILE *file = fopen(path, "re");
	while (file && fgets(line, sizeof line, file))
		if (strncmp(line, "0::/", 4) == 0)
			snprintf(name, bytes, "%.*s", (int)strcspn(line + 3, "\n"), line + 3);
	if (file)
		fclose(file);
}

uint64_t cad_memory_free_bytes(const char *root)
{
	char path[PATH_MAX], name[PATH_MAX / 2];
	snprintf(path, sizeof path, "%s/proc/meminfo", root);
	uint64_t least = figure_of(path, "MemAvailable:") * 1024;
	cgroup_of(root, name, sizeof name);

	/* From the process's own group up to the root; in a container its own is the root. */
	for (bool more = true; more;) {
		snprintf(path, sizeof path, "%s/sys/fs/cgroup%s", root, name);
		uint64_t here = free_in(path);
		least = here < least ? here : least;
		char *slash = strrchr(name, '/');
		more = slash != NULL;
		if (slash)
			*slash = 0;
	}

	return least;
}

/* Resident, and not in use by malloc's account. It has the program's and its libraries' pages, too, which do not
 * change much. */
static uint64_t unused_bytes(void)
{
	uint64_t resident = figure_of("/proc/self/status", "VmRSS:") * 1024, used = mallinfo2().uordblks;
	return resident > used ? resident - used : 0;
}

void cad_memory_trim(uint64_t *least_bytes)
{
	uint64_t unused = unused_bytes();

	if (*least_bytes != 0 && unused > *least_bytes + CAD_MEMORY_KEPT_BYTES) {
		malloc_trim(0);
		*least_bytes = unused_bytes(); /* all the rest cannot be given */
	} else if (*least_bytes == 0 || unused < *least_bytes) {
		*least_bytes = unused;
	}
}
