/* SPDX-License-Identifier: Apache-2.0 */
#include "common/process/bearer.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TOKEN_BYTES_MIN = 16, FILE_BYTES_MAX = 1 << 20 };

/* A piece of the file; nothing of it is copied. */
struct word {
	const char *text;
	size_t length;
};

static bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r'; }

static struct word next_word(struct word *line)
{
	while (line->length > 0 && is_blank(*line->text)) {
		line->text++;
		line->length--;
	}

	struct word word = { line->text, 0 };
	while (word.length < line->length && !is_blank(word.text[word.length]))
		word.length++;
	line->text += word.length;
	line->length -= word.length;

	return word;
}

static enum cad_status token_check(struct word token, struct cad_error *error)
{
	if (token.length < TOKEN_BYTES_MIN || token.length > CAD_BEARER_BYTES_MAX)
		return cad_error_set(error, CAD_ERR_INVALID,
			"the token has %zu bytes, and must have %d to %d: make one with 'openssl rand -hex 32'",
			token.length, TOKEN_BYTES_MIN, CAD_BEARER_BYTES_MAX);
	for (size_t i = 0; i < token.length; i++)
		if (token.text[i] < 0x21 || token.text[i] > 0x7e)
			return cad_error_set(error, CAD_ERR_INVALID,
				"byte %zu of the token is not a printable character of ASCII, so that no client could send it",
				i + 1);
	return CAD_OK;
}

static bool is(struct word word, const char *text)
{
	return strlen(text) == word.length && memcmp(text, word.text, word.length) == 0;
}

static enum cad_status role_read(struct word word, enum cad_caller_role *role, struct cad_error *error)
{
	*role = CAD_CALLER_CLIENT;
	if (word.length == 0 || is(word, "generate") || cad_caller_role_parse(word.text, word.length, role))
		return CAD_OK;
	return cad_error_set(error, CAD_ERR_INVALID,
		"the role after the token is not one of 'client', 'node', 'operator' and 'inspect'; a line is TOKEN [ROLE [NAME]]");
}

static enum cad_status name_read(struct word word, char name[CAD_PROCESS_NAME_BYTES], struct cad_error *error)
{
	name[0] = 0;
	if (word.length == 0)
		return CAD_OK;
	if (word.length < CAD_PROCESS_NAME_BYTES) {
		memcpy(name, word.text, word.length);
		name[word.length] = 0;
	}
	if (strlen(name) != word.length || !cad_process_name_is_legal(name))
		return cad_error_set(error, CAD_ERR_INVALID,
			"the name after the role must be 1 to %d letters, digits and . _ : -",
			CAD_PROCESS_NAME_BYTES - 1);
	return CAD_OK;
}

static void hash_of(const void *token, size_t size, unsigned char hash[32])
{
	crypto_generichash(hash, 32, token, size, NULL, 0);
}

static enum cad_status add(struct cad_bearers *bearers, struct word token, struct cad_error *error)
{
	if (cad_bearers_find(bearers, token.text, token.length))
		return cad_error_set(
			error, CAD_ERR_INVALID, "this token is there already: a token stands in one line only");
	if (bearers->count == CAD_BEARERS_MAX)
		return cad_error_set(error, CAD_ERR_INVALID, "there are more than %d tokens", CAD_BEARERS_MAX);

	struct cad_bearer *grown = realloc(bearers->entries, (bearers->count + 1) * sizeof *grown);
	char *copy = strndup(token.text, token.length);
	if (grown)
		bearers->entries = grown;
	if (!grown || !copy) {
		free(copy);
		return cad_error_set(error, CAD_ERR_MEMORY, "no memory for another token");
	}

	struct cad_bearer *bearer = &bearers->entries[bearers->count++];
	*bearer = (struct cad_bearer){ .token = copy };
	hash_of(token.text, token.length, bearer->hash);

	return CAD_OK;
}

static enum cad_status line_read(struct word line, struct cad_bearers *bearers, struct cad_error *error)
{
	struct word token = next_word(&line), role = next_word(&line), name = next_word(&line), more = next_word(&line);
	if (token.length == 0 || token.text[0] == '#')
		return CAD_OK;

	enum cad_caller_role role_found;
	char name_found[CAD_PROCESS_NAME_BYTES];
	enum cad_status status = token_check(token, error);
	if (status == CAD_OK)
		status = role_read(role, &role_found, error);
	if (status == CAD_OK)
		status = name_read(name, name_found, error);
	if (status == CAD_OK && more.length > 0)
		status = cad_error_set(
			error, CAD_ERR_INVALID, "there is something after the name; a line is TOKEN [ROLE [NAME]]");
	if (status == CAD_OK)
		status = add(bearers, token, error);
	if (status != CAD_OK)
		return status;

	struct cad_bearer *bearer = &bearers->entries[bearers->count - 1];
	bearer->role = role_found;
	memcpy(bearer->name, name_found, sizeof name_found);

	return CAD_OK;
}

enum cad_status cad_bearers_parse(
	const char *text, size_t size, const char *path, struct cad_bearers *bearers, struct cad_error *error)
{
	struct cad_bearers found = { NULL, 0 };
	enum cad_status status = CAD_OK;
	size_t number = 0;

	for (size_t at = 0; at < size && status == CAD_OK;) {
		const char *end = memchr(text + at, '\n', size - at);
		struct word line = { text + at, end ? (size_t)(end - text) - at : size - at };
		number++;
		at += line.length + 1;
		status = line_read(line, &found, error);
		if (status != CAD_OK)
			(void)cad_error_prefix(error, "token file '%s', line %zu", path, number);
	}

	if (status == CAD_OK && found.count == 0)
		status = cad_error_set(error, CAD_ERR_INVALID,
			"the token file '%s' has no token: write one with 'openssl rand -hex 32'", path);
	if (status == CAD_OK)
		*bearers = found;
	else
		cad_bearers_fini(&found);

	return status;
}

enum cad_status cad_bearers_read(const char *path, struct cad_bearers *bearers, struct cad_error *error)
{
	char *text;
	size_t size;
	enum cad_status status = cad_private_file_read(path, "token file", FILE_BYTES_MAX, &text, &size, error);
	if (status != CAD_OK)
		return status;

	status = cad_bearers_parse(text, size, path, bearers, error);
	explicit_bzero(text, size);
	free(text);

	return status;
}

void cad_bearers_fini(struct cad_bearers *bearers)
{
	for (size_t i = 0; i < bearers->count; i++)
		cad_secret_free(bearers->entries[i].token);
	free(bearers->entries);
	*bearers = (struct cad_bearers){ NULL, 0 };
}

const struct cad_bearer *cad_bearers_find(const struct cad_bearers *bearers, const void *sent, size_t size)
{
	const struct cad_bearer *found = NULL;
	unsigned char hash[32];

	/* Hashes, and all of them: the time reveals neither a prefix nor which one it was. */
	hash_of(sent, size, hash);
	for (size_t i = 0; i < bearers->count; i++)
		if (sodium_memcmp(bearers->entries[i].hash, hash, sizeof hash) == 0)
			found = &bearers->entries[i];

	return found;
}
