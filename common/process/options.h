/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options of a program: one table, one row per option, four sources in order of precedence: flags
 * (`--name value`, `--name=value`), environment (CADRE_NAME), the YAML file that --config names,
 * defaults. From the same table come --help, --version, --print-config and --check-config.
 *
 *     struct ex_options { const char *model; uint32_t threads; uint64_t memory; enum kn_isa isa; };
 *     static const struct cad_option table[] = {
 *         CAD_OPTION_STRING(struct ex_options, model, "model", NULL, "directory of the
 *         checkpoint"), CAD_OPTION_U32(struct ex_options, threads, "threads", "0", 0, 64, "compute
 *         threads; 0: all cores"), CAD_OPTION_BYTES(struct ex_options, memory, "memory", "4G", 0,
 *         UINT64_MAX, "room for expert weights"), CAD_OPTION_ENUM(struct ex_options, isa, "isa",
 *         "auto", isa_choices, "instruction set"),
 *     };
 *
 * Defaults are text, read by the same code as a flag's value. A default of NULL makes the option
 * required; a string that is optional has "". The error for a wrong name suggests the nearest known
 * one; that for a value out of range names option, value and range. Unknown keys of the file are
 * errors. Called once at start-up, in one thread; may allocate, reads files, blocks on them.
 */
#ifndef CADRE_COMMON_PROCESS_OPTIONS_H
#define CADRE_COMMON_PROCESS_OPTIONS_H

#include "common/base/status.h"

#include <stdbool.h>
#include <stdint.h>

enum cad_option_type {
	CAD_OPTION_TYPE_STRING,   /* const char * */
	CAD_OPTION_TYPE_U32,      /* uint32_t */
	CAD_OPTION_TYPE_U64,      /* uint64_t */
	CAD_OPTION_TYPE_BYTES,    /* uint64_t; 4096, 64K, 1.5G: powers of 1024, KiB and the like are taken too */
	CAD_OPTION_TYPE_F64,      /* double */
	CAD_OPTION_TYPE_BOOL,     /* bool; a flag without a value means true */
	CAD_OPTION_TYPE_ENUM,     /* an enum of four bytes */
	CAD_OPTION_TYPE_DURATION, /* uint64_t nanoseconds; 500us, 20ms, 1.5s, 2m, 1h */
};

struct cad_choice {
	const char *name; /* NULL ends the array */
	uint32_t value;
};

struct cad_option {
	/* lower-case words with dashes: "log-level" is --log-level, CADRE_LOG_LEVEL, log-level: */
	const char *name;
	enum cad_option_type type;
	size_t offset;                    /* of the member that takes the value */
	const char *default_text;         /* NULL: required */
	double real_min, real_max;        /* F64 */
	uint64_t min, max;                /* U32, U64, BYTES, DURATION (ns) */
	const struct cad_choice *choices; /* ENUM */
	const char *help;                 /* one line */
};

/* _Generic refuses a member of another type than the option's. */
#define CAD_OPTION_OFFSET(owner, member, ...) _Generic(((owner *)0)->member, __VA_ARGS__ : offsetof(owner, member))
#define CAD_OPTION_STRING(owner, member, flag, text, about) \
	{ \
		.name = (flag), .type = CAD_OPTION_TYPE_STRING, \
		.offset = CAD_OPTION_OFFSET(owner, member, const char *), .default_text = (text), .help = (about), \
	}
#define CAD_OPTION_U32(owner, member, flag, text, lowest, highest, about) \
	{ \
		.name = (flag), .type = CAD_OPTION_TYPE_U32, .offset = CAD_OPTION_OFFSET(owner, member, uint32_t), \
		.default_text = (text), .min = (lowest), .max = (highest), .help = (about), \
	}
#define CAD_OPTION_U64(owner, member, flag, text, lowest, highest, about) \
	{ \
		.name = (flag), .type = CAD_OPTION_TYPE_U64, .offset = CAD_OPTION_OFFSET(owner, member, uint64_t), \
		.default_text = (text), .min = (lowest), .max = (highest), .help = (about), \
	}
