/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/late_queue.h"

#include "tests/support/late_device.h"
#include "tests/support/late_memory.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* ---- what is queued ---- */

struct copy {
	void *to;
	const void *from;
	size_t bytes;
};

/* clang-format off */
#define OPERATORS(X) \
	X(embed) X(linear) X(linear_heads) X(rmsnorm) X(rope_table) X(rope) X(kv_write) X(attend) X(gate) X(ffn) X(add) X(scale_rows) \
	X(rows_pack) X(rows_unpack) X(combine_pack) X(combine_add) X(combine_finish)
/* clang-format on */

struct call {
	const char *name;
	void (*run)(struct kn_queue *inner, const struct call *call);
	union {
		struct copy copy;
#define X(name) struct kn_##name name;
		OPERATORS(X)
#undef X
	} a;
};

#define X(name) \
	static void run_##name(struct kn_queue *inner, const struct call *call) \
	{ \
		inner->ops->name(inner, &call->a.name); \
	}
OPERATORS(X)
#undef X

static void run_copy_in(struct kn_queue *inner, const struct call *call)
{
	inner->ops->copy_in(inner, call->a.copy.to, call->a.copy.from, call->a.copy.bytes);
}

static void run_copy_out(struct kn_queue *inner, const struct call *call)
{
	inner->ops->copy_out(inner, call->a.copy.to, call->a.copy.from, call->a.copy.bytes);
}

/* Host memory that a call reads (hash) or writes. */
struct range {
	const char *name;
	uint8_t *at;
	size_t bytes;
	bool written;
	uint64_t hash;
};

struct late_queue {
	struct kn_queue base;
	struct late_device *device;
	struct kn_queue *inner;
	struct call *calls;
	struct range *ranges;
	size_t calls_count, calls_room, ranges_count, ranges_room;
	bool failed;
};

/* Room for one more; a test program without memory ends. */
static void *grown(void *array, size_t count, size_t *room, size_t element)
{
	if (count < *room)
		return array;
	*room = *room > 0 ? 2 * *room : 64;
	array = realloc(array, *room * element);
	CAD_ASSERT(array);
	return array;
}

static struct call *call_add(
	struct late_queue *q, const char *name, void (*run)(struct kn_queue *inner, const struct call *call))
{
	q->calls = grown(q->calls, q->calls_count, &q->calls_room, sizeof *q->calls);
	struct call *call = &q->calls[q->calls_count++];
	call->name = name;
	call->run = run;
	return call;
}

static struct range *range_add(struct late_queue *q, const char *name, const void *at, size_t bytes)
{
	q->ranges = grown(q->ranges, q->ranges_count, &q->ranges_room, sizeof *q->ranges);
	struct range *range = &q->ranges[q->ranges_count++];
	*range = (struct range){ .name = name, .at = (uint8_t *)(uintptr_t)at, .bytes = bytes };
	return range;
}

static void reads(struct late_queue *q, const char *name, const void *at, size_t bytes)
{
	if (bytes == 0)
		return;
	if (late_is_shown(q->device, at))
		late_breach(name, "device memory stands where host memory is due");
	struct range *range = range_add(q, name, at, bytes);
	range->hash = XXH3_64bits(at, bytes);
}

static uint8_t pattern_at(const uint8_t *at) { return (uint8_t)((uint32_t)LATE_PATTERN >> 8 * ((uintptr_t)at & 3)); }

static void writes(struct late_queue *q, const char *name, void *at, size_t bytes)
{
	if (bytes == 0)
		return;
	if (late_is_shown(q->device, at))
		late_breach(name, "device memory stands where host memory is due");
	struct range *range = range_add(q, name, at, bytes);
	range->written = true;
	for (size_t i = 0; i < bytes; i++)
		range->at[i] = pattern_at(range->at + i);
}

static void range_check(const struct range *range)
{
	if (!range->written) {
		if (XXH3_64bits(range->at, range->bytes) != range->hash)
			late_breach(range->name, "host memory that it reads changed before wait");
		return;
	}
	for (size_t i = 0; i < range->bytes; i++)
		if (range->at[i] != pattern_at(range->at + i))
			late_breach(range->name, "host memory that it writes was touched before wait");
}

/* ---- queues ---- */

static struct late_queue *queue_of(struct kn_queue *queue) { return (struct late_queue *)queue; }

