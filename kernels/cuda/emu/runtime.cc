/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The emulated runtime: streams are queues of closures under one lock, which whoever waits runs.
 *
 * From the environment, for tests:
 *   CADRE_EMU_BYTES        memory of the device (4 GiB)
 *   CADRE_EMU_TAKEN        how much of it other processes have (0); or a file that says so, and is
 *                          asked each time: while it is not there, 0
 *   CADRE_EMU_NO_MEMORY    the allocation of this number, of either kind, fails; 1 is the first
 *   CADRE_EMU_FAIL_AFTER   so many waits succeed, then the device has failed for good; or a file:
 *                          it fails once that is there,
 *   CADRE_EMU_ERROR        with this error (719, a kernel's)
 *   CADRE_EMU_LAUNCHES     a file that gets a line for each launch: where the kernel is in this library,
 *                          threads and bytes of shared memory of a block
 * and of the machine around it: machine.cc.
 */
#include "kernels/cuda/emu/block.h"
#include "kernels/cuda/emu/check.h"
#include "kernels/cuda/emu/launch.h"
#include "kernels/cuda/emu/machine.h"
#include "kernels/cuda/emu/memory.h"

#include <deque>
#include <dlfcn.h>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <vector>

typedef std::function<void()> work;

struct emu_stream {
	int device;
	std::deque<work> queue;
};

/* Which record of an event its stream has come to, and when. */
struct emu_reached {
	uint64_t number;
	timespec at;
};

/* How often an event was recorded, and what its stream has come to. It may be destroyed before
 * that. */
struct emu_event {
	emu_stream *stream;
	uint64_t recorded;
	std::shared_ptr<emu_reached> reached;
};

namespace
{

constexpr size_t SHARED_DEFAULT = 48 * 1024, GRID_SIDE_MAX = 65535;

std::mutex lock; /* of everything here, in block.cc, memory.cc and check.cc */
typedef std::lock_guard<std::mutex> hold;

/* The file that a variable names, where it does; else "". */
const char *file_of(const char *name)
{
	const char *text = getenv(name);
	return text && *text == '/' ? text : "";
}

std::vector<emu_stream *> streams;
std::map<const void *, size_t> shared_max; /* of kernels that asked for more than SHARED_DEFAULT */
uint64_t lot;
uint64_t waits_left =
	*file_of("CADRE_EMU_FAIL_AFTER") ? UINT64_MAX : emu_environment("CADRE_EMU_FAIL_AFTER", UINT64_MAX);
bool failed = waits_left == 0;

uint64_t device_bytes()
{
	static const uint64_t bytes = emu_environment("CADRE_EMU_BYTES", 4ull << 30);
	return bytes;
}

/* What other processes have of it, of which no more can be taken. */
uint64_t taken_bytes()
{
	const char *path = file_of("CADRE_EMU_TAKEN");
	unsigned long long bytes = 0;
	if (!*path)
		return emu_environment("CADRE_EMU_TAKEN", 0);
	if (FILE *file = fopen(path, "r")) {
		if (fscanf(file, "%llu", &bytes) != 1)
			bytes = 0;
		fclose(file);
	}
	return bytes;
}

uint64_t free_bytes_now()
{
	uint64_t taken = taken_bytes() + emu_memory_used();
	return taken < device_bytes() ? device_bytes() - taken : 0;
}

/* Called with the lock held, as all that follow. */
bool allocation_fails()
{
	static const uint64_t fails = emu_environment("CADRE_EMU_NO_MEMORY", 0);
	static uint64_t count;
	return ++count == fails;
}

/* What the device answers to everything once it has failed. */
cudaError_t failure()
{
	return failed ? static_cast<cudaError_t>(emu_environment("CADRE_EMU_ERROR", cudaErrorLaunchFailure))
		      : cudaSuccess;
}

cudaError_t count_wait()
{
	const char *file = file_of("CADRE_EMU_FAIL_AFTER");
	if (*file && access(file, F_OK) == 0)
		waits_left = 0;
	if (waits_left != UINT64_MAX && waits_left-- == 0) {
		waits_left = 0;
		failed = true;
	}
	return failure();
}

bool is_stream(const emu_stream *stream)
{
	for (const emu_stream *other : streams)
		if (other == stream)
			return true;
	return false;
}

cudaError_t enqueue(cudaStream_t stream, work w)
{
	if (!is_stream(stream))
		return emu_fail(cudaErrorInvalidResourceHandle);
	if (failure() != cudaSuccess)
		return emu_fail(failure());
	stream->queue.push_back(std::move(w));
	return cudaSuccess;
}

void run_first(emu_stream *stream)
{
	work w = std::move(stream->queue.front());
	stream->queue.pop_front();
	w();
}

/* One piece of the stream's work, or of another one's: that is drawn by lot. */
void run_one(emu_stream *stream)
{
	emu_stream *other = streams[emu_random(&lot) % streams.size()];
	run_first(other->queue.empty() ? stream : other);
}

/* Runs all that the stream has been given. */
void drain(emu_stream *stream)
{
	while (!stream->queue.empty())
		run_one(stream);
}

void drain_all()
{
	for (emu_stream *stream : streams)
		drain(stream);
}

/* Whether [address, address + bytes) is in one allocation of this kind. */
bool is_in(emu_memory_kind kind, const void *address, size_t bytes)
{
	const emu_range *range = emu_memory_find(address);
	return range && range->kind == kind &&
		bytes <= static_cast<size_t>(range->end - static_cast<const unsigned char *>(address));
}

/* A copy of `height` rows, as cudaMemcpy2D has them. */
struct copy {
	unsigned char *to;
	const unsigned char *from;
	size_t to_pitch, from_pitch, width, height;

	size_t to_bytes() const { return to_pitch * (height - 1) + width; }
	size_t from_bytes() const { return from_pitch * (height - 1) + width; }
	void run() const
	{
		for (size_t i = 0; i < height; i++) {
			memmove(to + i * to_pitch, from + i * from_pitch, width);
			emu_check_host_write(to + i * to_pitch, width);
		}
	}
};

/* From memory that is not pinned, CUDA has read all before the call returns. */
cudaError_t copy_in(copy c, cudaStream_t stream)
{
	if (is_in(EMU_HOST_MEMORY, c.from, c.from_bytes()))
		return enqueue(stream, [c] { c.run(); });

	std::vector<unsigned char> staged(c.from, c.from + c.from_bytes());
	return enqueue(stream, [c, staged]() mutable {
		c.from = staged.data();
		c.run();
	});
}

/* To memory that is not pinned, CUDA has written all before the call returns. */
cudaError_t copy_out(copy c, cudaStream_t stream)
{
	cudaError_t error = enqueue(stream, [c] { c.run(); });
	if (error == cudaSuccess && !is_in(EMU_HOST_MEMORY, c.to, c.to_bytes()))
		drain(stream);
	return error;
}

}   // namespace

/* ---- memory ---- */

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes)
{
	hold h(lock);
	*total_bytes = device_bytes();
	*free_bytes = free_bytes_now();
	return cudaSuccess;
}

