/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cuda/slots.h"

#include "kernels/cuda/cuda.h"

/* NULL: there is no room. */
static uint8_t *device_memory(struct kn_cuda_device *device, uint64_t bytes)
{
	void *memory;
	return kn_cuda_taken(device, cudaMalloc(&memory, bytes)) ? static_cast<uint8_t *>(memory) : nullptr;
}

void kn_cuda_slots_init(struct kn_cuda_slots *slots)
{
	*slots = {};
	pthread_mutex_init(&slots->lock, nullptr);
}

/* Back to where nothing is reserved. */
static void give_back(struct kn_cuda_slots *slots)
{
	for (size_t i = 0; i < slots->chunks_count; i++)
		cudaFree(slots->chunks[i]);
	free(slots->chunks);
	free(slots->chunk_bytes);
	free(slots->unused);
	slots->chunks = slots->unused = nullptr;
	slots->chunk_bytes = nullptr;
	slots->chunks_count = slots->unused_count = 0;
	slots->bytes = 0;
}

void kn_cuda_slots_fini(struct kn_cuda_slots *slots)
{
	give_back(slots);
	pthread_mutex_destroy(&slots->lock);
}

/* A chunk of so many slots. */
static bool add_chunk(struct kn_cuda_device *device, uint64_t bytes, size_t count)
{
	struct kn_cuda_slots *slots = &device->slots;
	uint8_t *chunk = device_memory(device, bytes * count);
	if (!chunk)
		return false;
	slots->chunks[slots->chunks_count] = chunk;
	slots->chunk_bytes[slots->chunks_count++] = bytes * count;
	for (size_t i = 0; i < count; i++)
		slots->unused[slots->unused_count++] = chunk + i * bytes;
	return true;
}

enum cad_status kn_cuda_expert_reserve(struct kn_device *device, uint64_t bytes, size_t count)
{
	struct kn_cuda_device *d = kn_cuda_device_of(device);
	struct kn_cuda_slots *slots = &d->slots;
	CAD_ASSERT(slots->bytes == 0 && bytes > 0 && bytes % KN_SLOT_ALIGNMENT == 0);
	const size_t fit = KN_CHUNK_BYTES / bytes, most = fit > 0 ? fit : 1, chunks = count / most + 1;

	slots->chunks = static_cast<uint8_t **>(calloc(chunks, sizeof *slots->chunks));
	slots->chunk_bytes = static_cast<uint64_t *>(calloc(chunks, sizeof *slots->chunk_bytes));
	slots->unused = static_cast<uint8_t **>(calloc(count + 1, sizeof *slots->unused));
	bool room = slots->chunks && slots->chunk_bytes && slots->unused;
	while (room && slots->unused_count < count) {
		size_t left = count - slots->unused_count;
		room = add_chunk(d, bytes, left < most ? left : most);
	}

	if (room)
		slots->bytes = bytes;
	else
		give_back(slots);
	return room ? CAD_OK : CAD_ERR_MEMORY;
}

uint8_t *kn_cuda_slot_take(struct kn_cuda_device *device, uint64_t bytes)
{
	struct kn_cuda_slots *slots = &device->slots;
	if (bytes > slots->bytes)
		return device_memory(device, bytes);

	pthread_mutex_lock(&slots->lock);
	uint8_t *slot = slots->unused_count > 0 ? slots->unused[--slots->unused_count] : nullptr;
	pthread_mutex_unlock(&slots->lock);
	return slot;
}

static bool is_slot(const struct kn_cuda_slots *slots, const uint8_t *memory)
{
	for (size_t i = 0; i < slots->chunks_count; i++)
		if (memory >= slots->chunks[i] && memory < slots->chunks[i] + slots->chunk_bytes[i])
			return true;
	return false;
}

void kn_cuda_slot_give(struct kn_cuda_device *device, uint8_t *slot)
{
	struct kn_cuda_slots *slots = &device->slots;
	if (!is_slot(slots, slot)) {
		cudaFree(slot);
		return;
	}

	pthread_mutex_lock(&slots->lock);
	slots->unused[slots->unused_count++] = slot;
	pthread_mutex_unlock(&slots->lock);
}
