/* SPDX-License-Identifier: Apache-2.0 */
/* What `cadrectl model size` estimates with, and how near that is to what was measured. */
#include "common/base/file.h"
#include "kernels/source.h"
#include "orchestration/cli/estimate.h"
#include "tests/support/must.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define XEON "intel-xeon-processor-2.50ghz-2.csv"

static struct kn_device *device;

static int open_device(void **state)
{
	(void)state;
	struct cad_error error;
	must(kn_device_open(&(struct kn_device_options){ 0 }, &device, &error), &error);
	return 0;
}

static int close_device(void **state)
{
	(void)state;
	device->ops->destroy(device);
	return 0;
}

/* The cell of a column in the line that begins so, in a file of bench/results. */
static double result(const char *file, const char *line, unsigned column)
{
	char path[256], *text;
	size_t bytes;
	struct cad_error error;
	snprintf(path, sizeof path, CADRE_SOURCE_DIR "/bench/results/%s", file);
	must(cad_file_read(path, 1 << 20, &text, &bytes, &error), &error);
	const char *at = strstr(text, line);
	if (!at)
		fail_msg("%s has no line '%s'", file, line);
	for (; column > 0; column--)
		at = strchr(at, ',') + 1;
	double value = strtod(at, NULL);
	free(text);
	return value;
}

static void near(double is, double wanted, double share)
{
	if (fabs(is - wanted) > share * wanted)
		fail_msg("%g, but it should be %g, within %g", is, wanted, share);
}

/* The table's figures are those that its source has. */
static void rates_are_those_of_the_results(void **state)
{
	(void)state;
	const struct cl_rates *xeon = cl_rates_of(CL_MACHINE_XEON);
	const char *kernels = "kernels-" XEON, *exchange = "exchange-" XEON;
	static const char one[] = "ffn rows 1 n 1024 k 2048 experts 64 topk 8 bf16,,avx512,2,",
			  many[] = "linear rows 512 n 2048 k 2048 bf16,,avx512,2,";
	near(xeon->form[CL_RATE_FLOATS].read, 1e9 * result(kernels, one, 6), 1e-9);
	near(xeon->form[CL_RATE_FLOATS].multiply_adds, 0.5e9 * result(kernels, many, 5), 1e-9);
	near(xeon->call_s + 8192 * xeon->byte_s, 1e-6 * result(exchange, "tcp,1,8192,", 3), 0.01);
	near(xeon->call_s + 4194304 * xeon->byte_s, 1e-6 * result(exchange, "tcp,512,4194304,", 3), 0.01);
	assert_non_null(strstr(xeon->source, kernels));
	assert_non_null(strstr(xeon->source, exchange));
}

/* The model of bench_engine (tests/tools/make_checkpoint.py), by its config.json. */
static struct cad_model *open_1b(void)
{
	static const char text[] =
		"{\"model_type\": \"qwen3_moe\", \"hidden_size\": 1024, \"num_hidden_layers\": 10, \"num_attention_heads\": 16,"
		" \"num_key_value_heads\": 8, \"head_dim\": 64, \"num_experts\": 64, \"num_experts_per_tok\": 8,"
		" \"moe_intermediate_size\": 448, \"intermediate_size\": 4096, \"vocab_size\": 16384,"
		" \"max_position_embeddings\": 4096, \"rms_norm_eps\": 1e-6, \"rope_theta\": 1e6, \"norm_topk_prob\": true,"
		" \"torch_dtype\": \"bfloat16\"}";
	char path[] = "/tmp/cadre-size-XXXXXX";
	int fd = mkstemp(path);
	struct cad_model *model;
	struct cad_error error = { 0 };
	assert_true(fd >= 0 && write(fd, text, sizeof text - 1) == (ssize_t)(sizeof text - 1));
	close(fd);
	must(cad_model_open_config(path, &model, &error), &error);
	unlink(path);
	return model;
}

static struct cl_cluster cluster_of(const struct cad_model *model, uint32_t nodes, enum cad_weights weights)
{
	struct kn_source embed = kn_source_of(cad_model_tensor(model, CAD_ROLE_EMBED, 0, 0));
	return (struct cl_cluster){
		.nodes = nodes,
		.experts = weights,
		.router = weights,
		.packed = kn_packed_sizes(device, model, weights, weights, CAD_KV_F32),
		.table_bytes = device->ops->table_bytes(device, &embed, weights),
		.row_bytes = 2 * cad_model_spec(model)->hidden,
	};
}

/* Steps that were measured on the machine whose rates are used, experts in the router's process: an
 * estimate is what a good implementation reaches, and those are near. */
static void estimates_are_near_what_was_measured(void **state)
{
	(void)state;
	static const struct {
		const char *line;
		struct cl_load load;
	} cases[] = {
		{ "decode x1,total,", { 1, 1, 100, 1 } },
		{ "decode x4,total,", { 4, 4, 100, 4 } },
		{ "decode x16,total,", { 16, 16, 100, 16 } },
		{ "decode x64,total,", { 64, 64, 100, 64 } },
		{ "prefill,total,", { 1, 512, 256, 1 } },
	};
	struct cad_model *model = open_1b();
	struct cl_cluster cluster = cluster_of(model, 1, CAD_WEIGHTS_AS_IS);

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct cl_estimate e = cl_estimate_step(model, &cluster, cl_rates_of(CL_MACHINE_XEON), &cases[i].load);
		double estimated = cases[i].load.rows / (e.step_s - e.exchange_s),
		       measured = result("engine-" XEON, cases[i].line, 2);
		if (estimated < measured / 1.3 || estimated > measured * 1.3)
			fail_msg("%s estimated %.1f, measured %.1f tokens/s", cases[i].line, estimated, measured);
	}
	cad_model_close(model);
}

