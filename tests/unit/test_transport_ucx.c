/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What only UCX does: peers that are processes and are killed or stopped, over TCP and shared
 * memory, and a worker that must be rebuilt.
 *
 * The program is its own peer: with --serve it listens and answers, with --call it connects and
 * calls without end.
 */
#include "tests/support/exchange.h"
#include "tests/support/must.h"

#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { KILLS = 6, LINE_BYTES = 256, CALLS = 4 };

static enum exchange_form form_of(const char *name)
{
	return strcmp(name, "shm") == 0 ? EXCHANGE_UCX_SHM : EXCHANGE_UCX;
}

/* ---- the peers ---- */

static bool for_ever(void *context) { return (void)context, false; }

static void peer_serve(const char *form)
{
	struct exchange x;
	struct cad_transport_options options;

	exchange_init(&x, form_of(form));
	exchange_options(&options, "expert-1", true);
	struct exchange_node *node = exchange_server(&x, &options, "expert");
	printf("%s\n", cad_transport_address(node->transport));
	fflush(stdout);
	while (!exchange_run_until(&x, for_ever, NULL))
		;
}

static void peer_call(const char *form, const char *address)
{
	struct exchange x;
	struct cad_transport_options options;
	struct exchange_call calls[CALLS];

	exchange_init(&x, form_of(form));
	exchange_options(&options, "router-9", false);
	struct exchange_node *node = exchange_node_create(&x, &options);
	for (uint32_t i = 0; i < CALLS; i++)
		exchange_call_create(&calls[i], node, i % 2 ? 900 : 3, EXCHANGE_ELEMENTS, i);
	struct cad_connection *connection = NULL;
	for (uint32_t i = 0;; i = (i + 1) % CALLS) {
		if (calls[i].call && !calls[i].done)
			exchange_run_until(&x, exchange_call_done, &calls[i]);
		if (!connection || exchange_call_start(&calls[i], connection, 0) < 0)
			connection = exchange_connect(node, address);
	}
}

/* Returns when it has said its address. */
static pid_t start(char *const argv[], char line[LINE_BYTES])
{
	int ends[2];
	pid_t child;
	posix_spawn_file_actions_t actions;
	assert_int_equal(pipe(ends), 0);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
	posix_spawn_file_actions_addclose(&actions, ends[0]);
	assert_int_equal(posix_spawn(&child, "/proc/self/exe", &actions, NULL, argv, environ), 0);
	posix_spawn_file_actions_destroy(&actions);
	close(ends[1]);
	FILE *output = fdopen(ends[0], "r");
	assert_non_null(fgets(line, LINE_BYTES, output));
	fclose(output);
	line[strcspn(line, "\n")] = 0;

	return child;
}

static void end(pid_t child)
{
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
}

/* ---- the tests ---- */

static bool all_done(void *context)
{
	struct exchange_call *calls = context;
	for (int i = 0; i < CALLS; i++)
		if (!calls[i].done)
			return false;
	return true;
}

static struct exchange_node *client_create(struct exchange *x)
{
	struct cad_transport_options options;
	exchange_options(&options, "router-1", false);
	options.ping_interval_ms = 100;
	options.ping_timeout_ms = 200;
	return exchange_node_create(x, &options);
}

static void calls_create(struct exchange_call calls[CALLS], struct exchange_node *node)
{
	for (uint32_t i = 0; i < CALLS; i++)
		exchange_call_create(&calls[i], node, i % 2 ? 900 : 3, EXCHANGE_ELEMENTS, i);
}

static void calls_destroy(struct exchange_call calls[CALLS])
{
	for (uint32_t i = 0; i < CALLS; i++)
		exchange_call_destroy(&calls[i]);
}

static void calls_go_through(
	struct exchange_node *node, struct exchange_call calls[CALLS], struct cad_connection *connection)
{
	for (uint32_t i = 0; i < CALLS; i++)
		assert_int_equal(exchange_call_start(&calls[i], connection, 0), CAD_OK);
	assert_true(exchange_run_until(node->exchange, all_done, calls));
	for (uint32_t i = 0; i < CALLS; i++)
		assert_true(calls[i].right);
}

/* With patience: a dying peer may have left this worker deaf, and it is rebuilt first. */
static struct cad_connection *connect_again(struct exchange_node *client, const char *address)
{
	for (int i = 0; i < 20; i++) {
		struct cad_connection *connection = exchange_connect(client, address);
		if (connection)
			return connection;
	}
	fail_msg("20 times: %s", client->closed[(client->closed_count - 1) % EXCHANGE_LOG_MAX].text);
	return NULL;
}

static void rebuilds_print(const struct exchange_node *node, const char *form)
{
	if (cad_transport_stats(node->transport)->rebuilds > 0)
		print_message("%s: the worker was made anew %zu times\n", form,
			(size_t)cad_transport_stats(node->transport)->rebuilds);
}

/* The server is killed with small and large calls under way, again and again; the calls fail soon,
 * once each, and the next server is reached. */
