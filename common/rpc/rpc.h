/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gRPC for Cadre: what the server, the client and the event loop share.
 *
 * Transport is the C surface of gRPC core, messages are protobuf-c, events run on a libuv loop.
 * Only the files in common/rpc/ include gRPC's own headers (by internal.h); everybody else includes
 * server.h, client.h or blocking.h and sees none of it.
 *
 * THE OWNERSHIP RULE. A reactor (reactor.h) has one owner thread: the one that calls
 * cad_rpc_reactor_run. Every server, channel and call belongs to one reactor; every function that
 * takes one of them runs on the owner thread, and every callback runs there too, so handlers need
 * no locks and must not block. From any other thread only cad_rpc_post and cad_rpc_wakeup_send may
 * be called.
 * The functions of this header may be called from any thread; none blocks or allocates.
 */
#ifndef CADRE_COMMON_RPC_RPC_H
#define CADRE_COMMON_RPC_RPC_H

#include "common/base/status.h"
#include "common/process/tls_files.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The status codes of gRPC, equal in value. */
#define CAD_RPC_CODE_LIST(X) \
	X(OK, 0) \
	X(CANCELLED, 1) \
	X(UNKNOWN, 2) \
	X(INVALID_ARGUMENT, 3) \
	X(DEADLINE_EXCEEDED, 4) \
	X(NOT_FOUND, 5) \
	X(ALREADY_EXISTS, 6) \
	X(PERMISSION_DENIED, 7) \
	X(RESOURCE_EXHAUSTED, 8) \
	X(FAILED_PRECONDITION, 9) \
	X(ABORTED, 10) \
	X(OUT_OF_RANGE, 11) \
	X(UNIMPLEMENTED, 12) \
	X(INTERNAL, 13) \
	X(UNAVAILABLE, 14) \
	X(DATA_LOSS, 15) \
	X(UNAUTHENTICATED, 16)

enum cad_rpc_code {
#define X(name, value) CAD_RPC_##name = (value),
	CAD_RPC_CODE_LIST(X)
#undef X
};

/* "INVALID_ARGUMENT"; "UNKNOWN" for a value outside the list. */
const char *cad_rpc_code_name(enum cad_rpc_code code);
/* The code that reports a status to a gRPC client, and the status that a client derives from a
 * code. */
enum cad_rpc_code cad_rpc_code_of_status(enum cad_status status);
enum cad_status cad_rpc_status_of_code(enum cad_rpc_code code);

/* Something that happens on the owner thread. Embed it and set `run`. It is in flight at most once
 * at a time, and its memory stays valid until `run` is called; `run` may free it. `ok` is true for
 * posted events (cad_rpc_post). */
struct cad_rpc_event {
	void (*run)(struct cad_rpc_event *event, bool ok);
};

#endif
