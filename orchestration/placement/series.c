/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/placement/series.h"

#include <stdlib.h>
#include <string.h>

enum cad_status pl_series_init(struct pl_series *series, uint32_t wide, uint32_t narrow)
{
	size_t words = wide + ((size_t)narrow + 1) / 2;
	*series = (struct pl_series){ .wide = wide, .narrow = narrow, .bytes = words * sizeof(uint64_t) };
	series->ring = calloc(PL_SERIES_SECONDS, series->bytes); /* the system gives pages when they are written */
	return series->ring ? CAD_OK : CAD_ERR_MEMORY;
}

void pl_series_fini(struct pl_series *series)
{
	free(series->ring);
	*series = (struct pl_series){ 0 };
}

static void *place(const struct pl_series *series, uint64_t second)
{
	return series->ring + second % PL_SERIES_SECONDS * series->bytes;
}

void pl_series_now(struct pl_series *series, uint64_t second, uint64_t **wide, uint32_t **narrow)
{
	if (series->last == 0) { /* nothing had been counted before */
		memset(place(series, second - 1), 0, series->bytes);
		series->first = series->last = second - 1;
	}

	/* the seconds in which nothing was counted, as far as they are kept */
	uint64_t from = series->last;
	if (second - from > PL_SERIES_SECONDS) {
		memcpy(place(series, second - PL_SERIES_SECONDS), place(series, from), series->bytes);
		from = second - PL_SERIES_SECONDS;
	}
	for (; from < second; from++)
		memcpy(place(series, from + 1), place(series, from), series->bytes);
	series->last = second;
	if (series->first + PL_SERIES_SECONDS <= second)
		series->first = second - PL_SERIES_SECONDS + 1;

	*wide = place(series, second);
	*narrow = (uint32_t *)(*wide + series->wide);
}

bool pl_series_at(const struct pl_series *series, uint64_t second, struct pl_totals *totals)
{
	if (series->last == 0)
		return false;
	second = second < series->first ? series->first : second > series->last ? series->last : second;
	totals->wide = place(series, second);
	totals->narrow = (const uint32_t *)(totals->wide + series->wide);
	return true;
}
