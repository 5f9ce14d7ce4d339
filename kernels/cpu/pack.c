/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a checkpoint's rows to panels of lines (layout.h), and what they take. Reads the source
 * once; allocates the packed copy alone. May be called by several threads at once, and what one call
 * packs is spread over the device's workers.
 */
#include "common/base/workers.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/transpose.h"
#include "kernels/cpu/tune.h"
#include "kernels/image.h"
#include "kernels/values.h"

#include <immintrin.h>
#include <stdlib.h>
#include <string.h>

enum {
	BLOCK_WORDS = 256, /* of a column at a time: 256 f32 or 512 bf16 */
	STAGE_LD = 272,    /* words from column to column; a power of two would share sets of L1 */
};

static inline __m256 widen_8(__m128i halves, bool f16)
{
	return f16 ? _mm256_cvtph_ps(halves)
		   : _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}

void kn_widen(const void *source, enum cad_dtype dtype, size_t n, float *out)
{
	CAD_ASSERT(dtype == CAD_DTYPE_F32 || dtype == CAD_DTYPE_F16 || dtype == CAD_DTYPE_BF16);
	if (dtype == CAD_DTYPE_F32) {
		memcpy(out, source, n * sizeof *out);
		return;
	}

	const uint8_t *bytes = source; /* as aligned as the file has it */
	size_t i = 0;
	for (; i + 8 <= n; i += 8)
		_mm256_storeu_ps(
			out + i, widen_8(_mm_loadu_si128((const __m128i *)(bytes + 2 * i)), dtype == CAD_DTYPE_F16));
	if (i < n) {
		uint16_t halves[8] = { 0 };
		float rest[8];
		memcpy(halves, bytes + 2 * i, 2 * (n - i));
		_mm256_storeu_ps(rest, widen_8(_mm_loadu_si128((const __m128i *)halves), dtype == CAD_DTYPE_F16));
		memcpy(out + i, rest, (n - i) * sizeof *out);
	}
}

/* The same as bf16, rounded to nearest even where it is not bf16 already. n <= 2 * BLOCK_WORDS. */
static void narrow(const void *source, enum cad_dtype dtype, size_t n, uint16_t *out)
{
	if (dtype == CAD_DTYPE_BF16) {
		memcpy(out, source, n * sizeof *out);
		return;
	}
	float wide[2 * BLOCK_WORDS];
	kn_widen(source, dtype, n, wide);
	for (size_t i = 0; i < n; i++)
		out[i] = kn_bf16_of(wide[i]);
}

/* A row of a source: a column of a panel. data NULL: a column of zeros, or, where there is a source, one
 * whose values do not lie side by side as they are. */
struct source_row {
	const uint8_t *data;
	enum cad_dtype dtype;
	const struct kn_source *source;
	size_t row;
};
static inline bool is_zeros(const struct source_row *row) { return !row->data && !row->source; }
static inline bool is_turned(const struct source_row *row) { return row->source && row->source->value_step; }

/* Brings `bytes` of every row into L2, row after row: rows are pages apart, and only along a row does
 * the processor read ahead. */
static void fetch(const struct source_row *row, size_t first, size_t bytes)
{
	for (size_t at = 0; row->data && at < bytes; at += 64)
		(void)*(const volatile uint8_t *)(row->data + first + at);
}

/* The same of values k .. k + count - 1, which are no rows of a quantised matrix. */
static void fetch_values(const struct source_row rows[KN_PANEL_COLS], size_t k, size_t count)
{
	for (size_t c = 0; c < KN_PANEL_COLS; c++) {
		if (!rows[c].data)
			continue;
		size_t element = cad_dtype_bytes(rows[c].dtype);
		fetch(&rows[c], k * element, count * element);
	}
}

/* Of a matrix whose columns lie side by side: values k .. of sixteen columns of a panel, to rows of their own
 * that are TURNED_LD bytes apart. */
enum { TURNED_ROWS = 16, TURNED_LD = 2 * BLOCK_WORDS * sizeof(float) };
static void gather_turned(const struct source_row rows[TURNED_ROWS], size_t k, size_t count, uint8_t *out)
{
	size_t many = 0;
	while (many < TURNED_ROWS && rows[many].source)
		many++;
	kn_source_gather(rows->source, rows->row, many, k, count, out, TURNED_LD);
}

