/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What telemetry costs: three routers with their expert nodes in one process, one with telemetry
 * (on) and two without (off), which all do the same work, a slice of some milliseconds each in
 * turn. So whatever else happens on the machine happens to all three.
 *
 *   cost of one   the median over its slices of CPU time per token; of the one with telemetry also
 *                 what its reporting thread takes, which empties the ring and copies the tokens
 *   on/off        in one round; of several rounds, each with other routers in other memory, the
 *                 median and the quartiles
 *   off/off       the same of the two without telemetry: what is noise
 */
#include "limits.h"
#include "report.h"

#include "common/base/log.h"
#include "embedded/embedded.h"

#include <argp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ROUNDS_MAX = 201, SLICES = 200, SEQUENCES_MAX = 16, PROMPT_SHORT = 16, NODES = 4, REPORT_MS = 100, ENGINES = 3 };

struct options {
	const char *model, *csv;
	unsigned rounds;
};
static const struct argp_option option_table[] = {
	{ "model", 'm', "DIR", 0, "checkpoint (default models/demo: small, so that telemetry is a large part)", 0 },
	{ "rounds", 'r', "N", 0, "rounds of 200 slices (default 15)", 0 },
	{ "csv", 'c', "DIR", 0, "also write DIR/telemetry-MACHINE.csv", 0 },
	{ 0 },
};

static error_t parse_option(int key, char *value, struct argp_state *state)
{
	struct options *o = state->input;
	switch (key) {
	case 'm': o->model = value; return 0;
	case 'r': o->rounds = (unsigned)atoi(value); return 0;
	case 'c': o->csv = value; return 0;
	case ARGP_KEY_END:
		if (o->rounds < 3 || o->rounds > ROUNDS_MAX)
			argp_error(state, "--rounds takes 3 to %d", ROUNDS_MAX);
		return 0;
	default: return ARGP_ERR_UNKNOWN;
	}
}

/* A slice ends after so many tokens, or the first step beyond. */
struct mode {
	const char *name;
	uint32_t sequences, prompt, tokens, slice;
};

static void fail(const char *why)
{
	fprintf(stderr, "bench_telemetry: %s\n", why);
	exit(1);
}

