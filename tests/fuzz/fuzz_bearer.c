/* SPDX-License-Identifier: Apache-2.0 */
/* Token files that anybody wrote: a sentence, or tokens that are within their limits, found again
 * by what a client sends, and written out make the same table. */
#include "common/process/bearer.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void check(const struct cad_bearers *bearers)
{
	char *text;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	CAD_ASSERT(out && bearers->count > 0 && bearers->count <= CAD_BEARERS_MAX);
	for (size_t i = 0; i < bearers->count; i++) {
		const struct cad_bearer *bearer = &bearers->entries[i];
		CAD_ASSERT(strlen(bearer->token) >= 16 && strlen(bearer->token) <= CAD_BEARER_BYTES_MAX);
		CAD_ASSERT(bearer->role != CAD_CALLER_NOBODY);
		CAD_ASSERT(!bearer->name[0] || cad_process_name_is_legal(bearer->name));
		CAD_ASSERT(cad_bearers_find(bearers, bearer->token, strlen(bearer->token)) == bearer);
		fprintf(out, "%s %s %s\n", bearer->token, cad_caller_role_name(bearer->role), bearer->name);
	}
	fclose(out);

	struct cad_bearers again;
	CAD_ASSERT(cad_bearers_parse(text, size, "again", &again, NULL) == CAD_OK && again.count == bearers->count);
	for (size_t i = 0; i < again.count; i++)
		CAD_ASSERT(strcmp(again.entries[i].token, bearers->entries[i].token) == 0 &&
			again.entries[i].role == bearers->entries[i].role &&
			strcmp(again.entries[i].name, bearers->entries[i].name) == 0);
	cad_bearers_fini(&again);
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	struct cad_bearers bearers;
	struct cad_error error = { .text = "" };

	if (cad_bearers_parse((const char *)bytes, size, "fuzz", &bearers, &error) != CAD_OK) {
		CAD_ASSERT(error.text[0]);
		return 0;
	}
	check(&bearers);
	cad_bearers_fini(&bearers);

	return 0;
}
