/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/cli/run.h"

#include "common/process/bearer.h"
#include "common/rpc/blocking.h"
#include "orchestration/cli/command.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GENERATE "/cadre.v1.Inference/Generate"

struct attempt {
	const struct cl_run *run;
	bool answered; /* a message came: this router it is, for better or worse */
};

static bool on_message(void *context, const ProtobufCMessage *message)
{
	struct attempt *attempt = context;
	attempt->answered = true;
	return attempt->run->on_response(attempt->run->context, (const Cadre__V1__GenerateResponse *)message);
}

static void stop_client(void *client) { cad_rpc_blocking_interrupt(client); }

static void secret_free(char *secret)
{
	if (secret)
		explicit_bzero(secret, strlen(secret));
	free(secret);
}

/* Another router may do better after these; it would say the same after others. */
static bool is_worth_another(enum cad_rpc_code code)
{
	return code == CAD_RPC_UNAVAILABLE || code == CAD_RPC_RESOURCE_EXHAUSTED || code == CAD_RPC_DEADLINE_EXCEEDED;
}

static const char *path_of(const char *option) { return option && option[0] ? option : NULL; }

/* "Bearer TOKEN" with the file's first token, for secret_free; NULL without a file. */
static enum cad_status read_bearer(const struct cl_access *access, char **bearer, struct cad_error *error)
{
	struct cad_bearers bearers;
	*bearer = NULL;
	if (!path_of(access->token_file))
		return CAD_OK;
	enum cad_status status = cad_bearers_read(access->token_file, &bearers, error);
	if (status != CAD_OK)
		return status;
	if (asprintf(bearer, "Bearer %s", bearers.entries[0].token) < 0) {
		*bearer = NULL;
		status = cad_error_set(error, CAD_ERR_MEMORY, "out of memory for the bearer token");
	}

	cad_bearers_fini(&bearers);
	return status;
}

static enum cad_status ask_router(const struct cl_run *run, const char *router, const char *bearer,
	const Cadre__V1__GenerateRequest *request, bool *again, struct cad_error *error)
{
	struct cad_rpc_blocking *client;
	struct attempt attempt = { .run = run };
	enum cad_rpc_code code;
	const struct cl_access *access = &run->access;
	const struct cad_rpc_tls tls = {
		.certificate = path_of(access->certificate),
		.key = path_of(access->key),
		.authority = path_of(access->authority),
	};
	const struct cad_rpc_metadata metadata = { "authorization", bearer };
	const struct cad_rpc_call_options options = { .metadata = &metadata, .metadata_count = bearer != NULL };

	*again = false;
	enum cad_status status = cad_rpc_blocking_create(router, access->tls ? &tls : NULL, NULL, &client, error);
	if (status != CAD_OK)
		return status;
	cl_on_interrupt(stop_client, client);
	status = cad_rpc_blocking_call(client, GENERATE, &request->base, &cadre__v1__generate_response__descriptor,
		&options, on_message, &attempt, &code, error);
	cl_on_interrupt(NULL, NULL);
	cad_rpc_blocking_destroy(client);
	*again = status != CAD_OK && !attempt.answered && is_worth_another(code) && !cl_interrupted();
	const char *hint = code == CAD_RPC_UNAVAILABLE && !attempt.answered
		? cad_rpc_tls_hint(access->tls ? &tls : NULL, error->text)
		: NULL;
	if (status != CAD_OK && hint)
		return cad_error_set(error, status, "router %s: %s; %s", router, error->text, hint);
	if (status != CAD_OK && code == CAD_RPC_UNAVAILABLE && strstr(error->text, "failed to connect"))
		return cad_error_set(error, status, "router %s: %s; does a router serve there, %s TLS?", router,
			error->text, access->tls ? "with" : "without");
	if (status != CAD_OK && code == CAD_RPC_UNIMPLEMENTED)
		return cad_error_set(
			error, status, "router %s: %s; is that a router's --grpc address?", router, error->text);
	if (status != CAD_OK && code == CAD_RPC_UNAVAILABLE && attempt.answered)
		return cad_error_set(
			error, status, "router %s: %s; the answer is cut off here; ask again", router, error->text);

	return status == CAD_OK ? CAD_OK : cad_error_prefix(error, "router %s", router);
}

enum cad_status cl_run_generate(
	const struct cl_run *run, const Cadre__V1__GenerateRequest *request, char *where, struct cad_error *error)
{
	if (run->model) {
		snprintf(where, CL_WHERE_BYTES, "model %s", run->model);
		return cl_run_embedded(run, request, error);
	}

	const char *at = run->routers;
	char *bearer;
	enum cad_status status = read_bearer(&run->access, &bearer, error);
	if (status != CAD_OK)
		return status;
	status = cad_error_set(error, CAD_ERR_INVALID, "the list of routers is empty");

	for (bool again = true; again && *at;) {
		char router[CL_WHERE_BYTES - 16];
		size_t length = strcspn(at, ",");
		snprintf(router, sizeof router, "%.*s", (int)length, at);
		at += length + (at[length] == ',');
		snprintf(where, CL_WHERE_BYTES, "router %s", router);
		status = ask_router(run, router, bearer, request, &again, error);
		if (again && *at)
			fprintf(stderr, "cadrectl: %s; trying the next\n", error->text);
	}

	secret_free(bearer);
	return status;
}
