/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the UCX link share, including UCX's own header. Nothing else may include it.
 * link.c builds on the other two.
 */
#ifndef CADRE_COMMON_TRANSPORT_UCX_INTERNAL_H
#define CADRE_COMMON_TRANSPORT_UCX_INTERNAL_H

#include "common/base/address.h"
#include "common/transport/link.h"
#include "common/transport/ucx.h"
#include "common/transport/waker.h"

#include <netinet/in.h>

#include <ucp/api/ucp.h>

enum { CAD_UCX_ACCEPTS_MAX = 64 };

struct cad_ucx_handler {
	struct cad_ucx_link *link;
	uint8_t kind;
};

/* A piece of memory and its registration; outlives a rebuilt context. */
struct cad_ucx_registration {
	ucp_mem_h memory;
	struct cad_buffer buffer;
	struct cad_ucx_registration *next, **previous;
};

enum cad_ucx_end_state { CAD_UCX_END_FREE, CAD_UCX_END_OPEN, CAD_UCX_END_CLOSING };
struct cad_link_end {
	struct cad_ucx_link *link;
	void *owner;
	ucp_ep_h endpoint;
	enum cad_ucx_end_state state;
	bool close_pending, same_host, lost_said;
	uint32_t operations; /* UCX still has memory of the upper's */
};

struct cad_ucx_link {
	struct cad_link base;
	struct cad_link_options options;
	char *devices, *transports; /* NULL: what the environment says, or the defaults */
	bool shared_memory;
	uint64_t spin_ns;
	ucp_context_h context;
	ucp_worker_h worker;
	ucp_listener_h listener;
	int event_fd;
	struct cad_waker *waker;
	_Atomic bool woken;
	/* what UCX calls; set before cad_ucx_context_start */
	ucp_am_recv_callback_t on_message; /* its argument: one of handlers */
	ucp_listener_conn_callback_t on_connect;
	struct cad_ucx_handler handlers[CADRE_WIRE_KIND_COUNT];
	struct cad_link_end *ends;
	uint32_t open; /* ends that are not FREE */
	uint32_t kept; /* payloads of this worker that the upper keeps */
	ucp_conn_request_h accepts[CAD_UCX_ACCEPTS_MAX];
	uint32_t accepts_count;
	struct cad_ucx_registration *registrations;
	const void *current; /* the payload whose callback is running */
	bool current_received;
	uint64_t busy_since_ns;
	uint32_t busy_count;
	bool wedged;
	struct sockaddr_storage listen_address;
	socklen_t listen_address_bytes;
	char address[CAD_ADDRESS_BYTES];
};

/* ---- context, worker, listener, memory (context.c) ---- */

/* context, worker, handlers; registers all memory again */
enum cad_status cad_ucx_context_start(struct cad_ucx_link *link, struct cad_error *error);
void cad_ucx_context_destroy(struct cad_ucx_link *link); /* also one that was started in part */
enum cad_status cad_ucx_listener_create(struct cad_ucx_link *link, struct cad_error *error);
enum cad_status cad_ucx_buffer_create(struct cad_link *base, size_t bytes, struct cad_buffer *out);
void cad_ucx_buffer_destroy(struct cad_link *base, struct cad_buffer *buffer);

/* ---- addresses (address.c) ---- */

/* "host:port". Host names are looked up, which may block. */
enum cad_status cad_ucx_address_parse(
	const char *text, struct sockaddr_storage *address, socklen_t *bytes, struct cad_error *error);
/* Whether peers can connect to a listener there: UCX's data uses the first address of an interface,
 * whatever the listener's is. `devices` as in UCX_NET_DEVICES. */
enum cad_status cad_ucx_address_check(
	const char *text, const struct sockaddr_storage *address, const char *devices, struct cad_error *error);
/* Why nothing can listen there. UCX only says that it failed. */
const char *cad_ucx_address_problem(const struct sockaddr_storage *address);

#endif
