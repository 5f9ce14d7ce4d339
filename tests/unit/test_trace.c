/* SPDX-License-Identifier: Apache-2.0 */
/* Traces in three formats: what is written is read back; what is damaged, cut short or made up is
 * answered with a sentence that names file and place. */
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/model/safetensors.h"
#include "orchestration/planner/trace/csv.h"
#include "orchestration/planner/trace/json.h"
#include "orchestration/planner/trace/own.h"
#include "orchestration/planner/trace/read.h"
#include "tests/support/failing_alloc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void must(enum cad_status status, const struct cad_error *error)
{
	if (status != CAD_OK)
		print_error("%s\n", error->text);
	assert_int_equal(status, CAD_OK);
}

/* Random cells: some slots without an expert, at the end. */
static struct pl_trace *make_trace(
	uint64_t seed, uint32_t layers, uint32_t experts, uint32_t k, uint64_t tokens, bool scores)
{
	struct cad_random random = { seed };
	struct pl_trace *trace;
	struct cad_error error;

	must(pl_trace_create(layers, experts, k, tokens, scores, &trace, &error), &error);
	must(pl_trace_set_names(trace, "a model", "test_trace, \"quoted\"", &error), &error);
	for (uint32_t layer = 0; layer < layers; layer++)
		trace->layer[layer] = 3 + 2 * layer;
	for (uint64_t token = 0; token < tokens; token++) {
		trace->request[token] = token ? trace->request[token - 1] + (cad_random_below(&random, 4) == 0) : 0;
		for (uint32_t layer = 0; layer < layers; layer++) {
			uint32_t first = (uint32_t)cad_random_below(&random, experts),
				 count = cad_random_below(&random, 8) ? k : (uint32_t)cad_random_below(&random, k + 1);
			for (uint32_t i = 0; i < count && i < experts; i++)
				pl_trace_cell(trace, layer, token)[i] =
					(uint16_t)((first + i * (experts > 7 * k ? 7 : 1)) % experts);
			for (uint32_t i = 0; scores && i < k; i++)
				trace->scores[((uint64_t)layer * tokens + token) * k + i] =
					(float)cad_random_unit(&random);
		}
	}

	return trace;
}

static void assert_same(const struct pl_trace *a, const struct pl_trace *b)
{
	size_t cells = (size_t)a->layers * a->tokens * a->k;
	assert_int_equal(a->layers, b->layers);
	assert_int_equal(a->k, b->k);
	assert_int_equal(a->tokens, b->tokens);
	assert_memory_equal(a->ids, b->ids, cells * sizeof *a->ids);
	assert_memory_equal(a->request, b->request, a->tokens * sizeof *a->request);
	assert_memory_equal(a->layer, b->layer, a->layers * sizeof *a->layer);
}

struct text {
	char *bytes;
	size_t size;
};

static struct text print(const struct pl_trace *trace, enum pl_trace_format format)
{
	struct text text = { 0 };
	struct cad_error error;
	FILE *stream = open_memstream(&text.bytes, &text.size);

	assert_non_null(stream);
	if (format == PL_TRACE_CSV)
		pl_trace_print_csv(trace, stream);
	if (format == PL_TRACE_JSON)
		pl_trace_print_json(trace, stream);
	if (format == PL_TRACE_OWN) {
		struct pl_trace_writer *writer;
		must(pl_trace_writer_create(stream, trace, &writer, &error), &error);
		must(pl_trace_writer_add(writer, trace, false, &error), &error);
		must(pl_trace_writer_finish(writer, &error), &error);
		pl_trace_writer_destroy(writer);
	}

	assert_int_equal(fclose(stream), 0);
	return text;
}

