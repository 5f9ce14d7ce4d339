/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cuda/select.h"

#include "kernels/cuda/cuda.h"

#include <stdio.h>

namespace
{

enum { CAPABILITY_MIN = 80 };

/* Versions of CUDA are 1000 * major + 10 * minor. */
enum cad_status refuse_driver(cudaError_t found, struct cad_error *error)
{
	int driver = 0, runtime = 0;
	cudaDriverGetVersion(&driver);
	cudaRuntimeGetVersion(&runtime);

	if (driver == 0)
		return cad_error_set(error, CAD_ERR_NOT_FOUND,
			"device '" KN_CUDA_NAME
			"': there is no NVIDIA driver here (libcuda.so.1): install it, or start this container with access to the GPU");
	if (found == cudaErrorInsufficientDriver)
		return cad_error_set(error, CAD_ERR_UNSUPPORTED,
			"device '" KN_CUDA_NAME
			"': the NVIDIA driver is made for CUDA %d.%d, and this build of Cadre for %d.%d: install a newer driver",
			driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
	if (found == cudaErrorNoDevice)
		return cad_error_set(error, CAD_ERR_NOT_FOUND,
			"device '" KN_CUDA_NAME
			"': the NVIDIA driver finds no GPU: see nvidia-smi, CUDA_VISIBLE_DEVICES, and whether this container has been given one");
	return cad_error_set(error, CAD_ERR_UNSUPPORTED,
		"device '" KN_CUDA_NAME "': the NVIDIA driver cannot be used: %s: see nvidia-smi",
		cudaGetErrorString(found));
}

/* "cuda:0 (NVIDIA H200), cuda:1 (NVIDIA H200)", as far as it fits. */
void list(int count, char *text, size_t bytes)
{
	size_t length = 0;
	*text = '\0';
	for (int i = 0; i < count && length < bytes; i++) {
		cudaDeviceProp properties;
		bool known = cudaGetDeviceProperties(&properties, i) == cudaSuccess;
		length += static_cast<size_t>(snprintf(text + length, bytes - length, "%s" KN_CUDA_NAME ":%d (%.60s)",
			i > 0 ? ", " : "", i, known ? properties.name : "unknown"));
	}
}

enum cad_status refuse_index(unsigned index, int count, struct cad_error *error)
{
	char known[300];
	list(count, known, sizeof known);
	return cad_error_set(error, CAD_ERR_UNSUPPORTED, "there is no device '" KN_CUDA_NAME ":%u': %s %s%s", index,
		count == 1 ? "the only GPU is" : "the GPUs are", known,
		getenv("CUDA_VISIBLE_DEVICES") ? ", by CUDA_VISIBLE_DEVICES" : "");
}

/* Makes the GPU this thread's, which takes memory and can fail. */
enum cad_status take(const struct kn_cuda_chip *chip, struct cad_error *error)
{
	cudaError_t taken = cudaSetDevice(chip->index);
	if (taken == cudaSuccess)
		taken = cudaFree(nullptr);
	if (taken == cudaSuccess)
		taken = kn_cuda_code_found();
	if (taken == cudaErrorNoKernelImageForDevice)
		return cad_error_set(error, CAD_ERR_UNSUPPORTED,
			"device '%s' (%s) has compute capability %d.%d, for which this build of Cadre has no code: build it with CADRE_CUDA_ARCHITECTURES=%d",
			chip->name, chip->model, chip->capability / 10, chip->capability % 10, chip->capability);
	if (taken != cudaSuccess)
		return cad_error_set(error, CAD_ERR_UNSUPPORTED,
			"device '%s' (%s) cannot be used: %s: see nvidia-smi for who uses it, and in which mode it is",
			chip->name, chip->model, cudaGetErrorString(taken));
	return CAD_OK;
}

}   // namespace

enum cad_status kn_cuda_select(unsigned index, struct kn_cuda_chip *chip, struct cad_error *error)
{
	int count = 0;
	cudaError_t found = cudaGetDeviceCount(&count);
	if (found == cudaSuccess && count == 0)
		found = cudaErrorNoDevice;
	if (found != cudaSuccess)
		return refuse_driver(found, error);
	if (index >= static_cast<unsigned>(count))
		return refuse_index(index, count, error);

	cudaDeviceProp properties;
	chip->index = static_cast<int>(index);
	found = cudaGetDeviceProperties(&properties, chip->index);
	if (found == cudaSuccess)
		found = cudaDeviceGetPCIBusId(chip->pci_bus_id, sizeof chip->pci_bus_id, chip->index);
	if (found != cudaSuccess)
		return refuse_driver(found, error);
	snprintf(chip->name, sizeof chip->name, KN_CUDA_NAME ":%u", index);
	snprintf(chip->model, sizeof chip->model, "%.*s", static_cast<int>(sizeof chip->model) - 1, properties.name);
	chip->capability = 10 * properties.major + properties.minor;
	chip->multiprocessors = properties.multiProcessorCount;
	/* By its data sheet, B300 (10.3) has a thirtieth of B200's operations on integers. */
	chip->int8_as_bf16 = chip->capability == 103;
	if (chip->capability < CAPABILITY_MIN)
		return cad_error_set(error, CAD_ERR_UNSUPPORTED,
			"device '%s' (%s) has compute capability %d.%d, and Cadre's kernels need 8.0 or more: use another one, or --device cpu",
			chip->name, chip->model, properties.major, properties.minor);
	return take(chip, error);
}
