/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What monitoring wants to know of any process, under the names that Prometheus's client libraries
 * gave it: process_resident_memory_bytes, process_virtual_memory_bytes, process_cpu_seconds_total,
 * process_open_fds, process_max_fds, process_start_time_seconds; and cadre_build_info, always 1,
 * whose labels say which Cadre this is.
 *
 * Called once, by whoever makes the registry; values are read from /proc when a page is rendered,
 * in the renderer's thread. What /proc does not tell is NaN.
 */
#ifndef CADRE_COMMON_PROCESS_PROCESS_METRICS_H
#define CADRE_COMMON_PROCESS_PROCESS_METRICS_H

#include "common/process/metrics.h"

void cad_process_metrics(struct cad_metrics *metrics);

#endif
