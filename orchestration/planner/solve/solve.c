/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/planner/solve/solve.h"

#include "orchestration/planner/solve/improve.h"
#include "orchestration/planner/solve/pull.h"
#include "orchestration/planner/solve/start.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	THREADS_MAX = 64,
	STAGES = 5,
	KICK_STAGE = 3,
	KICK_RUNS = 4,
	KICKS_MAX = 3,
	POLISHES = 4,
	COARSE_TOKENS = 4096,
	KICK_TOKENS = 8192
};
#define DOUBT_TOKENS 2500.0 /* with so few, a change must gain a standard deviation of chance; with more, less */
#define STAGE_FACTOR 3.0    /* of the weight of load, from one stage to the next */

enum start { START_CONTIGUOUS, START_SPECTRAL, START_PRESENT, START_GROUPS, START_METIS, START_EVEN, STARTS };
static const char *const start_names[STARTS] = { "contiguous", "spectral", "present", "groups", "metis", "even" };

/*
 * A round is one step of this list, then kicks without end.
 *
 * begin:  the start as it is, the rest of the room filled with copies of the hottest experts.
 * polish: a short search from the best so far, for those with little time.
 * coarse: the start improved on a part of the tokens, with little weight on load at first, then
 *         with more and more: experts that belong together find each other that way, while at full
 *         weight no way leads past placements that are uneven for a moment.
 * fine:   what came of that, improved on all tokens.
 */
enum work { WORK_BEGIN, WORK_POLISH, WORK_COARSE, WORK_FINE, WORK_KICK };
struct step {
	enum work work;
	enum start start;
};

struct layer_state {
	uint64_t *best, *work; /* [experts][words] */
	double best_value;
	double ends, ends_count; /* values at which starts ended, summed up */
	enum start best_start;
	bool any;     /* `best` is something */
	bool working; /* `work` is something: its start was possible */
};

struct solver {
	const struct pl_solve_options *options;
	struct pl_sample *sample;
	struct pl_plan *best, *work;
	/* what was best before the round, for neighbouring layers; NULL: not needed */
	struct pl_plan *last;
	struct pl_plan *kept; /* what was best before the round, should it come to nothing */
	struct layer_state *layers, *layers_kept;
	uint64_t deadline;
	atomic_bool late; /* the round could not be ended in time */
	struct step steps[3 * STARTS + POLISHES];
	uint32_t steps_count, round;
	uint32_t step; /* from one layer of a pass to the next */
	atomic_uint next;
	pthread_mutex_t lock; /* of status and error */
	enum cad_status status;
	struct cad_error *error;
};

/* One layer being worked on by one thread. */
struct workshop {
	struct solver *solver;
	uint32_t index;
	struct layer_state *state;
	uint32_t stride;           /* every so many-th token is looked at */
	struct pl_weights weights; /* of the stage */
	struct pl_layer layer;
	struct pl_site site;
	struct pl_search search;
	struct pl_improve improve;
	struct cad_random random;
};

static void workshop_fini(struct workshop *w)
{
	pl_improve_fini(&w->improve);
	pl_search_fini(&w->search);
	pl_site_fini(&w->site);
	pl_layer_fini(&w->layer);
}

static enum cad_status fill_pull(struct workshop *w)
{
	const struct pl_solve_options *options = w->solver->options;
	bool moves = options->present && w->weights.move > 0, follows = w->solver->last && w->state->any;

	if (!moves && !follows && w->weights.active <= 0)
		return CAD_OK;

	w->site.pull = calloc((size_t)w->site.experts * w->site.nodes, sizeof *w->site.pull);
	if (!w->site.pull)
		return CAD_ERR_MEMORY;
	if (w->weights.active > 0)
		pl_pull_by_copies(&w->site, &w->layer);
	if (moves)
		pl_pull_to_plan(&w->site, options->present, w->index, 1);
	if (moves && options->recent)
		pl_pull_to_plan(&w->site, options->recent, w->index, -PL_RETURN_MOVES);
	if (follows && w->index > 0) /* the search's replicas are borrowed: whatever begins next fills them again */
		pl_pull_to_neighbour(
			&w->site, &w->layer, w->stride, w->solver->last, w->index - 1, &w->search.replicas);
	if (follows && w->index + 1 < options->trace->layers)
		pl_pull_to_neighbour(
			&w->site, &w->layer, w->stride, w->solver->last, w->index + 1, &w->search.replicas);

