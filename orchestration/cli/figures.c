/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/cli/figures.h"

#include "orchestration/cli/command.h"

enum { WINDOWS = 3, LINKS_SHOWN = 8, HOTTEST_SHOWN = 5 };
static const uint32_t windows_s[WINDOWS] = { 10, 60, 600 };

void cl_short_bytes(double bytes, char text[16])
{
	static const char units[] = { 0, 'K', 'M', 'G', 'T', 'P' };
	size_t unit = 0;

	while (bytes >= 999.5 && unit < sizeof units - 1) {
		bytes /= 1024;
		unit++;
	}
	snprintf(text, 16, unit && bytes < 99.95 ? "%.1f%.1s" : "%.0f%.1s", bytes, &units[unit]);
}

const Cadre__V1__Figures *cl_figures_find(const Cadre__V1__ClusterStatus *status, uint32_t window_s)
{
	for (size_t i = 0; i < status->n_figures; i++)
		if (status->figures[i]->window_s == window_s)
			return status->figures[i];
	return NULL;
}

/* ---- tables ---- */

/* A line of figures: one number of each window, by its place in the message. */
static const struct line {
	const char *name;
	size_t offset;
	int digits; /* -1: bytes */
	bool zero_unknown;
} lines[] = {
#define LINE(name, member, digits, zero_unknown) \
	{ \
		name, offsetof(Cadre__V1__Figures, member), digits, zero_unknown \
	}
	LINE("tokens per second", tokens_per_second, 1, false),
	LINE("nodes per token and layer", nodes_per_token, 3, true),
	LINE("bytes sent per token and layer", bytes_sent_per_token, -1, true),
	LINE("bytes received per token and layer", bytes_received_per_token, -1, true),
	LINE("load, busiest node over mean", load_max_over_mean, 3, true),
	LINE("experts run in a step, per node", activated, 2, true),
	LINE("  busiest node over mean", activated_max_over_mean, 3, true),
#undef LINE
};

static void print_number(const struct line *line, const Cadre__V1__Figures *figures, char text[24])
{
	double value = figures ? *(const double *)(const void *)((const char *)figures + line->offset) : 0;

	if (!figures || (line->zero_unknown && value <= 0))
		snprintf(text, 24, "-");
	else if (line->digits < 0)
		cl_short_bytes(value, text);
	else
		snprintf(text, 24, "%.*f", line->digits, value);
}

static void print_windows(FILE *stream, const Cadre__V1__ClusterStatus *status)
{
	fprintf(stream, "%-36s %12s %12s %12s\n", "ROUTING", "10 S", "1 MIN", "10 MIN");
	for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
		fprintf(stream, "%-36s", lines[i].name);
		for (int w = 0; w < WINDOWS; w++) {
			char text[24];
			print_number(&lines[i], cl_figures_find(status, windows_s[w]), text);
			fprintf(stream, " %12s", text);
		}
		fputc('\n', stream);
	}
	fputc('\n', stream);
}

static void print_links(FILE *stream, const Cadre__V1__ClusterStatus *status)
{
	fprintf(stream, "%-22s %-22s %12s %12s\n", "ROUTER", "EXPERT NODE", "SENT/S", "RECEIVED/S");
	for (size_t i = 0; i < status->n_traffic && i < LINKS_SHOWN; i++) {
		const Cadre__V1__Traffic *link = status->traffic[i];
		char sent[16], received[16];
		cl_short_bytes(link->sent_bytes_per_second, sent);
		cl_short_bytes(link->received_bytes_per_second, received);
		cl_line(stream, "%-22s %-22s %12s %12s", link->router, link->node, sent, received);
	}
	if (status->n_traffic > LINKS_SHOWN)
		fprintf(stream, "(%zu more: -o json)\n", status->n_traffic - LINKS_SHOWN);
	fputc('\n', stream);
}

void cl_figures_print_hottest(FILE *stream, const Cadre__V1__ClusterStatus *status, size_t max)
{
	for (size_t i = 0; i < status->n_hottest && i < max; i++) {
		const Cadre__V1__HotExpert *hot = status->hottest[i];
		fprintf(stream, "layer %3u  expert %4u  %5.1f%% of tokens, %.1f x its fair share\n", hot->layer,
			hot->expert, 100 * hot->share, hot->over_fair);
	}
}

static void print_hottest(FILE *stream, const Cadre__V1__ClusterStatus *status)
{
	fprintf(stream, "HOTTEST EXPERTS of the last minute\n");
	cl_figures_print_hottest(stream, status, HOTTEST_SHOWN);
	fputc('\n', stream);
}

static void print_sample(FILE *stream, const Cadre__V1__ClusterStatus *status)
{
	const Cadre__V1__RoutingSample *sample = status->sample;

	if (status->routing_detail == CADRE__V1__ROUTING_DETAIL__ROUTING_DETAIL_AGGREGATE) {
		fprintf(stream, "sample: none (--routing-detail aggregate); %llu tokens seen\n\n",
			(unsigned long long)sample->seen);
		return;
	}
	fprintf(stream, "sample: %llu of at most %llu tokens kept, half-life %.0f s", (unsigned long long)sample->kept,
		(unsigned long long)sample->kept_max, sample->half_life_s);
	if (sample->kept > 0)
		fprintf(stream, ", %.0f to %.0f s old", (double)sample->newest_ms * 1e-3,
			(double)sample->oldest_ms * 1e-3);
	fprintf(stream, "; of %llu seen, %llu were reported whole and %llu lost\n\n", (unsigned long long)sample->seen,
		(unsigned long long)sample->sampled, (unsigned long long)sample->lost);
}

