/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A rebalance as commands follow and print it. One thread; blocks.
 *
 * A command ends as soon as the plan is in force, or has turned out to be impossible; with
 * --wait-moves when all moves are done, and with --wait when what they did is measured too, a
 * minute after the last. Progress goes to stderr. Ctrl-C ends the command, not the rebalance. A
 * placement service that is away for up to two minutes is waited for.
 */
#ifndef CADRE_ORCHESTRATION_CLI_FOLLOW_H
#define CADRE_ORCHESTRATION_CLI_FOLLOW_H

#include "orchestration/cli/operate.h"

struct cl_follow {
	bool wait, wait_moves; /* wait: for the moves, too */
	uint64_t bytes_per_second;
};

#define CL_WAIT_OPTIONS(owner, member) \
	CAD_OPTION_BOOL(owner, member.wait, "wait", "false", \
		"until experts have moved and the effect is measured, a minute later, instead of until the plan is in force"), \
		CAD_OPTION_BOOL(owner, member.wait_moves, "wait-moves", "false", "until experts have moved")

#define CL_FOLLOW_OPTIONS(owner, member) \
	CAD_OPTION_BYTES(owner, member.bytes_per_second, "bytes-per-second", "0", 0, UINT64_MAX, \
		"of all moves together; 0: the placement service's own rate"), \
		CL_WAIT_OPTIONS(owner, member)

struct json_t;

/* Follows rebalance `id` as far as `follow` says, prints it, and returns the exit code: 0 when it
 * is in force, done, or was a dry run; 1 when it failed or was cancelled. */
int cl_follow(struct cl_session *session, const char *command, const struct cl_follow *follow, enum cl_format format,
	uint64_t id);

/* Its warnings on stderr, the rest on stdout. */
void cl_rebalance_print(const char *command, const Cadre__V1__Rebalance *rebalance, enum cl_format format);
struct json_t *cl_rebalance_to_json(const Cadre__V1__Rebalance *rebalance); /* NULL: out of memory */
const char *cl_rebalance_state_name(Cadre__V1__RebalanceState state);

#endif
