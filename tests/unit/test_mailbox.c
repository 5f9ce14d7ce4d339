/* SPDX-License-Identifier: Apache-2.0 */
/* The mailbox: order, fullness, wakes, and nothing lost between threads. */
#include "common/base/mailbox.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

static void *as_message(uintptr_t number) { return (void *)number; }

static void full_and_empty(void **state)
{
	(void)state;
	for (size_t capacity = 1; capacity <= 9; capacity++) {
		struct cad_mailbox *box;
		assert_int_equal(cad_mailbox_create(capacity, NULL, NULL, &box), CAD_OK);
		size_t held = 0;
		while (cad_mailbox_put(box, as_message(held + 1)) == CAD_OK)
			held++;
		assert_in_range(held, capacity, 16);
		for (uintptr_t round = 0; round < 40; round++) { /* round and round the ring */
			assert_ptr_equal(cad_mailbox_take(box), as_message(round + 1));
			assert_int_equal(cad_mailbox_put(box, as_message(held + round + 1)), CAD_OK);
			assert_int_equal(cad_mailbox_put(box, as_message(1)), CAD_AGAIN);
		}
		for (size_t i = 0; i < held; i++)
			assert_non_null(cad_mailbox_take(box));
		assert_null(cad_mailbox_take(box));
		cad_mailbox_destroy(box);
	}
}

static void count_wake(void *context) { atomic_fetch_add((atomic_int *)context, 1); }

/* One wake for the first message after the receiver found the box empty, none for the others. */
static void wakes_only_sleepers(void **state)
{
	(void)state;
	atomic_int wakes = 0;
	struct cad_mailbox *box;
	assert_int_equal(cad_mailbox_create(8, count_wake, &wakes, &box), CAD_OK);
	assert_int_equal(cad_mailbox_fd(box), -1);
	assert_null(cad_mailbox_take(box));
	for (uintptr_t i = 1; i < 4; i++)
		assert_int_equal(cad_mailbox_put(box, as_message(i)), CAD_OK);
	assert_int_equal(atomic_load(&wakes), 1);
	assert_non_null(cad_mailbox_take(box));
	assert_int_equal(cad_mailbox_put(box, as_message(9)), CAD_OK);
	assert_int_equal(atomic_load(&wakes), 1);
	cad_mailbox_wake(box);
	assert_int_equal(atomic_load(&wakes), 2);
	cad_mailbox_destroy(box);
}

static void event_fd(void **state)
{
	(void)state;
	struct cad_mailbox *box;
	assert_int_equal(cad_mailbox_create(8, NULL, NULL, &box), CAD_OK);
	struct pollfd watch = { .fd = cad_mailbox_fd(box), .events = POLLIN };
	assert_null(cad_mailbox_take(box));
	assert_int_equal(poll(&watch, 1, 0), 0);
	assert_int_equal(cad_mailbox_put(box, as_message(1)), CAD_OK);
	assert_int_equal(poll(&watch, 1, 0), 1);
	cad_mailbox_wait(box, UINT64_MAX); /* returns at once, and clears */
	assert_int_equal(poll(&watch, 1, 0), 0);
	cad_mailbox_wait(box, 1000);
	cad_mailbox_wake(box);
	cad_mailbox_wait(box, UINT64_MAX);
	cad_mailbox_destroy(box);
}

enum { SENDERS = 3, MESSAGES = 20000 };
struct sender {
	struct cad_mailbox *box;
	uintptr_t id;
};

static void *send_all(void *argument)
{
	struct sender *sender = argument;
	for (uintptr_t i = 1; i <= MESSAGES; i++)
		while (cad_mailbox_put(sender->box, as_message(sender->id * 1000000 + i)) != CAD_OK)
			sched_yield();
	return NULL;
}

/* Every message comes, in its sender's order; the receiver sleeps whenever the box is empty, so a
 * lost wake would hang. */
static void nothing_is_lost(void **state)
{
	(void)state;
	struct cad_mailbox *box;
	assert_int_equal(cad_mailbox_create(64, NULL, NULL, &box), CAD_OK);
	pthread_t threads[SENDERS];
	struct sender senders[SENDERS];
	for (uintptr_t i = 0; i < SENDERS; i++) {
		senders[i] = (struct sender){ box, i };
		assert_int_equal(pthread_create(&threads[i], NULL, send_all, &senders[i]), 0);
	}

	uintptr_t last[SENDERS] = { 0 };
	for (size_t taken = 0; taken < SENDERS * MESSAGES;) {
		uintptr_t message = (uintptr_t)cad_mailbox_take(box);
		if (!message) {
			cad_mailbox_wait(box, UINT64_MAX);
			continue;
		}
		assert_int_equal(message % 1000000, last[message / 1000000] + 1);
		last[message / 1000000]++;
		taken++;
	}

	for (size_t i = 0; i < SENDERS; i++)
		pthread_join(threads[i], NULL);
	assert_null(cad_mailbox_take(box));
	cad_mailbox_destroy(box);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(full_and_empty),
		cmocka_unit_test(wakes_only_sleepers),
		cmocka_unit_test(event_fd),
		cmocka_unit_test(nothing_is_lost),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
