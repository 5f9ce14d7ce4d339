/* SPDX-License-Identifier: Apache-2.0 */
#include "common/process/metrics.h"

#include <ctype.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind { KIND_COUNTER, KIND_GAUGE, KIND_HISTOGRAM, KIND_GAUGE_READ, KIND_COUNTER_READ };

struct cad_counter {
	_Atomic uint64_t value;
};
struct cad_gauge {
	_Atomic uint64_t bits;
}; /* of a double */
struct cad_histogram {
	size_t bounds_count;
	double bounds[CAD_HISTOGRAM_BOUNDS_MAX];
	_Atomic uint64_t counts[CAD_HISTOGRAM_BOUNDS_MAX + 1]; /* the last: +Inf */
	_Atomic uint64_t sum_bits;
};
struct reader {
	cad_metric_read_fn *read;
	void *context;
};

/* One time series. `labels` is `a="x",b="y"`, escaped, or empty. */
struct series {
	struct series *next;
	char *labels;
	union {
		struct cad_counter counter;
		struct cad_gauge gauge;
		struct cad_histogram histogram;
		struct reader reader;
	} of;
};

struct family {
	struct family *next;
	char *name, *help;
	enum kind kind;
	struct series *first, **last;
};

struct cad_metrics {
	pthread_mutex_t lock; /* of the lists; values are atomic */
	struct family *first, **last;
	bool out_of_memory;
};

/* Where updates go when there was no memory for the metric. */
static struct cad_counter void_counter;
static struct cad_gauge void_gauge;
static struct cad_histogram void_histogram;

const double cad_histogram_seconds[] = { 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1,
	0.25, 0.5, 1, 2.5, 5, 10, 30, 60 };
const size_t cad_histogram_seconds_count = sizeof cad_histogram_seconds / sizeof cad_histogram_seconds[0];

enum cad_status cad_metrics_create(struct cad_metrics **metrics)
{
	struct cad_metrics *made = calloc(1, sizeof *made);
	if (!made)
		return CAD_ERR_MEMORY;
	made->last = &made->first;
	pthread_mutex_init(&made->lock, NULL);
	*metrics = made;
	return CAD_OK;
}

void cad_metrics_destroy(struct cad_metrics *metrics)
{
	if (!metrics)
		return;

	for (struct family *family = metrics->first, *next_family; family; family = next_family) {
		next_family = family->next;
		for (struct series *series = family->first, *next; series; series = next) {
			next = series->next;
			free(series->labels);
			free(series);
		}
		free(family->name);
		free(family->help);
		free(family);
	}

	pthread_mutex_destroy(&metrics->lock);
	free(metrics);
}

enum cad_status cad_metrics_status(const struct cad_metrics *metrics)
{
	return metrics->out_of_memory ? CAD_ERR_MEMORY : CAD_OK;
}

static bool is_name(const char *name, bool colon)
{
	if (!isalpha((unsigned char)name[0]) && name[0] != '_')
		return false;
	for (; *name; name++)
		if (!isalnum((unsigned char)*name) && *name != '_' && !(colon && *name == ':'))
			return false;
	return true;
}

/* Backslash and newline; in label values the quote too. */
static void put_escaped(FILE *out, const char *text, bool quote)
{
	for (; *text; text++) {
		if (*text == '\n')
			fputs("\\n", out);
		else if (*text == '\\' || (quote && *text == '"'))
			fprintf(out, "\\%c", *text);
		else
			fputc(*text, out);
	}
}

static char *labels_text(const struct cad_label *labels, size_t count)
{
	CAD_ASSERT(count <= CAD_LABELS_MAX);
	char *text = NULL;
	size_t bytes;
	FILE *out = open_memstream(&text, &bytes);
	if (!out)
		return NULL;

	for (size_t i = 0; i < count; i++) {
		CAD_ASSERT(is_name(labels[i].name, false));
		fprintf(out, "%s%s=\"", i ? "," : "", labels[i].name);
		put_escaped(out, labels[i].value, true);
		fputc('"', out);
	}

	if (fclose(out) != 0) {
		free(text);
		return NULL;
	}

	return text;
}

static struct family *family_get(struct cad_metrics *metrics, const char *name, const char *help, enum kind kind)
{
	for (struct family *family = metrics->first; family; family = family->next)
		if (strcmp(family->name, name) == 0) {
			CAD_ASSERT(family->kind == kind);
			return family;
		}
	struct family *family = calloc(1, sizeof *family);
	if (!family)
		return NULL;
	*family = (struct family){ .name = strdup(name), .help = strdup(help), .kind = kind };

	if (!family->name || !family->help) {
		free(family->name);
		free(family->help);
		free(family);
		return NULL;
	}

	family->last = &family->first;
	*metrics->last = family;
	metrics->last = &family->next;

	return family;
}

