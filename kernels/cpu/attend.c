/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention: which thread walks which pages for which queries. The arithmetic of pages is the
 * form's (attend_pages).
 *
 * Rows that stand together and share a page table (the tokens of one sequence in a prefill chunk)
 * and the query heads that share a KV head form one list of queries, which is cut into blocks of up
 * to 48. A block walks its chunks in ascending order. When there are too few blocks for the threads
 * (decode of a few long sequences), every chunk of a block is a job of its own, and a second run
 * merges them: the same steps, the same bits.
 */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/transpose.h"
#include "kernels/cpu/vector_exp.h"
#include "kernels/image.h"
#include "kernels/quantise.h"

struct attend_run {
	const struct kn_attend *a;
	const struct kn_form *form;
	size_t group;               /* query heads of a KV head */
	size_t blocks;              /* over all sequences, of one KV head */
	size_t chunk_first, chunks; /* of the whole call */
	size_t queries_max;         /* of a block */
	/* [blocks * kv_heads][chunks][queries_max]: m, l, out[value_size]; NULL: chunks are not
	 * split */
	float *parts;
};

static size_t part_floats(const struct attend_run *run) { return 2 + kn_kv_value_size(run->a->kv); }

/* The rows from `row` on that share its page table. */
static size_t rows_together(const struct kn_attend *a, size_t row)
{
	size_t end = row + 1;
	while (end < a->rows && a->tables.slot[end] == a->tables.slot[row])
		end++;
	return end - row;
}

/* A block's place: queries first .. first + count - 1 of the rows that start at `row`; query i is
 * row i / group, head i % group. */
struct place {
	size_t row, first, count, kv_head;
};

static struct place place_find(const struct attend_run *run, size_t job)
{
	struct place place = { .kv_head = job / run->blocks };
	size_t block = job % run->blocks;
	for (;;) {
		size_t rows = rows_together(run->a, place.row), queries = rows * run->group,
		       blocks = (queries + KN_ATTEND_QUERIES - 1) / KN_ATTEND_QUERIES;
		if (block < blocks) {
			place.first = block * KN_ATTEND_QUERIES;
			place.count =
				queries - place.first < KN_ATTEND_QUERIES ? queries - place.first : KN_ATTEND_QUERIES;
			return place;
		}
		block -= blocks;
		place.row += rows;
	}
}

static size_t query_row(const struct attend_run *run, const struct place *place, size_t i)
{
	return place->row + (place->first + i) / run->group;
}
static size_t query_head(const struct attend_run *run, const struct place *place, size_t i)
{
	return place->kv_head * run->group + (place->first + i) % run->group;
}

/* The queries of a tile, element by element. */
static void tile_load(const float *const *rows, size_t count, size_t size, float *q)
{
	enum { LD = KN_KEY_SIZE_MAX + 16 }; /* rows that are not a whole number of pages apart */
	_Alignas(32) float tile[KN_ATTEND_TILE][LD];

	if (count < KN_ATTEND_TILE || size % 8 != 0) {
		for (size_t i = 0; i < count; i++)
			for (size_t d = 0; d < size; d++)
				q[d * KN_ATTEND_TILE + i] = rows[i][d];
		return;
	}
	for (size_t i = 0; i < count; i++)
		memcpy(tile[i], rows[i], size * sizeof *tile[i]);
	for (size_t d = 0; d < size; d += 8)
		kn_transpose_8((const uint32_t *)&tile[0][d], LD, (uint32_t *)q + d * KN_ATTEND_TILE, KN_ATTEND_TILE);
}

static void block_load(const struct attend_run *run, const struct place *place, struct kn_attend_block *b)
{
	const struct kn_attend *a = run->a;
	const float *q[KN_ATTEND_QUERIES];
	b->count = place->count;
	b->key_size = a->kv->key_size;
	b->value_size = kn_kv_value_size(a->kv);
	b->latent = a->kv->latent;
	b->ldo = kn_round_up(b->value_size, 32) + 16;
	b->scale = a->scale;
	for (size_t i = 0; i < b->count; i++) {
		size_t row = query_row(run, place, i);
		q[i] = a->q + row * a->ldq + query_head(run, place, i) * b->key_size;
		b->begin[i] = a->begin[row];
		b->end[i] = a->end[row];
	}
	for (size_t i = 0; i < b->count; i += KN_ATTEND_TILE)
		tile_load(q + i, b->count - i < KN_ATTEND_TILE ? b->count - i : KN_ATTEND_TILE, b->key_size,
			kn_attend_q(b, i, 0));
}

struct span {
	size_t begin, end;
};

