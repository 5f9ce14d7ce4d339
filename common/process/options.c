/* SPDX-License-Identifier: Apache-2.0 */
#include "common/process/options.h"

#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/version.h"
#include "common/process/completion.h"
#include "common/process/manual.h"
#include "common/process/options_value.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

const struct cad_choice cad_log_level_choices[] = { { "debug", CAD_LOG_DEBUG }, { "info", CAD_LOG_INFO },
	{ "warn", CAD_LOG_WARN }, { "error", CAD_LOG_ERROR }, { NULL, 0 } };
const struct cad_choice cad_log_format_choices[] = { { "logfmt", CAD_LOG_LOGFMT }, { "json", CAD_LOG_JSON },
	{ NULL, 0 } };

enum { NAME_BYTES_MAX = 64, VALUE_BYTES_MAX = 64 }; /* VALUE: of a number and its unit */

enum source { SOURCE_DEFAULT, SOURCE_FILE, SOURCE_ENVIRONMENT, SOURCE_FLAG };
static const char *const source_names[] = { "default", "file", "environment", "flag" };

/* What is known of one option before its text is read. */
struct entry {
	char *text; /* NULL: not given anywhere */
	enum source source;
	const struct cad_option_alias *alias; /* the old name that it was given by; NULL: its own */
};

struct cad_options {
	const struct cad_options_spec *spec;
	struct entry *entries; /* [spec->count] */
	char *config;          /* the file of --config, or NULL */
	bool help, version, print_config, check_config, man;
	enum cad_shell completion;
	char **positional;
	size_t positional_count;
	int argc;
	char **argv;
};

/* Flags that every program has. */
static const char *const common_names[] = { "config", "help", "version", "print-config", "check-config" };
enum { COMMON_COUNT = sizeof common_names / sizeof common_names[0] };

/* The program's, for sentences that it writes later; NULL: none. */
static const struct cad_options *latest;

void cad_options_destroy(struct cad_options *options)
{
	if (!options)
		return;

	latest = latest == options ? NULL : latest;
	for (size_t i = 0; options->entries && i < options->spec->count; i++)
		free(options->entries[i].text);
	for (size_t i = 0; i < options->positional_count; i++)
		free(options->positional[i]);
	free(options->positional);
	free(options->entries);
	free(options->config);
	free(options);
}

static enum cad_status no_memory(struct cad_error *error)
{
	return cad_error_set(error, CAD_ERR_MEMORY, "no memory for the options");
}

static enum cad_status text_set(char **to, const char *text, struct cad_error *error)
{
	char *copy = strdup(text);
	if (!copy)
		return no_memory(error);
	free(*to);
	*to = copy;
	return CAD_OK;
}

static enum cad_status entry_set(
	struct cad_options *options, size_t index, enum source source, const char *text, struct cad_error *error)
{
	options->entries[index].source = source;
	return text_set(&options->entries[index].text, text, error);
}

static bool is_named(const char *name, const char *text, size_t length)
{
	return strlen(name) == length && memcmp(name, text, length) == 0;
}

static bool find(const struct cad_options_spec *spec, const char *name, size_t length, size_t *index)
{
	for (size_t i = 0; i < spec->count; i++)
		if (is_named(spec->table[i].name, name, length)) {
			*index = i;
			return true;
		}
	return false;
}

static size_t index_of(const struct cad_options_spec *spec, const char *name)
{
	size_t index;
	CAD_ASSERT(find(spec, name, strlen(name), &index));
	return index;
}

/* An option, and the old name by which somebody calls it, NULL: its own. */
struct named {
	size_t index;
	const struct cad_option_alias *alias;
};

static bool find_either(const struct cad_options_spec *spec, const char *name, size_t length, struct named *named)
{
	named->alias = NULL;
	if (find(spec, name, length, &named->index))
		return true;
	for (size_t i = 0; i < spec->aliases_count; i++)
		if (is_named(spec->aliases[i].old_name, name, length)) {
			*named = (struct named){ index_of(spec, spec->aliases[i].name), &spec->aliases[i] };
			return true;
		}
	return false;
}

/* "5000" of an option that took milliseconds is "5000ms", written to `buffer`; *text goes from old
 * to new. `label` is how the error calls the option. */
