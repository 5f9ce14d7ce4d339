/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What only UCX does: peers that are processes and are killed or stopped, over TCP and shared
 * memory, a worker that must be rebuilt, and endpoints that are made without a listener.
 *
 * The program is its own peer: with --serve it answers, with --call it connects and calls without
 * end, with --cross it connects and answers. Each says its address first; a server reads those of
 * its clients, a line each.
 */
#include "tests/support/exchange.h"
#include "tests/support/must.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { KILLS = 6, LINE_BYTES = CAD_EXCHANGE_ADDRESS_BYTES, CALLS = 4 };

static enum exchange_form form_of(const char *name)
{
	return strcmp(name, "shm") == 0 ? EXCHANGE_UCX_SHM : EXCHANGE_UCX;
}

/* ---- the peers ---- */

/* Never done; meanwhile it reads who may connect. */
static bool announced(void *context)
{
	static char line[LINE_BYTES];
	static size_t size;
	while (size < sizeof line - 1 && read(STDIN_FILENO, line + size, 1) == 1) {
		if (line[size] != '\n') {
			size++;
			continue;
		}
		line[size] = 0;
		size = 0;
		exchange_announce(context, line);
	}
	return false;
}

static void peer_serve(const char *form)
{
	struct exchange x;
	struct cad_transport_options options;

	exchange_init(&x, form_of(form));
	exchange_options(&options, "expert-1", true);
	struct exchange_node *node = exchange_server(&x, &options, "expert");
	printf("%s\n", cad_transport_address(node->transport));
	fflush(stdout);
	fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK);
	while (!exchange_run_until(&x, announced, &x))
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
	printf("%s\n", cad_transport_address(node->transport));
	fflush(stdout);
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

/* Serves, and has connected to the address before it says its own. */
static void peer_cross(const char *form, const char *address)
{
	struct exchange x;
	struct cad_transport_options options;

	exchange_init(&x, form_of(form));
	exchange_options(&options, "expert-2", true);
	struct exchange_node *node = exchange_server(&x, &options, "expert");
	exchange_connect_start(node, address);
	printf("%s\n", cad_transport_address(node->transport));
	fflush(stdout);
	fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK);
	while (!exchange_run_until(&x, announced, &x))
		;
}

/* Returns when it has said its address. `input`: where lines go to it. */
static pid_t start(char *const argv[], char line[LINE_BYTES], int *input)
{
	int out[2], in[2];
	pid_t child;
	posix_spawn_file_actions_t actions;
	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	assert_int_equal(pipe2(in, O_CLOEXEC), 0);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
	posix_spawn_file_actions_adddup2(&actions, in[0], STDIN_FILENO);
	assert_int_equal(posix_spawn(&child, "/proc/self/exe", &actions, NULL, argv, environ), 0);
	posix_spawn_file_actions_destroy(&actions);
	close(out[1]);
	close(in[0]);
	*input = in[1];
	FILE *output = fdopen(out[0], "r");
	assert_non_null(fgets(line, LINE_BYTES, output));
	fclose(output);
	line[strcspn(line, "\n")] = 0;

	return child;
}

static int serving = -1; /* the input of the last server */

