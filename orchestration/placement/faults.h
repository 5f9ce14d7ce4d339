/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nodes whose devices have failed. A process that its supervisor starts again comes back at once,
 * and often all is well: some errors end with the process. One whose device fails again and again
 * would be given experts, and lose them, each time; so from its second failure on it waits, longer
 * each time, before it may join again. With another device (cadre-expert --device cpu) it may at
 * once.
 *
 * Plain data; the caller gives times. Of too many nodes the one that failed longest ago is
 * forgotten, as every node is after a while.
 */
#ifndef CADRE_ORCHESTRATION_PLACEMENT_FAULTS_H
#define CADRE_ORCHESTRATION_PLACEMENT_FAULTS_H

#include "orchestration/placement/registry.h"

enum { PL_FAULTS_MAX = 64 };

struct pl_faults {
	struct pl_fault {
		char id[CAD_MAP_ID_BYTES], isa[PL_TEXT_BYTES];
		uint64_t last_ns;
		uint32_t times; /* 0: a free place */
	} at[PL_FAULTS_MAX];
};

/* The device of a node has failed. */
void pl_faults_add(struct pl_faults *faults, const struct pl_node *node, uint64_t now_ns);
/* CAD_ERR_REFUSED and a sentence: a node of this name with such a device has to wait. */
CAD_MUST_USE enum cad_status pl_faults_check(
	const struct pl_faults *faults, const char *id, const char *isa, uint64_t now_ns, struct cad_error *error);

#endif
