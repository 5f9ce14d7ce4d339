/* SPDX-License-Identifier: Apache-2.0 */
/* `cadrectl plan explain LAYER EXPERT`: why it lives there, and what moving it would change. */
#include "orchestration/cli/plan.h"
#include "orchestration/planner/predict/explain.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

static struct cad_options_spec spec = {
	.program = "cadrectl plan explain",
	.summary =
		"Says why an expert is where the map of --present has it (without one, where `cadrectl plan` would put it), and what moving it would change.",
	.positional = "LAYER EXPERT",
	.positional_max = 2,
	.table = cl_plan_table,
	.aliases = &cl_plan_alias,
	.aliases_count = 1,
	.check = cl_plan_check,
};

static bool parse_index(const char *text, uint32_t *value)
{
	char *end;
	unsigned long number = strtoul(text, &end, 10);
	*value = (uint32_t)number;
	return text[0] >= '0' && text[0] <= '9' && *end == 0 && number < UINT32_MAX;
}

static void print_table(const struct cl_plan_case *c, const struct pl_explanation *x, uint32_t layer, uint32_t expert)
{
	printf("layer %u expert %u: %.2f %% of the tokens choose it, %.2f times the mean; most of its rows go to node '%s'\n",
		layer, expert, 100 * x->uses, x->rank, c->cluster.nodes[x->home].id);
	printf("the layer: %.3f nodes per token, busiest node %.3f of the mean\n\nit is chosen together with\n",
		x->nodes, x->load);
	for (uint32_t i = 0; i < x->partners_count; i++)
		printf("  expert %-5u in %5.1f %% of its tokens, %5.2f times chance%s\n", x->partners[i].expert,
			100 * x->partners[i].together, x->partners[i].lift, x->partners[i].near ? ", on its node" : "");
	if (x->partners_count == 0)
		printf("  no expert more often than chance\n");
	printf("\n%-20s %8s %8s   %-34s %s\n", "NODE", "SERVES", "ALONE", "MOVED HERE: NODES, BUSIEST NODE",
		"COPIED HERE: NODES, BUSIEST NODE");

	for (uint32_t n = 0; n < c->cluster.nodes_count; n++) {
		const struct pl_option *o = &x->options[n];
		printf("%-20s ", c->cluster.nodes[n].id);
		if (o->holds) {
			printf("%7.1f%% %7.1f%%   it is here\n", 100 * o->share, 100 * o->alone);
			continue;
		}
		char move[64], copy[64], swapped[32] = "";
		if (o->swapped != PL_CLUSTER_ANY)
			snprintf(swapped, sizeof swapped, ", for expert %u", o->swapped);
		snprintf(move, sizeof move, o->movable ? "%+.4f, %+.4f%s" : "not allowed", o->move_nodes, o->move_load,
			swapped);
		snprintf(copy, sizeof copy, o->allowed ? "%+.4f, %+.4f" : "not allowed", o->copy_nodes, o->copy_load);
		printf("%8s %8s   %-34s %s\n", "-", "-", move, copy);
	}
}

static void print_json(const struct cl_plan_case *c, const struct pl_explanation *x, uint32_t layer, uint32_t expert)
{
	json_t *partners = json_array(), *nodes = json_array();
	for (uint32_t i = 0; i < x->partners_count; i++)
		(void)json_array_append_new(partners,
			json_pack("{s:I, s:f, s:f, s:b}", "expert", (json_int_t)x->partners[i].expert, "together",
				x->partners[i].together, "lift", x->partners[i].lift, "near", x->partners[i].near));
	for (uint32_t n = 0; n < c->cluster.nodes_count; n++) {
		const struct pl_option *o = &x->options[n];
		json_t *node = json_pack("{s:s, s:b}", "id", c->cluster.nodes[n].id, "holds", o->holds);
		if (o->holds)
			(void)json_object_update_new(
				node, json_pack("{s:f, s:f}", "share", o->share, "alone", o->alone));
		if (o->movable)
			(void)json_object_update_new(
				node, json_pack("{s:f, s:f}", "move_nodes", o->move_nodes, "move_load", o->move_load));
		if (o->movable && o->swapped != PL_CLUSTER_ANY)
			(void)json_object_set_new(node, "swapped", json_integer(o->swapped));
		if (o->allowed)
			(void)json_object_update_new(
				node, json_pack("{s:f, s:f}", "copy_nodes", o->copy_nodes, "copy_load", o->copy_load));
		(void)json_array_append_new(nodes, node);
	}

	json_t *json = json_pack("{s:I, s:I, s:f, s:f, s:f, s:f, s:s, s:o, s:o}", "layer", (json_int_t)layer, "expert",
		(json_int_t)expert, "uses", x->uses, "uses_over_mean", x->rank, "layer_nodes_per_token", x->nodes,
		"layer_load", x->load, "home", c->cluster.nodes[x->home].id, "partners", partners, "nodes", nodes);
	(void)json_dumpf(json, stdout, JSON_INDENT(1));
	putchar('\n');
	json_decref(json);
}

