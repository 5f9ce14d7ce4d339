/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a generation runs: on the first router of a list that takes it, or in this process with
 * the embedded engine. Both give the messages that a router streams. When a router fails in the
 * middle of an answer, the next one continues it (received.h), and the messages are those of
 * one stream, but for the routing of a position, which may come twice. Blocks until the end;
 * Ctrl-C ends it early (command.h).
 */
#ifndef CADRE_ORCHESTRATION_CLI_RUN_H
#define CADRE_ORCHESTRATION_CLI_RUN_H

#include "cadre/v1/inference.pb-c.h"
#include "common/cluster/settings.h"
#include "kernels/kernels.h"
#include "orchestration/cli/access.h"

/* How the embedded engine computes (embedded/embedded.h). */
struct cl_engine {
	struct cad_settings settings;
	enum kn_isa isa;
	const char *device; /* of the experts: kn_device_parse */
	uint32_t threads, chunk, context_max, micro_batches, nodes;
	uint64_t placement_seed;
};

struct cl_run {
	const char *routers; /* "host:port[,host:port...]" */
	struct cl_access access;
	const char *model; /* directory: run here; then: */
	struct cl_engine engine;
	uint64_t timeout_ns; /* for the whole answer; 0: none */
	/* For each message, in order; false ends the generation. */
	bool (*on_response)(void *context, const Cadre__V1__GenerateResponse *response);
	void *context;
};

enum { CL_WHERE_BYTES = 512 };
struct cl_run_report {
	char where[CL_WHERE_BYTES]; /* what computed it: "router A, then router B" */
	uint32_t resumed;           /* how often another stream continued the answer */
	uint64_t gap_us;            /* the longest time without a message that this took */
	/* as seen from here, over all streams; 0 for the embedded engine */
	uint64_t first_token_us, total_us;
};
/* Says on stderr which router failed, and which one continues. */
CAD_MUST_USE enum cad_status cl_run_generate(const struct cl_run *run, const Cadre__V1__GenerateRequest *request,
	struct cl_run_report *report, struct cad_error *error);

/* The embedded one. */
CAD_MUST_USE enum cad_status cl_run_embedded(
	const struct cl_run *run, const Cadre__V1__GenerateRequest *request, struct cad_error *error);

#endif
