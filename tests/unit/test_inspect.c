/* SPDX-License-Identifier: Apache-2.0 */
/* What `cadrectl model inspect` says, for people and for scripts. */
#include "common/model/inspect.h"
#include "tests/support/must.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct cad_model *open_golden(const char *name)
{
	char path[256];
	struct cad_model *model;
	struct cad_error error;

	snprintf(path, sizeof path, CADRE_SOURCE_DIR "/tests/golden/%s/model", name);
	must(cad_model_open(path, &model, &error), &error);
	return model;
}

static const struct cad_model_packed packed = { "f32", "bf16", 3 << 10, 5 << 20, 1728, 432, 432 };

static char *inspect_in(const char *name, const struct cad_model_cluster *cluster, bool json)
{
	struct cad_model *model = open_golden(name);
	char *text = NULL;
	size_t bytes = 0;
	FILE *stream = open_memstream(&text, &bytes);

	assert_non_null(stream);
	struct cad_error error;
	must(cad_model_inspect(model, &packed, cluster, stream, json, &error), &error);
	fclose(stream);
	cad_model_close(model);

	return text;
}

static char *inspect(const char *name, uint32_t nodes, bool json)
{
	return inspect_in(name, &(struct cad_model_cluster){ .nodes = nodes }, json);
}

static void inspect_for_people(void **state)
{
	(void)state;
	char *text = inspect("mixtral-b", 2, false);
	static const char *const lines[] = {
		"architecture     mixtral, f16\n",
		"attention        6 heads of 24, 3 key/value heads\n",
		"sliding window   16 keys in 3 layers\n",
		"parameters       590.83 K, 238.32 K active per token, 210.67 K without the embedding\n",
		"KV cache         144 values per token in each of 3 layers\n",
		"experts          5 per layer in 3 layers, 1 per token, weights renormalised, size 136\n",
		"weights f32      in the files     in memory\n",
		"one expert          57.38 KiB      3.00 KiB\n",
		"one layer          286.88 KiB     15.00 KiB  5 experts\n",
		"each of 2 nodes    459.00 KiB     24.00 KiB  8 of 15 experts\n",
		"each router        293.34 KiB      5.00 MiB  and 1.69 KiB of KV cache per token (--kv bf16)\n",
	};
	for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
		if (!strstr(text, lines[i]))
			fail_msg("no '%s' in\n%s", lines[i], text);
	free(text);
	text = inspect("forms/yarn-beyond-positions", 3, false);
	assert_non_null(strstr(text,
		"positions        128, rope yarn, theta 10000\n"
		"context          256 tokens, which the rope scaling is meant for\n"));
	free(text);
	text = inspect("llama-a", 3, false);
	assert_null(strstr(text, "one expert"));
	assert_null(strstr(text, "node"));
	free(text);
}

static void inspect_for_scripts(void **state)
{
	(void)state;
	char *text = inspect("qwen3moe-a", 5, true);
	json_t *object = json_loads(text, 0, NULL);
	assert_non_null(object);
	const json_t *needs = json_object_get(object, "needs"), *memory = json_object_get(object, "memory"),
		     *experts = json_object_get(object, "experts");
	assert_int_equal(json_integer_value(json_object_get(needs, "nodes")), 5);
	assert_int_equal(json_integer_value(json_object_get(needs, "experts_total")), 48);
	assert_int_equal(json_integer_value(json_object_get(needs, "experts_per_node")), 10);
	assert_int_equal(json_integer_value(json_object_get(needs, "bytes_per_node")), 153600);
	assert_int_equal(json_integer_value(json_object_get(needs, "kv_bytes_per_token")), 1728);
	assert_string_equal(json_string_value(json_object_get(memory, "weights")), "f32");
	assert_string_equal(json_string_value(json_object_get(memory, "kv")), "bf16");
	assert_int_equal(json_integer_value(json_object_get(memory, "expert")), 3 << 10);
	assert_int_equal(json_integer_value(json_object_get(memory, "layer")), 16 * (3 << 10));
	assert_int_equal(json_integer_value(json_object_get(memory, "node")), 10 * (3 << 10));
	assert_int_equal(json_integer_value(json_object_get(memory, "router")), 5 << 20);
	assert_int_equal(json_integer_value(json_object_get(experts, "count")), 16);
	assert_int_equal(json_integer_value(json_object_get(experts, "topk")), 4);
	assert_string_equal(json_string_value(json_object_get(object, "architecture")), "qwen3_moe");
	assert_int_equal(json_integer_value(json_object_get(object, "context")), 4096);
	json_decref(object);
	free(text);
}

static void expect_lines(const char *text, const char *const *lines, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (!strstr(text, lines[i]))
			fail_msg("no '%s' in\n%s", lines[i], text);
}