/* The row of a layer in the trace, by its name. */
static enum cad_status find(
	const struct cl_plan_case *c, uint32_t layer, uint32_t expert, uint32_t *row, struct cad_error *error)
{
	const struct pl_trace *trace = c->trace;
	for (*row = 0; *row < trace->layers && trace->layer[*row] != layer; ++*row)
		;
	if (*row == trace->layers)
		return cad_error_set(error, CAD_ERR_INVALID, "there is no layer %u: the trace has %u layers, %u to %u",
			layer, trace->layers, trace->layer[0], trace->layer[trace->layers - 1]);
	if (expert >= trace->experts)
		return cad_error_set(error, CAD_ERR_INVALID, "there is no expert %u: a layer has experts 0 to %u",
			expert, trace->experts - 1);
	return CAD_OK;
}

static enum cad_status explain(const struct cl_plan_options *options, const struct cl_plan_case *c, uint32_t layer,
	uint32_t expert, struct cad_error *error)
{
	struct cl_plan_result result = { 0 };
	struct pl_explanation explanation;
	struct pl_sample *sample = NULL;
	const struct pl_plan *plan = c->present;
	uint32_t row;
	enum cad_status status = find(c, layer, expert, &row, error);

	if (status == CAD_OK && plan && plan->nodes != c->cluster.nodes_count)
		status = cad_error_set(error, CAD_ERR_INVALID, "%s has %u nodes, not %u", options->present, plan->nodes,
			c->cluster.nodes_count);
	if (status == CAD_OK && !plan) {
		status = cl_plan_run(options, c, &result, error);
		plan = result.solution.plan;
	}

	if (status == CAD_OK && pl_sample_create(c->trace, options->tokens_max, &sample) != CAD_OK)
		status = cad_error_set(
			error, CAD_ERR_MEMORY, "out of memory for %llu tokens", (unsigned long long)c->trace->tokens);
	if (status == CAD_OK)
		status = pl_explain(sample, plan, &c->cluster, &c->weights, row, expert, &explanation, error);
	if (status == CAD_OK) {
		if (options->format == CL_FORMAT_JSON)
			print_json(c, &explanation, layer, expert);
		else
			print_table(c, &explanation, layer, expert);
		pl_explanation_fini(&explanation);
	}

	pl_sample_free(sample);
	cl_plan_result_fini(&result);
	return status;
}

int cl_plan_explain(int argc, char **argv)
{
	struct cl_plan_options options;
	struct cad_options *parsed;
	struct cl_plan_case c = { 0 };
	struct cad_error error;
	uint32_t layer, expert;
	int exit_code;

	spec.count = cl_plan_table_count;
	if (!cad_options_main(&spec, argc, argv, &options, &parsed, &exit_code))
		return exit_code;

	if (cad_options_positional_count(parsed) != 2 || !parse_index(cad_options_positional(parsed, 0), &layer) ||
		!parse_index(cad_options_positional(parsed, 1), &expert)) {
		fprintf(stderr, "cadrectl plan explain: give the layer and the expert, two numbers\n");
		cad_options_destroy(parsed);
		return CL_EXIT_USAGE;
	}

	enum cad_status status = cl_plan_prepare(&options, &c, &error);
	if (status == CAD_OK)
		status = explain(&options, &c, layer, expert, &error);
	exit_code = status == CAD_OK ? CL_EXIT_OK : cl_fail("plan explain", &error);
	cl_plan_case_fini(&c);
	cad_options_destroy(parsed);

	return exit_code;
}