static enum cad_status in_new_words(const struct cad_option_alias *alias, const char *label, const char **text,
	char buffer[VALUE_BYTES_MAX], struct cad_error *error)
{
	if (!alias || !alias->unit)
		return CAD_OK;

	size_t digits = strspn(*text, "0123456789");
	if (digits == 0 || (*text)[digits] || digits > VALUE_BYTES_MAX / 2)
		return cad_error_set(error, CAD_ERR_INVALID,
			"%s is '%.80s', which is not a whole number; its new name is --%s, which takes a unit too",
			label, *text, alias->name);
	snprintf(buffer, VALUE_BYTES_MAX, "%s%s", *text, alias->unit);
	*text = buffer;

	return CAD_OK;
}

/* What one source says of an option, in new words. A weaker source changes nothing, but both names
 * may not be given anywhere. */
static enum cad_status entry_give(struct cad_options *options, struct named named, enum source source,
	const char *label, const char *text, struct cad_error *error)
{
	struct entry *entry = &options->entries[named.index];

	if (entry->text && entry->alias != named.alias) {
		const struct cad_option_alias *old = named.alias ? named.alias : entry->alias;
		return cad_error_set(error, CAD_ERR_INVALID,
			"%s: --%s is the old name of --%s, and both are given: keep the new one alone", label,
			old->old_name, old->name);
	}
	if (entry->text)
		return CAD_OK;

	entry->alias = named.alias;
	return entry_set(options, named.index, source, text, error);
}

static enum cad_status entry_take(struct cad_options *options, struct named named, enum source source,
	const char *label, const char *text, struct cad_error *error)
{
	char buffer[VALUE_BYTES_MAX];
	enum cad_status status = in_new_words(named.alias, label, &text, buffer, error);
	return status == CAD_OK ? entry_give(options, named, source, label, text, error) : status;
}

/* ", did you mean --threads?" or nothing. `mark` is what stands before a
 * name where it was written. */
static enum cad_status unknown(const struct cad_options_spec *spec, const char *where, const char *mark,
	const char *name, struct cad_error *error)
{
	const char *nearest = NULL;
	const char **names = malloc((spec->count + COMMON_COUNT) * sizeof *names);

	if (names) {
		for (size_t i = 0; i < spec->count; i++)
			names[i] = spec->table[i].name;
		memcpy(names + spec->count, common_names, sizeof common_names);
		nearest = cad_nearest_name(name, names, spec->count + COMMON_COUNT);
		free(names);
	}

	if (nearest)
		return cad_error_set(error, CAD_ERR_INVALID, "%sthere is no option %s%s; did you mean %s%s?", where,
			mark, name, mark, nearest);
	return cad_error_set(error, CAD_ERR_INVALID, "%sthere is no option %s%s; '%s --help' lists them", where, mark,
		name, spec->program);
}

static enum cad_status positional_add(struct cad_options *options, const char *text, struct cad_error *error)
{
	const struct cad_options_spec *spec = options->spec;
	if (!spec->positional)
		return cad_error_set(error, CAD_ERR_INVALID, "'%s' is one argument too many: %s takes options only",
			text, spec->program);
	if (options->positional_count == spec->positional_max)
		return cad_error_set(error, CAD_ERR_INVALID, "'%s' is one argument too many: %s takes %s", text,
			spec->program, spec->positional);
	options->positional[options->positional_count] = strdup(text);
	if (!options->positional[options->positional_count])
		return no_memory(error);
	options->positional_count++;

	return CAD_OK;
}

/* One of the flags that every program has; *taken says whether it was. */
static enum cad_status common_flag(struct cad_options *options, const char *name, size_t length, const char *value,
	char *const *next, size_t *used, bool *taken, struct cad_error *error)
{
	bool *const switches[COMMON_COUNT] = { NULL, &options->help, &options->version, &options->print_config,
		&options->check_config };

	*taken = true;

	for (size_t i = 0; i < COMMON_COUNT; i++) {
		if (strlen(common_names[i]) != length || memcmp(common_names[i], name, length) != 0)
			continue;
		if (switches[i]) {
			*switches[i] = true;
			return value ? cad_error_set(error, CAD_ERR_INVALID, "--%s takes no value", common_names[i])
				     : CAD_OK;
		}
		if (!value && !*next)
			return cad_error_set(error, CAD_ERR_INVALID, "--config needs the name of a YAML file");
		*used = value ? 1 : 2;
		return text_set(&options->config, value ? value : *next, error);
	}

	*taken = false;
	return CAD_OK;
}

