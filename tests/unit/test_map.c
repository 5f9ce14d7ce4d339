/* SPDX-License-Identifier: Apache-2.0 */
/* The map: made from parts and from messages, looked up, and refused when its parts contradict each
 * other. */
#include "common/cluster/map.h"

#include "cadre/v1/types.pb-c.h"
#include "common/base/clock.h"
#include "tests/support/must.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct cad_map_node two_nodes[] = { { "a", "127.0.0.1:1", "127.0.0.1:2", true, 0 },
	{ "b", "127.0.0.1:3", "", true, 0 } };
static const uint32_t two_layers[] = { 1, 3 };

static struct cad_map_source small_source(const struct cad_map_replica *replicas, size_t count)
{
	return (struct cad_map_source){
		.epoch = 7,
		.nodes = two_nodes,
		.nodes_count = 2,
		.layers = two_layers,
		.layers_count = 2,
		.experts = 3,
		.replicas = replicas,
		.replicas_count = count,
	};
}

static void looks_up_what_was_put_in(void **state)
{
	(void)state;
	const struct cad_map_replica replicas[] = { { 3, 2, 1 }, { 1, 0, 1 }, { 1, 0, 0 }, { 3, 1, 0 } };
	const struct cad_map_source source = small_source(replicas, 4);
	struct cad_map *map;
	struct cad_error error;
	must(cad_map_create(&source, &map, &error), &error);
	assert_int_equal(map->epoch, 7);
	struct cad_map_replicas found = cad_map_replicas(map, 1, 0);
	assert_int_equal(found.count, 2);
	assert_int_equal(found.nodes[0], 0);
	assert_int_equal(found.nodes[1], 1);
	assert_int_equal(cad_map_replicas(map, 1, 1).count, 0);
	assert_int_equal(cad_map_replicas(map, 3, 1).count, 1);
	assert_int_equal(cad_map_replicas(map, 3, 2).nodes[0], 1);

	/* outside: a dense layer, an expert past the end, a layer past every limit */
	assert_int_equal(cad_map_replicas(map, 2, 0).count, 0);
	assert_int_equal(cad_map_replicas(map, 1, 3).count, 0);
	assert_int_equal(cad_map_replicas(map, UINT32_MAX, 0).count, 0);
	assert_int_equal(cad_map_node_find(map, "b"), 1);
	assert_int_equal(cad_map_node_find(map, "c"), CAD_MAP_NONE);
	assert_int_equal(cad_map_node_experts(map, 0), 2);
	assert_int_equal(cad_map_unplaced(map), 3);
	cad_map_release(map);
}

static void dense_model_has_an_empty_map(void **state)
{
	(void)state;
	const struct cad_map_source source = { .epoch = 1 };
	struct cad_map *map;
	assert_int_equal(cad_map_create(&source, &map, NULL), CAD_OK);
	assert_int_equal(cad_map_replicas(map, 0, 0).count, 0);
	assert_int_equal(cad_map_unplaced(map), 0);
	Cadre__V1__Map *message;
	assert_int_equal(cad_map_to_message(map, &message), CAD_OK);
	assert_int_equal(cadre__v1__map__get_packed_size(message), 2);
	free(message);
	cad_map_release(map);
}

struct refusal {
	const char *what;
	struct cad_map_source source;
	enum cad_status status;
	const char *says;
};

