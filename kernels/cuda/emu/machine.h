/* SPDX-License-Identifier: Apache-2.0 */
/* The emulated machine: its driver and its GPUs, as the environment describes them for tests. */
#ifndef CADRE_KERNELS_CUDA_EMU_MACHINE_H
#define CADRE_KERNELS_CUDA_EMU_MACHINE_H

#include "kernels/cuda/emu/include/cuda_runtime.h"

#include <stdint.h>

/* A number of the environment. */
uint64_t emu_environment(const char *name, uint64_t otherwise);
/* This thread's. */
int emu_device_now();
/* Keeps an error as the last of this thread, and gives it back. */
cudaError_t emu_fail(cudaError_t error);

#endif
