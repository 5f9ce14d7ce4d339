/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/must.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

void must_at(enum cad_status status, const struct cad_error *error, const char *call, const char *file, int line)
{
	if (status == CAD_OK)
		return;

	print_error(
		"%s: %s: %s\n", call, cad_status_name(status), error->status == status ? error->text : "(no sentence)");
	_fail(file, line);
}