void cl_figures_print(FILE *stream, const Cadre__V1__ClusterStatus *status)
{
	if (status->n_figures > 0)
		print_windows(stream, status);
	if (status->n_traffic > 0)
		print_links(stream, status);
	if (status->n_hottest > 0)
		print_hottest(stream, status);
	if (status->sample && status->sample->seen > 0)
		print_sample(stream, status);
}

/* ---- JSON ---- */

json_t *cl_work_to_json(const Cadre__V1__NodeStatus *node)
{
	const Cadre__V1__NodeWork *work = node->work;
	const Cadre__V1__RouterWork *router = node->router_work;

	if (router)
		return json_pack("{s:f, s:f, s:f}", "tokens_per_second", router->tokens_per_second, "calls_per_second",
			router->calls_per_second, "hedged_per_second", router->hedged_per_second);
	return work ? json_pack("{s:f, s:f, s:f, s:f, s:f, s:f}", "rows_per_second", work->rows_per_second,
			      "pairs_per_second", work->pairs_per_second, "steps_per_second", work->steps_per_second,
			      "busy", work->busy, "waiting", work->waiting, "step_ms", work->step_ms)
		    : json_null();
}

json_t *cl_calls_to_json(const Cadre__V1__ExpertCalls *calls)
{
	if (!calls)
		return NULL;

	json_t *breakers = json_array();
	for (size_t i = 0; i < calls->n_breakers; i++) {
		const Cadre__V1__Breaker *breaker = calls->breakers[i];
		json_t *copy = breaker->copy ? json_pack("{s:I, s:I}", "layer", (json_int_t)breaker->copy->layer,
						       "expert", (json_int_t)breaker->copy->expert)
					     : json_null();
		(void)json_array_append_new(breakers,
			json_pack("{s:s, s:b, s:s, s:o}", "node", breaker->node, "half_open", breaker->half_open, "why",
				breaker->why, "copy", copy));
	}
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o}", "late", (json_int_t)calls->late, "hedged",
		(json_int_t)calls->hedged, "hedges_won", (json_int_t)calls->hedges_won, "rows_diverted",
		(json_int_t)calls->rows_diverted, "p99_us", (json_int_t)calls->p99_us, "breakers_open",
		(json_int_t)calls->breakers_open, "copies_open", (json_int_t)calls->copies_open, "breakers", breakers);
}

static json_t *figures_to_json(const Cadre__V1__Figures *figures)
{
	return json_pack("{s:I, s:f, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "window_s",
		(json_int_t)figures->window_s, "seconds", figures->seconds, "tokens", (json_int_t)figures->tokens,
		"tokens_per_second", figures->tokens_per_second, "nodes_per_token", figures->nodes_per_token,
		"bytes_per_token", figures->bytes_sent_per_token + figures->bytes_received_per_token,
		"bytes_sent_per_token", figures->bytes_sent_per_token, "bytes_received_per_token",
		figures->bytes_received_per_token, "load_max_over_mean", figures->load_max_over_mean,
		"activated_max_over_mean", figures->activated_max_over_mean, "activated", figures->activated);
}

static json_t *sample_to_json(const Cadre__V1__RoutingSample *sample)
{
	return sample ? json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f}", "seen", (json_int_t)sample->seen,
				"sampled", (json_int_t)sample->sampled, "lost", (json_int_t)sample->lost, "kept",
				(json_int_t)sample->kept, "kept_max", (json_int_t)sample->kept_max, "oldest_ms",
				(json_int_t)sample->oldest_ms, "newest_ms", (json_int_t)sample->newest_ms,
				"half_life_s", sample->half_life_s)
		      : json_null();
}

void cl_figures_to_json(const Cadre__V1__ClusterStatus *status, json_t *object)
{
	json_t *figures = json_array(), *traffic = json_array(), *hottest = json_array();
	bool aggregate = status->routing_detail == CADRE__V1__ROUTING_DETAIL__ROUTING_DETAIL_AGGREGATE;

	for (size_t i = 0; i < status->n_figures; i++)
		(void)json_array_append_new(figures, figures_to_json(status->figures[i]));
	for (size_t i = 0; i < status->n_traffic; i++)
		(void)json_array_append_new(traffic,
			json_pack("{s:s, s:s, s:f, s:f}", "router", status->traffic[i]->router, "node",
				status->traffic[i]->node, "sent_bytes_per_second",
				status->traffic[i]->sent_bytes_per_second, "received_bytes_per_second",
				status->traffic[i]->received_bytes_per_second));
	for (size_t i = 0; i < status->n_hottest; i++)
		(void)json_array_append_new(hottest,
			json_pack("{s:I, s:I, s:f, s:f}", "layer", (json_int_t)status->hottest[i]->layer, "expert",
				(json_int_t)status->hottest[i]->expert, "share", status->hottest[i]->share, "over_fair",
				status->hottest[i]->over_fair));
	(void)json_object_set_new(object, "routing_detail", json_string(aggregate ? "aggregate" : "tokens"));
	(void)json_object_set_new(object, "figures", figures);
	(void)json_object_set_new(object, "traffic", traffic);
	(void)json_object_set_new(object, "hottest", hottest);
	(void)json_object_set_new(object, "sample", sample_to_json(status->sample));
}
