/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Endpoints from worker addresses: no listener, and so no accept step. What that asks for, measured
 * on UCX 1.13:
 * - Everybody who has the address or guesses the port may connect; UCX makes an endpoint by itself,
 *   which shows with its first message. So the first message is a KNOCK that names an announced
 *   session, and a stranger's is left alone: that endpoint is UCX's, and may be gone at any time.
 * - Nobody hears of that endpoint's death, so this side makes one of its own to the same worker.
 *   UCX pairs the n-th endpoint made here to a worker with the n-th made there, and hands out the
 *   very one that the message came by. Attempts of the other side that never arrived count too: the
 *   KNOCK carries the number, and what is made to catch up (spares) is kept until the peer's worker
 *   is gone, because closing a spare breaks its neighbours.
 * - Two sides that connect to each other at the same moment have made one endpoint each, and UCX
 *   has paired these two: each side hears the other's KNOCK by its own. The lower session keeps it.
 *   The other side answers by it, as it would have done without an attempt of its own, and makes
 *   that one again, by the next endpoint; what it has sent by the first is for nobody.
 * - UCX compares no identity of the worker behind a port: an old address leads to whoever has the
 *   port now. So the KNOCK names the session that it means.
 */
#include "common/transport/ucx/internal.h"

#include <stdlib.h>
#include <string.h>

enum {
	PEERS_FIRST = 64,
	PEERS_MAX = 65536, /* all that were ever met */
	/* all processes of a cluster, and what they were before they restarted */
	ANNOUNCED_MAX = 2 * CAD_PROCESSES_MAX,
};
static const uint64_t KNOCK_NS_MAX = 5 * CAD_NS_PER_S;

struct cad_ucx_spare {
	struct cad_ucx_link *link;
	ucp_ep_h endpoint;
	bool failed;
	struct cad_ucx_spare *next;
};

/* ---- peers ---- */

static struct cad_ucx_peer *peer_find(const struct cad_ucx_link *link, uint64_t session)
{
	for (uint32_t i = 0; i < link->peers_count; i++)
		if (link->peers[i].session == session)
			return &link->peers[i];
	return NULL;
}

static struct cad_ucx_peer *peer_get(struct cad_ucx_link *link, uint64_t session)
{
	struct cad_ucx_peer *peer = peer_find(link, session);

	if (peer || link->peers_count == PEERS_MAX)
		return peer;
	if (link->peers_count == link->peers_capacity) {
		uint32_t capacity = link->peers_capacity ? 2 * link->peers_capacity : PEERS_FIRST;
		struct cad_ucx_peer *peers = realloc(link->peers, capacity * sizeof *peers);
		if (!peers)
			return NULL;
		link->peers = peers;
		link->peers_capacity = capacity;
	}

	peer = &link->peers[link->peers_count++];
	*peer = (struct cad_ucx_peer){ .session = session };
	return peer;
}

void cad_ucx_peer_heard(struct cad_ucx_link *link, struct cad_link_end *end)
{
	struct cad_ucx_peer *peer = peer_find(link, end->session);
	end->heard = true;
	if (peer)
		peer->unanswered = 0;
}

/* ---- announcements ---- */

static void announcement_drop(struct cad_ucx_link *link, struct cad_ucx_peer *peer)
{
	free(peer->address);
	peer->address = NULL;
	link->announced_count--;
}

/* Room for another: the oldest goes. Peers stand in the order in which they were met. */
static void announcements_bound(struct cad_ucx_link *link)
{
	for (uint32_t i = 0; i < link->peers_count && link->announced_count >= ANNOUNCED_MAX; i++)
		if (link->peers[i].address)
			announcement_drop(link, &link->peers[i]);
}

struct cad_ucx_peer *cad_ucx_peer(struct cad_ucx_link *link, const struct cad_exchange_address *address)
{
	struct cad_ucx_peer *peer = peer_get(link, address->session);

	if (!peer || peer->address)
		return peer;
	announcements_bound(link);
	peer->address = malloc(address->worker_bytes);
	if (!peer->address)
		return NULL;
	memcpy(peer->address, address->worker, address->worker_bytes);
	peer->same_host = cad_ucx_address_is_here(address);
	link->announced_count++;
	return peer;
}

enum cad_status cad_ucx_announce(
	struct cad_link *base, const char *const *addresses, size_t count, struct cad_error *error)
{
	struct cad_ucx_link *link = (struct cad_ucx_link *)base;
	enum cad_status first = CAD_OK;

	for (size_t i = 0; i < count; i++) {
		struct cad_exchange_address address;
		struct cad_error problem, *say = first == CAD_OK ? error : &problem;
		enum cad_status status = cad_ucx_address_read(addresses[i], &address, say);
		if (status == CAD_OK && !cad_ucx_peer(link, &address))
			status = cad_error_set(say, CAD_ERR_MEMORY, "no memory for the address of '%s'", address.host);
		if (first == CAD_OK)
			first = status;
	}

	return first;
}

/* ---- spares ---- */