/* A series is as large as its kind: a model with thousands of experts has thousands of counters. */
static size_t series_bytes(enum kind kind)
{
	static const size_t of_kind[] = { sizeof(struct cad_counter), sizeof(struct cad_gauge),
		sizeof(struct cad_histogram), sizeof(struct reader), sizeof(struct reader) };
	return offsetof(struct series, of) + of_kind[kind];
}

/* What a new series begins with: a histogram's bounds, or where to read from. */
struct begin {
	const double *bounds;
	size_t bounds_count;
	struct reader reader;
};

static void series_begin(struct series *series, enum kind kind, const struct begin *begin)
{
	if (kind == KIND_HISTOGRAM) {
		series->of.histogram.bounds_count = begin->bounds_count;
		memcpy(series->of.histogram.bounds, begin->bounds, begin->bounds_count * sizeof *begin->bounds);
	} else if (kind == KIND_GAUGE_READ || kind == KIND_COUNTER_READ) {
		series->of.reader = begin->reader;
	}
}

/* Takes `labels`. NULL when there is no memory. */
static struct series *series_find_or_add(struct cad_metrics *metrics, const char *name, const char *help, char *labels,
	enum kind kind, const struct begin *begin)
{
	struct family *family = labels ? family_get(metrics, name, help, kind) : NULL;
	struct series *series = family ? family->first : NULL;

	while (series && strcmp(series->labels, labels) != 0)
		series = series->next;
	if (series || !family) {
		free(labels);
		return series;
	}

	series = calloc(1, series_bytes(kind));
	if (!series) {
		free(labels);
		return NULL;
	}

	series->labels = labels;
	series_begin(series, kind, begin);
	*family->last = series;
	family->last = &series->next;

	return series;
}

static struct series *series_get(struct cad_metrics *metrics, const char *name, const char *help,
	const struct cad_label *labels, size_t labels_count, enum kind kind, const struct begin *begin)
{
	CAD_ASSERT(is_name(name, true));
	char *text = labels_text(labels, labels_count);
	pthread_mutex_lock(&metrics->lock);
	struct series *series = series_find_or_add(metrics, name, help, text, kind, begin);
	metrics->out_of_memory |= !series;
	pthread_mutex_unlock(&metrics->lock);
	return series;
}

struct cad_counter *cad_metrics_counter(struct cad_metrics *metrics, const char *name, const char *help,
	const struct cad_label *labels, size_t labels_count)
{
	struct series *series = series_get(metrics, name, help, labels, labels_count, KIND_COUNTER, NULL);
	return series ? &series->of.counter : &void_counter;
}

struct cad_gauge *cad_metrics_gauge(struct cad_metrics *metrics, const char *name, const char *help,
	const struct cad_label *labels, size_t labels_count)
{
	struct series *series = series_get(metrics, name, help, labels, labels_count, KIND_GAUGE, NULL);
	return series ? &series->of.gauge : &void_gauge;
}

struct cad_histogram *cad_metrics_histogram(struct cad_metrics *metrics, const char *name, const char *help,
	const struct cad_label *labels, size_t labels_count, const double *bounds, size_t bounds_count)
{
	CAD_ASSERT(bounds_count >= 1 && bounds_count <= CAD_HISTOGRAM_BOUNDS_MAX);
	for (size_t i = 1; i < bounds_count; i++)
		CAD_ASSERT(bounds[i - 1] < bounds[i]);
	struct begin begin = { .bounds = bounds, .bounds_count = bounds_count };
	struct series *series = series_get(metrics, name, help, labels, labels_count, KIND_HISTOGRAM, &begin);
	return series ? &series->of.histogram : &void_histogram;
}

void cad_metrics_gauge_read(struct cad_metrics *metrics, const char *name, const char *help,
	const struct cad_label *labels, size_t labels_count, cad_metric_read_fn *read, void *context)
{
	struct begin begin = { .reader = { read, context } };
	series_get(metrics, name, help, labels, labels_count, KIND_GAUGE_READ, &begin);
}

void cad_metrics_counter_read(struct cad_metrics *metrics, const char *name, const char *help,
	const struct cad_label *labels, size_t labels_count, cad_metric_read_fn *read, void *context)
{
	struct begin begin = { .reader = { read, context } };
	series_get(metrics, name, help, labels, labels_count, KIND_COUNTER_READ, &begin);
}

void cad_counter_add(struct cad_counter *counter, uint64_t amount)
{
	atomic_fetch_add_explicit(&counter->value, amount, memory_order_relaxed);
}
uint64_t cad_counter_value(const struct cad_counter *counter)
{
	return atomic_load_explicit(&counter->value, memory_order_relaxed);
}

static uint64_t bits_of(double value)
{
	uint64_t bits;
	memcpy(&bits, &value, sizeof bits);
	return bits;
}

