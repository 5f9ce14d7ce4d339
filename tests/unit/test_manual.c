/* SPDX-License-Identifier: Apache-2.0 */
/* Man pages: every option is there with what --help says of it, and no text is
 * taken for a request of roff. */
#include "common/process/manual.h"
#include "common/process/options.h"
#include "common/process/options_value.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct values {
	const char *model, *path;
	uint32_t threads, color;
	uint64_t memory, wait;
	bool rebalance, quick;
};
static const struct cad_choice colors[] = { { "red", 1 }, { "blue-green", 2 }, { NULL, 0 } };
static const struct cad_option table[] = {
	CAD_OPTION_DIRECTORY(struct values, model, "model", NULL, "directory of the checkpoint"),
	CAD_OPTION_STRING(
		struct values, path, "a-path", "C:\\new", ".hidden files, 'quoted' `words`, ~/x^2, \\fBnot bold"),
	CAD_OPTION_U32(struct values, threads, "threads", "2", 1, 64,
		"a help that is much longer than one line of source may be, so that it has to be broken before a word, and the "
		"word there is .so which at the beginning of a line would include a file"),
	CAD_OPTION_BYTES(struct values, memory, "memory", "1.5G", 1024, UINT64_MAX, "room"),
	CAD_OPTION_DURATION(struct values, wait, "wait", "20ms", 0, 3600000000000u, "time"),
	CAD_OPTION_BOOL(struct values, rebalance, "rebalance", "true", "move experts"),
	CAD_OPTION_BOOL(struct values, quick, "quick", "false", "hurry"),
	CAD_OPTION_ENUM(struct values, color, "color", "red", colors, "color"),
};
enum { OPTIONS = sizeof table / sizeof table[0] };
static const struct cad_options_spec page_spec = {
	.program = "cadre-tool",
	.summary = "Does a thing.",
	.table = table,
	.count = OPTIONS,
};
static const struct cad_options_spec command_spec = {
	.program = "cadrectl do",
	.summary = "Does a thing.",
	.positional = "FILE...",
	.positional_max = 2,
	.table = table,
	.count = OPTIONS,
};

static char *page;

static void print(void (*what)(FILE *stream, const struct cad_options_spec *spec), const struct cad_options_spec *spec)
{
	size_t bytes;
	FILE *stream = open_memstream(&page, &bytes);
	assert_non_null(stream);
	what(stream, spec);
	assert_int_equal(fclose(stream), 0);
}

static int clean(void **state)
{
	(void)state;
	free(page);
	page = NULL;
	return 0;
}

/* Puts characters back that roff has other spellings for; line breaks become spaces. */
static void read_back(const char *roff, char *text)
{
	static const struct {
		const char *spelled, *read;
	} spellings[] = { { "\\-", "-" }, { "\\e", "\\" }, { "\\(aq", "'" }, { "\\(ga", "`" }, { "\\(ha", "^" },
		{ "\\(ti", "~" }, { "\\&", "" }, { "\n", " " } };

	while (*roff) {
		size_t i = 0, count = sizeof spellings / sizeof spellings[0];
		while (i < count && strncmp(roff, spellings[i].spelled, strlen(spellings[i].spelled)) != 0)
			i++;
		if (i == count) {
			*text++ = *roff++;
			continue;
		}
		text = stpcpy(text, spellings[i].read);
		roff += strlen(spellings[i].spelled);
	}
	*text = 0;
}

/* Each option's name, help, range and default, in the words of --help. */
static void assert_holds_options(void)
{
	char *plain = malloc(strlen(page) + 1);
	assert_non_null(plain);
	read_back(page, plain);
	for (size_t i = 0; i < OPTIONS; i++) {
		char flag[80], note[300], about[1000];
		snprintf(flag, sizeof flag, "\\fB--%s\\fR", table[i].name);
		if (!strstr(plain, flag))
			fail_msg("no %s in the page", flag);
		cad_option_note(&table[i], note, sizeof note);
		snprintf(about, sizeof about, " %s%s ", table[i].help, note);
		if (!strstr(plain, about))
			fail_msg("not in the page:%s", about);
	}
	free(plain);
}

static void assert_only_requests_begin_with_a_point(void)
{
	static const char *const requests[] = { ".TH ", ".SH ", ".SS ", ".TP\n", ".BR " };

	for (const char *line = page; *line; line = strchr(line, '\n') + 1) {
		size_t i = 0;
		while (i < sizeof requests / sizeof requests[0] && strncmp(line, requests[i], strlen(requests[i])) != 0)
			i++;
		if ((*line == '.' || *line == '\'') && i == sizeof requests / sizeof requests[0])
			fail_msg("roff would take this for a request: %.60s", line);
	}
}

static void a_page_holds_every_option(void **state)
{
	(void)state;
	print(cad_manual_page, &page_spec);
	assert_holds_options();
	assert_only_requests_begin_with_a_point();
	assert_non_null(strstr(page, ".TH \"CADRE-TOOL\" \"1\""));
	assert_non_null(strstr(page, "\ncadre\\-tool \\- does a thing\n"));
	assert_non_null(strstr(page, ".SH SEE ALSO\n"));
	assert_non_null(strstr(page, "\\-\\-color\\fR red|blue\\-green\n"));
	assert_non_null(strstr(page, "\\-\\-model\\fR \\fIDIR\\fR\n"));
}

static void a_command_is_a_part_of_a_page(void **state)
{
	(void)state;
	print(cad_manual_command, &command_spec);
	assert_holds_options();
	assert_only_requests_begin_with_a_point();
	assert_int_equal(
		strncmp(page, ".SS \\fBcadrectl do\\fR [\\fIoptions\\fR] \\fIFILE...\\fR\nDoes a thing.\n", 66), 0);
	assert_null(strstr(page, ".TH"));
}

static void close_with_codes(FILE *stream, const struct cad_options_spec *spec)
{
	cad_manual_close(stream, spec->program, "3: not ready.");
}

/* A program's own exit codes stand between those that all have. */
static void exit_codes_are_told(void **state)
{
	(void)state;
	print(close_with_codes, &page_spec);
	assert_non_null(strstr(page, "2: wrong usage.\n3: not ready.\nAbove 128: ended by a signal"));
	assert_only_requests_begin_with_a_point();
	free(page);
	print(cad_manual_page, &page_spec);
	assert_non_null(strstr(page, "2: wrong usage.\nAbove 128: ended by a signal"));
}

static void man_needs_no_required_option(void **state)
{
	(void)state;
	char *arguments[] = { (char *)"cadre-tool", (char *)"--man", NULL };
	struct values values;
	struct cad_options *options = NULL;
	enum cad_options_action action = CAD_OPTIONS_RUN;
	struct cad_error error;

	/* --model is required, and is not asked for */
	assert_int_equal(cad_options_parse(&page_spec, 2, arguments, &values, &options, &action, &error), CAD_OK);
	assert_int_equal(action, CAD_OPTIONS_EXIT);
	assert_null(options);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(a_page_holds_every_option, clean),
		cmocka_unit_test_teardown(a_command_is_a_part_of_a_page, clean),
		cmocka_unit_test_teardown(exit_codes_are_told, clean),
		cmocka_unit_test_teardown(man_needs_no_required_option, clean),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
