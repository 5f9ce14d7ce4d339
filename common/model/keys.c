/* SPDX-License-Identifier: Apache-2.0 */
#include "common/model/keys.h"

#include "common/base/json.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void cad_keys_fail(const struct cad_keys *keys, enum cad_status status, const char *key, const char *format, ...)
{
	if (*keys->status != CAD_OK)
		return;
	char what[CAD_ERROR_TEXT_BYTES];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(what, sizeof what, format, arguments);
	va_end(arguments);
	*keys->status = cad_error_set(keys->error, status, "%s: %s%s %s", keys->file, keys->prefix, key, what);
}

const json_t *cad_keys_get(const struct cad_keys *keys, const char *key)
{
	const json_t *value = json_object_get(keys->object, key);
	return json_is_null(value) ? NULL : value;
}

const char *cad_keys_name(const struct cad_keys *keys, const char *const *names)
{
	const char *found = NULL;
	for (size_t i = 0; names[i]; i++) {
		if (!cad_keys_get(keys, names[i]))
			continue;
		if (!found)
			found = names[i];
		else if (!json_equal(cad_keys_get(keys, found), cad_keys_get(keys, names[i])))
			cad_keys_fail(keys, CAD_ERR_INVALID, found,
				"and %s are two names for one value, but differ; remove one", names[i]);
	}
	return found ? found : names[0];
}

static void fail_type(const struct cad_keys *keys, const char *key, const json_t *value, const char *wanted)
{
	static const char *const types[] = { [JSON_OBJECT] = "an object",
		[JSON_ARRAY] = "a list",
		[JSON_STRING] = "a text",
		[JSON_INTEGER] = "a whole number",
		[JSON_REAL] = "a number",
		[JSON_TRUE] = "true",
		[JSON_FALSE] = "false",
		[JSON_NULL] = "null" };
	const char *not_finite = cad_json_not_finite(value);
	cad_keys_fail(keys, CAD_ERR_INVALID, key, "is %s; it must be %s",
		not_finite ? not_finite : types[json_typeof(value)], wanted);
}

uint32_t cad_keys_u32_or(const struct cad_keys *keys, const char *key, uint32_t min, uint32_t max, uint32_t absent)
{
	const json_t *value = cad_keys_get(keys, key);
	if (!value)
		return absent;

	if (fabs(json_real_value(value)) >= 0x1p63) { /* it was a whole number, and became a real one */
		cad_keys_fail(
			keys, CAD_ERR_RANGE, key, "is %g; it must be from %u to %u", json_real_value(value), min, max);
		return min;
	}
	if (!json_is_integer(value)) {
		fail_type(keys, key, value, "a whole number");
		return min;
	}

	json_int_t number = json_integer_value(value);

	if (number < (json_int_t)min || number > (json_int_t)max) {
		cad_keys_fail(
			keys, CAD_ERR_RANGE, key, "is %lld; it must be from %u to %u", (long long)number, min, max);
		return min;
	}

	return (uint32_t)number;
}

uint32_t cad_keys_u32(const struct cad_keys *keys, const char *key, uint32_t min, uint32_t max)
{
	if (!cad_keys_get(keys, key))
		cad_keys_fail(keys, CAD_ERR_INVALID, key, "is missing");
	return cad_keys_u32_or(keys, key, min, max, min);
}

double cad_keys_number_or(const struct cad_keys *keys, const char *key, double min, double max, double absent)
{
	const json_t *value = cad_keys_get(keys, key);
	if (!value)
		return absent;

	if (!json_is_number(value)) {
		fail_type(keys, key, value, "a number");
		return min;
	}

	double number = json_number_value(value);
	if (!(number >= min && number <= max)) {
		cad_keys_fail(keys, CAD_ERR_RANGE, key, "is %g; it must be from %g to %g", number, min, max);
		return min;
	}

	return number;
}

double cad_keys_number(const struct cad_keys *keys, const char *key, double min, double max)
{
	if (!cad_keys_get(keys, key))
		cad_keys_fail(keys, CAD_ERR_INVALID, key, "is missing");
	return cad_keys_number_or(keys, key, min, max, min);
}

bool cad_keys_bool_or(const struct cad_keys *keys, const char *key, bool absent)
{
	const json_t *value = cad_keys_get(keys, key);
	if (!value)
		return absent;
	if (!json_is_boolean(value))
		fail_type(keys, key, value, "true or false");
	return json_is_true(value);
}

const char *cad_keys_text_or(const struct cad_keys *keys, const char *key, const char *absent)
{
	const json_t *value = cad_keys_get(keys, key);
	if (!value)
		return absent;
	if (!json_is_string(value)) {
		fail_type(keys, key, value, "a text");
		return absent;
	}
	return json_string_value(value);
}

enum cad_status cad_keys_parse(
	const char *file, const char *text, size_t bytes, json_t **object, struct cad_error *error)
{
	json_error_t problem;
	json_t *parsed = cad_json_parse(text, bytes, &problem);
	if (!parsed && problem.text[0] == 0) /* jansson says nothing when it is out of memory */
		return cad_error_set(error, CAD_ERR_MEMORY, "no memory to parse %s", file);
	if (!parsed)
		return cad_error_set(error, CAD_ERR_CORRUPT, "%s is not valid JSON: %s (line %d, column %d)", file,
			problem.text, problem.line, problem.column);
	if (!json_is_object(parsed)) {
		json_decref(parsed);
		return cad_error_set(error, CAD_ERR_CORRUPT, "%s does not hold a JSON object", file);
	}

	*object = parsed;
	return CAD_OK;
}
