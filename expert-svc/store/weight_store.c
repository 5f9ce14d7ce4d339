/* SPDX-License-Identifier: Apache-2.0 */
#include "expert-svc/store/weight_store.h"

#include "common/base/bytes.h"
#include "expert-svc/store/memory.h"
#include "kernels/image.h"
#include "kernels/packed.h"
#include "kernels/source.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* One held expert. */
struct entry {
	struct kn_expert expert;
	struct ex_loaded loaded;
	uint32_t copying; /* under the lock: how many read its image */
};

struct slot {
	_Atomic(struct entry *) entry; /* NULL: not held */
	bool busy;                     /* under the lock: somebody loads or frees it */
};

struct ex_store {
	struct ex_store_options options;
	const struct cad_model_spec *spec;
	uint64_t expert_bytes;
	struct slot *slots;          /* [layers][experts] */
	pthread_mutex_t lock;        /* of writers */
	pthread_cond_t idle;         /* some slot is no longer busy */
	_Atomic uint64_t used_bytes; /* written under the lock */
	_Atomic uint32_t held;
	/* The grace period. `now` counts removals; `reader` is its value when the present step
	 * began, 0 outside of steps. */
	_Atomic uint64_t now, reader;
};

static size_t slots_count(const struct ex_store *store)
{
	return (size_t)store->spec->layers_count * store->spec->gate.experts;
}

static struct slot *slot_at(const struct ex_store *store, uint32_t layer, uint32_t expert)
{
	return &store->slots[(size_t)layer * store->spec->gate.experts + expert];
}

static bool in_range(const struct ex_store *store, uint32_t layer, uint32_t expert)
{
	return layer < store->spec->layers_count && expert < store->spec->gate.experts &&
		store->spec->layers[layer].moe;
}

enum cad_status ex_store_create(
	const struct ex_store_options *options, struct ex_store **store, struct cad_error *error)
{
	const struct cad_model_spec *spec = cad_model_spec(options->model);
	uint32_t layer = 0;

	while (layer < spec->layers_count && !spec->layers[layer].moe)
		layer++;
	if (spec->gate.experts == 0 || layer == spec->layers_count)
		return cad_error_set(error, CAD_ERR_UNSUPPORTED, "model '%s' is dense: it has no experts to serve",
			cad_model_directory(options->model));
	enum cad_status status = kn_packed_check_experts(options->model, options->weights, error);
	if (status != CAD_OK)
		return status;
	struct ex_store *made = calloc(1, sizeof *made);
	if (!made)
		return cad_error_set(error, CAD_ERR_MEMORY, "no memory for the weight store");
	made->options = *options;
	made->spec = spec;
	made->expert_bytes = kn_expert_bytes(options->device, options->model, options->weights);
	made->slots = calloc(slots_count(made), sizeof *made->slots);
	if (!made->slots) {
		free(made);
		return cad_error_set(error, CAD_ERR_MEMORY, "no memory for the weight store");
	}

	atomic_init(&made->now, 1);
	pthread_mutex_init(&made->lock, NULL);
	pthread_cond_init(&made->idle, NULL);
	*store = made;

	return CAD_OK;
}

enum cad_status ex_store_reserve(struct ex_store *store, uint64_t memory_bytes, struct cad_error *error)
{
	struct kn_device *device = store->options.device;
	const uint64_t slots = memory_bytes / store->expert_bytes;
	char bytes[CAD_BYTES_TEXT_BYTES], has[EX_MEMORY_TEXT_BYTES];
	CAD_ASSERT(ex_store_count(store) == 0);

	if (device->ops->expert_reserve(device, store->expert_bytes, (size_t)slots) != CAD_OK)
		return cad_error_set(error, CAD_ERR_MEMORY,
			"%s for the weights of %llu experts cannot be had: %s; another process has taken it since this one looked: end that, or give this node less with --memory",
			cad_bytes_text(slots * store->expert_bytes, bytes), (unsigned long long)slots,
			ex_memory_free_text(device, has));
	store->options.memory_bytes = memory_bytes;
	return CAD_OK;
}

static void entry_destroy(struct ex_store *store, struct entry *entry)
{
	store->options.device->ops->expert_destroy(store->options.device, &entry->expert);
	free(entry);
}

void ex_store_destroy(struct ex_store *store)
{
	if (!store)
		return;

	CAD_ASSERT(atomic_load(&store->reader) == 0);
	for (size_t i = 0; i < slots_count(store); i++) {
		struct entry *entry = atomic_load(&store->slots[i].entry);
		if (entry)
			entry_destroy(store, entry);
	}

	pthread_cond_destroy(&store->idle);
	pthread_mutex_destroy(&store->lock);
	free(store->slots);
	free(store);
}

