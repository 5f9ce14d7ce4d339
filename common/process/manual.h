/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Man pages (section 1) from option tables, in roff with the man macros: what `PROGRAM --man`
 * prints, which the build turns into man/PROGRAM.1. A program of one table is one page; cadrectl,
 * whose commands have a table each, opens a page, has each command print its part, and closes it.
 *
 * Everything goes to `stream`; errors of writing show there (ferror). One thread.
 */
#ifndef CADRE_COMMON_PROCESS_MANUAL_H
#define CADRE_COMMON_PROCESS_MANUAL_H

#include "common/process/option.h"

#include <stdio.h>

/* The whole page of a program with one table. */
void cad_manual_page(FILE *stream, const struct cad_options_spec *spec);
/* The part of one command, spec->program being "PROGRAM COMMAND". */
void cad_manual_command(FILE *stream, const struct cad_options_spec *spec);

/* What pages of several tables are put together from. */
void cad_manual_open(FILE *stream, const char *program, const char *summary);
void cad_manual_text(FILE *stream, const char *text); /* wrapped and escaped */
/* What all tables have in common, exit codes, see also. exit_codes: the
 * program's own; NULL: none. */
void cad_manual_close(FILE *stream, const char *program, const char *exit_codes);

#endif
