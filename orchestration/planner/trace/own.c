/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The own format, little-endian, written and read in one pass:
 *
 *     header   "CADRETR1"  u32 layers, experts, k, flags (1: scores)  u32 model_bytes,
 *              provenance_bytes  u32 layer[layers]  model  provenance  u64 hash
 *     block    u32 tokens, packed_bytes  u64 hash  packed_bytes of one zstd frame
 *              (any number of them)
 *     end      u32 0, 8  u64 hash  u64 tokens in all
 *
 * The header's hash is XXH3-64 of all that stands before it. The hash of block i (from 0; the end
 * block is the last) is XXH3-64 with seed i of its first 8 bytes and its payload, so that blocks
 * that are missing or change places are noticed. A frame holds, of n tokens: request u32 [n], ids
 * u16 [layers][n][k], and with scores f32 [layers][n][k]; each as planes, all lowest bytes first,
 * since those of equal weight resemble each other. A block unpacks to BLOCK_BYTES_MAX at most.
 */
#include "orchestration/planner/trace/own.h"

#include "common/base/file.h"

#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>
#include <zstd.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "numbers are copied as they lie in memory"
#endif

enum {
	HEADER_WORDS = 6,
	HEADER_BYTES = PL_TRACE_MAGIC_BYTES + HEADER_WORDS * 4,
	BLOCK_HEADER_BYTES = 16,
	BLOCK_BYTES_WANTED = 4 << 20, /* unpacked; what the writer aims at */
	BLOCK_BYTES_MAX = 16 << 20,   /* what the reader takes */
	LEVEL = 9,
	FLAG_SCORES = 1,
};

static size_t token_bytes(const struct pl_trace *shape)
{
	return 4 + (size_t)shape->layers * shape->k * (shape->scores ? 6 : 2);
}

static uint64_t block_hash(uint64_t index, const void *head, const void *payload, size_t payload_bytes)
{
	XXH3_state_t state;
	XXH3_INITSTATE(&state);
	(void)XXH3_64bits_reset_withSeed(&state, index);
	(void)XXH3_64bits_update(&state, head, 8);
	(void)XXH3_64bits_update(&state, payload, payload_bytes);
	return XXH3_64bits_digest(&state);
}

/* ---- writing ---- */

struct pl_trace_writer {
	FILE *stream;
	ZSTD_CCtx *packer;
	uint32_t layers, k;
	bool scores;
	uint32_t block_tokens;   /* of a full block */
	uint32_t requests;       /* so far */
	uint64_t tokens, blocks; /* so far */
	uint8_t *raw, *packed;
	size_t raw_bytes_max, packed_bytes_max;
};

static enum cad_status write_bytes(
	struct pl_trace_writer *writer, const void *bytes, size_t size, struct cad_error *error)
{
	return fwrite(bytes, 1, size, writer->stream) == size
		? CAD_OK
		: cad_error_set(error, CAD_ERR_IO, "the trace cannot be written: %m");
}

static enum cad_status write_header(
	struct pl_trace_writer *writer, const struct pl_trace *shape, struct cad_error *error)
{
	uint32_t words[HEADER_WORDS] = { shape->layers, shape->experts, shape->k, shape->scores ? FLAG_SCORES : 0,
		(uint32_t)strlen(shape->model), (uint32_t)strlen(shape->provenance) };
	size_t layer_bytes = shape->layers * sizeof *shape->layer,
	       size = HEADER_BYTES + layer_bytes + words[4] + words[5];
	uint8_t *header = malloc(size + 8), *to = header;

	if (!header)
		return cad_error_set(error, CAD_ERR_MEMORY, "no memory for the header of a trace");

	to = mempcpy(to, PL_TRACE_MAGIC, PL_TRACE_MAGIC_BYTES);
	to = mempcpy(to, words, sizeof words);
	to = mempcpy(to, shape->layer, layer_bytes);
	to = mempcpy(to, shape->model, words[4]);
	to = mempcpy(to, shape->provenance, words[5]);
	uint64_t hash = XXH3_64bits(header, size);
	memcpy(to, &hash, sizeof hash);
	enum cad_status status = write_bytes(writer, header, size + 8, error);
	free(header);

	return status;
}

