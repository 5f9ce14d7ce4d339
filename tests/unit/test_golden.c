/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole models against what transformers computed for them in float32 (tests/golden), through the
 * embedded engine: router and experts as in a cluster, without the network. With f32 rows the
 * difference is float32 noise; with fix16, the default, it is far below what a bf16 run of
 * transformers itself differs by. And the same bits come out of any chunking, number of threads,
 * spread over nodes and instruction set. One line of figures a case, so that a log shows how near
 * it was.
 *
 * `test_golden CASE`: one folder of tests/golden; ctest runs each by itself.
 */
#include "common/base/log.h"
#include "common/model/model.h"
#include "common/model/safetensors.h"
#include "orchestration/cli/evaluation.h"
#include "tests/support/must.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define GOLDEN CADRE_SOURCE_DIR "/tests/golden/"

enum { LONG_SEQUENCE = 4 };   /* the one whose error in bf16 case.json tells */
static const char *case_name; /* of the case */

/* What a config.json may ask for besides, in models as small as can be. */
static const struct {
	const char *name;
	uint32_t layers;
} forms[] = {
	{ "forms/dynamic-mlp-bias", 2 },
	{ "forms/yarn-beyond-positions", 2 },
	{ "forms/longrope", 2 },
	{ "forms/llama3-equal-factors", 2 },
	{ "forms/linear-partial-odd", 2 },
	{ "forms/default-partial", 2 },
	{ "forms/scaling-beside-parameters", 2 },
	{ "forms/proportional", 2 },
	{ "forms/nested-version4", 2 },
	{ "forms/nested-version5", 2 },
	{ "forms/flexolmo", 3 },
	{ "forms/kolibri1", 3 },
	{ "forms/flint", 3 },
	{ "forms/dots1", 3 },
	{ "forms/solaropen", 3 },
	{ "forms/exaonemoe", 3 },
	{ "forms/hyv3", 3 },
	{ "forms/hunyuanv1moe", 3 },
};
enum { FORMS = sizeof forms / sizeof forms[0] };

/* Relative to the largest expected value. f32: what float32 sums in another order come to is about
 * 3e-6. fix16: rows with 16 bits. */
static const double tolerance_f32 = 1e-4, tolerance_fix16 = 1e-3;
/* And with fix16 the largest error of a logit is below this part of that of transformers' own bf16
 * run. */
static const double part_of_bf16 = 0.1;

/* Other settings, and how far they may move logits, by rms. Where products have int8, half a step of
 * 1/127 of a group's largest value is rounded off, in rows and in weights: 1% of a typical product,
 * which becomes 4% to 5% over a few layers. In int4 weights are off by 9%, and so is a product,
 * which a random model does not get over. bf16: elements of rows and weights by at most 2^-9 of
 * themselves, which becomes 1% over a few layers; where scores of two experts are nearly equal, the
 * other one is chosen (8 of 198 times here), which moves such a token by up to 9%. kv bf16: an
 * element by 2^-9 of itself; kv int8: by up to 1/254 of the largest of its vector. */
static const struct {
	const char *what;
	double tolerance;
	bool in_router; /* they change what a dense model computes, too */
	struct cad_settings settings;
} ways[] = {
	{ "f32", 0, false, { .kv = CAD_KV_F32 } },
	{ "kv bf16", 0x1p-7, true, { .kv = CAD_KV_BF16 } },
	{ "kv int8", 0x1p-4, true, { .kv = CAD_KV_INT8 } },
	{ "bf16", 0x1p-5, true, { .profile = CAD_PROFILE_BF16, .router_profile = CAD_PROFILE_SAME } },
	{ "bf16-sm90", 0x1p-5, true, { .profile = CAD_PROFILE_BF16_SM90, .router_profile = CAD_PROFILE_SAME } },
	{ "int8", 0x1p-4, true, { .profile = CAD_PROFILE_INT8, .router_profile = CAD_PROFILE_SAME } },
	{ "int8, routers f32", 0x1p-4, false, { .profile = CAD_PROFILE_INT8 } },
	{ "f32, routers int8", 0x1p-4, true, { .router_profile = CAD_PROFILE_INT8 } },
	{ "int4", 0.5, true, { .profile = CAD_PROFILE_INT4, .router_profile = CAD_PROFILE_SAME } },
};
enum { WAYS = sizeof ways / sizeof ways[0] };

