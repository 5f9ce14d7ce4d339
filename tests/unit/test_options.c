/* SPDX-License-Identifier: Apache-2.0 */
/* Options: sources and their order, every type with its borders, the sentences of mistakes, and
 * --print-config read back. */
#include "common/base/version.h"
#include "common/process/options.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum color { RED = 3, GREEN = 7 };
struct values {
	const char *model, *note, *place;
	uint32_t threads;
	uint64_t seed, memory, timeout_ns;
	double factor, spare;
	bool fast;
	enum color color;
};
static const struct cad_choice colors[] = { { "red", RED }, { "green", GREEN }, { NULL, 0 } };
static const struct cad_choice forms[] = { { "here", 0 }, { "shelf[:N]", 0 }, { NULL, 0 } };
static const struct cad_option table[] = {
	CAD_OPTION_STRING(struct values, model, "model", NULL, "directory of the checkpoint"),
	CAD_OPTION_STRING(struct values, note, "note", "", "anything"),
	CAD_OPTION_FORM(struct values, place, "place", "here", forms, "where"),
	CAD_OPTION_U32(struct values, threads, "threads", "2", 1, 64, "compute threads"),
	CAD_OPTION_U64(struct values, seed, "seed", "0", 0, UINT64_MAX, "seed"),
	CAD_OPTION_BYTES(struct values, memory, "memory", "1.5G", 1024, UINT64_MAX, "room"),
	CAD_OPTION_SHARE(struct values, spare, "spare", "5%", 0, 0.5, "share"),
	CAD_OPTION_F64(struct values, factor, "capacity-factor", "1", 0.5, 8, "factor"),
	CAD_OPTION_BOOL(struct values, fast, "fast", "false", "fast"),
	CAD_OPTION_ENUM(struct values, color, "color", "green", colors, "color"),
	CAD_OPTION_DURATION(struct values, timeout_ns, "timeout", "20ms", 0, 3600000000000u, "time"),
};

static const struct cad_option_alias aliases[] = { { "timeout-ms", "timeout", "ms" }, { "quick", "fast", NULL },
	{ "directory", "model", NULL } };

static unsigned logs; /* how often the log was set up */
static void log_setup(const void *values)
{
	assert_non_null(((const struct values *)values)->model);
	logs++;
}

static enum cad_status check(const void *values, struct cad_error *error)
{
	const struct values *v = values;
	if (v->fast && v->threads == 64)
		return cad_error_set(error, CAD_ERR_INVALID, "--fast does not go with --threads 64");
	return CAD_OK;
}

static const struct cad_options_spec spec = {
	.program = "tool",
	.summary = "A tool.",
	.positional = "FILE...",
	.positional_max = 2,
	.table = table,
	.count = sizeof table / sizeof table[0],
	.aliases = aliases,
	.aliases_count = sizeof aliases / sizeof aliases[0],
	.check = check,
	.log = log_setup,
};

static struct values values;
static struct cad_options *options;
static struct cad_error error;
static enum cad_options_action action;
static char path[64];

#define PARSE(...) parse((char *[]){ (char *)"tool", __VA_ARGS__, NULL })
static enum cad_status parse_as(const struct cad_options_spec *as, char **argv)
{
	int argc = 0;
	while (argv[argc])
		argc++;
	values = (struct values){ 0 };
	options = NULL;
	return cad_options_parse(as, argc, argv, &values, &options, &action, &error);
}
static enum cad_status parse(char **argv) { return parse_as(&spec, argv); }

static int clean(void **state)
{
	(void)state;
	cad_options_destroy(options);
	options = NULL;
	unsetenv("CADRE_THREADS");
	unsetenv("CADRE_CAPACITY_FACTOR");
	unsetenv("CADRE_CONFIG");
	unsetenv("CADRE_TIMEOUT");
	unsetenv("CADRE_TIMEOUT_MS");
	if (path[0])
		unlink(path);
	path[0] = 0;
	return 0;
}

