/* SPDX-License-Identifier: Apache-2.0 */
/* Reading typed values and component trees out of tokenizer.json. */
#include "common/tokenizer/internal.h"

#include <string.h>

static enum cad_status wrong_type(const char *key, const char *wanted, struct cad_error *error)
{
	return cad_error_set(error, CAD_ERR_CORRUPT, "\"%s\" must be %s", key, wanted);
}

enum cad_status cad_tok_json_bool(
	const json_t *object, const char *key, bool fallback, bool *value, struct cad_error *error)
{
	const json_t *item = json_object_get(object, key);
	if (item && !json_is_null(item) && !json_is_boolean(item))
		return wrong_type(key, "true or false", error);
	*value = item && !json_is_null(item) ? json_is_true(item) : fallback;
	return CAD_OK;
}

enum cad_status cad_tok_json_string(
	const json_t *object, const char *key, struct tok_slice *value, struct cad_error *error)
{
	const json_t *item = json_object_get(object, key);
	if (!json_is_string(item))
		return wrong_type(key, "a string", error);
	*value = (struct tok_slice){ json_string_value(item), json_string_length(item) };
	return CAD_OK;
}

enum cad_status cad_tok_json_integer(
	const json_t *object, const char *key, int64_t min, int64_t max, int64_t *value, struct cad_error *error)
{
	const json_t *item = json_object_get(object, key);
	if (!json_is_integer(item) || json_integer_value(item) < min || json_integer_value(item) > max)
		return cad_error_set(error, CAD_ERR_CORRUPT, "\"%s\" must be a whole number from %lld to %lld", key,
			(long long)min, (long long)max);
	*value = json_integer_value(item);
	return CAD_OK;
}

enum cad_status cad_tok_json_character(const json_t *object, const char *key, uint32_t *value, struct cad_error *error)
{
	struct tok_slice string;
	enum cad_status status = cad_tok_json_string(object, key, &string, error);

	if (status != CAD_OK)
		return status;

	size_t length = 0;
	if (string.size > 0)
		*value = cad_utf8_get(string.bytes, &length);
	if (string.size == 0 || length != string.size)
		return wrong_type(key, "a string of one character", error);
	return CAD_OK;
}

static enum cad_status flatten(
	const json_t *json, const char *members, tok_component *one, void *context, int depth, struct cad_error *error)
{
	if (!json || json_is_null(json))
		return CAD_OK;

	if (depth > TOK_DEPTH_MAX)
		return cad_error_set(error, CAD_ERR_CORRUPT, "Sequences are nested more than %d deep", TOK_DEPTH_MAX);
	struct tok_slice type;
	enum cad_status status = cad_tok_json_string(json, "type", &type, error);
	if (status != CAD_OK)
		return json_is_object(json)
			? status
			: cad_error_set(error, CAD_ERR_CORRUPT, "a component must be an object with a \"type\"");
	if (strcmp(type.bytes, "Sequence") != 0) {
		status = one(context, type.bytes, json, error);
		if (status == CAD_ERR_MEMORY)
			return cad_error_set(error, status, "out of memory");
		return status != CAD_OK ? cad_error_prefix(error, "%.*s", cad_tok_show(type), type.bytes) : CAD_OK;
	}

	const json_t *list = json_object_get(json, members), *member;
	if (!json_is_array(list))
		return cad_error_set(error, CAD_ERR_CORRUPT, "Sequence: \"%s\" must be a list of components", members);
	size_t i;
	json_array_foreach((json_t *)list, i, member)
	{
		status = flatten(member, members, one, context, depth + 1, error);
		if (status != CAD_OK)
			return status;
	}

	return CAD_OK;
}

enum cad_status cad_tok_json_flatten(
	const json_t *json, const char *members, tok_component *one, void *context, struct cad_error *error)
{
	return flatten(json, members, one, context, 0, error);
}
