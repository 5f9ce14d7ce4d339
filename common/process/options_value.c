/* SPDX-License-Identifier: Apache-2.0 */
#include "common/process/options_value.h"

#include <ctype.h>
#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct unit {
	const char *name;
	double factor;
};
static const struct unit byte_units[] = {
	{ "", 1 },
	{ "B", 1 },
	{ "K", 0x1p10 },
	{ "KB", 0x1p10 },
	{ "KiB", 0x1p10 },
	{ "M", 0x1p20 },
	{ "MB", 0x1p20 },
	{ "MiB", 0x1p20 },
	{ "G", 0x1p30 },
	{ "GB", 0x1p30 },
	{ "GiB", 0x1p30 },
	{ "T", 0x1p40 },
	{ "TB", 0x1p40 },
	{ "TiB", 0x1p40 },
	{ NULL, 0 },
};
static const struct unit time_units[] = { { "ns", 1 }, { "us", 1e3 }, { "ms", 1e6 }, { "s", 1e9 }, { "m", 60e9 },
	{ "h", 3600e9 }, { NULL, 0 } };

/* Digits, perhaps with a point, then a unit. long double holds every uint64_t exactly. */
static bool read_with_unit(const char *text, const struct unit *units, uint64_t *value)
{
	if (!isdigit((unsigned char)text[0]) || strpbrk(text, "xXeEpP"))
		return false;

	char *end;
	long double number = strtold(text, &end);
	while (*end == ' ')
		end++;
	for (; units->name; units++)
		if (strcasecmp(end, units->name) == 0) {
			number = roundl(number * (long double)units->factor);
			if (number > (long double)UINT64_MAX)
				return false;
			*value = (uint64_t)number;
			return true;
		}

	return false;
}

static bool read_integer(const char *text, uint64_t *value)
{
	if (!isdigit((unsigned char)text[0]))
		return false;
	char *end;
	errno = 0;
	unsigned long long number = strtoull(text, &end, 10);
	*value = number;
	return !*end && errno == 0;
}

static bool read_bool(const char *text, bool *value)
{
	static const char *const words[2][4] = { { "false", "no", "off", "0" }, { "true", "yes", "on", "1" } };
	for (int truth = 0; truth < 2; truth++)
		for (int i = 0; i < 4; i++)
			if (strcasecmp(text, words[truth][i]) == 0) {
				*value = truth == 1;
				return true;
			}
	return false;
}

/* A share may end in %. */
static bool read_real(const char *text, bool is_share, double *value)
{
	char *end;
	double number = strtod(text, &end);
	bool percent = is_share && *end == '%';
	if (end == text || end[percent] || !isfinite(number))
		return false;
	*value = percent ? number / 100 : number;
	return true;
}

static void bytes_text(uint64_t value, char *text, size_t bytes)
{
	static const char suffixes[] = "KMGT";
	int power = 0;
	while (power < 4 && value && value % 1024 == 0) {
		value /= 1024;
		power++;
	}
	snprintf(text, bytes, "%llu%.1s", (unsigned long long)value, power ? &suffixes[power - 1] : "");
}

static void time_text(uint64_t value, char *text, size_t bytes)
{
	size_t unit = 0;
	while (unit < 5 && value && value % (uint64_t)time_units[unit + 1].factor == 0)
		unit++;
	snprintf(text, bytes, "%llu%s", (unsigned long long)(value / (uint64_t)time_units[unit].factor),
		value ? time_units[unit].name : "");
}

static void choices_text(const struct cad_choice *choices, char *text, size_t bytes)
{
	size_t length = 0;
	*text = 0;
	for (size_t i = 0; choices[i].name && length < bytes; i++) {
		const char *join = i == 0 ? "" : choices[i + 1].name ? ", " : " or ";
		length += (size_t)snprintf(text + length, bytes - length, "%s%s", join, choices[i].name);
	}
}

