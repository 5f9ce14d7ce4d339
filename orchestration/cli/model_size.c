/* SPDX-License-Identifier: Apache-2.0 */
/* model size: what a model would need and how fast it would be, by its config.json alone if need be. */
#include "common/base/file.h"
#include "common/base/plural.h"
#include "common/cluster/settings.h"
#include "common/model/inspect.h"
#include "kernels/source.h"
#include "orchestration/cli/command.h"
#include "orchestration/cli/estimate.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { NODES_UNASKED = 3, PROMPT = 512, SAME = 255 };

struct size_options {
	uint32_t nodes, context, machine, threads;
	uint64_t memory, router_memory;
	enum cad_weights weights, router_weights;
	enum cad_kv kv;
	enum cl_format format;
};

static const struct cad_choice kept_choices[] = { { "f32", CAD_WEIGHTS_AS_IS }, { "bf16", CAD_WEIGHTS_BF16 },
	{ "int8", CAD_WEIGHTS_INT8 }, { "int4", CAD_WEIGHTS_INT4 }, { NULL, 0 } };
static const struct cad_choice router_choices[] = { { "same", SAME }, { "f32", CAD_WEIGHTS_AS_IS },
	{ "bf16", CAD_WEIGHTS_BF16 }, { "int8", CAD_WEIGHTS_INT8 }, { "int4", CAD_WEIGHTS_INT4 }, { NULL, 0 } };

static const struct cad_option size_table[] = {
	CAD_OPTION_U32(struct size_options, nodes, "nodes", "0", 0, CAD_NODES_MAX,
		"number of expert nodes; 0: as many as --memory asks for, or 3"),
	CAD_OPTION_BYTES(struct size_options, memory, "memory", "0", 0, UINT64_MAX,
		"memory of each expert node for experts, as of cadre-expert; 0: not said"),
	CAD_OPTION_BYTES(struct size_options, router_memory, "router-memory", "0", 0, UINT64_MAX,
		"memory of each router for weights and KV cache; 0: as --memory"),
	CAD_OPTION_ENUM(struct size_options, weights, "weights", "f32", kept_choices,
		"how weights are kept; f32: as stored, lossless; bf16: rounded; int8, int4: quantised, as with --numerics of the cluster"),
	CAD_OPTION_ENUM(struct size_options, router_weights, "router-weights", "same", router_choices,
		"how those of attention, dense and shared ffns and the head are kept; same: as --weights says"),
	CAD_OPTION_ENUM(struct size_options, kv, "kv", "f32", cad_kv_choices, "how routers keep keys and values"),
	CAD_OPTION_U32(struct size_options, context, "context", "1024", 1, CAD_POSITIONS_MAX,
		"tokens of each sequence, for the time of a step"),
	CAD_OPTION_ENUM(struct size_options, machine, "machine", "here", cl_machine_choices,
		"whose rates the time of a step is estimated with; here: this machine's, measured in a second"),
	CAD_OPTION_U32(struct size_options, threads, "threads", "0", 0, KN_THREADS_MAX,
		"compute threads of each process, where this machine is measured; 0: all cores"),
	CL_FORMAT_OPTION(struct size_options, format, "output format"),
};

static const struct cad_options_spec size_spec = {
	.program = "cadrectl model size",
	.summary =
		"Says how many nodes a model needs, how experts spread, what fits, and how long a step would take. MODEL is a checkpoint or a config.json alone, of families too whose config.json is read and that do not run yet.",
	.positional = "MODEL",
	.positional_names = CAD_OPTION_NAMES_FILE,
	.positional_max = 1,
	.table = size_table,
	.count = sizeof size_table / sizeof *size_table,
};

/* All that is known, before it is printed. */
struct sized {
	const struct size_options *options;
	const struct cad_model *model;
	bool has_files;
	struct cl_cluster cluster;
	struct cad_model_cluster memory;
	struct cad_model_fit fit;
	struct cl_rates rates;
};

/* ---- steps ---- */

struct step {
	const char *kind; /* "decode", "prompt" */
	struct cl_load load;
	struct cl_estimate estimate;
};
enum { DECODES = 5, STEPS = DECODES + 1 };

