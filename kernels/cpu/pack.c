/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a checkpoint's rows to panels of lines (kernels.h). Reads the source once, in blocks that
 * keep both sides in L1; allocates the packed copy alone.
 * May be called by several threads at once: loading is spread over threads by whoever loads.
 */
#include "kernels/cpu/cpu.h"

#include <immintrin.h>
#include <string.h>

enum { BLOCK_WORDS = 64 }; /* of a column at a time: 64 f32 or 128 bf16, a few lines of each row of the source */

static uint16_t bf16_from_f32(float f)
{
	uint32_t bits;
	memcpy(&bits, &f, sizeof bits);
	bool nan = (bits & 0x7fffffff) > 0x7f800000;
	return (uint16_t)(nan ? bits >> 16 | 0x40 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

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
		out[i] = bf16_from_f32(wide[i]);
}

/* out[i][j] = in[j][i] of 8 x 8 words */
static void transpose_8(const uint32_t *in, size_t ld_in, uint32_t *out, size_t ld_out)
{
	__m256 a[8], b[8];
	for (size_t i = 0; i < 8; i++)
		a[i] = _mm256_load_ps((const float *)(in + i * ld_in));
	for (size_t i = 0; i < 8; i += 2) {
		b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
		b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
	}

	for (size_t i = 0; i < 8; i += 4)
		for (size_t j = 0; j < 2; j++) {
			a[i + 2 * j] = _mm256_shuffle_ps(b[i + j], b[i + j + 2], 0x44);
			a[i + 2 * j + 1] = _mm256_shuffle_ps(b[i + j], b[i + j + 2], 0xee);
		}
	for (size_t i = 0; i < 4; i++) {
		_mm256_store_ps((float *)(out + i * ld_out), _mm256_permute2f128_ps(a[i], a[i + 4], 0x20));
		_mm256_store_ps((float *)(out + (i + 4) * ld_out), _mm256_permute2f128_ps(a[i], a[i + 4], 0x31));
	}
}

/*
 * Column c of the panel is row rows[c] of the source, NULL for a column of zeros. A block of every
 * column is staged as the words of its lanes (f32, or pairs of bf16), column by column, and then
 * turned around.
 */
static void pack_panel(
	const struct kn_matrix *m, const uint8_t *const rows[KN_PANEL_COLS], enum cad_dtype dtype, uint8_t *panel)
{
	bool f32 = m->storage == KN_STORAGE_F32;
	size_t element = cad_dtype_bytes(dtype), word_values = f32 ? 1 : 2, block = BLOCK_WORDS * word_values;

	_Alignas(64) uint32_t stage[KN_PANEL_COLS][BLOCK_WORDS];

	for (size_t k = 0; k < m->k_pad; k += block) {
		size_t count = m->k - k < block ? m->k - k : block,
		       padded = m->k_pad - k < block ? m->k_pad - k : block;
		for (size_t c = 0; c < KN_PANEL_COLS; c++) {
			if (!rows[c] || count < padded)
				memset(stage[c], 0, sizeof stage[c]);
			if (rows[c] && f32)
				kn_widen(rows[c] + k * element, dtype, count, (float *)stage[c]);
			else if (rows[c])
				narrow(rows[c] + k * element, dtype, count, (uint16_t *)stage[c]);
		}
		uint32_t *out = (uint32_t *)panel + k / word_values * KN_PANEL_COLS;
		for (size_t w = 0; w < padded / word_values; w += 8)
			for (size_t c = 0; c < KN_PANEL_COLS; c += 8)
				transpose_8(&stage[c][w], BLOCK_WORDS, out + w * KN_PANEL_COLS + c, KN_PANEL_COLS);
	}
}

/* Shapes of a packed matrix with `columns` output columns, and its zeroed memory. */
static enum cad_status matrix_alloc(struct kn_device *device, const struct kn_source *source, size_t columns,
	enum kn_weights weights, struct kn_matrix *m)
{
	bool bf16 = source->dtype == CAD_DTYPE_BF16 || weights == KN_WEIGHTS_BF16;
	*m = (struct kn_matrix){
		.storage = bf16 ? KN_STORAGE_BF16 : KN_STORAGE_F32,
		.n = columns,
		.k = source->k,
	};
	m->k_pad = kn_round_up(source->k, 32);
	m->panels = (columns + KN_PANEL_COLS - 1) / KN_PANEL_COLS;
	m->panel_bytes = m->k_pad * KN_PANEL_COLS * (bf16 ? sizeof(uint16_t) : sizeof(float));
	m->data = kn_cpu_alloc(device, m->panels * m->panel_bytes);
	return m->data ? CAD_OK : CAD_ERR_MEMORY;
}

static const uint8_t *source_row(const struct kn_source *source, size_t row)
{
	return row < source->n ? (const uint8_t *)source->data + row * source->k * cad_dtype_bytes(source->dtype)
			       : NULL;
}

enum cad_status kn_cpu_matrix_create(
	struct kn_device *device, const struct kn_source *source, enum kn_weights weights, struct kn_matrix *matrix)
{
	struct kn_matrix m;
	if (matrix_alloc(device, source, source->n, weights, &m) != CAD_OK)
		return CAD_ERR_MEMORY;

	for (size_t p = 0; p < m.panels; p++) {
		const uint8_t *rows[KN_PANEL_COLS];
		for (size_t c = 0; c < KN_PANEL_COLS; c++)
			rows[c] = source_row(source, p * KN_PANEL_COLS + c);
		pack_panel(&m, rows, source->dtype, m.data + p * m.panel_bytes);
	}

	*matrix = m;
	return CAD_OK;
}

void kn_cpu_matrix_destroy(struct kn_device *device, struct kn_matrix *matrix)
{
	kn_cpu_release(device, matrix->data, matrix->panels * matrix->panel_bytes);
	*matrix = (struct kn_matrix){ 0 };
}

/* gate and up interleaved by 16 columns */
static enum cad_status pair_create(struct kn_device *device, const struct kn_source *gate, const struct kn_source *up,
	enum kn_weights weights, struct kn_matrix *matrix)
{
	CAD_ASSERT(gate->n == up->n && gate->k == up->k && gate->dtype == up->dtype);
	struct kn_matrix m;
	if (matrix_alloc(device, gate, 2 * kn_round_up(gate->n, 32), weights, &m) != CAD_OK)
		return CAD_ERR_MEMORY;
	for (size_t p = 0; p < m.panels; p++) {
		const uint8_t *rows[KN_PANEL_COLS];
		for (size_t c = 0; c < KN_PANEL_COLS; c++)
			rows[c] = source_row(c % 32 < 16 ? gate : up, p * 32 + c / 32 * 16 + c % 16);
		pack_panel(&m, rows, gate->dtype, m.data + p * m.panel_bytes);
	}

	*matrix = m;
	return CAD_OK;
}

enum cad_status kn_cpu_vector_create(struct kn_device *device, const struct kn_source *source, float **vector)
{
	size_t count = source->n * source->k; /* [n], written as [n][1] or [1][n] */
	float *v = kn_cpu_alloc(device, kn_round_up(count, 64) * sizeof *v);
	if (!v)
		return CAD_ERR_MEMORY;
	kn_widen(source->data, source->dtype, count, v);
	*vector = v;
	return CAD_OK;
}

void kn_cpu_vector_destroy(struct kn_device *device, float *vector, size_t n)
{
	kn_cpu_release(device, vector, kn_round_up(n, 64) * sizeof *vector);
}

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
		size_t count = sources[s]->n * sources[s]->k, element = cad_dtype_bytes(sources[s]->dtype);
		for (size_t i = 0; i < count; i++)
			kn_widen((const uint8_t *)sources[s]->data + i * element, sources[s]->dtype, 1,
				&v[i / 16 * 32 + s * 16 + i % 16]);
	}

	*vector = v;
	return CAD_OK;
}

