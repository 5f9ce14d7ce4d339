/* SPDX-License-Identifier: Apache-2.0 */
#include "router-svc/control.h"

#include "cadre/v1/placement.pb-c.h"
#include "common/base/log.h"
#include "common/rpc/reactor.h"
#include "router-svc/report.h"

#include <stdio.h>
#include <stdlib.h>

struct rt_control {
	struct rt_control_options options;
	struct cad_member *member; /* NULL: left */
	struct cad_rpc_wakeup reach;
	struct rt_report *report; /* NULL: the engine has no telemetry */
	Cadre__V1__Unreached unreached[CAD_NODES_MAX], *unreached_list[CAD_NODES_MAX]; /* of the last load report */
	struct {
		Cadre__V1__ExpertCalls message;
		Cadre__V1__Breaker breakers[RT_HEALTH_BREAKERS_MAX], *list[RT_HEALTH_BREAKERS_MAX];
		Cadre__V1__ExpertId copies[RT_HEALTH_BREAKERS_MAX];
	} calls; /* the same */
	struct cad_note apart, discounted;
};

/* ---- what is reported ---- */

static void fill_hello(void *context, Cadre__V1__NodeHello *hello)
{
	const struct rt_control_options *o = &((struct rt_control *)context)->options;
	struct rt_engine_stats stats;

	rt_engine_stats(o->engine, &stats);
	hello->role = CADRE__V1__ROLE__ROLE_ROUTER;
	hello->grpc_address = (char *)(uintptr_t)o->grpc_address;
	hello->model_fingerprint = (char *)(uintptr_t)o->model_fingerprint;
	hello->router_checksum = (char *)(uintptr_t)rt_engine_weights_checksum(o->engine);
	hello->epoch = stats.epoch;
}

/* What is not reached is said of one map: the epoch is that of the same moment. */
static void fill_unreached(struct rt_control *control, Cadre__V1__NodeLoad *load)
{
	const struct rt_reach_view *view = rt_engine_reach(control->options.engine);
	uint64_t now_ns = cad_clock_now_ns(rt_engine_clock(control->options.engine));

	load->epoch = view->epoch;
	for (uint32_t i = 0; i < view->count; i++) {
		Cadre__V1__Unreached *unreached = &control->unreached[i];
		uint64_t heard_ns = view->unreached[i].heard_ns,
			 silent_ms = now_ns > heard_ns ? (now_ns - heard_ns) / CAD_NS_PER_MS : 0;
		cadre__v1__unreached__init(unreached);
		unreached->node = (char *)(uintptr_t)view->unreached[i].node;
		unreached->silent_ms = silent_ms < UINT32_MAX ? (uint32_t)silent_ms : UINT32_MAX;
		control->unreached_list[i] = unreached;
	}
	load->unreached = control->unreached_list;
	load->n_unreached = view->count;
}

static void fill_calls(struct rt_control *control, const struct rt_engine_stats *stats)
{
	const struct rt_health_view *view = rt_engine_health(control->options.engine);
	Cadre__V1__ExpertCalls *calls = &control->calls.message;

	cadre__v1__expert_calls__init(calls);
	calls->late = stats->calls_late;
	calls->hedged = stats->calls_hedged;
	calls->hedges_won = stats->hedges_won;
	calls->rows_diverted = stats->rows_diverted;
	calls->p99_us = stats->call_p99_ns / CAD_NS_PER_US;
	calls->breakers_open = stats->breakers;
	calls->copies_open = stats->open_copies;
	calls->breakers = control->calls.list;
	calls->n_breakers = view->count;

	for (uint32_t i = 0; i < view->count; i++) {
		const struct rt_health_breaker *from = &view->breakers[i];
		Cadre__V1__Breaker *breaker = control->calls.list[i] = &control->calls.breakers[i];
		Cadre__V1__ExpertId *copy = &control->calls.copies[i];
		cadre__v1__breaker__init(breaker);
		cadre__v1__expert_id__init(copy);
		breaker->node = (char *)(uintptr_t)from->node;
		breaker->why = (char *)(uintptr_t)from->why;
		breaker->half_open = from->half_open;
		copy->layer = from->layer;
		copy->expert = from->expert;
		breaker->copy = from->of_copy ? copy : NULL;
	}
}

