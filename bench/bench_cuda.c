/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The grouped expert ffn of one layer on a GPU, at shapes of real models, in
 * profile int8: are its bits the CPU's, and how near is its time to what the
 * GPU gives at best.
 *
 *   floor = max(bytes / read bandwidth, operations / peak of integer tensor
 * cores), both measured first (gpu/ceilings.h); ratio = floor / time
 *
 * What is timed is what an expert node asks for: rows go in, exact sums come
 * out. Calls are routed to other experts each time, so that weights come from
 * memory and not from a cache. Many are queued and then waited for; the GPU's
 * own time, by events, is what the ratio is of. Sizes that the GPU has no
 * memory for are left out, and said.
 */
#include "gpu/ceilings.h"
#include "report.h"

#include "common/base/clock.h"
#include "common/base/workers.h"
#include "kernels/source.h"
#include "kernels/kernels.h"

#include <argp.h>
#include <ctype.h>
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	REPEATS = 5,
	CALLS_MAX = 24,
	CHECK_EXPERTS = 2,
	SHIFT = 1000, /* elements between experts' weights */
	SKIPPED = 77, /* exit code: there is no GPU */
};
enum { L2_BYTES = 400 << 20 /* far more than any GPU caches */ };

/* One layer: the experts that a node has, of all; tokens choose topk of all. */
struct shape {
	const char *name;
	size_t here, of, hidden, ffn, topk;
};

static const struct shape models[] = {
	{ "mixtral-8x7b", 8, 8, 4096, 14336, 2 },
	{ "qwen3-30b-a3b", 128, 128, 2048, 768, 8 },
	{ "deepseek-v3", 32, 256, 7168, 2048, 8 },
};
static const struct shape small[] = { { "small-a", 4, 4, 256, 192, 2 }, { "small-b", 4, 16, 320, 64, 4 } };
/* 0: `rows_each` rows to every expert */
static const size_t tokens_of_models[] = { 1, 8, 64, 512, 4096, 0 }, tokens_of_small[] = { 1, 8, 0 };

static struct options {
	struct kn_device_options device;
	const char *csv, *shape;
	bool quick, check_only;
} o = { .device = { .kind = KN_DEVICE_CUDA } };

static const struct argp_option option_table[] = {
	{ "device", 'd', "DEVICE", 0,
		"cuda[:N], or emu, the emulated GPU, whose times mean nothing (default "
		"cuda)",
		0 },
	{ "shape", 's', "NAME", 0, "only models whose name contains NAME", 0 },
	{ "quick", 'q', NULL, 0, "small shapes, to see that all of this runs", 0 },
	{ "check", 'k', NULL, 0, "only compare the bits with the CPU's", 0 },
	{ "csv", 'c', "DIR", 0, "also write DIR/gpu-DEVICE.csv and DIR/gpu-ceilings-DEVICE.csv", 0 },
	{ 0 },
};

static error_t parse_option(int key, char *value, struct argp_state *state)
{
	struct cad_error error;
	switch (key) {
	case 'd':
		if (kn_device_parse("device", value, &o.device, &error) != CAD_OK || o.device.kind == KN_DEVICE_CPU)
			argp_error(state, "--device '%s': use cuda, cuda:N or emu", value);
		return 0;
	case 's': o.shape = value; return 0;
	case 'q': o.quick = true; return 0;
	case 'k': o.check_only = true; return 0;
	case 'c': o.csv = value; return 0;
	default: return ARGP_ERR_UNKNOWN;
	}
}

/* ---- a layer's experts ---- */

/* All experts read the same random numbers, each from another place. */
struct weights {
	uint16_t *bf16;
	struct cad_ffn_spec spec;
};

static struct weights make_weights(const struct shape *s)
{
	size_t count = s->hidden * s->ffn + s->here * SHIFT;
	struct weights w = { malloc(count * sizeof *w.bf16), { .size = (uint32_t)s->ffn } };
	uint64_t state = 1;
	CAD_ASSERT(w.bf16);
	for (size_t i = 0; i < count; i++) { /* magnitudes of 2^-7 to 2^-5 */
		state = state * 6364136223846793005u + 1442695040888963407u;
		w.bf16[i] = (uint16_t)((state >> 48 & 0x80ff) | 0x3c00);
	}
	return w;
}

