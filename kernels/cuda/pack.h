/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How an expert lies in device memory, and the way there and back, on the host.
 *
 * A packed expert is one run of bytes, without gaps: `up`, which is gate and up together, then
 * `down`, then the biases that it has, f32 each. Both matrices are panels of KN_PANEL_ROWS weight
 * rows, and a panel is blocks, one after another along k:
 *
 *   up      panel i has gate and up of columns 32 i .. 32 i + 31, by eights: g0-7 u0-7 g8-15 u8-15
 *           .. g24-31 u24-31; so the thread that holds g of a column holds its u
 *   down    panel i has columns 64 i .. 64 i + 63
 *
 * What is past the last row or the last k is zero, and so is what is past the end of a bias, which
 * is padded to KN_COLUMNS_UNIT. What a block holds of a row, and where, is a matter of how the
 * weights are kept: struct kn_cuda_form.
 *
 * Pieces are what is packed, copied and unpacked by itself: each block is one, and each bias. So an
 * expert passes through buffers that are smaller than it, and while one buffer is copied the next
 * one is filled.
 *
 * Pure functions; any thread.
 */
#ifndef CADRE_KERNELS_CUDA_PACK_H
#define CADRE_KERNELS_CUDA_PACK_H

#include "kernels/cuda/cuda.h"

enum {
	KN_PANEL_ROWS = 64,
	KN_PANEL_COLUMNS = KN_PANEL_ROWS / 2, /* of gate and up */
	KN_COLUMNS_UNIT = 64,
	KN_PIECE_UNIT = 256, /* every piece has a multiple of so many bytes */
};

/* A value of F32, F16 or BF16, of any alignment. */
float kn_cuda_f32_of(const void *value, enum cad_dtype dtype);
/* The way back, which is exact: of a value that was widened so. */
void kn_cuda_f32_to(float value, enum cad_dtype dtype, void *out);

/* One way to keep weights. */
struct kn_cuda_form {
	enum cad_profile profile; /* of the kernels that read it */
	enum cad_dtype dtype;     /* of the matrix in an image */
	size_t k;                 /* values of a row that a block has */
	size_t bytes;             /* of a block */
	/* Values k .. k + count - 1 of row `row` of a source, as row r of a block, which is zero. */
	void (*pack_row)(
		const struct kn_source *source, size_t row, size_t k, size_t count, unsigned r, uint8_t *block);
	/* The same back: what the span has of them, of a tensor of the image. */
	void (*unpack_row)(const struct kn_source *tensor, size_t row, size_t k, size_t count, unsigned r,
		const uint8_t *block, const struct kn_span *span);
};

/* ---- layouts (pack.cc) ---- */

enum kn_cuda_area_index { KN_AREA_UP, KN_AREA_DOWN, KN_AREA_GATE_BIAS, KN_AREA_UP_BIAS, KN_AREA_DOWN_BIAS, KN_AREAS };

struct kn_cuda_area {
	const struct kn_cuda_form *form; /* of a matrix */
	size_t at, piece_bytes, pieces;  /* pieces 0: the expert has none */
	size_t blocks;                   /* of a panel */
};
static inline size_t kn_cuda_panels(const struct kn_cuda_area &area) { return area.pieces / area.blocks; }

struct kn_cuda_layout {
	struct kn_cuda_area areas[KN_AREAS];
	size_t pieces, bytes, piece_bytes_max;
	bool weighs_input;
};

/* What kernels see of an expert: device memory. */
struct kn_cuda_view {
	const void *up, *down;                        /* blocks of their forms */
	const float *gate_bias, *up_bias, *down_bias; /* NULL: none */
	enum cad_activation activation;
	float limit;
	bool weighs_input;
};

/* Of weights for which there are forms: asserted. */
struct kn_cuda_layout kn_cuda_layout_of(const struct kn_expert_source *source, enum cad_weights weights);
/* What kernels see of an expert that is packed at `memory`. */
struct kn_cuda_view kn_cuda_view_of(
	const struct kn_cuda_layout *layout, const uint8_t *memory, const struct cad_ffn_spec *spec);