static void estimate_steps(const struct sized *sized, struct step steps[STEPS])
{
	static const uint32_t sequences[DECODES] = { 1, 4, 16, 64, 256 };
	for (size_t i = 0; i < DECODES; i++)
		steps[i] = (struct step){
			.kind = "decode",
			.load = { sequences[i], sequences[i], sized->options->context, sequences[i] },
		};
	steps[DECODES] = (struct step){
		.kind = "prompt",
		.load = { 1, PROMPT, PROMPT / 2.0, 1 },
	};
	for (size_t i = 0; i < STEPS; i++)
		steps[i].estimate = cl_estimate_step(sized->model, &sized->cluster, &sized->rates, &steps[i].load);
}

/* More keys and values than its memory has room for beside the weights. */
static bool exceeds_router(const struct sized *sized, const struct cl_load *load)
{
	return sized->memory.router_bytes > 0 &&
		(uint64_t)load->sequences * sized->options->context > sized->fit.kv_tokens;
}

/* ---- for people ---- */

static void print_head(const struct sized *sized)
{
	const struct cad_model_spec *spec = cad_model_spec(sized->model);
	struct cad_model_sizes sizes = cad_model_sizes(sized->model);
	printf("model            %s%s\n", cad_model_directory(sized->model),
		sized->has_files ? "" : ", by config.json alone");
	printf("architecture     %s, %s\n", spec->architecture, cad_dtype_name(spec->dtype));
	cad_model_parameters_print(&sizes, stdout);
	cad_model_kv_print(&sized->cluster.packed, spec, stdout);
}

static void print_bytes(const struct sized *sized)
{
	const struct cad_model_packed *packed = &sized->cluster.packed;
	struct cad_model_sizes sizes = cad_model_sizes(sized->model);
	char stored[32], held[32], name[32];
	uint64_t experts = sized->fit.experts;

	snprintf(name, sizeof name, "weights %s", packed->weights);
	printf("\n%-16s %12s  %12s\n", name, "as stored", "in memory");
	if (experts) {
		printf("one expert       %12s  %12s\n", cad_model_bytes_text(sizes.expert, stored),
			cad_model_bytes_text(packed->expert, held));
		printf("all experts      %12s  %12s  %llu of them\n",
			cad_model_bytes_text(experts * sizes.expert, stored),
			cad_model_bytes_text(experts * packed->expert, held), (unsigned long long)experts);
		snprintf(name, sizeof name, "each of %u %s", sized->cluster.nodes,
			cad_plural(sized->cluster.nodes, "node", "nodes"));
		printf("%-16s %12s  %12s  ", name, cad_model_bytes_text(sized->fit.per_node * sizes.expert, stored),
			cad_model_bytes_text(sized->fit.per_node_bytes, held));
		if (experts % sized->cluster.nodes)
			printf("%u or %u experts\n", sized->fit.per_node - 1, sized->fit.per_node);
		else
			printf("%u experts\n", sized->fit.per_node);
	}
	printf("each router      %12s  %12s  and %s of KV cache per token (--kv %s)\n",
		cad_model_bytes_text(sizes.router, stored), cad_model_bytes_text(packed->router, held),
		cad_model_bytes_text(packed->kv_per_token, name), packed->kv);
}

static void print_steps(const struct sized *sized, const struct step steps[STEPS])
{
	bool exceeded = false;
	printf("\nA step, as an estimate: each part takes what it reads and computes over the rates of %s\n"
	       "(%s); experts are chosen evenly; parts follow each other.\n",
		sized->rates.machine, sized->rates.source);
	printf("%-22s %11s %11s %9s %9s %9s %9s %7s %6s\n", "", "ms", "tokens/s", "router", "keys", "experts",
		"exchange", "experts", "nodes");
	for (size_t i = 0; i < STEPS; i++) {
		const struct cl_estimate *e = &steps[i].estimate;
		bool exceeds = exceeds_router(sized, &steps[i].load);
		char name[32];
		snprintf(name, sizeof name, i < DECODES ? "%u %s%s" : "prompt of %u%s", steps[i].load.rows,
			i >= DECODES    ? ""
				: i > 0 ? "sequences"
					: "sequence",
			exceeds ? " *" : "");
		printf("%-22s %11.2f %11.1f %9.2f %9.2f %9.2f %9.2f %7.1f %6.2f\n", name, e->step_s * 1e3,
			steps[i].load.rows / e->step_s, e->router_s * 1e3, e->keys_s * 1e3, e->experts_s * 1e3,
			e->exchange_s * 1e3, e->experts, e->nodes);
		exceeded = exceeded || exceeds;
	}
	printf("Parts in ms, of all layers; experts that a layer reads, nodes that a row is sent to. Sequences have %u tokens.\n",
		sized->options->context);
	if (exceeded)
		printf("* more keys and values than one router holds: so many sequences need more routers, of which each has a part.\n");
}