static void round_trips(void **state)
{
	static const struct {
		uint32_t layers, experts, k;
		uint64_t tokens;
	} shapes[] = {
		{ 1, 1, 1, 1 },
		{ 1, 2, 1, 1 },
		{ 2, 8, 2, 2 },
		{ 3, 255, 8, 100 },
		{ 1, 256, 8, PL_TRACE_BLOCK_TOKENS_MAX - 1 },
		{ 2, 257, 4, PL_TRACE_BLOCK_TOKENS_MAX },
		{ 1, 65535, 32, PL_TRACE_BLOCK_TOKENS_MAX + 1 },
		{ PL_TRACE_LAYERS_MAX, 64, 16, 25 },
	};
	(void)state;
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
		for (int scores = 0; scores < 2; scores++) {
			struct pl_trace *trace = make_trace(
				i + 1, shapes[i].layers, shapes[i].experts, shapes[i].k, shapes[i].tokens, scores);
			if (scores)
				trace->layer[trace->layers - 1] = UINT32_MAX; /* as high as a layer's name goes */
			for (enum pl_trace_format format = PL_TRACE_OWN; format <= PL_TRACE_JSON; format++) {
				struct pl_trace *again;
				struct cad_error error;
				struct text text = print(trace, format);
				struct pl_trace_source source = {
					.experts = format == PL_TRACE_OWN ? 0 : shapes[i].experts,
				};
				must(pl_trace_parse("it", text.bytes, text.size, &source, &again, &error), &error);
				assert_same(trace, again);
				assert_int_equal(again->experts, trace->experts);
				if (format == PL_TRACE_OWN) {
					assert_string_equal(again->model, trace->model);
					assert_string_equal(again->provenance, trace->provenance);
					assert_true(!again->scores == !scores);
					if (scores)
						assert_memory_equal(again->scores, trace->scores,
							(size_t)trace->layers * trace->tokens * trace->k *
								sizeof *trace->scores);
				}
				pl_trace_free(again);
				free(text.bytes);
			}
			pl_trace_free(trace);
		}
	}
}

/* Every place where the file can end, and every bit that can turn over, is noticed. */
static void damaged_own_format(void **state)
{
	struct pl_trace *trace = make_trace(5, 2, 16, 3, 40, false), *again;
	struct text text = print(trace, PL_TRACE_OWN);
	struct cad_error error;

	(void)state;

	for (size_t size = 1; size < text.size; size++) {
		struct pl_trace_source source = { .format = PL_TRACE_OWN };
		assert_int_equal(pl_trace_parse("cut.ctr", text.bytes, size, &source, &again, &error), CAD_ERR_CORRUPT);
		assert_ptr_equal(strstr(error.text, "cut.ctr: the file ends at byte"), error.text);
	}

	for (size_t bit = 0; bit < text.size * 8; bit++) {
		text.bytes[bit / 8] = (char)(text.bytes[bit / 8] ^ 1 << bit % 8);
		assert_int_equal(
			pl_trace_parse("turned.ctr", text.bytes, text.size, NULL, &again, &error), CAD_ERR_CORRUPT);
		assert_ptr_equal(strstr(error.text, "turned.ctr: "), error.text);
		text.bytes[bit / 8] = (char)(text.bytes[bit / 8] ^ 1 << bit % 8);
	}

	text.bytes = realloc(text.bytes, text.size + 1);
	assert_non_null(text.bytes);
	text.bytes[text.size] = 0;
	assert_int_equal(pl_trace_parse("long.ctr", text.bytes, text.size + 1, NULL, &again, &error), CAD_ERR_CORRUPT);
	assert_non_null(strstr(error.text, "bytes follow it"));
	free(text.bytes);
	pl_trace_free(trace);
}

/* Files that say something else than a trace may: their sums are right. */
static void hostile_own_format(void **state)
{
	struct cad_error error;
	struct pl_trace *again;

	(void)state;

	for (int what = 0; what < 5; what++) {
		static const char *const sentences[] = { "token 7, layer 5: expert 12, but there are 12",
			"token 7, layer 5: expert 3 is selected twice", "token 7 is of request 90, after",
			"token 7, layer 5: an expert after an empty slot", "the header's layers do not ascend: 5, 5" };
		struct pl_trace *trace = make_trace(6, 2, 12, 3, 40, false);
		uint16_t *cell = pl_trace_cell(trace, 1, 7);
		memcpy(cell, (uint16_t[]){ 3, 4, 5 }, 6);
		if (what == 0)
			cell[1] = 12;
		if (what == 1)
			cell[1] = 3;
		if (what == 2)
			trace->request[7] = 90;
		if (what == 3)
			cell[1] = PL_TRACE_NONE;
		if (what == 4)
			trace->layer[0] = 5;
		struct text text = print(trace, PL_TRACE_OWN);
		assert_int_equal(
			pl_trace_parse("odd.ctr", text.bytes, text.size, NULL, &again, &error), CAD_ERR_CORRUPT);
		if (!strstr(error.text, sentences[what]))
			print_error("%s\n", error.text);
		assert_non_null(strstr(error.text, sentences[what]));
		free(text.bytes);
		pl_trace_free(trace);
	}
}

