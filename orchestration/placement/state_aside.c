/* SPDX-License-Identifier: Apache-2.0 */
/* A damaged state file gets another name, so that nothing of it is lost and another one can
 * begin. */
#include "orchestration/placement/internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum { TRIES = 100, SUFFIX_BYTES = 16 };

/* A name that nothing has: the time, and a number if need be. */
static bool find_name(const char *path, char name[PL_ASIDE_BYTES])
{
	char when[32];
	time_t now = time(NULL);
	struct tm utc;
	struct stat there;

	strftime(when, sizeof when, "%Y%m%dT%H%M%SZ", gmtime_r(&now, &utc));
	for (int i = 1; i <= TRIES; i++) {
		int length = i == 1 ? snprintf(name, PL_ASIDE_BYTES, "%s.damaged-%s", path, when)
				    : snprintf(name, PL_ASIDE_BYTES, "%s.damaged-%s-%d", path, when, i);
		if (length >= PL_ASIDE_BYTES)
			return false;
		if (lstat(name, &there) != 0)
			return true;
	}
	return false;
}

/* What SQLite keeps beside a file first: a new file would take it for its own. */
static bool rename_all(const char *from, const char *to)
{
	static const char *const suffixes[] = { "-wal", "-journal", "-shm", "" };
	char old[PL_ASIDE_BYTES + SUFFIX_BYTES], new[PL_ASIDE_BYTES + SUFFIX_BYTES];

	for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
		snprintf(old, sizeof old, "%s%s", from, suffixes[i]);
		snprintf(new, sizeof new, "%s%s", to, suffixes[i]);
		if (rename(old, new) != 0 && !(errno == ENOENT && suffixes[i][0]))
			return false;
	}
	return true;
}

/* NULL: it is done; else why not. */
static const char *move(const char *file, const struct stat *found, char name[PL_ASIDE_BYTES])
{
	struct stat now;

	if (stat(file, &now) != 0)
		return strerror(errno);
	if (now.st_dev != found->st_dev || now.st_ino != found->st_ino)
		return "another process has replaced it";
	if (!find_name(file, name))
		return "no other name is free";
	return rename_all(file, name) ? NULL : strerror(errno);
}

enum cad_status pl_state_set_aside(
	const char *path, const struct stat *found, char name[PL_ASIDE_BYTES], struct cad_error *error)
{
	char *file = realpath(path, NULL); /* not a link to it */
	const char *why = file ? move(file, found, name) : strerror(errno);

	free(file);
	if (!why)
		return CAD_OK;
	char before[CAD_ERROR_TEXT_BYTES];
	snprintf(before, sizeof before, "%s", error->text);
	return cad_error_set(
		error, CAD_ERR_CORRUPT, "%.350s, and cannot get another name (%s): move it away", before, why);
}
