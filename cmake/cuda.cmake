# SPDX-License-Identifier: Apache-2.0
# CUDA kernels are compiled where nvcc is found; there are none in the tree yet, so this says only what was found.
find_program(NVCC nvcc)
if(NVCC)
  message(STATUS "CUDA: found ${NVCC}")
else()
  message(STATUS "CUDA: not found, GPU kernels are not built")
endif()