/* The flag at arguments[0] == "--name" or "--name=value"; *used: how many arguments it took. */
static enum cad_status flag(struct cad_options *options, char *const *arguments, size_t *used, struct cad_error *error)
{
	const char *name = arguments[0] + 2, *equals = strchr(name, '='), *value = equals ? equals + 1 : NULL;
	size_t length = equals ? (size_t)(equals - name) : strlen(name);
	struct named named;
	bool taken;

	*used = 1;
	enum cad_status status = common_flag(options, name, length, value, arguments + 1, used, &taken, error);
	if (taken || status != CAD_OK)
		return status;

	char label[NAME_BYTES_MAX + 2];
	snprintf(label, sizeof label, "--%.*s", (int)(length < NAME_BYTES_MAX ? length : NAME_BYTES_MAX - 1), name);
	if (!find_either(options->spec, name, length, &named))
		return unknown(options->spec, "", "--", label + 2, error);

	const struct cad_option *option = &options->spec->table[named.index];
	const struct entry *entry = &options->entries[named.index];
	if (entry->text && entry->alias == named.alias)
		return cad_error_set(error, CAD_ERR_INVALID, "%s is given twice", label);
	if (!value && option->type == CAD_OPTION_TYPE_BOOL)
		value = "true";
	if (!value && !arguments[1])
		return cad_error_set(error, CAD_ERR_INVALID, "%s needs a value: %s", label, option->help);
	*used = value ? 1 : 2;

	return entry_take(options, named, SOURCE_FLAG, label, value ? value : arguments[1], error);
}

static enum cad_status flags_read(struct cad_options *options, int argc, char **argv, struct cad_error *error)
{
	bool flags_over = false;
	for (int i = 1; i < argc;) {
		enum cad_status status;
		size_t used = 1;
		if (!flags_over && strcmp(argv[i], "--") == 0) {
			flags_over = true;
			status = CAD_OK;
		} else if (!flags_over && strcmp(argv[i], "-h") == 0) {
			options->help = true;
			status = CAD_OK;
		} else if (!flags_over && strcmp(argv[i], "--man") == 0) {
			options->man = true; /* for the build, as the next: --help shows neither */
			status = CAD_OK;
		} else if (!flags_over && strncmp(argv[i], "--completion=", strlen("--completion=")) == 0) {
			status = cad_shell_read(argv[i] + strlen("--completion="), &options->completion, error);
		} else if (!flags_over && strncmp(argv[i], "--", 2) == 0) {
			status = flag(options, argv + i, &used, error);
		} else if (!flags_over && argv[i][0] == '-' && argv[i][1]) {
			status = cad_error_set(error, CAD_ERR_INVALID,
				"'%s' is not an option: options begin with two dashes (after '--' it would be an argument)",
				argv[i]);
		} else {
			status = positional_add(options, argv[i], error);
		}
		if (status != CAD_OK)
			return status;
		i += (int)used;
	}
	return CAD_OK;
}

static void environment_name(const char *name, char text[NAME_BYTES_MAX + 8])
{
	size_t length = (size_t)snprintf(text, NAME_BYTES_MAX + 8, "CADRE_%s", name);
	for (size_t i = 0; i < length; i++)
		text[i] = text[i] == '-' ? '_' : (char)toupper((unsigned char)text[i]);
}

static enum cad_status variable_read(
	struct cad_options *options, const char *option_name, struct named named, struct cad_error *error)
{
	char name[NAME_BYTES_MAX + 8];

	if (options->spec->table[named.index].not_from_environment)
		return CAD_OK;
	environment_name(option_name, name);
	const char *text = getenv(name);
	return text ? entry_take(options, named, SOURCE_ENVIRONMENT, name, text, error) : CAD_OK;
}

/* Of what no flag has set. */
static enum cad_status environment_read(struct cad_options *options, struct cad_error *error)
{
	const struct cad_options_spec *spec = options->spec;
	enum cad_status status = CAD_OK;

