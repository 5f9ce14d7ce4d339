/* SPDX-License-Identifier: Apache-2.0 */
/* The packed sizes that are computed from shapes alone are those that are allocated. */
#include "kernels/image.h"
#include "kernels/source.h"
#include "router-svc/model/weights.h"
#include "tests/support/must.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static struct kn_device *device;

static uint64_t vector_bytes(const float *vector, size_t n) { return vector ? kn_round_up(n, 64) * sizeof(float) : 0; }

/* Field by field, so that a tensor that the sum over roles forgets is missed. */
static uint64_t weights_bytes(const struct rt_weights *weights)
{
	const struct cad_model_spec *spec = weights->spec;
	const struct cad_attention_spec *a = &spec->attention;
	size_t heads = (size_t)a->heads * a->head_size, kv_heads = (size_t)a->kv_heads * a->head_size;
	bool per_head = a->qk_norm == CAD_QK_NORM_HEAD;
	uint64_t bytes = weights->embed.bytes + vector_bytes(weights->final_norm, spec->hidden) +
		weights->lm_head.bytes + vector_bytes(weights->inv_freq[0], spec->rope.size / 2);

	for (uint32_t i = 0; i < spec->layers_count; i++) {
		const struct rt_layer_weights *w = &weights->layers[i];
		bytes += vector_bytes(w->attention_norm, spec->hidden) + vector_bytes(w->ffn_norm, spec->hidden) +
			vector_bytes(w->attention_after, spec->hidden) + vector_bytes(w->ffn_after, spec->hidden);
		bytes += w->q.bytes + w->k.bytes + w->v.bytes + w->o.bytes + w->gate.bytes;
		bytes += vector_bytes(w->q_bias, heads) + vector_bytes(w->k_bias, kv_heads) +
			vector_bytes(w->v_bias, (size_t)a->kv_heads * a->value_size) +
			vector_bytes(w->o_bias, spec->hidden);
		bytes += vector_bytes(w->q_norm, per_head ? a->head_size : heads) +
			vector_bytes(w->k_norm, per_head ? a->head_size : kv_heads) + vector_bytes(w->sinks, a->heads);
		bytes += vector_bytes(w->gate_bias, spec->gate.experts) +
			vector_bytes(w->selection_bias, spec->gate.experts) + w->ffn.bytes;
	}

	return bytes;
}

static void expert_is_as_computed(const struct cad_model *model, enum cad_weights weights)
{
	const struct cad_model_spec *spec = cad_model_spec(model);
	if (cad_model_spec_moe_layers(spec) == 0) {
		assert_int_equal(kn_expert_bytes(device, model, weights), 0);
		assert_int_equal(kn_expert_image_bytes(model, weights), 0);
		return;
	}

	uint32_t layer = 0;
	while (!spec->layers[layer].moe)
		layer++;
	struct kn_expert_source source = kn_expert_source_of(model, layer, 0);
	struct kn_expert expert;
	assert_int_equal(device->ops->expert_create(device, &source, weights, &expert), CAD_OK);
	assert_int_equal(kn_expert_bytes(device, model, weights), expert.bytes);
	assert_true(expert.bytes > 0);
	struct kn_expert_source image = kn_image_of(&source, weights);
	assert_int_equal(kn_expert_image_bytes(model, weights), kn_image_bytes(&image));
	device->ops->expert_destroy(device, &expert);
}

/* f32, f16 and bf16 files; tied and own heads; q/k norms; a dense model, and a dense layer between
 * MoE layers. */
static void computed_is_allocated(void **state)
{
	(void)state;
	static const char *const names[] = { "llama-a", "mixtral-a", "mixtral-b", "olmoe-a", "olmoe-b", "qwen3moe-a",
		"qwen3moe-b" };
	for (size_t i = 0; i < 4 * sizeof names / sizeof *names; i++) {
		enum cad_weights storage = (enum cad_weights)(i % 4);
		struct cad_model *model;
		struct rt_weights weights;
		struct cad_error error;
		char directory[512];
		snprintf(directory, sizeof directory, CADRE_SOURCE_DIR "/tests/golden/%s/model", names[i / 4]);
		must(cad_model_open(directory, &model, &error), &error);
		must(rt_weights_init(&weights, device, model, storage, &error), &error);
		assert_int_equal(kn_router_bytes(device, model, storage), weights_bytes(&weights));
		rt_weights_fini(&weights);
		expert_is_as_computed(model, storage);
		cad_model_close(model);
	}
}

static int create(void **state)
{
	(void)state;
	return kn_device_open(&(struct kn_device_options){ 0 }, &device, NULL);
}

static int destroy(void **state)
{
	(void)state;
	device->ops->destroy(device);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(computed_is_allocated) };
	return cmocka_run_group_tests_name("packed", tests, create, destroy);
}
