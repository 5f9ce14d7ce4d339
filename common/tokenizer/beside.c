/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tokens that the files beside tokenizer.json name: tokenizer_config.json, or without its
 * "added_tokens_decoder" the older added_tokens.json and special_tokens_map.json. What is taken, and
 * in which order, is what transformers 5.24 does (PreTrainedTokenizerBase._from_pretrained and
 * TokenizersBackend.__init__): listed tokens by their ids, then those that have a name ("eos_token")
 * or are called special and are not listed anywhere. They are numbered as all added tokens are; the
 * id that a file says is checked, where transformers does not look at it.
 */
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/tokenizer/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const NAMES[] = { "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token",
	"mask_token" };
enum { NAMES_COUNT = sizeof NAMES / sizeof *NAMES };

struct beside {
	const json_t *own;                     /* "added_tokens" of tokenizer.json */
	struct tok_json config, older, legacy; /* ... special_tokens_map.json, added_tokens.json */
	json_t *named, *extra;                 /* name to token; list of tokens */
	json_t *said;                          /* those of them that are emitted */
	json_t *out;                           /* the tokens, in the form of "added_tokens" */
	json_t *known;                         /* contents of `own` and of listed tokens, as keys */
	json_t *news;                          /* contents of `out` that `own` does not have, as keys */
	struct cad_error *error;
};

static enum cad_status no_memory(const struct beside *beside)
{
	return cad_error_set(beside->error, CAD_ERR_MEMORY, "out of memory");
}

/* ---- tokens: a string, or an object with the flags ---- */

static const json_t *content_of(const json_t *token)
{
	return json_is_object(token) ? json_object_get(token, "content") : token;
}

static bool is_token(const json_t *token) { return json_is_string(content_of(token)); }

static bool has(const json_t *set, const json_t *content)
{
	return json_object_getn(set, json_string_value(content), json_string_length(content)) != NULL;
}

static int put_in(json_t *set, const json_t *content)
{
	return json_object_setn_new_nocheck(set, json_string_value(content), json_string_length(content), json_true());
}

static bool is_named(const struct beside *beside, const json_t *content)
{
	const char *name;
	const json_t *token;
	json_object_foreach((json_t *)beside->named, name, token)
	{
		if (json_equal(content_of(token), content))
			return true;
	}
	return false;
}

/* Appends a token. id < 0: none is said. A string is special; an object is what it says, and special
 * besides where it has a name. */
static enum cad_status emit(struct beside *beside, const json_t *token, int64_t id)
{
	const json_t *content = content_of(token);
	json_t *made = json_is_object(token) ? json_copy((json_t *)token) : json_object();
	int failed = json_object_set(made, "content", (json_t *)content);

	if (json_is_string(token) || is_named(beside, content))
		failed |= json_object_set_new(made, "special", json_true());
	(void)json_object_del(made, "id");
	if (id >= 0)
		failed |= json_object_set_new(made, "id", json_integer(id));
	failed |= json_array_append_new(beside->out, made);
	if (!has(beside->known, content))
		failed |= put_in(beside->news, content);

	return failed ? no_memory(beside) : CAD_OK;
}

/* ---- tokens with names, and others that are called special ---- */

/* Of special_tokens_map.json, where objects need not say that they are special. */
static enum cad_status take_older_token(struct beside *beside, const char *name, const json_t *value)
{
	json_t *token = json_deep_copy(value);
	int failed = !token;
	if (json_is_object(token))
		failed |= json_object_set_new(token, "special", json_true());
	failed |= json_object_set_new(beside->named, name, token);
	return failed ? no_memory(beside) : CAD_OK;
}

static bool is_other_name(const char *name)
{
	size_t size = strlen(name);
	for (size_t i = 0; i < NAMES_COUNT; i++)
		if (strcmp(name, NAMES[i]) == 0)
			return false;
	return size > 6 && strcmp(name + size - 6, "_token") == 0;
}

