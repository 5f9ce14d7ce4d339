/* SPDX-License-Identifier: Apache-2.0 */
/* One safetensors file: what is read, what is written, and every way in which a header can lie. */
#include "common/model/safetensors.h"
#include "tests/support/must.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static void put_length(unsigned char *bytes, uint64_t length)
{
	for (int i = 0; i < 8; i++)
		bytes[i] = (unsigned char)(length >> (8 * i));
}

/* A file in memory: length, header padded to 8, and `data_bytes` bytes that count up. The caller
 * frees it. */
static unsigned char *make_file(const char *header, size_t data_bytes, size_t *size)
{
	size_t length = (strlen(header) + 7) / 8 * 8;
	unsigned char *bytes = malloc(8 + length + data_bytes);

	assert_non_null(bytes);
	put_length(bytes, length);
	memset(bytes + 8, ' ', length);
	memcpy(bytes + 8, header, strlen(header));
	for (size_t i = 0; i < data_bytes; i++)
		bytes[8 + length + i] = (unsigned char)i;
	*size = 8 + length + data_bytes;
	return bytes;
}

static enum cad_status open_text(const char *header, size_t data_bytes, struct cad_safetensors **file,
	unsigned char **bytes, struct cad_error *error)
{
	size_t size;
	*bytes = make_file(header, data_bytes, &size);
	enum cad_status status = cad_safetensors_open_memory("a.safetensors", *bytes, size, file, error);
	if (status != CAD_OK) {
		free(*bytes);
		*bytes = NULL;
	}
	return status;
}

static void reads(void **state)
{
	(void)state;
	static const char header[] = "{\"__metadata__\": {\"format\": \"pt\"},"
				     " \"b\": {\"dtype\": \"BF16\", \"shape\": [2, 3], \"data_offsets\": [8, 20]},"
				     " \"none\": {\"dtype\": \"F32\", \"shape\": [0, 7], \"data_offsets\": [8, 8]},"
				     " \"a\": {\"dtype\": \"F32\", \"shape\": [2], \"data_offsets\": [0, 8]},"
				     " \"scalar\": {\"dtype\": \"I32\", \"shape\": [], \"data_offsets\": [20, 24]},"
				     " \"end\": {\"dtype\": \"U8\", \"shape\": [0], \"data_offsets\": [24, 24]}}";
	struct cad_safetensors *file;
	unsigned char *bytes;
	struct cad_error error;
	must(open_text(header, 24, &file, &bytes, &error), &error);
	static const char *const order[] = { "a", "none", "b", "scalar", "end" };
	assert_int_equal(cad_safetensors_count(file), 5);
	for (size_t i = 0; i < 5; i++)
		assert_string_equal(cad_safetensors_at(file, i).name, order[i]);
	struct cad_tensor b = cad_safetensors_find(file, "b");
	assert_int_equal(b.dtype, CAD_DTYPE_BF16);
	assert_int_equal(b.rank, 2);
	assert_int_equal(b.shape[0], 2);
	assert_int_equal(b.shape[1], 3);
	assert_int_equal(b.bytes, 12);
	assert_int_equal(*(const unsigned char *)b.data, 8);
	struct cad_tensor none = cad_safetensors_find(file, "none");
	assert_non_null(none.data);
	assert_int_equal(none.bytes, 0);
	struct cad_tensor scalar = cad_safetensors_find(file, "scalar");
	assert_int_equal(scalar.rank, 0);
	assert_int_equal(scalar.bytes, 4);
	assert_null(cad_safetensors_find(file, "c").data);
	assert_null(cad_safetensors_find(file, "").data);
	assert_null(cad_safetensors_find(file, "__metadata__").data);
	size_t header_bytes;
	const void *text = cad_safetensors_header(file, &header_bytes);
	assert_int_equal(header_bytes % 8, 0);
	assert_memory_equal(text, header, sizeof header - 1);
	assert_int_equal(cad_safetensors_file_bytes(file), 8 + header_bytes + 24);
	cad_safetensors_close(file);
	free(bytes);
}

