/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The options that say how a model is computed in this process (`eval`, `generate --model`, `verify
 * --model`), and where a generation runs.
 */
#ifndef CADRE_ORCHESTRATION_CLI_RUN_OPTIONS_H
#define CADRE_ORCHESTRATION_CLI_RUN_OPTIONS_H

#include "common/process/options.h"
#include "embedded/embedded.h"
#include "orchestration/cli/cluster_file.h"
#include "orchestration/cli/run.h"

/* Lines of an option table; `member` is a struct cl_engine inside `owner`. */
#define CL_ENGINE_OPTIONS(owner, member) \
	CAD_SETTINGS_OPTIONS(owner, member.settings, "embedded: "), \
		CAD_OPTION_ENUM(owner, member.isa, "isa", "auto", kn_isa_choices, \
			"embedded: instruction set; all give the same bits"), \
		CAD_OPTION_FORM(owner, member.device, "device", "cpu", kn_device_forms, \
			"embedded: where experts compute, as of cadre-expert; all else is on the CPU"), \
		CAD_OPTION_U32(owner, member.threads, "threads", "0", 0, KN_THREADS_MAX, \
			"embedded: compute threads; 0: all cores"), \
		CAD_OPTION_U32(owner, member.chunk, "chunk", "0", 0, 65536, \
			"embedded: rows of one prompt in a step; 0: as many as fit"), \
		CAD_OPTION_U32(owner, member.micro_batches, "micro-batches", "0", 0, RT_MICRO_BATCHES_MAX, \
			"embedded: parts of a step; 0: when it pays"), \
		CAD_OPTION_U32(owner, member.nodes, "nodes", "1", 1, EM_NODES_MAX, \
			"embedded: expert engines that the experts are spread over"), \
		CAD_OPTION_U64(owner, member.placement_seed, "placement-seed", "0", 0, UINT64_MAX, \
			"embedded: seed that shuffles experts over the engines; 0: in blocks")
CAD_MUST_USE enum cad_status cl_engine_check(const struct cl_engine *engine, struct cad_error *error);
/* What em_create takes for them, checked; the caller adds the model and what its events need. */
struct em_options cl_engine_embedded(const struct cl_engine *engine);

struct cl_run_options {
	const char *router, *model;
	struct cl_access access;
	struct cl_engine engine;
	uint64_t timeout_ns;
};
#define CL_RUN_OPTIONS(owner, member) \
	CAD_OPTION_STRING(owner, member.router, "router", "", \
		"HOST:PORT[,...], of which the first that answers is used, and the next when it fails, in the middle of an answer too; empty: those in run/cluster.json"), \
		CL_TLS_OPTIONS(owner, member.access), CL_TOKEN_OPTION(owner, member.access), \
		CAD_OPTION_DURATION(owner, member.timeout_ns, "timeout", "0s", 0, 24 * 3600 * CAD_NS_PER_S, \
			"give up when the whole answer takes longer, over all routers; 0s: never"), \
		{ \
			.name = "model", \
			.type = CAD_OPTION_TYPE_STRING, \
			.offset = CAD_OPTION_OFFSET(owner, member.model, const char *), \
			.default_text = "", \
			.names = CAD_OPTION_NAMES_DIRECTORY, \
			.not_from_environment = true, \
			.help = "directory of a checkpoint: compute in this process (embedded), without a cluster", \
		}, \
		CAD_OPTION_U32(owner, member.engine.context_max, "context-max", "0", 0, CAD_POSITIONS_MAX, \
			"embedded: tokens that a prompt and its answer may have together; 0: as many as the model's rotary scaling is meant for"), \
		CL_ENGINE_OPTIONS(owner, member.engine)

/* For the `rivals` of the options. */
#define CL_RUN_RIVALS "router", "model"

/* For the `check` of the options: what of them does not go together, before anything is read. */
CAD_MUST_USE enum cad_status cl_run_options_check(const struct cl_run_options *options, struct cad_error *error);
/* Fills where `run` runs. `cluster` is zeroed, and the caller's to fini when it has run.
 * CAD_ERR_INVALID: the options contradict each other; CAD_ERR_NOT_FOUND: neither says where. */
CAD_MUST_USE enum cad_status cl_run_from_options(
	const struct cl_run_options *options, struct cl_run *run, struct cl_cluster *cluster, struct cad_error *error);

#endif