static void parts_are_what_they_should_be(void **state)
{
	(void)state;
	struct cad_model *model = open_1b();
	const struct cl_rates *rates = cl_rates_of(CL_MACHINE_EPYC);
	struct cl_cluster one = cluster_of(model, 1, CAD_WEIGHTS_INT8), four = cluster_of(model, 4, CAD_WEIGHTS_INT8);
	struct cl_load single = { 1, 1, 1000, 1 }, many = { 256, 256, 1000, 256 };

	/* one row reads as many experts as it chooses, all of them from the one node there is */
	struct cl_estimate e = cl_estimate_step(model, &one, rates, &single), again, spread;
	assert_float_equal(e.experts, 8, 1e-9);
	assert_float_equal(e.nodes, 1, 1e-9);
	near(e.experts_s, 10 * 8 * (double)one.packed.expert / rates->form[CL_RATE_INT8].read, 1e-9);
	near(e.exchange_s, 10 * (rates->call_s + 2048 * rates->byte_s), 1e-9);
	near(e.keys_s, 1000.0 * (double)one.packed.kv_per_token / rates->form[CL_RATE_FLOATS].read, 1e-9);
	near(e.step_s, e.router_s + e.keys_s + e.experts_s + e.exchange_s, 1e-9);

	/* the same again; and more nodes share the experts' work, and get the rows each */
	again = cl_estimate_step(model, &one, rates, &single);
	assert_memory_equal(&again, &e, sizeof e);
	e = cl_estimate_step(model, &one, rates, &many);
	spread = cl_estimate_step(model, &four, rates, &many);
	assert_true(e.experts > 63.9 && spread.experts > 63.9);
	assert_true(spread.experts_s < e.experts_s / 3 && spread.experts_s > e.experts_s / 4.01);
	assert_true(spread.exchange_s > e.exchange_s && spread.nodes > 3.4 && spread.nodes < 4);
	cad_model_close(model);
}

/* Latent attention reads what it keeps, and multiplies with that for every head. */
static void latent_attention_reads_little(void **state)
{
	(void)state;
	struct cad_model *model;
	struct cad_error error;
	must(cad_model_open_config(CADRE_SOURCE_DIR "/tests/configs/deepseek-v3.json", &model, &error), &error);
	const struct cl_rates *rates = cl_rates_of(CL_MACHINE_EPYC);
	struct cl_cluster cluster = cluster_of(model, 16, CAD_WEIGHTS_INT4);
	struct cl_estimate e = cl_estimate_step(model, &cluster, rates, &(struct cl_load){ 1, 1, 1000, 1 });
	double read = 61.0 * 576 * 4 * 1000 / rates->form[CL_RATE_FLOATS].read,
	       multiplied = 61.0 * 128 * (576 + 512) * 1000 / rates->form[CL_RATE_FLOATS].multiply_adds;
	near(e.keys_s, fmax(read, multiplied), 0.01);
	assert_true(e.nodes > 6 && e.nodes <= 8);
	cad_model_close(model);
}

/* Every second layer of gpt-oss sees 128 keys. */
static void windows_are_seen(void **state)
{
	(void)state;
	struct cad_model *model;
	struct cad_error error;
	must(cad_model_open_config(CADRE_SOURCE_DIR "/tests/configs/gpt-oss-120b.json", &model, &error), &error);
	const struct cl_rates *rates = cl_rates_of(CL_MACHINE_EPYC);
	struct cl_cluster cluster = cluster_of(model, 4, CAD_WEIGHTS_INT4);
	struct cl_estimate e = cl_estimate_step(model, &cluster, rates, &(struct cl_load){ 1, 1, 4096, 1 });
	near(e.keys_s, 18.0 * (4096 + 128) * 2 * 8 * 64 * 4 / rates->form[CL_RATE_FLOATS].read, 0.01);
	cad_model_close(model);
}

/* This machine: figures of some size, for every form that was asked for. */
static void this_machine_is_measured(void **state)
{
	(void)state;
	struct cad_model *model = open_1b();
	struct cl_rates rates;
	struct cad_error error;
	must(cl_rates_measure(device, model, CAD_WEIGHTS_INT4, CAD_WEIGHTS_INT8, 1, &rates, &error), &error);
	for (int form = 0; form < CL_RATE_FORMS; form++)
		assert_true(rates.form[form].read > 1e6 && rates.form[form].multiply_adds > 1e6);
	assert_true(rates.step_s > 0);
	assert_string_equal(rates.machine, "here");
	cad_model_close(model);

	/* a dense model is measured with its ffn */
	must(cad_model_open_config(CADRE_SOURCE_DIR "/tests/golden/llama-a/model", &model, &error), &error);
	must(cl_rates_measure(device, model, CAD_WEIGHTS_AS_IS, CAD_WEIGHTS_AS_IS, 1, &rates, &error), &error);
	assert_true(rates.form[CL_RATE_FLOATS].read > 1e6);
	cad_model_close(model);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rates_are_those_of_the_results),
		cmocka_unit_test(estimates_are_near_what_was_measured),
		cmocka_unit_test(parts_are_what_they_should_be),
		cmocka_unit_test(latent_attention_reads_little),
		cmocka_unit_test(windows_are_seen),
		cmocka_unit_test(this_machine_is_measured),
	};
	return cmocka_run_group_tests(tests, open_device, close_device);
}
