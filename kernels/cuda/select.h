/* SPDX-License-Identifier: Apache-2.0 */
/* Which GPU: whether the one that is asked for can be used; if not, why not, and what to do. */
#ifndef CADRE_KERNELS_CUDA_SELECT_H
#define CADRE_KERNELS_CUDA_SELECT_H

#include "kernels/cuda/cadre_c.h"
#include "kernels/cuda/gpu.h"

#ifdef KN_EMU
#define KN_CUDA_NAME "emu"
#else
#define KN_CUDA_NAME "cuda"
#endif

/* A GPU that can be used. */
struct kn_cuda_chip {
	int index;
	char name[16];  /* "cuda:0" */
	char model[64]; /* "NVIDIA H200" */
	char pci_bus_id[32];
	int capability; /* 10 * major + minor: 90 */
	int multiprocessors;
	bool int8_as_bf16; /* multiply integers as bf16: units for them are slow */
};

/* CAD_ERR_NOT_FOUND and a sentence: there is no driver, or no GPU; CAD_ERR_UNSUPPORTED: it cannot be
 * used. Afterwards it is the device of this thread. */
CAD_MUST_USE enum cad_status kn_cuda_select(unsigned index, struct kn_cuda_chip *chip, struct cad_error *error);

#endif
