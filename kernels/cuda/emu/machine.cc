/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the environment, for tests: CADRE_EMU_DEVICES, how many GPUs there are (1); CADRE_EMU_SM,
 * their compute capability (90); CADRE_EMU_DRIVER, the CUDA that the driver is made for (13000; 0:
 * there is no driver).
 */
#include "kernels/cuda/emu/machine.h"

#include <stdio.h>
#include <stdlib.h>

enum { RUNTIME = 13000, SM_DEFAULT = 90, SM_LAST = 109, MULTIPROCESSORS = 4 };

static thread_local int device_now;
static thread_local cudaError_t last_error;

uint64_t emu_environment(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);
	return text ? strtoull(text, nullptr, 0) : otherwise;
}

int emu_device_now() { return device_now; }

cudaError_t emu_fail(cudaError_t error) { return last_error = error; }

static int sm() { return static_cast<int>(emu_environment("CADRE_EMU_SM", SM_DEFAULT)); }

cudaError_t cudaDriverGetVersion(int *version)
{
	*version = static_cast<int>(emu_environment("CADRE_EMU_DRIVER", RUNTIME));
	return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
	*version = RUNTIME;
	return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *count)
{
	int driver;
	cudaDriverGetVersion(&driver);
	*count = driver < RUNTIME ? 0 : static_cast<int>(emu_environment("CADRE_EMU_DEVICES", 1));
	if (driver < RUNTIME)
		return emu_fail(cudaErrorInsufficientDriver);
	return *count > 0 ? cudaSuccess : emu_fail(cudaErrorNoDevice);
}

static bool is_device(int device)
{
	int count;
	return cudaGetDeviceCount(&count) == cudaSuccess && device >= 0 && device < count;
}

cudaError_t cudaSetDevice(int device)
{
	if (!is_device(device))
		return emu_fail(cudaErrorInvalidDevice);
	device_now = device;
	return cudaSuccess;
}

cudaError_t cudaGetDevice(int *device)
{
	*device = device_now;
	return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device)
{
	if (!is_device(device))
		return emu_fail(cudaErrorInvalidDevice);
	switch (attribute) {
	case cudaDevAttrMultiProcessorCount: *value = MULTIPROCESSORS; return cudaSuccess;
	case cudaDevAttrComputeCapabilityMajor: *value = sm() / 10; return cudaSuccess;
	case cudaDevAttrComputeCapabilityMinor: *value = sm() % 10; return cudaSuccess;
	}
	return emu_fail(cudaErrorInvalidValue);
}

/* One that no device of a real machine has. */
cudaError_t cudaDeviceGetPCIBusId(char *text, int bytes, int device)
{
	if (!is_device(device))
		return emu_fail(cudaErrorInvalidDevice);
	snprintf(text, static_cast<size_t>(bytes), "ffff:ff:%02x.0", static_cast<unsigned>(device));
	return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int device)
{
	if (!is_device(device))
		return emu_fail(cudaErrorInvalidDevice);
	*properties = {};
	snprintf(properties->name, sizeof properties->name, "Emulated GPU %d", device);
	properties->major = sm() / 10;
	properties->minor = sm() % 10;
	properties->multiProcessorCount = MULTIPROCESSORS;
	return cudaSuccess;
}

/* There is code for all that nvcc makes it for. */
cudaError_t emu_func_attributes(const void *)
{
	return sm() <= SM_LAST ? cudaSuccess : emu_fail(cudaErrorNoKernelImageForDevice);
}

cudaError_t cudaGetLastError()
{
	cudaError_t error = last_error;
	last_error = cudaSuccess;
	return error;
}

const char *cudaGetErrorString(cudaError_t error)
{
	switch (error) {
	case cudaSuccess: return "no error";
	case cudaErrorInvalidValue: return "invalid argument";
	case cudaErrorMemoryAllocation: return "out of memory";
	case cudaErrorInvalidConfiguration: return "invalid configuration argument";
	case cudaErrorInvalidDevicePointer: return "invalid device pointer";
	case cudaErrorInsufficientDriver: return "CUDA driver version is insufficient for CUDA runtime version";
	case cudaErrorNoDevice: return "no CUDA-capable device is detected";
	case cudaErrorInvalidDevice: return "invalid device ordinal";
	case cudaErrorNoKernelImageForDevice: return "no kernel image is available for execution on the device";
	case cudaErrorECCUncorrectable: return "uncorrectable ECC error encountered";
	case cudaErrorInvalidResourceHandle: return "invalid resource handle";
	case cudaErrorNotReady: return "device not ready";
	case cudaErrorLaunchFailure: return "unspecified launch failure";
	}
	return "unknown error";
}