	for (size_t i = 0; i < spec->count && status == CAD_OK; i++)
		status = variable_read(options, spec->table[i].name, (struct named){ i, NULL }, error);
	for (size_t i = 0; i < spec->aliases_count && status == CAD_OK; i++) {
		const struct cad_option_alias *alias = &spec->aliases[i];
		const struct named named = { index_of(spec, alias->name), alias };
		status = variable_read(options, alias->old_name, named, error);
	}
	const char *config = options->config ? NULL : getenv("CADRE_CONFIG");
	return config && *config && status == CAD_OK ? text_set(&options->config, config, error) : status;
}

static enum cad_status file_pair(struct cad_options *options, yaml_document_t *document, const yaml_node_pair_t *pair,
	bool *seen, struct cad_error *error)
{
	const yaml_node_t *key = yaml_document_get_node(document, pair->key),
			  *value = yaml_document_get_node(document, pair->value);
	char where[CAD_ERROR_TEXT_BYTES / 2];

	snprintf(where, sizeof where, "%s, line %zu: ", options->config, key->start_mark.line + 1);
	if (key->type != YAML_SCALAR_NODE)
		return cad_error_set(error, CAD_ERR_INVALID, "%sa key must be the name of an option", where);
	const char *name = (const char *)key->data.scalar.value;
	struct named named;
	if (!find_either(options->spec, name, strlen(name), &named))
		return unknown(options->spec, where, "", name, error);
	if (value->type != YAML_SCALAR_NODE)
		return cad_error_set(error, CAD_ERR_INVALID, "%s%s must have one plain value", where, name);
	char label[sizeof where + NAME_BYTES_MAX];
	snprintf(label, sizeof label, "%s%s", where, name);
	const char *text = (const char *)value->data.scalar.value;
	if (seen[named.index] && options->entries[named.index].alias == named.alias)
		return cad_error_set(error, CAD_ERR_INVALID, "%s is given twice", label);
	seen[named.index] = true;

	/* Read at once, so that a value that a flag overrides is checked too and the error can name
	 * the line. */
	struct cad_option probe = options->spec->table[named.index];
	probe.offset = 0;
	uint64_t ignored[1];
	char buffer[VALUE_BYTES_MAX];
	enum cad_status status = in_new_words(named.alias, label, &text, buffer, error);
	if (status == CAD_OK)
		status = cad_option_read(&probe, label, text, ignored, error);
	return status == CAD_OK ? entry_give(options, named, SOURCE_FILE, label, text, error) : status;
}

static enum cad_status file_mapping(struct cad_options *options, yaml_document_t *document, struct cad_error *error)
{
	const yaml_node_t *root = yaml_document_get_root_node(document);
	if (!root)
		return CAD_OK; /* an empty file */
	if (root->type != YAML_MAPPING_NODE)
		return cad_error_set(error, CAD_ERR_INVALID, "%s: expected lines 'option: value'", options->config);

	bool *seen = calloc(options->spec->count + 1, sizeof *seen);
	if (!seen)
		return no_memory(error);
	enum cad_status status = CAD_OK;
	for (const yaml_node_pair_t *pair = root->data.mapping.pairs.start;
		pair < root->data.mapping.pairs.top && status == CAD_OK; pair++)
		status = file_pair(options, document, pair, seen, error);
	free(seen);

	return status;
}

static enum cad_status file_read(struct cad_options *options, struct cad_error *error)
{
	FILE *file = fopen(options->config, "re");
	if (!file)
		return cad_error_set(error, CAD_ERR_IO, "cannot open the configuration file '%s': %s", options->config,
			strerror(errno));
	yaml_parser_t parser;
	yaml_document_t document;
	enum cad_status status;
	if (!yaml_parser_initialize(&parser)) {
		status = no_memory(error);
		goto close_file;
	}

	yaml_parser_set_input_file(&parser, file);

	if (!yaml_parser_load(&parser, &document)) {
		status = cad_error_set(error, CAD_ERR_INVALID, "%s, line %zu: %s", options->config,
			parser.problem_mark.line + 1, parser.problem ? parser.problem : "this is not YAML");
		goto delete_parser;
	}

	status = file_mapping(options, &document, error);
	yaml_document_delete(&document);

delete_parser:
	yaml_parser_delete(&parser);
close_file:
	fclose(file);

	return status;
}

