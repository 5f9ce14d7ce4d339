/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Merging against its definition: random vocabularies and texts, short and long, encoded by the
 * tokenizer and by the plain loop "make the merge of the lowest rank, of those the leftmost, until
 * there is none". Then hostile lengths, many threads on one tokenizer, and memory that runs out.
 */
#include "common/base/clock.h"
#include "common/tokenizer/tokenize_file.h"
#include "common/tokenizer/decode.h"
#include "common/tokenizer/tokenizer.h"
#include "tests/support/failing_alloc.h"
#include "tests/support/file_write.h"
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
#include <pthread.h>
#include <unistd.h>

enum { TOKENS_MAX = 128, NAME_MAX_BYTES = 64, MERGES_MAX = 100, TEXT_MAX = 400 };

/* ---- random vocabularies ---- */

struct model {
	char names[TOKENS_MAX][NAME_MAX_BYTES];
	int tokens, letters;
	struct {
		int left, right, result;
	} merges[MERGES_MAX];
	int merge_count;
	bool ignore_merges, byte_level;
};

static int find_name(const struct model *model, const char *name)
{
	for (int i = 0; i < model->tokens; i++)
		if (strcmp(model->names[i], name) == 0)
			return i;
	return -1;
}

static void random_model(struct model *model, struct cad_random *random)
{
	*model = (struct model){
		.letters = 1 + (int)cad_random_below(random, 4),
		.ignore_merges = cad_random_below(random, 4) == 0,
	};
	for (; model->tokens < model->letters; model->tokens++)
		snprintf(model->names[model->tokens], NAME_MAX_BYTES, "%c", 'a' + model->tokens);
	for (int tries = (int)cad_random_below(random, MERGES_MAX); tries > 0; tries--) {
		int left = (int)cad_random_below(random, (uint32_t)model->tokens),
		    right = (int)cad_random_below(random, (uint32_t)model->tokens);
		char joined[2 * NAME_MAX_BYTES];
		snprintf(joined, sizeof joined, "%s%s", model->names[left], model->names[right]);
		int result = find_name(model, joined);
		bool there = strlen(joined) >= NAME_MAX_BYTES || (result < 0 && model->tokens == TOKENS_MAX);
		for (int i = 0; i < model->merge_count; i++)
			there |= model->merges[i].left == left && model->merges[i].right == right;
		if (there)
			continue;
		if (result < 0) {
			result = model->tokens++;
			memcpy(model->names[result], joined, strlen(joined) + 1);
		}
		model->merges[model->merge_count].left = left;
		model->merges[model->merge_count].right = right;
		model->merges[model->merge_count++].result = result;
	}
}

static struct cad_tokenizer *tokenizer_of(const struct model *model)
{
	static char json[1 << 16];
	char *at = json, *end = json + sizeof json;

	at += snprintf(at, (size_t)(end - at), "{\"model\":{\"ignore_merges\":%s,\"vocab\":{",
		model->ignore_merges ? "true" : "false");
	for (int i = 0; i < model->tokens; i++)
		at += snprintf(at, (size_t)(end - at), "%s\"%s\":%d", i ? "," : "", model->names[i], i);
	at += snprintf(at, (size_t)(end - at), "},\"merges\":[");
	for (int i = 0; i < model->merge_count; i++)
		at += snprintf(at, (size_t)(end - at), "%s[\"%s\",\"%s\"]", i ? "," : "",
			model->names[model->merges[i].left], model->names[model->merges[i].right]);
	at += snprintf(at, (size_t)(end - at), "]}}");
	struct cad_tokenizer *tokenizer = NULL;
	struct cad_error error;
	if (cad_tokenizer_parse("random", json, (size_t)(at - json), &tokenizer, &error) != CAD_OK)
		fail_msg("%s\n%s", error.text, json);

	return tokenizer;
}

