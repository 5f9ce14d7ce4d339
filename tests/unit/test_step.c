/* SPDX-License-Identifier: Apache-2.0 */
/* The step by itself, over a dense golden model and the late device: which rows get logits, how
 * often host and device meet, and what happens when the device fails; then a whole cluster whose
 * device fails at its n-th wait. */
#include "kernels/cpu/cpu.h"
#include "common/transport/local.h"
#include "router-svc/step.h"
#include "tests/support/engines.h"
#include "tests/support/late_device.h"
#include "tests/support/must.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { ROWS_MAX = 160, SLOTS = 2, TOKENS = 150 };

struct fixture {
	struct kn_device *device;
	struct kn_queue *queue;
	struct cad_model *model;
	const struct cad_model_spec *spec;
	struct rt_kv_cache cache;
	struct rt_step step;
	struct rt_batch batch;
	struct rt_sequence *sequence;
	float *logits; /* [TOKENS][V], of the positions that were wanted */
	uint32_t calls, rows;
};

static void on_logits(void *context, const struct rt_batch *batch, const uint32_t *rows, uint32_t count,
	const float *logits, size_t ld)
{
	struct fixture *f = context;
	assert_true(count >= 1 && count <= RT_HEAD_ROWS);
	for (uint32_t i = 0; i < count; i++) {
		size_t position = (size_t)batch->positions[rows[i]];
		memcpy(f->logits + position * f->spec->vocab, logits + i * ld, f->spec->vocab * sizeof *logits);
	}
	f->calls++;
	f->rows += count;
}

static void begin(struct fixture *f, uint32_t micro_batches)
{
	struct kn_device *cpu;
	struct cad_error error;
	int32_t prompt[TOKENS];

	*f = (struct fixture){ 0 };
	must(kn_cpu_open(KN_ISA_AUTO, &cpu, &error), &error);
	assert_int_equal(late_device_create(cpu, &f->device), CAD_OK);
	assert_int_equal(f->device->ops->queue_create(f->device, 1, &f->queue), CAD_OK);
	must(cad_model_open(CADRE_SOURCE_DIR "/tests/golden/llama-a/model", &f->model, &error), &error);
	f->spec = cad_model_spec(f->model);
	must(rt_kv_cache_init(
		     &f->cache, f->device, f->queue, f->spec, CAD_KV_F32, 4 << 20, SLOTS, f->spec->context_max, &error),
		&error);
	struct rt_step_options options = {
		.model = f->model,
		.device = f->device,
		.queue = f->queue,
		.cache = &f->cache,
		.rows_max = ROWS_MAX,
		.micro_batches = micro_batches,
		.clock = &cad_clock_system,
	};
	must(rt_step_init(&f->step, &options, &error), &error);
	assert_int_equal(rt_batch_init(&f->batch, ROWS_MAX, 1), CAD_OK);

	for (uint32_t i = 0; i < TOKENS; i++)
		prompt[i] = (int32_t)(i * 37 % f->spec->vocab);
	f->sequence = rt_sequence_create(&(struct rt_request){ .prompt = prompt, .prompt_count = TOKENS }, TOKENS);
	assert_non_null(f->sequence);
	assert_true(rt_kv_slot_acquire(&f->cache, &f->sequence->kv));
	f->logits = calloc((size_t)TOKENS * f->spec->vocab, sizeof *f->logits);
	assert_non_null(f->logits);
}

static void end(struct fixture *f)
{
	rt_kv_release(&f->cache, &f->sequence->kv);
	rt_sequence_destroy(f->sequence);
	rt_batch_fini(&f->batch);
	rt_step_fini(&f->step);
	rt_kv_cache_fini(&f->cache);
	f->queue->ops->queue_destroy(f->queue);
	f->device->ops->destroy(f->device);
	cad_model_close(f->model);
	free(f->logits);
}

/* The next `rows` positions of the sequence; logits are wanted of every `each`-th (0: of none). */
static enum cad_status run(struct fixture *f, uint32_t rows, uint32_t each)
{
	struct rt_sequence *s = f->sequence;
	struct rt_batch *b = &f->batch;
	bool wants[ROWS_MAX];

	assert_true(rt_kv_grow(&f->cache, &s->kv, s->computed + rows));
	b->rows = rows;
	b->spans_count = 1;
	b->spans[0] = (struct rt_span){ .sequence = s, .rows = rows };
	for (uint32_t r = 0; r < rows; r++) {
		uint32_t position = s->computed + r;
		b->row_span[r] = &b->spans[0];
		b->ids[r] = s->tokens[position];
		b->positions[r] = (int32_t)position;
		b->slots[r] = s->kv.slot;
		wants[r] = each > 0 && position % each == 0;
	}

