/* SPDX-License-Identifier: Apache-2.0 */
/* Nodes and leases, on a clock that the test turns. */
#include "common/base/clock.h"
#include "orchestration/placement/registry.h"
#include "tests/support/must.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LEASE = 3000, GRACE = 200, FORGET = 60000 };

static int setup(void **state)
{
	struct pl_registry *registry = malloc(sizeof *registry);
	pl_registry_init(registry, LEASE, GRACE, FORGET);
	*state = registry;
	return 0;
}

static int teardown(void **state)
{
	free(*state);
	return 0;
}

static struct pl_hello expert(const char *id, uint32_t pid)
{
	return (struct pl_hello){
		.id = id,
		.role = PL_ROLE_EXPERT,
		.exchange_address = "127.0.0.1:7400",
		.http_address = "",
		.grpc_address = "",
		.kernels_fingerprint = "k",
		.version = "0",
		.isa = "avx2",
		.memory_bytes = 100,
		.threads = 2,
		.pid = pid,
	};
}

static uint32_t join(struct pl_registry *registry, const struct pl_hello *hello, uint64_t session, uint64_t now)
{
	uint32_t slot;
	uint64_t superseded;
	struct cad_error error;
	must(pl_registry_join(registry, hello, session, now, &slot, &superseded, &error), &error);
	return slot;
}

/* An older node says nothing, and one is given by hand. */
static void each_counts_beside_the_others(void **state)
{
	struct pl_registry *registry = *state;
	const struct pl_speed_work work = { .experts = 8, .topk = 2, .multiply_adds = 1e6 };
	struct pl_hello slow = expert("slow", 1), fast = expert("fast", 2), old = expert("old", 3),
			told = expert("told", 4);
	slow.expert_bytes = fast.expert_bytes = 1000000;
	slow.speed = (struct pl_speed){ .read_bytes_per_second = 1e9, .multiply_adds_per_second = 1e12 };
	fast.speed = (struct pl_speed){ .read_bytes_per_second = 8e9, .multiply_adds_per_second = 8e12 };
	told.speed.given = 3;

	uint32_t at = join(registry, &fast, 1, 0);
	pl_registry_compare(registry, &work);
	assert_true(registry->nodes[at].speed == 1);
	uint32_t others[] = { join(registry, &slow, 2, 0), join(registry, &old, 3, 0), join(registry, &told, 4, 0) };
	pl_registry_compare(registry, &work);
	assert_true(registry->nodes[at].speed == 8);
	assert_true(registry->nodes[others[0]].speed == 1);
	assert_true(registry->nodes[others[1]].speed == 1);
	assert_true(registry->nodes[others[2]].speed == 3);
}

static void lives_as_long_as_it_reports(void **state)
{
	struct pl_registry *registry = *state;
	struct pl_hello hello = expert("a", 1);
	uint32_t slot = join(registry, &hello, 1, 0);
	struct pl_load load = { .rows = 0 };

	for (uint64_t now = 1000; now <= 10000; now += 1000) {
		assert_int_equal(pl_registry_expire(registry, now), -1);
		load.rows += 500;
		pl_registry_renew(registry, slot, &load, now);
	}

	assert_int_equal(pl_registry_deadline_ns(registry), 10000 + LEASE);
	assert_int_equal(pl_registry_expire(registry, 10000 + LEASE - 1), -1);
	assert_int_equal(pl_registry_expire(registry, 10000 + LEASE), slot);
	assert_int_equal(registry->nodes[slot].presence, PL_DEAD);
	assert_int_equal(registry->nodes[slot].session, 1); /* the caller closes that stream */
	assert_int_equal(pl_registry_expire(registry, 10000 + LEASE), -1);
	assert_int_equal(pl_registry_find(registry, "a"), slot);
	assert_int_equal(pl_registry_expire(registry, 10000 + LEASE + FORGET), -1);
	assert_int_equal(pl_registry_find(registry, "a"), -1);
	assert_true(pl_registry_deadline_ns(registry) == UINT64_MAX);
}

static void rates_come_from_differences(void **state)
{
	struct pl_registry *registry = *state;
	struct pl_hello hello = expert("a", 1);

	registry->lease_ns = 100 * CAD_NS_PER_S;
	uint32_t slot = join(registry, &hello, 1, 0);
	pl_registry_renew(registry, slot, &(struct pl_load){ .rows = 100, .tokens = 7 }, CAD_NS_PER_S);
	assert_true(registry->nodes[slot].rows_per_second == 0);
	pl_registry_renew(registry, slot, &(struct pl_load){ .rows = 300, .tokens = 8 }, 3 * CAD_NS_PER_S);
	assert_true(registry->nodes[slot].rows_per_second == 100.0 && registry->nodes[slot].tokens_per_second == 0.5);

	/* its counters began again */
	pl_registry_renew(registry, slot, &(struct pl_load){ .rows = 10, .tokens = 1 }, 4 * CAD_NS_PER_S);
	assert_true(registry->nodes[slot].rows_per_second == 0);
}

