/* SPDX-License-Identifier: Apache-2.0 */
/* Small traces, and plans for them, in tests of the planner. Everything asserts through cmocka;
 * what is returned is the caller's. */
#ifndef CADRE_TESTS_SUPPORT_PLANS_H
#define CADRE_TESTS_SUPPORT_PLANS_H

#include "orchestration/planner/solve/search.h"
#include "orchestration/planner/solve/solve.h"
#include "orchestration/planner/trace/synthetic.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static inline struct pl_synthetic_trace generate(const struct pl_synthetic *settings)
{
	struct pl_synthetic_trace made;
	struct cad_error error;
	enum cad_status status = pl_synthetic_create(settings, &made, &error);
	if (status != CAD_OK)
		print_error("%s\n", error.text);
	assert_int_equal(status, CAD_OK);
	return made;
}

static inline struct pl_trace *make_trace(uint32_t layers, uint32_t experts, uint32_t k, uint64_t tokens,
	uint32_t communities, double strength, uint64_t seed)
{
	const struct pl_synthetic settings = {
		.layers = layers,
		.experts = experts,
		.k = k,
		.tokens = tokens,
		.seed = seed,
		.communities = communities,
		.strength = strength,
		.zipf = 0.5,
		.tasks = 4,
		.task_skew = 1,
		.locality = 0.5,
		.request_tokens = 20,
	};
	struct pl_synthetic_trace made = generate(&settings);
	struct pl_trace *trace = made.trace;

	made.trace = NULL;
	pl_synthetic_fini(&made);

	return trace;
}

static inline struct pl_solve_options options_for(
	const struct pl_trace *trace, const struct pl_cluster *cluster, uint32_t copies, uint32_t rounds)
{
	return (struct pl_solve_options){
		.trace = trace,
		.cluster = cluster,
		.weights = pl_weights_of(PL_WORKLOAD_MIXED),
		.copies = copies,
		.seed = 5,
		.rounds_max = rounds,
		.time_limit_ns = UINT64_MAX,
		.clock = &cad_clock_system,
		.threads = 1,
	};
}

static inline struct pl_solution solve(const struct pl_solve_options *options)
{
	struct pl_solution solution;
	struct cad_error error;
	enum cad_status status = pl_solve(options, &solution, &error);
	if (status != CAD_OK)
		print_message("%s\n", error.text);
	assert_int_equal(status, CAD_OK);
	return solution;
}

/* A search on the first layer of a trace, and what it stands on. */
struct scene {
	struct pl_sample *sample;
	struct pl_layer layer;
	struct pl_site site;
	struct pl_search search;
};

/* labels [experts]: where each begins. Cluster and weights are borrowed. */
static inline void scene_init(struct scene *scene, const struct pl_trace *trace, const struct pl_cluster *cluster,
	const struct pl_weights *weights, uint32_t copies, const uint32_t *labels)
{
	struct cad_error error;
	assert_int_equal(pl_sample_create(trace, 0, &scene->sample), CAD_OK);
	assert_int_equal(pl_layer_init(&scene->layer, scene->sample, 0, 1), CAD_OK);
	const struct pl_site_layer of = { 1, 0, trace->experts, copies, 0 };
	assert_int_equal(pl_site_init(&scene->site, cluster, weights, of, &error), CAD_OK);
	assert_int_equal(pl_search_init(&scene->search, &scene->layer, &scene->site), CAD_OK);
	assert_int_equal(pl_site_settle(&scene->site, labels, &scene->search.replicas, &error), CAD_OK);
	pl_search_reset(&scene->search);
}

static inline void scene_fini(struct scene *scene)
{
	pl_search_fini(&scene->search);
	pl_site_fini(&scene->site);
	pl_layer_fini(&scene->layer);
	pl_sample_free(scene->sample);
}

#endif
