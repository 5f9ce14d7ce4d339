/* SPDX-License-Identifier: Apache-2.0 */
/*
 * must(call(..., &error), &error): the test fails unless the call returns CAD_OK, and the failure
 * says which call it was and what the error's sentence says.
 */
#ifndef CADRE_TESTS_SUPPORT_MUST_H
#define CADRE_TESTS_SUPPORT_MUST_H

#include "common/base/status.h"

#define must(status, error) must_at((status), (error), #status, __FILE__, __LINE__)

/* On the test's own thread, as every assertion of cmocka. */
void must_at(enum cad_status status, const struct cad_error *error, const char *call, const char *file, int line);

#endif