static double of_bits(uint64_t bits)
{
	double value;
	memcpy(&value, &bits, sizeof value);
	return value;
}

static void bits_add(_Atomic uint64_t *bits, double amount)
{
	uint64_t old = atomic_load_explicit(bits, memory_order_relaxed);
	while (!atomic_compare_exchange_weak_explicit(
		bits, &old, bits_of(of_bits(old) + amount), memory_order_relaxed, memory_order_relaxed))
		;
}

void cad_gauge_set(struct cad_gauge *gauge, double value)
{
	atomic_store_explicit(&gauge->bits, bits_of(value), memory_order_relaxed);
}
void cad_gauge_add(struct cad_gauge *gauge, double amount) { bits_add(&gauge->bits, amount); }
double cad_gauge_value(const struct cad_gauge *gauge)
{
	return of_bits(atomic_load_explicit(&gauge->bits, memory_order_relaxed));
}

void cad_histogram_observe(struct cad_histogram *histogram, double value)
{
	size_t at = 0;
	while (at < histogram->bounds_count && !(value <= histogram->bounds[at]))
		at++;
	atomic_fetch_add_explicit(&histogram->counts[at], 1, memory_order_relaxed);
	bits_add(&histogram->sum_bits, value);
}

/* A short decimal that reads back as the same double. */
static void put_number(FILE *out, double value)
{
	char text[40];
	if (isnan(value) || isinf(value)) {
		fputs(isnan(value) ? "NaN" : value > 0 ? "+Inf" : "-Inf", out);
		return;
	}
	for (int digits = 10; digits <= 17; digits++) {
		snprintf(text, sizeof text, "%.*g", digits, value);
		if (strtod(text, NULL) == value)
			break;
	}
	fputs(text, out);
}

static void put_sample(FILE *out, const char *name, const char *labels, double value)
{
	fputs(name, out);
	if (*labels)
		fprintf(out, "{%s}", labels);
	fputc(' ', out);
	put_number(out, value);
	fputc('\n', out);
}

static void put_histogram(FILE *out, const char *name, const char *labels, const struct cad_histogram *histogram)
{
	uint64_t total = 0;
	for (size_t i = 0; i <= histogram->bounds_count; i++) {
		total += atomic_load_explicit(&histogram->counts[i], memory_order_relaxed);
		fprintf(out, "%s_bucket{%s%sle=\"", name, labels, *labels ? "," : "");
		put_number(out, i < histogram->bounds_count ? histogram->bounds[i] : INFINITY);
		fprintf(out, "\"} %llu\n", (unsigned long long)total);
	}
	fprintf(out, "%s_sum%s%s%s ", name, *labels ? "{" : "", labels, *labels ? "}" : "");
	put_number(out, of_bits(atomic_load_explicit(&histogram->sum_bits, memory_order_relaxed)));
	fprintf(out, "\n%s_count%s%s%s %llu\n", name, *labels ? "{" : "", labels, *labels ? "}" : "",
		(unsigned long long)total);
}

static void put_series(FILE *out, const struct family *family, const struct series *series)
{
	switch (family->kind) {
	case KIND_COUNTER:
		fprintf(out, *series->labels ? "%s{%s} %llu\n" : "%s%s %llu\n", family->name, series->labels,
			(unsigned long long)cad_counter_value(&series->of.counter));
		break;
	case KIND_GAUGE: put_sample(out, family->name, series->labels, cad_gauge_value(&series->of.gauge)); break;
	case KIND_HISTOGRAM: put_histogram(out, family->name, series->labels, &series->of.histogram); break;
	case KIND_GAUGE_READ:
	case KIND_COUNTER_READ:
		put_sample(out, family->name, series->labels, series->of.reader.read(series->of.reader.context));
		break;
	}
}

enum cad_status cad_metrics_render(struct cad_metrics *metrics, char **text, size_t *bytes)
{
	static const char *const types[] = { "counter", "gauge", "histogram", "gauge", "counter" };
	char *page = NULL;
	size_t page_bytes;
	FILE *out = open_memstream(&page, &page_bytes);

	if (!out)
		return CAD_ERR_MEMORY;

	pthread_mutex_lock(&metrics->lock);

	for (const struct family *family = metrics->first; family; family = family->next) {
		fprintf(out, "# HELP %s ", family->name);
		put_escaped(out, family->help, false);
		fprintf(out, "\n# TYPE %s %s\n", family->name, types[family->kind]);
		for (const struct series *series = family->first; series; series = series->next)
			put_series(out, family, series);
	}

	pthread_mutex_unlock(&metrics->lock);
	bool failed = ferror(out) != 0;
	if (fclose(out) != 0 || failed) {
		free(page);
		return CAD_ERR_MEMORY;
	}

	*text = page;
	*bytes = page_bytes;
	return CAD_OK;
}
