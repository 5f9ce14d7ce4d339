/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a plan would do with recorded routing: the metrics that tests/planners/measure.py computes
 * independently, by the same definitions.
 *
 * Tokens are walked in decode order, each is covered with the router's own rule
 * (common/cluster/cover.h), and the load that this gives enters the next choice. Pure but for the
 * memory that it allocates and frees; layers are measured in as many threads as asked for, and the
 * result does not depend on how many.
 */
#ifndef CADRE_ORCHESTRATION_PLANNER_PREDICT_MEASURE_H
#define CADRE_ORCHESTRATION_PLANNER_PREDICT_MEASURE_H

#include "common/process/options.h"
#include "orchestration/planner/objective/cluster.h"
#include "orchestration/planner/objective/layer.h"
#include "orchestration/planner/objective/plan.h"

/* How the router chooses among copies: by the cover alone, or sparing busy nodes (the guard of
 * common/cluster/cover.h). */
enum pl_router { PL_ROUTER_COVER, PL_ROUTER_GUARD };
extern const struct cad_choice pl_router_choices[];

enum { PL_ROW_BYTES = 8192 }; /* one row out, and about as much back */

struct pl_layer_metrics {
	double nodes; /* touched by a token, mean */
	double racks; /* likewise */
	/* of the nodes, those that the same token did not touch in the layer before; 0 in the first
	 * layer */
	double fresh;
	/* of the nodes, those that are not the source: a request's source is node (its index mod
	 * nodes) */
	double remote;
	/* the busiest node's rows over the part that is fair by speed (1: even) */
	double load;
	double batch_load; /* the same within batches of 64 tokens, mean over batches */
	/* distinct experts for a batch of 64: on the busiest node, and over all nodes; means over
	 * batches */
	double activated, activated_mean;
	uint32_t busiest;  /* node */
	double *node_load; /* [nodes] likewise */
};

struct pl_metrics {
	double nodes_per_token, nodes_p99, nodes_per_token_worst_layer, racks_per_token, bytes_per_token_layer;
	double fresh_nodes_per_token; /* mean over all layers but the first */
	double load_mean, load_worst, batch_load_mean, activated_ratio, activated_max, replicas;
	uint32_t layers;
	struct pl_layer_metrics *layer; /* [layers] */
};

/* The plan must be of the trace's layers and experts, and of the cluster's nodes. threads 0: one
 * per core. */
CAD_MUST_USE enum cad_status pl_measure(const struct pl_sample *sample, const struct pl_plan *plan,
	const struct pl_cluster *cluster, enum pl_router router, uint32_t threads, struct pl_metrics *metrics);
/* The load of the busiest node over the mean, averaged over layers and in the worst layer, expected
 * on as many new tokens as were planned on. */
struct pl_busiest_load {
	double mean, worst;
};
/*
 * The load to expect, given the plan's load on the `planned_tokens` that it was made for and on
 * `held_tokens` others. Part of the difference is chance, which is larger with fewer tokens. It
 * adds to the busiest node in proportion to sqrt(1 / planned + 1 / held); the part in proportion to
 * sqrt(2 / planned) is kept. Drift beyond the held-out tokens is not predicted.
 */
struct pl_busiest_load pl_expected_load(
	const struct pl_metrics *planned, uint64_t planned_tokens, const struct pl_metrics *held, uint64_t held_tokens);
void pl_metrics_fini(struct pl_metrics *metrics); /* takes a zeroed one too */

#endif
