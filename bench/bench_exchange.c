/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Round trips of the token exchange beside ucx_perftest: 1, 8, 64 and 512 rows of 8,192 bytes out
 * and as many bytes back, over TCP on the loopback interface and over shared memory, each size in
 * the same run and interleaved, so that whatever else the machine does falls on both.
 *
 *   bench_exchange [--rounds N] [--transport tcp|shm] [--rank P]
 *
 * What is compared: `ours` is cad_call_start to callback, with headers, checks, credits, heartbeats
 * and endpoint error handling; the server answers at once. perftest is `ucx_perftest -t ucp_am_lat
 * -e` (active messages, error handling on) with the same bytes; it prints one-way latency, so twice
 * that; under UCX's own settings ("default") and under those that Cadre sets ("tuned"), and the
 * ratio is to the better of the two. Both poll without sleeping, as perftest always does;
 * `ours_sleep` is what a service does: every wait sleeps on the event descriptor. Best median of
 * the rounds; p99 of the round with that median.
 *
 * --rank 20 compares 20th percentiles instead of medians: on a machine that does other things too,
 * the median of whoever polls is mostly the time for which it was not running.
 *
 * On stderr: how long connecting took. Output is CSV:
 * transport,rows,bytes,ours_p50_us,ours_p99_us,ours_sleep_p50_us,perftest_default_us,perftest_tuned_us,ratio
 */
#include "common/transport/exchange_address.h"
#include "common/transport/ucx.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	ELEMENTS = 4096,
	ROWS_MAX = 512,
	SIZES = 4,
	ITERATIONS_MAX = 2000,
	PERFTEST_PORT = 13557,
	LINE_BYTES = CAD_EXCHANGE_ADDRESS_BYTES
};
static const uint32_t sizes_rows[SIZES] = { 1, 8, 64, 512 };
static const int sizes_iterations[SIZES] = { 2000, 1000, 300, 60 };
static int rank = 50;
static void die(const char *what, const char *why)
{
	fprintf(stderr, "bench_exchange: %s: %s\n", what, why);
	exit(1);
}

/* ---- both sides ---- */

static void options_for(struct cad_transport_options *o, const char *node)
{
	cad_transport_options_default(o);
	snprintf(o->identity.cluster, sizeof o->identity.cluster, "bench");
	snprintf(o->identity.node, sizeof o->identity.node, "%s", node);
	o->limits = (struct cad_wire_limits){
		.payload_bytes_max = 32u << 20,
		.rows_max = ROWS_MAX,
		.row_elements = ELEMENTS,
		.layers = 1,
		.experts = 1,
	};
	o->calls_max = 16;
	o->connections_max = 4;
}

static const char *ucx_transports(const char *transport)
{
	return strcmp(transport, "shm") == 0 ? "posix,cma,tcp" : "tcp";
}

static void serve_request(struct cad_transport *transport, struct cad_request *request)
{
	(void)transport;
	const struct cad_call_view *view = cad_request_view(request);
	struct cad_buffer *buffer = cad_request_answer_buffer(request);
	struct cadre_wire_sum *sums = (struct cadre_wire_sum *)(void *)buffer->bytes;
	for (uint32_t r = 0; r < view->call.rows; r++)
		sums[r] = (struct cadre_wire_sum){ .width = 2 };
	size_t data_bytes = (size_t)view->call.rows * ELEMENTS * 2;
	cad_request_answer(request,
		&(struct cadre_wire_answer){
			.data_bytes = data_bytes,
		},
		view->call.rows * sizeof *sums + data_bytes);
}

static void nothing(struct cad_transport *transport, struct cad_connection *connection, enum cad_connection_state state,
	enum cad_status status, const char *text)
{
	(void)transport, (void)connection, (void)status, (void)text;
	if (state == CAD_CONNECTION_CLOSED)
		exit(0); /* a server serves one client */
}

static _Noreturn void serve(const char *transport, bool sleeps, const char *client)
{
	struct cad_transport_options options;
	struct cad_transport *t;
	struct cad_error error;

	options_for(&options, "server");
	options.on_request = serve_request;
	options.on_connection = nothing;
	struct cad_ucx_options ucx = { .devices = "lo", .transports = ucx_transports(transport) };
	if (cad_transport_ucx_create(&options, &ucx, &t, &error) != CAD_OK ||
		cad_transport_announce(t, &client, 1, &error) != CAD_OK)
		die("server", error.text);
	printf("%s\n", cad_transport_address(t));
	fflush(stdout);
	for (;;)
		cad_transport_poll(t, sleeps ? UINT64_MAX : 0);
}

