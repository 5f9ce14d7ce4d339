/* SPDX-License-Identifier: Apache-2.0 */
/* "1 node", "2 nodes": a noun and what agrees with it, after a count. Pure; any thread. */
#ifndef CADRE_COMMON_BASE_PLURAL_H
#define CADRE_COMMON_BASE_PLURAL_H

#include <stdint.h>

static inline const char *cad_plural(uint64_t count, const char *one, const char *many)
{
	return count == 1 ? one : many;
}

#endif
