/* SPDX-License-Identifier: Apache-2.0 */
/* What services share: the sentences of wrong options, and a service that starts, is asked over
 * HTTP, takes a signal and ends. */
#include "common/process/service.h"

#include "common/base/address.h"
#include "tests/support/file_write.h"
#include "tests/support/must.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <netinet/in.h>

#include <cmocka.h>

/* ---- options ---- */

/* A service with every group, one that nobody is a member of, and one that only is a member. */
struct options {
	struct cad_service_options service;
	uint32_t other;
};
static const struct cad_option full_table[] = {
	CAD_SERVICE_OPTIONS(struct options, service, "", ""),
	CAD_SERVICE_GRPC_OPTIONS(struct options, service, ":7100"),
	CAD_SERVICE_TLS_OPTIONS(struct options, service, "", ""),
	CAD_SERVICE_ACCESS_OPTIONS(struct options, service),
	CAD_SERVICE_MEMBER_OPTIONS(struct options, service, ""),
	CAD_SERVICE_PLACEMENT_TLS_OPTIONS(struct options, service),
	CAD_OPTION_U32(struct options, other, "other", "7", 0, 9, "of its own"),
};
static const struct cad_option open_table[] = {
	CAD_SERVICE_OPTIONS(struct options, service, "", ""),
	CAD_SERVICE_GRPC_OPTIONS(struct options, service, ":7300"),
	CAD_SERVICE_TLS_OPTIONS(struct options, service, "", ""),
};
static const struct cad_option member_table[] = {
	CAD_SERVICE_OPTIONS(struct options, service, "", ""),
	CAD_SERVICE_TLS_OPTIONS(struct options, service, "", ""),
	CAD_SERVICE_MEMBER_OPTIONS(struct options, service, NULL),
};

static enum cad_status check(const void *values, struct cad_error *error)
{
	struct cad_service_addresses ignored;
	return cad_service_check(&((const struct options *)values)->service, &ignored, error);
}

static const struct cad_options_spec full = {
	.program = "full",
	.table = full_table,
	.count = sizeof full_table / sizeof full_table[0],
	.check = check,
};
static const struct cad_options_spec open_to_all = {
	.program = "open",
	.table = open_table,
	.count = sizeof open_table / sizeof open_table[0],
	.check = check,
};

static const struct cad_options_spec member = {
	.program = "member",
	.table = member_table,
	.count = sizeof member_table / sizeof member_table[0],
	.check = check,
};

static void options_have_their_defaults(void **state)
{
	(void)state;
	char *argv[] = { (char *)"full", (char *)"--model=m" };
	struct options options;
	struct cad_options *parsed;
	enum cad_options_action action;
	struct cad_error error;

	must(cad_options_parse(&full, 2, argv, &options, &parsed, &action, &error), &error);
	assert_string_equal(options.service.model, "m");
	assert_string_equal(options.service.grpc, ":7100");
	assert_string_equal(options.service.secret_file, "");
	assert_int_equal(options.service.drain_ns, 10 * CAD_NS_PER_S);
	assert_int_equal(options.service.log_level, CAD_LOG_INFO);
	assert_int_equal(options.other, 7);
	cad_options_destroy(parsed);
}

