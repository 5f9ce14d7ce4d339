/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A turn of the rollout (orchestration/placement/rollout.h) in milliseconds: what the placement
 * service pays for every report of a process. 64 nodes, 58 layers of 256 experts, two copies of
 * each; routers and nodes do at once what they are told. The scenes:
 *
 *   quiet    every copy is where it should be
 *   moving   a quarter of the experts have one copy that is to go to another node, 4 at a time
 *   leaving  all of those have arrived, and what they replace waits for the grace period
 *   loading  nothing is there, and every node loads, 32 at a time
 *
 * `turn` is of pl_rollout_turn and the reports before it (2048 loads in `loading`), `work` of the
 * count of what is left to do. `least` is a pass that looks at every copy of every expert on every
 * node once; ratio = turn / least. All take turns on one thread; medians over the turns, with the
 * lowest and the highest.
 */
#include "limits.h"
#include "report.h"

#include "common/base/clock.h"
#include "orchestration/placement/rollout.h"

#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NODES = 64, LAYERS = 58, EXPERTS = 256, CELLS = LAYERS * EXPERTS, COPIES = 2, TURNS_MAX = 1001 };
static const uint64_t EXPERT_BYTES = 44 << 20, MEMORY = EXPERT_BYTES * (CELLS * COPIES / NODES + 64),
		      TURN_NS = 10 * CAD_NS_PER_MS;

struct options {
	const char *csv;
	unsigned turns;
};

static const struct argp_option option_table[] = {
	{ "turns", 't', "N", 0,
		"turns of a scene, of which the median is reported (default 201; leaving has 90 at most, loading 10)",
		0 },
	{ "csv", 'c', "DIR", 0, "also write DIR/rollout-MACHINE.csv", 0 },
	{ 0 },
};

static error_t parse_option(int key, char *value, struct argp_state *state)
{
	struct options *o = state->input;
	switch (key) {
	case 't': o->turns = (unsigned)atoi(value); return 0;
	case 'c': o->csv = value; return 0;
	case ARGP_KEY_END:
		if (o->turns < 1 || o->turns > TURNS_MAX)
			argp_error(state, "--turns takes 1 to %d", TURNS_MAX);
		return 0;
	default: return ARGP_ERR_UNKNOWN;
	}
}

static _Noreturn void die(const char *why)
{
	fprintf(stderr, "bench_rollout: %s\n", why);
	exit(1);
}

/* ---- a cluster ---- */

struct order {
	uint32_t slot, cell;
	bool load;
};

struct cluster {
	struct pl_rollout *rollout;
	struct pl_plan *target;
	uint32_t layers[LAYERS], slots[NODES];
	struct order *orders; /* of the last turn */
	size_t orders_count;
	uint64_t now_ns, epoch;
	uint8_t *copies; /* [NODES][CELLS], for `least` */
};

static void note(struct cluster *cluster, uint32_t slot, const uint32_t *cells, uint32_t count, bool load)
{
	for (uint32_t i = 0; i < count; i++)
		cluster->orders[cluster->orders_count++] = (struct order){ slot, cells[i], load };
}
static void on_load(void *cluster, uint32_t slot, const uint32_t *cells, uint32_t count)
{
	note(cluster, slot, cells, count, true);
}
static void on_free(void *cluster, uint32_t slot, const uint32_t *cells, uint32_t count)
{
	note(cluster, slot, cells, count, false);
}
static void on_stalled(void *cluster, uint32_t slot, uint32_t cell)
{
	(void)cluster;
	(void)slot;
	(void)cell;
}

/* The node of a copy; the copies of an expert are on different ones, and a
 * layer is spread over all. */
static uint32_t node_of(uint32_t cell, uint32_t copy)
{
	return (cell + copy * (1 + cell / NODES % (NODES - 1))) % NODES;
}

static void cluster_create(struct cluster *cluster, bool holds, uint32_t moves_max)
{
	*cluster = (struct cluster){ .orders = malloc((size_t)NODES * CELLS * sizeof *cluster->orders),
		.copies = malloc((size_t)NODES * CELLS) };
	for (uint32_t l = 0; l < LAYERS; l++)
		cluster->layers[l] = l;
	const struct pl_rollout_options options = {
		.shape = { cluster->layers, LAYERS, EXPERTS },
		.expert_bytes = EXPERT_BYTES,
		.image_bytes = EXPERT_BYTES,
		.loads_max = 32,
		.moves_max = moves_max,
		.publish_interval_ns = CAD_NS_PER_S,
		.free_grace_ns = CAD_NS_PER_S,
		.retry_ns = CAD_NS_PER_S,
		.stall_ns = 30 * CAD_NS_PER_S,
	};
	if (!cluster->orders || !cluster->copies || pl_rollout_create(&options, &cluster->rollout) != CAD_OK ||
		pl_plan_create(LAYERS, EXPERTS, NODES, &cluster->target) != CAD_OK)
		die("no memory");

	memset(cluster->copies, 1, (size_t)NODES * CELLS);
	for (uint32_t n = 0; n < NODES; n++) {
		static const uint8_t nothing[CELLS];
		cluster->slots[n] = n;
		if (pl_rollout_add(cluster->rollout, n, MEMORY) != CAD_OK)
			die("no memory");
		pl_rollout_join(cluster->rollout, n, nothing);
	}
	for (uint32_t cell = 0; cell < CELLS; cell++)
		for (uint32_t copy = 0; copy < COPIES; copy++) {
			pl_plan_put(cluster->target, cell / EXPERTS, cell % EXPERTS, node_of(cell, copy));
			if (holds)
				pl_rollout_loaded(cluster->rollout, node_of(cell, copy), cell, true, 0);
		}
	pl_rollout_target(cluster->rollout, cluster->target, cluster->slots);
}

