/* SPDX-License-Identifier: Apache-2.0 */
/* Health, reflection, events from other threads, and the client for command lines. */
#include "cadre/v1/inference.pb-c.h"
#include "common/base/container.h"
#include "common/base/log.h"
#include "common/rpc/blocking.h"
#include "common/rpc/health.h"
#include "common/rpc/reflection.h"
#include "grpc/health/v1/health.pb-c.h"
#include "grpc/reflection/v1/reflection.pb-c.h"
#include "tests/support/must.h"
#include "tests/support/rpc_fixture.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define TOKENIZE "/cadre.v1.Inference/Tokenize"
#define REFLECTION "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"

/* ---- a service ---- */

static void tokenize(struct cad_rpc_call *call, const ProtobufCMessage *message)
{
	const Cadre__V1__TokenizeRequest *request = (const Cadre__V1__TokenizeRequest *)message;
	char name[64];

	if (strcmp(request->text, "who") == 0) {
		bool known = cad_rpc_call_peer_property(call, "x509_common_name", name, sizeof name);
		cad_rpc_call_finish(call, CAD_RPC_ABORTED, "%s", known ? name : "nobody");
		return;
	}

	if (strcmp(request->text, "hang") == 0)
		return;
	int32_t ids[2] = { 7, 8 };
	Cadre__V1__TokenizeResponse response = CADRE__V1__TOKENIZE_RESPONSE__INIT;
	response.ids = ids;
	response.n_ids = 2;
	cad_rpc_call_reply(call, &response.base);
}

static void generate(struct cad_rpc_call *call, const ProtobufCMessage *message)
{
	const Cadre__V1__GenerateRequest *request = (const Cadre__V1__GenerateRequest *)message;
	for (uint32_t i = 0; i < request->max_tokens; i++) {
		Cadre__V1__GenerateResponse response = CADRE__V1__GENERATE_RESPONSE__INIT;
		int32_t id = (int32_t)i;
		response.token_ids = &id;
		response.n_token_ids = 1;
		(void)cad_rpc_call_send(call, &response.base);
	}
	cad_rpc_call_finish(call, CAD_RPC_OK, NULL);
}

static void unused(struct cad_rpc_call *call, const ProtobufCMessage *message)
{
	(void)message;
	cad_rpc_call_finish(call, CAD_RPC_UNIMPLEMENTED, "not in this test");
}

static const struct cad_rpc_method methods[] = {
	{ "Generate", CAD_RPC_SERVER_STREAM, { .message = generate }, CAD_RIGHT_READ },
	{ "Tokenize", CAD_RPC_UNARY, { .message = tokenize }, CAD_RIGHT_READ },
	{ "Detokenize", CAD_RPC_UNARY, { .message = unused }, CAD_RIGHT_READ },
	{ "GetModel", CAD_RPC_UNARY, { .message = unused }, CAD_RIGHT_READ },
};
static const struct cad_rpc_service service = { &cadre__v1__inference__descriptor, methods, 4, NULL };

/* ---- health ---- */

typedef Grpc__Health__V1__HealthCheckRequest HealthRequest;
typedef Grpc__Health__V1__HealthCheckResponse HealthResponse;
enum { SERVING = 1, NOT_SERVING = 2, SERVICE_UNKNOWN = 3 };

struct watch {
	unsigned seen[8];
	unsigned count;
	bool changed;
};

static void watched(struct rpc_result *result, const ProtobufCMessage *message)
{
	struct watch *watch = result->user;
	watch->seen[watch->count++] = (unsigned)((const HealthResponse *)message)->status;
	watch->changed = true;
}

static void watch_wait(struct rpc_fixture *rpc, struct watch *watch, unsigned status)
{
	rpc_run_until(rpc, &watch->changed);
	watch->changed = false;
	assert_int_equal(watch->seen[watch->count - 1], status);
}

static void health_check(struct rpc_fixture *rpc, const char *name, enum cad_rpc_code code, unsigned status)
{
	HealthRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
	request.service = (char *)(uintptr_t)name;
	struct watch watch = { 0 };
	struct rpc_result result = { .on_message = watched, .user = &watch };
	rpc_call(rpc, "/grpc.health.v1.Health/Check", &request.base,
		&grpc__health__v1__health_check_response__descriptor, NULL, &result);
	assert_int_equal(result.code, code);
	assert_int_equal(watch.seen[0], status);
}