static struct kn_expert_source source_of(const struct shape *s, const struct weights *w, size_t e)
{
	const uint16_t *from = w->bf16 + e * SHIFT;
	return (struct kn_expert_source){
		.gate = kn_source_plain(from, CAD_DTYPE_BF16, s->ffn, s->hidden),
		.up = kn_source_plain(from + 1, CAD_DTYPE_BF16, s->ffn, s->hidden),
		.down = kn_source_plain(from + 2, CAD_DTYPE_BF16, s->hidden, s->ffn),
		.spec = &w->spec,
	};
}

struct layer {
	const struct shape *shape;
	struct kn_queue *queue;
	size_t count; /* of experts that are packed */
	struct kn_expert *experts;
	const struct kn_expert **pointers;
};

static void destroy_layer(struct layer *l)
{
	for (size_t e = 0; e < l->count; e++)
		l->queue->ops->expert_destroy(l->queue->device, &l->experts[e]);
	free(l->experts);
	free(l->pointers);
}

/* False: there is no room for so many experts. */
static bool make_layer(
	struct layer *l, struct kn_queue *queue, const struct shape *s, const struct weights *w, size_t count)
{
	*l = (struct layer){ s, queue, 0, calloc(count, sizeof *l->experts), calloc(count, sizeof *l->pointers) };
	CAD_ASSERT(l->experts && l->pointers);
	for (size_t e = 0; e < count; e++) {
		struct kn_expert_source source = source_of(s, w, e);
		if (queue->ops->expert_create(queue->device, &source, CAD_WEIGHTS_INT8, &l->experts[e]) != CAD_OK) {
			destroy_layer(l);
			return false;
		}
		l->pointers[e] = &l->experts[e];
		l->count++;
	}
	return true;
}

/* ---- calls ---- */

/* Rows that go to experts: begin and, on the device, row_index. */
struct route {
	uint32_t *begin, *index; /* index: device memory */
	size_t pairs, touched, bytes;
};

static void *upload(struct kn_queue *queue, const void *host, size_t bytes)
{
	void *memory = queue->ops->alloc(queue->device, bytes);
	if (memory) {
		queue->ops->copy_in(queue, memory, host, bytes);
		CAD_ASSERT(queue->ops->wait(queue) == CAD_OK);
	}
	return memory;
}

/* Row t goes to topk of all experts by lot, of which some are here; rows_each:
 * row t goes to all that are here. At least one pair. False: no memory on the
 * device. */
static bool make_route(struct route *r, const struct layer *l, size_t tokens, bool rows_each, struct cad_random *random)
{
	const struct shape *s = l->shape;
	size_t most = tokens * (rows_each ? l->count : s->topk);
	uint32_t *index = malloc(most * sizeof *index);
	bool *chosen = calloc(tokens * s->of, sizeof *chosen);
	*r = (struct route){ .begin = malloc((l->count + 1) * sizeof *r->begin) };
	CAD_ASSERT(index && chosen && r->begin);

	for (size_t t = 0; t < tokens; t++)
		for (size_t k = 0; k < s->topk;) {
			bool *at = &chosen[t * s->of + cad_random_below(random, s->of)];
			k += !*at;
			*at = true;
		}
	if (!rows_each && s->here < s->of)
		chosen[cad_random_below(random, s->here)] = true;
	for (size_t e = 0; e < l->count; e++) {
		r->begin[e] = (uint32_t)r->pairs;
		for (size_t t = 0; t < tokens && r->pairs < most; t++)
			if (rows_each || chosen[t * s->of + e])
				index[r->pairs++] = (uint32_t)t;
		r->touched += r->pairs > r->begin[e];
	}
	r->begin[l->count] = (uint32_t)r->pairs;
	r->bytes = r->pairs * sizeof *index;
	r->index = upload(l->queue, index, r->bytes);

	free(chosen);
	free(index);
	return r->index;
}

static void destroy_route(struct route *r, struct kn_queue *queue)
{
	queue->ops->release(queue->device, r->index, r->bytes);
	free(r->begin);
}