/* Values of a column that is not plain, as the lanes of its panel keep them. */
static void stage_values(const struct source_row *row, size_t k, size_t count, bool f32, uint32_t *stage)
{
	float wide[2 * BLOCK_WORDS];
	kn_source_values(row->source, row->row, k, count, f32 ? (float *)stage : wide);
	for (size_t i = 0; i < count && !f32; i++)
		((uint16_t *)stage)[i] = kn_bf16_of(wide[i]);
}

/* The columns that are staged, turned around, past the caches: nobody reads them soon. `words`
 * steps (a multiple of 8) of a panel. */
static void store_steps(uint32_t stage[KN_PANEL_COLS][STAGE_LD], size_t words, uint32_t *out)
{
	for (size_t w = 0; w < words; w += 8)
		for (size_t c = 0; c < KN_PANEL_COLS; c += 8)
			kn_transpose_8_stream(&stage[c][w], STAGE_LD, out + w * KN_PANEL_COLS + c, KN_PANEL_COLS);
}

/*
 * Column c of the panel is rows[c]. A block of every column is staged as the words of its lanes (f32,
 * or pairs of bf16), column by column, and then turned around.
 */
static void pack_panel(const struct kn_panels *m, const struct source_row rows[KN_PANEL_COLS], uint8_t *panel)
{
	bool f32 = m->storage == KN_STORAGE_F32;
	size_t word_values = f32 ? 1 : 2, block = BLOCK_WORDS * word_values;

	_Alignas(64) uint32_t stage[KN_PANEL_COLS][STAGE_LD];
	uint8_t turned[TURNED_ROWS * TURNED_LD];

	for (size_t k = 0; k < m->k_pad; k += block) {
		size_t count = m->k - k < block ? m->k - k : block,
		       padded = m->k_pad - k < block ? m->k_pad - k : block;
		if (k % KN_PACK_FETCH_VALUES == 0)
			fetch_values(rows, k, m->k - k < KN_PACK_FETCH_VALUES ? m->k - k : KN_PACK_FETCH_VALUES);
		for (size_t c = 0; c < KN_PANEL_COLS; c++) {
			enum cad_dtype dtype = rows[c].dtype;
			if (is_zeros(&rows[c]) || count < padded)
				memset(stage[c], 0, sizeof stage[c]);
			if (is_turned(&rows[c]) && c % TURNED_ROWS == 0)
				gather_turned(&rows[c], k, count, turned);
			if (rows[c].source && !is_turned(&rows[c]))
				stage_values(&rows[c], k, count, f32, stage[c]);
			if (!rows[c].data && !is_turned(&rows[c]))
				continue;
			const uint8_t *values = is_turned(&rows[c]) ? turned + c % TURNED_ROWS * TURNED_LD
								    : rows[c].data + k * cad_dtype_bytes(dtype);
			if (f32)
				kn_widen(values, dtype, count, (float *)stage[c]);
			else
				narrow(values, dtype, count, (uint16_t *)stage[c]);
		}
		store_steps(stage, padded / word_values, (uint32_t *)panel + k / word_values * KN_PANEL_COLS);
	}
	_mm_sfence();
}

/* ---- quantised ---- */

/* What stands before the steps of a column in a group. */
struct column_head {
	float scale;
	uint32_t subscales;
};

/* Values k .. of a row, of which `count` are not beyond it: KN_GROUP s8, lane by lane. A row that
 * is quantised already is taken as it is. */
static struct column_head s8_lanes(
	const struct kn_panels *m, const struct source_row *from, size_t k, size_t count, uint8_t *lanes)
{
	const uint8_t *row = from->data;
	enum cad_dtype dtype = from->dtype;
	struct column_head head = { 0 };

	memset(lanes, 0, KN_GROUP);
	if (count > 0 && dtype == CAD_DTYPE_Q8) {
		memcpy(&head.scale, row + k / KN_GROUP * sizeof head.scale, sizeof head.scale);
		memcpy(lanes, row + kn_row_head_bytes(dtype, m->k) + k, count);
	} else if (count > 0 && from->source) {
		float wide[KN_GROUP];
		kn_source_values(from->source, from->row, k, count, wide);
		head.scale = kn_quantise_group(wide, count, KN_GROUP, KN_RANGE_INT8, (int8_t *)lanes);
	} else if (count > 0) {
		head.scale = kn_quantise_values(
			row + k * cad_dtype_bytes(dtype), dtype, count, KN_GROUP, KN_RANGE_INT8, (int8_t *)lanes);
	}
	return head;
}

