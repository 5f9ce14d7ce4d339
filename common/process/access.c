/* SPDX-License-Identifier: Apache-2.0 */
#include "common/process/access.h"

#include "common/process/bearer.h"

#include <stdio.h>

enum cad_status cad_access_bearer(const char *token_file, char **bearer, struct cad_error *error)
{
	struct cad_bearers bearers;
	char *text;
	enum cad_status status = cad_bearers_read(token_file, &bearers, error);
	if (status != CAD_OK)
		return status;

	if (asprintf(&text, "Bearer %s", bearers.entries[0].token) >= 0)
		*bearer = text;
	else
		status = cad_error_set(error, CAD_ERR_MEMORY, "no memory for the token of '%s'", token_file);
	cad_bearers_fini(&bearers);

	return status;
}