/* Sanitizers look at what code does, not at its bits, and take 5 to 20 times as long. There the
 * case mixtral-a gets every way and manner, which are all the paths there are, and the others two
 * threads in f32. ThreadSanitizer finds nothing where one thread computes: it gets the manners of
 * one thread in f32 alone. The release builds of both compilers compare everything. */
#if defined(__SANITIZE_THREAD__)
enum { SANITIZED = true, FOR_THREADS = true };
#elif defined(__SANITIZE_ADDRESS__)
enum { SANITIZED = true, FOR_THREADS = false };
#else
enum { SANITIZED = false, FOR_THREADS = false };
#endif

struct figures {
	double logits, router, weights; /* the largest differences */
	double long_sequence;           /* of a logit of that sequence, absolute */
	/* (token, layer) pairs; whose expert sets differ; and could have been either */
	size_t choices, differ, ties;
};

static bool is(const char *other) { return strcmp(case_name, other) == 0; }

static struct cl_evaluation read_case(void)
{
	char path[256];
	struct cl_evaluation evaluation = { 0 };
	struct cad_error error;
	snprintf(path, sizeof path, GOLDEN "%s/input.json", case_name);
	must(cl_evaluation_read(path, &evaluation, &error), &error);
	return evaluation;
}

static void compute(struct cl_evaluation *evaluation, struct em_options options)
{
	char path[256];
	struct cad_error error;

	snprintf(path, sizeof path, GOLDEN "%s/model", case_name);
	options.model = path;
	if (options.router.kv_bytes == 0)
		options.router.kv_bytes = 16 << 20;
	if (cl_evaluation_run(evaluation, &options, &error) != CAD_OK)
		fail_msg("%s: %s", case_name, error.text);
}

/* The tensor "WHAT.INDEX", which must have this type and as many elements. */
static const void *expected_tensor(
	const struct cad_safetensors *file, const char *what, size_t index, enum cad_dtype dtype, size_t elements)
{
	char name[64];
	snprintf(name, sizeof name, "%s.%zu", what, index);
	struct cad_tensor tensor = cad_safetensors_find(file, name);
	if (!tensor.data)
		fail_msg("expected.safetensors has no tensor %s", name);
	assert_int_equal(tensor.dtype, dtype);
	assert_int_equal(tensor.bytes, elements * 4);
	return tensor.data;
}

/* The largest difference; and the largest expected value, unless `scale` is NULL. A value that is
 * no number is infinitely wrong. */
static double largest_difference(const float *got, const float *expected, size_t count, double *scale)
{
	double difference = 0, largest = 0;
	for (size_t i = 0; i < count; i++) {
		double d = fabs((double)got[i] - (double)expected[i]);
		difference = isfinite(got[i]) ? fmax(difference, d) : INFINITY;
		largest = fmax(largest, fabs((double)expected[i]));
	}
	if (scale)
		*scale = largest;
	return difference;
}

static bool holds(const int32_t *ids, uint32_t k, int32_t id)
{
	for (uint32_t i = 0; i < k; i++)
		if (ids[i] == id)
			return true;
	return false;
}

/* By what the experts of a token were chosen, in the reference; and the largest it may be. */
static double choice_scores(
	const struct cad_model *model, uint32_t moe_layer, const float *logits, uint32_t experts, double *choice)
{
	const struct cad_model_spec *spec = cad_model_spec(model);
	uint32_t layer = 0;
	double sum = 0, largest = 0;

	for (uint32_t seen = 0; !spec->layers[layer].moe || seen++ < moe_layer;)
		layer++;
	struct cad_tensor bias = cad_model_tensor(model, CAD_ROLE_SELECTION_BIAS, layer, 0);
	for (uint32_t e = 0; e < experts; e++)
		sum += exp((double)logits[e]);
	for (uint32_t e = 0; e < experts; e++) {
		choice[e] = (double)logits[e];
		largest = fmax(largest, fabs(choice[e]));
		if (!bias.data)
			continue;
		assert_int_equal(bias.dtype, CAD_DTYPE_F32);
		choice[e] = spec->gate.score == CAD_SCORE_SIGMOID ? 1 / (1 + exp(-choice[e])) : exp(choice[e]) / sum;
		choice[e] += (double)((const float *)bias.data)[e];
	}
	return bias.data ? 1 : largest;
}