static struct span block_keys(const struct kn_attend_block *b)
{
	struct span keys = { b->begin[0], b->end[0] };
	for (size_t i = 1; i < b->count; i++) {
		keys.begin = b->begin[i] < keys.begin ? b->begin[i] : keys.begin;
		keys.end = b->end[i] > keys.end ? b->end[i] : keys.end;
	}
	return keys;
}

static void block_chunk(
	const struct attend_run *run, const struct place *place, struct kn_attend_block *b, size_t chunk)
{
	const struct kn_kv *kv = run->a->kv;
	const uint32_t *table = kn_page_table(&run->a->tables, place->row);
	struct span keys = block_keys(b);
	size_t begin = chunk * KN_CHUNK_KEYS, end = begin + KN_CHUNK_KEYS;

	begin = begin > keys.begin ? begin : keys.begin / KN_PAGE_KEYS * KN_PAGE_KEYS;
	end = end < keys.end ? end : keys.end;

	for (size_t i = 0; i < b->count; i++) {
		b->m[i] = -INFINITY;
		b->l[i] = 0.0f;
	}
	memset(b->out, 0, b->count * b->ldo * sizeof *b->out); /* forms work on 32 elements at a time */

	if (begin >= end)
		return; /* other blocks have keys there */

	size_t page = begin / KN_PAGE_KEYS, last = (keys.end - 1) / KN_PAGE_KEYS;
	struct kn_attend_pages pages = {
		.type = kv->type,
		.first = (uint32_t)begin,
		.count = (end + KN_PAGE_KEYS - 1) / KN_PAGE_KEYS - page,
	};
	for (size_t i = 0; i <= pages.count; i++, page += page < last)
		pages.part[i] = kn_kv_part(kv, run->a->layer, table[page], place->kv_head);
	run->form->attend_pages(b, &pages);
}

/* l = fma(l, a, lc * b), out = fma(out, a, outc * b) with a = exp(m - m'), b = exp(mc - m'). Sizes
 * are multiples of 4. */
static void merge(float *m, float *l, float *out, float mc, float lc, const float *outc, size_t size)
{
	float m_new = mc > *m ? mc : *m, fade = kn_exp_1(*m - m_new), gain = kn_exp_1(mc - m_new);
	*m = m_new;
	size_t d = 0;
	*l = fmaf(*l, fade, lc * gain);
	for (; d + 8 <= size; d += 8) {
		__m256 part = _mm256_mul_ps(_mm256_loadu_ps(outc + d), _mm256_set1_ps(gain));
		_mm256_storeu_ps(out + d, _mm256_fmadd_ps(_mm256_loadu_ps(out + d), _mm256_set1_ps(fade), part));
	}
	for (; d < size; d += 4) {
		__m128 part = _mm_mul_ps(_mm_loadu_ps(outc + d), _mm_set1_ps(gain));
		_mm_storeu_ps(out + d, _mm_fmadd_ps(_mm_loadu_ps(out + d), _mm_set1_ps(fade), part));
	}
}

/* The sink, the division, and out to the row. */
static void query_finish(
	const struct attend_run *run, const struct place *place, size_t i, float m, float l, float *sum)
{
	static const float nothing[KN_VALUE_SIZE_MAX];
	const struct kn_attend *a = run->a;
	size_t size = a->kv->value_size, head = query_head(run, place, i), d = 0;

	if (a->sinks)
		merge(&m, &l, sum, a->sinks[head], 1.0f, nothing, kn_kv_value_size(a->kv));
	float *out = a->out + query_row(run, place, i) * a->ldo + head * size;
	for (; d + 8 <= size; d += 8)
		_mm256_storeu_ps(out + d, _mm256_div_ps(_mm256_loadu_ps(sum + d), _mm256_set1_ps(l)));
	for (; d + 4 <= size; d += 4)
		_mm_storeu_ps(out + d, _mm_div_ps(_mm_loadu_ps(sum + d), _mm_set1_ps(l)));
	for (; d < size; d++) /* what comes next is another head's */
		out[d] = sum[d] / l;
	if (head == a->heads - 1)
		kn_cpu_row_end(a->out + query_row(run, place, i) * a->ldo, a->heads * size);
}

static bool query_meets(const struct kn_attend_block *b, size_t i, size_t chunk)
{
	return b->begin[i] < (chunk + 1) * KN_CHUNK_KEYS && b->end[i] > chunk * KN_CHUNK_KEYS;
}

