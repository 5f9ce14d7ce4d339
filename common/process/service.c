/* SPDX-License-Identifier: Apache-2.0 */
#include "common/process/service.h"

#include "common/base/network.h"
#include "common/process/process_metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool given(const char *text) { return text && *text; }
static const char *path_of(const char *option) { return given(option) ? option : NULL; }

const struct cad_choice cad_tls_clients_choices[] = {
	{ "required", CAD_TLS_CLIENTS_REQUIRED },
	{ "optional", CAD_TLS_CLIENTS_OPTIONAL },
	{ NULL, 0 },
};

/* ---- options ---- */

enum cad_status cad_service_addresses(
	const struct cad_service_options *o, struct cad_service_addresses *addresses, struct cad_error *error)
{
	bool named = given(o->cluster_network);
	struct cad_network network;
	enum cad_status status = cad_network_find(named ? o->cluster_network : "", &network, error);
	if (status != CAD_OK)
		return cad_error_prefix(error, "--cluster-network");

	/* Firewalls let known ports through; on loopback many processes share them. */
	const char *http = named ? ":7401" : ":0", *exchange = named ? ":7420" : "";
	cad_network_address(&network, given(o->grpc) ? o->grpc : "", addresses->grpc);
	cad_network_address(&network, *o->http ? o->http : http, addresses->http);
	cad_network_address(&network, given(o->exchange) ? o->exchange : exchange, addresses->exchange);
	return CAD_OK;
}

static enum cad_status check_http(const struct cad_service_options *o, const char *http, struct cad_error *error)
{
	struct cad_address ignored;
	if (cad_address_parse(http, &ignored, error) != CAD_OK)
		return cad_error_prefix(error, "--http");
	if (o->http_plaintext_anywhere || cad_address_is_loopback(http))
		return CAD_OK;

	return cad_error_set(error, CAD_ERR_INVALID,
		"--http %s is not a loopback address: add --http-plaintext-anywhere if everybody there may read health and metrics, or use 127.0.0.1",
		http);
}

static enum cad_status check_grpc(const struct cad_service_options *o, const char *grpc, struct cad_error *error)
{
	bool tls = given(o->tls_certificate);

	if (!*grpc)
		return cad_error_set(error, CAD_ERR_INVALID,
			"--grpc is empty: give the HOST:PORT to listen on, for example 127.0.0.1:7100");
	if (cad_address_option("grpc", grpc, error) != CAD_OK)
		return CAD_ERR_INVALID;
	if (!tls && given(o->tls_authority))
		return cad_error_set(error, CAD_ERR_INVALID,
			"--tls-authority asks clients for certificates, which needs TLS: give --tls-certificate and --tls-key too");
	if (o->tls_clients == CAD_TLS_CLIENTS_OPTIONAL && !(given(o->tls_authority) && given(o->token_file)))
		return cad_error_set(error, CAD_ERR_INVALID,
			"--tls-clients optional lets callers show a certificate or send a token: give both --tls-authority and --token-file");
	if (tls || o->plaintext_anywhere || cad_address_is_loopback(grpc))
		return CAD_OK;

	return cad_error_set(error, CAD_ERR_INVALID,
		"--grpc %s is not a loopback address: give --tls-certificate and --tls-key, or allow plaintext with --grpc-plaintext-anywhere",
		grpc);
}

static enum cad_status check_member(const struct cad_service_options *o, struct cad_error *error)
{
	if (*o->id && !cad_process_name_is_legal(o->id))
		return cad_error_set(error, CAD_ERR_INVALID,
			"--id is '%.80s'; a node's name has at most %d letters, digits and . _ : -", o->id,
			CAD_PROCESS_NAME_BYTES - 1);
	enum cad_status status = cad_address_option("placement", o->placement, error);
	if (status != CAD_OK)
		return status;

	struct cad_address address;
	struct cad_error ignored;
	if (cad_address_parse(o->placement, &address, &ignored) == CAD_OK && address.port == 0)
		return cad_error_set(error, CAD_ERR_INVALID,
			"--placement '%s': nobody is found at port 0; give the port of the placement service's --grpc",
			o->placement);
	return CAD_OK;
}