static void cluster_destroy(struct cluster *cluster)
{
	pl_rollout_destroy(cluster->rollout);
	pl_plan_free(cluster->target);
	free(cluster->orders);
	free(cluster->copies);
}

/* One copy of every fourth expert is wanted on the next node that has none; every node gets as
 * many. */
static void move_a_quarter(struct cluster *cluster)
{
	for (uint32_t cell = 0; cell < CELLS; cell++) {
		if (cell / NODES % 4 != 0)
			continue;
		uint32_t layer = cell / EXPERTS, expert = cell % EXPERTS, to = node_of(cell, 0);
		pl_plan_take(cluster->target, layer, expert, to);
		for (to++; pl_plan_holds(cluster->target, layer, expert, to % NODES) || to % NODES == node_of(cell, 0);)
			to++;
		pl_plan_put(cluster->target, layer, expert, to % NODES);
	}
	pl_rollout_target(cluster->rollout, cluster->target, cluster->slots);
}

/* What was ordered is done and reported, and all work with the newest map. */
static void turn(struct cluster *cluster)
{
	const struct pl_rollout_orders orders = { on_load, on_free, on_stalled, cluster };
	size_t count = cluster->orders_count;

	cluster->now_ns += TURN_NS;
	for (size_t i = 0; i < count; i++) {
		const struct order *order = &cluster->orders[i];
		if (order->load)
			pl_rollout_loaded(cluster->rollout, order->slot, order->cell, true, cluster->now_ns);
		else
			pl_rollout_freed(cluster->rollout, order->slot, order->cell);
	}
	cluster->orders_count = 0;
	pl_rollout_turn(cluster->rollout, cluster->epoch, cluster->now_ns, &orders);
	if (pl_rollout_publish_due(cluster->rollout, cluster->now_ns))
		pl_rollout_published(cluster->rollout, ++cluster->epoch, cluster->now_ns);
}

/* ---- timing ---- */

static void least(const struct cluster *cluster)
{
	uint32_t all = 0;
	for (size_t i = 0; i < (size_t)NODES * CELLS; i++) {
		all += cluster->copies[i] != 0;
		__asm__ volatile("" : "+r"(all));
	}
}

static double ms_since(uint64_t begin) { return (double)(cad_clock_now_ns(&cad_clock_system) - begin) * 1e-6; }

static void measure(const char *name, struct cluster *cluster, unsigned turns, FILE *csv)
{
	double turn_ms[TURNS_MAX], work_ms[TURNS_MAX], least_ms[TURNS_MAX];
	struct pl_rollout_work work;

	for (unsigned i = 0; i < turns; i++) {
		uint64_t begin = cad_clock_now_ns(&cad_clock_system);
		turn(cluster);
		turn_ms[i] = ms_since(begin);
		begin = cad_clock_now_ns(&cad_clock_system);
		pl_rollout_work(cluster->rollout, &work);
		work_ms[i] = ms_since(begin);
		begin = cad_clock_now_ns(&cad_clock_system);
		least(cluster);
		least_ms[i] = ms_since(begin);
	}

	double middle = report_median(turn_ms, turns), low = turn_ms[0], high = turn_ms[turns - 1],
	       of_work = report_median(work_ms, turns), of_least = report_median(least_ms, turns);
	printf("%-8s %8.2f %8.2f %8.2f %8.2f %8.2f %7.2f %8u %8u %8u\n", name, middle, low, high, of_work, of_least,
		middle / of_least, work.pending, work.loading, work.leaving);
	if (csv)
		fprintf(csv, "%s,%.3f,%.3f,%.3f,%.3f,%.3f,%.2f,%u,%u,%u\n", name, middle, low, high, of_work, of_least,
			middle / of_least, work.pending, work.loading, work.leaving);
}

int main(int argc, char **argv)
{
	struct options o = { .turns = 201 };
	const struct argp argp = { option_table, parse_option, NULL,
		"Milliseconds that the placement service takes to look after every copy of every expert.", NULL, NULL,
		NULL };
	static struct cluster cluster;
	char machine[64];

	argp_parse(&argp, argc, argv, 0, NULL, &o);
	FILE *csv = o.csv
		? report_open(o.csv, "rollout", "scene,turn_ms,low,high,work_ms,least_ms,ratio,pending,loading,leaving")
		: NULL;
	if (o.csv && !csv)
		return 1;
	printf("%s\nscene     turn ms      low     high     work    least   ratio  pending  loading  leaving\n",
		limit_machine(machine));

	cluster_create(&cluster, true, 4);
	measure("quiet", &cluster, o.turns, csv);
	move_a_quarter(&cluster);
	measure("moving", &cluster, o.turns, csv);
	cluster_destroy(&cluster);

	cluster_create(&cluster, true, UINT32_MAX);
	move_a_quarter(&cluster);
	for (int i = 0; i < 8; i++)
		turn(&cluster);
	measure("leaving", &cluster, o.turns < 90 ? o.turns : 90, csv);
	cluster_destroy(&cluster);

	cluster_create(&cluster, false, 4);
	measure("loading", &cluster, 10, csv);
	cluster_destroy(&cluster);
	return report_close(csv) ? 0 : 1;
}
