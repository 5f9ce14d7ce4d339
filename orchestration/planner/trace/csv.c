/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CSV: `request,position,layer,e0,...,e(k-1)`, then a row for every token and layer, the layers of
 * a token in ascending order, the tokens of a request one after the other. -1 or nothing stands
 * where no expert was selected.
 */
#include "orchestration/planner/trace/csv.h"

#include "orchestration/planner/trace/rows.h"

#include <inttypes.h>
#include <string.h>

struct line {
	const char *at, *end; /* end: of the text */
	uint64_t number;      /* of the line that `at` is in */
};

struct csv_row {
	uint64_t request, position;
	uint32_t layer;
	uint16_t ids[PL_TRACE_TOPK_MAX];
};

static bool is_end_of_line(const struct line *line)
{
	return line->at == line->end || *line->at == '\n' ||
		(*line->at == '\r' && line->at + 1 < line->end && line->at[1] == '\n');
}

static void skip_end_of_line(struct line *line)
{
	const char *newline = memchr(line->at, '\n', (size_t)(line->end - line->at));
	line->at = newline ? newline + 1 : line->end;
	line->number++;
}

static void skip_blank_lines(struct line *line)
{
	while (line->at < line->end && is_end_of_line(line))
		skip_end_of_line(line);
}

/* What is at `at`, for an error. */
static int excerpt(const struct line *line)
{
	int size = 0;
	while (size < 20 && line->at + size < line->end && (unsigned char)line->at[size] >= ' ' &&
		line->at[size] != ',')
		size++;
	return size;
}

static enum cad_status malformed(const struct line *line, const char *wanted, struct cad_error *error)
{
	if (is_end_of_line(line))
		return cad_error_set(
			error, CAD_ERR_CORRUPT, "line %" PRIu64 ": it ends where %s should be", line->number, wanted);
	return cad_error_set(error, CAD_ERR_CORRUPT, "line %" PRIu64 ": '%.*s' where %s should be", line->number,
		excerpt(line), line->at, wanted);
}

static bool read_number(struct line *line, uint64_t max, uint64_t *number)
{
	const char *at = line->at;
	uint64_t value = 0;

	for (; at < line->end && *at >= '0' && *at <= '9'; at++) {
		uint64_t digit = (uint64_t)(*at - '0');
		if (digit > max || value > (max - digit) / 10)
			return false;
		value = value * 10 + digit;
	}

	if (at == line->at)
		return false;
	line->at = at;
	*number = value;

	return true;
}

static bool take(struct line *line, const char *text)
{
	size_t size = strlen(text);
	if ((size_t)(line->end - line->at) < size || memcmp(line->at, text, size) != 0)
		return false;
	line->at += size;
	return true;
}

/* The header gives k. */
static enum cad_status read_header(struct line *line, uint32_t *k, struct cad_error *error)
{
	uint64_t index;
	uint32_t count = 0;

	if (!take(line, "request,position,layer"))
		return malformed(
			line, "'request,position,layer,e0,...' (or a Cadre trace, or requests in JSON)", error);
	while (!is_end_of_line(line)) {
		char wanted[16];
		snprintf(wanted, sizeof wanted, "',e%u'", count);
		if (!take(line, ",e") || !read_number(line, UINT32_MAX, &index) || index != count)
			return malformed(line, wanted, error);
		if (++count > PL_TRACE_TOPK_MAX)
			return cad_error_set(error, CAD_ERR_UNSUPPORTED,
				"line %" PRIu64 ": more than %d experts per token", line->number, PL_TRACE_TOPK_MAX);
	}

	if (count == 0)
		return malformed(line, "',e0'", error);
	skip_end_of_line(line);
	*k = count;

	return CAD_OK;
}

static enum cad_status read_row(struct line *line, uint32_t k, struct csv_row *row, struct cad_error *error)
{
	uint64_t layer, id;
	if (!read_number(line, UINT64_MAX, &row->request))
		return malformed(line, "the number of a request", error);
	if (!take(line, ",") || !read_number(line, UINT64_MAX, &row->position))
		return malformed(line, "',' and a position", error);
	if (!take(line, ",") || !read_number(line, UINT32_MAX, &layer))
		return malformed(line, "',' and a layer", error);

	for (uint32_t i = 0; i < k; i++) {
		if (!take(line, ","))
			return malformed(line, "',' and an expert", error);
		bool none = take(line, "-1") || is_end_of_line(line) || *line->at == ',';
		if (!none && !read_number(line, PL_TRACE_EXPERTS_MAX - 1, &id))
			return malformed(line, "the number of an expert (0 to 65534, or -1)", error);
		row->ids[i] = none ? PL_TRACE_NONE : (uint16_t)id;
	}

