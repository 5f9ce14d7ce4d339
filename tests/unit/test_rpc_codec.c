/* SPDX-License-Identifier: Apache-2.0 */
/* Decoding what anybody may have sent: validation, arena limits, compression. */
#include "cadre/v1/inference.pb-c.h"
#include "common/rpc/internal.h"
#include "google/protobuf/descriptor.pb-c.h"
#include "tests/support/must.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include <cmocka.h>

#define TEXT_TYPE (&cadre__v1__tokenize_request__descriptor)

static enum cad_status decode(
	const ProtobufCMessageDescriptor *type, const void *bytes, size_t size, struct cad_error *error)
{
	struct cad_rpc_arena arena;
	ProtobufCMessage *message;
	cad_rpc_arena_init(&arena, 1 << 20);
	enum cad_status status = cad_rpc_decode(type, bytes, size, &arena, &message, error);
	cad_rpc_arena_reset(&arena);
	return status;
}

static void strings(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		size_t size;
		bool good;
	} cases[] = {
		{ "", 0, true },
		{ "a", 1, true },
		{ "\xc3\xa9", 2, true },
		{ "\xe2\x82\xac", 3, true },
		{ "\xf0\x9f\x98\x80", 4, true },
		{ "\x7f", 1, true },
		{ "\xf4\x8f\xbf\xbf", 4, true },
		{ "\xef\xbf\xbf", 3, true },
		{ "\xed\x9f\xbf", 3, true },
		{ "\0", 1, false },
		{ "a\0b", 3, false },
		{ "\x80", 1, false },
		{ "\xc3", 1, false },
		{ "\xc3(", 2, false },
		{ "\xe2\x82", 2, false },
		{ "\xe2\x82(", 3, false },
		{ "\xc0\xaf", 2, false },
		{ "\xc1\xbf", 2, false },
		{ "\xe0\x80\xaf", 3, false },
		{ "\xf0\x80\x80\xaf", 4, false },
		{ "\xed\xa0\x80", 3, false },
		{ "\xf4\x90\x80\x80", 4, false },
		{ "\xf8\x88\x80\x80\x80", 5, false },
		{ "\xff", 1, false },
		{ "\xf0\x9f\x98", 3, false },
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		uint8_t bytes[16] = { 0x0a, (uint8_t)cases[i].size };
		memcpy(bytes + 2, cases[i].text, cases[i].size);
		struct cad_error error;
		enum cad_status status = decode(TEXT_TYPE, bytes, cases[i].size + 2, &error);
		if (status != (cases[i].good ? CAD_OK : CAD_ERR_CORRUPT))
			fail_msg("case %zu: %s", i, cad_status_name(status));
		if (!cases[i].good)
			assert_non_null(strstr(error.text, "cadre.v1.TokenizeRequest.text: byte "));
	}
}