enum cad_status pl_trace_writer_create(
	FILE *stream, const struct pl_trace *shape, struct pl_trace_writer **writer, struct cad_error *error)
{
	struct pl_trace_writer *made = calloc(1, sizeof *made);
	if (!made)
		return cad_error_set(error, CAD_ERR_MEMORY, "no memory to write a trace");

	size_t fitting = BLOCK_BYTES_WANTED / token_bytes(shape);
	*made = (struct pl_trace_writer){
		.stream = stream,
		.packer = ZSTD_createCCtx(),
		.layers = shape->layers,
		.k = shape->k,
		.scores = shape->scores != NULL,
	};
	made->block_tokens = (uint32_t)(fitting > PL_TRACE_BLOCK_TOKENS_MAX ? PL_TRACE_BLOCK_TOKENS_MAX : fitting);
	made->raw_bytes_max = made->block_tokens * token_bytes(shape);
	made->packed_bytes_max = ZSTD_compressBound(made->raw_bytes_max);
	made->raw = malloc(made->raw_bytes_max);
	made->packed = malloc(made->packed_bytes_max);
	enum cad_status status = made->packer && made->raw && made->packed
		? write_header(made, shape, error)
		: cad_error_set(error, CAD_ERR_MEMORY, "no memory to write a trace");
	if (status != CAD_OK)
		pl_trace_writer_destroy(made);
	else
		*writer = made;

	return status;
}

void pl_trace_writer_destroy(struct pl_trace_writer *writer)
{
	if (!writer)
		return;
	(void)ZSTD_freeCCtx(writer->packer);
	free(writer->raw);
	free(writer->packed);
	free(writer);
}

static enum cad_status write_block(struct pl_trace_writer *writer, uint32_t tokens, const void *payload,
	uint32_t payload_bytes, struct cad_error *error)
{
	uint32_t head[2] = { tokens, payload_bytes };
	uint64_t hash = block_hash(writer->blocks++, head, payload, payload_bytes);
	enum cad_status status = write_bytes(writer, head, sizeof head, error);
	if (status == CAD_OK)
		status = write_bytes(writer, &hash, sizeof hash, error);
	return status == CAD_OK ? write_bytes(writer, payload, payload_bytes, error) : status;
}

/* `count` values of `width` bytes, as `width` planes. A value's plane lies `plane` bytes behind the
 * plane before. */
static void to_planes(uint8_t *to, size_t plane, const void *values, size_t count, size_t width)
{
	const uint8_t *from = values;
	for (size_t byte = 0; byte < width; byte++)
		for (size_t i = 0; i < count; i++)
			to[byte * plane + i] = from[i * width + byte];
}

static void from_planes(void *values, const uint8_t *from, size_t plane, size_t count, size_t width)
{
	uint8_t *to = values;
	for (size_t byte = 0; byte < width; byte++)
		for (size_t i = 0; i < count; i++)
			to[i * width + byte] = from[byte * plane + i];
}

static enum cad_status add_block(struct pl_trace_writer *writer, const struct pl_trace *trace, uint64_t begin,
	uint32_t count, const uint32_t *request, struct cad_error *error)
{
	size_t row = (size_t)count * writer->k, cells = row * writer->layers;
	uint8_t *to = writer->raw;

	to_planes(to, count, request, count, 4);
	to += (size_t)count * 4;
	for (uint32_t layer = 0; layer < writer->layers; layer++)
		to_planes(to + layer * row, cells, pl_trace_row(trace, layer, begin), row, 2);
	to += cells * 2;
	for (uint32_t layer = 0; writer->scores && layer < writer->layers; layer++)
		to_planes(to + layer * row, cells, trace->scores + (layer * trace->tokens + begin) * trace->k, row, 4);
	to += writer->scores ? cells * 4 : 0;
	size_t packed = ZSTD_compressCCtx(writer->packer, writer->packed, writer->packed_bytes_max, writer->raw,
		(size_t)(to - writer->raw), LEVEL);
	if (ZSTD_isError(packed))
		return cad_error_set(
			error, CAD_ERR_INTERNAL, "the trace cannot be packed: %s", ZSTD_getErrorName(packed));

	return write_block(writer, count, writer->packed, (uint32_t)packed, error);
}

