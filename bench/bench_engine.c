/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decode and prefill of a whole model in the embedded form, stage by stage, beside what the machine
 * can do.
 *
 *   floor = max(bytes of weights and keys that the stage must read / read bandwidth, its operations
 *   / FMA peak);  ratio = floor / time
 *
 * Bytes of the experts are those of the distinct experts that an even routing activates: E * (1 -
 * (1 - K/E)^T) a layer. Each mode is run `repeats` times, the bandwidth and the peak are probed
 * before each; medians. Tokens are random: the point is speed.
 */
#include "limits.h"
#include "report.h"

#include "common/base/log.h"
#include "embedded/embedded.h"

#include <argp.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BUFFER_BYTES = 256 << 20, REPEATS_MAX = 21, SEQUENCES_MAX = 64, DECODE_TOKENS = 24, PROMPT_SHORT = 16 };

struct options {
	const char *model, *mode, *csv;
	unsigned threads, repeats, prompt;
	enum kn_isa isa;
};
static const struct argp_option option_table[] = {
	{ "model", 'm', "DIR", 0, "checkpoint (tests/tools/make_checkpoint.py writes random ones)", 0 },
	{ "threads", 't', "N", 0, "compute threads (default: all cores)", 0 },
	{ "repeats", 'r', "N", 0, "repeats of each mode (default 5)", 0 },
	{ "mode", 'o', "TEXT", 0, "only modes whose names contain TEXT", 0 },
	{ "prompt", 'p', "N", 0, "tokens of the prefill (default 512)", 0 },
	{ "isa", 'i', "NAME", 0, "ref, avx2, avxvnni, avx512 or amx (default: the best)", 0 },
	{ "csv", 'c', "DIR", 0, "also write DIR/engine-MACHINE.csv", 0 },
	{ 0 },
};

static error_t parse_option(int key, char *value, struct argp_state *state)
{
	struct options *o = state->input;
	switch (key) {
	case 'm': o->model = value; return 0;
	case 'o': o->mode = value; return 0;
	case 'c': o->csv = value; return 0;
	case 't': o->threads = (unsigned)atoi(value); return 0;
	case 'r': o->repeats = (unsigned)atoi(value); return 0;
	case 'p': o->prompt = (unsigned)atoi(value); return 0;
	case 'i':
		if (kn_isa_parse(value, &o->isa) != CAD_OK)
			argp_error(state, "--isa '%s': use ref, avx2, avxvnni, avx512 or amx", value);
		return 0;
	case ARGP_KEY_END:
		if (!o->model)
			argp_error(state, "give a checkpoint with --model DIR");
		if (o->repeats < 1 || o->repeats > REPEATS_MAX || o->prompt < 1 || o->prompt > 4000)
			argp_error(state, "--repeats takes 1 to %d, --prompt 1 to 4000", REPEATS_MAX);
		return 0;
	default: return ARGP_ERR_UNKNOWN;
	}
}

static unsigned ended;
static void on_event(void *user, const struct rt_event *event)
{
	(void)user;
	ended += event->kind == RT_EVENT_FINISHED || event->kind == RT_EVENT_FAILED;
}

/* What one step of `rows` rows must do in a stage, over all layers. */
struct work {
	double bytes, flops;
};

static struct work stage_work(
	const struct cad_model_spec *s, enum rt_stage stage, double rows, double logit_rows, double keys)
{
	double h = s->hidden, heads = s->attention.heads, kv = s->attention.kv_heads, d = s->attention.head_size,
	       layers = s->layers_count;
	double moe = cad_model_spec_moe_layers(s), e = s->gate.experts, k = s->gate.topk;
	double projections = h * d * (2 * heads + 2 * kv), expert = 3.0 * h * s->expert.size;

	switch (stage) {
	case RT_STAGE_ATTENTION:
		return (struct work){ layers * (projections * 2 + keys * kv * d * 8),
			layers * (2 * rows * projections + 4 * rows * keys * heads * d) };
	case RT_STAGE_GATE: return (struct work){ moe * e * h * 2, moe * 2 * rows * e * h };

	/* the embedded form computes the experts where a cluster waits for them */
	case RT_STAGE_WAIT:
		return (struct work){ moe * e * (1 - pow(1 - k / e, rows)) * expert * 2, moe * 2 * rows * k * expert };
	case RT_STAGE_DENSE:
		return (struct work){ (layers - moe) * 3 * h * s->dense.size * 2,
			(layers - moe) * 6 * rows * h * s->dense.size };
	case RT_STAGE_HEAD: return (struct work){ h * s->vocab * 2, 2 * logit_rows * h * s->vocab };
	default: return (struct work){ 0, 0 };
	}
}

