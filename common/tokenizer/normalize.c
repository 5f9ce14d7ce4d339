/* SPDX-License-Identifier: Apache-2.0 */
/* Normalizers: each takes a string and gives a string; a chain runs them in order over two
 * buffers. */
#include "common/tokenizer/internal.h"

#include <stdlib.h>
#include <string.h>

static enum cad_status take_string(
	const json_t *json, const char *key, char **content, size_t *size, struct cad_error *error)
{
	struct tok_slice value;
	enum cad_status status = cad_tok_json_string(json, key, &value, error);

	if (status != CAD_OK)
		return status;

	*content = malloc(value.size + 1);
	if (!*content)
		return CAD_ERR_MEMORY;
	memcpy(*content, value.bytes, value.size + 1);
	*size = value.size;

	return CAD_OK;
}

static const char *const form_names[] = {
	[TOK_NFC] = "NFC", [TOK_NFD] = "NFD", [TOK_NFKC] = "NFKC", [TOK_NFKD] = "NFKD"
};

static enum cad_status parse_one(void *context, const char *type, const json_t *json, struct cad_error *error)
{
	struct tok_normalizers *normalizers = context;
	if (normalizers->count == TOK_STAGES_MAX)
		return cad_error_set(error, CAD_ERR_UNSUPPORTED, "more than %d normalizers", TOK_STAGES_MAX);

	struct tok_normalizer *normalizer = &normalizers->items[normalizers->count++];
	for (enum tok_form form = TOK_NFC; form <= TOK_NFKD; form++)
		if (strcmp(type, form_names[form]) == 0) {
			*normalizer = (struct tok_normalizer){ .kind = TOK_NORMAL_FORM, .form = form };
			return CAD_OK;
		}
	if (strcmp(type, "Lowercase") == 0) {
		normalizer->kind = TOK_NORMAL_LOWERCASE;
		return CAD_OK;
	}

	if (strcmp(type, "ByteLevel") == 0) {
		normalizer->kind = TOK_NORMAL_BYTE_LEVEL;
		return CAD_OK;
	}

	if (strcmp(type, "Prepend") == 0) {
		normalizer->kind = TOK_NORMAL_PREPEND;
		enum cad_status status =
			take_string(json, "prepend", &normalizer->content, &normalizer->content_size, error);
		return status == CAD_OK && normalizer->content_size == 0
			? cad_error_set(error, CAD_ERR_UNSUPPORTED,
				  "\"prepend\" is an empty string: leave this component out")
			: status;
	}

	if (strcmp(type, "Replace") == 0) {
		normalizer->kind = TOK_NORMAL_REPLACE;
		enum cad_status status =
			take_string(json, "content", &normalizer->content, &normalizer->content_size, error);
		if (status == CAD_OK)
			status = cad_tok_pattern_parse(json_object_get(json, "pattern"), &normalizer->pattern, error);
		/* what the library puts in before the first character comes from nowhere, and some
		 * components behind it then lose or double text */
		return status == CAD_OK && cad_tok_pattern_matches_nothing(&normalizer->pattern)
			? cad_error_set(error, CAD_ERR_UNSUPPORTED,
				  "the regular expression can match nothing at all, which Cadre does not support here")
			: status;
	}

	if (strcmp(type, "Strip") == 0) {
		normalizer->kind = TOK_NORMAL_STRIP;
		enum cad_status status = cad_tok_json_bool(json, "strip_left", true, &normalizer->left, error);
		return status != CAD_OK ? status
					: cad_tok_json_bool(json, "strip_right", true, &normalizer->right, error);
	}

	return cad_error_set(error, CAD_ERR_UNSUPPORTED,
		"this normalizer is not supported (NFC, NFD, NFKC, NFKD, Lowercase, Prepend, Replace, Strip, ByteLevel and Sequence are)");
}

enum cad_status cad_tok_normalizers_parse(
	const json_t *json, struct tok_normalizers *normalizers, struct cad_error *error)
{
	return cad_tok_json_flatten(json, "normalizers", parse_one, normalizers, error);
}

void cad_tok_normalizers_fini(struct tok_normalizers *normalizers)
{
	for (size_t i = 0; i < normalizers->count; i++) {
		free(normalizers->items[i].content);
		cad_tok_pattern_fini(&normalizers->items[i].pattern);
	}
	normalizers->count = 0;
}

/* ---- running ---- */

/* `origin` everywhere: how many of the first bytes stem from the first character of the input. */

static enum cad_status replace(const struct tok_normalizer *normalizer, const char *bytes, size_t size,
	struct cad_text *out, size_t *origin, struct cad_error *error)
{
	struct tok_matches matches;
	enum cad_status status = cad_tok_matches_init(&matches, &normalizer->pattern);

	if (status != CAD_OK)
		return status;

	cad_tok_matches_start(&matches, bytes, size);
	size_t done = 0, start, end, new_origin = 0;
	while (size > 0 && (status = cad_tok_matches_next(&matches, &start, &end, error)) == CAD_OK) {
		status = cad_tok_append(out, bytes + done, start - done);
		if (status == CAD_OK)
			status = cad_tok_append(out, normalizer->content, normalizer->content_size);
		if (status != CAD_OK)
			goto fini_matches;
		if (*origin > done)
			new_origin += (*origin < start ? *origin : start) - done;
		/* what is put in stems from where the match ends */
		if (end > 0 && end - 1 < *origin)
			new_origin += normalizer->content_size;
		done = end;
		if (out->size > TOK_TEXT_BYTES_MAX) {
			status = cad_error_set(error, CAD_ERR_RANGE, "the normalized text is longer than %d bytes",
				TOK_TEXT_BYTES_MAX);
			goto fini_matches;
		}
	}