	return CAD_OK;
}

static enum cad_status workshop_init(
	struct workshop *w, struct solver *solver, uint32_t index, uint32_t tokens, struct cad_error *error)
{
	const struct pl_solve_options *options = solver->options;
	uint32_t experts = options->trace->experts, copies = options->copies > experts ? options->copies : experts;
	struct cad_random mix = { options->seed ^ (uint64_t)index << 32 ^ (uint64_t)solver->round << 48 };

	*w = (struct workshop){
		.solver = solver,
		.index = index,
		.state = &solver->layers[index],
		.weights = options->weights,
	};
	w->random.state = cad_random_next(&mix) + solver->round;
	w->stride = tokens && solver->sample->tokens > tokens ? solver->sample->tokens / tokens | 1 : 1;
	const struct pl_site_layer of = { options->trace->layers, index, experts, copies,
		options->trace->layer[index] };
	enum cad_status status = pl_site_init(&w->site, options->cluster, &w->weights, of, error);
	if (status != CAD_OK)
		return status;
	status = pl_layer_init(&w->layer, solver->sample, index, w->stride);
	if (status == CAD_OK)
		status = pl_search_init(&w->search, &w->layer, &w->site);
	if (status == CAD_OK)
		status = pl_improve_init(&w->improve, &w->site);
	if (status == CAD_OK)
		status = fill_pull(w);
	if (status != CAD_OK) {
		workshop_fini(w);
		return cad_error_set(error, status, "out of memory for layer %u: give a smaller --tokens-max", index);
	}

	return CAD_OK;
}

/* ---- starts ---- */

static enum cad_status label(struct workshop *w, enum start start, const uint32_t *parts, uint32_t *labels)
{
	struct pl_pairs pairs;
	uint32_t nodes = w->site.nodes;

	if (start == START_CONTIGUOUS) {
		pl_start_contiguous(w->site.experts, nodes, parts, labels);
		return CAD_OK;
	}

	enum cad_status status = pl_pairs_init(&pairs, &w->layer);
	if (status != CAD_OK)
		return status;

	if (start == START_SPECTRAL)
		status = pl_start_spectral(&pairs, nodes, parts, w->random, labels);
	else if (start == START_GROUPS)
		status = pl_start_groups(&pairs, nodes, parts, labels);
	else
		status = pl_start_metis(&pairs, nodes, parts, w->random.state, labels);
	pl_pairs_fini(&pairs);
	return status;
}

/* The present placement, without copies that no longer fit or are no longer allowed; experts that
 * lose their last one are placed again. */
static enum cad_status begin_present(struct workshop *w, uint32_t *labels, struct cad_error *error)
{
	const struct pl_plan *present = w->solver->options->present;
	struct pl_search *search = &w->search;

	for (uint32_t e = 0; e < w->site.experts; e++) {
		labels[e] = PL_CLUSTER_ANY;
		for (uint32_t n = w->site.nodes; n-- > 0;)
			if (pl_plan_holds(present, w->index, e, n))
				labels[e] = n;
	}

	enum cad_status status = pl_site_settle(&w->site, labels, &search->replicas, error);
	if (status != CAD_OK)
		return status;
	pl_search_reset(search);

	for (uint32_t e = 0; e < w->site.experts; e++)
		for (uint32_t n = 0; n < w->site.nodes && search->copies < w->site.copies_max; n++)
			if (pl_plan_holds(present, w->index, e, n) && search->used[n] < w->site.slots[n] &&
				pl_site_allows(&w->site, &search->replicas, e, n, PL_CLUSTER_ANY)) {
				pl_replicas_add(&search->replicas, e, n);
				search->used[n]++;
				search->copies++;
			}
	return CAD_OK;
}

