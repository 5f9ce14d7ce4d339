/* SPDX-License-Identifier: Apache-2.0 */
/* A cluster of threads over the in-process link: routers and nodes at once, one node dies. Every
 * digest equals that of the request alone. Run under TSan too. */
#include "common/transport/local.h"
#include "tests/support/engines.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define MODEL CADRE_SOURCE_DIR "/tests/golden/qwen3moe-a/model"
enum { REQUESTS = 12, VOCAB = 512 };

static enum cad_status local_transport(void *context, const struct cad_transport_options *options,
	struct cad_transport **transport, struct cad_error *error)
{
	return cad_transport_local_create(options, context, transport, error);
}

static void pause_ms(long ms) { nanosleep(&(struct timespec){ .tv_nsec = ms * 1000000 }, NULL); }

static void run(uint32_t nodes, uint32_t routers, uint64_t seed, bool kill_one, bool copies)
{
	struct te_request expected[REQUESTS], requests[REQUESTS];
	struct te_cluster cluster;
	struct cad_local_hub *hub;

	te_requests(expected, REQUESTS, VOCAB, seed);
	te_requests(requests, REQUESTS, VOCAB, seed);
	te_expected(MODEL, expected, REQUESTS);
	assert_int_equal(cad_local_hub_create(&hub), CAD_OK);
	te_create(&cluster, MODEL, nodes, routers, seed, true, &cad_clock_system, local_transport, hub);
	if (copies)
		te_copy(&cluster);
	for (uint32_t i = 0; i < REQUESTS; i++)
		te_submit(&cluster, i % routers, &requests[i]);
	if (kill_one) {
		while (atomic_load(&requests[0].tokens) == 0)
			pause_ms(1);
		te_kill(&cluster, nodes - 1);
		if (!copies)
			te_reassign(&cluster, nodes - 1);
	}

	while (!te_all_ended(requests, REQUESTS)) {
		(void)rt_engine_health(cluster.routers[0]); /* what the control thread reads */
		pause_ms(1);
	}
	te_destroy(&cluster);
	cad_local_hub_destroy(hub);
	for (uint32_t i = 0; i < REQUESTS; i++) {
		assert_int_equal(requests[i].status, CAD_OK);
		assert_memory_equal(requests[i].digest, expected[i].digest, 16);
	}
}

static void one_router_three_nodes(void **state)
{
	(void)state;
	run(3, 1, 11, false, false);
}

static void two_routers_two_nodes(void **state)
{
	(void)state;
	run(2, 2, 12, false, false);
}

static void a_node_dies(void **state)
{
	(void)state;
	run(3, 2, 13, true, false);
}

/* Nobody loads its experts elsewhere: others have copies. */
static void a_node_with_copies_dies(void **state)
{
	(void)state;
	run(3, 2, 14, true, true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_router_three_nodes),
		cmocka_unit_test(two_routers_two_nodes),
		cmocka_unit_test(a_node_dies),
		cmocka_unit_test(a_node_with_copies_dies),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
