/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Forms for processors that this machine may not be: their code, with what it lacks replaced by the
 * nearest thing that computes the same. twins_amx*.c have tiles in plain C, and need AVX-512;
 * twins_avxvnni.c has AVX-512's encoding of the instruction, and needs VNNI of it. Contracts as in
 * kernels/cpu/forms.h.
 */
#ifndef CADRE_TESTS_SUPPORT_TWINS_H
#define CADRE_TESTS_SUPPORT_TWINS_H

#include "kernels/cpu/forms.h"

void twin_avxvnni_gemm_s8(const struct kn_gemm *g);
void twin_avxvnni_gemm_u4(const struct kn_gemm *g);
void twin_amx_gemm_s8(const struct kn_gemm *g);
void twin_amx_gemm_u4(const struct kn_gemm *g);
void twin_amx_gemm_bf16_rows(const struct kn_gemm *g);

#endif