static enum cad_status late_queue_create(struct kn_device *device, unsigned threads, struct kn_queue **queue)
{
	struct late_device *d = late_of(device);
	struct late_queue *q = calloc(1, sizeof *q);
	if (!q)
		return CAD_ERR_MEMORY;

	q->base = (struct kn_queue){ device->ops, device };
	q->device = d;
	enum cad_status status = d->inner->ops->queue_create(d->inner, threads, &q->inner);
	if (status != CAD_OK) {
		free(q);
		return status;
	}
	*queue = &q->base;
	return CAD_OK;
}

static void late_queue_destroy(struct kn_queue *queue)
{
	struct late_queue *q = queue_of(queue);
	if (q->calls_count > 0)
		late_breach(q->calls[0].name, "the queue is destroyed, and nobody has waited for it");
	q->inner->ops->queue_destroy(q->inner);
	free(q->calls);
	free(q->ranges);
	free(q);
}

static enum cad_status late_wait(struct kn_queue *queue)
{
	struct late_queue *q = queue_of(queue);
	struct late_device *d = q->device;
	enum cad_status status = CAD_OK;

	atomic_fetch_add(&d->waits, 1);
	for (size_t i = 0; i < q->ranges_count; i++)
		range_check(&q->ranges[i]);
	if (atomic_fetch_sub(&d->waits_left, 1) <= 0)
		q->failed = true;
	for (size_t i = 0; i < q->calls_count && !q->failed; i++)
		q->calls[i].run(q->inner, &q->calls[i]);
	if (!q->failed)
		status = q->inner->ops->wait(q->inner);
	q->calls_count = q->ranges_count = 0;

	return q->failed ? CAD_ERR_INTERNAL : status;
}

static void late_copy_in(struct kn_queue *queue, void *device_memory, const void *host, size_t bytes)
{
	struct late_queue *q = queue_of(queue);
	struct call *call = call_add(q, "copy_in", run_copy_in);
	call->a.copy = (struct copy){ late_real_of(q->device, "copy_in", device_memory), host, bytes };
	reads(q, "copy_in", host, bytes);
	atomic_fetch_add(&q->device->copies_in, 1);
}

static void late_copy_out(struct kn_queue *queue, void *host, const void *device_memory, size_t bytes)
{
	struct late_queue *q = queue_of(queue);
	struct call *call = call_add(q, "copy_out", run_copy_out);
	call->a.copy = (struct copy){ host, late_real_of(q->device, "copy_out", device_memory), bytes };
	writes(q, "copy_out", host, bytes);
	atomic_fetch_add(&q->device->copies_out, 1);
}

/* ---- operators ---- */

/* Begins an operator: `q`, and `to`, the arguments that will be run. */
#define BEGIN(name) \
	struct late_queue *q = queue_of(queue); \
	static const char *const what = #name; \
	struct kn_##name *to = &call_add(q, what, run_##name)->a.name; \
	*to = *a; \
	atomic_fetch_add(&q->device->operators, 1)

/* A field that is device memory. */
#define DEVICE(field) to->field = late_real_of(q->device, what, a->field)
#define READS(field, count) reads(q, what, a->field, (count) * sizeof *a->field)
#define WRITES(field, count) writes(q, what, a->field, (count) * sizeof *a->field)

static void late_embed(struct kn_queue *queue, const struct kn_embed *a)
{
	BEGIN(embed);
	DEVICE(ids);
	DEVICE(x);
	READS(table, 1);
}

static void late_linear(struct kn_queue *queue, const struct kn_linear *a)
{
	BEGIN(linear);
	DEVICE(x);
	DEVICE(bias);
	READS(w, 1);
	if (late_is_host_block(q->device, a->y))
		WRITES(y, a->rows * a->ldy);
	else
		DEVICE(y);
}

static void late_linear_heads(struct kn_queue *queue, const struct kn_linear_heads *a)
{
	BEGIN(linear_heads);
	DEVICE(x);
	DEVICE(y);
	READS(w, a->heads);
}

static void late_rmsnorm(struct kn_queue *queue, const struct kn_rmsnorm *a)
{
	BEGIN(rmsnorm);
	DEVICE(x);
	DEVICE(index);
	DEVICE(weight);
	DEVICE(out);
}

static void late_rope_table(struct kn_queue *queue, const struct kn_rope_table *a)
{
	BEGIN(rope_table);
	DEVICE(positions);
	DEVICE(inv_freq);
	DEVICE(out);
}