static void write_file(const char *content)
{
	snprintf(path, sizeof path, "/tmp/cadre-options-XXXXXX");
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, content, strlen(content)), strlen(content));
	close(fd);
}

static void defaults(void **state)
{
	(void)state;
	assert_int_equal(PARSE("--model", "m"), CAD_OK);
	assert_string_equal(values.model, "m");
	assert_string_equal(values.note, "");
	assert_int_equal(values.threads, 2);
	assert_int_equal(values.memory, 3u << 29);
	assert_int_equal(values.timeout_ns, 20000000);
	assert_int_equal(values.color, GREEN);
	assert_true(values.factor == 1 && values.spare == 0.05 && !values.fast);
	assert_string_equal(cad_options_source(options, "threads"), "default");
	assert_string_equal(cad_options_source(options, "model"), "flag");
}

static void every_type_by_flag(void **state)
{
	(void)state;
	assert_int_equal(PARSE("--model=a=b", "--threads=64", "--seed", "18446744073709551615", "--memory=64 KiB",
				 "--capacity-factor", "2.5", "--spare=0.25", "--color=red", "--timeout", "1.5s", "one",
				 "--", "--two"),
		CAD_OK);
	assert_string_equal(values.model, "a=b");
	assert_int_equal(values.threads, 64);
	assert_true(values.seed == UINT64_MAX);
	assert_int_equal(values.memory, 65536);
	assert_true(values.factor == 2.5 && values.spare == 0.25);
	assert_int_equal(values.color, RED);
	assert_int_equal(values.timeout_ns, 1500000000);
	assert_int_equal(cad_options_positional_count(options), 2);
	assert_string_equal(cad_options_positional(options, 0), "one");
	assert_string_equal(cad_options_positional(options, 1), "--two");
}

static void bools(void **state)
{
	(void)state;
	assert_int_equal(PARSE("--model", "m", "--fast", "file"), CAD_OK);
	assert_true(values.fast);
	assert_int_equal(cad_options_positional_count(options), 1);
	cad_options_destroy(options);
	assert_int_equal(PARSE("--model", "m", "--fast=no"), CAD_OK);
	assert_false(values.fast);
}

static void order_of_strength(void **state)
{
	(void)state;
	write_file("model: from-file\nthreads: 5\ncapacity-factor: 3\nfast: yes\n");
	setenv("CADRE_THREADS", "6", 1);
	setenv("CADRE_CAPACITY_FACTOR", "4", 1);
	assert_int_equal(PARSE("--config", path, "--threads", "7"), CAD_OK);
	assert_string_equal(values.model, "from-file");
	assert_int_equal(values.threads, 7);
	assert_true(values.factor == 4 && values.fast);
	assert_string_equal(cad_options_source(options, "capacity-factor"), "environment");
	assert_string_equal(cad_options_source(options, "fast"), "file");
	cad_options_destroy(options);
	setenv("CADRE_CONFIG", path, 1);
	assert_int_equal(PARSE("--note", "x"), CAD_OK);
	assert_int_equal(values.threads, 6);
}

static const struct cad_option rival_table[] = {
	CAD_OPTION_STRING(struct values, model, "model", "", "one"),
	CAD_OPTION_STRING(struct values, note, "note", "", "the other"),
};

