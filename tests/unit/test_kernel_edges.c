/* SPDX-License-Identifier: Apache-2.0 */
/* Edges of small kernels: exp over its whole range, NaN through the gate, signed zeros among the
 * choices. */
#include "kernels/cpu/forms.h"
#include "kernels/exp.h"
#include "kernels/kernels.h"
#include "tests/support/op_cases.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const enum kn_isa isas[] = { KN_ISA_REF, KN_ISA_AVX2, KN_ISA_AVX512, KN_ISA_AMX };

static float from_bits(uint32_t bits)
{
	float x;
	memcpy(&x, &bits, sizeof x);
	return x;
}

/* One bit pattern in 65521, all exponents and both signs: within an ulp where the result is normal,
 * and the same bits in every form. */
static void exp_is_accurate_and_the_same_in_every_form(void **state)
{
	(void)state;
	double worst = 0;
	enum { BATCH = 29 }; /* not a multiple of any lane count */
	float x[BATCH], y[BATCH];
	for (uint64_t bits = 0; bits < (1ull << 32) - BATCH * 65521ull;) {
		for (size_t i = 0; i < BATCH; i++, bits += 65521)
			x[i] = from_bits((uint32_t)bits);
		for (size_t f = 0; f < sizeof isas / sizeof isas[0]; f++) {
			const struct kn_form *form = kn_form_find(isas[f]);
			if (!form)
				continue;
			form->exp(x, BATCH, y);
			for (size_t i = 0; i < BATCH; i++) {
				float want = kn_exp(x[i]);
				if (memcmp(&want, &y[i], sizeof want) != 0 && !(isnan(want) && isnan(y[i])))
					fail_msg("%s: exp(%a) is %a, not %a", form->name, (double)x[i], (double)y[i],
						(double)want);
			}
		}
		for (size_t i = 0; i < BATCH; i++) {
			double exact = exp((double)x[i]);
			if (x[i] > -85 && x[i] < 88)
				worst = fmax(worst, fabs((double)kn_exp(x[i]) - exact) / (exact * 0x1p-23));
		}
	}

	if (!(worst < 1))
		fail_msg("exp is off by %.3f of 2^-23", worst);
	assert_true(kn_exp(-87) == 0 && kn_exp(-INFINITY) == 0 && kn_exp(0) == 1);
	assert_true(kn_exp(100) == kn_exp(88) && kn_exp(INFINITY) == kn_exp(88));
	assert_true(isnan(kn_exp(NAN)) && isnan(kn_exp(-NAN)));
}

static void gate(enum kn_isa isa, const struct cad_gate_spec *spec, const float *logits, int32_t *ids, float *weights)
{
	struct kn_device *device;
	struct kn_queue *queue;
	struct cad_error error;

	memset(ids, 0xff, spec->topk * sizeof *ids);
	if (kn_device_open(&(struct kn_device_options){ .isa = isa }, &device, &error) != CAD_OK) {
		gate(KN_ISA_REF, spec, logits, ids, weights);
		return;
	}

	assert_int_equal(device->ops->queue_create(device, 1, &queue), CAD_OK);
	size_t row_bytes = kn_ld(spec->experts) * sizeof *logits, bytes = spec->topk * sizeof *ids;
	float *row = op_upload(queue, logits, row_bytes), *chosen_weights = op_alloc(queue, bytes);
	int32_t *chosen = op_alloc(queue, bytes);
	queue->ops->gate(queue,
		&(struct kn_gate){
			.spec = spec,
			.logits = row,
			.ld = kn_ld(spec->experts),
			.rows = 1,
			.ids = chosen,
			.weights = chosen_weights,
		});
	queue->ops->copy_out(queue, ids, chosen, bytes);
	queue->ops->copy_out(queue, weights, chosen_weights, bytes);
	assert_int_equal(queue->ops->wait(queue), CAD_OK);
	device->ops->release(device, row, row_bytes);
	device->ops->release(device, chosen, bytes);
	device->ops->release(device, chosen_weights, bytes);
	device->ops->queue_destroy(queue);
	device->ops->destroy(device);
}

static void gate_gives_valid_ids_for_nan(void **state)
{
	(void)state;
	_Alignas(64) float logits[96];
	for (size_t f = 0; f < sizeof isas / sizeof isas[0]; f++)
		for (int kind = 0; kind < 4; kind++) {
			struct cad_gate_spec spec = {
				.experts = 20,
				.topk = 5,
				.score = kind % 2 ? CAD_SCORE_SIGMOID : CAD_SCORE_SOFTMAX,
				.groups = kind < 2 ? 1 : 4,
				.groups_kept = kind < 2 ? 1 : 2,
				.group_score = CAD_GROUP_SCORE_TOP2,
				.renormalise = true,
				.scale = 1,
			};
			for (size_t nans = 1; nans <= 20; nans++) {
				int32_t ids[5];
				float weights[5];
				bool seen[20] = { false }, finite = true;
				for (size_t e = 0; e < 20; e++)
					logits[e] = e * 7 % 20 < nans ? NAN : (float)e;
				gate(isas[f], &spec, logits, ids, weights);
				for (size_t k = 0; k < 5; k++) {
					assert_in_range(ids[k], 0, 19);
					assert_false(seen[ids[k]]);
					seen[ids[k]] = true;
					finite = finite && isfinite(weights[k]);
				}
				/* sigmoid scores stand alone: the others may be chosen in good
				 * faith */
				if (spec.score == CAD_SCORE_SOFTMAX || nans > 15)
					assert_false(finite);
			}
		}
}

static void gate_takes_both_zeros_as_equal(void **state)
{
	(void)state;
	_Alignas(64) float logits[96] = { -0.0f, 0.0f, -0.0f, 0.0f };
	const struct cad_gate_spec spec = {
		.experts = 4,
		.topk = 3,
		.softmax_after_topk = true,
		.groups = 1,
		.groups_kept = 1,
		.scale = 1,
	};
	int32_t ids[3];
	float weights[3];
	for (size_t f = 0; f < sizeof isas / sizeof isas[0]; f++) {
		gate(isas[f], &spec, logits, ids, weights);
		assert_true(ids[0] == 0 && ids[1] == 1 && ids[2] == 2 && weights[0] == 1.0f / 3.0f);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(exp_is_accurate_and_the_same_in_every_form),
		cmocka_unit_test(gate_gives_valid_ids_for_nan),
		cmocka_unit_test(gate_takes_both_zeros_as_equal),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
