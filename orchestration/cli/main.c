/* SPDX-License-Identifier: Apache-2.0 */
/* cadrectl: the operator's command line. One line a command; a command with a second word is found
 * before one with the first alone. */
#include "common/base/log.h"
#include "common/base/version.h"
#include "common/process/completion.h"
#include "common/process/manual.h"
#include "common/process/options_value.h"
#include "common/rpc/blocking.h"
#include "orchestration/cli/command.h"
#include "orchestration/cli/eval.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct command {
	const char *name; /* one word, or two */
	const char *summary;
	int (*run)(int argc, char **argv);
};

static const struct command commands[] = {
	{ "status", "show the processes of the cluster and their state", cl_status },
	{ "top", "show what the nodes do, again and again", cl_top },
	{ "history", "show who changed what in the cluster, and why", cl_history },
	{ "drain", "empty an expert node, so that it can be stopped", cl_drain },
	{ "undrain", "give experts to a drained node again", cl_undrain },
	{ "pin", "keep an expert on a node", cl_pin },
	{ "unpin", "let an expert be anywhere again", cl_unpin },
	{ "replicate", "keep so many copies of an expert", cl_replicate },
	{ "rebalance show", "show a rebalance: what it does, what was predicted and measured", cl_rebalance_show },
	{ "rebalance pause", "let no further move of a rebalance begin", cl_rebalance_pause },
	{ "rebalance resume", "let a paused rebalance go on", cl_rebalance_resume },
	{ "rebalance cancel", "end a rebalance where it is", cl_rebalance_cancel },
	{ "rebalance undo", "go back to the placement before a rebalance", cl_rebalance_undo },
	{ "rebalance", "move experts to where they are used", cl_rebalance },
	{ "auto on", "let the cluster move experts by itself", cl_auto_on },
	{ "auto off", "move experts only when told to", cl_auto_off },
	{ "auto status", "show whether the cluster moves experts by itself", cl_auto_status },
	{ "map show", "print which node holds which expert", cl_map_show },
	{ "map diff", "say what would move if a map were put in force", cl_map_diff },
	{ "map apply", "put a map in force", cl_map_apply },
	{ "health", "ask one process whether it works, or is ready", cl_health },
	{ "wait", "wait until one process, or the cluster, is ready", cl_wait },
	{ "generate", "continue a prompt, on a router or in this process", cl_generate },
	{ "verify", "compute an answer again and compare digests", cl_verify },
	{ "eval", "write logits and routing of whole sequences to a file", cl_eval },
	{ "tokenize", "turn a file of texts into token ids", cl_tokenize },
	{ "plan explain", "explain why an expert is where it is, and what moving it would change", cl_plan_explain },
	{ "plan", "decide which node should hold which expert, from recorded routing", cl_plan },
	{ "model inspect", "show what is in a checkpoint and what it needs", cl_model_inspect },
	{ "model size", "say what a model would need, and how fast it would be", cl_model_size },
	{ "model pack", "make a checkpoint smaller and faster to load, with the same bits", cl_model_pack },
	{ "trace record", "record the routing that flows through a cluster now", cl_trace_record },
	{ "trace import", "convert recorded routing from CSV or JSON to Cadre's own format", cl_trace_import },
	{ "trace export", "write a trace as CSV or JSON", cl_trace_export },
	{ "trace show", "show what is in a trace", cl_trace_show },
	{ "trace split", "cut a trace in two, to plan on one part and measure on the other", cl_trace_split },
	{ "trace generate", "make a synthetic trace, and a placement that is known to be good for it",
		cl_trace_generate },
};
enum { COMMANDS = sizeof commands / sizeof commands[0] };

static void print_help(FILE *stream)
{
	fprintf(stream, "Usage: cadrectl COMMAND [options]\nThe command line of Cadre.\n\nCommands:\n");
	for (size_t i = 0; i < COMMANDS; i++)
		fprintf(stream, "  %-16s %s\n", commands[i].name, commands[i].summary);
	fprintf(stream,
		"\n'cadrectl COMMAND --help' explains a command. Exit codes: 0 success, 1 failure, 2 wrong usage, 3 not ready, 130 interrupted.\n");
}

/* Whether `text` asks for help. */
static bool is_help(const char *text) { return strcmp(text, "--help") == 0 || strcmp(text, "-h") == 0; }

/* Whether `command` is of two words, of which `group` is the first. */
static bool is_of(const struct command *command, const char *group)
{
	size_t length = strlen(group);
	return strncmp(command->name, group, length) == 0 && command->name[length] == ' ';
}

