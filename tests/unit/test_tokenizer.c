/* SPDX-License-Identifier: Apache-2.0 */
/* Tokenizers: the golden cases, a case or more for each component, and what is refused. What is
 * expected was computed by the `tokenizers` library. */
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
#include <glob.h>
#include <jansson.h>

/* ---- golden cases ---- */

static void assert_ids(const json_t *expected, const struct cad_ids *ids)
{
	assert_int_equal(json_array_size(expected), ids->count);
	for (size_t i = 0; i < ids->count; i++)
		assert_int_equal(json_integer_value(json_array_get(expected, i)), ids->ids[i]);
}

/* Decodes id by id; whatever is out so far must be whole characters, and in the end all of the
 * text. */
static void assert_streams(
	const struct cad_tokenizer *tokenizer, const struct cad_ids *ids, const char *expected, size_t size)
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

/* A limit refuses what is longer than it, and nothing else. */
static void assert_limits(const struct cad_tokenizer *tokenizer, const json_t *text, size_t count)
{
	const size_t limits[] = { 0, 1, count / 2, count - 1, count, count + 1 };
	for (size_t i = 0; i < sizeof limits / sizeof *limits && count > 0; i++) {
		struct cad_ids ids = { 0 };
		enum cad_status status = cad_tokenizer_encode(
			tokenizer, json_string_value(text), json_string_length(text), true, limits[i], &ids, NULL);
		assert_int_equal(status, count <= limits[i] ? CAD_OK : CAD_ERR_RANGE);
		assert_int_equal(ids.count, count <= limits[i] ? count : 0);
		cad_ids_fini(&ids);
	}
}

static void check_golden_line(const struct cad_tokenizer *tokenizer, const json_t *line)
{
	const json_t *text = json_object_get(line, "text"), *decoded = json_object_get(line, "decoded");
	struct cad_error error;
	struct cad_ids ids = { 0 };
	struct cad_text out = { 0 };

	must(cad_tokenizer_encode(
		     tokenizer, json_string_value(text), json_string_length(text), false, SIZE_MAX, &ids, &error),
		&error);
	assert_ids(json_object_get(line, "ids_no_special"), &ids);
	ids.count = 0;
	must(cad_tokenizer_encode(
		     tokenizer, json_string_value(text), json_string_length(text), true, SIZE_MAX, &ids, &error),
		&error);
	assert_ids(json_object_get(line, "ids"), &ids);
	must(cad_tokenizer_decode(tokenizer, ids.ids, ids.count, true, &out, &error), &error);
	assert_int_equal(out.size, json_string_length(decoded));
	assert_memory_equal(out.bytes, json_string_value(decoded), out.size);
	assert_streams(tokenizer, &ids, out.bytes, out.size);
	assert_limits(tokenizer, text, ids.count);
	cad_ids_fini(&ids);
	cad_text_fini(&out);
}