static void too_big(void **state)
{
	struct pl_trace *trace = make_trace(7, 2, 16, 3, 100, false), *again;
	struct cad_error error;

	(void)state;

	for (enum pl_trace_format format = PL_TRACE_OWN; format <= PL_TRACE_JSON; format++) {
		struct text text = print(trace, format);
		struct pl_trace_source source = { .cells_max = 99 * 6 };
		assert_int_equal(
			pl_trace_parse("big", text.bytes, text.size, &source, &again, &error), CAD_ERR_EXHAUSTED);
		assert_non_null(strstr(error.text, "more than 99 tokens"));
		source.cells_max = 100 * 6;
		must(pl_trace_parse("big", text.bytes, text.size, &source, &again, &error), &error);
		pl_trace_free(again);
		free(text.bytes);
	}

	pl_trace_free(trace);
}

#define HEAD "request,position,layer,e0,e1\n"
#define ANSWER(more) \
	"{\"usage\": {\"prompt_tokens\": 1}, \"routing\": [{\"position\": 0, \"layers\": [" \
	"{\"layer\": 3, \"experts\": [1]}, {\"layer\": 5, \"experts\": [2, 0]}]}" more "]}"
#define ANSWER_5 \
	"{\"text\": \"t\", \"routing\": [{\"position\": 4, \"layers\": [{\"layer\": 3, \"experts\": [5], " \
	"\"weights\": [0.5], \"nodes\": [\"a\"]}, {\"layer\": 5, \"experts\": [2, 4]}]}]}"
#define STEP "[{\"0\": null, \"1\": [[1, 2]], \"3\": [[3, 4]]}"

