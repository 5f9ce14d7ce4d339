/* SPDX-License-Identifier: Apache-2.0 */
/* What of a device's memory is for weights, and how a device with too little is refused. */
#include "expert-svc/store/memory.h"
#include "tests/support/must.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static const uint64_t MIB = 1 << 20, GIB = 1 << 30;

/* 80 GiB, of which 79 are free; the reserve is 1 GiB, 8 MiB and 640 MiB; experts take 100 MiB. */
static struct kn_device_info gpu;
static struct ex_memory_ask ask;

static int fresh(void **state)
{
	(void)state;
	gpu = (struct kn_device_info){
		.name = "gpu",
		.memory_bytes = 79 * GIB,
		.memory_total_bytes = 80 * GIB,
		.queue_bytes = 8 * MIB,
		.driver_bytes = 640 * MIB,
	};
	ask = (struct ex_memory_ask){
		.device = &gpu,
		.nodes = 1,
		.step_bytes = GIB,
		.expert_bytes = 100 * MIB,
		.experts = 10000,
	};
	return 0;
}

static struct ex_memory planned(void)
{
	struct ex_memory memory;
	struct cad_error error = { 0 };
	must(ex_memory_plan(&ask, &memory, &error), &error);
	return memory;
}

static void refused(const char *says)
{
	struct ex_memory memory;
	struct cad_error error = { 0 };
	assert_int_equal(ex_memory_plan(&ask, &memory, &error), CAD_ERR_EXHAUSTED);
	if (!strstr(error.text, says))
		fail_msg("'%s' is not in: %s", says, error.text);
}

static void a_gpu_is_filled_but_for_the_reserve(void **state)
{
	(void)state;
	struct ex_memory memory = planned();
	assert_int_equal(memory.slots, (78 * GIB - 648 * MIB) / (100 * MIB));
	assert_int_equal(memory.weights_bytes, memory.slots * 100 * MIB);
	assert_int_equal(memory.device_bytes, 80 * GIB);
	assert_int_equal(memory.step_bytes + memory.queue_bytes + memory.driver_bytes, GIB + 648 * MIB);

	ask.experts = 12; /* all of them, and no more */
	assert_int_equal(planned().slots, 12);
	ask.memory_bytes = 250 * MIB;
	assert_int_equal(planned().slots, 2);
	assert_int_equal(planned().weights_bytes, 200 * MIB);
}

/* The second finds less free, and takes no more than its part. */
static void nodes_share_a_gpu(void **state)
{
	(void)state;
	uint64_t part = 40 * GIB - GIB - 648 * MIB;
	ask.nodes = 2;
	assert_int_equal(planned().slots, part / (100 * MIB));
	gpu.memory_bytes -= 2 * GIB + planned().weights_bytes;
	assert_in_range(planned().slots, 1, part / (100 * MIB) - 1);

	ask.nodes = 100; /* whose parts hold none */
	refused("no room for one expert of this model");
	ask.memory_bytes = 300 * MIB;
	assert_int_equal(planned().slots, 3);
}

static void a_gpu_without_room_is_refused(void **state)
{
	(void)state;
	ask.memory_bytes = 78 * GIB;
	refused("--memory asks for 78.0 GiB, but device 'gpu' has 80.0 GiB, of which 79.0 GiB are free and 1.6 GiB stay "
		"reserved (1.0 GiB for steps, 8.0 MiB for the queue, 640.0 MiB for the driver): give this node at "
		"most 77.4 GiB");
	ask.memory_bytes = 99 * MIB;
	refused("one expert of this model takes 104857600");
	ask.memory_bytes = 0;
	gpu.memory_bytes = GIB + 700 * MIB;
	refused("no room for one expert of this model, which takes 100.0 MiB: device 'gpu' has 80.0 GiB, of which 1.7 GiB "
		"are free");
	gpu.memory_bytes = 0;
	refused("of which 0 B are free");
	ask.memory_bytes = 1;
	refused("give this node at most 0 B");
}

static void the_hosts_memory_is_for_others_too(void **state)
{
	(void)state;
	gpu.memory_total_bytes = gpu.queue_bytes = gpu.driver_bytes = 0;
	gpu.memory_bytes = 10 * GIB;
	assert_int_equal(planned().weights_bytes, 8 * GIB);
	assert_int_equal(planned().slots, 81);
	ask.experts = 3; /* nothing is taken before it is needed */
	assert_int_equal(planned().slots, 81);
	ask.nodes = 4;
	assert_int_equal(planned().weights_bytes, 2 * GIB);
	ask.memory_bytes = 100 * GIB;
	assert_int_equal(planned().weights_bytes, 100 * GIB);
	ask.memory_bytes = 5;
	refused("there are 5 bytes for expert weights, but one expert of this model takes 104857600");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(a_gpu_is_filled_but_for_the_reserve, fresh),
		cmocka_unit_test_setup(nodes_share_a_gpu, fresh),
		cmocka_unit_test_setup(a_gpu_without_room_is_refused, fresh),
		cmocka_unit_test_setup(the_hosts_memory_is_for_others_too, fresh),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
