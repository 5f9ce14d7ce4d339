/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/cli/cluster_file.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum cad_status read_file(struct cl_cluster *cluster, const char *option, struct cad_error *error)
{
	const char *run = getenv("CADRE_RUN");
	json_error_t json_error;

	if (asprintf(&cluster->path, "%s/cluster.json", run && run[0] ? run : "run") < 0) {
		cluster->path = NULL;
		return cad_error_set(error, CAD_ERR_MEMORY, "out of memory for a path");
	}
	cluster->root = json_load_file(cluster->path, 0, &json_error);
	if (cluster->root)
		return CAD_OK;
	if (json_error_code(&json_error) == json_error_cannot_open_file)
		return cad_error_set(error, CAD_ERR_NOT_FOUND,
			"give %s HOST:PORT (there is no %s here; './cadre up' writes one)", option, cluster->path);
	return cad_error_set(error, CAD_ERR_CORRUPT, "%s: %s (line %d); give %s HOST:PORT", cluster->path,
		json_error.text, json_error.line, option);
}

static void take_access(const json_t *root, struct cl_access *access)
{
	const json_t *tls = json_object_get(root, "tls");
	if (!tls || cl_access_is_secure(access))
		return;
	access->authority = json_string_value(json_object_get(tls, "authority"));
	access->certificate = json_string_value(json_object_get(tls, "certificate"));
	access->key = json_string_value(json_object_get(tls, "key"));
}

static enum cad_status join_routers(struct cl_cluster *cluster, struct cad_error *error)
{
	const json_t *routers = json_object_get(cluster->root, "routers");
	char **addresses = &cluster->routers;
	json_t *router;
	size_t index, used = 0;

	json_array_foreach(routers, index, router)
	{
		const char *grpc = json_string_value(json_object_get(router, "grpc"));
		char *grown = grpc ? realloc(*addresses, used + strlen(grpc) + 2) : NULL;
		if (!grown)
			return cad_error_set(
				error, CAD_ERR_CORRUPT, "%s: routers[%zu] has no \"grpc\"", cluster->path, index);
		*addresses = grown;
		if (used > 0)
			grown[used++] = ',';
		strcpy(grown + used, grpc);
		used += strlen(grpc);
	}

	return used > 0 ? CAD_OK
			: cad_error_set(error, CAD_ERR_NOT_FOUND, "%s names no routers; give --router HOST:PORT",
				  cluster->path);
}

enum cad_status cl_cluster_routers(
	struct cl_cluster *cluster, const char **addresses, struct cl_access *access, struct cad_error *error)
{
	enum cad_status status = read_file(cluster, "--router", error);
	if (status == CAD_OK)
		status = join_routers(cluster, error);
	if (status != CAD_OK)
		return status;

	*addresses = cluster->routers;
	take_access(cluster->root, access);
	return CAD_OK;
}

enum cad_status cl_cluster_placement(
	struct cl_cluster *cluster, const char **address, struct cl_access *access, struct cad_error *error)
{
	enum cad_status status = read_file(cluster, "--placement", error);
	if (status != CAD_OK)
		return status;

	const char *grpc = json_string_value(json_object_get(json_object_get(cluster->root, "placement"), "grpc"));
	if (!grpc)
		return cad_error_set(error, CAD_ERR_NOT_FOUND,
			"%s names no placement service; give --placement HOST:PORT", cluster->path);
	*address = grpc;
	take_access(cluster->root, access);
	return CAD_OK;
}

void cl_cluster_fini(struct cl_cluster *cluster)
{
	json_decref(cluster->root);
	free(cluster->routers);
	free(cluster->path);
	*cluster = (struct cl_cluster){ .root = NULL };
}
