/* SPDX-License-Identifier: Apache-2.0 */
/* The AMX form on integers over tiles in plain C. */
#include "tests/support/twins_amx.h"

#define kn_amx_gemm_s8 twins_amx_s8
#define kn_amx_gemm_u4 twins_amx_u4
#include "tests/support/twins.h"

#include <immintrin.h>

#include "kernels/cpu/amx_gemm.c"

void twin_amx_gemm_s8(const struct kn_gemm *g) { kn_amx_gemm_s8(g); }
void twin_amx_gemm_u4(const struct kn_gemm *g) { kn_amx_gemm_u4(g); }
