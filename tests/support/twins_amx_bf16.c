/* SPDX-License-Identifier: Apache-2.0 */
/* The AMX form of profile bf16 over tiles in plain C. */
#include "tests/support/twins_amx.h"

#define kn_amx_gemm_bf16_rows twins_amx_bf16_rows
#include "tests/support/twins.h"

#include <immintrin.h>

#include "kernels/cpu/amx_gemm_bf16.c"

void twin_amx_gemm_bf16_rows(const struct kn_gemm *g) { kn_amx_gemm_bf16_rows(g); }
