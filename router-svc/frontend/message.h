/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An answer as messages of proto/cadre/v1/inference.proto. One thread; allocates only from the
 * arena.
 */
#ifndef CADRE_ROUTER_SVC_FRONTEND_MESSAGE_H
#define CADRE_ROUTER_SVC_FRONTEND_MESSAGE_H

#include "cadre/v1/inference.pb-c.h"
#include "common/rpc/codec.h"
#include "router-svc/frontend/sink.h"
#include "router-svc/moe/policies.h"

/* `message` points into the piece and the arena. CAD_ERR_EXHAUSTED and a sentence: the arena is too
 * small for the routing, or for a text with U+0000. A dropped slot is left out. */
CAD_MUST_USE enum cad_status rt_message_piece(const struct rt_piece *piece, struct cad_rpc_arena *arena,
	Cadre__V1__GenerateResponse *message, struct cad_error *error);

/* What the last message points to. */
struct rt_message_end {
	Cadre__V1__Usage usage;
	Cadre__V1__Capacity capacity;
	Cadre__V1__Absent absent;
	char digest[33];
};
/* `settings`: cad_settings_text; `message` points to it. */
void rt_message_end(const struct rt_end *end, const struct rt_policies *policies, const char *settings,
	struct rt_message_end *parts, Cadre__V1__GenerateResponse *message);

#endif