enum cad_status pl_trace_writer_add(
	struct pl_trace_writer *writer, const struct pl_trace *trace, bool same_request, struct cad_error *error)
{
	CAD_ASSERT(
		trace->layers == writer->layers && trace->k == writer->k && (trace->scores != NULL) == writer->scores);
	uint32_t first = writer->requests - (same_request && writer->requests > 0), request[PL_TRACE_BLOCK_TOKENS_MAX];
	for (uint64_t begin = 0; begin < trace->tokens; begin += writer->block_tokens) {
		uint64_t left = trace->tokens - begin;
		uint32_t count = left < writer->block_tokens ? (uint32_t)left : writer->block_tokens;
		for (uint32_t i = 0; i < count; i++)
			request[i] = first + trace->request[begin + i];
		enum cad_status status = add_block(writer, trace, begin, count, request, error);
		if (status != CAD_OK)
			return status;
	}

	writer->requests = first + pl_trace_requests(trace);
	writer->tokens += trace->tokens;
	return CAD_OK;
}

enum cad_status pl_trace_writer_finish(struct pl_trace_writer *writer, struct cad_error *error)
{
	if (writer->tokens == 0)
		return cad_error_set(error, CAD_ERR_INVALID, "a trace without tokens is not written");
	return write_block(writer, 0, &writer->tokens, sizeof writer->tokens, error);
}

enum cad_status pl_trace_write_to(FILE *stream, const struct pl_trace *trace, struct cad_error *error)
{
	struct pl_trace_writer *writer = NULL;
	enum cad_status status = pl_trace_writer_create(stream, trace, &writer, error);

	if (status == CAD_OK)
		status = pl_trace_writer_add(writer, trace, false, error);
	if (status == CAD_OK)
		status = pl_trace_writer_finish(writer, error);
	pl_trace_writer_destroy(writer);
	return status;
}

enum cad_status pl_trace_write(const char *path, const struct pl_trace *trace, struct cad_error *error)
{
	struct cad_file_writer file;
	enum cad_status status = cad_file_writer_open_private(&file, path, error);

	if (status != CAD_OK)
		return status;

	status = pl_trace_write_to(file.stream, trace, error);
	if (status == CAD_OK)
		return cad_file_writer_commit(&file, error);
	cad_file_writer_abandon(&file);

	return cad_error_prefix(error, "%s", path);
}

/* ---- reading ---- */

struct reader {
	const uint8_t *bytes;
	size_t size, at; /* at: the first byte that is not read yet */
	uint64_t blocks; /* before `at` */
};

static enum cad_status cut_short(const struct reader *reader, struct cad_error *error)
{
	return cad_error_set(error, CAD_ERR_CORRUPT,
		"the file ends at byte %zu, in the middle: it was not written whole, or not copied whole",
		reader->size);
}

/* An empty trace of one token, for its shape. */
static enum cad_status read_header(struct reader *reader, struct pl_trace **shape, struct cad_error *error)
{
	uint32_t words[HEADER_WORDS], layer[PL_TRACE_LAYERS_MAX];
	uint64_t hash;
	char names[2][PL_TRACE_NAME_BYTES_MAX + 1];

	if (reader->size < HEADER_BYTES)
		return cut_short(reader, error);

	if (memcmp(reader->bytes, PL_TRACE_MAGIC, PL_TRACE_MAGIC_BYTES) != 0)
		return cad_error_set(error, CAD_ERR_CORRUPT,
			"byte 0: this is not a Cadre trace (they begin with " PL_TRACE_MAGIC ")");
	memcpy(words, reader->bytes + PL_TRACE_MAGIC_BYTES, sizeof words);
	if (words[0] > PL_TRACE_LAYERS_MAX || words[4] > PL_TRACE_NAME_BYTES_MAX ||
		words[5] > PL_TRACE_NAME_BYTES_MAX || words[3] & ~(uint32_t)FLAG_SCORES)
		return cad_error_set(error, CAD_ERR_CORRUPT, "byte 8: the header is damaged, or of a later version");
	size_t size = HEADER_BYTES + words[0] * sizeof *layer + words[4] + words[5];
	if (reader->size < size + sizeof hash)
		return cut_short(reader, error);
	memcpy(&hash, reader->bytes + size, sizeof hash);
	if (hash != XXH3_64bits(reader->bytes, size))
		return cad_error_set(
			error, CAD_ERR_CORRUPT, "bytes 0 to %zu: the header is damaged, its checksum differs", size);
	memcpy(layer, reader->bytes + HEADER_BYTES, words[0] * sizeof *layer);