static void on_spare_error(void *context, ucp_ep_h endpoint, ucs_status_t status)
{
	(void)endpoint;
	(void)status;
	struct cad_ucx_spare *spare = context;
	spare->failed = spare->link->spares_failed = true;
}

static bool spare_make(struct cad_ucx_link *link, struct cad_ucx_peer *peer, const void *worker_address)
{
	struct cad_ucx_spare *spare = malloc(sizeof *spare);
	if (!spare)
		return false;
	*spare = (struct cad_ucx_spare){ .link = link, .next = peer->spares };
	if (cad_ucx_endpoint_create(link, peer, worker_address, on_spare_error, spare, &spare->endpoint) != UCS_OK) {
		free(spare);
		return false;
	}
	peer->spares = spare;
	return true;
}

static void on_spare_closed(void *request, ucs_status_t status, void *context)
{
	(void)status;
	(void)context;
	ucp_request_free(request);
}

static void spares_close(struct cad_ucx_peer *peer)
{
	while (peer->spares) {
		struct cad_ucx_spare *spare = peer->spares;
		ucp_request_param_t parameters = {
			.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS | UCP_OP_ATTR_FIELD_CALLBACK,
			.flags = UCP_EP_CLOSE_FLAG_FORCE,
			.cb.send = on_spare_closed,
		};
		ucp_ep_close_nbx(spare->endpoint, &parameters);
		peer->spares = spare->next;
		free(spare);
	}
}

/* A worker that ended takes all its spares along. */
static void spares_sweep(struct cad_ucx_link *link)
{
	link->spares_failed = false;
	for (uint32_t i = 0; i < link->peers_count; i++)
		for (struct cad_ucx_spare *spare = link->peers[i].spares; spare; spare = spare->next)
			if (spare->failed) {
				spares_close(&link->peers[i]);
				break;
			}
}

void cad_link_ucx_lose(struct cad_link *base, const char *text, uint32_t attempts)
{
	struct cad_ucx_link *link = (struct cad_ucx_link *)base;
	struct cad_exchange_address address;
	struct cad_error error;
	CAD_ASSERT(cad_ucx_address_read(text, &address, &error) == CAD_OK);
	struct cad_ucx_peer *peer = cad_ucx_peer(link, &address);
	CAD_ASSERT(peer != NULL);
	for (uint32_t i = 0; i < attempts; i++)
		CAD_ASSERT(spare_make(link, peer, address.worker));
	spares_close(peer);
}

void cad_ucx_peers_forget(struct cad_ucx_link *link)
{
	for (uint32_t i = 0; i < link->peers_count; i++) {
		spares_close(&link->peers[i]);
		link->peers[i].made = link->peers[i].unanswered = 0;
		link->peers[i].unusable = false;
	}
	link->knocks_count = 0;
}

void cad_ucx_peers_free(struct cad_ucx_link *link)
{
	for (uint32_t i = 0; i < link->peers_count; i++)
		free(link->peers[i].address);
	free(link->peers);
}

/* ---- knocking ---- */

static void knock_sent(struct cad_link_op *op, enum cad_status status)
{
	(void)op;
	(void)status; /* a failure also shows as `lost` */
}

static struct cad_ucx_knock *knock_find(struct cad_ucx_link *link, ucp_ep_h reply)
{
	for (uint32_t i = 0; i < link->knocks_count; i++)
		if (link->knocks[i].reply == reply)
			return &link->knocks[i];
	return NULL;
}

bool cad_ucx_stays(const struct cad_link_end *end)
{
	return end->connects && !end->heard && end->link->session < end->session;
}

/* Before all else that goes this way. */
ucs_status_t cad_ucx_knock(struct cad_link_end *end, struct cad_ucx_peer *peer)
{
	struct cad_ucx_link *link = end->link;
	end->connects = true;
	end->same_host = peer->same_host;
	end->knock.from = link->session;
	end->knock.to = peer->session;
	end->knock.attempt = peer->made;
	ucs_status_t result = cad_ucx_end_connect(end, peer, peer->address);
	if (result != UCS_OK)
		return result;

	struct cad_ucx_knock *theirs = knock_find(link, end->endpoint); /* it was not looked at yet */
	if (theirs && cad_ucx_stays(end))
		*theirs = link->knocks[--link->knocks_count];
	end->knock.header = (struct cadre_wire_header){
		.magic = CADRE_WIRE_MAGIC,
		.version = CADRE_WIRE_VERSION,
		.kind = CADRE_WIRE_KNOCK,
	};
	struct cad_link_message message = {
		.kind = CADRE_WIRE_KNOCK,
		.header = &end->knock,
		.header_bytes = sizeof end->knock,
	};
	end->knocking.done = knock_sent;
	if (cad_ucx_send(end, &message, &end->knocking) < 0)
		cad_ucx_end_lost(end, CAD_ERR_PEER_LOST, "nothing can be sent");
	return UCS_OK;
}

bool cad_ucx_is_knocking(struct cad_ucx_link *link, const struct cad_link_end *end)
{
	const struct cad_ucx_knock *knock = knock_find(link, end->endpoint);
	return knock && knock->message.from == end->session;
}

