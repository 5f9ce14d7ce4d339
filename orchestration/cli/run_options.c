#include "orchestration/cli/run_options.h"

#include "orchestration/cli/cluster_file.h"

#include <stddef.h>


struct em_options cl_engine_embedded(const struct cl_engine *engine)
{
	return (struct em_options){ .isa = engine->isa, .threads = engine->threads, .weights = engine->weights, .wire = engine->wire, .nodes = engine->nodes,
		.placement_seed = engine->placement_seed, .router = { .chunk_tokens_max = engine->chunk, .micro_batches = engine->micro_batches } };
}

enum cad_status cl_run_from_options(const struct cl_run_options *options, struct cl_run *run, char **routers, struct cad_error *error)
{
	if (options->router[0] && options->model[0])
		return cad_error_set(error, CAD_ERR_INVALID, "--router and --model exclude each other");
	run->model = options->model[0] ? options->model : NULL;
	run->routers = options->router[0] ? options->router : NULL;
	run->engine = options->engine;
	if (run->model || run->routers)
		return CAD_OK;
	enum cad_status status = cl_cluster_routers(routers, error);
	if (status != CAD_OK)
		return status == CAD_ERR_NOT_FOUND ? cad_error_prefix(error, "say where to run it, with --router or --model") : status;
	run->routers = *routers;
	return CAD_OK;
}
