/* SPDX-License-Identifier: Apache-2.0 */
#include "common/process/process_metrics.h"

#include "common/base/version.h"
#include "proto/cadre_wire.h"

#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#ifdef __clang__
#define COMPILER "clang " __clang_version__
#else
#define COMPILER "gcc " __VERSION__
#endif

enum { FILE_BYTES = 1024 };

static bool read_text(const char *path, char text[FILE_BYTES])
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	ssize_t got = read(fd, text, FILE_BYTES - 1);
	close(fd);
	text[got > 0 ? got : 0] = 0;
	return got > 0;
}

/* Field `number` of /proc/self/stat, counted from 1 as in proc(5); behind the name of the
 * program, which may hold anything. */
static double stat_field(int number)
{
	char text[FILE_BYTES];
	if (!read_text("/proc/self/stat", text))
		return NAN;

	const char *at = strrchr(text, ')');
	for (int field = 2; at && field < number; field++)
		at = strchr(at + 1, ' ');
	return at ? strtod(at + 1, NULL) : NAN;
}

enum { STAT_START_TICKS = 22, STAT_VIRTUAL_BYTES = 23, STAT_RESIDENT_PAGES = 24 };

static double resident_bytes(void *none)
{
	(void)none;
	return stat_field(STAT_RESIDENT_PAGES) * (double)sysconf(_SC_PAGESIZE);
}

static double virtual_bytes(void *none) { return (void)none, stat_field(STAT_VIRTUAL_BYTES); }

static double seconds(const struct timeval *time) { return (double)time->tv_sec + (double)time->tv_usec * 1e-6; }

static double cpu_seconds(void *none)
{
	struct rusage usage;
	(void)none;
	return getrusage(RUSAGE_SELF, &usage) == 0 ? seconds(&usage.ru_utime) + seconds(&usage.ru_stime) : NAN;
}

static double open_files(void *none)
{
	DIR *files = opendir("/proc/self/fd");
	double count = 0;

	(void)none;
	if (!files)
		return NAN;
	while (readdir(files))
		count++;
	closedir(files);
	return count - 3; /* ., .. and the descriptor that reads them */
}

static double files_max(void *none)
{
	struct rlimit files;
	(void)none;
	return getrlimit(RLIMIT_NOFILE, &files) == 0 ? (double)files.rlim_cur : NAN;
}

static double clock_seconds(clockid_t clock)
{
	struct timespec now;
	return clock_gettime(clock, &now) == 0 ? (double)now.tv_sec + (double)now.tv_nsec * 1e-9 : NAN;
}

/* In Unix time, to the tick. Taken once: a clock that is set later would
 * seem to be another start. */
static double start_seconds(void)
{
	double ticks_per_s = (double)sysconf(_SC_CLK_TCK);
	double since_boot = stat_field(STAT_START_TICKS) / ticks_per_s;
	double boot = clock_seconds(CLOCK_REALTIME) - clock_seconds(CLOCK_BOOTTIME);
	return round((boot + since_boot) * ticks_per_s) / ticks_per_s;
}

static void register_build(struct cad_metrics *metrics)
{
	char wire[12];
	snprintf(wire, sizeof wire, "%d", CADRE_WIRE_VERSION);
	const struct cad_label labels[] = { { "version", cad_version }, { "commit", cad_commit }, { "wire", wire },
		{ "compiler", COMPILER } };
	cad_gauge_set(cad_metrics_gauge(metrics, "cadre_build_info",
			      "Which Cadre this is: version, commit, version of the token exchange, compiler.", labels,
			      sizeof labels / sizeof labels[0]),
		1);
}

void cad_process_metrics(struct cad_metrics *metrics)
{
	register_build(metrics);
	cad_metrics_gauge_read(metrics, "process_resident_memory_bytes", "Resident memory size in bytes.", NULL, 0,
		resident_bytes, NULL);
	cad_metrics_gauge_read(
		metrics, "process_virtual_memory_bytes", "Virtual memory size in bytes.", NULL, 0, virtual_bytes, NULL);
	cad_metrics_counter_read(metrics, "process_cpu_seconds_total",
		"Total user and system CPU time spent in seconds.", NULL, 0, cpu_seconds, NULL);
	cad_metrics_gauge_read(
		metrics, "process_open_fds", "Number of open file descriptors.", NULL, 0, open_files, NULL);
	cad_metrics_gauge_read(
		metrics, "process_max_fds", "Maximum number of open file descriptors.", NULL, 0, files_max, NULL);
	cad_gauge_set(cad_metrics_gauge(metrics, "process_start_time_seconds",
			      "Start time of the process since unix epoch in seconds.", NULL, 0),
		start_seconds());
}
