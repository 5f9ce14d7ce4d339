/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/cli/routing.h"

#include "common/base/plural.h"
#include "orchestration/cli/command.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { EXPERTS_SHOWN = 6, NODES_SHOWN = 4, LINE_BYTES = 512 };

/* How often names occurred; in JSON, because that has a table of names. */
static void count_up(json_t *counts, const char *name)
{
	json_int_t count = json_integer_value(json_object_get(counts, name));
	(void)json_object_set_new(counts, name, json_integer(count + 1));
}

struct counted {
	const char *name;
	json_int_t count;
};

/* The most frequent first; of equal ones the lower expert, as names of equal length sort. */
static int by_count(const void *a, const void *b)
{
	const struct counted *x = a, *y = b;
	size_t left = strlen(x->name), right = strlen(y->name);

	if (x->count != y->count)
		return x->count < y->count ? 1 : -1;
	return left != right ? (left > right) - (left < right) : strcmp(x->name, y->name);
}

/* "3 41 %, 7 30 %, ..." */
static void most(const json_t *counts, json_int_t total, size_t shown, char *text, size_t bytes)
{
	struct counted *list = calloc(json_object_size(counts) + 1, sizeof *list);
	size_t count = 0, length = 0;
	const char *name;
	json_t *value;

	*text = 0;
	if (!list)
		return;
	json_object_foreach((json_t *)(uintptr_t)counts, name, value) list[count++] =
		(struct counted){ name, json_integer_value(value) };
	qsort(list, count, sizeof *list, by_count);
	for (size_t i = 0; i < count && i < shown && length < bytes; i++)
		length += (size_t)snprintf(text + length, bytes - length, "%s%s %.0f %%", i > 0 ? ", " : "",
			list[i].name, 100.0 * (double)list[i].count / (double)(total > 0 ? total : 1));
	if (count > shown && length < bytes)
		(void)snprintf(text + length, bytes - length, ", ...");
	free(list);
}

/* Counts the layer at one index over all tokens. */
static void print_layer(FILE *stream, const json_t *routing, size_t index)
{
	json_t *experts = json_object(), *nodes = json_object(), *token, *item;
	json_int_t pairs = 0, layer = 0;
	size_t t, i;
	char number[24], expert_text[LINE_BYTES], node_text[LINE_BYTES];

	json_array_foreach(routing, t, token)
	{
		const json_t *of = json_array_get(json_object_get(token, "layers"), index);
		layer = json_integer_value(json_object_get(of, "layer"));
		json_array_foreach(json_object_get(of, "experts"), i, item)
		{
			snprintf(number, sizeof number, "%" JSON_INTEGER_FORMAT, json_integer_value(item));
			count_up(experts, number);
			pairs++;
		}
		json_array_foreach(json_object_get(of, "nodes"), i, item) count_up(nodes, json_string_value(item));
	}

	most(experts, (json_int_t)json_array_size(routing), EXPERTS_SHOWN, expert_text, sizeof expert_text);
	most(nodes, pairs, NODES_SHOWN, node_text, sizeof node_text);
	cl_line(stream, "%-6" JSON_INTEGER_FORMAT " %7zu  %-56s  %s", layer, json_object_size(experts), expert_text,
		node_text);
	json_decref(experts);
	json_decref(nodes);
}

void cl_routing_print(FILE *stream, const json_t *routing)
{
	size_t tokens = json_array_size(routing),
	       layers = json_array_size(json_object_get(json_array_get(routing, 0), "layers"));

	if (layers == 0) {
		cl_line(stream, "-- no routing: this model has no experts to choose from");
		return;
	}
	cl_line(stream, "-- routing of %zu %s; '-o json' has all of it, for 'cadrectl trace import' too", tokens,
		cad_plural(tokens, "token", "tokens"));
	cl_line(stream, "%-6s %7s  %-56s  %s", "LAYER", "EXPERTS", "MOST USED, BY SHARE OF TOKENS",
		"NODES, BY SHARE OF EXPERT CALLS");
	for (size_t i = 0; i < layers; i++)
		print_layer(stream, routing, i);
}