static enum cad_status refuse(
	const struct ex_store *store, uint32_t layer, uint32_t expert, enum cad_status status, struct cad_error *error)
{
	char bytes[CAD_BYTES_TEXT_BYTES], has[EX_MEMORY_TEXT_BYTES];
	if (status != CAD_ERR_MEMORY)
		return cad_error_set(
			error, status, "the device failed while expert %u of layer %u was loaded", expert, layer);
	return cad_error_set(error, status,
		"no memory for expert %u of layer %u, which takes %s: %s; end what else uses it, or give this node less with --memory",
		expert, layer, cad_bytes_text(store->expert_bytes, bytes),
		ex_memory_free_text(store->options.device, has));
}

/* Packs one expert; the slow part, without the lock. */
static enum cad_status entry_create(struct ex_store *store, uint32_t layer, uint32_t expert,
	const struct ex_weights *weights, struct entry **entry, struct cad_error *error)
{
	const struct ex_store_options *options = &store->options;
	struct kn_expert_source source = kn_expert_source_of(options->model, layer, expert);
	struct entry *made = calloc(1, sizeof *made);
	if (weights && weights->image) {
		struct kn_expert_source image = kn_image_of(&source, options->weights);
		source = kn_image_at(&image, weights->image);
	}

	if (!made)
		return cad_error_set(error, CAD_ERR_MEMORY, "no memory for expert %u of layer %u", expert, layer);

	enum cad_status status = weights ? CAD_OK : cad_model_expert_check(options->model, layer, expert, error);
	if (status != CAD_OK) {
		free(made);
		return status;
	}
	status = options->device->ops->expert_create(options->device, &source, options->weights, &made->expert);
	if (status == CAD_OK && weights)
		snprintf(made->loaded.checksum, sizeof made->loaded.checksum, "%s", weights->checksum);
	else if (status == CAD_OK)
		kn_image_checksum(&source, options->weights, made->loaded.checksum);
	cad_model_forget_expert(options->model, layer, expert);
	if (status != CAD_OK) {
		free(made);
		return refuse(store, layer, expert, status, error);
	}

	if (!weights)
		status = cad_model_expert_verify(options->model, layer, expert, made->loaded.checksum, error);
	if (status != CAD_OK) {
		entry_destroy(store, made);
		return status;
	}
	made->loaded.bytes = store->expert_bytes;
	*entry = made;

	return CAD_OK;
}

/* Called with the lock held; waits until nobody else works on the slot, and takes it. */
static void slot_acquire(struct ex_store *store, struct slot *slot)
{
	while (slot->busy)
		pthread_cond_wait(&store->idle, &store->lock);
	slot->busy = true;
}

static void slot_release(struct ex_store *store, struct slot *slot)
{
	slot->busy = false;
	pthread_cond_broadcast(&store->idle);
}

/* With the lock held and the slot taken: OK when there was room, which is then reserved. */
static enum cad_status reserve(struct ex_store *store, uint32_t layer, uint32_t expert, struct cad_error *error)
{
	uint64_t used = atomic_load(&store->used_bytes), most = store->options.memory_bytes;
	if (most > 0 && (used > most || most - used < store->expert_bytes))
		return cad_error_set(error, CAD_ERR_EXHAUSTED,
			"expert %u of layer %u needs %llu bytes, but %llu of %llu are in use: raise --memory", expert,
			layer, (unsigned long long)store->expert_bytes, (unsigned long long)used,
			(unsigned long long)most);
	atomic_store(&store->used_bytes, used + store->expert_bytes);
	return CAD_OK;
}

static void unreserve(struct ex_store *store) { atomic_fetch_sub(&store->used_bytes, store->expert_bytes); }

enum cad_status ex_store_load(struct ex_store *store, uint32_t layer, uint32_t expert, const struct ex_weights *weights,
	struct ex_loaded *loaded, struct cad_error *error)
{
	if (!in_range(store, layer, expert))
		return cad_error_set(error, CAD_ERR_RANGE,
			"the model has no expert %u in layer %u (%u layers, %u experts each where there are any)",
			expert, layer, store->spec->layers_count, store->spec->gate.experts);
	struct slot *slot = slot_at(store, layer, expert);
	pthread_mutex_lock(&store->lock);
	slot_acquire(store, slot);
	struct entry *entry = atomic_load(&slot->entry);
	enum cad_status status = entry ? CAD_OK : reserve(store, layer, expert, error);
	if (!entry && status == CAD_OK) {
		pthread_mutex_unlock(&store->lock);
		status = entry_create(store, layer, expert, weights, &entry, error);
		pthread_mutex_lock(&store->lock);
		if (status == CAD_OK) {
			atomic_store(&slot->entry, entry);
			atomic_fetch_add(&store->held, 1);
		} else {
			unreserve(store);
		}
	}

