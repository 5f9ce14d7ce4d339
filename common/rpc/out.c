/* SPDX-License-Identifier: Apache-2.0 */
/* What a call sends, on either side: messages that wait, and the one write that is in flight. */
#include "common/rpc/internal.h"

#include <stdlib.h>

struct cad_rpc_out_message {
	struct cad_rpc_out_message *next;
	grpc_slice data;
};

void cad_rpc_out_init(struct cad_rpc_out *out, size_t high_bytes, size_t low_bytes)
{
	*out = (struct cad_rpc_out){ .high_bytes = high_bytes, .low_bytes = low_bytes };
	out->end = &out->first;
}

static grpc_slice out_take(struct cad_rpc_out *out)
{
	struct cad_rpc_out_message *waiting = out->first;
	grpc_slice data = waiting->data;

	out->bytes -= GRPC_SLICE_LENGTH(data);
	out->first = waiting->next;
	if (!out->first)
		out->end = &out->first;
	free(waiting);
	return data;
}

static void sending_drop(struct cad_rpc_out *out)
{
	if (out->sending)
		grpc_byte_buffer_destroy(out->sending);
	out->sending = NULL;
}

void cad_rpc_out_clear(struct cad_rpc_out *out)
{
	while (out->first)
		grpc_slice_unref(out_take(out));
}

void cad_rpc_out_fini(struct cad_rpc_out *out)
{
	cad_rpc_out_clear(out);
	sending_drop(out);
}

void cad_rpc_out_push(struct cad_rpc_out *out, const ProtobufCMessage *message)
{
	struct cad_rpc_out_message *waiting = cad_rpc_must(malloc(sizeof *waiting));
	waiting->next = NULL;
	waiting->data = cad_rpc_encode(message);
	*out->end = waiting;
	out->end = &waiting->next;
	out->bytes += GRPC_SLICE_LENGTH(waiting->data);
}

enum cad_status cad_rpc_out_state(struct cad_rpc_out *out)
{
	if (out->bytes < out->high_bytes)
		return CAD_OK;
	out->was_full = true;
	return CAD_FULL;
}

bool cad_rpc_out_has_room_again(struct cad_rpc_out *out)
{
	if (!out->was_full || out->bytes > out->low_bytes)
		return false;
	out->was_full = false;
	return true;
}

bool cad_rpc_out_is_last(const struct cad_rpc_out *out) { return !out->first || !out->first->next; }

size_t cad_rpc_out_write(struct cad_rpc_out *out, grpc_op *op)
{
	CAD_ASSERT(!out->writing);
	out->writing = true;
	if (!out->first)
		return 0;

	grpc_slice data = out_take(out);
	out->sending = grpc_raw_byte_buffer_create(&data, 1);
	grpc_slice_unref(data);
	op->op = GRPC_OP_SEND_MESSAGE;
	op->flags = out->first ? GRPC_WRITE_BUFFER_HINT : 0; /* more to come: gather it into bigger writes */
	op->data.send_message.send_message = out->sending;
	return 1;
}

void cad_rpc_out_written(struct cad_rpc_out *out)
{
	out->writing = false;
	sending_drop(out);
}
