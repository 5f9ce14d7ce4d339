/* SPDX-License-Identifier: Apache-2.0 */
#include "router-svc/moe/absent.h"

#include <stdatomic.h>

static bool is_absent(const struct rt_exchange *exchange, const struct rt_work *work, uint32_t at)
{
	return work->slots[at] == RT_SLOT_OPEN &&
		cad_map_replicas(exchange->routes.map, work->layer, (uint32_t)work->ids[at]).count == 0;
}

static void count(const struct rt_work *work, uint32_t at)
{
	atomic_fetch_add_explicit(&work->counts[work->ids[at]].absent, 1, memory_order_relaxed);
}

static void fail_row(const struct rt_exchange *exchange, struct rt_work *work, uint32_t row)
{
	struct rt_sequence *sequence = work->batch->row_span[work->first + row]->sequence;

	for (uint32_t at = row * work->topk; at < (row + 1) * work->topk; at++) {
		if (!is_absent(exchange, work, at))
			continue;
		count(work, at);
		rt_sequence_doom(sequence, CAD_ERR_UNREACHABLE,
			"no node holds expert %d of layer %u, and this router does not wait for it (--absent-experts fail): ask again later",
			work->ids[at], work->layer);
		rt_work_forget(work, row);
		return;
	}
}

/* Sums of the row's weights. Returns how many slots are absent; 0 while some are under way, which
 * end as answered or as open. */
static uint32_t weigh(
	const struct rt_exchange *exchange, const struct rt_work *work, uint32_t row, float *all, float *left)
{
	uint32_t absent = 0;

	*all = *left = 0;
	for (uint32_t at = row * work->topk; at < (row + 1) * work->topk; at++) {
		if (work->slots[at] == RT_SLOT_SENT)
			return 0;
		*all += work->weights[at];
		if (is_absent(exchange, work, at))
			absent++;
		else
			*left += work->weights[at];
	}
	return absent;
}

/* What was added of the row is taken back, and owed again. */
static void begin_again(struct rt_exchange *exchange, struct rt_work *work, uint32_t row)
{
	size_t hidden = exchange->spec->hidden;
	uint32_t again = 0;

	for (uint32_t at = row * work->topk; at < (row + 1) * work->topk; at++) {
		if (work->ids[at] < 0 || work->slots[at] != RT_SLOT_DONE)
			continue;
		work->slots[at] = RT_SLOT_OPEN;
		again++;
	}

	work->open += again;
	if (again > 0)
		exchange->queue->ops->copy_in(exchange->queue, work->sums + (work->first + row) * hidden,
			exchange->zeros, hidden * sizeof *work->sums);
}

static void renormalise_row(struct rt_exchange *exchange, struct rt_work *work, uint32_t row)
{
	struct rt_usage *usage = &work->batch->row_span[work->first + row]->sequence->usage;
	float all, left;
	uint32_t absent = weigh(exchange, work, row, &all, &left), others = 0;

	if (absent == 0)
		return;

	for (uint32_t at = row * work->topk; at < (row + 1) * work->topk; at++) {
		if (is_absent(exchange, work, at)) {
			count(work, at);
			work->ids[at] = -1;
			work->weights[at] = 0;
			work->slots[at] = RT_SLOT_DONE;
			work->open--;
		} else if (work->ids[at] >= 0) {
			others++;
			if (left > 0)
				work->weights[at] = work->weights[at] / left * all;
		}
	}

	usage->absent_slots += absent;
	usage->absent_rows += others == 0;
	begin_again(exchange, work, row);
}

void rt_absent_apply(struct rt_exchange *exchange, struct rt_work *work)
{
	if (exchange->absent == RT_ABSENT_WAIT || exchange->routes.unplaced == 0 || !exchange->routes.was_ready)
		return;

	for (uint32_t row = 0; row < work->rows; row++) {
		if (work->batch->row_span[work->first + row]->sequence->doomed != CAD_OK)
			rt_work_forget(work, row);
		else if (exchange->absent == RT_ABSENT_FAIL)
			fail_row(exchange, work, row);
		else
			renormalise_row(exchange, work, row);
	}
}