static void malformed(void **state)
{
	(void)state;
	static const struct {
		const char *bytes;
		size_t size;
	} cases[] = {
		{ "\x0a", 1 }, /* no length */
		{ "\x0a\x05"
		  "ab",
			4 }, /* longer than the message */
		{ "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11 },
		{ "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12 }, /* a varint of eleven bytes */
		{ "\x10", 1 }, { "\x10\x80", 2 },                           /* no value, half a value */
		{ "\x11\0\0\0", 4 }, { "\x15\0\0", 3 }, { "\x0b\x0c", 2 },  /* a group */
		{ "\x0e", 1 }, { "\x0f", 1 },                               /* types that do not exist */
		{ "\x02\x00", 2 },                                          /* field 0 */
		{ "\x80", 1 }, { "\xf8\xff\xff\xff\xff\x01\x00", 7 },
		{ "\x08\x01", 2 }, /* a number where a string should be */
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct cad_error error;
		if (decode(TEXT_TYPE, cases[i].bytes, cases[i].size, &error) != CAD_ERR_CORRUPT)
			fail_msg("case %zu", i);
	}

	assert_int_equal(decode(TEXT_TYPE, "", 0, NULL), CAD_OK);

	/* unknown fields are kept, whatever is in them */
	assert_int_equal(decode(TEXT_TYPE, "\xa2\x06\x01\xff", 4, NULL), CAD_OK);
}

/* DescriptorProto.nested_type (field 3) inside itself: `depth` messages, outermost included. */
static size_t nested(uint8_t *bytes, size_t capacity, int depth)
{
	size_t size = 0;
	for (int i = 1; i < depth; i++) {
		uint8_t header[8] = { 0x1a };
		size_t header_size = 1, left = size;
		do {
			header[header_size++] = (uint8_t)((left & 0x7f) | (left > 0x7f ? 0x80 : 0));
			left >>= 7;
		} while (left);
		assert_true(size + header_size <= capacity);
		memmove(bytes + header_size, bytes, size);
		memcpy(bytes, header, header_size);
		size += header_size;
	}
	return size;
}

static void depth(void **state)
{
	(void)state;
	static uint8_t bytes[200000];
	const ProtobufCMessageDescriptor *type = &google__protobuf__descriptor_proto__descriptor;
	struct cad_error error;
	assert_int_equal(decode(type, bytes, nested(bytes, sizeof bytes, CAD_RPC_DEPTH_MAX), NULL), CAD_OK);
	assert_int_equal(
		decode(type, bytes, nested(bytes, sizeof bytes, CAD_RPC_DEPTH_MAX + 1), &error), CAD_ERR_CORRUPT);
	assert_non_null(strstr(error.text, "nested more than 64 deep"));
	assert_int_equal(decode(type, bytes, nested(bytes, sizeof bytes, 20000), &error), CAD_ERR_CORRUPT);
}

static void arena_limits(void **state)
{
	(void)state;
	struct cad_rpc_arena arena;
	cad_rpc_arena_init(&arena, 1000);
	size_t taken = 0;
	void *last = NULL, *next;
	while ((next = cad_rpc_arena_alloc(&arena, 33))) {
		assert_int_equal((uintptr_t)next % _Alignof(max_align_t), 0);
		memset(next, 1, 33);
		taken += 33;
		last = next;
	}

	assert_non_null(last);
	assert_true(taken <= 1000 && taken > 500);
	assert_true(arena.exhausted && arena.used_bytes <= 1000);
	assert_null(cad_rpc_arena_alloc(&arena, SIZE_MAX));
	cad_rpc_arena_reset(&arena);
	assert_non_null(cad_rpc_arena_alloc(&arena, 992));
	assert_null(cad_rpc_arena_alloc(&arena, 32));
	cad_rpc_arena_reset(&arena);

	/* A small message that unpacks into a large one: 10000 empty rows of two bytes. */
	uint8_t *bytes = malloc(20000);
	for (size_t i = 0; i < 10000; i++)
		memcpy(bytes + 2 * i, "\x3a\x00", 2); /* GenerateResponse.routing */
	ProtobufCMessage *message;
	struct cad_error error;
	assert_int_equal(
		cad_rpc_decode(&cadre__v1__generate_response__descriptor, bytes, 20000, &arena, &message, &error),
		CAD_ERR_EXHAUSTED);
	assert_int_equal(arena.used_bytes, 0);
	cad_rpc_arena_init(&arena, 4 << 20);
	must(cad_rpc_decode(&cadre__v1__generate_response__descriptor, bytes, 20000, &arena, &message, &error), &error);
	assert_int_equal(((Cadre__V1__GenerateResponse *)message)->n_routing, 10000);
	cad_rpc_arena_reset(&arena);
	free(bytes);
}

/* ---- compression ---- */

/* A compressed TokenizeRequest whose text has `size` characters, in slices of `slice` bytes. */
static grpc_byte_buffer *compressed(
	size_t size, size_t slice, int window_bits, size_t cut, grpc_compression_algorithm algorithm)
{
	Cadre__V1__TokenizeRequest request = CADRE__V1__TOKENIZE_REQUEST__INIT;
	request.text = malloc(size + 1);
	memset(request.text, 'x', size);
	request.text[size] = 0;
	size_t packed = protobuf_c_message_get_packed_size(&request.base);
	uint8_t *plain = malloc(packed + 1), *deflated = malloc(packed + 1000);
	protobuf_c_message_pack(&request.base, plain);
	z_stream stream = {
		.next_in = plain,
		.avail_in = (uInt)packed,
		.next_out = deflated,
		.avail_out = (uInt)(packed + 1000),
	};
	assert_int_equal(deflateInit2(&stream, 6, Z_DEFLATED, window_bits, 8, Z_DEFAULT_STRATEGY), Z_OK);
	assert_int_equal(deflate(&stream, Z_FINISH), Z_STREAM_END);
	size_t total = stream.total_out - cut;
	deflateEnd(&stream);
	grpc_slice slices[400];
	size_t count = 0;
	for (size_t at = 0; at < total && count < 400; at += slice)
		slices[count++] =
			grpc_slice_from_copied_buffer((char *)deflated + at, at + slice < total ? slice : total - at);
	grpc_byte_buffer *buffer = grpc_raw_compressed_byte_buffer_create(slices, count, algorithm);
	for (size_t i = 0; i < count; i++)
		grpc_slice_unref(slices[i]);
	free(deflated);
	free(plain);
	free(request.text);

	return buffer;
}

static enum cad_status inflate_case(
	grpc_byte_buffer *buffer, size_t bytes_max, size_t expected, enum cad_rpc_code *code)
{
	struct cad_rpc_arena arena;
	ProtobufCMessage *message;
	struct cad_error error;

	cad_rpc_arena_init(&arena, 64 << 20);
	*code = CAD_RPC_OK;
	enum cad_status status = cad_rpc_decode_buffer(TEXT_TYPE, buffer, bytes_max, &arena, &message, code, &error);
	if (status == CAD_OK)
		assert_int_equal(strlen(((Cadre__V1__TokenizeRequest *)message)->text), expected);
	cad_rpc_arena_reset(&arena);
	grpc_byte_buffer_destroy(buffer);

	return status;
}

enum { GZIP = 15 + 16, ZLIB = 15 };

static void compression(void **state)
{
	(void)state;
	enum cad_rpc_code code;
	static const size_t sizes[] = { 1, 200, 252, 253, 254, 1000, 100000, 3000000 };
	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
		for (size_t slice = 7; slice < 100000; slice *= 100) {
			if (sizes[i] / 300 > slice * 400)
				continue;
			assert_int_equal(inflate_case(compressed(sizes[i], slice, GZIP, 0, GRPC_COMPRESS_GZIP), 4 << 20,
						 sizes[i], &code),
				CAD_OK);
			assert_int_equal(inflate_case(compressed(sizes[i], slice, ZLIB, 0, GRPC_COMPRESS_DEFLATE),
						 4 << 20, sizes[i], &code),
				CAD_OK);
		}

	/* the limit, to the byte: two or three bytes of the message are not text */
	assert_int_equal(inflate_case(compressed(997, 10000, GZIP, 0, GRPC_COMPRESS_GZIP), 1000, 997, &code), CAD_OK);
	assert_int_equal(
		inflate_case(compressed(998, 10000, GZIP, 0, GRPC_COMPRESS_GZIP), 1000, 998, &code), CAD_ERR_EXHAUSTED);
	assert_int_equal(code, CAD_RPC_RESOURCE_EXHAUSTED);

	/* a bomb */
	assert_int_equal(inflate_case(compressed(100 << 20, 1 << 20, GZIP, 0, GRPC_COMPRESS_GZIP), 1 << 20, 0, &code),
		CAD_ERR_EXHAUSTED);

	/* cut short, broken, unknown */
	for (size_t cut = 1; cut < 20; cut++)
		assert_int_equal(
			inflate_case(compressed(1000, 10000, GZIP, cut, GRPC_COMPRESS_GZIP), 1 << 20, 0, &code),
			CAD_ERR_CORRUPT);
	assert_int_equal(code, CAD_RPC_INVALID_ARGUMENT);
	grpc_slice nonsense = grpc_slice_from_static_string("this was never compressed");
	assert_int_equal(inflate_case(grpc_raw_compressed_byte_buffer_create(&nonsense, 1, GRPC_COMPRESS_GZIP), 1 << 20,
				 0, &code),
		CAD_ERR_CORRUPT);
	assert_int_equal(inflate_case(compressed(10, 10000, GZIP, 0, (grpc_compression_algorithm)7), 1 << 20, 0, &code),
		CAD_ERR_UNSUPPORTED);
	assert_int_equal(code, CAD_RPC_UNIMPLEMENTED);

	/* plain, in several slices and in none */
	grpc_slice pieces[3] = { grpc_slice_from_static_string("\x0a"),
		grpc_slice_from_static_string("\x02"
					      "a"),
		grpc_slice_from_static_string("b") };
	assert_int_equal(inflate_case(grpc_raw_byte_buffer_create(pieces, 3), 1 << 20, 2, &code), CAD_OK);
	assert_int_equal(inflate_case(grpc_raw_byte_buffer_create(NULL, 0), 1 << 20, 0, &code), CAD_OK);
}

static int library_open(void **state)
{
	(void)state;
	grpc_init();
	return 0;
}

static int library_close(void **state)
{
	(void)state;
	grpc_shutdown_blocking();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(strings),
		cmocka_unit_test(malformed),
		cmocka_unit_test(depth),
		cmocka_unit_test(arena_limits),
		cmocka_unit_test(compression),
	};
	return cmocka_run_group_tests(tests, library_open, library_close);
}
