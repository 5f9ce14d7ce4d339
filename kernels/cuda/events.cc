/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cuda/events.h"

#include <stdio.h>

bool kn_cuda_spans_init(struct kn_cuda_spans *spans)
{
	*spans = {};
	for (auto &span : spans->at)
		if (cudaEventCreateWithFlags(&span.begin, cudaEventDefault) != cudaSuccess ||
			cudaEventCreateWithFlags(&span.end, cudaEventDefault) != cudaSuccess)
			return false;
	return true;
}

void kn_cuda_spans_fini(struct kn_cuda_spans *spans)
{
	for (auto &span : spans->at) {
		if (span.begin)
			cudaEventDestroy(span.begin);
		if (span.end)
			cudaEventDestroy(span.end);
	}
	*spans = {};
}

/* An operator of the same stage as the one before makes that one's span longer. */
cudaError_t kn_cuda_spans_begin(struct kn_cuda_spans *spans, enum kn_stage stage, cudaStream_t stream)
{
	const size_t count = spans->count;
	const bool longer = count > 0 && spans->at[count - 1].stage == stage;
	spans->unended |= 1u << stage;
	spans->open = longer || count < KN_SPANS_MAX;
	if (longer || !spans->open)
		return cudaSuccess;
	spans->at[count].stage = stage;
	spans->count++;
	return cudaEventRecord(spans->at[count].begin, stream);
}

cudaError_t kn_cuda_spans_pause(struct kn_cuda_spans *spans, cudaStream_t stream)
{
	return spans->open ? cudaEventRecord(spans->at[spans->count - 1].end, stream) : cudaSuccess;
}

cudaError_t kn_cuda_spans_end(struct kn_cuda_spans *spans, cudaStream_t stream)
{
	cudaError_t error = kn_cuda_spans_pause(spans, stream);
	spans->open = false;
	return error;
}

cudaError_t kn_cuda_spans_read(struct kn_cuda_spans *spans, cudaStream_t stream)
{
	const size_t count = spans->count;
	for (size_t i = 0; i < count; i++) {
		float ms;
		if (cudaEventElapsedTime(&ms, spans->at[i].begin, spans->at[i].end) == cudaSuccess)
			spans->seconds[spans->at[i].stage] += static_cast<double>(ms) * 1e-3;
	}
	spans->count = 0;
	spans->unended = 0;
	return spans->open ? kn_cuda_spans_begin(spans, spans->at[count - 1].stage, stream) : cudaSuccess;
}

void kn_cuda_spans_text(const struct kn_cuda_spans *spans, char *text, size_t bytes)
{
	static const char *const names[KN_STAGE_COUNT] = { "a copy", "unpack", "ffn", "combine" };
	size_t length = 0;
	*text = '\0';
	for (unsigned stage = 0; stage < KN_STAGE_COUNT && length < bytes; stage++)
		if (spans->unended >> stage & 1)
			length += static_cast<size_t>(
				snprintf(text + length, bytes - length, "%s%s", length > 0 ? ", " : "", names[stage]));
}
