/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A libnvidia-ml.so.1 for tests: of the one GPU that is there, what the file says that
 * CADRE_FAKE_NVML names, in lines "name value", read again for each question. What has no line is not
 * supported; "lost 1" is a GPU that has fallen off the bus, "init 9" a driver that is not loaded.
 */
#include "kernels/cuda/nvml_abi.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PUBLIC __attribute__((visibility("default")))
enum { NOT_SUPPORTED = 3, NOT_FOUND = 6, NO_DRIVER = 9 };

struct kn_nvml_device {
	int unused;
};
static struct kn_nvml_device the_one;

static bool find(const char *name, unsigned long long *value)
{
	const char *path = getenv("CADRE_FAKE_NVML");
	FILE *file = path ? fopen(path, "r") : NULL;
	char line[80], read[40];
	bool found = false;
	while (file && !found && fgets(line, sizeof line, file))
		found = sscanf(line, "%39s %llu", read, value) == 2 && strcmp(read, name) == 0;
	if (file)
		fclose(file);
	return found;
}

static int get(kn_nvml_handle device, const char *name, unsigned long long *value)
{
	unsigned long long lost;
	if (device != &the_one)
		return NOT_FOUND;
	if (find("lost", &lost))
		return KN_NVML_ERROR_GPU_IS_LOST;
	return find(name, value) ? KN_NVML_SUCCESS : NOT_SUPPORTED;
}

static int get_unsigned(kn_nvml_handle device, const char *name, unsigned *value)
{
	unsigned long long wide = 0;
	int code = get(device, name, &wide);
	*value = (unsigned)wide;
	return code;
}

/* Declared as Cadre calls them. */
#define X(name, arguments) PUBLIC int name arguments;
KN_NVML_FUNCTIONS(X)
#undef X
PUBLIC const char *nvmlErrorString(int code);

int nvmlInit_v2(void)
{
	unsigned long long code;
	return find("init", &code) ? (int)code : KN_NVML_SUCCESS;
}

int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, kn_nvml_handle *device)
{
	*device = &the_one;
	return strcmp(bus, "ffff:ff:00.0") == 0 ? KN_NVML_SUCCESS : NOT_FOUND;
}

int nvmlDeviceGetMemoryInfo(kn_nvml_handle device, struct kn_nvml_memory *memory)
{
	int code = get(device, "total", &memory->total);
	return code == KN_NVML_SUCCESS ? get(device, "used", &memory->used) : code;
}

int nvmlDeviceGetUtilizationRates(kn_nvml_handle device, struct kn_nvml_utilization *utilization)
{
	int code = get_unsigned(device, "gpu", &utilization->gpu);
	return code == KN_NVML_SUCCESS ? get_unsigned(device, "memory", &utilization->memory) : code;
}

int nvmlDeviceGetClockInfo(kn_nvml_handle device, int clock, unsigned *mhz)
{
	return get_unsigned(device, clock == KN_NVML_CLOCK_SM ? "sm" : "mem", mhz);
}

int nvmlDeviceGetPowerUsage(kn_nvml_handle device, unsigned *milliwatts)
{
	return get_unsigned(device, "power", milliwatts);
}

int nvmlDeviceGetTemperature(kn_nvml_handle device, int sensor, unsigned *celsius)
{
	return sensor == KN_NVML_TEMPERATURE_GPU ? get_unsigned(device, "temperature", celsius) : NOT_SUPPORTED;
}

int nvmlDeviceGetCurrentClocksThrottleReasons(kn_nvml_handle device, unsigned long long *reasons)
{
	return get(device, "throttle", reasons);
}

int nvmlDeviceGetTotalEccErrors(kn_nvml_handle device, int type, int counter, unsigned long long *count)
{
	if (counter != KN_NVML_VOLATILE_ECC)
		return NOT_SUPPORTED;
	return get(device, type == KN_NVML_MEMORY_ERROR_TYPE_CORRECTED ? "corrected" : "uncorrected", count);
}

const char *nvmlErrorString(int code)
{
	switch (code) {
	case KN_NVML_SUCCESS: return "The operation was successful";
	case NOT_FOUND: return "Not Found";
	case NO_DRIVER: return "Driver Not Loaded";
	case KN_NVML_ERROR_GPU_IS_LOST: return "GPU is lost";
	default: return "Unknown Error";
	}
}
