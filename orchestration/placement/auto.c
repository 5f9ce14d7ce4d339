/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/placement/auto.h"

#include "common/base/log.h"
#include "common/base/plural.h"
#include "orchestration/placement/internal.h"
#include "orchestration/planner/trace/reservoir.h"

#include <math.h>
#include <stdio.h>

/* standard errors that a gain must be above 0; the time in which a move must be won back */
static const double ERRORS_MIN = 2, WON_BACK_S = 3600;
/* of moves in the planner's objective, ten times that of an operator's plan: who moves a tenth of a
 * layer's experts must save 0.02 nodes per token there, or what load costs as much */
static const double MOVE_WEIGHT = 0.2;
#define PL_AUTO_TIME_LIMIT_NS (5 * CAD_NS_PER_S)

void pl_auto_init(struct pl_auto *automatic)
{
	automatic->settings = (struct pl_auto_settings){
		.every_ns = 600 * CAD_NS_PER_S,
		.gain_min = 0.03,
		.bytes_per_hour = 20ull << 30,
	};
	(void)pl_rebalance_table_get_auto(automatic->table, &automatic->settings);
	automatic->next_ns = cad_clock_now_ns(automatic->clock) + automatic->settings.every_ns;
	automatic->last_ns = automatic->looks = automatic->moves = 0;
	automatic->tokens_before = automatic->tokens(automatic->context);
	automatic->last[0] = 0;
}

void pl_auto_set(struct pl_auto *automatic, const struct pl_auto_settings *settings)
{
	struct pl_auto_settings *now = &automatic->settings;

	now->on = settings->on;
	now->every_ns = settings->every_ns ? settings->every_ns : now->every_ns;
	now->gain_min = settings->gain_min > 0 ? settings->gain_min : now->gain_min;
	now->bytes_per_hour = settings->bytes_per_hour ? settings->bytes_per_hour : now->bytes_per_hour;
	automatic->next_ns = cad_clock_now_ns(automatic->clock) + now->every_ns;
	pl_rebalance_table_put_auto(automatic->table, now);
}

/* Why nothing was moved: the same again is one entry of the history. */
static void decline(struct pl_auto *automatic, const char *why)
{
	snprintf(automatic->last, sizeof automatic->last, "nothing moved: %s", why);
	const struct pl_history_entry entry = {
		.who = PL_HISTORY_SERVICE,
		.what = "auto",
		.why = why,
		.outcome = "nothing moved",
	};
	pl_history_add(automatic->history, &entry);
	cad_log_info(PL_COMPONENT, "the automatic mode moves nothing", CAD_S("why", why));
}

/* "": the plan is wanted. Numbers are rounded, so that the same reason is the same text. */
static void why_not(
	struct pl_auto *automatic, const struct pl_planning_result *result, char why[PL_REBALANCE_TEXT_BYTES])
{
	const struct pl_auto_settings *settings = &automatic->settings;
	uint64_t moved = pl_rebalances_auto_bytes(automatic->rebalances), bytes = result->moves.bytes;
	double saves = result->gain * automatic->bytes_per_second(automatic->context) * WON_BACK_S;

	why[0] = 0;
	if (result->status != CAD_OK)
		snprintf(why, PL_REBALANCE_TEXT_BYTES, "%s", result->error.text);
	else if (!settings->on)
		snprintf(why, PL_REBALANCE_TEXT_BYTES, "it was turned off while the plan was made");
	else if (result->moves.loads == 0)
		snprintf(why, PL_REBALANCE_TEXT_BYTES, "no placement was found that is worth its moves");
	else if (!(result->gain > settings->gain_min))
		snprintf(why, PL_REBALANCE_TEXT_BYTES,
			"the gain that is predicted is %.0f %%, and more than %.4g %% is wanted",
			fmax(0, floor(100 * result->gain)), 100 * settings->gain_min);
	else if (!(result->gain > ERRORS_MIN * result->gain_error))
		snprintf(why, PL_REBALANCE_TEXT_BYTES,
			"the gain that is predicted is within what chance does on so few tokens");
	else if (bytes > settings->bytes_per_hour || moved > settings->bytes_per_hour - bytes)
		snprintf(why, PL_REBALANCE_TEXT_BYTES,
			"the moves would exceed the %.4g GiB that may be moved within an hour",
			(double)settings->bytes_per_hour / (1 << 30));
	else if (!(saves > (double)bytes))
		snprintf(why, PL_REBALANCE_TEXT_BYTES,
			"the moves would cost more bytes than an hour of this traffic saves");
}

bool pl_auto_judge(
	struct pl_auto *automatic, const struct pl_planning_result *result, char reason[PL_REBALANCE_TEXT_BYTES])
{
	char why[PL_REBALANCE_TEXT_BYTES];

	why_not(automatic, result, why);
	if (why[0]) {
		decline(automatic, why);
		return false;
	}

	automatic->moves++;
	snprintf(reason, PL_REBALANCE_TEXT_BYTES, "a gain of %.1f %% is predicted (standard error %.1f)",
		100 * result->gain, 100 * result->gain_error);
	snprintf(automatic->last, sizeof automatic->last, "moved %llu %s: %s", (unsigned long long)result->moves.loads,
		cad_plural(result->moves.loads, "copy", "copies"), reason);
	return true;
}

static void look(struct pl_auto *automatic)
{
	struct pl_wish wish = {
		.kind = PL_REBALANCE_AUTO,
		.who = PL_HISTORY_SERVICE,
		.reason = "",
		.workload = PL_WORKLOAD_MIXED,
		.copies = -1,
		.move = MOVE_WEIGHT,
		.time_limit_ns = PL_AUTO_TIME_LIMIT_NS,
	};
	struct cad_error error;
	uint64_t id;
	char why[PL_REBALANCE_TEXT_BYTES];

	automatic->looks++;
	automatic->last_ns = cad_clock_now_ns(automatic->clock);
	if (pl_rebalances_current(automatic->rebalances)) {
		decline(automatic, "another rebalance is under way, or is being measured");
	} else if (automatic->tokens(automatic->context) < automatic->tokens_before + PL_RESERVOIR_TOKENS_MIN) {
		snprintf(why, sizeof why,
			"fewer than %d tokens were sampled since experts moved last, or since the service started",
			PL_RESERVOIR_TOKENS_MIN);
		decline(automatic, why);
	} else if (pl_rebalances_start(automatic->rebalances, &wish, &id, &error) != CAD_OK) {
		decline(automatic, error.text);
	}
}

uint64_t pl_auto_turn(struct pl_auto *automatic)
{
	uint64_t now = cad_clock_now_ns(automatic->clock);
	const struct pl_rebalance *current = pl_rebalances_current(automatic->rebalances);

	if (current && (current->state == PL_REBALANCE_RUNNING || current->state == PL_REBALANCE_PAUSED))
		automatic->tokens_before = automatic->tokens(automatic->context);
	if (!automatic->settings.on)
		return UINT64_MAX;
	if (now >= automatic->next_ns) {
		automatic->next_ns = now + automatic->settings.every_ns;
		look(automatic);
	}
	return automatic->next_ns;
}