/* The definition. */
static size_t merge_plainly(const struct model *model, const char *text, size_t size, int *ids)
{
	char word[TEXT_MAX + 1];
	snprintf(word, sizeof word, "%.*s", (int)size, text);
	if (model->ignore_merges && find_name(model, word) >= 0) {
		ids[0] = find_name(model, word);
		return 1;
	}

	for (size_t i = 0; i < size; i++)
		ids[i] = text[i] - 'a';
	for (;;) {
		int best = model->merge_count;
		size_t at = 0;
		for (size_t i = 0; i + 1 < size; i++)
			for (int m = 0; m < best; m++)
				if (model->merges[m].left == ids[i] && model->merges[m].right == ids[i + 1]) {
					best = m;
					at = i;
				}
		if (best == model->merge_count)
			return size;
		ids[at] = model->merges[best].result;
		memmove(ids + at + 1, ids + at + 2, (size - at - 2) * sizeof *ids);
		size--;
	}
}

static void merges_as_defined(void **state)
{
	(void)state;
	static const size_t sizes[] = { 1, 2, 3, 8, 47, 48, 49, 50, 100, TEXT_MAX };
	uint64_t seed = (uint64_t)getpid();
	print_message("seed %llu\n", (unsigned long long)seed);
	struct cad_random random = { seed };
	for (int round = 0; round < 60; round++) {
		static struct model model;
		random_model(&model, &random);
		struct cad_tokenizer *tokenizer = tokenizer_of(&model);
		for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
			char text[TEXT_MAX];
			int expected[TEXT_MAX];
			struct cad_ids ids = { 0 };
			for (size_t i = 0; i < sizes[s]; i++)
				text[i] = (char)('a' + cad_random_below(&random, (uint32_t)model.letters));
			size_t count = merge_plainly(&model, text, sizes[s], expected);
			assert_int_equal(
				cad_tokenizer_encode(tokenizer, text, sizes[s], true, SIZE_MAX, &ids, NULL), CAD_OK);
			assert_int_equal(ids.count, count);
			for (size_t i = 0; i < count; i++)
				assert_int_equal(ids.ids[i], expected[i]);
			cad_ids_fini(&ids);
		}
		cad_tokenizer_close(tokenizer);
	}
}

/* ---- a golden tokenizer of each kind ---- */

static struct cad_tokenizer *open_golden(const char *name)
{
	char path[1024];
	struct cad_tokenizer *tokenizer = NULL;
	struct cad_error error;
	snprintf(path, sizeof path, "%s/tests/golden/%s/model/tokenizer.json", CADRE_SOURCE_DIR, name);
	must(cad_tokenizer_open(path, &tokenizer, &error), &error);
	return tokenizer;
}

static const char *const kinds[] = { "mixtral-a", "olmoe-a", "qwen3moe-a", "llama-a", "deepseekv3-a", "gptoss-a" };

/* `size` bytes of one thing and an x, there and back: what comes back is what went in, but for the
 * normal form and the metaspace. */
static void check_run(const struct cad_tokenizer *tokenizer, const char *unit, size_t size, bool exact)
{
	size_t length = strlen(unit), count = size / length;
	char *text = malloc(count * length + 1);

	assert_non_null(text);
	for (size_t i = 0; i < count; i++)
		memcpy(text + i * length, unit, length);
	text[count * length] = 'x';
	struct cad_ids ids = { 0 };
	struct cad_text back = { 0 };
	assert_int_equal(cad_tokenizer_encode(tokenizer, text, count * length + 1, true, SIZE_MAX, &ids, NULL), CAD_OK);
	assert_int_equal(cad_tokenizer_decode(tokenizer, ids.ids, ids.count, true, &back, NULL), CAD_OK);
	assert_int_equal(back.size, count * length + 1);
	assert_true(!exact || memcmp(back.bytes, text, back.size) == 0);
	cad_ids_fini(&ids);
	cad_text_fini(&back);
	free(text);
}

