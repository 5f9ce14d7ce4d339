/* SPDX-License-Identifier: Apache-2.0 */
#include "common/base/network.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- addresses ---- */

bool cad_ip_of_text(const char *host, union cad_ip *ip)
{
	*ip = (union cad_ip){ .v4.sin_family = AF_INET };
	if (inet_pton(AF_INET, host, &ip->v4.sin_addr) == 1)
		return true;
	*ip = (union cad_ip){ .v6.sin6_family = AF_INET6 };
	return inet_pton(AF_INET6, host, &ip->v6.sin6_addr) == 1;
}

static const uint8_t *ip_bytes(const union cad_ip *ip)
{
	return ip->any.sa_family == AF_INET ? (const uint8_t *)&ip->v4.sin_addr : ip->v6.sin6_addr.s6_addr;
}

static unsigned ip_bits(const union cad_ip *ip) { return ip->any.sa_family == AF_INET ? 32 : 128; }

void cad_ip_text(const union cad_ip *ip, char text[INET6_ADDRSTRLEN])
{
	inet_ntop(ip->any.sa_family, ip_bytes(ip), text, INET6_ADDRSTRLEN);
}

/* In the first so many bits. */
static bool ip_alike(const union cad_ip *a, const union cad_ip *b, unsigned bits)
{
	const uint8_t *x = ip_bytes(a), *y = ip_bytes(b);
	return a->any.sa_family == b->any.sa_family && memcmp(x, y, bits / 8) == 0 &&
		(bits % 8 == 0 || (x[bits / 8] ^ y[bits / 8]) >> (8 - bits % 8) == 0);
}

bool cad_ip_equal(const union cad_ip *a, const union cad_ip *b) { return ip_alike(a, b, ip_bits(a)); }

/* ---- interfaces ---- */

const union cad_ip *cad_interface_ip(const struct ifaddrs *at)
{
	const union cad_ip *ip = (const union cad_ip *)(const void *)at->ifa_addr;
	return ip && (ip->any.sa_family == AF_INET || ip->any.sa_family == AF_INET6) ? ip : NULL;
}

bool cad_interface_is(const char *a, const char *b)
{
	size_t size = strcspn(a, ":");
	return size == strcspn(b, ":") && memcmp(a, b, size) == 0;
}

/* NULL: none, or one that is good on one link alone. */
static const union cad_ip *ip_of_network(const struct ifaddrs *at)
{
	const union cad_ip *ip = cad_interface_ip(at);
	return ip && (ip->any.sa_family == AF_INET || !IN6_IS_ADDR_LINKLOCAL(&ip->v6.sin6_addr)) ? ip : NULL;
}

const union cad_ip *cad_interface_first(const struct ifaddrs *list, const char *name, sa_family_t family)
{
	for (const struct ifaddrs *at = list; at; at = at->ifa_next) {
		const union cad_ip *ip = ip_of_network(at);
		if (ip && ip->any.sa_family == family && cad_interface_is(at->ifa_name, name))
			return ip;
	}
	return NULL;
}

void cad_interfaces_text(const struct ifaddrs *list, char text[CAD_INTERFACES_TEXT_BYTES])
{
	size_t size = 0;
	text[0] = 0;
	for (const struct ifaddrs *at = list; at && size < CAD_INTERFACES_TEXT_BYTES; at = at->ifa_next) {
		const union cad_ip *ip = ip_of_network(at);
		char address[INET6_ADDRSTRLEN];
		if (!ip || cad_interface_first(list, at->ifa_name, ip->any.sa_family) != ip)
			continue;
		cad_ip_text(ip, address);
		size += (size_t)snprintf(text + size, CAD_INTERFACES_TEXT_BYTES - size, "%s%s %s", size > 0 ? ", " : "",
			at->ifa_name, address);
	}
}

bool cad_address_is_here(const char *host)
{
	union cad_ip ip;
	struct ifaddrs *list;

	if (!cad_ip_of_text(host, &ip))
		return false;
	bool here = ip.any.sa_family == AF_INET && ntohl(ip.v4.sin_addr.s_addr) >> 24 == 127;
	if (here || getifaddrs(&list) != 0)
		return here;

	for (const struct ifaddrs *at = list; at && !here; at = at->ifa_next) {
		const union cad_ip *own = cad_interface_ip(at);
		here = own && cad_ip_equal(own, &ip);
	}

	freeifaddrs(list);
	return here;
}

/* ---- the network of a cluster ---- */

static enum cad_status not_found(
	const struct ifaddrs *list, const char *text, const char *what, struct cad_error *error)
{
	char interfaces[CAD_INTERFACES_TEXT_BYTES];
	cad_interfaces_text(list, interfaces);
	return cad_error_set(
		error, CAD_ERR_INVALID, "'%.80s': %s; the interfaces of this machine: %s", text, what, interfaces);
}

