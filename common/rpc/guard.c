/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeps the process away from EMFILE. gRPC 1.51 stops accepting for good when accept4 fails once
 * for want of descriptors (CVE-2023-4785). It has no limit on connections, but a socket mutator
 * sees every accepted descriptor: near the limit the new connection is shut down at once, and gRPC
 * closes it.
 *
 * This uses the layout of grpc_socket_mutator in 1.51, which no public header declares; hence the
 * check of the version. The reserve must be larger than the listen backlog (net.core.somaxconn),
 * since gRPC accepts in a tight loop.
 */
#include "common/rpc/guard.h"

#include "common/base/log.h"
#include "common/rpc/internal.h"

#include <grpc/support/sync.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

struct mutator;

struct mutated {
	int descriptor;
	int usage;
};
enum { USAGE_ACCEPTED = 2 };

struct mutator_table {
	bool (*mutate)(int descriptor, struct mutator *mutator);
	int (*compare)(struct mutator *a, struct mutator *b);
	void (*destroy)(struct mutator *mutator);
	bool (*mutate_with_usage)(const struct mutated *mutated, struct mutator *mutator);
};

struct mutator {
	const struct mutator_table *table;
	gpr_refcount references;
};

static atomic_int descriptor_limit;
static atomic_ulong refused;

/* On gRPC's threads. Returning false would stop the listener, too. */
static bool mutate(const struct mutated *mutated, struct mutator *mutator)
{
	(void)mutator;
	if (mutated->usage == USAGE_ACCEPTED &&
		mutated->descriptor >= atomic_load_explicit(&descriptor_limit, memory_order_relaxed)) {
		shutdown(mutated->descriptor, SHUT_RDWR);
		unsigned long count = atomic_fetch_add_explicit(&refused, 1, memory_order_relaxed) + 1;
		if ((count & (count - 1)) == 0) /* the 1st, 2nd, 4th, 8th ... */
			cad_log_warn("grpc",
				"out of file descriptors: connections are refused; raise the limit (ulimit -n)",
				CAD_U("refused", count));
	}
	return true;
}

static int compare(struct mutator *a, struct mutator *b) { return a < b ? -1 : a > b; }
static void destroy(struct mutator *mutator) { (void)mutator; }
static const struct mutator_table table = { .compare = compare, .destroy = destroy, .mutate_with_usage = mutate };
static struct mutator the_mutator = { .table = &table };

static void *argument_copy(void *pointer) { return pointer; }
static void argument_destroy(void *pointer) { (void)pointer; }
static int argument_compare(void *a, void *b) { return compare(a, b); }
static const grpc_arg_pointer_vtable argument_table = { argument_copy, argument_destroy, argument_compare };

uint64_t cad_rpc_refused_connections(void) { return atomic_load_explicit(&refused, memory_order_relaxed); }

bool cad_rpc_guard_argument(unsigned reserve, grpc_arg *argument)
{
	struct rlimit limit;

	/* libgrpc.so.29 is 1.51 */
	if (strncmp(grpc_version_string(), "29.", 3) != 0 || getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return false;
	rlim_t descriptors = limit.rlim_cur > 1u << 30 ? 1u << 30 : limit.rlim_cur;
	if (reserve >= descriptors / 2)
		reserve = (unsigned)(descriptors / 2);
	atomic_store(&descriptor_limit, (int)(descriptors - reserve));
	gpr_ref_init(&the_mutator.references, 1 << 20); /* static: never gets to 0 */
	*argument = (grpc_arg){ .type = GRPC_ARG_POINTER, .key = (char *)(uintptr_t)GRPC_ARG_SOCKET_MUTATOR };
	argument->value.pointer.p = &the_mutator;
	argument->value.pointer.vtable = &argument_table;

	return true;
}