static void health(void **state)
{
	(void)state;
	struct rpc_fixture rpc;
	struct cad_rpc_health *health;
	struct cad_error error;
	rpc_fixture_open(&rpc, NULL);
	must(cad_rpc_health_create(rpc.server, &health, &error), &error);
	rpc_fixture_start(&rpc, NULL, NULL, NULL);
	health_check(&rpc, "", CAD_RPC_OK, NOT_SERVING);
	health_check(&rpc, "x", CAD_RPC_NOT_FOUND, 0);
	struct watch watch = { 0 }, late = { 0 };
	struct rpc_result watcher = { .on_message = watched, .user = &watch },
			  gone = { .on_message = watched, .user = &late };
	HealthRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
	request.service = (char[]){ "x" };
	rpc_start(&rpc, "/grpc.health.v1.Health/Watch", &request.base,
		&grpc__health__v1__health_check_response__descriptor, NULL, &watcher);
	rpc_start(&rpc, "/grpc.health.v1.Health/Watch", &request.base,
		&grpc__health__v1__health_check_response__descriptor, NULL, &gone);
	watch_wait(&rpc, &watch, SERVICE_UNKNOWN);
	watch_wait(&rpc, &late, SERVICE_UNKNOWN);
	cad_rpc_client_cancel(gone.call);
	rpc_run_until(&rpc, &gone.done);
	cad_rpc_health_set(health, "x", true);
	cad_rpc_health_set(health, "x", true); /* no news */
	watch_wait(&rpc, &watch, SERVING);
	health_check(&rpc, "x", CAD_RPC_OK, SERVING);
	cad_rpc_health_shutdown(health);
	watch_wait(&rpc, &watch, NOT_SERVING);
	rpc_run_until(&rpc, &watcher.done);
	assert_int_equal(watcher.code, CAD_RPC_UNAVAILABLE);
	assert_int_equal(watch.count, 3);
	health_check(&rpc, "x", CAD_RPC_OK, NOT_SERVING);
	rpc_fixture_close(&rpc);
	cad_rpc_health_destroy(health);
}

/* ---- reflection ---- */

struct reflected {
	unsigned services, files, error_code;
	bool inference;
};

static void reflected(struct rpc_result *result, const ProtobufCMessage *message)
{
	struct reflected *seen = result->user;
	const Grpc__Reflection__V1__ServerReflectionResponse *response =
		(const Grpc__Reflection__V1__ServerReflectionResponse *)message;

	switch (response->message_response_case) {
	case GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_LIST_SERVICES_RESPONSE:
		seen->services = (unsigned)response->list_services_response->n_service;
		for (size_t i = 0; i < seen->services; i++)
			seen->inference |=
				strcmp(response->list_services_response->service[i]->name, "cadre.v1.Inference") == 0;
		break;
	case GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_FILE_DESCRIPTOR_RESPONSE:
		seen->files = (unsigned)response->file_descriptor_response->n_file_descriptor_proto;
		break;
	case GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ERROR_RESPONSE:
		seen->error_code = (unsigned)response->error_response->error_code;
		break;
	default: break;
	}
}

static struct reflected reflect(
	struct rpc_fixture *rpc, const Grpc__Reflection__V1__ServerReflectionRequest *request, const char *path)
{
	struct reflected seen = { 0 };
	struct rpc_result result = { .on_message = reflected, .user = &seen };
	rpc_call(rpc, path, &request->base, &grpc__reflection__v1__server_reflection_response__descriptor, NULL,
		&result);
	assert_int_equal(result.code, CAD_RPC_OK);
	assert_int_equal(result.messages, 1);
	return seen;
}

#define REQUEST_IS(name) GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_##name

