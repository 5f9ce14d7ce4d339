/* SPDX-License-Identifier: Apache-2.0 */
/* `cadrectl plan`: where experts should live, from recorded routing. */
#include "orchestration/cli/plan.h"

#include "orchestration/cli/share.h"
#include "orchestration/planner/trace/read.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define O struct cl_plan_options
const struct cad_option cl_plan_table[] = {
	CAD_OPTION_FILE(O, trace, "trace", NULL,
		"recorded routing to plan on: Cadre's own format, CSV, JSON lines, or answers with their routing"),
	CAD_OPTION_U32(O, experts, "experts", "0", 0, CAD_EXPERTS_MAX,
		"experts per layer, if the trace does not say; 0: the highest id that occurs, plus one"),
	CAD_OPTION_FILE(
		O, cluster, "cluster", "", "JSON file with the nodes; for equal nodes, use the next two options"),
	CAD_OPTION_U32(O, nodes, "nodes", "0", 0, CAD_NODES_MAX, "number of nodes"),
	CAD_OPTION_U32(O, slots, "slots-per-node", "0", 0, CAD_EXPERTS_MAX,
		"experts of one layer that fit on a node; 0: as many as the copies need"),
	CAD_OPTION_STRING(
		O, copies, "copies", "", "extra copies, as a share of the experts: 12% or 0.12; empty: as many as fit"),
	CAD_OPTION_FILE(O, present, "present", "",
		"the map in force, in the JSON of this command; moving away from it has a cost"),
	CAD_OPTION_ENUM(
		O, workload, "workload", "mixed", pl_workload_choices, "what the cluster does; sets the weights below"),
	CAD_OPTION_ENUM(
		O, router, "router", "cover", pl_router_choices, "how routers choose among copies, for the prediction"),
	CAD_OPTION_DURATION(O, time_limit_ns, "time-limit", "10s", 0, UINT64_MAX,
		"stop after this time and discard an unfinished round; the first always runs to its end"),
	CAD_OPTION_U32(O, rounds, "rounds", "0", 0, UINT32_MAX, "stop after this many rounds; 0: only the time limit"),
	CAD_OPTION_U64(O, seed, "seed", "1", 0, UINT64_MAX, "the same seed and rounds give the same plan"),
	CAD_OPTION_U32(
		O, threads, "threads", "0", 0, 64, "threads; 0: all cores. The plan does not depend on their number"),
	CAD_OPTION_U32(O, tokens_max, "tokens-max", "32768", 0, UINT32_MAX,
		"tokens of the trace to use, evenly chosen; 0: all"),
	CAD_OPTION_F64(O, holdout, "holdout", "0.1", 0, 0.9,
		"share of the trace, its last requests, to measure on instead of planning on it"),
	CAD_OPTION_FILE(O, measure, "measure", "", "measure on this trace instead, and plan on all of --trace"),
	CAD_OPTION_STRING(
		O, what_if, "what-if", "", "plan again with changes and compare: nodes=6,slots=40,copies=25%"),
	CAD_OPTION_BYTES(O, expert_bytes, "expert-bytes", "0", 0, UINT64_MAX,
		"size of one expert as it moves, for the time and bytes of moves; 0: as in the cluster file"),
	CAD_OPTION_BYTES(O, rate, "move-rate", "1G", 1, UINT64_MAX, "bytes per second at which a node loads experts"),
	CAD_OPTION_F64(O, load_max, "load-max", "-1", -1, 100,
		"load of the busiest node over its fair share that costs nothing; here and below, -1: as in the workload"),
	CAD_OPTION_F64(O, weight_nodes, "weight-nodes", "-1", -1, 1e6, "weight of the nodes that a token touches"),
	CAD_OPTION_F64(O, weight_racks, "weight-racks", "-1", -1, 1e6,
		"weight of each rack that it touches beyond the first, in nodes"),
	CAD_OPTION_F64(O, weight_load, "weight-load", "-1", -1, 1e6, "weight of load above load-max"),
	CAD_OPTION_F64(O, weight_active, "weight-active", "-1", -1, 1e6,
		"weight of the experts that the busiest node runs for 64 tokens, over the least possible"),
	CAD_OPTION_F64(O, weight_move, "weight-move", "-1", -1, 1e6,
		"weight of moving a whole layer away from the present map"),
	CAD_OPTION_F64(O, weight_affinity, "weight-affinity", "-1", -1, 1e6,
		"weight of nodes that the layer before did not touch"),
	CL_FORMAT_OPTION(O, format, "output format"),
};
#undef O
const size_t cl_plan_table_count = sizeof cl_plan_table / sizeof *cl_plan_table;
const struct cad_option_alias cl_plan_alias = { "profile", "workload", NULL };

