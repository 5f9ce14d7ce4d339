/* SPDX-License-Identifier: Apache-2.0 */
/* The grouped ffn on the host: which tiles there are, and which kernels make them. */
#include "kernels/cuda/ffn.h"

static const struct kn_cuda_layout &layout_of(const struct kn_ffn *a, size_t e)
{
	return static_cast<const struct kn_cuda_expert *>(a->experts[e]->own)->layout;
}

bool kn_cuda_takes_part(const struct kn_ffn *a, size_t e, const struct kn_cuda_layout &like)
{
	if (a->begin[e] == a->begin[e + 1])
		return false;
	const struct kn_cuda_area *areas = layout_of(a, e).areas;
	return areas[KN_AREA_UP].form == like.areas[KN_AREA_UP].form &&
		areas[KN_AREA_DOWN].form == like.areas[KN_AREA_DOWN].form;
}

static void add_tiles(
	struct kn_cuda_tile *tiles, size_t *count, uint32_t expert, uint32_t begin, uint32_t end, uint32_t rows)
{
	for (uint32_t first = begin; first < end; first += rows)
		tiles[(*count)++] = { expert, first, end - first < rows ? end - first : rows };
}

struct kn_cuda_plan kn_cuda_plan_make(struct kn_cuda_queue *queue, const struct kn_ffn *a,
	const struct kn_cuda_layout &like, uint32_t few_rows, uint32_t many_rows)
{
	size_t experts = 0, few_count = 0, many_count = 0;
	for (size_t e = 0; e < a->experts_count; e++) {
		const size_t rows = kn_cuda_takes_part(a, e, like) ? a->begin[e + 1] - a->begin[e] : 0;
		experts += rows > 0;
		if (rows < KN_MANY_ROWS)
			few_count += (rows + few_rows - 1) / few_rows;
		else
			many_count += (rows + many_rows - 1) / many_rows;
	}

	struct kn_cuda_view *views;
	struct kn_cuda_tile *few, *many;
	kn_cuda_reserve(queue, experts * sizeof *views + (few_count + many_count) * sizeof *few + 3 * 64);
	views = static_cast<struct kn_cuda_view *>(kn_cuda_take(queue, experts * sizeof *views));
	few = static_cast<struct kn_cuda_tile *>(kn_cuda_take(queue, few_count * sizeof *few));
	many = static_cast<struct kn_cuda_tile *>(kn_cuda_take(queue, many_count * sizeof *many));
	const struct kn_cuda_plan plan = {
		static_cast<const struct kn_cuda_view *>(kn_cuda_mirror(queue, views)),
		static_cast<const struct kn_cuda_tile *>(kn_cuda_mirror(queue, few)),
		static_cast<const struct kn_cuda_tile *>(kn_cuda_mirror(queue, many)),
		few_count,
		many_count,
	};

	uint32_t busy = 0;
	few_count = many_count = 0;
	for (size_t e = 0; e < a->experts_count; e++) {
		const uint32_t begin = a->begin[e], end = a->begin[e + 1];
		if (!kn_cuda_takes_part(a, e, like))
			continue;
		views[busy] = static_cast<const struct kn_cuda_expert *>(a->experts[e]->own)->view;
		if (end - begin < KN_MANY_ROWS)
			add_tiles(few, &few_count, busy++, begin, end, few_rows);
		else
			add_tiles(many, &many_count, busy++, begin, end, many_rows);
	}
	kn_cuda_send(queue);
	return plan;
}

static void *take(uint8_t *memory, size_t *used, size_t bytes)
{
	void *p = memory ? memory + *used : nullptr;
	*used += kn_round_up(bytes, 256);
	return p;
}

/* Of a row of n values, as integers or as bf16. */
static size_t row_bytes(size_t n)
{
	const size_t integers = kn_round_up(n, KN_GROUP), bf16 = kn_round_up(n, KN_BF16_STEP) * sizeof(uint16_t);
	return integers > bf16 ? integers : bf16;
}

