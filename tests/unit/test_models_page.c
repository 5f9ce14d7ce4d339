/* SPDX-License-Identifier: Apache-2.0 */
/*
 * docs/MODELS.md against the code: its rows are the families that there are, its cases are there, and
 * what it says is refused is refused. A family that is new has no row yet: the failure says which.
 */
#include "common/base/file.h"
#include "common/model/config.h"
#include "common/model/families/families.h"
#include "common/model/known_keys.h"
#include "common/model/lacking.h"
#include "tests/support/golden_config.h"
#include "tests/support/must.h"

#include <glob.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { CELLS_MAX = 8, ROWS_MAX = 128, NAME_BYTES = 96 };

#define ROW_OF(name) &cad_arch_##name,
static const struct cad_arch *const archs[] = { CAD_FAMILIES(ROW_OF) };
enum { ARCHS = sizeof archs / sizeof *archs };

/* ---- the page ---- */

struct row {
	char *cells[CELLS_MAX]; /* trimmed */
	size_t count;
};

static struct {
	char *text;
	struct row running[ROWS_MAX], refused[ROWS_MAX], reading[ROWS_MAX], lacking[ROWS_MAX];
	size_t running_count, refused_count, reading_count, lacking_count;
} page;

static char *trim(char *text)
{
	text += strspn(text, " ");
	for (size_t length = strlen(text); length && text[length - 1] == ' '; length--)
		text[length - 1] = 0;
	return text;
}

/* "| a | b |": the line is cut up in place. */
static struct row read_row(char *line)
{
	struct row row = { .count = 0 };
	for (char *at = line + 1, *end; (end = strchr(at, '|')) != NULL; at = end + 1) {
		*end = 0;
		assert_true(row.count < CELLS_MAX);
		row.cells[row.count++] = trim(at);
	}
	return row;
}

/* Tables are told by their heads. */
static int load_page(void **state)
{
	(void)state;
	static const struct {
		const char *head;
		struct row *rows;
		size_t *count;
	} tables[] = {
		{ "| family | models | what is covered |", page.running, &page.running_count },
		{ "| refused |", page.refused, &page.refused_count },
		{ "| family | models | what is missing |", page.reading, &page.reading_count },
		{ "| family | needs |", page.lacking, &page.lacking_count },
	};
	size_t bytes, table = 0, in = SIZE_MAX;
	struct cad_error error;

	must(cad_file_read(CADRE_SOURCE_DIR "/docs/MODELS.md", 1 << 20, &page.text, &bytes, &error), &error);
	for (char *line = page.text, *next; line; line = next) {
		next = strchr(line, '\n');
		if (next)
			*next++ = 0;
		if (line[0] != '|') {
			in = SIZE_MAX;
		} else if (table < 4 && strncmp(line, tables[table].head, strlen(tables[table].head)) == 0) {
			in = table++;
		} else if (in != SIZE_MAX && strncmp(line, "|---", 4) != 0) {
			assert_true(*tables[in].count < ROWS_MAX);
			tables[in].rows[(*tables[in].count)++] = read_row(line);
		}
	}
	assert_int_equal(table, 4);
	return 0;
}

static int free_page(void **state)
{
	(void)state;
	free(page.text);
	return 0;
}

/* What stands between the next two backticks at *at, which moves behind them; false: nothing. */
static bool next_code(const char **at, char *code, size_t bytes)
{
	const char *begin = strchr(*at, '`'), *end = begin ? strchr(begin + 1, '`') : NULL;
	if (!end)
		return false;
	assert_true((size_t)(end - begin) <= bytes);
	snprintf(code, bytes, "%.*s", (int)(end - begin - 1), begin + 1);
	*at = end + 1;
	return true;
}

static const struct row *find_row(const struct row *rows, size_t count, const char *family)
{
	char name[NAME_BYTES];
	for (size_t i = 0; i < count; i++) {
		const char *at = rows[i].cells[0];
		if (next_code(&at, name, sizeof name) && strcmp(name, family) == 0)
			return &rows[i];
	}
	return NULL;
}