/* ---- a child, and what it prints ---- */

/* Server and client on a core each, and always on the same one: where the scheduler puts them is
 * worth a quarter of a small round trip. */
static void pin(int core)
{
	cpu_set_t set;
	CPU_ZERO(&set);
	CPU_SET((size_t)(sysconf(_SC_NPROCESSORS_ONLN) > 1 ? core : 0), &set);
	sched_setaffinity(0, sizeof set, &set);
}

/* The child starts on `core`. */
static pid_t start(char *const argv[], char *const environment[], int core, FILE **output)
{
	pin(core);
	int ends[2];
	posix_spawn_file_actions_t actions;
	pid_t child;
	if (pipe(ends) != 0 || posix_spawn_file_actions_init(&actions) != 0)
		die(argv[0], strerror(errno));
	posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
	posix_spawn_file_actions_addclose(&actions, ends[0]);
	int problem = posix_spawnp(&child, argv[0], &actions, NULL, argv, environment);
	if (problem != 0)
		die(argv[0], strerror(problem));
	posix_spawn_file_actions_destroy(&actions);
	close(ends[1]);
	*output = fdopen(ends[0], "r");
	pin(1);

	return child;
}

static void finish(pid_t child, FILE *output)
{
	fclose(output);
	kill(child, SIGTERM);
	waitpid(child, NULL, 0);
}

/* ---- ours ---- */

struct result {
	double p50_us, p99_us;
};

static struct {
	bool ready, done;
	enum cad_status status;
} state;
static void client_news(struct cad_transport *transport, struct cad_connection *connection,
	enum cad_connection_state connection_state, enum cad_status status, const char *text)
{
	(void)transport, (void)connection, (void)status;
	if (connection_state == CAD_CONNECTION_CLOSED)
		die("connection", text);
	state.ready = true;
}

static void call_done(void *context, struct cad_call *call, enum cad_status status, const struct cad_answer_view *view)
{
	(void)context, (void)call, (void)view;
	state.done = true;
	state.status = status;
}

static size_t payload_fill(uint8_t *bytes, uint32_t rows, struct cadre_wire_call *call)
{
	*call = (struct cadre_wire_call){
		.rows = rows,
		.row_elements = ELEMENTS,
		.pairs = rows,
		.groups = 1,
		.data_bytes = (uint64_t)rows * ELEMENTS * 2,
	};
	struct cad_call_layout at = cad_wire_call_layout(rows, (size_t)call->data_bytes, 1, rows);
	memset(bytes, 1, at.bytes);
	memcpy(bytes + at.groups,
		&(struct cadre_wire_group){
			.expert = 0,
			.pairs = rows,
		},
		sizeof(struct cadre_wire_group));

	for (uint32_t r = 0; r < rows; r++) {
		memcpy(bytes + at.rows + r * sizeof(struct cadre_wire_row),
			&(struct cadre_wire_row){
				.type = CADRE_ROW_BF16,
			},
			sizeof(struct cadre_wire_row));
		memcpy(bytes + at.pairs + r * sizeof(struct cadre_wire_pair),
			&(struct cadre_wire_pair){
				.row = r,
				.weight = 1.0f,
			},
			sizeof(struct cadre_wire_pair));
	}

	return at.bytes;
}

static int ascending(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return (x > y) - (x < y);
}

static struct result measure_size(struct cad_transport *t, struct cad_connection *connection,
	struct cad_buffer *payload, struct cad_buffer *answer, size_t size, bool sleeps)
{
	static uint64_t times[ITERATIONS_MAX];
	int iterations = sizes_iterations[size], warm = iterations / 10;
	struct cad_call_start begin = { .payload = payload, .answer = answer, .done = call_done };

	begin.payload_bytes = payload_fill(payload->bytes, sizes_rows[size], &begin.call);

