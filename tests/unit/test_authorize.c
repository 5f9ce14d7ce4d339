/* SPDX-License-Identifier: Apache-2.0 */
/* Who may call what: listeners of every kind, and what callers show to them. */
#include "cadre/v1/inference.pb-c.h"
#include "common/base/log.h"
#include "common/rpc/authorize.h"
#include "tests/support/certify.h"
#include "tests/support/file_write.h"
#include "tests/support/log_pipe.h"
#include "tests/support/must.h"
#include "tests/support/rpc_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- a service with a method for each right ---- */

/* Says who the caller is. */
static void tell(struct cad_rpc_call *call, const ProtobufCMessage *message)
{
	(void)message;
	const struct cad_caller *caller = cad_rpc_call_caller(call);
	cad_rpc_call_finish(call, CAD_RPC_ABORTED, "%s/%s by %s", cad_caller_role_name(caller->role), caller->name,
		cad_caller_by_name(caller->by));
}

static const struct cad_rpc_method methods[] = {
	{ "Generate", CAD_RPC_SERVER_STREAM, { .message = tell }, CAD_RIGHT_GENERATE },
	{ "Tokenize", CAD_RPC_UNARY, { .message = tell }, CAD_RIGHT_READ },
	{ "Detokenize", CAD_RPC_UNARY, { .message = tell }, CAD_RIGHT_JOIN },
	{ "GetModel", CAD_RPC_UNARY, { .message = tell }, CAD_RIGHT_OPERATE },
};
#define READ "Tokenize"
#define GENERATE "Generate"
#define JOIN "Detokenize"
#define OPERATE "GetModel"

/* ---- what callers show ---- */

static const struct {
	const char *name;
	struct certify_subject subject;
} subjects[] = {
	{ "server", { .names = "DNS:server" } },
	{ "plain", { .entries = { { "CN", "alice", 0 } } } },
	{ "client", { .names = "URI:cadre://client/proxy" } },
	{ "node", { .names = "URI:cadre://node/rack" } },
	{ "operator", { .entries = { { "OU", "operator", 0 }, { "CN", "bob", 0 } } } },
	{ "inspect", { .names = "URI:cadre://inspect/dashboard" } },
	{ "nameless", { .entries = { { "OU", "client", 0 } } } },
	{ "odd", { .entries = { { "OU", "operator", 0 } }, .names = "URI:cadre://operater/bob" } },
};

static const char tokens[] = "client-token-0000 client carol\nnode-token-000000 node\ninspect-token-000 inspect watch\n"
			     "operator-token-00 operator dave\nplain-token-00000\n";

/* ---- listeners ---- */

enum listener { OPEN, TOKENS, CERTIFICATES, EITHER, BOTH };

struct world {
	struct rpc_fixture rpc;
	struct cad_rpc_service service;
	struct cad_rpc_authorizer authorizer;
	struct cad_bearers bearers;
	struct cad_audit audit;
	struct cad_metrics *metrics;
	char refused[CAD_ERROR_TEXT_BYTES]; /* as told to whoever has the server */
};

static char folder[] = "/tmp/cadre-authorize-XXXXXX";

static const char *path_of(const char *name, const char *kind)
{
	static char paths[8][128];
	static unsigned next;
	char *path = paths[next++ % 8];
	snprintf(path, sizeof paths[0], "%s/%s.%s", folder, name, kind);
	return path;
}

static void note_refusal(void *context, struct cad_rpc_call *call, const char *why)
{
	(void)call;
	struct world *world = context;
	snprintf(world->refused, sizeof world->refused, "%s", why);
}

