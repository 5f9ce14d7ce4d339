/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What of a device's memory is for weights: planned before anything is loaded.
 *
 * A device with memory of its own (a GPU) is filled but for a reserve: the activations of a step,
 * what a queue takes, and what the driver needs. Of the host's memory, which other programs need
 * too, it is four fifths of what is free. Any thread.
 */
#ifndef CADRE_EXPERT_SVC_STORE_MEMORY_H
#define CADRE_EXPERT_SVC_STORE_MEMORY_H

#include "kernels/kernels.h"

struct ex_memory_ask {
	const struct kn_device_info *device; /* as it was before anything was taken */
	uint64_t memory_bytes;               /* for weights; 0: as much as makes sense */
	uint32_t nodes;                      /* that share the machine, or the device */
	uint64_t step_bytes;                 /* of activations */
	uint64_t expert_bytes, experts;      /* of one, and how many the model has */
};

struct ex_memory {
	uint64_t device_bytes; /* of the device's own memory; 0: it has the host's */
	uint64_t free_bytes;
	uint64_t step_bytes, queue_bytes, driver_bytes; /* the reserve */
	uint64_t slot_bytes;                            /* of one expert */
	uint64_t slots;                                 /* how many fit; of its own memory no more than there are */
	uint64_t experts;                               /* that the model has */
	uint64_t weights_bytes;
};
/* CAD_ERR_EXHAUSTED: there is no room for one expert, or not for what was asked. */
CAD_MUST_USE enum cad_status ex_memory_plan(
	const struct ex_memory_ask *ask, struct ex_memory *memory, struct cad_error *error);
void ex_memory_log(const struct ex_memory *memory, const char *device);

/* "device 'emu:0' has 1.0 MiB of 4.0 GiB free", now; returns `text`. */
enum { EX_MEMORY_TEXT_BYTES = 128 };
const char *ex_memory_free_text(const struct kn_device *device, char text[EX_MEMORY_TEXT_BYTES]);

#endif
