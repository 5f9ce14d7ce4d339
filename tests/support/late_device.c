/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/late_device.h"

#include "tests/support/late_memory.h"
#include "tests/support/late_queue.h"

#include <stdlib.h>
#include <string.h>

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

static enum cad_status late_expert_reserve(struct kn_device *device, uint64_t bytes, size_t count)
{
	return inner_of(device)->ops->expert_reserve(inner_of(device), bytes, count);
}

static enum cad_status late_expert_create(struct kn_device *device, const struct kn_expert_source *source,
	enum cad_weights weights, struct kn_expert *expert)
{
	return inner_of(device)->ops->expert_create(inner_of(device), source, weights, expert);
}

static void late_expert_destroy(struct kn_device *device, struct kn_expert *expert)
{
	inner_of(device)->ops->expert_destroy(inner_of(device), expert);
}

static enum cad_status late_expert_unpack(struct kn_device *device, const struct kn_expert *expert,
	const struct kn_expert_source *image, uint64_t begin, size_t count, void *out)
{
	return inner_of(device)->ops->expert_unpack(inner_of(device), expert, image, begin, count, out);
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
		memcpy(late_real_of(d, "vector_create", shown), made, bytes);
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
	late_memory_fini(d);
	d->inner->ops->destroy(d->inner);
	free(d);
}

static const struct kn_ops memory_ops = {
	.name = "late",
	.describe = late_describe,
	.destroy = late_destroy,
	.alloc = late_alloc,
	.release = late_release,
	.host_alloc = late_host_alloc,
	.host_release = late_host_release,
	.matrix_bytes = late_matrix_bytes,
	.table_bytes = late_table_bytes,
	.expert_bytes = late_expert_bytes,
	.vector_bytes = late_vector_bytes,
	.kv_bytes = late_kv_bytes,
	.matrix_create = late_matrix_create,
	.matrix_destroy = late_matrix_destroy,
	.table_create = late_table_create,
	.table_destroy = late_table_destroy,
	.expert_reserve = late_expert_reserve,
	.expert_create = late_expert_create,
	.expert_destroy = late_expert_destroy,
	.expert_unpack = late_expert_unpack,
	.vector_create = late_vector_create,
	.vector_destroy = late_vector_destroy,
	.kv_create = late_kv_create,
	.kv_destroy = late_kv_destroy,
};

enum cad_status late_device_create(struct kn_device *inner, struct kn_device **device)
{
	struct late_device *d = calloc(1, sizeof *d);
	if (!d)
		return CAD_ERR_MEMORY;

	d->ops = memory_ops;
	late_queue_ops(&d->ops);
	d->base.ops = &d->ops;
	d->inner = inner;
	if (!late_memory_init(d)) {
		late_memory_fini(d);
		free(d);
		return CAD_ERR_MEMORY;
	}
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
