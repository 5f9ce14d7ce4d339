/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/cli/share.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

bool cl_share_parse(const char *text, double *share)
{
	char *end;
	double value = strtod(text, &end);

	if (end == text || (*end && strcmp(end, "%") != 0))
		return false;
	*share = *end ? value / 100 : value;
	return isfinite(*share) && *share >= 0;
}