/* "12%" or "0.12"; "" is -1: as many as there is room for. */
static bool parse_copies(const char *text, double *share)
{
	*share = -1;
	return !text[0] || (cl_share_parse(text, share) && *share <= CAD_NODES_MAX);
}

enum cad_status cl_plan_check(const void *values, struct cad_error *error)
{
	const struct cl_plan_options *options = values;
	double share;

	if (!parse_copies(options->copies, &share))
		return cad_error_set(
			error, CAD_ERR_INVALID, "--copies '%.40s': give a share like 12%% or 0.12", options->copies);
	if (options->cluster[0] && (options->nodes || options->slots))
		return cad_error_set(error, CAD_ERR_INVALID,
			"--cluster says what the nodes are: leave out --nodes and --slots-per-node");
	if (!options->cluster[0] && !options->nodes)
		return cad_error_set(error, CAD_ERR_INVALID, "give the nodes: --nodes N, or --cluster FILE");
	return CAD_OK;
}

static const struct cad_options_spec spec = {
	.program = "cadrectl plan",
	.summary =
		"Plans which node should hold which expert, so that tokens touch few nodes and nodes are evenly busy. 'cadrectl plan explain' says why.",
	.table = cl_plan_table,
	.count = sizeof cl_plan_table / sizeof *cl_plan_table,
	.aliases = &cl_plan_alias,
	.aliases_count = 1,
	.check = cl_plan_check,
};

/* ---- what is planned for ---- */

static void choose_weights(const struct cl_plan_options *options, struct pl_weights *weights)
{
	*weights = pl_weights_of(options->workload);
	const struct {
		double given;
		double *into;
	} choice[] = {
		{ options->load_max, &weights->load_max },
		{ options->weight_nodes, &weights->nodes },
		{ options->weight_racks, &weights->racks },
		{ options->weight_load, &weights->load },
		{ options->weight_active, &weights->active },
		{ options->weight_move, &weights->move },
		{ options->weight_affinity, &weights->affinity },
	};
	for (size_t i = 0; i < sizeof choice / sizeof *choice; i++)
		if (choice[i].given >= 0)
			*choice[i].into = choice[i].given;
}

static enum cad_status read_cluster(
	const struct cl_plan_options *options, struct cl_plan_case *c, struct cad_error *error)
{
	double share;
	(void)parse_copies(options->copies, &share);
	uint32_t experts = c->trace->experts, slots = options->slots;
	uint32_t wanted = share < 0 ? UINT32_MAX : (uint32_t)((1 + share) * experts + 0.5);
	if (!slots && options->nodes)
		slots = ((share < 0 ? experts : wanted) + options->nodes - 1) / options->nodes;
	enum cad_status status = options->cluster[0] ? pl_cluster_read(options->cluster, &c->cluster, error)
						     : pl_cluster_create(options->nodes, slots, &c->cluster, error);
	if (status != CAD_OK)
		return status;
	c->copies = wanted;
	if (options->expert_bytes)
		c->cluster.image_bytes = options->expert_bytes;

	return CAD_OK;
}

static enum cad_status read_traces(
	const struct cl_plan_options *options, struct cl_plan_case *c, struct cad_error *error)
{
	const struct pl_trace_source source = { .experts = options->experts };
	enum cad_status status = pl_trace_read_as(options->trace, &source, &c->trace, error);

	if (status != CAD_OK)
		return status;

	if (options->measure[0]) {
		const struct pl_trace_source same = { .experts = c->trace->experts };
		status = pl_trace_read_as(options->measure, &same, &c->held, error);
		if (status == CAD_OK &&
			(c->held->layers != c->trace->layers || c->held->experts != c->trace->experts ||
				c->held->k > CAD_TOPK_MAX))
			status = cad_error_set(error, CAD_ERR_INVALID,
				"%s has %u layers of %u experts, %s has %u of %u: they must be of the same model",
				options->measure, c->held->layers, c->held->experts, options->trace, c->trace->layers,
				c->trace->experts);
		return status;
	}

	if (options->holdout <= 0 || pl_trace_requests(c->trace) < 2)
		return CAD_OK;
	struct pl_trace *whole = c->trace;
	status = pl_trace_split(whole, 1 - options->holdout, &c->trace, &c->held, error);
	if (status != CAD_OK)
		c->trace = NULL;
	pl_trace_free(whole);

	return status;
}

