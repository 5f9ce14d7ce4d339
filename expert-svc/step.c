/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What happens to a call on an expert node. Calls of one layer that have arrived by now, from
 * whichever routers, are computed together: each expert's weights are read once for all of them.
 * Their answers do not depend on each other (kernels.h: a row's result depends on that row alone,
 * and sums are exact), so how calls fall into steps is a matter of speed only.
 */
#include "expert-svc/step.h"

#include "common/base/log.h"

static void count(_Atomic uint64_t *counter, uint64_t amount)
{
	atomic_fetch_add_explicit(counter, amount, memory_order_relaxed);
}

static void finish(struct ex_step *step, struct ex_job *job, enum cadre_wire_status status, uint32_t detail)
{
	job->status = status;
	job->detail = detail;
	job->done_ns = cad_clock_now_ns(step->clock);
	if (step->queue_seconds && status == CADRE_WIRE_OK) {
		cad_histogram_observe(step->compute_seconds, (double)job->compute_ns * 1e-9);
		cad_histogram_observe(
			step->queue_seconds, (double)(job->done_ns - job->received_ns - job->compute_ns) * 1e-9);
	}
	step->answer(step->context, job);
}

/* Whether the call can be computed here and now; else why not, for the answer. */
static enum cadre_wire_status admit(
	const struct ex_step *step, const struct ex_job *job, uint64_t now_ns, uint32_t *detail)
{
	const struct cadre_wire_call *call = &job->call->call;
	*detail = call->layer;

	if (call->layer >= step->spec->layers_count || !step->spec->layers[call->layer].moe ||
		call->row_elements != step->spec->hidden) {
		count(&step->counters->bad_calls, 1);
		return CADRE_WIRE_BAD_CALL;
	}

	if (atomic_load_explicit(&job->abandoned, memory_order_relaxed) ||
		(job->deadline_ns > 0 && now_ns >= job->deadline_ns)) {
		count(&step->counters->expired, 1);
		*detail = 0;
		return CADRE_WIRE_EXPIRED;
	}

	return CADRE_WIRE_OK;
}

/* Whether every expert of the call is here: for the batch's layer as found when it began, for
 * others (whose turn comes later) as of now. */
static enum cadre_wire_status look_held(const struct ex_step *step, const struct ex_job *job, uint32_t *detail)
{
	const struct cadre_wire_call *call = &job->call->call;
	for (uint32_t g = 0; g < call->groups; g++) {
		uint32_t expert = job->call->groups[g].expert;
		if (call->layer == step->batch.layer ? step->batch.found[expert]
						     : ex_store_find(step->store, call->layer, expert))
			continue;
		count(&step->counters->not_held, 1);
		*detail = expert;
		return CADRE_WIRE_NOT_HELD;
	}
	return CADRE_WIRE_OK;
}

static void begin_layer(struct ex_step *step, uint32_t layer)
{
	ex_batch_begin(&step->batch, layer);
	for (uint32_t e = 0; e < step->batch.experts; e++)
		step->batch.found[e] = ex_store_find(step->store, layer, e);
}

/* Takes the oldest call, and every other call of its layer that fits beside it; answers at once
 * what cannot be computed. False: nothing is left to run. */
static bool take(struct ex_step *step)
{
	struct ex_batch *batch = &step->batch;
	uint64_t now_ns = cad_clock_now_ns(step->clock), waiting = 0;

	ex_batch_begin(batch, 0);

	for (struct ex_job **at = &step->inbox->first; *at;) {
		struct ex_job *job = *at;
		uint32_t detail;
		enum cadre_wire_status status = admit(step, job, now_ns, &detail);
		if (status == CADRE_WIRE_OK && batch->segments_count == 0)
			begin_layer(step, job->call->call.layer);
		if (status == CADRE_WIRE_OK)
			status = look_held(step, job, &detail);
		if (status != CADRE_WIRE_OK) {
			finish(step, ex_inbox_remove(step->inbox, at), status, detail);
			continue;
		}
		waiting += job->call->call.layer == batch->layer;
		bool added = job->call->call.layer == batch->layer && ex_batch_add(batch, job);
		const struct ex_segment *last = &batch->segments[batch->segments_count - 1];
		if (added && last->row_begin + last->rows == job->call->call.rows)
			ex_inbox_remove(step->inbox, at);
		/* of another layer, or larger than what is left of this
		 * step: a later step takes it */
		else
			at = &job->next;
	}

	if (step->work && batch->segments_count > 0)
		ex_work_add(&step->work->layer[batch->layer].waiting, waiting);
	return batch->segments_count > 0;
}