static enum cad_status collect_named(struct beside *beside)
{
	const char *name;
	const json_t *value, *extra = json_object_get(beside->config.root, "extra_special_tokens");
	enum cad_status status = CAD_OK;
	int failed = 0;

	for (size_t i = 0; i < NAMES_COUNT && status == CAD_OK; i++) {
		const json_t *token = json_object_get(beside->config.root, NAMES[i]);
		value = json_object_get(beside->older.root, NAMES[i]);
		if (value && is_token(value))
			status = take_older_token(beside, NAMES[i], value);
		else if (!value && is_token(token))
			failed |= json_object_set(beside->named, NAMES[i], (json_t *)token);
	}
	json_object_foreach((json_t *)beside->older.root, name, value)
	{
		if (status == CAD_OK && is_other_name(name) && is_token(value))
			status = take_older_token(beside, name, value);
	}
	json_object_foreach((json_t *)beside->config.root, name, value)
	{
		if (is_other_name(name) && json_is_string(value))
			failed |= json_object_set(beside->named, name, (json_t *)value);
	}
	json_object_foreach((json_t *)extra, name, value)
	{
		if (is_token(value))
			failed |= json_object_set(beside->named, name, (json_t *)value);
	}

	return status == CAD_OK && failed ? no_memory(beside) : status;
}

static enum cad_status collect_extra(struct beside *beside)
{
	const json_t *config = beside->config.root, *older = beside->older.root, *token;
	const json_t *extra = json_object_get(config, "extra_special_tokens"), *list = extra;
	size_t at;
	int failed = 0;

	if (json_object_size(extra) > 0) /* these have names */
		list = json_object_get(older, "additional_special_tokens");
	if (json_array_size(list) == 0)
		list = json_object_get(config, "additional_special_tokens");
	if (json_array_size(list) == 0)
		list = json_object_get(older, "additional_special_tokens");
	json_array_foreach((json_t *)list, at, token) { failed |= json_array_append(beside->extra, (json_t *)token); }
	json_array_foreach(json_object_get(older, "extra_special_tokens"), at, token)
	{
		failed |= json_array_append(beside->extra, (json_t *)token);
	}

	return failed ? no_memory(beside) : CAD_OK;
}

static bool was_said(const json_t *said, const json_t *token)
{
	size_t at;
	const json_t *before;
	json_array_foreach((json_t *)said, at, before)
	{
		if (json_equal(before, token))
			return true;
	}
	return false;
}

static enum cad_status emit_one(struct beside *beside, const json_t *token)
{
	if (!is_token(token) || has(beside->known, content_of(token)) || was_said(beside->said, token))
		return CAD_OK;
	return json_array_append(beside->said, (json_t *)token) ? no_memory(beside) : emit(beside, token, -1);
}

/* One that is named twice in different ways is emitted twice, and what is said last counts. */
static enum cad_status emit_unlisted(struct beside *beside)
{
	const char *name;
	const json_t *token;
	size_t at;
	enum cad_status status = CAD_OK;

	json_object_foreach(beside->named, name, token)
	{
		if (status == CAD_OK)
			status = emit_one(beside, token);
	}
	json_array_foreach(beside->extra, at, token)
	{
		if (status == CAD_OK)
			status = emit_one(beside, token);
	}

	return status;
}

/* ---- tokens that are listed with ids ---- */

struct listed {
	json_int_t id;
	json_t *token;
};

static int by_id(const void *left, const void *right)
{
	const struct listed *a = left, *b = right;
	return (a->id > b->id) - (a->id < b->id);
}

/* "added_tokens_decoder": {"32000": {"content": ...}} */
static enum cad_status list_decoder(
	const struct beside *beside, const json_t *decoder, struct listed *list, size_t *count)
{
	const char *key;
	json_t *token;

	if (!json_is_object(decoder))
		return cad_error_set(beside->error, CAD_ERR_CORRUPT,
			"tokenizer_config.json: \"added_tokens_decoder\" must be an object of ids and tokens");
	json_object_foreach((json_t *)decoder, key, token)
	{
		char *end;
		long long id = strtoll(key, &end, 10);
		if (*end || end == key || id < 0 || id >= TOK_ID_LIMIT || !json_is_object(token) || !is_token(token))
			return cad_error_set(beside->error, CAD_ERR_CORRUPT,
				"tokenizer_config.json: \"added_tokens_decoder\": '%.60s' is not an id below %d with a token that has \"content\"",
				key, TOK_ID_LIMIT);
		list[(*count)++] = (struct listed){ id, json_incref(token) };
	}
	return CAD_OK;
}