static void contradictions_are_refused(void **state)
{
	(void)state;
	static const struct cad_map_node twins[] = { { "a", "x:1", "", true, 0 }, { "a", "x:2", "", true, 0 } },
					 nameless[] = { { "", "x:1", "", true, 0 } },
					 nowhere[] = { { "a", "", "", true, 0 } },
					 hasty[] = { { "a", "x:1", "", true, -1 } },
					 odd[] = { { "a b", "x:1", "", true, 0 } },
					 half_dead[] = { { "a", "x:1", "", true, 0 }, { "b", "x:2", "", false, 0 } };
	static const uint32_t falling[] = { 3, 1 }, equal[] = { 1, 1 }, far[] = { 1, CAD_LAYERS_MAX };
	static const struct cad_map_replica on_a[] = { { 1, 0, 0 } }, on_b[] = { { 1, 0, 1 } },
					    twice[] = { { 1, 0, 0 }, { 1, 0, 0 } }, in_dense[] = { { 2, 0, 0 } },
					    past_expert[] = { { 1, 3, 0 } }, past_node[] = { { 1, 0, 2 } },
					    past_layer[] = { { 1u << 31, 0, 0 } };
	struct refusal cases[] = {
		{ "epoch 0", small_source(on_a, 1), CAD_ERR_CORRUPT, "epoch 0" },
		{ "same id", small_source(on_a, 1), CAD_ERR_CORRUPT, "two nodes have the id 'a'" },
		{ "no id", small_source(on_a, 1), CAD_ERR_CORRUPT, "has the id ''" },
		{ "blank in id", small_source(on_a, 1), CAD_ERR_CORRUPT, "has the id 'a b'" },
		{ "no address", small_source(on_a, 1), CAD_ERR_CORRUPT, "no exchange address" },
		{ "dead replica", small_source(on_b, 1), CAD_ERR_CORRUPT, "'b', which is dead" },
		{ "layers fall", small_source(on_a, 1), CAD_ERR_CORRUPT, "layer 1 follows layer 3" },
		{ "layer twice", small_source(on_a, 1), CAD_ERR_CORRUPT, "layer 1 follows layer 1" },
		{ "layer too far", small_source(on_a, 1), CAD_ERR_CORRUPT, "layer 512" },
		{ "replica twice", small_source(twice, 2), CAD_ERR_CORRUPT, "'a' twice" },
		{ "dense layer", small_source(in_dense, 1), CAD_ERR_CORRUPT, "layer 2, which is not an MoE layer" },
		{ "expert", small_source(past_expert, 1), CAD_ERR_CORRUPT, "has 3 experts, a replica names expert 3" },
		{ "node", small_source(past_node, 1), CAD_ERR_CORRUPT, "names node 2 of 2" },
		{ "far layer", small_source(past_layer, 1), CAD_ERR_CORRUPT, "not an MoE layer" },
		{ "experts without layers", small_source(NULL, 0), CAD_ERR_CORRUPT, "both or neither" },
		{ "too many replicas", small_source(on_a, 13), CAD_ERR_CORRUPT, "more than there are places for" },
		{ "too many experts", small_source(on_a, 1), CAD_ERR_EXHAUSTED, "the limit is 1024" },
		{ "too many nodes", small_source(on_a, 1), CAD_ERR_EXHAUSTED, "the limit is 512" },
		{ "speed", small_source(on_a, 1), CAD_ERR_CORRUPT, "node 'a' has speed -1" },
	};
	cases[0].source.epoch = 0;
	cases[1].source.nodes = twins;
	cases[2].source.nodes = nameless, cases[2].source.nodes_count = 1;
	cases[3].source.nodes = odd, cases[3].source.nodes_count = 1;
	cases[4].source.nodes = nowhere, cases[4].source.nodes_count = 1;
	cases[5].source.nodes = half_dead;
	cases[6].source.layers = falling;
	cases[7].source.layers = equal;
	cases[8].source.layers = far;
	cases[14].source.layers_count = 0;
	cases[16].source.experts = CAD_EXPERTS_MAX + 1;
	cases[17].source.nodes_count = CAD_NODES_MAX + 1;
	cases[18].source.nodes = hasty, cases[18].source.nodes_count = 1;

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct cad_map *map = NULL;
		struct cad_error error = { .text = "" };
		enum cad_status status = cad_map_create(&cases[i].source, &map, &error);
		if (status != cases[i].status || !strstr(error.text, cases[i].says))
			fail_msg("%s: %s, '%s'", cases[i].what, cad_status_name(status), error.text);
		assert_null(map);
	}
}

