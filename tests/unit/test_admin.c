/* SPDX-License-Identifier: Apache-2.0 */
/* The HTTP port against clients that hold connections: whoever comes next is answered. */
#include "common/process/admin.h"
#include "tests/support/must.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <dirent.h>
#include <malloc.h>
#include <poll.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

/* A page is more than the sockets between client and server hold. Where nothing may be closed for
 * want of time, the limits are long. */
enum { HELD = CAD_ADMIN_CONNECTIONS_MAX, PAGE_BYTES = 4 << 20, SHORT_MS = 200, LONG_MS = 3600000 };

static const char health[] = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
		  page[] = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";

struct fixture {
	struct cad_metrics *metrics;
	struct cad_admin *admin;
	int held[HELD];
};

static void start(struct fixture *fixture, unsigned request_ms, unsigned answer_ms)
{
	struct cad_error error;
	assert_int_equal(cad_metrics_create(&fixture->metrics), CAD_OK);
	const struct cad_admin_options options = {
		.address = "127.0.0.1:0",
		.metrics = fixture->metrics,
		.request_ms = request_ms,
		.answer_ms = answer_ms,
	};
	must(cad_admin_create(&options, &fixture->admin, &error), &error);
}

static void stop(struct fixture *fixture)
{
	cad_admin_destroy(fixture->admin);
	cad_metrics_destroy(fixture->metrics);
}

static void large_page(struct fixture *fixture)
{
	char *help = malloc(PAGE_BYTES);
	assert_non_null(help);
	memset(help, 'x', PAGE_BYTES - 1);
	help[PAGE_BYTES - 1] = 0;
	cad_metrics_counter(fixture->metrics, "a_total", help, NULL, 0);
	assert_int_equal(cad_metrics_status(fixture->metrics), CAD_OK);
	free(help);
}

/* ---- a client ---- */

static int client_socket(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	return fd;
}

static int connected(const struct fixture *fixture, int fd)
{
	const struct sockaddr_in to = {
		.sin_family = AF_INET,
		.sin_port = htons((uint16_t)atoi(strrchr(cad_admin_address(fixture->admin), ':') + 1)),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	assert_int_equal(connect(fd, (const struct sockaddr *)&to, sizeof to), 0);
	return fd;
}

static void send_text(int fd, const char *text, int flags)
{
	assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL | flags), strlen(text));
}

/* Whatever comes until the server closes. */
static const char *answer_of(int fd)
{
	static char answer[4096];
	size_t total = 0;
	ssize_t got;

	while ((got = read(fd, answer + total, sizeof answer - 1 - total)) > 0)
		total += (size_t)got;
	assert_int_equal(got, 0);
	answer[total] = 0;
	return answer;
}

static void is_answered(int fd)
{
	send_text(fd, health, 0);
	const char *answer = answer_of(fd);
	assert_non_null(strstr(answer, "200 OK"));
	assert_non_null(strstr(answer, "\r\n\r\nok\n"));
	close(fd);
}

static void newcomer_is_answered(const struct fixture *fixture) { is_answered(connected(fixture, client_socket())); }

static bool is_open(int fd)
{
	struct pollfd look = { .fd = fd, .events = POLLRDHUP };
	assert_true(poll(&look, 1, 0) >= 0);
	return look.revents == 0;
}

static void wait_for_the_end(int fd)
{
	struct pollfd look = { .fd = fd, .events = POLLRDHUP };
	assert_int_equal(poll(&look, 1, -1), 1);
}

/* Had the server waited for a time limit, it would have closed all. */
static void only_the_oldest_was_closed(const struct fixture *fixture)
{
	wait_for_the_end(fixture->held[0]);
	for (int i = 1; i < HELD; i++)
		assert_true(is_open(fixture->held[i]));
}

static void hold_all(struct fixture *fixture)
{
	for (int i = 0; i < HELD; i++)
		fixture->held[i] = connected(fixture, client_socket());
}

static void close_all(struct fixture *fixture)
{
	for (int i = 0; i < HELD; i++)
		close(fixture->held[i]);
}

/* ---- connections that are held ---- */

static void silent_connections(void **state)
{
	(void)state;
	struct fixture fixture;
	start(&fixture, LONG_MS, LONG_MS);
	hold_all(&fixture);
	newcomer_is_answered(&fixture);
	only_the_oldest_was_closed(&fixture);
	close_all(&fixture);
	stop(&fixture);
}

