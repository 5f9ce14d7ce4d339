/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the UCX link share, including UCX's own header. Nothing else may include it. A
 * file calls only what is to its left: address, context < end < peers < link.
 */
#ifndef CADRE_COMMON_TRANSPORT_UCX_INTERNAL_H
#define CADRE_COMMON_TRANSPORT_UCX_INTERNAL_H

#include "common/transport/exchange_address.h"
#include "common/transport/link.h"
#include "common/transport/ucx.h"
#include "common/transport/waker.h"
#include "common/transport/wire.h"

#include <net/if.h>
#include <netinet/in.h>

#include <ucp/api/ucp.h>

enum { CAD_UCX_KNOCKS_MAX = 64 };

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
	void *owner; /* NULL: nobody wanted it, it is only closed */
	ucp_ep_h endpoint;
	uint64_t session; /* of the peer's worker */
	enum cad_ucx_end_state state;
	bool close_pending, same_host, lost_said, heard;
	bool connects;                 /* this side has knocked */
	uint32_t operations;           /* UCX still has memory of the upper's, or of this */
	struct cadre_wire_knock knock; /* when it connects */
	struct cad_link_op knocking;
};

/* A worker that was connected to, or was announced. */
struct cad_ucx_peer {
	uint64_t session;
	uint8_t *address;    /* UCX's; NULL: it was announced too long ago */
	uint32_t made;       /* endpoints of this worker to that one, ever */
	uint32_t unanswered; /* of those, the last ones that brought nothing */
	bool unusable;       /* UCX's count is not known any more */
	bool same_host;
	struct cad_ucx_spare *spares;
};

/* Somebody who has connected, and is not answered yet. */
struct cad_ucx_knock {
	ucp_ep_h reply; /* UCX's own, to be compared and not touched */
	uint64_t since_ns;
	struct cadre_wire_knock message;
	bool followed; /* by a message, the first of them being here */
	uint8_t next_kind;
	size_t next_bytes;
	_Alignas(8) uint8_t next[CAD_LINK_HEADER_BYTES_MAX];
};

struct cad_ucx_link {
	struct cad_link base;
	struct cad_link_options options;
	char *devices, *transports;
	bool devices_asked;                /* named by an operator: an address to listen on does not choose others */
	bool listens;                      /* at an address of its own, by these variables of the environment */
	uint16_t port;                     /* the first of those that it may have; 0: any */
	char host[CAD_ADDRESS_HOST_BYTES]; /* numeric */
	char *ports_before, *family_before;
	bool shared_memory;
	uint64_t spin_ns;
	ucp_context_h context;
	ucp_worker_h worker;
	int event_fd;
	struct cad_waker *waker;
	_Atomic bool woken;
	ucp_am_recv_callback_t on_message; /* what UCX calls; its argument: one of handlers */
	struct cad_ucx_handler handlers[CADRE_WIRE_KIND_COUNT];
	struct cad_link_end *ends;
	uint32_t open; /* ends that are not FREE */
	uint32_t kept; /* payloads of this worker that the upper keeps */
	struct cad_ucx_peer *peers;
	uint32_t peers_count, peers_capacity, announced_count;
	bool spares_failed;
	struct cad_ucx_knock knocks[CAD_UCX_KNOCKS_MAX];
	uint32_t knocks_count;
	struct cad_ucx_registration *registrations;
	const void *current; /* the payload whose callback is running */
	bool current_received;
	uint64_t busy_since_ns;
	uint32_t busy_count;
	uint32_t empty_wakes; /* by UCX's descriptor, with nothing to do; since there was something */
	bool wedged;
	uint64_t session;                         /* of this worker */
	char address[CAD_EXCHANGE_ADDRESS_BYTES]; /* of this worker */
};

/* ---- addresses (address.c) ---- */

/* An address to listen on: "192.0.2.7:7400" or "[fd00::7]:7400"; port 0: any; 0.0.0.0 and [::]: all
 * of `devices`, and `interface` is "". `devices` as in UCX_NET_DEVICES; NULL: the one of that
 * interface. The host
 * of `address` is numeric. CAD_ERR_INVALID: peers could not connect there. */
enum cad_status cad_ucx_listen_check(const char *text, const char *devices, struct cad_address *address,
	char interface[IF_NAMESIZE], struct cad_error *error);
/* Whether UCX could bind it, which it does without SO_REUSEADDR; `host` is numeric. */
bool cad_ucx_port_is_free(const char *host, uint16_t port);