	enum cad_status status = rt_step_run(&f->step, b, wants, on_logits, f);
	if (status == CAD_OK)
		s->computed += rows;
	return status;
}

static struct late_counts counts_of(struct fixture *f, uint32_t rows, uint32_t each)
{
	struct late_counts before = late_device_counts(f->device);
	assert_int_equal(run(f, rows, each), CAD_OK);
	struct late_counts after = late_device_counts(f->device);
	return (struct late_counts){
		.copies_in = after.copies_in - before.copies_in,
		.copies_out = after.copies_out - before.copies_out,
		.operators = after.operators - before.operators,
		.waits = after.waits - before.waits,
	};
}

static void rows_that_are_wanted_get_their_logits(void **state)
{
	(void)state;
	struct fixture whole, parts;

	begin(&whole, 1);
	assert_int_equal(run(&whole, TOKENS, 1), CAD_OK);
	assert_int_equal(whole.rows, TOKENS);
	assert_int_equal(whole.calls, (TOKENS + RT_HEAD_ROWS - 1) / RT_HEAD_ROWS);

	for (uint32_t micro_batches = 1; micro_batches <= RT_MICRO_BATCHES_MAX; micro_batches++) {
		size_t row = whole.spec->vocab;
		begin(&parts, micro_batches);
		while (parts.sequence->computed < TOKENS) {
			uint32_t left = TOKENS - parts.sequence->computed;
			assert_int_equal(run(&parts, left < 35 ? left : 35, 3), CAD_OK);
		}
		assert_int_equal(parts.rows, TOKENS / 3);
		for (size_t p = 0; p < TOKENS; p++)
			for (size_t i = 0; p % 3 == 0 && i < row; i++)
				assert_true(parts.logits[p * row + i] == whole.logits[p * row + i]);
		end(&parts);
	}
	end(&whole);
}

/* Host and device meet as step.h says, whatever the number of rows and layers. */
static void one_copy_in_and_a_wait_for_each_block_of_logits(void **state)
{
	(void)state;
	struct fixture f;
	begin(&f, 2);

	struct late_counts none = counts_of(&f, 10, 0); /* a page is new: its id goes in, too */
	assert_int_equal(none.copies_in, 2);
	assert_int_equal(none.copies_out, 0);
	assert_int_equal(none.waits, 1);
	assert_int_equal(f.sequence->kv.uploaded, 1);

	struct late_counts one = counts_of(&f, 10, 10); /* in the same page */
	assert_int_equal(one.copies_in, 1);
	assert_int_equal(one.copies_out, 0);
	assert_int_equal(one.waits, 2);
	assert_int_equal(one.operators, none.operators + 2); /* norm and LM head */

	struct late_counts all = counts_of(&f, 130, 1);
	assert_int_equal(f.sequence->kv.uploaded, 5);
	assert_int_equal(all.copies_in, 2);
	assert_int_equal(all.waits, 4);
	assert_int_equal(all.operators, none.operators + 3 * 2);
	end(&f);
}

static void a_window_hides_what_lies_before(void **state)
{
	(void)state;
	struct fixture f;
	begin(&f, 1);
	assert_int_equal(f.step.windows.count, 1);
	assert_int_equal(f.step.windows.keys[0], 0);
	assert_int_equal(run(&f, 20, 1), CAD_OK);
	struct rt_step_inputs in = rt_step_inputs_at(&f.step, f.step.host.inputs, 20);
	for (uint32_t r = 0; r < 20; r++) {
		assert_int_equal(in.begin[r], 0);
		assert_int_equal(in.end[r], r + 1);
	}

	f.step.windows.keys[0] = 5;
	assert_int_equal(run(&f, 20, 1), CAD_OK);
	for (uint32_t r = 0; r < 20; r++)
		assert_int_equal(in.begin[r], 20 + r + 1 - 5);
	end(&f);
}

/* Keys of the row's own chunk, from its first on; and a window may hide some of them. */
static void a_chunk_hides_the_chunks_before(void **state)
{
	(void)state;
	struct fixture f;
	begin(&f, 1);
	f.step.windows.chunk[0] = 8;
	assert_int_equal(run(&f, 20, 1), CAD_OK);
	struct rt_step_inputs in = rt_step_inputs_at(&f.step, f.step.host.inputs, 20);
	for (uint32_t r = 0; r < 20; r++)
		assert_int_equal(in.begin[r], r / 8 * 8);

	f.step.windows.keys[0] = 5;
	assert_int_equal(run(&f, 20, 1), CAD_OK);
	for (uint32_t r = 20; r < 40; r++)
		assert_int_equal(in.begin[r - 20], r % 8 >= 4 ? r + 1 - 5 : r / 8 * 8);
	end(&f);
}

