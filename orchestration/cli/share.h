/* SPDX-License-Identifier: Apache-2.0 */
/* Shares as people write them. Pure; any thread. */
#ifndef CADRE_ORCHESTRATION_CLI_SHARE_H
#define CADRE_ORCHESTRATION_CLI_SHARE_H

#include <stdbool.h>

/* "12%" or "0.12", not below 0. */
bool cl_share_parse(const char *text, double *share);

#endif