static void print_table(const struct sized *sized, const struct step steps[STEPS])
{
	print_head(sized);
	print_bytes(sized);
	if (sized->memory.node_bytes || sized->memory.router_bytes) {
		printf("\n");
		cad_model_fit_print(&sized->fit, &sized->memory, stdout);
	}
	print_steps(sized, steps);
}

/* ---- for scripts ---- */

static json_t *make_step(const struct step *step)
{
	const struct cl_estimate *e = &step->estimate;
	return json_pack("{s:s, s:i, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "kind", step->kind, "sequences",
		(int)step->load.sequences, "rows", (int)step->load.rows, "seconds", e->step_s, "router_seconds",
		e->router_s, "keys_seconds", e->keys_s, "experts_seconds", e->experts_s, "exchange_seconds",
		e->exchange_s, "experts_per_layer", e->experts, "nodes_per_row", e->nodes);
}

static json_t *make_steps(const struct step steps[STEPS])
{
	json_t *list = json_array();
	for (size_t i = 0; i < STEPS && list; i++)
		if (json_array_append_new(list, make_step(&steps[i])) != 0) {
			json_decref(list);
			list = NULL;
		}
	return list;
}

static json_t *make_json(const struct sized *sized, const struct step steps[STEPS])
{
	const struct cad_model_spec *spec = cad_model_spec(sized->model);
	const struct cad_model_packed *packed = &sized->cluster.packed;
	struct cad_model_sizes sizes = cad_model_sizes(sized->model);
#define WHOLE(value) ((json_int_t)(value))
	return json_pack("{s:s, s:s, s:b, s:{s:I, s:I, s:I}, s:{s:I, s:I, s:I, s:I}, s:{s:s, s:s, s:I, s:I, s:I, s:I},"
			 " s:{s:I, s:I, s:I}, s:o, s:{s:s, s:s}, s:i, s:o}",
		"model", cad_model_directory(sized->model), "architecture", spec->architecture, "files",
		sized->has_files, "parameters", "total", WHOLE(sizes.parameters), "active",
		WHOLE(sizes.active_parameters), "active_without_embedding",
		WHOLE(sizes.active_parameters - sizes.looked_up), "experts", "total", WHOLE(sized->fit.experts),
		"nodes", WHOLE(sized->cluster.nodes), "per_node", WHOLE(sized->fit.per_node), "per_layer",
		WHOLE(spec->gate.experts), "memory", "weights", packed->weights, "kv", packed->kv, "expert",
		WHOLE(packed->expert), "experts", WHOLE(packed->expert * sized->fit.experts), "node",
		WHOLE(sized->fit.per_node_bytes), "router", WHOLE(packed->router), "kv", "values_per_token",
		WHOLE(packed->kv_values), "values_per_token_expanded", WHOLE(packed->kv_values_expanded),
		"bytes_per_token", WHOLE(packed->kv_per_token), "fit", cad_model_fit_json(&sized->fit, &sized->memory),
		"rates", "machine", sized->rates.machine, "source", sized->rates.source, "context",
		(int)sized->options->context, "steps", make_steps(steps));
#undef WHOLE
}

/* ---- the command ---- */

/* With its files if it has any, and they run. */
static enum cad_status open_model(const char *path, struct cad_model **model, bool *has_files, struct cad_error *error)
{
	static const char *const names[] = { "model.safetensors", "model.safetensors.index.json" };
	enum cad_status status = CAD_ERR_UNSUPPORTED;

	*has_files = false;
	for (size_t i = 0; i < sizeof names / sizeof *names && !*has_files; i++) {
		char *file;
		if (asprintf(&file, "%s/%s", path, names[i]) < 0)
			return cad_error_set(error, CAD_ERR_MEMORY, "no memory to open %s", path);
		*has_files = cad_file_exists(file);
		free(file);
	}
	if (*has_files)
		status = cad_model_open(path, model, error);
	if (status != CAD_ERR_UNSUPPORTED)
		return status;
	*has_files = false;
	return cad_model_open_config(path, model, error);
}

/* Rates of the machine that was named, for the weights that are kept. */
static enum cad_status find_rates(struct sized *sized, struct kn_device *device, struct cad_error *error)
{
	const struct size_options *o = sized->options;
	const enum cad_weights kinds[] = { sized->cluster.experts, sized->cluster.router };

