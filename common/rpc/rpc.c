/* SPDX-License-Identifier: Apache-2.0 */
/* Status codes. */
#include "common/rpc/rpc.h"

#include <stdlib.h>
#include <string.h>

const char *cad_rpc_code_name(enum cad_rpc_code code)
{
	switch (code) {
#define X(name, value) \
	case CAD_RPC_##name: return #name;
		CAD_RPC_CODE_LIST(X)
#undef X
	}
	return "UNKNOWN";
}

enum cad_rpc_code cad_rpc_code_of_status(enum cad_status status)
{
	switch (status) {
	case CAD_OK:
	case CAD_AGAIN:
	case CAD_FULL: return CAD_RPC_OK;
	case CAD_ERR_INVALID:
	case CAD_ERR_RANGE: return CAD_RPC_INVALID_ARGUMENT;
	case CAD_ERR_NOT_FOUND: return CAD_RPC_NOT_FOUND;
	case CAD_ERR_EXHAUSTED:
	case CAD_ERR_MEMORY: return CAD_RPC_RESOURCE_EXHAUSTED;
	case CAD_ERR_DEADLINE: return CAD_RPC_DEADLINE_EXCEEDED;
	case CAD_ERR_CANCELLED: return CAD_RPC_CANCELLED;
	case CAD_ERR_CORRUPT: return CAD_RPC_DATA_LOSS;
	case CAD_ERR_UNSUPPORTED: return CAD_RPC_UNIMPLEMENTED;
	case CAD_ERR_PEER_LOST:
	case CAD_ERR_UNREACHABLE: return CAD_RPC_UNAVAILABLE;
	case CAD_ERR_REFUSED: return CAD_RPC_FAILED_PRECONDITION;
	case CAD_ERR_NOT_FINITE:
	case CAD_ERR_PROTOCOL:
	case CAD_ERR_IO:
	case CAD_ERR_INTERNAL: return CAD_RPC_INTERNAL;
	}

	return CAD_RPC_UNKNOWN;
}

enum cad_status cad_rpc_status_of_code(enum cad_rpc_code code)
{
	switch (code) {
	case CAD_RPC_OK: return CAD_OK;
	case CAD_RPC_CANCELLED: return CAD_ERR_CANCELLED;
	case CAD_RPC_INVALID_ARGUMENT: return CAD_ERR_INVALID;
	case CAD_RPC_DEADLINE_EXCEEDED: return CAD_ERR_DEADLINE;
	case CAD_RPC_NOT_FOUND: return CAD_ERR_NOT_FOUND;
	case CAD_RPC_RESOURCE_EXHAUSTED: return CAD_ERR_EXHAUSTED;
	case CAD_RPC_OUT_OF_RANGE: return CAD_ERR_RANGE;
	case CAD_RPC_UNIMPLEMENTED: return CAD_ERR_UNSUPPORTED;
	case CAD_RPC_UNAVAILABLE: return CAD_ERR_UNREACHABLE;
	case CAD_RPC_DATA_LOSS: return CAD_ERR_CORRUPT;
	case CAD_RPC_ALREADY_EXISTS:
	case CAD_RPC_PERMISSION_DENIED:
	case CAD_RPC_FAILED_PRECONDITION:
	case CAD_RPC_ABORTED:
	case CAD_RPC_UNAUTHENTICATED: return CAD_ERR_REFUSED;
	case CAD_RPC_UNKNOWN:
	case CAD_RPC_INTERNAL: return CAD_ERR_INTERNAL;
	}

	return CAD_ERR_INTERNAL;
}
