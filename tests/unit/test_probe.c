/* SPDX-License-Identifier: Apache-2.0 */
/* Asking a host whether a process is gone: whom to ask, and what the answers mean. */
#include "orchestration/placement/probe.h"

#include <arpa/inet.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

static const char *target_text(const char *peer, const char *http)
{
	static char text[CAD_MAP_ADDRESS_BYTES];
	bool there = pl_probe_target(peer, http, text);
	assert_int_equal(there, text[0] != 0);
	return there ? text : "none";
}

static void only_the_peers_own_host_is_asked(void **state)
{
	(void)state;
	assert_string_equal(target_text("ipv4:10.0.0.7:51234", "10.0.0.7:8080"), "10.0.0.7:8080");
	assert_string_equal(target_text("ipv4:10.0.0.7:51234", "0.0.0.0:8080"), "10.0.0.7:8080");
	assert_string_equal(target_text("ipv4:10.0.0.7:51234", "127.0.0.1:8080"), "none");
	assert_string_equal(target_text("ipv4:10.0.0.7:51234", "10.0.0.8:8080"), "none");
	assert_string_equal(target_text("ipv4:10.0.0.7:51234", "[::]:8080"), "none");
	assert_string_equal(target_text("ipv4:10.0.0.7:51234", "node-7:8080"), "none");
	assert_string_equal(target_text("ipv4:10.0.0.7:51234", ""), "none");
	assert_string_equal(target_text("ipv4:10.0.0.7:51234", "10.0.0.7:99999"), "none");
	assert_string_equal(target_text("unix:/run/x", "127.0.0.1:8080"), "none");
	assert_string_equal(target_text("", "127.0.0.1:8080"), "none");
	assert_string_equal(target_text("ipv6:%5B::1%5D:51234", "[::1]:8080"), "[::1]:8080");
	assert_string_equal(target_text("ipv6:[fd00::7]:51234", "[::]:8080"), "[fd00::7]:8080");
	assert_string_equal(target_text("ipv6:%5Bfd00::7%5D:51234", "[fd00::8]:8080"), "none");
	assert_string_equal(target_text("ipv6:%5B:", "[:"), "none");
}

static uint64_t refused_tags;
static bool all_closed;
static void on_refused(void *context, uint64_t tag)
{
	(void)context;
	refused_tags += tag;
}
static void on_closed(void *context)
{
	(void)context;
	all_closed = true;
}

/* A socket on a free port, listening or not, of a loopback address that nobody else uses: on
 * 127.0.0.1 another process might get the port as soon as it is closed. */
static int open_port(bool listens, char address[32])
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f4d0000 | (getpid() & 0xffff)) };
	assert_int_equal(bind(fd, (struct sockaddr *)&in, sizeof in), 0);
	if (listens)
		assert_int_equal(listen(fd, 1), 0);
	socklen_t length = sizeof in;
	assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &length), 0);
	inet_ntop(AF_INET, &in.sin_addr, address, 32);
	snprintf(address + strlen(address), 32 - strlen(address), ":%u", ntohs(in.sin_port));
	return fd;
}

static void refusal_is_told_and_nothing_else(void **state)
{
	(void)state;
	char open_address[32], closed_address[32];
	struct pl_probes probes;
	uv_loop_t loop;
	int listening = open_port(true, open_address), bound = open_port(false, closed_address);
	assert_int_equal(uv_loop_init(&loop), 0);
	refused_tags = 0;
	all_closed = false;
	pl_probes_init(&probes, &loop, on_refused, NULL);
	pl_probes_ask(&probes, open_address, 1, 1000);
	pl_probes_ask(&probes, closed_address, 16, 1000);
	pl_probes_ask(&probes, closed_address, 256, 1000);
	pl_probes_ask(&probes, "", 4096, 1000);
	uv_run(&loop, UV_RUN_DEFAULT); /* until every probe has ended by itself */
	assert_int_equal(refused_tags, 16 + 256);
	assert_int_equal(probes.count, 0);
	for (int i = 0; i < PL_PROBES_MAX + 10; i++)
		pl_probes_ask(&probes, closed_address, 1, 1000);
	assert_int_equal(probes.count, PL_PROBES_MAX);
	pl_probes_close(&probes, on_closed);
	assert_false(all_closed);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_true(all_closed);
	assert_int_equal(refused_tags, 16 + 256);
	pl_probes_ask(&probes, closed_address, 1, 1000);
	assert_int_equal(probes.count, 0);
	assert_int_equal(uv_loop_close(&loop), 0);
	close(listening);
	close(bound);
}

/* Begins to ask a port that listens, and returns its descriptor. */
static int ask_who_listens(struct pl_probes *probes, uv_loop_t *loop)
{
	char address[32];
	int listening = open_port(true, address);
	assert_int_equal(listen(listening, 64), 0);
	assert_int_equal(uv_loop_init(loop), 0);
	refused_tags = 0;
	pl_probes_init(probes, loop, on_refused, NULL);
	pl_probes_ask(probes, address, 1, 5000);
	return listening;
}

static void stop_listening(uv_timer_t *timer)
{
	close(*(int *)timer->data);
	uv_close((uv_handle_t *)timer, NULL);
}

/* A killed process's descriptors are closed one after the other: its port may accept for a
 * moment. */
static void who_accepts_is_asked_again(void **state)
{
	(void)state;
	struct pl_probes probes;
	uv_loop_t loop;
	uv_timer_t dying;
	int listening = ask_who_listens(&probes, &loop);
	uv_timer_init(&loop, &dying);
	dying.data = &listening;
	uv_timer_start(&dying, stop_listening, 30, 0);
	uint64_t began = uv_hrtime();
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(refused_tags, 1);
	assert_true(uv_hrtime() - began < 4000000000); /* not when its time was up */
	assert_int_equal(probes.count, 0);
	assert_int_equal(uv_loop_close(&loop), 0);
}

static void stop_when_asked(uv_prepare_t *prepare)
{
	int listening = *(int *)prepare->data;

	if (poll(&(struct pollfd){ .fd = listening, .events = POLLIN }, 1, 0) > 0) {
		close(listening);
		uv_close((uv_handle_t *)prepare, NULL);
	}
}

/* What the port accepted is reset when it is closed, and the connection may be looked at after
 * that. */
static void who_resets_is_asked_again(void **state)
{
	(void)state;
	struct pl_probes probes;
	uv_loop_t loop;
	uv_prepare_t dying; /* between the call of connect and the look at what came of it */
	int listening = ask_who_listens(&probes, &loop);
	uv_prepare_init(&loop, &dying);
	dying.data = &listening;
	uv_prepare_start(&dying, stop_when_asked);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(refused_tags, 1);
	assert_int_equal(uv_loop_close(&loop), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(only_the_peers_own_host_is_asked),
		cmocka_unit_test(refusal_is_told_and_nothing_else),
		cmocka_unit_test(who_accepts_is_asked_again),
		cmocka_unit_test(who_resets_is_asked_again),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