/* Tensors that nothing reads: what they are, how many, how large. */
static void inspect_says_what_is_not_read(void **state)
{
	(void)state;
	static const char *const line = "not read         2 tensors beside the language model, 72 bytes: "
					"multi_modal_projector.norm.weight, ...\n";
	char *text = inspect("forms/nested-version4", 3, false);
	expect_lines(text, &line, 1);
	free(text);

	text = inspect("forms/nested-version4", 3, true);
	json_t *object = json_loads(text, 0, NULL), *list = json_object_get(object, "not_read");
	assert_int_equal(json_array_size(list), 1);
	assert_string_equal(json_string_value(json_object_get(json_array_get(list, 0), "kind")), "outside");
	assert_int_equal(json_integer_value(json_object_get(json_array_get(list, 0), "tensors")), 2);
	assert_int_equal(json_integer_value(json_object_get(json_array_get(list, 0), "bytes")), 72);
	json_decref(object);
	free(text);
}

/* What a cluster of a given memory holds. An expert is 3 KiB here, a router 5 MiB, a token 1728 bytes. */
static void inspect_a_cluster(void **state)
{
	(void)state;
	struct cad_model_cluster cluster = { .nodes = 5, .node_bytes = 30 << 10, .router_bytes = 6 << 20 };
	static const char *const fits[] = {
		"experts          fit on 5 nodes of 30.00 KiB, which have room for 10 each: 1.04 copies of every expert; 5 such nodes would do, 6 to lose one\n",
		"router           fits in 6.00 MiB; the rest holds keys and values of 606 tokens\n",
	};
	char *text = inspect_in("qwen3moe-a", &cluster, false);
	expect_lines(text, fits, 2);
	free(text);

	cluster = (struct cad_model_cluster){ .nodes = 4, .node_bytes = 30 << 10, .router_bytes = 5 << 20 };
	static const char *const less[] = {
		"experts          do not fit on 4 nodes of 30.00 KiB, which have room for 10 each: 5 such nodes hold them\n",
		"router           does not fit in 5.00 MiB\n",
	};
	text = inspect_in("qwen3moe-a", &cluster, false);
	expect_lines(text, less, 2);
	free(text);

	cluster = (struct cad_model_cluster){ .nodes = 4, .node_bytes = 3071 };
	static const char *const none = "experts          do not fit: one takes more than the 3.00 KiB of a node\n";
	text = inspect_in("qwen3moe-a", &cluster, false);
	expect_lines(text, &none, 1);
	assert_null(strstr(text, "\nrouter "));
	free(text);

	text = inspect_in("qwen3moe-a", &cluster, true);
	json_t *object = json_loads(text, 0, NULL), *fit = json_object_get(object, "fit"),
	       *nodes = json_object_get(fit, "nodes");
	assert_true(json_is_null(json_object_get(fit, "router")));
	assert_true(json_is_false(json_object_get(nodes, "fits")));
	assert_int_equal(json_integer_value(json_object_get(nodes, "nodes_least")), 0);
	json_decref(object);
	free(text);
}

/* Of layers that keep different things, there is only a sum. */
static void kv_cache_of_unlike_layers(void **state)
{
	(void)state;
	struct cad_model_spec spec = { .layers_count = 3, .attentions_count = 2 };
	char *text = NULL;
	size_t bytes = 0;
	FILE *stream = open_memstream(&text, &bytes);
	assert_non_null(stream);
	cad_model_kv_print(&(struct cad_model_packed){ .kv_values = 500, .kv_values_expanded = 500 }, &spec, stream);
	spec.attentions_count = 1;
	cad_model_kv_print(&(struct cad_model_packed){ .kv_values = 300, .kv_values_expanded = 6000 }, &spec, stream);
	fclose(stream);
	assert_string_equal(text,
		"KV cache         500 values per token in 3 layers, which differ\n"
		"KV cache         100 values per token in each of 3 layers; keys and values of all heads would be 2000, 20.0 times as many\n");
	free(text);
}

static void inspect_failures(void **state)
{
	(void)state;
	struct cad_model *model = open_golden("llama-a");
	const struct cad_model_cluster none = { 0 }, one = { .nodes = 1 };
	struct cad_error error;
	assert_int_equal(cad_model_inspect(model, &packed, &none, stdout, false, &error), CAD_ERR_INVALID);
	FILE *full = fopen("/dev/full", "w");
	assert_non_null(full);
	assert_int_equal(cad_model_inspect(model, &packed, &one, full, false, &error), CAD_ERR_IO);
	assert_non_null(strstr(error.text, "could not be written"));
	fclose(full);
	cad_model_close(model);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(inspect_for_people),
		cmocka_unit_test(inspect_for_scripts),
		cmocka_unit_test(inspect_says_what_is_not_read),
		cmocka_unit_test(inspect_a_cluster),
		cmocka_unit_test(kv_cache_of_unlike_layers),
		cmocka_unit_test(inspect_failures),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