/* Rows in the order of names: who adds one knows where, and two who do rarely meet. */
static void check_order(const struct row *rows, size_t count, size_t cells)
{
	char names[2][NAME_BYTES] = { "", "" };
	for (size_t i = 0; i < count; i++) {
		const char *at = rows[i].cells[0];
		assert_true(next_code(&at, names[i % 2], NAME_BYTES));
		if (rows[i].count != cells)
			fail_msg("docs/MODELS.md: the row of %s has %zu cells, and its table %zu", rows[i].cells[0],
				rows[i].count, cells);
		if (i > 0 && strcmp(names[(i + 1) % 2], names[i % 2]) >= 0)
			fail_msg("docs/MODELS.md: the row of `%s` belongs before that of `%s`", names[i % 2],
				names[(i + 1) % 2]);
	}
}

static void every_family_has_a_row(void **state)
{
	(void)state;
	size_t running = 0, needing;
	const struct cad_lacking *lacking = cad_lacking_all(&needing);

	for (size_t i = 0; i < ARCHS; i++) {
		const char *name = archs[i]->name;
		bool runs = archs[i]->runs;
		running += runs;
		if (!find_row(runs ? page.running : page.reading, runs ? page.running_count : page.reading_count, name))
			fail_msg("docs/MODELS.md has no row of `%s` under \"%s\"", name,
				runs ? "Those that run" : "Those that are read, and do not run yet");
		if (cad_lacking_of(name))
			fail_msg("`%s` is a family now: its row goes from common/model/lacking.c and docs/MODELS.md",
				name);
	}
	for (size_t i = 0; i < needing; i++) {
		const struct row *row = find_row(page.lacking, page.lacking_count, lacking[i].name);
		if (!row || row->count != 2 || strcmp(row->cells[1], lacking[i].needs) != 0)
			fail_msg("docs/MODELS.md has no row | `%s` | %s |", lacking[i].name, lacking[i].needs);
	}

	/* and no more than that */
	assert_int_equal(page.running_count, running);
	assert_int_equal(page.reading_count, ARCHS - running);
	assert_int_equal(page.lacking_count, needing);
	check_order(page.running, page.running_count, 5);
	check_order(page.reading, page.reading_count, 4);
	check_order(page.lacking, page.lacking_count, 2);
}

/* ---- cases ---- */

static json_t *load_json(const char *path)
{
	json_t *object = json_load_file(path, JSON_DISABLE_EOF_CHECK, NULL); /* a seed has more behind it */
	if (!object)
		fail_msg("%s is not there, or not JSON", path);
	return object;
}

/* The family's own, or that of the language model inside. */
static bool is_of_family(const json_t *config, const char *family)
{
	const json_t *text = json_object_get(config, "text_config");
	const char *name = json_string_value(json_object_get(text ? text : config, "model_type"));
	return name && strcmp(name, family) == 0;
}

static bool names_case(const struct row *row, size_t cell, const char *wanted)
{
	char name[NAME_BYTES];
	const char *at = row->cells[cell];
	while (next_code(&at, name, sizeof name))
		if (strcmp(name, wanted) == 0)
			return true;
	return false;
}

/* "as `family`": the one is read as the other, whose cases stand for both. */
static bool stands_for(const struct row *row, char *family, size_t bytes)
{
	const char *at = row->cells[3];
	return strncmp(at, "as `", 4) == 0 && next_code(&at, family, bytes);
}

static void check_cases(const struct row *row, size_t cell, const char *family)
{
	char name[NAME_BYTES], path[256];
	const char *at = row->cells[cell];
	if (stands_for(row, name, sizeof name)) {
		const struct cad_arch *arch = cad_arch_find(family), *other = cad_arch_find(name);
		assert_true(arch && other && arch->read == other->read);
		return;
	}
	while (next_code(&at, name, sizeof name)) {
		snprintf(path, sizeof path, CADRE_SOURCE_DIR "/tests/golden/%s/model/config.json", name);
		json_t *config = load_json(path);
		if (!is_of_family(config, family))
			fail_msg("docs/MODELS.md: %s is not a case of `%s`", name, family);
		json_decref(config);
	}
}

