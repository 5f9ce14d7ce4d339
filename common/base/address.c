/* SPDX-License-Identifier: Apache-2.0 */
#include "common/base/address.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of names, and of IPv6 addresses with an interface, which stand in brackets. */
#define HOST_CHARACTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_:%"

static enum cad_status give_both(const char *text, struct cad_error *error)
{
	return cad_error_set(error, CAD_ERR_INVALID, "'%.80s' is not an address: give HOST:PORT", text);
}

/* "::1:7000" is most likely port 7000 of ::1. */
static enum cad_status give_brackets(const char *text, size_t host_bytes, struct cad_error *error)
{
	char host[INET6_ADDRSTRLEN];
	struct in6_addr v6;

	snprintf(host, sizeof host, "%.*s", (int)(host_bytes < sizeof host ? host_bytes : 0), text);
	if (inet_pton(AF_INET6, host, &v6) == 1)
		return cad_error_set(error, CAD_ERR_INVALID,
			"'%.80s' is not an address: an IPv6 address needs brackets: write [%s]%.6s", text, host,
			text + host_bytes);
	return cad_error_set(error, CAD_ERR_INVALID,
		"'%.80s' is not an address: an IPv6 address needs brackets, like [::1]:7000", text);
}

enum cad_status cad_address_parse(const char *text, struct cad_address *address, struct cad_error *error)
{
	bool v6 = *text == '[';
	const char *host = text + v6, *end = v6 ? strchr(host, ']') : strrchr(text, ':'),
		   *port = end ? end + v6 + 1 : NULL;

	if (!end || (v6 && end[1] != ':') || *port == 0)
		return give_both(text, error);

	size_t host_bytes = (size_t)(end - host), port_bytes = strlen(port);
	if (!v6 && memchr(host, ':', host_bytes))
		return give_brackets(text, host_bytes, error);
	if (strspn(port, "0123456789") != port_bytes || port_bytes >= sizeof address->port_text ||
		strtoul(port, NULL, 10) > UINT16_MAX)
		return cad_error_set(error, CAD_ERR_INVALID,
			"'%.80s' is not an address: a port is a number from 0 to %d", text, UINT16_MAX);
	if (host_bytes == 0)
		return give_both(text, error);
	if (strspn(host, HOST_CHARACTERS) < host_bytes)
		return cad_error_set(error, CAD_ERR_INVALID,
			"'%.80s' is not an address: a host has letters, digits and . - _ only", text);
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

static bool starts_with(const char **text, const char *prefix)
{
	size_t size = strlen(prefix);
	if (strncmp(*text, prefix, size) != 0)
		return false;
	*text += size;
	return true;
}

static int hex_value(char digit)
{
	static const char digits[] = "0123456789abcdef";
	const char *at = digit ? strchr(digits, digit | 0x20) : NULL;
	return at ? (int)(at - digits) : -1;
}

void cad_address_of_peer(const char *peer, char *text, size_t bytes)
{
	bool escaped = starts_with(&peer, "ipv4:") || starts_with(&peer, "ipv6:");
	size_t size = 0;

	while (*peer && size + 1 < bytes) {
		bool hex = escaped && peer[0] == '%' && hex_value(peer[1]) >= 0 && hex_value(peer[2]) >= 0;
		text[size++] = hex ? (char)(hex_value(peer[1]) * 16 + hex_value(peer[2])) : *peer;
		peer += hex ? 3 : 1;
	}
	text[size] = 0;
}

void cad_address_host(const char *address, char host[CAD_ADDRESS_HOST_BYTES])
{
	struct cad_address parts;
	struct cad_error ignored;
	snprintf(host, CAD_ADDRESS_HOST_BYTES, "%s",
		cad_address_parse(address, &parts, &ignored) == CAD_OK ? parts.host : address);
}

bool cad_address_is_complete(const char *address)
{
	struct cad_address parts;
	struct cad_error ignored;
	if (starts_with(&address, "unix:") || starts_with(&address, "unix-abstract:"))
		return *address != 0;
	return cad_address_parse(address, &parts, &ignored) == CAD_OK;
}

bool cad_address_is_loopback(const char *address)
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

enum cad_status cad_address_option(const char *option, const char *address, struct cad_error *error)
{
	struct cad_address ignored;
	if (!*address || cad_address_is_complete(address) || cad_address_parse(address, &ignored, error) == CAD_OK)
		return CAD_OK;
	return cad_error_prefix(error, "--%s", option);
}