/* Which group goes to which of the nodes that take equally many: to the one that its experts are
 * drawn to. */
static enum cad_status align(const struct workshop *w, const uint32_t *parts, uint32_t *labels)
{
	uint32_t N = w->site.nodes, E = w->site.experts, ones[CAD_NODES_MAX], to[CAD_NODES_MAX];
	if (!w->site.pull)
		return CAD_OK;

	for (uint32_t n = 0; n < N; n++) {
		ones[n] = 1;
		if (parts[n] != parts[0])
			return CAD_OK;
	}

	float *score = calloc((size_t)N * N, sizeof *score);
	if (!score)
		return CAD_ERR_MEMORY;
	for (uint32_t e = 0; e < E; e++)
		for (uint32_t n = 0; n < N; n++)
			score[(size_t)labels[e] * N + n] += w->site.pull[(size_t)e * N + n];
	enum cad_status status = pl_start_balance(score, N, N, ones, to);
	for (uint32_t e = 0; status == CAD_OK && e < E; e++)
		labels[e] = to[labels[e]];
	free(score);

	return status;
}

/* CAD_ERR_UNSUPPORTED: there is no such start here. */
static enum cad_status begin(struct workshop *w, enum start start, struct cad_error *error)
{
	if (start == START_EVEN)
		return pl_start_even(&w->site, &w->layer, &w->search.replicas, error);

	uint32_t *labels = malloc((w->site.experts + w->site.nodes) * sizeof *labels);
	if (!labels)
		return cad_error_set(error, CAD_ERR_MEMORY, "out of memory for %u experts", w->site.experts);
	uint32_t *parts = labels + w->site.experts;
	enum cad_status status;
	if (start == START_PRESENT) {
		status = begin_present(w, labels, error);
	} else {
		pl_start_parts(&w->site, parts);
		status = label(w, start, parts, labels);
		if (status == CAD_OK && start != START_CONTIGUOUS)
			status = align(w, parts, labels);
		if (status == CAD_OK && !w->site.plain)
			status = pl_start_arrange(&w->site, &w->layer, w->random, labels);
		if (status == CAD_OK)
			status = pl_site_settle(&w->site, labels, &w->search.replicas, error);
		else if (status != CAD_ERR_UNSUPPORTED)
			status = cad_error_set(error, status, "layer %u: the start '%s' failed: %s", w->index,
				start_names[start], cad_status_text(status));
	}

	free(labels);
	return status;
}

/* ---- a round ---- */

/* Sets the weight of load for a stage; covers all tokens again. */
static void set_stage(struct workshop *w, uint32_t stage)
{
	w->weights.load = w->solver->options->weights.load;
	for (; stage + 1 < STAGES; stage++)
		w->weights.load /= STAGE_FACTOR;
	pl_search_reset(&w->search);
}

static void load(struct workshop *w, const uint64_t *bits)
{
	struct pl_plan view = {
		.layers = 1,
		.experts = w->site.experts,
		.nodes = w->site.nodes,
		.words = w->site.words,
		.bits = (uint64_t *)bits,
	};
	pl_replicas_load(&w->search.replicas, &view, 0);
}

static void store(const struct workshop *w, uint64_t *bits)
{
	struct pl_plan view = {
		.layers = 1,
		.experts = w->site.experts,
		.nodes = w->site.nodes,
		.words = w->site.words,
		.bits = bits,
	};
	pl_replicas_store(&w->search.replicas, &view, 0);
}

/* What it is worth; the best so far is kept. All tokens, full weight. `ended`: a start was improved
 * as far as it goes. */
static void judge(struct workshop *w, enum start start, bool ended)
{
	struct layer_state *state = w->state;
	set_stage(w, STAGES - 1);

	if (w->solver->last && state->any) { /* the neighbours have moved on: what was best must be weighed again */
		double value = w->search.value;
		uint64_t *made = state->work;
		store(w, made);
		load(w, state->best);
		pl_search_reset(&w->search);
		state->best_value = w->search.value;
		load(w, made);
		w->search.value = value;
	}

	if (ended) {
		state->ends += w->search.value;
		state->ends_count++;
	}

	if (state->any && w->search.value >= state->best_value)
		return;
	state->best_value = w->search.value;
	state->best_start = start;
	state->any = true;
	store(w, state->best);
}