	for (uint32_t i = 0; i < 2; i++) {
		*(char *)mempcpy(names[i], reader->bytes + size - words[5] - (i ? 0 : words[4]), words[4 + i]) = 0;
		if (strlen(names[i]) != words[4 + i])
			return cad_error_set(error, CAD_ERR_CORRUPT, "the header's names contain a zero byte");
	}

	for (uint32_t i = 1; i < words[0]; i++)
		if (layer[i] <= layer[i - 1])
			return cad_error_set(error, CAD_ERR_CORRUPT, "the header's layers do not ascend: %u, %u",
				layer[i - 1], layer[i]);
	struct pl_trace *made;
	enum cad_status status = pl_trace_create(words[0], words[1], words[2], 1, words[3] & FLAG_SCORES, &made, error);
	if (status != CAD_OK)
		return status;
	memcpy(made->layer, layer, words[0] * sizeof *layer);
	status = pl_trace_set_names(made, names[0], names[1], error);
	if (status != CAD_OK) {
		pl_trace_free(made);
		return status;
	}

	reader->at = size + sizeof hash;
	*shape = made;
	return CAD_OK;
}

/* The block at `at`, checked but for what is inside its frame. */
static enum cad_status next_block(struct reader *reader, const struct pl_trace *shape, uint32_t *tokens,
	const uint8_t **payload, uint32_t *payload_bytes, struct cad_error *error)
{
	uint32_t head[2];
	uint64_t hash;
	const uint8_t *block = reader->bytes + reader->at;

	if (reader->size - reader->at < BLOCK_HEADER_BYTES)
		return cut_short(reader, error);

	memcpy(head, block, sizeof head);
	memcpy(&hash, block + sizeof head, sizeof hash);
	if (head[0] > BLOCK_BYTES_MAX / token_bytes(shape) || (head[0] == 0 && head[1] != 8))
		return cad_error_set(error, CAD_ERR_CORRUPT,
			"block %llu, at byte %zu: %u tokens in %u bytes, which no block has",
			(unsigned long long)reader->blocks, reader->at, head[0], head[1]);
	if (reader->size - reader->at - BLOCK_HEADER_BYTES < head[1])
		return cut_short(reader, error);
	if (hash != block_hash(reader->blocks, head, block + BLOCK_HEADER_BYTES, head[1]))
		return cad_error_set(error, CAD_ERR_CORRUPT,
			"block %llu, at byte %zu: it is damaged or out of place, its checksum differs",
			(unsigned long long)reader->blocks, reader->at);
	*tokens = head[0];
	*payload = block + BLOCK_HEADER_BYTES;
	*payload_bytes = head[1];
	reader->at += BLOCK_HEADER_BYTES + head[1];
	reader->blocks++;

	return CAD_OK;
}

/* All blocks once, without unpacking them: how many tokens there are. `reader` is a copy. */
static enum cad_status count_tokens(struct reader reader, const struct pl_trace *shape, uint64_t cells_max,
	uint64_t *tokens, struct cad_error *error)
{
	uint64_t total = 0, promised = 0;
	for (uint32_t count = 1; count;) {
		const uint8_t *payload;
		uint32_t payload_bytes;
		enum cad_status status = next_block(&reader, shape, &count, &payload, &payload_bytes, error);
		if (status != CAD_OK)
			return status;
		total += count;
		if (total > cells_max / shape->layers / shape->k)
			return cad_error_set(error, CAD_ERR_EXHAUSTED, "more than %llu tokens; split the trace",
				(unsigned long long)(cells_max / shape->layers / shape->k));
		if (count == 0)
			memcpy(&promised, payload, sizeof promised);
	}

	if (promised != total || reader.at != reader.size)
		return cad_error_set(error, CAD_ERR_CORRUPT,
			"byte %zu: the end block counts %llu tokens but %llu come before it, or bytes follow it",
			reader.at, (unsigned long long)promised, (unsigned long long)total);
	*tokens = total;
	return CAD_OK;
}

