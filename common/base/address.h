/* SPDX-License-Identifier: Apache-2.0 */
/*
 * "host:port", parsed: "127.0.0.1:7000", "[::1]:7000", "router.example:7000". One rule for
 * everything that listens or connects. Nothing is looked up, kept or allocated; any thread.
 */
#ifndef CADRE_COMMON_BASE_ADDRESS_H
#define CADRE_COMMON_BASE_ADDRESS_H

#include "common/base/status.h"

#include <stdbool.h>
#include <stdint.h>

/* the terminator counted; with brackets, colon and port */
enum { CAD_ADDRESS_HOST_BYTES = 256, CAD_ADDRESS_BYTES = CAD_ADDRESS_HOST_BYTES + 8 };

struct cad_address {
	char host[CAD_ADDRESS_HOST_BYTES]; /* without brackets; never empty */
	char port_text[6];                 /* for getaddrinfo */
	uint16_t port;
	bool v6; /* the host was in brackets: it can only be a literal IPv6 address */
};

/* CAD_ERR_INVALID and a sentence that begins with the text: no host, no port from 0 to 65535, an
 * IPv6 address without brackets, a character that no host has. */
CAD_MUST_USE enum cad_status cad_address_parse(const char *text, struct cad_address *address, struct cad_error *error);

/* The address with the actual port if `text` asked for any port; a text that is not an address (the
 * path of a unix socket) is unchanged. */
void cad_address_taken(const char *text, uint16_t port, char *out, size_t bytes);

/* Where a call comes from, as gRPC writes it ("ipv4:10.0.0.7:51234",
 * "ipv6:%5Bfd00::7%5D:51234"), as an address: "10.0.0.7:51234", "[fd00::7]:51234". Anything
 * else, like a unix socket, is unchanged. Cut to size. */
void cad_address_of_peer(const char *peer, char *text, size_t bytes);

/* The host of an address; of what is none, all of it, cut to size. */
void cad_address_host(const char *address, char host[CAD_ADDRESS_HOST_BYTES]);

/* Whether an address to listen on ("127.0.0.1:7000", "[::1]:7000", "localhost:7000", "unix:/run/x")
 * can be reached only from this machine. False when in doubt. A plaintext listener on any other
 * address should be asked for by name: check it before cad_rpc_server_listen, which does not. */
bool cad_address_is_loopback(const char *address);
/* Whether it has a host and a port from 0 to 65535: "127.0.0.1:7000", "[::1]:7000",
 * "router.example:7000"; or the path of a unix socket. Nothing is looked up. */
bool cad_address_is_complete(const char *address);
/* Of an option that takes one, or "": else CAD_ERR_INVALID, and a sentence that names the
 * option. */
CAD_MUST_USE enum cad_status cad_address_option(const char *option, const char *address, struct cad_error *error);

#endif