/* Changes tried in a search, per existing copy. */
enum { TRIES = 4 };

/* From one stage to another; what room is left is filled when the stage `fill` is reached. */
static void climb(struct workshop *w, uint32_t from, uint32_t to, uint32_t fill, bool hottest)
{
	/* the last word is spoken on all tokens */
	double doubt = w->layer.tokens == w->solver->sample->tokens ? DOUBT_TOKENS / w->layer.tokens : 0;
	for (uint32_t stage = from; stage <= to; stage++) {
		if (stage == fill && hottest)
			pl_improve_fill_hottest(&w->search);
		set_stage(w, stage);
		if (stage >= fill && !hottest)
			pl_improve_fill(&w->improve, &w->search);
		pl_improve_polish(&w->improve, &w->search, TRIES * w->site.copies_max, doubt < 1 ? doubt : 1);
	}
}

/* Three ways to choose copies; the best continues: the hottest experts first, then polish; polish
 * without copies, then the hottest; copies by what they save, as early as possible. */
static enum cad_status run_coarse(struct workshop *w, enum start start, struct cad_error *error)
{
	static const struct {
		uint32_t from, fill;
		bool hottest;
	} ways[] = { { STAGES - 1, STAGES - 1, true }, { 0, 2, true }, { 0, 1, false } };
	struct layer_state *state = w->state;
	enum cad_status status = begin(w, start, error);

	state->working = status == CAD_OK;
	if (status != CAD_OK)
		return status == CAD_ERR_UNSUPPORTED ? CAD_OK : status;
	uint64_t *begun = malloc((size_t)w->site.experts * w->site.words * sizeof *begun);
	if (!begun)
		return cad_error_set(error, CAD_ERR_MEMORY, "out of memory for %u experts", w->site.experts);
	store(w, begun);
	double best = 0;
	bool room = w->site.copies_max > w->site.experts && start != START_EVEN;
	for (uint32_t i = 0; i < (room ? 3 : 2); i++) {
		load(w, begun);
		climb(w, ways[i].from, STAGES - 1, ways[i].fill, ways[i].hottest);
		if (i > 0 && w->search.value >= best)
			continue;
		best = w->search.value;
		store(w, state->work);
	}

	free(begun);
	return CAD_OK;
}

/* Two random seats on different nodes change places, where rules allow. */
static void kick(struct workshop *w)
{
	struct pl_search *search = &w->search;
	const struct pl_site *site = &w->site;
	for (uint32_t tries = 0; tries < 64; tries++) {
		uint32_t a = (uint32_t)cad_random_below(&w->random, site->experts),
			 b = (uint32_t)cad_random_below(&w->random, site->experts);
		uint32_t from_a =
			search->replicas.of[a].nodes[cad_random_below(&w->random, search->replicas.of[a].count)];
		uint32_t from_b =
			search->replicas.of[b].nodes[cad_random_below(&w->random, search->replicas.of[b].count)];
		if (a == b || from_a == from_b || pl_site_pinned(site, a, from_a) || pl_site_pinned(site, b, from_b) ||
			!pl_site_allows(site, &search->replicas, a, from_b, from_a) ||
			!pl_site_allows(site, &search->replicas, b, from_a, from_b))
			continue;
		const struct pl_change changes[] = { { a, from_a, false }, { a, from_b, true }, { b, from_b, false },
			{ b, from_a, true } };
		(void)pl_search_try(search, changes, 4);
		return;
	}
}

/* Disturbed at random and improved again, a few times; what is best on these tokens is the work of
 * the fine round. */
