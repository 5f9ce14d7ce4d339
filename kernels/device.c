/* SPDX-License-Identifier: Apache-2.0 */
/* Which device: the one place that knows the backends by name. */
#include "kernels/backend.h"
#include "kernels/cpu/cpu.h"

#include <string.h>

/* Compiled for the same processors as the CPU's kernels. */
static enum cad_status open_emu(struct kn_device **device, struct cad_error *error)
{
	if (!kn_form_find(KN_ISA_AVX2))
		return cad_error_set(error, CAD_ERR_UNSUPPORTED, "device 'emu' needs AVX2, FMA and F16C");
	return kn_backend_open("emu", device, error);
}

enum cad_status kn_device_open(
	const struct kn_device_options *options, struct kn_device **device, struct cad_error *error)
{
	switch (options->kind) {
	case KN_DEVICE_CPU: return kn_cpu_open(options->isa, device, error);
	case KN_DEVICE_EMU: return open_emu(device, error);
	}
	return cad_error_set(error, CAD_ERR_UNSUPPORTED, "this build knows no device of kind %d", (int)options->kind);
}

const struct cad_choice kn_device_choices[] = { { "cpu", KN_DEVICE_CPU }, { "emu", KN_DEVICE_EMU }, { NULL, 0 } };

const struct cad_choice kn_isa_choices[] = { { "auto", KN_ISA_AUTO }, { "ref", KN_ISA_REF }, { "avx2", KN_ISA_AVX2 },
	{ "avxvnni", KN_ISA_AVXVNNI }, { "avx512", KN_ISA_AVX512 }, { "amx", KN_ISA_AMX }, { NULL, 0 } };

enum cad_status kn_isa_parse(const char *name, enum kn_isa *isa)
{
	for (const struct cad_choice *choice = kn_isa_choices; choice->name; choice++)
		if (strcmp(name, choice->name) == 0) {
			*isa = (enum kn_isa)choice->value;
			return CAD_OK;
		}
	return CAD_ERR_INVALID;
}