/* Counts bytes (memory NULL) and hands out pointers. There may be more rows than pairs, or fewer. */
static struct kn_cuda_ffn_scratch lay_out(void *memory, size_t pairs, size_t rows, size_t hidden, size_t ffn)
{
	uint8_t *at = static_cast<uint8_t *>(memory);
	struct kn_cuda_ffn_scratch s = {};
	s.pairs = pairs;
	s.ffn = ffn;
	s.hidden_pad = kn_round_up(hidden, KN_GROUP);
	s.ffn_pad = kn_round_up(ffn, KN_GROUP);
	s.ldh = kn_round_up(ffn, KN_COLUMNS_UNIT);
	s.h = static_cast<float *>(take(at, &s.bytes, pairs * s.ldh * sizeof(float)));
	s.hq = static_cast<int8_t *>(take(at, &s.bytes, pairs * row_bytes(ffn)));
	s.h_scales = static_cast<float *>(take(at, &s.bytes, pairs * (s.ffn_pad / KN_GROUP) * sizeof(float)));
	s.x_scales = static_cast<float *>(take(at, &s.bytes, rows * (s.hidden_pad / KN_GROUP) * sizeof(float)));
	s.xq = static_cast<int8_t *>(take(at, &s.bytes, rows * row_bytes(hidden)));
	s.h_bf16 = reinterpret_cast<uint16_t *>(s.hq);
	s.x_bf16 = reinterpret_cast<uint16_t *>(s.xq);
	return s;
}

/* wgmma is sm_90's alone: what came after has other instructions instead. */
static bool has_wgmma(const struct kn_device *device) { return kn_cuda_device_of(device)->chip.capability == 90; }

size_t kn_cuda_ffn_scratch_bytes(struct kn_queue *queue, size_t pairs, size_t hidden, size_t ffn, bool)
{
	const size_t bytes = lay_out(nullptr, pairs, pairs, hidden, ffn).bytes,
		     wgmma = has_wgmma(queue->device) ? kn_cuda_wgmma_scratch_bytes(pairs, hidden, ffn) : 0;
	return bytes > wgmma ? bytes : wgmma;
}

static kn_cuda_ffn_fn *function_of(enum cad_profile profile)
{
	switch (profile) {
	case CAD_PROFILE_F32: return kn_cuda_ffn_f32;
	case CAD_PROFILE_BF16_SM90: return kn_cuda_ffn_bf16_sm90;
	default: return kn_cuda_ffn_int8;
	}
}

/* Of the experts that are kept as one is. */
static void run(struct kn_cuda_queue *q, const struct kn_ffn *a, const struct kn_cuda_layout &like, size_t ffn)
{
	const enum cad_profile profile = like.areas[KN_AREA_UP].form->profile;
	const bool integers = profile == CAD_PROFILE_INT8 || profile == CAD_PROFILE_INT4;
	if (integers && has_wgmma(q->base.device))
		return kn_cuda_ffn_wgmma(q, a, like, ffn);
	function_of(profile)(q, a, like, lay_out(a->scratch, a->begin[a->experts_count], a->rows, a->hidden, ffn));
}

static void clear_sums(struct kn_cuda_queue *q, const struct kn_ffn *a)
{
	kn_cuda_note(q, cudaMemsetAsync(a->sums, 0, a->rows * a->hidden * sizeof *a->sums, q->stream));
	kn_cuda_note(q, cudaMemsetAsync(a->poison, 0xff, a->rows * sizeof *a->poison, q->stream));
}

void kn_cuda_ffn(struct kn_queue *queue, const struct kn_ffn *a)
{
	if (!a->y && a->rows > 0)
		clear_sums(kn_cuda_queue_of(queue), a);
	for (size_t e = 0; e < a->experts_count; e++) {
		if (a->begin[e] == a->begin[e + 1])
			continue;
		const struct kn_cuda_layout &layout = layout_of(a, e);
		size_t first = 0;
		while (!kn_cuda_takes_part(a, first, layout))
			first++;
		if (first < e) /* done with that one */
			continue;
		run(kn_cuda_queue_of(queue), a, layout, a->experts[e]->ffn);
	}
}