/* Of all folders of tests/golden that a pattern finds: is each in its family's row? */
static void check_folders(const char *pattern)
{
	static const char root[] = CADRE_SOURCE_DIR "/tests/golden/";
	char name[NAME_BYTES];
	glob_t found;

	assert_int_equal(glob(pattern, 0, NULL, &found), 0);
	for (size_t i = 0; i < found.gl_pathc; i++) {
		const char *path = found.gl_pathv[i];
		json_t *config = load_json(path);
		snprintf(name, sizeof name, "%.*s",
			(int)(strlen(path) - (sizeof root - 1) - strlen("/model/config.json")), path + sizeof root - 1);
		for (size_t a = 0; a < ARCHS; a++) {
			const struct row *runs = find_row(page.running, page.running_count, archs[a]->name),
					 *reads = find_row(page.reading, page.reading_count, archs[a]->name);
			if (is_of_family(config, archs[a]->name) && !(runs && names_case(runs, 3, name)) &&
				!(reads && names_case(reads, 3, name)))
				fail_msg("docs/MODELS.md: the row of `%s` does not have the case `%s`", archs[a]->name,
					name);
		}
		json_decref(config);
	}
	globfree(&found);
}

/* Whether tests/checkpoints makes random ones of the family. */
static bool is_drawn(const char *family)
{
	glob_t found;
	char quoted[NAME_BYTES];
	bool drawn = false;

	snprintf(quoted, sizeof quoted, "\"%s\": Family(", family);
	assert_int_equal(glob(CADRE_SOURCE_DIR "/tests/checkpoints/families/*.py", 0, NULL, &found), 0);
	for (size_t i = 0; i < found.gl_pathc; i++) {
		char *text;
		size_t bytes;
		struct cad_error error;
		must(cad_file_read(found.gl_pathv[i], 1 << 20, &text, &bytes, &error), &error);
		drawn = drawn || strstr(text, quoted);
		free(text);
	}
	globfree(&found);
	return drawn;
}

static void cases_are_there(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARCHS; i++) {
		const char *family = archs[i]->name;
		const struct row *row = find_row(archs[i]->runs ? page.running : page.reading,
			archs[i]->runs ? page.running_count : page.reading_count, family);
		assert_non_null(row);
		check_cases(row, 3, family);
		bool random = strstr(row->cells[3], "random") != NULL, made = is_drawn(family);
		if (random != made)
			fail_msg("docs/MODELS.md: the row of `%s` %s random cases, and tests/checkpoints %s", family,
				random ? "has" : "does not have", made ? "does" : "does not");
		if (archs[i]->runs && row->cells[3][0] == 0)
			fail_msg("docs/MODELS.md: the row of `%s` has no case at all", family);
	}
	check_folders(CADRE_SOURCE_DIR "/tests/golden/*-*/model/config.json");
	check_folders(CADRE_SOURCE_DIR "/tests/golden/forms/*/model/config.json");
}

/* ---- refusals ---- */

/* Of a relative's config: keys that this family does not know. */
static void drop_foreign_keys(json_t *config, const char *family)
{
	const char *key;
	json_t *value;
	void *next;
	json_object_foreach_safe(config, next, key, value)
	{
		if (!cad_known_key_find(cad_arch_find(family), "", key))
			json_object_del(config, key);
	}
}

/* A config.json of the family that is good: of a golden case, or a seed of the fuzzer. */
static json_t *find_config(const char *family)
{
	static const char *const patterns[] = { CADRE_SOURCE_DIR "/tests/golden/*-*/model/config.json",
		CADRE_SOURCE_DIR "/tests/fuzz/corpus/fuzz_config/*" };
	for (size_t p = 0; p < sizeof patterns / sizeof *patterns; p++) {
		glob_t found;
		json_t *config = NULL;
		assert_int_equal(glob(patterns[p], 0, NULL, &found), 0);
		for (size_t i = 0; i < found.gl_pathc && !config; i++) {
			json_t *tried = json_load_file(found.gl_pathv[i], JSON_DISABLE_EOF_CHECK, NULL);
			const json_t *text = json_object_get(tried, "text_config");
			if (is_of_family(tried, family))
				config = json_deep_copy(text ? text : tried);
			json_decref(tried);
		}
		globfree(&found);
		if (config)
			return config;
	}
	const struct row *row = find_row(page.running, page.running_count, family);
	char other[NAME_BYTES];
	if (row && stands_for(row, other, sizeof other)) {
		json_t *config = find_config(other);
		json_object_set_new(config, "model_type", json_string(family));
		drop_foreign_keys(config, family);
		return config;
	}
	fail_msg("there is no config.json of `%s`: a golden case has one, or a seed in tests/fuzz/corpus/fuzz_config",
		family);
	return NULL;
}