static void broken_stream_has_a_short_grace(void **state)
{
	struct pl_registry *registry = *state;
	struct pl_hello hello = expert("a", 1);
	uint32_t slot = join(registry, &hello, 1, 0);

	pl_registry_broken(registry, slot, 100);
	assert_int_equal(registry->nodes[slot].presence, PL_BROKEN);
	assert_true(pl_node_counts(&registry->nodes[slot]));
	assert_int_equal(pl_registry_expire(registry, 299), -1);
	assert_int_equal(join(registry, &hello, 2, 299), slot); /* in time */
	assert_int_equal(pl_registry_expire(registry, 1000), -1);
	pl_registry_broken(registry, slot, 1000);
	assert_int_equal(pl_registry_expire(registry, 1200), slot);
	assert_int_equal(join(registry, &hello, 3, 1300), slot); /* the dead may come back, to their place */
	assert_int_equal(registry->nodes[slot].presence, PL_LIVE);
}

/* A break just before the end of the lease does not prolong it. */
static void grace_never_outlives_the_lease(void **state)
{
	struct pl_registry *registry = *state;
	struct pl_hello hello = expert("a", 1);
	uint32_t slot = join(registry, &hello, 1, 0);
	pl_registry_broken(registry, slot, LEASE - 10);
	assert_int_equal(pl_registry_expire(registry, LEASE), slot);
}

static void goodbye_is_death_at_once(void **state)
{
	struct pl_registry *registry = *state;
	struct pl_hello hello = expert("a", 1);
	uint32_t slot = join(registry, &hello, 1, 0);
	pl_registry_leave(registry, slot, 50);
	assert_int_equal(pl_registry_expire(registry, 50), slot);
}

static void second_process_with_one_id_is_refused(void **state)
{
	struct pl_registry *registry = *state;
	struct pl_hello first = expert("a", 1), second = expert("a", 2);
	struct cad_error error;
	uint32_t slot = join(registry, &first, 1, 0), other;
	uint64_t superseded;

	assert_int_equal(pl_registry_join(registry, &second, 2, 10, &other, &superseded, &error), CAD_ERR_REFUSED);
	assert_string_equal(error.text,
		"node id 'a' is already in use (pid 1, 127.0.0.1:7400): choose another --id or stop that node");
	assert_int_equal(registry->nodes[slot].session, 1);

	/* the very same process, before its old stream was seen to break */
	must(pl_registry_join(registry, &first, 3, 20, &other, &superseded, &error), &error);
	assert_int_equal(other, slot);
	assert_int_equal(superseded, 1);
	pl_registry_broken(registry, slot, 30);
	must(pl_registry_join(registry, &second, 4, 40, &other, &superseded, &error), &error);
	assert_int_equal(superseded, 0);
}

/* A process whose exchange was made anew says the same place with another worker. */
static void a_new_worker_is_the_same_process(void **state)
{
	struct pl_registry *registry = *state;
	struct pl_hello hello = expert("a", 1);
	uint32_t slot;
	uint64_t superseded;
	struct cad_error error;

	hello.exchange_address = "127.0.0.1:7400/ucx-1.13.1/0000000000000001/AAAA";
	join(registry, &hello, 1, 0);
	hello.exchange_address = "127.0.0.1:7400/ucx-1.13.1/0000000000000002/AAAA";
	must(pl_registry_join(registry, &hello, 2, 10, &slot, &superseded, &error), &error);
	assert_int_equal(superseded, 1);
	hello.exchange_address = "127.0.0.1:7401/ucx-1.13.1/0000000000000003/AAAA";
	assert_int_equal(pl_registry_join(registry, &hello, 3, 20, &slot, &superseded, &error), CAD_ERR_REFUSED);
	assert_string_equal(error.text,
		"node id 'a' is already in use (pid 1, 127.0.0.1:7400): choose another --id or stop that node");
}

