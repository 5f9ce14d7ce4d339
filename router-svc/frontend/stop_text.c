/* SPDX-License-Identifier: Apache-2.0 */
#include "router-svc/frontend/stop_text.h"

#include <stdlib.h>
#include <string.h>

enum cad_status rt_text_append(struct cad_text *text, const char *bytes, size_t size)
{
	if (text->capacity - text->size <= size) {
		size_t capacity = (text->size + size) * 2 + 64;
		char *grown = realloc(text->bytes, capacity);
		if (!grown)
			return CAD_ERR_MEMORY;
		text->bytes = grown;
		text->capacity = capacity;
	}

	if (size > 0)
		memcpy(text->bytes + text->size, bytes, size);
	text->size += size;
	text->bytes[text->size] = 0;

	return CAD_OK;
}

static const char INSTEAD[] = "\xef\xbf\xbd"; /* of U+0000: U+FFFD */

size_t rt_text_shown_bytes(const char *text, size_t size)
{
	size_t bytes = size + 1;
	for (size_t i = 0; i < size; i++)
		bytes += text[i] == 0 ? sizeof INSTEAD - 2 : 0;
	return bytes;
}

void rt_text_show(const char *text, size_t size, char *shown)
{
	for (size_t i = 0; i < size; i++) {
		if (text[i] != 0) {
			*shown++ = text[i];
			continue;
		}
		memcpy(shown, INSTEAD, sizeof INSTEAD - 1);
		shown += sizeof INSTEAD - 1;
	}
	*shown = 0;
}

enum cad_status rt_stop_text_init(struct rt_stop_text *stop, char *const *strings, size_t count)
{
	*stop = (struct rt_stop_text){ 0 };
	if (count == 0)
		return CAD_OK;
	stop->strings = calloc(count, sizeof *stop->strings);
	for (; stop->strings && stop->count < count; stop->count++) {
		stop->strings[stop->count] = strdup(strings[stop->count]);
		if (!stop->strings[stop->count])
			break;
	}

	if (stop->count == count)
		return CAD_OK;
	rt_stop_text_fini(stop);
	return CAD_ERR_MEMORY;
}

void rt_stop_text_fini(struct rt_stop_text *stop)
{
	for (size_t i = 0; i < stop->count; i++)
		free(stop->strings[i]);
	free(stop->strings);
	cad_text_fini(&stop->held);
	*stop = (struct rt_stop_text){ 0 };
}

/* Where in `held` the earliest stop string begins, or its size. */
static size_t first_match(const struct rt_stop_text *stop)
{
	size_t first = stop->held.size;
	for (size_t i = 0; i < stop->count; i++) {
		const char *at = memmem(stop->held.bytes, stop->held.size, stop->strings[i], strlen(stop->strings[i]));
		if (at && (size_t)(at - stop->held.bytes) < first)
			first = (size_t)(at - stop->held.bytes);
	}
	return first;
}

static bool may_begin_here(const struct rt_stop_text *stop, size_t at)
{
	size_t left = stop->held.size - at;
	for (size_t i = 0; i < stop->count; i++)
		if (strlen(stop->strings[i]) >= left && memcmp(stop->strings[i], stop->held.bytes + at, left) == 0)
			return true;
	return false;
}

/* How much of `held` can no longer be part of a stop string. A stop string begins with a
 * character's first byte, so this never cuts a character. */
static size_t certain(const struct rt_stop_text *stop)
{
	size_t longest = 0;
	for (size_t i = 0; i < stop->count; i++)
		if (strlen(stop->strings[i]) > longest)
			longest = strlen(stop->strings[i]);
	size_t at = stop->held.size > longest ? stop->held.size - longest : 0;
	while (at < stop->held.size && !may_begin_here(stop, at))
		at++;
	return at;
}

static enum cad_status let_go(struct rt_stop_text *stop, size_t size, struct cad_text *out)
{
	enum cad_status status = rt_text_append(out, stop->held.bytes, size);
	if (status != CAD_OK)
		return status;
	stop->held.size -= size;
	memmove(stop->held.bytes, stop->held.bytes + size, stop->held.size);
	stop->held.bytes[stop->held.size] = 0;
	return CAD_OK;
}

enum cad_status rt_stop_text_add(
	struct rt_stop_text *stop, const char *bytes, size_t size, struct cad_text *out, bool *found)
{
	enum cad_status status;
	if (size == 0 || stop->count == 0) {
		status = size == 0 ? CAD_OK : rt_text_append(out, bytes, size);
		if (status == CAD_OK)
			*found = false;
		return status;
	}

	status = rt_text_append(&stop->held, bytes, size);
	if (status != CAD_OK)
		return status;
	size_t match = first_match(stop);
	bool matched = match < stop->held.size;
	status = let_go(stop, matched ? match : certain(stop), out);
	if (status == CAD_OK)
		*found = matched;

	return status;
}

enum cad_status rt_stop_text_flush(struct rt_stop_text *stop, struct cad_text *out)
{
	return stop->held.size == 0 ? CAD_OK : let_go(stop, stop->held.size, out);
}