static void run_kicks(struct workshop *w)
{
	load(w, w->state->best);
	store(w, w->state->work);
	set_stage(w, STAGES - 1);
	double best = w->search.value;
	for (uint32_t i = 0; i < KICK_RUNS; i++) {
		uint32_t kicks = 1 + (uint32_t)cad_random_below(&w->random, KICKS_MAX);
		load(w, w->state->work);
		set_stage(w, KICK_STAGE);
		for (uint32_t n = 0; n < kicks; n++)
			kick(w);
		climb(w, KICK_STAGE, STAGES - 1, KICK_STAGE, false);
		if (w->search.value >= best)
			continue;
		best = w->search.value;
		store(w, w->state->work);
	}

	w->state->working = true;
}

static enum cad_status run_begin(struct workshop *w, enum start start, struct cad_error *error)
{
	enum cad_status status = begin(w, start, error);
	if (status != CAD_OK)
		return status == CAD_ERR_UNSUPPORTED ? CAD_OK : status;
	pl_improve_fill_hottest(&w->search);
	judge(w, start, false);
	return CAD_OK;
}

static void run_polish(struct workshop *w)
{
	load(w, w->state->best);
	set_stage(w, STAGES - 1);
	pl_improve_polish(&w->improve, &w->search, w->site.copies_max / 2, 0);
	judge(w, w->state->best_start, false);
}

static void run_fine(struct workshop *w, enum start start, bool ended)
{
	if (!w->state->working)
		return;
	load(w, w->state->work);
	climb(w, STAGES - 1, STAGES - 1, STAGES - 1, false);
	judge(w, start, ended);
}

static enum cad_status run_step(struct solver *solver, uint32_t index, struct step step, struct cad_error *error)
{
	static const uint32_t tokens[] = { [WORK_COARSE] = COARSE_TOKENS, [WORK_KICK] = KICK_TOKENS, [WORK_FINE] = 0 };
	struct workshop w;
	enum cad_status status = workshop_init(&w, solver, index, tokens[step.work], error);

	if (status != CAD_OK)
		return status;

	switch (step.work) {
	case WORK_BEGIN: status = run_begin(&w, step.start, error); break;
	case WORK_POLISH: run_polish(&w); break;
	case WORK_COARSE: status = run_coarse(&w, step.start, error); break;
	case WORK_KICK: run_kicks(&w); break;
	case WORK_FINE: run_fine(&w, step.start, solver->round < solver->steps_count); break;
	}
	workshop_fini(&w);

	return status;
}

static enum cad_status run_layer(struct solver *solver, uint32_t index, struct cad_error *error)
{
	if (solver->round < solver->steps_count)
		return run_step(solver, index, solver->steps[solver->round], error);
	enum start start = solver->layers[index].best_start;
	enum cad_status status = run_step(solver, index, (struct step){ WORK_KICK, start }, error);
	return status == CAD_OK ? run_step(solver, index, (struct step){ WORK_FINE, start }, error) : status;
}

static bool is_cancelled(const struct solver *solver)
{
	return solver->options->cancelled && atomic_load(solver->options->cancelled);
}

static void *run(void *context)
{
	struct solver *solver = context;
	struct cad_error error;

	for (uint32_t l; (l = atomic_fetch_add(&solver->next, solver->step)) < solver->options->trace->layers;) {
		if (is_cancelled(solver) ||
			(solver->round > 0 && cad_clock_now_ns(solver->options->clock) > solver->deadline)) {
			atomic_store(&solver->late, true);
			break;
		}
		enum cad_status status = run_layer(solver, l, &error);
		if (status == CAD_OK)
			continue;
		pthread_mutex_lock(&solver->lock);
		if (solver->status == CAD_OK) {
			solver->status = status;
			if (solver->error)
				*solver->error = error;
		}
		pthread_mutex_unlock(&solver->lock);
	}

	return NULL;
}

/* Every step-th layer from `first` on. */
static void run_layers(struct solver *solver, uint32_t first, uint32_t step)
{
	pthread_t thread[THREADS_MAX];
	uint32_t threads =
			 solver->options->threads ? solver->options->threads : (uint32_t)sysconf(_SC_NPROCESSORS_ONLN),
		 started = 0;

	solver->step = step;
	atomic_store(&solver->next, first);
	while (started + 1 < threads && started < THREADS_MAX &&
		first + (started + 1) * step < solver->options->trace->layers &&
		pthread_create(&thread[started], NULL, run, solver) == 0)
		started++;
	run(solver);
	for (uint32_t i = 0; i < started; i++)
		pthread_join(thread[i], NULL);
}

