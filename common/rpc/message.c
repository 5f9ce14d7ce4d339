/* SPDX-License-Identifier: Apache-2.0 */
/* Messages and metadata as gRPC carries them: slices, compression. */
#include "common/rpc/internal.h"

#include <grpc/byte_buffer_reader.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

grpc_slice cad_rpc_encode(const ProtobufCMessage *message)
{
	grpc_slice slice = grpc_slice_malloc(protobuf_c_message_get_packed_size(message));
	protobuf_c_message_pack(message, GRPC_SLICE_START_PTR(slice));
	return slice;
}

/* ---- decoding ---- */

struct inflated {
	uint8_t *bytes;
	size_t size, capacity;
};

/* Feeds one slice; *ended says that the stream is complete. */
static enum cad_status inflate_slice(z_stream *stream, grpc_slice slice, size_t bytes_max, struct inflated *out,
	bool *ended, struct cad_error *error)
{
	stream->next_in = GRPC_SLICE_START_PTR(slice);
	stream->avail_in = (uInt)GRPC_SLICE_LENGTH(slice);

	do {
		if (out->size == out->capacity) {
			if (out->capacity > bytes_max)
				return cad_error_set(error, CAD_ERR_EXHAUSTED,
					"the message is larger than %zu bytes once decompressed", bytes_max);
			size_t capacity = out->capacity * 2 > bytes_max ? bytes_max + 1 : out->capacity * 2;
			out->bytes = cad_rpc_must(realloc(out->bytes, capacity));
			out->capacity = capacity;
		}
		size_t room = out->capacity - out->size;
		uInt offered = room > UINT_MAX ? UINT_MAX : (uInt)room;
		stream->next_out = out->bytes + out->size;
		stream->avail_out = offered;
		int result = inflate(stream, Z_NO_FLUSH);
		if (result != Z_OK && result != Z_STREAM_END && result != Z_BUF_ERROR)
			return cad_error_set(error, CAD_ERR_CORRUPT, "the compressed message is broken: %s",
				stream->msg ? stream->msg : "zlib gives no reason");
		out->size += offered - stream->avail_out;
		*ended = result == Z_STREAM_END;
		/* a full buffer may hide more that zlib has ready */
	} while (!*ended && (stream->avail_in || stream->avail_out == 0));
	return CAD_OK;
}

/* gzip or zlib, and never much more than bytes_max in memory. */
static enum cad_status inflate_buffer(
	grpc_byte_buffer *buffer, size_t bytes_max, struct inflated *out, struct cad_error *error)
{
	z_stream stream = { 0 };
	CAD_ASSERT(inflateInit2(&stream, 15 + 32) == Z_OK);
	size_t guess = 4 * grpc_byte_buffer_length(buffer) + 256;
	out->size = 0;
	out->capacity = guess > bytes_max ? bytes_max + 1 : guess;
	out->bytes = cad_rpc_must(malloc(out->capacity));
	const grpc_slice_buffer *slices = &buffer->data.raw.slice_buffer;
	bool ended = false;
	enum cad_status status = CAD_OK;
	for (size_t i = 0; status == CAD_OK && i < slices->count; i++)
		status = inflate_slice(&stream, slices->slices[i], bytes_max, out, &ended, error);
	if (status == CAD_OK && !ended)
		status = cad_error_set(error, CAD_ERR_CORRUPT, "the compressed message is cut short");
	if (status == CAD_OK && out->size > bytes_max)
		status = cad_error_set(
			error, CAD_ERR_EXHAUSTED, "the message is larger than %zu bytes once decompressed", bytes_max);
	inflateEnd(&stream);

	return status;
}

static enum cad_status decode_compressed(const ProtobufCMessageDescriptor *type, grpc_byte_buffer *buffer,
	size_t bytes_max, struct cad_rpc_arena *arena, ProtobufCMessage **message, struct cad_error *error)
{
	grpc_compression_algorithm algorithm = buffer->data.raw.compression;
	if (algorithm != GRPC_COMPRESS_GZIP && algorithm != GRPC_COMPRESS_DEFLATE)
		return cad_error_set(error, CAD_ERR_UNSUPPORTED,
			"compression %d is not supported; use gzip, deflate or none", (int)algorithm);
	struct inflated plain;
	enum cad_status status = inflate_buffer(buffer, bytes_max, &plain, error);
	if (status == CAD_OK)
		status = cad_rpc_decode(type, plain.bytes, plain.size, arena, message, error);
	free(plain.bytes);
	return status;
}

static enum cad_status decode_plain(const ProtobufCMessageDescriptor *type, grpc_byte_buffer *buffer,
	struct cad_rpc_arena *arena, ProtobufCMessage **message, struct cad_error *error)
{
	const grpc_slice_buffer *slices = &buffer->data.raw.slice_buffer;
	if (slices->count == 1) /* no copy */
		return cad_rpc_decode(type, GRPC_SLICE_START_PTR(slices->slices[0]),
			GRPC_SLICE_LENGTH(slices->slices[0]), arena, message, error);
	grpc_byte_buffer_reader reader;
	CAD_ASSERT(grpc_byte_buffer_reader_init(&reader, buffer));
	grpc_slice all = grpc_byte_buffer_reader_readall(&reader);
	enum cad_status status =
		cad_rpc_decode(type, GRPC_SLICE_START_PTR(all), GRPC_SLICE_LENGTH(all), arena, message, error);
	grpc_slice_unref(all);
	grpc_byte_buffer_reader_destroy(&reader);

	return status;
}

enum cad_status cad_rpc_decode_buffer(const ProtobufCMessageDescriptor *type, grpc_byte_buffer *buffer,
	size_t bytes_max, struct cad_rpc_arena *arena, ProtobufCMessage **message, enum cad_rpc_code *code,
	struct cad_error *error)
{
	enum cad_status status = buffer->data.raw.compression == GRPC_COMPRESS_NONE
		? decode_plain(type, buffer, arena, message, error)
		: decode_compressed(type, buffer, bytes_max, arena, message, error);
	if (status != CAD_OK)
		*code = status == CAD_ERR_CORRUPT ? CAD_RPC_INVALID_ARGUMENT : cad_rpc_code_of_status(status);
	return status;
}

/* ---- metadata ---- */

const uint8_t *cad_rpc_metadata_find(const grpc_metadata_array *array, const char *key, size_t *size)
{
	for (size_t i = 0; i < array->count; i++) {
		const grpc_metadata *entry = &array->metadata[i];
		if (grpc_slice_str_cmp(entry->key, key) == 0) {
			*size = GRPC_SLICE_LENGTH(entry->value);
			return GRPC_SLICE_START_PTR(entry->value);
		}
	}
	return NULL;
}

bool cad_rpc_metadata_is_single(const grpc_metadata_array *array, const char *key)
{
	size_t count = 0;
	for (size_t i = 0; i < array->count; i++)
		count += grpc_slice_str_cmp(array->metadata[i].key, key) == 0;
	return count == 1;
}
