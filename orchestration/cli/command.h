/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The commands of cadrectl. Each takes its own arguments (argv[0] is the command's name), prints
 * its own errors, and returns the exit code: 0 success, 1 failure, 2 wrong usage, 3 what was
 * asked for answered, and is not ready, 130 interrupted. One thread; they block.
 */
#ifndef CADRE_ORCHESTRATION_CLI_COMMAND_H
#define CADRE_ORCHESTRATION_CLI_COMMAND_H

#include "common/process/options.h"

#include <stdbool.h>
#include <stdio.h>

struct json_t;

enum { CL_EXIT_OK = 0, CL_EXIT_FAILED = 1, CL_EXIT_USAGE = 2, CL_EXIT_NOT_READY = 3, CL_EXIT_INTERRUPTED = 130 };

int cl_status(int argc, char **argv);
int cl_top(int argc, char **argv);
int cl_history(int argc, char **argv);
int cl_drain(int argc, char **argv);
int cl_undrain(int argc, char **argv);
int cl_pin(int argc, char **argv);
int cl_unpin(int argc, char **argv);
int cl_replicate(int argc, char **argv);
int cl_rebalance(int argc, char **argv);
int cl_rebalance_show(int argc, char **argv);
int cl_rebalance_pause(int argc, char **argv);
int cl_rebalance_resume(int argc, char **argv);
int cl_rebalance_cancel(int argc, char **argv);
int cl_rebalance_undo(int argc, char **argv);
int cl_auto_on(int argc, char **argv);
int cl_auto_off(int argc, char **argv);
int cl_auto_status(int argc, char **argv);
int cl_map_show(int argc, char **argv);
int cl_map_diff(int argc, char **argv);
int cl_map_apply(int argc, char **argv);
int cl_health(int argc, char **argv);
int cl_wait(int argc, char **argv);
int cl_generate(int argc, char **argv);
int cl_verify(int argc, char **argv);
int cl_tokenize(int argc, char **argv);
int cl_model_inspect(int argc, char **argv);
int cl_model_size(int argc, char **argv);
int cl_model_pack(int argc, char **argv);
int cl_plan(int argc, char **argv);
int cl_plan_explain(int argc, char **argv);
int cl_trace_record(int argc, char **argv);
int cl_trace_import(int argc, char **argv);
int cl_trace_export(int argc, char **argv);
int cl_trace_show(int argc, char **argv);
int cl_trace_split(int argc, char **argv);
int cl_trace_generate(int argc, char **argv);

/* How a command prints: --format, or -o for short. */
enum cl_format { CL_FORMAT_TABLE, CL_FORMAT_JSON };
extern const struct cad_choice cl_format_choices[];
#define CL_FORMAT_OPTION(owner, member, about) \
	{ \
		.name = "format", .type = CAD_OPTION_TYPE_ENUM, .offset = CAD_OPTION_OFFSET(owner, member, uint32_t), \
		.default_text = "table", .choices = cl_format_choices, .letter = 'o', .help = about "; short: -o", \
	}

/* Prints a line, its end included. What a server sent may be in it: what a terminal cannot show, or obeys,
 * becomes '?', ends of lines too. */
void cl_line(FILE *stream, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Prints "cadrectl NAME: sentence" to stderr and returns CL_EXIT_FAILED, or CL_EXIT_INTERRUPTED
 * when Ctrl-C is the reason. What came from the environment is said to, while the command's options
 * are there. */
int cl_fail(const char *command, const struct cad_error *error);

/* One line on stdout, which main checks; frees it. */
void cl_print_json(struct json_t *json);

/* First of all. A container's first process has no default actions: Ctrl-C and SIGTERM would do nothing. */
void cl_signals_init(void);
/* Ctrl-C: the first one calls `stop` (from a signal handler: it must be safe there) and lets the
 * command end in good order; the second ends the process. */
void cl_on_interrupt(void (*stop)(void *context), void *context);
bool cl_interrupted(void);

#endif
