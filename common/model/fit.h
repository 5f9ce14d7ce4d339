/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What fits where: a model's experts spread evenly over nodes, and what a router's memory leaves for
 * keys and values. Arithmetic on sizes that a device gave (kernels/source.h).
 *
 * Plain data; any thread.
 */
#ifndef CADRE_COMMON_MODEL_FIT_H
#define CADRE_COMMON_MODEL_FIT_H

#include "common/model/spec.h"

/* What processes hold, in bytes. The device decides how weights are laid out in its memory. This
 * layer knows no device, so the caller asks it (kernels/source.h). */
struct cad_model_packed {
	const char *weights;     /* how those of experts are kept: "f32", "int8" */
	const char *kv;          /* the setting: "f32", "bf16", "int8" */
	uint64_t expert, router; /* one routed expert; a router's weights */
	uint64_t kv_per_token;   /* on a router */
	/* of a token, in all layers: values that the KV cache keeps; and those that it would keep if it had
	 * keys and values of all heads, which with latent attention are many more, else the same */
	uint64_t kv_values, kv_values_expanded;
};

struct cad_model_cluster {
	uint32_t nodes;        /* expert nodes, at least 1 */
	uint64_t node_bytes;   /* of each, for experts; 0: not said */
	uint64_t router_bytes; /* of each router, for weights and KV cache; 0: not said */
};

struct cad_model_fit {
	uint32_t experts;  /* routed ones, of all layers */
	uint32_t per_node; /* at most, when they are spread evenly, with one copy of each */
	uint64_t per_node_bytes;
	/* with node_bytes */
	uint64_t room;        /* experts that a node has memory for */
	uint32_t nodes_least; /* that hold all of them; 0: not even one expert has room */
	bool experts_fit;
	/* with router_bytes */
	bool router_fits;
	uint64_t kv_tokens; /* that the rest of its memory holds, of all sequences together */
};
struct cad_model_fit cad_model_fit(const struct cad_model_spec *spec, const struct cad_model_packed *packed,
	const struct cad_model_cluster *cluster);

#endif