	if (!is_end_of_line(line))
		return malformed(line, "the end of the line", error);
	row->layer = (uint32_t)layer;
	return CAD_OK;
}

/* The layers of the first token are those of every token. `line` is a copy: it is read again. */
static enum cad_status find_layers(struct line line, struct pl_rows *rows, struct cad_error *error)
{
	struct csv_row row;
	for (skip_blank_lines(&line); line.at < line.end; skip_blank_lines(&line)) {
		enum cad_status status = read_row(&line, rows->k, &row, error);
		if (status != CAD_OK)
			return status;
		if (rows->layers && row.layer <= rows->layer[rows->layers - 1])
			break;
		if (rows->layers == PL_TRACE_LAYERS_MAX)
			return cad_error_set(error, CAD_ERR_EXHAUSTED, "line %" PRIu64 ": more than %d layers",
				line.number, PL_TRACE_LAYERS_MAX);
		rows->layer[rows->layers++] = row.layer;
		skip_end_of_line(&line);
	}
	return rows->layers ? CAD_OK
			    : cad_error_set(error, CAD_ERR_CORRUPT,
				      "line %" PRIu64 ": there are no rows after the header", line.number);
}

/* The rows of one token. *request and *index: of the request that the token before belongs to, and
 * the index that it got. */
static enum cad_status read_token(struct line *line, struct pl_rows *rows, uint64_t *request, uint32_t *index,
	uint32_t experts, struct cad_error *error)
{
	struct csv_row row;
	uint64_t position = 0, token = rows->tokens;

	for (uint32_t i = 0; i < rows->layers; i++) {
		skip_blank_lines(line);
		enum cad_status status = read_row(line, rows->k, &row, error);
		if (status != CAD_OK)
			return status;
		if (i == 0) {
			*index += token > 0 && row.request != *request;
			*request = row.request;
			position = row.position;
			status = pl_rows_extend(rows, *index, 1, error);
			if (status != CAD_OK)
				return cad_error_prefix(error, "line %" PRIu64, line->number);
		}
		if (row.layer != rows->layer[i] || row.request != *request || row.position != position)
			return cad_error_set(error, CAD_ERR_CORRUPT,
				"line %" PRIu64 ": layer %u of request %" PRIu64 ", position %" PRIu64
				", where layer %u of request %" PRIu64 ", position %" PRIu64 " should be: "
				"every token needs a row for each layer of the first, in that order",
				line->number, row.layer, row.request, row.position, rows->layer[i], *request, position);
		status = pl_trace_check_cell(row.ids, rows->k, experts ? experts : PL_TRACE_EXPERTS_MAX, error);
		if (status != CAD_OK)
			return cad_error_prefix(error, "line %" PRIu64, line->number);
		memcpy(rows->ids + (token * rows->layers + i) * rows->k, row.ids, rows->k * sizeof *row.ids);
		skip_end_of_line(line);
	}

	return CAD_OK;
}

enum cad_status pl_trace_decode_csv(const char *text, size_t size, const struct pl_trace_source *source,
	struct pl_trace **trace, struct cad_error *error)
{
	struct line line = { .at = text, .end = text + size, .number = 1 };
	struct pl_rows rows = { .cells_max = source->cells_max };
	uint64_t request = 0;
	uint32_t index = 0;

	(void)take(&line, "\xef\xbb\xbf"); /* some editors begin UTF-8 with this mark */
	enum cad_status status = read_header(&line, &rows.k, error);
	if (status == CAD_OK)
		status = find_layers(line, &rows, error);
	for (skip_blank_lines(&line); status == CAD_OK && line.at < line.end; skip_blank_lines(&line))
		status = read_token(&line, &rows, &request, &index, source->experts, error);
	if (status == CAD_OK)
		status = pl_rows_finish(&rows, source->experts, trace, error);
	pl_rows_fini(&rows);

	return status;
}

void pl_trace_print_csv(const struct pl_trace *trace, FILE *stream)
{
	uint64_t begin = 0; /* of the request */
	fputs("request,position,layer", stream);
	for (uint32_t i = 0; i < trace->k; i++)
		fprintf(stream, ",e%u", i);
	fputc('\n', stream);

	for (uint64_t token = 0; token < trace->tokens; token++) {
		if (token && trace->request[token] != trace->request[token - 1])
			begin = token;
		for (uint32_t layer = 0; layer < trace->layers; layer++) {
			const uint16_t *ids = pl_trace_row(trace, layer, token);
			fprintf(stream, "%u,%" PRIu64 ",%u", trace->request[token], token - begin, trace->layer[layer]);
			for (uint32_t i = 0; i < trace->k; i++)
				fprintf(stream, ",%d", ids[i] == PL_TRACE_NONE ? -1 : ids[i]);
			fputc('\n', stream);
		}
	}
}
