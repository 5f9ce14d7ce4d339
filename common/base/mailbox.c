/* SPDX-License-Identifier: Apache-2.0 */
#include "common/base/mailbox.h"

#include <errno.h>
#include <poll.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

enum { CAPACITY_MAX = 1 << 20, LINE_BYTES = 64 };

/* `turn` says whose turn a cell is: position p may be written when it is p, and read when it is p +
 * 1. */
struct cell {
	atomic_size_t turn;
	void *message;
};

struct cad_mailbox {
	alignas(LINE_BYTES) atomic_size_t tail; /* senders */
	alignas(LINE_BYTES) size_t head;        /* the receiver alone */
	alignas(LINE_BYTES) atomic_bool armed;  /* the receiver found the box empty and may be asleep */
	size_t mask;
	void (*wake)(void *context);
	void *context;
	int fd;
	struct cell *cells;
};

enum cad_status cad_mailbox_create(
	size_t capacity, void (*wake)(void *context), void *context, struct cad_mailbox **mailbox)
{
	CAD_ASSERT(capacity >= 1 && capacity <= CAPACITY_MAX);
	size_t cells = 2; /* with one cell, "full" and "to be read" would look alike */
	while (cells < capacity)
		cells *= 2;
	struct cad_mailbox *box = aligned_alloc(LINE_BYTES, sizeof *box);
	if (!box)
		return CAD_ERR_MEMORY;
	*box = (struct cad_mailbox){ .mask = cells - 1, .wake = wake, .context = context, .fd = -1 };
	box->cells = calloc(cells, sizeof *box->cells);
	if (!box->cells)
		goto free_box;
	for (size_t i = 0; i < cells; i++)
		atomic_init(&box->cells[i].turn, i);
	if (!wake && (box->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) < 0)
		goto free_cells;
	*mailbox = box;
	return CAD_OK;

free_cells:
	free(box->cells);
free_box:
	free(box);

	return CAD_ERR_MEMORY;
}

void cad_mailbox_destroy(struct cad_mailbox *box)
{
	if (!box)
		return;
	if (box->fd >= 0)
		close(box->fd);
	free(box->cells);
	free(box);
}

enum cad_status cad_mailbox_put(struct cad_mailbox *box, void *message)
{
	CAD_ASSERT(message);
	size_t position = atomic_load_explicit(&box->tail, memory_order_relaxed);
	struct cell *cell;
	for (;;) {
		cell = &box->cells[position & box->mask];
		size_t turn = atomic_load_explicit(&cell->turn, memory_order_acquire);
		ptrdiff_t ahead = (ptrdiff_t)(turn - position);
		if (ahead < 0)
			return CAD_AGAIN;
		if (ahead > 0)
			position = atomic_load_explicit(&box->tail, memory_order_relaxed);
		else if (atomic_compare_exchange_weak_explicit(
				 &box->tail, &position, position + 1, memory_order_relaxed, memory_order_relaxed))
			break;
	}

	cell->message = message;

	/* Sequentially consistent, here and in take: either this sees `armed`, or the receiver's
	 * second look sees the message. */
	atomic_store(&cell->turn, position + 1);
	if (atomic_load(&box->armed) && atomic_exchange(&box->armed, false))
		cad_mailbox_wake(box);

	return CAD_OK;
}

static void *take_one(struct cad_mailbox *box)
{
	struct cell *cell = &box->cells[box->head & box->mask];
	if (atomic_load(&cell->turn) != box->head + 1)
		return NULL;
	void *message = cell->message;
	atomic_store_explicit(&cell->turn, box->head + box->mask + 1, memory_order_release);
	box->head++;
	return message;
}

void *cad_mailbox_take(struct cad_mailbox *box)
{
	void *message = take_one(box);
	if (message)
		return message;
	atomic_store(&box->armed, true);
	message = take_one(box);
	if (message)
		atomic_store(&box->armed, false);
	return message;
}

void cad_mailbox_wait(struct cad_mailbox *box, uint64_t timeout_ns)
{
	CAD_ASSERT(box->fd >= 0);
	struct timespec timeout = {
		.tv_sec = (time_t)(timeout_ns / 1000000000u),
		.tv_nsec = (long)(timeout_ns % 1000000000u),
	};
	struct pollfd watch = { .fd = box->fd, .events = POLLIN };
	if (ppoll(&watch, 1, timeout_ns == UINT64_MAX ? NULL : &timeout, NULL) < 1)
		return;
	uint64_t count;
	CAD_ASSERT(read(box->fd, &count, sizeof count) == sizeof count || errno == EAGAIN);
}

int cad_mailbox_fd(const struct cad_mailbox *box) { return box->fd; }

void cad_mailbox_wake(struct cad_mailbox *box)
{
	if (box->wake) {
		box->wake(box->context);
		return;
	}
	uint64_t one = 1;
	/* EAGAIN: it is readable already */
	CAD_ASSERT(write(box->fd, &one, sizeof one) == sizeof one || errno == EAGAIN);
}
