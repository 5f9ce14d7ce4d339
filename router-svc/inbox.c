/* SPDX-License-Identifier: Apache-2.0 */
#include "router-svc/inbox.h"
#include "common/base/plural.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { WISH_CANCEL = 1, WISH_PAUSE = 2, WISHES = 4 };

/* Between one map and the next the engine gives back the one that that map replaces and, where it
 * had not come to it yet, the one of before. */
enum { MAPS_GONE_MAX = 2 };

struct rt_inbox {
	void (*wake)(void *context);
	void *context;
	_Atomic bool news;
	_Atomic(struct rt_sequence *) submitted, gone; /* stacks, linked by `after` */
	_Atomic(struct cad_map *) map, maps_gone[MAPS_GONE_MAX];
	uint32_t places;
	_Atomic uint64_t *wishes; /* [places]: id * WISHES + bits; 0: nobody is there */
	pthread_mutex_t mutex;    /* of those who submit; guards what follows */
	uint32_t *free_places, free_count;
	bool trial; /* one is alive; while there is none, one place is kept for it */
	uint64_t serial;
};

static void push(_Atomic(struct rt_sequence *) *stack, struct rt_sequence *sequence)
{
	sequence->after = atomic_load_explicit(stack, memory_order_relaxed);
	while (!atomic_compare_exchange_weak_explicit(
		stack, &sequence->after, sequence, memory_order_release, memory_order_relaxed)) {}
}

static void tell(struct rt_inbox *inbox)
{
	if (!atomic_exchange(&inbox->news, true))
		inbox->wake(inbox->context);
}

enum cad_status rt_inbox_create(
	uint32_t sequences_max, void (*wake)(void *context), void *context, struct rt_inbox **out)
{
	uint32_t places = sequences_max + 1;
	struct rt_inbox *inbox = calloc(1, sizeof *inbox);
	if (!inbox)
		return CAD_ERR_MEMORY;

	pthread_mutex_init(&inbox->mutex, NULL);
	inbox->wake = wake;
	inbox->context = context;
	inbox->places = places;
	inbox->wishes = calloc(places, sizeof *inbox->wishes);
	inbox->free_places = malloc(places * sizeof *inbox->free_places);
	if (!inbox->wishes || !inbox->free_places) {
		rt_inbox_destroy(inbox);
		return CAD_ERR_MEMORY;
	}

	while (inbox->free_count < places) { /* the lowest come out first */
		inbox->free_places[inbox->free_count] = places - 1 - inbox->free_count;
		inbox->free_count++;
	}

	*out = inbox;
	return CAD_OK;
}

static void destroy_all(struct rt_sequence *sequence)
{
	for (struct rt_sequence *next; sequence; sequence = next) {
		next = sequence->after;
		rt_sequence_destroy(sequence);
	}
}

static void release_gone_maps(struct rt_inbox *inbox)
{
	for (int i = 0; i < MAPS_GONE_MAX; i++)
		cad_map_release(atomic_exchange(&inbox->maps_gone[i], NULL));
}

void rt_inbox_destroy(struct rt_inbox *inbox)
{
	if (!inbox)
		return;
	destroy_all(atomic_load(&inbox->submitted));
	destroy_all(atomic_load(&inbox->gone));
	cad_map_release(atomic_load(&inbox->map));
	release_gone_maps(inbox);
	pthread_mutex_destroy(&inbox->mutex);
	free(inbox->free_places);
	free(inbox->wishes);
	free(inbox);
}

/* ---- any thread ---- */

/* Under the mutex. */
static void place_free(struct rt_inbox *inbox, uint32_t place, bool trial)
{
	inbox->free_places[inbox->free_count++] = place;
	if (trial)
		inbox->trial = false;
}

/* A place for a new sequence, and its id. Those that ended leave theirs: *gone. */
static bool place_take(struct rt_inbox *inbox, bool trial, uint32_t *place, uint64_t *id, struct rt_sequence **gone)
{
	pthread_mutex_lock(&inbox->mutex);

	*gone = atomic_exchange_explicit(&inbox->gone, NULL, memory_order_acquire);
	for (struct rt_sequence *s = *gone; s; s = s->after)
		place_free(inbox, s->place, s->request.trial);

	bool taken = trial ? !inbox->trial : inbox->free_count > (inbox->trial ? 0 : 1);
	if (taken) {
		*place = inbox->free_places[--inbox->free_count];
		*id = ++inbox->serial * inbox->places + *place; /* ascends with the serial number */
		inbox->trial |= trial;
	}

	pthread_mutex_unlock(&inbox->mutex);
	return taken;
}