static bool has_own_id(const struct beside *beside, json_int_t id)
{
	size_t at;
	const json_t *token;
	json_array_foreach((json_t *)beside->own, at, token)
	{
		if (json_integer_value(json_object_get(token, "id")) == id)
			return true;
	}
	return false;
}

/* By one of the common names, or as an extra one; of tokenizer_config.json only strings are looked
 * at, as transformers does. */
static bool is_special_legacy(const struct beside *beside, const json_t *content)
{
	size_t at;
	const json_t *token;

	for (size_t i = 0; i < NAMES_COUNT; i++) {
		token = json_object_get(beside->named, NAMES[i]);
		if ((json_is_string(token) || json_object_get(beside->older.root, NAMES[i])) &&
			json_equal(content_of(token), content))
			return true;
	}
	json_array_foreach(beside->extra, at, token)
	{
		if (json_equal(token, content))
			return true;
	}
	return false;
}

/* added_tokens.json: {"<extra>": 32000}. Where tokenizer.json has a token of that id, it is that. */
static enum cad_status list_legacy(const struct beside *beside, struct listed *list, size_t *count)
{
	const char *key;
	size_t length;
	json_t *id;

	json_object_keylen_foreach(beside->legacy.root, key, length, id)
	{
		struct cad_text name = { 0 };
		if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= TOK_ID_LIMIT)
			return cad_error_set(beside->error, CAD_ERR_CORRUPT,
				"added_tokens.json: the id of token '%.*s' must be a whole number below %d",
				cad_tok_show((struct tok_slice){ key, length }), key, TOK_ID_LIMIT);
		if (has_own_id(beside, json_integer_value(id)))
			continue;
		if (cad_tok_json_key(&beside->legacy, key, length, &name) != CAD_OK)
			return no_memory(beside);
		json_t *content = json_stringn(name.bytes, name.size);
		cad_text_fini(&name);
		bool special = content && is_special_legacy(beside, content);
		json_t *token =
			json_pack("{s:o, s:b, s:b}", "content", content, "special", special, "normalized", !special);
		if (!token)
			return no_memory(beside);
		list[(*count)++] = (struct listed){ json_integer_value(id), token };
	}
	return CAD_OK;
}

static enum cad_status emit_listed(struct beside *beside)
{
	const json_t *decoder = json_object_get(beside->config.root, "added_tokens_decoder");
	size_t count = 0, max = json_object_size(decoder) + json_object_size(beside->legacy.root);
	struct listed *list = calloc(max + 1, sizeof *list);
	if (!list)
		return no_memory(beside);

	enum cad_status status =
		decoder ? list_decoder(beside, decoder, list, &count) : list_legacy(beside, list, &count);
	if (count > 0)
		qsort(list, count, sizeof *list, by_id);
	for (size_t i = 0; i < count && status == CAD_OK; i++)
		status = emit(beside, list[i].token, list[i].id);
	for (size_t i = 0; i < count; i++) {
		if (status == CAD_OK && put_in(beside->known, content_of(list[i].token)) != 0)
			status = no_memory(beside);
		json_decref(list[i].token);
	}
	free(list);

	return status;
}

/* Without a list of ids, a token of tokenizer.json is special if it has a name. */
static enum cad_status emit_own(struct beside *beside)
{
	size_t at;
	const json_t *token;
	enum cad_status status = CAD_OK;
	json_array_foreach((json_t *)beside->own, at, token)
	{
		if (status == CAD_OK && is_token(token) && !json_is_true(json_object_get(token, "special")) &&
			is_named(beside, content_of(token)))
			status = emit(beside, token, -1);
	}
	return status;
}

