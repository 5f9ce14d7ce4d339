/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Both scripts look at the words before the cursor, joined by spaces, with a dash behind them when
 * an option is being typed: "plan " is a command after which a word may follow, "plan -" one after
 * which only options may. The first pattern that fits decides.
 */
#include "common/process/completion.h"

#include "common/process/options_value.h"

#include <string.h>

enum cad_status cad_shell_read(const char *name, enum cad_shell *shell, struct cad_error *error)
{
	if (strcmp(name, "bash") != 0 && strcmp(name, "zsh") != 0)
		return cad_error_set(error, CAD_ERR_INVALID, "--completion is '%s': it must be bash or zsh", name);

	*shell = *name == 'b' ? CAD_SHELL_BASH : CAD_SHELL_ZSH;
	return CAD_OK;
}

/* ---- options that every program has ---- */

static const struct cad_option common_options[] = {
	{ .name = "config",
		.type = CAD_OPTION_TYPE_STRING,
		.names = CAD_OPTION_NAMES_FILE,
		.help = "YAML file with options" },
	{ .name = "print-config", .type = CAD_OPTION_TYPE_BOOL, .help = "print every option with its value" },
	{ .name = "check-config", .type = CAD_OPTION_TYPE_BOOL, .help = "check all options" },
	{ .name = "help", .type = CAD_OPTION_TYPE_BOOL, .help = "print a summary of the options" },
	{ .name = "version", .type = CAD_OPTION_TYPE_BOOL, .help = "print the version" },
};
enum { COMMON = sizeof common_options / sizeof common_options[0] };

static size_t options_count(const struct cad_options_spec *spec) { return spec->count + COMMON; }

static const struct cad_option *option_at(const struct cad_options_spec *spec, size_t index)
{
	return index < spec->count ? &spec->table[index] : &common_options[index - spec->count];
}

/* A switch takes a value after '=', but for those that every program has. */
static bool takes_nothing(const struct cad_option *option)
{
	return option->type == CAD_OPTION_TYPE_BOOL && !option->default_text;
}

/* Of a form, what comes before a part that may be left out. */
static void put_choices(FILE *stream, const struct cad_option *option)
{
	for (const struct cad_choice *choice = option->choices; choice->name; choice++)
		fprintf(stream, "%s%.*s", choice == option->choices ? "" : " ", (int)strcspn(choice->name, "["),
			choice->name);
}

/* ---- bash ---- */

static void bash_function(FILE *stream, const char *program)
{
	fputc('_', stream);
	for (; *program; program++)
		fputc(*program == '-' ? '_' : *program, stream);
}

static void bash_open(FILE *stream, const char *program)
{
	fprintf(stream, "# bash completion for %s, printed by '%s --completion=bash'\n", program, program);
	bash_function(stream, program);
	fputs("() {\n"
	      "\tlocal IFS=' ' cur=${COMP_WORDS[COMP_CWORD]} option=${COMP_WORDS[COMP_CWORD - 1]} equals='' offer=''\n"
	      "\tlocal before=\"${COMP_WORDS[*]:1:COMP_CWORD - 1} \"\n"
	      "\tCOMPREPLY=()\n"
	      "\tif [[ $cur == = ]]; then\n"
	      "\t\tcur='' equals='='\n"
	      "\telif [[ $option == = ]]; then\n"
	      "\t\toption=${COMP_WORDS[COMP_CWORD - 2]} equals='='\n"
	      "\tfi\n"
	      "\tif [[ $cur == -* ]]; then before+=-; fi\n"
	      "\tcase $before in\n",
		stream);
}

static void bash_close(FILE *stream, const char *program)
{
	fputs("\tesac\n"
	      "\tif [[ $offer ]]; then mapfile -t COMPREPLY < <(compgen -W \"$offer\" -- \"$cur\"); fi\n"
	      "}\ncomplete -F ",
		stream);
	bash_function(stream, program);
	fprintf(stream, " %s\n", program);
}

/* What readline completes by itself, with quotes and ~, where nothing is offered; by enum
 * cad_option_names. */
static const char *const bash_names[] = { ":", "compopt -o default", "compopt -o dirnames" };

static void bash_value(FILE *stream, const struct cad_option *option)
{
	if (takes_nothing(option))
		return;
	if (option->type == CAD_OPTION_TYPE_BOOL) {
		fprintf(stream, "\t\t--%s=) offer='true false' ;;\n", option->name);
		return;
	}

	fprintf(stream, "\t\t--%s | --%s=", option->name, option->name);
	if (option->letter)
		fprintf(stream, " | -%c", option->letter);
	fputs(") ", stream);
	if (option->choices) {
		fputs("offer='", stream);
		put_choices(stream, option);
		fputs("' ", stream);
	} else {
		fprintf(stream, "%s ", bash_names[option->names]);
	}
	fputs(";;\n", stream);
}

static void bash_options(FILE *stream, const struct cad_options_spec *spec)
{
	fputs("\t\tcase $option$equals in\n", stream);
	for (size_t i = 0; i < options_count(spec); i++)
		bash_value(stream, option_at(spec, i));
	fprintf(stream, "\t\t*) %soffer='", spec->positional ? "if [[ $cur == -* ]]; then " : "");
	for (size_t i = 0; i < options_count(spec); i++)
		fprintf(stream, "%s--%s", i == 0 ? "" : " ", option_at(spec, i)->name);
	fputs("'", stream);
	if (spec->positional)
		fprintf(stream, "; else %s; fi", bash_names[spec->positional_names]);
	fputs(" ;;\n\t\tesac ;;\n", stream);
}

