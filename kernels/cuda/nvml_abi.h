/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Of NVML, NVIDIA's management library (libnvidia-ml.so.1), the functions and values that Cadre uses.
 * The library comes with the driver, is opened at run time, and keeps these: a function that changes
 * gets another name.
 */
#ifndef CADRE_KERNELS_CUDA_NVML_ABI_H
#define CADRE_KERNELS_CUDA_NVML_ABI_H

#define KN_NVML_LIBRARY "libnvidia-ml.so.1"

enum { KN_NVML_SUCCESS = 0, KN_NVML_ERROR_GPU_IS_LOST = 15, KN_NVML_ERROR_RESET_REQUIRED = 16 };

typedef struct kn_nvml_device *kn_nvml_handle; /* the library's */
struct kn_nvml_memory {
	unsigned long long total, free, used; /* bytes */
};
struct kn_nvml_utilization {
	unsigned gpu, memory; /* percent of the last moments in which a kernel ran, or memory was used */
};

enum { KN_NVML_CLOCK_SM = 1, KN_NVML_CLOCK_MEM = 2 }; /* in MHz */
enum { KN_NVML_TEMPERATURE_GPU = 0 };                 /* in degrees Celsius */
enum { KN_NVML_MEMORY_ERROR_TYPE_CORRECTED = 0, KN_NVML_MEMORY_ERROR_TYPE_UNCORRECTED = 1 };
enum { KN_NVML_VOLATILE_ECC = 0 }; /* since the driver was loaded */
/* Why clocks are below what they could be, as bits. */
enum {
	KN_NVML_SW_POWER_CAP = 0x4,
	KN_NVML_HW_SLOWDOWN = 0x8,
	KN_NVML_SW_THERMAL = 0x20,
	KN_NVML_HW_THERMAL = 0x40,
	KN_NVML_HW_POWER_BRAKE = 0x80,
};

/* Name, arguments; all return KN_NVML_SUCCESS or why not. Power is in milliwatts. */
#define KN_NVML_FUNCTIONS(X) \
	X(nvmlInit_v2, (void)) \
	X(nvmlDeviceGetHandleByPciBusId_v2, (const char *bus, kn_nvml_handle *device)) \
	X(nvmlDeviceGetMemoryInfo, (kn_nvml_handle device, struct kn_nvml_memory * memory)) \
	X(nvmlDeviceGetUtilizationRates, (kn_nvml_handle device, struct kn_nvml_utilization * utilization)) \
	X(nvmlDeviceGetClockInfo, (kn_nvml_handle device, int clock, unsigned *mhz)) \
	X(nvmlDeviceGetPowerUsage, (kn_nvml_handle device, unsigned *milliwatts)) \
	X(nvmlDeviceGetTemperature, (kn_nvml_handle device, int sensor, unsigned *celsius)) \
	X(nvmlDeviceGetCurrentClocksThrottleReasons, (kn_nvml_handle device, unsigned long long *reasons)) \
	X(nvmlDeviceGetTotalEccErrors, (kn_nvml_handle device, int type, int counter, unsigned long long *count))

#endif