#define CAD_OPTION_BYTES(owner, member, flag, text, lowest, highest, about) \
	{ \
		.name = (flag), .type = CAD_OPTION_TYPE_BYTES, .offset = CAD_OPTION_OFFSET(owner, member, uint64_t), \
		.default_text = (text), .min = (lowest), .max = (highest), .help = (about), \
	}
#define CAD_OPTION_F64(owner, member, flag, text, lowest, highest, about) \
	{ \
		.name = (flag), .type = CAD_OPTION_TYPE_F64, .offset = CAD_OPTION_OFFSET(owner, member, double), \
		.default_text = (text), .real_min = (lowest), .real_max = (highest), .help = (about), \
	}
#define CAD_OPTION_BOOL(owner, member, flag, text, about) \
	{ \
		.name = (flag), .type = CAD_OPTION_TYPE_BOOL, .offset = CAD_OPTION_OFFSET(owner, member, bool), \
		.default_text = (text), .help = (about), \
	}
#define CAD_OPTION_ENUM(owner, member, flag, text, options, about) \
	{ \
		.name = (flag), .type = CAD_OPTION_TYPE_ENUM, .offset = CAD_OPTION_OFFSET(owner, member, uint32_t), \
		.default_text = (text), .choices = (options), .help = (about), \
	}
#define CAD_OPTION_DURATION(owner, member, flag, text, lowest, highest, about) \
	{ \
		.name = (flag), .type = CAD_OPTION_TYPE_DURATION, \
		.offset = CAD_OPTION_OFFSET(owner, member, uint64_t), .default_text = (text), .min = (lowest), \
		.max = (highest), .help = (about), \
	}

/*
 * An old name that is still taken, for one version: by flag, environment and file, as the new one.
 * --help does not list it, whoever uses it is told the new name in the log, and giving both is an
 * error.
 */
struct cad_option_alias {
	const char *old_name, *name;
	const char *unit; /* the old one took a plain number of these: "ms"; NULL: what the new one takes */
};

struct cad_options_spec {
	const char *program;    /* "cadre-expert", "cadrectl generate" */
	const char *summary;    /* one sentence for --help */
	const char *positional; /* how --help shows positional arguments, "PROMPT"; NULL: none are taken */
	uint32_t positional_max;
	const struct cad_option *table;
	size_t count;
	const struct cad_option_alias *aliases;
	size_t aliases_count;
	/* Checks that involve several options; may be NULL. --check-config runs it too. */
	enum cad_status (*check)(const void *values, struct cad_error *error);
	/* Sets up the log as the values say, before its first line; NULL: somebody did. */
	void (*log)(const void *values);
};

struct cad_options; /* owns every string that the values point to */

enum cad_options_action {
	CAD_OPTIONS_RUN, /* go on */
	/* --help, --version, --print-config, --check-config or --man was answered on stdout: exit with 0 */
	CAD_OPTIONS_EXIT,
};

/* argv[0] is skipped. `values` is the program's struct: filled, and valid until
 * cad_options_destroy. On EXIT `options` is NULL. */
CAD_MUST_USE enum cad_status cad_options_parse(const struct cad_options_spec *spec, int argc, char **argv, void *values,
	struct cad_options **options, enum cad_options_action *action, struct cad_error *error);
void cad_options_destroy(struct cad_options *options);
size_t cad_options_positional_count(const struct cad_options *options);
const char *cad_options_positional(const struct cad_options *options, size_t index);
/* Where an option's value came from: "flag", "environment", "file", "default". `name` is the new one
 * where there are two. */
const char *cad_options_source(const struct cad_options *options, const char *name);

/* The option's old name, when its value was given by that; else NULL. */
const char *cad_options_old_name(const struct cad_options *options, const char *name);

/* How main() usually begins: parses, and warns of old names; on failure prints "program: sentence"
 * to stderr. Returns true if the program should continue; else *exit_code is what to return. */
bool cad_options_main(const struct cad_options_spec *spec, int argc, char **argv, void *values,
	struct cad_options **options, int *exit_code);

extern const char cad_version[], cad_release_date[]; /* "0.2.0", "2026-11-29" */

/* What every service offers: values are enum cad_log_level and enum cad_log_format. */
extern const struct cad_choice cad_log_level_choices[], cad_log_format_choices[];

#endif
