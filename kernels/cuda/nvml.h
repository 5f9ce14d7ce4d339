/* SPDX-License-Identifier: Apache-2.0 */
/* The state of a GPU, as NVML tells it; where the library is not there, nothing is known. */
#ifndef CADRE_KERNELS_CUDA_NVML_H
#define CADRE_KERNELS_CUDA_NVML_H

#include "kernels/cuda/cadre_c.h"
#include "kernels/cuda/nvml_abi.h"

/* Of one device. Zeroed: not opened yet. */
struct kn_cuda_nvml {
#define X(name, arguments) int(*name) arguments;
	KN_NVML_FUNCTIONS(X)
#undef X
	const char *(*nvmlErrorString)(int code);
	kn_nvml_handle device;
	double uncorrected_before; /* ECC errors, when it was opened; NaN: not known */
};

/* False and a sentence: it cannot be asked. */
bool kn_cuda_nvml_open(struct kn_cuda_nvml *nvml, const char *pci_bus_id, char why[KN_FAILURE_BYTES]);
/* Fills what is known. False and a sentence: the GPU is lost, or its memory is damaged. May take long. */
bool kn_cuda_nvml_read(struct kn_cuda_nvml *nvml, struct kn_health *health, char why[KN_FAILURE_BYTES]);

#endif
