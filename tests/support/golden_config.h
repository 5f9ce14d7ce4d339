/* SPDX-License-Identifier: Apache-2.0 */
/* The config.json of a golden case, changed and parsed. A test that asks for what is not there fails. */
#ifndef CADRE_TESTS_SUPPORT_GOLDEN_CONFIG_H
#define CADRE_TESTS_SUPPORT_GOLDEN_CONFIG_H

#include "common/model/spec.h"

#include <jansson.h>

json_t *golden_config(const char *name); /* the caller's; "configs/NAME": of tests/configs */
/* `values` is a JSON object whose members replace those of the config; a member that is the text
 * "(absent)" removes one. Gives back the object. */
json_t *golden_change(json_t *object, const char *values);
/* Parses; consumes the object. generation_config.json may be NULL. */
enum cad_status golden_parse(
	json_t *object, const char *generation, struct cad_model_spec *spec, struct cad_error *error);
/* Of a case with changes; the caller's. */
struct cad_model_spec golden_spec(const char *name, const char *values);

#endif
