/* SPDX-License-Identifier: Apache-2.0 */
/* What all commands share. */
#include "orchestration/cli/command.h"

#include "common/base/utf8.h"

#include <jansson.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const struct cad_choice cl_format_choices[] = { { "table", CL_FORMAT_TABLE }, { "json", CL_FORMAT_JSON }, { NULL, 0 } };

static volatile sig_atomic_t interrupted;
static void (*stop_now)(void *context);
static void *stop_context;

static void end_now(int number) { _exit(128 + number); }

void cl_signals_init(void)
{
	if (getpid() != 1)
		return;
	(void)signal(SIGINT, end_now);
	(void)signal(SIGTERM, end_now);
}

static void on_signal(int number)
{
	interrupted = 1;
	(void)signal(number, end_now);
	if (stop_now)
		stop_now(stop_context);
}

void cl_on_interrupt(void (*stop)(void *context), void *context)
{
	stop_now = NULL;
	stop_context = context;
	stop_now = stop;
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
	(void)sigaction(SIGINT, &action, NULL);
	(void)sigaction(SIGTERM, &action, NULL);
}

bool cl_interrupted(void) { return interrupted; }

void cl_line(FILE *stream, const char *format, ...)
{
	va_list arguments;
	char *text;

	va_start(arguments, format);
	int size = vasprintf(&text, format, arguments);
	va_end(arguments);
	if (size < 0) {
		fprintf(stderr, "cadrectl: out of memory for a line\n");
		return;
	}
	cad_utf8_make_printable(text);
	fprintf(stream, "%s\n", text);
	free(text);
}

int cl_fail(const char *command, const struct cad_error *error)
{
	if (interrupted) {
		fprintf(stderr, "cadrectl %s: interrupted\n", command);
		return CL_EXIT_INTERRUPTED;
	}
	struct cad_error said = *error;
	cad_options_tell_sources(&said);
	cl_line(stderr, "cadrectl %s: %s", command, said.text);
	return CL_EXIT_FAILED;
}

void cl_print_json(json_t *json)
{
	(void)json_dumpf(json, stdout, JSON_COMPACT);
	putchar('\n');
	json_decref(json);
}
