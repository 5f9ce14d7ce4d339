/* SPDX-License-Identifier: Apache-2.0 */
/* What NVML tells of a GPU, and what comes of it: with the library of fake_nvml.c and the emulated GPU,
 * which it knows. */
#include "kernels/kernels.h"
#include "tests/support/file_write.h"
#include "tests/support/must.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char path[] = "/tmp/cadre-test-nvml-XXXXXX";

/* From now on the library says this. */
static void say(const char *text) { file_write(path, text); }

static struct kn_device *open_device(unsigned index)
{
	struct kn_device *device;
	struct cad_error error;
	must(kn_device_open(&(struct kn_device_options){ .kind = KN_DEVICE_EMU, .index = index }, &device, &error),
		&error);
	return device;
}

static void is_refused(unsigned index, const char *text)
{
	struct kn_device *device = open_device(index);
	struct kn_health health;
	char why[KN_FAILURE_BYTES];
	assert_false(device->ops->health(device, &health, why));
	assert_string_equal(why, text);
	assert_false(device->ops->failed(device, why)); /* it computes without */
	device->ops->destroy(device);
}

static void who_is_not_known_is_not_told_of(void **state)
{
	(void)state;
	say("init 9\n");
	is_refused(0, "NVML cannot tell of the GPU at ffff:ff:00.0: Driver Not Loaded");
	say("");
	is_refused(1, "NVML cannot tell of the GPU at ffff:ff:01.0: Not Found");
}

static struct kn_health ask(struct kn_device *device)
{
	struct kn_health health;
	char why[KN_FAILURE_BYTES];
	assert_true(device->ops->health(device, &health, why));
	return health;
}

static void tells_what_is_known(void **state)
{
	(void)state;
	static const double expected[KN_HEALTH_COUNT] = {
		[KN_HEALTH_MEMORY_USED] = 5e9,
		[KN_HEALTH_MEMORY_TOTAL] = 150e9,
		[KN_HEALTH_BUSY] = 0.93,
		[KN_HEALTH_MEMORY_BUSY] = 0.41,
		[KN_HEALTH_SM_CLOCK] = 1980e6,
		[KN_HEALTH_MEMORY_CLOCK] = 3201e6,
		[KN_HEALTH_POWER] = 612.25,
		[KN_HEALTH_TEMPERATURE] = 71,
		[KN_HEALTH_ECC_CORRECTED] = 12,
		[KN_HEALTH_ECC_UNCORRECTED] = 0,
	};
	struct kn_device *device = open_device(0);
	say("total 150000000000\nused 5000000000\ngpu 93\nmemory 41\nsm 1980\nmem 3201\npower 612250\n"
	    "temperature 71\ncorrected 12\nuncorrected 0\nthrottle 68\n");
	struct kn_health health = ask(device);
	for (int i = 0; i < KN_HEALTH_COUNT; i++)
		assert_true(fabs(health.values[i] - expected[i]) <= 1e-9 * expected[i]);
	assert_true(health.throttling_known);
	assert_int_equal(health.throttled, 1u << KN_THROTTLE_POWER | 1u << KN_THROTTLE_HEAT);

	say("temperature 30\n"); /* of a GPU that has little to say */
	health = ask(device);
	for (int i = 0; i < KN_HEALTH_COUNT; i++)
		assert_true(i == KN_HEALTH_TEMPERATURE ? health.values[i] > 29 : isnan(health.values[i]));
	assert_false(health.throttling_known);
	assert_int_equal(health.throttled, 0);
	device->ops->destroy(device);
}

static void has_failed(struct kn_device *device, const char *text)
{
	char why[KN_FAILURE_BYTES];
	ask(device);
	assert_true(device->ops->failed(device, why));
	assert_string_equal(why, text);
	device->ops->destroy(device);
}

static void a_gpu_that_is_lost_has_failed(void **state)
{
	(void)state;
	struct kn_device *device = open_device(0);
	say("temperature 30\n");
	ask(device);
	say("temperature 30\nlost 1\n");
	has_failed(device, "GPU is lost, NVML says");
}

/* Those from before this process have harmed nobody here. */
static void new_errors_of_its_memory_are_a_failure(void **state)
{
	(void)state;
	char why[KN_FAILURE_BYTES];
	struct kn_device *device = open_device(0);
	say("uncorrected 3\n");
	ask(device);
	ask(device);
	assert_false(device->ops->failed(device, why));
	say("uncorrected 5\n");
	has_failed(device, "its memory had 2 errors that ECC cannot correct since this process began");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(who_is_not_known_is_not_told_of),
		cmocka_unit_test(tells_what_is_known),
		cmocka_unit_test(a_gpu_that_is_lost_has_failed),
		cmocka_unit_test(new_errors_of_its_memory_are_a_failure),
	};
	int fd = mkstemp(path);
	if (fd < 0)
		return 1;
	close(fd);
	setenv("CADRE_FAKE_NVML", path, 1);
	setenv("CADRE_EMU_DEVICES", "2", 1);
	int failures = cmocka_run_group_tests_name("nvml", tests, NULL, NULL);
	unlink(path);
	return failures;
}