static void reflection(void **state)
{
	(void)state;
	struct rpc_fixture rpc;
	struct cad_rpc_reflection *reflection;
	struct cad_error error;
	rpc_fixture_open(&rpc, NULL);
	cad_rpc_server_add(rpc.server, &service);
	must(cad_rpc_reflection_create(rpc.server, &reflection, &error), &error);
	rpc_fixture_start(&rpc, NULL, NULL, NULL);
	Grpc__Reflection__V1__ServerReflectionRequest request = GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__INIT;
	request.message_request_case = REQUEST_IS(LIST_SERVICES);
	request.list_services = (char[]){ "" };
	struct reflected seen = reflect(&rpc, &request, REFLECTION);
	assert_int_equal(seen.services, 3); /* Inference, reflection v1 and v1alpha */
	assert_true(seen.inference);
	seen = reflect(&rpc, &request, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo");
	assert_true(seen.inference);
	request.message_request_case = REQUEST_IS(FILE_CONTAINING_SYMBOL);
	const struct {
		const char *symbol;
		unsigned files;
	} symbols[] = {
		{ "cadre.v1.Inference", 1 },
		{ "cadre.v1.Inference.Generate", 1 },
		{ "cadre.v1.GenerateRequest.stop_ids", 1 },
		{ "cadre.v1.FINISH_REASON_STOP", 1 },
		{ "cadre.v1.Placement", 3 },
		{ "cadre.v1.Nothing", 0 },
	};
	for (size_t i = 0; i < sizeof symbols / sizeof symbols[0]; i++) {
		request.file_containing_symbol = (char *)(uintptr_t)symbols[i].symbol;
		seen = reflect(&rpc, &request, REFLECTION);
		assert_int_equal(seen.files, symbols[i].files);
		assert_int_equal(seen.error_code, symbols[i].files ? 0 : CAD_RPC_NOT_FOUND);
	}

	request.message_request_case = REQUEST_IS(FILE_BY_FILENAME);
	request.file_by_filename = (char[]){ "cadre/v1/placement.proto" };
	seen = reflect(&rpc, &request, REFLECTION);
	assert_int_equal(seen.files, 3); /* what it imports comes along */
	request.message_request_case = 0;
	seen = reflect(&rpc, &request, REFLECTION);
	assert_int_equal(seen.error_code, CAD_RPC_INVALID_ARGUMENT);
	rpc_fixture_close(&rpc);
	cad_rpc_reflection_destroy(reflection);
}

static void reflection_refuses_wrong_tables(void **state)
{
	(void)state;
	static struct cad_rpc_method wrong[4];
	memcpy(wrong, methods, sizeof wrong);
	wrong[0].kind = CAD_RPC_UNARY; /* Generate is a stream */
	static const struct cad_rpc_service wrong_service = { &cadre__v1__inference__descriptor, wrong, 4, NULL };
	struct rpc_fixture rpc;
	struct cad_rpc_reflection *reflection;
	struct cad_error error;
	rpc_fixture_open(&rpc, NULL);
	cad_rpc_server_add(rpc.server, &wrong_service);
	assert_int_equal(cad_rpc_reflection_create(rpc.server, &reflection, &error), CAD_ERR_INTERNAL);
	assert_string_equal(
		error.text, "the table of cadre.v1.Inference has another kind for Generate than the .proto file");
	rpc_fixture_close(&rpc);
}

/* ---- other threads ---- */

enum { POSTERS = 3, POSTS = 2000 };

struct posts {
	struct cad_rpc_reactor *reactor;
	unsigned ran, last_of[POSTERS];
	bool all;
	atomic_uint written;
	unsigned rung, read;
	struct cad_rpc_wakeup wakeup;
	bool heard_all;
};

struct post {
	struct cad_rpc_event event;
	struct posts *posts;
	unsigned poster, number;
};

static void post_run(struct cad_rpc_event *event, bool ok)
{
	struct post *post = (struct post *)event;
	struct posts *posts = post->posts;
	assert_true(ok);
	assert_true(cad_rpc_reactor_is_owner(posts->reactor));
	assert_int_equal(post->number, posts->last_of[post->poster]++); /* one thread's posts keep their order */
	posts->all = ++posts->ran == POSTERS * POSTS;
	free(post);
}

struct poster {
	struct posts *posts;
	unsigned index;
};

static void *poster_main(void *argument)
{
	struct poster *poster = argument;
	for (unsigned i = 0; i < POSTS; i++) {
		struct post *post = malloc(sizeof *post);
		*post = (struct post){ { post_run }, poster->posts, poster->index, i };
		cad_rpc_post(poster->posts->reactor, &post->event);
		atomic_fetch_add_explicit(&poster->posts->written, 1, memory_order_relaxed);
		cad_rpc_wakeup_send(&poster->posts->wakeup);
	}
	return NULL;
}

static void rung(void *context)
{
	struct posts *posts = context;
	posts->rung++;
	posts->read = atomic_load_explicit(&posts->written, memory_order_relaxed);
	posts->heard_all = posts->read == POSTERS * POSTS;
}

static void posts_from_threads(void **state)
{
	(void)state;
	struct rpc_fixture rpc;
	rpc_fixture_open(&rpc, NULL);
	struct posts posts = { .reactor = rpc.reactor };
	cad_rpc_wakeup_init(&posts.wakeup, rpc.reactor, rung, &posts);
	pthread_t threads[POSTERS];
	struct poster posters[POSTERS];
	for (unsigned i = 0; i < POSTERS; i++) {
		posters[i] = (struct poster){ &posts, i };
		assert_int_equal(pthread_create(&threads[i], NULL, poster_main, &posters[i]), 0);
	}

	rpc_run_until(&rpc, &posts.all);
	rpc_run_until(&rpc, &posts.heard_all); /* the last bell is heard, whatever was joined before */
	assert_in_range(posts.rung, 1, POSTERS * POSTS);
	for (unsigned i = 0; i < POSTERS; i++)
		pthread_join(threads[i], NULL);
	rpc_fixture_close(&rpc);
}

/* What is posted before the reactor is destroyed still runs. */
static void posts_at_the_end(void **state)
{
	(void)state;
	uv_loop_t loop;
	struct cad_rpc_reactor *reactor;
	struct cad_error error;
	assert_int_equal(uv_loop_init(&loop), 0);
	must(cad_rpc_reactor_create(&loop, &reactor, &error), &error);
	struct posts posts = { .reactor = reactor };
	struct post *post = malloc(sizeof *post);
	*post = (struct post){ { post_run }, &posts, 0, 0 };
	cad_rpc_post(reactor, &post->event);
	cad_rpc_reactor_destroy(reactor);
	assert_int_equal(posts.ran, 1);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&loop), 0);
}

