/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/placement/rebalance_metrics.h"

static double read_planning(void *context)
{
	return atomic_load(&((struct pl_rebalance_metrics *)context)->planning_seconds);
}

void pl_rebalance_metrics_create(struct pl_rebalance_metrics *made, struct cad_metrics *metrics)
{
	*made = (struct pl_rebalance_metrics){ .moves = NULL };
	if (!metrics)
		return;

	for (enum pl_rebalance_state state = PL_REBALANCE_DONE; state <= PL_REBALANCE_UNDONE; state++)
		made->ended[state] = cad_metrics_counter(metrics, "cadre_placement_rebalances_total",
			"Rebalances that ended, by how; one that is undone later counts twice",
			&(struct cad_label){ "outcome", pl_rebalance_state_name(state) }, 1);
	made->moves = cad_metrics_counter(
		metrics, "cadre_placement_rebalance_moves_total", "Copies of experts that rebalances loaded", NULL, 0);
	made->bytes =
		cad_metrics_counter(metrics, "cadre_placement_rebalance_bytes_total", "Bytes of these copies", NULL, 0);
	made->running = cad_metrics_gauge(
		metrics, "cadre_placement_rebalance_running", "1: a rebalance is planned, running or paused", NULL, 0);
	made->automatic = cad_metrics_gauge(metrics, "cadre_placement_auto", "1: the automatic mode is on", NULL, 0);
	made->looks = cad_metrics_counter(metrics, "cadre_placement_auto_looks_total",
		"How often the automatic mode looked whether experts had better be elsewhere", NULL, 0);
	made->wanted = cad_metrics_counter(metrics, "cadre_placement_auto_moves_total",
		"How often it found that they had, and moved them", NULL, 0);
	cad_metrics_counter_read(metrics, "cadre_placement_planning_seconds_total",
		"Time that was spent searching for plans", NULL, 0, read_planning, made);
}

void pl_rebalance_metrics_update(
	struct pl_rebalance_metrics *made, const struct pl_rebalances *rebalances, const struct pl_auto *automatic)
{
	const struct pl_rebalances_stats *stats = pl_rebalances_stats(rebalances);

	if (!made->moves)
		return;
	for (enum pl_rebalance_state state = PL_REBALANCE_DONE; state <= PL_REBALANCE_UNDONE; state++)
		cad_counter_add(made->ended[state], stats->ended[state] - made->seen.ended[state]);
	cad_counter_add(made->moves, stats->moves - made->seen.moves);
	cad_counter_add(made->bytes, stats->bytes - made->seen.bytes);
	cad_counter_add(made->looks, automatic->looks - made->looks_seen);
	cad_counter_add(made->wanted, automatic->moves - made->wanted_seen);
	cad_gauge_set(made->running, pl_rebalances_busy(rebalances));
	cad_gauge_set(made->automatic, automatic->settings.on);
	atomic_store(&made->planning_seconds, stats->planning_seconds);
	made->seen = *stats;
	made->looks_seen = automatic->looks;
	made->wanted_seen = automatic->moves;
}