void cad_option_range_text(const struct cad_option *option, char *text, size_t bytes)
{
	char low[40] = "", high[40] = "";
	*text = 0;
	switch (option->type) {
	case CAD_OPTION_TYPE_STRING: return;
	case CAD_OPTION_TYPE_BOOL: snprintf(text, bytes, "true or false"); return;
	case CAD_OPTION_TYPE_ENUM: choices_text(option->choices, text, bytes); return;
	case CAD_OPTION_TYPE_F64: snprintf(text, bytes, "%g to %g", option->real_min, option->real_max); return;
	case CAD_OPTION_TYPE_SHARE:
		snprintf(text, bytes, "%g%% to %g%%", 100 * option->real_min, 100 * option->real_max);
		return;
	case CAD_OPTION_TYPE_U32:
	case CAD_OPTION_TYPE_U64:
		snprintf(low, sizeof low, "%llu", (unsigned long long)option->min);
		snprintf(high, sizeof high, "%llu", (unsigned long long)option->max);
		break;
	case CAD_OPTION_TYPE_BYTES:
		bytes_text(option->min, low, sizeof low);
		bytes_text(option->max, high, sizeof high);
		break;
	case CAD_OPTION_TYPE_DURATION:
		time_text(option->min, low, sizeof low);
		time_text(option->max, high, sizeof high);
		break;
	}
	uint64_t top = option->type == CAD_OPTION_TYPE_U32 ? UINT32_MAX : UINT64_MAX;
	if (option->max < top)
		snprintf(text, bytes, "%s to %s", low, high);
	else if (option->min > 0)
		snprintf(text, bytes, "at least %s", low);
}

const char *cad_option_placeholder(const struct cad_option *option)
{
	static const char *const named[] = { "TEXT", "FILE", "DIR" }; /* by enum cad_option_names */

	switch (option->type) {
	case CAD_OPTION_TYPE_STRING: return named[option->names];
	case CAD_OPTION_TYPE_U32:
	case CAD_OPTION_TYPE_U64: return "N";
	case CAD_OPTION_TYPE_BYTES: return "BYTES";
	case CAD_OPTION_TYPE_F64: return "NUMBER";
	case CAD_OPTION_TYPE_SHARE: return "SHARE";
	case CAD_OPTION_TYPE_DURATION: return "DURATION";
	case CAD_OPTION_TYPE_BOOL:
	case CAD_OPTION_TYPE_ENUM: break;
	}
	return "";
}

void cad_option_note(const struct cad_option *option, char *text, size_t bytes)
{
	char range[200];

	*text = 0;
	cad_option_range_text(option, range, sizeof range);
	if (option->not_from_environment)
		snprintf(text, bytes, " (not taken from the environment)");
	else if (!option->default_text)
		snprintf(text, bytes, " (required)");
	else if (option->type == CAD_OPTION_TYPE_BOOL && strcmp(option->default_text, "true") == 0)
		snprintf(text, bytes, " (default true; --%s=false)", option->name);
	else if (!*option->default_text || option->type == CAD_OPTION_TYPE_BOOL)
		return;
	else if (*range && option->type != CAD_OPTION_TYPE_ENUM)
		snprintf(text, bytes, " (default %s; %s)", option->default_text, range);
	else
		snprintf(text, bytes, " (default %s)", option->default_text);
}

static const char *wanted(enum cad_option_type type)
{
	switch (type) {
	case CAD_OPTION_TYPE_U32:
	case CAD_OPTION_TYPE_U64: return "a whole number";
	case CAD_OPTION_TYPE_BYTES: return "a size such as 4096, 64K or 1.5G";
	case CAD_OPTION_TYPE_F64: return "a number";
	case CAD_OPTION_TYPE_SHARE: return "a share such as 5% or 0.05";
	case CAD_OPTION_TYPE_DURATION: return "a duration such as 500us, 20ms, 1.5s or 2m";
	case CAD_OPTION_TYPE_STRING:
	case CAD_OPTION_TYPE_BOOL:
	case CAD_OPTION_TYPE_ENUM: break;
	}
	return "";
}