/* The file may name its nodes: then those of the cluster are meant that have these ids, and the
 * others' copies go. */
static enum cad_status read_present(
	const struct cl_plan_options *options, struct cl_plan_case *c, struct cad_error *error)
{
	struct pl_plan *read, *matched = NULL;
	struct pl_cluster named;
	enum cad_status status = pl_plan_read(options->present, &read, &named, error);

	if (status != CAD_OK)
		return status;
	if (!options->cluster[0] || named.nodes_count == 0) {
		c->present = read;
		pl_cluster_fini(&named);
		return CAD_OK;
	}

	uint32_t to[CAD_NODES_MAX], known = 0;
	for (uint32_t n = 0; n < named.nodes_count; n++) {
		to[n] = pl_cluster_find(&c->cluster, named.nodes[n].id);
		known += to[n] != PL_CLUSTER_ANY;
	}
	if (known == 0)
		status = cad_error_set(error, CAD_ERR_INVALID, "%s: none of its nodes ('%s' and so on) is in %s",
			options->present, named.nodes[0].id, options->cluster);
	else if (pl_plan_renumber(read, to, c->cluster.nodes_count, &matched) != CAD_OK)
		status = cad_error_set(error, CAD_ERR_MEMORY, "%s: out of memory", options->present);
	c->present = matched;
	pl_plan_free(read);
	pl_cluster_fini(&named);
	return status;
}

enum cad_status cl_plan_prepare(const struct cl_plan_options *options, struct cl_plan_case *c, struct cad_error *error)
{
	*c = (struct cl_plan_case){ 0 };
	choose_weights(options, &c->weights);
	enum cad_status status = read_traces(options, c, error);
	if (status == CAD_OK)
		status = read_cluster(options, c, error);
	if (status == CAD_OK && options->present[0])
		status = read_present(options, c, error);
	if (status == CAD_OK && c->present &&
		(c->present->layers != c->trace->layers || c->present->experts != c->trace->experts))
		status = cad_error_set(error, CAD_ERR_INVALID,
			"%s has %u layers of %u experts, the trace has %u of %u: they must be of the same model",
			options->present, c->present->layers, c->present->experts, c->trace->layers, c->trace->experts);
	if (status != CAD_OK)
		cl_plan_case_fini(c);

	return status;
}

void cl_plan_case_fini(struct cl_plan_case *c)
{
	pl_cluster_fini(&c->cluster);
	pl_trace_free(c->trace);
	pl_trace_free(c->held);
	pl_plan_free(c->present);
	*c = (struct cl_plan_case){ 0 };
}

/* ---- planning ---- */

static bool on_progress(void *context, const struct pl_progress *progress)
{
	if (*(const bool *)context)
		fprintf(stderr, "\rround %u, %.1f s, objective %.4f ", progress->rounds, progress->seconds,
			progress->value);
	return !cl_interrupted();
}

static enum cad_status measure(
	const struct cl_plan_options *options, const struct cl_plan_case *c, struct cl_plan_result *result)
{
	struct pl_sample *held = NULL, *planned = NULL;
	enum cad_status status = pl_sample_create(c->trace, 0, &planned);

	if (status == CAD_OK && c->held)
		status = pl_sample_create(c->held, 0, &held);
	const struct pl_sample *on = held ? held : planned;
	if (status == CAD_OK)
		status = pl_measure(
			on, result->before, &c->cluster, options->router, options->threads, &result->old_metrics);
	if (status == CAD_OK)
		status = pl_measure(on, result->solution.plan, &c->cluster, options->router, options->threads,
			&result->new_metrics);
	if (status == CAD_OK && held)
		status = pl_measure(planned, result->solution.plan, &c->cluster, options->router, options->threads,
			&result->planned_on);
	if (status == CAD_OK)
		status = pl_bound(planned, &c->cluster, c->copies, &result->bound, NULL);
	if (status == CAD_OK && held)
		result->expected =
			pl_expected_load(&result->planned_on, planned->tokens, &result->new_metrics, held->tokens);
	pl_sample_free(held);
	pl_sample_free(planned);

	return status;
}