	for (int i = -warm; i < iterations; i++) {
		struct cad_call *call;
		state.done = false;
		uint64_t from = cad_clock_now_ns(&cad_clock_system);
		if (cad_call_start(connection, &begin, &call) != CAD_OK)
			die("call", "not accepted");
		while (!state.done)
			cad_transport_poll(t, sleeps ? UINT64_MAX : 0);
		if (state.status != CAD_OK)
			die("call", cad_status_text(state.status));
		if (i >= 0)
			times[i] = cad_clock_now_ns(&cad_clock_system) - from;
	}

	qsort(times, (size_t)iterations, sizeof *times, ascending);
	return (struct result){ (double)times[iterations * rank / 100] / 1e3,
		(double)times[iterations * 99 / 100] / 1e3 };
}

static void measure_ours(const char *transport, bool sleeps, struct result results[SIZES])
{
	FILE *output;
	char address[LINE_BYTES];
	struct cad_transport_options options;
	struct cad_transport *t;
	struct cad_connection *connection;
	struct cad_buffer payload, answer;
	struct cad_error error = { .text = "" };
	options_for(&options, "client");
	options.on_connection = client_news;
	struct cad_ucx_options ucx = { .devices = "lo", .transports = ucx_transports(transport) };
	state.ready = false;

	if (cad_transport_ucx_create(&options, &ucx, &t, &error) != CAD_OK)
		die("client", error.text);
	char *argv[] = { "/proc/self/exe", "--serve", (char *)(uintptr_t)transport, sleeps ? "sleep" : "poll",
		(char *)(uintptr_t)cad_transport_address(t), NULL };
	pid_t server = start(argv, environ, 0, &output);
	if (!fgets(address, sizeof address, output))
		die("server", "did not start");
	address[strcspn(address, "\n")] = 0;
	if (cad_buffer_create(t, cad_wire_call_bytes_max(ROWS_MAX, ELEMENTS, 1, ROWS_MAX), &payload) != CAD_OK ||
		cad_buffer_create(t, cad_wire_answer_bytes_max(ROWS_MAX, ELEMENTS), &answer) != CAD_OK)
		die("client", error.text);
	uint64_t began_ns = cad_clock_now_ns(&cad_clock_system);
	if (cad_transport_connect(t, address, NULL, &connection, &error) != CAD_OK)
		die("client", error.text);
	while (!state.ready)
		cad_transport_poll(t, UINT64_MAX);
	fprintf(stderr, "%s: connected in %.2f ms\n", transport,
		(double)(cad_clock_now_ns(&cad_clock_system) - began_ns) / 1e6);
	for (size_t size = 0; size < SIZES; size++) {
		struct result result = measure_size(t, connection, &payload, &answer, size, sleeps);
		if (results[size].p50_us == 0 || result.p50_us < results[size].p50_us)
			results[size] = result;
	}

	cad_buffer_destroy(t, &payload);
	cad_buffer_destroy(t, &answer);

	/* the transport is left as it is: destroying it would block on the dead server */
	finish(server, output);
}

/* ---- perftest ---- */

/* The environment without any UCX_ setting, plus what is given. */
static char **perftest_environment(const char *transport, bool tuned)
{
	static char *list[256];
	static char tls[64];
	size_t count = 0;

	for (char **at = environ; *at && count < 240; at++)
		if (strncmp(*at, "UCX_", 4) != 0 || tuned)
			list[count++] = *at;
	snprintf(tls, sizeof tls, "UCX_TLS=%s", ucx_transports(transport));
	list[count++] = tls;
	list[count++] = "UCX_NET_DEVICES=lo";
	if (tuned && strcmp(transport, "tcp") == 0)
		list[count++] = "UCX_RNDV_THRESH=256K";
	if (strcmp(transport, "shm") == 0) { /* without these it is TCP, whatever UCX_TLS says */
		list[count++] = "UCX_POSIX_ERROR_HANDLING=y";
		list[count++] = "UCX_CMA_MEMORY_INVALIDATE=y";
	}

	list[count] = NULL;
	return list;
}

/* It says nothing when it is ready; a probe connection would be taken for the client. */
static void wait_for_listener(unsigned port)
{
	char want[16], line[LINE_BYTES];
	snprintf(want, sizeof want, ":%04X 0", port);
	for (int i = 0; i < 500; i++) {
		FILE *file = fopen("/proc/net/tcp", "r");
		bool found = false;
		while (file && !found && fgets(line, sizeof line, file))
			found = strstr(line, want) && strstr(line, " 0A ");
		if (file)
			fclose(file);
		if (found)
			return;
		usleep(10 * 1000);
	}

	die("ucx_perftest", "does not listen");
}

