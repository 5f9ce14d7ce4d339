/* SPDX-License-Identifier: Apache-2.0 */
#include "common/transport/waker.h"

#include "common/base/clock.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

enum { SLEEP_FDS_MAX = 20 };

enum cad_status cad_waker_create(struct cad_waker **out)
{
	struct cad_waker *waker = calloc(1, sizeof *waker);
	if (!waker)
		return CAD_ERR_MEMORY;

	waker->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (waker->fd < 0) {
		free(waker);
		return CAD_ERR_IO;
	}

	atomic_init(&waker->references, 1);
	*out = waker;
	return CAD_OK;
}

void cad_waker_acquire(struct cad_waker *waker)
{
	atomic_fetch_add_explicit(&waker->references, 1, memory_order_relaxed);
}

void cad_waker_release(struct cad_waker *waker)
{
	if (!waker || atomic_fetch_sub_explicit(&waker->references, 1, memory_order_acq_rel) != 1)
		return;
	close(waker->fd);
	free(waker);
}

void cad_waker_signal(struct cad_waker *waker)
{
	if (atomic_exchange_explicit(&waker->signalled, 1, memory_order_acq_rel) != 0)
		return; /* the descriptor is readable already, or about to be */
	uint64_t one = 1;
	while (write(waker->fd, &one, sizeof one) < 0 && errno == EINTR)
		;
}

/* A signal that arrives before the word is cleared is this one: its cause is looked at after
 * this. */
bool cad_waker_take(struct cad_waker *waker)
{
	if (atomic_load_explicit(&waker->signalled, memory_order_acquire) == 0)
		return false;

	struct pollfd ready = { .fd = waker->fd, .events = POLLIN };
	while (poll(&ready, 1, -1) < 0 && errno == EINTR) /* the signaller is between its two steps */
		;
	uint64_t count;
	while (read(waker->fd, &count, sizeof count) < 0 && errno == EINTR)
		;
	atomic_exchange_explicit(&waker->signalled, 0, memory_order_acq_rel);
	return true;
}

bool cad_waker_sleep(const int *fds, size_t count, uint64_t timeout_ns)
{
	CAD_ASSERT(count <= SLEEP_FDS_MAX);
	struct pollfd polled[SLEEP_FDS_MAX];
	for (size_t i = 0; i < count; i++)
		polled[i] = (struct pollfd){ .fd = fds[i], .events = POLLIN };
	struct timespec timeout = {
		.tv_sec = (time_t)(timeout_ns / CAD_NS_PER_S),
		.tv_nsec = (long)(timeout_ns % CAD_NS_PER_S),
	};
	bool for_ever = timeout_ns / CAD_NS_PER_S > 1u << 30;
	int ready = ppoll(polled, (nfds_t)count, for_ever ? NULL : &timeout, NULL);
	CAD_ASSERT(ready >= 0 || errno == EINTR || errno == ENOMEM);
	return ready > 0 && polled[0].revents != 0;
}
