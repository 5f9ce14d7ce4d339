/* SPDX-License-Identifier: Apache-2.0 */
/*
 * run/cluster.json, which `./cadre up` writes: where the processes of the cluster on this machine
 * are, so that commands find them without options. CADRE_RUN names another directory than run/, as
 * for `./cadre up`.
 */
#ifndef CADRE_ORCHESTRATION_CLI_CLUSTER_FILE_H
#define CADRE_ORCHESTRATION_CLI_CLUSTER_FILE_H

#include "orchestration/cli/access.h"

struct json_t;

/* Zeroed; owns what the calls hand out, until cl_cluster_fini. */
struct cl_cluster {
	struct json_t *root;
	char *routers, *path;
};

/* The gRPC addresses, those of routers joined by commas, and in `access` the TLS files by which
 * they are reached, unless it names some already. CAD_ERR_NOT_FOUND and a sentence: there is no
 * such file. */
CAD_MUST_USE enum cad_status cl_cluster_routers(
	struct cl_cluster *cluster, const char **addresses, struct cl_access *access, struct cad_error *error);
CAD_MUST_USE enum cad_status cl_cluster_placement(
	struct cl_cluster *cluster, const char **address, struct cl_access *access, struct cad_error *error);
void cl_cluster_fini(struct cl_cluster *cluster);

#endif
