/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cuda/nvml.h"

#include <dlfcn.h>
#include <math.h>
#include <stdio.h>

namespace
{

const char *text_of(const struct kn_cuda_nvml *nvml, int code)
{
	return nvml->nvmlErrorString ? nvml->nvmlErrorString(code) : "an error";
}

void find_functions(struct kn_cuda_nvml *nvml, void *library)
{
#define X(name, arguments) nvml->name = reinterpret_cast<int(*) arguments>(dlsym(library, #name));
	KN_NVML_FUNCTIONS(X)
#undef X
	nvml->nvmlErrorString = reinterpret_cast<const char *(*)(int)>(dlsym(library, "nvmlErrorString"));
}

/* A GPU says nothing of what it does not have, and an old library of what it does not know. */
struct reader {
	struct kn_cuda_nvml *nvml;
	int lost; /* KN_NVML_SUCCESS: it is not */

	template <class... P, class... A> bool get(int (*function)(kn_nvml_handle, P...), A... arguments)
	{
		if (!function)
			return false;
		const int code = function(nvml->device, arguments...);
		if (code == KN_NVML_ERROR_GPU_IS_LOST || code == KN_NVML_ERROR_RESET_REQUIRED)
			lost = code;
		return code == KN_NVML_SUCCESS;
	}
};

void read_memory(reader *r, double *values)
{
	struct kn_nvml_memory memory;
	struct kn_nvml_utilization busy;
	if (r->get(r->nvml->nvmlDeviceGetMemoryInfo, &memory)) {
		values[KN_HEALTH_MEMORY_USED] = static_cast<double>(memory.used);
		values[KN_HEALTH_MEMORY_TOTAL] = static_cast<double>(memory.total);
	}
	if (r->get(r->nvml->nvmlDeviceGetUtilizationRates, &busy)) {
		values[KN_HEALTH_BUSY] = busy.gpu * 1e-2;
		values[KN_HEALTH_MEMORY_BUSY] = busy.memory * 1e-2;
	}
}

void read_clocks(reader *r, double *values)
{
	unsigned value;
	if (r->get(r->nvml->nvmlDeviceGetClockInfo, KN_NVML_CLOCK_SM, &value))
		values[KN_HEALTH_SM_CLOCK] = value * 1e6;
	if (r->get(r->nvml->nvmlDeviceGetClockInfo, KN_NVML_CLOCK_MEM, &value))
		values[KN_HEALTH_MEMORY_CLOCK] = value * 1e6;
	if (r->get(r->nvml->nvmlDeviceGetPowerUsage, &value))
		values[KN_HEALTH_POWER] = value * 1e-3;
	if (r->get(r->nvml->nvmlDeviceGetTemperature, KN_NVML_TEMPERATURE_GPU, &value))
		values[KN_HEALTH_TEMPERATURE] = value;
}

void read_errors(reader *r, double *values)
{
	unsigned long long count;
	if (r->get(r->nvml->nvmlDeviceGetTotalEccErrors, KN_NVML_MEMORY_ERROR_TYPE_CORRECTED, KN_NVML_VOLATILE_ECC,
		    &count))
		values[KN_HEALTH_ECC_CORRECTED] = static_cast<double>(count);
	if (r->get(r->nvml->nvmlDeviceGetTotalEccErrors, KN_NVML_MEMORY_ERROR_TYPE_UNCORRECTED, KN_NVML_VOLATILE_ECC,
		    &count))
		values[KN_HEALTH_ECC_UNCORRECTED] = static_cast<double>(count);
}

void read_throttling(reader *r, struct kn_health *health)
{
	static const unsigned bits[KN_THROTTLE_COUNT] = { KN_NVML_SW_POWER_CAP, KN_NVML_SW_THERMAL | KN_NVML_HW_THERMAL,
		KN_NVML_HW_POWER_BRAKE, KN_NVML_HW_SLOWDOWN };
	unsigned long long reasons;
	health->throttling_known = r->get(r->nvml->nvmlDeviceGetCurrentClocksThrottleReasons, &reasons);
	for (unsigned i = 0; i < KN_THROTTLE_COUNT && health->throttling_known; i++)
		if (reasons & bits[i])
			health->throttled |= 1u << i;
}

}   // namespace

bool kn_cuda_nvml_open(struct kn_cuda_nvml *nvml, const char *pci_bus_id, char why[KN_FAILURE_BYTES])
{
	void *library = dlopen(KN_NVML_LIBRARY, RTLD_NOW | RTLD_LOCAL);
	if (!library) {
		snprintf(why, KN_FAILURE_BYTES, "NVML is not here: %s", dlerror());
		return false;
	}

	find_functions(nvml, library);
	const bool complete = nvml->nvmlInit_v2 && nvml->nvmlDeviceGetHandleByPciBusId_v2;
	int code = complete ? nvml->nvmlInit_v2() : KN_NVML_SUCCESS;
	if (complete && code == KN_NVML_SUCCESS)
		code = nvml->nvmlDeviceGetHandleByPciBusId_v2(pci_bus_id, &nvml->device);
	if (!complete || code != KN_NVML_SUCCESS) {
		snprintf(why, KN_FAILURE_BYTES, "NVML cannot tell of the GPU at %s: %s", pci_bus_id,
			complete ? text_of(nvml, code) : "its library is too old");
		dlclose(library);
		return false;
	}

	nvml->uncorrected_before = NAN;
	return true;
}

bool kn_cuda_nvml_read(struct kn_cuda_nvml *nvml, struct kn_health *health, char why[KN_FAILURE_BYTES])
{
	reader r = { nvml, KN_NVML_SUCCESS };
	*health = {};
	for (double &value : health->values)
		value = NAN;
	read_memory(&r, health->values);
	read_clocks(&r, health->values);
	read_errors(&r, health->values);
	read_throttling(&r, health);
	if (r.lost != KN_NVML_SUCCESS) {
		snprintf(why, KN_FAILURE_BYTES, "%s, NVML says", text_of(nvml, r.lost));
		return false;
	}

	const double uncorrected = health->values[KN_HEALTH_ECC_UNCORRECTED];
	if (isnan(nvml->uncorrected_before))
		nvml->uncorrected_before = uncorrected;
	if (!(uncorrected > nvml->uncorrected_before))
		return true;
	snprintf(why, KN_FAILURE_BYTES, "its memory had %.0f errors that ECC cannot correct since this process began",
		uncorrected - nvml->uncorrected_before);
	return false;
}