static bool is_group(const char *word)
{
	for (size_t i = 0; i < COMMANDS; i++)
		if (is_of(&commands[i], word))
			return true;
	return false;
}

/* The commands of two words that begin with this one. */
static void print_group(FILE *stream, const char *group)
{
	fprintf(stream, "Commands:\n");
	for (size_t i = 0; i < COMMANDS; i++)
		if (is_of(&commands[i], group))
			fprintf(stream, "  %-16s %s\n", commands[i].name, commands[i].summary);
	fprintf(stream, "\n'cadrectl %s COMMAND --help' explains a command.\n", group);
}

/* The man page: each command prints its part. */
static int print_manual(void)
{
	cad_manual_open(stdout, "cadrectl", "the command line of Cadre");
	printf(".SH SYNOPSIS\n\\fBcadrectl\\fR \\fICOMMAND\\fR [\\fIoptions\\fR]\n.SH DESCRIPTION\n");
	cad_manual_text(stdout,
		"Shows what is in a cluster, sends prompts to it, checks answers, plans placements, and moves experts. -o json is short for --format json "
		"wherever a command has that option.");
	printf(".SH COMMANDS\n");
	for (size_t i = 0; i < COMMANDS; i++) {
		char *arguments[] = { (char *)"cadrectl", (char *)"--man", NULL };
		int code = commands[i].run(2, arguments);
		if (code != CL_EXIT_OK)
			return code;
	}
	cad_manual_close(stdout, "cadrectl",
		"3: what was asked answered, and is not ready: experts that are on no node (status), a process that is not healthy or not ready "
		"(health), the time is up (wait).");
	return CL_EXIT_OK;
}

/* ---- completion ---- */

/* First words of commands of two; one that is a command itself is listed as that. */
static const struct cad_completion_word groups[] = {
	{ "model", "look into a checkpoint, or pack it" },
	{ "map", "show and replace which node holds which expert" },
	{ "auto", "whether the cluster moves experts by itself" },
	{ "trace", "record, convert, show, cut and make routing" },
	{ "plan", NULL },
	{ "rebalance", NULL },
};
enum { GROUPS = sizeof groups / sizeof groups[0] };

/* The second words of a group's commands; of "", the only words of the others. */
static size_t words_after(const char *group, struct cad_completion_word words[COMMANDS])
{
	size_t count = 0;

	for (size_t i = 0; i < COMMANDS; i++) {
		const char *space = strchr(commands[i].name, ' ');
		size_t first = space ? (size_t)(space - commands[i].name) : 0;
		if (strlen(group) == first && memcmp(commands[i].name, group, first) == 0)
			words[count++] = (struct cad_completion_word){
				.name = space ? space + 1 : commands[i].name,
				.summary = commands[i].summary,
			};
	}

	return count;
}

/* The script for a shell: each command prints its part. */
static int print_completion(char *option)
{
	struct cad_completion_word words[COMMANDS + GROUPS];
	struct cad_error error;
	enum cad_shell shell;

	if (cad_shell_read(strchr(option, '=') + 1, &shell, &error) != CAD_OK) {
		fprintf(stderr, "cadrectl: %s\n", error.text);
		return CL_EXIT_USAGE;
	}

	cad_completion_open(stdout, shell, "cadrectl");
	size_t count = words_after("", words);
	for (size_t i = 0; i < GROUPS; i++)
		if (groups[i].summary)
			words[count++] = groups[i];
	cad_completion_words(stdout, shell, "", words, count);
	for (size_t i = 0; i < GROUPS; i++) {
		count = words_after(groups[i].name, words);
		cad_completion_words(stdout, shell, groups[i].name, words, count);
	}

	for (size_t i = 0; i < COMMANDS; i++) {
		char *arguments[] = { (char *)"cadrectl", option, NULL };
		int code = commands[i].run(2, arguments);
		if (code != CL_EXIT_OK)
			return code;
	}
	cad_completion_close(stdout, shell, "cadrectl");

	return CL_EXIT_OK;
}

/* ---- commands ---- */

/* The command of argv[1] (and argv[2]); *words: how many that took. */
static const struct command *find(int argc, char **argv, int *words)
{
	for (size_t i = 0; i < COMMANDS; i++) {
		const char *space = strchr(commands[i].name, ' ');
		size_t first = space ? (size_t)(space - commands[i].name) : strlen(commands[i].name);
		*words = space ? 2 : 1;
		if (strlen(argv[1]) != first || memcmp(argv[1], commands[i].name, first) != 0 || argc <= *words)
			continue;
		if (!space || strcmp(argv[2], space + 1) == 0)
			return &commands[i];
	}
	return NULL;
}

