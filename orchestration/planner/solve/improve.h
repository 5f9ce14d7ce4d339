/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Local search: which changes are worth trying, estimated for all of them at once from where the
 * tokens go now; the best are then really tried.
 */
#ifndef CADRE_ORCHESTRATION_PLANNER_SOLVE_IMPROVE_H
#define CADRE_ORCHESTRATION_PLANNER_SOLVE_IMPROVE_H

#include "orchestration/planner/solve/search.h"

struct pl_seat {
	uint32_t expert; /* PL_NOBODY: room for one more */
	uint32_t node;
	double rows; /* that are served here */
};

struct pl_proposal {
	struct pl_change changes[PL_CHANGES_MAX];
	uint32_t count;
	double gain; /* estimated, in the unit of the objective */
};

/* Scratch of one thread. */
struct pl_improve {
	/* Tables of what a token's nodes and racks cost. Where all nodes are equal and there is one
	 * rack, an entry is a number of tokens. */
	/* [experts][nodes] tokens where the expert is alone on its node and the token also touches
	 * this one: what a copy here would save */
	float *join;
	/* [experts][nodes] all its other tokens that touch this node or its rack: what arriving
	 * here would not cost */
	float *stay;
	/* [experts][nodes] tokens that it serves here: what leaving for a node of average link in a
	 * strange rack costs; below 0 where it saves */
	float *leave;
	/* [experts][experts] tokens of both where the first is alone on its node: by how much
	 * `join` overestimates when the two swap */
	float *lone;
	/* [experts][racks] tokens that touch the rack, or would without the expert; NULL: all nodes
	 * are equal */
	float *racks;
	uint32_t *rows; /* [experts][nodes] tokens that it serves here */
	struct pl_seat *seats;
	/* [seats][nodes] what the objective gains when who sits here goes there, load aside */
	float *going;
	struct pl_proposal *proposals;
	uint32_t seats_max;
};

CAD_MUST_USE enum cad_status pl_improve_init(struct pl_improve *improve, const struct pl_site *site);
void pl_improve_fini(struct pl_improve *improve);

/* Fills `proposals`, the best first: for every seat the best other one to swap with, and for every
 * copy that is not the only one the best expert to replace it. Returns how many. */
uint32_t pl_improve_propose(struct pl_improve *improve, struct pl_search *search);
/* Adds copies until copies_max, each time those that gain most, by estimate and then by trial. */
void pl_improve_fill(struct pl_improve *improve, struct pl_search *search);
/* The same without looking at tokens: repeatedly the expert with most rows per copy, on the node
 * that then has fewest. Only `replicas` is changed; call reset afterwards. */
void pl_improve_fill_hottest(struct pl_search *search);
/*
 * Moves, swaps and exchanged copies, sweep after sweep, until a sweep finds nothing or `tries`
 * changes were tried. `doubt`: a change must gain this many standard deviations of what chance
 * would give to the tokens that differ. Returns the number of changes that stayed.
 */
uint32_t pl_improve_polish(struct pl_improve *improve, struct pl_search *search, uint32_t tries, double doubt);

#endif
