/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How fast this node computes experts of the cluster's model: measured before it joins, and
 * reported, so that placement can weigh it.
 *
 * The weights are made up, and a part of an expert's where that is large, since packing them is
 * what takes time. No step begins after EX_SPEED_MS but the first of its kind; a small model takes
 * less. It is what the device, its threads and whoever else uses the machine give at that moment.
 */
#ifndef CADRE_EXPERT_SVC_SPEED_H
#define CADRE_EXPERT_SVC_SPEED_H

#include "common/model/model.h"
#include "kernels/kernels.h"

struct cad_metrics;

enum { EX_SPEED_MS = 200 };

struct ex_speed {
	double read_bytes_per_second;    /* of weights, with one row per expert */
	double multiply_adds_per_second; /* with as many rows as there is time for */
	double step_s;                   /* that a step takes which has nearly nothing to do */
	double given;                    /* by the operator, instead: times the median node; 0: none */
};

/* Blocks for that time, and takes and releases memory of the device. All 0: the model is dense, or
 * the device does not compute with such weights. CAD_ERR_MEMORY: there is too little; else the
 * device has failed. */
CAD_MUST_USE enum cad_status ex_speed_measure(struct kn_device *device, const struct cad_model *model,
	enum cad_weights weights, unsigned threads, struct ex_speed *speed);
/* The same with one expert's shape and types, of which no data is read; or a dense ffn's. */
CAD_MUST_USE enum cad_status ex_speed_measure_like(struct kn_device *device, const struct kn_expert_source *like,
	enum cad_weights weights, unsigned threads, struct ex_speed *speed);
/* Measures it unless it is given, says it in the log, and keeps it in `metrics`. With too little
 * memory nothing is known of it. An error: the device has failed. */
CAD_MUST_USE enum cad_status ex_speed_find(struct kn_device *device, const struct cad_model *model,
	enum cad_weights weights, unsigned threads, struct cad_metrics *metrics, struct ex_speed *speed,
	struct cad_error *error);

#endif
