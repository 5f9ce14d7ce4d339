/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kn_device_open with a late device around what it opens: linked with --wrap=kn_device_open, so
 * that no program knows of it. Test programs wrap when CADRE_TEST_DEVICE=late is in the
 * environment, the programs of the preset `late` always.
 */
#include "tests/support/late_device.h"

#include <stdlib.h>
#include <string.h>

enum cad_status __real_kn_device_open(
	const struct kn_device_options *options, struct kn_device **device, struct cad_error *error);
enum cad_status __wrap_kn_device_open(
	const struct kn_device_options *options, struct kn_device **device, struct cad_error *error);

static bool wanted(void)
{
#ifdef CADRE_LATE
	return true;
#else
	const char *name = getenv("CADRE_TEST_DEVICE");
	return name && strcmp(name, "late") == 0;
#endif
}

enum cad_status __wrap_kn_device_open(
	const struct kn_device_options *options, struct kn_device **device, struct cad_error *error)
{
	struct kn_device *inner;
	enum cad_status status = __real_kn_device_open(options, &inner, error);

	if (status != CAD_OK)
		return status;
	if (!wanted()) {
		*device = inner;
		return CAD_OK;
	}
	status = late_device_create(inner, device);
	return status == CAD_OK ? CAD_OK : cad_error_set(error, status, "no memory for a late device");
}
