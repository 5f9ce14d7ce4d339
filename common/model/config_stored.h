/* SPDX-License-Identifier: Apache-2.0 */
/* quantization_config of config.json: how others have quantised a checkpoint's matrices.
 * Internal to common/model. */
#ifndef CADRE_COMMON_MODEL_CONFIG_STORED_H
#define CADRE_COMMON_MODEL_CONFIG_STORED_H

#include "common/model/archs.h"
#include "common/model/keys.h"
#include "common/model/spec.h"

void cad_config_read_stored(const struct cad_keys *keys, const struct cad_arch *arch, struct cad_model_spec *spec);

#endif
