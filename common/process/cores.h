/* SPDX-License-Identifier: Apache-2.0 */
/* How many cores this process may use. Reads files of the kernel; any thread. */
#ifndef CADRE_COMMON_PROCESS_CORES_H
#define CADRE_COMMON_PROCESS_CORES_H

/* Those of its affinity mask, or the tightest CPU quota of its cgroups, rounded up, whichever is
 * less; at least 1. `root` says where /proc and /sys are: "" except in tests. */
unsigned cad_cores(const char *root);

#endif