	if (status == CAD_AGAIN || status == CAD_OK) {
		status = cad_tok_append(out, bytes + done, size - done);
		if (*origin > done)
			new_origin += *origin - done;
		*origin = new_origin;
	}

fini_matches:
	cad_tok_matches_fini(&matches);
	return status;
}

static enum cad_status strip(
	const struct tok_normalizer *normalizer, const char *bytes, size_t size, struct cad_text *out, size_t *origin)
{
	size_t start = 0, end = size, length;
	while (normalizer->left && start < end && cad_tok_is_space(cad_utf8_get(bytes + start, &length)))
		start += length;
	while (normalizer->right && end > start) {
		size_t before = cad_utf8_before(bytes, end);
		if (!cad_tok_is_space(cad_utf8_get(bytes + before, &length)))
			break;
		end = before;
	}
	*origin = *origin > start ? *origin - start : 0;
	return cad_tok_append(out, bytes + start, end - start);
}

static enum cad_status byte_level(const char *bytes, size_t size, struct cad_text *out, size_t *origin)
{
	size_t start = out->size, new_origin = 0;
	for (size_t i = 0; i < size; i++) {
		if (i == *origin)
			new_origin = out->size - start;
		char encoded[4];
		enum cad_status status = cad_tok_append(
			out, encoded, cad_utf8_put(cad_tok_byte_to_character((unsigned char)bytes[i]), encoded));
		if (status != CAD_OK)
			return status;
	}

	*origin = *origin < size ? new_origin : out->size - start;
	return CAD_OK;
}

static enum cad_status put_mapped(
	const struct tok_normalizer *normalizer, const char *bytes, size_t size, struct cad_text *out)
{
	return normalizer->kind == TOK_NORMAL_FORM ? cad_tok_normal_form(normalizer->form, bytes, size, out)
						   : cad_tok_lowercase(bytes, size, out);
}

/* Length of the prefix of `out` that stems from `head`: unchanged characters, plus the one that
 * absorbed combining marks following it. A mark that was sorted in from later text ends it, unless it
 * is the very first: that one stands for the first character. */
static size_t head_size(const char *head, size_t size, const char *out, size_t out_size)
{
	size_t at = 0, length = 0, out_length;
	for (size_t i = 0; i < size && at < out_size; i += length, at += out_length) {
		uint32_t c = cad_utf8_get(head + i, &length);
		uint32_t is = cad_utf8_get(out + at, &out_length);
		if (at > 0 && c != is && cad_tok_is_mark(c))
			break;
	}
	return at;
}

static enum cad_status map(
	const struct tok_normalizer *normalizer, const char *bytes, size_t size, struct cad_text *out, size_t *origin)
{
	struct cad_text head = { 0 };
	size_t start = out->size;
	enum cad_status status = put_mapped(normalizer, bytes, size, out);

	if (status == CAD_OK && *origin > 0)
		status = put_mapped(normalizer, bytes, *origin, &head);
	if (status == CAD_OK)
		*origin = head_size(head.bytes, head.size, out->bytes + start, out->size - start);
	cad_text_fini(&head);
	return status;
}

static enum cad_status run_one(const struct tok_normalizer *normalizer, const char *bytes, size_t size,
	struct cad_text *out, size_t *origin, struct cad_error *error)
{
	switch (normalizer->kind) {
	case TOK_NORMAL_PREPEND: {
		enum cad_status status =
			size > 0 ? cad_tok_append(out, normalizer->content, normalizer->content_size) : CAD_OK;
		*origin += *origin > 0 ? normalizer->content_size : 0;
		return status != CAD_OK ? status : cad_tok_append(out, bytes, size);
	}
	case TOK_NORMAL_REPLACE: return replace(normalizer, bytes, size, out, origin, error);
	case TOK_NORMAL_STRIP: return strip(normalizer, bytes, size, out, origin);
	case TOK_NORMAL_BYTE_LEVEL: return byte_level(bytes, size, out, origin);
	case TOK_NORMAL_FORM:
	case TOK_NORMAL_LOWERCASE: return map(normalizer, bytes, size, out, origin);
	}

	return CAD_ERR_INTERNAL;
}

enum cad_status cad_tok_normalize(const struct tok_normalizers *normalizers, const char *bytes, size_t size,
	struct cad_text *out, size_t *origin, struct cad_error *error)
{
	struct cad_text between[2] = { 0 };
	enum cad_status status = normalizers->count ? CAD_OK : cad_tok_append(out, bytes, size);

	for (size_t i = 0; i < normalizers->count && status == CAD_OK; i++) {
		bool last = i + 1 == normalizers->count;
		struct cad_text *to = last ? out : &between[i % 2];
		if (!last)
			to->size = 0;
		size_t before = last ? out->size : 0;
		status = cad_tok_reserve((void **)&to->bytes, &to->capacity, to->size, size + 1, 1);
		if (status == CAD_OK)
			status = run_one(&normalizers->items[i], bytes, size, to, origin, error);
		bytes = to->bytes + before;
		size = to->size - before;
		*origin = *origin < size ? *origin : size;
		if (status == CAD_OK && size > TOK_TEXT_BYTES_MAX)
			status = cad_error_set(error, CAD_ERR_RANGE, "the normalized text is longer than %d bytes",
				TOK_TEXT_BYTES_MAX);
	}

	cad_text_fini(&between[0]);
	cad_text_fini(&between[1]);
	return status;
}