static enum cad_status refuse(
	const struct cad_option *option, const char *label, const char *text, bool range, struct cad_error *error)
{
	char allowed[200];
	cad_option_range_text(option, allowed, sizeof allowed);
	if (range && !*allowed) /* everything that the type holds */
		snprintf(allowed, sizeof allowed, "at most %llu", (unsigned long long)option->max);
	if (range)
		return cad_error_set(error, CAD_ERR_RANGE, "%s is %s, which is out of range: %s", label, text, allowed);
	if (option->type == CAD_OPTION_TYPE_ENUM || option->type == CAD_OPTION_TYPE_BOOL)
		return cad_error_set(error, CAD_ERR_INVALID, "%s is '%s'; it can be %s", label, text, allowed);
	return cad_error_set(error, CAD_ERR_INVALID, "%s is '%s', which is not %s", label, text, wanted(option->type));
}

static enum cad_status read_enum(
	const struct cad_option *option, const char *label, const char *text, void *to, struct cad_error *error)
{
	for (const struct cad_choice *choice = option->choices; choice->name; choice++)
		if (strcmp(choice->name, text) == 0) {
			memcpy(to, &choice->value, sizeof choice->value);
			return CAD_OK;
		}
	return refuse(option, label, text, false, error);
}

enum cad_status cad_option_read(
	const struct cad_option *option, const char *label, const char *text, void *values, struct cad_error *error)
{
	void *to = (char *)values + option->offset;
	uint64_t number = 0;
	double real;
	bool truth, ok = false;

	switch (option->type) {
	case CAD_OPTION_TYPE_STRING: memcpy(to, &text, sizeof text); return CAD_OK;
	case CAD_OPTION_TYPE_ENUM: return read_enum(option, label, text, to, error);
	case CAD_OPTION_TYPE_BOOL:
		if (!read_bool(text, &truth))
			return refuse(option, label, text, false, error);
		memcpy(to, &truth, sizeof truth);
		return CAD_OK;
	case CAD_OPTION_TYPE_F64:
	case CAD_OPTION_TYPE_SHARE:
		if (!read_real(text, option->type == CAD_OPTION_TYPE_SHARE, &real))
			return refuse(option, label, text, false, error);
		if (real < option->real_min || real > option->real_max)
			return refuse(option, label, text, true, error);
		memcpy(to, &real, sizeof real);
		return CAD_OK;
	case CAD_OPTION_TYPE_U32:
	case CAD_OPTION_TYPE_U64: ok = read_integer(text, &number); break;
	case CAD_OPTION_TYPE_BYTES: ok = read_with_unit(text, byte_units, &number); break;
	case CAD_OPTION_TYPE_DURATION:
		ok = read_with_unit(text, time_units, &number) || (strcmp(text, "0") == 0);
		break;
	}
	if (!ok)
		return refuse(option, label, text, false, error);
	if (number < option->min || number > option->max)
		return refuse(option, label, text, true, error);
	uint32_t narrow = (uint32_t)number;
	if (option->type == CAD_OPTION_TYPE_U32)
		memcpy(to, &narrow, sizeof narrow);
	else
		memcpy(to, &number, sizeof number);

	return CAD_OK;
}

/* Levenshtein's distance, one row at a time; names are short. */
static size_t edits(const char *a, const char *b)
{
	enum { LENGTH_MAX = 63 };
	size_t row[LENGTH_MAX + 1], length = strlen(b);

	if (length > LENGTH_MAX || strlen(a) > LENGTH_MAX)
		return SIZE_MAX;

	for (size_t j = 0; j <= length; j++)
		row[j] = j;
	for (size_t i = 1; a[i - 1]; i++) {
		size_t diagonal = row[0];
		row[0] = i;
		for (size_t j = 1; j <= length; j++) {
			size_t best = diagonal + (a[i - 1] != b[j - 1]);
			if (row[j] + 1 < best)
				best = row[j] + 1;
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			diagonal = row[j];
			row[j] = best;
		}
	}

	return row[length];
}

const char *cad_nearest_name(const char *name, const char *const *names, size_t count)
{
	const char *nearest = NULL;
	size_t best = strlen(name) / 3 < 2 ? 3 : strlen(name) / 3 + 1; /* fewer edits than this count as near */

	for (size_t i = 0; i < count; i++) {
		size_t distance = edits(name, names[i]);
		if (distance < best) {
			best = distance;
			nearest = names[i];
		}
	}
	return nearest;
}
