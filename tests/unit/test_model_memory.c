/* SPDX-License-Identifier: Apache-2.0 */
/* Opening, describing and writing models, and the embedded form of one, while allocations fail, one
 * after the other: an answer every time, and nothing left behind. */
#include "common/model/inspect.h"
#include "common/model/safetensors.h"
#include "embedded/embedded.h"
#include "tests/support/failing_alloc.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define GOLDEN CADRE_SOURCE_DIR "/tests/golden/"

typedef enum cad_status attempt(struct cad_error *error);

/*
 * jansson 2.14 cannot be out of memory while it parses: its lexer drops the byte that it has no
 * room for and corrupts the heap (lex_save in load.c ignores the answer of strbuffer_append_byte).
 * So its allocations are spared where a test parses; building and printing JSON stand the test.
 */
static void *spared(size_t size)
{
	test_fail_allocation_pause(true);
	void *block = malloc(size);
	test_fail_allocation_pause(false);
	return block;
}

static void until_clean(attempt *run)
{
	if (!test_allocations_can_fail())
		skip();
	long n = 0;

	for (bool failed = true; failed; n++) {
		struct cad_error error = { .text = "" };
		long live = test_allocations_live();
		test_fail_allocation(n);
		enum cad_status status = run(&error);
		failed = test_fail_allocation_end();
		assert_int_equal(test_allocations_live(), live);
		if (status != CAD_OK && status != CAD_ERR_MEMORY && status != CAD_ERR_IO)
			fail_msg("allocation %ld: %s", n, cad_status_name(status));
		if (status != CAD_OK && (error.status != status || error.text[0] == 0))
			fail_msg("allocation %ld: %s without a sentence", n, cad_status_name(status));
		if (!failed)
			assert_int_equal(status, CAD_OK);
	}

	print_message("%ld allocations\n", n - 1);
	assert_true(n > 1);
}

static void until_clean_without_json(attempt *run)
{
	if (!test_allocations_can_fail())
		skip();
	json_malloc_t allocate;
	json_free_t release;
	json_get_alloc_funcs(&allocate, &release);
	json_set_alloc_funcs(spared, free);
	until_clean(run);
	json_set_alloc_funcs(allocate, release);
}

static enum cad_status open_sharded(struct cad_error *error)
{
	struct cad_model *model;
	enum cad_status status = cad_model_open(GOLDEN "olmoe-b/model", &model, error);
	if (status == CAD_OK)
		cad_model_close(model);
	return status;
}

static enum cad_status open_single(struct cad_error *error)
{
	struct cad_model *model;
	enum cad_status status = cad_model_open(GOLDEN "qwen3moe-b/model", &model, error);
	if (status == CAD_OK)
		cad_model_close(model);
	return status;
}

static enum cad_status embed(struct cad_error *error)
{
	const struct em_options options = {
		.model = GOLDEN "olmoe-a/model",
		.threads = 1,
		.router = { .kv_bytes = 1 << 20 },
	};
	struct em_embedded *embedded;
	enum cad_status status = em_create(&options, &embedded, error);
	if (status == CAD_OK)
		em_destroy(embedded);
	return status;
}

static struct cad_model *opened;
static FILE *sink;

static enum cad_status describe(struct cad_error *error)
{
	const struct cad_model_packed packed = { "f32", "f32", 1, 1, 1, 1, 1 };
	const struct cad_model_cluster cluster = { 3, 1 << 20, 1 << 20 };
	return cad_model_inspect(opened, &packed, &cluster, sink, true, error);
}

static char written[64];

static enum cad_status write_file(struct cad_error *error)
{
	static const float zeros[4];
	const struct cad_tensor tensor = {
		.name = "a",
		.data = zeros,
		.dtype = CAD_DTYPE_F32,
		.rank = 2,
		.shape = { 2, 2 },
		.bytes = sizeof zeros,
	};
	return cad_safetensors_write(written, &tensor, 1, error);
}

static void opening_shards(void **state)
{
	(void)state;
	until_clean_without_json(open_sharded);
}

static void opening_one_file(void **state)
{
	(void)state;
	until_clean_without_json(open_single);
}

static void embedding(void **state)
{
	(void)state;
	assert_int_equal(embed(NULL), CAD_OK); /* threads that have ended leave stacks for those that follow */
	until_clean_without_json(embed);
}

static void describing(void **state)
{
	(void)state;
	assert_int_equal(cad_model_open(GOLDEN "qwen3moe-b/model", &opened, NULL), CAD_OK);
	sink = fopen("/dev/null", "w");
	assert_non_null(sink);
	fputc('\n', sink); /* the stream's own buffer is there from now on */
	until_clean(describe);
	fclose(sink);
	cad_model_close(opened);
}

static void writing(void **state)
{
	(void)state;
	char directory[] = "/tmp/cadre-test-memory-XXXXXX";
	assert_non_null(mkdtemp(directory));
	snprintf(written, sizeof written, "%s/a.safetensors", directory);
	until_clean(write_file);
	assert_int_equal(unlink(written), 0);
	assert_int_equal(rmdir(directory), 0); /* no temporary file is left */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(opening_shards),
		cmocka_unit_test(opening_one_file),
		cmocka_unit_test(embedding),
		cmocka_unit_test(describing),
		cmocka_unit_test(writing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
