/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/golden_copy.h"

#include "common/base/file.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

char *golden_copy_path(const struct golden_copy *copy, const char *name)
{
	static char path[2][512];
	static int turn;
	turn = !turn;
	snprintf(path[turn], sizeof path[turn], "%s/%s", copy->directory, name);
	return path[turn];
}

void golden_copy_write(const char *path, const void *bytes, size_t size)
{
	FILE *file = fopen(path, "wb");
	assert_non_null(file);
	assert_int_equal(fwrite(bytes, 1, size, file), size);
	assert_int_equal(fclose(file), 0);
}

struct golden_copy golden_copy_create(const char *name)
{
	struct golden_copy copy = { "/tmp/cadre-test-model-XXXXXX" };
	assert_non_null(mkdtemp(copy.directory));
	char from[256];
	snprintf(from, sizeof from, CADRE_SOURCE_DIR "/tests/golden/%s/model", name);
	DIR *directory = opendir(from);
	assert_non_null(directory);

	for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
		if (entry->d_name[0] == '.' || strstr(entry->d_name, "tokenizer"))
			continue;
		char path[512], *bytes;
		size_t size;
		snprintf(path, sizeof path, "%s/%s", from, entry->d_name);
		assert_int_equal(cad_file_read(path, SIZE_MAX - 1, &bytes, &size, NULL), CAD_OK);
		golden_copy_write(golden_copy_path(&copy, entry->d_name), bytes, size);
		free(bytes);
	}

	closedir(directory);
	return copy;
}

void golden_copy_remove(struct golden_copy *copy)
{
	DIR *directory = opendir(copy->directory);
	assert_non_null(directory);
	for (struct dirent *entry; (entry = readdir(directory)) != NULL;)
		if (entry->d_name[0] != '.')
			assert_int_equal(remove(golden_copy_path(copy, entry->d_name)), 0);
	closedir(directory);
	assert_int_equal(rmdir(copy->directory), 0);
}
