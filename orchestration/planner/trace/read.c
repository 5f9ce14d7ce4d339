/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/planner/trace/read.h"

#include "common/base/file.h"
#include "orchestration/planner/trace/answer.h"
#include "orchestration/planner/trace/csv.h"
#include "orchestration/planner/trace/eval.h"
#include "orchestration/planner/trace/json.h"
#include "orchestration/planner/trace/own.h"

#include <ctype.h>
#include <string.h>

static enum pl_trace_format guess(const char *bytes, size_t size)
{
	if (size >= PL_TRACE_MAGIC_BYTES && memcmp(bytes, PL_TRACE_MAGIC, PL_TRACE_MAGIC_BYTES) == 0)
		return PL_TRACE_OWN;
	if (size > 8 && bytes[7] == 0 && bytes[8] == '{') /* safetensors: eight bytes of a length, then JSON */
		return PL_TRACE_EVAL;
	size_t i = 0;
	while (i < size && isspace((unsigned char)bytes[i]))
		i++;
	if (i < size && bytes[i] == '{')
		return PL_TRACE_ANSWER;
	return i < size && bytes[i] == '[' ? PL_TRACE_JSON : PL_TRACE_CSV;
}

enum cad_status pl_trace_parse(const char *name, const void *bytes, size_t size, const struct pl_trace_source *source,
	struct pl_trace **trace, struct cad_error *error)
{
	struct pl_trace_source how = source ? *source : (struct pl_trace_source){ 0 };
	how.cells_max = how.cells_max ? how.cells_max : PL_TRACE_CELLS_MAX;
	if (size == 0)
		return cad_error_set(error, CAD_ERR_CORRUPT, "%s is empty", name);
	enum cad_status status;
	switch (how.format == PL_TRACE_AUTO ? guess(bytes, size) : how.format) {
	case PL_TRACE_OWN: status = pl_trace_decode_own(bytes, size, &how, trace, error); break;
	case PL_TRACE_EVAL: status = pl_trace_decode_eval(bytes, size, &how, trace, error); break;
	case PL_TRACE_ANSWER: status = pl_trace_decode_answer(bytes, size, &how, trace, error); break;
	case PL_TRACE_JSON: status = pl_trace_decode_json(bytes, size, &how, trace, error); break;
	default: status = pl_trace_decode_csv(bytes, size, &how, trace, error);
	}

	return status == CAD_OK ? CAD_OK : cad_error_prefix(error, "%s", name);
}

enum cad_status pl_trace_read_as(
	const char *path, const struct pl_trace_source *source, struct pl_trace **trace, struct cad_error *error)
{
	const void *bytes;
	size_t size;
	enum cad_status status = cad_file_map(path, &bytes, &size, NULL, error);

	if (status != CAD_OK)
		return status;
	status = pl_trace_parse(path, bytes, size, source, trace, error);
	cad_file_unmap(bytes, size);
	return status;
}

enum cad_status pl_trace_read(const char *path, struct pl_trace **trace, struct cad_error *error)
{
	return pl_trace_read_as(path, NULL, trace, error);
}