/* ---- the whole of it ---- */

static enum cad_status open_one(
	const char *directory, size_t size, const char *name, struct tok_json *file, struct cad_error *error)
{
	char *path = NULL;
	if (asprintf(&path, "%.*s%s", (int)size, directory, name) < 0)
		return cad_error_set(error, CAD_ERR_MEMORY, "out of memory");

	enum cad_status status = CAD_OK;
	if (cad_file_exists(path)) {
		status = cad_tok_json_open(path, file, error);
		if (status != CAD_OK && status != CAD_ERR_MEMORY)
			(void)cad_error_prefix(error, "%s", name);
	}
	free(path);
	return status;
}

static enum cad_status open_files(struct beside *beside, const char *directory, size_t size)
{
	enum cad_status status = open_one(directory, size, "tokenizer_config.json", &beside->config, beside->error);
	if (status != CAD_OK || json_object_get(beside->config.root, "added_tokens_decoder"))
		return status;
	status = open_one(directory, size, "special_tokens_map.json", &beside->older, beside->error);
	return status != CAD_OK ? status
				: open_one(directory, size, "added_tokens.json", &beside->legacy, beside->error);
}

static enum cad_status collect(struct beside *beside)
{
	size_t at;
	const json_t *token;
	int failed = 0;

	json_array_foreach((json_t *)beside->own, at, token)
	{
		if (is_token(token))
			failed |= put_in(beside->known, content_of(token));
	}
	enum cad_status status = failed ? no_memory(beside) : collect_named(beside);
	if (status == CAD_OK)
		status = collect_extra(beside);
	if (status == CAD_OK && !json_object_get(beside->config.root, "added_tokens_decoder"))
		status = emit_own(beside);
	if (status == CAD_OK)
		status = emit_listed(beside);
	return status == CAD_OK ? emit_unlisted(beside) : status;
}

static void tell(const struct beside *beside)
{
	const char *name;
	const json_t *value;
	struct cad_text names = { 0 };
	enum cad_status status = CAD_OK;

	json_object_foreach(beside->news, name, value)
	{
		if (status == CAD_OK)
			status = cad_tok_append(&names, " ", names.size > 0);
		if (status == CAD_OK)
			status = cad_tok_append(&names, name, strlen(name));
	}
	if (names.size > 0)
		cad_log_info("tokenizer", "tokens that only files beside tokenizer.json name are added",
			CAD_U("count", json_object_size(beside->news)), CAD_S("tokens", names.bytes));
	cad_text_fini(&names);
	if (json_is_true(json_object_get(beside->config.root, "split_special_tokens")))
		cad_log_warn("tokenizer",
			"\"split_special_tokens\" of tokenizer_config.json is not followed: special tokens in texts are their ids");
}

enum cad_status cad_tok_beside_read(const char *path, const json_t *own, json_t **tokens, struct cad_error *error)
{
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	struct beside beside = { .own = own, .error = error };

	*tokens = NULL;
	if (strcmp(name, "tokenizer.json") != 0)
		return CAD_OK;
	beside.named = json_object();
	beside.extra = json_array();
	beside.out = json_array();
	beside.known = json_object();
	beside.news = json_object();
	beside.said = json_array();
	enum cad_status status =
		beside.named && beside.extra && beside.out && beside.known && beside.news && beside.said
		? open_files(&beside, path, (size_t)(name - path))
		: no_memory(&beside);
	if (status == CAD_OK)
		status = collect(&beside);
	if (status == CAD_OK) {
		tell(&beside);
		*tokens = json_incref(beside.out);
	}
	cad_tok_json_fini(&beside.config);
	cad_tok_json_fini(&beside.older);
	cad_tok_json_fini(&beside.legacy);
	json_decref(beside.named);
	json_decref(beside.extra);
	json_decref(beside.out);
	json_decref(beside.known);
	json_decref(beside.news);
	json_decref(beside.said);

	return status;
}
