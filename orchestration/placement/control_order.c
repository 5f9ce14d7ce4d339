/* SPDX-License-Identifier: Apache-2.0 */
/* Orders to nodes, and where they get what they are to load: from a node that holds it, the one
 * that is asked least, if there is one that is known to hold it rightly. */
#include "orchestration/placement/internal.h"

#include "common/base/log.h"

enum { LOADS_OF_AN_ORDER = 32 };
static const uint64_t SHUN_NS = 60 * CAD_NS_PER_S; /* a node that failed as a source is no source for so long */

static bool is_source(const struct pl_control *control, uint32_t slot, uint32_t cell)
{
	const struct pl_node *node = &control->registry.nodes[slot];
	return node->role == PL_ROLE_EXPERT && node->presence == PL_LIVE && node->session &&
		node->exchange_address[0] && pl_reach_usable(control->reach, slot) &&
		pl_control_now(control) >= control->shunned_ns[slot] &&
		pl_rollout_copy(control->rollout, slot, cell) == PL_COPY_READY;
}

/* CAD_PROCESSES_MAX: none. Without a checksum to compare with, a node is no source. */
static uint32_t find_source(const struct pl_control *control, uint32_t target, struct pl_load_order *order,
	const uint32_t asked[CAD_PROCESSES_MAX])
{
	uint32_t best = CAD_PROCESSES_MAX;
	for (uint32_t slot = 0; slot < CAD_PROCESSES_MAX; slot++)
		if (slot != target && is_source(control, slot, order->cell) &&
			(best == CAD_PROCESSES_MAX || asked[slot] < asked[best]))
			best = slot;
	if (best == CAD_PROCESSES_MAX ||
		control->options.events.checksum(control->options.events.context, order->cell, order->checksum) !=
			CAD_OK)
		return CAD_PROCESSES_MAX;
	order->node = control->registry.nodes[best].id;
	order->exchange_address = control->registry.nodes[best].exchange_address;
	return best;
}

void pl_order_load(void *context, uint32_t slot, const uint32_t *cells, uint32_t count)
{
	struct pl_control *control = context;
	struct pl_load_order orders[LOADS_OF_AN_ORDER];
	uint32_t asked[CAD_PROCESSES_MAX], ready = 0;

	control->stats.loads_ordered += count;
	pl_rollout_asked(control->rollout, asked);
	for (uint32_t i = 0; i < count; i++) {
		struct pl_load_order *order = &orders[ready++];
		*order = (struct pl_load_order){ .cell = cells[i] };
		order->bytes_per_second = pl_rollout_rate_of(control->rollout, cells[i]);
		uint32_t source = find_source(control, slot, order, asked);
		pl_rollout_set_source(control->rollout, slot, cells[i], source);
		if (source < CAD_PROCESSES_MAX)
			asked[source]++;
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
	uint32_t source = pl_rollout_source(control->rollout, slot, cell);
	if (source == CAD_PROCESSES_MAX)
		return CAD_OK;
	control->shunned_ns[source] = pl_control_now(control) + SHUN_NS;
	cad_log_warn(PL_COMPONENT, "a node was no good as the source of an expert, and is not used as one for a minute",
		CAD_S("source", control->registry.nodes[source].id), CAD_S("node", control->registry.nodes[slot].id),
		CAD_U("layer", expert.layer), CAD_U("expert", expert.expert), CAD_S("why", why));
	return CAD_OK;
}