static pid_t server_start(const char *form, char address[LINE_BYTES])
{
	char *argv[] = { "test_transport_ucx", "--serve", (char *)(uintptr_t)form, NULL };
	if (serving >= 0)
		close(serving);
	return start(argv, address, &serving);
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

static struct exchange_node *server_create(struct exchange *x)
{
	struct cad_transport_options options;
	exchange_options(&options, "expert-1", true);
	return exchange_server(x, &options, "expert");
}

static struct cad_connection *connect_unannounced(struct exchange_node *client, const char *address)
{
	struct cad_connection *connection = NULL;
	struct cad_error error;
	must(cad_transport_connect(client->transport, address, client, &connection, &error), &error);
	client->awaited = connection;
	return connection;
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
		dprintf(serving, "%s\n",
			cad_transport_address(client->transport)); /* another one when it was rebuilt */
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
		char address[LINE_BYTES];
		pid_t server = server_start(form, address);
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

static uint64_t computed_ns(void)
{
	struct timespec time;
	assert_int_equal(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time), 0);
	return (uint64_t)time.tv_sec * CAD_NS_PER_S + (uint64_t)time.tv_nsec;
}

/* Connecting to a server that does not answer is waited for asleep. */
static void connecting_takes_no_cpu(struct exchange_node *client, const char *address)
{
	struct cad_connection *connection = exchange_connect_start(client, address);
	uint64_t end_ns = cad_transport_now_ns(client->transport) + 500 * CAD_NS_PER_MS, before_ns = computed_ns();
	while (cad_transport_now_ns(client->transport) < end_ns)
		cad_transport_poll(client->transport, end_ns);
	assert_in_range(computed_ns() - before_ns, 0, 150 * CAD_NS_PER_MS);
	cad_connection_close(connection, CAD_ERR_CANCELLED, "seen enough");
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
	char address[LINE_BYTES];
	pid_t server = server_start(form, address);
	struct cad_connection *connection = connect_again(client, address);
	assert_non_null(connection);
	kill(server, SIGSTOP);
	for (uint32_t n = 0; n < CALLS; n++)
		assert_int_equal(exchange_call_start(&calls[n], connection, 0), CAD_OK);
	assert_true(exchange_run_until(&x, exchange_closed_some, client));
	for (uint32_t n = 0; n < CALLS; n++)
		assert_int_equal(calls[n].status, CAD_ERR_PEER_LOST);
	assert_non_null(strstr(client->closed[0].text, "ping"));
	connecting_takes_no_cpu(client, address);
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
		char address[LINE_BYTES];
		int input;
		pid_t child = start(argv, address, &input);
		exchange_announce(&x, address);
		struct served enough = { server, server->requests_count + 20 };
		assert_true(exchange_run_until(&x, served, &enough));
		server->closed_count = 0;
		end(child);
		close(input);
		assert_true(exchange_run_until(&x, exchange_closed_some, server));
	}

	assert_int_equal(cad_transport_stats(server->transport)->protocol_errors, 0);
	rebuilds_print(server, form);
	exchange_fini(&x);
}

static bool ready_twice(void *node) { return ((struct exchange_node *)node)->ready_count == 2; }
static bool closed_twice(void *node) { return ((struct exchange_node *)node)->closed_count == 2; }

/* Two nodes that have connected to each other at the same moment, and one
 * is killed: both ways end. */
static void crossed_and_killed(void **state)
{
	const char *form = *state;
	for (int i = 0; i < KILLS; i++) {
		struct exchange x;
		char address[LINE_BYTES];
		int input;
		exchange_init(&x, form_of(form));
		struct exchange_node *node = server_create(&x);
		struct exchange_call calls[CALLS];
		calls_create(calls, node);
		char *argv[] = { "test_transport_ucx", "--cross", (char *)(uintptr_t)form,
			(char *)(uintptr_t)cad_transport_address(node->transport), NULL };
		pid_t child = start(argv, address, &input);
		struct cad_connection *connection = connect_unannounced(node, address);
		assert_true(exchange_run_until(&x, ready_twice, node));
		assert_int_equal(node->closed_count, 0);
		calls_go_through(node, calls, connection);
		end(child);
		close(input);
		assert_true(exchange_run_until(&x, closed_twice, node));
		calls_destroy(calls);
		exchange_fini(&x);
	}
}

static bool both_closed(void *context)
{
	struct exchange *x = context;
	return x->nodes[0]->closed_count > 0 && x->nodes[1]->closed_count > 0;
}

/* A worker that hears nobody any more is rebuilt: with another address, and all buffers registered
 * again. */
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
	for (int side = 0; side < 2; side++) {
		struct exchange_node *ill = side ? server : client;
		char address[LINE_BYTES];
		snprintf(address, sizeof address, "%s", cad_transport_address(ill->transport));
		struct cad_connection *connection = exchange_connect(client, cad_transport_address(server->transport));
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
		assert_string_not_equal(address, cad_transport_address(ill->transport));
		assert_string_equal(ill->address, cad_transport_address(ill->transport));
		connection = exchange_connect(client, cad_transport_address(server->transport));
		assert_non_null(connection);
		calls_go_through(client, calls, connection);
		cad_connection_close(connection, CAD_OK, NULL);
	}

	calls_destroy(calls);
	exchange_fini(&x);
}

/* ---- without a listener ---- */

static bool nothing_awaited(void *client) { return ((struct exchange_node *)client)->awaited == NULL; }

static struct exchange_node *hasty_client(struct exchange *x)
{
	struct cad_transport_options options;
	exchange_options(&options, "router-1", false);
	options.handshake_timeout_ms = 200;
	return exchange_node_create(x, &options);
}