/* From a row of type Q4, whose length is row_k. */
static void read_int4(const uint8_t *row, size_t row_k, size_t k, size_t count, struct kn_int4_group *group)
{
	const __m128i low = _mm_set1_epi8(15);
	const uint8_t *subscales = row + kn_row_scale_bytes(CAD_DTYPE_Q4, row_k) + k / KN_SUBGROUP / 2,
		      *pairs = row + kn_row_head_bytes(CAD_DTYPE_Q4, row_k) + k / 2;
	size_t i = 0;

	memcpy(&group->scale, row + k / KN_GROUP * sizeof group->scale, sizeof group->scale);
	group->subscales = 0;
	memcpy(&group->subscales, subscales, ((count + KN_SUBGROUP - 1) / KN_SUBGROUP + 1) / 2);

	for (; i + 16 <= count; i += 16) {
		__m128i bytes = _mm_loadl_epi64((const __m128i *)(pairs + i / 2));
		_mm_storeu_si128((__m128i *)(group->u + i),
			_mm_unpacklo_epi8(_mm_and_si128(bytes, low), _mm_and_si128(_mm_srli_epi16(bytes, 4), low)));
	}
	for (; i < count; i++)
		group->u[i] = pairs[i / 2] >> (i % 2 * 4) & 15;
	for (; i < KN_GROUP; i++)
		group->u[i] = (uint8_t)kn_int4_zero(group->subscales, i / KN_SUBGROUP);
}

/* The same as s8_lanes, of u4. */
static struct column_head u4_lanes(
	const struct kn_panels *m, const struct source_row *from, size_t k, size_t count, uint8_t *lanes)
{
	const uint8_t *row = from->data;
	enum cad_dtype dtype = from->dtype;
	struct kn_int4_group group;
	float wide[KN_GROUP];

	if (count > 0 && from->source)
		kn_source_values(from->source, from->row, k, count, wide);
	if (count > 0 && dtype == CAD_DTYPE_Q4)
		read_int4(row, m->k, k, count, &group);
	else if (from->source)
		kn_quantise_int4(wide, CAD_DTYPE_F32, count, &group);
	else
		kn_quantise_int4(row ? row + k * cad_dtype_bytes(dtype) : NULL, dtype, count, &group);

	for (size_t i = 0; i < KN_GROUP; i += 8) {
		uint64_t eight;
		memcpy(&eight, group.u + i, sizeof eight);
		uint32_t word = (uint32_t)(eight | eight >> 28);
		memcpy(lanes + i / 2, &word, sizeof word);
	}
	return (struct column_head){ group.scale, group.subscales };
}

/* As pack_panel, group by group: scales, sub-scales, then steps. */
static void quantise_panel(const struct kn_panels *m, const struct source_row rows[KN_PANEL_COLS], uint8_t *panel)
{
	/* all rows are quantised already, or none */
	bool plain = !cad_dtype_quantised(rows[0].dtype), u4 = m->storage == KN_STORAGE_U4;

	_Alignas(64) uint32_t stage[KN_PANEL_COLS][STAGE_LD];

	for (size_t c = 0; c < KN_PANEL_COLS && !plain; c++) /* short rows: all of them at once */
		fetch(&rows[c], 0, kn_row_bytes(rows[c].dtype, m->k));
	for (size_t k = 0; k < m->k_pad; k += KN_GROUP, panel += kn_group_bytes(m->storage)) {
		size_t count = m->k - k < KN_GROUP ? m->k - k : KN_GROUP;
		if (plain && k % KN_PACK_FETCH_VALUES == 0)
			fetch_values(rows, k, m->k - k < KN_PACK_FETCH_VALUES ? m->k - k : KN_PACK_FETCH_VALUES);
		for (size_t c = 0; c < KN_PANEL_COLS; c++) {
			struct column_head head = (u4 ? u4_lanes : s8_lanes)(
				m, &rows[c], k, is_zeros(&rows[c]) ? 0 : count, (uint8_t *)stage[c]);
			memcpy(panel + c * sizeof head.scale, &head.scale, sizeof head.scale);
			if (u4)
				memcpy(panel + KN_STEP_BYTES + c * sizeof head.subscales, &head.subscales,
					sizeof head.subscales);
		}
		store_steps(stage, KN_GROUP / kn_step_values(m->storage),
			(uint32_t *)(panel + kn_group_head_bytes(m->storage)));
	}
	_mm_sfence();
}

