/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Wakes a thread that sleeps in poll(2): an eventfd that is written only once until it is seen.
 *
 * Any thread may signal; the owner takes. Reference-counted, because both ends of a local
 * connection hold it.
 */
#ifndef CADRE_COMMON_TRANSPORT_WAKER_H
#define CADRE_COMMON_TRANSPORT_WAKER_H

#include "common/base/status.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cad_waker {
	_Atomic uint32_t references;
	_Atomic uint32_t signalled;
	int fd;
};
CAD_MUST_USE enum cad_status cad_waker_create(struct cad_waker **out);
void cad_waker_acquire(struct cad_waker *waker);
void cad_waker_release(struct cad_waker *waker);
void cad_waker_signal(struct cad_waker *waker); /* any thread */
bool cad_waker_take(struct cad_waker *waker);   /* owner: was it signalled since the last take? */
/* Sleeps on descriptors, those of wakers among them (and in ns, which poll(2) cannot); `timeout_ns`
 * 0 does not sleep. Returns whether the first is readable. */
bool cad_waker_sleep(const int *fds, size_t count, uint64_t timeout_ns);

#endif
