#include "orchestration/cli/run.h"

#include "common/rpc_client.h"
#include "orchestration/cli/command.h"

#include <stdio.h>
#include <string.h>

#define GENERATE "/cadre.v1.Inference/Generate"

struct attempt {
	const struct cl_run *run;
	bool answered;               /* a message came: this router it is, for better or worse */
};

static bool on_message(void *context, const ProtobufCMessage *message)
{
	struct attempt *attempt = context;
	attempt->answered = true;
	return attempt->run->on_response(attempt->run->context, (const Cadre__V1__GenerateResponse *)message);
}

static void stop_client(void *client)
{
	cad_rpc_blocking_interrupt(client);
}

/* Another router may do better after these; it would say the same after others. */
static bool is_worth_another(enum cad_rpc_code code)
{
	return code == CAD_RPC_UNAVAILABLE || code == CAD_RPC_RESOURCE_EXHAUSTED || code == CAD_RPC_DEADLINE_EXCEEDED;
}

static enum cad_status ask_router(const struct cl_run *run, const char *router, const Cadre__V1__GenerateRequest *request, bool *again, struct cad_error *error)
{
	struct cad_rpc_blocking *client;
	struct attempt attempt = { .run = run };
	enum cad_rpc_code code;
	*again = false;
	enum cad_status status = cad_rpc_blocking_create(router, NULL, NULL, &client, error);
	if (status != CAD_OK)
		return status;
	cl_on_interrupt(stop_client, client);
	status = cad_rpc_blocking_call(client, GENERATE, &request->base, &cadre__v1__generate_response__descriptor, NULL, on_message, &attempt, &code, error);
	cl_on_interrupt(NULL, NULL);
	cad_rpc_blocking_destroy(client);
	*again = status != CAD_OK && !attempt.answered && is_worth_another(code) && !cl_interrupted();
	return status == CAD_OK ? CAD_OK : cad_error_prefix(error, "router %s", router);
}

enum cad_status cl_run_generate(const struct cl_run *run, const Cadre__V1__GenerateRequest *request, char *where, struct cad_error *error)
{
	if (run->model) {
		snprintf(where, CL_WHERE_BYTES, "model %s", run->model);
		return cl_run_embedded(run, request, error);
	}
	enum cad_status status = cad_error_set(error, CAD_ERR_INVALID, "the list of routers is empty");
	const char *at = run->routers;
	for (bool again = true; again && *at;) {
		char router[CL_WHERE_BYTES - 16];
		size_t length = strcspn(at, ",");
		if (length == 0 || length >= sizeof router)
			return cad_error_set(error, CAD_ERR_INVALID, "'%.80s' is no list of routers: HOST:PORT, with commas between", run->routers);
		memcpy(router, at, length);
		router[length] = 0;
		at += length + (at[length] == ',');
		snprintf(where, CL_WHERE_BYTES, "router %s", router);
		status = ask_router(run, router, request, &again, error);
		if (again && *at)
			fprintf(stderr, "cadrectl: %s; trying the next\n", error->text);
	}
	return status;
}
