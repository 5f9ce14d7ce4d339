/* SPDX-License-Identifier: Apache-2.0 */
#include "router-svc/frontend/message.h"

#include "common/base/digest.h"
#include "router-svc/frontend/stop_text.h"

static void *array(struct cad_rpc_arena *arena, size_t count, size_t size)
{
	return cad_rpc_arena_alloc(arena, (count ? count : 1) * size);
}

static bool layer_write(const struct rt_routing *routing, uint32_t row, uint32_t layer, struct cad_rpc_arena *arena,
	Cadre__V1__LayerRouting *message)
{
	size_t from = ((size_t)row * routing->moe_layers + layer) * routing->topk, count = 0;
	cadre__v1__layer_routing__init(message);
	message->layer = routing->layers[layer];
	message->experts = array(arena, routing->topk, sizeof *message->experts);
	message->weights = array(arena, routing->topk, sizeof *message->weights);
	message->nodes = array(arena, routing->topk, sizeof *message->nodes);
	if (!message->experts || !message->weights || !message->nodes)
		return false;

	for (size_t slot = from; slot < from + routing->topk; slot++) {
		if (routing->ids[slot] < 0)
			continue;
		message->experts[count] = (uint32_t)routing->ids[slot];
		message->weights[count] = routing->weights[slot];
		message->nodes[count++] = (char *)(uintptr_t)routing->names[routing->nodes[slot]];
	}

	message->n_experts = message->n_weights = message->n_nodes = count;
	return true;
}

static Cadre__V1__TokenRouting *row_write(const struct rt_routing *routing, uint32_t row, struct cad_rpc_arena *arena)
{
	Cadre__V1__TokenRouting *message = array(arena, 1, sizeof *message);
	Cadre__V1__LayerRouting *layers = array(arena, routing->moe_layers, sizeof *layers);
	Cadre__V1__LayerRouting **pointers = array(arena, routing->moe_layers, sizeof *pointers);

	if (!message || !layers || !pointers)
		return NULL;

	cadre__v1__token_routing__init(message);
	message->position = routing->first_position + row;
	message->n_layers = routing->moe_layers;
	message->layers = pointers;

	for (uint32_t layer = 0; layer < routing->moe_layers; layer++) {
		pointers[layer] = &layers[layer];
		if (!layer_write(routing, row, layer, arena, pointers[layer]))
			return NULL;
	}

	return message;
}

static enum cad_status routing_write(
	const struct rt_piece *piece, struct cad_rpc_arena *arena, Cadre__V1__GenerateResponse *message)
{
	message->routing = array(arena, piece->routing_rows, sizeof *message->routing);
	if (!message->routing)
		return CAD_ERR_EXHAUSTED;

	for (uint32_t i = 0; i < piece->routing_rows; i++) {
		message->routing[i] = row_write(piece->routing, piece->routing_first + i, arena);
		if (!message->routing[i])
			return CAD_ERR_EXHAUSTED;
	}

	message->n_routing = piece->routing_rows;
	return CAD_OK;
}

static enum cad_status text_write(
	const struct rt_piece *piece, struct cad_rpc_arena *arena, Cadre__V1__GenerateResponse *message)
{
	size_t bytes = rt_text_shown_bytes(piece->text, piece->text_size);
	message->text = (char *)(uintptr_t)piece->text;
	message->text_bytes.data = (uint8_t *)(uintptr_t)piece->text;
	message->text_bytes.len = piece->text_size;
	if (bytes == piece->text_size + 1)
		return CAD_OK;

	message->text = array(arena, bytes, 1);
	if (!message->text)
		return CAD_ERR_EXHAUSTED;
	rt_text_show(piece->text, piece->text_size, message->text);
	return CAD_OK;
}

enum cad_status rt_message_piece(const struct rt_piece *piece, struct cad_rpc_arena *arena,
	Cadre__V1__GenerateResponse *message, struct cad_error *error)
{
	cadre__v1__generate_response__init(message);
	message->token_ids = (int32_t *)(uintptr_t)piece->ids;
	message->n_token_ids = piece->ids_count;
	if (piece->text && text_write(piece, arena, message) != CAD_OK)
		return cad_error_set(error, CAD_ERR_EXHAUSTED, "no memory for the text of the answer");
	if (piece->routing && routing_write(piece, arena, message) != CAD_OK)
		return cad_error_set(error, CAD_ERR_EXHAUSTED, "no memory for the routing of the answer");
	if (!piece->digest)
		return CAD_OK;
	message->digest_so_far = array(arena, 33, 1);
	if (!message->digest_so_far)
		return cad_error_set(error, CAD_ERR_EXHAUSTED, "no memory for the digest of the answer");
	cad_digest_bytes_text(piece->digest, message->digest_so_far);
	return CAD_OK;
}

void rt_message_end(const struct rt_end *end, const struct rt_policies *policies, const char *settings,
	struct rt_message_end *parts, Cadre__V1__GenerateResponse *message)
{
	const struct rt_usage *from = &end->usage;

	cadre__v1__usage__init(&parts->usage);
	parts->usage.prompt_tokens = from->prompt_tokens;
	parts->usage.generated_tokens = from->generated_tokens;
	parts->usage.first_token_us = from->first_token_us;
	parts->usage.total_us = from->total_us;
	parts->usage.nodes_touched = from->nodes_touched;
	parts->usage.routed_rows = from->routed_rows;
	parts->usage.bytes_sent = from->bytes_sent;
	parts->usage.bytes_received = from->bytes_received;
	parts->usage.calls_hedged = from->calls_hedged;
	parts->usage.hedges_won = from->hedges_won;
	parts->usage.rows_diverted = from->rows_diverted;

	cadre__v1__capacity__init(&parts->capacity);
	parts->capacity.policy = (char *)(uintptr_t)rt_capacity_names[policies->capacity];
	parts->capacity.factor = policies->capacity_factor;
	parts->capacity.dropped = from->dropped;
	parts->capacity.spilled = from->spilled;

	cadre__v1__absent__init(&parts->absent);
	parts->absent.policy = (char *)(uintptr_t)rt_absent_names[policies->absent];
	parts->absent.slots = from->absent_slots;
	parts->absent.rows = from->absent_rows;

	cad_digest_bytes_text(end->digest, parts->digest);
	message->digest = parts->digest;
	message->usage = &parts->usage;
	message->capacity = &parts->capacity;
	message->absent = &parts->absent;
	message->settings = (char *)(uintptr_t)settings;
	message->finish_reason = end->reason == RT_FINISH_STOP ? CADRE__V1__FINISH_REASON__FINISH_REASON_STOP
							       : CADRE__V1__FINISH_REASON__FINISH_REASON_LENGTH;
}
