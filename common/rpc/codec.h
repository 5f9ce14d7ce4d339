/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Safe decoding on top of protobuf-c, for bytes from anybody.
 *
 * protobuf-c does not limit nesting (a small message can overflow the stack), does not check UTF-8,
 * cuts strings at an embedded NUL, and lets a small message unpack into a large one. This checks
 * the bytes against the descriptor first, and unpacks into an arena with a limit. Everything
 * belongs to the caller; any thread may use an arena of its own. Allocates, does not block.
 */
#ifndef CADRE_COMMON_RPC_CODEC_H
#define CADRE_COMMON_RPC_CODEC_H

#include "common/base/status.h"

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CAD_RPC_DEPTH_MAX = 64 };

/* A bump allocator with a hard limit, freed in one go. Do not move it: `protobuf` points back into
 * it. */
struct cad_rpc_arena {
	struct cad_rpc_arena_chunk *chunks;
	size_t used_bytes, limit_bytes;
	bool exhausted;              /* an allocation was refused */
	ProtobufCAllocator protobuf; /* what protobuf-c's functions take */
};

void cad_rpc_arena_init(struct cad_rpc_arena *arena, size_t limit_bytes);
/* NULL when the limit is reached; aligned for any type. */
void *cad_rpc_arena_alloc(struct cad_rpc_arena *arena, size_t bytes);
/* Frees everything; the arena can be used again. */
void cad_rpc_arena_reset(struct cad_rpc_arena *arena);

/* Whether the bytes are a well-formed message of that type: CAD_ERR_CORRUPT and a sentence that
 * names the message and field if not. */
CAD_MUST_USE enum cad_status cad_rpc_validate(
	const ProtobufCMessageDescriptor *type, const uint8_t *bytes, size_t size, struct cad_error *error);
/* Validates, resets the arena, and unpacks into it. The message lives until the arena is reset.
 * CAD_ERR_EXHAUSTED: it needs more than the arena's limit. */
CAD_MUST_USE enum cad_status cad_rpc_decode(const ProtobufCMessageDescriptor *type, const uint8_t *bytes, size_t size,
	struct cad_rpc_arena *arena, ProtobufCMessage **message, struct cad_error *error);

#endif