cudaError_t cudaMalloc(void **memory, size_t bytes)
{
	hold h(lock);
	if (failure() != cudaSuccess)
		return emu_fail(failure());
	if (bytes > free_bytes_now() || allocation_fails())
		return emu_fail(cudaErrorMemoryAllocation);
	*memory = emu_memory_alloc(EMU_DEVICE_MEMORY, bytes);
	return *memory ? cudaSuccess : emu_fail(cudaErrorMemoryAllocation);
}

/* Releasing waits for the device, as CUDA does. */
static cudaError_t release(emu_memory_kind kind, void *memory)
{
	hold h(lock);
	if (failure() != cudaSuccess)
		return emu_fail(failure());
	if (!memory)
		return cudaSuccess;
	drain_all();
	return emu_memory_release(kind, memory) ? cudaSuccess : emu_fail(cudaErrorInvalidValue);
}

cudaError_t cudaFree(void *memory) { return release(EMU_DEVICE_MEMORY, memory); }

cudaError_t cudaHostAlloc(void **memory, size_t bytes, unsigned)
{
	hold h(lock);
	*memory = allocation_fails() ? nullptr : emu_memory_alloc(EMU_HOST_MEMORY, bytes);
	return *memory ? cudaSuccess : emu_fail(cudaErrorMemoryAllocation);
}

cudaError_t cudaFreeHost(void *memory) { return release(EMU_HOST_MEMORY, memory); }

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *attributes, const void *memory)
{
	hold h(lock);
	attributes->type = is_in(EMU_HOST_MEMORY, memory, 1) ? cudaMemoryTypeHost
		: is_in(EMU_DEVICE_MEMORY, memory, 1)        ? cudaMemoryTypeDevice
							     : cudaMemoryTypeUnregistered;
	return cudaSuccess;
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width,
	size_t height, cudaMemcpyKind kind, cudaStream_t stream)
{
	hold h(lock);
	if (width == 0 || height == 0)
		return cudaSuccess;
	copy c = { static_cast<unsigned char *>(to), static_cast<const unsigned char *>(from), to_pitch, from_pitch,
		width, height };
	bool in = kind == cudaMemcpyHostToDevice;
	if (!(in ? is_in(EMU_DEVICE_MEMORY, to, c.to_bytes()) : is_in(EMU_DEVICE_MEMORY, from, c.from_bytes())))
		return emu_fail(cudaErrorInvalidValue);
	return in ? copy_in(c, stream) : copy_out(c, stream);
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream)
{
	return cudaMemcpy2DAsync(to, bytes, from, bytes, bytes, 1, kind, stream);
}

cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t stream)
{
	hold h(lock);
	if (bytes == 0)
		return cudaSuccess;
	if (!is_in(EMU_DEVICE_MEMORY, memory, bytes))
		return emu_fail(cudaErrorInvalidValue);
	return enqueue(stream, [=] {
		memset(memory, value, bytes);
		emu_check_host_write(memory, bytes);
	});
}

/* ---- streams ---- */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned)
{
	hold h(lock);
	*stream = new emu_stream{ emu_device_now(), {} };
	streams.push_back(*stream);
	return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
	hold h(lock);
	if (!is_stream(stream))
		return emu_fail(cudaErrorInvalidResourceHandle);
	drain(stream);
	for (size_t i = 0; i < streams.size(); i++)
		if (streams[i] == stream)
			streams.erase(streams.begin() + static_cast<ptrdiff_t>(i));
	delete stream;
	return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
	hold h(lock);
	if (!is_stream(stream))
		return emu_fail(cudaErrorInvalidResourceHandle);
	if (count_wait() != cudaSuccess)
		return emu_fail(failure());
	drain(stream);
	return cudaSuccess;
}

/* ---- events ---- */

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned)
{
	*event = new emu_event{ nullptr, 0, std::make_shared<emu_reached>() };
	return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
	delete event;
	return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
	hold h(lock);
	std::shared_ptr<emu_reached> reached = event->reached;
	uint64_t number = event->recorded + 1;
	cudaError_t error = enqueue(stream, [reached, number] {
		reached->number = number;
		clock_gettime(CLOCK_MONOTONIC, &reached->at);
	});
	if (error == cudaSuccess) {
		event->stream = stream;
		event->recorded = number;
	}
	return error;
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
	hold h(lock);
	return event->reached->number == event->recorded ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
	hold h(lock);
	uint64_t number = event->recorded;
	if (count_wait() != cudaSuccess)
		return emu_fail(failure());
	while (event->reached->number < number)
		run_one(event->stream);
	return cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t begin, cudaEvent_t end)
{
	hold h(lock);
	for (cudaEvent_t event : { begin, end }) {
		if (event->recorded == 0)
			return emu_fail(cudaErrorInvalidResourceHandle);
		if (event->reached->number < event->recorded)
			return emu_fail(cudaErrorNotReady);
	}
	const timespec &from = begin->reached->at, &to = end->reached->at;
	*ms = static_cast<float>(static_cast<double>(to.tv_sec - from.tv_sec) * 1e3 +
		static_cast<double>(to.tv_nsec - from.tv_nsec) * 1e-6);
	return cudaSuccess;
}

/* ---- kernels ---- */

cudaError_t cudaFuncSetAttribute(const void *kernel, cudaFuncAttribute, int value)
{
	hold h(lock);
	if (value < 0 || value > EMU_SHARED_MAX)
		return emu_fail(cudaErrorInvalidValue);
	shared_max[kernel] = static_cast<size_t>(value);
	return cudaSuccess;
}

static bool runs_on_a_gpu(const emu_launch &launch)
{
	uint64_t threads = static_cast<uint64_t>(launch.dim.x) * launch.dim.y * launch.dim.z;
	return threads > 0 && threads <= EMU_THREADS_MAX && launch.grid.x > 0 && launch.grid.y > 0 &&
		launch.grid.z > 0 && launch.grid.x <= INT32_MAX && launch.grid.y <= GRID_SIDE_MAX &&
		launch.grid.z <= GRID_SIDE_MAX;
}

static void note_launch(const void *kernel, const emu_launch &launch)
{
	static const char *path = getenv("CADRE_EMU_LAUNCHES");
	static FILE *file = path ? fopen(path, "a") : nullptr;
	Dl_info library;
	if (!file || dladdr(kernel, &library) == 0)
		return;
	fprintf(file, "%#tx %u %zu\n", static_cast<const char *>(kernel) - static_cast<const char *>(library.dli_fbase),
		launch.dim.x * launch.dim.y * launch.dim.z, launch.shared_bytes);
	fflush(file);
}

cudaError_t emu_launch_on(cudaStream_t stream, const void *kernel, const emu_launch &launch, const void *arguments,
	size_t arguments_bytes)
{
	hold h(lock);
	auto asked = shared_max.find(kernel);
	if (is_stream(stream) && stream->device != emu_device_now())
		return emu_fail(cudaErrorInvalidResourceHandle);
	if (!runs_on_a_gpu(launch))
		return emu_fail(cudaErrorInvalidConfiguration);
	if (launch.shared_bytes > (asked == shared_max.end() ? SHARED_DEFAULT : asked->second))
		return emu_fail(cudaErrorInvalidValue);
	note_launch(kernel, launch);

	const unsigned char *bytes = static_cast<const unsigned char *>(arguments);
	std::vector<unsigned char> kept(bytes, bytes + arguments_bytes);
	return enqueue(stream, [launch, kept] {
		emu_launch now = launch;
		now.arguments = kept.data();
		emu_check_arguments(kept.data(), kept.size());
		emu_grid_run(&now);
	});
}