/* What a block holds must be what a trace may hold. */
static enum cad_status check_tokens(struct pl_trace *trace, uint64_t begin, uint32_t count, struct cad_error *error)
{
	for (uint64_t token = begin; token < begin + count; token++) {
		uint32_t before = token ? trace->request[token - 1] : 0;
		if (trace->request[token] - before > (token > 0))
			return cad_error_set(error, CAD_ERR_CORRUPT, "token %llu is of request %u, after %u",
				(unsigned long long)token, trace->request[token], before);
		for (uint32_t layer = 0; layer < trace->layers; layer++) {
			uint16_t *cell = pl_trace_cell(trace, layer, token);
			for (uint32_t i = 1; i < trace->k; i++)
				if (cell[i] != PL_TRACE_NONE && cell[i - 1] == PL_TRACE_NONE)
					return cad_error_set(error, CAD_ERR_CORRUPT,
						"token %llu, layer %u: an expert after an empty slot",
						(unsigned long long)token, trace->layer[layer]);
			enum cad_status status = pl_trace_check_cell(cell, trace->k, trace->experts, error);
			if (status != CAD_OK)
				return cad_error_prefix(
					error, "token %llu, layer %u", (unsigned long long)token, trace->layer[layer]);
		}
	}
	return CAD_OK;
}

static enum cad_status unpack_block(struct pl_trace *trace, uint64_t begin, uint32_t count, uint8_t *raw,
	const uint8_t *payload, uint32_t payload_bytes, struct cad_error *error)
{
	size_t wanted = count * token_bytes(trace), row = (size_t)count * trace->k, cells = row * trace->layers;
	size_t got = ZSTD_decompress(raw, wanted, payload, payload_bytes);

	if (ZSTD_isError(got) || got != wanted)
		return cad_error_set(error, CAD_ERR_CORRUPT, "the zstd frame cannot be unpacked to %zu bytes: %s",
			wanted, ZSTD_isError(got) ? ZSTD_getErrorName(got) : "it is shorter");
	from_planes(trace->request + begin, raw, count, count, 4);
	raw += (size_t)count * 4;
	for (uint32_t layer = 0; layer < trace->layers; layer++)
		from_planes(pl_trace_cell(trace, layer, begin), raw + layer * row, cells, row, 2);
	raw += cells * 2;
	for (uint32_t layer = 0; trace->scores && layer < trace->layers; layer++)
		from_planes(
			trace->scores + (layer * trace->tokens + begin) * trace->k, raw + layer * row, cells, row, 4);

	return check_tokens(trace, begin, count, error);
}

static enum cad_status read_blocks(struct reader *reader, struct pl_trace *trace, struct cad_error *error)
{
	uint8_t *raw = malloc(BLOCK_BYTES_MAX);
	if (!raw)
		return cad_error_set(error, CAD_ERR_MEMORY, "no memory to unpack a trace");

	enum cad_status status = CAD_OK;
	for (uint64_t begin = 0; status == CAD_OK && begin < trace->tokens;) {
		const uint8_t *payload;
		uint32_t payload_bytes, count;
		size_t at = reader->at;
		status = next_block(reader, trace, &count, &payload, &payload_bytes, error);
		if (status == CAD_OK) {
			status = unpack_block(trace, begin, count, raw, payload, payload_bytes, error);
			if (status != CAD_OK)
				(void)cad_error_prefix(
					error, "block %llu, at byte %zu", (unsigned long long)reader->blocks - 1, at);
		}
		begin += count;
	}

	free(raw);
	return status;
}

enum cad_status pl_trace_decode_own(const uint8_t *bytes, size_t size, const struct pl_trace_source *source,
	struct pl_trace **trace, struct cad_error *error)
{
	struct reader reader = { .bytes = bytes, .size = size };
	struct pl_trace *shape, *made = NULL;
	uint64_t tokens = 0;
	enum cad_status status = read_header(&reader, &shape, error);

	if (status != CAD_OK)
		return status;

	status = count_tokens(reader, shape, source->cells_max, &tokens, error);
	if (status == CAD_OK)
		status = pl_trace_create_like(shape, shape->experts, tokens, &made, error);
	if (status == CAD_OK)
		status = read_blocks(&reader, made, error);
	pl_trace_free(shape);
	if (status != CAD_OK)
		pl_trace_free(made);
	else
		*trace = made;

	return status;
}
