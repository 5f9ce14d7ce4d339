/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/cli/run_options.h"

#include "common/base/address.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum cad_status cl_engine_check(const struct cl_engine *engine, struct cad_error *error)
{
	struct kn_device_options experts;
	enum cad_status status = kn_device_parse("device", engine->device, &experts, error);
	return status == CAD_OK ? cad_settings_check(&engine->settings, error) : status;
}

struct em_options cl_engine_embedded(const struct cl_engine *engine)
{
	struct kn_device_options experts;
	struct cad_error error;
	CAD_ASSERT(kn_device_parse("device", engine->device, &experts, &error) == CAD_OK);
	return (struct em_options){
		.isa = engine->isa,
		.experts = experts,
		.threads = engine->threads,
		.settings = engine->settings,
		.nodes = engine->nodes,
		.placement_seed = engine->placement_seed,
		.router = {
			.chunk_tokens_max = engine->chunk,
			.context_max = engine->context_max,
			.micro_batches = engine->micro_batches,
		},
	};
}

static enum cad_status check_addresses(const char *routers, struct cad_error *error)
{
	for (const char *at = routers; *at;) {
		char router[CL_WHERE_BYTES - 16];
		size_t length = strcspn(at, ",");
		snprintf(router, sizeof router, "%.*s", (int)length, at);
		if (length == 0 || length >= sizeof router)
			return cad_error_set(error, CAD_ERR_INVALID,
				"--router: '%.80s' is not an address: give HOST:PORT, or several separated by commas",
				router);
		if (cad_address_option("router", router, error) != CAD_OK)
			return CAD_ERR_INVALID;
		at += length + (at[length] == ',');
	}
	return CAD_OK;
}

enum cad_status cl_run_options_check(const struct cl_run_options *options, struct cad_error *error)
{
	return cl_engine_check(&options->engine, error);
}

enum cad_status cl_run_from_options(
	const struct cl_run_options *options, struct cl_run *run, struct cl_cluster *cluster, struct cad_error *error)
{
	if (options->router[0] && options->model[0])
		return cad_error_set(error, CAD_ERR_INVALID, "--router and --model exclude each other");

	run->model = options->model[0] ? options->model : NULL;
	run->routers = options->router[0] ? options->router : NULL;
	run->engine = options->engine;
	run->access = options->access;
	run->timeout_ns = options->timeout_ns;
	enum cad_status status = cl_access_check(&run->access, error);
	if (status == CAD_OK)
		status = check_addresses(options->router, error);
	if (status != CAD_OK)
		return status;
	if (run->model || run->routers)
		return CAD_OK;
	status = cl_cluster_routers(cluster, &run->routers, &run->access, error);
	if (status != CAD_ERR_NOT_FOUND)
		return status;
	(void)cad_error_prefix(error, "say where to run it, with --router or --model");
	/* it is there for services, and whoever set it for them did not mean this */
	return getenv("CADRE_MODEL") ? cad_error_set(error, CAD_ERR_NOT_FOUND,
					       "%s; CADRE_MODEL in the environment does not choose that", error->text)
				     : CAD_ERR_NOT_FOUND;
}