static void golden_case(const char *folder)
{
	char path[1024];
	struct cad_tokenizer *tokenizer = NULL;
	struct cad_error error;

	snprintf(path, sizeof path, "%s/model/tokenizer.json", folder);
	must(cad_tokenizer_open(path, &tokenizer, &error), &error);
	snprintf(path, sizeof path, "%s/tokenizer.jsonl", folder);
	FILE *file = fopen(path, "r");
	assert_non_null(file);
	size_t lines = 0;
	for (json_t *line; (line = json_loadf(file, JSON_DISABLE_EOF_CHECK | JSON_ALLOW_NUL, NULL)) != NULL;
		json_decref(line), lines++)
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

/* ---- components ---- */

/* The tokenizer of a case: the shared model with what the case changes, and its other
 * components. */
static struct cad_tokenizer *case_tokenizer(const json_t *model, const json_t *test)
{
	json_t *root = json_deep_copy(json_object_get(test, "parts")), *made = json_deep_copy(model);
	if (json_object_get(root, "model"))
		json_object_update(made, json_object_get(root, "model"));
	json_object_set_new(root, "model", made);
	json_object_set(root, "added_tokens", json_object_get(test, "added_tokens"));
	char *text = json_dumps(root, 0);
	struct cad_tokenizer *tokenizer = NULL;
	struct cad_error error;
	if (cad_tokenizer_parse("case", text, strlen(text), &tokenizer, &error) != CAD_OK)
		fail_msg("%s\n%s", text, error.text);
	free(text);
	json_decref(root);

	return tokenizer;
}

static void check_encoded(const struct cad_tokenizer *tokenizer, const json_t *test)
{
	const json_t *text = json_object_get(test, "text");
	struct cad_ids ids = { 0 };

	assert_int_equal(cad_tokenizer_encode(tokenizer, json_string_value(text), json_string_length(text), true,
				 SIZE_MAX, &ids, NULL),
		CAD_OK);
	assert_ids(json_object_get(test, "ids"), &ids);
	assert_limits(tokenizer, text, ids.count);
	cad_ids_fini(&ids);
}

static void check_decoded(const struct cad_tokenizer *tokenizer, const json_t *test)
{
	const json_t *list = json_object_get(test, "ids"), *decoded = json_object_get(test, "decoded");
	bool skip_special = json_is_true(json_object_get(test, "skip_special"));
	int32_t ids[64];
	size_t count = json_array_size(list);

	assert_true(count <= 64);
	for (size_t i = 0; i < count; i++)
		ids[i] = (int32_t)json_integer_value(json_array_get(list, i));
	struct cad_text out = { 0 };
	assert_int_equal(cad_tokenizer_decode(tokenizer, ids, count, skip_special, &out, NULL), CAD_OK);
	assert_string_equal(out.bytes, json_string_value(decoded));
	if (skip_special)
		assert_streams(tokenizer, &(struct cad_ids){ .ids = ids, .count = count }, out.bytes, out.size);
	cad_text_fini(&out);
}

static void component_cases(void **state)
{
	(void)state;
	json_t *file = json_load_file(CADRE_SOURCE_DIR "/tests/tokenizers/component_cases.json", 0, NULL);
	assert_non_null(file);
	const json_t *model = json_object_get(file, "model"), *cases = json_object_get(file, "cases"), *test;
	size_t i;
	assert_true(json_array_size(cases) > 80);
	json_array_foreach((json_t *)cases, i, test)
	{
		struct cad_tokenizer *tokenizer = case_tokenizer(model, test);
		if (json_object_get(test, "text"))
			check_encoded(tokenizer, test);
		else
			check_decoded(tokenizer, test);
		cad_tokenizer_close(tokenizer);
	}
	json_decref(file);
}

/* ---- files that are refused ---- */

#define MODEL "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[[\"a\",\"b\"]]}"

static const struct {
	const char *json;
	enum cad_status status;
	const char *says;
} wrong_file[] = {
	{ "", CAD_ERR_CORRUPT, "line 1" },
	{ "[]", CAD_ERR_CORRUPT, "not a JSON object" },
	{ "{}", CAD_ERR_CORRUPT, "no \"model\"" },
	{ "{\"model\":[]}", CAD_ERR_CORRUPT, "no \"model\"" },
	{ "{\"model\":{\"type\":7}}", CAD_ERR_CORRUPT, "\"type\" must be a string" },
	{ "{\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}", CAD_ERR_UNSUPPORTED, "'Unigram'" },
	{ "{\"model\":{\"vocab\":{},\"merges\":[]}}", CAD_ERR_CORRUPT, "\"vocab\"" },
	{ "{\"model\":{\"vocab\":[\"a\"],\"merges\":[]}}", CAD_ERR_CORRUPT, "\"vocab\"" },
	{ "{\"model\":{\"vocab\":{\"a\":\"0\"},\"merges\":[]}}", CAD_ERR_CORRUPT, "'a'" },
	{ "{\"model\":{\"vocab\":{\"a\":-1},\"merges\":[]}}", CAD_ERR_CORRUPT, "'a'" },
	{ "{\"model\":{\"vocab\":{\"a\":4000000000},\"merges\":[]}}", CAD_ERR_CORRUPT, "'a'" },
	{ "{\"model\":{\"vocab\":{\"a\":1,\"b\":1},\"merges\":[]}}", CAD_ERR_CORRUPT,
		"'a' and 'b' have the same id 1" },
	{ "{\"model\":{\"vocab\":{\"a\":0}}}", CAD_ERR_CORRUPT, "\"merges\"" },
	{ "{\"model\":{\"vocab\":{\"a\":0},\"merges\":[[\"a\"]]}}", CAD_ERR_CORRUPT, "merge 0" },
	{ "{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a a a\"]}}", CAD_ERR_CORRUPT, "merge 0" },
	{ "{\"model\":{\"vocab\":{\"a\":0},\"merges\":[[\"a\",\"x\"]]}}", CAD_ERR_CORRUPT,
		"'x', which is not in the vocabulary" },
	{ "{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a a\"]}}", CAD_ERR_CORRUPT,
		"'aa', which is not in the vocabulary" },
	{ "{\"model\":{\"vocab\":{\"a\":0},\"merges\":[],\"unk_token\":7}}", CAD_ERR_CORRUPT,
		"\"unk_token\" must be a token or null" },
	{ "{\"model\":{\"vocab\":{\"a\":0},\"merges\":[],\"dropout\":0.1}}", CAD_ERR_UNSUPPORTED, "\"dropout\"" },
	{ "{\"model\":{\"vocab\":{\"a\":0},\"merges\":[],\"end_of_word_suffix\":\"</w>\"}}", CAD_ERR_UNSUPPORTED,
		"\"end_of_word_suffix\"" },
	{ "{\"model\":{\"vocab\":{\"a\":0},\"merges\":[],\"byte_fallback\":1}}", CAD_ERR_CORRUPT,
		"\"byte_fallback\" must be true or false" },
	{ "{" MODEL ",\"added_tokens\":{}}", CAD_ERR_CORRUPT, "added_tokens" },
	{ "{" MODEL ",\"added_tokens\":[7]}", CAD_ERR_CORRUPT, "\"content\"" },
	{ "{" MODEL ",\"added_tokens\":[{\"content\":\"x\"}]}", CAD_ERR_CORRUPT, "\"id\"" },
	{ "{" MODEL ",\"added_tokens\":[{\"content\":\"x\",\"id\":1e9}]}", CAD_ERR_CORRUPT, "\"id\"" },
	{ "{" MODEL ",\"added_tokens\":[{\"content\":\"a\",\"id\":1}]}", CAD_ERR_CORRUPT,
		"token 'a' says that its id is 1, but the vocabulary has it as 0" },
	{ "{" MODEL ",\"added_tokens\":[{\"content\":\"x\",\"id\":7}]}", CAD_ERR_CORRUPT, "the next free id is 3" },
	{ "{" MODEL ",\"added_tokens\":[{\"content\":\"x\",\"id\":3},{\"content\":\"x\",\"id\":4}]}", CAD_ERR_CORRUPT,
		"token 'x' says that its id is 4, but it was listed before, as 3" },
	{ "{" MODEL ",\"normalizer\":7}", CAD_ERR_CORRUPT, "normalizer: a component must be an object" },
	{ "{" MODEL ",\"normalizer\":{\"type\":\"Precompiled\"}}", CAD_ERR_UNSUPPORTED, "normalizer: Precompiled" },
	{ "{" MODEL ",\"normalizer\":{\"type\":\"Prepend\"}}", CAD_ERR_CORRUPT, "\"prepend\"" },
	{ "{" MODEL ",\"normalizer\":{\"type\":\"Prepend\",\"prepend\":\"\"}}", CAD_ERR_UNSUPPORTED,
		"\"prepend\" is an empty string" },
	{ "{" MODEL ",\"normalizer\":{\"type\":\"Replace\",\"content\":\"b\",\"pattern\":{\"Regex\":\"a*|x\"}}}",
		CAD_ERR_UNSUPPORTED, "normalizer: Replace: the regular expression can match nothing at all" },
	{ "{" MODEL ",\"normalizer\":{\"type\":\"Replace\",\"content\":\"b\",\"pattern\":{\"Regex\":\"(?=a)\"}}}",
		CAD_ERR_UNSUPPORTED, "can match nothing at all" },
	{ "{" MODEL ",\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":{}}}", CAD_ERR_CORRUPT,
		"\"normalizers\" must be a list" },
	{ "{" MODEL ",\"normalizer\":{\"type\":\"Replace\",\"content\":\"\",\"pattern\":{\"String\":\"\"}}}",
		CAD_ERR_UNSUPPORTED, "empty" },
	{ "{" MODEL ",\"normalizer\":{\"type\":\"Strip\",\"strip_left\":true,\"strip_right\":true},"
	  "\"added_tokens\":[{\"content\":\" \",\"id\":3,\"normalized\":true}]}",
		CAD_ERR_CORRUPT, "empty when normalized" },
	{ "{" MODEL ",\"pre_tokenizer\":{\"type\":\"UnicodeScripts\"}}", CAD_ERR_UNSUPPORTED,
		"pre_tokenizer: UnicodeScripts" },
	{ "{" MODEL ",\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Apart\",\"pattern\":{\"String\":\"a\"}}}",
		CAD_ERR_UNSUPPORTED, "'Apart'" },
	{ "{" MODEL ",\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Removed\",\"pattern\":\"a\"}}",
		CAD_ERR_CORRUPT, "\"pattern\"" },
	{ "{" MODEL ",\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"ab\"}}", CAD_ERR_CORRUPT,
		"one character" },
	{ "{" MODEL ",\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"a\",\"prepend_scheme\":\"often\"}}",
		CAD_ERR_CORRUPT, "\"prepend_scheme\"" },
	{ "{" MODEL ",\"post_processor\":{\"type\":\"RobertaProcessing\"}}", CAD_ERR_UNSUPPORTED,
		"post_processor: RobertaProcessing" },
	{ "{" MODEL ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[]}}", CAD_ERR_UNSUPPORTED,
		"exactly once" },
	{ "{" MODEL
	  ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"s\"}}]}}",
		CAD_ERR_CORRUPT, "'s'" },
	{ "{" MODEL ",\"decoder\":{\"type\":\"CTC\"}}", CAD_ERR_UNSUPPORTED, "decoder: CTC" },
	{ "{" MODEL
	  ",\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"},{\"type\":\"ByteFallback\"}]}}",
		CAD_ERR_UNSUPPORTED, "ByteFallback" },
	{ "{" MODEL ",\"decoder\":{\"type\":\"Strip\",\"content\":\"a\",\"start\":-1,\"stop\":0}}", CAD_ERR_CORRUPT,
		"\"start\"" },
};