static void late_rope(struct kn_queue *queue, const struct kn_rope *a)
{
	BEGIN(rope);
	DEVICE(x);
	DEVICE(table);
}

static void late_kv_write(struct kn_queue *queue, const struct kn_kv_write *a)
{
	BEGIN(kv_write);
	READS(kv, 1);
	DEVICE(k);
	DEVICE(v);
	DEVICE(positions);
	DEVICE(tables.pages);
	DEVICE(tables.slot);
}

static void late_attend(struct kn_queue *queue, const struct kn_attend *a)
{
	BEGIN(attend);
	READS(kv, 1);
	DEVICE(q);
	DEVICE(begin);
	DEVICE(end);
	DEVICE(tables.pages);
	DEVICE(tables.slot);
	DEVICE(sinks);
	DEVICE(out);
}

static void late_gate(struct kn_queue *queue, const struct kn_gate *a)
{
	BEGIN(gate);
	READS(spec, 1);
	DEVICE(logits);
	DEVICE(bias);
	DEVICE(ids);
	DEVICE(weights);
}

static void late_ffn(struct kn_queue *queue, const struct kn_ffn *a)
{
	BEGIN(ffn);
	READS(experts, a->experts_count);
	for (size_t e = 0; e < a->experts_count; e++)
		reads(q, what, a->experts[e], sizeof *a->experts[e]);
	READS(begin, a->experts_count + 1);
	DEVICE(row_index);
	DEVICE(x);
	DEVICE(y);
	DEVICE(weight);
	DEVICE(sums);
	DEVICE(poison);
	DEVICE(scratch);
}

static void late_add(struct kn_queue *queue, const struct kn_add *a)
{
	BEGIN(add);
	DEVICE(x);
	DEVICE(y);
}

static void late_scale_rows(struct kn_queue *queue, const struct kn_scale_rows *a)
{
	BEGIN(scale_rows);
	DEVICE(x);
	DEVICE(scale);
}

static void late_rows_pack(struct kn_queue *queue, const struct kn_rows_pack *a)
{
	BEGIN(rows_pack);
	DEVICE(x);
	READS(index, a->rows);
	WRITES(heads, a->rows);
	WRITES(data, a->rows * 4 * a->n);
	WRITES(data_bytes, 1);
}

static void late_rows_unpack(struct kn_queue *queue, const struct kn_rows_unpack *a)
{
	size_t bytes = 0;
	BEGIN(rows_unpack);
	for (size_t r = 0; r < a->rows; r++)
		bytes += cadre_row_bytes(a->heads[r].type, a->n);
	READS(heads, a->rows);
	READS(data, bytes);
	DEVICE(x);
}

static void late_combine_pack(struct kn_queue *queue, const struct kn_combine_pack *a)
{
	BEGIN(combine_pack);
	DEVICE(sums);
	DEVICE(poison);
	READS(pair_expert, a->pairs);
	WRITES(heads, a->rows);
	WRITES(data, a->rows * 8 * a->n);
	WRITES(data_bytes, 1);
}

static void late_combine_add(struct kn_queue *queue, const struct kn_combine_add *a)
{
	size_t bytes = 0;
	BEGIN(combine_add);
	for (size_t r = 0; r < a->rows; r++)
		bytes += a->heads[r].width * a->n;
	READS(heads, a->rows);
	READS(data, bytes);
	READS(index, a->rows);
	DEVICE(sums);
}

static void late_combine_finish(struct kn_queue *queue, const struct kn_combine_finish *a)
{
	BEGIN(combine_finish);
	DEVICE(x);
	DEVICE(sums);
	DEVICE(shared);
	DEVICE(score);
}

static size_t late_ffn_scratch_bytes(struct kn_queue *queue, size_t pairs, size_t hidden, size_t ffn, bool sums)
{
	struct kn_queue *inner = queue_of(queue)->inner;
	return inner->ops->ffn_scratch_bytes(inner, pairs, hidden, ffn, sums);
}

void late_queue_ops(struct kn_ops *ops)
{
	ops->queue_create = late_queue_create;
	ops->queue_destroy = late_queue_destroy;
	ops->copy_in = late_copy_in;
	ops->copy_out = late_copy_out;
	ops->wait = late_wait;
	ops->ffn_scratch_bytes = late_ffn_scratch_bytes;
#define X(name) ops->name = late_##name;
	OPERATORS(X)
#undef X
}
