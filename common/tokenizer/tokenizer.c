/* SPDX-License-Identifier: Apache-2.0 */
/* Opening a tokenizer.json, and encoding: the stages in order. */
#include "common/base/log.h"
#include "common/tokenizer/internal.h"

#include <stdlib.h>
#include <string.h>

/* ---- opening ---- */

static enum cad_status parse_parts(
	struct cad_tokenizer *tokenizer, const struct tok_json *file, const json_t *beside, struct cad_error *error)
{
	const json_t *root = file->root;
	struct tok_map vocab = { 0 };
	enum cad_status status =
		cad_tok_normalizers_parse(json_object_get(root, "normalizer"), &tokenizer->normalizers, error);

	if (status != CAD_OK) {
		(void)cad_error_prefix(error, "normalizer");
		return status;
	}

	status = cad_tok_splitters_parse(json_object_get(root, "pre_tokenizer"), &tokenizer->splitters, error);
	if (status != CAD_OK) {
		(void)cad_error_prefix(error, "pre_tokenizer");
		return status;
	}

	status = cad_tok_template_parse(json_object_get(root, "post_processor"), &tokenizer->template, error);
	if (status != CAD_OK) {
		(void)cad_error_prefix(error, "post_processor");
		return status;
	}

	status = cad_tok_decoders_parse(json_object_get(root, "decoder"), &tokenizer->decoders, error);
	if (status != CAD_OK) {
		(void)cad_error_prefix(error, "decoder");
		return status;
	}

	status = cad_tok_bpe_parse(file, cad_tok_splitters_end_in_bytes(&tokenizer->splitters), &tokenizer->bpe, &vocab,
		&tokenizer->names, error);
	tokenizer->splitters.keep_bytes = tokenizer->bpe.bytes;
	if (status == CAD_OK)
		status = cad_tok_added_parse(json_object_get(root, "added_tokens"), beside, &tokenizer->normalizers,
			&vocab, &tokenizer->added, &tokenizer->names, error);
	cad_tok_map_fini(&vocab);

	return status;
}

static enum cad_status build(
	const struct tok_json *file, const json_t *beside, struct cad_tokenizer **tokenizer, struct cad_error *error)
{
	struct cad_tokenizer *created = calloc(1, sizeof *created);
	enum cad_status status = created ? parse_parts(created, file, beside, error)
					 : cad_error_set(error, CAD_ERR_MEMORY, "out of memory");
	if (status != CAD_OK) {
		cad_tokenizer_close(created);
		return status;
	}

	*tokenizer = created;
	return CAD_OK;
}

enum cad_status cad_tokenizer_parse(
	const char *name, const char *json, size_t bytes, struct cad_tokenizer **tokenizer, struct cad_error *error)
{
	struct tok_json file = { 0 };
	enum cad_status status = cad_tok_json_load(json, bytes, &file, error);
	if (status == CAD_OK)
		status = build(&file, NULL, tokenizer, error);
	cad_tok_json_fini(&file);
	return status != CAD_OK && error ? cad_error_prefix(error, "tokenizer '%s'", name) : status;
}

/* A prompt is refused when it is too long, never cut; and none is filled up. */
static void say_what_is_passed_over(const char *path, const struct tok_json *file)
{
	static const char *const keys[] = { "truncation", "padding" };
	for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
		const json_t *value = json_object_get(file->root, keys[i]);
		if (value && !json_is_null(value))
			cad_log_warn("tokenizer",
				"a key of tokenizer.json is passed over: texts are never cut or filled up",
				CAD_S("key", keys[i]), CAD_S("path", path));
	}
}

enum cad_status cad_tokenizer_open(const char *path, struct cad_tokenizer **tokenizer, struct cad_error *error)
{
	struct tok_json file = { 0 };
	json_t *beside = NULL;
	enum cad_status status = cad_tok_json_open(path, &file, error);
	if (status == CAD_OK)
		status = cad_tok_beside_read(path, json_object_get(file.root, "added_tokens"), &beside, error);
	if (status == CAD_OK)
		status = build(&file, beside, tokenizer, error);
	if (status == CAD_OK)
		say_what_is_passed_over(path, &file);
	cad_tok_json_fini(&file);
	json_decref(beside);

	return status != CAD_OK && error ? cad_error_prefix(error, "tokenizer '%s'", path) : status;
}

void cad_tokenizer_close(struct cad_tokenizer *tokenizer)
{
	if (!tokenizer)
		return;

	cad_tok_normalizers_fini(&tokenizer->normalizers);
	cad_tok_splitters_fini(&tokenizer->splitters);
	cad_tok_template_fini(&tokenizer->template);
	cad_tok_decoders_fini(&tokenizer->decoders);
	cad_tok_bpe_fini(&tokenizer->bpe);
	cad_tok_added_fini(&tokenizer->added);
	cad_tok_names_fini(&tokenizer->names);
	free(tokenizer);
}

uint32_t cad_tokenizer_vocab_size(const struct cad_tokenizer *tokenizer) { return tokenizer->names.count; }

void cad_tokenizer_pad(struct cad_tokenizer *tokenizer, uint32_t vocab) { tokenizer->padded_size = vocab; }

/* ---- encoding ---- */

/* Cuts added tokens out of the text as it came, normalizes what lies between them, and cuts the
 * others out of that. */