/* Those of safetensors 0.8.0, and what 24 elements of each take. */
static void every_dtype(void **state)
{
	(void)state;
	static const struct {
		const char *name;
		size_t bytes;
	} dtypes[] = {
		{ "BOOL", 24 },
		{ "F4", 12 },
		{ "F6_E2M3", 18 },
		{ "F6_E3M2", 18 },
		{ "U8", 24 },
		{ "I8", 24 },
		{ "F8_E5M2", 24 },
		{ "F8_E4M3", 24 },
		{ "F8_E8M0", 24 },
		{ "F8_E4M3FNUZ", 24 },
		{ "F8_E5M2FNUZ", 24 },
		{ "I16", 48 },
		{ "U16", 48 },
		{ "F16", 48 },
		{ "BF16", 48 },
		{ "I32", 96 },
		{ "U32", 96 },
		{ "F32", 96 },
		{ "C64", 192 },
		{ "F64", 192 },
		{ "I64", 192 },
		{ "U64", 192 },
	};
	for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
		char header[256];
		struct cad_safetensors *file;
		unsigned char *bytes;
		struct cad_error error;
		/* nothing is aligned, and there are more dimensions than a shape has room for */
		snprintf(header, sizeof header,
			"{\"a\": {\"dtype\": \"U8\", \"shape\": [1], \"data_offsets\": [0, 1]}, "
			"\"t\": {\"dtype\": \"%s\", \"shape\": [2, 1, 3, 1, 4, 1], \"data_offsets\": [1, %zu]}}",
			dtypes[i].name, 1 + dtypes[i].bytes);
		must(open_text(header, 1 + dtypes[i].bytes, &file, &bytes, &error), &error);
		struct cad_tensor tensor = cad_safetensors_find(file, "t");
		assert_int_equal(tensor.rank, 6);
		assert_int_equal(tensor.bytes, dtypes[i].bytes);
		assert_int_equal(tensor.bytes * 8, 24 * cad_dtype_bits(tensor.dtype));
		assert_int_equal(strcasecmp(cad_dtype_name(tensor.dtype), dtypes[i].name), 0);
		cad_safetensors_close(file);
		free(bytes);
	}
}

static void no_tensors(void **state)
{
	(void)state;
	struct cad_safetensors *file;
	unsigned char *bytes;
	assert_int_equal(open_text("{}", 0, &file, &bytes, NULL), CAD_OK);
	assert_int_equal(cad_safetensors_count(file), 0);
	assert_null(cad_safetensors_find(file, "a").data);
	cad_safetensors_close(file);
	free(bytes);
}

#define TENSOR(name, dtype, shape, offsets) \
	"\"" name "\": {\"dtype\": \"" dtype "\", \"shape\": " shape ", \"data_offsets\": " offsets "}"
#define LONE(dtype, shape, offsets) "{" TENSOR("t", dtype, shape, offsets) "}"

