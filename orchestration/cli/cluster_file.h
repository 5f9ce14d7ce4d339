/* SPDX-License-Identifier: Apache-2.0 */
/*
 * run/cluster.json, which `./cadre up` writes: where the processes of the cluster on this machine
 * are, so that commands find them without options.
 */
#ifndef CADRE_ORCHESTRATION_CLI_CLUSTER_FILE_H
#define CADRE_ORCHESTRATION_CLI_CLUSTER_FILE_H

#include "common/base/status.h"

/* The gRPC addresses, joined by commas; the caller frees. CAD_ERR_NOT_FOUND and a sentence: there
 * is no such file below the working directory. */
CAD_MUST_USE enum cad_status cl_cluster_routers(char **addresses, struct cad_error *error);
CAD_MUST_USE enum cad_status cl_cluster_placement(char **address, struct cad_error *error);

#endif
