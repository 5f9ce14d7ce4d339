/* SPDX-License-Identifier: Apache-2.0 */
/* The Prometheus page and the HTTP server in front of it. */
#include "common/process/admin.h"
#include "common/base/version.h"
#include "common/process/metrics.h"
#include "common/process/process_metrics.h"
#include "tests/support/must.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static double read_seven(void *context) { return *(double *)context; }

static void page(void **state)
{
	(void)state;
	struct cad_metrics *metrics;
	assert_int_equal(cad_metrics_create(&metrics), CAD_OK);
	struct cad_label odd[] = { { "path", "a\"b\\c\nd" }, { "layer", "3" } };
	struct cad_counter *rows = cad_metrics_counter(metrics, "cadre_rows_total", "rows,\nin \\ lines", NULL, 0);
	struct cad_counter *labelled = cad_metrics_counter(metrics, "cadre_calls_total", "calls", odd, 2);
	struct cad_gauge *gauge = cad_metrics_gauge(metrics, "cadre_load", "load", NULL, 0);
	struct cad_histogram *wait = cad_metrics_histogram(
		metrics, "cadre_wait_seconds", "wait", odd + 1, 1, (double[]){ 0.001, 0.1, 1 }, 3);
	double seven = 7.5;
	cad_metrics_gauge_read(metrics, "cadre_seven", "read", NULL, 0, read_seven, &seven);
	cad_counter_add(rows, UINT64_MAX);
	cad_counter_add(labelled, 2);
	assert_ptr_equal(labelled, cad_metrics_counter(metrics, "cadre_calls_total", "calls", odd, 2));
	assert_ptr_not_equal(labelled, cad_metrics_counter(metrics, "cadre_calls_total", "calls", odd, 1));
	cad_gauge_set(gauge, 0.1);
	cad_gauge_add(gauge, 0.2);
	cad_histogram_observe(wait, 0.001);
	cad_histogram_observe(wait, 0.5);
	cad_histogram_observe(wait, 2);
	assert_int_equal(cad_metrics_status(metrics), CAD_OK);
	char *text;
	size_t bytes;
	assert_int_equal(cad_metrics_render(metrics, &text, &bytes), CAD_OK);
	assert_string_equal(text,
		"# HELP cadre_rows_total rows,\\nin \\\\ lines\n# TYPE cadre_rows_total counter\ncadre_rows_total 18446744073709551615\n"
		"# HELP cadre_calls_total calls\n# TYPE cadre_calls_total counter\n"
		"cadre_calls_total{path=\"a\\\"b\\\\c\\nd\",layer=\"3\"} 2\ncadre_calls_total{path=\"a\\\"b\\\\c\\nd\"} 0\n"
		"# HELP cadre_load load\n# TYPE cadre_load gauge\ncadre_load 0.30000000000000004\n"
		"# HELP cadre_wait_seconds wait\n# TYPE cadre_wait_seconds histogram\n"
		"cadre_wait_seconds_bucket{layer=\"3\",le=\"0.001\"} 1\ncadre_wait_seconds_bucket{layer=\"3\",le=\"0.1\"} 1\n"
		"cadre_wait_seconds_bucket{layer=\"3\",le=\"1\"} 2\ncadre_wait_seconds_bucket{layer=\"3\",le=\"+Inf\"} 3\n"
		"cadre_wait_seconds_sum{layer=\"3\"} 2.501\ncadre_wait_seconds_count{layer=\"3\"} 3\n"
		"# HELP cadre_seven read\n# TYPE cadre_seven gauge\ncadre_seven 7.5\n");
	assert_int_equal(strlen(text), bytes);
	free(text);
	cad_metrics_destroy(metrics);
}

enum { THREADS = 4, UPDATES = 20000 };
struct shared {
	struct cad_counter *counter;
	struct cad_gauge *gauge;
	struct cad_histogram *histogram;
};

