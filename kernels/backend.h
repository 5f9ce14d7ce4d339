/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Devices that come as shared libraries, opened when they are asked for: lib/cadre/libcadre-NAME.so
 * beside the folder of the program, or in the folder that CADRE_BACKENDS names. A library shows one
 * symbol, `kn_backend`, and nothing of what it is made of, so that two of them can be open at once.
 * It stays open until the process ends.
 */
#ifndef CADRE_KERNELS_BACKEND_H
#define CADRE_KERNELS_BACKEND_H

#include "kernels/kernels.h"

struct kn_backend {
	/* A library of another version, or whose table has another size, is refused. */
	const char *version;
	size_t ops_bytes; /* sizeof(struct kn_ops) */
	enum cad_status (*open)(unsigned index, struct kn_device **device, struct cad_error *error);
};

/* The device `index` of the library NAME. CAD_ERR_NOT_FOUND and a sentence: the library is not there,
 * or it finds no driver or no GPU at all. Any other error: there is something, and it cannot be used. */
CAD_MUST_USE enum cad_status kn_backend_open(
	const char *name, unsigned index, struct kn_device **device, struct cad_error *error);

#endif