static enum cad_status cut_and_normalize(const struct cad_tokenizer *tokenizer, const char *text, size_t bytes,
	struct tok_work *work, struct cad_error *error)
{
	const struct tok_added *added = &tokenizer->added;
	work->text = text;
	enum cad_status status = cad_tok_added_cut(
		added, &added->plain, text, 0, bytes, bytes > 0 ? cad_utf8_size(text[0]) : 0, &work->spare);
	if (status != CAD_OK)
		return status;
	struct cad_text *out = &work->buffers[0];
	bool same = tokenizer->normalizers.count == 0;
	for (size_t i = 0; i < work->spare.count && status == CAD_OK; i++) {
		struct tok_piece piece = work->spare.items[i];
		size_t start = piece.start, size = piece.size, origin = piece.origin;
		if (piece.id >= 0) {
			status = cad_tok_pieces_push(&work->pieces, piece);
			continue;
		}
		if (!same) {
			start = out->size;
			status = cad_tok_normalize(
				&tokenizer->normalizers, text + piece.start, piece.size, out, &origin, error);
			size = out->size - start;
			if (out->size > TOK_TEXT_BYTES_MAX)
				return cad_error_set(error, CAD_ERR_RANGE,
					"the normalized text is longer than %d bytes", TOK_TEXT_BYTES_MAX);
		}
		if (status == CAD_OK)
			status = cad_tok_added_cut(added, &added->normalized, same ? text : out->bytes, start, size,
				origin, &work->pieces);
	}

	if (!same && out->bytes)
		work->text = out->bytes;
	return status;
}

enum cad_status cad_tok_too_long(size_t ids_max, struct cad_error *error)
{
	return cad_error_set(error, CAD_ERR_RANGE, "the text is longer than %zu tokens", ids_max);
}

/* A text that is too long is refused as soon as that is certain: it may be much too long. */
static enum cad_status encode_piece(const struct tok_bpe *bpe, const char *bytes, size_t size, struct tok_work *work,
	struct cad_ids *ids, struct cad_error *error)
{
	if (bpe->id_bytes_max > 0 && size / bpe->id_bytes_max > work->ids_max - ids->count)
		return cad_tok_too_long(work->ids_max, error);
	enum cad_status status = cad_tok_bpe_encode(bpe, bytes, size, &work->symbols, work->ids_max, ids);
	if (status != CAD_ERR_INVALID)
		return status;

	const char *unknown = bytes + work->symbols.unknown_offset;
	struct tok_slice name = { bpe->unknown_missing.bytes, bpe->unknown_missing.size };
	return cad_error_set(error, status,
		"the text has '%.*s', which the tokenizer does not know, and its \"unk_token\" '%.*s' is not in the vocabulary",
		(int)cad_utf8_size(*unknown), unknown, cad_tok_show(name), name.bytes);
}

static enum cad_status encode(const struct cad_tokenizer *tokenizer, const char *text, size_t bytes, bool special,
	struct tok_work *work, struct cad_ids *ids, struct cad_error *error)
{
	const struct tok_template *template = &tokenizer->template;
	size_t others = ids->count + (special ? template->before.count + template->after.count : 0);

	if (others > work->ids_max)
		return cad_tok_too_long(work->ids_max, error);

	work->pieces_max = tokenizer->bpe.id_bytes_max > 0 ? work->ids_max - others : SIZE_MAX;
	enum cad_status status = cut_and_normalize(tokenizer, text, bytes, work, error);
	if (status == CAD_OK)
		status = cad_tok_split(&tokenizer->splitters, work, error);
	for (size_t i = 0; special && i < template->before.count && status == CAD_OK; i++)
		status = cad_tok_push_id(ids, template->before.ids[i]);
	for (size_t i = 0; i < work->pieces.count && status == CAD_OK; i++) {
		const struct tok_piece *piece = &work->pieces.items[i];
		if (piece->id >= 0)
			status = cad_tok_push_id(ids, piece->id);
		else
			status =
				encode_piece(&tokenizer->bpe, work->text + piece->start, piece->size, work, ids, error);
		if (status == CAD_OK && ids->count > work->ids_max)
			return cad_tok_too_long(work->ids_max, error);
	}

	for (size_t i = 0; special && i < template->after.count && status == CAD_OK; i++)
		status = cad_tok_push_id(ids, template->after.ids[i]);
	return status == CAD_OK && ids->count > work->ids_max ? cad_tok_too_long(work->ids_max, error) : status;
}

enum cad_status cad_tokenizer_encode(const struct cad_tokenizer *tokenizer, const char *text, size_t bytes,
	bool special, size_t ids_max, struct cad_ids *ids, struct cad_error *error)
{
	if (bytes > TOK_TEXT_BYTES_MAX)
		return cad_error_set(error, CAD_ERR_RANGE, "the text is longer than %d bytes", TOK_TEXT_BYTES_MAX);

	size_t valid = cad_utf8_valid(text, bytes), count = ids->count;
	if (valid != bytes)
		return cad_error_set(error, CAD_ERR_INVALID, "the text is not UTF-8: byte %zu is 0x%02x", valid,
			(unsigned char)text[valid]);
	struct tok_work work = { .ids_max = ids_max };
	enum cad_status status = encode(tokenizer, text, bytes, special, &work, ids, error);
	free(work.pieces.items);
	free(work.spare.items);
	cad_text_fini(&work.buffers[0]);
	cad_text_fini(&work.buffers[1]);
	cad_tok_symbols_fini(&work.symbols);
	if (status == CAD_OK)
		return CAD_OK;
	ids->count = count;

	return status == CAD_ERR_MEMORY ? cad_error_set(error, status, "out of memory while encoding %zu bytes", bytes)
					: status;
}