static void wrong_files(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof wrong_file / sizeof *wrong_file; i++) {
		struct cad_tokenizer *tokenizer = NULL;
		struct cad_error error = { 0 };
		if (cad_tokenizer_parse("t.json", wrong_file[i].json, strlen(wrong_file[i].json), &tokenizer, &error) !=
				wrong_file[i].status ||
			!strstr(error.text, wrong_file[i].says))
			fail_msg("%s: %s", wrong_file[i].json, error.text);
		assert_non_null(strstr(error.text, "t.json"));
		assert_null(tokenizer);
	}

	struct cad_tokenizer *tokenizer = NULL;
	struct cad_error error;
	assert_int_equal(cad_tokenizer_open("/nowhere/tokenizer.json", &tokenizer, &error), CAD_ERR_IO);
	assert_non_null(strstr(error.text, "/nowhere/tokenizer.json"));
}

#define SPLIT \
	"{" MODEL \
	",\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\",\"invert\":false,\"pattern\":{\"Regex\":\"%s\"}}}"

/* Constructs that the library's regular expressions and PCRE2 read differently are never run. */
static void wrong_patterns(void **state)
{
	(void)state;
	static const char *const patterns[] = { "^a", "a$", "\\\\h", "\\\\w", "\\\\b", "\\\\R", "\\\\1", "[a[b]]",
		"[a&&b]", "[[:alpha:]]", "a{1,2}+", "a{,2}", "a{2}?", "(?m:a)", "(?<n>a)", "(*F)", "\\\\p{Han}",
		"\\\\p{L", "[\\\\P{L}]", "\\\\xff", "\\\\u12", "[]a]", "\\\\p{^L}", "\\\\x{110000}" };
	static const char *const broken[] = { "(a", "a)", "[a", "*a", "\\\\" };
	for (size_t i = 0; i < sizeof patterns / sizeof *patterns + sizeof broken / sizeof *broken; i++) {
		bool known = i >= sizeof patterns / sizeof *patterns;
		const char *pattern = known ? broken[i - sizeof patterns / sizeof *patterns] : patterns[i];
		char json[512];
		snprintf(json, sizeof json, SPLIT, pattern);
		struct cad_tokenizer *tokenizer = NULL;
		struct cad_error error = { 0 };
		if (cad_tokenizer_parse("t", json, strlen(json), &tokenizer, &error) !=
			(known ? CAD_ERR_CORRUPT : CAD_ERR_UNSUPPORTED))
			fail_msg("%s: %s", pattern, error.text);
		assert_non_null(strstr(error.text, "regular expression"));
	}
}

