/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one table of architectures: which exist, which run, how each one's config.json becomes a
 * spec, and how each names its tensors.
 *
 * Internal to common/model. Constant data; any thread may read it.
 */
#ifndef CADRE_COMMON_MODEL_ARCHS_H
#define CADRE_COMMON_MODEL_ARCHS_H

#include "common/model/keys.h"
#include "common/model/roles.h"
#include "common/model/spec.h"

#include <stddef.h>

/* `{l}` is the layer, `{e}` the expert. */
struct cad_tensor_name {
	enum cad_role role;
	const char *pattern;
};

/* A key of config.json that changes nothing has a reason. */
struct cad_known_key {
	const char *key;  /* "rope_scaling.NAME": inside of rope_scaling and rope_parameters */
	const char *why;  /* it changes nothing; NULL: it is read */
	const char *only; /* if it has this value, as JSON; NULL: whatever the value */
};
#define CAD_READ(key) \
	{ \
		key, NULL, NULL \
	}
#define CAD_NO_USE(key, why) \
	{ \
		key, why, NULL \
	}
#define CAD_ONLY(key, why, value) \
	{ \
		key, why, value \
	}
#define CAD_KEY_ORIGIN "says where the model comes from or what it is for"
#define CAD_KEY_TRAINING "training"
#define CAD_KEY_LIBRARY "how a library computes it, not what"
#define CAD_KEY_LABELS "classification"
#define CAD_KEY_NO_TEXT "a token that no text needs"
#define CAD_KEY_GENERATION "generation; a request says its own"
#define CAD_KEY_UNREAD "not read in this family"
#define CAD_KEY_NO_MTP "layers that predict further tokens are not used"
#define CAD_KEY_ALWAYS "it is so in this family"
#define CAD_KEY_NO_ENCODER "there is no encoder"

/* How a layer's experts lie in one tensor, where a file has them so. Which form a file has is not the
 * family's matter: transformers 5 writes the one that it read. */
enum cad_fused {
	CAD_FUSED_NONE, /* none that runs here has another way */
	CAD_FUSED_ROWS, /* gate and up [E][2F][H], all of gate first; down [E][H][F] */
	/* Inputs before outputs: gate and up [E][H][2F], all of gate first; down [E][F][H]. So write aria_text
	 * ("experts.fc1.weight", "experts.fc2.weight", names of its own), llama4_text and qwen3_vl_moe. */
	CAD_FUSED_COLUMNS,
	/* The same, a column of gate and one of up in turn; their biases [E][2F] likewise, down's [E][H]. In MXFP4,
	 * where outputs stand before inputs, rows are in turn. So writes gpt_oss. */
	CAD_FUSED_IN_TURN,
};

struct cad_arch {
	const char *name;   /* model_type */
	bool runs;          /* false: the config parses, but the engine has no code for it yet */
	uint32_t head_size; /* head_dim, if the config does not say; 0: hidden_size over heads */
	double rope_theta;  /* if the config does not say */
	/* In families whose layers rotate by their type: theta of sliding layers, if the config does not
	 * say, and the key beside rope_theta that some say it with, or NULL. 0: all rotate alike */
	double rope_sliding_theta;
	const char *rope_sliding_key;
	double rope_partial; /* partial_rotary_factor, if the config does not say; 0: 1 */
	/* Fills what only this family has: attention, gate, ffn sizes, layers. The common part of
	 * the spec is filled already. */
	void (*read)(const struct cad_keys *keys, struct cad_model_spec *spec);
	bool dense; /* has no experts, and so none of their keys */
	/* Keys of config.json that not all families have: all that `read` looks at, and those of no
	 * consequence (known_keys.h). */
	const struct cad_known_key *keys;
	size_t keys_count;
	const struct cad_tensor_name *names; /* looked at before the common names (tensors.c); may be NULL */
	size_t names_count;
	enum cad_fused fused;
	/* Names of fused tensors of its own, of EXPERT_GATE (with UP), EXPERT_DOWN, their biases, and SHARED_GATE
	 * (with UP: [2F][H]); they go before what `fused` says. */
	const struct cad_tensor_name *fused_names;
	size_t fused_names_count;
	/* A part of names that transformers 5 calls otherwise, and what it calls it: files have
	 * either. NULL: none. */
	const char *renamed, *renamed_to;
};

const struct cad_arch *cad_arch_find(const char *name); /* NULL: unknown */
/* "mixtral, olmoe, ...": those that run, as many as there is room for, and where the others are. */
const char *cad_arch_list(char *text, size_t bytes);

#endif
