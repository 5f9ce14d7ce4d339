/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How fast a machine is at what a step is made of: of machines that were measured, in a table that
 * names the results, or of this one, measured now. What `cadrectl model size` estimates with.
 *
 * Constant data, or the caller's; any thread.
 */
#ifndef CADRE_ORCHESTRATION_CLI_RATES_H
#define CADRE_ORCHESTRATION_CLI_RATES_H

#include "common/model/model.h"
#include "common/process/option.h"
#include "kernels/kernels.h"

/* By how weights are kept: floats of any size, integers of 8 and of 4 bits. */
enum cl_rate_form { CL_RATE_FLOATS, CL_RATE_INT8, CL_RATE_INT4, CL_RATE_FORMS };
enum cl_rate_form cl_rate_form_of(enum cad_weights weights);

struct cl_rates {
	const char *machine;
	const char *source; /* where the figures are from */
	struct {
		double read;          /* bytes of weights per second, with one row; 0: not measured */
		double multiply_adds; /* per second, with many rows */
	} form[CL_RATE_FORMS];
	double step_s; /* of an expert node's step that has nearly nothing to do */
	/* the token exchange: a round trip, and each byte of rows in it, with as many on the way back */
	double call_s, byte_s;
};

enum { CL_MACHINE_HERE, CL_MACHINE_XEON, CL_MACHINE_EPYC };
extern const struct cad_choice cl_machine_choices[];
const struct cl_rates *cl_rates_of(uint32_t machine); /* not of this one */

/* Computes for a fraction of a second on so many threads, with experts of the model's shape, as an expert node does
 * before it joins. The exchange's figures are those of the table's first machine. */
CAD_MUST_USE enum cad_status cl_rates_measure(struct kn_device *device, const struct cad_model *model,
	enum cad_weights experts, enum cad_weights router, unsigned threads, struct cl_rates *rates,
	struct cad_error *error);

#endif
