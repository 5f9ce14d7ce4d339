/* SPDX-License-Identifier: Apache-2.0 */
/* TLS: who trusts whom, and files that change, well and badly, while a server runs. */
#include "cadre/v1/inference.pb-c.h"
#include "common/base/log.h"
#include "common/rpc/tls.h"
#include "tests/support/log_pipe.h"
#include "tests/support/must.h"
#include "tests/support/rpc_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define TOKENIZE "/cadre.v1.Inference/Tokenize"

/* ---- a service ---- */

/* Says who the client is. */
static void tokenize(struct cad_rpc_call *call, const ProtobufCMessage *message)
{
	(void)message;
	char name[64];
	bool known = cad_rpc_call_peer_property(call, "x509_common_name", name, sizeof name);
	cad_rpc_call_finish(call, CAD_RPC_ABORTED, "%s", known ? name : "nobody");
}

/* Says nothing; the client ends it. */
static void hold(struct cad_rpc_call *call, const ProtobufCMessage *message)
{
	(void)message;
	(void)cad_rpc_call_send(call, &(Cadre__V1__GenerateResponse)CADRE__V1__GENERATE_RESPONSE__INIT.base);
}

static const struct cad_rpc_method methods[] = {
	{ "Generate", CAD_RPC_SERVER_STREAM, { .message = hold }, CAD_RIGHT_READ },
	{ "Tokenize", CAD_RPC_UNARY, { .message = tokenize }, CAD_RIGHT_READ },
	{ "Detokenize", CAD_RPC_UNARY, { .message = tokenize }, CAD_RIGHT_READ },
	{ "GetModel", CAD_RPC_UNARY, { .message = tokenize }, CAD_RIGHT_READ },
};
static const struct cad_rpc_service service = { &cadre__v1__inference__descriptor, methods, 4, NULL };

static void tokenize_call(struct rpc_fixture *rpc, const char *text, struct rpc_result *result)
{
	Cadre__V1__TokenizeRequest request = CADRE__V1__TOKENIZE_REQUEST__INIT;
	request.text = (char *)(uintptr_t)text;
	rpc_call(rpc, TOKENIZE, &request.base, &cadre__v1__tokenize_response__descriptor, NULL, result);
}

/* ---- certificates ---- */

static char folder[] = "/tmp/cadre-tls-XXXXXX";

static void run(const char *format, ...)
{
	char command[2000];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(command, sizeof command, format, arguments);
	va_end(arguments);
	if (system(command) != 0)
		fail_msg("%s", command);
}

static void certificate_make_for(const char *name, const char *authority, int days)
{
	run("cd %s && openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout %s.key -out %s.csr -subj /CN=%s 2>/dev/null",
		folder, name, name, name);
	run("cd %s && printf 'subjectAltName=DNS:%s' > %s.ext && openssl x509 -req -in %s.csr -CA %s.pem -CAkey %s.key -CAcreateserial -days %d -extfile %s.ext -out %s.pem 2>/dev/null",
		folder, name, name, name, authority, authority, days, name, name);
}

static void certificate_make(const char *name, const char *authority) { certificate_make_for(name, authority, 2); }

static void authority_make(const char *name)
{
	run("cd %s && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout %s.key -out %s.pem -days 2 -subj /CN=%s 2>/dev/null",
		folder, name, name, name);
}

/* ---- servers and clients ---- */

struct tls_files {
	char certificate[128], key[128], authority[128];
	struct cad_tls_files tls;
};

static void tls_files(struct tls_files *files, const char *name, const char *authority)
{
	memset(files, 0, sizeof *files);
	snprintf(files->authority, sizeof files->authority, "%s/%s.pem", folder, authority);
	files->tls.authority = files->authority;
	if (!name)
		return;
	snprintf(files->certificate, sizeof files->certificate, "%s/%s.pem", folder, name);
	snprintf(files->key, sizeof files->key, "%s/%s.key", folder, name);
	files->tls.certificate = files->certificate;
	files->tls.key = files->key;
}

