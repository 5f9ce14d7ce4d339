/* SPDX-License-Identifier: Apache-2.0 */
#include "common/model/fit.h"

struct cad_model_fit cad_model_fit(const struct cad_model_spec *spec, const struct cad_model_packed *packed,
	const struct cad_model_cluster *cluster)
{
	CAD_ASSERT(cluster->nodes >= 1);
	uint32_t nodes = cluster->nodes, total = cad_model_spec_moe_layers(spec) * spec->gate.experts;
	struct cad_model_fit fit = { .experts = total, .per_node = total / nodes + (total % nodes != 0) };

	fit.per_node_bytes = fit.per_node * packed->expert;
	if (cluster->node_bytes) {
		fit.room = packed->expert ? cluster->node_bytes / packed->expert : 0;
		if (fit.room > 0)
			fit.nodes_least = (uint32_t)(total / fit.room + (total % fit.room != 0));
		fit.experts_fit = fit.per_node_bytes <= cluster->node_bytes;
	}
	if (cluster->router_bytes) {
		fit.router_fits = packed->router < cluster->router_bytes;
		if (fit.router_fits && packed->kv_per_token)
			fit.kv_tokens = (cluster->router_bytes - packed->router) / packed->kv_per_token;
	}
	return fit;
}
