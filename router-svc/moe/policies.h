/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an operator may choose to be done with rows that cannot go where the gate sends them: their
 * expert is full (capacity.h), or no node holds it (absent.h). By default nothing is done: no
 * expert is ever full, and rows wait. Under any other policy than these and RT_ABSENT_FAIL, what a
 * sequence computes depends on more than its tokens: no other may ever use its KV pages. Types and
 * names; every part of router-svc may include this.
 */
#ifndef CADRE_ROUTER_SVC_MOE_POLICIES_H
#define CADRE_ROUTER_SVC_MOE_POLICIES_H

#include <stdint.h>

enum rt_capacity_policy { RT_CAPACITY_NONE, RT_CAPACITY_DROP, RT_CAPACITY_SPILL };
enum rt_absent_policy { RT_ABSENT_WAIT, RT_ABSENT_FAIL, RT_ABSENT_RENORMALISE };

extern const char *const rt_capacity_names[], *const rt_absent_names[]; /* as in options and messages */

struct rt_policies {
	enum rt_capacity_policy capacity;
	float capacity_factor;
	enum rt_absent_policy absent;
};

/* Of one expert of one layer: rows routed there, dropped, spilled away, and those that found nobody
 * who holds it. Any thread may read. */
struct rt_expert_counts {
	_Atomic uint64_t routed, dropped, spilled, absent;
};

enum { RT_POLICIES_BYTES = 48 };
/* Those that may change the bits of an answer, to go behind a fingerprint: "", "/drop:1.25",
 * "/drop:1.25/renormalise". */
void rt_policies_text(const struct rt_policies *policies, char text[RT_POLICIES_BYTES]);

#endif
