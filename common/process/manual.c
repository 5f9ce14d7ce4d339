/* SPDX-License-Identifier: Apache-2.0 */
#include "common/process/manual.h"

#include "common/base/version.h"
#include "common/process/options_value.h"

#include <ctype.h>
#include <string.h>

enum { LINE_BYTES = 78 }; /* of the source; formatters fill lines again */

static const char *const pages[] = { "cadre-expert", "cadre-placement", "cadre-router", "cadrectl" };

/* ---- escaping ---- */

/* A character as roff takes it literally, anywhere in a line. */
static const char *escaped(char c, char plain[2])
{
	switch (c) {
	case '\\': return "\\e";
	case '-': return "\\-";
	case '\'': return "\\(aq";
	case '`': return "\\(ga";
	case '^': return "\\(ha";
	case '~': return "\\(ti";
	default: break;
	}
	plain[0] = c;
	plain[1] = 0;
	return plain;
}

static void put_word(FILE *stream, const char *word, size_t length)
{
	char plain[2];

	if (*word == '.')
		fputs("\\&", stream); /* at the beginning of a line it would be a request */
	for (size_t i = 0; i < length; i++)
		fputs(escaped(word[i], plain), stream);
}

static void put_all(FILE *stream, const char *text) { put_word(stream, text, strlen(text)); }

void cad_manual_text(FILE *stream, const char *text)
{
	size_t column = 0;

	while (*text) {
		size_t length = strcspn(text, " \n");
		if (length > 0) {
			bool breaks = column > 0 && column + 1 + length > LINE_BYTES;
			if (column > 0)
				fputc(breaks ? '\n' : ' ', stream);
			put_word(stream, text, length);
			column = breaks || column == 0 ? length : column + 1 + length;
		}
		text += length;
		text += strspn(text, " \n");
	}
	fputc('\n', stream);
}

/* ---- parts ---- */

static void put_flag(FILE *stream, const struct cad_option *option)
{
	fputs(".TP\n\\fB\\-\\-", stream);
	put_all(stream, option->name);
	fputs("\\fR", stream);
	if (option->choices) {
		for (const struct cad_choice *choice = option->choices; choice->name; choice++) {
			fputs(choice == option->choices ? " " : "|", stream);
			put_all(stream, choice->name);
		}
	} else if (*cad_option_placeholder(option)) {
		fprintf(stream, " \\fI%s\\fR", cad_option_placeholder(option));
	}
	fputc('\n', stream);
}

static void put_options(FILE *stream, const struct cad_options_spec *spec)
{
	for (size_t i = 0; i < spec->count; i++) {
		char note[300], text[1200];
		cad_option_note(&spec->table[i], note, sizeof note);
		snprintf(text, sizeof text, "%s%s", spec->table[i].help, note);
		put_flag(stream, &spec->table[i]);
		cad_manual_text(stream, text);
	}
}

static void put_synopsis(FILE *stream, const struct cad_options_spec *spec)
{
	fputs("\\fB", stream);
	put_all(stream, spec->program);
	fputs("\\fR [\\fIoptions\\fR]", stream);
	if (spec->positional) {
		fputs(" \\fI", stream);
		put_all(stream, spec->positional);
		fputs("\\fR", stream);
	}
	fputc('\n', stream);
}

/* "A sentence." as a heading has it: "a sentence". */
static void put_summary(FILE *stream, const char *summary)
{
	size_t length = strlen(summary);
	char first = (char)tolower((unsigned char)summary[0]);

	if (length > 0 && summary[length - 1] == '.')
		length--;
	put_word(stream, &first, length > 0);
	if (length > 1)
		put_word(stream, summary + 1, length - 1);
	fputc('\n', stream);
}

static void put_common(FILE *stream)
{
	fputs(".TP\n\\fB\\-\\-config\\fR \\fIFILE\\fR\n"
	      "YAML file with lines \\(lqoption: value\\(rq.\n"
	      ".TP\n\\fB\\-\\-print\\-config\\fR\n"
	      "Print every option with its value and source, in the form of that file, and exit.\n"
	      ".TP\n\\fB\\-\\-check\\-config\\fR\n"
	      "Check all options and exit.\n"
	      ".TP\n\\fB\\-\\-help\\fR, \\fB\\-\\-version\\fR\n"
	      "Print a summary of the options, or the version, and exit.\n",
		stream);
}

/* ---- pages ---- */

void cad_manual_open(FILE *stream, const char *program, const char *summary)
{
	fputs(".TH \"", stream);
	for (const char *c = program; *c; c++)
		fputc(toupper((unsigned char)*c), stream);
	fprintf(stream, "\" \"1\" \"%s\" \"Cadre %s\" \"Cadre\"\n.SH NAME\n", cad_release_date, cad_version);
	put_all(stream, program);
	fputs(" \\- ", stream);
	put_summary(stream, summary);
}

void cad_manual_close(FILE *stream, const char *program, const char *exit_codes)
{
	fputs(".SH COMMON OPTIONS\n", stream);
	put_common(stream);
	fputs(".SH ENVIRONMENT\n"
	      "Every option can also be set in the environment: \\fB\\-\\-log\\-level\\fR as \\fBCADRE_LOG_LEVEL\\fR,\n"
	      "\\fB\\-\\-config\\fR as \\fBCADRE_CONFIG\\fR.\n"
	      "Flags override the environment, the environment overrides the file, and the file overrides defaults.\n"
	      ".SH EXIT STATUS\n"
	      "0: success, or a service that SIGTERM or SIGINT stopped.\n"
	      "1: failure.\n"
	      "2: wrong usage.\n",
		stream);
	if (exit_codes)
		cad_manual_text(stream, exit_codes);
	fputs("Above 128: ended by a signal; 130: interrupted.\n"
	      ".SH SEE ALSO\n",
		stream);
	const char *separator = "";
	for (size_t i = 0; i < sizeof pages / sizeof pages[0]; i++) {
		if (strcmp(pages[i], program) == 0)
			continue;
		fprintf(stream, "%s.BR ", separator);
		put_all(stream, pages[i]);
		fputs(" (1)", stream);
		separator = ",\n";
	}
	fputc('\n', stream);
}

void cad_manual_command(FILE *stream, const struct cad_options_spec *spec)
{
	fputs(".SS ", stream);
	put_synopsis(stream, spec);
	cad_manual_text(stream, spec->summary);
	put_options(stream, spec);
}

void cad_manual_page(FILE *stream, const struct cad_options_spec *spec)
{
	cad_manual_open(stream, spec->program, spec->summary);
	fputs(".SH SYNOPSIS\n", stream);
	put_synopsis(stream, spec);
	fputs(".SH DESCRIPTION\n", stream);
	cad_manual_text(stream, spec->summary);
	fputs(".SH OPTIONS\n", stream);
	put_options(stream, spec);
	cad_manual_close(stream, spec->program, NULL);
}