static enum cad_status check_pair(const char *prefix, const char *certificate, const char *key, struct cad_error *error)
{
	return given(certificate) == given(key)
		? CAD_OK
		: cad_error_set(error, CAD_ERR_INVALID, "give both --%stls-certificate and --%stls-key, or neither",
			  prefix, prefix);
}

/* An identity that is never shown. */
static enum cad_status check_placement_tls(const struct cad_service_options *o, struct cad_error *error)
{
	if (given(o->tls_authority) || given(o->placement_tls_authority))
		return CAD_OK;
	if (given(o->placement_tls_certificate) || (!o->grpc && given(o->tls_certificate)))
		return cad_error_set(error, CAD_ERR_INVALID,
			"%s is shown to the placement service over TLS, which %s turns on: give that too",
			o->grpc ? "--placement-tls-certificate" : "--tls-certificate",
			o->grpc ? "--placement-tls-authority" : "--tls-authority");
	return CAD_OK;
}

static enum cad_status check_tls(const struct cad_service_options *o, struct cad_error *error)
{
	enum cad_status status = check_pair("", o->tls_certificate, o->tls_key, error);
	if (status == CAD_OK)
		status = check_pair("placement-", o->placement_tls_certificate, o->placement_tls_key, error);
	return status == CAD_OK && given(o->placement) ? check_placement_tls(o, error) : status;
}

enum cad_status cad_service_check(
	const struct cad_service_options *options, struct cad_service_addresses *at, struct cad_error *error)
{
	enum cad_status status = cad_service_addresses(options, at, error);
	if (status == CAD_OK)
		status = check_http(options, at->http, error);
	if (status == CAD_OK)
		status = check_tls(options, error);
	if (status == CAD_OK && options->grpc)
		status = check_grpc(options, at->grpc, error);
	return status == CAD_OK && options->placement ? check_member(options, error) : status;
}

void cad_service_log(const void *options)
{
	const struct cad_service_options *o = options;
	cad_log_setup(o->log_level, o->log_format);
}

/* ---- files ---- */

/* Which files are for what. */
static void assign_tls(struct cad_service *service)
{
	const struct cad_service_options *o = service->options;
	bool other = given(o->placement_tls_certificate);

	service->server_tls = (struct cad_tls_files){
		.certificate = path_of(o->tls_certificate),
		.key = path_of(o->tls_key),
		.authority = path_of(o->tls_authority),
		.clients_optional = o->tls_clients == CAD_TLS_CLIENTS_OPTIONAL,
	};
	service->placement_tls = (struct cad_tls_files){
		.certificate = path_of(other ? o->placement_tls_certificate : o->tls_certificate),
		.key = path_of(other ? o->placement_tls_key : o->tls_key),
		.authority = path_of(given(o->placement_tls_authority) ? o->placement_tls_authority : o->tls_authority),
	};
	if (service->placement_tls.authority)
		service->placement.tls = &service->placement_tls;
}

const struct cad_tls_files *cad_service_tls(const struct cad_service *service)
{
	return service->server_tls.certificate ? &service->server_tls : NULL;
}

static enum cad_status read_files(struct cad_service *service, struct cad_error *error)
{
	const struct cad_service_options *o = service->options;
	enum cad_status status = CAD_OK;

	if (given(o->secret_file))
		status = cad_secret_read(o->secret_file, "cluster secret", &service->secret, error);
	if (status == CAD_OK && given(o->token_file))
		status = cad_bearers_read(o->token_file, &service->bearers, error);
	if (status == CAD_OK && given(o->placement_token_file))
		status = cad_access_bearer(o->placement_token_file, &service->placement.bearer, error);
	if (status == CAD_OK)
		status = cad_tls_files_check(&service->server_tls, error);
	if (status == CAD_OK && service->placement.tls)
		status = cad_tls_files_check(service->placement.tls, error);

	return status;
}

static void forget_files(struct cad_service *service)
{
	cad_secret_free(service->secret);
	cad_secret_free(service->placement.bearer);
	cad_bearers_fini(&service->bearers);
}

enum cad_status cad_service_check_files(const struct cad_service_options *options, struct cad_error *error)
{
	struct cad_service probe = { .options = options };
	assign_tls(&probe);
	enum cad_status status = read_files(&probe, error);
	forget_files(&probe);
	if (status == CAD_OK)
		status = cad_service_addresses(options, &probe.at, error);
	if (status == CAD_OK && *probe.at.grpc)
		status = cad_address_check_listen("grpc", probe.at.grpc, error);
	return status == CAD_OK ? cad_address_check_listen("http", probe.at.http, error) : status;
}