static double measure_perftest(const char *transport, bool tuned, size_t size)
{
	char port[16], bytes[16], iterations[16], warm[16], percentile[16], line[LINE_BYTES];
	static unsigned ports = PERFTEST_PORT;
	unsigned number = ports++;

	snprintf(port, sizeof port, "%u", number);
	snprintf(bytes, sizeof bytes, "%u", sizes_rows[size] * ELEMENTS * 2);
	snprintf(iterations, sizeof iterations, "%d", sizes_iterations[size]);
	snprintf(warm, sizeof warm, "%d", sizes_iterations[size] / 10);
	snprintf(percentile, sizeof percentile, "%d", rank);
	char *server_argv[] = { "ucx_perftest", "-p", port, NULL };
	char *client_argv[] = { "timeout", "60", "ucx_perftest", "127.0.0.1", "-p", port, "-t", "ucp_am_lat", "-e",
		"-s", bytes, "-n", iterations, "-w", warm, "-R", percentile, "-f", "-v", NULL };
	FILE *server_output, *output;
	char **environment = perftest_environment(transport, tuned);
	pid_t server = start(server_argv, environment, 0, &server_output);
	wait_for_listener(number);
	pid_t client = start(client_argv, environment, 1, &output);
	double one_way_us = 0;
	while (fgets(line, sizeof line, output) && sscanf(line, "%*u,%lf", &one_way_us) != 1)
		;
	finish(client, output);
	finish(server, server_output);
	if (one_way_us == 0)
		die("ucx_perftest", "gave no result: is the package ucx-utils installed?");

	return 2 * one_way_us;
}

static void better(double *best, double value)
{
	if (*best == 0 || value < *best)
		*best = value;
}

/* ---- all of it ---- */

static void compare(const char *transport, int rounds)
{
	struct result ours[SIZES] = { { 0 } }, asleep[SIZES] = { { 0 } };
	double by_default[SIZES] = { 0 }, tuned[SIZES] = { 0 };

	for (int round = 0; round < rounds; round++) {
		measure_ours(transport, false, ours);
		for (size_t size = 0; size < SIZES; size++)
			better(&by_default[size], measure_perftest(transport, false, size));
		measure_ours(transport, true, asleep);
		for (size_t size = 0; size < SIZES; size++)
			better(&tuned[size], measure_perftest(transport, true, size));
	}

	for (size_t size = 0; size < SIZES; size++) {
		double best = by_default[size] > 0 && by_default[size] < tuned[size] ? by_default[size] : tuned[size];
		printf("%s,%u,%u,%.1f,%.1f,%.1f,%.1f,%.1f,%.2f\n", transport, sizes_rows[size],
			sizes_rows[size] * ELEMENTS * 2, ours[size].p50_us, ours[size].p99_us, asleep[size].p50_us,
			by_default[size], tuned[size], best > 0 ? ours[size].p50_us / best : 0);
		fflush(stdout);
	}
}

int main(int argc, char **argv)
{
	int rounds = 8;
	const char *only = NULL;

	cad_transport_ucx_environment(argv);
	if (argc == 5 && strcmp(argv[1], "--serve") == 0)
		serve(argv[2], strcmp(argv[3], "sleep") == 0, argv[4]);
	for (int i = 1; i + 1 < argc; i += 2) {
		if (strcmp(argv[i], "--rounds") == 0)
			rounds = atoi(argv[i + 1]);
		else if (strcmp(argv[i], "--transport") == 0)
			only = argv[i + 1];
		else if (strcmp(argv[i], "--rank") == 0)
			rank = atoi(argv[i + 1]);
		else
			die(argv[i], "unknown option: --rounds N, --transport tcp|shm, --rank 1..99");
	}

	if (rounds < 1 || rank < 1 || rank > 99)
		die("--rounds, --rank", "out of range");
	printf("transport,rows,bytes,ours_p50_us,ours_p99_us,ours_sleep_p50_us,perftest_default_us,perftest_tuned_us,ratio\n");

	for (int i = 0; i < 2; i++) {
		const char *transport = i ? "shm" : "tcp";
		if (!only || strcmp(only, transport) == 0)
			compare(transport, rounds);
	}

	return 0;
}