/* The witness is older than the others, and shows that no time limit ended them. */
static void half_closed_connections(void **state)
{
	(void)state;
	static const char *const sent[] = { "", "GET /heal", "GET /healthz HTTP/1.1\r\nHost: x\r\n" };
	struct fixture fixture;
	start(&fixture, LONG_MS, LONG_MS);
	int witness = connected(&fixture, client_socket());

	for (size_t k = 0; k < sizeof sent / sizeof *sent; k++) {
		for (int i = 0; i < HELD; i++) {
			fixture.held[i] = connected(&fixture, client_socket());
			/* MSG_MORE: the end comes in the same segment, and so with the same
			 * event. */
			send_text(fixture.held[i], sent[k], MSG_MORE);
			assert_int_equal(shutdown(fixture.held[i], SHUT_WR), 0);
		}

		newcomer_is_answered(&fixture);
		for (int i = 0; i < HELD; i++)
			wait_for_the_end(fixture.held[i]);
		assert_true(is_open(witness));
		close_all(&fixture);
	}

	close(witness);
	stop(&fixture);
}

static void a_whole_request_before_the_end_is_answered(void **state)
{
	(void)state;
	struct fixture fixture;
	start(&fixture, 0, 0);

	for (int i = 0; i < HELD; i++) {
		fixture.held[i] = connected(&fixture, client_socket());
		send_text(fixture.held[i], health, MSG_MORE);
		assert_int_equal(shutdown(fixture.held[i], SHUT_WR), 0);
	}

	for (int i = 0; i < HELD; i++)
		assert_non_null(strstr(answer_of(fixture.held[i]), "200 OK"));
	close_all(&fixture);
	stop(&fixture);
}

static bool drip(struct fixture *fixture, int first, const char *byte)
{
	bool any = false;
	for (int i = first; i < HELD; i++)
		if (is_open(fixture->held[i]))
			any |= send(fixture->held[i], byte, 1, MSG_NOSIGNAL) == 1;
	return any;
}

static void dripping_connections(void **state)
{
	(void)state;
	struct fixture fixture;
	start(&fixture, LONG_MS, LONG_MS);
	hold_all(&fixture);
	for (const char *byte = "GET /healthz HTTP/1.1\r\nX: a"; *byte; byte++)
		drip(&fixture, 0, byte);
	newcomer_is_answered(&fixture);
	only_the_oldest_was_closed(&fixture);
	close_all(&fixture);
	stop(&fixture);
}

/* A byte now and then gains no time. */
static void a_request_has_its_time(void **state)
{
	(void)state;
	struct fixture fixture;
	start(&fixture, SHORT_MS, LONG_MS);
	hold_all(&fixture);
	int rounds = 0;

	for (const char *byte = "GET /healthz HTTP/1.1\r\nX: a"; drip(&fixture, 0, byte); byte += byte[1] != 0) {
		assert_true(++rounds < 100 * 20); /* 20 s, and the header has room for more */
		poll(NULL, 0, 10);
	}

	close_all(&fixture);
	newcomer_is_answered(&fixture);
	stop(&fixture);
}

/* The server says that it closes, and does: no client that pools connections is surprised. */
static void kept_connections(void **state)
{
	(void)state;
	struct fixture fixture;
	start(&fixture, LONG_MS, LONG_MS);
	int witness = connected(&fixture, client_socket());

	for (int i = 0; i < HELD; i++) {
		fixture.held[i] = connected(&fixture, client_socket());
		send_text(fixture.held[i], health, 0);
		const char *answer = answer_of(fixture.held[i]);
		assert_non_null(strstr(answer, "200 OK"));
		assert_non_null(strstr(answer, "Connection: close\r\n"));
	}

	newcomer_is_answered(&fixture);
	assert_true(is_open(witness));
	close_all(&fixture);
	close(witness);
	stop(&fixture);
}

/* ---- answers that are not there yet ---- */

static _Atomic(enum cad_status) generating;
static _Atomic unsigned asked;

static enum cad_status generates(void *context, char *text, size_t bytes)
{
	(void)context;
	enum cad_status status = atomic_load(&generating);
	atomic_fetch_add(&asked, 1);
	snprintf(text, bytes, status == CAD_OK ? "generating" : "no token");
	return status;
}

static void start_generating(struct fixture *fixture, bool always, enum cad_status first)
{
	struct cad_error error;
	atomic_store(&generating, first);
	atomic_store(&asked, 0);
	assert_int_equal(cad_metrics_create(&fixture->metrics), CAD_OK);
	const struct cad_admin_options options = {
		.address = "127.0.0.1:0",
		.metrics = fixture->metrics,
		.generates = generates,
		.ready_generates = always,
	};
	must(cad_admin_create(&options, &fixture->admin, &error), &error);
}

static int asks_for(const struct fixture *fixture, const char *path)
{
	char text[200];
	int fd = connected(fixture, client_socket());
	snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path);
	send_text(fd, text, 0);
	return fd;
}