static void server_killed(void **state)
{
	const char *form = *state;
	struct exchange x;

	exchange_init(&x, form_of(form));
	struct exchange_node *client = client_create(&x);
	struct exchange_call calls[CALLS];
	calls_create(calls, client);

	for (int i = 0; i < KILLS; i++) {
		char address[LINE_BYTES], *argv[] = { "test_transport_ucx", "--serve", (char *)(uintptr_t)form, NULL };
		pid_t server = start(argv, address);
		struct cad_connection *connection = connect_again(client, address);
		calls_go_through(client, calls, connection);
		client->closed_count = 0;
		for (uint32_t n = 0; n < CALLS; n++)
			assert_int_equal(exchange_call_start(&calls[n], connection, 0), CAD_OK);
		if (i % 2)
			exchange_run(&x, (uint64_t)i * 50 * CAD_NS_PER_US);
		end(server);
		assert_true(exchange_run_until(&x, exchange_closed_some, client));
		for (uint32_t n = 0; n < CALLS; n++) {
			assert_int_equal(calls[n].done, 1);
			assert_true(calls[n].right || calls[n].status == CAD_ERR_PEER_LOST ||
				calls[n].status == CAD_ERR_UNREACHABLE);
		}
	}

	rebuilds_print(client, form);
	calls_destroy(calls);
	exchange_fini(&x);
}

/* Large messages pushed through shared memory in pieces: now and then the dead server leaves this
 * worker deaf, which is seen and repaired. */
static void server_killed_while_it_writes(void **state)
{
	setenv("UCX_RNDV_THRESH", "inf", 1);
	server_killed(state);
	unsetenv("UCX_RNDV_THRESH");
}

/* A server that is stopped, not dead: its kernel goes on answering for it, only the heartbeat finds
 * out. */
static void server_stopped(void **state)
{
	const char *form = *state;
	struct exchange x;

	exchange_init(&x, form_of(form));
	struct exchange_node *client = client_create(&x);
	struct exchange_call calls[CALLS];
	calls_create(calls, client);
	char address[LINE_BYTES], *argv[] = { "test_transport_ucx", "--serve", (char *)(uintptr_t)form, NULL };
	pid_t server = start(argv, address);
	struct cad_connection *connection = exchange_connect(client, address);
	assert_non_null(connection);
	kill(server, SIGSTOP);
	for (uint32_t n = 0; n < CALLS; n++)
		assert_int_equal(exchange_call_start(&calls[n], connection, 0), CAD_OK);
	assert_true(exchange_run_until(&x, exchange_closed_some, client));
	for (uint32_t n = 0; n < CALLS; n++)
		assert_int_equal(calls[n].status, CAD_ERR_PEER_LOST);
	assert_non_null(strstr(client->closed[0].text, "ping"));
	kill(server, SIGCONT);
	calls_go_through(client, calls, connect_again(client, address));
	end(server);
	calls_destroy(calls);
	exchange_fini(&x);
}

struct served {
	struct exchange_node *server;
	size_t count;
};
static bool served(void *context)
{
	return ((struct served *)context)->server->requests_count >= ((struct served *)context)->count;
}

/* Clients are killed in the middle of their calls; the server forgets them and serves the next. */
static void clients_killed(void **state)
{
	const char *form = *state;
	struct exchange x;
	struct cad_transport_options options;

	exchange_init(&x, form_of(form));
	exchange_options(&options, "expert-1", true);
	struct exchange_node *server = exchange_server(&x, &options, "expert");
	for (int i = 0; i < KILLS; i++) {
		char *argv[] = { "test_transport_ucx", "--call", (char *)(uintptr_t)form,
			(char *)(uintptr_t)cad_transport_address(server->transport), NULL };
		pid_t child;
		assert_int_equal(posix_spawn(&child, "/proc/self/exe", NULL, NULL, argv, environ), 0);
		struct served enough = { server, server->requests_count + 20 };
		assert_true(exchange_run_until(&x, served, &enough));
		server->closed_count = 0;
		end(child);
		assert_true(exchange_run_until(&x, exchange_closed_some, server));
	}

	assert_int_equal(cad_transport_stats(server->transport)->protocol_errors, 0);
	rebuilds_print(server, form);
	exchange_fini(&x);
}

static bool both_closed(void *context)
{
	struct exchange *x = context;
	return x->nodes[0]->closed_count > 0 && x->nodes[1]->closed_count > 0;
}

/* A worker that hears nobody any more is rebuilt, with its listener on the same port and all
 * buffers registered again. */
