/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much more memory a process may use, and giving back what it does not. Reads files of the
 * kernel; any thread.
 */
#ifndef CADRE_COMMON_PROCESS_MEMORY_H
#define CADRE_COMMON_PROCESS_MEMORY_H

#include <stdint.h>

/* What is free on the machine, or under the tightest limit of the process's cgroup and its
 * ancestors, whichever is less. Files in the page cache count as free. `root` says where /proc
 * and /sys are: "" except in tests. */
uint64_t cad_memory_free_bytes(const char *root);

/* Gives free memory back to the system, when what is resident and not in use is
 * CAD_MEMORY_KEPT_BYTES more than *least_bytes, the least that it has been (the caller's; 0 at
 * first). Thousands of connections at once leave theirs in pieces, which malloc would keep for
 * good. To be called now and then: a page with one piece in use goes back when that is free,
 * too. Takes milliseconds when there is something to give. */
enum { CAD_MEMORY_KEPT_BYTES = 16 << 20 };
void cad_memory_trim(uint64_t *least_bytes);

#endif