static const struct refusal {
	const char *header;
	size_t data_bytes;
	enum cad_status status;
	const char *text;
} refusals[] = {
	{ "[]", 0, CAD_ERR_CORRUPT, "the header does not begin with '{'" },
	{ " {}", 0, CAD_ERR_CORRUPT, "the header does not begin with '{'" },
	{ "", 0, CAD_ERR_CORRUPT, "the header does not begin with '{'" },
	{ "{\"t\": ", 0, CAD_ERR_CORRUPT, "the header is not JSON" },
	{ "{} {}", 0, CAD_ERR_CORRUPT, "the header is not JSON: end of file expected" },
	{ "{\"t\xff\": 1}", 0, CAD_ERR_CORRUPT, "the header is not JSON: unable to decode byte 0xff" },
	{ "{\"t\\u0000\": 1}", 0, CAD_ERR_CORRUPT, "the header is not JSON" },
	{ "{" TENSOR("t", "U8", "[1]", "[0, 1]") ", " TENSOR("t", "U8", "[1]", "[1, 2]") "}", 2, CAD_ERR_CORRUPT,
		"the header is not JSON: duplicate object key" },
	{ "{\"t\": 5}", 0, CAD_ERR_CORRUPT, "the header's entry 't' is not an object" },
	{ "{\"t\": {\"shape\": [1], \"data_offsets\": [0, 1]}}", 1, CAD_ERR_CORRUPT, "tensor 't' has no dtype" },
	{ LONE("f32", "[1]", "[0, 4]"), 4, CAD_ERR_UNSUPPORTED, "tensor 't' has dtype 'f32', which is none of those" },
	{ LONE("F4", "[3]", "[0, 2]"), 2, CAD_ERR_CORRUPT, "tensor 't' has 12 bits of data, which are no whole bytes" },
	{ LONE("F6_E2M3", "[4]", "[0, 4]"), 4, CAD_ERR_CORRUPT, "has 4 bytes of data, but its shape and dtype need 3" },
	{ "{\"t\": {\"dtype\": \"U8\", \"data_offsets\": [0, 1]}}", 1, CAD_ERR_CORRUPT, "tensor 't' has no shape" },
	{ LONE("U8", "[1,1,1,1,2]", "[0, 1]"), 1, CAD_ERR_CORRUPT,
		"has 1 bytes of data, but its shape and dtype need 2" },
	{ LONE("U8", "[-1]", "[0, 1]"), 1, CAD_ERR_CORRUPT,
		"tensor 't' has a shape with something other than whole numbers" },
	{ LONE("U8", "[1.0]", "[0, 1]"), 1, CAD_ERR_CORRUPT, "tensor 't' has a shape with something other" },
	{ LONE("U8", "[null]", "[0, 1]"), 1, CAD_ERR_CORRUPT, "tensor 't' has a shape with something other" },
	{ LONE("F32", "[4294967296, 4294967296]", "[0, 4]"), 4, CAD_ERR_CORRUPT,
		"tensor 't' has a shape whose product does not fit" },
	{ LONE("F32", "[4611686018427387904]", "[0, 0]"), 0, CAD_ERR_CORRUPT,
		"tensor 't' has a shape whose product does not fit" },
	{ LONE("U8", "[9223372036854775808]", "[0, 1]"), 1, CAD_ERR_CORRUPT,
		"the header is not JSON: too big integer" },
	{ "{\"t\": {\"dtype\": \"U8\", \"shape\": [1]}}", 1, CAD_ERR_CORRUPT,
		"tensor 't' has data_offsets that are not two ascending" },
	{ LONE("U8", "[1]", "[0]"), 1, CAD_ERR_CORRUPT, "tensor 't' has data_offsets that are not two ascending" },
	{ LONE("U8", "[1]", "[0, 1, 2]"), 1, CAD_ERR_CORRUPT,
		"tensor 't' has data_offsets that are not two ascending" },
	{ LONE("U8", "[1]", "[1, 0]"), 1, CAD_ERR_CORRUPT, "tensor 't' has data_offsets that are not two ascending" },
	{ LONE("U8", "[1]", "[-1, 0]"), 1, CAD_ERR_CORRUPT, "tensor 't' has data_offsets that are not two ascending" },
	{ LONE("U8", "[1]", "[0, 9223372036854775807]"), 1, CAD_ERR_CORRUPT,
		"tensor 't' ends at byte 9223372036854775807 of the data, but the file has only 1" },
	{ LONE("U8", "[2]", "[0, 2]"), 1, CAD_ERR_CORRUPT,
		"tensor 't' ends at byte 2 of the data, but the file has only 1" },
	{ LONE("F32", "[2]", "[0, 4]"), 4, CAD_ERR_CORRUPT,
		"tensor 't' has 4 bytes of data, but its shape and dtype need 8" },
	{ LONE("F32", "[]", "[0, 0]"), 0, CAD_ERR_CORRUPT,
		"tensor 't' has 0 bytes of data, but its shape and dtype need 4" },
	{ LONE("U8", "[1]", "[0, 1]"), 3, CAD_ERR_CORRUPT, "the last 2 bytes belong to no tensor" },
	{ "{}", 1, CAD_ERR_CORRUPT, "the last 1 bytes belong to no tensor" },
	{ LONE("U8", "[1]", "[1, 2]"), 2, CAD_ERR_CORRUPT, "tensor 't' leaves a hole before it" },
	{ "{" TENSOR("a", "U8", "[2]", "[0, 2]") ", " TENSOR("b", "U8", "[2]", "[1, 3]") "}", 3, CAD_ERR_CORRUPT,
		"tensor 'b' overlaps the tensor before it" },
	{ "{" TENSOR("a", "U8", "[2]", "[0, 2]") ", " TENSOR("b", "U8", "[2]", "[0, 2]") "}", 2, CAD_ERR_CORRUPT,
		"tensor 'b' overlaps the tensor before it" },
	{ "{" TENSOR("a", "U8", "[2]", "[0, 2]") ", " TENSOR("b", "U8", "[2]", "[3, 5]") "}", 5, CAD_ERR_CORRUPT,
		"tensor 'b' leaves a hole before it" },
	{ "{" TENSOR("a", "U8", "[4]", "[0, 4]") ", " TENSOR("b", "U8", "[0]", "[2, 2]") "}", 4, CAD_ERR_CORRUPT,
		"tensor 'b' overlaps the tensor before it" },
};

