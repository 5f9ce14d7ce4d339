/* SPDX-License-Identifier: Apache-2.0 */
#include "common/base/address.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum cad_status cad_address_parse(const char *text, struct cad_address *address, struct cad_error *error)
{
	bool v6 = *text == '[';
	const char *host = text + v6, *end = v6 ? strchr(host, ']') : strrchr(text, ':'),
		   *port = end ? end + v6 + 1 : NULL;

	if (!end || end == host || (v6 && end[1] != ':') || *port == 0)
		return cad_error_set(error, CAD_ERR_INVALID, "'%s' is not an address: give host:port", text);

	if (!v6 && memchr(host, ':', (size_t)(end - host)))
		return cad_error_set(error, CAD_ERR_INVALID,
			"'%s' is not an address: an IPv6 address needs brackets, like [::1]:7000", text);
	size_t host_bytes = (size_t)(end - host), port_bytes = strlen(port);
	if (strspn(port, "0123456789") != port_bytes || port_bytes >= sizeof address->port_text ||
		strtoul(port, NULL, 10) > UINT16_MAX)
		return cad_error_set(error, CAD_ERR_INVALID, "'%s' is not an address: a port is a number from 0 to %d",
			text, UINT16_MAX);
	if (host_bytes >= CAD_ADDRESS_HOST_BYTES)
		return cad_error_set(error, CAD_ERR_INVALID,
			"'%.40s...' is not an address: a host has at most %d characters", text,
			CAD_ADDRESS_HOST_BYTES - 1);
	*address = (struct cad_address){ .port = (uint16_t)strtoul(port, NULL, 10), .v6 = v6 };
	memcpy(address->host, host, host_bytes);
	memcpy(address->port_text, port, port_bytes);

	return CAD_OK;
}

void cad_address_taken(const char *text, uint16_t port, char *out, size_t bytes)
{
	struct cad_address address;
	struct cad_error ignored;
	if (cad_address_parse(text, &address, &ignored) == CAD_OK)
		snprintf(out, bytes, address.v6 ? "[%s]:%u" : "%s:%u", address.host, port);
	else
		snprintf(out, bytes, "%s", text);
}