/* A block from its first chunk to its last. */
static void block_job(void *context, size_t job, unsigned thread)
{
	(void)thread;
	const struct attend_run *run = context;

	/* Backwards: the last rows of a prompt see the most keys, and what is long should start
	 * early. */
	struct place place = place_find(run, run->blocks * run->a->kv->kv_heads - 1 - job);
	struct kn_attend_block b;
	float m[KN_ATTEND_QUERIES], l[KN_ATTEND_QUERIES], outs[KN_ATTEND_QUERIES * (KN_VALUE_SIZE_MAX + 16)];
	size_t size = kn_kv_value_size(run->a->kv);
	block_load(run, &place, &b);

	for (size_t i = 0; i < b.count; i++) {
		m[i] = -INFINITY;
		l[i] = 0.0f;
		memset(outs + i * b.ldo, 0, size * sizeof *outs);
	}

	struct span keys = block_keys(&b);
	for (size_t chunk = keys.begin / KN_CHUNK_KEYS; chunk * KN_CHUNK_KEYS < keys.end; chunk++) {
		block_chunk(run, &place, &b, chunk);
		for (size_t i = 0; i < b.count; i++)
			if (query_meets(&b, i, chunk))
				merge(&m[i], &l[i], outs + i * b.ldo, b.m[i], b.l[i], kn_attend_out(&b, i), size);
	}

	for (size_t i = 0; i < b.count; i++)
		query_finish(run, &place, i, m[i], l[i], outs + i * b.ldo);
}

static float *part_of(const struct attend_run *run, size_t block_job, size_t chunk_index)
{
	return run->parts + (block_job * run->chunks + chunk_index) * run->queries_max * part_floats(run);
}

/* One chunk of a block, into the parts. */
static void chunk_job(void *context, size_t job, unsigned thread)
{
	(void)thread;
	const struct attend_run *run = context;
	size_t block_job = job / run->chunks, chunk_index = job % run->chunks, chunk = run->chunk_first + chunk_index;
	struct place place = place_find(run, block_job);
	struct kn_attend_block b;
	block_load(run, &place, &b);
	block_chunk(run, &place, &b, chunk);
	float *part = part_of(run, block_job, chunk_index);
	for (size_t i = 0; i < b.count; i++, part += part_floats(run)) {
		part[0] = b.m[i];
		part[1] = b.l[i];
		memcpy(part + 2, kn_attend_out(&b, i), b.value_size * sizeof *part);
	}
}

/* The parts of a block, merged in ascending order. */
static void merge_job(void *context, size_t job, unsigned thread)
{
	(void)thread;
	const struct attend_run *run = context;
	struct place place = place_find(run, job);
	for (size_t i = 0; i < place.count; i++) {
		size_t row = query_row(run, &place, i);
		float m = -INFINITY, l = 0.0f, out[KN_VALUE_SIZE_MAX] = { 0 };
		for (size_t chunk = run->a->begin[row] / KN_CHUNK_KEYS; chunk * KN_CHUNK_KEYS < run->a->end[row];
			chunk++) {
			const float *part = part_of(run, job, chunk - run->chunk_first) + i * part_floats(run);
			merge(&m, &l, out, part[0], part[1], part + 2, kn_kv_value_size(run->a->kv));
		}
		query_finish(run, &place, i, m, l, out);
	}
}

static void attend_check(const struct kn_attend *a)
{
	const struct kn_kv *kv = a->kv;
	CAD_ASSERT(kv->key_size <= KN_KEY_SIZE_MAX && kv->value_size <= KN_VALUE_SIZE_MAX);
	CAD_ASSERT(!kv->latent || kv->value_size < kv->key_size);
	CAD_ASSERT(kv->kv_heads > 0 && a->heads % kv->kv_heads == 0 && a->layer < kv->layers);
	for (size_t r = 0; r < a->rows; r++)
		CAD_ASSERT(a->begin[r] < a->end[r]);
}

void kn_cpu_attend(struct kn_queue *queue, const struct kn_attend *a)
{
	struct kn_cpu_queue *cpu = kn_cpu_queue(queue);
	attend_check(a);
	if (a->rows == 0)
		return;
	struct attend_run run = { .a = a, .form = cpu->form, .group = a->heads / a->kv->kv_heads };
	size_t chunk_end = 0;
	run.chunk_first = SIZE_MAX;

	for (size_t row = 0, rows; row < a->rows; row += rows) {
		rows = rows_together(a, row);
		size_t queries = rows * run.group;
		run.blocks += (queries + KN_ATTEND_QUERIES - 1) / KN_ATTEND_QUERIES;
		run.queries_max = queries > run.queries_max ? queries : run.queries_max;
	}

	run.queries_max = run.queries_max < KN_ATTEND_QUERIES ? run.queries_max : KN_ATTEND_QUERIES;

	for (size_t r = 0; r < a->rows; r++) {
		size_t first = a->begin[r] / KN_CHUNK_KEYS, end = (a->end[r] + KN_CHUNK_KEYS - 1) / KN_CHUNK_KEYS;
		run.chunk_first = first < run.chunk_first ? first : run.chunk_first;
		chunk_end = end > chunk_end ? end : chunk_end;
	}

	run.chunks = chunk_end - run.chunk_first;
	size_t jobs = run.blocks * a->kv->kv_heads, threads = kn_pool_threads(cpu->pool);
	size_t parts_bytes = jobs * run.chunks * run.queries_max * part_floats(&run) * sizeof(float);
	if (cpu->parts && threads > 1 && jobs < KN_ATTEND_BLOCKS_PER_THREAD * threads && run.chunks > 1 &&
		parts_bytes <= KN_ATTEND_PARTS_BYTES) {
		run.parts = cpu->parts;
		kn_pool_for(cpu->pool, jobs * run.chunks, chunk_job, &run);
		kn_pool_for(cpu->pool, jobs, merge_job, &run);
	} else {
		kn_pool_for(cpu->pool, jobs, block_job, &run);
	}
}

