/* SPDX-License-Identifier: Apache-2.0 */
/* The AVX-VNNI form with AVX-512's encoding of its instruction, for machines that have only that.
 * */
#define KN_VEX ""
#define kn_avxvnni_gemm_s8 twins_avxvnni_s8
#define kn_avxvnni_gemm_u4 twins_avxvnni_u4
#include "tests/support/twins.h"

#include "kernels/cpu/avxvnni_gemm.c"

void twin_avxvnni_gemm_s8(const struct kn_gemm *g) { kn_avxvnni_gemm_s8(g); }
void twin_avxvnni_gemm_u4(const struct kn_gemm *g) { kn_avxvnni_gemm_u4(g); }