/* ---- as stored ---- */

/* The values of a column of a panel, a byte for each step, and its scale before each group. */
static void pack_column_f8(const struct kn_panels *m, const struct source_row *row, size_t c, uint8_t *panel)
{
	const uint8_t *bytes = kn_source_bytes_of(row->source, row->row);

	for (size_t k = 0; k < m->k; k += KN_FP8_GROUP) {
		size_t count = m->k - k < KN_FP8_GROUP ? m->k - k : KN_FP8_GROUP;
		uint8_t *group = panel + (kn_f8_group(panel, k) - panel), *step = group + KN_F8_HEAD_BYTES + c;
		((float *)group)[c] = kn_source_scale(row->source, row->row, k) * KN_F8_SCALE;
		for (size_t i = 0; i < count; i++)
			step[i * KN_PANEL_COLS] = bytes[k + i];
	}
}

static void pack_column_mxfp4(const struct kn_panels *m, const struct source_row *row, size_t c, uint8_t *panel)
{
	const uint8_t *bytes = kn_source_bytes_of(row->source, row->row);

	for (size_t k = 0; k < m->k; k += KN_MXFP4_GROUP) {
		uint8_t *group = panel + (kn_mxfp4_group(panel, k) - panel), *step = group + KN_PANEL_COLS + c;
		group[c] = kn_source_exponent(row->source, row->row, k);
		for (size_t i = 0; i < KN_MXFP4_GROUP / 2; i++)
			step[i * KN_PANEL_COLS] = bytes[k / 2 + i];
	}
}

static void pack_stored(const struct kn_panels *m, const struct source_row rows[KN_PANEL_COLS], uint8_t *panel)
{
	memset(panel, 0, m->panel_bytes);
	for (size_t c = 0; c < KN_PANEL_COLS; c++)
		if (rows[c].source)
			(m->storage == KN_STORAGE_F8 ? pack_column_f8 : pack_column_mxfp4)(m, &rows[c], c, panel);
}

/* ---- matrices ---- */

static enum kn_storage storage_of(enum cad_dtype stored, enum cad_weights weights)
{
	switch (weights) {
	case CAD_WEIGHTS_INT8: return KN_STORAGE_S8;
	case CAD_WEIGHTS_INT4: return KN_STORAGE_U4;
	case CAD_WEIGHTS_BF16: return KN_STORAGE_BF16;
	case CAD_WEIGHTS_BF16_ROWS: return KN_STORAGE_BF16_ROWS;
	case CAD_WEIGHTS_BF16_SM90: return KN_STORAGE_BF16_SM90;
	case CAD_WEIGHTS_AS_IS: break;
	}
	switch (stored) {
	case CAD_DTYPE_BF16: return KN_STORAGE_BF16;
	case CAD_DTYPE_F8_E4M3: return KN_STORAGE_F8;
	case CAD_DTYPE_MXFP4: return KN_STORAGE_MXFP4;
	default: return KN_STORAGE_F32;
	}
}

/* A packed matrix [columns][k] that is stored in one type; no memory yet. */
static struct kn_panels panels_make(enum cad_dtype stored, size_t columns, size_t k, enum cad_weights weights)
{
	struct kn_panels p = {
		.storage = storage_of(stored, weights),
		.n = columns,
		.k = k,
		.panels = (columns + KN_PANEL_COLS - 1) / KN_PANEL_COLS,
	};
	bool quantised = kn_storage_quantised(p.storage);
	p.k_pad = kn_round_up(k, quantised ? KN_GROUP : KN_K_UNIT);
	if (p.storage == KN_STORAGE_F8)
		p.panel_bytes =
			(p.k_pad + KN_FP8_GROUP - 1) / KN_FP8_GROUP * KN_F8_HEAD_BYTES + p.k_pad * KN_PANEL_COLS;
	else if (p.storage == KN_STORAGE_MXFP4)
		p.panel_bytes = p.k_pad / KN_MXFP4_GROUP * KN_MXFP4_GROUP_BYTES;
	else
		p.panel_bytes = quantised ? p.k_pad / KN_GROUP * kn_group_bytes(p.storage)
					  : p.k_pad / kn_step_values(p.storage) * KN_STEP_BYTES;
	return p;
}

