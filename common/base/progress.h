/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How far a long load is, as log lines with its rate: one a second while it goes on, one at its
 * end. Any thread may add; begin and end are the owner's, alone.
 */
#ifndef CADRE_COMMON_BASE_PROGRESS_H
#define CADRE_COMMON_BASE_PROGRESS_H

#include "common/base/clock.h"

#include <stdatomic.h>

struct cad_progress {
	const struct cad_clock *clock;
	const char *component;
	uint64_t total_bytes, began_ns;
	_Atomic uint64_t bytes, said_ns;
};

/* component and clock are borrowed until the end. */
void cad_progress_begin(
	struct cad_progress *progress, const struct cad_clock *clock, const char *component, uint64_t total_bytes);
void cad_progress_add(struct cad_progress *progress, uint64_t bytes);
/* Bytes per second since the beginning. */
uint64_t cad_progress_rate(const struct cad_progress *progress);
/* Says that all is loaded. */
void cad_progress_end(struct cad_progress *progress);

#endif