static int unknown(int argc, char **argv)
{
	char asked[128];
	const char *names[COMMANDS];
	bool two_words = is_group(argv[1]);

	for (size_t i = 0; i < COMMANDS; i++)
		names[i] = commands[i].name;

	snprintf(asked, sizeof asked, two_words && argc > 2 ? "%s %s" : "%s", argv[1], argc > 2 ? argv[2] : "");
	const char *nearest = cad_nearest_name(asked, names, COMMANDS);
	for (size_t i = 0; two_words && !nearest && i < COMMANDS; i++)
		if (strncmp(names[i], argv[1], strlen(argv[1])) == 0)
			nearest = names[i];
	if (nearest)
		fprintf(stderr, "cadrectl: there is no command '%s'; did you mean '%s'?\n", asked, nearest);
	else
		fprintf(stderr, "cadrectl: there is no command '%s'; 'cadrectl --help' lists them\n", asked);

	return CL_EXIT_USAGE;
}

/* "-o json" is "--format json" and "-ojson" is "--format=json", before a lone "--". Returns a new
 * argv; what it adds lives as long as the process. */
static char **spell_out(int argc, char **argv)
{
	char **spelled = calloc((size_t)argc + 1, sizeof *spelled);
	bool over = false;

	for (int i = 0; spelled && i < argc; i++) {
		over = over || strcmp(argv[i], "--") == 0;
		spelled[i] = argv[i];
		if (over || strncmp(argv[i], "-o", 2) != 0)
			continue;
		if (asprintf(&spelled[i], argv[i][2] ? "--format=%s" : "--format%s", argv[i] + 2) < 0)
			return NULL;
	}

	return spelled;
}

/* "help plan explain" is "plan explain --help", and "trace help" is "trace --help". */
static void spell_help(int argc, char **argv)
{
	bool first = argc > 2 && strcmp(argv[1], "help") == 0,
	     second = argc == 3 && strcmp(argv[2], "help") == 0 && is_group(argv[1]);

	if (first)
		memmove(argv + 1, argv + 2, (size_t)(argc - 2) * sizeof *argv);
	if (first || second)
		argv[argc - 1] = (char *)"--help";
}

int main(int argc, char **argv)
{
	static char **spelled; /* lives as long as the process, also for leak checkers */
	int words;

	cl_signals_init();
	if (argc < 2) {
		print_help(stderr);
		return CL_EXIT_USAGE;
	}

	spell_help(argc, argv);

	if (is_help(argv[1]) || strcmp(argv[1], "help") == 0) {
		print_help(stdout);
		return CL_EXIT_OK;
	}

	if (strcmp(argv[1], "--version") == 0) {
		printf("cadrectl %s (%s)\n", cad_version, cad_commit);
		return CL_EXIT_OK;
	}

	if (strcmp(argv[1], "--man") == 0)
		return print_manual();
	if (strncmp(argv[1], "--completion=", strlen("--completion=")) == 0)
		return print_completion(argv[1]);
	const struct command *command = find(argc, argv, &words);
	if (!command && is_group(argv[1]) && (argc == 2 || is_help(argv[2]))) {
		FILE *stream = argc == 2 ? stderr : stdout;
		fprintf(stream, "Usage: cadrectl %s COMMAND [options]\n\n", argv[1]);
		print_group(stream, argv[1]);
		return argc == 2 ? CL_EXIT_USAGE : CL_EXIT_OK;
	}
	if (!command)
		return unknown(argc, argv);
	spelled = spell_out(argc - words, argv + words);
	if (!spelled) {
		fprintf(stderr, "cadrectl: out of memory\n");
		return CL_EXIT_FAILED;
	}

	cad_log_setup(CAD_LOG_WARN, CAD_LOG_LOGFMT); /* stderr is for people here */
	cad_rpc_blocking_hush();
	(void)signal(SIGPIPE, SIG_IGN); /* a reader that goes away is a failed write, which commands notice */
	int code = command->run(argc - words, spelled);
	if (words == 1 && argc > 2 && is_help(argv[2]) && is_group(argv[1])) {
		putchar('\n');
		print_group(stdout, argv[1]);
	}
	if ((fflush(stdout) != 0 || ferror(stdout)) && code == CL_EXIT_OK) {
		fprintf(stderr, "cadrectl: the output could not be written\n");
		code = CL_EXIT_FAILED;
	}

	return code;
}