	if (o->machine == CL_MACHINE_HERE)
		return cl_rates_measure(device, sized->model, kinds[0], kinds[1],
			o->threads ? o->threads : kn_threads_default(), &sized->rates, error);
	sized->rates = *cl_rates_of(o->machine);
	for (size_t i = 0; i < 2; i++)
		if (sized->rates.form[cl_rate_form_of(kinds[i])].read <= 0)
			return cad_error_set(error, CAD_ERR_UNSUPPORTED,
				"--machine %s was not measured with weights in %s: use --machine here, or another",
				sized->rates.machine, cad_weights_name(kinds[i]));
	return CAD_OK;
}

static size_t row_bytes(const struct cad_model_spec *spec, enum cad_weights experts)
{
	return cadre_row_bytes(cad_weights_quantised(experts) ? CADRE_ROW_Q8 : CADRE_ROW_FIX16, spec->hidden);
}

static void set_cluster(struct sized *sized, struct kn_device *device)
{
	const struct size_options *o = sized->options;
	const struct cad_model *model = sized->model;
	enum cad_weights router = (uint32_t)o->router_weights == SAME ? o->weights : o->router_weights;
	struct kn_source embed = kn_source_of(cad_model_tensor(model, CAD_ROLE_EMBED, 0, 0));

	sized->cluster = (struct cl_cluster){
		.experts = o->weights,
		.router = router,
		.packed = kn_packed_sizes(device, model, o->weights, router, o->kv),
		.table_bytes = device->ops->table_bytes(device, &embed, router),
		.row_bytes = row_bytes(cad_model_spec(model), o->weights),
	};
	sized->memory = (struct cad_model_cluster){
		.nodes = o->nodes ? o->nodes : NODES_UNASKED,
		.node_bytes = o->memory,
		.router_bytes = o->router_memory ? o->router_memory : o->memory,
	};
	sized->fit = cad_model_fit(cad_model_spec(model), &sized->cluster.packed, &sized->memory);
	if (o->nodes == 0 && sized->fit.nodes_least > 0) {
		sized->memory.nodes = sized->fit.nodes_least < CAD_NODES_MAX ? sized->fit.nodes_least : CAD_NODES_MAX;
		sized->fit = cad_model_fit(cad_model_spec(model), &sized->cluster.packed, &sized->memory);
	}
	sized->cluster.nodes = sized->memory.nodes;
}

static enum cad_status size_model(const struct size_options *options, const char *path, struct cad_error *error)
{
	struct sized sized = { .options = options };
	struct step steps[STEPS];
	struct cad_model *model;
	struct kn_device *device;
	enum cad_status status = open_model(path, &model, &sized.has_files, error);
	if (status != CAD_OK)
		return status;

	sized.model = model;
	status = kn_device_open(&(struct kn_device_options){ 0 }, &device, error);
	if (status != CAD_OK)
		goto close_model;
	set_cluster(&sized, device);
	status = find_rates(&sized, device, error);
	if (status != CAD_OK)
		goto destroy_device;

	estimate_steps(&sized, steps);
	if (options->format == CL_FORMAT_TABLE) {
		print_table(&sized, steps);
	} else {
		json_t *json = make_json(&sized, steps);
		if (json)
			cl_print_json(json);
		else
			status = cad_error_set(error, CAD_ERR_MEMORY,
				"no memory for the description of %s (or its name is not UTF-8)", path);
	}

destroy_device:
	device->ops->destroy(device);
close_model:
	cad_model_close(model);
	return status;
}

int cl_model_size(int argc, char **argv)
{
	struct size_options options = { 0 };
	struct cad_options *parsed;
	struct cad_error error;
	int exit_code;

	if (!cad_options_main(&size_spec, argc, argv, &options, &parsed, &exit_code))
		return exit_code;
	if (cad_options_positional_count(parsed) != 1) {
		fprintf(stderr, "cadrectl model size: give a checkpoint's directory, or a config.json\n");
		cad_options_destroy(parsed);
		return CL_EXIT_USAGE;
	}

	enum cad_status status = size_model(&options, cad_options_positional(parsed, 0), &error);
	exit_code = status == CAD_OK ? CL_EXIT_OK : cl_fail("model size", &error);
	cad_options_destroy(parsed);
	return exit_code;
}
