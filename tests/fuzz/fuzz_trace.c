/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Traces from strangers. The first byte chooses the format. For the own format the sums of header
 * and blocks are put right first, so that what stands behind them is reached. What can be read is
 * whole, and comes back the same through every format.
 */
#include "orchestration/planner/trace/csv.h"
#include "orchestration/planner/trace/json.h"
#include "orchestration/planner/trace/own.h"
#include "orchestration/planner/trace/read.h"

#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { HEADER_BYTES = 32, BLOCK_HEADER_BYTES = 16, CELLS_MAX = 1 << 16 };

static void mend_sums(uint8_t *bytes, size_t size)
{
	uint32_t words[6], head[2];
	memcpy(words, bytes + PL_TRACE_MAGIC_BYTES, sizeof words);
	size_t header = HEADER_BYTES + (size_t)words[0] * 4 + words[4] + words[5];
	if (header + 8 > size)
		return;
	uint64_t hash = XXH3_64bits(bytes, header);
	memcpy(bytes + header, &hash, sizeof hash);
	size_t at = header + 8;
	for (uint64_t index = 0; size - at >= BLOCK_HEADER_BYTES; index++) {
		memcpy(head, bytes + at, sizeof head);
		if (head[1] > size - at - BLOCK_HEADER_BYTES)
			return;
		XXH3_state_t state;
		XXH3_INITSTATE(&state);
		(void)XXH3_64bits_reset_withSeed(&state, index);
		(void)XXH3_64bits_update(&state, head, sizeof head);
		(void)XXH3_64bits_update(&state, bytes + at + BLOCK_HEADER_BYTES, head[1]);
		hash = XXH3_64bits_digest(&state);
		memcpy(bytes + at + 8, &hash, sizeof hash);
		at += BLOCK_HEADER_BYTES + head[1];
	}
}

static void check_whole(struct pl_trace *trace)
{
	uint16_t cell[PL_TRACE_TOPK_MAX];
	struct cad_error error;

	CAD_ASSERT(trace->tokens > 0 && trace->layers > 0 && trace->k > 0 && trace->request[0] == 0);
	for (uint64_t token = 1; token < trace->tokens; token++)
		CAD_ASSERT(trace->request[token] - trace->request[token - 1] <= 1);
	for (uint32_t layer = 0; layer < trace->layers; layer++) {
		CAD_ASSERT(layer == 0 || trace->layer[layer] > trace->layer[layer - 1]);
		for (uint64_t token = 0; token < trace->tokens; token++) {
			memcpy(cell, pl_trace_row(trace, layer, token), trace->k * sizeof *cell);
			CAD_ASSERT(pl_trace_check_cell(cell, trace->k, trace->experts, &error) == CAD_OK);
			CAD_ASSERT(memcmp(cell, pl_trace_row(trace, layer, token), trace->k * sizeof *cell) == 0);
		}
	}
}

static void write_and_read(const struct pl_trace *trace, enum pl_trace_format format)
{
	char *text = NULL;
	size_t size = 0;
	struct pl_trace *again;
	struct pl_trace_source source = { .format = format, .experts = trace->experts };
	FILE *stream = open_memstream(&text, &size);

	CAD_ASSERT(stream);

	if (format == PL_TRACE_OWN) {
		struct pl_trace_writer *writer;
		CAD_ASSERT(pl_trace_writer_create(stream, trace, &writer, NULL) == CAD_OK &&
			pl_trace_writer_add(writer, trace, false, NULL) == CAD_OK);
		CAD_ASSERT(pl_trace_writer_finish(writer, NULL) == CAD_OK);
		pl_trace_writer_destroy(writer);
	} else if (format == PL_TRACE_CSV) {
		pl_trace_print_csv(trace, stream);
	} else {
		pl_trace_print_json(trace, stream);
	}

	fclose(stream);
	CAD_ASSERT(pl_trace_parse("again", text, size, &source, &again, NULL) == CAD_OK);
	CAD_ASSERT(again->tokens == trace->tokens && again->layers == trace->layers && again->k == trace->k &&
		again->experts == trace->experts);
	CAD_ASSERT(memcmp(again->ids, trace->ids,
			   (size_t)trace->layers * trace->tokens * trace->k * sizeof *trace->ids) == 0);
	CAD_ASSERT(memcmp(again->request, trace->request, trace->tokens * sizeof *trace->request) == 0);
	CAD_ASSERT(memcmp(again->layer, trace->layer, trace->layers * sizeof *trace->layer) == 0);
	pl_trace_free(again);
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct pl_trace *trace = NULL;
	struct cad_error error = { 0 };

	if (size == 0)
		return 0;

	struct pl_trace_source source = {
		.format = (enum pl_trace_format)((data[0] & 7) % 6),
		.phase = (enum pl_trace_phase)((data[0] >> 3) % 3),
		.cells_max = CELLS_MAX,
	};
	size_t bytes = size - 1;
	uint8_t *copy = malloc(bytes + 1);
	CAD_ASSERT(copy);
	memcpy(copy, data + 1, bytes);
	if (source.format == PL_TRACE_OWN && bytes >= HEADER_BYTES)
		mend_sums(copy, bytes);
	enum cad_status status = pl_trace_parse("fuzz", copy, bytes, &source, &trace, &error);
	if (status == CAD_OK) {
		check_whole(trace);
		for (enum pl_trace_format format = PL_TRACE_OWN; format <= PL_TRACE_JSON; format++)
			write_and_read(trace, format);
	} else {
		CAD_ASSERT(!trace && strncmp(error.text, "fuzz", 4) == 0);
	}

	pl_trace_free(trace);
	free(copy);
	return 0;
}