	if (status == CAD_OK)
		*loaded = entry->loaded;
	slot_release(store, slot);
	pthread_mutex_unlock(&store->lock);

	return status;
}

/* Until the reader is outside of steps, or in one that began after removal `removed`. A step takes
 * milliseconds, so polling is good enough on a control path. */
static void wait_for_reader(struct ex_store *store, uint64_t removed)
{
	for (;;) {
		uint64_t reader = atomic_load(&store->reader);
		if (reader == 0 || reader >= removed)
			return;
		nanosleep(&(struct timespec){ .tv_nsec = 50000 }, NULL);
	}
}

enum cad_status ex_store_free(struct ex_store *store, uint32_t layer, uint32_t expert)
{
	if (!in_range(store, layer, expert))
		return CAD_ERR_NOT_FOUND;

	struct slot *slot = slot_at(store, layer, expert);
	pthread_mutex_lock(&store->lock);
	slot_acquire(store, slot);
	struct entry *entry = atomic_exchange(&slot->entry, NULL);
	uint64_t removed = atomic_fetch_add(&store->now, 1) + 1;
	pthread_mutex_unlock(&store->lock);
	if (entry)
		wait_for_reader(store, removed);

	pthread_mutex_lock(&store->lock);
	if (entry) {
		while (entry->copying > 0)
			pthread_cond_wait(&store->idle, &store->lock);
		entry_destroy(store, entry);
		unreserve(store);
		atomic_fetch_sub(&store->held, 1);
	}

	slot_release(store, slot);
	pthread_mutex_unlock(&store->lock);
	return entry ? CAD_OK : CAD_ERR_NOT_FOUND;
}

struct kn_expert_source ex_store_image(const struct ex_store *store, uint32_t layer, uint32_t expert)
{
	if (!in_range(store, layer, expert))
		return (struct kn_expert_source){ .spec = NULL };
	struct kn_expert_source source = kn_expert_source_of(store->options.model, layer, expert);
	return kn_image_of(&source, store->options.weights);
}

enum cad_weights ex_store_weights(const struct ex_store *store) { return store->options.weights; }

enum cad_status ex_store_read(
	struct ex_store *store, uint32_t layer, uint32_t expert, uint64_t begin, size_t count, void *out)
{
	struct kn_expert_source image = ex_store_image(store, layer, expert);
	uint64_t bytes = kn_image_bytes(&image);
	if (begin > bytes || count > bytes - begin)
		return CAD_ERR_RANGE;

	pthread_mutex_lock(&store->lock);
	struct entry *entry = atomic_load(&slot_at(store, layer, expert)->entry);
	if (entry)
		entry->copying++;
	pthread_mutex_unlock(&store->lock);
	if (!entry)
		return CAD_ERR_NOT_FOUND;

	struct kn_device *device = store->options.device;
	enum cad_status status = device->ops->expert_unpack(device, &entry->expert, &image, begin, count, out);
	pthread_mutex_lock(&store->lock);
	entry->copying--;
	pthread_cond_broadcast(&store->idle);
	pthread_mutex_unlock(&store->lock);
	return status;
}

bool ex_store_holds(const struct ex_store *store, uint32_t layer, uint32_t expert)
{
	return in_range(store, layer, expert) && atomic_load(&slot_at(store, layer, expert)->entry) != NULL;
}

uint64_t ex_store_memory_used(const struct ex_store *store) { return atomic_load(&store->used_bytes); }
uint32_t ex_store_count(const struct ex_store *store) { return atomic_load(&store->held); }
uint64_t ex_store_expert_bytes(const struct ex_store *store) { return store->expert_bytes; }

/*
 * All of this is sequentially consistent. Either the writer's look at `reader` comes before this
 * store, then its removal came before every find of this step, which therefore misses the expert;
 * or it comes after, and the writer waits.
 */
void ex_store_enter(struct ex_store *store)
{
	CAD_ASSERT(atomic_load(&store->reader) == 0);
	atomic_store(&store->reader, atomic_load(&store->now));
}

void ex_store_leave(struct ex_store *store) { atomic_store(&store->reader, 0); }

const struct kn_expert *ex_store_find(const struct ex_store *store, uint32_t layer, uint32_t expert)
{
	struct entry *entry = atomic_load(&slot_at(store, layer, expert)->entry);
	return entry ? &entry->expert : NULL;
}