static void is_told(const struct fixture *fixture, const char *path, const char *code, const char *line)
{
	int fd = asks_for(fixture, path);
	const char *answer = answer_of(fd);
	if (!strstr(answer, code) || !strstr(answer, line))
		fail_msg("%s: '%s'", path, answer);
	close(fd);
}

static void a_query_asks_for_a_token(void **state)
{
	(void)state;
	struct fixture fixture;
	start_generating(&fixture, false, CAD_OK);
	is_told(&fixture, "/readyz", "200", "\r\nok\n");
	assert_int_equal(asked, 0);
	is_told(&fixture, "/readyz?generate", "200", "\r\ngenerating\n");
	is_told(&fixture, "/readyz?a=b&generate=1", "200", "\r\ngenerating\n");
	atomic_store(&generating, CAD_ERR_DEADLINE);
	is_told(&fixture, "/readyz?generate", "503", "\r\nno token\n");
	is_told(&fixture, "/readyz", "200", "\r\nok\n");
	stop(&fixture);

	start_generating(&fixture, true, CAD_ERR_DEADLINE);
	is_told(&fixture, "/readyz", "503", "\r\nno token\n");
	is_told(&fixture, "/healthz", "200", "\r\nok\n");
	stop(&fixture);

	start(&fixture, 0, 0);
	is_told(&fixture, "/readyz?generate", "404", "generates nothing");
	stop(&fixture);
}

/* While some wait, others are answered; and a few may wait. */
static void who_waits_holds_nobody_up(void **state)
{
	(void)state;
	struct fixture fixture;
	int waiting[CAD_ADMIN_WAITING_MAX];
	start_generating(&fixture, false, CAD_AGAIN);

	for (int i = 0; i < CAD_ADMIN_WAITING_MAX; i++)
		waiting[i] = asks_for(&fixture, "/readyz?generate");
	while (atomic_load(&asked) < 3 * CAD_ADMIN_WAITING_MAX) {} /* each again and again */
	is_told(&fixture, "/readyz?generate", "503", "too many are waiting for this answer");
	hold_all(&fixture);
	newcomer_is_answered(&fixture);
	for (int i = 0; i < CAD_ADMIN_WAITING_MAX; i++)
		assert_true(is_open(waiting[i]));

	close(waiting[0]); /* one goes before its answer */
	atomic_store(&generating, CAD_OK);
	for (int i = 1; i < CAD_ADMIN_WAITING_MAX; i++) {
		assert_non_null(strstr(answer_of(waiting[i]), "\r\ngenerating\n"));
		close(waiting[i]);
	}
	close_all(&fixture);
	stop(&fixture);
}

static void whoever_waits_at_the_end_is_let_go(void **state)
{
	(void)state;
	struct fixture fixture;
	start_generating(&fixture, false, CAD_AGAIN);
	int fd = asks_for(&fixture, "/readyz?generate");
	while (atomic_load(&asked) == 0) {}
	stop(&fixture);
	wait_for_the_end(fd);
	close(fd);
}

static void waiting_has_its_time(void **state)
{
	(void)state;
	struct fixture fixture;
	struct cad_error error;
	atomic_store(&generating, CAD_AGAIN);
	assert_int_equal(cad_metrics_create(&fixture.metrics), CAD_OK);
	const struct cad_admin_options options = {
		.address = "127.0.0.1:0",
		.metrics = fixture.metrics,
		.generates = generates,
		.answer_ms = SHORT_MS,
	};
	must(cad_admin_create(&options, &fixture.admin, &error), &error);
	int fd = asks_for(&fixture, "/readyz?generate");
	wait_for_the_end(fd);
	close(fd);
	newcomer_is_answered(&fixture);
	stop(&fixture);
}

/* ---- answers that nobody reads ---- */

static void ask_for_the_page(const struct fixture *fixture, int *fd)
{
	int few = 2048;
	*fd = client_socket();
	assert_int_equal(setsockopt(*fd, SOL_SOCKET, SO_RCVBUF, &few, sizeof few), 0);
	connected(fixture, *fd);
	send_text(*fd, page, 0);
	struct pollfd look = { .fd = *fd, .events = POLLIN };
	assert_int_equal(poll(&look, 1, -1), 1); /* being answered */
}

static void unread_answers(void **state)
{
	(void)state;
	struct fixture fixture;
	start(&fixture, LONG_MS, LONG_MS);
	large_page(&fixture);
	for (int i = 0; i < HELD; i++)
		ask_for_the_page(&fixture, &fixture.held[i]);
	newcomer_is_answered(&fixture);
	only_the_oldest_was_closed(&fixture);
	close_all(&fixture);
	stop(&fixture);
}