/* libuv's timers and descriptors work inside the reactor. */
struct tick {
	uv_timer_t timer;
	unsigned count;
	bool done;
};

static void ticked(uv_timer_t *timer)
{
	struct tick *tick = timer->data;
	if (++tick->count == 5) {
		tick->done = true;
		uv_close((uv_handle_t *)timer, NULL);
	}
}

static void piped(uv_poll_t *poll, int status, int events)
{
	(void)status;
	(void)events;
	*(bool *)poll->data = true;
	uv_close((uv_handle_t *)poll, NULL);
}

static void *pipe_main(void *descriptor)
{
	assert_int_equal(write(*(int *)descriptor, "x", 1), 1);
	return NULL;
}

static void loop_works(void **state)
{
	(void)state;
	struct rpc_fixture rpc;
	rpc_fixture_open(&rpc, NULL);
	struct tick tick = { 0 };
	uv_timer_init(&rpc.loop, &tick.timer);
	tick.timer.data = &tick;
	uv_timer_start(&tick.timer, ticked, 1, 1);
	rpc_run_until(&rpc, &tick.done);
	int ends[2];
	bool readable = false;
	uv_poll_t poll;
	pthread_t thread;
	assert_int_equal(pipe(ends), 0);
	uv_poll_init(&rpc.loop, &poll, ends[0]);
	poll.data = &readable;
	uv_poll_start(&poll, UV_READABLE, piped);
	assert_int_equal(pthread_create(&thread, NULL, pipe_main, &ends[1]), 0);
	rpc_run_until(&rpc, &readable);
	pthread_join(thread, NULL);
	rpc_fixture_close(&rpc);
	close(ends[0]);
	close(ends[1]);
}

/* ---- the client for command lines, in a thread of its own ---- */

struct command {
	char target[32];
	struct cad_rpc_blocking *client;
	unsigned messages;
	unsigned stop_at;
	struct cad_rpc_event finished;
	bool done;
};

static bool command_message(void *context, const ProtobufCMessage *message)
{
	(void)message;
	struct command *command = context;
	return ++command->messages != command->stop_at;
}

static void command_finished(struct cad_rpc_event *event, bool ok)
{
	(void)ok;
	CAD_CONTAINER_OF(event, struct command, finished)->done = true;
}

struct command_thread {
	struct command *command;
	struct cad_rpc_reactor *reactor; /* the server's */
};

static void *interrupt_main(void *client)
{
	usleep(20000); /* too early is harmless, but then the call below would wait for its deadline */
	cad_rpc_blocking_interrupt(client);
	return NULL;
}

