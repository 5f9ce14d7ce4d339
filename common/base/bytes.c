/* SPDX-License-Identifier: Apache-2.0 */
#include "common/base/bytes.h"

#include <stddef.h>
#include <stdio.h>

const char *cad_bytes_text(uint64_t bytes, char text[CAD_BYTES_TEXT_BYTES])
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB" };
	double value = (double)bytes;
	size_t unit = 0;

	while (value >= 1024 && unit < 4) {
		value /= 1024;
		unit++;
	}
	snprintf(text, CAD_BYTES_TEXT_BYTES, unit ? "%.1f %s" : "%.0f %s", value, units[unit]);
	return text;
}