struct mode {
	const char *name;
	uint32_t sequences, prompt, tokens;
	bool prefill;
};

struct sample {
	double seconds, tokens, steps, stage[RT_STAGE_COUNT], read, peak;
};

/* Runs one mode once: the prompts, then (unless it is the prefill that is asked for) the decoding,
 * which alone is timed. */
static struct sample run_mode(struct em_embedded *em, const struct mode *mode, struct cad_random *random)
{
	struct rt_engine *engine = em_router(em);
	uint32_t vocab = cad_model_spec(em_model(em))->vocab;
	int32_t *prompt = malloc(mode->prompt * sizeof *prompt);

	ended = 0;

	for (uint32_t s = 0; s < mode->sequences; s++) {
		for (uint32_t i = 0; i < mode->prompt; i++)
			prompt[i] = (int32_t)cad_random_below(random, vocab);
		struct rt_request request = {
			.prompt = prompt,
			.prompt_count = mode->prompt,
			.max_tokens = mode->tokens,
			.ignore_eos = true,
		};
		uint64_t id;
		struct cad_error error;
		if (rt_engine_submit(engine, &request, &id, &error) != CAD_OK) {
			fprintf(stderr, "bench_engine: %s\n", error.text);
			exit(1);
		}
	}

	free(prompt);
	struct rt_engine_stats before, after;
	rt_engine_stats(engine, &before);

	if (!mode->prefill) {
		uint64_t goal = before.tokens_prefilled + (uint64_t)mode->sequences * mode->prompt;
		while (before.tokens_prefilled < goal) {
			rt_engine_turn(engine, 0);
			rt_engine_stats(engine, &before);
		}
	}

	uint64_t began = cad_clock_now_ns(&cad_clock_system);
	while (ended < mode->sequences)
		rt_engine_turn(engine, 0);
	struct sample sample = { .seconds = (double)(cad_clock_now_ns(&cad_clock_system) - began) * 1e-9 };
	rt_engine_stats(engine, &after);
	sample.steps = (double)(after.steps - before.steps);
	sample.tokens = mode->prefill ? (double)mode->sequences * mode->prompt
				      : (double)(after.tokens_generated - before.tokens_generated);
	for (int i = 0; i < RT_STAGE_COUNT; i++)
		sample.stage[i] = (double)(after.stage_ns[i] - before.stage_ns[i]) * 1e-9;

	return sample;
}

static void report(const struct options *o, const struct cad_model_spec *spec, const struct mode *mode,
	struct sample *samples, FILE *csv)
{
	double values[REPEATS_MAX], rate[REPEATS_MAX], read, peak;
	unsigned n = o->repeats;
#define MEDIAN(expression) \
	({ \
		for (unsigned i = 0; i < n; i++) \
			values[i] = (expression); \
		report_median(values, n); \
	})
	read = MEDIAN(samples[i].read);
	peak = MEDIAN(samples[i].peak);
	for (unsigned i = 0; i < n; i++)
		rate[i] = samples[i].tokens / samples[i].seconds;
	double middle = report_median(rate, n), steps = samples[0].steps, rows = samples[0].tokens / steps,
	       logit_rows = mode->prefill ? 1 / steps : rows;
	double keys = mode->prefill ? rows / 2 : mode->prompt + mode->tokens / 2.0;
	printf("%-12s %8.1f tokens/s (%.1f to %.1f)   read %.1f GB/s, FMA %.0f GFLOP/s\n", mode->name, middle, rate[0],
		rate[n - 1], read, peak);
	if (csv)
		fprintf(csv, "%s,total,%.2f,%.2f,%.2f,,,,%.1f,%.0f\n", mode->name, middle, rate[0], rate[n - 1], read,
			peak);
	for (int s = 0; s < RT_STAGE_COUNT; s++) {
		double seconds = MEDIAN(samples[i].stage[s]) / steps, total = MEDIAN(samples[i].seconds) / steps;
		struct work work = stage_work(spec, (enum rt_stage)s, rows, logit_rows, keys);
		if (seconds < total * 1e-4)
			continue;
		double by_read = work.bytes / (read * 1e9), by_peak = work.flops / (peak * 1e9),
		       floor = by_read > by_peak ? by_read : by_peak;
		printf("  %-10s %9.1f us a step %5.1f %%", s == RT_STAGE_WAIT ? "experts" : rt_stage_names[s],
			seconds * 1e6, 100 * seconds / total);
		if (work.bytes > 0)
			printf("  %7.2f GB/s %8.1f GFLOP/s  ratio %.2f", work.bytes / seconds * 1e-9,
				work.flops / seconds * 1e-9, floor / seconds);
		printf("\n");
		if (csv)
			fprintf(csv, "%s,%s,,,,%.1f,%.2f,%.1f,%.1f,%.0f\n", mode->name, rt_stage_names[s],
				seconds * 1e6, work.bytes / seconds * 1e-9, work.flops / seconds * 1e-9, read, peak);
	}
#undef MEDIAN
}