/* What calls compute on: x of `tokens` rows; y of `pairs`, or sums of `tokens`
 * rows, as an expert node takes them. */
struct rows {
	float *x, *y, *weight;
	int64_t *sums;
	uint32_t *poison;
	void *scratch;
	size_t tokens, ld, x_bytes, y_bytes, weight_bytes, sums_bytes, poison_bytes, scratch_bytes;
};

static bool make_rows(struct rows *r, const struct layer *l, size_t tokens, size_t pairs, bool sums)
{
	const struct kn_ops *ops = l->queue->ops;
	size_t hidden = l->shape->hidden, most = pairs > tokens ? pairs : tokens;
	struct cad_random random = { 7 };
	*r = (struct rows){
		.tokens = tokens,
		.ld = kn_ld(hidden),
		.x_bytes = tokens * kn_ld(hidden) * sizeof(float),
		.y_bytes = sums ? 0 : pairs * kn_ld(hidden) * sizeof(float),
		.weight_bytes = sums ? pairs * sizeof(float) : 0,
		.sums_bytes = sums ? tokens * hidden * sizeof(int64_t) : 0,
		.poison_bytes = sums ? tokens * sizeof(uint32_t) : 0,
		.scratch_bytes = ops->ffn_scratch_bytes(l->queue, most, hidden, l->shape->ffn, sums),
	};

	float *x = calloc(tokens * r->ld, sizeof *x), *weight = malloc(r->weight_bytes + 1);
	CAD_ASSERT(x && weight);
	for (size_t t = 0; t < tokens; t++)
		for (size_t i = 0; i < hidden; i++)
			x[t * r->ld + i] = (float)cad_random_unit(&random) * 2.0f - 1.0f;
	for (size_t p = 0; p < r->weight_bytes / sizeof *weight; p++)
		weight[p] = (float)cad_random_unit(&random);
	r->x = upload(l->queue, x, r->x_bytes);
	r->scratch = ops->alloc(l->queue->device, r->scratch_bytes);
	if (sums) {
		r->weight = upload(l->queue, weight, r->weight_bytes);
		r->sums = ops->alloc(l->queue->device, r->sums_bytes);
		r->poison = ops->alloc(l->queue->device, r->poison_bytes);
	} else {
		r->y = ops->alloc(l->queue->device, r->y_bytes);
	}
	free(weight);
	free(x);
	return r->x && r->scratch && (sums ? r->weight && r->sums && r->poison : r->y != NULL);
}

static void destroy_rows(struct rows *r, struct kn_queue *queue)
{
	const struct kn_ops *ops = queue->ops;
	ops->release(queue->device, r->x, r->x_bytes);
	ops->release(queue->device, r->y, r->y_bytes);
	ops->release(queue->device, r->weight, r->weight_bytes);
	ops->release(queue->device, r->sums, r->sums_bytes);
	ops->release(queue->device, r->poison, r->poison_bytes);
	ops->release(queue->device, r->scratch, r->scratch_bytes);
}

static void call(const struct layer *l, const struct rows *rows, const struct route *route)
{
	l->queue->ops->ffn(l->queue,
		&(struct kn_ffn){
			.experts = l->pointers,
			.experts_count = l->count,
			.begin = route->begin,
			.row_index = route->index,
			.x = rows->x,
			.ldx = rows->ld,
			.rows = rows->tokens,
			.hidden = l->shape->hidden,
			.y = rows->y,
			.ldy = rows->ld,
			.weight = rows->weight,
			.quantum = 0x1p-30f,
			.sums = rows->sums,
			.poison = rows->poison,
			.scratch = rows->scratch,
		});
}

/* ---- the same bits ---- */

/* What a call gives in which every row goes to all experts: y, or sums; NULL:
 * no room. */
