/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The audit log: one line for each call that was refused for who made it, each process that joined,
 * and each call that changes or records the cluster. The lines go where the log goes, at every log
 * level, with component=audit:
 *
 *     component=audit msg=refused method=Join role=client name=alice
 *     by=certificate peer=10.0.0.7:51234
 *         node="" why="..."       (one line)
 *
 * Each kind has a rate of its own, so that no flood of refusals hides the others. How many lines
 * were left out is said at the latest after CAD_AUDIT_SAY_S. No line shows a token.
 *
 * One thread, that of the loop. Nothing blocks but the log, nothing allocates.
 */
#ifndef CADRE_COMMON_PROCESS_AUDIT_H
#define CADRE_COMMON_PROCESS_AUDIT_H

#include "common/process/caller.h"

#include <stdint.h>

enum cad_audit_kind { CAD_AUDIT_REFUSED, CAD_AUDIT_JOINED, CAD_AUDIT_CALLED, CAD_AUDIT_KINDS };
enum { CAD_AUDIT_SAY_S = 10 };

struct cad_audit {
	struct {
		uint32_t room; /* lines that may be written now */
		uint64_t left_out;
	} kinds[CAD_AUDIT_KINDS];
	unsigned ticks;
};

void cad_audit_init(struct cad_audit *audit);
/* audit NULL: there is none. `node`: the id that a process joins with; "" of other calls. `why`: ""
 * unless it was refused. */
void cad_audit_write(struct cad_audit *audit, enum cad_audit_kind kind, const struct cad_caller *caller,
	const char *method, const char *node, const char *why);
/* Once a second. */
void cad_audit_tick(struct cad_audit *audit);
/* The last word; what was left out is said now. */
void cad_audit_fini(struct cad_audit *audit);

#endif
