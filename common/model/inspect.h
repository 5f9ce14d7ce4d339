/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is in a checkpoint and what it needs, for people and for scripts: `cadrectl model inspect
 * DIR`.
 *
 * Borrows everything, writes to the stream, allocates for JSON only. Any thread.
 */
#ifndef CADRE_COMMON_MODEL_INSPECT_H
#define CADRE_COMMON_MODEL_INSPECT_H

#include "common/model/fit.h"
#include "common/model/model.h"

#include <stdio.h>

struct json_t;

/* "1.5 GiB"; "46.7 B". */
const char *cad_model_bytes_text(uint64_t bytes, char text[32]);
const char *cad_model_count_text(uint64_t count, char text[32]);

/* Lines of a table: parameters; values of the KV cache; and what there is to say of a cluster's memory, which is nothing where it is
 * not said. */
void cad_model_parameters_print(const struct cad_model_sizes *sizes, FILE *stream);
void cad_model_kv_print(const struct cad_model_packed *packed, const struct cad_model_spec *spec, FILE *stream);
void cad_model_fit_print(const struct cad_model_fit *fit, const struct cad_model_cluster *cluster, FILE *stream);
/* {"nodes": {...}, "router": {...}}, null where it is not said; NULL: no memory. */
struct json_t *cad_model_fit_json(const struct cad_model_fit *fit, const struct cad_model_cluster *cluster);

/* A table for people, or one JSON object with a newline. CAD_ERR_IO when the stream fails,
 * CAD_ERR_INVALID for 0 nodes. */
CAD_MUST_USE enum cad_status cad_model_inspect(const struct cad_model *model, const struct cad_model_packed *packed,
	const struct cad_model_cluster *cluster, FILE *stream, bool json, struct cad_error *error);

#endif
