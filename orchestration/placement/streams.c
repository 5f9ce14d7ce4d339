/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/placement/streams.h"

#include "common/base/log.h"

#include <stdlib.h>

/* Processes that start at once are told of at once. */
static const uint64_t PEERS_INTERVAL_NS = 20 * CAD_NS_PER_MS;

/* ---- which there are ---- */

void pl_streams_init(struct pl_streams *streams, const struct pl_registry *registry)
{
	*streams = (struct pl_streams){ .registry = registry };
}

void pl_streams_fini(struct pl_streams *streams)
{
	free(streams->map_message);
	cad_map_release(streams->map);
}

struct pl_stream *pl_streams_add(struct pl_streams *streams, struct cad_rpc_call *call, bool watches)
{
	struct pl_stream *stream = calloc(1, sizeof *stream);
	if (!stream) {
		cad_rpc_call_finish(call, CAD_RPC_RESOURCE_EXHAUSTED, "out of memory for another stream");
		return NULL;
	}
	*stream = (struct pl_stream){ .next = streams->first, .call = call, .watches = watches };
	if (streams->first)
		streams->first->previous = stream;
	streams->first = stream;
	cad_rpc_call_set_state(call, stream);
	return stream;
}

void pl_streams_remove(struct pl_streams *streams, struct pl_stream *stream)
{
	if (stream->previous)
		stream->previous->next = stream->next;
	else
		streams->first = stream->next;
	if (stream->next)
		stream->next->previous = stream->previous;
	cad_rpc_call_set_state(stream->call, NULL);
	free(stream);
}

struct pl_stream *pl_streams_find(const struct pl_streams *streams, uint64_t session)
{
	struct pl_stream *stream = streams->first;
	while (stream && stream->session != session)
		stream = stream->next;
	return stream;
}

void pl_streams_abort(struct pl_streams *streams, const char *text)
{
	for (struct pl_stream *stream = streams->first, *next; stream; stream = next) {
		next = stream->next;
		cad_rpc_call_abort(stream->call, CAD_RPC_UNAVAILABLE, "%s", text);
	}
}

/* ---- maps and peers ---- */

static void queue_message(struct pl_stream *stream, const ProtobufCMessage *message)
{
	if (cad_rpc_call_send(stream->call, message) == CAD_FULL)
		stream->full = true;
}

void pl_stream_map(struct pl_streams *streams, struct pl_stream *stream)
{
	stream->map_due = stream->full;
	if (stream->full || !streams->map_message)
		return;
	if (stream->watches) {
		queue_message(stream, &streams->map_message->base);
		return;
	}
	Cadre__V1__NodeOrder order = CADRE__V1__NODE_ORDER__INIT;
	order.order_case = CADRE__V1__NODE_ORDER__ORDER_MAP;
	order.map = streams->map_message;
	queue_message(stream, &order.base);
}

static void send_peers(struct pl_streams *streams, struct pl_stream *stream)
{
	stream->peers_due = stream->full;
	if (stream->full)
		return;
	Cadre__V1__NodeOrder order = CADRE__V1__NODE_ORDER__INIT;
	order.order_case = CADRE__V1__NODE_ORDER__ORDER_PEERS;
	order.peers = (Cadre__V1__Peers *)pl_peers_message(&streams->peers, streams->registry);
	queue_message(stream, &order.base);
}

void pl_stream_writable(struct pl_streams *streams, struct pl_stream *stream)
{
	stream->full = false;
	if (stream->map_due)
		pl_stream_map(streams, stream);
	if (stream->peers_due)
		send_peers(streams, stream);
}

void pl_streams_publish(struct pl_streams *streams, struct cad_map *map)
{
	Cadre__V1__Map *message;

	if (cad_map_to_message(map, &message) != CAD_OK) {
		cad_log_error("placement", "out of memory for the message of a map", CAD_U("epoch", map->epoch));
		return;
	}

	free(streams->map_message);
	cad_map_release(streams->map);
	streams->map = cad_map_acquire(map);
	streams->map_message = message;
	for (struct pl_stream *stream = streams->first; stream; stream = stream->next)
		if (stream->watches || stream->session)
			pl_stream_map(streams, stream);
}

uint64_t pl_streams_tell_peers(struct pl_streams *streams, uint64_t now_ns)
{
	if (pl_peers_changed(&streams->peers, streams->registry))
		streams->peers_due = true;
	if (!streams->peers_due)
		return UINT64_MAX;
	if (now_ns < streams->peers_ns + PEERS_INTERVAL_NS)
		return streams->peers_ns + PEERS_INTERVAL_NS;

	streams->peers_due = false;
	streams->peers_ns = now_ns;
	for (struct pl_stream *stream = streams->first; stream; stream = stream->next)
		if (stream->session && stream->expert)
			send_peers(streams, stream);
	return UINT64_MAX;
}

/* ---- orders ---- */