struct kv_run {
	const struct kn_kv_write *a;
	size_t jobs;
};

/* A key, into column `slot` of K; and a value, into row `slot` of V. */
static void key_store(const struct kn_kv *kv, const float *x, size_t slot, uint8_t *part)
{
	size_t n = kv->key_size, place = kn_kv_place(kv->type, slot, KN_PAGE_KEYS);
	int8_t q[KN_KEY_SIZE_MAX];

	switch (kv->type) {
	case CAD_KV_F32:
		for (size_t d = 0; d < n; d++)
			((float *)part)[d * KN_PAGE_KEYS + place] = x[d];
		break;
	case CAD_KV_BF16:
		for (size_t d = 0; d < n; d++)
			((uint16_t *)part)[d * KN_PAGE_KEYS + place] = kn_bf16_of(x[d]);
		break;
	case CAD_KV_INT8:
		kn_kv_scales(n, kn_kv_kept_value_size(kv), part)[slot] = kn_quantise_group(x, n, n, KN_RANGE_INT8, q);
		for (size_t d = 0; d < n; d++)
			((int8_t *)part)[d * KN_PAGE_KEYS + place] = q[d];
		break;
	}
}

static void value_store(const struct kn_kv *kv, const float *x, size_t slot, uint8_t *part)
{
	size_t n = kv->value_size, kept = kn_kv_value_size(kv);
	uint8_t *row = part + kn_kv_values_offset(kv->type, kv->key_size) + slot * kept * kn_kv_element_bytes(kv->type);

	switch (kv->type) {
	case CAD_KV_F32: memcpy(row, x, n * sizeof *x); break;
	case CAD_KV_BF16:
		for (size_t d = 0; d < n; d++)
			((uint16_t *)row)[kn_kv_place(kv->type, d, kept)] = kn_bf16_of(x[d]);
		break;
	case CAD_KV_INT8:
		kn_kv_scales(kv->key_size, kept, part)[KN_PAGE_KEYS + slot] =
			kn_quantise_group(x, n, n, KN_RANGE_INT8, (int8_t *)row);
		break;
	}
}

static void kv_write_job(void *context, size_t job, unsigned thread)
{
	(void)thread;
	const struct kv_run *run = context;
	const struct kn_kv_write *a = run->a;
	const struct kn_kv *kv = a->kv;
	size_t begin = kn_cpu_range_begin(a->rows, run->jobs, job),
	       end = kn_cpu_range_begin(a->rows, run->jobs, job + 1);

	/* heads outside: the rows of a prompt then fill one head's page while it is in the first
	 * cache */
	for (size_t h = 0; h < kv->kv_heads; h++)
		for (size_t r = begin; r < end; r++) {
			size_t position = (size_t)a->positions[r], slot = position % KN_PAGE_KEYS;
			uint8_t *part =
				kn_kv_part(kv, a->layer, kn_page_table(&a->tables, r)[position / KN_PAGE_KEYS], h);
			key_store(kv, a->k + r * a->ldk + h * kv->key_size, slot, part);
			if (!kv->latent)
				value_store(kv, a->v + r * a->ldv + h * kv->value_size, slot, part);
		}
}

void kn_cpu_kv_write(struct kn_queue *queue, const struct kn_kv_write *a)
{
	struct kn_cpu_queue *cpu = kn_cpu_queue(queue);
	CAD_ASSERT(a->layer < a->kv->layers);
	struct kv_run run = { a,
		kn_cpu_ranges(cpu, a->rows,
			a->kv->kv_heads * (a->kv->key_size + kn_kv_kept_value_size(a->kv)) *
				KN_FLOATS_PER_KV_ELEMENT) };
	kn_pool_for(cpu->pool, run.jobs, kv_write_job, &run);
}