static void *outputs(const struct layer *l, size_t tokens, bool sums, size_t *bytes)
{
	struct kn_queue *queue = l->queue;
	struct route route;
	struct rows rows;
	struct cad_random random = { 3 };
	void *out = NULL;

	bool room = make_route(&route, l, tokens, true, &random);
	room &= make_rows(&rows, l, tokens, route.pairs, sums);
	*bytes = sums ? rows.sums_bytes : rows.y_bytes;
	if (room) {
		out = malloc(*bytes);
		CAD_ASSERT(out);
		call(l, &rows, &route);
		queue->ops->copy_out(queue, out, sums ? (void *)rows.sums : rows.y, *bytes);
		CAD_ASSERT(queue->ops->wait(queue) == CAD_OK);
	}
	destroy_rows(&rows, queue);
	destroy_route(&route, queue);
	return out;
}

/* Returns whether they are the CPU's, and says so. */
static bool same_outputs(const struct layer *there, const struct layer *here, size_t tokens, bool sums)
{
	size_t bytes;
	void *expected = outputs(here, tokens, sums, &bytes), *out = outputs(there, tokens, sums, &bytes);
	bool equal = expected && out && memcmp(expected, out, bytes) == 0;
	printf("%s %-14s %4zu rows to each of %d experts%s: %s\n", equal ? "ok  " : "FAIL", there->shape->name, tokens,
		CHECK_EXPERTS, sums ? ", summed" : "",
		equal         ? "the bits of the CPU"
			: out ? "other bits than the CPU's"
			      : "no memory");
	free(expected);
	free(out);
	return equal;
}

/* Few rows, and enough for tiles of many. */
static bool same_bits(struct kn_queue *gpu, struct kn_queue *cpu, const struct shape *s, const struct weights *w)
{
	static const size_t tokens[] = { 1, 5, 17, 70 };
	struct layer there, here;
	bool same = make_layer(&there, gpu, s, w, CHECK_EXPERTS);
	if (!same) {
		printf("FAIL %-14s the GPU has no memory for %d experts\n", s->name, CHECK_EXPERTS);
		return false;
	}
	CAD_ASSERT(make_layer(&here, cpu, s, w, CHECK_EXPERTS));

	for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) {
		same &= same_outputs(&there, &here, tokens[i], false);
		same &= same_outputs(&there, &here, tokens[i], true);
	}
	destroy_layer(&here);
	destroy_layer(&there);
	return same;
}

/* ---- time ---- */

struct figures {
	double us, device_us; /* by the host's clock, and by the GPU's events; 0: it
                           has none */
	double pairs, touched;
};

/* Mean of a call over the routes, median over repeats. */
static bool time_calls(const struct layer *l, size_t tokens, bool rows_each, struct figures *f)
{
	struct cad_random random = { 11 };
	struct route routes[CALLS_MAX];
	struct rows rows = { 0 };
	const struct kn_ops *ops = l->queue->ops;
	size_t calls = 0, pairs = 0, wanted = 2;
	bool room = true;

	*f = (struct figures){ 0 };
	while (room && calls < wanted) {
		room = make_route(&routes[calls], l, tokens, rows_each, &random);
		const struct route *r = &routes[calls++];
		pairs = r->pairs > pairs ? r->pairs : pairs;
		f->pairs += (double)r->pairs;
		f->touched += (double)r->touched;
		if (calls == 1 && !o.quick) {
			wanted = L2_BYTES / (r->touched * l->experts[0].bytes) + 1;
			wanted = wanted < 2 ? 2 : wanted > CALLS_MAX ? CALLS_MAX : wanted;
		}
	}
	room = make_rows(&rows, l, tokens, pairs, true) && room;
	double us[REPEATS], device_us[REPEATS], stages[KN_STAGE_COUNT] = { 0 };
	for (size_t i = 0; room && i <= REPEATS; i++) { /* the first does not count */
		ops->times(l->queue, stages);
		memset(stages, 0, sizeof stages);
		uint64_t begin = cad_clock_now_ns(&cad_clock_system);
		for (size_t c = 0; c < calls; c++)
			call(l, &rows, &routes[c]);
		CAD_ASSERT(ops->wait(l->queue) == CAD_OK);
		double took_us = (double)(cad_clock_now_ns(&cad_clock_system) - begin) * 1e-3;
		ops->times(l->queue, stages);
		if (i > 0) {
			us[i - 1] = took_us / (double)calls;
			device_us[i - 1] = stages[KN_STAGE_FFN] * 1e6 / (double)calls;
		}
	}
	if (room) {
		f->us = report_median(us, REPEATS);
		f->device_us = report_median(device_us, REPEATS);
	}
	f->pairs /= (double)calls;
	f->touched /= (double)calls;

	destroy_rows(&rows, l->queue);
	for (size_t c = 0; c < calls; c++)
		destroy_route(&routes[c], l->queue);
	return room;
}

