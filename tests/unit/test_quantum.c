/* SPDX-License-Identifier: Apache-2.0 */
/* The quantum table of golden checkpoints: the same for every form and thread count, powers of two,
 * where a hand calculation puts them. */
#include "common/model/model.h"
#include "kernels/quantum.h"
#include "tests/support/must.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { LAYERS_MAX = 64 };

static struct cad_model *model_open(const char *name)
{
	char path[512];
	struct cad_error error;
	struct cad_model *model;

	snprintf(path, sizeof path, CADRE_SOURCE_DIR "/tests/golden/%s/model", name);
	must(cad_model_open(path, &model, &error), &error);
	assert_true(cad_model_spec(model)->layers_count <= LAYERS_MAX);
	return model;
}

/* false: this machine lacks the form */
static bool table(const struct cad_model *model, enum kn_isa isa, unsigned threads, enum cad_weights weights,
	enum cadre_row_type wire, float *quanta)
{
	struct kn_device *device;
	struct kn_queue *queue;
	struct cad_error error;

	if (kn_device_open(&(struct kn_device_options){ .isa = isa }, &device, &error) != CAD_OK)
		return false;

	assert_int_equal(device->ops->queue_create(device, threads, &queue), CAD_OK);
	must(kn_quantum_table(queue, model, weights, wire, quanta, &error), &error);
	device->ops->queue_destroy(queue);
	device->ops->destroy(device);

	return true;
}

static void same_for_every_form_and_thread_count(void **state)
{
	(void)state;
	static const char *const names[] = { "mixtral-a", "olmoe-b", "qwen3moe-a" };
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		struct cad_model *model = model_open(names[i]);
		size_t bytes = cad_model_spec(model)->layers_count * sizeof(float);
		float reference[LAYERS_MAX], other[LAYERS_MAX];
		assert_true(table(model, KN_ISA_REF, 1, CAD_WEIGHTS_AS_IS, CADRE_ROW_FIX16, reference));
		for (unsigned threads = 1; threads <= 2; threads++)
			for (enum kn_isa isa = KN_ISA_AVX2; isa <= KN_ISA_AVX512; isa++)
				if (table(model, isa, threads, CAD_WEIGHTS_AS_IS, CADRE_ROW_FIX16, other))
					assert_memory_equal(reference, other, bytes);
		cad_model_close(model);
	}
}

static void powers_of_two_for_expert_layers_only(void **state)
{
	(void)state;
	struct cad_model *model = model_open("qwen3moe-a"); /* its first layer is dense */
	const struct cad_model_spec *spec = cad_model_spec(model);
	float fix16[LAYERS_MAX], f32[LAYERS_MAX];
	size_t moe = 0;
	assert_true(table(model, KN_ISA_AUTO, 1, CAD_WEIGHTS_AS_IS, CADRE_ROW_FIX16, fix16));
	assert_true(table(model, KN_ISA_AUTO, 1, CAD_WEIGHTS_AS_IS, CADRE_ROW_F32, f32));

	for (uint32_t layer = 0; layer < spec->layers_count; layer++) {
		int exponent;
		if (!spec->layers[layer].moe) {
			assert_true(fix16[layer] == 0 && f32[layer] == 0);
			continue;
		}
		assert_true(frexpf(fix16[layer], &exponent) == 0.5f);
		assert_true(f32[layer] == ldexpf(fix16[layer], -11));
		/* 2^-40 to 1: the outputs of these checkpoints are of the order of 1 */
		assert_in_range(exponent + 100, 60, 100);
		moe++;
	}

	assert_true(moe > 0 && moe < spec->layers_count);
	cad_model_close(model);
}

static void dense_models_have_zeros(void **state)
{
	(void)state;
	struct cad_model *model = model_open("llama-a");
	float quanta[LAYERS_MAX];
	memset(quanta, 0xff, sizeof quanta);
	assert_true(table(model, KN_ISA_AUTO, 1, CAD_WEIGHTS_AS_IS, CADRE_ROW_FIX16, quanta));
	for (uint32_t layer = 0; layer < cad_model_spec(model)->layers_count; layer++)
		assert_true(quanta[layer] == 0);
	cad_model_close(model);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(same_for_every_form_and_thread_count),
		cmocka_unit_test(powers_of_two_for_expert_layers_only),
		cmocka_unit_test(dense_models_have_zeros),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
