/* SPDX-License-Identifier: Apache-2.0 */
/* The language model inside of a checkpoint of something larger (text_config). Internal to
 * common/model. */
#ifndef CADRE_COMMON_MODEL_NESTED_H
#define CADRE_COMMON_MODEL_NESTED_H

#include "common/model/shards.h"

/* Leaves the tensors of the language model, under the names that they have in one by itself. What else
 * the files hold is passed over, with a line of log. */
CAD_MUST_USE enum cad_status cad_shards_take_text(
	const char *directory, struct cad_shards *shards, struct cad_error *error);

#endif
