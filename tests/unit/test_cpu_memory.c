/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks of every size are zero, aligned, apart from each other, and gone when they are freed. */
#include "kernels/cpu/memory.h"

#include "common/base/clock.h"
#include "tests/support/failing_alloc.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

enum { KB = 1 << 10, MB = 1 << 20, BLOCKS = 40, ROUNDS = 400, THREADS = 3 };

static const size_t sizes[] = { 0, 1, 63, 64, 65, 32 * KB - 1, 32 * KB, 32 * KB + 1, 2 * MB - 1, 2 * MB, 2 * MB + 1,
	5 * MB + 77, 32 * MB - 1, 32 * MB, 32 * MB + 1 };
enum { SIZES = sizeof sizes / sizeof *sizes };

struct user {
	struct kn_memory *memory;
	uint64_t seed;
	uint8_t *blocks[BLOCKS];
	size_t bytes[BLOCKS];
	unsigned wrong;
};

/* The first and the last bytes, and some between. */
static bool all_are(const uint8_t *block, size_t bytes, uint8_t value)
{
	for (size_t i = 0; i < bytes; i += i < 64 || i + 4096 > bytes ? 1 : 509)
		if (block[i] != value)
			return false;
	return true;
}

static void use(struct user *user, size_t slot, size_t bytes)
{
	uint8_t mark = (uint8_t)(slot + 1), *old = user->blocks[slot];
	if (old) {
		user->wrong += !all_are(old, user->bytes[slot], mark);
		kn_memory_free(user->memory, old, user->bytes[slot]);
		user->blocks[slot] = NULL;
		return;
	}
	uint8_t *block = kn_memory_alloc(user->memory, bytes);
	user->wrong += !block || (uintptr_t)block % 64 != 0 || !all_are(block, bytes, 0);
	memset(block, mark, bytes);
	user->blocks[slot] = block;
	user->bytes[slot] = bytes;
}

static void *use_at_random(void *context)
{
	struct user *user = context;
	struct cad_random random = { user->seed };
	for (size_t i = 0; i < ROUNDS; i++)
		use(user, cad_random_below(&random, BLOCKS), sizes[cad_random_below(&random, SIZES - 4)]);
	for (size_t i = 0; i < BLOCKS; i++)
		if (user->blocks[i])
			use(user, i, 0);
	return NULL;
}

static void blocks_of_every_size(void **state)
{
	(void)state;
	struct kn_memory memory;
	struct user user = { .memory = &memory };
	kn_memory_init(&memory);
	for (size_t i = 0; i < SIZES; i++)
		use(&user, i, sizes[i]);
	for (size_t i = 0; i < SIZES; i++)
		use(&user, i, 0);
	assert_int_equal(user.wrong, 0);
	kn_memory_free(&memory, NULL, 5 * MB);
	kn_memory_fini(&memory); /* nothing is left */
}

static void blocks_of_several_threads(void **state)
{
	(void)state;
	struct kn_memory memory;
	struct user users[THREADS];
	pthread_t threads[THREADS];
	kn_memory_init(&memory);
	for (size_t i = 0; i < THREADS; i++) {
		users[i] = (struct user){ .memory = &memory, .seed = i };
		assert_int_equal(pthread_create(&threads[i], NULL, use_at_random, &users[i]), 0);
	}
	for (size_t i = 0; i < THREADS; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(users[i].wrong, 0);
	}
	kn_memory_fini(&memory);
}

enum { COUNT = 60, BYTES = 2400 * KB, PAGE = 4 * KB };

/* What is in memory of the pages from the first of the blocks to the last. */
static size_t resident_bytes(uint8_t *const blocks[COUNT])
{
	uintptr_t first = UINTPTR_MAX, end = 0;
	size_t bytes = 0;
	for (size_t i = 0; i < COUNT; i++) {
		uintptr_t block = (uintptr_t)blocks[i];
		first = block < first ? block : first;
		end = block + BYTES > end ? block + BYTES : end;
	}
	for (uintptr_t page = first; page < end; page += PAGE) {
		unsigned char is_resident = 0;
		if (mincore((void *)page, PAGE, &is_resident) == 0) /* else nothing is mapped there */
			bytes += is_resident & 1 ? PAGE : 0;
	}
	return bytes;
}

/* Neither of what could be taken of it, nor of what keeps account. */
static void nothing_is_left_without_memory(void **state)
{
	(void)state;
	if (!test_allocations_can_fail())
		skip();
	long n = 0;

	for (bool failed = true; failed; n++) {
		struct kn_memory memory;
		kn_memory_init(&memory);
		long live = test_allocations_live();
		test_fail_allocation(n);
		void *block = kn_memory_alloc(&memory, MB);
		failed = test_fail_allocation_end();
		assert_int_equal(block == NULL, failed);
		kn_memory_free(&memory, block, MB);
		assert_int_equal(test_allocations_live(), live);
		kn_memory_fini(&memory);
	}
	assert_true(n > 3);
}

/* Matrices of 1.2 huge pages: side by side they take what they are, and freed ones nothing, though
 * others are between them. */
static void odd_sizes_waste_little(void **state)
{
	(void)state;
	struct kn_memory memory;
	uint8_t *blocks[COUNT];

	kn_memory_init(&memory);
	assert_int_equal(kn_cpu_allocated(BYTES), BYTES);
	for (size_t i = 0; i < COUNT; i++) {
		blocks[i] = kn_memory_alloc(&memory, BYTES);
		assert_non_null(blocks[i]);
		memset(blocks[i], 1, BYTES);
	}
	assert_in_range(resident_bytes(blocks), (size_t)COUNT * BYTES, (size_t)COUNT * BYTES + 8 * MB);

	for (size_t i = 0; i < COUNT; i++)
		if (i % 10 != 0)
			kn_memory_free(&memory, blocks[i], BYTES);
	assert_in_range(resident_bytes(blocks), (size_t)COUNT * BYTES / 10, (size_t)COUNT * BYTES / 3);
	for (size_t i = 0; i < COUNT; i += 10)
		kn_memory_free(&memory, blocks[i], BYTES);
	kn_memory_fini(&memory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(blocks_of_every_size),
		cmocka_unit_test(blocks_of_several_threads),
		cmocka_unit_test(nothing_is_left_without_memory),
		cmocka_unit_test(odd_sizes_waste_little),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
