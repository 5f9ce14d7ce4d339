/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control groups of this process, from its own up to the root, of version 1 or 2: each may
 * limit it. In a container its own group is the root. Reads files of the kernel; keeps nothing, any
 * thread.
 */
#ifndef CADRE_COMMON_PROCESS_CGROUP_H
#define CADRE_COMMON_PROCESS_CGROUP_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cad_cgroup {
	char directory[PATH_MAX];
	size_t root_bytes; /* of the directory that is the root group's */
	bool v1;
};

/* `controller` is "cpu" or "memory", `root` where /proc and /sys are: "" except in tests. A group's
 * directory need not be there. */
void cad_cgroup_own(const char *root, const char *controller, struct cad_cgroup *group);
bool cad_cgroup_up(struct cad_cgroup *group); /* false: that was the root */

/* The figure behind `key` in one of its files, whose lines are "key figure". 0: there is none, or a
 * word ("max"). */
uint64_t cad_cgroup_figure(const struct cad_cgroup *group, const char *file, const char *key);
/* The same for any file. */
uint64_t cad_kernel_figure(const char *path, const char *key);

#endif