static void count_work(struct ex_step *step, uint64_t service_ns)
{
	const struct ex_batch *batch = &step->batch;
	struct ex_layer_work *layer = &step->work->layer[batch->layer];
	_Atomic uint64_t *pairs = step->work->pairs + (size_t)batch->layer * batch->experts;

	ex_work_add(&layer->rows, batch->rows);
	ex_work_add(&layer->pairs, batch->pairs);
	ex_work_add(&layer->activated, batch->active_count);
	ex_work_add(&layer->service_ns, service_ns);
	for (uint32_t i = 0; i < batch->active_count; i++)
		ex_work_add(&pairs[batch->pair_expert[batch->begin[i]]], batch->begin[i + 1] - batch->begin[i]);
	ex_work_add(&layer->steps, 1); /* the last: who sees it looks at the others */
}

static uint32_t poisoned_rows(const struct ex_segment *segment)
{
	const struct cadre_wire_sum *sums = (const struct cadre_wire_sum *)segment->job->payload;
	uint32_t poisoned = 0;
	for (uint32_t r = 0; r < segment->rows; r++)
		poisoned += sums[segment->row_begin + r].poisoned;
	return poisoned;
}

/* Answers the calls whose rows are all done; a call that is larger than a step stays first in the
 * queue. */
static void answer(struct ex_step *step, uint64_t compute_ns)
{
	const struct ex_batch *batch = &step->batch;
	count(&step->counters->steps, 1);
	count(&step->counters->rows, batch->rows);
	count(&step->counters->pairs, batch->pairs);
	if (step->work)
		count_work(step, compute_ns);
	if (step->step_rows)
		cad_histogram_observe(step->step_rows, batch->rows);
	for (uint32_t s = 0; s < batch->segments_count; s++) {
		struct ex_job *job = batch->segments[s].job;
		job->compute_ns += compute_ns;
		count(&step->counters->poisoned_rows, poisoned_rows(&batch->segments[s]));
		if (job->rows_done < job->call->call.rows)
			continue;
		count(&step->counters->calls, 1);
		finish(step, job, CADRE_WIRE_OK, 0);
	}
}

/* The device cannot compute the call. */
static void refuse(struct ex_step *step, struct ex_job *job)
{
	if (step->device_failed) {
		count(&step->counters->not_held, 1);
		finish(step, job, CADRE_WIRE_NOT_HELD, job->call->groups[0].expert);
	} else {
		count(&step->counters->internal, 1);
		finish(step, job, CADRE_WIRE_INTERNAL, 0);
	}
}

/* The device failed: no sum of this step can be trusted. */
static void fail(struct ex_step *step, enum cad_status status)
{
	cad_log_error("expert", "a step failed on the device", CAD_S("status", cad_status_text(status)),
		CAD_U("layer", step->batch.layer), CAD_U("rows", step->batch.rows));
	for (uint32_t s = 0; s < step->batch.segments_count; s++) {
		struct ex_job *job = step->batch.segments[s].job;
		if (step->inbox->first == job)
			ex_inbox_remove(step->inbox, &step->inbox->first);
		refuse(step, job);
	}
	if (step->device_failed) {
		step->has_failed = true;
		step->device_failed(step->device_failed_context);
	}
}

/* Also of a failed device. The calls are checked (common/transport/wire.h): each has a group. */
static bool refuse_all(struct ex_step *step)
{
	while (step->inbox->first)
		refuse(step, ex_inbox_remove(step->inbox, &step->inbox->first));
	return true;
}

static void count_times(struct ex_step *step)
{
	const struct kn_queue *queue = step->exec.queue;
	double seconds[KN_STAGE_COUNT] = { 0 };
	if (!queue->ops->times)
		return;
	queue->ops->times(step->exec.queue, seconds);
	for (unsigned stage = 0; stage < KN_STAGE_COUNT; stage++)
		count(&step->counters->device_ns[stage], (uint64_t)(seconds[stage] * 1e9));
}

bool ex_step_run(struct ex_step *step)
{
	ex_inbox_collect(step->inbox);
	if (!step->inbox->first)
		return false;
	if (step->has_failed)
		return refuse_all(step);

	ex_store_enter(step->store); /* the experts that are found from here on stay until leave */
	bool taken = take(step);
	uint64_t begin_ns = cad_clock_now_ns(step->clock);
	enum cad_status status = CAD_OK;
	if (taken) {
		ex_batch_group(&step->batch);
		status = ex_exec_run(&step->exec, &step->batch, step->quanta[step->batch.layer]);
	}

	ex_store_leave(step->store);

	if (taken)
		count_times(step);
	if (taken && status == CAD_OK)
		answer(step, cad_clock_now_ns(step->clock) - begin_ns);
	else if (taken)
		fail(step, status);
	return true;
}