/* Where case is ignored, the library folds one character to several, and what categories in brackets
 * have; PCRE2 does not. */
static void ignoring_case(void **state)
{
	(void)state;
	static const char *const refused[] = { "(?i:fi)", "(?i:xST)", "(?i:s(?:s))", "(?i:(?:f)L)", "(?i:\\\\x73t)",
		"(?i:s\\\\u0054)", "(?i:s)(?i:t)", "(?i:a(f)f)", "(?i:\xc3\x9f)", "(?i:[\xc3\x9f])",
		"(?i:\xef\xac\x81)", "(?i:\xc3\xa9)", "(?i:[a\xc3\xa9])", "(?i:\\\\u00e9)",
		"(?i:[\\\\x{100}-\\\\x{17f}])", "(?i:[\xe4\xb8\x80-\xe4\xb8\xad])", "(?i:\xca\xbcn)", "(?i:h\xcc\xb1)",
		"(?i:[\\\\p{Lu}])", "(?i:[^\\\\p{L}])", "(?i:\\\\p{Ll}a)", "(?i:\\\\P{Lt})", "(?i:(?:a|b)ss)" };
	static const char *const taken[] = { "(?i:'s|'t|'re|'ve|'m|'ll|'d)", "(?i:[sdmt]|ll|ve|re)", "(?i:s|t)",
		"(?i:ss+)", "(?i:s+s)", "(?i:s{2})", "(?i:f(?=i)i)", "(?i:f(?>i))", "(?i:f[i])", "(?i:[s]s)",
		"(?i:s?t)", "(?i:(?:a|s)t)", "(?i:s)t", "(?i:s.t)", "(?i:s\\\\.t)", "(?i:[^a-z])", "(?i:[\\\\s'])",
		"(?i:\xe2\x80\x99s)", "(?i:[\xe2\x80\x99'])", "(?i:\xe4\xb8\xad)", "(?i:\\\\p{L}\\\\d)", "(?i:k)fi",
		"fi(?i:k)", "\xc3\x9f(?i:a)\xc3\x9f" };

	for (size_t i = 0; i < sizeof refused / sizeof *refused + sizeof taken / sizeof *taken; i++) {
		bool fine = i >= sizeof refused / sizeof *refused;
		const char *pattern = fine ? taken[i - sizeof refused / sizeof *refused] : refused[i];
		char json[512];
		snprintf(json, sizeof json, SPLIT, pattern);
		struct cad_tokenizer *tokenizer = NULL;
		struct cad_error error = { 0 };
		enum cad_status status = cad_tokenizer_parse("t", json, strlen(json), &tokenizer, &error);
		if (status != (fine ? CAD_OK : CAD_ERR_UNSUPPORTED) ||
			(!fine && !strstr(error.text, "the regular expression ignores case at '")))
			fail_msg("%s: %s", pattern, error.text);
		cad_tokenizer_close(tokenizer);
	}
}