/* UCX lets everybody in; a server says nothing to whom nobody has announced. */
static void strangers_are_not_answered(void **state)
{
	(void)state;
	struct exchange x;
	exchange_init(&x, EXCHANGE_UCX);
	struct exchange_node *server = server_create(&x), *client = hasty_client(&x);
	for (int i = 0; i < 3; i++) {
		connect_unannounced(client, cad_transport_address(server->transport));
		assert_true(exchange_run_until(&x, nothing_awaited, client));
	}
	assert_int_equal(client->closed[2].status, CAD_ERR_UNREACHABLE);
	assert_int_equal(server->closed_count + server->ready_count + client->ready_count, 0);

	/* what they have sent breaks nothing for those who are known by then */
	assert_non_null(exchange_connect(client, cad_transport_address(server->transport)));
	exchange_fini(&x);
}

/* What knocks at any port: nothing, a request of HTTP, the beginning of TLS. */
static void foreign_bytes(void **state)
{
	(void)state;
	static const char tls[] = { 0x16, 0x03, 0x01, 0x00, 0x05, 0x01, 0x00, 0x00, 0x01, 0x00 };
	struct exchange x;
	char host[CAD_ADDRESS_BYTES];
	exchange_init(&x, EXCHANGE_UCX);
	struct exchange_node *server = server_create(&x), *client = client_create(&x);
	cad_exchange_address_host(cad_transport_address(server->transport), host);
	struct sockaddr_in to = {
		.sin_family = AF_INET,
		.sin_port = htons((uint16_t)strtoul(strrchr(host, ':') + 1, NULL, 10)),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};

	int sockets[4];
	for (int i = 0; i < 4; i++) {
		sockets[i] = socket(AF_INET, SOCK_STREAM, 0);
		assert_int_equal(connect(sockets[i], (struct sockaddr *)&to, sizeof to), 0);
		if (i == 1)
			close(sockets[i]);
		else if (i > 1)
			assert_true(send(sockets[i], i == 2 ? "GET / HTTP/1.0\r\n\r\n" : tls, i == 2 ? 18 : sizeof tls,
					    MSG_NOSIGNAL) > 0);
		exchange_run(&x, 50 * CAD_NS_PER_MS);
	}

	assert_non_null(exchange_connect(client, cad_transport_address(server->transport)));
	for (int i = 0; i < 4; i++)
		if (i != 1)
			close(sockets[i]);
	exchange_fini(&x);
}

/* The announcement and the client take different ways. */
static void announced_after_it_knocked(void **state)
{
	(void)state;
	struct exchange x;
	exchange_init(&x, EXCHANGE_UCX);
	struct exchange_node *server = server_create(&x), *client = client_create(&x);
	connect_unannounced(client, cad_transport_address(server->transport));
	exchange_run(&x, 100 * CAD_NS_PER_MS);
	assert_int_equal(client->ready_count + client->closed_count, 0);
	exchange_announce(&x, cad_transport_address(client->transport));
	assert_true(exchange_run_until(&x, nothing_awaited, client));
	assert_int_equal(client->ready_count, 1);
	exchange_fini(&x);
}

/* UCX would connect, whoever has the port now. */
static void address_of_a_worker_before(void **state)
{
	(void)state;
	struct exchange x;
	char address[LINE_BYTES];
	exchange_init(&x, EXCHANGE_UCX);
	struct exchange_node *server = server_create(&x), *client = hasty_client(&x);
	snprintf(address, sizeof address, "%s", cad_transport_address(server->transport));
	char *session = strstr(address, "/ucx-") + 1;
	session = strchr(session, '/') + 1;
	*session = *session == '7' ? '8' : '7';
	exchange_announce(&x, cad_transport_address(client->transport));
	connect_unannounced(client, address);
	assert_true(exchange_run_until(&x, nothing_awaited, client));
	assert_int_equal(client->closed[0].status, CAD_ERR_UNREACHABLE);
	assert_int_equal(server->ready_count, 0);
	exchange_fini(&x);
}

/* Two expert nodes; the first one's session is the lower one, or not. */
static void two_servers(struct exchange *x, bool lower_first, struct exchange_node *nodes[2])
{
	struct cad_exchange_address addresses[2];
	for (int i = 0; i < 2; i++) {
		struct cad_error error;
		nodes[i] = server_create(x);
		must(cad_exchange_address_parse(cad_transport_address(nodes[i]->transport), &addresses[i], &error),
			&error);
	}
	if ((addresses[0].session < addresses[1].session) == lower_first)
		return;
	struct exchange_node *first = nodes[0];
	nodes[0] = nodes[1];
	nodes[1] = first;
}

