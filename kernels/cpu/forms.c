/* SPDX-License-Identifier: Apache-2.0 */
/* The tables of the forms, and which of them this machine can run. */
#include "kernels/cpu/forms.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#define REF(result, name, arguments) .name = kn_ref_##name,
#define AVX2(result, name, arguments) .name = kn_avx2_##name,
#define AVXVNNI(result, name, arguments) .name = kn_avxvnni_##name,
#define AVX512(result, name, arguments) .name = kn_avx512_##name,
#define AMX(result, name, arguments) .name = kn_amx_##name,
static const struct kn_form form_ref = { "ref", KN_ISA_REF, KN_FORM_LIST(REF) };
static const struct kn_form form_avx2 = { "avx2", KN_ISA_AVX2, KN_FORM_LIST(AVX2) };
static const struct kn_form form_avxvnni = { "avxvnni", KN_ISA_AVXVNNI,
	KN_FORM_PLAIN_LIST(AVX2) KN_FORM_BF16_LIST(AVX2) KN_FORM_INT_LIST(AVXVNNI) };
static const struct kn_form form_avx512 = { "avx512", KN_ISA_AVX512, KN_FORM_LIST(AVX512) };
static const struct kn_form form_amx = { "amx", KN_ISA_AMX,
	KN_FORM_PLAIN_LIST(AVX512) KN_FORM_BF16_LIST(AMX) KN_FORM_INT_LIST(AMX) };

/* clang 14 does not know the name "f16c". */
static bool has_f16c(void)
{
	unsigned a, b, c, d;
	return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

/* clang 14 does not know the names "avxvnni", "amx-tile" and the like either. */
static bool has_avxvnni(void)
{
	unsigned a, b, c, d;
	return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 4);
}

/* AMX needs the processor, the kernel, and the kernel's leave to save tiles, which every thread of
 * the process has from then on. */
static bool has_amx(void)
{
	enum { XCR0_TILES = 3 << 17, ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
	const unsigned bf16_tile_int8 = 1u << 22 | 3u << 24;
	unsigned a, b, c, d, low, high;

	if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & bf16_tile_int8) != bf16_tile_int8)
		return false;
	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
		return false;
	__asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	return (low & XCR0_TILES) == XCR0_TILES &&
		syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

const struct kn_form *kn_form_find(enum kn_isa isa)
{
	__builtin_cpu_init();
	bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
	bool avxvnni = avx2 && has_avxvnni();
	bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
		__builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
	bool amx = (isa == KN_ISA_AMX || isa == KN_ISA_AUTO) && avx512 && __builtin_cpu_supports("avx512vnni") &&
		has_amx();
	switch (isa) {
	case KN_ISA_REF: return avx2 ? &form_ref : NULL; /* what packs for it needs AVX2 */
	case KN_ISA_AVX2: return avx2 ? &form_avx2 : NULL;
	case KN_ISA_AVXVNNI: return avxvnni ? &form_avxvnni : NULL;
	case KN_ISA_AVX512: return avx512 ? &form_avx512 : NULL;
	case KN_ISA_AMX: return amx ? &form_amx : NULL;
	case KN_ISA_AUTO:
		return amx ? &form_amx : avx512 ? &form_avx512 : avxvnni ? &form_avxvnni : avx2 ? &form_avx2 : NULL;
	}
	return NULL;
}