/* ---- zsh ---- */

/* Up to the first semicolon, as zsh takes it between brackets in single quotes. */
static void zsh_text(FILE *stream, const char *text)
{
	for (; *text && *text != ';'; text++) {
		if (*text == '\'')
			fputs("'\\'", stream);
		else if (strchr("[]:\\", *text))
			fputc('\\', stream);
		fputc(*text, stream);
	}
}

static void zsh_open(FILE *stream, const char *program)
{
	fprintf(stream,
		"#compdef %s\n"
		"# zsh completion for %s, printed by '%s --completion=zsh'\n"
		"local before=\"${(j: :)words[2,CURRENT-1]} \"\n"
		"[[ $words[CURRENT] != -* ]] || before+=-\n"
		"case $before in\n",
		program, program, program);
}

static const char *const zsh_names[] = { "", "_files", "_files -/" }; /* by enum cad_option_names */

static void zsh_value(FILE *stream, const struct cad_option *option)
{
	bool is_switch = option->type == CAD_OPTION_TYPE_BOOL;

	fputc('[', stream);
	zsh_text(stream, option->help);
	if (takes_nothing(option)) {
		fputs("]'", stream);
	} else if (is_switch) {
		fputs("]::value:(true false)'", stream);
	} else if (option->choices) {
		fputs("]:value:(", stream);
		put_choices(stream, option);
		fputs(")'", stream);
	} else {
		fprintf(stream, "]:%s:%s'", cad_option_placeholder(option), zsh_names[option->names]);
	}
}

static void zsh_option(FILE *stream, const struct cad_option *option)
{
	bool is_switch = option->type == CAD_OPTION_TYPE_BOOL;

	fprintf(stream, " \\\n\t\t\t'--%s%s", option->name, takes_nothing(option) ? "" : is_switch ? "=-" : "=");
	zsh_value(stream, option);
	if (option->letter) {
		fprintf(stream, " \\\n\t\t\t'-%c+", option->letter);
		zsh_value(stream, option);
	}
}

static void zsh_options(FILE *stream, const struct cad_options_spec *spec)
{
	fputs("\t\t_arguments", stream);
	for (size_t i = 0; i < options_count(spec); i++)
		zsh_option(stream, option_at(spec, i));
	if (spec->positional_names != CAD_OPTION_NAMES_TEXT) /* a mere hint would keep options from being completed */
		fprintf(stream, " \\\n\t\t\t'*:%s:%s'", spec->positional, zsh_names[spec->positional_names]);
	fputs(" ;;\n", stream);
}

static void zsh_words(FILE *stream, const struct cad_completion_word *words, size_t count)
{
	fputs("\t\tlocal -a following=(", stream);
	for (size_t i = 0; i < count; i++) {
		fprintf(stream, "\n\t\t\t'%s:", words[i].name);
		zsh_text(stream, words[i].summary);
		fputc('\'', stream);
	}
	fputs(")\n\t\t_describe command following ;;\n", stream);
}

/* ---- scripts ---- */

void cad_completion_open(FILE *stream, enum cad_shell shell, const char *program)
{
	(shell == CAD_SHELL_BASH ? bash_open : zsh_open)(stream, program);
}

void cad_completion_words(
	FILE *stream, enum cad_shell shell, const char *after, const struct cad_completion_word *words, size_t count)
{
	fprintf(stream, "\t'%s ')\n", after);
	if (shell == CAD_SHELL_ZSH) {
		zsh_words(stream, words, count);
		return;
	}

	fputs("\t\toffer='", stream);
	for (size_t i = 0; i < count; i++)
		fprintf(stream, "%s%s", i == 0 ? "" : " ", words[i].name);
	fputs("' ;;\n", stream);
}

void cad_completion_command(FILE *stream, enum cad_shell shell, const struct cad_options_spec *spec)
{
	const char *command = strchr(spec->program, ' ');

	if (command)
		fprintf(stream, "\t'%s '*)\n", command + 1);
	else
		fputs("\t*)\n", stream);
	if (command && shell == CAD_SHELL_ZSH) { /* _arguments counts from the command on */
		int words = strchr(command + 1, ' ') ? 2 : 1;
		fprintf(stream, "\t\tshift %d words\n\t\t(( CURRENT -= %d ))\n", words, words);
	}
	(shell == CAD_SHELL_BASH ? bash_options : zsh_options)(stream, spec);
}

void cad_completion_close(FILE *stream, enum cad_shell shell, const char *program)
{
	if (shell == CAD_SHELL_BASH)
		bash_close(stream, program);
	else
		fputs("esac\n", stream);
}

void cad_completion_script(FILE *stream, enum cad_shell shell, const struct cad_options_spec *spec)
{
	cad_completion_open(stream, shell, spec->program);
	cad_completion_command(stream, shell, spec);
	cad_completion_close(stream, shell, spec->program);
}