enum cad_status kn_cpu_expert_create(struct kn_device *device, const struct kn_source *gate, const struct kn_source *up,
	const struct kn_source *down, const struct kn_source *gate_bias, const struct kn_source *up_bias,
	const struct kn_source *down_bias, const struct cad_ffn_spec *spec, enum kn_weights weights,
	struct kn_expert *expert)
{
	CAD_ASSERT(gate->n == spec->size && down->k == spec->size && down->n == gate->k);
	struct kn_expert e = { .activation = spec->activation, .limit = spec->limit, .ffn = spec->size };
	float *gate_up_bias = NULL, *bias = NULL;
	if (pair_create(device, gate, up, weights, &e.gate_up) != CAD_OK)
		return CAD_ERR_MEMORY;
	if (kn_cpu_matrix_create(device, down, weights, &e.down) != CAD_OK)
		goto destroy;
	if (pair_bias_create(device, gate_bias, up_bias, e.gate_up.n, &gate_up_bias) != CAD_OK)
		goto destroy;
	e.gate_up_bias = gate_up_bias;
	if (down_bias->data && kn_cpu_vector_create(device, down_bias, &bias) != CAD_OK)
		goto destroy;
	e.down_bias = bias;
	*expert = e;
	return CAD_OK;

destroy:
	kn_cpu_expert_destroy(device, &e);
	return CAD_ERR_MEMORY;
}

void kn_cpu_expert_destroy(struct kn_device *device, struct kn_expert *e)
{
	kn_cpu_release(device, (void *)e->gate_up_bias, e->gate_up.n * sizeof(float));
	kn_cpu_release(device, (void *)e->down_bias, kn_round_up(e->down.n, 64) * sizeof(float));
	kn_cpu_matrix_destroy(device, &e->gate_up);
	kn_cpu_matrix_destroy(device, &e->down);
	*e = (struct kn_expert){ 0 };
}

enum cad_status kn_cpu_table_create(
	struct kn_device *device, const struct kn_source *source, enum kn_weights weights, struct kn_table *table)
{
	bool round = weights == KN_WEIGHTS_BF16 && source->dtype != CAD_DTYPE_BF16;
	struct kn_table t = { round ? CAD_DTYPE_BF16 : source->dtype, source->n, source->k, NULL };
	size_t count = source->n * source->k, element = cad_dtype_bytes(source->dtype);
	uint8_t *data = kn_cpu_alloc(device, count * cad_dtype_bytes(t.dtype));

	if (!data)
		return CAD_ERR_MEMORY;

	if (!round)
		memcpy(data, source->data, count * element);
	for (size_t i = 0; round && i < count; i += BLOCK_WORDS)
		narrow((const uint8_t *)source->data + i * element, source->dtype,
			count - i < BLOCK_WORDS ? count - i : BLOCK_WORDS, (uint16_t *)data + i);
	t.data = data;
	*table = t;

	return CAD_OK;
}

void kn_cpu_table_destroy(struct kn_device *device, struct kn_table *table)
{
	if (table->data)
		kn_cpu_release(device, (void *)table->data, table->n * table->k * cad_dtype_bytes(table->dtype));
	*table = (struct kn_table){ 0 };
}
