/* SPDX-License-Identifier: Apache-2.0 */
#include "router-svc/moe/policies.h"

#include <stdio.h>

const char *const rt_capacity_names[] = {
	[RT_CAPACITY_NONE] = "none", [RT_CAPACITY_DROP] = "drop", [RT_CAPACITY_SPILL] = "spill"
};
const char *const rt_absent_names[] = {
	[RT_ABSENT_WAIT] = "wait", [RT_ABSENT_FAIL] = "fail", [RT_ABSENT_RENORMALISE] = "renormalise"
};

void rt_policies_text(const struct rt_policies *policies, char text[RT_POLICIES_BYTES])
{
	char capacity[RT_POLICIES_BYTES / 2] = "";

	if (policies->capacity != RT_CAPACITY_NONE)
		snprintf(capacity, sizeof capacity, "/%s:%g", rt_capacity_names[policies->capacity],
			(double)policies->capacity_factor);
	snprintf(text, RT_POLICIES_BYTES, "%s%s", capacity,
		policies->absent == RT_ABSENT_RENORMALISE ? "/renormalise" : "");
}