/* The ratio is of the GPU's own time, where it tells that. */
static void report(const struct layer *l, size_t tokens, bool rows_each, const struct figures *f,
	const struct bench_ceilings *best, FILE *csv)
{
	const struct shape *s = l->shape;
	double operations = f->pairs * 6 * (double)s->hidden * (double)s->ffn;
	double bytes = f->touched * (double)l->experts[0].bytes + (double)(tokens * s->hidden * (4 + 8));
	double read_us = bytes / best->read_gbs * 1e-3, compute_us = operations / best->int8_tops * 1e-6;
	double floor_us = read_us > compute_us ? read_us : compute_us, us = f->device_us > 0 ? f->device_us : f->us;
	const char *bound = read_us > compute_us ? "read" : "int8";

	printf("%-14s %6zu%s %9.1f %7.1f %10.1f %10.1f %10.1f %-5s %6.2f %8.0f\n", s->name, tokens,
		rows_each ? " each" : "     ", f->pairs, f->touched, f->us, f->device_us, floor_us, bound,
		floor_us / us, operations / us * 1e-6);
	fflush(stdout);
	if (csv)
		fprintf(csv, "%s,%zu,%s,%.1f,%.1f,cadre,int8,%.2f,%.2f,%.2f,%s,%.3f\n", s->name, tokens,
			rows_each ? "each" : "routed", f->pairs, f->touched, us, f->us, floor_us, bound, floor_us / us);
}

static void time_shape(struct kn_queue *queue, const struct shape *s, const struct weights *w,
	const struct bench_ceilings *best, FILE *csv)
{
	const size_t *tokens = o.quick ? tokens_of_small : tokens_of_models;
	struct layer l;
	if (!make_layer(&l, queue, s, w, s->here)) {
		printf("%-14s left out: the GPU has no memory for %zu experts\n", s->name, s->here);
		return;
	}
	for (bool rows_each = false; !rows_each; tokens++) {
		struct figures f;
		rows_each = *tokens == 0;
		size_t count = !rows_each ? *tokens : o.quick ? 20 : 4096;
		if (time_calls(&l, count, rows_each, &f))
			report(&l, count, rows_each, &f, best, csv);
		else
			printf("%-14s %6zu left out: the GPU has no memory for it\n", s->name, count);
	}
	destroy_layer(&l);
}

/* ---- ceilings ---- */

static bool measure_ceilings(struct bench_ceilings *best)
{
	char path[PATH_MAX] = "";
	ssize_t length = readlink("/proc/self/exe", path, sizeof path - 64);
	CAD_ASSERT(length > 0);
	path[length] = '\0';
	snprintf(strrchr(path, '/'), 64, "/libcadre-ceilings-%s.so", o.device.kind == KN_DEVICE_EMU ? "emu" : "cuda");

	void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	bench_ceilings_fn *measure = library ? (bench_ceilings_fn *)dlsym(library, BENCH_CEILINGS_SYMBOL) : NULL;
	const char *wrong = measure ? measure(o.device.index, o.quick, best) : dlerror();
	if (wrong)
		fprintf(stderr, "what the GPU gives at best cannot be measured: %s\n", wrong);
	return !wrong;
}

/* "NVIDIA H200" as part of a file's name: nvidia-h200 */
static FILE *open_csv(const char *name, const char *chip, const char *columns)
{
	char path[PATH_MAX];
	int used = snprintf(path, sizeof path - 4, "%s/%s-", o.csv, name);
	CAD_ASSERT(used > 0 && (size_t)used < sizeof path - 4);
	char *to = path + used;
	for (; *chip && to < path + sizeof path - 5; chip++)
		if (isalnum((unsigned char)*chip))
			*to++ = (char)tolower((unsigned char)*chip);
		else if (to[-1] != '-')
			*to++ = '-';
	strcpy(to, ".csv");
	FILE *csv = fopen(path, "w");
	if (csv)
		fprintf(csv, "%s\n", columns);
	else
		fprintf(stderr, "%s cannot be written: does the folder exist?\n", path);
	return csv;
}