static void hostile_runs(void **state)
{
	(void)state;
	static const char *const units[] = { "a", "A", " ", "\n", " \n", "0", "!", "'", "aA", "\xe4\xb8\xad",
		"\xc2\xaa", "\xcc\x81", "<|im_star", "<s", "\x01", "\xf0\x9f\xa7\xbf" };
	for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
		struct cad_tokenizer *tokenizer = open_golden(kinds[k]);
		for (size_t u = 0; u < sizeof units / sizeof *units; u++)
			check_run(tokenizer, units[u], 5000, true);
		cad_tokenizer_close(tokenizer);
	}
}

/* ThreadSanitizer marks everything that memmem might have read, each time: quadratic by itself. */
#ifdef __SANITIZE_THREAD__
enum { HOSTILE_BYTES = 1 << 14 };
#else
enum { HOSTILE_BYTES = 1 << 19 };
#endif

/* Half a megabyte of one word, of one space, of marks in the wrong order: with anything quadratic
 * in it, this runs into the time limit of the test. */
static void hostile_lengths(void **state)
{
	(void)state;
	static const char *const units[] = { "a", " ", "\xcc\x96\xcc\x81\xcc\x96" };
	static const char *const two[] = { "mixtral-a", "qwen3moe-a" };
	for (size_t k = 0; k < 2; k++) {
		struct cad_tokenizer *tokenizer = open_golden(two[k]);
		for (size_t u = 0; u < 3; u++)
			check_run(tokenizer, units[u], HOSTILE_BYTES, u < 2);
		cad_tokenizer_close(tokenizer);
	}
}

/* ---- threads ---- */

struct worker {
	const struct cad_tokenizer *tokenizer;
	const char *text;
	struct cad_ids ids;
};

static void *encode_again(void *context)
{
	struct worker *worker = context;
	for (int i = 0; i < 50; i++) {
		worker->ids.count = 0;
		if (cad_tokenizer_encode(worker->tokenizer, worker->text, strlen(worker->text), true, SIZE_MAX,
			    &worker->ids, NULL) != CAD_OK)
			break;
	}
	return NULL;
}

static void threads_share_a_tokenizer(void **state)
{
	(void)state;
	enum { THREADS = 4 };
	for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
		struct cad_tokenizer *tokenizer = open_golden(kinds[k]);
		struct worker workers[THREADS] = { 0 };
		pthread_t threads[THREADS];
		for (size_t i = 0; i < THREADS; i++) {
			workers[i] = (struct worker){
				.tokenizer = tokenizer,
				.text = "The quick brown fox, 12345 e\xcc\x81 \xe4\xb8\xad\xe6\x96\x87 don't   stop\n\n",
			};
			assert_int_equal(pthread_create(&threads[i], NULL, encode_again, &workers[i]), 0);
		}
		for (size_t i = 0; i < THREADS; i++) {
			pthread_join(threads[i], NULL);
			assert_true(workers[i].ids.count > 5 && workers[i].ids.count == workers[0].ids.count);
			assert_memory_equal(workers[i].ids.ids, workers[0].ids.ids,
				workers[0].ids.count * sizeof *workers[0].ids.ids);
		}
		for (size_t i = 0; i < THREADS; i++)
			cad_ids_fini(&workers[i].ids);
		cad_tokenizer_close(tokenizer);
	}
}

/* ---- texts that are much too long ---- */

/* Refused after about as much work as the limit asks for: where nothing is normalized, the text is
 * not even copied. */
