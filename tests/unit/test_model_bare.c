/* SPDX-License-Identifier: Apache-2.0 */
/* Models by their config.json alone: as large as their files would be, and as they are published. */
#include "common/model/model.h"
#include "kernels/source.h"
#include "tests/support/must.h"

#include <glob.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct cad_model *open_config(const char *name)
{
	char path[256];
	struct cad_model *model;
	struct cad_error error = { 0 };

	snprintf(path, sizeof path, CADRE_SOURCE_DIR "/tests/%s", name);
	must(cad_model_open_config(path, &model, &error), &error);
	return model;
}

/* Parameters in units of 10 million, as model cards and papers give them. Some count a token's row of the
 * embedding among active ones as the whole matrix, others not at all. */
static const struct published {
	const char *name;
	double total, active; /* billions */
	bool without_embedding;
} published[] = {
	{ "mixtral-8x7b", 46.70, 12.88, false },
	{ "mixtral-8x22b", 140.63, 39.16, false },
	{ "qwen3-30b-a3b", 30.53, 3.35, false },
	{ "qwen3-235b-a22b", 235.09, 22.19, false },
	{ "qwen1.5-moe-a2.7b", 14.32, 2.69, false },
	{ "olmoe-1b-7b", 6.92, 1.28, false },
	{ "gpt-oss-120b", 116.83, 5.13, true },
	{ "gpt-oss-20b", 20.91, 3.61, true },
	{ "deepseek-v2-lite", 15.71, 2.45, true },
	{ "deepseek-v2", 235.74, 21.38, false },
	{ "deepseek-v3", 671.03, 37.55, false },
	{ "kimi-k2", 1026.41, 32.86, false },
	{ "ernie-4.5-21b-a3b", 21.83, 3.35, false },
	{ "glm-4.5-air", 106.85, 12.80, true },
	{ "glm-4.5", 352.80, 32.86, true }, /* and 2 more in a layer that predicts further tokens */
	{ "minimax-m2", 228.69, 10.42, true },
	{ "mellum2-12b-a2.5b", 12.15, 2.44, false },
	{ "mimo-v2-flash", 308.78, 15.45, false },
	{ "llama-3.1-8b", 8.03, 8.03, false },
};

static void counts_are_the_published_ones(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof published / sizeof *published; i++) {
		char name[64];
		snprintf(name, sizeof name, "configs/%s.json", published[i].name);
		struct cad_model *model = open_config(name);
		struct cad_model_sizes sizes = cad_model_sizes(model);
		double total = (double)sizes.parameters * 1e-9,
		       active = (double)(sizes.active_parameters -
					(published[i].without_embedding ? sizes.looked_up : 0)) *
			1e-9;
		if (total < published[i].total - 0.005 || total > published[i].total + 0.005 ||
			active < published[i].active - 0.005 || active > published[i].active + 0.005)
			fail_msg("%s: %.3f B, %.3f B active", published[i].name, total, active);
		if (cad_model_spec(model)->stored.kind == CAD_STORED_PLAIN)
			assert_int_equal(sizes.total, 2 * sizes.parameters);
		cad_model_close(model);
	}
}

/* FP8 with a scale for each block of 128 by 128, MXFP4 with one for 32: gpt-oss is 60.8 and 12.8 GiB by its model card. */
static void as_large_as_stored(void **state)
{
	(void)state;
	static const struct {
		const char *name;
		uint64_t expert;
		double gib; /* of all; 0: nobody says */
	} cases[] = {
		{ "gpt-oss-120b", 3 * 2880 * 2880ull / 2 + 3 * 2880 * 90 + 2 * 3 * 2880, 60.8 },
		{ "gpt-oss-20b", 3 * 2880 * 2880ull / 2 + 3 * 2880 * 90 + 2 * 3 * 2880, 12.8 },
		{ "deepseek-v3", 3 * (7168 * 2048ull + 56 * 16 * 4), 0 },
		{ "minimax-m2", 3 * (3072 * 1536ull + 24 * 12 * 4), 0 },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char name[64];
		snprintf(name, sizeof name, "configs/%s.json", cases[i].name);
		struct cad_model *model = open_config(name);
		struct cad_model_sizes sizes = cad_model_sizes(model);
		assert_int_equal(sizes.expert, cases[i].expert);
		double gib = (double)sizes.total / (1 << 30);
		if (cases[i].gib > 0 && (gib < cases[i].gib - 0.05 || gib > cases[i].gib + 0.05))
			fail_msg("%s: %.2f GiB", name, gib);
		cad_model_close(model);
	}
}