/* Forgets those that are given less strongly than another. */
static enum cad_status rivals_settle(struct cad_options *options, struct cad_error *error)
{
	const char *const *rivals = options->spec->rivals, *flag = NULL;
	enum source strongest = SOURCE_DEFAULT;

	for (size_t i = 0; rivals && rivals[i]; i++) {
		const struct entry *entry = &options->entries[index_of(options->spec, rivals[i])];
		if (!entry->text || !entry->text[0])
			continue;
		if (flag && entry->source == SOURCE_FLAG)
			return cad_error_set(error, CAD_ERR_INVALID,
				"--%s and --%s exclude each other: give the one that is meant", flag, rivals[i]);
		flag = entry->source == SOURCE_FLAG ? rivals[i] : flag;
		strongest = entry->source > strongest ? entry->source : strongest;
	}

	for (size_t i = 0; rivals && rivals[i]; i++) {
		struct entry *entry = &options->entries[index_of(options->spec, rivals[i])];
		if (entry->source >= strongest)
			continue;
		free(entry->text);
		*entry = (struct entry){ .text = NULL };
	}
	return CAD_OK;
}

/* Whether `text` has `word`, and not as a part of a longer one. */
static bool has_word(const char *text, const char *word)
{
	size_t length = strlen(word);

	for (const char *at = text; (at = strstr(at, word)) != NULL; at++) {
		unsigned char before = at > text ? (unsigned char)at[-1] : 0, after = (unsigned char)at[length];
		if (!isalnum(before) && !strchr("-_.", before ? before : ' ') && !isalnum(after) &&
			!strchr("-_", after ? after : ' '))
			return true;
	}
	return false;
}

/* Whether a sentence has a value, or one of a list with commas, that is a path or an address.
 * Others, such as the name of a cluster, may stand in any sentence. */
static bool has_value(const char *text, const char *value)
{
	enum { VALUE_BYTES_MIN = 4 };
	char item[CAD_ERROR_TEXT_BYTES];

	for (size_t size; *value; value += size + (value[size] == ',')) {
		size = strcspn(value, ",");
		snprintf(item, sizeof item, "%.*s", (int)size, value);
		if (size >= VALUE_BYTES_MIN && strpbrk(item, "/:") && has_word(text, item))
			return true;
	}
	return false;
}

/* By its name, or by its value. */
static bool speaks_of(const char *text, const struct cad_option *option, const struct entry *entry)
{
	char flag[NAME_BYTES_MAX + 2];

	snprintf(flag, sizeof flag, "--%s", option->name);
	return has_word(text, flag) || (option->type == CAD_OPTION_TYPE_STRING && has_value(text, entry->text));
}

/* Whoever reads "--router: ..." and gave no such flag looks for it in vain: where it is from is said. */
static void tell_sources(const struct cad_options *options, struct cad_error *error)
{
	const char *join = " (";
	char more[CAD_ERROR_TEXT_BYTES] = "", name[NAME_BYTES_MAX + 8];
	size_t length = 0;

	for (size_t i = 0; i < options->spec->count && length < sizeof more; i++) {
		const struct cad_option *option = &options->spec->table[i];
		const struct entry *entry = &options->entries[i];
		bool file = entry->source == SOURCE_FILE;
		if ((!file && entry->source != SOURCE_ENVIRONMENT) || !speaks_of(error->text, option, entry))
			continue;
		environment_name(entry->alias ? entry->alias->old_name : option->name, name);
		length += (size_t)snprintf(more + length, sizeof more - length, "%s--%s is from %s%s", join,
			option->name, file ? options->config : name, file ? "" : " in the environment");
		join = ", ";
	}
	if (length > 0)
		(void)cad_error_set(error, error->status, "%.*s%s)", (int)(sizeof error->text / 2), error->text, more);
}

void cad_options_tell_sources(struct cad_error *error)
{
	if (latest)
		tell_sources(latest, error);
}

