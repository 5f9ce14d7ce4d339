/* Tokenizers: the golden cases, and each component by hand. What is expected was computed by the `tokenizers` library. */
#include "common/model/tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <glob.h>
#include <jansson.h>

/* ---- golden cases ---- */

static void assert_ids(const json_t *expected, const struct cad_ids *ids)
{
	assert_int_equal(json_array_size(expected), ids->count);
	for (size_t i = 0; i < ids->count; i++)
		assert_int_equal(json_integer_value(json_array_get(expected, i)), ids->ids[i]);
}

/* Decodes id by id; whatever is out so far must be whole characters, and in the end all of the text. */
static void assert_streams(const struct cad_tokenizer *tokenizer, const struct cad_ids *ids, const char *expected, size_t size)
{
	struct cad_decoder *decoder = NULL;
	struct cad_text text = { 0 };
	assert_int_equal(cad_decoder_create(tokenizer, true, &decoder), CAD_OK);
	for (size_t i = 0; i < ids->count; i++) {
		assert_int_equal(cad_decoder_push(decoder, ids->ids[i], &text, NULL), CAD_OK);
		assert_true(text.size <= size && memcmp(text.bytes, expected, text.size) == 0);
		assert_true(text.size == size || ((unsigned char)expected[text.size] & 0xc0) != 0x80);
	}
	assert_int_equal(cad_decoder_finish(decoder, &text, NULL), CAD_OK);
	assert_int_equal(text.size, size);
	assert_memory_equal(text.bytes, expected, size);
	cad_decoder_destroy(decoder);
	cad_text_fini(&text);
}

static void check_golden_line(const struct cad_tokenizer *tokenizer, const json_t *line)
{
	const json_t *text = json_object_get(line, "text"), *decoded = json_object_get(line, "decoded");
	struct cad_error error;
	struct cad_ids ids = { 0 };
	struct cad_text out = { 0 };
	assert_int_equal(cad_tokenizer_encode(tokenizer, json_string_value(text), json_string_length(text), false, SIZE_MAX, &ids, &error), CAD_OK);
	assert_ids(json_object_get(line, "ids_no_special"), &ids);
	ids.count = 0;
	assert_int_equal(cad_tokenizer_encode(tokenizer, json_string_value(text), json_string_length(text), true, SIZE_MAX, &ids, &error), CAD_OK);
	assert_ids(json_object_get(line, "ids"), &ids);
	assert_int_equal(cad_tokenizer_decode(tokenizer, ids.ids, ids.count, true, &out, &error), CAD_OK);
	assert_int_equal(out.size, json_string_length(decoded));
	assert_memory_equal(out.bytes, json_string_value(decoded), out.size);
	assert_streams(tokenizer, &ids, out.bytes, out.size);
	cad_ids_fini(&ids);
	cad_text_fini(&out);
}

static void golden_case(const char *folder)
{
	char path[1024];
	struct cad_tokenizer *tokenizer = NULL;
	struct cad_error error;
	snprintf(path, sizeof path, "%s/model/tokenizer.json", folder);
	if (cad_tokenizer_open(path, &tokenizer, &error) != CAD_OK)
		fail_msg("%s", error.text);
	snprintf(path, sizeof path, "%s/tokenizer.jsonl", folder);
	FILE *file = fopen(path, "r");
	assert_non_null(file);
	size_t lines = 0;
	for (json_t *line; (line = json_loadf(file, JSON_DISABLE_EOF_CHECK | JSON_ALLOW_NUL, NULL)) != NULL; json_decref(line), lines++)
		check_golden_line(tokenizer, line);
	assert_true(lines >= 100);
	fclose(file);
	cad_tokenizer_close(tokenizer);
}

static void golden_cases(void **state)
{
	(void)state;
	glob_t folders = { 0 };
	int found = glob(CADRE_SOURCE_DIR "/tests/golden/*-*", 0, NULL, &folders);
	assert_int_equal(found, 0);
	assert_true(folders.gl_pathc >= 11);
	for (size_t i = 0; i < folders.gl_pathc; i++)
		golden_case(folders.gl_pathv[i]);
	globfree(&folders);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(golden_cases),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
