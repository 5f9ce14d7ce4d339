/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/late_device.h"

#include "common/base/status.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <xxhash.h>

/* ---- the device and its memory ---- */

/*
 * Two ranges of addresses of one size. What users hold lies in `shown`, which nobody may touch;
 * `real` has the memory, at the same offset. Addresses are not used twice, and a page that nobody
 * may touch lies between two allocations, in `real` too.
 */
enum { PAGE_BYTES = 4096, ALIGNMENT = 64 };
static const size_t RANGE_BYTES = (size_t)1 << 36;

struct host_block {
	struct host_block *next;
	uint8_t *at;
	size_t bytes;
};

struct late_device {
	struct kn_device base;
	struct kn_device *inner;
	uint8_t *shown, *real;
	pthread_mutex_t lock; /* of what follows */
	size_t used;
	struct host_block *host_blocks;
	_Atomic int64_t live; /* allocations of device memory */
	_Atomic int64_t waits_left;
	_Atomic uint64_t copies_in, copies_out, operators, waits;
};

static struct late_device *late_of(const struct kn_device *device) { return (struct late_device *)(uintptr_t)device; }

_Noreturn static void breach(const char *operation, const char *what)
{
	fprintf(stderr, "late device: %s: %s\n", operation, what);
	abort();
}

static bool is_shown(const struct late_device *d, const void *memory)
{
	const uint8_t *p = memory;
	return p >= d->shown && p < d->shown + RANGE_BYTES;
}

/* The memory behind an address that a caller gave. */
static void *real_of(const struct late_device *d, const char *operation, const void *memory)
{
	if (!memory)
		return NULL;
	if (!is_shown(d, memory))
		breach(operation, "host memory stands where device memory is due");
	return d->real + ((const uint8_t *)memory - d->shown);
}

