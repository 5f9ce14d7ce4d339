/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/cli/operate.h"

#include "common/base/address.h"
#include "common/base/clock.h"

#include <string.h>

enum { TIMEOUT_MS = 10000, UPLOAD_TIMEOUT_MS = 300000, AWAY_S_MAX = 120 };

enum cad_status cl_placement_check(const void *values, struct cad_error *error)
{
	const struct cl_placement *placement = values;
	enum cad_status status = cl_access_check(&placement->access, error);
	return status == CAD_OK ? cad_address_option("placement", placement->address, error) : status;
}

enum cad_status cl_placement_check_files(const void *values, struct cad_error *error)
{
	return cl_access_check_files(&((const struct cl_placement *)values)->access, error);
}

enum cad_status cl_change_check(const void *values, struct cad_error *error)
{
	const struct cl_change *change = values;
	return strlen(change->reason) <= CL_REASON_BYTES_MAX
		? cl_placement_check(&change->placement, error)
		: cad_error_set(error, CAD_ERR_INVALID, "--reason has %zu bytes; at most %d are kept",
			  strlen(change->reason), CL_REASON_BYTES_MAX);
}

Cadre__V1__Change *cl_change_to_proto(const struct cl_change *change, Cadre__V1__Change *message)
{
	cadre__v1__change__init(message);
	message->dry_run = change->dry_run;
	message->reason = (char *)change->reason;
	return message;
}

/* ---- several calls ---- */

enum cad_status cl_session_open(
	struct cl_session *session, const struct cl_placement *placement, struct cad_error *error)
{
	struct cl_access access = placement->access;

	*session = (struct cl_session){ .address = placement->address };
	enum cad_status status = placement->address[0]
		? CAD_OK
		: cl_cluster_placement(&session->cluster, &session->address, &access, error);
	if (status == CAD_OK)
		status = cl_client_open(&session->client, session->address, &access, NULL, error);
	if (status != CAD_OK)
		cl_session_close(session);
	return status;
}

enum cad_status cl_session_call(struct cl_session *session, const char *method, const ProtobufCMessage *request,
	const ProtobufCMessageDescriptor *reply, bool (*on_message)(void *context, const ProtobufCMessage *message),
	void *context, enum cad_rpc_code *code, struct cad_error *error)
{
	enum cad_status status =
		cl_client_call(&session->client, method, request, reply, TIMEOUT_MS, on_message, context, code, error);
	return status == CAD_OK ? CAD_OK : cad_error_prefix(error, "placement service %s", session->address);
}

bool cl_session_is_away(enum cad_rpc_code code, uint64_t heard_ns)
{
	return !cl_interrupted() && (code == CAD_RPC_UNAVAILABLE || code == CAD_RPC_DEADLINE_EXCEEDED) &&
		cad_clock_now_ns(&cad_clock_system) <= heard_ns + AWAY_S_MAX * CAD_NS_PER_S;
}

enum cad_status cl_session_upload(struct cl_session *session, const char *method,
	const ProtobufCMessage *(*next)(void *context), const ProtobufCMessageDescriptor *reply,
	bool (*on_message)(void *context, const ProtobufCMessage *message), void *context, struct cad_error *error)
{
	enum cad_status status =
		cl_client_upload(&session->client, method, next, reply, UPLOAD_TIMEOUT_MS, on_message, context, error);
	return status == CAD_OK ? CAD_OK : cad_error_prefix(error, "placement service %s", session->address);
}

int cl_session_fail(
	const struct cl_session *session, const char *command, enum cad_status status, const struct cad_error *error)
{
	if (status != CAD_ERR_NOT_FOUND || session->client.rpc)
		return cl_fail(command, error);
	cl_line(stderr, "cadrectl %s: %s", command, error->text); /* where the placement service is */
	return CL_EXIT_USAGE;
}

void cl_session_close(struct cl_session *session)
{
	cl_client_close(&session->client);
	cl_cluster_fini(&session->cluster);
}

/* ---- one call ---- */

int cl_placement_ask(const char *command, const struct cl_placement *placement, const char *method,
	const ProtobufCMessage *request, const ProtobufCMessageDescriptor *reply,
	bool (*on_message)(void *context, const ProtobufCMessage *message), void *context)
{
	struct cl_session session;
	struct cad_error error;
	int exit_code = CL_EXIT_OK;
	enum cad_status status = cl_session_open(&session, placement, &error);

	if (status == CAD_OK)
		status = cl_session_call(&session, method, request, reply, on_message, context, NULL, &error);
	if (status != CAD_OK)
		exit_code = cl_session_fail(&session, command, status, &error);
	cl_session_close(&session);
	return exit_code;
}
