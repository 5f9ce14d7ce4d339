/*
 * The options that say where a generation runs, shared by `generate` and `verify`.
 */
#ifndef CADRE_CLI_GENERATE_H
#define CADRE_CLI_GENERATE_H

#include "common/options.h"
#include "orchestration/cli/run.h"

struct cl_run_options {
	const char *router, *model;
	enum cad_weights weights;
	enum cadre_row_type wire;
	enum kn_isa isa;
	uint32_t threads;
};

extern const struct cad_choice cl_weights_choices[], cl_wire_choices[], cl_isa_choices[];

/* Lines of an option table; `member` is the struct above inside `owner`. */
#define CL_RUN_OPTIONS(owner, member)                                                                                                                            \
	CAD_OPTION_STRING(owner, member.router, "router", "", "HOST:PORT[,...]: the first that answers; empty: those of run/cluster.json"),                      \
	CAD_OPTION_STRING(owner, member.model, "model", "", "directory of a checkpoint: compute in this process, without a cluster"),                            \
	CAD_OPTION_ENUM(owner, member.weights, "weights", "f32", cl_weights_choices, "with --model; f32: as stored, lossless; bf16: rounded"),                   \
	CAD_OPTION_ENUM(owner, member.wire, "wire", "fix16", cl_wire_choices, "with --model: how rows go to the experts"),                                       \
	CAD_OPTION_ENUM(owner, member.isa, "isa", "auto", cl_isa_choices, "with --model: instruction set; all give the same bits"),                              \
	CAD_OPTION_U32(owner, member.threads, "threads", "0", 0, KN_THREADS_MAX, "with --model: compute threads; 0: all cores")

/* Fills where `run` runs. *routers is what the caller frees afterwards. CAD_ERR_INVALID: the options contradict each other; CAD_ERR_NOT_FOUND: neither says where. */
CAD_MUST_USE enum cad_status cl_run_from_options(const struct cl_run_options *options, struct cl_run *run, char **routers, struct cad_error *error);

#endif
