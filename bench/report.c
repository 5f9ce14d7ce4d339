/* SPDX-License-Identifier: Apache-2.0 */
#include "report.h"

#include "limits.h"

#include <stdlib.h>

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

double report_median(double *values, size_t count)
{
	qsort(values, count, sizeof *values, ascending);
	return values[count / 2];
}

FILE *report_open(const char *directory, const char *name, const char *columns)
{
	char machine[64], path[4096];
	snprintf(path, sizeof path, "%s/%s-%s.csv", directory, name, limit_machine(machine));
	FILE *csv = fopen(path, "w");
	if (csv)
		fprintf(csv, "%s\n", columns);
	else
		fprintf(stderr, "%s cannot be written: does the folder exist?\n", path);
	return csv;
}

bool report_close(FILE *csv)
{
	if (!csv || fclose(csv) == 0)
		return true;
	fprintf(stderr, "the CSV file could not be written to its end: is the disk full?\n");
	return false;
}
