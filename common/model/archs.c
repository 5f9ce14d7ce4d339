/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of architectures. A family's row, its reader and its names are in families/; nothing else
 * in Cadre asks for a name.
 */
#include "common/model/archs.h"

#include "common/model/families/families.h"

#include <stdio.h>
#include <string.h>

#define ROW(name) &cad_arch_##name,
static const struct cad_arch *const archs[] = { CAD_FAMILIES(ROW) };
enum { ARCHS = sizeof archs / sizeof *archs };

const struct cad_arch *cad_arch_find(const char *name)
{
	for (size_t i = 0; i < ARCHS; i++)
		if (strcmp(archs[i]->name, name) == 0)
			return archs[i];
	return NULL;
}

const char *cad_arch_list(char *text, size_t bytes)
{
	static const char more[] = ", ... (docs/MODELS.md has all)";
	size_t at = 0;
	text[0] = 0;
	for (size_t i = 0; i < ARCHS; i++) {
		if (!archs[i]->runs)
			continue;
		if (at + strlen(archs[i]->name) + sizeof more + 2 > bytes) {
			snprintf(text + at, bytes - at, "%s", more);
			break;
		}
		at += (size_t)snprintf(text + at, bytes - at, "%s%s", at ? ", " : "", archs[i]->name);
	}
	return text;
}
