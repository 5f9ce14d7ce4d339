/* SPDX-License-Identifier: Apache-2.0 */
/* What is read of a folder: tokenizer.json in the forms that people have, and the files beside it.
 * What the cases of beside_cases.json expect was computed by transformers. */
#include "common/base/log.h"
#include "common/tokenizer/decode.h"
#include "common/tokenizer/tokenizer.h"
#include "tests/support/must.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>
#include <unistd.h>

/* ---- tokenizer.json ---- */

static struct cad_tokenizer *parse(const char *json)
{
	struct cad_tokenizer *tokenizer = NULL;
	struct cad_error error;
	if (cad_tokenizer_parse("t", json, strlen(json), &tokenizer, &error) != CAD_OK)
		fail_msg("%s\n%s", json, error.text);
	return tokenizer;
}

static void assert_encodes(
	const struct cad_tokenizer *tokenizer, const char *text, size_t size, const int32_t *expected, size_t count)
{
	struct cad_ids ids = { 0 };
	struct cad_text back = { 0 };
	struct cad_error error;
	must(cad_tokenizer_encode(tokenizer, text, size, true, SIZE_MAX, &ids, &error), &error);
	assert_int_equal(ids.count, count);
	assert_memory_equal(ids.ids, expected, count * sizeof *expected);
	must(cad_tokenizer_decode(tokenizer, ids.ids, ids.count, true, &back, &error), &error);
	assert_int_equal(back.size, size);
	assert_memory_equal(back.bytes, text, size);
	cad_text_fini(&back);
	cad_ids_fini(&ids);
}

/* A token with U+0000 is a key that the JSON parser does not take; others hold what looks like it. */
static void zero_in_a_vocabulary(void **state)
{
	(void)state;
	struct cad_tokenizer *tokenizer = parse(
		"{\"decoder\":{\"type\":\"Fuse\"},\"model\":{\"vocab\":{\"a\":0,\"\\u0000\":1,\"a\\u0000\" : 2,\"\\\\\":3,"
		"\"u\":4,\"0\":5,\"\\\\u0000\":6,\"\xef\xb7\x90\":7,\"\\uFdD1\":8,\"\\\"\\u0000\":9},"
		"\"merges\":[[\"a\",\"\\u0000\"]]},"
		"\"added_tokens\":[{\"id\":6,\"content\":\"\\\\u0000\"},{\"id\":9,\"content\":\"\\\"\\u0000\"}]}");
	assert_encodes(tokenizer, "a\0\0", 3, (int32_t[]){ 2, 1 }, 2);
	assert_encodes(tokenizer, "\\u0000\\u", 8, (int32_t[]){ 6, 3, 4 }, 3);
	assert_encodes(tokenizer, "\xef\xb7\x90\xef\xb7\x91", 6, (int32_t[]){ 7, 8 }, 2);
	assert_encodes(tokenizer, "\"\0", 2, (int32_t[]){ 9 }, 1);
	cad_tokenizer_close(tokenizer);

	/* all characters that could stand for it are taken */
	char json[1000] = "{\"model\":{\"merges\":[],\"vocab\":{\"\\u0000\":0,\"";
	for (int c = 0xfdd0; c <= 0xfdef; c++)
		snprintf(json + strlen(json), sizeof json - strlen(json), "\\u%04X", c);
	strcat(json, "\":1}}}");
	struct cad_error error;
	assert_int_equal(cad_tokenizer_parse("t", json, strlen(json), &tokenizer, &error), CAD_ERR_UNSUPPORTED);
	assert_non_null(strstr(error.text, "a key has U+0000"));
}

/* Python writes what no JSON parser need take, in keys that nothing reads. */
static void json_of_python(void **state)
{
	(void)state;
	struct cad_tokenizer *tokenizer = parse(
		"{\"x\":NaN,\"y\":[Infinity, -Infinity,1,-2.5e3],\"z\":-100000000000000000000000000000000,"
		"\"w\":1000000000000000019884624838656,\"v\":123456789012345678901.5,\"u\":1.00000000000000000000000001,"
		"\"model\":{\"vocab\":{\"NaN\":0,\"1000000000000000000000\":1,\"Infinity\":2},\"merges\":[]},"
		"\"added_tokens\":[{\"id\":0,\"content\":\"NaN\"},{\"id\":1,\"content\":\"1000000000000000000000\"},"
		"{\"id\":2,\"content\":\"Infinity\"}],\"decoder\":{\"type\":\"Fuse\"}}");
	assert_encodes(tokenizer, "NaN1000000000000000000000Infinity", 33, (int32_t[]){ 0, 1, 2 }, 3);
	cad_tokenizer_close(tokenizer);

	static const char *const wrong[] = { "{\"x\":NaN", "{\"x\":Infinit}", "{\"a\\u0000\":", "{\"a\\u0000",
		"{\"x\":99999999999999999999", "-Infinity", "{\"x\":NaNNaN}", "\"\\", "{\"x\":--Infinity}" };
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		struct cad_error error = { 0 };
		tokenizer = NULL;
		assert_int_equal(
			cad_tokenizer_parse("t", wrong[i], strlen(wrong[i]), &tokenizer, &error), CAD_ERR_CORRUPT);
		assert_null(tokenizer);
	}
}

