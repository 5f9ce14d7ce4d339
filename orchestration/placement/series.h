/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Running totals and what they were at the end of each of the last seconds, so that
 * what was counted between two of them is one subtraction. For figures of any
 * window, however many are looked at.
 *
 * Zero-initialised by its owner; memory is taken at init and never grows. One thread.
 */
#ifndef CADRE_ORCHESTRATION_PLACEMENT_SERIES_H
#define CADRE_ORCHESTRATION_PLACEMENT_SERIES_H

#include "common/base/status.h"

#include <stdbool.h>
#include <stdint.h>

enum { PL_SERIES_SECONDS = 900 };

/* Totals side by side. What is between two times is right when it is less than
 * 2^32, of the narrow ones. */
struct pl_totals {
	const uint64_t *wide;
	const uint32_t *narrow;
};

struct pl_series {
	uint32_t wide, narrow;
	size_t bytes;         /* of the totals of one second */
	uint64_t first, last; /* seconds; last 0: none */
	uint8_t *ring;        /* [PL_SERIES_SECONDS] */
};

CAD_MUST_USE enum cad_status pl_series_init(struct pl_series *series, uint32_t wide, uint32_t narrow);
void pl_series_fini(struct pl_series *series); /* zeroed is fine */
/* The totals, to be added to. `second` is at least 2, and never less than it was; no call ever
 * takes longer than for all the seconds that are kept. */
void pl_series_now(struct pl_series *series, uint64_t second, uint64_t **wide, uint32_t **narrow);
/* As they were at the end of a second: of the oldest that is kept, or of the last that is known,
 * where it is outside. False: nothing has been counted. */
bool pl_series_at(const struct pl_series *series, uint64_t second, struct pl_totals *totals);

#endif