/* Texts that are refused, and a part of the sentence. */
static void hostile_text(void **state)
{
	static const struct {
		const char *text, *sentence;
	} cases[] = {
		{ "", "x is empty" },
		{ "hello", "line 1: 'hello' where 'request,position,layer,e0,...'" },
		{ "request,position,layer\n", "line 1: it ends where ',e0' should be" },
		{ "request,position,layer,e1\n", "where ',e0' should be" },
		{ "request,position,layer,e0,e2\n", "where ',e1' should be" },
		{ HEAD, "line 2: there are no rows" },
		{ HEAD "\n\r\n\n", "there are no rows" },
		{ HEAD "a,0,0,1,2\n", "line 2: 'a' where the number of a request" },
		{ HEAD "0,0,0,1\n", "line 2: it ends where ',' and an expert should be" },
		{ HEAD "0,0,0,1,2,3\n", "where the end of the line should be" },
		{ HEAD "0,0,0,1,65535\n", "the number of an expert" },
		{ HEAD "0,0,0,1,-2\n", "line 2: '-2' where the number of an expert" },
		{ HEAD "0,0,0,1,99999999999999999999999\n", "the number of an expert" },
		{ HEAD "0,0,0,4,4\n", "line 2: expert 4 is selected twice" },
		{ HEAD "0,0,4294967296,4,5\n", "a layer should be" },
		{ HEAD "0,0,0,1,2\n0,0,1,1,2\n0,1,0,1,2\n", "line 5: it ends where the number of a request" },
		{ HEAD "0,0,0,1,2\n0,0,1,1,2\n0,1,0,1,2\n0,1,2,1,2\n",
			"line 5: layer 2 of request 0, position 1, where layer 1 of request 0, position 1 should be" },
		{ HEAD "0,0,0,1,2\n0,0,1,1,2\n0,1,0,1,2\n1,1,1,1,2\n", "line 5: layer 1 of request 1" },
		{ "[", "byte 0, request 0: not JSON" },
		{ "7", "line 1: '7' where" },
		{ "{", "byte 0, answer 0: not JSON" },
		{ "{}", "answer 0: it has no routing: generate with --routing" },
		{ "{\"routing\": 7}", "answer 0: it is not what 'cadrectl generate --routing -o json' writes" },
		{ ANSWER("") "[7]", "answer 1: it is not what" },
		{ "{\"routing\": [{\"layers\": []}]}", "the first token has 0 layers" },
		{ "{\"routing\": [{\"layers\": [{\"layer\": -1, \"experts\": [1]}]}]}", "do not ascend" },
		{ "{\"routing\": [{\"layers\": [{\"layer\": 3, \"experts\": []}]}]}", "0 experts per token" },
		{ ANSWER(", {\"position\": 3, \"layers\": [{\"layer\": 3, \"experts\": [1]}]}"),
			"routing[1]: it has 1 layers, but the first token has 2" },
		{ ANSWER(", {\"layers\": [{\"layer\": 3, \"experts\": [1]}, {\"layer\": 4, \"experts\": [1]}]}"),
			"routing[1]: its layers are not those of the first token" },
		{ ANSWER(", {\"layers\": [{\"layer\": 3, \"experts\": [1]}, {\"layer\": 5, \"experts\": 1}]}"),
			"routing[1]: layer 5: its experts are not a list of at most 2" },
		{ ANSWER(", {\"layers\": [{\"layer\": 3, \"experts\": [1]}, {\"layer\": 5, \"experts\": [65535]}]}"),
			"routing[1]: layer 5: an expert is not a number from 0 to 65534" },
		{ ANSWER(", {\"layers\": [{\"layer\": 3, \"experts\": [1]}, {\"layer\": 5, \"experts\": [2, 2]}]}"),
			"routing[1]: layer 5: expert 2 is selected twice" },
		{ "[]", "there are no tokens in 1 requests" },
		{ "[7]", "request 0: step 0: it is not an object of layers" },
		{ "[{}]\n[{\"0\": null}]", "there are no tokens in 2 requests" },
		{ "[{\"x\": [[1]]}]", "'x' where the index of a layer" },
		{ "[{\"1\": [[1]], \"01\": [[1]]}]", "layer 1 occurs twice" },
		{ "[{\"1\": [[]]}]", "0 experts per token" },
		{ "[{\"1\": [[1.5]]}]", "step 0: layer 1, token 0: an expert is not a number" },
		{ "[{\"1\": [[1], 2]}]", "step 0: layer 1, token 1: it is not a list" },
		{ "[{\"1\": [[70000]]}]", "an expert is not a number from 0 to 65534" },
		{ "[{\"1\": [[1, 1]]}]", "expert 1 is selected twice" },
		{ STEP ", {\"1\": [[1, 2]]}]", "step 1: layer 3 has 0 tokens, but layer 1 has 1" },
		{ STEP ", {\"1\": [[1, 2]], \"3\": [[1, 2], [1, 2]]}]", "step 1: layer 3 has 2 tokens" },
		{ STEP ", {\"1\": [[1, 2]], \"3\": [[1, 2, 3]]}]",
			"step 1: layer 3, token 0: it is not a list of at most 2 experts" },
		{ STEP "]\n[{\"1\": [[1, 2]], \"3\": [[1, 2]], \"4\": [[1, 2]]}]",
			"request 1: step 0: it has layers that the first request does not have" },
		{ STEP "]x", "byte 43, request 1: not JSON" },
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct pl_trace *trace;
		struct cad_error error = { 0 };
		assert_int_equal(pl_trace_parse("x", cases[i].text, strlen(cases[i].text), NULL, &trace, &error),
			CAD_ERR_CORRUPT);
		if (!strstr(error.text, cases[i].sentence))
			print_error("'%s': %s\n", cases[i].text, error.text);
		assert_non_null(strstr(error.text, cases[i].sentence));
	}
}

