/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One word holds everything: generation << GENERATION_SHIFT | CLOSED | workers inside. The caller
 * opens a run by storing the next generation; a worker enters by adding 1 while it is open; the
 * caller closes it when the jobs are handed out and waits for those inside alone. All that sleep,
 * sleep on that word.
 */
#include "kernels/cpu/pool.h"

#include "common/base/clock.h"
#include "kernels/cpu/tune.h"
#include "kernels/kernels.h"

#include <immintrin.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
	INSIDE_MASK = 0x7f, /* KN_THREADS_MAX - 1 workers at most */
	CLOSED = 0x80,
	GENERATION_SHIFT = 8,
	MXCSR_DEFAULT = 0x1f80,
	MXCSR_FLAGS = 0x3f, /* sticky exception flags: no matter */
	WORKERS = 1,
	CALLER = 2,          /* futex bit sets */
	PAUSES_PER_LOOK = 4, /* at the clock */
};

struct worker {
	struct kn_pool *pool;
	unsigned index;
	pthread_t handle;
};

/* The jobs that a thread begins with; when they are done, it takes of others'. A line of its own:
 * one counter for all would travel between the cores with every job. */
struct share {
	_Alignas(64) _Atomic size_t next;
	size_t end;
};

struct kn_pool {
	_Alignas(64) _Atomic uint32_t state;
	_Atomic uint32_t sleepers; /* workers in futex_wait, or about to be */
	_Atomic uint32_t caller_sleeps;
	kn_job_fn *fn; /* NULL: the workers end */
	void *context;
	unsigned threads;
	uint64_t spin_ns; /* how long a thread looks for what is to come before it sleeps */
	struct share shares[KN_THREADS_MAX];
	struct worker workers[KN_THREADS_MAX];
};

static void futex_wait(_Atomic uint32_t *word, uint32_t seen, uint32_t who)
{
	syscall(SYS_futex, word, FUTEX_WAIT_BITSET_PRIVATE, seen, NULL, NULL, who);
}
static void futex_wake(_Atomic uint32_t *word, uint32_t who)
{
	syscall(SYS_futex, word, FUTEX_WAKE_BITSET_PRIVATE, INT_MAX, NULL, NULL, who);
}

struct spin {
	unsigned pauses;
	uint64_t until_ns;
};

/* A pause, unless it is time to sleep. What a pause takes differs by ten times among processors, so
 * time is what counts. */
static bool spin_on(const struct kn_pool *p, struct spin *spin)
{
	if (spin->pauses % PAUSES_PER_LOOK == 0) {
		uint64_t now_ns = cad_clock_now_ns(&cad_clock_system);
		if (spin->pauses == 0)
			spin->until_ns = now_ns + p->spin_ns;
		if (now_ns >= spin->until_ns)
			return false;
	}
	spin->pauses++;
	_mm_pause();

	return true;
}

static void work(struct kn_pool *p, unsigned thread)
{
	for (unsigned i = 0; i < p->threads; i++) {
		struct share *share = &p->shares[(thread + i) % p->threads];
		while (atomic_load_explicit(&share->next, memory_order_relaxed) < share->end) {
			size_t job = atomic_fetch_add_explicit(&share->next, 1, memory_order_relaxed);
			if (job < share->end)
				p->fn(p->context, job, thread);
		}
	}
}

/* The last one out of a closed run tells the caller. */
static void leave(struct kn_pool *p)
{
	uint32_t now = atomic_fetch_sub(&p->state, 1) - 1;
	if ((now & (CLOSED | INSIDE_MASK)) == CLOSED && atomic_load(&p->caller_sleeps))
		futex_wake(&p->state, CALLER);
}

