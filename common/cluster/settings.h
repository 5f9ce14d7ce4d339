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
	enum cad_profile profile;        /* of routed experts */
	enum cad_profile router_profile; /* of all other products with weights, but the gate's: that one is f32 */
	enum cadre_row_type wire;
	enum cad_weights weights; /* of what is computed in f32: as stored, or rounded */
	enum cad_kv kv;
	uint32_t layers;
	float *quanta; /* [layers]: powers of two, 0 for dense layers */
};

/* What options may leave open: the wire that goes with the profile, and a router_profile that is
 * the experts' (bf16 with bf16-sm90, which routers do not compute in). */
#define CAD_WIRE_AUTO ((enum cadre_row_type)0)
#define CAD_PROFILE_SAME ((enum cad_profile)255)

/* Fills in what is left open. CAD_ERR_INVALID: a wire or weights that the profile does not have. */
CAD_MUST_USE enum cad_status cad_settings_complete(struct cad_settings *settings, struct cad_error *error);
/* For options that are checked before anything is done with them. */
CAD_MUST_USE enum cad_status cad_settings_check(const struct cad_settings *settings, struct cad_error *error);

/* A copy of complete settings with a table of its own. CAD_ERR_INVALID: they do not go together, or
 * a quantum is neither 0 nor a normal power of two. */
CAD_MUST_USE enum cad_status cad_settings_init(
	struct cad_settings *settings, const struct cad_settings *from, struct cad_error *error);
void cad_settings_fini(struct cad_settings *settings); /* takes a zeroed struct too */

/* How weights are kept: those of routed experts, and all others (but see kernels/source.h). */
enum cad_weights cad_settings_expert_weights(const struct cad_settings *settings);
enum cad_weights cad_settings_router_weights(const struct cad_settings *settings);

/* "profile=f32 router=f32 wire=fix16 weights=f32 kv=f32 quanta=16:5f2b90c1": the table by its
 * length and the beginning of its hash. 80 bytes at most: two of them fit in a refusal. */
void cad_settings_text(const struct cad_settings *settings, char text[CADRE_TEXT_BYTES]);
/* XXH3-128 over all of it, 32 hex digits. */
void cad_settings_fingerprint(const struct cad_settings *settings, char hex[33]);

/* "f32", "fix16", "bf16" and so on; parse: CAD_ERR_INVALID for what a cluster cannot be set to. */
const char *cad_profile_name(enum cad_profile profile);
const char *cad_wire_name(enum cadre_row_type wire);
const char *cad_kv_name(enum cad_kv kv);
CAD_MUST_USE enum cad_status cad_profile_parse(const char *name, enum cad_profile *profile);
CAD_MUST_USE enum cad_status cad_wire_parse(const char *name, enum cadre_row_type *wire);
CAD_MUST_USE enum cad_status cad_weights_parse(const char *name, enum cad_weights *weights);
CAD_MUST_USE enum cad_status cad_kv_parse(const char *name, enum cad_kv *kv);

/* For option tables; with "auto" and "same" for what may be left open. */
extern const struct cad_choice cad_profile_choices[], cad_router_profile_choices[], cad_wire_choices[],
	cad_weights_choices[], cad_kv_choices[];
/* Lines of an option table; `member` is a struct cad_settings inside `owner`, `where` begins each
 * text. */
#define CAD_SETTINGS_OPTIONS(owner, member, where) \
	CAD_OPTION_ENUM(owner, member.wire, "wire", "auto", cad_wire_choices, \
		where \
		"how rows go to the experts; auto: fix16 with --numerics f32, bf16 with bf16 and bf16-sm90, q8 with int8 and int4"), \
		CAD_KEPT_OPTIONS(owner, member, where)
/* Those that say what is kept in memory. */
#define CAD_KEPT_OPTIONS(owner, member, where) \
	CAD_OPTION_ENUM(owner, member.profile, "numerics", "f32", cad_profile_choices, \
		where \
		"in which numbers experts compute; bf16: weights and activations; bf16-sm90: the same, summed as Hopper's tensor cores do; int8, int4: weights of so many bits, activations of 8"), \
		CAD_OPTION_ENUM(owner, member.router_profile, "router-numerics", "same", cad_router_profile_choices, \
			where \
			"in which numbers attention projections, dense and shared ffns and the head compute; same: as --numerics says, and bf16 with bf16-sm90"), \
		CAD_OPTION_ENUM(owner, member.weights, "weights", "f32", cad_weights_choices, \
			where "how weights are kept that compute in f32; f32: as stored, lossless; bf16: rounded"), \
		CAD_OPTION_ENUM(owner, member.kv, "kv", "f32", cad_kv_choices, \
			where \
			"how routers keep keys and values; f32: as computed; bf16: rounded, in half the memory; int8: in a quarter")

#endif
