/* SPDX-License-Identifier: Apache-2.0 */
/* Cadre's C, as C++ and CUDA read it. Functions in headers may run on the device too. */
#ifndef CADRE_KERNELS_CUDA_CADRE_C_H
#define CADRE_KERNELS_CUDA_CADRE_C_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define _Static_assert static_assert
#define _Noreturn [[noreturn]]
#ifdef __CUDACC__
#define inline inline __host__ __device__
#endif
extern "C" {
#include "common/base/workers.h"
#include "kernels/exp.h"
#include "kernels/image.h"
#include "kernels/kernels.h"
#include "kernels/quantise.h"
#include "kernels/values.h"
}
#undef inline
#undef _Static_assert
#undef _Noreturn

#endif
