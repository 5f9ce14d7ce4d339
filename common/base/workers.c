/* SPDX-License-Identifier: Apache-2.0 */
#include "common/base/workers.h"

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>

/* On the stack of the thread that started it. */
struct loop {
	cad_rounds_fn *rounds;
	void *context;
	size_t count, grain;
	size_t next;      /* the first round that nobody has taken */
	unsigned helpers; /* that work on it */
	struct loop *older;
};

struct cad_workers {
	pthread_mutex_t lock; /* of all that follows, and of every loop */
	pthread_cond_t work, done;
	struct loop *newest; /* loops that have rounds left to take */
	bool retired, ends;
	unsigned threads_count;
	pthread_t threads[];
};

/* Takes a range of the loop and runs it. Called and left with the lock held. */
static void run_range(struct cad_workers *workers, struct loop *loop)
{
	size_t begin = loop->next, left = loop->count - begin, end = begin + (left < loop->grain ? left : loop->grain);

	loop->next = end;
	if (end == loop->count) {
		struct loop **at = &workers->newest;
		while (*at != loop)
			at = &(*at)->older;
		*at = loop->older;
	}
	pthread_mutex_unlock(&workers->lock);
	loop->rounds(loop->context, begin, end);
	pthread_mutex_lock(&workers->lock);
}

static void *help(void *argument)
{
	struct cad_workers *workers = argument;
	pthread_mutex_lock(&workers->lock);
	while (!workers->ends) {
		struct loop *loop = workers->retired ? NULL : workers->newest;
		if (!loop) {
			pthread_cond_wait(&workers->work, &workers->lock);
			continue;
		}
		loop->helpers++;
		run_range(workers, loop);
		if (--loop->helpers == 0)
			pthread_cond_broadcast(&workers->done);
	}
	pthread_mutex_unlock(&workers->lock);
	return NULL;
}

enum cad_status cad_workers_create(unsigned threads, struct cad_workers **workers, struct cad_error *error)
{
	CAD_ASSERT(threads >= 1);
	struct cad_workers *made = calloc(1, sizeof *made + (threads - 1) * sizeof *made->threads);
	if (!made)
		return cad_error_set(error, CAD_ERR_MEMORY, "no memory for %u threads", threads);
	pthread_mutex_init(&made->lock, NULL);
	pthread_cond_init(&made->work, NULL);
	pthread_cond_init(&made->done, NULL);

	sigset_t all, before; /* signals are for the program's own threads */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	while (made->threads_count < threads - 1 &&
		pthread_create(&made->threads[made->threads_count], NULL, help, made) == 0)
		made->threads_count++;
	pthread_sigmask(SIG_SETMASK, &before, NULL);

	if (made->threads_count < threads - 1) {
		cad_workers_destroy(made);
		return cad_error_set(
			error, CAD_ERR_EXHAUSTED, "cannot start %u threads for loading: see ulimit -u", threads - 1);
	}
	*workers = made;
	return CAD_OK;
}

void cad_workers_destroy(struct cad_workers *workers)
{
	if (!workers)
		return;

	pthread_mutex_lock(&workers->lock);
	CAD_ASSERT(!workers->newest);
	workers->ends = true;
	pthread_cond_broadcast(&workers->work);
	pthread_mutex_unlock(&workers->lock);
	for (unsigned i = 0; i < workers->threads_count; i++)
		pthread_join(workers->threads[i], NULL);

	pthread_cond_destroy(&workers->done);
	pthread_cond_destroy(&workers->work);
	pthread_mutex_destroy(&workers->lock);
	free(workers);
}

void cad_workers_for(struct cad_workers *workers, size_t count, size_t grain, cad_rounds_fn *rounds, void *context)
{
	CAD_ASSERT(grain > 0);
	if (count == 0)
		return;
	if (!workers || count <= grain) {
		rounds(context, 0, count);
		return;
	}

	struct loop loop = { .rounds = rounds, .context = context, .count = count, .grain = grain };
	pthread_mutex_lock(&workers->lock);
	loop.older = workers->newest;
	workers->newest = &loop;
	pthread_cond_broadcast(&workers->work);
	while (loop.next < count)
		run_range(workers, &loop);
	while (loop.helpers > 0)
		pthread_cond_wait(&workers->done, &workers->lock);
	pthread_mutex_unlock(&workers->lock);
}

void cad_workers_retire(struct cad_workers *workers)
{
	pthread_mutex_lock(&workers->lock);
	workers->retired = true;
	pthread_mutex_unlock(&workers->lock);
}
