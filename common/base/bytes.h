/* SPDX-License-Identifier: Apache-2.0 */
/* How many bytes, as text for people. Pure; any thread. */
#ifndef CADRE_COMMON_BASE_BYTES_H
#define CADRE_COMMON_BASE_BYTES_H

#include <stdint.h>

enum { CAD_BYTES_TEXT_BYTES = 24 };

/* "512 B", "12.3 MiB", in the largest unit of which it is one at least; returns `text`. */
const char *cad_bytes_text(uint64_t bytes, char text[CAD_BYTES_TEXT_BYTES]);

#endif