static void world_open(struct world *world, enum listener listener)
{
	struct cad_error error;
	bool tls = listener >= CERTIFICATES;

	*world = (struct world){ .refused = "" };
	if (listener == TOKENS || listener == EITHER || listener == BOTH)
		must(cad_bearers_parse(tokens, sizeof tokens - 1, "test", &world->bearers, &error), &error);
	assert_int_equal(cad_metrics_create(&world->metrics), CAD_OK);
	cad_audit_init(&world->audit);
	cad_rpc_authorizer_init(&world->authorizer,
		&(struct cad_rpc_authorizer_options){
			.callers = { .bearers = &world->bearers, .certificates = tls, .audit = &world->audit },
			.server = "server",
			.token_advice = "ask for one",
			.refused = note_refusal,
			.context = world,
		},
		world->metrics);
	rpc_fixture_open(&world->rpc,
		&(struct cad_rpc_server_config){
			.authorize = cad_rpc_authorize,
			.authorize_context = &world->authorizer,
		});
	world->service = (struct cad_rpc_service){ &cadre__v1__inference__descriptor, methods, 4, world };
	cad_rpc_server_add(world->rpc.server, &world->service);
	const struct cad_tls_files files = {
		.certificate = path_of("server", "pem"),
		.key = path_of("server", "key"),
		.authority = path_of("authority", "pem"),
		.clients_optional = listener == EITHER,
	};
	rpc_fixture_start(&world->rpc, tls ? &files : NULL, NULL, NULL);
	cad_rpc_channel_destroy(world->rpc.channel);
}

static void world_close(struct world *world)
{
	world->rpc.channel = NULL;
	rpc_fixture_connect(&world->rpc, world->rpc.port, NULL, NULL); /* for the fixture to close */
	rpc_fixture_close(&world->rpc);
	cad_rpc_authorizer_fini(&world->authorizer);
	cad_bearers_fini(&world->bearers);
	cad_metrics_destroy(world->metrics);
}

struct attempt {
	enum listener listener;
	const char *certificate, *authorization[2], *method;
	enum cad_rpc_code code; /* ABORTED: admitted */
	const char *says;
};

static void call(struct world *world, const struct attempt *attempt, struct rpc_result *result)
{
	Cadre__V1__TokenizeRequest request = CADRE__V1__TOKENIZE_REQUEST__INIT; /* empty, as each of them may be */
	struct cad_rpc_metadata headers[2];
	const struct cad_tls_files files = {
		.certificate = attempt->certificate ? path_of(attempt->certificate, "pem") : NULL,
		.key = attempt->certificate ? path_of(attempt->certificate, "key") : NULL,
		.authority = path_of("authority", "pem"),
	};
	struct cad_rpc_call_options options = { .metadata = headers };
	char path[64];

	for (int i = 0; i < 2 && attempt->authorization[i]; i++)
		headers[options.metadata_count++] =
			(struct cad_rpc_metadata){ "authorization", attempt->authorization[i] };
	rpc_fixture_connect(&world->rpc, world->rpc.port, attempt->listener >= CERTIFICATES ? &files : NULL,
		&(struct cad_rpc_channel_config){ .server_name = "server", .own_connection = true });
	snprintf(path, sizeof path, "/cadre.v1.Inference/%s", attempt->method);
	rpc_call(&world->rpc, path, &request.base, &cadre__v1__tokenize_response__descriptor, &options, result);
	cad_rpc_channel_destroy(world->rpc.channel);
}

#define CLIENT_TOKEN "Bearer client-token-0000"
#define NODE_TOKEN "Bearer node-token-000000"
#define INSPECT_TOKEN "Bearer inspect-token-000"
#define OPERATOR_TOKEN "Bearer operator-token-00"
#define PLAIN_TOKEN "Bearer plain-token-00000"
#define ADMITTED CAD_RPC_ABORTED
#define UNKNOWN CAD_RPC_UNAUTHENTICATED
#define DENIED CAD_RPC_PERMISSION_DENIED