/* Of rivals, those that are given most strongly. */
static void rivals_by_strength(void **state)
{
	(void)state;
	static const char *const rivals[] = { "model", "note", NULL };
	const struct cad_options_spec two = { .program = "tool", .table = rival_table, .count = 2, .rivals = rivals };
	static const struct {
		const char *flag, *other_flag, *environment, *file, *model, *note;
	} cases[] = {
		{ "--note=n", NULL, "m", "", "", "n" },
		{ "--model=n", NULL, "m", "note: f", "n", "" },
		{ "--note=", NULL, "m", "", "m", "" }, /* nothing is given by that */
		{ NULL, NULL, "m", "note: f", "m", "" },
		{ NULL, NULL, NULL, "{ model: m, note: f }", "m", "f" },
		{ "--model=m", "--note=", NULL, "", "m", "" },
		{ "--model=m", "--note=n", NULL, "", NULL, NULL },
	};

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		write_file(cases[i].file);
		char *argv[] = { (char *)"tool", (char *)"--config", path, (char *)cases[i].flag,
			(char *)cases[i].other_flag, NULL };
		if (cases[i].environment)
			setenv("CADRE_MODEL", cases[i].environment, 1);
		enum cad_status status = parse_as(&two, argv);
		unsetenv("CADRE_MODEL");
		if (cases[i].model) {
			assert_int_equal(status, CAD_OK);
			assert_string_equal(values.model, cases[i].model);
			assert_string_equal(values.note, cases[i].note);
		} else {
			assert_int_equal(status, CAD_ERR_INVALID);
			assert_string_equal(
				error.text, "--model and --note exclude each other: give the one that is meant");
		}
		clean(NULL);
	}
}

/* What other programs have in the environment does not reach an option that is not for it. */
static void not_from_the_environment(void **state)
{
	(void)state;
	struct cad_option own_table[] = {
		CAD_OPTION_STRING(struct values, model, "model", "", "directory of the checkpoint"),
		CAD_OPTION_STRING(struct values, note, "note", "", "anything"),
	};
	own_table[0].not_from_environment = true;
	const struct cad_options_spec own = { .program = "tool", .table = own_table, .count = 2 };

	setenv("CADRE_MODEL", "m", 1);
	setenv("CADRE_NOTE", "n", 1);
	assert_int_equal(parse_as(&own, (char *[]){ (char *)"tool", NULL }), CAD_OK);
	assert_string_equal(values.model, "");
	assert_string_equal(cad_options_source(options, "model"), "default");
	assert_string_equal(values.note, "n");
	clean(NULL);
	assert_int_equal(parse_as(&own, (char *[]){ (char *)"tool", (char *)"--model", (char *)"x", NULL }), CAD_OK);
	assert_string_equal(values.model, "x");
	unsetenv("CADRE_MODEL");
	unsetenv("CADRE_NOTE");
	clean(NULL);
}

static void told(const char *sentence, const char *expected)
{
	struct cad_error said;
	(void)cad_error_set(&said, CAD_ERR_IO, "%s", sentence);
	cad_options_tell_sources(&said);
	assert_string_equal(said.text, expected);
	assert_int_equal(said.status, CAD_ERR_IO);
}

/* Sentences that speak of an option say where it is from, when no flag says it. */
static void sentences_name_the_environment(void **state)
{
	(void)state;
	char *argv[] = { (char *)"tool", (char *)"--config", path, (char *)"--note=given", NULL };
	int exit_code;

	write_file("place: /srv/shelf");
	setenv("CADRE_MODEL", "/srv/model", 1);
	setenv("CADRE_FAST", "true", 1);
	setenv("CADRE_THREADS", "64", 1);
	assert_int_equal(parse(argv), CAD_ERR_INVALID);
	assert_string_equal(error.text,
		"--fast does not go with --threads 64 (--threads is from CADRE_THREADS in the environment, --fast is from CADRE_FAST in the environment)");
	setenv("CADRE_THREADS", "4", 1);
	assert_true(cad_options_main(&spec, 4, argv, &values, &options, &exit_code));
	told("cannot read '/srv/model/config.json'",
		"cannot read '/srv/model/config.json' (--model is from CADRE_MODEL in the environment)");
	told("--model: a directory is needed",
		"--model: a directory is needed (--model is from CADRE_MODEL in the environment)");
	char file[200];
	snprintf(file, sizeof file, "/srv/shelf is empty (--place is from %s)", path);
	told("/srv/shelf is empty", file);
	told("'given' is no note, see --note", "'given' is no note, see --note");
	told("--model-parts, x--model and /srv/models are others",
		"--model-parts, x--model and /srv/models are others");
	clean(NULL);
	told("cannot read '/srv/model/config.json'", "cannot read '/srv/model/config.json'");
	setenv("CADRE_NOTE", "a:1,b:22,,c:333", 1);
	assert_true(cad_options_main(&spec, 1, argv, &values, &options, &exit_code));
	told("c:333 is silent", "c:333 is silent (--note is from CADRE_NOTE in the environment)");
	told("a:1 and b:2233 are others", "a:1 and b:2233 are others");
	clean(NULL);
	setenv("CADRE_NOTE", "cadre", 1); /* a word that may be meant otherwise */
	assert_true(cad_options_main(&spec, 1, argv, &values, &options, &exit_code));
	told("'./cadre build' makes it", "'./cadre build' makes it");
	unsetenv("CADRE_MODEL");
	unsetenv("CADRE_FAST");
	unsetenv("CADRE_NOTE");
	logs = 0;
}