static enum cad_status values_read(struct cad_options *options, void *values, struct cad_error *error)
{
	for (size_t i = 0; i < options->spec->count; i++) {
		const struct cad_option *option = &options->spec->table[i];
		struct entry *entry = &options->entries[i];
		char label[NAME_BYTES_MAX + 8];
		const char *name = entry->alias ? entry->alias->old_name : option->name;
		if (entry->source == SOURCE_ENVIRONMENT)
			environment_name(name, label);
		else
			snprintf(label, sizeof label, "--%s", name);
		if (!option->default_text && (!entry->text || !entry->text[0]))
			return cad_error_set(error, CAD_ERR_INVALID, "--%s is %s: %s", option->name,
				entry->text ? "empty" : "needed", option->help);
		if (!entry->text) {
			enum cad_status status = entry_set(options, i, SOURCE_DEFAULT, option->default_text, error);
			if (status != CAD_OK)
				return status;
		}
		enum cad_status status = cad_option_read(option, label, entry->text, values, error);
		if (status != CAD_OK)
			return status;
	}
	enum cad_status status = options->spec->check ? options->spec->check(values, error) : CAD_OK;
	if (status != CAD_OK)
		tell_sources(options, error);
	return status;
}

static void print_choices(const struct cad_option *option)
{
	for (const struct cad_choice *choice = option->choices; choice->name; choice++)
		printf("%s%s", choice == option->choices ? " " : "|", choice->name);
}

static void print_option(const struct cad_option *option)
{
	char note[300];

	cad_option_note(option, note, sizeof note);
	printf("  --%s", option->name);
	if (option->choices)
		print_choices(option);
	else if (*cad_option_placeholder(option))
		printf(" %s", cad_option_placeholder(option));
	printf("\n        %s%s\n", option->help, note);
}

static void print_help(const struct cad_options_spec *spec)
{
	printf("Usage: %s [options]%s%s\n%s\n\nOptions:\n", spec->program, spec->positional ? " " : "",
		spec->positional ? spec->positional : "", spec->summary);
	for (size_t i = 0; i < spec->count; i++)
		print_option(&spec->table[i]);
	printf("  --config FILE\n        YAML file with lines 'option: value'\n"
	       "  --print-config\n        print every option with its value and source, in the form of that file, and exit\n"
	       "  --check-config\n        check all options, the files that they name, and what they ask of this machine, and exit\n"
	       "  --help, --version\n\n"
	       "Every option can also be set in the environment (--log-level: CADRE_LOG_LEVEL). Flags override the environment, which overrides the file.\n");
}

static void print_config(const struct cad_options *options)
{
	for (size_t i = 0; i < options->spec->count; i++) {
		bool quoted = options->spec->table[i].type == CAD_OPTION_TYPE_STRING;
		printf("%s: %s", options->spec->table[i].name, quoted ? "\"" : "");
		for (const char *text = options->entries[i].text; *text; text++) {
			if ((unsigned char)*text < 0x20)
				printf("\\x%02x", (unsigned char)*text);
			else
				printf("%s%c", quoted && (*text == '"' || *text == '\\') ? "\\" : "", *text);
		}
		printf("%s   # %s\n", quoted ? "\"" : "", source_names[options->entries[i].source]);
	}
}

/* Old names are said here, too: whoever checks a file before an upgrade does not see a log. */
static void print_check(const struct cad_options *options)
{
	printf("%s: the configuration is valid\n", options->spec->program);
	for (size_t i = 0; i < options->spec->count; i++)
		if (options->entries[i].alias)
			printf("%s: '%s' (%s) is the old name of '%s'; the next version will not accept it\n",
				options->spec->program, options->entries[i].alias->old_name,
				source_names[options->entries[i].source], options->spec->table[i].name);
}

static enum cad_status read_all(
	struct cad_options *options, int argc, char **argv, void *values, struct cad_error *error)
{
	enum cad_status status = flags_read(options, argc, argv, error);
	if (status != CAD_OK || options->help || options->version || options->man || options->completion)
		return status;
	status = environment_read(options, error);
	if (status == CAD_OK && options->config)
		status = file_read(options, error);
	if (status == CAD_OK)
		status = rivals_settle(options, error);
	return status == CAD_OK ? values_read(options, values, error) : status;
}

/* True when the user asked for something to be printed instead of a run. */
static bool answered(const struct cad_options *options)
{
	bool is_command = strchr(options->spec->program, ' ');

	if (options->help)
		print_help(options->spec);
	else if (options->man)
		(is_command ? cad_manual_command : cad_manual_page)(stdout, options->spec);
	else if (options->completion)
		(is_command ? cad_completion_command : cad_completion_script)(
			stdout, options->completion, options->spec);
	else if (options->version)
		printf("%s %s (%s)\n", options->spec->program, cad_version, cad_commit);
	else if (options->print_config)
		print_config(options);
	else if (options->check_config)
		print_check(options);
	else
		return false;
	return true;
}

