/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/cli/rates.h"

#include "embedded/embedded.h"
#include "kernels/source.h"

const struct cad_choice cl_machine_choices[] = { { "here", CL_MACHINE_HERE }, { "xeon-2.5ghz-2", CL_MACHINE_XEON },
	{ "epyc-zen4-2", CL_MACHINE_EPYC }, { NULL, 0 } };

/*
 * xeon-2.5ghz-2: rows of avx512 with 2 threads of the results: read is that of "ffn rows 1 n 1024 k 2048", multiply-adds
 * are half of the operations of "linear rows 512 n 2048 k 2048 bf16", both as they are there; the exchange is that of
 * tcp, a line through its round trips.
 *
 * epyc-zen4-2: shares of the limits that the page's table of operators has, at the 44 GB/s of its table of steps: f32
 * 0.98 of it with one row and 0.88 of 235 GFLOP/s with many, int8 0.85 and 0.80 of 945 GOP/s, int4 0.78
 * and 0.78. Its exchange was not measured: it is the other's.
 */
static const struct cl_rates table[] = {
	[CL_MACHINE_XEON] = {
		.machine = "xeon-2.5ghz-2",
		.source = "bench/results/kernels-intel-xeon-processor-2.50ghz-2.csv and exchange-intel-xeon-processor-2.50ghz-2.csv",
		.form[CL_RATE_FLOATS] = { 21.2e9, 63.05e9 },
		.call_s = 10.6e-6,
		.byte_s = 5.54e-10,
	},
	[CL_MACHINE_EPYC] = {
		.machine = "epyc-zen4-2",
		.source = "docs/PERFORMANCE.md, and the exchange of xeon-2.5ghz-2",
		.form[CL_RATE_FLOATS] = { 43e9, 103e9 },
		.form[CL_RATE_INT8] = { 37e9, 378e9 },
		.form[CL_RATE_INT4] = { 34e9, 368e9 },
		.call_s = 10.6e-6,
		.byte_s = 5.54e-10,
	},
};

enum cl_rate_form cl_rate_form_of(enum cad_weights weights)
{
	return weights == CAD_WEIGHTS_INT8 ? CL_RATE_INT8 : weights == CAD_WEIGHTS_INT4 ? CL_RATE_INT4 : CL_RATE_FLOATS;
}

const struct cl_rates *cl_rates_of(uint32_t machine)
{
	CAD_ASSERT(machine == CL_MACHINE_XEON || machine == CL_MACHINE_EPYC);
	return &table[machine];
}

static enum cad_status measure(struct kn_device *device, const struct cad_model *model, enum cad_weights weights,
	unsigned threads, struct cl_rates *rates, struct cad_error *error)
{
	const struct cad_model_spec *spec = cad_model_spec(model);
	struct em_speed speed = { 0 };
	uint32_t layer = 0;
	enum cl_rate_form form = cl_rate_form_of(weights);
	if (rates->form[form].read > 0)
		return CAD_OK;

	while (layer + 1 < spec->layers_count && !spec->layers[layer].moe)
		layer++;
	struct kn_expert_source like =
		spec->layers[layer].moe ? kn_expert_source_of(model, layer, 0) : kn_ffn_source_of(model, layer);
	enum cad_status status = em_speed_measure(device, &like, weights, threads, &speed);
	if (status != CAD_OK)
		return cad_error_set(error, status, "this machine's speed could not be measured; give --machine");
	rates->form[form].read = speed.read_bytes_per_second;
	rates->form[form].multiply_adds = speed.multiply_adds_per_second;
	rates->step_s = speed.step_s;
	return CAD_OK;
}

enum cad_status cl_rates_measure(struct kn_device *device, const struct cad_model *model, enum cad_weights experts,
	enum cad_weights router, unsigned threads, struct cl_rates *rates, struct cad_error *error)
{
	/* keys, values and the gate are floats whatever the weights are */
	const enum cad_weights kinds[] = { experts, router, CAD_WEIGHTS_AS_IS };
	struct cl_rates made = {
		.machine = "here",
		.source = "measured now; the exchange of xeon-2.5ghz-2",
		.call_s = table[CL_MACHINE_XEON].call_s,
		.byte_s = table[CL_MACHINE_XEON].byte_s,
	};
	enum cad_status status = CAD_OK;

	for (size_t i = 0; i < sizeof kinds / sizeof *kinds && status == CAD_OK; i++)
		status = measure(device, model, kinds[i], threads, &made, error);
	if (status == CAD_OK)
		*rates = made;
	return status;
}
