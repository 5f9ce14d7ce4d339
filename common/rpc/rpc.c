/* SPDX-License-Identifier: Apache-2.0 */
/* Status codes, and which addresses are loopback. */
#include "common/rpc/rpc.h"

#include "common/base/address.h"

#include <arpa/inet.h>
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

static bool starts_with(const char **text, const char *prefix)
{
	size_t size = strlen(prefix);
	if (strncmp(*text, prefix, size) != 0)
		return false;
	*text += size;
	return true;
}

bool cad_rpc_address_is_complete(const char *address)
{
	struct cad_address parts;
	struct cad_error ignored;
	if (starts_with(&address, "unix:") || starts_with(&address, "unix-abstract:"))
		return *address != 0;
	return cad_address_parse(address, &parts, &ignored) == CAD_OK;
}

bool cad_rpc_address_is_loopback(const char *address)
{
	if (starts_with(&address, "unix:") || starts_with(&address, "unix-abstract:"))
		return true;

	if (!starts_with(&address, "ipv4:") && !starts_with(&address, "ipv6:") && !starts_with(&address, "dns:///"))
		starts_with(&address, "dns:");
	struct cad_address parts;
	struct cad_error ignored;

	/* gRPC takes a host alone, too */
	const char *host = cad_address_parse(address, &parts, &ignored) == CAD_OK ? parts.host : address;
	struct in_addr v4;
	struct in6_addr v6;
	if (inet_pton(AF_INET, host, &v4) == 1)
		return ntohl(v4.s_addr) >> 24 == 127;
	if (inet_pton(AF_INET6, host, &v6) == 1)
		return IN6_IS_ADDR_LOOPBACK(&v6) || (IN6_IS_ADDR_V4MAPPED(&v6) && v6.s6_addr[12] == 127);
	return strcmp(host, "localhost") == 0;
}