/* ---- running ---- */

static enum cad_status create_loop(struct cad_service *service, struct cad_error *error)
{
	int failed = uv_loop_init(&service->loop);
	if (failed)
		return cad_error_set(error, CAD_ERR_INTERNAL, "cannot create an event loop: %s", uv_strerror(failed));
	service->has_loop = true;
	return CAD_OK;
}

enum cad_status cad_service_init(struct cad_service *service, const char *name,
	const struct cad_service_options *options, const struct cad_options *parsed, struct cad_error *error)
{
	*service = (struct cad_service){
		.options = options,
		.parsed = parsed,
		.name = name,
		.stuck_ms = CAD_SERVICE_STUCK_MS,
	};
	if (given(options->id))
		snprintf(service->id, sizeof service->id, "%s", options->id);
	else
		cad_process_name(service->id, sizeof service->id);
	assign_tls(service);

	cad_audit_init(&service->audit);
	enum cad_status status = cad_process_init(error);
	if (status == CAD_OK)
		status = cad_service_addresses(options, &service->at, error);
	if (status == CAD_OK)
		status = read_files(service, error);
	if (status == CAD_OK)
		status = create_loop(service, error);
	if (status != CAD_OK)
		return status;

	status = cad_metrics_create(&service->metrics);
	if (status != CAD_OK)
		return cad_error_set(error, status, "no memory for metrics");
	cad_process_metrics(service->metrics);
	return CAD_OK;
}

/* ---- HTTP ---- */

static bool is_ready(void *context, char *text, size_t bytes)
{
	const struct cad_service_health *health = &((struct cad_service *)context)->health;
	return health->ready(health->context, text, bytes);
}

static enum cad_status generates(void *context, char *text, size_t bytes)
{
	const struct cad_service_health *health = &((struct cad_service *)context)->health;
	return health->generates(health->context, text, bytes);
}

/* A loop that hangs does nothing, and nothing but a restart helps. */
static bool is_healthy(void *context, char *text, size_t bytes)
{
	struct cad_service *service = context;
	const struct cad_service_health *health = &service->health;
	uint64_t beat_ns = atomic_load(&service->beat_ns), silent_ns = cad_clock_now_ns(&cad_clock_system) - beat_ns;

	if (beat_ns == 0 || silent_ns < service->stuck_ms * CAD_NS_PER_MS)
		return !health->healthy || health->healthy(health->context, text, bytes);
	snprintf(text, bytes, "the event loop has done nothing for %llu s",
		(unsigned long long)(silent_ns / CAD_NS_PER_S));
	return false;
}

enum cad_status cad_service_http(
	struct cad_service *service, const struct cad_service_health *health, struct cad_error *error)
{
	service->health = *health;
	const struct cad_admin_options options = {
		.address = service->at.http,
		.metrics = service->metrics,
		.ready = health->ready ? is_ready : NULL,
		.healthy = is_healthy,
		.generates = health->generates ? generates : NULL,
		.ready_generates = health->ready_generates,
		.context = service,
	};
	return cad_admin_create(&options, &service->admin, error);
}

void cad_service_unhttp(struct cad_service *service)
{
	cad_admin_destroy(service->admin);
	service->admin = NULL;
}

/* ---- the end ---- */

void cad_service_fini(struct cad_service *service)
{
	cad_service_unhttp(service);
	if (service->has_loop) {
		uv_run(&service->loop, UV_RUN_NOWAIT); /* the callbacks of what is closing */
		uv_loop_close(&service->loop);
	}
	cad_audit_fini(&service->audit);
	cad_metrics_destroy(service->metrics);
	forget_files(service);
}

int cad_service_failed(const struct cad_service *service, const struct cad_error *error)
{
	bool asked_to = error->status == CAD_ERR_CANCELLED;
	struct cad_error said = *error;

	cad_options_tell_sources(&said);
	cad_log_write(asked_to ? CAD_LOG_INFO : CAD_LOG_ERROR, service->name,
		&(struct cad_log_field)CAD_S("msg", said.text), 1);
	return asked_to ? 0 : 1;
}