static void hostile_headers(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
		struct cad_safetensors *file = NULL;
		unsigned char *bytes;
		struct cad_error error = { .text = "" };
		enum cad_status status = open_text(refusals[i].header, refusals[i].data_bytes, &file, &bytes, &error);
		if (status != refusals[i].status || error.status != status ||
			strncmp(error.text, "a.safetensors: ", 15) != 0 || !strstr(error.text, refusals[i].text))
			fail_msg("%s: %s, '%s'; wanted %s, '%s'", refusals[i].header, cad_status_name(status),
				error.text, cad_status_name(refusals[i].status), refusals[i].text);
		assert_null(file);
	}
}

static void hostile_lengths(void **state)
{
	(void)state;
	static const struct {
		uint64_t length;
		const char *text;
	} cases[] = {
		{ 9, "the header claims 9 bytes, but the file has only 16: it is truncated" },
		{ 100000000, "the header claims 100000000 bytes, but the file has only 16" },
		{ 100000001, "the header claims 100000001 bytes; at most 100000000 are allowed" },
		{ UINT64_MAX, "the header claims 18446744073709551615 bytes" },
		{ UINT64_MAX - 7, "the header claims 18446744073709551608 bytes" },
		{ (uint64_t)1 << 63, "the header claims 9223372036854775808 bytes" },
		{ 0, "the header does not begin with '{'" },
	};
	unsigned char *bytes = malloc(16);
	assert_non_null(bytes);
	memcpy(bytes + 8, "{}      ", 8);

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct cad_safetensors *file;
		struct cad_error error;
		put_length(bytes, cases[i].length);
		assert_int_equal(
			cad_safetensors_open_memory("a.safetensors", bytes, 16, &file, &error), CAD_ERR_CORRUPT);
		if (!strstr(error.text, cases[i].text))
			fail_msg("'%s'; wanted '%s'", error.text, cases[i].text);
	}

	for (size_t size = 0; size < 8; size++) {
		struct cad_safetensors *file;
		struct cad_error error;
		assert_int_equal(
			cad_safetensors_open_memory("a.safetensors", bytes, size, &file, &error), CAD_ERR_CORRUPT);
		assert_non_null(strstr(error.text, "too few for a safetensors file"));
	}

	free(bytes);
}

static void deep_header(void **state)
{
	(void)state;
	enum { DEPTH = 100000 };
	char *header = malloc(DEPTH + 16);
	assert_non_null(header);
	size_t at = (size_t)sprintf(header, "{\"t\": ");
	memset(header + at, '[', DEPTH);
	header[at + DEPTH] = 0;
	struct cad_safetensors *file;
	unsigned char *bytes;
	struct cad_error error;
	assert_int_equal(open_text(header, 0, &file, &bytes, &error), CAD_ERR_CORRUPT);
	assert_non_null(strstr(error.text, "maximum parsing depth reached"));
	free(header);
}

/* Cut anywhere, a good file is refused, whatever is left of it. */
static void truncated_anywhere(void **state)
{
	(void)state;
	size_t size;
	unsigned char *bytes = make_file(
		"{" TENSOR("a", "F32", "[4]", "[0, 16]") ", " TENSOR("b", "U8", "[3]", "[16, 19]") "}", 19, &size);
	for (size_t cut = 0; cut < size; cut++) {
		unsigned char *part = malloc(cut + 1); /* a block of its own, so that a read behind the cut is seen */
		assert_non_null(part);
		memcpy(part, bytes, cut);
		struct cad_safetensors *file;
		struct cad_error error;
		assert_int_equal(
			cad_safetensors_open_memory("a.safetensors", part, cut, &file, &error), CAD_ERR_CORRUPT);
		free(part);
	}

	struct cad_safetensors *file;
	assert_int_equal(cad_safetensors_open_memory("a.safetensors", bytes, size, &file, NULL), CAD_OK);
	cad_safetensors_close(file);
	free(bytes);
}

static char *make_directory(void)
{
	char *path = strdup("/tmp/cadre-test-safetensors-XXXXXX");
	assert_non_null(path);
	assert_non_null(mkdtemp(path));
	return path;
}