static struct kn_panels panels_of(const struct kn_source *source, enum cad_weights weights)
{
	return panels_make(kn_stored_dtype(source), source->n, source->k, weights);
}

static uint64_t panels_bytes(const struct kn_panels *p) { return kn_cpu_allocated(p->panels * p->panel_bytes); }

static void panels_release(struct kn_device *device, struct kn_panels *p)
{
	kn_cpu_release(device, p->data, p->panels * p->panel_bytes);
	p->data = NULL;
}

static struct source_row row_at(const struct kn_source *source, size_t row)
{
	const uint8_t *data = source->data;
	if (row >= source->n)
		return (struct source_row){ .dtype = source->dtype };
	if (!kn_source_is_plain(source))
		return (struct source_row){ .dtype = source->dtype, .source = source, .row = row };
	return (struct source_row){ .data = data + row * kn_row_bytes(source->dtype, source->k),
		.dtype = source->dtype };
}

/* A matrix to pack: column c of panel p is what row_of says. */
struct filling {
	const struct kn_panels *m;
	struct source_row (*row_of)(const struct kn_source *sources, size_t column);
	const struct kn_source *sources;
};

static void fill_panels(void *context, size_t begin, size_t end)
{
	const struct filling *f = context;
	for (size_t p = begin; p < end; p++) {
		struct source_row rows[KN_PANEL_COLS];
		for (size_t c = 0; c < KN_PANEL_COLS; c++)
			rows[c] = f->row_of(f->sources, p * KN_PANEL_COLS + c);
		bool stored = f->m->storage == KN_STORAGE_F8 || f->m->storage == KN_STORAGE_MXFP4;
		(stored ? pack_stored
				: kn_storage_quantised(f->m->storage)
				? quantise_panel
				: pack_panel)(f->m, rows, f->m->data + p * f->m->panel_bytes);
	}
}

/* Rounds 0 .. count - 1, of so many bytes each, on the device's workers. */
static void spread(struct kn_device *device, size_t count, size_t bytes, cad_rounds_fn *rounds, void *context)
{
	size_t grain = bytes < KN_PACK_RANGE_BYTES ? KN_PACK_RANGE_BYTES / (bytes + 1) : 1;
	cad_workers_for(device->workers, count, grain, rounds, context);
}

static enum cad_status panels_fill(struct kn_device *device, struct kn_panels *m,
	struct source_row (*row_of)(const struct kn_source *sources, size_t column), const struct kn_source *sources)
{
	m->data = kn_cpu_alloc(device, m->panels * m->panel_bytes);
	if (!m->data)
		return CAD_ERR_MEMORY;
	struct filling filling = { m, row_of, sources };
	spread(device, m->panels, m->panel_bytes, fill_panels, &filling);
	return CAD_OK;
}

uint64_t kn_cpu_matrix_bytes(const struct kn_device *device, const struct kn_source *source, enum cad_weights weights)
{
	(void)device;
	struct kn_panels p = panels_of(source, weights);
	return panels_bytes(&p);
}

enum cad_status kn_cpu_matrix_create(
	struct kn_device *device, const struct kn_source *source, enum cad_weights weights, struct kn_matrix *matrix)
{
	struct kn_panels *p = malloc(sizeof *p);
	if (!p)
		return CAD_ERR_MEMORY;

	*p = panels_of(source, weights);
	if (panels_fill(device, p, row_at, source) != CAD_OK) {
		free(p);
		return CAD_ERR_MEMORY;
	}

	*matrix = (struct kn_matrix){ .n = source->n, .k = source->k, .bytes = panels_bytes(p), .own = p };
	return CAD_OK;
}

