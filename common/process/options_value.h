/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Option values: text to value and back. Pure functions, for options.c and its tests.
 */
#ifndef CADRE_COMMON_PROCESS_OPTIONS_VALUE_H
#define CADRE_COMMON_PROCESS_OPTIONS_VALUE_H

#include "common/process/option.h"

/* Writes the value of `text` at values + option->offset. `label` is how the error calls the option:
 * "--threads", "CADRE_THREADS". Strings are stored as the pointer itself. */
CAD_MUST_USE enum cad_status cad_option_read(
	const struct cad_option *option, const char *label, const char *text, void *values, struct cad_error *error);
/* "1 to 64", "auto, ref or avx2"; "" if everything is allowed. */
void cad_option_range_text(const struct cad_option *option, char *text, size_t bytes);
/* What --help shows for the value: "N", "BYTES"; "" for switches and for choices, which are
 * listed. */
const char *cad_option_placeholder(const struct cad_option *option);
/* What follows the help of an option: " (required)", " (default 4G; at least 64K)", or nothing. */
void cad_option_note(const struct cad_option *option, char *text, size_t bytes);
/* The member of `names` that is nearest to `name` by edits, or NULL if none is near. */
const char *cad_nearest_name(const char *name, const char *const *names, size_t count);

#endif
