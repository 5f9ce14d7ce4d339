/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How commands reach a gRPC server: TLS, a token, and a client that ends with Ctrl-C
 * (command.h). Blocks; one thread.
 */
#ifndef CADRE_ORCHESTRATION_CLI_ACCESS_H
#define CADRE_ORCHESTRATION_CLI_ACCESS_H

#include "common/process/option.h"
#include "common/rpc/blocking.h"

/* Paths; "" or NULL where there is none. */
struct cl_access {
	bool tls; /* with the system's authorities; those below imply it */
	const char *authority, *certificate, *key;
	const char *token_file;
};

/* Lines of an option table; `member` is a struct cl_access inside `owner`. */
#define CL_TLS_OPTIONS(owner, member) \
	CAD_OPTION_BOOL(owner, member.tls, "tls", "false", \
		"gRPC: use TLS, and trust the certificate authorities of this system"), \
		CAD_OPTION_FILE(owner, member.authority, "tls-authority", "", \
			"PEM file of the certificate authority to trust instead; implies --tls"), \
		CAD_OPTION_FILE(owner, member.certificate, "tls-certificate", "", \
			"PEM file with the certificate to present; implies --tls"), \
		CAD_OPTION_FILE(owner, member.key, "tls-key", "", "PEM file with its private key")
#define CL_TOKEN_OPTION(owner, member) \
	CAD_OPTION_FILE(owner, member.token_file, "token-file", "", \
		"file with the bearer token to send; of several, the first is sent")

/* For the `check` of the options. */
CAD_MUST_USE enum cad_status cl_access_check(const struct cl_access *access, struct cad_error *error);
/* For `check_files`: whether they can be used. */
CAD_MUST_USE enum cad_status cl_access_check_files(const struct cl_access *access, struct cad_error *error);
bool cl_access_is_secure(const struct cl_access *access); /* over TLS */

struct cl_client {
	struct cad_rpc_blocking *rpc; /* NULL: closed */
	char *bearer;
	bool secure;
};
CAD_MUST_USE enum cad_status cl_client_open(struct cl_client *client, const char *address,
	const struct cl_access *access, const struct cad_rpc_channel_config *config, struct cad_error *error);
void cl_client_close(struct cl_client *client); /* may be called twice */
/* As cad_rpc_blocking_call, with the token, and with what to change where the address may be wrong.
 * timeout_ms 0: none. */
CAD_MUST_USE enum cad_status cl_client_call(struct cl_client *client, const char *path, const ProtobufCMessage *request,
	const ProtobufCMessageDescriptor *reply, int64_t timeout_ms,
	bool (*on_message)(void *context, const ProtobufCMessage *message), void *context, enum cad_rpc_code *code,
	struct cad_error *error);

/* As cad_rpc_blocking_upload, likewise. */
CAD_MUST_USE enum cad_status cl_client_upload(struct cl_client *client, const char *path,
	const ProtobufCMessage *(*next)(void *context), const ProtobufCMessageDescriptor *reply, int64_t timeout_ms,
	bool (*on_message)(void *context, const ProtobufCMessage *message), void *context, struct cad_error *error);

#endif
