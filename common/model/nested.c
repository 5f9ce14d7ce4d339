/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A language model as a part of another one: its tensors have names of their own then, and stand among
 * others. Names as transformers 5 and 4 write them:
 *
 *   model.language_model.layers...   lm_head.weight
 *   language_model.model.layers...   language_model.lm_head.weight
 */
#include "common/model/nested.h"

#include "common/base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char EMBED[] = "embed_tokens.weight", HEAD[] = "lm_head.weight", BASE[] = "model.";

/* How long what stands before this last part of the name is; SIZE_MAX: it is not its last part. */
static size_t before(const char *name, const char *last)
{
	size_t length = strlen(name), tail = strlen(last);

	if (length < tail || strcmp(name + length - tail, last) != 0)
		return SIZE_MAX;
	return length == tail || name[length - tail - 1] == '.' ? length - tail : SIZE_MAX;
}

/* The embedding says what the others' names begin with. */
static enum cad_status find_embed(
	const char *directory, const struct cad_shards *shards, const char **found, struct cad_error *error)
{
	const char *embed = NULL;
	bool ambiguous = false;

	for (size_t i = 0; i < shards->tensors_count; i++) {
		const char *name = shards->tensors[i].tensor.name;
		if (before(name, EMBED) == SIZE_MAX)
			continue;
		bool text = strstr(name, "language_model."), text_before = embed && strstr(embed, "language_model.");
		if (embed && text == text_before)
			ambiguous = true;
		if (!embed || (text && !text_before)) {
			ambiguous = embed && text == text_before;
			embed = name;
		}
	}
	if (!embed)
		return cad_error_set(error, CAD_ERR_CORRUPT,
			"%s: config.json has a text_config, but no tensor is called '...%s'", directory, EMBED);
	if (ambiguous)
		return cad_error_set(error, CAD_ERR_UNSUPPORTED,
			"%s: config.json has a text_config, and several tensors are called '...%s', '%.200s' among them: which are the language model's is not known",
			directory, EMBED, embed);
	*found = embed;
	return CAD_OK;
}

static const char *find_head(const struct cad_shards *shards, const char *prefix, char *name, size_t bytes)
{
	size_t root = before(prefix, BASE);

	if (root != SIZE_MAX) {
		snprintf(name, bytes, "%.*s%s", (int)root, prefix, HEAD);
		if (cad_shards_find(shards, name))
			return name;
	}
	return cad_shards_find(shards, HEAD) ? HEAD : NULL;
}

/* In `model.` itself, towers and projections may stand beside it. */
static bool is_of_text(const char *rest, bool plain)
{
	static const char *const parts[] = { "embed_tokens.", "layers.", "norm." };
	for (size_t i = 0; plain && i < sizeof parts / sizeof *parts; i++)
		if (strncmp(rest, parts[i], strlen(parts[i])) == 0)
			return true;
	return !plain;
}

static int by_name(const void *a, const void *b)
{
	const struct cad_shard_tensor *x = a, *y = b;
	return strcmp(x->tensor.name, y->tensor.name);
}

/* Keeps the language model's tensors, and calls them what they are called in one by itself. */
static void rename_all(struct cad_shards *shards, const char *prefix, const char *head, char *names)
{
	size_t kept = 0, length = strlen(prefix);
	bool plain = strcmp(prefix, BASE) == 0;

	for (size_t i = 0; i < shards->tensors_count; i++) {
		struct cad_shard_tensor tensor = shards->tensors[i];
		const char *name = tensor.tensor.name;
		if (head && strcmp(name, head) == 0) {
			tensor.tensor.name = HEAD;
		} else if (strncmp(name, prefix, length) == 0 && is_of_text(name + length, plain)) {
			tensor.tensor.name = names;
			names += sprintf(names, "%s%s", BASE, name + length) + 1;
		} else {
			if (shards->outside.count++ == 0)
				shards->outside.first = name;
			shards->outside.bytes += tensor.tensor.bytes;
			continue;
		}
		shards->tensors[kept++] = tensor;
	}
	if (shards->outside.count > 0)
		cad_log_info("model", "computing the language model alone", CAD_S("prefix", prefix),
			CAD_U("tensors_passed_over", shards->outside.count), CAD_S("first", shards->outside.first));
	shards->tensors_count = kept;
	qsort(shards->tensors, kept, sizeof *shards->tensors, by_name);
}

enum cad_status cad_shards_take_text(const char *directory, struct cad_shards *shards, struct cad_error *error)
{
	const char *embed = NULL;
	size_t bytes = 1;
	enum cad_status status = find_embed(directory, shards, &embed, error);
	if (status != CAD_OK)
		return status;

	size_t prefix_bytes = before(embed, EMBED);
	for (size_t i = 0; i < shards->tensors_count; i++)
		bytes += strlen(shards->tensors[i].tensor.name) + sizeof BASE;
	char *prefix = strndup(embed, prefix_bytes), *head = malloc(prefix_bytes + sizeof HEAD);
	shards->names = malloc(bytes);
	if (prefix && head && shards->names)
		rename_all(shards, prefix, find_head(shards, prefix, head, prefix_bytes + sizeof HEAD), shards->names);
	else
		status = cad_error_set(error, CAD_ERR_MEMORY, "no memory to open the model in %s", directory);
	free(prefix);
	free(head);
	return status;
}