static void *update(void *argument)
{
	struct shared *shared = argument;
	for (int i = 0; i < UPDATES; i++) {
		cad_counter_add(shared->counter, 1);
		cad_gauge_add(shared->gauge, 1);
		cad_histogram_observe(shared->histogram, 1);
	}
	return NULL;
}

static void updates_are_atomic(void **state)
{
	(void)state;
	struct cad_metrics *metrics;
	assert_int_equal(cad_metrics_create(&metrics), CAD_OK);
	struct shared shared = { cad_metrics_counter(metrics, "a_total", "a", NULL, 0),
		cad_metrics_gauge(metrics, "b", "b", NULL, 0),
		cad_metrics_histogram(metrics, "c", "c", NULL, 0, cad_histogram_seconds, cad_histogram_seconds_count) };
	pthread_t threads[THREADS];
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, update, &shared), 0);
	char *text;
	size_t bytes;
	for (int i = 0; i < 20; i++) {
		assert_int_equal(cad_metrics_render(metrics, &text, &bytes), CAD_OK);
		free(text);
	}

	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(cad_counter_value(shared.counter), THREADS * UPDATES);
	assert_true(cad_gauge_value(shared.gauge) == THREADS * UPDATES);
	assert_int_equal(cad_metrics_render(metrics, &text, &bytes), CAD_OK);
	assert_non_null(strstr(text, "c_sum 80000\nc_count 80000\n"));
	free(text);
	cad_metrics_destroy(metrics);
}

/* ---- the process ---- */

static double value_of(const char *name)
{
	struct cad_metrics *metrics;
	char line[80], *text;
	size_t bytes;

	assert_int_equal(cad_metrics_create(&metrics), CAD_OK);
	cad_process_metrics(metrics);
	assert_int_equal(cad_metrics_render(metrics, &text, &bytes), CAD_OK);
	snprintf(line, sizeof line, "\n%s ", name);
	const char *at = strstr(text, line);
	if (!at)
		fail_msg("there is no %s in\n%s", name, text);
	double value = at ? strtod(at + strlen(line), NULL) : 0;
	free(text);
	cad_metrics_destroy(metrics);
	return value;
}

static void memory_is_counted(void **state)
{
	(void)state;
	const size_t size = 64 << 20;
	double virtual_bytes = value_of("process_virtual_memory_bytes");
	double resident_bytes = value_of("process_resident_memory_bytes");
	char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(memory, MAP_FAILED);
	assert_true(value_of("process_virtual_memory_bytes") >= virtual_bytes + (double)size);
	assert_true(value_of("process_resident_memory_bytes") < resident_bytes + (double)size / 2);
	memset(memory, 1, size);
	assert_true(value_of("process_resident_memory_bytes") >= resident_bytes + (double)size / 2);
	munmap(memory, size);
}

static void files_are_counted(void **state)
{
	(void)state;
	double before = value_of("process_open_fds");
	int pair[2];
	struct rlimit files;

	assert_int_equal(pipe(pair), 0);
	assert_true(value_of("process_open_fds") == before + 2);
	close(pair[0]);
	close(pair[1]);
	assert_true(value_of("process_open_fds") == before);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &files), 0);
	assert_true(value_of("process_max_fds") == (double)files.rlim_cur);
}

/* This process is younger than five minutes: it has a limit of that. */
static void times_are_told(void **state)
{
	(void)state;
	double cpu_seconds = value_of("process_cpu_seconds_total"), started = value_of("process_start_time_seconds");
	struct timespec now;

	assert_int_equal(clock_gettime(CLOCK_REALTIME, &now), 0);
	assert_true(started <= (double)now.tv_sec + 1);
	assert_true(started > (double)now.tv_sec - 300);
	assert_true(cpu_seconds > 0);
	while (value_of("process_cpu_seconds_total") <= cpu_seconds) {}
}