/* The unknown token counts where a text needs it. */
static void no_unknown_token(void **state)
{
	(void)state;
	struct cad_tokenizer *tokenizer =
		parse("{\"decoder\":{\"type\":\"Fuse\"},\"model\":{\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"xy\":3},"
		      "\"merges\":[\"a b\"],\"unk_token\":\"<u>\"},\"added_tokens\":[{\"id\":4,\"content\":\"<u>\"}]}");
	assert_encodes(tokenizer, "aab<u>b", 7, (int32_t[]){ 0, 2, 4, 1 }, 4);
	static const char *const texts[] = { "a\xe4\xb8\xad", "xy", "<u>abx" };
	static const char *const shown[] = { "'\xe4\xb8\xad'", "'x'", "'x'" };
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		struct cad_ids ids = { 0 };
		struct cad_error error;
		assert_int_equal(
			cad_tokenizer_encode(tokenizer, texts[i], strlen(texts[i]), true, SIZE_MAX, &ids, &error),
			CAD_ERR_INVALID);
		if (!strstr(error.text, shown[i]) ||
			!strstr(error.text, "\"unk_token\" '<u>' is not in the vocabulary"))
			fail_msg("%s", error.text);
		assert_int_equal(ids.count, 0);
		cad_ids_fini(&ids);
	}
	cad_tokenizer_close(tokenizer);
}

/* ---- files beside it ---- */

#define FOLDER "/tmp/cadre-test-tokenizer-XXXXXX"

static void write_file(const char *folder, const char *name, const char *text)
{
	char path[200];
	snprintf(path, sizeof path, "%s/%s", folder, name);
	FILE *file = fopen(path, "we");
	assert_non_null(file);
	assert_true(fputs(text, file) >= 0);
	assert_int_equal(fclose(file), 0);
}

static void remove_folder(const char *folder)
{
	static const char *const names[] = { "tokenizer.json", "other.json", "tokenizer_config.json",
		"special_tokens_map.json", "added_tokens.json" };
	char path[200];
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		snprintf(path, sizeof path, "%s/%s", folder, names[i]);
		(void)unlink(path);
	}
	assert_int_equal(rmdir(folder), 0);
}

static void write_json(const char *folder, const char *name, const json_t *content)
{
	char *text = json_dumps(content, 0);
	assert_non_null(text);
	write_file(folder, name, text);
	free(text);
}

static void check_beside(const json_t *test)
{
	char folder[] = FOLDER, path[200];
	const char *name, *text = json_string_value(json_object_get(test, "text"));
	json_t *content;
	struct cad_tokenizer *tokenizer = NULL;
	struct cad_error error;
	struct cad_ids ids = { 0 };
	struct cad_text back = { 0 };

	assert_non_null(mkdtemp(folder));
	write_json(folder, "tokenizer.json", json_object_get(test, "tokenizer"));
	json_object_foreach(json_object_get(test, "files"), name, content) { write_json(folder, name, content); }

	snprintf(path, sizeof path, "%s/tokenizer.json", folder);
	must(cad_tokenizer_open(path, &tokenizer, &error), &error);
	must(cad_tokenizer_encode(tokenizer, text, strlen(text), false, SIZE_MAX, &ids, &error), &error);
	const json_t *expected = json_object_get(test, "ids");
	assert_int_equal(ids.count, json_array_size(expected));
	for (size_t i = 0; i < ids.count; i++)
		assert_int_equal(ids.ids[i], json_integer_value(json_array_get(expected, i)));
	must(cad_tokenizer_decode(tokenizer, ids.ids, ids.count, true, &back, &error), &error);
	assert_string_equal(back.bytes, json_string_value(json_object_get(test, "decoded")));
	cad_text_fini(&back);
	cad_ids_fini(&ids);
	cad_tokenizer_close(tokenizer);
	remove_folder(folder);
}

static void beside_cases(void **state)
{
	(void)state;
	json_t *file = json_load_file(CADRE_SOURCE_DIR "/tests/tokenizers/beside_cases.json", 0, NULL);
	assert_true(json_array_size(file) >= 20);
	const json_t *test;
	size_t i;
	json_array_foreach(file, i, test) { check_beside(test); }
	json_decref(file);
}

#define TOKENIZER "{\"model\":{\"vocab\":{\"a\":0,\"b\":1},\"merges\":[]},\"added_tokens\":[]}"