static void tls_call(bool mutual, const char *name, const char *authority, enum cad_rpc_code code, const char *text)
{
	struct rpc_fixture rpc;
	struct tls_files server, client;

	tls_files(&server, "server", "ca");
	if (!mutual)
		server.tls.authority = NULL;
	tls_files(&client, name, authority);
	rpc_fixture_open(&rpc, NULL);
	cad_rpc_server_add(rpc.server, &service);
	rpc_fixture_start(&rpc, &server.tls, &client.tls,
		&(struct cad_rpc_channel_config){
			.server_name = "server",
			.own_connection = true,
		});
	struct rpc_result result = { 0 };
	tokenize_call(&rpc, "who", &result);
	assert_int_equal(result.code, code);
	if (text)
		assert_string_equal(result.text, text);
	rpc_fixture_close(&rpc);
}

static void tls(void **state)
{
	(void)state;
	tls_call(false, NULL, "ca", CAD_RPC_ABORTED, "nobody");

	/* the client does not trust the server */
	tls_call(false, NULL, "stranger", CAD_RPC_UNAVAILABLE, NULL);
	tls_call(true, "alice", "ca", CAD_RPC_ABORTED, "alice");
	tls_call(true, NULL, "ca", CAD_RPC_UNAVAILABLE, NULL);
	tls_call(true, "mallory", "ca", CAD_RPC_UNAVAILABLE, NULL);

	/* a server that takes up new files: first a stranger's, then its own */
	struct rpc_fixture rpc;
	struct tls_files server, client;
	tls_files(&server, "live", "ca");
	server.tls.authority = NULL;
	tls_files(&client, NULL, "ca");
	run("cd %s && cp mallory.pem live.pem && cp mallory.key live.key && touch -d '2 hours ago' live.pem live.key",
		folder);
	rpc_fixture_open(&rpc, NULL);
	cad_rpc_server_add(rpc.server, &service);
	rpc_fixture_start(&rpc, &server.tls, &client.tls,
		&(struct cad_rpc_channel_config){
			.server_name = "server",
			.own_connection = true,
			.backoff_ms_max = 50,
			.wait_for_ready = true,
		});
	struct rpc_result result = { 0 };
	Cadre__V1__TokenizeRequest request = CADRE__V1__TOKENIZE_REQUEST__INIT;
	request.text = (char[]){ "who" };
	rpc_call(&rpc, TOKENIZE, &request.base, &cadre__v1__tokenize_response__descriptor,
		&(struct cad_rpc_call_options){
			.timeout_ms = 100,
		},
		&result);
	assert_int_equal(result.code, CAD_RPC_DEADLINE_EXCEEDED);
	run("cd %s && cp server.pem live.pem && cp server.key live.key", folder);
	result = (struct rpc_result){ 0 };
	tokenize_call(&rpc, "who", &result); /* waits until a handshake succeeds */
	assert_int_equal(result.code, CAD_RPC_ABORTED);
	rpc_fixture_close(&rpc);
}

/* ---- files that change while a server runs ---- */

struct live {
	struct rpc_fixture rpc;
	struct tls_files files;
};

/* A server whose files are copies of another's. */
static void live_open(struct live *live, const char *name)
{
	struct tls_files client;

	run("cd %s && cp %s.pem live.pem && cp %s.key live.key", folder, name, name);
	tls_files(&live->files, "live", "ca");
	live->files.tls.authority = NULL;
	tls_files(&client, NULL, "ca");
	rpc_fixture_open(&live->rpc, NULL);
	cad_rpc_server_add(live->rpc.server, &service);
	rpc_fixture_start(&live->rpc, &live->files.tls, &client.tls, NULL);
}

/* Whether it shows a certificate for `name` to a new connection. */
static bool shows(struct live *live, const char *name, const char *authority)
{
	struct tls_files client;
	struct rpc_result result = { 0 };

	tls_files(&client, NULL, authority);
	cad_rpc_channel_destroy(live->rpc.channel);
	rpc_fixture_connect(&live->rpc, live->rpc.port, &client.tls,
		&(struct cad_rpc_channel_config){ .server_name = name, .own_connection = true });
	tokenize_call(&live->rpc, "", &result);
	assert_true(result.code == CAD_RPC_ABORTED || result.code == CAD_RPC_UNAVAILABLE);
	return result.code == CAD_RPC_ABORTED;
}