/* How far apart the reference scored the experts that only one of the two chose. */
static double swapped_apart(const int32_t *got, const int32_t *expected, uint32_t k, const double *scores)
{
	double lowest = INFINITY, highest = -INFINITY;
	for (uint32_t i = 0; i < 2 * k; i++) {
		const int32_t id = i < k ? got[i] : expected[i - k];
		if (holds(i < k ? expected : got, k, id))
			continue;
		lowest = fmin(lowest, scores[id]);
		highest = fmax(highest, scores[id]);
	}
	return highest - lowest;
}

static int descending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x < y) - (x > y);
}

/* How far apart the reference scored the last group of experts that is kept and the first that is
 * not. */
static double groups_apart(const struct cad_gate_spec *gate, const double *scores)
{
	double values[CAD_EXPERTS_MAX], of_group[CAD_EXPERTS_MAX];
	size_t size = gate->experts / gate->groups;

	if (gate->groups_kept == gate->groups)
		return INFINITY;
	for (size_t g = 0; g < gate->groups; g++) {
		memcpy(of_group, scores + g * size, size * sizeof *of_group);
		qsort(of_group, size, sizeof *of_group, descending);
		values[g] = of_group[0] + (gate->group_score == CAD_GROUP_SCORE_TOP2 ? of_group[1] : 0);
	}
	qsort(values, gate->groups, sizeof *values, descending);
	return values[gate->groups_kept - 1] - values[gate->groups_kept];
}

struct routing {
	const float *logits;
	const int32_t *ids;
	const float *weights;
};

/* The first token of a sequence for which two experts could be taken, and the other one was: from
 * there on, it is another computation. */
static uint32_t first_tie(const struct cad_model *model, const struct cl_evaluation *evaluation,
	const struct cl_sequence *s, const struct routing *expected, double tolerance, struct figures *figures)
{
	const uint32_t k = evaluation->topk, experts = evaluation->experts;
	double choice[CAD_EXPERTS_MAX];

	for (uint32_t token = 0; token < s->count; token++)
		for (uint32_t layer = 0; layer < evaluation->layers; layer++) {
			size_t row = (size_t)layer * s->count + token;
			const int32_t *got = s->experts + row * k, *ids = expected->ids + row * k;
			figures->choices++;
			if (memcmp(got, ids, k * sizeof *got) == 0)
				continue;
			double scale = choice_scores(model, layer, expected->logits + row * experts, experts, choice);
			double apart = fmin(
				swapped_apart(got, ids, k, choice), groups_apart(&cad_model_spec(model)->gate, choice));
			if (apart < tolerance * scale) {
				figures->ties++;
				return token;
			}
			figures->differ++;
		}
	return s->count;
}

/* How many tokens of the sequence are to be compared. */
static uint32_t compare_routing(const struct cad_model *model, const struct cl_evaluation *evaluation, size_t index,
	const struct cad_safetensors *file, double tolerance, struct figures *figures)
{
	const struct cl_sequence *s = &evaluation->sequences[index];
	const uint32_t k = evaluation->topk, experts = evaluation->experts;
	const size_t rows = (size_t)evaluation->layers * s->count;
	const struct routing expected = {
		.logits = expected_tensor(file, "router_logits", index, CAD_DTYPE_F32, rows * experts),
		.ids = expected_tensor(file, "experts", index, CAD_DTYPE_I32, rows * k),
		.weights = expected_tensor(file, "expert_weights", index, CAD_DTYPE_F32, rows * k),
	};
	uint32_t same = first_tie(model, evaluation, s, &expected, tolerance, figures);

	for (uint32_t layer = 0; layer < evaluation->layers && same > 0; layer++) {
		double scale;
		size_t first = (size_t)layer * s->count;
		double difference = largest_difference(s->router_logits + first * experts,
			expected.logits + first * experts, (size_t)same * experts, &scale);
		figures->router = fmax(figures->router, difference / scale);
		figures->weights = fmax(figures->weights,
			largest_difference(
				s->weights + first * k, expected.weights + first * k, (size_t)same * k, NULL));
	}
	return same;
}