/* Those who have asked are answered before those who have not. */
static void the_one_that_did_not_ask_goes_first(void **state)
{
	(void)state;
	struct fixture fixture;
	start(&fixture, LONG_MS, LONG_MS);
	large_page(&fixture);
	for (int i = 1; i < HELD; i++)
		ask_for_the_page(&fixture, &fixture.held[i]);
	fixture.held[0] = connected(&fixture, client_socket());
	newcomer_is_answered(&fixture);
	only_the_oldest_was_closed(&fixture);
	close_all(&fixture);
	stop(&fixture);
}

/* A page takes many turns of the server; that the client sends no more is no reason to end it. */
static void a_page_after_the_end_is_whole(void **state)
{
	(void)state;
	static char part[65536];
	struct fixture fixture;
	size_t total = 0;
	ssize_t got;
	int fd;
	start(&fixture, LONG_MS, LONG_MS);
	large_page(&fixture);
	ask_for_the_page(&fixture, &fd);
	assert_int_equal(shutdown(fd, SHUT_WR), 0);
	newcomer_is_answered(&fixture);
	while ((got = read(fd, part, sizeof part)) > 0)
		total += (size_t)got;
	assert_int_equal(got, 0);
	assert_true(total > PAGE_BYTES);
	close(fd);
	stop(&fixture);
}

static void an_answer_has_its_time(void **state)
{
	(void)state;
	struct fixture fixture;
	int fd;
	start(&fixture, LONG_MS, SHORT_MS);
	large_page(&fixture);
	ask_for_the_page(&fixture, &fd);
	wait_for_the_end(fd);
	close(fd);
	stop(&fixture);
}

/* ---- what it costs ---- */

static unsigned descriptors(void)
{
	unsigned count = 0;
	DIR *directory = opendir("/proc/self/fd");
	assert_non_null(directory);
	while (readdir(directory))
		count++;
	closedir(directory);
	return count;
}

/* The last descriptor is taken by a silent client: it goes, and the next one is answered. */
static void without_descriptors(void **state)
{
	(void)state;
	enum { DESCRIPTORS = 256 };
	struct fixture fixture;
	struct rlimit before, few;
	int taken[DESCRIPTORS], taken_count = 0;
	start(&fixture, LONG_MS, LONG_MS);
	int next = client_socket(), silent = client_socket();
	unsigned open_before = descriptors();

	connected(&fixture, silent);
	newcomer_is_answered(&fixture);
	while (descriptors() != open_before + 1) /* the silent one is accepted, the newcomer closed */
		sched_yield();

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	few = before;
	few.rlim_cur = DESCRIPTORS;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	while (taken_count < DESCRIPTORS && (taken[taken_count] = dup(next)) >= 0)
		taken_count++;
	is_answered(connected(&fixture, next));
	wait_for_the_end(silent);

	while (taken_count > 0)
		close(taken[--taken_count]);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	close(silent);
	stop(&fixture);
}

static void many_connections_in_a_row(void **state)
{
	(void)state;
	enum { WARM = 1000, COUNT = 10000, SLACK_BYTES = 65536 };
	struct fixture fixture;
	start(&fixture, 0, 0);
	unsigned open_before = 0;
	size_t used_before = 0;

	for (int i = 0; i < WARM + COUNT; i++) {
		if (i == WARM) {
			open_before = descriptors();
			used_before = mallinfo2().uordblks;
		}

		int fd = connected(&fixture, client_socket());

		switch (i % 4) {
		case 0: is_answered(fd); continue;
		case 1: break;
		case 2: send_text(fd, "GET /heal", 0); break;
		case 3:
			shutdown(fd, SHUT_WR);
			wait_for_the_end(fd);
			break;
		}

		close(fd);
	}

	newcomer_is_answered(&fixture);
	/* Two: the newcomers may have been answered, but not yet be closed at the server. */
	assert_true(descriptors() <= open_before + 2);
	assert_true(mallinfo2().uordblks <= used_before + SLACK_BYTES);
	stop(&fixture);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_query_asks_for_a_token),
		cmocka_unit_test(who_waits_holds_nobody_up),
		cmocka_unit_test(whoever_waits_at_the_end_is_let_go),
		cmocka_unit_test(waiting_has_its_time),
		cmocka_unit_test(silent_connections),
		cmocka_unit_test(half_closed_connections),
		cmocka_unit_test(a_whole_request_before_the_end_is_answered),
		cmocka_unit_test(dripping_connections),
		cmocka_unit_test(a_request_has_its_time),
		cmocka_unit_test(kept_connections),
		cmocka_unit_test(unread_answers),
		cmocka_unit_test(the_one_that_did_not_ask_goes_first),
		cmocka_unit_test(a_page_after_the_end_is_whole),
		cmocka_unit_test(an_answer_has_its_time),
		cmocka_unit_test(without_descriptors),
		cmocka_unit_test(many_connections_in_a_row),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