static void new_files_are_taken_up(void **state)
{
	(void)state;
	struct live live;

	live_open(&live, "server");
	assert_true(shows(&live, "server", "ca"));
	assert_true(cad_rpc_service_tls.reread());
	assert_true(shows(&live, "server", "ca"));

	/* by themselves, and when told */
	run("cd %s && cat mallory.pem > live.pem && cat mallory.key > live.key", folder);
	assert_true(shows(&live, "mallory", "stranger"));
	run("cd %s && cp server.pem live.pem && cp server.key live.key", folder);
	assert_true(cad_rpc_service_tls.reread());
	assert_true(shows(&live, "server", "ca"));
	assert_false(shows(&live, "mallory", "stranger"));
	rpc_fixture_close(&live.rpc);
}

static void damaged_files_leave_the_old_ones(void **state)
{
	(void)state;
	static const char *const damage[] = {
		"head -c 100 server.pem > live.pem", "cp mallory.pem live.pem", /* not yet its key */
		"cp mallory.key live.key", ": > live.key", "rm live.pem", "mv live.pem old.pem && mkdir live.pem",
		"rm live.key && mkfifo live.key", /* opening it would wait for a writer */
	};
	struct live live;

	for (size_t i = 0; i < sizeof damage / sizeof damage[0]; i++) {
		live_open(&live, "server");
		assert_true(shows(&live, "server", "ca"));
		run("cd %s && %s", folder, damage[i]);
		assert_true(shows(&live, "server", "ca"));
		assert_false(cad_rpc_service_tls.reread());
		assert_true(shows(&live, "server", "ca"));

		/* and then the others are whole */
		run("cd %s && rm -rf live.pem live.key && cp mallory.pem live.pem && cp mallory.key live.key", folder);
		assert_true(shows(&live, "mallory", "stranger"));
		assert_true(cad_rpc_service_tls.reread());
		rpc_fixture_close(&live.rpc);
	}
}

/* Who the server says that it is. */
static void assert_known_as(struct rpc_fixture *rpc, const char *name)
{
	struct rpc_result result = { 0 };
	tokenize_call(rpc, "", &result);
	assert_int_equal(result.code, CAD_RPC_ABORTED);
	assert_string_equal(result.text, name);
}

static void a_channel_takes_up_new_files(void **state)
{
	(void)state;
	struct rpc_fixture rpc;
	struct tls_files server, client;

	run("cd %s && cp alice.pem own.pem && cp alice.key own.key && cp ca.pem trusted.pem", folder);
	tls_files(&server, "server", "ca");
	tls_files(&client, "own", "trusted");
	rpc_fixture_open(&rpc, NULL);
	cad_rpc_server_add(rpc.server, &service);
	rpc_fixture_start(&rpc, &server.tls, &client.tls,
		&(struct cad_rpc_channel_config){ .server_name = "server", .own_connection = true });
	assert_known_as(&rpc, "alice");

	/* half of a pair, then the whole */
	run("cd %s && cp server.pem own.pem", folder);
	assert_known_as(&rpc, "alice");
	assert_false(cad_rpc_service_tls.reread());
	run("cd %s && cp server.key own.key", folder);
	assert_known_as(&rpc, "server");
	assert_true(cad_rpc_service_tls.reread());

	/* not while a call runs, which would go on over another connection than the next one */
	Cadre__V1__GenerateRequest request = CADRE__V1__GENERATE_REQUEST__INIT;
	struct rpc_result held = { .read_max = 1 };
	rpc_start(&rpc, "/cadre.v1.Inference/Generate", &request.base, &cadre__v1__generate_response__descriptor, NULL,
		&held);
	run("cd %s && cp alice.pem own.pem && cp alice.key own.key", folder);
	assert_known_as(&rpc, "server");
	cad_rpc_client_cancel(held.call);
	rpc_run_until(&rpc, &held.done);
	assert_known_as(&rpc, "alice");

	/* another authority, which has not signed the server's certificate */
	run("cd %s && cp stranger.pem trusted.pem", folder);
	struct rpc_result result = { 0 };
	tokenize_call(&rpc, "", &result);
	assert_int_equal(result.code, CAD_RPC_UNAVAILABLE);
	assert_non_null(strstr(result.text, "the server's certificate is not from an authority that is trusted here"));
	rpc_fixture_close(&rpc);
}

