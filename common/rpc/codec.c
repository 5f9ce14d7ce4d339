/* SPDX-License-Identifier: Apache-2.0 */
/* Safe decoding on top of protobuf-c. */
#include "common/rpc/codec.h"

#include "common/base/utf8.h"

#include <stdlib.h>
#include <string.h>

/* ---- arena ---- */

enum { CHUNK_BYTES_MIN = 512, CHUNK_BYTES_MAX = 256 * 1024 };

struct cad_rpc_arena_chunk {
	struct cad_rpc_arena_chunk *next;
	size_t capacity, used;
	max_align_t data[];
};

static void *protobuf_alloc(void *arena, size_t bytes) { return cad_rpc_arena_alloc(arena, bytes); }
static void protobuf_free(void *arena, void *pointer) { (void)arena, (void)pointer; }

void cad_rpc_arena_init(struct cad_rpc_arena *arena, size_t limit_bytes)
{
	*arena = (struct cad_rpc_arena){ .limit_bytes = limit_bytes };
	arena->protobuf = (ProtobufCAllocator){
		.alloc = protobuf_alloc,
		.free = protobuf_free,
		.allocator_data = arena,
	};
}

/* A chunk with room for `bytes`; chunks grow, except near the limit. */
static struct cad_rpc_arena_chunk *chunk_add(struct cad_rpc_arena *arena, size_t bytes)
{
	size_t left = arena->limit_bytes - arena->used_bytes;
	size_t capacity = arena->chunks ? arena->chunks->capacity * 2 : CHUNK_BYTES_MIN;

	if (capacity > CHUNK_BYTES_MAX)
		capacity = CHUNK_BYTES_MAX;
	if (capacity < bytes || capacity > left)
		capacity = bytes;
	struct cad_rpc_arena_chunk *chunk = capacity > left ? NULL : malloc(sizeof *chunk + capacity);
	if (!chunk)
		return NULL;
	*chunk = (struct cad_rpc_arena_chunk){ .next = arena->chunks, .capacity = capacity };
	arena->chunks = chunk;
	arena->used_bytes += capacity;

	return chunk;
}

void *cad_rpc_arena_alloc(struct cad_rpc_arena *arena, size_t bytes)
{
	const size_t alignment = _Alignof(max_align_t);
	if (bytes > arena->limit_bytes) {
		arena->exhausted = true;
		return NULL;
	}

	bytes = (bytes + alignment - 1) & ~(alignment - 1);
	struct cad_rpc_arena_chunk *chunk = arena->chunks;
	if (!chunk || chunk->capacity - chunk->used < bytes)
		chunk = chunk_add(arena, bytes);
	if (!chunk) {
		arena->exhausted = true;
		return NULL;
	}

	void *pointer = (char *)chunk->data + chunk->used;
	chunk->used += bytes;
	return pointer;
}

void cad_rpc_arena_reset(struct cad_rpc_arena *arena)
{
	for (struct cad_rpc_arena_chunk *chunk = arena->chunks, *next; chunk; chunk = next) {
		next = chunk->next;
		free(chunk);
	}
	arena->chunks = NULL;
	arena->used_bytes = 0;
	arena->exhausted = false;
}

/* ---- validation ---- */

/* A NUL would cut a C string short. */
static enum cad_status string_check(const ProtobufCMessageDescriptor *type, const ProtobufCFieldDescriptor *field,
	const uint8_t *text, size_t size, struct cad_error *error)
{
	size_t valid = cad_utf8_valid((const char *)text, size);
	const uint8_t *nul = valid > 0 ? memchr(text, 0, valid) : NULL;
	size_t at = nul ? (size_t)(nul - text) : valid;

	if (at < size)
		return cad_error_set(error, CAD_ERR_CORRUPT, "%s.%s: byte %zu is not valid UTF-8, or a NUL", type->name,
			field->name, at);
	return CAD_OK;
}

