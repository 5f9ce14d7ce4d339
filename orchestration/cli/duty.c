/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/cli/duty.h"

const char *cl_duty_name(Cadre__V1__Duty duty)
{
	switch (duty) {
	case CADRE__V1__DUTY__DUTY_ACTIVE: return "active";
	case CADRE__V1__DUTY__DUTY_DRAINING: return "draining";
	case CADRE__V1__DUTY__DUTY_SAFE_TO_STOP: return "safe_to_stop";
	default: return "";
	}
}
