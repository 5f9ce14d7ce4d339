/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/placement/faults.h"

#include "common/base/clock.h"
#include "common/base/plural.h"

#include <string.h>

enum { FREE_TIMES = 1, DOUBLINGS = 6, FORGET_MIN = 180 }; /* the second fault costs a minute, the eighth 64 */

static const uint64_t MINUTE_NS = 60 * CAD_NS_PER_S;

/* The place of a node; -1: it has none. */
static int find(const struct pl_faults *faults, const char *id)
{
	for (int i = 0; i < PL_FAULTS_MAX; i++)
		if (faults->at[i].times > 0 && strcmp(faults->at[i].id, id) == 0)
			return i;
	return -1;
}

/* The place of who failed longest ago: a free one, whose time is 0, if there is any. */
static struct pl_fault *place(struct pl_faults *faults)
{
	struct pl_fault *oldest = &faults->at[0];
	for (int i = 1; i < PL_FAULTS_MAX; i++)
		if (faults->at[i].last_ns < oldest->last_ns)
			oldest = &faults->at[i];
	return oldest;
}

void pl_faults_add(struct pl_faults *faults, const struct pl_node *node, uint64_t now_ns)
{
	int found = find(faults, node->id);
	struct pl_fault *fault = found >= 0 ? &faults->at[found] : place(faults);
	bool again =
		found >= 0 && now_ns < fault->last_ns + FORGET_MIN * MINUTE_NS && strcmp(fault->isa, node->isa) == 0;
	uint32_t times = again ? fault->times + 1 : 1;

	*fault = (struct pl_fault){ .last_ns = now_ns, .times = times };
	memcpy(fault->id, node->id, sizeof fault->id);
	memcpy(fault->isa, node->isa, sizeof fault->isa);
}

static uint64_t wait_minutes(uint32_t times)
{
	uint32_t doublings = times - FREE_TIMES - 1;
	return times <= FREE_TIMES ? 0 : 1ull << (doublings < DOUBLINGS ? doublings : DOUBLINGS);
}

enum cad_status pl_faults_check(
	const struct pl_faults *faults, const char *id, const char *isa, uint64_t now_ns, struct cad_error *error)
{
	int found = find(faults, id);
	if (found < 0)
		return CAD_OK;

	const struct pl_fault *fault = &faults->at[found];
	uint64_t minutes = wait_minutes(fault->times);
	if (now_ns >= fault->last_ns + minutes * MINUTE_NS || strcmp(fault->isa, isa) != 0)
		return CAD_OK;
	return cad_error_set(error, CAD_ERR_REFUSED,
		"the device of '%s' has failed %u times: it may join again %llu %s after the last time, or now with --device cpu; see its log and its GPU",
		id, fault->times, (unsigned long long)minutes, cad_plural(minutes, "minute", "minutes"));
}