int main(int argc, char **argv)
{
	struct options o = { .repeats = 5, .prompt = 512 };
	argp_parse(&(struct argp){ option_table, parse_option, NULL,
			   "Prefill and decode of a model in one process, stage by stage.", NULL, NULL, NULL },
		argc, argv, 0, NULL, &o);
	o.threads = o.threads > 0 ? o.threads : kn_threads_default();
	cad_log_setup(CAD_LOG_WARN, CAD_LOG_LOGFMT);
	struct em_options options = {
		.model = o.model,
		.isa = o.isa,
		.threads = o.threads,
		.router = { .step_tokens_max = 512, .sequences_max = SEQUENCES_MAX, .on_event = on_event },
	};
	struct em_embedded *em;
	struct cad_error error;
	struct kn_pool *pool;
	uint8_t *buffer = aligned_alloc(4096, BUFFER_BYTES);
	if (em_create(&options, &em, &error) != CAD_OK) {
		fprintf(stderr, "bench_engine: %s\n", error.text);
		return 1;
	}

	if (!buffer || kn_pool_create(o.threads, &pool) != CAD_OK) {
		fprintf(stderr, "bench_engine: no memory for the probes\n");
		return 1;
	}

	memset(buffer, 1, BUFFER_BYTES);
	char machine[64];
	FILE *csv = o.csv
		? report_open(o.csv, "engine",
			  "mode,stage,tokens_per_s,low,high,us_per_step,gb_per_s,gflop_per_s,read_gb_per_s,fma_gflop_per_s")
		: NULL;
	if (o.csv && !csv)
		return 1;
	enum limit arithmetic = limit_of_form(em_isa_name(em), false);
	struct cad_random random = { 1 };
	const struct mode modes[] = {
		{ "prefill", 1, o.prompt, 1, true },
		{ "decode x1", 1, PROMPT_SHORT, DECODE_TOKENS, false },
		{ "decode x4", 4, PROMPT_SHORT, DECODE_TOKENS, false },
		{ "decode x16", 16, PROMPT_SHORT, DECODE_TOKENS, false },
		{ "decode x64", SEQUENCES_MAX, PROMPT_SHORT, DECODE_TOKENS, false },
	};
	printf("%s, %s, %u threads, %s\n", o.model, em_isa_name(em), o.threads, limit_machine(machine));

	for (size_t m = 0; m < sizeof modes / sizeof *modes; m++) {
		struct sample samples[REPEATS_MAX];
		if (o.mode && !strstr(modes[m].name, o.mode))
			continue;
		run_mode(em, &modes[m], &random); /* warms up */
		for (unsigned r = 0; r < o.repeats; r++) {
			double read = limit_probe(pool, LIMIT_READ, buffer, BUFFER_BYTES),
			       peak = limit_probe(pool, arithmetic, buffer, BUFFER_BYTES);
			samples[r] = run_mode(em, &modes[m], &random);
			samples[r].read = read;
			samples[r].peak = peak;
		}
		report(&o, cad_model_spec(em_model(em)), &modes[m], samples, csv);
	}

	free(buffer);
	kn_pool_destroy(pool);
	em_destroy(em);

	return report_close(csv) ? 0 : 1;
}