enum cad_status cad_options_parse(const struct cad_options_spec *spec, int argc, char **argv, void *values,
	struct cad_options **options, enum cad_options_action *action, struct cad_error *error)
{
	struct cad_options *made = calloc(1, sizeof *made);
	if (!made)
		return no_memory(error);

	made->spec = spec;
	made->argc = argc;
	made->argv = argv;
	made->entries = calloc(spec->count + 1, sizeof *made->entries);
	made->positional = calloc(spec->positional_max + 1u, sizeof *made->positional);
	enum cad_status status =
		made->entries && made->positional ? read_all(made, argc, argv, values, error) : no_memory(error);
	if (status == CAD_OK && made->check_config && spec->check_files) {
		status = spec->check_files(values, error);
		if (status != CAD_OK)
			tell_sources(made, error);
	}
	if (status != CAD_OK) {
		cad_options_destroy(made);
		return status;
	}

	if (answered(made)) {
		cad_options_destroy(made);
		*options = NULL;
		*action = CAD_OPTIONS_EXIT;
		return CAD_OK;
	}

	*options = made;
	*action = CAD_OPTIONS_RUN;
	return CAD_OK;
}

/* Up to the end of the last value that the table names. */
static size_t values_size(const struct cad_options_spec *spec)
{
	size_t size = 0;
	for (size_t i = 0; i < spec->count; i++)
		if (spec->table[i].offset + sizeof(uint64_t) > size)
			size = spec->table[i].offset + sizeof(uint64_t);
	return size;
}

enum cad_status cad_options_reread(const struct cad_options *options,
	void (*changed)(void *context, const char *name, const char *text), void *context, struct cad_error *error)
{
	struct cad_options *now;
	enum cad_options_action action;
	enum cad_status status = options->config ? cad_file_check_regular(options->config, error) : CAD_OK;
	if (status != CAD_OK)
		return status;
	void *values = calloc(1, values_size(options->spec));
	if (!values)
		return no_memory(error);

	status = cad_options_parse(options->spec, options->argc, options->argv, values, &now, &action, error);
	if (status != CAD_OK)
		goto free_values;
	for (size_t i = 0; i < options->spec->count; i++)
		if (strcmp(now->entries[i].text, options->entries[i].text) != 0)
			changed(context, options->spec->table[i].name, now->entries[i].text);
	cad_options_destroy(now);

free_values:
	free(values);
	return status;
}

size_t cad_options_positional_count(const struct cad_options *options) { return options->positional_count; }

const char *cad_options_positional(const struct cad_options *options, size_t index)
{
	CAD_ASSERT(index < options->positional_count);
	return options->positional[index];
}

const char *cad_options_source(const struct cad_options *options, const char *name)
{
	return source_names[options->entries[index_of(options->spec, name)].source];
}

const char *cad_options_old_name(const struct cad_options *options, const char *name)
{
	const struct cad_option_alias *alias = options->entries[index_of(options->spec, name)].alias;
	return alias ? alias->old_name : NULL;
}

static void warn_of_old_names(const struct cad_options *options)
{
	for (size_t i = 0; i < options->spec->count; i++)
		if (options->entries[i].alias)
			cad_log_warn("options",
				"this is the old name of an option; the next version will not accept it",
				CAD_S("old", options->entries[i].alias->old_name),
				CAD_S("new", options->spec->table[i].name),
				CAD_S("from", source_names[options->entries[i].source]));
}

bool cad_options_main(const struct cad_options_spec *spec, int argc, char **argv, void *values,
	struct cad_options **options, int *exit_code)
{
	struct cad_error error;
	enum cad_options_action action;

	if (cad_options_parse(spec, argc, argv, values, options, &action, &error) != CAD_OK) {
		fprintf(stderr, "%s: %s\n", spec->program, error.text);
		*exit_code = 2;
		return false;
	}
	*exit_code = 0;
	if (action == CAD_OPTIONS_EXIT)
		return false;

	latest = *options;
	if (spec->log)
		spec->log(values);
	warn_of_old_names(*options);

	return true;
}