void cad_ucx_stranger(struct cad_ucx_link *link, ucp_ep_h reply, uint8_t kind, const void *header, size_t header_bytes)
{
	struct cadre_wire_header head;
	struct cad_ucx_knock *knock = knock_find(link, reply);

	if (knock) { /* what follows the knock, if it came before it was looked at */
		if (!knock->followed && header_bytes <= sizeof knock->next) {
			knock->followed = true;
			knock->next_kind = kind;
			knock->next_bytes = header_bytes;
			memcpy(knock->next, header, header_bytes);
		}
		return;
	}

	if (kind != CADRE_WIRE_KNOCK || link->knocks_count == CAD_UCX_KNOCKS_MAX ||
		cad_wire_header_check(header, header_bytes, 0, &head, NULL) != CAD_OK || head.kind != kind)
		return;
	knock = &link->knocks[link->knocks_count++];
	*knock = (struct cad_ucx_knock){ .reply = reply, .since_ns = cad_clock_now_ns(&cad_clock_system) };
	memcpy(&knock->message, header, sizeof knock->message);
}

/* It has its endpoint. */
static void knock_enter(struct cad_ucx_link *link, struct cad_link_end *end, const struct cad_ucx_knock *knock)
{
	struct cad_link_payload none = { .bytes = 0 };
	end->owner = end->endpoint == knock->reply ? link->options.events->accept(link->options.upper, end) : NULL;
	if (!end->owner)
		cad_ucx_end_close(end); /* nobody owns it: it is only closed */
	else if (knock->followed)
		link->options.events->message(end->owner, knock->next_kind, knock->next, knock->next_bytes, &none);
}

/* No progress in between: the endpoint that the message came by must not vanish. */
static void knock_answer(struct cad_ucx_link *link, struct cad_ucx_peer *peer, const struct cad_ucx_knock *knock)
{
	uint32_t attempt = knock->message.attempt;
	if (attempt < peer->made || attempt - peer->made > CAD_UCX_UNANSWERED_MAX || peer->unusable)
		return;
	struct cad_link_end *end = cad_ucx_end_get(link, NULL);
	if (!end)
		return;
	while (peer->made < attempt)
		if (!spare_make(link, peer, peer->address))
			goto put_end;

	if (cad_ucx_end_connect(end, peer, peer->address) != UCS_OK)
		goto put_end;
	end->same_host = peer->same_host;
	knock_enter(link, end, knock);
	return;

put_end:
	cad_ucx_end_put(end);
}

/* This side has knocked by the same endpoint, and gives way. */
static void knock_give_way(struct cad_ucx_link *link, struct cad_ucx_peer *peer, const struct cad_ucx_knock *knock,
	struct cad_link_end *end)
{
	if (!end->connects || end->heard || end->lost_said) {
		cad_ucx_end_lost(end, CAD_ERR_PROTOCOL, "a KNOCK by a connection that stands");
		return;
	}
	struct cad_link_end *theirs = cad_ucx_end_get(link, NULL);
	if (!theirs) {
		cad_ucx_end_lost(end, CAD_ERR_UNREACHABLE, "too many connections");
		return;
	}

	theirs->endpoint = end->endpoint;
	theirs->session = end->session;
	theirs->same_host = end->same_host;
	end->endpoint = NULL;
	knock_enter(link, theirs, knock);

	ucs_status_t result = cad_ucx_knock(end, peer);
	if (result == UCS_OK)
		link->options.events->again(end->owner);
	else
		cad_ucx_end_lost(end, CAD_ERR_UNREACHABLE, ucs_status_string(result));
}

/* A knock waits for its announcement, for a while: that one comes over another way. It also waits
 * until UCX has sent what this side sends by the same endpoint: that memory is needed again. */
static size_t knocks_look(struct cad_ucx_link *link)
{
	uint64_t now = cad_clock_now_ns(&cad_clock_system);
	size_t answered = 0;
	uint32_t left = 0;

	for (uint32_t i = 0; i < link->knocks_count; i++) {
		struct cad_ucx_knock *knock = &link->knocks[i];
		struct cad_ucx_peer *peer =
			knock->message.to == link->session ? peer_find(link, knock->message.from) : NULL;
		struct cad_link_end *end = cad_ucx_end_of(link, knock->reply);
		bool crossed = end && end->session == knock->message.from;
		if (peer && peer->address && !(crossed && end->operations > 0)) {
			if (crossed)
				knock_give_way(link, peer, knock, end);
			else
				knock_answer(link, peer, knock);
			answered++;
		} else if (knock->message.to == link->session && now - knock->since_ns < KNOCK_NS_MAX) {
			link->knocks[left++] = *knock;
		}
	}

	link->knocks_count = left;
	return answered;
}

size_t cad_ucx_peers_attend(struct cad_ucx_link *link)
{
	if (link->spares_failed)
		spares_sweep(link);
	return link->knocks_count > 0 ? knocks_look(link) : 0;
}
