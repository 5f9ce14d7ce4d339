/* SPDX-License-Identifier: Apache-2.0 */
#include "expert-svc/report.h"

#include "cadre/v1/placement.pb-c.h"
#include "common/base/clock.h"
#include "common/base/log.h"

#include <stdlib.h>

/* Of one layer, as it was told last; service in whole microseconds. */
struct told {
	uint64_t steps, rows, pairs, activated, waiting, service_us;
};

struct ex_report {
	const struct ex_work *work;
	bool by_expert;
	struct told *told;    /* [layers] */
	uint64_t *told_pairs; /* [layers][experts] */
	/* the message, [layers] and [layers][experts] */
	Cadre__V1__LayerWork *layers, **list;
	uint32_t *experts, *expert_pairs;
};

enum cad_status ex_report_create(const struct ex_work *work, struct ex_report **report)
{
	struct ex_report *made = calloc(1, sizeof *made);
	size_t cells = (size_t)work->layers * work->experts;
	if (!made)
		return CAD_ERR_MEMORY;

	*made = (struct ex_report){
		.work = work,
		.told = calloc(work->layers, sizeof *made->told),
		.told_pairs = calloc(cells, sizeof *made->told_pairs),
		.layers = calloc(work->layers, sizeof *made->layers),
		.list = calloc(work->layers, sizeof *made->list),
		.experts = calloc(cells, sizeof *made->experts),
		.expert_pairs = calloc(cells, sizeof *made->expert_pairs),
	};
	if (!made->told || !made->told_pairs || !made->layers || !made->list || !made->experts || !made->expert_pairs) {
		ex_report_destroy(made);
		return CAD_ERR_MEMORY;
	}
	*report = made;
	return CAD_OK;
}

void ex_report_destroy(struct ex_report *report)
{
	if (!report)
		return;
	free(report->told);
	free(report->told_pairs);
	free(report->layers);
	free(report->list);
	free(report->experts);
	free(report->expert_pairs);
	free(report);
}

static struct told read_layer(const struct ex_layer_work *layer)
{
	return (struct told){
		.steps = ex_work_read(&layer->steps),
		.rows = ex_work_read(&layer->rows),
		.pairs = ex_work_read(&layer->pairs),
		.activated = ex_work_read(&layer->activated),
		.waiting = ex_work_read(&layer->waiting),
		.service_us = ex_work_read(&layer->service_ns) / CAD_NS_PER_US,
	};
}

/* What was counted of a layer since it was told last is written to
 * `message`, and counts as told. */
static void tell_layer(struct ex_report *report, uint32_t layer, Cadre__V1__LayerWork *message)
{
	const struct ex_work *work = report->work;
	const struct told now = read_layer(&work->layer[layer]), *told = &report->told[layer];
	size_t cell = (size_t)layer * work->experts;

	cadre__v1__layer_work__init(message);
	message->layer = layer;
	message->steps = now.steps - told->steps;
	message->rows = now.rows - told->rows;
	message->pairs = now.pairs - told->pairs;
	message->activated = now.activated - told->activated;
	message->waiting_calls = now.waiting - told->waiting;
	message->service_us = now.service_us - told->service_us;
	message->experts = report->experts + cell;
	message->expert_pairs = report->expert_pairs + cell;
	for (uint32_t expert = 0; expert < work->experts; expert++) {
		uint64_t pairs = ex_work_read(&work->pairs[cell + expert]),
			 since = pairs - report->told_pairs[cell + expert];
		report->told_pairs[cell + expert] = pairs;
		if (since == 0 || !report->by_expert)
			continue;
		message->experts[message->n_experts++] = expert;
		message->expert_pairs[message->n_expert_pairs++] = since < UINT32_MAX ? (uint32_t)since : UINT32_MAX;
	}
	report->told[layer] = now;
}

static size_t tell_layers(struct ex_report *report)
{
	size_t count = 0;

	for (uint32_t layer = 0; layer < report->work->layers; layer++) {
		if (ex_work_read(&report->work->layer[layer].steps) == report->told[layer].steps)
			continue;
		report->list[count] = &report->layers[count];
		tell_layer(report, layer, &report->layers[count++]);
	}
	return count;
}

void ex_report_begin(struct ex_report *report, bool experts)
{
	report->by_expert = experts;
	(void)tell_layers(report);
}

void ex_report_send(struct ex_report *report, struct cad_member *member)
{
	Cadre__V1__WorkReport message = CADRE__V1__WORK_REPORT__INIT;
	Cadre__V1__NodeReport outer = CADRE__V1__NODE_REPORT__INIT;

	if (!cad_member_has_room(member))
		return;
	message.layers = report->list;
	message.n_layers = tell_layers(report);
	outer.report_case = CADRE__V1__NODE_REPORT__REPORT_WORK;
	outer.work = &message;
	if (message.n_layers > 0 && cad_member_report(member, &outer) != CAD_OK)
		cad_log_debug("control", "the stream is over: what was done in the last second is not reported");
}
