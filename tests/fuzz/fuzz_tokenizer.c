/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tokenizers from strangers, texts from strangers. The first byte chooses: a tokenizer.json, up to
 * a NUL, that is parsed and, if it can be, encodes and decodes the rest; or one of a few fixed
 * tokenizers, with the rest as text (which must come back) or as ids (which must decode the same at
 * once and one by one).
 */
#include "common/base/log.h"
#include "common/tokenizer/decode.h"
#include "common/tokenizer/tokenizer.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *count, char ***arguments);

enum { FIXED = 4, LOSSLESS = 2 };
/* The first two give back every text as it came. */
static const char *const names[FIXED] = { "llama-a", "deepseekv3-a", "mixtral-a", "olmoe-a" };
static struct cad_tokenizer *fixed[FIXED];

static void check(bool holds)
{
	if (!holds)
		abort();
}

int LLVMFuzzerInitialize(int *count, char ***arguments)
{
	(void)count;
	(void)arguments;
	cad_log_setup(CAD_LOG_ERROR, CAD_LOG_LOGFMT); /* files of strangers are worth many warnings */
	for (size_t i = 0; i < FIXED; i++) {
		char path[1024];
		snprintf(path, sizeof path, "%s/tests/golden/%s/model/tokenizer.json", CADRE_SOURCE_DIR, names[i]);
		check(cad_tokenizer_open(path, &fixed[i], NULL) == CAD_OK);
	}
	return 0;
}

static void decode_both_ways(
	const struct cad_tokenizer *tokenizer, const int32_t *ids, size_t count, struct cad_text *whole)
{
	struct cad_text streamed = { 0 };
	struct cad_decoder *decoder;
	enum cad_status status = cad_tokenizer_decode(tokenizer, ids, count, true, whole, NULL);

	check(cad_decoder_create(tokenizer, true, &decoder) == CAD_OK);
	for (size_t i = 0; i < count && status == CAD_OK; i++)
		check(cad_decoder_push(decoder, ids[i], &streamed, NULL) == CAD_OK && streamed.size <= whole->size);
	if (status == CAD_OK) {
		check(cad_decoder_finish(decoder, &streamed, NULL) == CAD_OK);
		check(streamed.size == whole->size && memcmp(streamed.bytes, whole->bytes, whole->size) == 0);
	}

	cad_decoder_destroy(decoder);
	cad_text_fini(&streamed);
}

/* A limit refuses what is longer than it, and nothing else. */
static void limits_hold(const struct cad_tokenizer *tokenizer, const char *text, size_t size, size_t count)
{
	struct cad_ids ids = { 0 };
	check(cad_tokenizer_encode(tokenizer, text, size, true, count, &ids, NULL) == CAD_OK && ids.count == count);
	ids.count = 0;
	check(count == 0 || cad_tokenizer_encode(tokenizer, text, size, true, count - 1, &ids, NULL) == CAD_ERR_RANGE);
	cad_ids_fini(&ids);
}

static void round_trip(const struct cad_tokenizer *tokenizer, const char *text, size_t size, bool lossless)
{
	struct cad_ids ids = { 0 };
	struct cad_text back = { 0 };
	struct cad_error error;

	if (cad_tokenizer_encode(tokenizer, text, size, true, SIZE_MAX, &ids, &error) == CAD_OK) {
		for (size_t i = 0; i < ids.count; i++)
			check(ids.ids[i] >= 0);
		limits_hold(tokenizer, text, size, ids.count);
		decode_both_ways(tokenizer, ids.ids, ids.count, &back);
		/* a special token that is spelled out becomes its id, and is left out of the
		 * text */
		if (lossless && !memmem(text, size, "<|", 2) && !memmem(text, size, "<\xef\xbd\x9c", 4))
			check(back.size == size && memcmp(back.bytes, text, size) == 0);
	}

	cad_ids_fini(&ids);
	cad_text_fini(&back);
}

static void parse_and_use(const char *data, size_t size)
{
	const char *end = memchr(data, 0, size);
	size_t json = end ? (size_t)(end - data) : size;
	struct cad_tokenizer *tokenizer = NULL;
	struct cad_error error;

	if (cad_tokenizer_parse("fuzz", data, json, &tokenizer, &error) != CAD_OK) {
		check(!tokenizer && error.text[0] != 0);
		return;
	}

	round_trip(tokenizer, "Hello  hello <s> 12\n", 20, false);
	if (end)
		round_trip(tokenizer, end + 1, size - json - 1, false);
	cad_tokenizer_close(tokenizer);
}

static void decode_any(const struct cad_tokenizer *tokenizer, const uint8_t *data, size_t size)
{
	int32_t ids[256];
	size_t count = 0;
	for (; count < 256 && 2 * count + 1 < size; count++)
		ids[count] = data[2 * count] | (data[2 * count + 1] & 1) << 8;
	struct cad_text text = { 0 };
	decode_both_ways(tokenizer, ids, count, &text);
	cad_text_fini(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;

	unsigned int kind = data[0] % (1 + 2 * FIXED);
	if (kind == 0)
		parse_and_use((const char *)data + 1, size - 1);
	else if (kind <= FIXED)
		round_trip(fixed[kind - 1], (const char *)data + 1, size - 1, kind <= LOSSLESS);
	else
		decode_any(fixed[kind - 1 - FIXED], data + 1, size - 1);
	return 0;
}
