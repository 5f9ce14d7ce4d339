/* SPDX-License-Identifier: Apache-2.0 */
/* The rotary embedding of a config.json. Internal to common/model. */
#ifndef CADRE_COMMON_MODEL_CONFIG_ROPE_H
#define CADRE_COMMON_MODEL_CONFIG_ROPE_H

#include "common/model/archs.h"

/* Fills the rotations but for their sizes, which the family says, and how many positions they cover. */
void cad_config_read_rope(const struct cad_keys *keys, const struct cad_arch *arch, struct cad_model_spec *spec);
/* Once the size is known: whether a part of each head can rotate as the config asks. */
void cad_config_check_rope(const struct cad_keys *keys, struct cad_model_spec *spec);

#endif