static void too_long_is_refused_early(void **state)
{
	(void)state;
	enum { TEXT_BYTES = 1 << 20, IDS_MAX = 100 };
	static const struct {
		const char *golden;
		const char *text;
		size_t bytes_max;
	} cases[] = {
		/* byte level: words, and one word without end */
		{ "llama-a", "The quick brown fox, 12345 e\xcc\x81 don't   stop\n\n", 1 << 16 },
		{ "llama-a", "a", 1 << 16 },
		{ "qwen3moe-a", "The quick brown fox ", 4 * TEXT_BYTES }, /* ... after NFC */
		/* one piece, rewritten; symbols alone would take 8 times that */
		{ "mixtral-a", "The quick brown fox ", 8 * TEXT_BYTES },
	};
	if (!test_allocations_can_fail())
		skip();
	char *text = malloc(TEXT_BYTES);
	assert_non_null(text);

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct cad_tokenizer *tokenizer = open_golden(cases[i].golden);
		struct cad_ids ids = { 0 };
		struct cad_error error;
		size_t unit = strlen(cases[i].text);
		for (size_t at = 0; at < TEXT_BYTES; at++)
			text[at] = cases[i].text[at % unit];
		size_t before = test_allocated_bytes();
		assert_int_equal(
			cad_tokenizer_encode(tokenizer, text, TEXT_BYTES / unit * unit, true, IDS_MAX, &ids, &error),
			CAD_ERR_RANGE);
		assert_string_equal(error.text, "the text is longer than 100 tokens");
		print_message("%s: %zu bytes of memory for a text of %d\n", cases[i].golden,
			test_allocated_bytes() - before, TEXT_BYTES);
		assert_true(test_allocated_bytes() - before < cases[i].bytes_max);
		cad_ids_fini(&ids);
		cad_tokenizer_close(tokenizer);
	}

	free(text);
}

/* ---- memory that runs out ---- */

/* Everything once: every kind of component, encoding, decoding, streaming. */
static enum cad_status whole_round(const char *json, struct cad_error *error)
{
	static const char text[] = "Hello  e\xcc\x81\xcc\x96 12 <s> \xe4\xb8\xad\xc2\xbd";
	struct cad_tokenizer *tokenizer = NULL;
	struct cad_decoder *decoder = NULL;
	struct cad_ids ids = { 0 };
	struct cad_text out = { 0 };
	enum cad_status status = cad_tokenizer_parse("round", json, strlen(json), &tokenizer, error);

	if (status == CAD_OK)
		status = cad_tokenizer_encode(tokenizer, text, sizeof text - 1, true, 1000, &ids, error);
	if (status == CAD_OK)
		status = cad_tokenizer_decode(tokenizer, ids.ids, ids.count, false, &out, error);
	if (status == CAD_OK && (status = cad_decoder_create(tokenizer, true, &decoder)) != CAD_OK)
		(void)cad_error_set(error, status, "no decoder");
	for (size_t i = 0; i < ids.count && status == CAD_OK; i++)
		status = cad_decoder_push(decoder, ids.ids[i], &out, error);
	if (status == CAD_OK)
		status = cad_decoder_finish(decoder, &out, error);
	cad_decoder_destroy(decoder);
	cad_tokenizer_close(tokenizer);
	cad_ids_fini(&ids);
	cad_text_fini(&out);

	return status;
}

/* jansson 2.14 corrupts its heap when memory runs out while it reads a string (lex_save in load.c
 * ignores the answer of strbuffer_append_byte):
 * its allocations are spared. */
static void *spared(size_t size)
{
	test_fail_allocation_pause(true);
	void *block = malloc(size);
	test_fail_allocation_pause(false);
	return block;
}

