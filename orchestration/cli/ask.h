/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asking one process how it is, over its HTTP port or its gRPC port: for `cadrectl health` and
 * `cadrectl wait`. Blocks; one thread; Ctrl-C ends it (command.h).
 */
#ifndef CADRE_ORCHESTRATION_CLI_ASK_H
#define CADRE_ORCHESTRATION_CLI_ASK_H

#include "common/base/address.h"
#include "common/process/option.h"
#include "orchestration/cli/access.h"

enum cl_question {
	CL_IS_ALIVE,  /* /healthz; over gRPC: whether it answers */
	CL_IS_READY,  /* /readyz; over gRPC: whether it is SERVING */
	CL_GENERATES, /* /readyz?generate, of a router; HTTP alone */
};

/* Which process, and how it is reached. */
struct cl_process {
	const char *http, *grpc; /* HOST:PORT; "" where not given; with both, HTTP is asked (CL_PROCESS_RIVALS) */
	const char *cluster_network;
	char http_text[CAD_ADDRESS_BYTES], grpc_text[CAD_ADDRESS_BYTES]; /* those that got a host here */
	struct cl_access access;
};

/* Lines of an option table; `member` is a struct cl_process inside `owner`. */
#define CL_PROCESS_OPTIONS(owner, member) \
	CAD_OPTION_STRING(owner, member.http, "http", "", \
		"[HOST]:PORT of the process's HTTP port; it is asked unless another address is given more strongly"), \
		CAD_OPTION_STRING(owner, member.grpc, "grpc", "", \
			"[HOST]:PORT where it serves gRPC; asked where --http is not given, or given less strongly"), \
		CAD_OPTION_STRING(owner, member.cluster_network, "cluster-network", "", \
			"INTERFACE or ADDRESS/BITS: this machine's address there is the HOST where --http and --grpc have none, as for the process itself; empty: loopback"), \
		CL_TLS_OPTIONS(owner, member.access)

/* For the `rivals` of the options: a flag wins over what a container's environment says. */
#define CL_PROCESS_RIVALS "http", "grpc"

/* For the `check` of the options. */
CAD_MUST_USE enum cad_status cl_process_check(const struct cl_process *process, struct cad_error *error);
/* Gives a host to addresses that have none: `process` may be copied then, as long as it stays. */
CAD_MUST_USE enum cad_status cl_process_resolve(struct cl_process *process, struct cad_error *error);
/* What to call it: the address that is asked. */
const char *cl_process_name(const struct cl_process *process);

/* A client for several questions over gRPC; closed for a process that is asked over HTTP. */
CAD_MUST_USE enum cad_status cl_process_open(
	const struct cl_process *process, struct cl_client *client, struct cad_error *error);

/* CAD_OK: yes. CAD_AGAIN: it answered, and the answer is no: the sentence says why. A failure: it
 * did not answer. */
CAD_MUST_USE enum cad_status cl_process_ask(const struct cl_process *process, struct cl_client *client,
	enum cl_question question, uint32_t timeout_ms, struct cad_error *error);

#endif