static void a_failed_device_fails_the_step(void **state)
{
	(void)state;
	for (uint64_t waits = 0; waits < 3; waits++) {
		struct fixture f;
		begin(&f, 1);
		late_device_fail_after(f.device, waits);
		enum cad_status status = run(&f, TOKENS, 2); /* two blocks of logits, then the end */
		assert_int_equal(status, CAD_ERR_INTERNAL);
		assert_int_equal(f.calls, waits);
		end(&f);
	}
}

static void small_heads(const struct kn_device *device, struct kn_device_info *info)
{
	(void)device;
	*info = (struct kn_device_info){ .name = "small", .head_size_max = 8, .complete = true };
}

static void experts_only(const struct kn_device *device, struct kn_device_info *info)
{
	(void)device;
	*info = (struct kn_device_info){ .name = "experts" };
}

/* A router on the CPU, were it described so. */
static void expect_refusal(void (*describe)(const struct kn_device *, struct kn_device_info *), const char *text)
{
	struct kn_device *cpu;
	struct cad_model *model;
	struct cad_error error;
	must(kn_cpu_open(KN_ISA_AUTO, &cpu, &error), &error);
	must(cad_model_open(CADRE_SOURCE_DIR "/tests/golden/llama-a/model", &model, &error), &error);
	struct kn_ops ops = *cpu->ops;
	ops.describe = describe;
	const struct kn_ops *own = cpu->ops;
	cpu->ops = &ops;

	struct rt_step step;
	assert_int_equal(rt_step_init(&step, &(struct rt_step_options){ .model = model, .device = cpu }, &error),
		CAD_ERR_UNSUPPORTED);
	assert_non_null(strstr(error.text, text));
	rt_step_fini(&step);
	cpu->ops = own;
	own->destroy(cpu);
	cad_model_close(model);
}

static void devices_that_cannot_route_are_refused(void **state)
{
	(void)state;
	expect_refusal(small_heads, "device 'small' computes at most 8");
	expect_refusal(experts_only, "device 'experts' has the operators of an expert node only");
}

/* ---- a cluster on a device that fails ---- */

static enum cad_status local_transport(void *context, const struct cad_transport_options *options,
	struct cad_transport **transport, struct cad_error *error)
{
	return cad_transport_local_create(options, context, transport, error);
}

/* One request on a cluster in threads whose device fails after so many waits. */
static enum cad_status serve(uint64_t waits)
{
	struct te_cluster cluster;
	struct cad_local_hub *hub;
	static struct te_request request;

	assert_int_equal(cad_local_hub_create(&hub), CAD_OK);
	te_create(&cluster, CADRE_SOURCE_DIR "/tests/golden/mixtral-a/model", 2, 1, 3, true, &cad_clock_system,
		local_transport, hub);
	te_requests(&request, 1, cluster.spec->vocab, 8);
	late_device_fail_after(cluster.device, waits);
	te_submit(&cluster, 0, &request);
	for (int ms = 0; ms < 20000 && !te_all_ended(&request, 1); ms++)
		usleep(1000);
	assert_true(te_all_ended(&request, 1));
	te_destroy(&cluster);
	cad_local_hub_destroy(hub);

	return request.status;
}

/* At whichever wait it is, on the router or on a node, the request ends, and says so. */
static void a_failed_device_fails_requests_and_hangs_none(void **state)
{
	(void)state;
	assert_int_equal(setenv("CADRE_TEST_DEVICE", "late", 1), 0);
	uint64_t waits = 0;
	for (; waits < 24; waits++)
		assert_int_not_equal(serve(waits), CAD_OK);
	assert_int_equal(serve(1 << 20), CAD_OK);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rows_that_are_wanted_get_their_logits),
		cmocka_unit_test(one_copy_in_and_a_wait_for_each_block_of_logits),
		cmocka_unit_test(a_window_hides_what_lies_before),
		cmocka_unit_test(a_chunk_hides_the_chunks_before),
		cmocka_unit_test(a_failed_device_fails_the_step),
		cmocka_unit_test(devices_that_cannot_route_are_refused),
		cmocka_unit_test(a_failed_device_fails_requests_and_hangs_none),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