static void fill_load(void *context, Cadre__V1__NodeLoad *load)
{
	struct rt_control *control = context;
	struct rt_engine_stats stats;

	rt_engine_stats(control->options.engine, &stats);
	fill_unreached(control, load);
	load->rows = stats.routed_rows;
	load->calls = stats.calls;
	load->tokens = stats.tokens_generated + stats.tokens_prefilled;
	load->sequences = stats.running;
	load->queue = stats.waiting;
	fill_calls(control, &stats);
	load->expert_calls = &control->calls.message;
}

/* At once, not with the next report: the placement service gives a node experts when routers reach
 * it, and its experts to others when they do not. */
static void report_reach(void *context)
{
	struct rt_control *control = context;
	if (control->member)
		cad_member_load(control->member);
}

static void report_routing(void *context)
{
	struct rt_control *control = context;
	if (control->report && control->member)
		rt_report_send(control->report, control->member);
}

void rt_control_reach_changed(struct rt_control *control) { cad_rpc_wakeup_send(&control->reach); }

/* ---- what comes ---- */

static void take_welcome(void *context, const Cadre__V1__NodeWelcome *welcome)
{
	struct rt_control *control = context;
	bool aggregate = welcome->routing_detail == CADRE__V1__ROUTING_DETAIL__ROUTING_DETAIL_AGGREGATE;

	control->options.routing(control->options.context, aggregate);
	if (!control->report)
		return;
	atomic_store(&rt_engine_telemetry(control->options.engine)->aggregate, aggregate);
	rt_report_begin(control->report);
}

static void take_map(void *context, struct cad_map *map)
{
	struct rt_control *control = context;
	rt_engine_map(control->options.engine, map);
	cad_map_release(map);
}

static void take_standing(void *context, bool counts, const char *why)
{
	struct rt_control *control = context;
	char text[CAD_NOTE_BYTES];

	if (counts) {
		cad_note_put(&control->discounted, "");
		cad_log_info("router", "the placement service counts this router again");
		return;
	}
	snprintf(text, sizeof text, "cut off from expert nodes: this router %s; check its network", why);
	cad_note_put(&control->discounted, text);
	cad_log_error("router", text);
}

static void joined(void *context, enum cad_membership membership, const char *why)
{
	struct rt_control *control = context;
	cad_note_put(&control->apart, membership == CAD_JOINED ? "" : why);
	cad_note_put(&control->discounted, ""); /* until it is said again */
	control->options.refused(control->options.context, membership == CAD_MEMBER_REFUSED);
}

void rt_control_apart(const struct rt_control *control, char text[CAD_NOTE_BYTES])
{
	cad_note_get(&control->apart, text);
}

void rt_control_discounted(const struct rt_control *control, char text[CAD_NOTE_BYTES])
{
	cad_note_get(&control->discounted, text);
}

/* ---- life ---- */

enum cad_status rt_control_create(
	const struct rt_control_options *options, struct rt_control **control, struct cad_error *error)
{
	struct rt_control *made = calloc(1, sizeof *made);
	if (!made)
		return cad_error_set(error, CAD_ERR_MEMORY, "no memory to join a cluster");

	made->options = *options;
	cad_rpc_wakeup_init(&made->reach, options->self.reactor, report_reach, made);
	const struct cad_member_options member = {
		.self = options->self,
		.context = made,
		.hello = fill_hello,
		.load = fill_load,
		.map = take_map,
		.welcome = take_welcome,
		.second = report_routing,
		.joined = joined,
		.standing = take_standing,
	};
	enum cad_status status = CAD_OK;
	if (rt_engine_telemetry(options->engine) && rt_report_create(options->engine, &made->report) != CAD_OK)
		status = cad_error_set(error, CAD_ERR_MEMORY, "no memory to report routing");
	if (status == CAD_OK)
		status = cad_member_create(&member, &made->member, error);
	if (status != CAD_OK) {
		rt_control_destroy(made);
		return status;
	}

	*control = made;
	return CAD_OK;
}

void rt_control_leave(struct rt_control *control, void (*left)(void *context), void *context)
{
	struct cad_member *member = control->member;
	control->member = NULL;
	cad_member_leave(member, left, context);
}

void rt_control_destroy(struct rt_control *control)
{
	if (!control)
		return;
	rt_report_destroy(control->report);
	free(control);
}
