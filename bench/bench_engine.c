/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decode and prefill of a whole model in the embedded form, stage by stage, beside what the machine
 * can do.
 *
 *   floor = max(bytes of weights and keys that the stage must read / read bandwidth, its operations
 *   / their peaks);  ratio = floor / time
 *
 * Operations are f32 FMA or products of 8-bit integers, as the profile says. Bytes of the experts
 * are those of the distinct experts that an even routing activates: E * (1 - (1 - K/E)^T) a layer.
 * Each mode is run `repeats` times, the bandwidth and the peaks are probed before each; medians.
 * Decoding goes on from repeat to repeat, after one that warms up. Tokens are random: the point is
 * speed.
 */
#include "limits.h"
#include "report.h"

#include "common/base/log.h"
#include "embedded/embedded.h"
#include "kernels/quantise.h"

#include <argp.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BUFFER_BYTES = 256 << 20, REPEATS_MAX = 21, SEQUENCES_MAX = 64, DECODE_TOKENS = 24, PROMPT_MAX = 16000 };
static const uint64_t KV_BYTES = 2ull << 30;

struct options {
	const char *model, *mode, *csv;
	unsigned threads, repeats, prompt, context, sequences;
	enum kn_isa isa;
	struct cad_settings settings;
	bool lockstep;
};
static const struct argp_option option_table[] = {
	{ "model", 'm', "DIR", 0, "checkpoint (tests/tools/make_checkpoint.py writes random ones)", 0 },
	{ "threads", 't', "N", 0, "compute threads (default: all cores)", 0 },
	{ "repeats", 'r', "N", 0, "repeats of each mode (default 5)", 0 },
	{ "mode", 'o', "TEXT", 0, "only modes whose names contain TEXT", 0 },
	{ "prompt", 'p', "N", 0, "tokens of the prefill (default 512)", 0 },
	{ "context", 'x', "N", 0, "tokens of each prompt that is decoded after (default 16)", 0 },
	{ "sequences", 's', "N", 0, "only modes of so many sequences", 0 },
	{ "numerics", 'n', "NAME", 0, "f32, int8 or int4 (default f32)", 0 },
	{ "router-numerics", 'R', "NAME", 0, "the same, of all but the experts (default: as --numerics)", 0 },
	{ "kv", 'k', "NAME", 0, "f32, bf16 or int8 (default f32)", 0 },
	{ "lockstep", 'l', 0, 0,
		"wait for a line on standard input before each repeat, and answer with its rate: others run in turn",
		0 },
	{ "isa", 'i', "NAME", 0, "ref, avx2, avxvnni, avx512 or amx (default: the best)", 0 },
	{ "csv", 'c', "DIR", 0, "also write DIR/engine-MACHINE.csv", 0 },
	{ 0 },
};

static unsigned number(const char *text, unsigned low, unsigned high, const char *option, struct argp_state *state)
{
	unsigned value = (unsigned)atoi(text);
	if (value < low || value > high)
		argp_error(state, "--%s '%s': use %u to %u", option, text, low, high);
	return value;
}