/* The text of an exchange address, whose library works with this one. */
enum cad_status cad_ucx_address_read(const char *text, struct cad_exchange_address *address, struct cad_error *error);
bool cad_ucx_address_is_here(const struct cad_exchange_address *address); /* a hint for how to send */
/* "ucx-1.13.1" */
void cad_ucx_library(char text[CAD_EXCHANGE_LIBRARY_BYTES]);

/* Sockets of this process that listen for TCP: what UCX adds while it makes a worker is where it
 * listens. */
struct cad_ucx_sockets {
	uint64_t inodes[256];
	uint32_t count;
};
void cad_ucx_sockets_now(struct cad_ucx_sockets *sockets);
/* The first that listens now and did not then, as "host:port". False: none. */
bool cad_ucx_sockets_new(const struct cad_ucx_sockets *then, char host[CAD_ADDRESS_BYTES]);

/* ---- context, worker, memory (context.c) ---- */

/* context, worker, handlers, address; registers all memory again */
enum cad_status cad_ucx_context_start(struct cad_ucx_link *link, struct cad_error *error);
void cad_ucx_context_destroy(struct cad_ucx_link *link); /* also one that was started in part */
enum cad_status cad_ucx_buffer_create(
	struct cad_link *base, size_t bytes, const struct cad_pinned_memory *pinned, struct cad_buffer *out);
void cad_ucx_buffer_destroy(struct cad_link *base, struct cad_buffer *buffer);

/* ---- ends (end.c) ---- */

struct cad_link_end *cad_ucx_end_get(struct cad_ucx_link *link, void *owner); /* NULL: none free */
void cad_ucx_end_put(struct cad_link_end *end);
struct cad_link_end *cad_ucx_end_of(struct cad_ucx_link *link, ucp_ep_h endpoint); /* NULL: no open one has it */
void cad_ucx_end_lost(struct cad_link_end *end, enum cad_status status, const char *text);
/* The only way to make an endpoint: it counts. `handler` gets `owner`. */
ucs_status_t cad_ucx_endpoint_create(struct cad_ucx_link *link, struct cad_ucx_peer *peer, const void *worker_address,
	ucp_err_handler_cb_t handler, void *owner, ucp_ep_h *endpoint);
ucs_status_t cad_ucx_end_connect(struct cad_link_end *end, struct cad_ucx_peer *peer, const void *worker_address);
/* As struct cad_link_ops says. */
enum cad_status cad_ucx_send(struct cad_link_end *end, const struct cad_link_message *message, struct cad_link_op *op);
/* UCX has let go of an operation's memory. */
void cad_ucx_operation_done(void *request, struct cad_link_op *op, ucs_status_t status);
void cad_ucx_end_close(struct cad_link_end *end);
/* Says `closed` of those that are done. Returns how many. */
size_t cad_ucx_ends_closed(struct cad_ucx_link *link);

/* ---- peers, and who knocks (peers.c) ---- */

/* One that may knock from now on. NULL: no memory for one more. */
struct cad_ucx_peer *cad_ucx_peer(struct cad_ucx_link *link, const struct cad_exchange_address *address);
/* Makes the end's endpoint, and says so by it. */
ucs_status_t cad_ucx_knock(struct cad_link_end *end, struct cad_ucx_peer *peer);
/* Whether it is an attempt to connect that stays when the other side's crosses it; then KNOCK and
 * HELLO of that one are for nobody. */
bool cad_ucx_stays(const struct cad_link_end *end);
/* The first message by an end: its peer is there. */
void cad_ucx_peer_heard(struct cad_ucx_link *link, struct cad_link_end *end);
enum cad_status cad_ucx_announce(
	struct cad_link *base, const char *const *addresses, size_t count, struct cad_error *error);
/* Whether the other side's KNOCK by the same endpoint is still to be looked at. */
bool cad_ucx_is_knocking(struct cad_ucx_link *link, const struct cad_link_end *end);
/* A message by an endpoint that no end has, or one that is knocking; or that KNOCK. */
void cad_ucx_stranger(struct cad_ucx_link *link, ucp_ep_h reply, uint8_t kind, const void *header, size_t header_bytes);
/* After each progress: answers those who knocked. Returns how many. */
size_t cad_ucx_peers_attend(struct cad_ucx_link *link);
/* The worker ends: its endpoints and counts with it. Announcements stay. */
void cad_ucx_peers_forget(struct cad_ucx_link *link);
void cad_ucx_peers_free(struct cad_ucx_link *link);

/* Attempts in a row that brought nothing, after which a client must make a new worker: the other
 * side makes an endpoint for each of them. Hours. */
enum { CAD_UCX_UNANSWERED_MAX = 4096 };

#endif
