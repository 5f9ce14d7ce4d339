/* SPDX-License-Identifier: Apache-2.0 */
/* URIs and certificates that anybody wrote: a sentence that a log can show, or a role
 * with a name that one can. */
#include "common/process/certificate.h"

#include "common/base/utf8.h"
#include "common/process/process.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static bool can_be_shown(const char *text) { return cad_utf8_is_printable(text, strlen(text)); }

static void uri(const char *text, size_t size)
{
	struct cad_certificate found;
	struct cad_error error = { .text = "" };
	char again[CAD_CALLER_NAME_BYTES + 32];

	enum cad_status status = cad_role_uri_parse(text, size, &found, &error);
	CAD_ASSERT(can_be_shown(error.text) && (status == CAD_ERR_INVALID) == (error.text[0] != 0));
	if (status != CAD_OK)
		return;
	CAD_ASSERT(found.role != CAD_CALLER_NOBODY && cad_process_name_is_legal(found.name));
	snprintf(again, sizeof again, "cadre://%s/%s", cad_caller_role_name(found.role), found.name);
	CAD_ASSERT(strlen(again) == size && memcmp(again, text, size) == 0);
}

static void certificate(const char *text, size_t size)
{
	struct cad_certificate found;
	struct cad_error error = { .text = "" };

	if (cad_certificate_read(text, size, &found, &error) == CAD_OK)
		CAD_ASSERT(strlen(found.name) < CAD_CALLER_NAME_BYTES && can_be_shown(found.name));
	else
		CAD_ASSERT(error.text[0] && can_be_shown(error.text));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	uri((const char *)bytes, size);
	certificate((const char *)bytes, size);

	return 0;
}