void kn_cpu_matrix_destroy(struct kn_device *device, struct kn_matrix *matrix)
{
	if (matrix->own)
		panels_release(device, matrix->own);
	free(matrix->own);
	*matrix = (struct kn_matrix){ 0 };
}

/* ---- vectors ---- */

uint64_t kn_cpu_vector_bytes(const struct kn_device *device, size_t n)
{
	(void)device;
	return kn_cpu_allocated(kn_round_up(n, 64) * sizeof(float));
}

enum cad_status kn_cpu_vector_create(struct kn_device *device, const struct kn_source *source, float **vector)
{
	size_t count = source->n * source->k;
	float *v = kn_cpu_alloc(device, kn_round_up(count, 64) * sizeof *v);
	if (!v)
		return CAD_ERR_MEMORY;
	if (kn_source_is_plain(source))
		kn_widen(source->data, source->dtype, count, v);
	else
		for (size_t i = 0; i < count; i++)
			kn_source_values(source, i, 0, 1, &v[i]);
	*vector = v;
	return CAD_OK;
}

void kn_cpu_vector_destroy(struct kn_device *device, float *vector, size_t n)
{
	kn_cpu_release(device, vector, kn_round_up(n, 64) * sizeof *vector);
}

/* ---- experts ---- */

/* Two biases [F] in the columns of gate_up; NULL data counts as zeros. Both absent: *vector stays
 * NULL. */
static enum cad_status pair_bias_create(struct kn_device *device, const struct kn_source *gate,
	const struct kn_source *up, size_t columns, float **vector)
{
	if (!gate->data && !up->data)
		return CAD_OK;

	float *v = kn_cpu_alloc(device, columns * sizeof *v);
	if (!v)
		return CAD_ERR_MEMORY;
	const struct kn_source *sources[2] = { gate, up };
	for (size_t s = 0; s < 2; s++) {
		if (!sources[s]->data)
			continue;
		size_t count = sources[s]->n * sources[s]->k;
		for (size_t i = 0; i < count; i++)
			kn_source_values(sources[s], i, 0, 1, &v[i / 16 * 32 + s * 16 + i % 16]);
	}

	*vector = v;
	return CAD_OK;
}

static struct kn_panels gate_up_of(const struct kn_expert_source *source, enum cad_weights weights)
{
	return panels_make(kn_gate_up_dtype(source), 2 * kn_round_up(source->spec->size, 32), source->gate.k, weights);
}

/* gate and up interleaved by 16 columns */
static struct source_row gate_up_row(const struct kn_source *gate_and_up, size_t column)
{
	return row_at(&gate_and_up[column % 32 / 16], column / 32 * 16 + column % 16);
}

uint64_t kn_cpu_expert_bytes(
	const struct kn_device *device, const struct kn_expert_source *source, enum cad_weights weights)
{
	struct kn_panels gate_up = gate_up_of(source, weights), down = panels_of(&source->down, weights);
	uint64_t bytes = panels_bytes(&gate_up) + panels_bytes(&down);

	if (source->gate_bias.n > 0 || source->up_bias.n > 0)
		bytes += kn_cpu_allocated(gate_up.n * sizeof(float));
	if (source->down_bias.n > 0)
		bytes += kn_cpu_vector_bytes(device, source->down_bias.n);
	return bytes;
}

static void expert_release(struct kn_device *device, struct kn_cpu_expert *e)
{
	kn_cpu_release(device, e->gate_up_bias, e->gate_up.n * sizeof(float));
	kn_cpu_vector_destroy(device, e->down_bias, e->down.n);
	panels_release(device, &e->gate_up);
	panels_release(device, &e->down);
	free(e);
}

enum cad_status kn_cpu_expert_create(struct kn_device *device, const struct kn_expert_source *source,
	enum cad_weights weights, struct kn_expert *expert)
{
	const struct kn_source *gate = &source->gate, *up = &source->up, *down = &source->down;
	const struct cad_ffn_spec *spec = source->spec;