static void wrong_files_beside(void **state)
{
	(void)state;
	static const struct {
		const char *name, *text, *says;
	} wrong[] = {
		{ "tokenizer_config.json", "{", "tokenizer_config.json: line 1" },
		{ "tokenizer_config.json", "[]", "tokenizer_config.json: the file is not a JSON object" },
		{ "tokenizer_config.json", "{\"added_tokens_decoder\":[]}", "must be an object of ids and tokens" },
		{ "tokenizer_config.json", "{\"added_tokens_decoder\":{\"x\":{\"content\":\"c\"}}}",
			"'x' is not an id" },
		{ "tokenizer_config.json", "{\"added_tokens_decoder\":{\"2\":\"c\"}}", "'2' is not an id" },
		{ "tokenizer_config.json", "{\"added_tokens_decoder\":{\"9\":{\"content\":\"c\"}}}",
			"token 'c' says that its id is 9, but the next free id is 2" },
		{ "tokenizer_config.json", "{\"added_tokens_decoder\":{\"2\":{\"content\":\"c\",\"lstrip\":7}}}",
			"\"lstrip\" must be true or false" },
		{ "added_tokens.json", "{\"c\":-1}", "added_tokens.json: the id of token 'c'" },
		{ "added_tokens.json", "{\"c\":5}", "token 'c' says that its id is 5, but the next free id is 2" },
		{ "special_tokens_map.json", "7", "special_tokens_map.json: " },
	};
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		char folder[] = FOLDER, path[200];
		struct cad_tokenizer *tokenizer = NULL;
		struct cad_error error = { 0 };
		assert_non_null(mkdtemp(folder));
		write_file(folder, "tokenizer.json", TOKENIZER);
		write_file(folder, "other.json", TOKENIZER);
		write_file(folder, wrong[i].name, wrong[i].text);
		snprintf(path, sizeof path, "%s/tokenizer.json", folder);
		if (cad_tokenizer_open(path, &tokenizer, &error) != CAD_ERR_CORRUPT ||
			!strstr(error.text, wrong[i].says) || !strstr(error.text, path))
			fail_msg("%s: %s", wrong[i].text, error.text);
		/* a file of another name stands alone */
		snprintf(path, sizeof path, "%s/other.json", folder);
		must(cad_tokenizer_open(path, &tokenizer, &error), &error);
		cad_tokenizer_close(tokenizer);
		remove_folder(folder);
	}
}

/* ---- what is said ---- */

/* What opening this folder writes to the log. */
static void open_and_read_log(const char *tokenizer_json, const char *config, char *log, size_t size)
{
	char folder[] = FOLDER, path[200];
	struct cad_tokenizer *tokenizer = NULL;
	struct cad_error error;
	int ends[2];

	assert_non_null(mkdtemp(folder));
	write_file(folder, "tokenizer.json", tokenizer_json);
	if (config)
		write_file(folder, "tokenizer_config.json", config);
	assert_int_equal(pipe(ends), 0);
	cad_log_set_fd(ends[1]);
	snprintf(path, sizeof path, "%s/tokenizer.json", folder);
	must(cad_tokenizer_open(path, &tokenizer, &error), &error);
	cad_log_set_fd(STDERR_FILENO);
	close(ends[1]);
	ssize_t got = read(ends[0], log, size - 1);
	log[got > 0 ? got : 0] = 0;
	close(ends[0]);
	cad_tokenizer_close(tokenizer);
	remove_folder(folder);
}

static void log_lines(void **state)
{
	(void)state;
	static const struct {
		const char *tokenizer, *config, *says[3];
	} cases[] = {
		{ TOKENIZER, NULL, { NULL } },
		{ "{\"model\":{\"vocab\":{\"a\":0},\"merges\":[]},\"truncation\":null,\"padding\":null}", "{}",
			{ NULL } },
		{ "{\"model\":{\"vocab\":{\"a\":0},\"merges\":[]},\"truncation\":{\"max_length\":3},\"padding\":{}}",
			NULL, { "key=truncation", "key=padding", "passed over" } },
		{ TOKENIZER,
			"{\"model_max_length\":1000000000000000019884624838656,\"x\":NaN,"
			"\"added_tokens_decoder\":{\"2\":{\"content\":\"<x>\"}},\"eos_token\":\"<y>\",\"pad_token\":\"a\"}",
			{ "level=info", "count=3", "\"<x> <y> a\"" } },
		{ TOKENIZER, "{\"added_tokens_decoder\":{\"7\":{\"content\":\"a\"}}}",
			{ "level=warn", "token=a id=0 beside=7" } },
		{ TOKENIZER, "{\"split_special_tokens\":true}", { "split_special_tokens", "is not followed" } },
		{ "{\"model\":{\"vocab\":{\"a\":0},\"merges\":[]},\"normalizer\":{\"type\":\"Lowercase\"},\"added_tokens\":["
		  "{\"id\":1,\"content\":\"X\",\"normalized\":true},{\"id\":2,\"content\":\"x\",\"normalized\":true}]}",
			NULL, { "equal when normalized: the first counts", "token=x first=1 second=2" } },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char log[4096];
		open_and_read_log(cases[i].tokenizer, cases[i].config, log, sizeof log);
		if (!cases[i].says[0])
			assert_string_equal(log, "");
		for (size_t k = 0; k < 3 && cases[i].says[k]; k++)
			if (!strstr(log, cases[i].says[k]))
				fail_msg("no %s in: %s", cases[i].says[k], log);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(zero_in_a_vocabulary),
		cmocka_unit_test(json_of_python),
		cmocka_unit_test(no_unknown_token),
		cmocka_unit_test(beside_cases),
		cmocka_unit_test(wrong_files_beside),
		cmocka_unit_test(log_lines),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