static uint8_t *reserve(void)
{
	void *p = mmap(NULL, RANGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	return p == MAP_FAILED ? NULL : p;
}

/* The block ends at a page, so that whoever runs over the end is seen. */
static void *late_alloc(struct kn_device *device, size_t bytes)
{
	struct late_device *d = late_of(device);
	size_t length = kn_round_up(bytes > 0 ? bytes : 1, ALIGNMENT), pages = kn_round_up(length, PAGE_BYTES);
	void *shown = NULL;

	pthread_mutex_lock(&d->lock);
	if (length >= bytes && pages < RANGE_BYTES && pages + PAGE_BYTES <= RANGE_BYTES - d->used &&
		mprotect(d->real + d->used, pages, PROT_READ | PROT_WRITE) == 0) {
		shown = d->shown + d->used + pages - length;
		d->used += pages + PAGE_BYTES;
		atomic_fetch_add(&d->live, 1);
	}
	pthread_mutex_unlock(&d->lock);

	return shown;
}

static void late_release(struct kn_device *device, void *memory, size_t bytes)
{
	struct late_device *d = late_of(device);
	if (!memory)
		return;

	size_t length = kn_round_up(bytes > 0 ? bytes : 1, ALIGNMENT), pages = kn_round_up(length, PAGE_BYTES);
	uint8_t *real = real_of(d, "release", memory);
	real -= pages - length;
	if (((uintptr_t)real & (PAGE_BYTES - 1)) != 0)
		breach("release", "it has another size than was allocated");
	if (mmap(real, pages, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
		breach("release", "the memory cannot be given back");
	atomic_fetch_sub(&d->live, 1);
}

static void *late_host_alloc(struct kn_device *device, size_t bytes)
{
	struct late_device *d = late_of(device);
	struct host_block *block = malloc(sizeof *block);
	uint8_t *at = block ? d->inner->ops->host_alloc(d->inner, bytes) : NULL;

	if (!at) {
		free(block);
		return NULL;
	}
	pthread_mutex_lock(&d->lock);
	*block = (struct host_block){ d->host_blocks, at, bytes };
	d->host_blocks = block;
	pthread_mutex_unlock(&d->lock);
	return at;
}

static void late_host_release(struct kn_device *device, void *memory, size_t bytes)
{
	struct late_device *d = late_of(device);
	struct host_block *found = NULL;
	if (!memory)
		return;

	pthread_mutex_lock(&d->lock);
	for (struct host_block **at = &d->host_blocks; *at && !found; at = &(*at)->next)
		if ((*at)->at == memory) {
			found = *at;
			*at = found->next;
			break;
		}
	pthread_mutex_unlock(&d->lock);
	if (!found || found->bytes != bytes)
		breach("host_release", "it was not allocated so");
	free(found);
	d->inner->ops->host_release(d->inner, memory, bytes);
}

static bool is_host_block(struct late_device *d, const void *memory)
{
	const uint8_t *p = memory;
	bool found = false;
	pthread_mutex_lock(&d->lock);
	for (const struct host_block *b = d->host_blocks; b && !found; b = b->next)
		found = p >= b->at && p < b->at + b->bytes;
	pthread_mutex_unlock(&d->lock);
	return found;
}

/* ---- what is queued ---- */

struct copy {
	void *to;
	const void *from;
	size_t bytes;
};

/* clang-format off */
#define OPERATORS(X) \
	X(embed) X(linear) X(rmsnorm) X(rope_table) X(rope) X(kv_write) X(attend) X(gate) X(ffn) X(add) \
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
	if (is_shown(q->device, at))
		breach(name, "device memory stands where host memory is due");
	struct range *range = range_add(q, name, at, bytes);
	range->hash = XXH3_64bits(at, bytes);
}

static uint8_t pattern_at(const uint8_t *at) { return (uint8_t)((uint32_t)LATE_PATTERN >> 8 * ((uintptr_t)at & 3)); }

static void writes(struct late_queue *q, const char *name, void *at, size_t bytes)
{
	if (bytes == 0)
		return;
	if (is_shown(q->device, at))
		breach(name, "device memory stands where host memory is due");
	struct range *range = range_add(q, name, at, bytes);
	range->written = true;
	for (size_t i = 0; i < bytes; i++)
		range->at[i] = pattern_at(range->at + i);
}

static void range_check(const struct range *range)
{
	if (!range->written) {
		if (XXH3_64bits(range->at, range->bytes) != range->hash)
			breach(range->name, "host memory that it reads changed before wait");
		return;
	}
	for (size_t i = 0; i < range->bytes; i++)
		if (range->at[i] != pattern_at(range->at + i))
			breach(range->name, "host memory that it writes was touched before wait");
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
		breach(q->calls[0].name, "the queue is destroyed, and nobody has waited for it");
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
	call->a.copy = (struct copy){ real_of(q->device, "copy_in", device_memory), host, bytes };
	reads(q, "copy_in", host, bytes);
	atomic_fetch_add(&q->device->copies_in, 1);
}

static void late_copy_out(struct kn_queue *queue, void *host, const void *device_memory, size_t bytes)
{
	struct late_queue *q = queue_of(queue);
	struct call *call = call_add(q, "copy_out", run_copy_out);
	call->a.copy = (struct copy){ host, real_of(q->device, "copy_out", device_memory), bytes };
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
#define DEVICE(field) to->field = real_of(q->device, what, a->field)
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
	if (is_host_block(q->device, a->y))
		WRITES(y, a->rows * a->ldy);
	else
		DEVICE(y);
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
	DEVICE(scratch);
}

static void late_add(struct kn_queue *queue, const struct kn_add *a)
{
	BEGIN(add);
	DEVICE(x);
	DEVICE(y);
	DEVICE(score);
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
	size_t first = a->pair_begin[0], end = a->pair_begin[a->rows], pairs = 0;
	for (size_t i = first; i < end; i++)
		pairs = a->pair_index[i] >= pairs ? a->pair_index[i] + 1u : pairs;
	DEVICE(y);
	READS(pair_begin, a->rows + 1);
	reads(q, what, a->pair_index + first, (end - first) * sizeof *a->pair_index);
	READS(pair_weight, pairs);
	READS(pair_expert, pairs);
	DEVICE(scratch);
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
}

static size_t late_ffn_scratch_bytes(struct kn_queue *queue, size_t pairs, size_t hidden, size_t ffn)
{
	struct kn_queue *inner = queue_of(queue)->inner;
	return inner->ops->ffn_scratch_bytes(inner, pairs, hidden, ffn);
}

/* ---- what the wrapped device makes ---- */

static struct kn_device *inner_of(const struct kn_device *device) { return late_of(device)->inner; }

#define MADE(name) \
	static enum cad_status late_##name##_create(struct kn_device *device, const struct kn_source *source, \
		enum cad_weights weights, struct kn_##name *made) \
	{ \
		return inner_of(device)->ops->name##_create(inner_of(device), source, weights, made); \
	} \
	static void late_##name##_destroy(struct kn_device *device, struct kn_##name *made) \
	{ \
		inner_of(device)->ops->name##_destroy(inner_of(device), made); \
	} \
	static uint64_t late_##name##_bytes( \
		const struct kn_device *device, const struct kn_source *source, enum cad_weights weights) \
	{ \
		return inner_of(device)->ops->name##_bytes(inner_of(device), source, weights); \
	}
MADE(matrix)
MADE(table)

static enum cad_status late_expert_create(struct kn_device *device, const struct kn_expert_source *source,
	enum cad_weights weights, struct kn_expert *expert)
{
	return inner_of(device)->ops->expert_create(inner_of(device), source, weights, expert);
}

static void late_expert_destroy(struct kn_device *device, struct kn_expert *expert)
{
	inner_of(device)->ops->expert_destroy(inner_of(device), expert);
}

static uint64_t late_expert_bytes(
	const struct kn_device *device, const struct kn_expert_source *source, enum cad_weights weights)
{
	return inner_of(device)->ops->expert_bytes(inner_of(device), source, weights);
}

static enum cad_status late_kv_create(struct kn_device *device, struct kn_kv *kv)
{
	return inner_of(device)->ops->kv_create(inner_of(device), kv);
}

static void late_kv_destroy(struct kn_device *device, struct kn_kv *kv)
{
	inner_of(device)->ops->kv_destroy(inner_of(device), kv);
}

static uint64_t late_kv_bytes(const struct kn_device *device, const struct kn_kv *kv)
{
	return inner_of(device)->ops->kv_bytes(inner_of(device), kv);
}

static uint64_t late_vector_bytes(const struct kn_device *device, size_t n)
{
	return inner_of(device)->ops->vector_bytes(inner_of(device), n);
}

/* A vector is device memory in the open: a copy of the wrapped device's stands where others do. */
static enum cad_status late_vector_create(struct kn_device *device, const struct kn_source *source, float **vector)
{
	struct late_device *d = late_of(device);
	size_t bytes = kn_round_up(source->n, 64) * sizeof(float);
	float *made;
	enum cad_status status = d->inner->ops->vector_create(d->inner, source, &made);
	if (status != CAD_OK)
		return status;

	float *shown = late_alloc(device, bytes);
	if (shown) {
		memcpy(real_of(d, "vector_create", shown), made, bytes);
		*vector = shown;
	}
	d->inner->ops->vector_destroy(d->inner, made, source->n);
	return shown ? CAD_OK : CAD_ERR_MEMORY;
}

static void late_vector_destroy(struct kn_device *device, float *vector, size_t n)
{
	late_release(device, vector, kn_round_up(n, 64) * sizeof *vector);
}

/* ---- the table ---- */

static void late_describe(const struct kn_device *device, struct kn_device_info *info)
{
	inner_of(device)->ops->describe(inner_of(device), info);
	info->name = device->ops->name;
}

static void late_destroy(struct kn_device *device)
{
	struct late_device *d = late_of(device);
	if (atomic_load(&d->live) != 0 || d->host_blocks)
		breach("destroy", "memory was not released");
	d->inner->ops->destroy(d->inner);
	munmap(d->shown, RANGE_BYTES);
	munmap(d->real, RANGE_BYTES);
	pthread_mutex_destroy(&d->lock);
	free(d);
}

static const struct kn_ops late_ops = { .name = "late",
	.describe = late_describe,
	.destroy = late_destroy,
	.alloc = late_alloc,
	.release = late_release,
	.host_alloc = late_host_alloc,
	.host_release = late_host_release,
	.queue_create = late_queue_create,
	.queue_destroy = late_queue_destroy,
	.copy_in = late_copy_in,
	.copy_out = late_copy_out,
	.wait = late_wait,
	.matrix_bytes = late_matrix_bytes,
	.table_bytes = late_table_bytes,
	.expert_bytes = late_expert_bytes,
	.vector_bytes = late_vector_bytes,
	.kv_bytes = late_kv_bytes,
	.matrix_create = late_matrix_create,
	.matrix_destroy = late_matrix_destroy,
	.table_create = late_table_create,
	.table_destroy = late_table_destroy,
	.expert_create = late_expert_create,
	.expert_destroy = late_expert_destroy,
	.vector_create = late_vector_create,
	.vector_destroy = late_vector_destroy,
	.kv_create = late_kv_create,
	.kv_destroy = late_kv_destroy,
	.ffn_scratch_bytes = late_ffn_scratch_bytes,
#define X(name) .name = late_##name,
	OPERATORS(X)
#undef X
};

enum cad_status late_device_create(struct kn_device *inner, struct kn_device **device)
{
	struct late_device *d = calloc(1, sizeof *d);
	if (!d)
		return CAD_ERR_MEMORY;

	d->base.ops = &late_ops;
	d->inner = inner;
	d->shown = reserve();
	d->real = reserve();
	if (!d->shown || !d->real) {
		free(d);
		return CAD_ERR_MEMORY;
	}
	pthread_mutex_init(&d->lock, NULL);
	atomic_init(&d->waits_left, INT64_MAX);
	*device = &d->base;
	return CAD_OK;
}

struct late_counts late_device_counts(const struct kn_device *device)
{
	struct late_device *d = late_of(device);
	return (struct late_counts){
		.copies_in = atomic_load(&d->copies_in),
		.copies_out = atomic_load(&d->copies_out),
		.operators = atomic_load(&d->operators),
		.waits = atomic_load(&d->waits),
	};
}

void late_device_fail_after(struct kn_device *device, uint64_t waits)
{
	atomic_store(&late_of(device)->waits_left, (int64_t)waits);
}