	CAD_ASSERT(gate->n == spec->size && down->k == spec->size && down->n == gate->k);
	CAD_ASSERT(gate->n == up->n && gate->k == up->k);
	struct kn_cpu_expert *e = malloc(sizeof *e);
	if (!e)
		return CAD_ERR_MEMORY;
	*e = (struct kn_cpu_expert){
		.gate_up = gate_up_of(source, weights),
		.down = panels_of(down, weights),
		.activation = spec->activation,
		.limit = spec->limit,
		.weighs_input = spec->weighs_input,
		.ffn = spec->size,
	};

	const struct kn_source gate_and_up[2] = { *gate, *up };
	enum cad_status status = panels_fill(device, &e->gate_up, gate_up_row, gate_and_up);
	if (status == CAD_OK)
		status = panels_fill(device, &e->down, row_at, down);
	if (status == CAD_OK)
		status = pair_bias_create(device, &source->gate_bias, &source->up_bias, e->gate_up.n, &e->gate_up_bias);
	if (status == CAD_OK && source->down_bias.data)
		status = kn_cpu_vector_create(device, &source->down_bias, &e->down_bias);
	if (status != CAD_OK) {
		expert_release(device, e);
		return status;
	}

	*expert = (struct kn_expert){
		.hidden = gate->k,
		.ffn = spec->size,
		.bytes = kn_cpu_expert_bytes(device, source, weights),
		.own = e,
	};
	return CAD_OK;
}

void kn_cpu_expert_destroy(struct kn_device *device, struct kn_expert *expert)
{
	if (expert->own)
		expert_release(device, expert->own);
	*expert = (struct kn_expert){ 0 };
}

/* ---- tables ---- */

static struct kn_cpu_table table_of(const struct kn_source *source, enum cad_weights weights)
{
	return (struct kn_cpu_table){
		/* what is computed with is another matter: then the table stays as it is */
		.dtype = weights == CAD_WEIGHTS_BF16 ? CAD_DTYPE_BF16 : source->dtype,
		.n = source->n,
		.k = source->k,
	};
}

static size_t table_bytes(const struct kn_cpu_table *t) { return t->n * t->k * cad_dtype_bytes(t->dtype); }

uint64_t kn_cpu_table_bytes(const struct kn_device *device, const struct kn_source *source, enum cad_weights weights)
{
	(void)device;
	struct kn_cpu_table t = table_of(source, weights);
	return kn_cpu_allocated(table_bytes(&t));
}

struct table_filling {
	const struct kn_cpu_table *t;
	const struct kn_source *source;
};

static void fill_rows(void *context, size_t begin, size_t end)
{
	const struct table_filling *f = context;
	const struct kn_cpu_table *t = f->t;
	enum cad_dtype dtype = f->source->dtype;
	size_t element = cad_dtype_bytes(dtype), stored = cad_dtype_bytes(t->dtype), count = (end - begin) * t->k;
	const uint8_t *in = (const uint8_t *)f->source->data + begin * t->k * element;
	uint8_t *out = (uint8_t *)t->data + begin * t->k * stored;

	if (t->dtype == dtype) {
		memcpy(out, in, count * element);
		return;
	}
	for (size_t i = 0; i < count; i += BLOCK_WORDS)
		narrow(in + i * element, dtype, count - i < BLOCK_WORDS ? count - i : BLOCK_WORDS,
			(uint16_t *)(out + i * stored));
}

enum cad_status kn_cpu_table_create(
	struct kn_device *device, const struct kn_source *source, enum cad_weights weights, struct kn_table *table)
{
	struct kn_cpu_table *t = malloc(sizeof *t);
	if (!t)
		return CAD_ERR_MEMORY;

	*t = table_of(source, weights);
	t->data = kn_cpu_alloc(device, table_bytes(t));
	if (!t->data) {
		free(t);
		return CAD_ERR_MEMORY;
	}

	struct table_filling filling = { t, source };
	spread(device, t->n, t->k * cad_dtype_bytes(t->dtype), fill_rows, &filling);
	*table = (struct kn_table){ .n = t->n, .k = t->k, .bytes = kn_cpu_allocated(table_bytes(t)), .own = t };
	return CAD_OK;
}

void kn_cpu_table_destroy(struct kn_device *device, struct kn_table *table)
{
	struct kn_cpu_table *t = table->own;
	if (t)
		kn_cpu_release(device, t->data, table_bytes(t));
	free(t);
	*table = (struct kn_table){ 0 };
}