/* ---- all of it ---- */

/* Ends the program where there is none: a GPU that is there and cannot be used is a failure. */
static struct kn_queue *open_queue(const struct kn_device_options *options, unsigned threads)
{
	struct kn_device *device;
	struct kn_queue *queue;
	struct cad_error error;
	enum cad_status status = kn_device_open(options, &device, &error);
	if (status != CAD_OK) {
		printf("%s: %s\n", status == CAD_ERR_NOT_FOUND ? "skipped" : "FAIL", error.text);
		exit(status == CAD_ERR_NOT_FOUND ? SKIPPED : 1);
	}
	CAD_ASSERT(cad_workers_create(kn_threads_default(), &device->workers, &error) == CAD_OK);
	CAD_ASSERT(device->ops->queue_create(device, threads, &queue) == CAD_OK);
	return queue;
}

static void close_queue(struct kn_queue *queue)
{
	struct kn_device *device = queue->device;
	device->ops->queue_destroy(queue);
	cad_workers_destroy(device->workers);
	device->ops->destroy(device);
}

/* Every shape's bits, then its times. Returns whether all is well. */
static bool walk(struct kn_queue *gpu, struct kn_queue *cpu, const struct bench_ceilings *best, FILE *csv)
{
	const struct shape *shapes = o.quick ? small : models;
	size_t count = o.quick ? sizeof small / sizeof *small : sizeof models / sizeof *models;
	bool good = true;

	for (const struct shape *s = shapes; s < shapes + count; s++) {
		if (o.shape && !strstr(s->name, o.shape))
			continue;
		struct weights w = make_weights(s);
		good &= same_bits(gpu, cpu, s, &w);
		if (best) {
			printf("%-14s %11s %9s %7s %10s %10s %10s %-5s %6s %8s\n", "model", "tokens     ", "pairs",
				"experts", "host us", "device us", "floor us", "bound", "ratio", "TOP/s");
			time_shape(gpu, s, &w, best, csv);
		}
		free(w.bf16);
	}
	return good;
}

int main(int argc, char **argv)
{
	struct bench_ceilings best = { 0 };
	struct kn_device_info info;
	FILE *csv = NULL;
	argp_parse(&(struct argp){ option_table, parse_option, NULL,
			   "Experts on a GPU: the CPU's bits, and time beside "
			   "what the GPU gives at best.",
			   NULL, NULL, NULL },
		argc, argv, 0, NULL, NULL);

	struct kn_queue *gpu = open_queue(&o.device, 1),
			*cpu = open_queue(&(struct kn_device_options){ 0 }, kn_threads_default());
	gpu->ops->describe(gpu->device, &info);
	printf("%s: %s\n", info.name, info.chip);
	if (!o.check_only) {
		if (!measure_ceilings(&best))
			return 1;
		printf("at best: %.0f GB/s read, %.1f TOP/s of int8 by %s\n", best.read_gbs, best.int8_tops,
			best.int8_by);
	}
	if (o.csv && !o.check_only) {
		FILE *ceilings = open_csv("gpu-ceilings", info.chip, "what,value,unit");
		csv = open_csv("gpu", info.chip,
			"model,tokens,rows,pairs,experts,kernel,numbers,us,host_us,"
			"floor_us,bound,ratio");
		if (!csv || !ceilings)
			return 1;
		fprintf(ceilings, "read,%.1f,GB/s\nint8 by %s,%.1f,TOP/s\n", best.read_gbs, best.int8_by,
			best.int8_tops);
		if (!report_close(ceilings))
			return 1;
	}

	bool good = walk(gpu, cpu, o.check_only ? NULL : &best, csv);
	close_queue(gpu);
	close_queue(cpu);
	return report_close(csv) && good ? 0 : 1;
}
