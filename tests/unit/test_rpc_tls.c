/* SPDX-License-Identifier: Apache-2.0 */
/* TLS: who trusts whom, and files that change, well and badly, while a server runs. */
#include "cadre/v1/inference.pb-c.h"
#include "common/base/log.h"
#include "common/rpc/tls.h"
#include "tests/support/must.h"
#include "tests/support/rpc_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

static const struct cad_rpc_method methods[] = {
	{ "Generate", CAD_RPC_SERVER_STREAM, { .message = tokenize }, false },
	{ "Tokenize", CAD_RPC_UNARY, { .message = tokenize }, false },
	{ "Detokenize", CAD_RPC_UNARY, { .message = tokenize }, false },
	{ "GetModel", CAD_RPC_UNARY, { .message = tokenize }, false },
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

static void certificate_make(const char *name, const char *authority)
{
	run("cd %s && openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout %s.key -out %s.csr -subj /CN=%s 2>/dev/null",
		folder, name, name, name);
	run("cd %s && printf 'subjectAltName=DNS:%s' > %s.ext && openssl x509 -req -in %s.csr -CA %s.pem -CAkey %s.key -CAcreateserial -days 2 -extfile %s.ext -out %s.pem 2>/dev/null",
		folder, name, name, name, authority, authority, name, name);
}

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
	assert_true(cad_rpc_tls_reread());
	assert_true(shows(&live, "server", "ca"));

	/* by themselves, and when told */
	run("cd %s && cat mallory.pem > live.pem && cat mallory.key > live.key", folder);
	assert_true(shows(&live, "mallory", "stranger"));
	run("cd %s && cp server.pem live.pem && cp server.key live.key", folder);
	assert_true(cad_rpc_tls_reread());
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
		assert_false(cad_rpc_tls_reread());
		assert_true(shows(&live, "server", "ca"));

		/* and then the others are whole */
		run("cd %s && rm -rf live.pem live.key && cp mallory.pem live.pem && cp mallory.key live.key", folder);
		assert_true(shows(&live, "mallory", "stranger"));
		assert_true(cad_rpc_tls_reread());
		rpc_fixture_close(&live.rpc);
	}
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
		cmocka_unit_test(tls),
		cmocka_unit_test(new_files_are_taken_up),
		cmocka_unit_test(damaged_files_leave_the_old_ones),
		cmocka_unit_test(wrong_files_get_sentences),
	};
	return cmocka_run_group_tests(tests, certificates_make, certificates_remove);
}
