/* SPDX-License-Identifier: Apache-2.0 */
#include "router-svc/stages.h"

const char *const rt_stage_names[RT_STAGE_COUNT] = { "embed", "attention", "gate", "dispatch", "shared", "wait",
	"combine", "dense", "head", "sample" };
