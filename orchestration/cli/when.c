/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/cli/when.h"

#include <stddef.h>
#include <stdio.h>
#include <time.h>

static size_t print(char text[CL_WHEN_BYTES], uint64_t ms, const char *format)
{
	time_t seconds = (time_t)(ms / 1000);
	struct tm utc;

	return gmtime_r(&seconds, &utc) ? strftime(text, CL_WHEN_BYTES, format, &utc)
					: (size_t)snprintf(text, CL_WHEN_BYTES, "?");
}

void cl_when_iso(char text[CL_WHEN_BYTES], uint64_t ms)
{
	size_t length = print(text, ms, "%Y-%m-%dT%H:%M:%S");
	snprintf(text + length, CL_WHEN_BYTES - length, ".%03uZ", (unsigned)(ms % 1000));
}

void cl_when_plain(char text[CL_WHEN_BYTES], uint64_t ms) { (void)print(text, ms, "%Y-%m-%d %H:%M:%S"); }
