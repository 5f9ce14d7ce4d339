/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the stages of a queue take on the device: a pair of events around operators of one stage that
 * follow each other, read after the wait that comes anyway. And which stages the queue is in, for
 * who has to say where the device failed.
 */
#ifndef CADRE_KERNELS_CUDA_EVENTS_H
#define CADRE_KERNELS_CUDA_EVENTS_H

#include "kernels/cuda/cadre_c.h"
#include "kernels/cuda/gpu.h"

/* Between two waits; further ones are not timed. A step has five. */
enum { KN_SPANS_MAX = 16 };

struct kn_cuda_spans {
	struct {
		enum kn_stage stage;
		cudaEvent_t begin, end;
	} at[KN_SPANS_MAX];
	size_t count;
	bool open;        /* the last, whose operator is being put on the stream */
	uint32_t unended; /* stages since the last wait, as bits */
	double seconds[KN_STAGE_COUNT];
};

/* False: there is no memory; fini takes what was made. */
bool kn_cuda_spans_init(struct kn_cuda_spans *spans);
void kn_cuda_spans_fini(struct kn_cuda_spans *spans);
cudaError_t kn_cuda_spans_begin(struct kn_cuda_spans *spans, enum kn_stage stage, cudaStream_t stream);
cudaError_t kn_cuda_spans_end(struct kn_cuda_spans *spans, cudaStream_t stream);
/* Around a wait, which may come in the middle of an operator. */
cudaError_t kn_cuda_spans_pause(struct kn_cuda_spans *spans, cudaStream_t stream);
cudaError_t kn_cuda_spans_read(struct kn_cuda_spans *spans, cudaStream_t stream);
/* "unpack, ffn": where an error that is seen now comes from. */
void kn_cuda_spans_text(const struct kn_cuda_spans *spans, char *text, size_t bytes);

#endif