static void wrong_options_get_sentences(void **state)
{
	(void)state;
	static const struct {
		const struct cad_options_spec *spec;
		const char *flags[3], *says;
	} cases[] = {
		{ &full, { "--grpc=7100" }, "--grpc: '7100' is not an address: give HOST:PORT" },
		{ &full, { "--grpc=0.0.0.0:1" }, "--grpc 0.0.0.0:1 is not a loopback address: give --tls-certificate" },
		{ &full, { "--grpc=0.0.0.0:1", "--grpc-plaintext-anywhere" }, NULL },
		{ &full, { "--tls-key=k" }, "give both --tls-certificate and --tls-key, or neither" },
		{ &full, { "--tls-certificate=c" }, "give both --tls-certificate and --tls-key, or neither" },
		{ &full, { "--tls-certificate=c", "--tls-key=k" }, NULL },
		{ &full, { "--tls-authority=a" }, "--tls-authority asks clients for certificates, which needs TLS" },
		{ &full, { "--tls-authority=a", "--grpc-plaintext-anywhere" }, "which needs TLS" },
		{ &full, { "--tls-clients=optional" }, "give both --tls-authority and --token-file" },
		{ &full, { "--placement=p:1", "--placement-tls-key=k" },
			"give both --placement-tls-certificate and --placement-tls-key, or neither" },
		{ &full, { "--placement=p:1", "--placement-tls-key=k", "--placement-tls-certificate=c" },
			"--placement-tls-certificate is shown to the placement service over TLS, which --placement-tls-authority turns on" },
		{ &full, { "--placement=p:1", "--placement-tls-authority=a" }, NULL },
		{ &full, { "--placement=p:1", "--tls-certificate=c", "--tls-key=k" }, NULL },
		{ &member, { "--placement=p:1", "--tls-key=k" }, "give both --tls-certificate and --tls-key" },
		{ &member, { "--placement=p:1", "--tls-certificate=c", "--tls-key=k" },
			"--tls-certificate is shown to the placement service over TLS, which --tls-authority turns on" },
		{ &member, { "--placement=p:1", "--tls-authority=a" }, NULL },
		{ &open_to_all, { "--tls-authority=a" }, "which needs TLS" },
		{ &full, { "--id=a b" }, "--id is 'a b'; a node's name has at most 63 letters" },
		{ &full, { "--id=a.b:c-1" }, NULL },
		{ &full, { "--placement=here" }, "--placement: 'here' is not an address: give HOST:PORT" },
		{ &full, { "--placement=here:1" }, NULL },
		{ &full, { "--placement=here:0" },
			"--placement 'here:0': nobody is found at port 0; give the port of the placement service's --grpc" },
		{ &full, { "--placement=here:1", "--http=7101" }, "--http: '7101' is not an address: give HOST:PORT" },
		{ &full, { "--placement=here:1", "--http=:80" }, NULL },
		{ &full, { "--grpc=" }, "--grpc is empty" },
		{ &full, { "--grpc=:" }, "--grpc: ':' is not an address: give HOST:PORT" },
		{ &full, { "--grpc=:99999" }, "--grpc: ':99999' is not an address: a port is a number from 0 to" },
		{ &full, { "--grpc=::1:7100" },
			"--grpc: '::1:7100' is not an address: an IPv6 address needs brackets: write [::1]:7100" },
		{ &full, { "--http=:" }, "--http: ':' is not an address: give HOST:PORT" },
		{ &full, { "--http=:99999" }, "--http: ':99999' is not" },
		{ &full, { "--placement=a b:7300" }, "--placement: 'a b:7300' is not an address: a host has" },
		{ &full, { "--cluster-network=lo:" }, "--cluster-network: 'lo:': there is no such interface" },
		{ &full, { "--http=0.0.0.0:1" },
			"--http 0.0.0.0:1 is not a loopback address: add --http-plaintext-anywhere" },
		{ &full, { "--http=[::]:1" }, "--http [::]:1 is not a loopback address" },
		{ &full, { "--http=0.0.0.0:1", "--grpc-plaintext-anywhere" }, "add --http-plaintext-anywhere" },
		{ &full, { "--http=0.0.0.0:1", "--http-plaintext-anywhere" }, NULL },
		{ &full, { "--http=[::1]:1" }, NULL },
		{ &full, { "--cluster-network=lo", "--grpc=:80" }, NULL },
		{ &full, { "--cluster-network=10.0.0.0/40" }, "--cluster-network: '10.0.0.0/40': the BITS of" },
		{ &open_to_all, { "--cluster-network=no" },
			"--cluster-network: 'no': there is no such interface; the" },
		{ &full, { "--drain=2h" }, "--drain is 2h, which is out of range: 0 to 1h" },
		{ &open_to_all, { "--grpc=0.0.0.0:1" },
			"is not a loopback address: give --tls-certificate and --tls-key, or allow plaintext" },
		{ &open_to_all, { "--grpc=0.0.0.0:1", "--grpc-plaintext-anywhere" }, NULL },
		{ &open_to_all, { "--grpc=[::1]:1" }, NULL },
		{ &open_to_all, { "--id=a" }, "there is no option --id" },
	};

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		char *argv[5] = { (char *)"x", (char *)"--model=m" };
		int argc = 2;
		for (int flag = 0; flag < 3 && cases[i].flags[flag]; flag++)
			argv[argc++] = (char *)(uintptr_t)cases[i].flags[flag];
		struct options options = { .other = 0 };
		struct cad_options *parsed = NULL;
		enum cad_options_action action;
		struct cad_error error = { .text = "" };
		enum cad_status status =
			cad_options_parse(cases[i].spec, argc, argv, &options, &parsed, &action, &error);
		assert_int_equal(status == CAD_OK, cases[i].says == NULL);
		if (cases[i].says && !strstr(error.text, cases[i].says))
			fail_msg("'%s' does not say '%s'", error.text, cases[i].says);
		cad_options_destroy(parsed);
	}
}

