/* SPDX-License-Identifier: Apache-2.0 */
#include "common/tokenizer/tokenize_file.h"

#include "common/tokenizer/decode.h"
#include "common/tokenizer/tokenizer.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct converter {
	struct cad_tokenizer *tokenizer;
	FILE *output;
	struct cad_ids ids;
	struct cad_text text;
	struct cad_error *error;
};

static enum cad_status write_line(struct converter *converter)
{
	const struct cad_ids *ids = &converter->ids;
	json_t *decoded = json_stringn(converter->text.bytes, converter->text.size);
	char *quoted = decoded ? json_dumps(decoded, JSON_ENCODE_ANY | JSON_ENSURE_ASCII) : NULL;

	json_decref(decoded);
	if (!quoted)
		return cad_error_set(converter->error, CAD_ERR_MEMORY, "out of memory");
	fputs("{\"ids\": [", converter->output);
	for (size_t i = 0; i < ids->count; i++)
		fprintf(converter->output, i ? ", %d" : "%d", ids->ids[i]);
	fprintf(converter->output, "], \"decoded\": %s}\n", quoted);
	free(quoted);

	return CAD_OK;
}

static enum cad_status convert_line(struct converter *converter, const char *line, size_t size)
{
	json_error_t json_error;
	json_t *root = json_loadb(line, size, JSON_ALLOW_NUL, &json_error);
	if (!root)
		return cad_error_set(converter->error, CAD_ERR_CORRUPT, "not JSON: %s", json_error.text);
	const json_t *text = json_object_get(root, "text");
	enum cad_status status = CAD_OK;
	if (!json_is_string(text))
		status = cad_error_set(converter->error, CAD_ERR_CORRUPT, "there is no string \"text\"");
	converter->ids.count = 0;
	converter->text.size = 0;
	if (status == CAD_OK)
		status = cad_tokenizer_encode(converter->tokenizer, json_string_value(text), json_string_length(text),
			true, SIZE_MAX, &converter->ids, converter->error);
	if (status == CAD_OK)
		status = cad_tokenizer_decode(converter->tokenizer, converter->ids.ids, converter->ids.count, true,
			&converter->text, converter->error);
	json_decref(root);

	return status != CAD_OK ? status : write_line(converter);
}

static enum cad_status convert(struct converter *converter, FILE *input, const char *input_path)
{
	char *line = NULL;
	size_t capacity = 0, number = 0;
	ssize_t size;
	enum cad_status status = CAD_OK;

	errno = 0;

	while (status == CAD_OK && (size = getline(&line, &capacity, input)) >= 0) {
		number++;
		if (strspn(line, " \t\r\n") == (size_t)size)
			continue;
		status = convert_line(converter, line, (size_t)size);
		if (status != CAD_OK)
			(void)cad_error_prefix(converter->error, "'%s', line %zu", input_path, number);
	}

	if (status == CAD_OK && ferror(input))
		status = cad_error_set(converter->error, CAD_ERR_IO, "cannot read '%s': %m", input_path);
	free(line);
	return status;
}

/* Opens `path` for reading, and converts it into the output that is open. */
static enum cad_status convert_file(struct converter *converter, const char *path)
{
	bool standard = strcmp(path, "-") == 0;
	FILE *input = standard ? stdin : fopen(path, "re");

	if (!input)
		return cad_error_set(converter->error, CAD_ERR_IO, "cannot open '%s': %m", path);
	enum cad_status status = convert(converter, input, path);
	if (!standard)
		fclose(input);
	return status;
}

static enum cad_status close_output(struct converter *converter, const char *path)
{
	bool failed = fflush(converter->output) != 0 || ferror(converter->output);
	failed |= converter->output != stdout && fclose(converter->output) != 0;
	converter->output = NULL;
	return failed ? cad_error_set(converter->error, CAD_ERR_IO, "cannot write '%s': %m", path) : CAD_OK;
}

static enum cad_status convert_to(struct converter *converter, const char *input_path, const char *output_path)
{
	char *partial = NULL;
	enum cad_status status;
	bool standard = strcmp(output_path, "-") == 0;

	if (!standard && asprintf(&partial, "%s.partial", output_path) < 0)
		return cad_error_set(converter->error, CAD_ERR_MEMORY, "out of memory");

	converter->output = standard ? stdout : fopen(partial, "we");
	if (!converter->output) {
		status = cad_error_set(converter->error, CAD_ERR_IO, "cannot write '%s': %m", partial);
		goto free_partial;
	}

	status = convert_file(converter, input_path);

	if (status != CAD_OK) {
		if (!standard)
			fclose(converter->output);
		goto remove_partial;
	}

	status = close_output(converter, standard ? "standard output" : partial);
	if (status == CAD_OK && !standard && rename(partial, output_path) != 0)
		status = cad_error_set(converter->error, CAD_ERR_IO, "cannot write '%s': %m", output_path);

remove_partial:
	if (status != CAD_OK && !standard)
		remove(partial);
free_partial:
	free(partial);

	return status;
}

enum cad_status cad_tokenize_file(
	const char *tokenizer_path, const char *input_path, const char *output_path, struct cad_error *error)
{
	struct cad_error ignored;
	struct converter converter = { .error = error ? error : &ignored };
	enum cad_status status = cad_tokenizer_open(tokenizer_path, &converter.tokenizer, converter.error);

	if (status == CAD_OK)
		status = convert_to(&converter, input_path, output_path);
	cad_tokenizer_close(converter.tokenizer);
	cad_ids_fini(&converter.ids);
	cad_text_fini(&converter.text);
	return status;
}
