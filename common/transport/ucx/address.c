/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses of the exchange: UCX's TCP listens on an interface, at the first address of a family
 * that the interface has, whatever address was asked for. */
#include "common/base/network.h"
#include "common/transport/ucx/internal.h"

#include <dirent.h>
#include <errno.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- IP addresses ---- */

static bool ip_is_any(const union cad_ip *ip)
{
	return ip->any.sa_family == AF_INET ? ip->v4.sin_addr.s_addr == htonl(INADDR_ANY)
					    : IN6_IS_ADDR_UNSPECIFIED(&ip->v6.sin6_addr);
}

/* A name is looked up, which may block: only for what a process listens on, at its start. */
static enum cad_status ip_find(
	const char *text, const struct cad_address *parts, union cad_ip *ip, struct cad_error *error)
{
	if (cad_ip_of_text(parts->host, ip))
		return CAD_OK;

	struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM }, *found;
	int problem = getaddrinfo(parts->host, NULL, &hints, &found);
	if (problem != 0)
		return cad_error_set(error, CAD_ERR_INVALID, "'%s' is not an address: %s", text, gai_strerror(problem));
	memcpy(ip, found->ai_addr, found->ai_addrlen);
	freeaddrinfo(found);
	return CAD_OK;
}

/* ---- interfaces ---- */

/* The one that has an address, all of 127.0.0.0/8 being of the loopback one; NULL: none here. */
static const struct ifaddrs *interface_of(const struct ifaddrs *list, const union cad_ip *address)
{
	for (const struct ifaddrs *at = list; at; at = at->ifa_next)
		if (cad_interface_ip(at) && cad_ip_equal(cad_interface_ip(at), address))
			return at;
	bool loopback = address->any.sa_family == AF_INET && ntohl(address->v4.sin_addr.s_addr) >> 24 == 127;
	for (const struct ifaddrs *at = list; at && loopback; at = at->ifa_next)
		if (cad_interface_ip(at) && cad_interface_ip(at)->any.sa_family == AF_INET &&
			(at->ifa_flags & IFF_LOOPBACK))
			return at;
	return NULL;
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
		if (cad_interface_is(device, interface) || size >= sizeof device || if_nametoindex(device) == 0)
			return true;
	}
	return false;
}

static enum cad_status interface_check(const struct ifaddrs *list, const char *text, const union cad_ip *address,
	const char *devices, char name[IF_NAMESIZE], struct cad_error *error)
{
	char first_text[INET6_ADDRSTRLEN], interfaces[CAD_INTERFACES_TEXT_BYTES];
	const struct ifaddrs *interface = interface_of(list, address);

	if (!interface) {
		cad_interfaces_text(list, interfaces);
		return cad_error_set(error, CAD_ERR_INVALID,
			"the exchange cannot listen on '%s': no interface of this machine has that address; listen on one of these: %s",
			text, interfaces);
	}

	if (address->any.sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&address->v6.sin6_addr))
		return cad_error_set(error, CAD_ERR_INVALID,
			"the exchange cannot listen on '%s': UCX does not use this address; listen on 127.0.0.1, or on another interface",
			text);
	const union cad_ip *first = cad_interface_first(list, interface->ifa_name, address->any.sa_family);
	if (!first || !cad_ip_equal(first, address)) {
		if (first)
			cad_ip_text(first, first_text);
		return cad_error_set(error, CAD_ERR_INVALID,
			"the exchange cannot listen on '%s': UCX uses only the first address of an interface, and that of '%s' is %s; listen on that one",
			text, interface->ifa_name, first ? first_text : "on no network");
	}

	if (devices && !devices_allow(devices, interface->ifa_name))
		return cad_error_set(error, CAD_ERR_INVALID,
			"the exchange cannot listen on '%s': that is an address of '%s', and UCX may use only '%s'; set --ucx-devices or UCX_NET_DEVICES to '%s'",
			text, interface->ifa_name, devices, interface->ifa_name);
	snprintf(name, IF_NAMESIZE, "%.*s", (int)strcspn(interface->ifa_name, ":"), interface->ifa_name);
	return CAD_OK;
}

/* ---- listening ---- */

enum cad_status cad_ucx_listen_check(const char *text, const char *devices, struct cad_address *address,
	char interface[IF_NAMESIZE], struct cad_error *error)
{
	union cad_ip ip;
	struct ifaddrs *list;
	enum cad_status status = cad_address_parse(text, address, error);

	interface[0] = 0;
	if (status == CAD_OK)
		status = ip_find(text, address, &ip, error);
	if (status != CAD_OK)
		return cad_error_prefix(error, "--exchange");
	address->v6 = ip.any.sa_family == AF_INET6;
	cad_ip_text(&ip, address->host);
	if (ip_is_any(&ip))
		return devices
			? CAD_OK
			: cad_error_set(error, CAD_ERR_INVALID,
				  "the exchange cannot listen on '%s' alone, because UCX listens on devices: give the address of one interface, or name the devices with --ucx-devices",
				  text);
	if (getifaddrs(&list) != 0)
		return cad_error_set(
			error, CAD_ERR_IO, "the interfaces of this machine cannot be listed: %s", strerror(errno));
	status = interface_check(list, text, &ip, devices, interface, error);
	freeifaddrs(list);

	return status;
}