static void hosts_come_from_the_network(void **state)
{
	(void)state;
	static const struct {
		const struct cad_options_spec *spec;
		const char *flags[2], *grpc, *http, *exchange;
	} cases[] = {
		{ &full, { "--other=1" }, "127.0.0.1:7100", "127.0.0.1:0", "" },
		{ &full, { "--exchange=:7" }, "127.0.0.1:7100", "127.0.0.1:0", "127.0.0.1:7" },
		{ &full, { "--cluster-network=lo" }, "127.0.0.1:7100", "127.0.0.1:7401", "127.0.0.1:7420" },
		{ &full, { "--cluster-network=127.0.0.0/8", "--http=127.0.0.2:1" }, "127.0.0.1:7100", "127.0.0.2:1",
			"127.0.0.1:7420" },
		{ &open_to_all, { "--cluster-network=lo", "--grpc=[::1]:1" }, "[::1]:1", "127.0.0.1:7401",
			"127.0.0.1:7420" },
	};

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		char *argv[] = { (char *)"x", (char *)"--model=m", (char *)(uintptr_t)cases[i].flags[0],
			(char *)(uintptr_t)cases[i].flags[1] };
		struct options options = { .other = 0 };
		struct cad_options *parsed;
		enum cad_options_action action;
		struct cad_service_addresses at;
		struct cad_error error;
		must(cad_options_parse(
			     cases[i].spec, cases[i].flags[1] ? 4 : 3, argv, &options, &parsed, &action, &error),
			&error);
		must(cad_service_addresses(&options.service, &at, &error), &error);
		assert_string_equal(at.grpc, cases[i].grpc);
		assert_string_equal(at.http, cases[i].http);
		assert_string_equal(at.exchange, cases[i].exchange);
		cad_options_destroy(parsed);
	}
}

/* ---- running ---- */

static bool ready(void *context, char *text, size_t bytes)
{
	snprintf(text, bytes, "%s", *(bool *)context ? "by now" : "not yet");
	return *(bool *)context;
}

