/* SPDX-License-Identifier: Apache-2.0 */
#include "router-svc/batch/kv_cache.h"

#include "common/base/plural.h"
#include "kernels/source.h"

#include <stdlib.h>

enum { PAGES_MIN = 2 }; /* for a prompt and an answer; a model may know less than that of positions */

static enum cad_status create_kvs(struct rt_kv_cache *cache, const struct cad_model_spec *spec, enum cad_kv type)
{
	uint32_t layers[CAD_ATTENTIONS_MAX] = { 0 };
	enum cad_status status = CAD_OK;

	cache->places = malloc(spec->layers_count * sizeof *cache->places);
	if (!cache->places)
		return CAD_ERR_MEMORY;
	for (uint32_t layer = 0; layer < spec->layers_count; layer++) {
		uint32_t kind = spec->layers[layer].attention_at;
		cache->places[layer] = (struct rt_kv_place){ kind, layers[kind]++ };
	}
	for (uint32_t i = 0; i < spec->attentions_count && status == CAD_OK; i++) {
		if (cad_model_spec_layers_of(spec, i) == 0)
			continue;
		cache->kvs[i] = kn_kv_of(spec, i, type, cache->pages);
		status = cache->device->ops->kv_create(cache->device, &cache->kvs[i]);
	}
	return status;
}

enum cad_status rt_kv_cache_init(struct rt_kv_cache *cache, struct kn_device *device, struct kn_queue *queue,
	const struct cad_model_spec *spec, enum cad_kv type, uint64_t bytes, uint32_t slots, uint32_t context_max,
	struct cad_error *error)
{
	*cache = (struct rt_kv_cache){ .device = device, .queue = queue, .slots = slots };
	uint64_t page_bytes = kn_kv_page_bytes(device, spec, type);
	uint64_t useful = (uint64_t)slots * rt_kv_pages_for(context_max); /* more could never be used */
	uint64_t pages = bytes / page_bytes < useful ? bytes / page_bytes : useful;
	unsigned needed = useful < PAGES_MIN ? (unsigned)useful : PAGES_MIN;
	if (pages < needed)
		return cad_error_set(error, CAD_ERR_MEMORY,
			"the KV cache has %llu bytes, but needs at least %llu, for %u %s of %d tokens: give it more (--kv-memory)",
			(unsigned long long)bytes, (unsigned long long)(needed * page_bytes), needed,
			cad_plural(needed, "page", "pages"), KN_PAGE_KEYS);
	if (pages > UINT32_MAX)
		pages = UINT32_MAX;
	cache->pages = (uint32_t)pages;
	cache->pages_per_sequence_max = rt_kv_pages_for(context_max);
	if (cache->pages_per_sequence_max > pages)
		cache->pages_per_sequence_max = (uint32_t)pages;
	enum cad_status status = create_kvs(cache, spec, type);
	cache->tables =
		device->ops->alloc(device, (size_t)slots * cache->pages_per_sequence_max * sizeof *cache->tables);
	cache->free_pages = malloc(pages * sizeof *cache->free_pages);
	cache->free_slots = malloc(slots * sizeof *cache->free_slots);

	if (status != CAD_OK || !cache->tables || !cache->free_pages || !cache->free_slots) {
		rt_kv_cache_fini(cache);
		return cad_error_set(error, CAD_ERR_MEMORY, "no memory for a KV cache of %llu bytes (--kv-memory)",
			(unsigned long long)(pages * page_bytes));
	}

	while (cache->free_count < pages) { /* the lowest ids come out first */
		cache->free_pages[cache->free_count] = (uint32_t)pages - 1 - cache->free_count;
		cache->free_count++;
	}

	while (cache->free_slots_count < slots) {
		cache->free_slots[cache->free_slots_count] = slots - 1 - cache->free_slots_count;
		cache->free_slots_count++;
	}

	return CAD_OK;
}

void rt_kv_cache_fini(struct rt_kv_cache *cache)
{
	if (!cache->device)
		return;

	const struct kn_ops *ops = cache->device->ops;
	for (uint32_t i = 0; i < CAD_ATTENTIONS_MAX; i++)
		ops->kv_destroy(cache->device, &cache->kvs[i]);
	free(cache->places);
	if (cache->tables)
		ops->release(cache->device, cache->tables,
			(size_t)cache->slots * cache->pages_per_sequence_max * sizeof *cache->tables);
	free(cache->free_pages);
	free(cache->free_slots);
	*cache = (struct rt_kv_cache){ 0 };
}

bool rt_kv_slot_acquire(struct rt_kv_cache *cache, struct rt_kv_pages *held)
{
	CAD_ASSERT(held->slot == UINT32_MAX && held->uploaded == 0);
	if (cache->free_slots_count == 0)
		return false;
	held->slot = cache->free_slots[--cache->free_slots_count];
	return true;
}

bool rt_kv_grow(struct rt_kv_cache *cache, struct rt_kv_pages *held, uint32_t tokens)
{
	uint32_t want = rt_kv_pages_for(tokens);
	CAD_ASSERT(held->slot != UINT32_MAX && want <= held->capacity && want <= cache->pages_per_sequence_max);
	while (held->count < want && cache->free_count > 0)
		held->pages[held->count++] = cache->free_pages[--cache->free_count];
	return held->count >= want;
}

void rt_kv_upload(struct rt_kv_cache *cache, struct rt_kv_pages *held)
{
	if (held->uploaded == held->count)
		return;
	cache->queue->ops->copy_in(cache->queue,
		cache->tables + (size_t)held->slot * cache->pages_per_sequence_max + held->uploaded,
		held->pages + held->uploaded, (held->count - held->uploaded) * sizeof *held->pages);
	held->uploaded = held->count;
}

void rt_kv_slot_release(struct rt_kv_cache *cache, struct rt_kv_pages *held)
{
	if (held->slot != UINT32_MAX)
		cache->free_slots[cache->free_slots_count++] = held->slot;
	held->slot = UINT32_MAX;
	held->uploaded = 0;
}

void rt_kv_release(struct rt_kv_cache *cache, struct rt_kv_pages *held)
{
	while (held->count > 0)
		cache->free_pages[cache->free_count++] = held->pages[--held->count];
	rt_kv_slot_release(cache, held);
}