/* The second one knocks by what the first one has knocked by already, unheard. */
static void both_knock(void **state)
{
	(void)state;
	for (int lower_first = 0; lower_first < 2; lower_first++) {
		struct exchange x;
		struct exchange_node *nodes[2];
		exchange_init(&x, EXCHANGE_UCX);
		two_servers(&x, lower_first, nodes);
		connect_unannounced(nodes[0], cad_transport_address(nodes[1]->transport));
		exchange_run(&x, 50 * CAD_NS_PER_MS);
		assert_non_null(nodes[0]->awaited);
		connect_unannounced(nodes[1], cad_transport_address(nodes[0]->transport));
		for (int i = 0; i < 2; i++) {
			assert_true(exchange_run_until(&x, nothing_awaited, nodes[i]));
			assert_int_equal(nodes[i]->closed_count, 0);
			assert_int_equal(cad_transport_stats(nodes[i]->transport)->protocol_errors, 0);
		}
		exchange_fini(&x);
	}
}

static void attempts_that_never_arrived(void **state)
{
	(void)state;
	static const uint32_t lost[] = { 1, 2, 5, 40, 200 };
	struct exchange x;

	exchange_init(&x, EXCHANGE_UCX);
	struct exchange_node *server = server_create(&x), *client = client_create(&x);
	struct exchange_call calls[CALLS];
	calls_create(calls, client);
	for (size_t i = 0; i < sizeof lost / sizeof lost[0]; i++) {
		cad_link_ucx_lose(
			cad_transport_link(client->transport), cad_transport_address(server->transport), lost[i]);
		exchange_run(&x, (i % 2) * 5 * CAD_NS_PER_MS);
		struct cad_connection *connection = exchange_connect(client, cad_transport_address(server->transport));
		assert_non_null(connection);
		calls_go_through(client, calls, connection);
		server->closed_count = 0;
		cad_connection_close(connection, CAD_OK, NULL);
		assert_true(exchange_run_until(&x, exchange_closed_some, server));
	}

	calls_destroy(calls);
	exchange_fini(&x);
}

/* A host that has nothing but ::1 cannot show it. */
static void over_ipv6(void **state)
{
	(void)state;
	struct ifaddrs *list;
	char host[128] = "[", *name = NULL;
	assert_int_equal(getifaddrs(&list), 0);
	for (struct ifaddrs *at = list; at && !name; at = at->ifa_next) {
		const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)(const void *)at->ifa_addr;
		if (v6 && v6->sin6_family == AF_INET6 && !(at->ifa_flags & IFF_LOOPBACK) &&
			!IN6_IS_ADDR_LINKLOCAL(&v6->sin6_addr) && (at->ifa_flags & IFF_RUNNING)) {
			inet_ntop(AF_INET6, &v6->sin6_addr, host + 1, 64);
			name = at->ifa_name;
		}
	}
	if (!name) {
		freeifaddrs(list);
		print_message("skipped: over_ipv6: no interface has an IPv6 address of a network\n");
		skip();
	}

	strcat(host, "]:0");
	struct exchange x;
	struct cad_transport_options options;
	exchange_init(&x, EXCHANGE_UCX);
	x.device = name;
	exchange_options(&options, "expert-1", true);
	struct exchange_node *server = exchange_server(&x, &options, host), *client = client_create(&x);
	assert_memory_equal(cad_transport_address(server->transport), host, strlen(host) - 1);
	struct exchange_call calls[CALLS];
	calls_create(calls, client);
	struct cad_connection *connection = exchange_connect(client, cad_transport_address(server->transport));
	assert_non_null(connection);
	calls_go_through(client, calls, connection);
	calls_destroy(calls);
	exchange_fini(&x);
	freeifaddrs(list);
}

static void listen_refused(struct exchange_node *node, const char *address, const char *words)
{
	struct cad_error error;
	assert_true(cad_transport_listen(node->transport, address, &error) < 0);
	assert_non_null(strstr(error.text, address));
	if (!strstr(error.text, words))
		fail_msg("'%s' is not in: %s", words, error.text);
}

/* A port is the first of some; a server that comes back takes one of them at once, and says so when
 * there is none. */