static void refused(const char *sentence, char **argv)
{
	assert_true(parse(argv) < 0);
	assert_null(options);
	if (!strstr(error.text, sentence))
		fail_msg("'%s' does not contain '%s'", error.text, sentence);
}
#define REFUSED(sentence, ...) refused(sentence, (char *[]){ (char *)"tool", __VA_ARGS__, NULL })

static void mistakes_get_sentences(void **state)
{
	(void)state;
	char *none = NULL;
	REFUSED("--model is needed: directory of the checkpoint", none);
	REFUSED("there is no option --thread; did you mean --threads?", "--model", "m", "--thread", "3");
	REFUSED("there is no option --zzzzzzzz; 'tool --help' lists them", "--zzzzzzzz=1");
	REFUSED("--threads is 65, which is out of range: 1 to 64", "--model", "m", "--threads", "65");
	REFUSED("--threads is 0, which is out of range", "--model", "m", "--threads=0");
	REFUSED("--threads is '-1', which is not a whole number", "--model", "m", "--threads=-1");
	REFUSED("--threads is '', which is not", "--model", "m", "--threads=");
	REFUSED("--threads needs a value: compute threads", "--model", "m", "--threads");
	REFUSED("--threads is given twice", "--model", "m", "--threads", "1", "--threads", "2");
	REFUSED("--seed is '18446744073709551616'", "--model", "m", "--seed", "18446744073709551616");
	REFUSED("--memory is 1, which is out of range: at least 1K", "--model", "m", "--memory", "1");
	REFUSED("--memory is '12Q', which is not a size", "--model", "m", "--memory", "12Q");
	REFUSED("--memory is '1e30', which is not a size", "--model", "m", "--memory", "1e30");
	REFUSED("--memory is '99999999T'", "--model", "m", "--memory", "99999999T");
	REFUSED("--timeout is '5', which is not a duration", "--model", "m", "--timeout", "5");
	REFUSED("--timeout is 2h, which is out of range: 0 to 1h", "--model", "m", "--timeout", "2h");
	REFUSED("--spare is '5 %', which is not a share such as 5% or 0.05", "--model", "m", "--spare", "5 %");
	REFUSED("--spare is '%', which is not a share", "--model", "m", "--spare", "%");
	REFUSED("--spare is 51%, which is out of range: 0% to 50%", "--model", "m", "--spare", "51%");
	REFUSED("--capacity-factor is 'nan', which is not a number", "--model", "m", "--capacity-factor", "nan");
	REFUSED("--color is 'blue'; it can be red or green", "--model", "m", "--color", "blue");
	REFUSED("--fast is 'maybe'; it can be true or false", "--model", "m", "--fast=maybe");
	REFUSED("'-x' is not an option", "--model", "m", "-x");
	REFUSED("'c' is one argument too many: tool takes FILE...", "--model", "m", "a", "b", "c");
	REFUSED("--help takes no value", "--help=1");
	REFUSED("cannot open the configuration file '/nowhere/x.yaml'", "--config", "/nowhere/x.yaml");
	REFUSED("--fast does not go with --threads 64", "--model", "m", "--fast", "--threads", "64");
	setenv("CADRE_THREADS", "many", 1);
	REFUSED("CADRE_THREADS is 'many', which is not a whole number", "--model", "m");
}