static error_t parse_option(int key, char *value, struct argp_state *state)
{
	struct options *o = state->input;
	switch (key) {
	case 'm': o->model = value; return 0;
	case 'o': o->mode = value; return 0;
	case 'c': o->csv = value; return 0;
	case 'l': o->lockstep = true; return 0;
	case 't': o->threads = number(value, 1, KN_THREADS_MAX, "threads", state); return 0;
	case 'r': o->repeats = number(value, 1, REPEATS_MAX, "repeats", state); return 0;
	case 'p': o->prompt = number(value, 1, PROMPT_MAX, "prompt", state); return 0;
	case 'x': o->context = number(value, 1, PROMPT_MAX, "context", state); return 0;
	case 's': o->sequences = number(value, 1, SEQUENCES_MAX, "sequences", state); return 0;
	case 'n':
		if (cad_profile_parse(value, &o->settings.profile) != CAD_OK)
			argp_error(state, "--numerics '%s': there is no such profile", value);
		return 0;
	case 'R':
		if (cad_profile_parse(value, &o->settings.router_profile) != CAD_OK)
			argp_error(state, "--router-numerics '%s': there is no such profile", value);
		return 0;
	case 'k':
		if (cad_kv_parse(value, &o->settings.kv) != CAD_OK)
			argp_error(state, "--kv '%s': keys and values cannot be kept so", value);
		return 0;
	case 'i':
		if (kn_isa_parse(value, &o->isa) != CAD_OK)
			argp_error(state, "--isa '%s': use ref, avx2, avxvnni, avx512 or amx", value);
		return 0;
	case ARGP_KEY_END:
		if (!o->model)
			argp_error(state, "give a checkpoint with --model DIR");
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

struct mode {
	const char *name;
	uint32_t sequences, prompt;
	bool prefill;
};

/* Rates of the machine: bytes, f32 operations and 8-bit operations per nanosecond. */
struct rates {
	double read, floats, integers;
};

/* What one step must do in a stage, over all layers. */
struct work {
	double bytes, floats, integers;
};

/* Of one step: rows are new tokens, each of which meets `keys` of its own sequence. */
struct shape {
	double rows, logit_rows, sequences, keys;
};

/* Bytes of a weight: of checkpoints in bf16, and with one f32 scale for each group of 256. */
static double weight_bytes(enum cad_profile profile)
{
	switch (profile) {
	case CAD_PROFILE_INT8: return 1 + 4.0 / KN_GROUP;
	case CAD_PROFILE_INT4: return 4.25 / 8;
	default: return 2;
	}
}

static double key_bytes(enum cad_kv kv) { return kv == CAD_KV_F32 ? 4 : kv == CAD_KV_BF16 ? 2 : 1; }

/* Weights of which `read` must be read, and `used` are multiplied with, for each row once. */
static struct work products(enum cad_profile profile, double read, double used)
{
	struct work work = { .bytes = read * weight_bytes(profile) };
	*(profile == CAD_PROFILE_INT8 || profile == CAD_PROFILE_INT4 ? &work.integers : &work.floats) = 2 * used;
	return work;
}

/* Elements of a layer's projections; values that it keeps of a key; and multiply-adds of a row with a key
 * and its value. Latent attention keeps a latent and a rotated part, which every head meets whole. */
struct attention {
	double projections, kept, met;
};

static struct attention attention_of(const struct cad_model_spec *s, uint32_t layer)
{
	const struct cad_attention_spec *a = cad_attention_of(s, layer);
	double h = s->hidden, heads = a->heads, each = a->head_size + a->value_size, rank = a->kv_rank;

	if (a->kind == CAD_ATTENTION_LATENT) {
		double query = heads * a->head_size, up = heads * (a->nope_size + a->value_size);
		return (struct attention){
			.projections = (a->q_rank ? a->q_rank * (h + query) : h * query) + h * (rank + a->rope_size) +
				rank * up + h * heads * a->value_size,
			.kept = rank + a->rope_size,
			.met = heads * (2 * rank + a->rope_size),
		};
	}
	return (struct attention){
		.projections = h * (heads + a->kv_heads) * each,
		.kept = a->kv_heads * each,
		.met = heads * each,
	};
}

static struct work attention_work(
	const struct cad_model_spec *s, const struct cad_settings *settings, struct shape shape)
{
	struct work work = { 0 };
	for (uint32_t i = 0; i < s->layers_count; i++) {
		uint32_t window = s->layers[i].window;
		struct attention a = attention_of(s, i);
		struct work layer = products(settings->router_profile, a.projections, shape.rows * a.projections);
		double keys = window && window < shape.keys ? window : shape.keys;
		work.bytes += layer.bytes + shape.sequences * keys * a.kept * key_bytes(settings->kv);
		work.floats += layer.floats + 2 * shape.rows * keys * a.met;
		work.integers += layer.integers;
	}
	return work;
}

static struct work stage_work(
	const struct cad_model_spec *s, const struct cad_settings *settings, enum rt_stage stage, struct shape shape)
{
	double h = s->hidden, layers = s->layers_count, rows = shape.rows;
	double moe = cad_model_spec_moe_layers(s), e = s->gate.experts, k = s->gate.topk;
	double expert = 3.0 * h * s->expert.size, dense = (layers - moe) * 3 * h * s->dense.size,
	       shared = moe * 3 * h * s->shared.size;

	switch (stage) {
	case RT_STAGE_ATTENTION: return attention_work(s, settings, shape);
	case RT_STAGE_GATE: return products(CAD_PROFILE_F32, moe * e * h, moe * rows * e * h);

	/* the embedded form computes the experts where a cluster waits for them */
	case RT_STAGE_WAIT:
		return products(
			settings->profile, moe * e * (1 - pow(1 - k / e, rows)) * expert, moe * rows * k * expert);
	case RT_STAGE_DENSE: return products(settings->router_profile, dense, rows * dense);
	case RT_STAGE_SHARED: return products(settings->router_profile, shared, rows * shared);
	case RT_STAGE_HEAD: return products(settings->router_profile, h * s->vocab, shape.logit_rows * h * s->vocab);
	default: return (struct work){ 0 };
	}
}

/* Nanoseconds that the machine needs for it at least. */
static double floor_ns(struct work work, struct rates rates)
{
	return fmax(work.bytes / rates.read, work.floats / rates.floats + work.integers / rates.integers);
}

struct sample {
	double seconds, tokens, steps, stage[RT_STAGE_COUNT];
	struct rates rates;
};

static void submit(struct rt_engine *engine, const struct mode *mode, uint32_t tokens, uint32_t vocab,
	struct cad_random *random, uint64_t *ids)
{
	int32_t *prompt = malloc(mode->prompt * sizeof *prompt);

	for (uint32_t s = 0; s < mode->sequences; s++) {
		for (uint32_t i = 0; i < mode->prompt; i++)
			prompt[i] = (int32_t)cad_random_below(random, vocab);
		struct rt_request request = {
			.prompt = prompt,
			.prompt_count = mode->prompt,
			.max_tokens = tokens,
			.ignore_eos = true,
		};
		struct cad_error error;
		if (rt_engine_submit(engine, &request, &ids[s], &error) != CAD_OK) {
			fprintf(stderr, "bench_engine: %s\n", error.text);
			exit(1);
		}
	}

	free(prompt);
}

static void end_all(struct rt_engine *engine, const struct mode *mode, const uint64_t *ids)
{
	for (uint32_t s = 0; s < mode->sequences; s++)
		rt_engine_cancel(engine, ids[s]);
	while (ended < mode->sequences)
		rt_engine_turn(engine, 0);
	ended = 0;
}

static uint64_t tokens_prefilled(struct rt_engine *engine)
{
	struct rt_engine_stats stats;
	rt_engine_stats(engine, &stats);
	return stats.tokens_prefilled;
}

/* One prompt, or DECODE_TOKENS steps of sequences that are decoding. */
static struct sample measure(struct em_embedded *em, const struct mode *mode, struct cad_random *random)
{
	struct rt_engine *engine = em_router(em);
	struct rt_engine_stats before, after;
	uint64_t id;

	if (mode->prefill)
		submit(engine, mode, 1, cad_model_spec(em_model(em))->vocab, random, &id);
	rt_engine_stats(engine, &before);
	uint64_t began = cad_clock_now_ns(&cad_clock_system);
	for (int step = 0; mode->prefill ? ended == 0 : step < DECODE_TOKENS;)
		step += rt_engine_turn(engine, 0);
	struct sample sample = { .seconds = (double)(cad_clock_now_ns(&cad_clock_system) - began) * 1e-9 };
	rt_engine_stats(engine, &after);

	sample.steps = (double)(after.steps - before.steps);
	sample.tokens = mode->prefill ? mode->prompt : (double)(after.tokens_generated - before.tokens_generated);
	for (int i = 0; i < RT_STAGE_COUNT; i++)
		sample.stage[i] = (double)(after.stage_ns[i] - before.stage_ns[i]) * 1e-9;
	if (mode->prefill)
		ended = 0;

	return sample;
}

static struct shape shape_of(const struct mode *mode, const struct sample *sample, unsigned repeats)
{
	double rows = sample->tokens / sample->steps;
	if (mode->prefill)
		return (struct shape){ rows, 1 / sample->steps, 1, mode->prompt / 2.0 };
	return (struct shape){ rows, rows, mode->sequences, mode->prompt + DECODE_TOKENS * (1 + repeats / 2.0) };
}

/* Nanoseconds of all stages of a step. */
static double step_floor_ns(const struct em_embedded *em, struct shape shape, struct rates rates)
{
	double sum = 0;
	for (int s = 0; s < RT_STAGE_COUNT; s++)
		sum += floor_ns(
			stage_work(cad_model_spec(em_model(em)), em_settings(em), (enum rt_stage)s, shape), rates);
	return sum;
}

#define MEDIAN(expression) \
	({ \
		for (unsigned i = 0; i < n; i++) \
			values[i] = (expression); \
		report_median(values, n); \
	})

static void report(const struct options *o, const struct em_embedded *em, const struct mode *mode,
	const struct sample *samples, FILE *csv)
{
	double values[REPEATS_MAX];
	unsigned n = o->repeats;
	struct rates rates = { MEDIAN(samples[i].rates.read), MEDIAN(samples[i].rates.floats),
		MEDIAN(samples[i].rates.integers) };
	struct shape shape = shape_of(mode, &samples[0], n);
	double steps = samples[0].steps, total = MEDIAN(samples[i].seconds) / steps,
	       limit = shape.rows / step_floor_ns(em, shape, rates) * 1e9,
	       middle = MEDIAN(samples[i].tokens / samples[i].seconds), low = values[0], high = values[n - 1];

	printf("%-12s %8.1f tokens/s (%.1f to %.1f), limit %.1f   read %.1f GB/s, FMA %.0f GFLOP/s, 8 bits %.0f GOP/s\n",
		mode->name, middle, low, high, limit, rates.read, rates.floats, rates.integers);
	if (csv)
		fprintf(csv, "%s,total,%.2f,%.2f,%.2f,,,,%.1f,%.0f\n", mode->name, middle, low, high, rates.read,
			rates.floats);
	for (int s = 0; s < RT_STAGE_COUNT; s++) {
		double seconds = MEDIAN(samples[i].stage[s]) / steps;
		struct work work = stage_work(cad_model_spec(em_model(em)), em_settings(em), (enum rt_stage)s, shape);
		double operations = work.floats + work.integers;
		if (seconds < total * 1e-4)
			continue;
		printf("  %-10s %9.1f us a step %5.1f %%", s == RT_STAGE_WAIT ? "experts" : rt_stage_names[s],
			seconds * 1e6, 100 * seconds / total);
		if (work.bytes > 0)
			printf("  %7.2f GB/s %8.1f GFLOP/s  ratio %.2f", work.bytes / seconds * 1e-9,
				operations / seconds * 1e-9, floor_ns(work, rates) * 1e-9 / seconds);
		printf("\n");
		if (csv)
			fprintf(csv, "%s,%s,,,,%.1f,%.2f,%.1f,%.1f,%.0f\n", mode->name, rt_stage_names[s],
				seconds * 1e6, work.bytes / seconds * 1e-9, operations / seconds * 1e-9, rates.read,
				rates.floats);
	}
}

/* False: nobody asks for more. */
static bool wait_for_turn(void)
{
	char line[16];
	return fgets(line, sizeof line, stdin);
}

static void tell(const struct em_embedded *em, const struct mode *mode, const struct sample *sample, unsigned repeats)
{
	double floor = step_floor_ns(em, shape_of(mode, sample, repeats), sample->rates) * 1e-9 * sample->steps;
	printf("%.3f %.3f %.2f %.1f %.1f\n", sample->tokens / sample->seconds, sample->tokens / floor,
		sample->rates.read, sample->rates.floats, sample->rates.integers);
	fflush(stdout);
}

static struct rates probe(struct kn_pool *pool, const char *form, const uint8_t *buffer)
{
	return (struct rates){ limit_probe(pool, LIMIT_READ, buffer, BUFFER_BYTES),
		limit_probe(pool, limit_of_form(form, false), buffer, BUFFER_BYTES),
		limit_probe(pool, limit_of_form(form, true), buffer, BUFFER_BYTES) };
}

static void run_mode(const struct options *o, struct em_embedded *em, const struct mode *mode, struct kn_pool *pool,
	const uint8_t *buffer, struct cad_random *random, FILE *csv)
{
	struct sample samples[REPEATS_MAX];
	struct rt_engine *engine = em_router(em);
	uint64_t ids[SEQUENCES_MAX], goal = tokens_prefilled(engine) + (uint64_t)mode->sequences * mode->prompt;

	if (!mode->prefill) {
		submit(engine, mode, (o->repeats + 2) * DECODE_TOKENS, cad_model_spec(em_model(em))->vocab, random,
			ids);
		while (tokens_prefilled(engine) < goal)
			rt_engine_turn(engine, 0);
	}
	if (!mode->prefill || mode->prompt <= 512)
		measure(em, mode, random); /* warms up; long prompts take long enough themselves */
	if (o->lockstep) {
		printf("ready\n");
		fflush(stdout);
	}

	unsigned repeats = 0;
	while (repeats < o->repeats && (!o->lockstep || wait_for_turn())) {
		struct rates rates = probe(pool, em_isa_name(em), buffer);
		samples[repeats] = measure(em, mode, random);
		samples[repeats].rates = rates;
		if (o->lockstep)
			tell(em, mode, &samples[repeats], o->repeats);
		repeats++;
	}

	if (!mode->prefill)
		end_all(engine, mode, ids);
	if (!o->lockstep)
		report(o, em, mode, samples, csv);
}

int main(int argc, char **argv)
{
	struct options o = { .repeats = 5, .prompt = 512, .context = 16, .settings.router_profile = CAD_PROFILE_SAME };
	argp_parse(&(struct argp){ option_table, parse_option, NULL,
			   "Prefill and decode of a model in one process, stage by stage.", NULL, NULL, NULL },
		argc, argv, 0, NULL, &o);
	o.threads = o.threads > 0 ? o.threads : kn_threads_default();
	cad_log_setup(CAD_LOG_WARN, CAD_LOG_LOGFMT);
	struct em_options options = {
		.model = o.model,
		.isa = o.isa,
		.threads = o.threads,
		.settings = o.settings,
		.router = {
			.step_tokens_max = 512,
			.sequences_max = SEQUENCES_MAX,
			.kv_bytes = KV_BYTES,
			.on_event = on_event,
		},
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
	struct cad_random random = { 1 };
	const struct mode modes[] = {
		{ "prefill", 1, o.prompt, true },
		{ "decode x1", 1, o.context, false },
		{ "decode x4", 4, o.context, false },
		{ "decode x16", 16, o.context, false },
		{ "decode x32", 32, o.context, false },
		{ "decode x64", SEQUENCES_MAX, o.context, false },
	};
	if (!o.lockstep)
		printf("%s, %s, %u threads, %s\n", o.model, em_isa_name(em), o.threads, limit_machine(machine));

	for (size_t m = 0; m < sizeof modes / sizeof *modes; m++)
		if ((!o.mode || strstr(modes[m].name, o.mode)) &&
			(o.sequences == 0 || modes[m].sequences == o.sequences))
			run_mode(&o, em, &modes[m], pool, buffer, &random, csv);

	free(buffer);
	kn_pool_destroy(pool);
	em_destroy(em);

	return report_close(csv) ? 0 : 1;
}
