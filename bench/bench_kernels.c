/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Speed of every operator case marked OP_BENCH (tests/support/op_cases.c), beside what the machine
 * itself can do.
 *
 *   floor = max(bytes / read bandwidth, operations / peak of the form's register width);  ratio =
 *   floor / time: 1 is the machine's limit
 *
 * The peak is that of f32 FMA, or of products of 8-bit integers where weights are quantised.
 *
 * Each of the repeats first reads a large buffer (that is the bandwidth probe, and it empties the
 * caches of weights), probes the peak, then times the operator. All figures are medians over
 * the repeats. Nothing is judged here: tests have no time limits.
 *
 * With --rows it times one linear layer in every form that runs here, by how its weights are kept
 * and by its rows: what tune.h says about the choice of an inner kernel by rows comes from this.
 */
#include "limits.h"
#include "report.h"

#include "common/base/clock.h"
#include "kernels/kernels.h"
#include "tests/support/op_cases.h"

#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { BUFFER_BYTES = 256 << 20, HUGE_PAGE_BYTES = 2 << 20, REPEATS_MAX = 101 };

struct options {
	const char *filter, *csv;
	enum kn_isa isa;
	unsigned threads, repeats;
	bool rows;
};

static const struct argp_option option_table[] = {
	{ "filter", 'f', "TEXT", 0, "only cases whose description contains TEXT", 0 },
	{ "isa", 'i', "NAME", 0, "only this form: ref, avx2, avxvnni, avx512, amx (default: avx2 and the best)", 0 },
	{ "threads", 't', "N", 0, "only N threads (default: 1, and as many as make sense here)", 0 },
	{ "repeats", 'r', "N", 0, "repeats of each timing, of which the median is reported (default 7)", 0 },
	{ "rows", 'R', NULL, 0, "only a linear layer: which form is fastest for how many rows", 0 },
	{ "csv", 'c', "DIR", 0, "also write DIR/kernels-MACHINE.csv", 0 },
	{ 0 },
};

static error_t parse_option(int key, char *value, struct argp_state *state)
{
	struct options *o = state->input;
	switch (key) {
	case 'f': o->filter = value; return 0;
	case 'c': o->csv = value; return 0;
	case 'R': o->rows = true; return 0;
	case 'i':
		if (kn_isa_parse(value, &o->isa) != CAD_OK)
			argp_error(state, "--isa '%s': use ref, avx2, avxvnni, avx512 or amx", value);
		return 0;
	case 't':
		o->threads = (unsigned)atoi(value);
		if (o->threads < 1 || o->threads > KN_THREADS_MAX)
			argp_error(state, "--threads '%s': use 1 to %d", value, KN_THREADS_MAX);
		return 0;
	case 'r':
		o->repeats = (unsigned)atoi(value);
		if (o->repeats < 1 || o->repeats > REPEATS_MAX)
			argp_error(state, "--repeats '%s': use 1 to %d", value, REPEATS_MAX);
		return 0;
	default: return ARGP_ERR_UNKNOWN;
	}
}

struct figures {
	double us, read_gbs, peak_gflops;
};

static struct figures measure(struct kn_queue *queue, struct kn_pool *pool, const char *form, const struct op_case *c,
	unsigned repeats, const uint8_t *buffer)
{
	double us[REPEATS_MAX], read[REPEATS_MAX], peak[REPEATS_MAX];
	enum limit arithmetic = limit_of_form(form, cad_weights_quantised(c->weights));
	struct op_state *state = c->kind->setup(queue, c, 1);

	c->kind->run(state, 0, state->rows);

	for (unsigned i = 0; i < repeats; i++) {
		read[i] = limit_probe(pool, LIMIT_READ, buffer, BUFFER_BYTES);
		peak[i] = limit_probe(pool, arithmetic, buffer, BUFFER_BYTES);
		uint64_t begin = cad_clock_now_ns(&cad_clock_system);
		c->kind->run(state, 0, state->rows);
		CAD_ASSERT(queue->ops->wait(queue) == CAD_OK);
		us[i] = (double)(cad_clock_now_ns(&cad_clock_system) - begin) * 1e-3;
	}

	c->kind->teardown(state);
	return (struct figures){ report_median(us, repeats), report_median(read, repeats),
		report_median(peak, repeats) };
}

static void report(const struct op_case *c, const char *form, unsigned threads, struct figures f, FILE *csv)
{
	char text[160];
	double flops = c->kind->flops(c), bytes = c->kind->bytes(c);
	double gflops = flops / f.us * 1e-3, gbs = bytes / f.us * 1e-3;
	double floor_us =
		bytes / f.read_gbs > flops / f.peak_gflops ? bytes / f.read_gbs * 1e-3 : flops / f.peak_gflops * 1e-3;

	op_case_text(c, text);
	printf("%-64s %-7s %3u %11.1f %9.1f %8.1f %8.1f %8.1f %7.2f\n", text, form, threads, f.us, gflops, gbs,
		f.peak_gflops, f.read_gbs, floor_us / f.us);
	fflush(stdout);
	if (csv)
		fprintf(csv, "%s,\"%s\",%s,%u,%.1f,%.2f,%.2f,%.2f,%.2f,%.3f\n", text, c->note ? c->note : "", form,
			threads, f.us, gflops, gbs, f.peak_gflops, f.read_gbs, floor_us / f.us);
}

static void bench_form(const struct options *o, enum kn_isa isa, unsigned threads, const uint8_t *buffer, FILE *csv)
{
	struct kn_device *device;
	struct kn_queue *queue;
	struct cad_error error;

	if (kn_device_open(&(struct kn_device_options){ .isa = isa }, &device, &error) != CAD_OK) {
		fprintf(stderr, "%s\n", error.text);
		return;
	}

	struct kn_pool *pool; /* of the probes: they have as many threads as the queue */
	struct kn_device_info info;
	device->ops->describe(device, &info);
	if (isa == KN_ISA_AUTO && strcmp(info.isa, "avx2") == 0)
		goto destroy_device; /* the best one here, and measured already */
	CAD_ASSERT(device->ops->queue_create(device, threads, &queue) == CAD_OK);
	CAD_ASSERT(kn_pool_create(threads, &pool) == CAD_OK);

	for (size_t i = 0; i < op_cases_count; i++) {
		const struct op_case *c = &op_cases[i];
		char text[160];
		if ((c->use & OP_BENCH) && (!o->filter || strstr(op_case_text(c, text), o->filter)))
			report(c, info.isa, threads, measure(queue, pool, info.isa, c, o->repeats, buffer), csv);
	}

	kn_pool_destroy(pool);
	device->ops->queue_destroy(queue);
destroy_device:
	device->ops->destroy(device);
}

/* ---- --rows ---- */

static const size_t compared_rows[] = { 1, 2, 3, 4, 6, 8, 9, 12, 16, 24, 32, 64 };
enum { COMPARED = sizeof compared_rows / sizeof *compared_rows };

/* Microseconds of a form at each of compared_rows, medians; false when it does not run here. */
static bool time_rows(const struct options *o, enum kn_isa isa, const struct op_case *c, struct kn_pool *pool,
	const uint8_t *buffer, double us[COMPARED])
{
	struct kn_device *device;
	struct kn_queue *queue;
	struct cad_error error;

	if (kn_device_open(&(struct kn_device_options){ .isa = isa }, &device, &error) != CAD_OK)
		return false;
	CAD_ASSERT(device->ops->queue_create(device, kn_pool_threads(pool), &queue) == CAD_OK);

	struct op_state *state = c->kind->setup(queue, c, 1);
	for (size_t i = 0; i < COMPARED; i++) {
		double values[REPEATS_MAX];
		for (unsigned r = 0; r < o->repeats; r++) {
			limit_probe(pool, LIMIT_READ, buffer, BUFFER_BYTES); /* empties the caches */
			uint64_t begin = cad_clock_now_ns(&cad_clock_system);
			c->kind->run(state, 0, compared_rows[i]);
			CAD_ASSERT(queue->ops->wait(queue) == CAD_OK);
			values[r] = (double)(cad_clock_now_ns(&cad_clock_system) - begin) * 1e-3;
		}
		us[i] = report_median(values, o->repeats);
	}

	c->kind->teardown(state);
	device->ops->queue_destroy(queue);
	device->ops->destroy(device);
	return true;
}

static void compare_forms(const struct options *o, unsigned threads, const uint8_t *buffer)
{
	static const enum kn_isa isas[] = { KN_ISA_AVX2, KN_ISA_AVXVNNI, KN_ISA_AVX512, KN_ISA_AMX };
	static const char *const names[] = { "avx2", "avxvnni", "avx512", "amx" };
	static const struct {
		const char *name;
		enum cad_dtype dtype;
		enum cad_weights weights;
	} kept[] = {
		{ "bf16", CAD_DTYPE_BF16, CAD_WEIGHTS_AS_IS },
		{ "f32", CAD_DTYPE_F32, CAD_WEIGHTS_AS_IS },
		{ "int8", CAD_DTYPE_BF16, CAD_WEIGHTS_INT8 },
		{ "int4", CAD_DTYPE_BF16, CAD_WEIGHTS_INT4 },
	};
	double us[sizeof isas / sizeof *isas][COMPARED];
	struct kn_pool *pool;
	CAD_ASSERT(kn_pool_create(threads, &pool) == CAD_OK);

	for (size_t w = 0; w < sizeof kept / sizeof *kept; w++) {
		struct op_case c = {
			.kind = &op_linear,
			.rows = compared_rows[COMPARED - 1],
			.n = 16384,
			.k = 2048,
			.dtype = kept[w].dtype,
			.weights = kept[w].weights,
		};
		bool runs[sizeof isas / sizeof *isas];
		printf("%-8s %4s", kept[w].name, "rows");
		for (size_t i = 0; i < sizeof isas / sizeof *isas; i++) {
			runs[i] = time_rows(o, isas[i], &c, pool, buffer, us[i]);
			if (runs[i])
				printf(" %10s", names[i]);
		}
		printf("  us, %u threads\n", threads);

		for (size_t r = 0; r < COMPARED; r++) {
			size_t best = 0;
			printf("%-8s %4zu", "", compared_rows[r]);
			for (size_t i = 0; i < sizeof isas / sizeof *isas; i++)
				if (runs[i]) {
					printf(" %10.1f", us[i][r]);
					best = us[i][r] < us[best][r] ? i : best;
				}
			printf("  %s\n", names[best]);
		}
	}

	kn_pool_destroy(pool);
}

int main(int argc, char **argv)
{
	struct options o = { .isa = KN_ISA_AUTO, .repeats = 7 };
	argp_parse(&(struct argp){ option_table, parse_option, NULL,
			   "Speed of the operators beside the machine's limits.", NULL, NULL, NULL },
		argc, argv, 0, NULL, &o);
	FILE *csv = o.csv
		? report_open(o.csv, "kernels", "case,note,form,threads,us,gflops,gbs,peak_gflops,read_gbs,ratio")
		: NULL;
	if (o.csv && !csv)
		return 1;
	uint8_t *buffer = aligned_alloc(HUGE_PAGE_BYTES, BUFFER_BYTES);
	CAD_ASSERT(buffer);
	madvise(buffer, BUFFER_BYTES, MADV_HUGEPAGE); /* as large weights lie */
	memset(buffer, 1, BUFFER_BYTES);
	if (o.rows) {
		compare_forms(&o, o.threads ? o.threads : kn_threads_default(), buffer);
		free(buffer);
		return 0;
	}

	printf("%-64s %-7s %3s %11s %9s %8s %8s %8s %7s\n", "case", "form", "thr", "us", "GFLOP/s", "GB/s", "peak",
		"read", "ratio");
	const enum kn_isa isas[] = { KN_ISA_AVX2, KN_ISA_AUTO };
	unsigned all = kn_threads_default();
	for (size_t i = 0; i < (o.isa == KN_ISA_AUTO ? 2 : 1); i++) {
		enum kn_isa isa = o.isa == KN_ISA_AUTO ? isas[i] : o.isa;
		if (o.threads == 0 && all > 1)
			bench_form(&o, isa, 1, buffer, csv);
		bench_form(&o, isa, o.threads ? o.threads : all, buffer, csv);
	}

	free(buffer);
	return report_close(csv) ? 0 : 1;
}
