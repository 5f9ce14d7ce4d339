/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/golden_config.h"

#include "common/model/config.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

json_t *golden_config(const char *name)
{
	char path[256];
	bool published = strncmp(name, "configs/", 8) == 0;
	snprintf(path, sizeof path, CADRE_SOURCE_DIR "/tests/%s%s%s", published ? "" : "golden/", name,
		published ? ".json" : "/model/config.json");
	json_error_t problem;
	json_t *object = json_load_file(path, 0, &problem);
	if (!object)
		fail_msg("%s: %s", path, problem.text);
	return object;
}

enum cad_status golden_parse(
	json_t *object, const char *generation, struct cad_model_spec *spec, struct cad_error *error)
{
	char *text = json_dumps(object, 0);
	assert_non_null(text);
	enum cad_status status = cad_model_spec_parse(
		"config.json", text, strlen(text), generation, generation ? strlen(generation) : 0, spec, error);
	free(text);
	json_decref(object);
	return status;
}

json_t *golden_change(json_t *object, const char *values)
{
	json_error_t problem;
	json_t *changes = json_loads(values, 0, &problem);
	if (!changes)
		fail_msg("%s: %s", values, problem.text);
	const char *key;
	json_t *value;
	json_object_foreach(changes, key, value)
	{
		if (json_is_string(value) && strcmp(json_string_value(value), "(absent)") == 0)
			json_object_del(object, key);
		else
			json_object_set(object, key, value);
	}
	json_decref(changes);

	return object;
}

struct cad_model_spec golden_spec(const char *name, const char *values)
{
	struct cad_model_spec spec;
	struct cad_error error;
	if (golden_parse(golden_change(golden_config(name), values), NULL, &spec, &error) != CAD_OK)
		fail_msg("%s with %s: %s", name, values, error.text);
	return spec;
}