/* A pattern that backtracks without end is given up with a sentence; one that needs more stack than
 * machine code has is run without it. */
static void patterns_that_run_away(void **state)
{
	(void)state;
	static const struct {
		const char *pattern;
		enum cad_status status;
	} patterns[] = { { "(?:a+)+[bc]", CAD_ERR_EXHAUSTED }, { "(?:a|aa)+[bc]", CAD_ERR_EXHAUSTED },
		{ "(?:a|b)+", CAD_OK } };
	enum { BYTES = 20000 };
	static char text[BYTES];
	memset(text, 'a', BYTES);

	for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
		char json[512];
		snprintf(json, sizeof json, SPLIT, patterns[i].pattern);
		struct cad_tokenizer *tokenizer = NULL;
		struct cad_error error = { 0 };
		struct cad_ids ids = { 0 };
		must(cad_tokenizer_parse("t", json, strlen(json), &tokenizer, &error), &error);
		assert_int_equal(
			cad_tokenizer_encode(tokenizer, text, BYTES, true, SIZE_MAX, &ids, &error), patterns[i].status);
		assert_true(patterns[i].status == CAD_OK
				? ids.count == BYTES
				: strstr(error.text, "regular expression") != NULL && ids.count == 0);
		cad_ids_fini(&ids);
		cad_tokenizer_close(tokenizer);
	}
}

