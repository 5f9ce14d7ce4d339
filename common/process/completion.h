/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Completion for shells from option tables: what `PROGRAM --completion=bash` (or zsh) prints, which
 * the build turns into files for the shells to load. As with man pages (manual.h), a program of one
 * table is one script; cadrectl, whose commands have a table each, opens a script, says which words
 * may follow which, has each command print its part, and closes it.
 *
 * Everything goes to `stream`; errors of writing show there (ferror). One thread.
 */
#ifndef CADRE_COMMON_PROCESS_COMPLETION_H
#define CADRE_COMMON_PROCESS_COMPLETION_H

#include "common/process/option.h"

#include <stdio.h>

enum cad_shell { CAD_SHELL_NONE, CAD_SHELL_BASH, CAD_SHELL_ZSH };
CAD_MUST_USE enum cad_status cad_shell_read(const char *name, enum cad_shell *shell, struct cad_error *error);

/* The whole script of a program with one table. */
void cad_completion_script(FILE *stream, enum cad_shell shell, const struct cad_options_spec *spec);
/* The part of one command, spec->program being "PROGRAM COMMAND". */
void cad_completion_command(FILE *stream, enum cad_shell shell, const struct cad_options_spec *spec);

/* What scripts of several tables are put together from, in this order; words before commands. */
struct cad_completion_word {
	const char *name, *summary;
};
void cad_completion_open(FILE *stream, enum cad_shell shell, const char *program);
/* What may stand after the word `after`, or, with "", after the program's name. */
void cad_completion_words(
	FILE *stream, enum cad_shell shell, const char *after, const struct cad_completion_word *words, size_t count);
void cad_completion_close(FILE *stream, enum cad_shell shell, const char *program);

#endif
