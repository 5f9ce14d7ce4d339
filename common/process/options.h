/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options of a program: one table, one row per option, four sources in order of precedence: flags
 * (`--name value`, `--name=value`), environment (CADRE_NAME), the YAML file that --config names,
 * defaults. From the same table come --help, --version, --print-config and --check-config.
 *
 * option.h has the table and an example. The error for a wrong name suggests the nearest known one;
 * that for a value out of range names option, value and range. Unknown keys of the file are errors.
 * Called once at start-up, in one thread; may allocate, reads files, blocks on them.
 */
#ifndef CADRE_COMMON_PROCESS_OPTIONS_H
#define CADRE_COMMON_PROCESS_OPTIONS_H

#include "common/process/option.h"

struct cad_options; /* owns every string that the values point to */

enum cad_options_action {
	CAD_OPTIONS_RUN, /* go on */
	/* --help, --version, --print-config, --check-config or --man was
	 * answered on stdout: exit with 0 */
	CAD_OPTIONS_EXIT,
};

/* argv[0] is skipped; argv is kept. `values` is the program's struct: filled, and valid until
 * cad_options_destroy. On EXIT `options` is NULL. */
CAD_MUST_USE enum cad_status cad_options_parse(const struct cad_options_spec *spec, int argc, char **argv, void *values,
	struct cad_options **options, enum cad_options_action *action, struct cad_error *error);
void cad_options_destroy(struct cad_options *options);
size_t cad_options_positional_count(const struct cad_options *options);
const char *cad_options_positional(const struct cad_options *options, size_t index);
/* Where an option's value came from: "flag", "environment", "file", "default". `name` is the
 * new one where there are two. */
const char *cad_options_source(const struct cad_options *options, const char *name);

/* Reads and checks all sources again, as at the start. Calls `changed` for each option that now has
 * another value than in `options`, which stays as it is. */
CAD_MUST_USE enum cad_status cad_options_reread(const struct cad_options *options,
	void (*changed)(void *context, const char *name, const char *text), void *context, struct cad_error *error);

/* The option's old name, when its value was given by that; else NULL. */
const char *cad_options_old_name(const struct cad_options *options, const char *name);

/* How main() usually begins: parses, and warns of old names; on failure prints "program: sentence"
 * to stderr. Returns true if the program should continue; else *exit_code is what to return. */
bool cad_options_main(const struct cad_options_spec *spec, int argc, char **argv, void *values,
	struct cad_options **options, int *exit_code);

/* Adds to the sentence of an error which of the options that it speaks of, by name or value, came
 * from the environment or the file. Of the options that cad_options_main returned last, until they
 * are destroyed; in the thread that called it. */
void cad_options_tell_sources(struct cad_error *error);

/* What every service offers: values are enum cad_log_level and enum cad_log_format. */
extern const struct cad_choice cad_log_level_choices[], cad_log_format_choices[];

#endif
