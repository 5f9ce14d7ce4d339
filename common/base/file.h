/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole files: read into memory, mapped read-only, or replaced at once.
 *
 * Paths may come from users: a directory, a pipe, a device or a missing file gives a sentence,
 * never a hang. A read text is the caller's (free); a mapping is the caller's until
 * `cad_file_unmap`. All functions block on the disk; any thread may call them.
 */
#ifndef CADRE_COMMON_BASE_FILE_H
#define CADRE_COMMON_BASE_FILE_H

#include "common/base/status.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* Does anything of this name exist, of whatever kind? */
bool cad_file_exists(const char *path);

/* For files that are read while the process serves: opening a pipe waits for somebody who writes,
 * for ever if need be. What does not exist is CAD_OK here. */
CAD_MUST_USE enum cad_status cad_file_check_regular(const char *path, struct cad_error *error);

/* The whole file, followed by a 0 that `size` does not count. CAD_ERR_NOT_FOUND, CAD_ERR_IO, or
 * CAD_ERR_EXHAUSTED above `size_max`. */
CAD_MUST_USE enum cad_status cad_file_read(
	const char *path, size_t size_max, char **bytes, size_t *size, struct cad_error *error);

/* By which a file with the same bytes is recognised without reading it: whoever writes to it,
 * replaces it or copies it changes one of them. */
struct cad_file_identity {
	uint64_t device, inode, bytes, modified_ns, changed_ns;
};

/* Maps the whole file, read-only; an empty file maps to NULL and 0. identity NULL: not asked
 * for. */
CAD_MUST_USE enum cad_status cad_file_map(const char *path, const void **bytes, size_t *size,
	struct cad_file_identity *identity, struct cad_error *error);
void cad_file_unmap(const void *bytes, size_t size);
/* A part of a mapping has been read: its pages go from this process's memory, and are mapped again
 * when they are touched. The system may keep them. */
void cad_file_forget(const void *bytes, size_t size);

/* Writes a file that appears complete or not at all: a temporary file beside it, then a rename. */
struct cad_file_writer {
	FILE *stream; /* write here; errors are sticky and answered by commit */
	char *path, *temporary;
};
CAD_MUST_USE enum cad_status cad_file_writer_open(
	struct cad_file_writer *writer, const char *path, struct cad_error *error);
/* The same for what others should not read: with mode 0600. */
CAD_MUST_USE enum cad_status cad_file_writer_open_private(
	struct cad_file_writer *writer, const char *path, struct cad_error *error);
/* Flushes to disk and renames. The writer is gone afterwards, whatever the result; on failure
 * nothing is left behind. */
CAD_MUST_USE enum cad_status cad_file_writer_commit(struct cad_file_writer *writer, struct cad_error *error);
/* Instead of commit: nothing is left behind, and what was at `path` stays. */
void cad_file_writer_abandon(struct cad_file_writer *writer);

#endif