static enum cad_status by_name(
	const struct ifaddrs *list, const char *name, const union cad_ip **found, struct cad_error *error)
{
	if (strchr(name, ':')) /* at most the label of one more address */
		return not_found(list, name, "there is no such interface", error);

	*found = cad_interface_first(list, name, AF_INET);
	if (!*found)
		*found = cad_interface_first(list, name, AF_INET6);
	if (*found)
		return CAD_OK;
	return not_found(list, name,
		if_nametoindex(name) > 0 ? "this interface has no address of a network" : "there is no such interface",
		error);
}

static enum cad_status by_subnet(const struct ifaddrs *list, const char *text, const union cad_ip *subnet,
	unsigned bits, const union cad_ip **found, struct cad_error *error)
{
	const char *interface = NULL;
	char what[2 * IF_NAMESIZE + 80];

	for (const struct ifaddrs *at = list; at; at = at->ifa_next) {
		const union cad_ip *ip = ip_of_network(at);
		if (!ip || !ip_alike(ip, subnet, bits))
			continue;
		if (!interface) {
			interface = at->ifa_name;
			*found = ip;
		} else if (!cad_interface_is(at->ifa_name, interface)) {
			snprintf(what, sizeof what,
				"%s and %s both have an address in there, so name the one that is meant", interface,
				at->ifa_name);
			return not_found(list, text, what, error);
		}
	}
	return interface ? CAD_OK : not_found(list, text, "no interface has an address in there", error);
}

/* "10.0.0.0/8". False: no such thing, but perhaps an interface. */
static bool is_subnet(const char *text, union cad_ip *ip, const char **bits)
{
	char host[INET6_ADDRSTRLEN];
	const char *slash = strchr(text, '/');
	if (!slash)
		return false;
	snprintf(host, sizeof host, "%.*s", (int)(slash - text), text);
	*bits = slash + 1;
	return (size_t)(slash - text) < sizeof host && cad_ip_of_text(host, ip);
}

static enum cad_status find(
	const struct ifaddrs *list, const char *text, const union cad_ip **found, struct cad_error *error)
{
	union cad_ip subnet;
	const char *bits = NULL;

	if (cad_ip_of_text(text, &subnet))
		return cad_error_set(error, CAD_ERR_INVALID,
			"'%s' is an address: give it as %s/%u, or name the interface", text, text, ip_bits(&subnet));
	if (!is_subnet(text, &subnet, &bits))
		return bits ? cad_error_set(error, CAD_ERR_INVALID,
				      "'%.80s' is not a subnet: give ADDRESS/BITS, like 10.0.0.0/8 or fd00::/64", text)
			    : by_name(list, text, found, error);
	if (!*bits || strspn(bits, "0123456789") != strlen(bits) || strlen(bits) > 3 ||
		strtoul(bits, NULL, 10) > ip_bits(&subnet))
		return cad_error_set(error, CAD_ERR_INVALID,
			"'%.80s': the BITS of ADDRESS/BITS are a number from 0 to %u", text, ip_bits(&subnet));
	return by_subnet(list, text, &subnet, (unsigned)strtoul(bits, NULL, 10), found, error);
}

enum cad_status cad_network_find(const char *text, struct cad_network *network, struct cad_error *error)
{
	struct ifaddrs *list;
	const union cad_ip *found;

	*network = (struct cad_network){ .host = "127.0.0.1" };
	if (!*text)
		return CAD_OK;
	if (getifaddrs(&list) != 0)
		return cad_error_set(
			error, CAD_ERR_IO, "the interfaces of this machine cannot be listed: %s", strerror(errno));

	enum cad_status status = find(list, text, &found, error);
	if (status == CAD_OK) {
		cad_ip_text(found, network->host);
		network->v6 = found->any.sa_family == AF_INET6;
	}
	freeifaddrs(list);
	return status;
}

void cad_network_address(const struct cad_network *network, const char *text, char address[CAD_ADDRESS_BYTES])
{
	if (*text == ':')
		snprintf(address, CAD_ADDRESS_BYTES, network->v6 ? "[%s]%s" : "%s%s", network->host, text);
	if (*text != ':' || !cad_address_is_complete(address))
		snprintf(address, CAD_ADDRESS_BYTES, "%s", text);
}

enum cad_status cad_address_check_listen(const char *option, const char *address, struct cad_error *error)
{
	struct cad_address parts;
	union cad_ip ip;
	char interfaces[CAD_INTERFACES_TEXT_BYTES] = "";
	struct ifaddrs *list;
	enum cad_status status = cad_address_parse(address, &parts, error);

	if (status != CAD_OK || !cad_ip_of_text(parts.host, &ip))
		return status;

	int fd = socket(ip.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool bound = fd >= 0 && bind(fd, &ip.any, ip.any.sa_family == AF_INET ? sizeof ip.v4 : sizeof ip.v6) == 0;
	int problem = errno;
	if (fd >= 0)
		close(fd);
	if (bound)
		return CAD_OK;

	if (getifaddrs(&list) == 0) {
		cad_interfaces_text(list, interfaces);
		freeifaddrs(list);
	}
	return cad_error_set(error, CAD_ERR_INVALID,
		"--%s %s: this machine cannot listen there: %s; the interfaces of this machine: %s", option, address,
		strerror(problem), interfaces);
}