/* The whole answer to a request, which must have that code; valid until the next. */
static const char *answer_of(const char *at, const char *path, const char *code)
{
	static char text[1024];
	char request[128];
	size_t size = 0;
	struct cad_address address;
	struct cad_error error;
	must(cad_address_parse(at, &address, &error), &error);
	const struct sockaddr_in to = {
		.sin_family = AF_INET,
		.sin_port = htons(address.port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	int length = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	assert_int_equal(connect(fd, (const struct sockaddr *)&to, sizeof to), 0);
	assert_int_equal(write(fd, request, (size_t)length), length);
	for (ssize_t got = 1; got > 0; size += (size_t)got) {
		got = recv(fd, text + size, sizeof text - 1 - size, 0);
		assert_true(got >= 0);
	}
	text[size] = 0;
	close(fd);
	assert_true(size > 12);
	if (strncmp(text + 9, code, 3) != 0)
		fail_msg("%s: %s is not %s", path, text, code);
	return text;
}

/* And it must say so. */
static void ask(const char *at, const char *path, const char *code, const char *says)
{
	const char *text = answer_of(at, path, code);

	if (!strstr(text, says))
		fail_msg("%s: %s is not '%s'", path, text, says);
}

static void on_signal(void *context, int number)
{
	struct cad_service *service = context;
	assert_int_equal(number, SIGTERM);
	cad_service_unwatch(service);
	cad_service_unwatch(service);
}

static void starts_and_ends(void **state)
{
	(void)state;
	char path[] = "/tmp/cadre-service-XXXXXX";
	int fd = mkstemp(path);
	assert_int_equal(write(fd, "0123456789abcdef\n", 17), 17);
	close(fd);
	const struct cad_service_options options = {
		.model = "m",
		.http = "127.0.0.1:0",
		.id = "",
		.secret_file = path,
		.token_file = "",
	};
	static struct cad_service service;
	struct cad_error error;
	bool is_ready = false;

	must(cad_service_init(&service, "test", &options, NULL, &error), &error);
	unlink(path);
	assert_true(cad_process_name_is_legal(service.id));
	assert_string_equal(service.secret, "0123456789abcdef");
	assert_int_equal(service.bearers.count, 0);
	const struct cad_service_health health = { .ready = ready, .context = &is_ready };
	must(cad_service_http(&service, &health, &error), &error);
	ask(cad_admin_address(service.admin), "/readyz", "503", "\r\nnot yet\n");
	is_ready = true;
	ask(cad_admin_address(service.admin), "/readyz", "200", "\r\nby now\n");

	must(cad_service_watch(&service, on_signal, &service, &error), &error);
	assert_false(cad_service_interrupted(NULL));
	kill(getpid(), SIGTERM);
	assert_true(cad_service_interrupted(NULL));
	uv_run(&service.loop, UV_RUN_DEFAULT); /* until the watch is closed */
	assert_false(cad_service_interrupted(NULL));
	cad_service_fini(&service);
}

/* ---- a loop that hangs ---- */

enum { STUCK_MS = 1000 };

static void sleep_ms(unsigned ms)
{
	(void)nanosleep(&(struct timespec){ .tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000 }, NULL);
}

static bool is_well(void *context, char *text, size_t bytes)
{
	bool well = *(bool *)context;
	if (!well)
		snprintf(text, bytes, "its own trouble");
	return well;
}

static void hang(uv_timer_t *timer)
{
	const struct cad_service *service = timer->data;
	const char *at = cad_admin_address(service->admin);

	ask(at, "/healthz", "200", "\r\nok\n");
	sleep_ms(STUCK_MS + 100);
	const char *text = answer_of(at, "/healthz", "503"),
		   *says = strstr(text, "\r\nthe event loop has done nothing for ");
	unsigned seconds = 0;
	int end = 0;
	assert_non_null(says);
	assert_int_equal(sscanf(says, " the event loop has done nothing for %u s%n", &seconds, &end), 1);
	assert_string_equal(says + end, "\n");
	assert_in_range(seconds, 1, 60); /* 1, unless this thread had to wait for a core */
	uv_close((uv_handle_t *)timer, NULL);
}

static void after_that(uv_timer_t *timer)
{
	struct cad_service *service = timer->data;
	const char *at = cad_admin_address(service->admin);
	bool *well = service->health.context;

	ask(at, "/healthz", "200", "\r\nok\n");
	*well = false; /* what the program says of itself still counts */
	ask(at, "/healthz", "503", "\r\nits own trouble\n");
	*well = true;
	uv_close((uv_handle_t *)timer, NULL);
	cad_service_unwatch(service);
}

static void a_loop_that_hangs_is_told(void **state)
{
	(void)state;
	const struct cad_service_options options = { .http = "127.0.0.1:0", .id = "a" };
	static struct cad_service service;
	static bool well = true;
	struct cad_error error;
	uv_timer_t hanging, later;

	must(cad_service_init(&service, "test", &options, NULL, &error), &error);
	assert_int_equal(service.stuck_ms, 10000);
	service.stuck_ms = STUCK_MS;
	const struct cad_service_health health = { .healthy = is_well, .context = &well };
	must(cad_service_http(&service, &health, &error), &error);
	must(cad_service_watch(&service, on_signal, &service, &error), &error);
	sleep_ms(STUCK_MS + 100); /* a start that takes long is no hanging */
	ask(cad_admin_address(service.admin), "/healthz", "200", "\r\nok\n");

	uv_update_time(&service.loop);
	uv_timer_init(&service.loop, &hanging);
	uv_timer_init(&service.loop, &later);
	hanging.data = later.data = &service;
	uv_timer_start(&hanging, hang, 0, 0);
	uv_timer_start(&later, after_that, STUCK_MS + 300, 0); /* behind the next beat */
	uv_run(&service.loop, UV_RUN_DEFAULT);
	sleep_ms(STUCK_MS + 100);
	ask(cad_admin_address(service.admin), "/healthz", "200", "\r\nok\n");
	cad_service_fini(&service);
}

/* ---- SIGHUP ---- */

static bool others_are_well;
static unsigned others_read, others_warned;

static bool reread_others(void)
{
	others_read++;
	return others_are_well;
}

static void warn_others(void) { others_warned++; }
static int64_t others_expire(void) { return 1234567890; }
static const struct cad_service_tls others = { reread_others, warn_others, others_expire };

/* SIGHUP, and how it went by the metrics: "ok" or "failed". */
static void hang_up(struct cad_service *service, const char *result, unsigned count)
{
	char line[64], *page;
	size_t bytes;
	struct cad_error error = { .text = "rendering failed" };

	kill(getpid(), SIGHUP);
	assert_false(cad_service_interrupted(NULL)); /* nothing that waits is to end */
	uv_run(&service->loop, UV_RUN_ONCE);
	must(cad_metrics_render(service->metrics, &page, &bytes), &error);
	assert_non_null(strstr(page, "cadre_tls_certificate_expires_seconds 1234567890\n"));
	snprintf(line, sizeof line, "cadre_rereads_total{result=\"%s\"} %u\n", result, count);
	if (!strstr(page, line))
		fail_msg("there is no %s", line);
	free(page);
}

static void sighup_reads_again(void **state)
{
	(void)state;
	char folder[] = "/tmp/cadre-service-XXXXXX", config[64], tokens[64];
	snprintf(config, sizeof config, "%s/config", mkdtemp(folder));
	snprintf(tokens, sizeof tokens, "%s/tokens", folder);
	file_write(config, "log-level: warn\ndrain: 3s\n");
	file_write(tokens, "0123456789abcdef\n");
	chmod(tokens, 0600);
	char *argv[] = { (char *)"full", (char *)"--model=m", (char *)"--config", config, (char *)"--token-file",
		tokens, (char *)"--placement-token-file", tokens };
	struct options options;
	struct cad_options *parsed;
	enum cad_options_action action;
	struct cad_error error;
	static struct cad_service service;

	must(cad_options_parse(&full, 8, argv, &options, &parsed, &action, &error), &error);
	cad_service_log(&options);
	must(cad_service_init(&service, "test", &options.service, parsed, &error), &error);
	service.tls = &others;
	others_are_well = true;
	must(cad_service_watch(&service, on_signal, &service, &error), &error);

	/* all of it; what is only read at the start is not taken over */
	file_write(config, "log-level: debug\ndrain: 4s\n");
	file_write(tokens, "0123456789abcdef\nfedcba9876543210 inspect b\n");
	hang_up(&service, "ok", 1);
	assert_true(cad_log_enabled(CAD_LOG_DEBUG));
	assert_int_equal(service.bearers.count, 2);
	assert_int_equal(options.service.drain_ns, 3 * CAD_NS_PER_S);
	assert_int_equal(others_read, 1);
	assert_string_equal(service.placement.bearer, "Bearer 0123456789abcdef");
	assert_int_equal(others_warned, 1);

	/* the one is damaged, the other read all the same */
	file_write(config, "log-level: error\n");
	file_write(tokens, "short\n");
	hang_up(&service, "failed", 1);
	assert_string_equal(service.placement.bearer, "Bearer 0123456789abcdef");
	assert_false(cad_log_enabled(CAD_LOG_WARN));
	assert_int_equal(service.bearers.count, 2);
	file_write(config, "log-level: loud\n");
	file_write(tokens, "another-0123456789\n");
	hang_up(&service, "failed", 2);
	assert_string_equal(service.placement.bearer, "Bearer another-0123456789");
	assert_false(cad_log_enabled(CAD_LOG_WARN));
	assert_int_equal(service.bearers.count, 1);
	unlink(config);
	hang_up(&service, "failed", 3);

	/* pipes, which nobody writes to: they would be waited for, and nothing else done */
	assert_int_equal(mkfifo(config, 0600), 0);
	unlink(tokens);
	assert_int_equal(mkfifo(tokens, 0600), 0);
	alarm(10);
	hang_up(&service, "failed", 4);
	alarm(0);
	assert_int_equal(service.bearers.count, 1);
	unlink(config);
	unlink(tokens);
	file_write(tokens, "0123456789abcdef\n");

	/* back to how it was at the start */
	file_write(config, "log-level: warn\n");
	others_are_well = false;
	hang_up(&service, "failed", 5);
	assert_true(cad_log_enabled(CAD_LOG_WARN));
	assert_false(cad_log_enabled(CAD_LOG_INFO));
	others_are_well = true;
	hang_up(&service, "ok", 2);
	assert_int_equal(others_read, 7);

	cad_service_unwatch(&service);
	cad_service_fini(&service);
	cad_options_destroy(parsed);
	cad_log_setup(CAD_LOG_INFO, CAD_LOG_LOGFMT);
	unlink(config);
	unlink(tokens);
	rmdir(folder);
}

static void a_secret_that_is_not_there_is_told(void **state)
{
	(void)state;
	const struct cad_service_options options = { .http = "127.0.0.1:0", .id = "a", .secret_file = "/nonexistent" };
	static struct cad_service service;
	struct cad_error error;

	assert_int_equal(cad_service_init(&service, "test", &options, NULL, &error), CAD_ERR_IO);
	assert_non_null(strstr(error.text, "cannot open the cluster secret '/nonexistent'"));
	assert_string_equal(service.id, "a");
	assert_int_equal(cad_service_failed(&service, &error), 1);
	error.status = CAD_ERR_CANCELLED;
	assert_int_equal(cad_service_failed(&service, &error), 0);
	cad_service_fini(&service);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(options_have_their_defaults),
		cmocka_unit_test(wrong_options_get_sentences),
		cmocka_unit_test(hosts_come_from_the_network),
		cmocka_unit_test(starts_and_ends),
		cmocka_unit_test(a_loop_that_hangs_is_told),
		cmocka_unit_test(sighup_reads_again),
		cmocka_unit_test(a_secret_that_is_not_there_is_told),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
