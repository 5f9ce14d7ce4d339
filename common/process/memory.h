/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much more memory a process may use. Reads files of the kernel; any thread; does not block.
 */
#ifndef CADRE_COMMON_PROCESS_MEMORY_H
#define CADRE_COMMON_PROCESS_MEMORY_H

#include <stdint.h>

/* What is free on the machine, or under the tightest limit of the process's cgroup and its
 * ancestors (v2), whichever is less. Files in the page cache count as free. `root` says where /proc
 * and /sys are: "" except in tests. */
uint64_t cad_memory_free_bytes(const char *root);

#endif
