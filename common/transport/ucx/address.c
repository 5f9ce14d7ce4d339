/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses of the exchange: UCX 1.13 speaks IPv4 alone, and its TCP uses the first address of an
 * interface, whatever address the listener has. */
#include "common/transport/ucx/internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ADDRESS_TEXT_BYTES = INET_ADDRSTRLEN, INTERFACES_TEXT_BYTES = 256 };

static struct in_addr ipv4_of(const void *address) { return ((const struct sockaddr_in *)address)->sin_addr; }

enum cad_status cad_ucx_address_parse(
	const char *text, struct sockaddr_storage *address, socklen_t *bytes, struct cad_error *error)
{
	struct cad_address parts;
	enum cad_status status = cad_address_parse(text, &parts, error);

	if (status != CAD_OK)
		return status;

	if (parts.v6)
		return cad_error_set(
			error, CAD_ERR_INVALID, "'%s' is not an address for the exchange: it speaks only IPv4", text);
	struct addrinfo hints = { .ai_family = AF_INET, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV },
			*found;
	int problem = getaddrinfo(parts.host, parts.port_text, &hints, &found);
	if (problem != 0)
		return cad_error_set(error, CAD_ERR_INVALID, "'%s' is not an address: %s", text, gai_strerror(problem));
	memcpy(address, found->ai_addr, found->ai_addrlen);
	*bytes = found->ai_addrlen;
	freeaddrinfo(found);

	return CAD_OK;
}

/* ---- interfaces ---- */

static bool is_ipv4(const struct ifaddrs *at) { return at->ifa_addr && at->ifa_addr->sa_family == AF_INET; }

/* The interface to which an address belongs, all of 127.0.0.0/8 to the loopback one; NULL: none
 * here. */
static const struct ifaddrs *interface_of(const struct ifaddrs *list, struct in_addr address)
{
	for (const struct ifaddrs *at = list; at; at = at->ifa_next)
		if (is_ipv4(at) && ipv4_of(at->ifa_addr).s_addr == address.s_addr)
			return at;
	for (const struct ifaddrs *at = list; at; at = at->ifa_next)
		if (is_ipv4(at) && (at->ifa_flags & IFF_LOOPBACK) &&
			((ipv4_of(at->ifa_addr).s_addr ^ address.s_addr) & ipv4_of(at->ifa_netmask).s_addr) == 0)
			return at;
	return NULL;
}

/* "eth0:1" is a name for one more address of eth0. */
static bool same_interface(const char *a, const char *b)
{
	size_t size = strcspn(a, ":");
	return size == strcspn(b, ":") && memcmp(a, b, size) == 0;
}

/* The kernel lists an interface's first address first. */
static struct in_addr first_address(const struct ifaddrs *list, const char *name)
{
	const struct ifaddrs *at = list;
	while (!is_ipv4(at) || !same_interface(at->ifa_name, name))
		at = at->ifa_next;
	return ipv4_of(at->ifa_addr);
}

/* "lo 127.0.0.1, eth0 192.0.2.7" */
static void interfaces_text(const struct ifaddrs *list, char text[INTERFACES_TEXT_BYTES])
{
	size_t size = 0;
	text[0] = 0;
	for (const struct ifaddrs *at = list; at && size < INTERFACES_TEXT_BYTES; at = at->ifa_next) {
		char address[ADDRESS_TEXT_BYTES];
		if (!is_ipv4(at) || ipv4_of(at->ifa_addr).s_addr != first_address(list, at->ifa_name).s_addr)
			continue;
		inet_ntop(AF_INET, &((const struct sockaddr_in *)(const void *)at->ifa_addr)->sin_addr, address,
			sizeof address);
		size += (size_t)snprintf(text + size, INTERFACES_TEXT_BYTES - size, "%s%s %s", size > 0 ? ", " : "",
			at->ifa_name, address);
	}
}

/* Whether UCX may use an interface. True when in doubt: the names of RDMA devices say nothing about
 * interfaces. */
static bool devices_allow(const char *devices, const char *interface)
{
	const char *name = devices;
	for (size_t size; *name; name += size + (name[size] == ',')) {
		char device[IF_NAMESIZE];
		size = strcspn(name, ",");
		snprintf(device, sizeof device, "%.*s", (int)size, name);
		if (same_interface(device, interface) || size >= sizeof device || if_nametoindex(device) == 0)
			return true;
	}
	return false;
}

static enum cad_status interface_check(const struct ifaddrs *list, const char *text, struct in_addr address,
	const char *devices, struct cad_error *error)
{
	char first_text[ADDRESS_TEXT_BYTES], interfaces[INTERFACES_TEXT_BYTES];
	const struct ifaddrs *interface = interface_of(list, address);

	if (!interface) {
		interfaces_text(list, interfaces);
		return cad_error_set(error, CAD_ERR_INVALID,
			"the exchange cannot listen on '%s': no interface of this machine has that address; listen on one of these: %s",
			text, interfaces);
	}

	struct in_addr first = first_address(list, interface->ifa_name);
	if (first.s_addr != address.s_addr) {
		inet_ntop(AF_INET, &first, first_text, sizeof first_text);
		return cad_error_set(error, CAD_ERR_INVALID,
			"the exchange cannot listen on '%s': UCX uses only the first address of an interface, and that of '%s' is %s; listen on that one",
			text, interface->ifa_name, first_text);
	}

	if (!devices_allow(devices, interface->ifa_name))
		return cad_error_set(error, CAD_ERR_INVALID,
			"the exchange cannot listen on '%s': that is an address of '%s', and UCX may use only '%s'; set --ucx-devices or UCX_NET_DEVICES to '%s'",
			text, interface->ifa_name, devices, interface->ifa_name);
	return CAD_OK;
}

enum cad_status cad_ucx_address_check(
	const char *text, const struct sockaddr_storage *address, const char *devices, struct cad_error *error)
{
	struct ifaddrs *list;
	struct in_addr ipv4 = ipv4_of(address);
	if (ipv4.s_addr == htonl(INADDR_ANY) || getifaddrs(&list) != 0)
		return CAD_OK;
	enum cad_status status = interface_check(list, text, ipv4, devices, error);
	freeifaddrs(list);
	return status;
}

const char *cad_ucx_address_problem(const struct sockaddr_storage *address)
{
	const char *problem = "UCX gives no reason that is known here";
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	if (fd < 0)
		return strerror(errno);

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(fd, (const struct sockaddr *)address, sizeof(struct sockaddr_in)) != 0 || listen(fd, 1) != 0)
		problem = strerror(errno);
	close(fd);
	return problem;
}
