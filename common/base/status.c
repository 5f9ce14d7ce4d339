/* SPDX-License-Identifier: Apache-2.0 */
#include "common/base/status.h"

#include "common/base/utf8.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *cad_status_name(enum cad_status status)
{
	switch (status) {
#define X(name, value, text) \
	case CAD_##name: return #name;
		CAD_STATUS_LIST(X)
#undef X
	}
	return "UNKNOWN";
}

const char *cad_status_text(enum cad_status status)
{
	switch (status) {
#define X(name, value, text) \
	case CAD_##name: return text;
		CAD_STATUS_LIST(X)
#undef X
	}
	return "unknown status";
}

#undef cad_error_set /* status.h says why there may be one */
enum cad_status cad_error_set(struct cad_error *error, enum cad_status status, const char *format, ...)
{
	if (!error)
		return status;

	char text[CAD_ERROR_TEXT_BYTES]; /* the arguments may point into error->text */
	va_list arguments;
	va_start(arguments, format);
	int written = vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);
	if (written < 0)
		text[0] = 0;
	else if ((size_t)written >= sizeof text)
		text[cad_utf8_whole(text, strlen(text))] = 0;
	error->status = status;
	memcpy(error->text, text, sizeof text);

	return status;
}

enum cad_status cad_error_prefix(struct cad_error *error, const char *format, ...)
{
	if (!error)
		return CAD_ERR_INTERNAL;
	char before[CAD_ERROR_TEXT_BYTES];
	va_list arguments;
	va_start(arguments, format);
	int written = vsnprintf(before, sizeof before, format, arguments);
	va_end(arguments);
	return written < 0 ? error->status : cad_error_set(error, error->status, "%s: %s", before, error->text);
}

_Noreturn void cad_assert_failed(const char *file, int line, const char *condition)
{
	fprintf(stderr, "%s:%d: assertion failed: %s\n", file, line, condition);
	abort();
}