/* Random maps go to bytes and back without a difference. */
static void survives_the_wire(void **state)
{
	(void)state;
	uint64_t seed = 20240611;
	print_message("seed %llu\n", (unsigned long long)seed);
	struct cad_random random = { seed };
	for (int round = 0; round < 50; round++) {
		uint32_t nodes_count = (uint32_t)cad_random_below(&random, 9),
			 layers_count = 1 + (uint32_t)cad_random_below(&random, 6),
			 experts = 1 + (uint32_t)cad_random_below(&random, 40);
		struct cad_map_node nodes[8];
		char ids[8][16];
		for (uint32_t i = 0; i < nodes_count; i++) {
			snprintf(ids[i], sizeof ids[i], "node-%u", i);
			nodes[i] = (struct cad_map_node){ ids[i], "127.0.0.1:7400", "", i % 3 != 2, (float)i };
		}
		uint32_t layers[6];
		for (uint32_t i = 0; i < layers_count; i++)
			layers[i] = (i ? layers[i - 1] + 1 : 0) + (uint32_t)cad_random_below(&random, 3);
		struct cad_map_replica *replicas = malloc(sizeof *replicas * 6 * 40 * 8);
		size_t count = 0;
		for (uint32_t l = 0; l < layers_count; l++)
			for (uint32_t e = 0; e < experts; e++)
				for (uint32_t n = 0; n < nodes_count; n++)
					if (nodes[n].live && cad_random_below(&random, 3) == 0)
						replicas[count++] = (struct cad_map_replica){ layers[l], e, n };
		const struct cad_map_source source = {
			.epoch = 1 + cad_random_below(&random, 1000),
			.nodes = nodes,
			.nodes_count = nodes_count,
			.layers = layers,
			.layers_count = layers_count,
			.experts = experts,
			.replicas = replicas,
			.replicas_count = count,
		};
		struct cad_map *map, *again;
		struct cad_error error;
		must(cad_map_create(&source, &map, &error), &error);
		Cadre__V1__Map *message;
		assert_int_equal(cad_map_to_message(map, &message), CAD_OK);
		size_t bytes = cadre__v1__map__get_packed_size(message);
		uint8_t *packed = malloc(bytes + 1);
		assert_int_equal(cadre__v1__map__pack(message, packed), bytes);
		Cadre__V1__Map *unpacked = cadre__v1__map__unpack(NULL, bytes, packed);
		assert_non_null(unpacked);
		must(cad_map_from_message(unpacked, &again, &error), &error);
		assert_int_equal(again->epoch, map->epoch);
		assert_int_equal(again->nodes_count, map->nodes_count);
		for (uint32_t n = 0; n < nodes_count; n++) {
			assert_string_equal(again->nodes[n].id, ids[n]);
			assert_int_equal(again->nodes[n].live, nodes[n].live);
			assert_true(again->nodes[n].speed == (n > 0 ? (float)n : 1));
		}
		for (uint32_t l = 0; l < CAD_LAYERS_MAX; l++)
			for (uint32_t e = 0; e < experts; e++) {
				struct cad_map_replicas a = cad_map_replicas(map, l, e),
							b = cad_map_replicas(again, l, e);
				assert_int_equal(a.count, b.count);
				if (a.count)
					assert_memory_equal(a.nodes, b.nodes, a.count * sizeof *a.nodes);
			}
		cadre__v1__map__free_unpacked(unpacked, NULL);
		cad_map_release(again);
		cad_map_release(map);
		free(message);
		free(packed);
		free(replicas);
	}
}

/* Layers of different sizes and counts past the limits exist only in messages. */
static void hostile_messages_are_refused(void **state)
{
	(void)state;
	Cadre__V1__Replicas none = CADRE__V1__REPLICAS__INIT, *three[] = { &none, &none, &none };
	Cadre__V1__LayerMap first = CADRE__V1__LAYER_MAP__INIT, second = CADRE__V1__LAYER_MAP__INIT,
			    *layers[] = { &first, &second };
	first.experts = second.experts = three;
	first.n_experts = 3, second.n_experts = 2, second.layer = 1;
	Cadre__V1__Map message = CADRE__V1__MAP__INIT;
	message.epoch = 1;
	message.layers = layers, message.n_layers = 2;
	struct cad_map *map;
	struct cad_error error;
	assert_int_equal(cad_map_from_message(&message, &map, &error), CAD_ERR_CORRUPT);
	assert_string_equal(error.text, "map: layer 1 has 2 experts, layer 0 has 3");
	second.n_experts = 3;
	uint32_t nobody[] = { 0 };
	none.nodes = nobody, none.n_nodes = 1;
	assert_int_equal(cad_map_from_message(&message, &map, &error), CAD_ERR_CORRUPT);
	assert_non_null(strstr(error.text, "1 replicas on 0 nodes"));
	none.n_nodes = 0;
	message.n_layers = CAD_LAYERS_MAX + 1;
	assert_int_equal(cad_map_from_message(&message, &map, &error), CAD_ERR_EXHAUSTED);
	message.n_layers = 2;
	message.n_nodes = CAD_NODES_MAX + 1;
	assert_int_equal(cad_map_from_message(&message, &map, &error), CAD_ERR_EXHAUSTED);
}

static void *hold_and_let_go(void *map)
{
	for (int i = 0; i < 20000; i++) {
		struct cad_map *held = cad_map_acquire(map);
		(void)cad_map_replicas(held, 1, 0);
		cad_map_release(held);
	}
	cad_map_release(map);
	return NULL;
}

static void threads_share_one_map(void **state)
{
	(void)state;
	const struct cad_map_source source = small_source(NULL, 0);
	struct cad_map *map;
	assert_int_equal(cad_map_create(&source, &map, NULL), CAD_OK);
	pthread_t threads[4];
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, hold_and_let_go, cad_map_acquire(map)), 0);
	cad_map_release(map);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	assert_null(cad_map_acquire(NULL));
	cad_map_release(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(looks_up_what_was_put_in),
		cmocka_unit_test(dense_model_has_an_empty_map),
		cmocka_unit_test(contradictions_are_refused),
		cmocka_unit_test(survives_the_wire),
		cmocka_unit_test(hostile_messages_are_refused),
		cmocka_unit_test(threads_share_one_map),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
