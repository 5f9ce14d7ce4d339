/* SPDX-License-Identifier: Apache-2.0 */
/* Times of day as text, in UTC. Pure; any thread. */
#ifndef CADRE_ORCHESTRATION_CLI_WHEN_H
#define CADRE_ORCHESTRATION_CLI_WHEN_H

#include <stdint.h>

enum { CL_WHEN_BYTES = 40 };

/* From milliseconds since 1970: 2026-11-30T08:04:34.123Z, and 2026-11-30 08:04:34. */
void cl_when_iso(char text[CL_WHEN_BYTES], uint64_t ms);
void cl_when_plain(char text[CL_WHEN_BYTES], uint64_t ms);

#endif