/* What is there before: the present plan, on the nodes that there will be (those that go take their
 * copies along); else blocks of consecutive experts. */
static enum cad_status plan_before(const struct cl_plan_case *c, struct pl_plan **before)
{
	uint32_t nodes = c->cluster.nodes_count;
	if (!c->present)
		return pl_plan_contiguous(c->trace->layers, c->trace->experts, nodes, before);

	enum cad_status status = pl_plan_create(c->trace->layers, c->trace->experts, nodes, before);
	for (uint32_t l = 0; status == CAD_OK && l < c->trace->layers; l++)
		for (uint32_t e = 0; e < c->trace->experts; e++)
			for (uint32_t n = 0; n < nodes && n < c->present->nodes; n++)
				if (pl_plan_holds(c->present, l, e, n))
					pl_plan_put(*before, l, e, n);
	return status;
}

enum cad_status cl_plan_run(const struct cl_plan_options *options, const struct cl_plan_case *c,
	struct cl_plan_result *result, struct cad_error *error)
{
	bool show = isatty(STDERR_FILENO) == 1;
	*result = (struct cl_plan_result){ 0 };
	if (plan_before(c, &result->before) != CAD_OK)
		return cad_error_set(error, CAD_ERR_MEMORY, "out of memory for %u layers", c->trace->layers);
	const struct pl_plan *present = c->present ? result->before : NULL;
	const struct pl_solve_options solve = {
		.trace = c->trace,
		.cluster = &c->cluster,
		.weights = c->weights,
		.copies = c->copies,
		.present = present,
		.seed = options->seed,
		.rounds_max = options->rounds ? options->rounds : UINT32_MAX,
		.time_limit_ns = options->time_limit_ns,
		.clock = &cad_clock_system,
		.threads = options->threads,
		.tokens_max = options->tokens_max,
		.progress = on_progress,
		.context = &show,
	};
	cl_on_interrupt(NULL, NULL);
	enum cad_status status = pl_solve(&solve, &result->solution, error);
	if (show)
		fprintf(stderr, "\r%60s\r", "");
	if (status != CAD_OK) {
		cl_plan_result_fini(result);
		return status;
	}

	status = measure(options, c, result);
	if (status != CAD_OK) {
		cl_plan_result_fini(result);
		return cad_error_set(error, status, "out of memory while measuring the plan");
	}

	if (present)
		result->moves = pl_moves_between(present, result->solution.plan, &c->cluster, (double)options->rate);
	return CAD_OK;
}

void cl_plan_result_fini(struct cl_plan_result *result)
{
	pl_solution_fini(&result->solution);
	pl_plan_free(result->before);
	pl_metrics_fini(&result->old_metrics);
	pl_metrics_fini(&result->new_metrics);
	pl_metrics_fini(&result->planned_on);
	*result = (struct cl_plan_result){ 0 };
}

/* ---- what if ---- */

/* A cluster with another number of nodes: the first ones, or more like the last. Rules about nodes
 * that are gone go, too. */
static enum cad_status resize(struct pl_cluster *cluster, uint32_t nodes, struct cad_error *error)
{
	struct pl_cluster_node *list = calloc(nodes, sizeof *list);
	uint32_t rules = 0;

	if (!list)
		return cad_error_set(error, CAD_ERR_MEMORY, "out of memory for %u nodes", nodes);

	for (uint32_t n = 0; n < nodes; n++) {
		list[n] = cluster->nodes[n < cluster->nodes_count ? n : cluster->nodes_count - 1];
		if (n >= cluster->nodes_count)
			snprintf(list[n].id, sizeof list[n].id, "new-%u", n);
	}

	for (uint32_t i = 0; i < cluster->rules_count; i++)
		if (cluster->rules[i].node < nodes)
			cluster->rules[rules++] = cluster->rules[i];
	cluster->rules_count = rules;
	free(cluster->nodes);
	cluster->nodes = list;
	cluster->nodes_count = nodes;

