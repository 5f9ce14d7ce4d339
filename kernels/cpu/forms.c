/* SPDX-License-Identifier: Apache-2.0 */
/* The tables of the forms, and which of them this machine can run. */
#include "kernels/cpu/forms.h"

#include <cpuid.h>

#define X(result, name, arguments) .name = kn_ref_##name,
static const struct kn_form form_ref = { "ref", KN_ISA_REF, KN_FORM_LIST(X) };
#undef X
#define X(result, name, arguments) .name = kn_avx2_##name,
static const struct kn_form form_avx2 = { "avx2", KN_ISA_AVX2, KN_FORM_LIST(X) };
#undef X
#define X(result, name, arguments) .name = kn_avx512_##name,
static const struct kn_form form_avx512 = { "avx512", KN_ISA_AVX512, KN_FORM_LIST(X) };
#undef X

/* clang 14 does not know the name "f16c". */
static bool has_f16c(void)
{
	unsigned a, b, c, d;
	return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

const struct kn_form *kn_form_find(enum kn_isa isa)
{
	__builtin_cpu_init();
	bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
	bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
		__builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
	switch (isa) {
	case KN_ISA_REF: return avx2 ? &form_ref : NULL; /* what packs for it needs AVX2 */
	case KN_ISA_AVX2: return avx2 ? &form_avx2 : NULL;
	case KN_ISA_AVX512: return avx512 ? &form_avx512 : NULL;
	case KN_ISA_AUTO: return avx512 ? &form_avx512 : avx2 ? &form_avx2 : NULL;
	}
	return NULL;
}