/* Where piece i begins; the end, for i == pieces. */
size_t kn_cuda_piece_at(const struct kn_cuda_layout *layout, size_t i);
/* How many pieces from `first` on take at most `bytes`, which is piece_bytes_max at least. */
size_t kn_cuda_pieces_in(const struct kn_cuda_layout *layout, size_t first, size_t bytes);

/* ---- packing and unpacking (pack.cc) ---- */

/* Pieces first .. first + count - 1, one after another, to `out`; workers (or NULL) share them. */
void kn_cuda_pack(const struct kn_cuda_layout *layout, const struct kn_expert_source *source, size_t first,
	size_t count, struct cad_workers *workers, uint8_t *out);

/* Pieces that follow each other. */
struct kn_cuda_pieces {
	size_t first, count;
};
/* Those that have the span of tensor i (kn_expert_tensor) of the image. */
struct kn_cuda_pieces kn_cuda_pieces_of(const struct kn_cuda_layout *layout, const struct kn_expert_source *image,
	unsigned i, const struct kn_span *span);
/* What these pieces, which lie one after another at `packed`, have of the span. */
void kn_cuda_unpack(const struct kn_cuda_layout *layout, const struct kn_expert_source *image, unsigned i,
	struct kn_cuda_pieces pieces, const uint8_t *packed, const struct kn_span *span);

/* ---- int8 and int4 (pack_int8.cc) ---- */

/*
 * A block of int8: a group along k, in two halves of KN_HALF values, of each of which row r has 128
 * bytes; and a scale for each row. The chunk c of 16 bytes of row r lies at c ^ (r % 8): as wgmma
 * reads it, with 128 bytes swizzled, and as ldmatrix reads it without conflicts of banks.
 */
enum { KN_HALF = 128, KN_HALF_BYTES = KN_PANEL_ROWS * KN_HALF };
struct kn_int8_block {
	int8_t q[2 * KN_HALF_BYTES];
	float scales[KN_PANEL_ROWS];
};
static_assert(sizeof(struct kn_int8_block) == 16640 && sizeof(struct kn_int8_block) % KN_PIECE_UNIT == 0, "no gaps");

/*
 * Weights of int4 are widened to the integers of 8 bits that they stand for (quantise.h), so that
 * kernels know one kind: they take the memory of int8, and their sub-scales, which no kernel reads.
 * With those the image comes back to the bit.
 */
struct kn_int4_block {
	struct kn_int8_block widened;
	uint32_t subscales[KN_PANEL_ROWS];
};
static_assert(sizeof(struct kn_int4_block) % KN_PIECE_UNIT == 0, "no gaps");

/* Where value k (of a group) of row r lies in two halves of `rows` rows. */
#ifdef __CUDACC__
__host__ __device__
#endif
	constexpr int
	kn_int8_at(int rows, int r, int k)
{
	return k / KN_HALF * rows * KN_HALF + r * KN_HALF + ((k % KN_HALF / 16) ^ (r % 8)) * 16 + k % 16;
}

extern const struct kn_cuda_form kn_cuda_form_int8, kn_cuda_form_int4;

/* ---- f32 (pack_f32.cc) ---- */

/* A block of f32: KN_F32_STEP values of k, and of each all rows, f32, f16 or bf16: of every 16 rows
 * the first 8 (gate, in `up`) are in its first half, the others (up) in its second. */
enum { KN_F32_HALF = KN_PANEL_ROWS / 2 };
extern const struct kn_cuda_form kn_cuda_form_f32, kn_cuda_form_f16, kn_cuda_form_bf16;

/* ---- bf16 (pack_bf16.cc) ---- */

/* A block of profile bf16-sm90: KN_BF16_STEP values along k, of each of which row r has 128 bytes, in
 * the same order of chunks. */
enum { KN_BF16_STEP = 64 };
struct kn_bf16_block {
	uint16_t w[KN_PANEL_ROWS * KN_BF16_STEP];
};
static_assert(sizeof(struct kn_bf16_block) % KN_PIECE_UNIT == 0, "no gaps");

/* Where value k (of a block) of row r lies. */
#ifdef __CUDACC__
__host__ __device__
#endif
	constexpr int
	kn_bf16_at(int r, int k)
{
	return r * KN_BF16_STEP + ((k / 8) ^ (r % 8)) * 8 + k % 8;
}

extern const struct kn_cuda_form kn_cuda_form_bf16_sm90;

#endif