static void lenient_text(void **state)
{
	static const char *const texts[] = {
		"\xef\xbb\xbf" HEAD "7,0,3,1,-1\n7,0,5,2,0\n9,4,3,,5\n9,4,5,2,4",
		"request,position,layer,e0,e1\r\n\r\n7,0,3,1,-1\r\n7,0,5,2,0\r\n9,4,3,-1,5\r\n9,4,5,2,4\r\n\r\n",
		ANSWER("") "\n" ANSWER_5,
		" [{\"5\": [[2, 0]], \"3\": [[1]], \"4\": null}]\n\n[{}, {\"3\": [[5, -1]], \"5\": [[2, 4]]}]  ",
	};
	(void)state;
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		struct pl_trace *trace;
		struct cad_error error = { 0 };
		must(pl_trace_parse("x", texts[i], strlen(texts[i]), NULL, &trace, &error), &error);
		assert_int_equal(trace->layers, 2);
		assert_int_equal(trace->layer[0], 3);
		assert_int_equal(trace->layer[1], 5);
		assert_int_equal(trace->tokens, 2);
		assert_int_equal(trace->experts, 6);
		assert_int_equal(trace->request[1], 1);
		assert_memory_equal(pl_trace_row(trace, 0, 0), ((uint16_t[]){ 1, PL_TRACE_NONE }), 4);
		assert_memory_equal(pl_trace_row(trace, 1, 0), ((uint16_t[]){ 2, 0 }), 4);
		assert_memory_equal(pl_trace_row(trace, 0, 1), ((uint16_t[]){ 5, PL_TRACE_NONE }), 4);
		assert_memory_equal(pl_trace_row(trace, 1, 1), ((uint16_t[]){ 2, 4 }), 4);
		pl_trace_free(trace);
	}
}

static void phases_of_json(void **state)
{
	static const char text[] = "[{\"0\": [[1], [2], [3]]}, {\"0\": [[4]]}, {\"0\": [[5]]}]";
	static const uint64_t tokens[] = {
		[PL_TRACE_PHASE_ALL] = 5, [PL_TRACE_PHASE_PREFILL] = 3, [PL_TRACE_PHASE_DECODE] = 2
	};
	static const uint16_t first[] = {
		[PL_TRACE_PHASE_ALL] = 1, [PL_TRACE_PHASE_PREFILL] = 1, [PL_TRACE_PHASE_DECODE] = 4
	};

	(void)state;

	for (enum pl_trace_phase phase = PL_TRACE_PHASE_ALL; phase <= PL_TRACE_PHASE_DECODE; phase++) {
		struct pl_trace_source source = { .phase = phase };
		struct pl_trace *trace;
		struct cad_error error;
		must(pl_trace_parse("x", text, sizeof text - 1, &source, &trace, &error), &error);
		assert_int_equal(trace->tokens, tokens[phase]);
		assert_int_equal(trace->ids[0], first[phase]);
		pl_trace_free(trace);
	}
}

/* A prompt of two tokens, of which an answer has the routing, and a token that was generated. */
static void phases_of_answers(void **state)
{
	static const char text[] = "{\"usage\": {\"prompt_tokens\": 2}, \"routing\": ["
				   "{\"position\": 0, \"layers\": [{\"layer\": 0, \"experts\": [1]}]}, "
				   "{\"position\": 1, \"layers\": [{\"layer\": 0, \"experts\": [2]}]}, "
				   "{\"position\": 2, \"layers\": [{\"layer\": 0, \"experts\": [3]}]}]}";
	static const struct {
		uint64_t tokens;
		uint16_t first;
	} expected[] = {
		[PL_TRACE_PHASE_ALL] = { 3, 1 }, [PL_TRACE_PHASE_PREFILL] = { 2, 1 }, [PL_TRACE_PHASE_DECODE] = { 1, 3 }
	};

	(void)state;

	for (enum pl_trace_phase phase = PL_TRACE_PHASE_ALL; phase <= PL_TRACE_PHASE_DECODE; phase++) {
		struct pl_trace_source source = { .phase = phase };
		struct pl_trace *trace;
		struct cad_error error;
		must(pl_trace_parse("x", text, sizeof text - 1, &source, &trace, &error), &error);
		assert_int_equal(trace->tokens, expected[phase].tokens);
		assert_int_equal(trace->ids[0], expected[phase].first);
		pl_trace_free(trace);
	}
}

