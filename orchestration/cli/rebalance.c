/* SPDX-License-Identifier: Apache-2.0 */
/* `cadrectl rebalance`: experts move to where they are used; and what can
 * be done with a rebalance. */
#include "common/base/clock.h"
#include "orchestration/cli/follow.h"
#include "orchestration/cli/share.h"
#include "orchestration/planner/objective/objective.h"
#include "orchestration/planner/trace/own.h"
#include "orchestration/planner/trace/read.h"

#include <stdlib.h>

enum { PART_BYTES = 1 << 20 };

struct options {
	struct cl_change change;
	struct cl_follow follow;
	const char *trace, *copies;
	enum pl_workload workload;
	uint64_t time_limit_ns;
};

static const struct cad_option table[] = {
	CAD_OPTION_FILE(struct options, trace, "trace", "",
		"recorded routing to plan on, as 'cadrectl plan' reads it; empty: what routers report now"),
	CAD_OPTION_STRING(struct options, copies, "copies", "",
		"extra copies, as a share of the experts: 12% or 0.12; empty: as many as there are now"),
	CAD_OPTION_ENUM(struct options, workload, "workload", "mixed", pl_workload_choices, "what the cluster does"),
	CAD_OPTION_DURATION(struct options, time_limit_ns, "time-limit", "5s", CAD_NS_PER_MS, 3600 * CAD_NS_PER_S,
		"how long to search; the first round always runs to its end"),
	CL_FOLLOW_OPTIONS(struct options, follow),
	CL_CHANGE_OPTIONS(struct options, change),
};

static enum cad_status check(const void *values, struct cad_error *error)
{
	const struct options *options = values;
	double share;
	enum cad_status status = cl_change_check(options, error);

	if (status == CAD_OK && options->copies[0] &&
		(!cl_share_parse(options->copies, &share) || share > CAD_NODES_MAX))
		status = cad_error_set(
			error, CAD_ERR_INVALID, "--copies '%.40s': give a share like 12%% or 0.12", options->copies);
	return status;
}

static const struct cad_options_spec spec = {
	.program = "cadrectl rebalance",
	.summary =
		"Plans where experts should be, from what tokens choose, and moves them there while tokens flow. Ends when the plan is in force; with --wait-moves, when experts have moved; with --wait, when the effect is measured too.",
	.table = table,
	.count = sizeof table / sizeof *table,
	.check = check,
	.check_files = cl_placement_check_files,
};

/* ---- the request: options, then the trace in parts ---- */

struct sending {
	Cadre__V1__StartRebalanceRequest message;
	Cadre__V1__RebalanceOptions options;
	Cadre__V1__Change change;
	char *trace;
	size_t trace_bytes, sent_bytes;
	bool begun;
	uint64_t id; /* the answer */
};

static const ProtobufCMessage *next_part(void *context)
{
	struct sending *sending = context;
	size_t rest = sending->trace_bytes - sending->sent_bytes;

	cadre__v1__start_rebalance_request__init(&sending->message);
	if (!sending->begun) {
		sending->begun = true;
		sending->message.part_case = CADRE__V1__START_REBALANCE_REQUEST__PART_OPTIONS;
		sending->message.options = &sending->options;
		return &sending->message.base;
	}
	if (rest == 0)
		return NULL;

	sending->message.part_case = CADRE__V1__START_REBALANCE_REQUEST__PART_TRACE;
	sending->message.trace.data = (uint8_t *)sending->trace + sending->sent_bytes;
	sending->message.trace.len = rest < PART_BYTES ? rest : PART_BYTES;
	sending->sent_bytes += sending->message.trace.len;
	return &sending->message.base;
}

static bool on_begun(void *context, const ProtobufCMessage *message)
{
	((struct sending *)context)->id = ((const Cadre__V1__Rebalance *)message)->id;
	return true;
}

/* A trace of any format, in Cadre's own. */
static enum cad_status read_trace(const char *path, struct sending *sending, struct cad_error *error)
{
	struct pl_trace *trace;
	struct pl_trace_writer *writer = NULL;
	enum cad_status status = pl_trace_read(path, &trace, error);
	if (status != CAD_OK)
		return status;

	FILE *stream = open_memstream(&sending->trace, &sending->trace_bytes);
	status = stream ? pl_trace_writer_create(stream, trace, &writer, error)
			: cad_error_set(error, CAD_ERR_MEMORY, "%s: out of memory", path);
	if (status == CAD_OK)
		status = pl_trace_writer_add(writer, trace, false, error);
	if (status == CAD_OK)
		status = pl_trace_writer_finish(writer, error);
	pl_trace_writer_destroy(writer);
	if (stream && fclose(stream) != 0 && status == CAD_OK)
		status = cad_error_set(error, CAD_ERR_MEMORY, "%s: out of memory", path);
	pl_trace_free(trace);

	return status;
}

static enum cad_status prepare(const struct options *options, struct sending *sending, struct cad_error *error)
{
	static const Cadre__V1__Workload workloads[] = {
		[PL_WORKLOAD_DECODE] = CADRE__V1__WORKLOAD__WORKLOAD_DECODE,
		[PL_WORKLOAD_PREFILL] = CADRE__V1__WORKLOAD__WORKLOAD_PREFILL,
		[PL_WORKLOAD_MIXED] = CADRE__V1__WORKLOAD__WORKLOAD_MIXED,
	};
	Cadre__V1__RebalanceOptions *wanted = &sending->options;

	*sending = (struct sending){ .id = 0 };
	cadre__v1__rebalance_options__init(wanted);
	wanted->change = cl_change_to_proto(&options->change, &sending->change);
	wanted->workload = workloads[options->workload];
	wanted->limit_copies = options->copies[0] && cl_share_parse(options->copies, &wanted->copies);
	wanted->time_limit_ms = options->time_limit_ns / CAD_NS_PER_MS;
	wanted->bytes_per_second = options->follow.bytes_per_second;
	wanted->has_trace = options->trace[0];
	return options->trace[0] ? read_trace(options->trace, sending, error) : CAD_OK;
}

int cl_rebalance(int argc, char **argv)
{
	struct options options;
	struct cad_options *parsed;
	struct sending sending;
	struct cl_session session = { .address = NULL };
	struct cad_error error;
	int exit_code;

	if (!cad_options_main(&spec, argc, argv, &options, &parsed, &exit_code))
		return exit_code;

	enum cad_status status = prepare(&options, &sending, &error);
	if (status != CAD_OK) {
		exit_code = cl_fail("rebalance", &error);
	} else {
		status = cl_session_open(&session, &options.change.placement, &error);
		if (status == CAD_OK)
			status = cl_session_upload(&session, CL_PLACEMENT_METHOD("StartRebalance"), next_part,
				&cadre__v1__rebalance__descriptor, on_begun, &sending, &error);
		exit_code = status == CAD_OK
			? cl_follow(&session, "rebalance", &options.follow, options.change.placement.format, sending.id)
			: cl_session_fail(&session, "rebalance", status, &error);
	}

	cl_session_close(&session);
	free(sending.trace);
	cad_options_destroy(parsed);
	return exit_code;
}