/* ---- what a caller may get wrong ---- */

static struct cad_tokenizer *small_tokenizer(void)
{
	static const char json[] =
		"{" MODEL ",\"added_tokens\":[{\"content\":\"<s>\",\"id\":3,\"special\":true}],"
		"\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\"}},{\"Sequence\":{\"id\":\"A\"}}],"
		"\"special_tokens\":{\"<s>\":{\"ids\":[3]}}},\"decoder\":{\"type\":\"Fuse\"}}";
	struct cad_tokenizer *tokenizer = NULL;
	assert_int_equal(cad_tokenizer_parse("small", json, strlen(json), &tokenizer, NULL), CAD_OK);
	return tokenizer;
}

static void invalid_utf8(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		size_t at;
	} texts[] = { { "ab\x80", 2 }, { "a\xc3", 1 }, { "\xc0\x80", 0 }, { "abcdefghij\xed\xa0\x80", 10 },
		{ "\xf4\x90\x80\x80", 0 }, { "\xe0\x9f\xbf", 0 }, { "\xf0\x8f\xbf\xbf", 0 }, { "a\xff", 1 },
		{ "\xe4\xb8", 0 } };
	struct cad_tokenizer *tokenizer = small_tokenizer();
	struct cad_ids ids = { 0 };
	assert_int_equal(cad_tokenizer_encode(tokenizer, "a", 1, false, 9, &ids, NULL), CAD_OK);

	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		struct cad_error error;
		char says[32];
		snprintf(says, sizeof says, "byte %zu ", texts[i].at);
		assert_int_equal(
			cad_tokenizer_encode(tokenizer, texts[i].text, strlen(texts[i].text), true, 9, &ids, &error),
			CAD_ERR_INVALID);
		assert_non_null(strstr(error.text, says));
		assert_int_equal(ids.count, 1);
	}

	cad_ids_fini(&ids);
	cad_tokenizer_close(tokenizer);
}

