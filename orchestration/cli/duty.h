/* SPDX-License-Identifier: Apache-2.0 */
/* What an expert node is for, as commands print it. Any thread. */
#ifndef CADRE_ORCHESTRATION_CLI_DUTY_H
#define CADRE_ORCHESTRATION_CLI_DUTY_H

#include "cadre/v1/operate.pb-c.h"

/* "active", "draining", "safe_to_stop"; "": it is not known. */
const char *cl_duty_name(Cadre__V1__Duty duty);

#endif
