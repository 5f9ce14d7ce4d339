/*
 * From a checkpoint's rows to panels of lines (kernels.h). Reads the source once, in blocks that keep both sides in L1; allocates the packed copy alone.
 * May be called by several threads at once: loading is spread over threads by whoever loads.
 */
#include "kernels/cpu/cpu.h"

#include <immintrin.h>
#include <string.h>

enum { BLOCK = 32 };   /* values of k at a time: 64 rows x 64 bytes of bf16 */

static uint16_t bf16_from_f32(float f)
{
	uint32_t bits;
	memcpy(&bits, &f, sizeof bits);
	bool nan = (bits & 0x7fffffff) > 0x7f800000;
	return (uint16_t)(nan ? bits >> 16 | 0x40 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

void kn_widen(const void *source, enum cad_dtype dtype, size_t n, float *out)
{
	const uint8_t *bytes = source;   /* as aligned as the file has it */
	switch (dtype) {
	case CAD_DTYPE_F32:
		memcpy(out, bytes, n * sizeof *out);
		return;
	case CAD_DTYPE_F16:
		for (size_t i = 0; i < n; i++) {
			uint16_t half;
			memcpy(&half, bytes + 2 * i, 2);
			out[i] = _cvtsh_ss(half);
		}
		return;
	case CAD_DTYPE_BF16:
		for (size_t i = 0; i < n; i++) {
			uint16_t half;
			memcpy(&half, bytes + 2 * i, 2);
			uint32_t bits = (uint32_t)half << 16;
			memcpy(&out[i], &bits, sizeof bits);
		}
		return;
	default:
		CAD_ASSERT(dtype == CAD_DTYPE_F32 || dtype == CAD_DTYPE_F16 || dtype == CAD_DTYPE_BF16);
	}
}

/* The same as bf16, rounded to nearest even where it is not bf16 already. n <= BLOCK. */
static void narrow(const void *source, enum cad_dtype dtype, size_t n, uint16_t *out)
{
	if (dtype == CAD_DTYPE_BF16) {
		memcpy(out, source, n * sizeof *out);
		return;
	}
	float wide[BLOCK];
	kn_widen(source, dtype, n, wide);
	for (size_t i = 0; i < n; i++)
		out[i] = bf16_from_f32(wide[i]);
}

/* Column c of the panel is row rows[c] of the source, NULL for a column of zeros. The panel is zero before. */
static void pack_panel(const struct kn_matrix *m, const uint8_t *const rows[KN_PANEL_COLS], enum cad_dtype dtype, uint8_t *panel)
{
	size_t element = cad_dtype_bytes(dtype);
	for (size_t k = 0; k < m->k; k += BLOCK) {
		size_t count = m->k - k < BLOCK ? m->k - k : BLOCK;
		for (size_t c = 0; c < KN_PANEL_COLS; c++) {
			if (!rows[c])
				continue;
			if (m->storage == KN_STORAGE_F32) {
				float values[BLOCK], *out = (float *)panel + k * KN_PANEL_COLS + c;
				kn_widen(rows[c] + k * element, dtype, count, values);
				for (size_t i = 0; i < count; i++)
					out[i * KN_PANEL_COLS] = values[i];
			} else {
				uint16_t values[BLOCK] = { 0 };
				uint32_t pair, *out = (uint32_t *)panel + k / 2 * KN_PANEL_COLS + c;
				narrow(rows[c] + k * element, dtype, count, values);
				for (size_t i = 0; i < count; i += 2) {
					memcpy(&pair, values + i, sizeof pair);
					out[i / 2 * KN_PANEL_COLS] = pair;
				}
			}
		}
	}
}

/* Shapes of a packed matrix with `columns` output columns, and its zeroed memory. */
static enum cad_status matrix_alloc(struct kn_device *device, const struct kn_source *source, size_t columns, enum kn_weights weights, struct kn_matrix *m)
{
	bool bf16 = source->dtype == CAD_DTYPE_BF16 || weights == KN_WEIGHTS_BF16;
	*m = (struct kn_matrix){ .storage = bf16 ? KN_STORAGE_BF16 : KN_STORAGE_F32, .n = columns, .k = source->k };
	m->k_pad = kn_round_up(source->k, 32);
	m->panels = (columns + KN_PANEL_COLS - 1) / KN_PANEL_COLS;
	m->panel_bytes = m->k_pad * KN_PANEL_COLS * (bf16 ? sizeof(uint16_t) : sizeof(float));
	m->data = kn_cpu_alloc(device, m->panels * m->panel_bytes);
	return m->data ? CAD_OK : CAD_ERR_MEMORY;
}

static const uint8_t *source_row(const struct kn_source *source, size_t row)
{
	return row < source->n ? (const uint8_t *)source->data + row * source->k * cad_dtype_bytes(source->dtype) : NULL;
}

enum cad_status kn_cpu_matrix_create(struct kn_device *device, const struct kn_source *source, enum kn_weights weights, struct kn_matrix *matrix)
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
static enum cad_status pair_create(struct kn_device *device, const struct kn_source *gate, const struct kn_source *up, enum kn_weights weights, struct kn_matrix *matrix)
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
	size_t count = source->n * source->k;   /* [n], written as [n][1] or [1][n] */
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

/* Two biases [F] in the columns of gate_up; NULL data counts as zeros. Both absent: *vector stays NULL. */
static enum cad_status pair_bias_create(struct kn_device *device, const struct kn_source *gate, const struct kn_source *up, size_t columns, float **vector)
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
			kn_widen((const uint8_t *)sources[s]->data + i * element, sources[s]->dtype, 1, &v[i / 16 * 32 + s * 16 + i % 16]);
	}
	*vector = v;
	return CAD_OK;
}

enum cad_status kn_cpu_expert_create(struct kn_device *device, const struct kn_source *gate, const struct kn_source *up, const struct kn_source *down,
                                     const struct kn_source *gate_bias, const struct kn_source *up_bias, const struct kn_source *down_bias,
                                     const struct cad_ffn_spec *spec, enum kn_weights weights, struct kn_expert *expert)
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

enum cad_status kn_cpu_table_create(struct kn_device *device, const struct kn_source *source, enum kn_weights weights, struct kn_table *table)
{
	bool round = weights == KN_WEIGHTS_BF16 && source->dtype != CAD_DTYPE_BF16;
	struct kn_table t = { round ? CAD_DTYPE_BF16 : source->dtype, source->n, source->k, NULL };
	size_t count = source->n * source->k, element = cad_dtype_bytes(source->dtype);
	uint8_t *data = kn_cpu_alloc(device, count * cad_dtype_bytes(t.dtype));
	if (!data)
		return CAD_ERR_MEMORY;
	if (!round)
		memcpy(data, source->data, count * element);
	for (size_t i = 0; round && i < count; i += BLOCK)
		narrow((const uint8_t *)source->data + i * element, source->dtype, count - i < BLOCK ? count - i : BLOCK, (uint16_t *)data + i);
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
