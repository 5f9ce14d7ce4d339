/* SPDX-License-Identifier: Apache-2.0 */
/* Nodes whose devices fail wait longer each time before they may join again. */
#include "common/base/clock.h"
#include "orchestration/placement/faults.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static uint64_t minutes_ns(uint64_t minutes) { return minutes * 60 * CAD_NS_PER_S; }

static struct pl_node node(const char *id, const char *isa)
{
	struct pl_node made = { .role = PL_ROLE_EXPERT };
	snprintf(made.id, sizeof made.id, "%s", id);
	snprintf(made.isa, sizeof made.isa, "%s", isa);
	return made;
}

static bool may_join(const struct pl_faults *faults, const char *id, const char *isa, uint64_t now_ns)
{
	struct cad_error error;
	return pl_faults_check(faults, id, isa, now_ns, &error) == CAD_OK;
}

static void waits_longer_each_time(void **state)
{
	(void)state;
	static struct pl_faults faults;
	static const uint64_t minutes[] = { 0, 1, 2, 4, 8, 16, 32, 64, 64 };
	const struct pl_node broken = node("e1", "cuda");
	uint64_t now_ns = minutes_ns(10);

	assert_true(may_join(&faults, "e1", "cuda", now_ns));
	for (size_t i = 0; i < sizeof minutes / sizeof *minutes; i++) {
		pl_faults_add(&faults, &broken, now_ns);
		assert_true(may_join(&faults, "e2", "cuda", now_ns));
		assert_true(may_join(&faults, "e1", "avx2", now_ns)); /* with another device */
		if (minutes[i] > 0)
			assert_false(may_join(&faults, "e1", "cuda", now_ns + minutes_ns(minutes[i]) - 1));
		now_ns += minutes_ns(minutes[i]);
		assert_true(may_join(&faults, "e1", "cuda", now_ns));
	}

	struct cad_error error;
	pl_faults_add(&faults, &broken, now_ns);
	assert_int_equal(pl_faults_check(&faults, "e1", "cuda", now_ns, &error), CAD_ERR_REFUSED);
	assert_string_equal(error.text,
		"the device of 'e1' has failed 10 times: it may join again 64 minutes after the last time, or now with --device cpu; see its log and its GPU");
}

static void forgets_what_was_long_ago(void **state)
{
	(void)state;
	static struct pl_faults faults;
	const struct pl_node broken = node("e1", "cuda"), mended = node("e1", "cuda-new");
	pl_faults_add(&faults, &broken, minutes_ns(1));
	pl_faults_add(&faults, &broken, minutes_ns(2));
	assert_false(may_join(&faults, "e1", "cuda", minutes_ns(2)));
	pl_faults_add(&faults, &broken, minutes_ns(200)); /* its first for long */
	assert_true(may_join(&faults, "e1", "cuda", minutes_ns(200)));
	pl_faults_add(&faults, &mended, minutes_ns(201)); /* another device's first */
	assert_true(may_join(&faults, "e1", "cuda-new", minutes_ns(201)));
}

/* Of too many, who failed longest ago is forgotten. */
static void has_room_for_so_many(void **state)
{
	(void)state;
	static struct pl_faults faults;
	char id[CAD_MAP_ID_BYTES];
	for (int i = 0; i <= PL_FAULTS_MAX; i++) {
		snprintf(id, sizeof id, "e%d", i);
		const struct pl_node broken = node(id, "cuda");
		pl_faults_add(&faults, &broken, minutes_ns(1) + (uint64_t)i);
		pl_faults_add(&faults, &broken, minutes_ns(1) + (uint64_t)i);
	}
	assert_true(may_join(&faults, "e0", "cuda", minutes_ns(1)));
	for (int i = 1; i <= PL_FAULTS_MAX; i++) {
		snprintf(id, sizeof id, "e%d", i);
		assert_false(may_join(&faults, id, "cuda", minutes_ns(1)));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(waits_longer_each_time),
		cmocka_unit_test(forgets_what_was_long_ago),
		cmocka_unit_test(has_room_for_so_many),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