static void build_is_told(void **state)
{
	(void)state;
	char begin[200];
	snprintf(begin, sizeof begin, "cadre_build_info{version=\"%s\",commit=\"%s\",wire=\"", cad_version, cad_commit);

	struct cad_metrics *metrics;
	char *text;
	size_t bytes;
	assert_int_equal(cad_metrics_create(&metrics), CAD_OK);
	cad_process_metrics(metrics);
	assert_int_equal(cad_metrics_render(metrics, &text, &bytes), CAD_OK);
	const char *line = strstr(text, begin);
	assert_non_null(line);
	assert_int_equal(strncmp(strchr(line, '}'), "} 1\n", 4), 0);
	assert_non_null(strstr(text, "# TYPE process_cpu_seconds_total counter\n"));
	assert_null(strstr(text, "NaN"));
	free(text);
	cad_metrics_destroy(metrics);
}

/* ---- the page over HTTP ---- */

/* One request over a socket of its own; the whole answer, headers included. */
static const char *http(const char *address, const char *request)
{
	static char answer[65536];
	struct sockaddr_in to = {
		.sin_family = AF_INET,
		.sin_port = htons((uint16_t)atoi(strrchr(address, ':') + 1)),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
	char text[512];
	int length = snprintf(text, sizeof text, "%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", request);
	assert_int_equal(write(fd, text, (size_t)length), length);
	size_t total = 0;
	ssize_t got;
	while ((got = read(fd, answer + total, sizeof answer - 1 - total)) > 0)
		total += (size_t)got;
	answer[total] = 0;
	close(fd);

	return answer;
}

static _Atomic bool is_ready;
static bool ready(void *context, char *text, size_t bytes)
{
	(void)context;
	if (!atomic_load(&is_ready))
		snprintf(text, bytes, "loading experts: 3 of 64");
	return atomic_load(&is_ready);
}

static void http_pages(void **state)
{
	(void)state;
	struct cad_metrics *metrics;
	struct cad_admin *admin;
	struct cad_error error;
	assert_int_equal(cad_metrics_create(&metrics), CAD_OK);
	cad_counter_add(cad_metrics_counter(metrics, "a_total", "a", NULL, 0), 5);
	struct cad_admin_options options = {
		.address = "127.0.0.1:0",
		.metrics = metrics,
		.ready = ready,
	};
	must(cad_admin_create(&options, &admin, &error), &error);
	const char *address = cad_admin_address(admin);
	assert_int_equal(strncmp(address, "127.0.0.1:", 10), 0);
	const char *answer = http(address, "GET /metrics");
	assert_non_null(strstr(answer, "200 OK"));
	assert_non_null(strstr(answer, "text/plain; version=0.0.4"));
	assert_non_null(strstr(answer, "a_total 5\n"));
	assert_non_null(strstr(http(address, "GET /healthz"), "\r\n\r\nok\n"));
	answer = http(address, "GET /readyz");
	assert_non_null(strstr(answer, "503"));
	assert_non_null(strstr(answer, "loading experts: 3 of 64\n"));
	atomic_store(&is_ready, true);
	assert_non_null(strstr(http(address, "GET /readyz"), "200 OK"));
	assert_non_null(strstr(http(address, "GET /nothing"), "404"));
	assert_non_null(strstr(http(address, "POST /metrics"), "405"));
	answer = http(address, "HEAD /metrics");
	assert_non_null(strstr(answer, "200 OK"));
	assert_null(strstr(answer, "a_total"));

	struct cad_admin *second;
	options.address = address;
	assert_int_equal(cad_admin_create(&options, &second, &error), CAD_ERR_IO);
	assert_non_null(strstr(error.text, address));
	options.address = "nonsense";
	assert_int_equal(cad_admin_create(&options, &second, &error), CAD_ERR_INVALID);
	options.address = "127.0.0.1:http-x";
	assert_int_equal(cad_admin_create(&options, &second, &error), CAD_ERR_INVALID);
	cad_admin_destroy(admin);
	cad_metrics_destroy(metrics);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(page), cmocka_unit_test(updates_are_atomic),
		cmocka_unit_test(memory_is_counted), cmocka_unit_test(files_are_counted),
		cmocka_unit_test(times_are_told), cmocka_unit_test(build_is_told), cmocka_unit_test(http_pages) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
