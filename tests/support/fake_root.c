/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/fake_root.h"

#include "tests/support/file_write.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

char fake_root[] = "/tmp/cadre-root-XXXXXX";

int fake_root_create(void **state)
{
	(void)state;
	return mkdtemp(fake_root) ? 0 : -1;
}

int fake_root_destroy(void **state)
{
	(void)state;
	char command[256];
	snprintf(command, sizeof command, "rm -r %s", fake_root);
	return system(command);
}

void fake_root_write(const char *name, const char *text)
{
	char path[256];
	snprintf(path, sizeof path, "%s/%s", fake_root, name);
	for (char *slash = path + strlen(fake_root) + 1; (slash = strchr(slash, '/')) != NULL; *slash++ = '/') {
		*slash = 0;
		(void)mkdir(path, 0700);
	}
	file_write(path, text);
}
