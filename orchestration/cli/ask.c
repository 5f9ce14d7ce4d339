/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/cli/ask.h"

#include "common/base/network.h"
#include "common/rpc/health.h"
#include "orchestration/cli/command.h"
#include "orchestration/cli/http_get.h"

enum { CONNECT_EVERY_MS = 200, HTTP_OK = 200, HTTP_UNAVAILABLE = 503 };

enum cad_status cl_process_check(const struct cl_process *process, struct cad_error *error)
{
	struct cl_process resolved = *process;
	enum cad_status status = cl_access_check(&process->access, error);
	if (status == CAD_OK)
		status = cl_process_resolve(&resolved, error);
	if (status == CAD_OK)
		status = cad_address_option("http", resolved.http, error);
	return status == CAD_OK ? cad_address_option("grpc", resolved.grpc, error) : status;
}

enum cad_status cl_process_resolve(struct cl_process *process, struct cad_error *error)
{
	struct cad_network network;
	enum cad_status status = cad_network_find(process->cluster_network, &network, error);
	if (status != CAD_OK)
		return cad_error_prefix(error, "--cluster-network");

	cad_network_address(&network, process->http, process->http_text);
	cad_network_address(&network, process->grpc, process->grpc_text);
	process->http = process->http_text;
	process->grpc = process->grpc_text;
	return CAD_OK;
}

const char *cl_process_name(const struct cl_process *process)
{
	return process->http[0] ? process->http : process->grpc;
}

enum cad_status cl_process_open(const struct cl_process *process, struct cl_client *client, struct cad_error *error)
{
	const struct cad_rpc_channel_config config = { .backoff_ms_max = CONNECT_EVERY_MS };

	*client = (struct cl_client){ .rpc = NULL };
	cl_on_interrupt(NULL, NULL);
	return process->http[0] ? CAD_OK : cl_client_open(client, process->grpc, &process->access, &config, error);
}

static enum cad_status ask_http(
	const struct cl_process *process, enum cl_question question, uint32_t timeout_ms, struct cad_error *error)
{
	static const char *const paths[] = {
		[CL_IS_ALIVE] = "/healthz", [CL_IS_READY] = "/readyz", [CL_GENERATES] = "/readyz?generate"
	};
	struct cl_http_answer answer;
	enum cad_status status = cl_http_get(process->http, paths[question], timeout_ms, &answer, error);

	if (status != CAD_OK || answer.code == HTTP_OK)
		return status;
	if (answer.code == HTTP_UNAVAILABLE)
		return cad_error_set(error, CAD_AGAIN, "%s", answer.text);
	return cad_error_set(error, CAD_ERR_PROTOCOL, "%s: the answer to %s is %d: %.200s", process->http,
		paths[question], answer.code, answer.text);
}

static enum cad_status ask_grpc(const struct cl_process *process, struct cl_client *client, enum cl_question question,
	uint32_t timeout_ms, struct cad_error *error)
{
	bool serving = false;
	enum cad_status status = cad_rpc_health_ask(client->rpc, timeout_ms, &serving, error);

	if (status != CAD_OK)
		return cad_error_prefix(error, "%s", process->grpc);
	if (serving || question == CL_IS_ALIVE)
		return CAD_OK;
	return cad_error_set(error, CAD_AGAIN, "its health is NOT_SERVING; /readyz on its HTTP port says why");
}

enum cad_status cl_process_ask(const struct cl_process *process, struct cl_client *client, enum cl_question question,
	uint32_t timeout_ms, struct cad_error *error)
{
	return process->http[0] ? ask_http(process, question, timeout_ms, error)
				: ask_grpc(process, client, question, timeout_ms, error);
}
