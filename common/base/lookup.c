/* SPDX-License-Identifier: Apache-2.0 */
#include "common/base/lookup.h"

#include "common/base/clock.h"
#include "common/base/condition.h"

#include <pthread.h>
#include <stdlib.h>

struct cad_lookup {
	pthread_mutex_t mutex;
	pthread_cond_t over_now;
	unsigned owners; /* who asked, and the thread */
	struct cad_address address;
	bool over;
	int failed;
	struct addrinfo *found; /* NULL: not yet, or it failed */
};

void cad_lookup_leave(struct cad_lookup *lookup)
{
	if (!lookup)
		return;

	pthread_mutex_lock(&lookup->mutex);
	bool last = --lookup->owners == 0;
	pthread_mutex_unlock(&lookup->mutex);
	if (!last)
		return;

	if (lookup->found)
		freeaddrinfo(lookup->found);
	pthread_cond_destroy(&lookup->over_now);
	pthread_mutex_destroy(&lookup->mutex);
	free(lookup);
}

static void *run(void *context)
{
	struct cad_lookup *lookup = context;
	const struct addrinfo want = { .ai_flags = AI_NUMERICSERV, .ai_socktype = SOCK_STREAM };
	struct addrinfo *found = NULL;
	int failed = getaddrinfo(lookup->address.host, lookup->address.port_text, &want, &found);

	pthread_mutex_lock(&lookup->mutex);
	lookup->over = true;
	lookup->failed = failed;
	lookup->found = failed ? NULL : found;
	pthread_cond_signal(&lookup->over_now);
	pthread_mutex_unlock(&lookup->mutex);
	cad_lookup_leave(lookup);
	return NULL;
}

struct cad_lookup *cad_lookup_start(const struct cad_address *address)
{
	struct cad_lookup *lookup = calloc(1, sizeof *lookup);
	pthread_attr_t detached;
	pthread_t thread;

	if (!lookup)
		return NULL;
	lookup->owners = 2;
	lookup->address = *address;
	pthread_mutex_init(&lookup->mutex, NULL);
	cad_condition_init(&lookup->over_now);

	pthread_attr_init(&detached);
	pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
	bool started = pthread_create(&thread, &detached, run, lookup) == 0;
	pthread_attr_destroy(&detached);
	if (started)
		return lookup;
	lookup->owners = 1;
	cad_lookup_leave(lookup);
	return NULL;
}

enum cad_status cad_lookup_wait(
	struct cad_lookup *lookup, uint32_t timeout_ms, const struct addrinfo **found, struct cad_error *error)
{
	const struct timespec until = cad_condition_deadline(timeout_ms * CAD_NS_PER_MS);

	pthread_mutex_lock(&lookup->mutex);
	while (!lookup->over && pthread_cond_timedwait(&lookup->over_now, &lookup->mutex, &until) == 0) {}
	bool over = lookup->over;
	pthread_mutex_unlock(&lookup->mutex);

	if (!over)
		return CAD_AGAIN;
	if (lookup->failed)
		return cad_error_set(
			error, CAD_ERR_UNREACHABLE, "%s: %s", lookup->address.host, gai_strerror(lookup->failed));
	*found = lookup->found;
	return CAD_OK;
}