static struct figures compare(const struct cl_evaluation *evaluation, double tolerance)
{
	char path[256];
	struct cad_safetensors *file;
	struct cad_model *model;
	struct cad_error error;
	struct figures figures = { 0 };

	snprintf(path, sizeof path, GOLDEN "%s/model", case_name);
	must(cad_model_open(path, &model, &error), &error);
	snprintf(path, sizeof path, GOLDEN "%s/expected.safetensors", case_name);
	must(cad_safetensors_open(path, &file, &error), &error);
	for (size_t i = 0; i < evaluation->count; i++) {
		const struct cl_sequence *s = &evaluation->sequences[i];
		double scale;
		size_t logits = (size_t)s->count * evaluation->vocab;
		assert_memory_equal(s->tokens, expected_tensor(file, "tokens", i, CAD_DTYPE_I32, s->count),
			s->count * sizeof *s->tokens);
		uint32_t same = s->count;
		if (evaluation->layers > 0)
			same = compare_routing(model, evaluation, i, file, tolerance, &figures);
		double difference =
			largest_difference(s->logits, expected_tensor(file, "logits", i, CAD_DTYPE_F32, logits),
				(size_t)same * evaluation->vocab, &scale);
		figures.logits = fmax(figures.logits, difference / scale);
		if (i == LONG_SEQUENCE)
			figures.long_sequence = difference;
		assert_int_equal(s->greedy_count, evaluation->greedy_tokens);
		assert_memory_equal(s->greedy, expected_tensor(file, "greedy", i, CAD_DTYPE_I32, s->greedy_count),
			s->greedy_count * sizeof *s->greedy);
	}

	cad_safetensors_close(file);
	cad_model_close(model);
	return figures;
}

/* The largest error of transformers' own bf16 run. */
static double bf16_error(void)
{
	char path[256];
	snprintf(path, sizeof path, GOLDEN "%s/case.json", case_name);
	json_t *root = json_load_file(path, 0, NULL);
	assert_non_null(root);
	double error = json_real_value(
		json_object_get(json_object_get(root, "transformers_in_bf16_on_sequence_4"), "max_error"));
	json_decref(root);
	assert_true(error > 0);
	return error;
}

static void check(const char *wire, const struct figures *f, double tolerance)
{
	print_message(
		"%-10s %-5s logits %.1e  router %.1e  weights %.1e  experts differ in %zu of %zu (%zu ties)  bf16 is %.0f times as far\n",
		case_name, wire, f->logits, f->router, f->weights, f->differ, f->choices, f->ties,
		bf16_error() / f->long_sequence);
	assert_true(f->logits <= tolerance && f->router <= tolerance && f->weights <= tolerance);
	assert_int_equal(f->differ, 0);
	assert_true(f->ties * 500 <= f->choices); /* what follows one is not compared */
}

static void agrees_with_transformers(void **state)
{
	(void)state;
	if (FOR_THREADS)
		skip();

	struct cl_evaluation evaluation = read_case();
	assert_true(evaluation.count > LONG_SEQUENCE && evaluation.greedy_tokens > 0);
	compute(&evaluation, (struct em_options){ .threads = 1, .settings.wire = CADRE_ROW_F32 });
	struct figures figures = compare(&evaluation, tolerance_f32);
	check("f32", &figures, tolerance_f32);
	cl_evaluation_fini(&evaluation);
}

static void default_wire_is_nearer_than_bf16(void **state)
{
	(void)state;
	if (FOR_THREADS)
		skip();

	struct cl_evaluation evaluation = read_case();
	compute(&evaluation, (struct em_options){ .threads = 1 });
	struct figures figures = compare(&evaluation, tolerance_fix16);
	check("fix16", &figures, tolerance_fix16);
	assert_true(figures.long_sequence < part_of_bf16 * bf16_error());
	cl_evaluation_fini(&evaluation);
}

/* The rms of the differences, over the rms of what is expected. */
static double part_moved(const float *got, const float *expected, size_t count)
{
	double squares = 0, all = 0;
	for (size_t i = 0; i < count; i++) {
		squares += pow((double)got[i] - (double)expected[i], 2);
		all += pow((double)expected[i], 2);
	}
	return sqrt(squares / all);
}