static void writes_what_it_reads(void **state)
{
	(void)state;
	char *directory = make_directory(), path[128];
	snprintf(path, sizeof path, "%s/out.safetensors", directory);
	const float logits[6] = { 1, 2, 3, 4, 5, 6 };
	const int32_t tokens[3] = { 7, 8, 9 };
	const struct cad_tensor tensors[] = {
		{
			.name = "logits.0",
			.data = logits,
			.dtype = CAD_DTYPE_F32,
			.rank = 2,
			.shape = { 2, 3 },
			.bytes = sizeof logits,
		},
		{
			.name = "tokens \"x\" \xe2\x82\xac",
			.data = tokens,
			.dtype = CAD_DTYPE_I32,
			.rank = 1,
			.shape = { 3 },
			.bytes = sizeof tokens,
		},
		{
			.name = "empty",
			.data = NULL,
			.dtype = CAD_DTYPE_U8,
			.rank = 1,
			.shape = { 0 },
			.bytes = 0,
		},
	};
	for (size_t count = 0; count <= 3; count++) {
		struct cad_error error;
		struct cad_safetensors *file;
		must(cad_safetensors_write(path, tensors, count, &error), &error);
		must(cad_safetensors_open(path, &file, &error), &error);
		assert_int_equal(cad_safetensors_count(file), count);
		size_t header_bytes;
		(void)cad_safetensors_header(file, &header_bytes);
		assert_int_equal((8 + header_bytes) % 64, 0);
		for (size_t i = 0; i < count; i++) {
			struct cad_tensor read = cad_safetensors_find(file, tensors[i].name);
			assert_non_null(read.data);
			assert_int_equal(read.dtype, tensors[i].dtype);
			assert_int_equal(read.rank, tensors[i].rank);
			assert_memory_equal(read.shape, tensors[i].shape, sizeof read.shape);
			assert_int_equal(read.bytes, tensors[i].bytes);
			if (read.bytes)
				assert_memory_equal(read.data, tensors[i].data, read.bytes);
		}
		cad_safetensors_close(file);
	}

	assert_int_equal(unlink(path), 0);
	assert_int_equal(rmdir(directory), 0); /* empty: no temporary file is left */
	free(directory);
}

static void paths_that_are_no_files(void **state)
{
	(void)state;
	char *directory = make_directory(), path[128];
	struct cad_safetensors *file;
	struct cad_error error;
	snprintf(path, sizeof path, "%s/none.safetensors", directory);
	assert_int_equal(cad_safetensors_open(path, &file, &error), CAD_ERR_NOT_FOUND);
	assert_non_null(strstr(error.text, "none.safetensors does not exist"));
	assert_int_equal(cad_safetensors_open(directory, &file, &error), CAD_ERR_IO);
	assert_non_null(strstr(error.text, "is a directory, but must be a file"));
	snprintf(path, sizeof path, "%s/pipe", directory);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(cad_safetensors_open(path, &file, &error), CAD_ERR_IO);
	assert_non_null(strstr(error.text, "is not a regular file"));
	assert_int_equal(unlink(path), 0);
	FILE *empty = fopen(path, "wb");
	assert_non_null(empty);
	fclose(empty);
	assert_int_equal(cad_safetensors_open(path, &file, &error), CAD_ERR_CORRUPT);
	assert_non_null(strstr(error.text, "has 0 bytes, too few"));
	assert_int_equal(unlink(path), 0);
	snprintf(path, sizeof path, "%s/no/such/place", directory);
	assert_int_equal(cad_safetensors_write(path, NULL, 0, &error), CAD_ERR_IO);
	assert_non_null(strstr(error.text, "cannot be written: No such file or directory"));
	assert_int_equal(cad_safetensors_write("/dev/full/x", NULL, 0, &error), CAD_ERR_IO);

	/* A directory in the way of the rename: the temporary file goes, too. */
	snprintf(path, sizeof path, "%s/taken", directory);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(cad_safetensors_write(path, NULL, 0, &error), CAD_ERR_IO);
	assert_non_null(strstr(error.text, "taken cannot be written"));
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(rmdir(directory), 0);
	free(directory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads),
		cmocka_unit_test(every_dtype),
		cmocka_unit_test(no_tensors),
		cmocka_unit_test(hostile_headers),
		cmocka_unit_test(hostile_lengths),
		cmocka_unit_test(deep_header),
		cmocka_unit_test(truncated_anywhere),
		cmocka_unit_test(writes_what_it_reads),
		cmocka_unit_test(paths_that_are_no_files),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