static void memory_runs_out(void **state)
{
	(void)state;
	static const char *const files[] = {
		"{\"model\":{\"vocab\":{\"<0x41>\":0,\"l\":1,\"ll\":2,\"e\":3,\"<unk>\":4},\"merges\":[[\"l\",\"l\"]],\"unk_token\":\"<unk>\",\"byte_fallback\":true},"
		"\"added_tokens\":[{\"content\":\"<s>\",\"id\":5,\"special\":true},{\"content\":\"12\",\"id\":6,\"normalized\":true}],"
		"\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFKD\"},{\"type\":\"NFC\"},{\"type\":\"Lowercase\"},{\"type\":\"Prepend\",\"prepend\":\"_\"},"
		"{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"_\"},{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"h\"},\"content\":\"H\"},{\"type\":\"Strip\"}]},"
		"\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Metaspace\",\"replacement\":\"_\"},{\"type\":\"Digits\"},{\"type\":\"Whitespace\"}]},"
		"\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"s\"}},{\"Sequence\":{\"id\":\"A\"}}],\"special_tokens\":{\"s\":{\"ids\":[5]}}},"
		"\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":\"_\"},\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},"
		"{\"type\":\"Replace\",\"pattern\":{\"String\":\"ll\"},\"content\":\"L\"},{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":1}]}}",
		"{\"model\":{\"vocab\":{\"l\":1,\"ll\":2,\"e\":3},\"merges\":[\"l l\"]},\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true},\"decoder\":{\"type\":\"ByteLevel\"}}",
		"{\"model\":{\"vocab\":{\"l\":1,\"e\":3},\"merges\":[]}}",
	};
	if (!test_allocations_can_fail())
		skip();
	json_set_alloc_funcs(spared, free);

	for (size_t f = 0; f < sizeof files / sizeof *files; f++) {
		long n = 0;
		for (bool failed = true; failed; n++) {
			struct cad_error error = { .text = "" };
			long live = test_allocations_live();
			test_fail_allocation(n);
			enum cad_status status = whole_round(files[f], &error);
			failed = test_fail_allocation_end();
			if (test_allocations_live() != live)
				fail_msg("allocation %ld of file %zu: %ld blocks are left: %s", n, f,
					test_allocations_live() - live, error.text);
			if (status != CAD_OK && status != CAD_ERR_MEMORY)
				fail_msg("allocation %ld: %s: %s", n, cad_status_name(status), error.text);
			if (status != CAD_OK && (error.status != status || error.text[0] == 0))
				fail_msg("allocation %ld: %s without a sentence", n, cad_status_name(status));
			if (!failed && status != CAD_OK)
				fail_msg("%s", error.text);
		}
		assert_true(n > 20);
	}

	json_set_alloc_funcs(malloc, free);
}

/* ---- a file of texts ---- */

static void file_of_texts(void **state)
{
	(void)state;
	char folder[] = "/tmp/cadre-tokenize-XXXXXX", input[64], output[64], line[256];
	assert_non_null(mkdtemp(folder));
	snprintf(input, sizeof input, "%s/in", folder);
	snprintf(output, sizeof output, "%s/out", folder);
	struct cad_error error;
	static const char tokenizer[] = CADRE_SOURCE_DIR "/tests/golden/mixtral-a/model/tokenizer.json";
	file_write(input, "{\"text\": \"\"}\n\n{\"text\": \"\\u2028\\u0000\"}\n");
	must(cad_tokenize_file(tokenizer, input, output, &error), &error);
	FILE *file = fopen(output, "r");
	assert_non_null(file);
	assert_non_null(fgets(line, sizeof line, file));
	assert_string_equal(line, "{\"ids\": [1], \"decoded\": \"\"}\n");
	assert_non_null(fgets(line, sizeof line, file));
	assert_non_null(strstr(line, "\"decoded\": \"\\u2028\\u0000\"}\n"));
	assert_null(fgets(line, sizeof line, file));
	fclose(file);
	static const char *const wrong[] = { "{\"text\": \"a\"}\n{\"text\": 7}\n", "{\"text\": \"a\"}\n{\"text\": \n" };
	for (size_t i = 0; i < 2; i++) {
		file_write(input, wrong[i]);
		remove(output);
		assert_int_equal(cad_tokenize_file(tokenizer, input, output, &error), CAD_ERR_CORRUPT);
		assert_non_null(strstr(error.text, "line 2"));
		assert_int_not_equal(access(output, F_OK), 0);
	}

	remove(input);
	assert_int_equal(cad_tokenize_file(tokenizer, input, output, &error), CAD_ERR_IO);
	assert_int_equal(cad_tokenize_file(tokenizer, "/dev/null", "/nowhere/out", &error), CAD_ERR_IO);
	assert_int_equal(rmdir(folder), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(merges_as_defined),
		cmocka_unit_test(hostile_runs),
		cmocka_unit_test(hostile_lengths),
		cmocka_unit_test(threads_share_a_tokenizer),
		cmocka_unit_test(too_long_is_refused_early),
		cmocka_unit_test(memory_runs_out),
		cmocka_unit_test(file_of_texts),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
