/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is in a checkpoint and what it needs, for people and for scripts: `cadrectl model inspect
 * DIR`.
 *
 * Borrows everything, writes to the stream, allocates for JSON only. Any thread.
 */
#ifndef CADRE_COMMON_MODEL_INSPECT_H
#define CADRE_COMMON_MODEL_INSPECT_H

#include "common/model/model.h"

#include <stdio.h>

/* What processes hold, in bytes. The device decides how weights are laid out in its memory. This
 * layer knows no device, so the caller asks it (kernels/source.h). */
struct cad_model_packed {
	const char *weights;     /* how those of experts are kept: "f32", "int8" */
	const char *kv;          /* the setting: "f32", "bf16", "int8" */
	uint64_t expert, router; /* one routed expert; a router's weights */
	uint64_t kv_per_token;   /* on a router */
};

/* What a cluster holds: sizes in bytes as stored in the checkpoint. */
struct cad_model_needs {
	uint32_t nodes;            /* expert nodes */
	uint32_t experts_total;    /* routed experts of all layers */
	uint32_t experts_per_node; /* at most, when they are spread evenly, with one copy of each */
	uint64_t bytes_per_node;
	uint64_t router_bytes; /* each router: everything but routed experts */
};
struct cad_model_needs cad_model_needs(const struct cad_model *model, uint32_t nodes); /* nodes >= 1 */

/* A table for people, or one JSON object with a newline. CAD_ERR_IO when the stream fails,
 * CAD_ERR_INVALID for 0 nodes. */
CAD_MUST_USE enum cad_status cad_model_inspect(const struct cad_model *model, const struct cad_model_packed *packed,
	uint32_t nodes, FILE *stream, bool json, struct cad_error *error);

#endif
