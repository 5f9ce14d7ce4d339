/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of JSON, as Python writes them (common/base/json.h), with texts as they stand. U+0000 in a key
 * is written out in a form that the parser takes.
 */
#include "common/base/json.h"
#include "common/tokenizer/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define ZERO "\\u0000"

enum { ZERO_BYTES = sizeof ZERO - 1 };

struct tidy {
	const char *bytes;
	size_t size, done; /* bytes[0 .. done) are in `out` */
	struct cad_text out;
	uint32_t zero;
	struct cad_error *error;
};

static bool is_at(const struct tidy *tidy, size_t at, const char *text)
{
	size_t size = strlen(text);
	return tidy->size - at >= size && memcmp(tidy->bytes + at, text, size) == 0;
}

/* Writes `text` for bytes [start, end). */
static enum cad_status put(struct tidy *tidy, size_t start, size_t end, const char *text, size_t size)
{
	enum cad_status status = cad_tok_append(&tidy->out, tidy->bytes + tidy->done, start - tidy->done);
	tidy->done = end;
	return status != CAD_OK ? status : cad_tok_append(&tidy->out, text, size);
}

/* ---- strings ---- */

/* Behind the quote that closes the string at `at`, or the end. *zero: it has U+0000. */
static size_t string_end(const struct tidy *tidy, size_t at, bool *zero)
{
	*zero = false;
	for (size_t i = at + 1; i < tidy->size; i++) {
		if (tidy->bytes[i] == '"')
			return i + 1;
		if (tidy->bytes[i] != '\\')
			continue;
		*zero |= is_at(tidy, i, ZERO);
		i++;
	}
	return tidy->size;
}

static bool is_key(const struct tidy *tidy, size_t end)
{
	while (end < tidy->size && memchr(" \t\r\n", tidy->bytes[end], 4))
		end++;
	return end < tidy->size && tidy->bytes[end] == ':';
}

static bool has_character(const struct tidy *tidy, uint32_t character)
{
	char encoded[4], hex[9];
	snprintf(hex, sizeof hex, "%04x", (unsigned int)character);
	if (memmem(tidy->bytes, tidy->size, encoded, cad_utf8_put(character, encoded)))
		return true;
	for (size_t i = 0; tidy->size - i >= 6; i++)
		if (is_at(tidy, i, "\\u") && strncasecmp(tidy->bytes + i + 2, hex, 4) == 0)
			return true;
	return false;
}

/* One of those that Unicode keeps free for such uses. */
static enum cad_status choose_zero(struct tidy *tidy)
{
	for (uint32_t c = 0xfdd0; c <= 0xfdef && tidy->zero == 0; c++)
		if (!has_character(tidy, c))
			tidy->zero = c;
	return tidy->zero != 0 ? CAD_OK
			       : cad_error_set(tidy->error, CAD_ERR_UNSUPPORTED,
					 "a key has U+0000, and the file has all of U+FDD0 to U+FDEF too");
}

static enum cad_status tidy_key(struct tidy *tidy, size_t start, size_t end)
{
	enum cad_status status = tidy->zero != 0 ? CAD_OK : choose_zero(tidy);
	char encoded[4];

	for (size_t i = start + 1; i < end && status == CAD_OK; i++) {
		if (tidy->bytes[i] != '\\')
			continue;
		if (!is_at(tidy, i, ZERO)) {
			i++;
			continue;
		}
		status = put(tidy, i, i + ZERO_BYTES, encoded, cad_utf8_put(tidy->zero, encoded));
		i += ZERO_BYTES - 1;
	}

	return status;
}

/* ---- the file ---- */

static enum cad_status tidy_all(struct tidy *tidy)
{
	enum cad_status status = CAD_OK;

	for (size_t i = 0, end; i < tidy->size && status == CAD_OK; i = end) {
		const char *quote = memchr(tidy->bytes + i, '"', tidy->size - i);
		if (!quote)
			break;
		bool zero;
		size_t start = (size_t)(quote - tidy->bytes);
		end = string_end(tidy, start, &zero);
		if (zero && is_key(tidy, end))
			status = tidy_key(tidy, start, end);
	}

	return status != CAD_OK || tidy->done == 0
		? status
		: cad_tok_append(&tidy->out, tidy->bytes + tidy->done, tidy->size - tidy->done);
}

enum cad_status cad_tok_json_load(const char *bytes, size_t size, struct tok_json *file, struct cad_error *error)
{
	struct tidy tidy = { .bytes = bytes, .size = size, .error = error };
	json_error_t problem;
	enum cad_status status = tidy_all(&tidy);
	json_t *root = NULL;

	if (status != CAD_OK)
		goto free_out;
	bool same = tidy.done == 0;
	root = cad_json_parse_exact(same ? bytes : tidy.out.bytes, same ? size : tidy.out.size, &problem);
	if (!root && problem.text[0] == 0)
		status = CAD_ERR_MEMORY;
	else if (!root)
		status = cad_error_set(
			error, CAD_ERR_CORRUPT, "line %d, column %d: %s", problem.line, problem.column, problem.text);
	else if (!json_is_object(root))
		status = cad_error_set(error, CAD_ERR_CORRUPT, "the file is not a JSON object");
	if (status == CAD_OK)
		*file = (struct tok_json){ json_incref(root), tidy.zero };

free_out:
	json_decref(root);
	cad_text_fini(&tidy.out);

	return status == CAD_ERR_MEMORY ? cad_error_set(error, status, "out of memory") : status;
}

static enum cad_status read_file(const char *path, struct cad_text *text, struct cad_error *error)
{
	enum { CHUNK = 1 << 20, FILE_MAX = 1 << 28 };
	FILE *file = fopen(path, "re");

	if (!file)
		return cad_error_set(error, CAD_ERR_IO, "cannot open '%s': %m", path);

	enum cad_status status = CAD_OK;
	size_t got = 1;
	while (status == CAD_OK && got > 0) {
		status = cad_tok_reserve((void **)&text->bytes, &text->capacity, text->size, CHUNK, 1);
		got = status != CAD_OK ? 0 : fread(text->bytes + text->size, 1, CHUNK, file);
		text->size += got;
		if (text->size > FILE_MAX)
			status =
				cad_error_set(error, CAD_ERR_RANGE, "'%s' is larger than %d MiB", path, FILE_MAX >> 20);
	}

	if (status == CAD_OK && ferror(file))
		status = cad_error_set(error, CAD_ERR_IO, "cannot read '%s': %m", path);
	fclose(file);
	return status == CAD_ERR_MEMORY ? cad_error_set(error, status, "out of memory while reading '%s'", path)
					: status;
}

enum cad_status cad_tok_json_open(const char *path, struct tok_json *file, struct cad_error *error)
{
	struct cad_text text = { 0 };
	enum cad_status status = read_file(path, &text, error);
	if (status == CAD_OK)
		status = cad_tok_json_load(text.bytes, text.size, file, error);
	cad_text_fini(&text);
	return status;
}

void cad_tok_json_fini(struct tok_json *file)
{
	json_decref(file->root);
	*file = (struct tok_json){ 0 };
}

enum cad_status cad_tok_json_key(const struct tok_json *file, const char *key, size_t size, struct cad_text *out)
{
	enum cad_status status = cad_tok_append(out, "", 0);
	for (size_t i = 0, length; i < size && status == CAD_OK; i += length)
		if (cad_utf8_get(key + i, &length) == file->zero && file->zero != 0)
			status = cad_tok_append(out, "", 1);
		else
			status = cad_tok_append(out, key + i, length);
	return status;
}