static void splits_and_joins(void **state)
{
	struct cad_error error;
	(void)state;

	for (uint64_t seed = 1; seed <= 20; seed++) {
		struct pl_trace *trace = make_trace(seed, 2, 16, 3, 50, seed % 2), *parts[2], *whole;
		if (pl_trace_requests(trace) > 1) {
			must(pl_trace_split(trace, (double)seed / 20, &parts[0], &parts[1], &error), &error);
			assert_true(parts[0]->tokens > 0 && parts[1]->tokens > 0);
			assert_int_not_equal(trace->request[parts[0]->tokens], trace->request[parts[0]->tokens - 1]);
			assert_int_equal(parts[1]->request[0], 0);
			must(pl_trace_join(parts, 2, &whole, &error), &error);
			assert_same(trace, whole);
			if (trace->scores)
				assert_memory_equal(whole->scores, trace->scores,
					(size_t)trace->layers * trace->tokens * trace->k * sizeof *trace->scores);
			pl_trace_free(whole);
			pl_trace_free(parts[0]);
			must(pl_trace_split(trace, (double)seed / 20, NULL, &parts[0], &error), &error);
			assert_same(parts[0], parts[1]);
			pl_trace_free(parts[0]);
			pl_trace_free(parts[1]);
		}
		pl_trace_free(trace);
	}

	struct pl_trace *one = make_trace(1, 1, 4, 1, 1, false), *other = make_trace(1, 2, 4, 1, 1, false), *none;
	assert_int_equal(pl_trace_split(one, 0.5, &none, NULL, &error), CAD_ERR_INVALID);
	assert_non_null(strstr(error.text, "only one request"));
	assert_int_equal(pl_trace_join((struct pl_trace *[]){ one, other }, 2, &none, &error), CAD_ERR_INVALID);
	assert_int_equal(pl_trace_join(NULL, 0, &none, &error), CAD_ERR_INVALID);
	pl_trace_free(one);
	pl_trace_free(other);
}

/* Two adds with and without a request that goes on, and files. */
static void writers(void **state)
{
	char path[] = "/tmp/test_trace_XXXXXX";
	struct pl_trace *part = make_trace(3, 2, 16, 3, 30, false), *again;
	struct cad_error error;
	struct pl_trace_writer *writer;
	uint32_t requests = pl_trace_requests(part);

	(void)state;
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	FILE *stream = fdopen(fd, "wb");
	assert_non_null(stream);
	must(pl_trace_writer_create(stream, part, &writer, &error), &error);
	assert_int_equal(pl_trace_writer_finish(writer, &error), CAD_ERR_INVALID);
	must(pl_trace_writer_add(writer, part, false, &error), &error);
	must(pl_trace_writer_add(writer, part, true, &error), &error);
	must(pl_trace_writer_add(writer, part, false, &error), &error);
	must(pl_trace_writer_finish(writer, &error), &error);
	pl_trace_writer_destroy(writer);
	fclose(stream);
	must(pl_trace_read(path, &again, &error), &error);
	assert_int_equal(again->tokens, 90);
	assert_int_equal(pl_trace_requests(again), 3 * requests - 1);
	pl_trace_free(again);
	must(pl_trace_write(path, part, &error), &error);
	must(pl_trace_read(path, &again, &error), &error);
	assert_same(part, again);
	pl_trace_free(again);
	pl_trace_free(part);
	unlink(path);
	assert_int_equal(pl_trace_read(path, &again, &error), CAD_ERR_NOT_FOUND);
	assert_non_null(strstr(error.text, path));
	assert_int_equal(pl_trace_read("/tmp", &again, &error), CAD_ERR_IO);
}

