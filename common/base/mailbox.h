/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bounded mailbox of pointers: any number of threads put, one thread takes. No locks, no
 * allocation after creation.
 *
 * The order of one sender is kept. put returns CAD_AGAIN when the mailbox is full; the sender
 * decides what to do. The receiver is woken by a callback (an event loop's async handle,
 * cad_transport_wake) or, when none is given, waits on an event fd. A wake costs a system call, so
 * it is made only when the receiver had found the box empty: a receiver must take until NULL before
 * it sleeps. After Dmitry Vyukov's bounded queue (a sequence number per cell).
 */
#ifndef CADRE_COMMON_BASE_MAILBOX_H
#define CADRE_COMMON_BASE_MAILBOX_H

#include "common/base/status.h"

#include <stdint.h>

struct cad_mailbox;

/* capacity: 1 .. 2^20, rounded up to a power of two. wake: called in the sender's thread, must not
 * block; NULL: an event fd is made. */
CAD_MUST_USE enum cad_status cad_mailbox_create(
	size_t capacity, void (*wake)(void *context), void *context, struct cad_mailbox **mailbox);
/* Nothing may use it any longer. What is still inside belongs to the caller. NULL is allowed. */
void cad_mailbox_destroy(struct cad_mailbox *mailbox);

/* Any thread. CAD_AGAIN: full, nothing was taken. `message` is not NULL. */
CAD_MUST_USE enum cad_status cad_mailbox_put(struct cad_mailbox *mailbox, void *message);
/* The receiver. NULL: empty, and the next put will wake. */
void *cad_mailbox_take(struct cad_mailbox *mailbox);

/* Event-fd mailboxes. wait: the receiver sleeps until there is a message, until cad_mailbox_wake,
 * or for this long (UINT64_MAX: without limit). */
void cad_mailbox_wait(struct cad_mailbox *mailbox, uint64_t timeout_ns);
/* readable after a wake, for an event loop; -1 with a callback */
int cad_mailbox_fd(const struct cad_mailbox *mailbox);
/* Any thread, either kind: wakes the receiver with nothing in the box. */
void cad_mailbox_wake(struct cad_mailbox *mailbox);

#endif
