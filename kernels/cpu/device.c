/* SPDX-License-Identifier: Apache-2.0 */
/* The CPU as a device: host memory, and a pool of threads as its queue. */
#include "common/process/memory.h"
#include "kernels/cpu/cpu.h"

#include <stdlib.h>
#include <string.h>

void *kn_cpu_alloc(struct kn_device *device, size_t bytes)
{
	return kn_memory_alloc(&((struct kn_cpu_device *)device)->memory, bytes);
}

void kn_cpu_release(struct kn_device *device, void *memory, size_t bytes)
{
	kn_memory_free(&((struct kn_cpu_device *)device)->memory, memory, bytes);
}

static void copy_in(struct kn_queue *queue, void *device_memory, const void *host, size_t bytes)
{
	(void)queue;
	memcpy(device_memory, host, bytes);
}

static void copy_out(struct kn_queue *queue, void *host, const void *device_memory, size_t bytes)
{
	(void)queue;
	memcpy(host, device_memory, bytes);
}

static enum cad_status queue_create(struct kn_device *device, unsigned threads, struct kn_queue **queue)
{
	struct kn_cpu_queue *q = malloc(sizeof *q);
	if (!q)
		return CAD_ERR_MEMORY;

	*q = (struct kn_cpu_queue){
		.base = { device->ops, device },
		.form = ((struct kn_cpu_device *)device)->form,
	};
	q->parts = kn_cpu_alloc(device, KN_ATTEND_PARTS_BYTES);
	if (!q->parts)
		goto free_queue;
	if (kn_pool_create(threads, &q->pool) != CAD_OK)
		goto release_parts;
	*queue = &q->base;
	return CAD_OK;

release_parts:
	kn_cpu_release(device, q->parts, KN_ATTEND_PARTS_BYTES);
free_queue:
	free(q);

	return CAD_ERR_MEMORY;
}

static void queue_destroy(struct kn_queue *queue)
{
	struct kn_cpu_queue *q = kn_cpu_queue(queue);
	kn_pool_destroy(q->pool);
	kn_cpu_release(queue->device, q->parts, KN_ATTEND_PARTS_BYTES);
	free(q);
}

static enum cad_status queue_wait(struct kn_queue *queue)
{
	(void)queue; /* operators return when their work is done */
	return CAD_OK;
}

/* ---- the KV cache (layout.h) ---- */

static uint64_t kv_bytes(const struct kn_device *device, const struct kn_kv *kv)
{
	(void)device;
	return kn_kv_all_bytes(kv);
}

static enum cad_status kv_create(struct kn_device *device, struct kn_kv *kv)
{
	kv->own = kn_cpu_alloc(device, kn_kv_all_bytes(kv));
	if (!kv->own)
		return CAD_ERR_MEMORY;
	kv->bytes = kn_cpu_allocated(kn_kv_all_bytes(kv));
	return CAD_OK;
}

static void kv_destroy(struct kn_device *device, struct kn_kv *kv)
{
	kn_cpu_release(device, kv->own, kn_kv_all_bytes(kv));
	*kv = (struct kn_kv){ 0 };
}

/* ---- the table ---- */

static enum cad_status expert_reserve(struct kn_device *device, uint64_t bytes, size_t count)
{
	return (void)device, (void)bytes, (void)count, CAD_OK;
}

static void describe(const struct kn_device *device, struct kn_device_info *info)
{
	*info = (struct kn_device_info){
		.name = device->ops->name,
		.isa = ((const struct kn_cpu_device *)device)->form->name,
		.chip = "",
		.memory_bytes = cad_memory_free_bytes(""),
		.profiles = 1u << CAD_PROFILE_F32 | 1u << CAD_PROFILE_BF16 | 1u << CAD_PROFILE_BF16_SM90 |
			1u << CAD_PROFILE_INT8 | 1u << CAD_PROFILE_INT4,
		.head_size_max = CAD_HEAD_SIZE_MAX,
		.complete = true,
	};
}

static void device_destroy(struct kn_device *device)
{
	kn_memory_fini(&((struct kn_cpu_device *)device)->memory);
	free(device);
}

static const struct kn_ops cpu = {
	.name = "cpu",
	.describe = describe,
	.destroy = device_destroy,

	.alloc = kn_cpu_alloc,
	.release = kn_cpu_release,
	.host_alloc = kn_cpu_alloc,
	.host_release = kn_cpu_release,

	.queue_create = queue_create,
	.queue_destroy = queue_destroy,
	.copy_in = copy_in,
	.copy_out = copy_out,
	.wait = queue_wait,

	.matrix_bytes = kn_cpu_matrix_bytes,
	.table_bytes = kn_cpu_table_bytes,
	.expert_bytes = kn_cpu_expert_bytes,
	.vector_bytes = kn_cpu_vector_bytes,
	.kv_bytes = kv_bytes,

	.matrix_create = kn_cpu_matrix_create,
	.matrix_destroy = kn_cpu_matrix_destroy,
	.table_create = kn_cpu_table_create,
	.table_destroy = kn_cpu_table_destroy,
	.expert_reserve = expert_reserve,
	.expert_create = kn_cpu_expert_create,
	.expert_destroy = kn_cpu_expert_destroy,
	.expert_unpack = kn_cpu_expert_unpack,
	.vector_create = kn_cpu_vector_create,
	.vector_destroy = kn_cpu_vector_destroy,
	.kv_create = kv_create,
	.kv_destroy = kv_destroy,

	.embed = kn_cpu_embed,
	.linear = kn_cpu_linear,
	.linear_heads = kn_cpu_linear_heads,
	.rmsnorm = kn_cpu_rmsnorm,
	.rope_table = kn_cpu_rope_table,
	.rope = kn_cpu_rope,
	.kv_write = kn_cpu_kv_write,
	.attend = kn_cpu_attend,
	.gate = kn_cpu_gate,
	.ffn_scratch_bytes = kn_cpu_ffn_scratch_bytes,
	.ffn = kn_cpu_ffn,
	.add = kn_cpu_add,
	.scale_rows = kn_cpu_scale_rows,
	.rows_pack = kn_cpu_rows_pack,
	.rows_unpack = kn_cpu_rows_unpack,
	.combine_pack = kn_cpu_combine_pack,
	.combine_add = kn_cpu_combine_add,
	.combine_finish = kn_cpu_combine_finish,
};

static const char *lacks(enum kn_isa isa)
{
	if (!kn_form_find(KN_ISA_AVX2))
		return "this machine lacks AVX2, FMA or F16C, which every build of Cadre needs";
	switch (isa) {
	case KN_ISA_AVXVNNI: return "this machine lacks AVX-VNNI: use --isa auto or --isa avx2";
	case KN_ISA_AMX:
		return "this machine lacks AMX (TILE, INT8, BF16) or AVX-512 VNNI: use --isa auto or --isa avx512";
	default: return "this machine lacks AVX-512 (F, BW, DQ, VL): use --isa auto or --isa avx2";
	}
}

enum cad_status kn_cpu_open(enum kn_isa isa, struct kn_device **device, struct cad_error *error)
{
	const struct kn_form *form = kn_form_find(isa);
	if (!form)
		return cad_error_set(error, CAD_ERR_UNSUPPORTED, "%s", lacks(isa));
	struct kn_cpu_device *d = malloc(sizeof *d);
	if (!d)
		return cad_error_set(error, CAD_ERR_MEMORY, "no memory for a device");
	*d = (struct kn_cpu_device){ .base.ops = &cpu, .form = form };
	kn_memory_init(&d->memory);
	*device = &d->base;

	return CAD_OK;
}
