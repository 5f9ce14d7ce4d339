/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Metrics in the text format of Prometheus: counters, gauges and histograms, registered at
 * start-up, updated without locks, rendered on demand.
 *
 * main() creates and destroys a registry; what it hands out lives as long as the registry.
 * Registering and rendering take a lock of the registry and may allocate; updates are atomic,
 * allocate nothing, and may come from any thread, the step path included. Registration never fails
 * where it is written: when memory runs out, the caller gets a metric that is never shown, and
 * cad_metrics_status reports it once, at the end of start-up. A malformed name, or one name
 * registered as two kinds, is a programmer's mistake.
 */
#ifndef CADRE_COMMON_PROCESS_METRICS_H
#define CADRE_COMMON_PROCESS_METRICS_H

#include "common/base/status.h"

#include <stdint.h>

struct cad_metrics;
struct cad_counter;
struct cad_gauge;
struct cad_histogram;

struct cad_label {
	const char *name, *value;
}; /* copied; the value may be any UTF-8 */

CAD_MUST_USE enum cad_status cad_metrics_create(struct cad_metrics **metrics);
void cad_metrics_destroy(struct cad_metrics *metrics);
/* CAD_ERR_MEMORY when a registration found no room. */
CAD_MUST_USE enum cad_status cad_metrics_status(const struct cad_metrics *metrics);

/* Registering a name again with the same labels gives the same metric. labels may be NULL when
 * there are none. Counters end in "_total". */
struct cad_counter *cad_metrics_counter(struct cad_metrics *metrics, const char *name, const char *help,
	const struct cad_label *labels, size_t labels_count);
struct cad_gauge *cad_metrics_gauge(struct cad_metrics *metrics, const char *name, const char *help,
	const struct cad_label *labels, size_t labels_count);
/* bounds: ascending upper bounds, +Inf is added; at most CAD_HISTOGRAM_BOUNDS_MAX. */
enum { CAD_HISTOGRAM_BOUNDS_MAX = 32, CAD_LABELS_MAX = 8 };
struct cad_histogram *cad_metrics_histogram(struct cad_metrics *metrics, const char *name, const char *help,
	const struct cad_label *labels, size_t labels_count, const double *bounds, size_t bounds_count);
/* A gauge or a counter whose value is asked for at rendering, in the renderer's thread. */
typedef double cad_metric_read_fn(void *context);
void cad_metrics_gauge_read(struct cad_metrics *metrics, const char *name, const char *help,
	const struct cad_label *labels, size_t labels_count, cad_metric_read_fn *read, void *context);
void cad_metrics_counter_read(struct cad_metrics *metrics, const char *name, const char *help,
	const struct cad_label *labels, size_t labels_count, cad_metric_read_fn *read, void *context);

void cad_counter_add(struct cad_counter *counter, uint64_t amount);
uint64_t cad_counter_value(const struct cad_counter *counter);
void cad_gauge_set(struct cad_gauge *gauge, double value);
void cad_gauge_add(struct cad_gauge *gauge, double amount);
double cad_gauge_value(const struct cad_gauge *gauge);
void cad_histogram_observe(struct cad_histogram *histogram, double value);

/* Usual bounds for times in seconds, 50 us to 60 s. */
extern const double cad_histogram_seconds[];
extern const size_t cad_histogram_seconds_count;

/* The whole page; the caller frees *text. */
CAD_MUST_USE enum cad_status cad_metrics_render(struct cad_metrics *metrics, char **text, size_t *bytes);

#endif