static void run_round(struct solver *solver)
{
	const struct pl_plan *best = solver->best;
	if (!solver->last) {
		run_layers(solver, 0, 1);
		return;
	}
	/* neighbours take turns: both at once would each go where the other was */
	for (uint32_t first = 0; first < 2; first++) {
		memcpy(solver->last->bits, best->bits,
			(size_t)best->layers * best->experts * best->words * sizeof *best->bits);
		run_layers(solver, first, 2);
	}
}

/* ---- all of it ---- */

static void list_steps(struct solver *solver)
{
	static const enum start order[] = { START_SPECTRAL, START_CONTIGUOUS, START_PRESENT, START_GROUPS, START_EVEN,
		START_METIS };
	struct step *steps = solver->steps;
	uint32_t count = 0;

	steps[count++] = (struct step){ WORK_BEGIN, START_CONTIGUOUS };
	if (solver->options->present)
		steps[count++] = (struct step){ WORK_BEGIN, START_PRESENT };
	steps[count++] = (struct step){ WORK_BEGIN, START_EVEN };
	steps[count++] = (struct step){ WORK_BEGIN, START_SPECTRAL };
	for (uint32_t i = 0; i < POLISHES; i++)
		steps[count++] = (struct step){ .work = WORK_POLISH };
	for (uint32_t i = 0; i < sizeof order / sizeof *order; i++) {
		if (order[i] == START_PRESENT && !solver->options->present)
			continue;
		steps[count++] = (struct step){ WORK_COARSE, order[i] };
		steps[count++] = (struct step){ WORK_FINE, order[i] };
	}

	solver->steps_count = count;
}

static double mean_value(const struct solver *solver)
{
	double sum = 0;
	for (uint32_t l = 0; l < solver->options->trace->layers; l++)
		sum += solver->layers[l].best_value / solver->options->trace->layers;
	return sum;
}

/* Returns whether it was ended in time; if not, it is as if it had not begun. */
static bool run_round_in_time(struct solver *solver)
{
	struct pl_plan *best = solver->best;
	size_t bytes = (size_t)best->layers * best->experts * best->words * sizeof *best->bits;

	memcpy(solver->kept->bits, best->bits, bytes);
	memcpy(solver->layers_kept, solver->layers, best->layers * sizeof *solver->layers);
	run_round(solver);
	if (!atomic_load(&solver->late))
		return true;
	memcpy(best->bits, solver->kept->bits, bytes);
	memcpy(solver->layers, solver->layers_kept, best->layers * sizeof *solver->layers);
	return false;
}

static enum cad_status run_rounds(struct solver *solver, struct pl_solution *solution)
{
	const struct pl_solve_options *options = solver->options;
	uint64_t begun = cad_clock_now_ns(options->clock), now = begun;

	solver->deadline = UINT64_MAX - begun > options->time_limit_ns ? begun + options->time_limit_ns : UINT64_MAX;

	for (bool more = true;
		more && solver->round < options->rounds_max && (solver->round == 0 || now < solver->deadline);) {
		bool ended = run_round_in_time(solver);
		if (solver->status != CAD_OK)
			return solver->status;
		if (is_cancelled(solver))
			return CAD_ERR_CANCELLED;
		solver->round += ended;
		now = cad_clock_now_ns(options->clock);
		const struct pl_progress progress = { solver->round, (double)(now - begun) * 1e-9, mean_value(solver) };
		more = ended && (!options->progress || options->progress(options->context, &progress));
	}

	solution->rounds = solver->round;
	solution->seconds = (double)(now - begun) * 1e-9;
	solution->value = mean_value(solver);
	double ends = 0, best = 0;
	for (uint32_t l = 0; l < options->trace->layers; l++) {
		const struct layer_state *state = &solver->layers[l];
		ends += state->ends_count > 0 ? state->ends / state->ends_count : state->best_value;
		best += state->best_value;
	}

