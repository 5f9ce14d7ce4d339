/* SPDX-License-Identifier: Apache-2.0 */
#include "expert-svc/serve/exec.h"

enum cad_status ex_exec_init(
	struct ex_exec *exec, struct kn_queue *queue, size_t rows_max, size_t pairs_max, size_t hidden, size_t ffn)
{
	const struct kn_ops *ops = queue->ops;
	size_t ld = kn_ld(hidden);

	*exec = (struct ex_exec){
		.queue = queue,
		.hidden = hidden,
		.ld = ld,
		.x_bytes = rows_max * ld * sizeof(float),
		.pair_bytes = pairs_max * sizeof(uint32_t),
		.sums_bytes = rows_max * hidden * sizeof(int64_t),
		.poison_bytes = rows_max * sizeof(uint32_t),
		.scratch_bytes = ops->ffn_scratch_bytes(queue, pairs_max, hidden, ffn, true),
	};
	exec->x = ops->alloc(queue->device, exec->x_bytes);
	exec->pair_row = ops->alloc(queue->device, exec->pair_bytes);
	exec->pair_weight = ops->alloc(queue->device, exec->pair_bytes);
	exec->sums = ops->alloc(queue->device, exec->sums_bytes);
	exec->poison = ops->alloc(queue->device, exec->poison_bytes);
	exec->scratch = ops->alloc(queue->device, exec->scratch_bytes);
	if (exec->x && exec->pair_row && exec->pair_weight && exec->sums && exec->poison && exec->scratch)
		return CAD_OK;
	ex_exec_fini(exec);

	return CAD_ERR_MEMORY;
}

uint64_t ex_exec_bytes(const struct ex_exec *exec)
{
	return exec->x_bytes + 2 * exec->pair_bytes + exec->sums_bytes + exec->poison_bytes + exec->scratch_bytes;
}

void ex_exec_fini(struct ex_exec *exec)
{
	if (!exec->queue)
		return;

	const struct kn_ops *ops = exec->queue->ops;
	struct kn_device *device = exec->queue->device;
	ops->release(device, exec->x, exec->x_bytes);
	ops->release(device, exec->pair_row, exec->pair_bytes);
	ops->release(device, exec->pair_weight, exec->pair_bytes);
	ops->release(device, exec->sums, exec->sums_bytes);
	ops->release(device, exec->poison, exec->poison_bytes);
	ops->release(device, exec->scratch, exec->scratch_bytes);
	*exec = (struct ex_exec){ 0 };
}

/* x[base ..] = the segment's rows, as the wire brought them. */
static void unpack(struct ex_exec *exec, const struct ex_segment *segment)
{
	const struct ex_job *job = segment->job;
	exec->queue->ops->rows_unpack(exec->queue,
		&(struct kn_rows_unpack){
			.heads = job->call->rows + segment->row_begin,
			.data = job->call->data + job->call_data_bytes,
			.rows = segment->rows,
			.n = exec->hidden,
			.x = exec->x + segment->base * exec->ld,
			.ldx = exec->ld,
		});
}

/* The segment's rows of the answer. *bytes: what was written, valid after wait. */
static void pack(struct ex_exec *exec, const struct ex_batch *batch, const struct ex_segment *segment, size_t *bytes)
{
	const struct ex_job *job = segment->job;
	struct cadre_wire_sum *heads = (struct cadre_wire_sum *)job->payload;
	exec->queue->ops->combine_pack(exec->queue,
		&(struct kn_combine_pack){
			.sums = exec->sums + segment->base * exec->hidden,
			.poison = exec->poison + segment->base,
			.rows = segment->rows,
			.n = exec->hidden,
			.pair_expert = batch->pair_expert,
			.pairs = batch->pairs,
			.heads = heads + segment->row_begin,
			.data = (uint8_t *)(heads + job->call->call.rows) + job->answer_data_bytes,
			.data_bytes = bytes,
		});
}

static size_t rows_data_bytes(const struct ex_segment *segment, size_t hidden)
{
	size_t bytes = 0;
	for (uint32_t r = 0; r < segment->rows; r++)
		bytes += cadre_row_bytes(segment->job->call->rows[segment->row_begin + r].type, hidden);
	return bytes;
}

void ex_exec_ffn(const struct ex_exec *exec, const struct kn_expert *const *experts, size_t count,
	const uint32_t *begin, size_t rows, float quantum)
{
	exec->queue->ops->ffn(exec->queue,
		&(struct kn_ffn){
			.experts = experts,
			.experts_count = count,
			.begin = begin,
			.row_index = exec->pair_row,
			.x = exec->x,
			.ldx = exec->ld,
			.rows = rows,
			.hidden = exec->hidden,
			.weight = exec->pair_weight,
			.quantum = quantum,
			.sums = exec->sums,
			.poison = exec->poison,
			.scratch = exec->scratch,
		});
}

enum cad_status ex_exec_run(struct ex_exec *exec, const struct ex_batch *batch, float quantum)
{
	const struct kn_ops *ops = exec->queue->ops;
	for (uint32_t s = 0; s < batch->segments_count; s++)
		unpack(exec, &batch->segments[s]);
	ops->copy_in(exec->queue, exec->pair_row, batch->pair_row, batch->pairs * sizeof *batch->pair_row);
	ops->copy_in(exec->queue, exec->pair_weight, batch->pair_weight, batch->pairs * sizeof *batch->pair_weight);
	ex_exec_ffn(exec, batch->active, batch->active_count, batch->begin, batch->rows, quantum);
	for (uint32_t s = 0; s < batch->segments_count; s++)
		pack(exec, batch, &batch->segments[s], &batch->segments[s].answer_bytes);
	enum cad_status status = ops->wait(exec->queue);
	if (status != CAD_OK)
		return status;

	for (uint32_t s = 0; s < batch->segments_count; s++) {
		const struct ex_segment *segment = &batch->segments[s];
		segment->job->call_data_bytes += rows_data_bytes(segment, exec->hidden);
		segment->job->answer_data_bytes += segment->answer_bytes;
		segment->job->rows_done += segment->rows;
	}

	return CAD_OK;
}