static void shapes_out_of_range(void **state)
{
	struct pl_trace *trace;
	struct cad_error error;

	(void)state;
	assert_int_equal(pl_trace_create(0, 1, 1, 1, false, &trace, &error), CAD_ERR_RANGE);
	assert_int_equal(pl_trace_create(PL_TRACE_LAYERS_MAX + 1, 1, 1, 1, false, &trace, &error), CAD_ERR_RANGE);
	assert_int_equal(pl_trace_create(1, 0, 1, 1, false, &trace, &error), CAD_ERR_RANGE);
	assert_int_equal(pl_trace_create(1, PL_TRACE_EXPERTS_MAX + 1, 1, 1, false, &trace, &error), CAD_ERR_RANGE);
	assert_int_equal(pl_trace_create(1, 1, 0, 1, false, &trace, &error), CAD_ERR_RANGE);
	assert_int_equal(pl_trace_create(1, 1, PL_TRACE_TOPK_MAX + 1, 1, false, &trace, &error), CAD_ERR_RANGE);
	assert_int_equal(pl_trace_create(1, 1, 1, 0, false, &trace, &error), CAD_ERR_RANGE);
	assert_int_equal(pl_trace_create(1024, 1, 32, UINT32_MAX, false, &trace, &error), CAD_ERR_RANGE);
}

static void no_memory(void **state)
{
	(void)state;
	if (!test_allocations_can_fail())
		skip();
	struct pl_trace *trace = make_trace(9, 2, 16, 3, 20, true);
	for (enum pl_trace_format format = PL_TRACE_OWN; format <= PL_TRACE_JSON; format++) {
		struct text text = print(trace, format);
		long live = test_allocations_live();
		for (long n = 0;; n++) {
			struct pl_trace *again = NULL;
			struct cad_error error;
			test_fail_allocation(n);
			enum cad_status status = pl_trace_parse("x", text.bytes, text.size, NULL, &again, &error);
			bool failed = test_fail_allocation_end();
			if (status == CAD_OK)
				pl_trace_free(again);
			assert_int_equal(test_allocations_live(), live);
			if (!failed) {
				assert_int_equal(status, CAD_OK);
				break;
			}
			assert_true(status == CAD_ERR_MEMORY || status == CAD_ERR_CORRUPT);
		}
		free(text.bytes);
	}

	pl_trace_free(trace);
}

/* A write that fails leaves the file that was there, and nothing beside it. */
static void no_memory_to_write(void **state)
{
	char folder[] = "/tmp/test_trace_XXXXXX", path[64];
	struct cad_error error;

	(void)state;
	if (!test_allocations_can_fail())
		skip();
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof path, "%s/t.ctr", folder);
	struct pl_trace *old = make_trace(1, 1, 4, 1, 3, false), *trace = make_trace(9, 2, 16, 3, 20, true), *again;
	must(pl_trace_write(path, old, &error), &error);

	for (long n = 0;; n++) {
		long live = test_allocations_live();
		test_fail_allocation(n);
		enum cad_status status = pl_trace_write(path, trace, &error);
		bool failed = test_fail_allocation_end();
		assert_int_equal(test_allocations_live(), live);
		if (!failed) {
			assert_int_equal(status, CAD_OK);
			break;
		}
		must(pl_trace_read(path, &again, &error), &error);
		assert_same(status == CAD_OK ? trace : old, again); /* stdio does without its buffer */
		pl_trace_free(again);
		must(pl_trace_write(path, old, &error), &error);
	}

	pl_trace_free(old);
	pl_trace_free(trace);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(rmdir(folder), 0);
}

/* Two sequences, of 2 and 1 tokens, of 2 layers: experts ascend in the file, weights say in which
 * order they were selected. */
struct eval_output {
	int32_t experts[2][8];
	float weights[2][8], logits[2][20];
	uint64_t k, experts_count, second_k;
};