void pl_stream_challenge(struct pl_stream *stream, uint8_t mac[CAD_PROOF_BYTES])
{
	Cadre__V1__NodeOrder order = CADRE__V1__NODE_ORDER__INIT;
	Cadre__V1__Challenge challenge = CADRE__V1__CHALLENGE__INIT;

	challenge.nonce = (ProtobufCBinaryData){ CAD_PROOF_BYTES, stream->guest.nonces.service };
	challenge.mac = (ProtobufCBinaryData){ CAD_PROOF_BYTES, mac };
	order.order_case = CADRE__V1__NODE_ORDER__ORDER_CHALLENGE;
	order.challenge = &challenge;
	queue_message(stream, &order.base);
}

void pl_stream_welcome(struct pl_streams *streams, struct pl_stream *stream, Cadre__V1__NodeWelcome *welcome)
{
	Cadre__V1__NodeOrder order = CADRE__V1__NODE_ORDER__INIT;

	order.order_case = CADRE__V1__NODE_ORDER__ORDER_WELCOME;
	order.welcome = welcome;
	queue_message(stream, &order.base);
	pl_stream_map(streams, stream);
	if (stream->expert)
		send_peers(streams, stream);
}

void pl_stream_standing(struct pl_stream *stream, bool counts, const char *why)
{
	Cadre__V1__NodeOrder order = CADRE__V1__NODE_ORDER__INIT;
	Cadre__V1__Standing standing = CADRE__V1__STANDING__INIT;

	standing.counts = counts;
	standing.why = (char *)why;
	order.order_case = CADRE__V1__NODE_ORDER__ORDER_STANDING;
	order.standing = &standing;
	queue_message(stream, &order.base);
}

/* Its process joins again, and gets its orders again. */
static void no_memory(struct pl_stream *stream)
{
	cad_rpc_call_abort(
		stream->call, CAD_RPC_RESOURCE_EXHAUSTED, "the placement service is out of memory for an order");
}

static void id_fill(Cadre__V1__ExpertId *id, const struct pl_shape *shape, uint32_t cell)
{
	cadre__v1__expert_id__init(id);
	id->layer = pl_cell_layer(shape, cell);
	id->expert = pl_cell_expert(shape, cell);
}

void pl_stream_loads(
	struct pl_stream *stream, const struct pl_shape *shape, const struct pl_load_order *orders, uint32_t count)
{
	Cadre__V1__ExpertId *ids = malloc(count * sizeof *ids), **id_list = malloc(count * sizeof *id_list);
	Cadre__V1__ExpertSource *sources = malloc(count * sizeof *sources),
				**source_list = malloc(count * sizeof *source_list);
	Cadre__V1__NodeOrder order = CADRE__V1__NODE_ORDER__INIT;
	Cadre__V1__LoadOrder load = CADRE__V1__LOAD_ORDER__INIT;

	if (!ids || !id_list || !sources || !source_list) {
		no_memory(stream);
		goto free_lists;
	}

	for (uint32_t i = 0; i < count; i++) {
		id_fill(&ids[i], shape, orders[i].cell);
		id_list[i] = &ids[i];
		cadre__v1__expert_source__init(&sources[i]);
		source_list[i] = &sources[i];
		sources[i].bytes_per_second = orders[i].bytes_per_second;
		if (!orders[i].node)
			continue;
		sources[i].node = (char *)orders[i].node;
		sources[i].exchange_address = (char *)orders[i].exchange_address;
		sources[i].checksum = (char *)orders[i].checksum;
	}

	load.experts = id_list;
	load.n_experts = count;
	load.sources = source_list;
	load.n_sources = count;
	order.order_case = CADRE__V1__NODE_ORDER__ORDER_LOAD;
	order.load = &load;
	queue_message(stream, &order.base);

free_lists:
	free(ids);
	free(id_list);
	free(sources);
	free(source_list);
}

void pl_stream_frees(struct pl_stream *stream, const struct pl_shape *shape, const uint32_t *cells, uint32_t count)
{
	Cadre__V1__ExpertId *ids = malloc(count * (sizeof *ids + sizeof(Cadre__V1__ExpertId *)));
	Cadre__V1__NodeOrder order = CADRE__V1__NODE_ORDER__INIT;
	Cadre__V1__FreeOrder release = CADRE__V1__FREE_ORDER__INIT;

	if (!ids) {
		no_memory(stream);
		return;
	}

	Cadre__V1__ExpertId **list = (Cadre__V1__ExpertId **)(ids + count);
	for (uint32_t i = 0; i < count; i++) {
		id_fill(&ids[i], shape, cells[i]);
		list[i] = &ids[i];
	}

	release.experts = list;
	release.n_experts = count;
	order.order_case = CADRE__V1__NODE_ORDER__ORDER_FREE;
	order.free = &release;
	queue_message(stream, &order.base);
	free(ids);
}