/* Of a dense model and of a trained one: in a random one, whose experts score nearly alike, others
 * are chosen. */
static void other_ways_are_near(void **state)
{
	(void)state;
	if (FOR_THREADS || !(is("llama-a") || is("qwen3moe-demo")))
		skip();

	struct cl_evaluation plain = read_case();
	compute(&plain, (struct em_options){ .threads = 1 });
	const struct cl_sequence *p = &plain.sequences[LONG_SEQUENCE];
	for (size_t w = 0; w < WAYS; w++) {
		struct cl_evaluation other = read_case();
		compute(&other, (struct em_options){ .threads = 1, .settings = ways[w].settings });
		const struct cl_sequence *q = &other.sequences[LONG_SEQUENCE];
		double moved = part_moved(q->logits, p->logits, (size_t)p->count * plain.vocab);
		print_message("%-13s %-18s moves logits by %.4f\n", case_name, ways[w].what, moved);
		assert_true(moved <= ways[w].tolerance);
		assert_true(moved > 0 || !ways[w].in_router);
		cl_evaluation_fini(&other);
	}
	cl_evaluation_fini(&plain);
}

/* Of all sequences that `a` has. */
static void assert_same_bits(const struct cl_evaluation *a, const struct cl_evaluation *b)
{
	for (size_t i = 0; i < a->count; i++) {
		const struct cl_sequence *p = &a->sequences[i], *q = &b->sequences[i];
		size_t rows = (size_t)a->layers * p->count;
		assert_memory_equal(p->logits, q->logits, (size_t)p->count * a->vocab * sizeof *p->logits);
		assert_memory_equal(p->greedy, q->greedy, a->greedy_tokens * sizeof *p->greedy);
		assert_memory_equal(p->router_logits, q->router_logits, rows * a->experts * sizeof *p->router_logits);
		assert_memory_equal(p->experts, q->experts, rows * a->topk * sizeof *p->experts);
		assert_memory_equal(p->weights, q->weights, rows * a->topk * sizeof *p->weights);
	}
}

/* The f32 way is tried on every case, the others on random experts, on trained ones and on a dense
 * model. */
static bool is_left_out(size_t way, uint32_t threads)
{
	if (!SANITIZED)
		return way > 0 && !(is("mixtral-a") || is("qwen3moe-demo") || is("llama-a"));
	if (!is("mixtral-a"))
		return way > 0 || threads == 1;
	return FOR_THREADS && way > 0 && threads == 1;
}

static void same_bits_however_it_is_computed(void **state)
{
	(void)state;
	static const struct {
		const char *what;
		/* the reference is slow: it gets the first four, 52 tokens of prompt, one of them
		 * longer than a page of keys */
		size_t sequences;
		struct em_options options;
	} manners[] = {
		{ "chunks of 7", 6, { .threads = 1, .router = { .chunk_tokens_max = 7 } } },
		{ "two threads", 6, { .threads = 2 } },
		{ "steps of 16 rows in 2 parts", 6,
			{
				.threads = 1,
				.router = { .step_tokens_max = 16, .micro_batches = 2 },
			} },
		{ "four nodes, shuffled", 6, { .threads = 1, .nodes = 4, .placement_seed = 3 } },
		{ "the reference kernels", 4, { .threads = 1, .isa = KN_ISA_REF } },
	};
	for (size_t w = 0; w < WAYS; w++) {
		if (is_left_out(w, 2))
			continue;
		struct em_options options = { .threads = 1, .settings = ways[w].settings };
		struct cl_evaluation plain = read_case();
		compute(&plain, options);
		for (size_t m = 0; m < sizeof manners / sizeof manners[0]; m++) {
			if (is_left_out(w, manners[m].options.threads))
				continue;
			struct cl_evaluation other = read_case();
			const size_t all = other.count;
			options = manners[m].options;
			options.settings = ways[w].settings;
			other.count = manners[m].sequences;
			print_message("%-13s %s, same bits: %s\n", case_name, ways[w].what, manners[m].what);
			compute(&other, options);
			assert_same_bits(&other, &plain);
			other.count = all;
			cl_evaluation_fini(&other);
		}
		cl_evaluation_fini(&plain);
	}
}