static void who_is_optional_may_be_nobody(void **state)
{
	(void)state;
	static const struct {
		const char *name, *text;
	} cases[] = { { "alice", "alice" }, { NULL, "nobody" }, { "mallory", NULL } };

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct rpc_fixture rpc;
		struct tls_files server, client;
		struct rpc_result result = { 0 };
		tls_files(&server, "server", "ca");
		server.tls.clients_optional = true;
		tls_files(&client, cases[i].name, "ca");
		rpc_fixture_open(&rpc, NULL);
		cad_rpc_server_add(rpc.server, &service);
		rpc_fixture_start(&rpc, &server.tls, &client.tls,
			&(struct cad_rpc_channel_config){ .server_name = "server", .own_connection = true });
		tokenize_call(&rpc, "", &result);
		assert_int_equal(result.code, cases[i].text ? CAD_RPC_ABORTED : CAD_RPC_UNAVAILABLE);
		if (cases[i].text)
			assert_string_equal(result.text, cases[i].text);
		rpc_fixture_close(&rpc);
	}
}

static void ends_are_known(void **state)
{
	(void)state;
	enum { DAY_S = 24 * 3600 };
	static const struct {
		int days, close_days;
	} cases[] = { { 2, 0 }, { 10, 2 }, { 365, 14 } };
	struct tls_files files;
	struct cad_tls_pem pem;
	struct cad_error error;

	tls_files(&files, "timed", "ca");
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		certificate_make_for("timed", "ca", cases[i].days);
		/* the first of a chain that ends */
		run("cd %s && openssl req -x509 -key ca.key -days 900 -subj /CN=long >> timed.pem 2>/dev/null", folder);
		must(cad_tls_pem_read(&files.tls, &pem, &error), &error);
		int64_t left_s = pem.expires_s - (int64_t)time(NULL);
		assert_in_range(left_s, cases[i].days * DAY_S - 60, cases[i].days * DAY_S);
		int64_t close_s = cases[i].close_days ? cases[i].close_days * DAY_S : cases[i].days * DAY_S / 5;
		assert_int_equal(pem.expires_s - pem.close_s, close_s);
		cad_tls_pem_fini(&pem);
	}

	certificate_make_for("timed", "ca", -1);
	assert_int_equal(cad_tls_pem_read(&files.tls, &pem, &error), CAD_ERR_INVALID);
	assert_non_null(strstr(error.text, "timed.pem' has expired, on 20"));
	files.tls.certificate = files.tls.key = NULL;
	must(cad_tls_pem_read(&files.tls, &pem, &error), &error);
	assert_int_equal(pem.expires_s, 0);
	cad_tls_pem_fini(&pem);
}

static void failed_handshakes_do_not_fill_the_log(void **state)
{
	(void)state;
	struct live live;

	cad_log_setup(CAD_LOG_WARN, CAD_LOG_LOGFMT);
	live_open(&live, "server");
	assert_int_equal(log_pipe_open(NULL), 0);
	for (int i = 0; i < 5; i++)
		assert_false(shows(&live, "server", "stranger"));
	const char *first = strstr(log_pipe_read(), "certificate verify failed");
	log_pipe_close(NULL);
	cad_log_setup(CAD_LOG_ERROR, CAD_LOG_LOGFMT);
	assert_non_null(first);
	assert_null(strstr(first + 1, "certificate verify failed"));
	rpc_fixture_close(&live.rpc);
}

