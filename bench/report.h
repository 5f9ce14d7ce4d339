/* SPDX-License-Identifier: Apache-2.0 */
/* What the benchmarks tell: medians, and CSV files that are named after the machine. */
#ifndef CADRE_BENCH_REPORT_H
#define CADRE_BENCH_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* Sorts the values, too: the lowest is then the first. */
double report_median(double *values, size_t count);

/* DIRECTORY/NAME-MACHINE.csv with its first line. NULL: it cannot be written, which was said. */
FILE *report_open(const char *directory, const char *name, const char *columns);
/* Returns whether everything was written, and says so if not; NULL is fine. */
bool report_close(FILE *csv);

#endif