static char *write_eval(const struct eval_output *output, size_t *size)
{
	char path[] = "/tmp/test_trace_XXXXXX", *bytes, names[6][24];
	struct cad_tensor tensors[6];
	struct cad_error error;
	size_t count = 0;

	for (uint64_t i = 0; i < 2; i++) {
		uint64_t tokens = 2 - i, k = i ? output->second_k : output->k;
		const struct {
			const char *name;
			const void *data;
			enum cad_dtype dtype;
			uint64_t last;
		} list[] = { { "experts", output->experts[i], CAD_DTYPE_I32, k },
			{ "expert_weights", output->weights[i], CAD_DTYPE_F32, k },
			{ "router_logits", output->logits[i], CAD_DTYPE_F32, output->experts_count } };
		for (int t = 0; t < 3; t++, count++) {
			snprintf(names[count], sizeof names[count], "%s.%d", list[t].name, (int)i);
			tensors[count] = (struct cad_tensor){
				.data = list[t].data,
				.dtype = list[t].dtype,
				.rank = 3,
				.shape = { 2, tokens, list[t].last },
				.bytes = 2 * tokens * list[t].last * 4,
				.name = names[count],
			};
		}
	}

	int fd = mkstemp(path);
	assert_true(fd >= 0);
	close(fd);
	must(cad_safetensors_write(path, tensors, count, &error), &error);
	must(cad_file_read(path, 1 << 20, &bytes, size, &error), &error);
	unlink(path);

	return bytes;
}

static void output_of_eval(void **state)
{
	static const struct eval_output good = {
		.experts = { { 0, 3, 1, 2, 0, 4, 3, 4 }, { 1, 2, 0, 1 } },
		.weights = { { .2f, .8f, .6f, .4f, .5f, .5f, .1f, .9f }, { .7f, .3f, .4f, .6f } },
		.k = 2,
		.experts_count = 5,
		.second_k = 2,
	};

	/* [tokens][k] of each layer */
	static const uint16_t first[] = { 3, 0, 1, 2, 1, 2 }, second[] = { 0, 4, 4, 3, 1, 0 };
	struct pl_trace *trace;
	struct cad_error error;
	size_t size;

	(void)state;
	char *bytes = write_eval(&good, &size);
	must(pl_trace_parse("it", bytes, size, NULL, &trace, &error), &error);
	assert_true(trace->layers == 2 && trace->experts == 5 && trace->k == 2 && trace->tokens == 3);
	assert_memory_equal(pl_trace_row(trace, 0, 0), first, sizeof first);
	assert_memory_equal(pl_trace_row(trace, 1, 0), second, sizeof second);
	assert_memory_equal(trace->request, ((uint32_t[]){ 0, 0, 1 }), 12);
	assert_true(trace->scores[0] == .8f && trace->scores[1] == .2f);
	pl_trace_free(trace);

	for (size_t cut = 1; cut < size; cut++)
		assert_int_not_equal(pl_trace_parse("cut", bytes, cut,
					     &(struct pl_trace_source){
						     .format = PL_TRACE_EVAL,
					     },
					     &trace, &error),
			CAD_OK);
	free(bytes);

	for (int what = 0; what < 4; what++) {
		static const char *const sentences[] = { "experts.0, layer 0, token 1: expert 5, but there are 5",
			"expert -1", "experts.0, layer 0, token 0: expert 0 is selected twice",
			"router_logits.1 do not fit" };
		struct eval_output bad = good;
		bad.experts[0][3] = what == 0 ? 5 : what == 1 ? -1 : 2;
		bad.experts[0][1] = what == 2 ? 0 : 3;
		bad.second_k = what == 3 ? 1 : 2;
		bytes = write_eval(&bad, &size);
		assert_int_equal(pl_trace_parse("bad", bytes, size, NULL, &trace, &error), CAD_ERR_CORRUPT);
		if (!strstr(error.text, sentences[what]))
			print_error("%s\n", error.text);
		assert_non_null(strstr(error.text, sentences[what]));
		free(bytes);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trips),
		cmocka_unit_test(damaged_own_format),
		cmocka_unit_test(hostile_own_format),
		cmocka_unit_test(too_big),
		cmocka_unit_test(hostile_text),
		cmocka_unit_test(lenient_text),
		cmocka_unit_test(phases_of_json),
		cmocka_unit_test(phases_of_answers),
		cmocka_unit_test(splits_and_joins),
		cmocka_unit_test(writers),
		cmocka_unit_test(shapes_out_of_range),
		cmocka_unit_test(no_memory),
		cmocka_unit_test(no_memory_to_write),
		cmocka_unit_test(output_of_eval),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
