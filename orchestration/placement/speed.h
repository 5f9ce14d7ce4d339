/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How fast expert nodes are, one beside the other, by what each measured of itself when it started.
 *
 * What a node measures differs a little each time, and a plan should not: nodes that are less than
 * half faster than the slowest of them count as equally fast, and what is left is rounded. So
 * clusters of equal machines have speed 1 everywhere.
 *
 * Pure functions; any thread.
 */
#ifndef CADRE_ORCHESTRATION_PLACEMENT_SPEED_H
#define CADRE_ORCHESTRATION_PLACEMENT_SPEED_H

#include "common/base/limits.h"

#include <stdint.h>

#define PL_SPEED_MAX 512.0 /* and 1 / 512 is the least */

/* Of one node, of the cluster's experts and profile; 0: it did not say. */
struct pl_speed {
	double read_bytes_per_second;    /* of weights, with one row per expert */
	double multiply_adds_per_second; /* with many */
	double step_s;                   /* that every step takes besides */
	double given;                    /* by its operator, instead of all that: 1 is the median node */
};

/* What a step of one layer has to do. */
struct pl_speed_work {
	uint32_t experts, topk;
	double multiply_adds; /* of one row in one expert */
};

/* Steps per second of a node that has all experts of a layer, for the 64 tokens of a decode batch:
 * it reads each expert that any of them uses, of `expert_bytes` there, or multiplies for longer. 0:
 * not known. */
double pl_speed_rate(const struct pl_speed *speed, const struct pl_speed_work *work, uint64_t expert_bytes);

/* speeds[i] of a node with rates[i], the median of all that are known being 1: a power of two, or
 * 1.25, 1.5 or 1.75 times one, from 1/512 to 512. Of those that are not known: 1. count <=
 * CAD_NODES_MAX. */
void pl_speed_compare(const double *rates, uint32_t count, double *speeds);

#endif