static const struct attempt attempts[] = {
	/* nobody has a role: who is on this machine may do everything */
	{ OPEN, NULL, { NULL }, READ, ADMITTED, "operator/ by loopback" },
	{ OPEN, NULL, { NULL }, JOIN, ADMITTED, "operator/ by loopback" },
	{ OPEN, NULL, { "Bearer whatever" }, OPERATE, ADMITTED, "operator/ by loopback" },

	/* tokens, on this machine too */
	{ TOKENS, NULL, { NULL }, READ, UNKNOWN, "this server requires a token: ask for one" },
	{ TOKENS, NULL, { "" }, READ, UNKNOWN,
		"the header 'authorization' is not 'Bearer TOKEN', or there are several" },
	{ TOKENS, NULL, { "Basic client-token-0000" }, READ, UNKNOWN, "is not 'Bearer TOKEN'" },
	{ TOKENS, NULL, { "Bearer client-token-000" }, READ, UNKNOWN,
		"this server does not know the token that was sent" },
	{ TOKENS, NULL, { "Bearer client-token-00000" }, READ, UNKNOWN, "does not know the token" },
	{ TOKENS, NULL, { "Bearer Client-token-0000" }, READ, UNKNOWN, "does not know the token" },
	{ TOKENS, NULL, { "Bearer  client-token-0000" }, READ, UNKNOWN, "does not know the token" },
	{ TOKENS, NULL, { CLIENT_TOKEN ", Bearer x" }, READ, UNKNOWN, "does not know the token" },
	{ TOKENS, NULL, { CLIENT_TOKEN, CLIENT_TOKEN }, READ, UNKNOWN, "or there are several" },
	{ TOKENS, NULL, { INSPECT_TOKEN, OPERATOR_TOKEN }, READ, UNKNOWN, "or there are several" },
	{ TOKENS, NULL, { CLIENT_TOKEN }, GENERATE, ADMITTED, "client/carol by token" },
	{ TOKENS, NULL, { "bEARER client-token-0000" }, GENERATE, ADMITTED, "client/carol by token" },
	{ TOKENS, NULL, { PLAIN_TOKEN }, GENERATE, ADMITTED, "client/ by token" },
	{ TOKENS, NULL, { PLAIN_TOKEN }, JOIN, DENIED,
		"the token has the role 'client', which may not call Detokenize: that takes the role 'node'" },
	{ TOKENS, NULL, { CLIENT_TOKEN }, JOIN, DENIED,
		"the token of 'carol' has the role 'client', which may not call Detokenize: that takes the role 'node'" },
	{ TOKENS, NULL, { CLIENT_TOKEN }, OPERATE, DENIED,
		"which may not call GetModel: that takes the role 'operator'" },
	{ TOKENS, NULL, { NODE_TOKEN }, JOIN, ADMITTED, "node/ by token" },
	{ TOKENS, NULL, { NODE_TOKEN }, READ, ADMITTED, "node/ by token" },
	{ TOKENS, NULL, { NODE_TOKEN }, GENERATE, DENIED, "that takes the role 'client' or 'operator'" },
	{ TOKENS, NULL, { NODE_TOKEN }, OPERATE, DENIED, "that takes the role 'operator'" },
	{ TOKENS, NULL, { INSPECT_TOKEN }, READ, ADMITTED, "inspect/watch by token" },
	{ TOKENS, NULL, { INSPECT_TOKEN }, GENERATE, DENIED, "the token of 'watch' has the role 'inspect'" },
	{ TOKENS, NULL, { OPERATOR_TOKEN }, OPERATE, ADMITTED, "operator/dave by token" },
	{ TOKENS, NULL, { OPERATOR_TOKEN }, GENERATE, ADMITTED, "operator/dave by token" },
	{ TOKENS, NULL, { OPERATOR_TOKEN }, JOIN, DENIED, "that takes the role 'node'" },

	/* certificates; a token cannot be checked, and says nothing */
	{ CERTIFICATES, "plain", { NULL }, GENERATE, ADMITTED, "client/alice by certificate" },
	{ CERTIFICATES, "plain", { OPERATOR_TOKEN }, OPERATE, DENIED,
		"the certificate of 'alice' has the role 'client', which may not call GetModel: that takes the role 'operator'" },
	{ CERTIFICATES, "client", { NULL }, JOIN, DENIED,
		"the certificate of 'proxy' has the role 'client', which may not call Detokenize: that takes the role 'node'" },
	{ CERTIFICATES, "node", { NULL }, JOIN, ADMITTED, "node/rack by certificate" },
	{ CERTIFICATES, "node", { NULL }, GENERATE, DENIED, "that takes the role 'client' or 'operator'" },
	{ CERTIFICATES, "operator", { NULL }, OPERATE, ADMITTED, "operator/bob by certificate" },
	{ CERTIFICATES, "inspect", { NULL }, READ, ADMITTED, "inspect/dashboard by certificate" },
	{ CERTIFICATES, "odd", { NULL }, READ, UNKNOWN,
		"this server cannot use the certificate that was shown: the URI 'cadre://operater/bob' is not cadre://ROLE/NAME" },
	{ CERTIFICATES, NULL, { NULL }, READ, CAD_RPC_UNAVAILABLE, "" },

	/* one or the other */
	{ EITHER, NULL, { NULL }, READ, UNKNOWN, "this server requires a certificate or a token: ask for one" },
	{ EITHER, NULL, { NODE_TOKEN }, JOIN, ADMITTED, "node/ by token" },
	{ EITHER, "node", { NULL }, JOIN, ADMITTED, "node/rack by certificate" },
	{ EITHER, "operator", { "Bearer client-token-000" }, READ, UNKNOWN, "does not know the token" },
	{ EITHER, "odd", { OPERATOR_TOKEN }, READ, UNKNOWN, "cannot use the certificate that was shown" },
	{ EITHER, "plain", { NULL }, READ, UNKNOWN,
		"the certificate names no role, and this server, which has a token file, then requires a token: ask for one" },

	/* both: the token may narrow what the certificate allows */
	{ BOTH, "plain", { NULL }, READ, UNKNOWN, "the certificate names no role" },
	{ BOTH, "plain", { OPERATOR_TOKEN }, OPERATE, ADMITTED, "operator/dave by token and certificate" },
	{ BOTH, "plain", { PLAIN_TOKEN }, GENERATE, ADMITTED, "client/alice by token and certificate" },
	{ BOTH, "client", { NULL }, GENERATE, ADMITTED, "client/proxy by certificate" },
	{ BOTH, "client", { CLIENT_TOKEN }, GENERATE, ADMITTED, "client/carol by token and certificate" },
	{ BOTH, "client", { INSPECT_TOKEN }, GENERATE, DENIED, "the token of 'watch' has the role 'inspect'" },
	{ BOTH, "client", { OPERATOR_TOKEN }, READ, DENIED,
		"the token has the role 'operator', which the role 'client' of the certificate of 'proxy' does not cover: a token may only narrow it" },
	{ BOTH, "nameless", { OPERATOR_TOKEN }, READ, DENIED,
		"the token has the role 'operator', which the role 'client' of the certificate does not cover" },
	{ BOTH, "node", { CLIENT_TOKEN }, READ, DENIED, "does not cover" },
	{ BOTH, "inspect", { CLIENT_TOKEN }, READ, DENIED, "does not cover" },
	{ BOTH, "operator", { NODE_TOKEN }, JOIN, DENIED, "does not cover" },
	{ BOTH, "operator", { CLIENT_TOKEN }, OPERATE, DENIED, "the token of 'carol' has the role 'client'" },
	{ BOTH, NULL, { OPERATOR_TOKEN }, READ, CAD_RPC_UNAVAILABLE, "" },
};