	return CAD_OK;
}

/* "nodes=6,slots=40,copies=25%" over the options of the case as it is. */
static enum cad_status parse_what_if(
	const char *text, struct cl_plan_options *options, char **copies, uint32_t *nodes, struct cad_error *error)
{
	char *list = strdup(text), *rest = list, *end;
	enum cad_status status = list ? CAD_OK : cad_error_set(error, CAD_ERR_MEMORY, "out of memory");

	for (char *item; status == CAD_OK && (item = strsep(&rest, ","));) {
		char *value = strchr(item, '=');
		if (value)
			*value++ = 0;
		unsigned long number = value ? strtoul(value, &end, 10) : 0;
		double share;
		bool whole = value && *value && !*end && *value != '-' && number > 0;
		if (value && strcmp(item, "nodes") == 0 && whole && number <= CAD_NODES_MAX)
			*nodes = (uint32_t)number;
		else if (value && strcmp(item, "slots") == 0 && whole && number <= CAD_EXPERTS_MAX)
			options->slots = (uint32_t)number;
		else if (value && strcmp(item, "copies") == 0 && parse_copies(value, &share) && share >= 0 && !*copies)
			*copies = strdup(value);
		else
			status = cad_error_set(error, CAD_ERR_INVALID,
				"--what-if '%.60s': give nodes=N, slots=N or copies=P%%, separated by commas; '%.40s' is none of these",
				text, item);
	}

	free(list);
	return status;
}

static enum cad_status what_if(const struct cl_plan_options *options, struct cl_plan_case *other,
	struct cl_plan_result *result, struct cad_error *error)
{
	struct cl_plan_options changed = *options;
	char *copies = NULL;
	uint32_t nodes = 0;
	enum cad_status status = parse_what_if(options->what_if, &changed, &copies, &nodes, error);

	if (status == CAD_OK) {
		changed.copies = copies ? copies : changed.copies;
		if (nodes && !changed.cluster[0])
			changed.nodes = nodes;
		if (copies && !strstr(options->what_if, "slots="))
			changed.slots = 0; /* room for as many as are asked for */
		status = cl_plan_prepare(&changed, other, error);
	}

	if (status == CAD_OK) {
		if (nodes && changed.cluster[0])
			status = resize(&other->cluster, nodes, error);
		for (uint32_t n = 0;
			status == CAD_OK && changed.cluster[0] && changed.slots && n < other->cluster.nodes_count; n++)
			other->cluster.nodes[n].slots = changed.slots;
		if (status == CAD_OK)
			status = cl_plan_run(&changed, other, result, error);
		if (status != CAD_OK)
			cl_plan_case_fini(other);
	}

	free(copies);
	return status;
}

int cl_plan(int argc, char **argv)
{
	struct cl_plan_options options;
	struct cad_options *parsed;
	struct cl_plan_case now = { 0 }, other = { 0 };
	struct cl_plan_result result = { 0 }, changed = { 0 };
	struct cad_error error;
	int exit_code;

	if (!cad_options_main(&spec, argc, argv, &options, &parsed, &exit_code))
		return exit_code;

	bool asks = options.what_if[0];
	enum cad_status status = cl_plan_prepare(&options, &now, &error);
	if (status == CAD_OK) {
		cl_plan_warn(&options, &now);
		status = cl_plan_run(&options, &now, &result, &error);
	}
	if (status == CAD_OK && asks && !cl_interrupted())
		status = what_if(&options, &other, &changed, &error);
	asks = asks && status == CAD_OK && changed.solution.plan;

	if (status == CAD_OK && options.format == CL_FORMAT_TABLE)
		cl_plan_print_table(
			&options, &now, &result, options.what_if, asks ? &other : NULL, asks ? &changed : NULL);
	else if (status == CAD_OK)
		status = cl_plan_print_json(
			&options, &now, &result, options.what_if, asks ? &other : NULL, asks ? &changed : NULL, &error);
	exit_code = status == CAD_OK ? CL_EXIT_OK : cl_fail("plan", &error);

	cl_plan_result_fini(&changed);
	cl_plan_result_fini(&result);
	cl_plan_case_fini(&other);
	cl_plan_case_fini(&now);
	cad_options_destroy(parsed);

	return exit_code;
}
