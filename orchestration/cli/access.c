/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/cli/access.h"

#include "common/process/access.h"
#include "common/process/process.h"
#include "orchestration/cli/command.h"

#include <string.h>

static const char *path_of(const char *option) { return option && option[0] ? option : NULL; }

enum cad_status cl_access_check(const struct cl_access *access, struct cad_error *error)
{
	return !path_of(access->certificate) == !path_of(access->key)
		? CAD_OK
		: cad_error_set(error, CAD_ERR_INVALID, "give both --tls-certificate and --tls-key, or neither");
}

static struct cad_tls_files tls_of(const struct cl_access *access)
{
	return (struct cad_tls_files){
		.certificate = path_of(access->certificate),
		.key = path_of(access->key),
		.authority = path_of(access->authority),
	};
}

enum cad_status cl_access_check_files(const struct cl_access *access, struct cad_error *error)
{
	const struct cad_tls_files tls = tls_of(access);
	char *bearer = NULL;
	enum cad_status status = cad_tls_files_check(&tls, error);

	if (status == CAD_OK && path_of(access->token_file))
		status = cad_access_bearer(access->token_file, &bearer, error);
	cad_secret_free(bearer);
	return status;
}

bool cl_access_is_secure(const struct cl_access *access)
{
	return access->tls || path_of(access->authority) || path_of(access->certificate);
}

static void stop_client(void *client) { cad_rpc_blocking_interrupt(client); }

enum cad_status cl_client_open(struct cl_client *client, const char *address, const struct cl_access *access,
	const struct cad_rpc_channel_config *config, struct cad_error *error)
{
	const struct cad_tls_files tls = tls_of(access);
	enum cad_status status = CAD_OK;

	*client = (struct cl_client){ .secure = cl_access_is_secure(access) };
	if (path_of(access->token_file))
		status = cad_access_bearer(access->token_file, &client->bearer, error);
	if (status == CAD_OK)
		status = cad_rpc_blocking_create(address, client->secure ? &tls : NULL, config, &client->rpc, error);
	if (status != CAD_OK) {
		cl_client_close(client);
		return status;
	}

	cl_on_interrupt(stop_client, client->rpc);
	return CAD_OK;
}

void cl_client_close(struct cl_client *client)
{
	if (client->rpc)
		cl_on_interrupt(NULL, NULL);
	cad_rpc_blocking_destroy(client->rpc);
	cad_secret_free(client->bearer);
	*client = (struct cl_client){ .rpc = NULL };
}

/* What the user can change, where an address may be that of somebody else. */
static enum cad_status explain(const struct cl_client *client, const char *path, enum cad_status status,
	enum cad_rpc_code code, struct cad_error *error)
{
	static const char unsaid[] = "UNAVAILABLE: failed to connect"; /* what is known of it would stand before */
	const char *wanted = strstr(path, ".Inference/") ? "router" : "placement service";

	if (strncmp(error->text, unsaid, sizeof unsaid - 1) == 0)
		return cad_error_set(error, status, "%s; does a %s serve there, %s TLS?", error->text, wanted,
			client->secure ? "with" : "without");
	if (code == CAD_RPC_UNIMPLEMENTED)
		return cad_error_set(error, status, "%s; is that a %s's --grpc address?", error->text, wanted);
	return status;
}

static struct cad_rpc_call_options options_of(
	const struct cl_client *client, int64_t timeout_ms, const struct cad_rpc_metadata *header)
{
	return (struct cad_rpc_call_options){
		.timeout_ms = timeout_ms,
		.metadata = header,
		.metadata_count = client->bearer != NULL,
	};
}

enum cad_status cl_client_call(struct cl_client *client, const char *path, const ProtobufCMessage *request,
	const ProtobufCMessageDescriptor *reply, int64_t timeout_ms,
	bool (*on_message)(void *context, const ProtobufCMessage *message), void *context, enum cad_rpc_code *code,
	struct cad_error *error)
{
	const struct cad_rpc_metadata header = { "authorization", client->bearer };
	const struct cad_rpc_call_options options = options_of(client, timeout_ms, &header);
	enum cad_rpc_code ended;
	enum cad_status status =
		cad_rpc_blocking_call(client->rpc, path, request, reply, &options, on_message, context, &ended, error);

	if (code)
		*code = ended;
	return status == CAD_OK ? CAD_OK : explain(client, path, status, ended, error);
}

enum cad_status cl_client_upload(struct cl_client *client, const char *path,
	const ProtobufCMessage *(*next)(void *context), const ProtobufCMessageDescriptor *reply, int64_t timeout_ms,
	bool (*on_message)(void *context, const ProtobufCMessage *message), void *context, struct cad_error *error)
{
	const struct cad_rpc_metadata header = { "authorization", client->bearer };
	const struct cad_rpc_call_options options = options_of(client, timeout_ms, &header);
	enum cad_rpc_code code;
	enum cad_status status =
		cad_rpc_blocking_upload(client->rpc, path, next, reply, &options, on_message, context, &code, error);

	return status == CAD_OK ? CAD_OK : explain(client, path, status, code, error);
}
