/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a search begins: a node for each expert, made from nothing (contiguous) or from which
 * experts are chosen together.
 *
 * All take the number of experts that each node has room for, and give labels[expert] = node.
 * Deterministic; they allocate scratch memory and free it.
 */
#ifndef CADRE_ORCHESTRATION_PLANNER_SOLVE_START_H
#define CADRE_ORCHESTRATION_PLANNER_SOLVE_START_H

#include "common/base/clock.h"
#include "orchestration/planner/objective/layer.h"
#include "orchestration/planner/solve/site.h"

/* How often two experts are chosen together, in place of counts that chance could have made.
 * Symmetric, the diagonal is 0. */
struct pl_pairs {
	uint32_t experts;
	float *together; /* [experts][experts] counts, shrunk towards what independent choice would give */
	float *degree;   /* [experts] row sums */
	float *uses;     /* [experts] tokens */
};
CAD_MUST_USE enum cad_status pl_pairs_init(struct pl_pairs *pairs, const struct pl_layer *layer);
void pl_pairs_fini(struct pl_pairs *pairs);

/* [nodes] how many first copies each node takes: in proportion to its slots. */
void pl_start_parts(const struct pl_site *site, uint32_t *parts);
/* Labels with at most parts[n] of each, so that the sum of score[expert][node] is large: the best
 * scores first. */
CAD_MUST_USE enum cad_status pl_start_balance(
	const float *score, uint32_t experts, uint32_t nodes, const uint32_t *parts, uint32_t *labels);

/* Runs of consecutive experts, from which routing by groups of experts profits. */
void pl_start_contiguous(uint32_t experts, uint32_t nodes, const uint32_t *parts, uint32_t *labels);
/* Fills one node after another: first the most used remaining expert, then always the one that is
 * chosen most often with those already there. */
CAD_MUST_USE enum cad_status pl_start_groups(
	const struct pl_pairs *pairs, uint32_t nodes, const uint32_t *parts, uint32_t *labels);
/* The first eigenvectors of the degree-normalised counts, k-means, and a balanced assignment to the
 * centres. */
CAD_MUST_USE enum cad_status pl_start_spectral(const struct pl_pairs *pairs, uint32_t nodes, const uint32_t *parts,
	struct cad_random random, uint32_t *labels);
/* Only load counts, as in DeepSeek's EPLB: copies go to the experts with most rows per copy, and
 * the largest go first to the node with the least load. Gives replicas instead of labels. */
CAD_MUST_USE enum cad_status pl_start_even(const struct pl_site *site, const struct pl_layer *layer,
	struct pl_replicas *replicas, struct cad_error *error);
/* METIS on the counts. CAD_ERR_UNSUPPORTED if it was not available when this was built. */
CAD_MUST_USE enum cad_status pl_start_metis(
	const struct pl_pairs *pairs, uint32_t nodes, const uint32_t *parts, uint64_t seed, uint32_t *labels);
/*
 * Which group goes to which node, where racks or links differ: groups that tokens use together come
 * into one rack, and those that few tokens use behind slow links. Groups change places between
 * nodes of equal room, as long as that helps, from several starting points.
 */
CAD_MUST_USE enum cad_status pl_start_arrange(
	const struct pl_site *site, const struct pl_layer *layer, struct cad_random random, uint32_t *labels);

#endif
