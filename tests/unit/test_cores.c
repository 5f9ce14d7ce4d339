/* SPDX-License-Identifier: Apache-2.0 */
/* Cores, from files as the kernel writes them. */
#include "common/process/cores.h"
#include "tests/support/fake_root.h"

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static unsigned all_cores(void)
{
	cpu_set_t set;
	assert_int_equal(sched_getaffinity(0, sizeof set, &set), 0);
	return (unsigned)CPU_COUNT(&set);
}

/* Of a quota of so many, on this machine. */
static unsigned least(unsigned quota) { return quota < all_cores() ? quota : all_cores(); }

static void the_tightest_quota(void **state)
{
	(void)state;
	assert_int_equal(cad_cores(fake_root), all_cores()); /* nothing is known */
	fake_root_write("proc/self/cgroup", "0::/\n");
	fake_root_write("sys/fs/cgroup/cpu.max", "max 100000\n");
	assert_int_equal(cad_cores(fake_root), all_cores());
	fake_root_write("sys/fs/cgroup/cpu.max", "150000 100000\n");
	assert_int_equal(cad_cores(fake_root), least(2));
	fake_root_write("sys/fs/cgroup/cpu.max", "1000 100000\n");
	assert_int_equal(cad_cores(fake_root), 1);
	fake_root_write("sys/fs/cgroup/cpu.max", "900000000 100000\n");
	assert_int_equal(cad_cores(fake_root), all_cores());

	/* a service below a slice */
	fake_root_write("proc/self/cgroup", "0::/system.slice/cadre.service\n");
	fake_root_write("sys/fs/cgroup/system.slice/cpu.max", "50000 50000\n");
	assert_int_equal(cad_cores(fake_root), 1);
	fake_root_write("sys/fs/cgroup/system.slice/cpu.max", "max 50000\n");
	fake_root_write("sys/fs/cgroup/system.slice/cadre.service/cpu.max", "20001 20000\n");
	assert_int_equal(cad_cores(fake_root), least(2));
}

static void quotas_of_version_1(void **state)
{
	(void)state;
	fake_root_write("proc/self/cgroup", "4:cpuset:/no\n3:cpu,cpuacct:/docker/1234\n0::/\n");
	fake_root_write("sys/fs/cgroup/cpu.max", "1000 100000\n"); /* of no use: the controller is elsewhere */
	fake_root_write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
	fake_root_write("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
	assert_int_equal(cad_cores(fake_root), all_cores());
	fake_root_write("sys/fs/cgroup/cpu/docker/1234/cpu.cfs_quota_us", "100000\n");
	fake_root_write("sys/fs/cgroup/cpu/docker/1234/cpu.cfs_period_us", "100000\n");
	assert_int_equal(cad_cores(fake_root), 1);
}

static void here(void **state)
{
	(void)state;
	assert_in_range(cad_cores(""), 1, all_cores());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_tightest_quota),
		cmocka_unit_test(quotas_of_version_1),
		cmocka_unit_test(here),
	};
	return cmocka_run_group_tests_name("cores", tests, fake_root_create, fake_root_destroy);
}
