/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/backend.h"

#include "common/base/version.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* "DIR/libcadre-NAME.so"; false: it does not fit. */
static bool library_path(const char *name, char path[PATH_MAX])
{
	const char *folder = getenv("CADRE_BACKENDS");
	if (folder && *folder)
		return snprintf(path, PATH_MAX, "%s/libcadre-%s.so", folder, name) < PATH_MAX;

	char program[PATH_MAX];
	ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
	if (length <= 0)
		return false;
	program[length] = '\0';
	*strrchr(program, '/') = '\0';
	return snprintf(path, PATH_MAX, "%s/../lib/cadre/libcadre-%s.so", program, name) < PATH_MAX;
}

enum cad_status kn_backend_open(const char *name, unsigned index, struct kn_device **device, struct cad_error *error)
{
	char path[PATH_MAX];
	if (!library_path(name, path))
		return cad_error_set(
			error, CAD_ERR_UNSUPPORTED, "device '%s': where its library is cannot be said", name);
	if (access(path, R_OK) != 0)
		return cad_error_set(error, CAD_ERR_NOT_FOUND,
			"there is no device '%s': its library %s is not there; './cadre build' makes it%s", name, path,
			strcmp(name, "cuda") == 0 ? " where nvcc is, and the package cadre-cuda has it" : "");

	void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!library)
		return cad_error_set(
			error, CAD_ERR_UNSUPPORTED, "device '%s': its library cannot be opened: %s", name, dlerror());
	const struct kn_backend *backend = dlsym(library, "kn_backend");
	if (!backend || backend->ops_bytes != sizeof(struct kn_ops) || strcmp(backend->version, cad_version) != 0) {
		cad_error_set(error, CAD_ERR_UNSUPPORTED,
			"device '%s': %s is not of this build of Cadre, version %s: install both from the same build",
			name, path, cad_version);
		dlclose(library);
		return CAD_ERR_UNSUPPORTED;
	}
	return backend->open(index, device, error);
}
