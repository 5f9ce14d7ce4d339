/* SPDX-License-Identifier: Apache-2.0 */
/* Orders to nodes, and where they get what they are to load: from a node that holds it, the one that
 * is asked least, if there is one that is known to hold it rightly. */
#include "orchestration/placement/internal.h"

#include "common/base/log.h"

#include <stdlib.h>

enum { LOADS_OF_AN_ORDER = 32 };
static const uint64_t SHUN_NS = 60 * CAD_NS_PER_S; /* a node that failed as a source is no source for so long */

/* How much each node is asked for now. Loads that are over are forgotten here. */
static void count_asked(struct pl_control *control, uint32_t asked[CAD_PROCESSES_MAX])
{
	size_t left = 0;
	for (uint32_t slot = 0; slot < CAD_PROCESSES_MAX; slot++)
		asked[slot] = 0;
	for (size_t i = 0; i < control->asked_count; i++) {
		struct pl_asked one = control->asked[i];
		if (pl_rollout_copy(control->rollout, one.target, one.cell) != PL_COPY_LOADING)
			continue;
		asked[one.source]++;
		control->asked[left++] = one;
	}
	control->asked_count = left;
}

static bool is_source(const struct pl_control *control, uint32_t slot, uint32_t cell)
{
	const struct pl_node *node = &control->registry.nodes[slot];
	return node->role == PL_ROLE_EXPERT && node->presence == PL_LIVE && node->session &&
		node->exchange_address[0] && pl_reach_usable(control->reach, slot) &&
		pl_control_now(control) >= control->shunned_ns[slot] &&
		pl_rollout_copy(control->rollout, slot, cell) == PL_COPY_READY;
}

static void remember(struct pl_control *control, struct pl_asked asked)
{
	if (control->asked_count == control->asked_capacity) {
		size_t capacity = control->asked_capacity ? 2 * control->asked_capacity : 64;
		struct pl_asked *grown = realloc(control->asked, capacity * sizeof *grown);
		if (!grown)
			return; /* it is not counted, which is all */
		control->asked = grown;
		control->asked_capacity = capacity;
	}
	control->asked[control->asked_count++] = asked;
}

/* Without a checksum to compare with, a node is no source. */
static void find_source(
	struct pl_control *control, uint32_t target, struct pl_load_order *order, uint32_t asked[CAD_PROCESSES_MAX])
{
	uint32_t best = CAD_PROCESSES_MAX;
	for (uint32_t slot = 0; slot < CAD_PROCESSES_MAX; slot++)
		if (slot != target && is_source(control, slot, order->cell) &&
			(best == CAD_PROCESSES_MAX || asked[slot] < asked[best]))
			best = slot;
	if (best == CAD_PROCESSES_MAX ||
		control->options.events.checksum(control->options.events.context, order->cell, order->checksum) !=
			CAD_OK)
		return;
	order->node = control->registry.nodes[best].id;
	order->exchange_address = control->registry.nodes[best].exchange_address;
	asked[best]++;
	remember(control, (struct pl_asked){ target, order->cell, best });
}

void pl_order_load(void *context, uint32_t slot, const uint32_t *cells, uint32_t count)
{
	struct pl_control *control = context;
	struct pl_load_order orders[LOADS_OF_AN_ORDER];
	uint32_t asked[CAD_PROCESSES_MAX], ready = 0;

	control->stats.loads_ordered += count;
	count_asked(control, asked);
	for (uint32_t i = 0; i < count; i++) {
		struct pl_load_order *order = &orders[ready++];
		*order = (struct pl_load_order){ .cell = cells[i] };
		order->bytes_per_second = pl_rollout_rate_of(control->rollout, cells[i]);
		find_source(control, slot, order, asked);
		if (ready < LOADS_OF_AN_ORDER && i + 1 < count)
			continue;
		control->options.events.load(
			control->options.events.context, control->registry.nodes[slot].session, orders, ready);
		ready = 0;
	}
}

void pl_order_free(void *context, uint32_t slot, const uint32_t *cells, uint32_t count)
{
	struct pl_control *control = context;
	control->stats.frees_ordered += count;
	control->options.events.free(
		control->options.events.context, control->registry.nodes[slot].session, cells, count);
}

enum cad_status pl_control_passed_over(
	struct pl_control *control, uint64_t session, struct pl_expert expert, const char *why, struct cad_error *error)
{
	uint32_t slot, cell;
	enum cad_status status = pl_control_find_report(control, session, expert, &slot, &cell, error);
	if (status != CAD_OK)
		return status == CAD_AGAIN ? CAD_OK : status;

	control->stats.sources_failed++;
	for (size_t i = 0; i < control->asked_count; i++) {
		const struct pl_asked *one = &control->asked[i];
		if (one->target != slot || one->cell != cell)
			continue;
		control->shunned_ns[one->source] = pl_control_now(control) + SHUN_NS;
		cad_log_warn(PL_COMPONENT,
			"a node was no good as the source of an expert, and is not used as one for a minute",
			CAD_S("source", control->registry.nodes[one->source].id),
			CAD_S("node", control->registry.nodes[slot].id), CAD_U("layer", expert.layer),
			CAD_U("expert", expert.expert), CAD_S("why", why));
		break;
	}
	return CAD_OK;
}
