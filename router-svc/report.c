/* SPDX-License-Identifier: Apache-2.0 */
#include "router-svc/report.h"

#include "cadre/v1/placement.pb-c.h"

#include <stdlib.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "ids are copied as they lie in memory"
#endif

enum { SAMPLE_BYTES = 192 << 10, NODES_PER_REPORT = 256 };

/* Totals that were reported; tokens that are sampled are counted in the ring. */
struct counted {
	uint64_t passed, lost, routed_rows, nodes_touched, calls, hedged;
};

struct rt_report {
	struct rt_engine *engine;
	struct rt_telemetry *telemetry;
	struct counted told;
	uint32_t tokens_max; /* of one message */
	uint64_t *requests;  /* [tokens_max] */
	uint8_t *ids;        /* [tokens_max][layers][topk] */
	Cadre__V1__NodeTraffic traffic[NODES_PER_REPORT], *traffic_list[NODES_PER_REPORT];
};

enum cad_status rt_report_create(struct rt_engine *engine, struct rt_report **report)
{
	struct rt_report *made = calloc(1, sizeof *made);
	if (!made)
		return CAD_ERR_MEMORY;

	made->engine = engine;
	made->telemetry = rt_engine_telemetry(engine);
	size_t bytes = rt_telemetry_ids_bytes(made->telemetry);
	made->tokens_max = bytes < SAMPLE_BYTES ? (uint32_t)(SAMPLE_BYTES / (bytes + sizeof *made->requests)) : 1;
	made->requests = malloc(made->tokens_max * sizeof *made->requests);
	made->ids = malloc(made->tokens_max * bytes + 1);
	if (!made->requests || !made->ids) {
		rt_report_destroy(made);
		return CAD_ERR_MEMORY;
	}

	*report = made;
	return CAD_OK;
}

void rt_report_destroy(struct rt_report *report)
{
	if (!report)
		return;
	free(report->requests);
	free(report->ids);
	free(report);
}

static struct counted count_now(const struct rt_report *report)
{
	struct rt_engine_stats stats;
	rt_engine_stats(report->engine, &stats);
	return (struct counted){
		.passed = atomic_load_explicit(&report->telemetry->passed, memory_order_relaxed),
		.lost = atomic_load_explicit(&report->telemetry->lost, memory_order_relaxed),
		.routed_rows = stats.routed_rows,
		.nodes_touched = stats.nodes_touched,
		.calls = stats.calls,
		.hedged = stats.calls_hedged,
	};
}

void rt_report_begin(struct rt_report *report)
{
	struct rt_telemetry *telemetry = report->telemetry;
	uint64_t written = atomic_load_explicit(&telemetry->written, memory_order_acquire);

	report->told = count_now(report);
	atomic_store_explicit(&telemetry->taken, written, memory_order_release);
}

/* Adds the record, unless it needs a message of its own. */
static bool add(struct rt_report *report, Cadre__V1__RoutingReport *message, const struct rt_telemetry_record *record)
{
	size_t bytes = rt_telemetry_ids_bytes(report->telemetry);

	if (record->kind == RT_TELEMETRY_TRAFFIC) {
		if (message->n_traffic == NODES_PER_REPORT)
			return false;
		Cadre__V1__NodeTraffic *traffic = &report->traffic[message->n_traffic];
		cadre__v1__node_traffic__init(traffic);
		traffic->node = (char *)(uintptr_t)record->traffic.node;
		traffic->bytes_sent = record->traffic.sent;
		traffic->bytes_received = record->traffic.received;
		report->traffic_list[message->n_traffic++] = traffic;
		return true;
	}

	if (message->n_requests == report->tokens_max || (message->n_requests > 0 && message->share != record->share))
		return false;
	message->share = record->share;
	memcpy(report->ids + message->n_requests * bytes, rt_telemetry_ids(record), bytes);
	report->requests[message->n_requests++] = record->request;
	message->experts.len += bytes;
	return true;
}

/* One message, with records from *position on; false: it cannot be sent. */
static bool send_one(struct rt_report *report, struct cad_member *member, const struct counted *now, uint64_t *position,
	uint64_t written)
{
	Cadre__V1__RoutingReport message = CADRE__V1__ROUTING_REPORT__INIT;
	Cadre__V1__NodeReport outer = CADRE__V1__NODE_REPORT__INIT;

	message.lost = now->lost - report->told.lost;
	message.routed_rows = now->routed_rows - report->told.routed_rows;
	message.nodes_touched = now->nodes_touched - report->told.nodes_touched;
	message.calls = now->calls - report->told.calls;
	message.calls_hedged = now->hedged - report->told.hedged;
	message.traffic = report->traffic_list;
	message.requests = report->requests;
	message.experts.data = report->ids;
	uint64_t at = *position;
	while (at < written && add(report, &message, rt_telemetry_at(report->telemetry, at)))
		at++;
	message.tokens = now->passed - report->told.passed + message.lost + message.n_requests;
	outer.report_case = CADRE__V1__NODE_REPORT__REPORT_ROUTING;
	outer.routing = &message;
	if (cad_member_report(member, &outer) != CAD_OK)
		return false;

	report->told = *now;
	*position = at;
	return true;
}

void rt_report_send(struct rt_report *report, struct cad_member *member)
{
	struct rt_telemetry *telemetry = report->telemetry;
	uint64_t position = atomic_load_explicit(&telemetry->taken, memory_order_relaxed),
		 written = atomic_load_explicit(&telemetry->written, memory_order_acquire);
	const struct counted now = count_now(report);
	bool changed = position < written || memcmp(&now, &report->told, sizeof now) != 0;

	while (changed && cad_member_has_room(member) && send_one(report, member, &now, &position, written)) {
		atomic_store_explicit(&telemetry->taken, position, memory_order_release);
		changed = position < written;
	}
}
