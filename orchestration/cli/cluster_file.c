/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/cli/cluster_file.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define PATH "run/cluster.json"

static enum cad_status read_file(json_t **root, const char *option, struct cad_error *error)
{
	json_error_t json_error;
	*root = json_load_file(PATH, 0, &json_error);
	if (*root)
		return CAD_OK;
	if (json_error_code(&json_error) == json_error_cannot_open_file)
		return cad_error_set(error, CAD_ERR_NOT_FOUND,
			"give %s HOST:PORT (there is no " PATH " here; './cadre up' writes one)", option);
	return cad_error_set(error, CAD_ERR_CORRUPT, PATH ": %s (line %d); give %s HOST:PORT", json_error.text,
		json_error.line, option);
}

enum cad_status cl_cluster_routers(char **addresses, struct cad_error *error)
{
	json_t *root, *router;
	size_t index, used = 0;
	enum cad_status status = read_file(&root, "--router", error);

	if (status != CAD_OK)
		return status;

	const json_t *routers = json_object_get(root, "routers");
	char *joined = NULL;
	json_array_foreach(routers, index, router)
	{
		const char *grpc = json_string_value(json_object_get(router, "grpc"));
		char *grown = grpc ? realloc(joined, used + strlen(grpc) + 2) : NULL;
		if (!grown) {
			status = cad_error_set(error, CAD_ERR_CORRUPT, PATH ": routers[%zu] has no \"grpc\"", index);
			break;
		}
		joined = grown;
		if (used > 0)
			joined[used++] = ',';
		strcpy(joined + used, grpc);
		used += strlen(grpc);
	}
	json_decref(root);
	if (status == CAD_OK && !joined)
		status = cad_error_set(error, CAD_ERR_NOT_FOUND, PATH " names no routers; give --router HOST:PORT");
	if (status != CAD_OK)
		free(joined);
	else
		*addresses = joined;

	return status;
}

enum cad_status cl_cluster_placement(char **address, struct cad_error *error)
{
	json_t *root;
	enum cad_status status = read_file(&root, "--placement", error);

	if (status != CAD_OK)
		return status;

	const char *grpc = json_string_value(json_object_get(json_object_get(root, "placement"), "grpc"));
	char *copy = grpc ? strdup(grpc) : NULL;
	json_decref(root);
	if (!copy)
		return cad_error_set(
			error, CAD_ERR_NOT_FOUND, PATH " names no placement service; give --placement HOST:PORT");
	*address = copy;

	return CAD_OK;
}
