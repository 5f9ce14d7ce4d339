/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long a step would take: the bytes and operations of its parts, over the rates at which a machine
 * was measured to read and to compute. An estimate: tokens choose experts evenly, parts follow each other
 * (micro-batches overlap them), and of each part the longer of reading and computing counts.
 *
 * Pure functions; any thread.
 */
#ifndef CADRE_ORCHESTRATION_CLI_ESTIMATE_H
#define CADRE_ORCHESTRATION_CLI_ESTIMATE_H

#include "common/model/fit.h"
#include "common/model/model.h"
#include "orchestration/cli/rates.h"

struct cl_cluster {
	uint32_t nodes;
	enum cad_weights experts, router;
	struct cad_model_packed packed;
	uint64_t table_bytes; /* of packed.router: the embedding, of which a row reads one */
	size_t row_bytes;     /* of a row on the exchange */
};

/* Of one step: sequences that decode, or one prompt. */
struct cl_load {
	uint32_t sequences, rows; /* rows of all of them together */
	double keys;              /* that a row attends to */
	uint32_t logits;          /* rows that the head computes */
};

struct cl_estimate {
	double router_s;   /* products with a router's weights */
	double keys_s;     /* attention to keys and values */
	double experts_s;  /* of the node that takes longest, in each layer */
	double exchange_s; /* rows out, sums back */
	double step_s;     /* all of these */
	double experts;    /* different ones that a layer reads */
	double nodes;      /* that a row is sent to, in each layer */
};

/* Rates must have what the weights need. The same every time: tokens are drawn from a
 * fixed seed. */
struct cl_estimate cl_estimate_step(const struct cad_model *model, const struct cl_cluster *cluster,
	const struct cl_rates *rates, const struct cl_load *load);

#endif