static double seconds_of(clockid_t clock)
{
	struct timespec time;
	clock_gettime(clock, &time);
	return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

/* ---- what reports ---- */

struct reporter {
	struct rt_telemetry *telemetry; /* NULL: there is none */
	pthread_t thread;
	_Atomic bool stop;
	uint8_t *copy;
	uint64_t tokens;
	double seconds; /* of CPU time */
};

static void take_all(struct reporter *reporter)
{
	struct rt_telemetry *telemetry = reporter->telemetry;
	uint64_t at = atomic_load_explicit(&telemetry->taken, memory_order_relaxed),
		 written = atomic_load_explicit(&telemetry->written, memory_order_acquire);
	size_t bytes = rt_telemetry_ids_bytes(telemetry), offset = 0;

	for (; at < written; at++) {
		const struct rt_telemetry_record *record = rt_telemetry_at(telemetry, at);
		if (record->kind != RT_TELEMETRY_TOKEN)
			continue;
		memcpy(reporter->copy + offset, rt_telemetry_ids(record), bytes);
		offset = offset + 2 * bytes > RT_TELEMETRY_BYTES_MAX ? 0 : offset + bytes;
		reporter->tokens++;
	}
	atomic_store_explicit(&telemetry->taken, at, memory_order_release);
}

static void *run_reporter(void *context)
{
	struct reporter *reporter = context;
	while (!atomic_load(&reporter->stop)) {
		nanosleep(&(struct timespec){ .tv_nsec = REPORT_MS * 1000000 }, NULL);
		take_all(reporter);
	}
	reporter->seconds = seconds_of(CLOCK_THREAD_CPUTIME_ID);
	return NULL;
}

/* ---- one router ---- */

struct subject {
	struct em_embedded *em;
	struct rt_engine *engine;
	struct reporter reporter;
	struct cad_random random;
	uint32_t live;        /* requests */
	double costs[SLICES]; /* seconds per token */
	uint64_t tokens;      /* of all slices */
};

static void on_event(void *user, const struct rt_event *event)
{
	((struct subject *)user)->live -= event->kind == RT_EVENT_FINISHED || event->kind == RT_EVENT_FAILED;
}

static void subject_create(struct subject *subject, const struct options *o, bool telemetry, uint64_t seed)
{
	*subject = (struct subject){ .random = { seed } };
	const struct em_options options = {
		.model = o->model,
		.threads = 1,
		.nodes = NODES,
		.router = {
			.step_tokens_max = 512,
			.sequences_max = SEQUENCES_MAX,
			.on_event = on_event,
			.user = subject,
			.telemetry = telemetry,
		},
	};
	struct cad_error error;
	if (em_create(&options, &subject->em, &error) != CAD_OK)
		fail(error.text);

	subject->engine = em_router(subject->em);
	subject->reporter.telemetry = rt_engine_telemetry(subject->engine);
	if (!telemetry)
		return;
	subject->reporter.copy = malloc(RT_TELEMETRY_BYTES_MAX);
	if (!subject->reporter.telemetry || !subject->reporter.copy ||
		pthread_create(&subject->reporter.thread, NULL, run_reporter, &subject->reporter) != 0)
		fail("no telemetry, or no thread for it");
}

static void subject_destroy(struct subject *subject)
{
	if (subject->reporter.telemetry) {
		atomic_store(&subject->reporter.stop, true);
		pthread_join(subject->reporter.thread, NULL);
	}
	free(subject->reporter.copy);
	em_destroy(subject->em);
}

static void submit(struct subject *subject, const struct mode *mode)
{
	uint32_t vocab = cad_model_spec(em_model(subject->em))->vocab;
	int32_t prompt[1024];

	for (uint32_t i = 0; i < mode->prompt; i++)
		prompt[i] = (int32_t)cad_random_below(&subject->random, vocab);
	const struct rt_request request = {
		.prompt = prompt,
		.prompt_count = mode->prompt,
		.max_tokens = mode->tokens,
		.ignore_eos = true,
	};
	uint64_t id;
	struct cad_error error;
	if (rt_engine_submit(subject->engine, &request, &id, &error) != CAD_OK)
		fail(error.text);
	subject->live++;
}

static uint64_t computed(const struct rt_engine *engine)
{
	struct rt_engine_stats stats;
	rt_engine_stats(engine, &stats);
	return stats.tokens_prefilled + stats.tokens_generated;
}

static double run_slice(struct subject *subject, const struct mode *mode)
{
	while (subject->live < mode->sequences)
		submit(subject, mode);

	uint64_t before = computed(subject->engine), after = before;
	double begun = seconds_of(CLOCK_THREAD_CPUTIME_ID);
	while (after < before + mode->slice && subject->live > 0) {
		rt_engine_turn(subject->engine, 0);
		after = computed(subject->engine);
	}
	double seconds = seconds_of(CLOCK_THREAD_CPUTIME_ID) - begun;
	subject->tokens += after - before;
	return seconds / (double)(after - before);
}

/* ---- rounds ---- */

/* Microseconds of CPU time per token: off, on, off. Which of the three has telemetry goes round, as the order
 * in which they are made. Returns the share of tokens that were sampled. */
static double run_round(const struct options *o, const struct mode *mode, uint64_t seed, double costs[ENGINES])
{
	static struct subject subjects[ENGINES];
	uint32_t on = (uint32_t)(seed % ENGINES);
	double share = 0;

	for (uint32_t i = 0; i < ENGINES; i++) {
		uint32_t which = (uint32_t)((seed / ENGINES + i) % ENGINES);
		subject_create(&subjects[which], o, which == on, seed);
	}
	for (uint32_t s = 0; s < SLICES + SLICES / 10; s++) /* the first warm up */
		for (uint32_t i = 0; i < ENGINES; i++) {
			struct subject *subject = &subjects[(s + i) % ENGINES];
			subject->costs[s % SLICES] = run_slice(subject, mode);
		}
	for (uint32_t i = 0; i < ENGINES; i++) {
		struct subject *subject = &subjects[i];
		uint32_t place = (i + ENGINES + 1 - on) % ENGINES;
		subject_destroy(subject);
		costs[place] =
			report_median(subject->costs, SLICES) + subject->reporter.seconds / (double)subject->tokens;
		costs[place] *= 1e6;
		if (subject->reporter.telemetry)
			share = (double)subject->reporter.tokens / (double)subject->tokens;
	}
	return share;
}

struct spread {
	double low, middle, high;
};

static struct spread spread_of(double *ratios, unsigned count)
{
	double middle = report_median(ratios, count); /* sorts */
	return (struct spread){ ratios[count / 4], middle, ratios[count - 1 - count / 4] };
}

static void print_spread(const char *name, struct spread spread)
{
	printf("   %s %+.2f %% (%+.2f to %+.2f)", name, 100 * (spread.middle - 1), 100 * (spread.low - 1),
		100 * (spread.high - 1));
}

static void compare(const struct options *o, const struct mode *mode, FILE *csv)
{
	double off[ROUNDS_MAX], on_over_off[ROUNDS_MAX], off_over_off[ROUNDS_MAX], share = 0;

	for (unsigned r = 0; r < o->rounds; r++) {
		double cost[ENGINES];
		share += run_round(o, mode, r, cost) / o->rounds;
		off[r] = cost[0];
		on_over_off[r] = cost[1] / ((cost[0] + cost[2]) / 2);
		off_over_off[r] = cost[2] / cost[0];
	}

	double micros = report_median(off, o->rounds);
	struct spread on = spread_of(on_over_off, o->rounds), noise = spread_of(off_over_off, o->rounds);
	printf("%-12s %8.2f us of CPU per token, %3.0f %% of tokens sampled", mode->name, micros, 100 * share);
	print_spread("on/off", on);
	print_spread("off/off", noise);
	printf("\n");
	fflush(stdout);
	if (csv)
		fprintf(csv, "%s,%.3f,%.3f,%.4f,%.4f,%.4f,%.4f,%.4f,%.4f\n", mode->name, micros, share, on.middle,
			on.low, on.high, noise.middle, noise.low, noise.high);
}

int main(int argc, char **argv)
{
	struct options o = { .model = "models/demo", .rounds = 15 };
	argp_parse(&(struct argp){ option_table, parse_option, NULL, "What telemetry costs.", NULL, NULL, NULL }, argc,
		argv, 0, NULL, &o);
	cad_log_setup(CAD_LOG_WARN, CAD_LOG_LOGFMT);

	char machine[64];
	FILE *csv = o.csv
		? report_open(o.csv, "telemetry",
			  "mode,off_us_per_token,sampled,on_over_off,on_low,on_high,off_over_off,off_low,off_high")
		: NULL;
	if (o.csv && !csv)
		return 1;
	const struct mode modes[] = {
		{ "decode x1", 1, PROMPT_SHORT, 400, 8 },
		{ "decode x16", SEQUENCES_MAX, PROMPT_SHORT, 400, 64 },
		{ "prefill", 1, 400, 1, 400 },
	};
	printf("%s, %d expert nodes, 1 thread, %s; %u rounds of %d slices: medians, and the quartiles of rounds\n",
		o.model, NODES, limit_machine(machine), o.rounds, SLICES);
	for (size_t m = 0; m < sizeof modes / sizeof *modes; m++)
		compare(&o, &modes[m], csv);
	return report_close(csv) ? 0 : 1;
}
