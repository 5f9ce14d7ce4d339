/* SPDX-License-Identifier: Apache-2.0 */
/* A golden checkpoint (without its tokenizer), copied to a folder of its own where a test may
 * damage it. cmocka assertions; one thread. */
#ifndef CADRE_TESTS_SUPPORT_GOLDEN_COPY_H
#define CADRE_TESTS_SUPPORT_GOLDEN_COPY_H

#include <stddef.h>

struct golden_copy {
	char directory[64];
};
struct golden_copy golden_copy_create(const char *name); /* "mixtral-a" */
void golden_copy_remove(struct golden_copy *copy);
/* "DIRECTORY/name", valid until the next but one call. */
char *golden_copy_path(const struct golden_copy *copy, const char *name);
/* Replaces a file. */
void golden_copy_write(const char *path, const void *bytes, size_t size);

#endif
