/* SPDX-License-Identifier: Apache-2.0 */
/* Which device: the one place that knows the backends by name. */
#include "kernels/backend.h"
#include "kernels/cpu/cpu.h"

#include <stdlib.h>
#include <string.h>

const struct cad_choice kn_device_forms[] = { { "cpu", KN_DEVICE_CPU }, { "cuda[:N]", KN_DEVICE_CUDA },
	{ "emu[:N]", KN_DEVICE_EMU }, { NULL, 0 } };

/* After the name of a kind: nothing, or for a GPU its index. */
static bool read_index(const char *form, const char *rest, unsigned *index)
{
	enum { DIGITS_MAX = 4 };
	size_t digits = *rest == ':' ? strspn(rest + 1, "0123456789") : 0;

	*index = 0;
	if (!*rest)
		return true;
	if (!strchr(form, '[') || digits == 0 || digits > DIGITS_MAX || rest[1 + digits])
		return false;
	*index = (unsigned)strtoul(rest + 1, NULL, 10);
	return true;
}

enum cad_status kn_device_parse(
	const char *option, const char *text, struct kn_device_options *options, struct cad_error *error)
{
	for (const struct cad_choice *form = kn_device_forms; form->name; form++) {
		size_t length = strcspn(form->name, "[");
		if (strncmp(text, form->name, length) == 0 && read_index(form->name, text + length, &options->index)) {
			options->kind = (enum kn_device_kind)form->value;
			return CAD_OK;
		}
	}
	return cad_error_set(error, CAD_ERR_INVALID,
		"--%s is '%.40s'; it can be cpu, cuda or emu, and with the number of a GPU cuda:0 or emu:0", option,
		text);
}

/* Compiled for the same processors as the CPU's kernels. */
static enum cad_status open_library(
	const char *name, unsigned index, struct kn_device **device, struct cad_error *error)
{
	if (!kn_form_find(KN_ISA_AVX2))
		return cad_error_set(error, CAD_ERR_UNSUPPORTED,
			"device '%s' needs a CPU with AVX2, FMA and F16C, which pack its experts", name);
	return kn_backend_open(name, index, device, error);
}

enum cad_status kn_device_open(
	const struct kn_device_options *options, struct kn_device **device, struct cad_error *error)
{
	switch (options->kind) {
	case KN_DEVICE_CPU: return kn_cpu_open(options->isa, device, error);
	case KN_DEVICE_EMU: return open_library("emu", options->index, device, error);
	case KN_DEVICE_CUDA: return open_library("cuda", options->index, device, error);
	}
	return cad_error_set(error, CAD_ERR_UNSUPPORTED, "this build knows no device of kind %d", (int)options->kind);
}

void kn_device_blame(const struct kn_device *device, struct cad_error *error)
{
	char why[KN_FAILURE_BYTES];
	struct kn_device_info info;
	if (!device->ops->failed || !device->ops->failed(device, why))
		return;
	device->ops->describe(device, &info);
	cad_error_set(error, error->status,
		"device '%s' (%s) has failed: %s: see nvidia-smi and the kernel's log; another GPU, or --device cpu, may do",
		info.name, info.chip, why);
}

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