static void worker_made_anew(void **state)
{
	const char *form = *state;
	struct exchange x;
	struct cad_transport_options options;

	exchange_init(&x, form_of(form));
	exchange_options(&options, "expert-1", true);
	struct exchange_node *server = exchange_server(&x, &options, "expert"), *client = client_create(&x);
	struct exchange_call calls[CALLS];
	calls_create(calls, client);
	const char *address = cad_transport_address(server->transport);
	for (int side = 0; side < 2; side++) {
		struct exchange_node *ill = side ? server : client;
		struct cad_connection *connection = exchange_connect(client, address);
		assert_non_null(connection);
		calls_go_through(client, calls, connection);
		server->serve = EXCHANGE_HOLD;
		assert_int_equal(exchange_call_start(&calls[0], connection, 0), CAD_OK);
		while (server->held_count == 0)
			exchange_run(&x, CAD_NS_PER_MS);
		server->closed_count = client->closed_count = 0;
		cad_link_ucx_wedge(cad_transport_link(ill->transport));
		assert_true(exchange_run_until(&x, both_closed, &x));
		assert_int_equal(calls[0].status, CAD_ERR_PEER_LOST);
		exchange_answer(server->held[--server->held_count]); /* held in UCX's memory until now */
		server->serve = EXCHANGE_ANSWER;
		while (cad_transport_stats(ill->transport)->rebuilds == 0)
			exchange_run(&x, CAD_NS_PER_MS);
		connection = exchange_connect(client, address);
		assert_non_null(connection);
		calls_go_through(client, calls, connection);
		cad_connection_close(connection, CAD_OK, NULL);
	}

	calls_destroy(calls);
	exchange_fini(&x);
}

static void addresses(void **state)
{
	(void)state;
	static const char *const wrong[] = { "", "127.0.0.1", ":7000", "127.0.0.1:", "127.0.0.1:port",
		"127.0.0.1:65536", "127.0.0.1:+1", "[::1]:7000", "no.such.host.invalid:7000" };
	struct exchange x;
	exchange_init(&x, EXCHANGE_UCX);
	struct exchange_node *client = client_create(&x);
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		struct cad_connection *connection;
		struct cad_error error;
		assert_int_equal(
			cad_transport_connect(client->transport, wrong[i], NULL, &connection, &error), CAD_ERR_INVALID);
		assert_non_null(strstr(error.text, wrong[i]));
	}

	exchange_fini(&x);
}

static void listen_refused(struct exchange_node *node, const char *address, const char *words)
{
	struct cad_error error;
	assert_true(cad_transport_listen(node->transport, address, &error) < 0);
	assert_non_null(strstr(error.text, address));
	if (!strstr(error.text, words))
		fail_msg("'%s' is not in: %s", words, error.text);
}

/* What would start, and never connect. */
static void listen_addresses(void **state)
{
	(void)state;
	struct exchange x;
	struct cad_transport_options options;
	char address[LINE_BYTES];
	exchange_init(&x, EXCHANGE_UCX);
	exchange_options(&options, "expert-1", true);
	struct exchange_node *listener = exchange_server(&x, &options, "expert"),
			     *node = exchange_node_create(&x, &options);
	listen_refused(node, "127.0.0.2:0", "that of 'lo' is 127.0.0.1");
	listen_refused(node, "203.0.113.9:7000", "lo 127.0.0.1"); /* an address of documentation: nobody has it */
	listen_refused(node, "[::1]:0", "IPv4");
	listen_refused(node, cad_transport_address(listener->transport), "Address already in use");
	struct ifaddrs *list;
	assert_int_equal(getifaddrs(&list), 0);

	for (struct ifaddrs *at = list; at; at = at->ifa_next) {
		if (!at->ifa_addr || at->ifa_addr->sa_family != AF_INET || (at->ifa_flags & IFF_LOOPBACK))
			continue;
		assert_int_equal(getnameinfo(at->ifa_addr, sizeof(struct sockaddr_in), address, sizeof address - 2,
					 NULL, 0, NI_NUMERICHOST),
			0);
		strcat(address, ":0");
		/* not the device that UCX was given, or not its first address */
		listen_refused(node, address, at->ifa_name);
	}

	freeifaddrs(list);
	struct cad_error error;
	must(cad_transport_listen(node->transport, "127.0.0.1:0", &error), &error);
	exchange_fini(&x);
}

int main(int argc, char **argv)
{
	cad_transport_ucx_environment(argv);
	if (argc > 2)
		prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails leaves nobody behind */
	if (argc == 3 && strcmp(argv[1], "--serve") == 0)
		peer_serve(argv[2]);
	if (argc == 4 && strcmp(argv[1], "--call") == 0)
		peer_call(argv[2], argv[3]);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(addresses),
		cmocka_unit_test(listen_addresses),
		{ "tcp/server_killed", server_killed, NULL, NULL, "tcp" },
		{ "tcp/server_stopped", server_stopped, NULL, NULL, "tcp" },
		{ "tcp/clients_killed", clients_killed, NULL, NULL, "tcp" },
		{ "tcp/worker_made_anew", worker_made_anew, NULL, NULL, "tcp" },
		{ "shm/server_killed", server_killed, NULL, NULL, "shm" },
		{ "shm/server_killed_while_it_writes", server_killed_while_it_writes, NULL, NULL, "shm" },
		{ "shm/server_stopped", server_stopped, NULL, NULL, "shm" },
		{ "shm/clients_killed", clients_killed, NULL, NULL, "shm" },
		{ "shm/worker_made_anew", worker_made_anew, NULL, NULL, "shm" },
	};
	return cmocka_run_group_tests_name("transport_ucx", tests, NULL, NULL);
}
