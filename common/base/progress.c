/* SPDX-License-Identifier: Apache-2.0 */
#include "common/base/progress.h"

#include "common/base/log.h"

void cad_progress_begin(
	struct cad_progress *progress, const struct cad_clock *clock, const char *component, uint64_t total_bytes)
{
	uint64_t now = cad_clock_now_ns(clock);
	*progress = (struct cad_progress){
		.clock = clock,
		.component = component,
		.total_bytes = total_bytes,
		.began_ns = now,
		.said_ns = now,
	};
}

static double seconds_of(const struct cad_progress *progress)
{
	return (double)(cad_clock_now_ns(progress->clock) - progress->began_ns) * 1e-9;
}

uint64_t cad_progress_rate(const struct cad_progress *progress)
{
	double seconds = seconds_of(progress);
	return seconds > 0 ? (uint64_t)((double)atomic_load(&progress->bytes) / seconds) : 0;
}

static void say(const struct cad_progress *progress, const char *what)
{
	cad_log_info(progress->component, what, CAD_U("bytes", atomic_load(&progress->bytes)),
		CAD_U("total_bytes", progress->total_bytes), CAD_F("seconds", seconds_of(progress)),
		CAD_U("bytes_per_second", cad_progress_rate(progress)));
}

void cad_progress_add(struct cad_progress *progress, uint64_t bytes)
{
	uint64_t now = cad_clock_now_ns(progress->clock), said = atomic_load(&progress->said_ns);

	atomic_fetch_add(&progress->bytes, bytes);
	if (now >= said + CAD_NS_PER_S && atomic_compare_exchange_strong(&progress->said_ns, &said, now))
		say(progress, "loading");
}

void cad_progress_end(struct cad_progress *progress) { say(progress, "loaded"); }