static void limits_and_ranges(void **state)
{
	(void)state;
	struct cad_tokenizer *tokenizer = small_tokenizer();
	struct cad_ids ids = { 0 };
	struct cad_text text = { 0 };
	struct cad_error error;
	assert_int_equal(cad_tokenizer_vocab_size(tokenizer), 4);
	must(cad_tokenizer_encode(tokenizer, "", 0, false, 0, &ids, &error), &error);
	assert_int_equal(ids.count, 0);
	assert_int_equal(cad_tokenizer_encode(tokenizer, "", 0, true, 0, &ids, &error), CAD_ERR_RANGE);
	assert_int_equal(cad_tokenizer_encode(tokenizer, "aabb", 4, true, 3, &ids, &error), CAD_ERR_RANGE);
	assert_int_equal(ids.count, 0);
	must(cad_tokenizer_encode(tokenizer, "aabb", 4, true, 4, &ids, &error), &error);
	assert_int_equal(ids.count, 4); /* <s> a ab b */
	must(cad_tokenizer_decode(tokenizer, ids.ids, ids.count, true, &text, &error), &error);
	assert_string_equal(text.bytes, "aabb");
	static const int32_t outside[] = { 4, -1, INT32_MAX, INT32_MIN };
	for (size_t i = 0; i < 4; i++) {
		int32_t list[] = { 0, outside[i] };
		assert_int_equal(cad_tokenizer_decode(tokenizer, list, 2, true, &text, &error), CAD_ERR_RANGE);
		assert_string_equal(text.bytes, "aabb");
	}

	cad_text_fini(&text);
	cad_ids_fini(&ids);
	cad_tokenizer_close(tokenizer);
}

/* A character whose bytes are spread over tokens comes out when its last byte is there; a run of
 * byte tokens when it is known to be text. */
static void streaming_holds_back(void **state)
{
	(void)state;
	static const char json[] =
		"{\"model\":{\"vocab\":{\"\\u00e4\":0,\"\\u00b8\":1,\"\\u0143\":2,\"a\":3},\"merges\":[]},\"decoder\":{\"type\":\"ByteLevel\"}}";
	static const struct {
		int32_t id;
		const char *text;
	} steps[] = { { 0, "" }, { 1, "" }, { 2, "\xe4\xb8\xad" }, { 3, "a" }, { 0, "" },
		{ 3,
			"\xef\xbf\xbd"
			"a" },
		{ 1, "\xef\xbf\xbd" }, { 0, "" }, { 1, "" } };
	struct cad_tokenizer *tokenizer = NULL;
	struct cad_decoder *decoder = NULL;
	assert_int_equal(cad_tokenizer_parse("bytes", json, strlen(json), &tokenizer, NULL), CAD_OK);
	assert_int_equal(cad_decoder_create(tokenizer, true, &decoder), CAD_OK);
	struct cad_text text = { 0 };
	for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
		text.size = 0;
		assert_int_equal(cad_decoder_push(decoder, steps[i].id, &text, NULL), CAD_OK);
		assert_string_equal(text.bytes, steps[i].text);
	}

	text.size = 0;
	assert_int_equal(cad_decoder_push(decoder, 9, &text, NULL), CAD_ERR_RANGE);
	assert_int_equal(cad_decoder_finish(decoder, &text, NULL), CAD_OK);
	assert_string_equal(text.bytes, "\xef\xbf\xbd");
	cad_text_fini(&text);
	cad_decoder_destroy(decoder);
	cad_decoder_destroy(NULL);
	cad_tokenizer_close(tokenizer);
	cad_tokenizer_close(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(golden_cases),
		cmocka_unit_test(component_cases),
		cmocka_unit_test(wrong_files),
		cmocka_unit_test(wrong_patterns),
		cmocka_unit_test(ignoring_case),
		cmocka_unit_test(patterns_that_run_away),
		cmocka_unit_test(invalid_utf8),
		cmocka_unit_test(limits_and_ranges),
		cmocka_unit_test(streaming_holds_back),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
