/* SPDX-License-Identifier: Apache-2.0 */
/* Free memory, from files as the kernel writes them. */
#include "common/process/memory.h"
#include "tests/support/fake_root.h"

#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void the_tightest_limit(void **state)
{
	(void)state;
	assert_int_equal(cad_memory_free_bytes(fake_root), 0); /* nothing is known */
	fake_root_write(
		"proc/meminfo", "MemTotal:       16000 kB\nMemFree:         1000 kB\nMemAvailable:    8000 kB\n");
	assert_int_equal(cad_memory_free_bytes(fake_root), 8000 * 1024);

	/* a container: its group is the root */
	fake_root_write("proc/self/cgroup", "0::/\n");
	fake_root_write("sys/fs/cgroup/memory.max", "max\n");
	assert_int_equal(cad_memory_free_bytes(fake_root), 8000 * 1024);
	fake_root_write("sys/fs/cgroup/memory.max", "5000000\n");
	fake_root_write("sys/fs/cgroup/memory.current", "1000000\n");
	assert_int_equal(cad_memory_free_bytes(fake_root), 4000000);
	fake_root_write(
		"sys/fs/cgroup/memory.stat", "anon 300000\nfile 700000\ninactive_file 500000\nactive_file 200000\n");
	assert_int_equal(cad_memory_free_bytes(fake_root), 4700000);

	/* a service below a slice, beside groups of version 1 */
	fake_root_write("proc/self/cgroup", "12:pids:/other\n0::/system.slice/cadre.service\n");
	fake_root_write("sys/fs/cgroup/system.slice/memory.max", "3000000\n");
	fake_root_write("sys/fs/cgroup/system.slice/memory.current", "500000\n");
	fake_root_write("sys/fs/cgroup/system.slice/cadre.service/memory.max", "max\n");
	assert_int_equal(cad_memory_free_bytes(fake_root), 2500000);
	fake_root_write("sys/fs/cgroup/system.slice/cadre.service/memory.max", "1000\n");
	fake_root_write("sys/fs/cgroup/system.slice/cadre.service/memory.current", "400\n");
	assert_int_equal(cad_memory_free_bytes(fake_root), 600);
	fake_root_write("sys/fs/cgroup/system.slice/cadre.service/memory.current", "4000\n");
	assert_int_equal(cad_memory_free_bytes(fake_root), 0);
}

static void limits_of_version_1(void **state)
{
	(void)state;
	fake_root_write("proc/meminfo", "MemAvailable:    8000 kB\n");
	fake_root_write("proc/self/cgroup", "9:name=systemd:/\n5:cpuset,memory:/docker/1234\n0::/\n");
	fake_root_write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"); /* none */
	assert_int_equal(cad_memory_free_bytes(fake_root), 8000 * 1024);
	fake_root_write("sys/fs/cgroup/memory/docker/1234/memory.limit_in_bytes", "5000000\n");
	fake_root_write("sys/fs/cgroup/memory/docker/1234/memory.usage_in_bytes", "1000000\n");
	fake_root_write("sys/fs/cgroup/memory/docker/1234/memory.stat",
		"inactive_file 1\nactive_file 1\ntotal_inactive_file 500000\ntotal_active_file 200000\n");
	assert_int_equal(cad_memory_free_bytes(fake_root), 4700000);

	/* a container: its group is the root, whatever the kernel calls it */
	fake_root_write("proc/self/cgroup", "5:memory:/docker/5678\n");
	fake_root_write("sys/fs/cgroup/memory/memory.limit_in_bytes", "3000000\n");
	assert_int_equal(cad_memory_free_bytes(fake_root), 3000000);
}

static void here(void **state)
{
	(void)state;
	assert_true(cad_memory_free_bytes("") > 0);
}

/* What a burst of connections leaves: most of it is free, in pieces between what is not. */
static void what_is_free_goes_back(void **state)
{
	(void)state;
	enum { PIECES = 4096, BYTES = 64 << 10, KEPT_EVERY = 256 };
	static void *pieces[PIECES];
	uint64_t least = 0;

	mallopt(M_MMAP_THRESHOLD, 2 * BYTES); /* so they come from the heap */
	cad_memory_trim(&least);
	assert_true(least > 0);
	for (int i = 0; i < PIECES; i++) {
		pieces[i] = malloc(BYTES);
		assert_non_null(pieces[i]);
		memset(pieces[i], 1, BYTES);
	}
	for (int i = 0; i < PIECES; i++)
		if (i % KEPT_EVERY != 0)
			free(pieces[i]);
	if (mallinfo2().uordblks == 0)
		skip(); /* a sanitizer's allocator */

	uint64_t now = 0;
	cad_memory_trim(&least);
	cad_memory_trim(&now); /* only looks, the first time */
	assert_true(now < least + CAD_MEMORY_KEPT_BYTES);
	for (int i = 0; i < PIECES; i += KEPT_EVERY)
		free(pieces[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(the_tightest_limit), cmocka_unit_test(limits_of_version_1),
		cmocka_unit_test(here), cmocka_unit_test(what_is_free_goes_back) };
	return cmocka_run_group_tests_name("memory", tests, fake_root_create, fake_root_destroy);
}