static void wrong_files_get_sentences(void **state)
{
	(void)state;
	static const struct {
		const char *make, *certificate, *key, *authority, *says;
	} cases[] = {
		{ ":", "server.pem", "server.key", "ca.pem", NULL },
		{ "cat server.pem ca.pem > chain.pem", "chain.pem", "server.key", NULL, NULL },
		{ ":", "server.key", "server.key", NULL,
			"server.key' holds no certificate in PEM form: no start line" },
		{ ":", "server.pem", "server.pem", NULL, "server.pem' holds no private key in PEM form" },
		{ ":", "server.pem", "mallory.key", NULL, "mallory.key' does not belong to the certificate '/tmp/" },
		{ ": > none.pem", "server.pem", "server.key", "none.pem",
			"none.pem' holds no certificate of an authority" },
		{ "cat ca.pem stranger.pem > both.pem", "server.pem", "server.key", "both.pem", NULL },
		{ ":", "server.pem", "server.key", "server.pem",
			"server.pem' holds no certificate of an authority: what it" },
		{ "cat server.pem ca.pem > mixed.pem", "server.pem", "server.key", "mixed.pem", NULL },
		{ "openssl req -x509 -key server.key -out own.pem -days 1 -subj /CN=own -addext basicConstraints=critical,CA:FALSE",
			"server.pem", "server.key", "own.pem", NULL },
		{ "openssl req -new -key ca.key -subj /CN=ca | openssl x509 -req -signkey ca.key -days -1 -out old.pem 2>/dev/null",
			"server.pem", "server.key", "old.pem", "old.pem' has expired, on 20" },
		{ "cat old.pem ca.pem > renewed.pem", "server.pem", "server.key", "renewed.pem", NULL },
		{ "cat ca.pem > cut.pem && head -c 300 stranger.pem >> cut.pem", "server.pem", "server.key", "cut.pem",
			"cut.pem' holds no certificate of an authority in PEM form: bad end line" },
		{ "cat server.pem > cut.pem && head -c 300 ca.pem >> cut.pem", "cut.pem", "server.key", NULL,
			"cut.pem' holds no certificate in PEM form: bad end line" },
		{ "openssl pkey -in server.key -aes256 -passout pass:x -out locked.key", "server.pem", "locked.key",
			NULL, "locked.key' holds no private key in PEM form without a password" },
	};
	struct rpc_fixture rpc;
	rpc_fixture_open(&rpc, NULL);

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		char certificate[128], key[128], authority[128];
		struct cad_error error = { .text = "" };
		run("cd %s && %s", folder, cases[i].make);
		snprintf(certificate, sizeof certificate, "%s/%s", folder, cases[i].certificate);
		snprintf(key, sizeof key, "%s/%s", folder, cases[i].key);
		snprintf(authority, sizeof authority, "%s/%s", folder, cases[i].authority ? cases[i].authority : "");
		const struct cad_tls_files files = {
			.certificate = certificate,
			.key = key,
			.authority = cases[i].authority ? authority : NULL,
		};
		enum cad_status status = cad_rpc_server_listen(rpc.server, "127.0.0.1:0", &files, NULL, &error);
		assert_int_equal(status, cases[i].says ? CAD_ERR_INVALID : CAD_OK);
		if (cases[i].says && !strstr(error.text, cases[i].says))
			fail_msg("'%s' does not say '%s'", error.text, cases[i].says);
	}
	rpc_fixture_close(&rpc);
}

static int certificates_make(void **state)
{
	(void)state;
	assert_non_null(mkdtemp(folder));
	authority_make("ca");
	authority_make("stranger");
	certificate_make("server", "ca");
	certificate_make("alice", "ca");
	certificate_make("mallory", "stranger");
	cad_log_setup(CAD_LOG_ERROR, CAD_LOG_LOGFMT); /* gRPC says much about failing handshakes */
	return 0;
}

static int certificates_remove(void **state)
{
	(void)state;
	run("rm -r %s", folder);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			failed_handshakes_do_not_fill_the_log), /* the first: words are left out from then on */
		cmocka_unit_test(tls),
		cmocka_unit_test(new_files_are_taken_up),
		cmocka_unit_test(damaged_files_leave_the_old_ones),
		cmocka_unit_test(a_channel_takes_up_new_files),
		cmocka_unit_test(who_is_optional_may_be_nobody),
		cmocka_unit_test(ends_are_known),
		cmocka_unit_test(wrong_files_get_sentences),
	};
	return cmocka_run_group_tests(tests, certificates_make, certificates_remove);
}
