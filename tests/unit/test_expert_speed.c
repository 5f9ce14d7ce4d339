/* SPDX-License-Identifier: Apache-2.0 */
/* What a node measures of itself before it joins. */
#include "common/base/clock.h"
#include "expert-svc/speed.h"
#include "tests/support/expert_calls.h"
#include "tests/support/must.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static void figures_of_every_profile(void **state)
{
	(void)state;
	struct expert_world world;
	expert_world_init(&world, "olmoe-a");
	for (enum cad_weights kind = CAD_WEIGHTS_AS_IS; kind <= CAD_WEIGHTS_INT4; kind++) {
		struct ex_speed speed;
		uint64_t from_ns = cad_clock_now_ns(&cad_clock_system);
		assert_int_equal(ex_speed_measure(world.device, world.model, kind, 2, &speed), CAD_OK);
		uint64_t ms = (cad_clock_now_ns(&cad_clock_system) - from_ns) / CAD_NS_PER_MS;
		print_message("%s: %.3g bytes/s, %.3g multiply-adds/s, %.3g s per step, in %llu ms\n",
			cad_weights_name(kind), speed.read_bytes_per_second, speed.multiply_adds_per_second,
			speed.step_s, (unsigned long long)ms);
		assert_true(speed.read_bytes_per_second > 1e4 && speed.read_bytes_per_second < 1e14);
		assert_true(speed.multiply_adds_per_second > 1e4 && speed.multiply_adds_per_second < 1e17);
		assert_true(speed.step_s > 0 && speed.step_s < 1);
		assert_true(speed.given == 0);
		assert_true(ms < 10 * EX_SPEED_MS); /* a sanitizer, and others on this machine */
	}
	expert_world_fini(&world);
}

/* A device whose memory is full, or that breaks: nothing is kept, and it is said. */
static struct kn_ops limited;
static const struct kn_ops *real;
static int allocations, waits;

static void *alloc(struct kn_device *device, size_t bytes)
{
	return allocations-- > 0 ? real->alloc(device, bytes) : NULL;
}

static enum cad_status wait_for(struct kn_queue *queue)
{
	enum cad_status status = real->wait(queue);
	return waits-- > 0 ? status : CAD_ERR_IO;
}

static void a_device_that_is_full_or_broken(void **state)
{
	(void)state;
	struct expert_world world;
	struct ex_speed speed;
	expert_world_init(&world, "olmoe-a");
	struct kn_device *device = world.device;
	real = device->ops;
	limited = *real;
	limited.alloc = alloc;
	limited.wait = wait_for;
	device->ops = &limited;

	waits = 1 << 30;
	for (int n = 0; n < 4; n++) {
		allocations = n;
		assert_int_equal(ex_speed_measure(device, world.model, CAD_WEIGHTS_INT8, 2, &speed), CAD_ERR_MEMORY);
		assert_true(speed.read_bytes_per_second == 0);
	}
	allocations = 1 << 30;
	waits = 0;
	assert_int_equal(ex_speed_measure(device, world.model, CAD_WEIGHTS_INT8, 2, &speed), CAD_ERR_IO);
	waits = 30;
	assert_int_equal(ex_speed_measure(device, world.model, CAD_WEIGHTS_INT8, 2, &speed), CAD_ERR_IO);
	assert_true(speed.read_bytes_per_second == 0);
	device->ops = real;
	expert_world_fini(&world);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(figures_of_every_profile),
		cmocka_unit_test(a_device_that_is_full_or_broken),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
