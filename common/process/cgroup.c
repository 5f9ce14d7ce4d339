/* SPDX-License-Identifier: Apache-2.0 */
#include "common/process/cgroup.h"

#include <stdio.h>
#include <string.h>

#define MOUNT "sys/fs/cgroup"

/* Whether a word is in a list with commas. */
static bool is_listed(const char *list, const char *word)
{
	size_t size = strlen(word);
	for (const char *at = list; at; at = strchr(at, ',')) {
		at += *at == ',';
		if (strncmp(at, word, size) == 0 && (at[size] == ',' || at[size] == 0))
			return true;
	}
	return false;
}

/* A line is "0::/system.slice/x.service", or in version 1 "4:cpu,cpuacct:/x", which goes before. */
void cad_cgroup_own(const char *root, const char *controller, struct cad_cgroup *group)
{
	char path[PATH_MAX], line[PATH_MAX], name[PATH_MAX / 2] = "";
	snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
	FILE *file = fopen(path, "re");

	group->v1 = false;
	while (!group->v1 && file && fgets(line, sizeof line, file)) {
		line[strcspn(line, "\n")] = 0;
		char *list = strchr(line, ':'), *own = list ? strchr(list + 1, ':') : NULL;
		if (!own)
			continue;
		*own++ = 0;
		group->v1 = is_listed(list + 1, controller);
		if (group->v1 || list[1] == 0)
			snprintf(name, sizeof name, "%s", strcmp(own, "/") == 0 ? "" : own);
	}
	if (file)
		fclose(file);

	int size = snprintf(group->directory, sizeof group->directory, "%s/" MOUNT "%s%s", root, group->v1 ? "/" : "",
		group->v1 ? controller : "");
	group->root_bytes = (size_t)size;
	snprintf(group->directory + size, sizeof group->directory - (size_t)size, "%s", name);
}

bool cad_cgroup_up(struct cad_cgroup *group)
{
	char *slash = strrchr(group->directory, '/');
	if (strlen(group->directory) <= group->root_bytes)
		return false;
	*slash = 0;
	return true;
}

uint64_t cad_cgroup_figure(const struct cad_cgroup *group, const char *file, const char *key)
{
	char path[PATH_MAX + 32];
	snprintf(path, sizeof path, "%s/%s", group->directory, file);
	return cad_kernel_figure(path, key);
}

uint64_t cad_kernel_figure(const char *path, const char *key)
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
