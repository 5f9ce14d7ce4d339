/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The interfaces of this machine and their addresses, and which of them is the cluster's network.
 * The kernel is asked, which takes no time; nothing is kept. Any thread.
 */
#ifndef CADRE_COMMON_BASE_NETWORK_H
#define CADRE_COMMON_BASE_NETWORK_H

#include "common/base/address.h"

#include <ifaddrs.h>
#include <netinet/in.h>

/* ---- the network of a cluster ---- */

struct cad_network {
	char host[INET6_ADDRSTRLEN]; /* numeric */
	bool v6;
};

/*
 * "eth0": its first IPv4 address, or its first IPv6 address where it has no other. "10.0.0.0/8",
 * "fd00::/64": the first address in there of the one interface that has any. "": 127.0.0.1.
 * Addresses that are good on one link alone are none. CAD_ERR_INVALID and a sentence that lists the
 * interfaces: there is none, or two interfaces have one.
 */
CAD_MUST_USE enum cad_status cad_network_find(const char *text, struct cad_network *network, struct cad_error *error);
/* ":7100" is port 7100 of its address; what has a host, or is no address, is unchanged: who
 * checks it then quotes what was written. */
void cad_network_address(const struct cad_network *network, const char *text, char address[CAD_ADDRESS_BYTES]);

/* ---- interfaces ---- */

enum { CAD_INTERFACES_TEXT_BYTES = 512 };

union cad_ip {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
	struct sockaddr_storage storage;
};

bool cad_ip_of_text(const char *host, union cad_ip *ip); /* numeric */
void cad_ip_text(const union cad_ip *ip, char text[INET6_ADDRSTRLEN]);
bool cad_ip_equal(const union cad_ip *a, const union cad_ip *b);

/* Whether a numeric host ("192.0.2.7", "fd00::7") is one of this machine's, all of 127.0.0.0/8
 * included. */
bool cad_address_is_here(const char *host);

/* Whether this machine could listen there, at any port of that address: it has the address, and
 * the address's family. A name is not looked up. For --check-config; `option` is for the sentence. */
CAD_MUST_USE enum cad_status cad_address_check_listen(const char *option, const char *address, struct cad_error *error);

/* Of a line of getifaddrs; NULL: it is about something else. */
const union cad_ip *cad_interface_ip(const struct ifaddrs *at);
/* "eth0:1" is a name for one more address of eth0. */
bool cad_interface_is(const char *a, const char *b);
/* The kernel lists an interface's first address first. An address that is good on one link alone is
 * none. */
const union cad_ip *cad_interface_first(const struct ifaddrs *list, const char *name, sa_family_t family);
/* "lo 127.0.0.1, eth0 192.0.2.7": the first ones. */
void cad_interfaces_text(const struct ifaddrs *list, char text[CAD_INTERFACES_TEXT_BYTES]);

#endif