static void callers_are_identified(void **state)
{
	(void)state;
	struct world world;

	for (size_t i = 0; i < sizeof attempts / sizeof attempts[0]; i++) {
		const struct attempt *attempt = &attempts[i];
		struct rpc_result result = { 0 };
		if (i == 0 || attempt->listener != attempts[i - 1].listener)
			world_open(&world, attempt->listener);
		world.refused[0] = 0;
		call(&world, attempt, &result);
		if (result.code != attempt->code || !strstr(result.text, attempt->says))
			fail_msg("attempt %zu: %s '%s', and not '%s'", i, cad_rpc_code_name(result.code), result.text,
				attempt->says);
		if (attempt->code == UNKNOWN || attempt->code == DENIED)
			assert_string_equal(world.refused, result.text);
		else
			assert_string_equal(world.refused, "");
		if (i + 1 == sizeof attempts / sizeof attempts[0] || attempt->listener != attempts[i + 1].listener)
			world_close(&world);
	}
}

/* ---- what is counted and written down ---- */

static void refusals_are_counted(void **state)
{
	(void)state;
	static const struct attempt some[] = {
		{ EITHER, NULL, { NULL }, READ, UNKNOWN, "" },
		{ EITHER, NULL, { "Bearer wrong" }, GENERATE, UNKNOWN, "" },
		{ EITHER, "plain", { NULL }, READ, UNKNOWN, "" },
		{ EITHER, "node", { "Bearer wrong" }, JOIN, UNKNOWN, "" },
		{ EITHER, "odd", { CLIENT_TOKEN }, READ, UNKNOWN, "" },
		{ EITHER, "client", { OPERATOR_TOKEN }, READ, DENIED, "" },
		{ EITHER, "client", { NULL }, JOIN, DENIED, "" },
		{ EITHER, "client", { NULL }, OPERATE, DENIED, "" },
		{ EITHER, "operator", { NULL }, OPERATE, ADMITTED, "" },
		{ EITHER, "operator", { NULL }, READ, ADMITTED, "" },
	};
	static const char *const metrics[] = {
		"cadre_calls_refused_total{reason=\"no_identity\"} 2\n",
		"cadre_calls_refused_total{reason=\"wrong_token\"} 2\n",
		"cadre_calls_refused_total{reason=\"wrong_certificate\"} 1\n",
		"cadre_calls_refused_total{reason=\"wider_token\"} 1\n",
		"cadre_calls_refused_total{reason=\"wrong_role\"} 2\n",
	};
	static const char *const lines[] = {
		"msg=refused method=Tokenize role=none name=\"\" by=nothing peer=127.0.0.1:",
		"msg=refused method=Generate role=none name=\"\" by=token peer=127.0.0.1:",
		"msg=refused method=Tokenize role=none name=alice by=certificate peer=127.0.0.1:",
		"msg=refused method=Detokenize role=node name=rack by=certificate peer=127.0.0.1:",
		"msg=refused method=Tokenize role=none name=\"\" by=certificate peer=127.0.0.1:",
		"msg=refused method=Tokenize role=operator name=dave by=\"token and certificate\" peer=127.0.0.1:",
		"msg=refused method=Detokenize role=client name=proxy by=certificate peer=127.0.0.1:",
		"msg=called method=GetModel role=operator name=bob by=certificate peer=127.0.0.1:",
	};
	struct world world;

	world_open(&world, EITHER);
	for (size_t i = 0; i < sizeof some / sizeof some[0]; i++) {
		struct rpc_result result = { 0 };
		call(&world, &some[i], &result);
		assert_int_equal(result.code, some[i].code);
	}

	const char *text = log_pipe_read();
	unsigned count = 0;
	for (const char *at = text; (at = strstr(at, "component=audit")); at++)
		count++;
	assert_int_equal(count, 9);
	for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
		if (!strstr(text, lines[i]))
			fail_msg("'%s' is not in\n%s", lines[i], text);
	assert_null(strstr(text, "-token-"));

	char *rendered;
	size_t size;
	assert_int_equal(cad_metrics_render(world.metrics, &rendered, &size), CAD_OK);
	for (size_t i = 0; i < sizeof metrics / sizeof metrics[0]; i++)
		if (!strstr(rendered, metrics[i]))
			fail_msg("'%s' is not in\n%s", metrics[i], rendered);
	free(rendered);
	world_close(&world);
}

/* ---- files ---- */

static int files_make(void **state)
{
	(void)state;
	assert_non_null(mkdtemp(folder));
	file_write(path_of("authority", "pem"), certify_authority());
	for (size_t i = 0; i < sizeof subjects / sizeof subjects[0]; i++) {
		struct certified made = certify(&subjects[i].subject);
		file_write(path_of(subjects[i].name, "pem"), made.certificate);
		file_write(path_of(subjects[i].name, "key"), made.key);
		free(made.certificate);
		free(made.key);
	}
	cad_log_setup(CAD_LOG_ERROR, CAD_LOG_LOGFMT); /* gRPC says much about failing handshakes */
	return 0;
}

static int files_remove(void **state)
{
	(void)state;
	unlink(path_of("authority", "pem"));
	for (size_t i = 0; i < sizeof subjects / sizeof subjects[0]; i++) {
		unlink(path_of(subjects[i].name, "pem"));
		unlink(path_of(subjects[i].name, "key"));
	}
	return rmdir(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(callers_are_identified),
		cmocka_unit_test_setup_teardown(refusals_are_counted, log_pipe_open, log_pipe_close),
	};
	return cmocka_run_group_tests(tests, files_make, files_remove);
}