static void bad_hellos_are_refused(void **state)
{
	struct pl_registry *registry = *state;
	char long_id[80], long_address[CAD_MAP_ADDRESS_BYTES + 1], long_exchange[CAD_EXCHANGE_ADDRESS_BYTES + 1];

	memset(long_id, 'x', sizeof long_id - 1), long_id[sizeof long_id - 1] = 0;
	memset(long_address, 'x', sizeof long_address - 1), long_address[sizeof long_address - 1] = 0;
	memset(long_exchange, 'x', sizeof long_exchange - 1), long_exchange[sizeof long_exchange - 1] = 0;
	struct pl_hello hellos[] = { expert("", 1), expert("a b", 1), expert("a\n", 1), expert(long_id, 1),
		expert("a", 1), expert("a", 1), expert("a", 1) };
	hellos[4].exchange_address = "";
	hellos[5].http_address = long_address;
	hellos[6].exchange_address = long_exchange;

	for (size_t i = 0; i < sizeof hellos / sizeof hellos[0]; i++) {
		uint32_t slot;
		uint64_t superseded;
		struct cad_error error;
		assert_int_equal(
			pl_registry_join(registry, &hellos[i], 1, 0, &slot, &superseded, &error), CAD_ERR_INVALID);
	}

	assert_true(pl_registry_deadline_ns(registry) == UINT64_MAX);
}

/* With everybody alive there is no room for one more of a role, though there is for one of the
 * other; when every slot is taken, the one that has been dead longest makes room. */
static void slots_are_reused_in_order_of_death(void **state)
{
	struct pl_registry *registry = *state;
	char id[16];
	struct pl_hello hello = expert(id, 1);

	for (unsigned i = 0; i < CAD_NODES_MAX; i++) {
		snprintf(id, sizeof id, "n%u", i);
		join(registry, &hello, i + 1, 0);
	}

	uint32_t slot;
	uint64_t superseded;
	struct cad_error error;
	snprintf(id, sizeof id, "late");
	assert_int_equal(pl_registry_join(registry, &hello, 5000, 1, &slot, &superseded, &error), CAD_ERR_EXHAUSTED);
	assert_string_equal(error.text, "'late' cannot join: 512 expert nodes have joined, which is the limit");

	hello.role = PL_ROLE_ROUTER;
	for (unsigned i = 0; i < CAD_ROUTERS_MAX; i++) {
		snprintf(id, sizeof id, "r%u", i);
		join(registry, &hello, CAD_NODES_MAX + i + 1, 0);
	}
	snprintf(id, sizeof id, "late");
	assert_int_equal(pl_registry_join(registry, &hello, 5000, 1, &slot, &superseded, &error), CAD_ERR_EXHAUSTED);
	assert_string_equal(error.text, "'late' cannot join: 512 routers have joined, which is the limit");

	hello.role = PL_ROLE_EXPERT;
	pl_registry_leave(registry, 7, 10);
	assert_int_equal(pl_registry_expire(registry, 10), 7);
	pl_registry_leave(registry, 3, 20);
	assert_int_equal(pl_registry_expire(registry, 20), 3);
	assert_int_equal(join(registry, &hello, 5000, 30), 7);
	assert_int_equal(pl_registry_count(registry, PL_ROLE_EXPERT, PL_LIVE), CAD_NODES_MAX - 1);
}

static void expected_nodes_have_their_time(void **state)
{
	struct pl_registry *registry = *state;
	struct pl_hello a = expert("a", 1), b = expert("b", 2);
	struct cad_error error;
	uint32_t slot_a, slot_b;

	must(pl_registry_expect(registry, &a, 5000, &slot_a, &error), &error);
	must(pl_registry_expect(registry, &b, 5000, &slot_b, &error), &error);
	assert_int_equal(join(registry, &b, 1, 4000), slot_b);
	assert_int_equal(pl_registry_expire(registry, 4999), -1);
	assert_int_equal(pl_registry_expire(registry, 5000), slot_a);
	assert_int_equal(pl_registry_expire(registry, 5000), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(each_counts_beside_the_others, setup, teardown),
		cmocka_unit_test_setup_teardown(lives_as_long_as_it_reports, setup, teardown),
		cmocka_unit_test_setup_teardown(rates_come_from_differences, setup, teardown),
		cmocka_unit_test_setup_teardown(broken_stream_has_a_short_grace, setup, teardown),
		cmocka_unit_test_setup_teardown(grace_never_outlives_the_lease, setup, teardown),
		cmocka_unit_test_setup_teardown(goodbye_is_death_at_once, setup, teardown),
		cmocka_unit_test_setup_teardown(second_process_with_one_id_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(a_new_worker_is_the_same_process, setup, teardown),
		cmocka_unit_test_setup_teardown(bad_hellos_are_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(slots_are_reused_in_order_of_death, setup, teardown),
		cmocka_unit_test_setup_teardown(expected_nodes_have_their_time, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