bool cad_ucx_port_is_free(const char *host, uint16_t port)
{
	union cad_ip ip;
	if (!cad_ip_of_text(host, &ip))
		return false;
	if (ip.any.sa_family == AF_INET)
		ip.v4.sin_port = htons(port);
	else
		ip.v6.sin6_port = htons(port);

	int fd = socket(ip.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return true; /* UCX will say what is wrong */
	bool free = bind(fd, &ip.any, ip.any.sa_family == AF_INET ? sizeof ip.v4 : sizeof ip.v6) == 0;
	close(fd);
	return free;
}

/* Calls `visit` with each socket of this process that listens for TCP. */
static void sockets_visit(
	bool (*visit)(void *context, uint64_t inode, const union cad_ip *address, uint16_t port), void *context)
{
	DIR *directory = opendir("/proc/self/fd");
	if (!directory)
		return;

	for (struct dirent *entry = readdir(directory); entry; entry = readdir(directory)) {
		int fd = (int)strtol(entry->d_name, NULL, 10), listens = 0;
		struct stat file;
		union cad_ip ip = { .any.sa_family = AF_UNSPEC };
		socklen_t bytes = sizeof listens, ip_bytes = sizeof ip;
		if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &bytes) != 0 || !listens ||
			fstat(fd, &file) != 0 || getsockname(fd, &ip.any, &ip_bytes) != 0)
			continue;
		if (ip.any.sa_family != AF_INET && ip.any.sa_family != AF_INET6)
			continue;
		uint16_t port = ntohs(ip.any.sa_family == AF_INET ? ip.v4.sin_port : ip.v6.sin6_port);
		if (visit(context, file.st_ino, &ip, port))
			break;
	}

	closedir(directory);
}

static bool socket_note(void *context, uint64_t inode, const union cad_ip *address, uint16_t port)
{
	struct cad_ucx_sockets *sockets = context;
	(void)address;
	(void)port;
	if (sockets->count < sizeof sockets->inodes / sizeof sockets->inodes[0])
		sockets->inodes[sockets->count++] = inode;
	return false;
}

void cad_ucx_sockets_now(struct cad_ucx_sockets *sockets)
{
	sockets->count = 0;
	sockets_visit(socket_note, sockets);
}

struct socket_search {
	const struct cad_ucx_sockets *then;
	char *host;
	bool found;
};

static bool socket_compare(void *context, uint64_t inode, const union cad_ip *address, uint16_t port)
{
	struct socket_search *search = context;
	char text[INET6_ADDRSTRLEN];
	for (uint32_t i = 0; i < search->then->count; i++)
		if (search->then->inodes[i] == inode)
			return false;

	cad_ip_text(address, text);
	snprintf(search->host, CAD_ADDRESS_BYTES, address->any.sa_family == AF_INET ? "%s:%u" : "[%s]:%u", text, port);
	return search->found = true;
}

bool cad_ucx_sockets_new(const struct cad_ucx_sockets *then, char host[CAD_ADDRESS_BYTES])
{
	struct socket_search search = { .then = then, .host = host };
	sockets_visit(socket_compare, &search);
	return search.found;
}

/* ---- exchange addresses ---- */

void cad_ucx_library(char text[CAD_EXCHANGE_LIBRARY_BYTES])
{
	unsigned major, minor, release;
	ucp_get_version(&major, &minor, &release);
	snprintf(text, CAD_EXCHANGE_LIBRARY_BYTES, "ucx-%u.%u.%u", major, minor, release);
}

enum cad_status cad_ucx_address_read(const char *text, struct cad_exchange_address *address, struct cad_error *error)
{
	char own[CAD_EXCHANGE_LIBRARY_BYTES];
	enum cad_status status = cad_exchange_address_parse(text, address, error);
	cad_ucx_library(own);
	if (status == CAD_OK && !cad_exchange_libraries_work(own, address->library))
		return cad_error_set(error, CAD_ERR_UNSUPPORTED,
			"'%s' uses %s and this process %s, which are not known to work together: install one version everywhere",
			address->host, address->library, own);
	return status;
}

bool cad_ucx_address_is_here(const struct cad_exchange_address *address)
{
	struct cad_address parts;
	struct cad_error ignored;
	return cad_address_parse(address->host, &parts, &ignored) == CAD_OK && cad_address_is_here(parts.host);
}