static void *command_main(void *argument)
{
	struct command_thread *thread = argument;
	struct command *command = thread->command;
	struct cad_error error;
	enum cad_rpc_code code;

	must(cad_rpc_blocking_create(command->target, NULL, NULL, &command->client, &error), &error);

	/* unary */
	Cadre__V1__TokenizeRequest text = CADRE__V1__TOKENIZE_REQUEST__INIT;
	must(cad_rpc_blocking_call(command->client, TOKENIZE, &text.base, &cadre__v1__tokenize_response__descriptor,
		     NULL, command_message, command, &code, &error),
		&error);
	assert_int_equal(command->messages, 1);

	/* a stream, whole and cut short */
	Cadre__V1__GenerateRequest request = CADRE__V1__GENERATE_REQUEST__INIT;
	request.max_tokens = 500;

	for (unsigned stop_at = 0; stop_at <= 7; stop_at += 7) {
		command->messages = 0;
		command->stop_at = stop_at;
		must(cad_rpc_blocking_call(command->client, "/cadre.v1.Inference/Generate", &request.base,
			     &cadre__v1__generate_response__descriptor, NULL, command_message, command, NULL, &error),
			&error);
		assert_int_equal(command->messages, stop_at ? stop_at : 500);
	}

	/* failures */
	text.text = (char[]){ "who" };
	assert_int_equal(
		cad_rpc_blocking_call(command->client, TOKENIZE, &text.base, &cadre__v1__tokenize_response__descriptor,
			NULL, command_message, command, &code, &error),
		CAD_ERR_REFUSED);
	assert_int_equal(code, CAD_RPC_ABORTED);
	assert_string_equal(error.text, "ABORTED: nobody");
	text.text = (char[]){ "hang" };
	assert_int_equal(
		cad_rpc_blocking_call(command->client, TOKENIZE, &text.base, &cadre__v1__tokenize_response__descriptor,
			&(struct cad_rpc_call_options){
				.timeout_ms = 30,
			},
			command_message, command, &code, &error),
		CAD_ERR_DEADLINE);
	pthread_t interrupter;
	assert_int_equal(pthread_create(&interrupter, NULL, interrupt_main, command->client), 0);
	assert_int_equal(
		cad_rpc_blocking_call(command->client, TOKENIZE, &text.base, &cadre__v1__tokenize_response__descriptor,
			&(struct cad_rpc_call_options){
				.timeout_ms = 5000,
			},
			command_message, command, &code, &error),
		CAD_ERR_CANCELLED);
	pthread_join(interrupter, NULL);
	cad_rpc_blocking_destroy(command->client);
	cad_rpc_post(thread->reactor, &command->finished);

	return NULL;
}

static void command_line(void **state)
{
	(void)state;
	struct rpc_fixture rpc;
	rpc_fixture_open(&rpc, NULL);
	cad_rpc_server_add(rpc.server, &service);
	rpc_fixture_start(&rpc, NULL, NULL, NULL);
	struct command command = { .finished.run = command_finished };
	memcpy(command.target, rpc.target, sizeof command.target);
	struct command_thread argument = { &command, rpc.reactor };
	pthread_t thread;
	assert_int_equal(pthread_create(&thread, NULL, command_main, &argument), 0);
	rpc_run_until(&rpc, &command.done);
	pthread_join(thread, NULL);
	rpc_fixture_close(&rpc);
}

static void command_line_nobody_there(void **state)
{
	(void)state;
	struct cad_rpc_blocking *client;
	struct cad_error error;
	Cadre__V1__GetModelRequest request = CADRE__V1__GET_MODEL_REQUEST__INIT;
	struct command command = { 0 };
	must(cad_rpc_blocking_create("127.0.0.1:1", NULL, NULL, &client, &error), &error);
	assert_int_equal(
		cad_rpc_blocking_call(client, "/cadre.v1.Inference/GetModel", &request.base,
			&cadre__v1__get_model_response__descriptor, NULL, command_message, &command, NULL, &error),
		CAD_ERR_UNREACHABLE);
	assert_non_null(strstr(error.text, "UNAVAILABLE: "));
	cad_rpc_blocking_destroy(client);
	assert_int_equal(cad_rpc_blocking_create("127.0.0.1:1",
				 &(struct cad_tls_files){
					 .authority = "/nonexistent",
				 },
				 NULL, &client, &error),
		CAD_ERR_IO);
	assert_non_null(strstr(error.text, "/nonexistent"));
}

/* ---- codes ---- */

static void codes(void **state)
{
	(void)state;
	assert_string_equal(cad_rpc_code_name(CAD_RPC_INVALID_ARGUMENT), "INVALID_ARGUMENT");
	assert_string_equal(cad_rpc_code_name((enum cad_rpc_code)99), "UNKNOWN");
#define X(name, value, text) assert_in_range(cad_rpc_code_of_status(CAD_##name), (value) >= 0 ? 0 : 1, 16);
	CAD_STATUS_LIST(X)
#undef X
	for (int code = 1; code <= 16; code++)
		assert_true(cad_rpc_status_of_code((enum cad_rpc_code)code) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(health),
		cmocka_unit_test(reflection),
		cmocka_unit_test(reflection_refuses_wrong_tables),
		cmocka_unit_test(posts_from_threads),
		cmocka_unit_test(posts_at_the_end),
		cmocka_unit_test(loop_works),
		cmocka_unit_test(command_line),
		cmocka_unit_test(command_line_nobody_there),
		cmocka_unit_test(codes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