	solution->gap = best > 0 ? ends / best - 1 : 0;
	return CAD_OK;
}

static enum cad_status check(const struct pl_solve_options *options, struct cad_error *error)
{
	const struct pl_trace *trace = options->trace;
	if (trace->tokens == 0 || trace->layers == 0 || trace->experts == 0)
		return cad_error_set(error, CAD_ERR_INVALID, "the trace is empty: there is nothing to plan on");

	if (trace->k > CAD_TOPK_MAX || trace->experts > CAD_EXPERTS_MAX)
		return cad_error_set(error, CAD_ERR_INVALID,
			"the trace has %u experts of which a token chooses %u: the limits are %d and %d",
			trace->experts, trace->k, CAD_EXPERTS_MAX, CAD_TOPK_MAX);
	const struct pl_plan *present = options->present;
	if (present &&
		(present->layers != trace->layers || present->experts != trace->experts ||
			present->nodes != options->cluster->nodes_count))
		return cad_error_set(error, CAD_ERR_INVALID,
			"the present map has %u layers of %u experts on %u nodes, the trace and the cluster have %u, %u and %u",
			present->layers, present->experts, present->nodes, trace->layers, trace->experts,
			options->cluster->nodes_count);

	return CAD_OK;
}

enum cad_status pl_solve(const struct pl_solve_options *options, struct pl_solution *solution, struct cad_error *error)
{
	const struct pl_trace *trace = options->trace;
	struct solver solver = { .options = options, .lock = PTHREAD_MUTEX_INITIALIZER, .error = error };
	enum cad_status status = check(options, error);

	if (status != CAD_OK)
		return status;

	uint32_t nodes = options->cluster->nodes_count;
	status = pl_sample_create(trace, options->tokens_max, &solver.sample);
	if (status == CAD_OK)
		status = pl_plan_create(trace->layers, trace->experts, nodes, &solver.best);
	if (status == CAD_OK)
		status = pl_plan_create(trace->layers, trace->experts, nodes, &solver.work);
	if (status == CAD_OK && options->weights.affinity > 0 && trace->layers > 1)
		status = pl_plan_create(trace->layers, trace->experts, nodes, &solver.last);
	if (status == CAD_OK)
		status = pl_plan_create(trace->layers, trace->experts, nodes, &solver.kept);
	solver.layers = calloc(2 * (size_t)trace->layers, sizeof *solver.layers);
	struct pl_solution made = { .start = calloc(trace->layers, sizeof *made.start) };
	if (status != CAD_OK || !solver.layers || !made.start) {
		status = cad_error_set(error, CAD_ERR_MEMORY, "out of memory for %u layers of %u experts on %u nodes",
			trace->layers, trace->experts, nodes);
		goto free_all;
	}

	solver.layers_kept = solver.layers + trace->layers;
	for (uint32_t l = 0; l < trace->layers; l++) {
		solver.layers[l].best = pl_plan_set(solver.best, l, 0);
		solver.layers[l].work = pl_plan_set(solver.work, l, 0);
	}

	memcpy(solver.best->layer, trace->layer, trace->layers * sizeof *trace->layer);
	list_steps(&solver);
	status = run_rounds(&solver, &made);
	if (status == CAD_ERR_CANCELLED)
		(void)cad_error_set(error, status, "the search was cancelled");

	if (status == CAD_OK) {
		for (uint32_t l = 0; l < trace->layers; l++)
			made.start[l] = start_names[solver.layers[l].best_start];
		made.plan = solver.best;
		*solution = made;
		solver.best = NULL;
		made.start = NULL;
	}

free_all:
	free(made.start);
	free(solver.layers);
	pl_plan_free(solver.last);
	pl_plan_free(solver.kept);
	pl_plan_free(solver.work);
	pl_plan_free(solver.best);
	pl_sample_free(solver.sample);

	return status;
}

void pl_solution_fini(struct pl_solution *solution)
{
	pl_plan_free(solution->plan);
	free(solution->start);
	*solution = (struct pl_solution){ 0 };
}