/* The form of a rotation can hang on the length of a sequence, and so does not on how it was cut. */
static void forms_agree_with_transformers(void **state)
{
	(void)state;
	if (FOR_THREADS)
		skip();
	static const struct em_options manners[] = {
		{ .threads = 1, .router = { .chunk_tokens_max = 7 } },
		/* two at a time in seven pages: the younger gives way in the middle */
		{ .threads = 1, .router = { .sequences_max = 2, .kv_bytes = 7 * 2048 } }, /* of each layer */
		{ .threads = 1, .isa = KN_ISA_REF, .router = { .step_tokens_max = 16, .micro_batches = 2 } },
	};
	for (size_t i = 0; i < FORMS; i++) {
		case_name = forms[i].name;
		struct cl_evaluation plain = read_case();
		compute(&plain, (struct em_options){ .threads = 1, .settings.wire = CADRE_ROW_F32 });
		struct figures f = compare(&plain, tolerance_f32);
		print_message("%-32s logits %.1e  router %.1e  weights %.1e  experts differ in %zu of %zu\n", case_name,
			f.logits, f.router, f.weights, f.differ, f.choices);
		assert_true(f.logits <= tolerance_f32 && f.router <= tolerance_f32 && f.weights <= tolerance_f32);
		assert_int_equal(f.differ, 0);
		for (size_t m = 0; m < sizeof manners / sizeof manners[0]; m++) {
			struct cl_evaluation other = read_case();
			struct em_options options = manners[m];
			options.settings.wire = CADRE_ROW_F32;
			options.router.kv_bytes *= forms[i].layers;
			compute(&other, options);
			assert_same_bits(&other, &plain);
			cl_evaluation_fini(&other);
		}
		cl_evaluation_fini(&plain);
	}
}

/* The same of files: also in every way of computing, with the reference's kernels. */
static void files_agree_with_transformers(void **state)
{
	(void)state;
	if (FOR_THREADS)
		skip();
	static const char *const files[] = { "forms/qwen3moe-head10", "forms/mixtral-dtypes", "forms/llama-own-head",
		"forms/qwen3moe-fused" };
	for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
		case_name = files[i];
		struct cl_evaluation plain = read_case();
		compute(&plain, (struct em_options){ .threads = 1, .settings.wire = CADRE_ROW_F32 });
		struct figures f = compare(&plain, tolerance_f32);
		print_message("%-32s logits %.1e  router %.1e  weights %.1e  experts differ in %zu of %zu\n", case_name,
			f.logits, f.router, f.weights, f.differ, f.choices);
		assert_true(f.logits <= tolerance_f32 && f.router <= tolerance_f32 && f.weights <= tolerance_f32);
		assert_int_equal(f.differ, 0);
		cl_evaluation_fini(&plain);

		for (size_t w = 0; w < WAYS; w++) {
			struct cl_evaluation one = read_case(), two = read_case();
			compute(&one, (struct em_options){ .threads = 1, .settings = ways[w].settings });
			compute(&two,
				(struct em_options){
					.threads = 2,
					.nodes = 3,
					.isa = KN_ISA_REF,
					.settings = ways[w].settings,
				});
			assert_same_bits(&one, &two);
			cl_evaluation_fini(&one);
			cl_evaluation_fini(&two);
		}
	}
}

int main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: test_golden CASE, a folder of tests/golden\n");
		return 2;
	}
	case_name = argv[1];
	cad_log_setup(is("forms") ? CAD_LOG_ERROR : CAD_LOG_WARN, CAD_LOG_LOGFMT);
	if (is("forms")) {
		const struct CMUnitTest form_tests[] = {
			cmocka_unit_test(forms_agree_with_transformers),
			cmocka_unit_test(files_agree_with_transformers),
		};
		return cmocka_run_group_tests(form_tests, NULL, NULL);
	}
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(agrees_with_transformers),
		cmocka_unit_test(default_wire_is_nearer_than_bf16),
		cmocka_unit_test(other_ways_are_near),
		cmocka_unit_test(same_bits_however_it_is_computed),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