static void mistakes_in_files(void **state)
{
	(void)state;
	static const struct {
		const char *content, *sentence;
	} cases[] = {
		{ "model: m\nthread: 3\n", "line 2: there is no option thread; did you mean threads?" },
		{ "model: m\nthreads: 3\nthreads: 4\n", "line 3: threads is given twice" },
		{ "threads: 99\n", "line 1: threads is 99, which is out of range: 1 to 64" },
		{ "threads: [1, 2]\n", "line 1: threads must have one plain value" },
		{ "- threads\n", "expected lines 'option: value'" },
		{ "{[1]: 2}\n", "a key must be the name of an option" },
		{ "model: \"m\n", "line" },
		{ "model: m\n\tthreads: 3\n", "line" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		write_file(cases[i].content);
		REFUSED(cases[i].sentence, "--model", "m", "--config", path);
		assert_non_null(strstr(error.text, path));
		unlink(path);
	}

	write_file("");
	assert_int_equal(PARSE("--config", path, "--model", "m"), CAD_OK);
}

/* What the program prints on stdout while parsing `argv`. */
static char *printed(char **argv)
{
	char name[] = "/tmp/cadre-options-XXXXXX";
	int fd = mkstemp(name), saved = dup(STDOUT_FILENO);

	assert_true(fd >= 0);
	fflush(stdout);
	dup2(fd, STDOUT_FILENO);
	enum cad_status status = parse(argv);
	fflush(stdout);
	dup2(saved, STDOUT_FILENO);
	close(saved);
	assert_int_equal(status, CAD_OK);
	assert_int_equal(action, CAD_OPTIONS_EXIT);
	assert_null(options);
	static char text[8192];
	ssize_t got = pread(fd, text, sizeof text - 1, 0);
	text[got > 0 ? got : 0] = 0;
	close(fd);
	unlink(name);

	return text;
}
#define PRINTED(...) printed((char *[]){ (char *)"tool", __VA_ARGS__, NULL })

static void help_and_version(void **state)
{
	(void)state;
	const char *text = PRINTED("--threads", "9999", "--help"); /* help wins over mistakes in values */
	for (size_t i = 0; i < spec.count; i++)
		assert_non_null(strstr(text, table[i].help));
	assert_non_null(strstr(text, "--color red|green"));
	assert_non_null(strstr(text, "--place here|shelf[:N]\n        where (default here)"));
	assert_non_null(strstr(text, "compute threads (default 2; 1 to 64)"));
	assert_non_null(strstr(text, "directory of the checkpoint (required)"));
	text = PRINTED("--completion=bash");
	assert_non_null(strstr(text, "offer='here shelf'"));
	text = PRINTED("--version");
	char version[80];
	snprintf(version, sizeof version, "tool %s (%s)\n", cad_version, cad_commit);
	assert_string_equal(text, version);
	assert_non_null(strstr(PRINTED("--model", "m", "--check-config"), "valid"));
}

static void printed_config_reads_back(void **state)
{
	(void)state;
	setenv("CADRE_THREADS", "3", 1);
	const char *text = PRINTED("--model", "m", "--note", "say \"a\\b\" # \x01: \xc3\xa9", "--memory", "3M",
		"--color", "red", "--print-config");
	assert_non_null(strstr(text, "threads: 3   # environment\n"));
	assert_non_null(strstr(text, "color: red   # flag\n"));
	assert_non_null(strstr(text, "timeout: 20ms   # default\n"));
	write_file(text);
	unsetenv("CADRE_THREADS");
	assert_int_equal(PARSE("--config", path), CAD_OK);
	assert_string_equal(values.note, "say \"a\\b\" # \x01: \xc3\xa9");
	assert_int_equal(values.threads, 3);
	assert_int_equal(values.memory, 3 << 20);
	assert_int_equal(values.color, RED);
}

/* ---- old names ---- */

static void old_names_are_taken(void **state)
{
	(void)state;
	assert_int_equal(PARSE("--directory", "m", "--timeout-ms=1500", "--quick"), CAD_OK);
	assert_string_equal(values.model, "m");
	assert_int_equal(values.timeout_ns, 1500000000);
	assert_true(values.fast);
	assert_string_equal(cad_options_old_name(options, "timeout"), "timeout-ms");
	assert_string_equal(cad_options_source(options, "timeout"), "flag");
	assert_null(cad_options_old_name(options, "threads"));

	clean(NULL);
	setenv("CADRE_TIMEOUT_MS", "30", 1);
	assert_int_equal(PARSE("--model", "m"), CAD_OK);
	assert_int_equal(values.timeout_ns, 30000000);
	assert_string_equal(cad_options_source(options, "timeout"), "environment");
	assert_string_equal(cad_options_old_name(options, "timeout"), "timeout-ms");
	assert_null(cad_options_old_name(options, "model"));

	clean(NULL);
	write_file("timeout-ms: 40\n");
	assert_int_equal(PARSE("--model", "m", "--config", path), CAD_OK);
	assert_int_equal(values.timeout_ns, 40000000);
	assert_string_equal(cad_options_source(options, "timeout"), "file");

	/* a stronger source wins among them, too */
	clean(NULL);
	write_file("timeout-ms: 40\n");
	setenv("CADRE_TIMEOUT_MS", "30", 1);
	assert_int_equal(PARSE("--model", "m", "--timeout-ms", "20", "--config", path), CAD_OK);
	assert_int_equal(values.timeout_ns, 20000000);
}

static void both_names_are_refused(void **state)
{
	(void)state;
	const char *both = "--timeout-ms is the old name of --timeout, and both are given: keep the new one alone";
	REFUSED(both, "--model", "m", "--timeout", "1s", "--timeout-ms", "1000");
	REFUSED(both, "--model", "m", "--timeout-ms", "1000", "--timeout", "1s");
	REFUSED("--timeout-ms is given twice", "--model", "m", "--timeout-ms", "1000", "--timeout-ms", "1000");

	setenv("CADRE_TIMEOUT_MS", "30", 1);
	REFUSED(both, "--model", "m", "--timeout", "1s");
	assert_int_equal(strncmp(error.text, "CADRE_TIMEOUT_MS: ", 18), 0);
	setenv("CADRE_TIMEOUT", "30ms", 1);
	REFUSED(both, "--model", "m");

	clean(NULL);
	write_file("timeout: 1s\ntimeout-ms: 1000\n");
	REFUSED(both, "--model", "m", "--config", path);
	assert_non_null(strstr(error.text, "line 2: timeout-ms: "));
	clean(NULL);
	write_file("timeout-ms: 1000\n");
	REFUSED(both, "--model", "m", "--timeout", "1s", "--config", path);
}

static void old_names_are_called_by_what_was_written(void **state)
{
	(void)state;
	REFUSED("--timeout-ms is '5s', which is not a whole number; its new name is --timeout, which takes a unit too",
		"--model", "m", "--timeout-ms", "5s");
	REFUSED("--timeout-ms is ''", "--model", "m", "--timeout-ms", "");
	REFUSED("--timeout-ms is '999999999999999999999999999999999999999999999999999999999999999999999999'", "--model",
		"m", "--timeout-ms", "999999999999999999999999999999999999999999999999999999999999999999999999");
	REFUSED("--timeout-ms is 3600001ms, which is out of range: 0 to 1h", "--model", "m", "--timeout-ms", "3600001");
	REFUSED("--timeout-ms needs a value: time", "--model", "m", "--timeout-ms");
	setenv("CADRE_TIMEOUT_MS", "3600001", 1);
	REFUSED("CADRE_TIMEOUT_MS is 3600001ms, which is out of range", "--model", "m");

	/* also where a flag is stronger */
	clean(NULL);
	write_file("timeout-ms: 3600001\n");
	REFUSED("line 1: timeout-ms is 3600001ms, which is out of range", "--model", "m", "--timeout-ms", "1",
		"--config", path);
}

static void old_names_are_not_shown(void **state)
{
	(void)state;
	assert_null(strstr(PRINTED("--help"), "timeout-ms"));
	assert_null(strstr(PRINTED("--model", "m", "--man"), "timeout\\-ms"));
	const char *text = PRINTED("--model", "m", "--timeout-ms", "1500", "--print-config");
	assert_non_null(strstr(text, "timeout: 1500ms   # flag\n"));
	assert_null(strstr(text, "timeout-ms"));
	REFUSED("there is no option --timeout-mz; did you mean --timeout?", "--model", "m", "--timeout-mz", "1");
}

static void old_names_are_told_by_a_check(void **state)
{
	(void)state;
	write_file("timeout-ms: 40\n");
	const char *text = PRINTED("--model", "m", "--config", path, "--check-config");
	assert_non_null(strstr(text, "valid\n"));
	assert_non_null(strstr(
		text, "tool: 'timeout-ms' (file) is the old name of 'timeout'; the next version will not accept it\n"));
	assert_null(strstr(PRINTED("--model", "m", "--timeout", "40ms", "--check-config"), "old name"));
}

/* What a run logs, and only a run. */
static void old_names_are_warned_of_once(void **state)
{
	(void)state;
	char name[] = "/tmp/cadre-options-XXXXXX", text[4096];
	int fd = mkstemp(name), saved = dup(STDERR_FILENO), exit_code;
	char *argv[] = { (char *)"tool", (char *)"--model", (char *)"m", (char *)"--timeout-ms", (char *)"5", NULL };

	assert_true(fd >= 0);
	dup2(fd, STDERR_FILENO);
	bool runs = cad_options_main(&spec, 5, argv, &values, &options, &exit_code);
	dup2(saved, STDERR_FILENO);
	close(saved);
	ssize_t got = pread(fd, text, sizeof text - 1, 0);
	text[got > 0 ? got : 0] = 0;
	close(fd);
	unlink(name);

	assert_true(runs);
	assert_int_equal(logs, 1);
	const char *line = strstr(text, "old=timeout-ms new=timeout from=flag");
	assert_non_null(line);
	assert_null(strstr(line + 1, "old="));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(defaults, clean),
		cmocka_unit_test_teardown(every_type_by_flag, clean),
		cmocka_unit_test_teardown(bools, clean),
		cmocka_unit_test_teardown(order_of_strength, clean),
		cmocka_unit_test_teardown(rivals_by_strength, clean),
		cmocka_unit_test_teardown(not_from_the_environment, clean),
		cmocka_unit_test_teardown(sentences_name_the_environment, clean),
		cmocka_unit_test_teardown(mistakes_get_sentences, clean),
		cmocka_unit_test_teardown(mistakes_in_files, clean),
		cmocka_unit_test_teardown(help_and_version, clean),
		cmocka_unit_test_teardown(printed_config_reads_back, clean),
		cmocka_unit_test_teardown(old_names_are_taken, clean),
		cmocka_unit_test_teardown(both_names_are_refused, clean),
		cmocka_unit_test_teardown(old_names_are_called_by_what_was_written, clean),
		cmocka_unit_test_teardown(old_names_are_not_shown, clean),
		cmocka_unit_test_teardown(old_names_are_told_by_a_check, clean),
		cmocka_unit_test_teardown(old_names_are_warned_of_once, clean),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