/* What is in the folder is held against somebody's figures. */
static void every_config_is_counted(void **state)
{
	(void)state;
	static const char root[] = CADRE_SOURCE_DIR "/tests/configs/";
	glob_t found;
	assert_int_equal(glob(CADRE_SOURCE_DIR "/tests/configs/*.json", 0, NULL, &found), 0);
	for (size_t i = 0; i < found.gl_pathc; i++) {
		const char *name = found.gl_pathv[i] + sizeof root - 1;
		size_t length = strlen(name) - strlen(".json"), p = 0, count = sizeof published / sizeof *published;
		while (p < count &&
			(strlen(published[p].name) != length || strncmp(published[p].name, name, length) != 0))
			p++;
		if (p == count)
			fail_msg("%s has no row of published figures here", name);
	}
	assert_int_equal(found.gl_pathc, sizeof published / sizeof *published);
	globfree(&found);
}

/* The same figures, of files and of what config.json says of them. */
static void as_large_as_the_files(void **state)
{
	(void)state;
	static const char *const names[] = { "llama-a", "mixtral-a", "mixtral-b", "olmoe-a", "olmoe-b", "qwen2moe-a",
		"qwen3moe-a", "qwen3moe-b", "glm4moe-a", "minimaxm2-a", "ernie45moe-a", "granitemoe-a", "deepseekv2-a",
		"deepseekv3-a", "mistral4-a", "llama4-a", "gptoss-a", "forms/nested-version4", "forms/qwen3moe-fused" };
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		char path[256];
		struct cad_model *model;
		struct cad_error error = { 0 };
		snprintf(path, sizeof path, "golden/%s/model", names[i]);
		struct cad_model *bare = open_config(path);
		snprintf(path, sizeof path, CADRE_SOURCE_DIR "/tests/golden/%s/model", names[i]);
		must(cad_model_open(path, &model, &error), &error);

		struct cad_model_sizes has = cad_model_sizes(bare), is = cad_model_sizes(model);
		if (has.parameters != is.parameters || has.active_parameters != is.active_parameters ||
			has.routed_parameters != is.routed_parameters || has.looked_up != is.looked_up)
			fail_msg("%s: %llu parameters, but %llu in the files", names[i],
				(unsigned long long)has.parameters, (unsigned long long)is.parameters);
		cad_model_close(model);
		cad_model_close(bare);
	}
}

/* What a device would pack is asked as of any model. */
static void a_device_sizes_it(void **state)
{
	(void)state;
	struct kn_device *device;
	struct cad_error error;
	struct cad_model *model = open_config("configs/deepseek-v3.json");
	must(kn_device_open(&(struct kn_device_options){ 0 }, &device, &error), &error);

	struct cad_model_packed rounded =
		kn_packed_sizes(device, model, CAD_WEIGHTS_BF16, CAD_WEIGHTS_BF16, CAD_KV_BF16);
	assert_int_equal(rounded.expert, 3ull * 7168 * 2048 * 2);
	assert_int_equal(rounded.kv_values, 576 * 61);
	assert_int_equal(rounded.kv_values_expanded, 128 * (192 + 128) * 61);
	assert_int_equal(rounded.kv_per_token, 2 * 576 * 61);

	struct cad_model_packed small = kn_packed_sizes(device, model, CAD_WEIGHTS_INT4, CAD_WEIGHTS_INT8, CAD_KV_F32);
	assert_in_range(small.expert, rounded.expert / 4, rounded.expert * 28 / 100);
	assert_in_range(small.router, rounded.router / 2, rounded.router * 66 / 100);
	assert_string_equal(small.weights, "int4");
	device->ops->destroy(device);
	cad_model_close(model);
}

static void what_is_wrong_is_told(void **state)
{
	(void)state;
	struct cad_model *model;
	struct cad_error error;
	char path[] = "/tmp/cadre-config-XXXXXX";
	int fd = mkstemp(path);
	assert_true(fd >= 0 && write(fd, "{\"model_type\": \"jamba\"}", 23) == 23);
	close(fd);
	assert_int_equal(cad_model_open_config(path, &model, &error), CAD_ERR_UNSUPPORTED);
	assert_non_null(strstr(error.text, "model_type is 'jamba', which needs state-space layers"));
	unlink(path);
	assert_int_equal(cad_model_open_config(path, &model, &error), CAD_ERR_NOT_FOUND);
	assert_non_null(strstr(error.text, path));
	assert_true(cad_model_open_config("/dev/null", &model, &error) < 0);
	assert_non_null(strstr(error.text, "/dev/null"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(counts_are_the_published_ones),
		cmocka_unit_test(as_large_as_stored),
		cmocka_unit_test(every_config_is_counted),
		cmocka_unit_test(as_large_as_the_files),
		cmocka_unit_test(a_device_sizes_it),
		cmocka_unit_test(what_is_wrong_is_told),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
