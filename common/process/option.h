/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program's options as a table, one row per option, and what else is known about them. Plain
 * data; options.h reads it, manual.h makes pages of it.
 *
 *     static const struct cad_option table[] = {
 *         CAD_OPTION_DIRECTORY(struct options, model, "model", NULL, "directory
 *         of the checkpoint"),
 *         CAD_OPTION_U32(struct options, threads, "threads", "0", 0, 64, "0: all cores"),
 *         CAD_OPTION_BYTES(struct options, memory, "memory", "4G", 0, UINT64_MAX, "for weights"),
 *         CAD_OPTION_ENUM(struct options, isa, "isa", "auto", isa_choices, "instruction set"),
 *     };
 *
 * Defaults are text, read by the same code as a flag's value. A default of NULL makes the option
 * required; a string that is optional has "".
 */
#ifndef CADRE_COMMON_PROCESS_OPTION_H
#define CADRE_COMMON_PROCESS_OPTION_H

#include "common/base/status.h"

#include <stdbool.h>
#include <stdint.h>

enum cad_option_type {
	CAD_OPTION_TYPE_STRING,   /* const char * */
	CAD_OPTION_TYPE_U32,      /* uint32_t */
	CAD_OPTION_TYPE_U64,      /* uint64_t */
	CAD_OPTION_TYPE_BYTES,    /* uint64_t; 4096, 64K, 1.5G: powers of 1024, KiB and the like are taken too */
	CAD_OPTION_TYPE_F64,      /* double */
	CAD_OPTION_TYPE_SHARE,    /* double; 5% or 0.05 */
	CAD_OPTION_TYPE_BOOL,     /* bool; a flag without a value means true */
	CAD_OPTION_TYPE_ENUM,     /* an enum of four bytes */
	CAD_OPTION_TYPE_DURATION, /* uint64_t nanoseconds; 500us, 20ms, 1.5s, 2m, 1h */
};

/* What a string names, for --help and completion. */
enum cad_option_names { CAD_OPTION_NAMES_TEXT, CAD_OPTION_NAMES_FILE, CAD_OPTION_NAMES_DIRECTORY };

struct cad_choice {
	const char *name; /* NULL ends the array */
	uint32_t value;
};

struct cad_option {
	/* lower-case words with dashes: "log-level" is --log-level, CADRE_LOG_LEVEL, log-level: */
	const char *name;
	enum cad_option_type type;
	size_t offset;             /* of the member that takes the value */
	const char *default_text;  /* NULL: required */
	double real_min, real_max; /* F64, SHARE */
	uint64_t min, max;         /* U32, U64, BYTES, DURATION (ns) */
	/* ENUM: what it can be. STRING: the forms that it can have, "cuda[:N]", for people; NULL: any */
	const struct cad_choice *choices;
	enum cad_option_names names; /* STRING */
	char letter;                 /* a short name, "-o", that the program spells out itself; 0: none */
	/* CADRE_NAME is not read: it is there for other programs, and would change what this one does */
	bool not_from_environment;
	const char *help; /* one line */
};

/* _Generic refuses a member of another type than the option's. */
#define CAD_OPTION_OFFSET(owner, member, ...) _Generic(((owner *)0)->member, __VA_ARGS__ : offsetof(owner, member))
#define CAD_OPTION_NAME(owner, member, flag, text, what, about) \
	{ \
		.name = (flag), .type = CAD_OPTION_TYPE_STRING, \
		.offset = CAD_OPTION_OFFSET(owner, member, const char *), .default_text = (text), .names = (what), \
		.help = (about), \
	}
#define CAD_OPTION_STRING(owner, member, flag, text, about) \
	CAD_OPTION_NAME(owner, member, flag, text, CAD_OPTION_NAMES_TEXT, about)
/* A text in one of few forms, which the program reads itself. */
#define CAD_OPTION_FORM(owner, member, flag, text, forms, about) \
	{ \
		.name = (flag), .type = CAD_OPTION_TYPE_STRING, \
		.offset = CAD_OPTION_OFFSET(owner, member, const char *), .default_text = (text), .choices = (forms), \
		.help = (about), \
	}
#define CAD_OPTION_FILE(owner, member, flag, text, about) \
	CAD_OPTION_NAME(owner, member, flag, text, CAD_OPTION_NAMES_FILE, about)
#define CAD_OPTION_DIRECTORY(owner, member, flag, text, about) \
	CAD_OPTION_NAME(owner, member, flag, text, CAD_OPTION_NAMES_DIRECTORY, about)
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
#define CAD_OPTION_SHARE(owner, member, flag, text, lowest, highest, about) \
	{ \
		.name = (flag), .type = CAD_OPTION_TYPE_SHARE, .offset = CAD_OPTION_OFFSET(owner, member, double), \
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
	enum cad_option_names positional_names;
	uint32_t positional_max;
	const struct cad_option *table;
	size_t count;
	const struct cad_option_alias *aliases;
	size_t aliases_count;
	/* Options of which one is meant, NULL ends them; NULL: there are none. What is given
	 * less strongly than another is as if it were not given, and two flags are refused. */
	const char *const *rivals;
	/* Checks that involve several options; may be NULL. --check-config runs it too. */
	enum cad_status (*check)(const void *values, struct cad_error *error);
	/* What --check-config reads besides, since the program does when it starts: files; may
	 * be NULL. */
	enum cad_status (*check_files)(const void *values, struct cad_error *error);
	/* Sets up the log as the values say, before its first line; NULL: somebody did. */
	void (*log)(const void *values);
};

#endif