static bool varint_take(const uint8_t **at, const uint8_t *end, uint64_t *value)
{
	uint64_t sum = 0;
	for (unsigned shift = 0; shift < 70; shift += 7) {
		if (*at == end)
			return false;
		uint8_t byte = *(*at)++;
		sum |= (uint64_t)(byte & 0x7f) << shift;
		if (!(byte & 0x80)) {
			*value = sum;
			return true;
		}
	}
	return false;
}

static enum cad_status message_check(
	const ProtobufCMessageDescriptor *type, const uint8_t *at, size_t size, int depth, struct cad_error *error);

/* A field with a length: nested message, string, bytes, packed numbers, or unknown. */
static enum cad_status field_check(const ProtobufCMessageDescriptor *type, uint64_t number, const uint8_t *at,
	size_t size, int depth, struct cad_error *error)
{
	const ProtobufCFieldDescriptor *field = protobuf_c_message_descriptor_get_field(type, (unsigned)number);
	if (field && field->type == PROTOBUF_C_TYPE_MESSAGE)
		return message_check(field->descriptor, at, size, depth - 1, error);
	if (field && field->type == PROTOBUF_C_TYPE_STRING)
		return string_check(type, field, at, size, error);
	return CAD_OK;
}

static enum cad_status message_check(
	const ProtobufCMessageDescriptor *type, const uint8_t *at, size_t size, int depth, struct cad_error *error)
{
	enum { VARINT = 0, FIXED64 = 1, LENGTH = 2, FIXED32 = 5 };
	if (depth == 0)
		return cad_error_set(error, CAD_ERR_CORRUPT, "%s: messages are nested more than %d deep", type->name,
			CAD_RPC_DEPTH_MAX);
	const uint8_t *end = at + size;
	while (at < end) {
		uint64_t tag, value = 0;
		bool good = varint_take(&at, end, &tag) && tag <= UINT32_MAX && tag >> 3 != 0;
		switch (good ? (int)(tag & 7) : -1) {
		case VARINT: good = varint_take(&at, end, &value); break;
		case FIXED64: value = 8; break;
		case FIXED32: value = 4; break;
		case LENGTH: good = varint_take(&at, end, &value); break;
		default: good = false; break; /* groups, too: protobuf-c does not know them */
		}
		if (!good || ((tag & 7) != VARINT && value > (uint64_t)(end - at)))
			return cad_error_set(
				error, CAD_ERR_CORRUPT, "%s: malformed or truncated protobuf message", type->name);
		if ((tag & 7) == VARINT)
			continue;
		if ((tag & 7) == LENGTH) {
			enum cad_status status = field_check(type, tag >> 3, at, (size_t)value, depth, error);
			if (status != CAD_OK)
				return status;
		}
		at += value;
	}

	return CAD_OK;
}

enum cad_status cad_rpc_validate(
	const ProtobufCMessageDescriptor *type, const uint8_t *bytes, size_t size, struct cad_error *error)
{
	return message_check(type, bytes, size, CAD_RPC_DEPTH_MAX, error);
}

enum cad_status cad_rpc_decode(const ProtobufCMessageDescriptor *type, const uint8_t *bytes, size_t size,
	struct cad_rpc_arena *arena, ProtobufCMessage **message, struct cad_error *error)
{
	enum cad_status status = cad_rpc_validate(type, bytes, size, error);
	if (status != CAD_OK)
		return status;

	cad_rpc_arena_reset(arena);
	ProtobufCMessage *unpacked = protobuf_c_message_unpack(type, &arena->protobuf, size, bytes);
	if (unpacked) {
		*message = unpacked;
		return CAD_OK;
	}

	bool exhausted = arena->exhausted; /* protobuf-c does not say why */
	cad_rpc_arena_reset(arena);
	if (exhausted)
		return cad_error_set(error, CAD_ERR_EXHAUSTED,
			"%s: would take more than %zu bytes of memory once decoded", type->name, arena->limit_bytes);

	return cad_error_set(error, CAD_ERR_CORRUPT,
		"%s: malformed protobuf message: a field has another type than the .proto file says", type->name);
}
