/* SPDX-License-Identifier: Apache-2.0 */
/* A directory with the two files of a model, for fuzzers that write them; and what every answer of a
 * reader must be. */
#ifndef CADRE_TESTS_FUZZ_MODEL_DIRECTORY_H
#define CADRE_TESTS_FUZZ_MODEL_DIRECTORY_H

#include "common/base/status.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static inline void directory_write(const char *directory, const char *name, const void *bytes, size_t size)
{
	char path[64];
	snprintf(path, sizeof path, "%s/%s", directory, name);
	FILE *file = fopen(path, "wb");
	CAD_ASSERT(file && fwrite(bytes, 1, size, file) == size && fclose(file) == 0);
}

/* At exit. */
static inline void directory_remove(const char *directory)
{
	static const char *const names[] = { "config.json", "model.safetensors" };
	char path[64];
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		snprintf(path, sizeof path, "%s/%s", directory, names[i]);
		(void)remove(path);
	}
	(void)remove(directory);
}

/* Good, or an error with a sentence. */
static inline bool is_good(enum cad_status status, const struct cad_error *error)
{
	CAD_ASSERT(status == CAD_OK || (status < 0 && error->status == status && strlen(error->text) > 0));
	return status == CAD_OK;
}

#endif
