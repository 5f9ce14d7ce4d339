/* SPDX-License-Identifier: Apache-2.0 */
#include "common/base/log.h"

#include "common/base/utf8.h"

#include <errno.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static _Atomic int log_level = CAD_LOG_INFO, log_format = CAD_LOG_LOGFMT, log_fd = STDERR_FILENO;

void cad_log_setup(enum cad_log_level level, enum cad_log_format format)
{
	atomic_store_explicit(&log_level, (int)level, memory_order_relaxed);
	atomic_store_explicit(&log_format, (int)format, memory_order_relaxed);
}

void cad_log_set_fd(int fd) { atomic_store_explicit(&log_fd, fd, memory_order_relaxed); }

bool cad_log_enabled(enum cad_log_level level)
{
	return (int)level >= atomic_load_explicit(&log_level, memory_order_relaxed);
}

/* A line under construction. The last three bytes are kept for what must close it: a quote, a brace
 * and the newline. */
enum { LINE_TAIL_BYTES = 3 };
struct line {
	char bytes[CAD_LOG_LINE_BYTES];
	size_t length;
	bool json;
};

static bool line_has_room(const struct line *line, size_t bytes)
{
	return line->length + bytes <= sizeof line->bytes - LINE_TAIL_BYTES;
}

static bool line_add(struct line *line, const char *bytes, size_t count)
{
	if (!line_has_room(line, count))
		return false;
	memcpy(line->bytes + line->length, bytes, count);
	line->length += count;
	return true;
}

/* One character, escaped where JSON and logfmt need it; a byte that is no UTF-8 becomes U+FFFD.
 * Returns the bytes of `text` that it took, 0 when there is no room. */
static size_t line_add_character(struct line *line, const char *text)
{
	unsigned char byte = (unsigned char)*text;
	char escape[8];

	if (byte == '"' || byte == '\\') {
		escape[0] = '\\';
		escape[1] = (char)byte;
		return line_add(line, escape, 2) ? 1 : 0;
	}

	if (byte == '\n' || byte == '\t') {
		escape[0] = '\\';
		escape[1] = byte == '\n' ? 'n' : 't';
		return line_add(line, escape, 2) ? 1 : 0;
	}

	if (byte < 0x20 || byte == 0x7f) {
		snprintf(escape, sizeof escape, "\\u%04x", byte);
		return line_add(line, escape, 6) ? 1 : 0;
	}

	size_t bytes = cad_utf8_expected(*text);
	bool whole = bytes > 0 && cad_utf8_valid(text, strnlen(text, bytes)) == bytes;
	if (!whole || !cad_utf8_is_printable(text, bytes))
		return line_add(line, "\xef\xbf\xbd", 3) ? (whole ? bytes : 1) : 0;
	return line_add(line, text, bytes) ? bytes : 0;
}

static bool needs_quotes(const char *text)
{
	if (!*text)
		return true;
	for (; *text; text++)
		if ((unsigned char)*text <= ' ' || *text == '"' || *text == '=' || *text == '\\' || *text == 0x7f)
			return true;
	return false;
}

static void line_add_string(struct line *line, const char *text)
{
	bool quotes = line->json || needs_quotes(text);
	if (quotes && !line_add(line, "\"", 1))
		return;

	while (*text) {
		size_t taken = line_add_character(line, text);
		if (taken == 0)
			break;
		text += taken;
	}

	if (quotes)
		line->bytes[line->length++] = '"'; /* from the tail's bytes when the line is full */
}

/* " key=" or ",\"key\":"; false when the key and a short value would not fit. */
static bool line_add_key(struct line *line, const char *key)
{
	size_t key_bytes = strlen(key);
	if (!line_has_room(line, key_bytes + 40))
		return false;

	if (line->json) {
		line_add(line, line->length == 1 ? "\"" : ",\"", line->length == 1 ? 1 : 2);
		line_add(line, key, key_bytes);
		return line_add(line, "\":", 2);
	}

	if (line->length > 0)
		line_add(line, " ", 1);
	line_add(line, key, key_bytes);
	return line_add(line, "=", 1);
}

static void line_add_field(struct line *line, const struct cad_log_field *field)
{
	char number[40];
	switch (field->kind) {
	case CAD_LOG_STRING: line_add_string(line, field->value.string ? field->value.string : ""); return;
	case CAD_LOG_I64: snprintf(number, sizeof number, "%lld", (long long)field->value.i64); break;
	case CAD_LOG_U64: snprintf(number, sizeof number, "%llu", (unsigned long long)field->value.u64); break;
	case CAD_LOG_F64:
		/* JSON has no word for these */
		snprintf(number, sizeof number, line->json && !isfinite(field->value.f64) ? "\"%.9g\"" : "%.9g",
			field->value.f64);
		break;
	case CAD_LOG_BOOL: snprintf(number, sizeof number, "%s", field->value.boolean ? "true" : "false"); break;
	}
	line_add(line, number, strlen(number));
}

static void line_add_text(struct line *line, const char *key, const char *text)
{
	struct cad_log_field field = { .key = key, .kind = CAD_LOG_STRING, .value.string = text };
	if (line_add_key(line, key))
		line_add_field(line, &field);
}

static void line_write(const struct line *line)
{
	int fd = atomic_load_explicit(&log_fd, memory_order_relaxed);
	size_t done = 0;
	while (done < line->length) {
		ssize_t written = write(fd, line->bytes + done, line->length - done);
		if (written < 0 && errno != EINTR)
			return; /* nobody to tell */
		done += written > 0 ? (size_t)written : 0;
	}
}

void cad_log_write(
	enum cad_log_level level, const char *component, const struct cad_log_field *fields, size_t fields_count)
{
	static const char *const level_names[] = { "debug", "info", "warn", "error", "audit" };
	if (!cad_log_enabled(level))
		return;

	struct line line = {
		.json = atomic_load_explicit(&log_format, memory_order_relaxed) == CAD_LOG_JSON,
	};
	if (line.json)
		line_add(&line, "{", 1);

	struct timespec now;
	struct tm utc;
	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &utc);
	char date[32], stamp[64];
	strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &utc);
	snprintf(stamp, sizeof stamp, "%s.%06ldZ", date, now.tv_nsec / 1000);
	line_add_text(&line, "time", stamp);
	line_add_text(&line, "level", level_names[level]);
	line_add_text(&line, "component", component);

	for (size_t i = 0; i < fields_count; i++) {
		if (!line_add_key(&line, fields[i].key))
			break;
		line_add_field(&line, &fields[i]);
	}

	if (line.json)
		line.bytes[line.length++] = '}';
	line.bytes[line.length++] = '\n';
	line_write(&line);
}