static void place_return(struct rt_inbox *inbox, uint32_t place, bool trial)
{
	pthread_mutex_lock(&inbox->mutex);
	place_free(inbox, place, trial);
	pthread_mutex_unlock(&inbox->mutex);
}

enum cad_status rt_inbox_submit(struct rt_inbox *inbox, const struct rt_request *request, uint32_t tokens_max,
	uint64_t now_ns, uint64_t *id, struct cad_error *error)
{
	struct rt_sequence *gone;
	uint32_t place;
	uint64_t own_id;

	bool taken = place_take(inbox, request->trial, &place, &own_id, &gone);
	destroy_all(gone);
	if (!taken && request->trial)
		return cad_error_set(error, CAD_ERR_EXHAUSTED, "the trial before has not ended");
	if (!taken)
		return cad_error_set(error, CAD_ERR_EXHAUSTED,
			"%u %s running, waiting or paused, which is this router's limit: try again later",
			inbox->places - 1, cad_plural(inbox->places - 1, "request is", "requests are"));

	struct rt_sequence *sequence = rt_sequence_create(request, tokens_max);
	if (!sequence) {
		place_return(inbox, place, request->trial);
		return cad_error_set(error, CAD_ERR_MEMORY, "there is no memory for another request: try again later");
	}

	sequence->id = own_id;
	sequence->place = place;
	sequence->submitted_ns = now_ns;
	*id = own_id;
	atomic_store(&inbox->wishes[place], own_id * WISHES);
	push(&inbox->submitted, sequence);
	tell(inbox);

	return CAD_OK;
}

/* Sets or clears a bit, if the sequence is still there. */
static void wish(struct rt_inbox *inbox, uint64_t id, uint64_t bit, bool wanted)
{
	_Atomic uint64_t *word = &inbox->wishes[id % inbox->places];
	uint64_t seen = atomic_load(word);
	do {
		if (id == 0 || seen / WISHES != id)
			return;
	} while (!atomic_compare_exchange_weak(word, &seen, wanted ? seen | bit : seen & ~bit));
	tell(inbox);
}

void rt_inbox_cancel(struct rt_inbox *inbox, uint64_t id) { wish(inbox, id, WISH_CANCEL, true); }

void rt_inbox_pause(struct rt_inbox *inbox, uint64_t id, bool paused) { wish(inbox, id, WISH_PAUSE, paused); }

void rt_inbox_map(struct rt_inbox *inbox, struct cad_map *map)
{
	release_gone_maps(inbox);

	struct cad_map *newest = cad_map_acquire(map), *other = atomic_exchange(&inbox->map, NULL);
	if (other && other->epoch > newest->epoch) {
		newest = other;
		other = map;
	}
	cad_map_release(other);
	atomic_store(&inbox->map, newest);
	tell(inbox);
}

/* ---- the engine's thread ---- */

bool rt_inbox_news(struct rt_inbox *inbox)
{
	return atomic_load_explicit(&inbox->news, memory_order_relaxed) && atomic_exchange(&inbox->news, false);
}

struct rt_sequence *rt_inbox_submitted(struct rt_inbox *inbox)
{
	return atomic_exchange_explicit(&inbox->submitted, NULL, memory_order_acquire);
}

struct cad_map *rt_inbox_newest_map(struct rt_inbox *inbox) { return atomic_exchange(&inbox->map, NULL); }

struct rt_wishes rt_inbox_wishes(const struct rt_inbox *inbox, const struct rt_sequence *sequence)
{
	uint64_t word = atomic_load(&inbox->wishes[sequence->place]);
	CAD_ASSERT(word / WISHES == sequence->id);
	return (struct rt_wishes){ .cancel = word & WISH_CANCEL, .pause = word & WISH_PAUSE };
}

void rt_inbox_give_back(struct rt_inbox *inbox, struct rt_sequence *sequence)
{
	atomic_store(&inbox->wishes[sequence->place], 0);
	push(&inbox->gone, sequence);
}

void rt_inbox_give_back_map(struct rt_inbox *inbox, struct cad_map *map)
{
	for (int i = 0; map && i < MAPS_GONE_MAX; i++) {
		struct cad_map *nobody = NULL;
		if (atomic_compare_exchange_strong(&inbox->maps_gone[i], &nobody, map))
			map = NULL;
	}
	CAD_ASSERT(!map);
}
