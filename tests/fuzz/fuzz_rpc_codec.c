/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hostile protobuf messages: what is accepted can be packed and decoded again, whatever it was, and
 * memory stays within the arena's limit.
 * The first byte chooses the message type and the limit.
 */
#include "cadre/v1/inference.pb-c.h"
#include "cadre/v1/placement.pb-c.h"
#include "common/rpc/codec.h"
#include "google/protobuf/descriptor.pb-c.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	const ProtobufCMessageDescriptor *const types[] = {
		&cadre__v1__generate_request__descriptor,
		&cadre__v1__node_report__descriptor,
		&cadre__v1__node_order__descriptor,
		/* messages in themselves, and every kind of field */
		&google__protobuf__file_descriptor_proto__descriptor,
	};

	if (size == 0)
		return 0;

	const ProtobufCMessageDescriptor *type = types[bytes[0] & 3];
	size_t limit = bytes[0] & 4 ? 1 << 20 : 2048;
	struct cad_rpc_arena arena, again;
	cad_rpc_arena_init(&arena, limit);
	cad_rpc_arena_init(&again, 8 << 20);
	ProtobufCMessage *message, *repeated;
	struct cad_error error;
	if (cad_rpc_decode(type, bytes + 1, size - 1, &arena, &message, &error) == CAD_OK) {
		CAD_ASSERT(arena.used_bytes <= limit && protobuf_c_message_check(message));
		size_t packed = protobuf_c_message_get_packed_size(message);
		uint8_t *buffer = malloc(packed + 1);
		CAD_ASSERT(buffer && protobuf_c_message_pack(message, buffer) == packed);
		CAD_ASSERT(cad_rpc_decode(type, buffer, packed, &again, &repeated, &error) == CAD_OK);
		free(buffer);
	} else {
		CAD_ASSERT(error.text[0] != 0 && arena.used_bytes == 0);
	}

	cad_rpc_arena_reset(&arena);
	cad_rpc_arena_reset(&again);
	return 0;
}