static void *worker_main(void *argument)
{
	struct worker *w = argument;
	struct kn_pool *p = w->pool;

	_mm_setcsr(MXCSR_DEFAULT);
	struct spin spin = { 0 };
	for (uint32_t seen = 0;;) {
		uint32_t state = atomic_load(&p->state);
		if (!(state & CLOSED) && state >> GENERATION_SHIFT != seen) {
			if (!atomic_compare_exchange_weak(&p->state, &state, state + 1))
				continue;
			if (!p->fn) {
				leave(p);
				return NULL;
			}
			work(p, w->index);
			seen = state >> GENERATION_SHIFT;
			spin.pauses = 0;
			leave(p);
		} else if (!spin_on(p, &spin)) {
			/* Either the caller sees this sleeper after it opened a run, or futex_wait
			 * sees that the word has changed. */
			atomic_fetch_add(&p->sleepers, 1);
			futex_wait(&p->state, state, WORKERS);
			atomic_fetch_sub(&p->sleepers, 1);
		}
	}
}

static void open_run(struct kn_pool *p)
{
	uint32_t generation = (atomic_load_explicit(&p->state, memory_order_relaxed) >> GENERATION_SHIFT) + 1;
	atomic_store(&p->state, generation << GENERATION_SHIFT);
	if (atomic_load(&p->sleepers) != 0)
		futex_wake(&p->state, WORKERS);
}

static void close_run(struct kn_pool *p)
{
	uint32_t state = atomic_fetch_or(&p->state, CLOSED) | CLOSED;
	for (struct spin spin = { 0 }; state & INSIDE_MASK; state = atomic_load(&p->state)) {
		if (spin_on(p, &spin))
			continue;
		atomic_store(&p->caller_sleeps, 1);
		state = atomic_load(&p->state);
		if (state & INSIDE_MASK)
			futex_wait(&p->state, state, CALLER);
		atomic_store(&p->caller_sleeps, 0);
	}
}

enum cad_status kn_pool_create(unsigned threads, struct kn_pool **pool)
{
	CAD_ASSERT(threads >= 1 && threads <= KN_THREADS_MAX);
	struct kn_pool *p = aligned_alloc(64, kn_round_up(sizeof *p, 64));
	if (!p)
		return CAD_ERR_MEMORY;
	*p = (struct kn_pool){
		.state = CLOSED,
		.threads = 1,
		.spin_ns = threads <= kn_threads_default() ? KN_POOL_SPIN_NS : 0,
	};
	sigset_t all, before; /* signals are for the program's own threads */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);

	while (p->threads < threads) {
		struct worker *w = &p->workers[p->threads];
		*w = (struct worker){ .pool = p, .index = p->threads };
		if (pthread_create(&w->handle, NULL, worker_main, w) != 0)
			break;
		p->threads++;
	}

	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (p->threads < threads) {
		kn_pool_destroy(p);
		return CAD_ERR_MEMORY;
	}

	*pool = p;
	return CAD_OK;
}

void kn_pool_destroy(struct kn_pool *p)
{
	p->fn = NULL;
	open_run(p); /* and leave it open, so that every worker sees it */
	for (unsigned i = 1; i < p->threads; i++)
		pthread_join(p->workers[i].handle, NULL);
	free(p);
}

unsigned kn_pool_threads(const struct kn_pool *p) { return p->threads; }

void kn_pool_for(struct kn_pool *p, size_t jobs, kn_job_fn *fn, void *context)
{
	unsigned csr = _mm_getcsr();
	if ((csr & ~(unsigned)MXCSR_FLAGS) != MXCSR_DEFAULT)
		_mm_setcsr(MXCSR_DEFAULT);
	if (p->threads == 1 || jobs <= 1) {
		for (size_t job = 0; job < jobs; job++)
			fn(context, job, 0);
	} else {
		p->fn = fn;
		p->context = context;
		for (unsigned t = 0; t < p->threads; t++) {
			atomic_store_explicit(&p->shares[t].next, jobs * t / p->threads, memory_order_relaxed);
			p->shares[t].end = jobs * (t + 1) / p->threads;
		}
		open_run(p);
		work(p, 0);
		close_run(p);
	}

	if ((csr & ~(unsigned)MXCSR_FLAGS) != MXCSR_DEFAULT)
		_mm_setcsr(csr);
}