static void port_that_was_asked_for(void **state)
{
	(void)state;
	struct exchange x;
	struct cad_transport_options options;
	char name[CAD_ADDRESS_BYTES], host[CAD_ADDRESS_BYTES];
	unsigned first = 20000 + (unsigned)getpid() % 10000;
	exchange_init(&x, EXCHANGE_UCX);
	exchange_options(&options, "expert-1", true);
	snprintf(name, sizeof name, "127.0.0.1:%u", first);
	struct exchange_node *client = client_create(&x);
	for (int i = 0; i < 5; i++) {
		struct exchange_node *server = exchange_server(&x, &options, name);
		cad_exchange_address_host(cad_transport_address(server->transport), host);
		unsigned port = (unsigned)strtoul(strrchr(host, ':') + 1, NULL, 10);
		assert_in_range(port, first, first + CAD_UCX_PORTS - 1);
		assert_non_null(exchange_connect(client, cad_transport_address(server->transport)));
		exchange_node_destroy(server);
	}
	assert_null(getenv("UCX_TCP_PORT_RANGE"));

	int taken[CAD_UCX_PORTS];
	for (unsigned i = 0; i < CAD_UCX_PORTS; i++) {
		struct sockaddr_in at = {
			.sin_family = AF_INET,
			.sin_port = htons((uint16_t)(first + i)),
			.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
		};
		taken[i] = socket(AF_INET, SOCK_STREAM, 0);
		(void)bind(taken[i], (struct sockaddr *)&at, sizeof at); /* or the system still holds it */
	}
	struct exchange_node *node = exchange_node_create(&x, &options);
	listen_refused(node, name, "are in use");
	for (unsigned i = 0; i < CAD_UCX_PORTS; i++)
		close(taken[i]);
	must(cad_transport_listen(node->transport, "127.0.0.1:0", NULL), NULL);
	exchange_fini(&x);
}

static void addresses(void **state)
{
	(void)state;
	static const char *const wrong[] = { "", "127.0.0.1:7000", "h:1/ucx-1.13.1/0123456789abcdef/",
		"h:1/ucx-9.9.9/0123456789abcdef/AAEC" };
	struct exchange x;
	exchange_init(&x, EXCHANGE_UCX);
	struct exchange_node *client = client_create(&x);
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		struct cad_connection *connection;
		struct cad_error error;
		assert_true(cad_transport_connect(client->transport, wrong[i], NULL, &connection, &error) < 0);
		assert_non_null(strstr(error.text, i < 3 ? wrong[i] : "ucx-9.9.9"));
	}

	exchange_fini(&x);
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
	struct exchange_node *node = exchange_node_create(&x, &options);
	listen_refused(node, "127.0.0.2:0", "that of 'lo' is 127.0.0.1");
	listen_refused(node, "[::1]:0", "UCX does not use");
	listen_refused(node, "[2001:db8::9]:7000", "lo 127.0.0.1");
	listen_refused(node, "no.such.host.invalid:7000", "is not an address");
	listen_refused(node, "203.0.113.9:7000", "lo 127.0.0.1"); /* an address of documentation: nobody has it */
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
	if (argc == 4 && strcmp(argv[1], "--cross") == 0)
		peer_cross(argv[2], argv[3]);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(strangers_are_not_answered),
		cmocka_unit_test(foreign_bytes),
		cmocka_unit_test(announced_after_it_knocked),
		cmocka_unit_test(both_knock),
		cmocka_unit_test(address_of_a_worker_before),
		cmocka_unit_test(attempts_that_never_arrived),
		cmocka_unit_test(over_ipv6),
		cmocka_unit_test(port_that_was_asked_for),
		cmocka_unit_test(addresses),
		cmocka_unit_test(listen_addresses),
		{ "tcp/server_killed", server_killed, NULL, NULL, "tcp" },
		{ "tcp/server_stopped", server_stopped, NULL, NULL, "tcp" },
		{ "tcp/clients_killed", clients_killed, NULL, NULL, "tcp" },
		{ "tcp/crossed_and_killed", crossed_and_killed, NULL, NULL, "tcp" },
		{ "tcp/worker_made_anew", worker_made_anew, NULL, NULL, "tcp" },
		{ "shm/server_killed", server_killed, NULL, NULL, "shm" },
		{ "shm/server_killed_while_it_writes", server_killed_while_it_writes, NULL, NULL, "shm" },
		{ "shm/server_stopped", server_stopped, NULL, NULL, "shm" },
		{ "shm/clients_killed", clients_killed, NULL, NULL, "shm" },
		{ "shm/worker_made_anew", worker_made_anew, NULL, NULL, "shm" },
	};
	return cmocka_run_group_tests_name("transport_ucx", tests, NULL, NULL);
}
