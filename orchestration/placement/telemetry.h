/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What routers and expert nodes report of their work: figures of the cluster over any part of the
 * last 15 minutes, and a sample of whole tokens for plans, in which old ones give way to new ones.
 *
 * Memory: the sample (orchestration/planner/trace/reservoir.h) and what is counted of experts (28
 * bytes each) are taken at creation; a router takes 50 KB with its first report, an expert node (12
 * x MoE layers + 40) x 900 bytes (60 layers: 0.7 MB), traffic between a router and a node 176
 * bytes, of at most PL_TRAFFIC_MAX pairs. Nothing of it survives the process.
 *
 * Reports come checked (telemetry_message.h). One thread, that of the service; nothing blocks.
 */
#ifndef CADRE_ORCHESTRATION_PLACEMENT_TELEMETRY_H
#define CADRE_ORCHESTRATION_PLACEMENT_TELEMETRY_H

#include "common/base/clock.h"
#include "orchestration/placement/registry.h"
#include "orchestration/planner/trace/trace.h"

struct pl_telemetry;
struct pl_routing_report;

struct pl_telemetry_options {
	struct pl_shape shape;              /* borrowed layers */
	uint32_t topk;                      /* experts per token */
	const struct pl_registry *registry; /* borrowed: who lives */
	const char *cluster, *model;        /* borrowed: for the names of traces */
	uint32_t tokens;                    /* kept at most; 0: none */
	bool aggregate;                     /* nothing is known of single tokens and experts */
	double half_life_s;                 /* of a kept token's weight; 0: they do not age */
	uint64_t seed, now_ns;
	/* A router's report has a sample; NULL: nobody asks. Not where
	 * nothing is known of tokens. */
	void (*on_sample)(void *context, uint32_t slot, const struct pl_routing_report *report);
	void *context;
};

CAD_MUST_USE enum cad_status pl_telemetry_create(
	const struct pl_telemetry_options *options, struct pl_telemetry **telemetry, struct cad_error *error);
void pl_telemetry_destroy(struct pl_telemetry *telemetry); /* NULL is fine */
const struct pl_telemetry_options *pl_telemetry_options(const struct pl_telemetry *telemetry);

/* ---- reports; `slot` is the registry's, times are the service's clock and ascend ---- */

enum { PL_TRAFFIC_MAX = 4096, PL_TELEMETRY_WINDOWS = 3 };
/* Those that are shown: 10 s, 1 min, 10 min. */
extern const uint32_t pl_telemetry_windows_s[PL_TELEMETRY_WINDOWS];

struct pl_traffic {
	uint32_t node; /* slot */
	uint64_t sent, received;
};

/* Of a router, since its last. */
struct pl_routing_report {
	uint64_t tokens, lost, rows, nodes, calls, hedged;
	const struct pl_traffic *traffic;
	size_t traffic_count;
	double share;
	const uint64_t *requests; /* [sampled] */
	const uint16_t *ids;      /* [sampled][layers][topk] */
	size_t sampled;
};
void pl_telemetry_routing(
	struct pl_telemetry *telemetry, uint32_t slot, uint64_t now_ns, const struct pl_routing_report *report);

/* Of an expert node, since its last. */
struct pl_work_expert {
	uint32_t expert, pairs;
};
struct pl_work_layer {
	uint32_t row; /* of the MoE layers */
	uint64_t steps, rows, pairs, activated, waiting, service_us;
	const struct pl_work_expert *experts;
	size_t experts_count;
};
void pl_telemetry_work(struct pl_telemetry *telemetry, uint32_t slot, uint64_t now_ns,
	const struct pl_work_layer *layers, size_t count);

/* ---- figures ---- */

/* A token counts once for each MoE layer in `rows`; what is "per token" is the mean over tokens and
 * MoE layers, as in the planner's metrics (predict/measure.h). */
struct pl_figures {
	double seconds;
	uint64_t tokens;        /* that went through all layers, each once */
	uint64_t sampled, lost; /* of them: reported whole; chosen, but the router had no room */
	uint64_t rows;          /* routed, tokens that were computed again among them */
	double nodes_per_token; /* nodes that a row is sent to */
	double bytes_per_token; /* sent and received: */
	double sent_per_token, received_per_token;
	/* The busiest node's (row, expert) pairs over its fair part, by speed, mean over layers,
	 * as the planner's load_mean; 0: no node reported any. */
	double load_max_over_mean;
	/* Distinct experts that a node runs in a step: of the node with most over the
	 * mean, mean over layers (the planner counts them by batches of 64 tokens); and
	 * the mean itself. 0: as above. */
	double activated_max_over_mean, activated;
};

/* Measured over [from, to] of the service's clock, to the second; up to 15 minutes back. false:
 * nothing was reported in it. */
bool pl_telemetry_between(
	const struct pl_telemetry *telemetry, uint64_t from_ns, uint64_t to_ns, struct pl_figures *figures);

/* Of one expert node, in the same way. */
struct pl_node_figures {
	double rows_per_second, pairs_per_second, steps_per_second;
	double busy;    /* share of the time in which a step ran */
	double waiting; /* calls that waited for a step when it began, mean */
	double step_s;  /* mean time of a step */
};
bool pl_telemetry_node(const struct pl_telemetry *telemetry, uint32_t slot, uint64_t from_ns, uint64_t to_ns,
	struct pl_node_figures *figures);

/* Of one router, in the same way. */
struct pl_router_figures {
	double tokens_per_second, calls_per_second, hedged_per_second;
};
bool pl_telemetry_router(const struct pl_telemetry *telemetry, uint32_t slot, uint64_t from_ns, uint64_t to_ns,
	struct pl_router_figures *figures);

/* The experts that got most pairs within the last minute, for their layers: at most `max`, the
 * hottest first. Returns how many; none where routing is only aggregated. */
struct pl_hot_expert {
	uint32_t layer, expert; /* layer: index in the model */
	double share;           /* of the layer's tokens that selected it: at most 1 */
	double over_fair;       /* that, over what it would be if all were alike */
};
size_t pl_telemetry_hottest(
	const struct pl_telemetry *telemetry, uint64_t now_ns, struct pl_hot_expert *hottest, size_t max);

/* Bytes per second between routers and nodes within the last minute: at most `max`, the busiest
 * first. Returns how many there are, which may be more. */
struct pl_link_figures {
	uint32_t router, node; /* slots */
	double sent_per_second, received_per_second;
};
size_t pl_telemetry_links(
	const struct pl_telemetry *telemetry, uint64_t now_ns, struct pl_link_figures *links, size_t max);

/* ---- the sample ---- */

/* As a trace: whole tokens, requests in the order in which they came.
 * CAD_ERR_NOT_FOUND: none yet. */
CAD_MUST_USE enum cad_status pl_telemetry_trace(
	const struct pl_telemetry *telemetry, struct pl_trace **trace, struct cad_error *error);

struct pl_telemetry_state {
	uint64_t tokens_seen, tokens_sampled, tokens_lost, tokens_kept; /* since the service started */
	uint32_t tokens_max;
	double half_life_s;
	uint64_t oldest_ns, newest_ns; /* of the tokens that are kept; 0: none is */
};
void pl_telemetry_state(const struct pl_telemetry *telemetry, struct pl_telemetry_state *state);

#endif
