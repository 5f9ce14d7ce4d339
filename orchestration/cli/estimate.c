/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/cli/estimate.h"

#include "common/base/clock.h"

#include <math.h>
#include <string.h>

enum { TRIALS = 16 };

static double longer(double bytes, double multiply_adds, const struct cl_rates *rates, enum cl_rate_form form)
{
	return fmax(bytes / rates->form[form].read, multiply_adds / rates->form[form].multiply_adds);
}

/* ---- the router ---- */

/* Norms count with the products: they are few. Of the head only some rows are asked. */
static double router_seconds(const struct cad_model *model, const struct cl_cluster *cluster,
	const struct cl_rates *rates, const struct cl_load *load)
{
	const struct cad_model_spec *spec = cad_model_spec(model);
	struct cad_model_sizes sizes = cad_model_sizes(model);
	double head = (double)spec->vocab * spec->hidden,
	       layers = (double)(sizes.parameters - sizes.routed_parameters - sizes.looked_up) - head;

	return longer((double)(cluster->packed.router - cluster->table_bytes),
		load->rows * layers + load->logits * head, rates, cl_rate_form_of(cluster->router));
}

/* Multiply-adds of one row with one key and its value, in a layer. */
static double key_work(const struct cad_attention_spec *a)
{
	bool latent = a->kind == CAD_ATTENTION_LATENT; /* every head with all of what is kept */
	return (double)a->heads * (latent ? 2 * a->kv_rank + a->rope_size : a->head_size + a->value_size);
}

/* Values that are kept of a key, in a layer. */
static double key_values(const struct cad_attention_spec *a)
{
	bool latent = a->kind == CAD_ATTENTION_LATENT;
	return latent ? a->kv_rank + a->rope_size : (double)a->kv_heads * (a->head_size + a->value_size);
}

/* Layers see as many keys as their windows let them; those of other sequences are others. */
static double keys_seconds(const struct cad_model *model, const struct cl_cluster *cluster,
	const struct cl_rates *rates, const struct cl_load *load)
{
	const struct cad_model_spec *spec = cad_model_spec(model);
	const struct cad_model_packed *packed = &cluster->packed;
	double work = 0, values = 0, value_bytes = (double)packed->kv_per_token / (double)packed->kv_values;

	for (uint32_t i = 0; i < spec->layers_count; i++) {
		const struct cad_attention_spec *a = cad_attention_of(spec, i);
		uint32_t window = spec->layers[i].window;
		double keys = window && window < load->keys ? window : load->keys;
		work += keys * key_work(a);
		values += keys * key_values(a);
	}
	return longer(load->sequences * values * value_bytes, load->rows * work, rates, CL_RATE_FLOATS);
}

/* ---- experts ---- */

/* What one layer's rows ask of each node. */
struct drawn {
	uint32_t read[CAD_NODES_MAX];  /* different experts */
	uint32_t pairs[CAD_NODES_MAX]; /* of row and expert */
	uint32_t sent[CAD_NODES_MAX];  /* rows */
	uint32_t last[CAD_NODES_MAX];  /* row that was sent there last, from 1 */
	bool chosen[CAD_EXPERTS_MAX];
};

/* Every row chooses K different experts, all of them alike. Expert e of the layer is on node (first + e) % nodes. */
static void draw(const struct cad_gate_spec *gate, uint32_t nodes, uint32_t rows, uint32_t first,
	struct cad_random *random, struct drawn *drawn)
{
	uint16_t order[CAD_EXPERTS_MAX];
	memset(drawn, 0, sizeof *drawn);
	for (uint32_t e = 0; e < gate->experts; e++)
		order[e] = (uint16_t)e;

	for (uint32_t row = 0; row < rows; row++)
		for (uint32_t k = 0; k < gate->topk; k++) {
			uint32_t other = k + (uint32_t)cad_random_below(random, gate->experts - k);
			uint16_t expert = order[other];
			order[other] = order[k];
			order[k] = expert;
			uint32_t node = (first + expert) % nodes;
			drawn->pairs[node]++;
			drawn->read[node] += !drawn->chosen[expert];
			drawn->chosen[expert] = true;
			drawn->sent[node] += drawn->last[node] != row + 1;
			drawn->last[node] = row + 1;
		}
}

/* Adds up one layer: the node that takes longest, and what goes to all of them. */
static void add_layer(const struct cad_model *model, const struct cl_cluster *cluster, const struct cl_rates *rates,
	const struct cl_load *load, const struct drawn *drawn, struct cl_estimate *sum)
{
	const struct cad_model_spec *spec = cad_model_spec(model);
	double longest = 0, read = 0, sent = 0, each = 3.0 * spec->hidden * spec->expert.size;

	for (uint32_t n = 0; n < cluster->nodes; n++) {
		double seconds = longer((double)cluster->packed.expert * drawn->read[n], each * drawn->pairs[n], rates,
			cl_rate_form_of(cluster->experts));
		longest = fmax(longest, drawn->pairs[n] ? seconds + rates->step_s : 0);
		read += drawn->read[n];
		sent += drawn->sent[n];
	}
	sum->experts_s += longest;
	sum->exchange_s += rates->call_s + sent * (double)cluster->row_bytes * rates->byte_s;
	sum->experts += read;
	sum->nodes += sent / load->rows;
}

static void add_experts(const struct cad_model *model, const struct cl_cluster *cluster, const struct cl_rates *rates,
	const struct cl_load *load, struct cl_estimate *estimate)
{
	const struct cad_model_spec *spec = cad_model_spec(model);
	struct cad_random random = { 17 };
	struct cl_estimate sum = { 0 };
	struct drawn drawn;
	uint32_t layers = cad_model_spec_moe_layers(spec);
	if (layers == 0)
		return;

	for (uint32_t trial = 0; trial < TRIALS; trial++) {
		draw(&spec->gate, cluster->nodes, load->rows, trial * spec->gate.experts, &random, &drawn);
		add_layer(model, cluster, rates, load, &drawn, &sum);
	}
	estimate->experts_s = sum.experts_s * layers / TRIALS;
	estimate->exchange_s = sum.exchange_s * layers / TRIALS;
	estimate->experts = sum.experts / TRIALS;
	estimate->nodes = sum.nodes / TRIALS;
}

struct cl_estimate cl_estimate_step(const struct cad_model *model, const struct cl_cluster *cluster,
	const struct cl_rates *rates, const struct cl_load *load)
{
	CAD_ASSERT(load->rows > 0 && cluster->nodes > 0 && cluster->nodes <= CAD_NODES_MAX);
	struct cl_estimate estimate = {
		.router_s = router_seconds(model, cluster, rates, load),
		.keys_s = keys_seconds(model, cluster, rates, load),
	};

	add_experts(model, cluster, rates, load, &estimate);
	estimate.step_s = estimate.router_s + estimate.keys_s + estimate.experts_s + estimate.exchange_s;
	return estimate;
}
