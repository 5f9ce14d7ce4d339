/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The numeric settings that every process of a cluster must share, and their fingerprint: two
 * processes with equal fingerprints (and equal model fingerprints) give equal bits. They come from
 * the placement service, or from kn_quantum_table in the embedded form.
 *
 * Plain data, owned by the holder of the struct; `quanta` is its heap memory. Immutable once
 * filled, then any thread may read it.
 */
#ifndef CADRE_COMMON_CLUSTER_SETTINGS_H
#define CADRE_COMMON_CLUSTER_SETTINGS_H

#include "common/model/spec.h"
#include "common/process/options.h"
#include "common/base/status.h"
#include "proto/cadre_wire.h"

#include <stdbool.h>
#include <stdint.h>

struct cad_settings {
	enum cad_profile profile;
	enum cadre_row_type wire;
	enum cad_weights weights;
	enum cad_kv kv;
	uint32_t layers;
	float *quanta; /* [layers]: powers of two, 0 for dense layers */
};

/* A copy of `from` with a table of its own. CAD_ERR_INVALID: a quantum that is neither 0 nor a normal
 * power of two. */
CAD_MUST_USE enum cad_status cad_settings_init(
	struct cad_settings *settings, const struct cad_settings *from, struct cad_error *error);
void cad_settings_fini(struct cad_settings *settings); /* takes a zeroed struct too */

/* "profile=f32 wire=fix16 weights=f32 kv=f32 quanta=16:5f2b90c1": the table by its length and the
 * beginning of its hash. */
void cad_settings_text(const struct cad_settings *settings, char text[CADRE_TEXT_BYTES]);
/* XXH3-128 over all of it, 32 hex digits. */
void cad_settings_fingerprint(const struct cad_settings *settings, char hex[33]);

/* "f32", "fix16", "f32" | "bf16"; parse: CAD_ERR_INVALID for anything else. */
const char *cad_profile_name(enum cad_profile profile);
const char *cad_wire_name(enum cadre_row_type wire);
const char *cad_weights_name(enum cad_weights weights);
const char *cad_kv_name(enum cad_kv kv);
CAD_MUST_USE enum cad_status cad_profile_parse(const char *name, enum cad_profile *profile);
CAD_MUST_USE enum cad_status cad_wire_parse(const char *name, enum cadre_row_type *wire);
CAD_MUST_USE enum cad_status cad_weights_parse(const char *name, enum cad_weights *weights);
CAD_MUST_USE enum cad_status cad_kv_parse(const char *name, enum cad_kv *kv);

/* For option tables. */
extern const struct cad_choice cad_wire_choices[], cad_weights_choices[], cad_kv_choices[];

#endif
