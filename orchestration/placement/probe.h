/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A quick look at the host of a process whose stream broke, or that is known from before a restart:
 * does it still listen there? A host that refuses the connection proves that the process is gone,
 * in less time than any grace; one that does not answer proves nothing. One that accepts, or resets
 * what it had accepted, may still be closing the dead process's descriptors, one after the other:
 * it is asked again, at growing intervals, within the limit. The port asked is that of the
 * process's HTTP server.
 *
 * One thread, that of the loop; nothing blocks. A probe ends by itself.
 */
#ifndef CADRE_ORCHESTRATION_PLACEMENT_PROBE_H
#define CADRE_ORCHESTRATION_PLACEMENT_PROBE_H

#include "common/base/status.h"
#include "orchestration/placement/registry.h"

#include <stdbool.h>
#include <uv.h>

enum { PL_PROBES_MAX = 64 };

/*
 * Where to connect. `peer` is where the stream came from ("ipv4:10.0.0.7:51234",
 * "ipv6:%5B::1%5D:51234"), `http` the process's HTTP address as it reported it. Only the peer's own
 * host is asked, because an address that is valid there (127.0.0.1) may mean another host here:
 * false, and "" in `target`, if `http` names neither that host nor all addresses (0.0.0.0), or is
 * not a numeric address.
 */
bool pl_probe_target(const char *peer, const char *http, char target[CAD_MAP_ADDRESS_BYTES]);

/* Where a stream came from, as gRPC writes it; false: not from an IP address. */
bool pl_probe_peer(const char *peer, struct sockaddr_storage *address);

struct pl_probes {
	uv_loop_t *loop;
	void (*refused)(void *context, uint64_t tag);
	void *context;
	struct pl_probe *first;
	unsigned count;
	uint64_t round_ns; /* when those who have not come back are asked next */
	uint32_t round_first;
	void (*closed)(void *context);
};

/* refused(context, tag) is called for each probe that was refused. */
void pl_probes_init(
	struct pl_probes *probes, uv_loop_t *loop, void (*refused)(void *context, uint64_t tag), void *context);
/* Asks for at most limit_ms. Does nothing beyond PL_PROBES_MAX at a time, without memory, or
 * for "". */
void pl_probes_ask(struct pl_probes *probes, const char *target, uint64_t tag, uint64_t limit_ms);
/* The same for the host of a process; the tag is slot << 32 | pid. */
void pl_probes_ask_node(struct pl_probes *probes, const struct pl_registry *registry, uint32_t slot, uint64_t limit_ms);
/* Asks the hosts of those that are known from before a restart and have not come back, a few times
 * a second until they are: one may die after it was asked. Returns when to call again; UINT64_MAX:
 * all are back. */
uint64_t pl_probes_ask_expected(struct pl_probes *probes, const struct pl_registry *registry, uint64_t now_ns);
/* Ends all; closed(context) when none is left, which may be at once. */
void pl_probes_close(struct pl_probes *probes, void (*closed)(void *context));

#endif