/* "key: value" */
static void check_refused(const char *family, const char *code)
{
	char key[NAME_BYTES];
	const char *colon = strstr(code, ": ");
	snprintf(key, sizeof key, "%.*s", (int)(colon - code), code);
	json_t *value = json_loads(colon + 2, JSON_DECODE_ANY, NULL);
	if (!value)
		fail_msg("docs/MODELS.md: `%s` is not a key and JSON", code);

	struct cad_model_spec spec;
	struct cad_error error = { 0 };
	json_t *config = find_config(family);
	must(golden_parse(json_deep_copy(config), NULL, &spec, &error), &error);
	cad_model_spec_fini(&spec);

	json_object_set_new(config, key, value);
	if (strcmp(key, "rope_scaling") == 0)
		json_object_del(config, "rope_parameters");
	if (golden_parse(config, NULL, &spec, &error) == CAD_OK)
		fail_msg("docs/MODELS.md: %s of `%s` is not refused", code, family);
	const char *inside = strncmp(key, "rope_", 5) == 0 ? "rope_" : key; /* told by the key in it */
	if (!strstr(error.text, inside))
		fail_msg("docs/MODELS.md: %s of `%s` is refused by another sentence: %s", code, family, error.text);
}

static size_t check_all_refused(const char *family, const char *cell)
{
	char code[256];
	size_t count = 0;
	while (next_code(&cell, code, sizeof code))
		if (strstr(code, ": ")) {
			check_refused(family, code);
			count++;
		}
	return count;
}

static void what_is_refused_is_refused(void **state)
{
	(void)state;
	assert_true(page.refused_count >= 3);
	for (size_t i = 0; i < ARCHS; i++) {
		const struct row *row = find_row(page.running, page.running_count, archs[i]->name);
		if (!archs[i]->runs)
			continue;
		assert_non_null(row);
		if (check_all_refused(archs[i]->name, row->cells[4]) == 0)
			fail_msg("docs/MODELS.md: the row of `%s` does not say what is refused, as `key: value`",
				archs[i]->name);
		for (size_t r = 0; r < page.refused_count; r++)
			assert_true(check_all_refused(archs[i]->name, page.refused[r].cells[0]) > 0);
	}
}

static void what_is_lacking_is_told(void **state)
{
	(void)state;
	size_t count;
	const struct cad_lacking *lacking = cad_lacking_all(&count);

	for (size_t i = 0; i < count; i++) {
		struct cad_model_spec spec;
		struct cad_error error;
		char sentence[256];
		json_t *config = golden_config("mixtral-a");
		json_object_set_new(config, "model_type", json_string(lacking[i].name));
		snprintf(sentence, sizeof sentence,
			"model_type is '%s', which needs %s: this version does not have that; supported are ",
			lacking[i].name, lacking[i].needs);
		assert_int_equal(golden_parse(config, NULL, &spec, &error), CAD_ERR_UNSUPPORTED);
		if (!strstr(error.text, sentence))
			fail_msg("no '%s' in '%s'", sentence, error.text);
	}
}

/* What does not fit is not cut off in the middle. */
static void list_of_families_says_that_there_are_more(void **state)
{
	(void)state;
	char text[64];
	assert_string_equal(cad_arch_list(text, 48), "mixtral, olmoe, ... (docs/MODELS.md has all)");
	assert_string_equal(cad_arch_list(text, 32), ", ... (docs/MODELS.md has all)");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_family_has_a_row),
		cmocka_unit_test(cases_are_there),
		cmocka_unit_test(what_is_refused_is_refused),
		cmocka_unit_test(what_is_lacking_is_told),
		cmocka_unit_test(list_of_families_says_that_there_are_more),
	};
	return cmocka_run_group_tests(tests, load_page, free_page);
}
