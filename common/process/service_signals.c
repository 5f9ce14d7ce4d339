/* SPDX-License-Identifier: Apache-2.0 */
/* The signals of a service: SIGHUP makes it read its files again, the others are the program's. And
 * the heartbeat of its loop. */
#include "common/process/service.h"

#include "common/base/file.h"
#include "common/process/memory.h"

#include <signal.h>
#include <string.h>

enum { BEAT_EVERY_MS = 1000, BEATS_A_TRIM = 10 };
static const uint64_t WARN_EVERY_NS = 24 * 3600 * CAD_NS_PER_S;

/* ---- SIGHUP ---- */

static bool reread_bearers(struct cad_service *service)
{
	const char *file = service->options->token_file;
	struct cad_bearers bearers;
	struct cad_error error;

	if (!file || !*file)
		return true;
	if (cad_file_check_regular(file, &error) != CAD_OK || cad_bearers_read(file, &bearers, &error) != CAD_OK) {
		cad_log_error(service->name, "the token file cannot be used: the old tokens stay in force",
			CAD_S("why", error.text));
		return false;
	}
	cad_bearers_fini(&service->bearers);
	service->bearers = bearers;

	return true;
}

static bool reread_placement_token(struct cad_service *service)
{
	const char *file = service->options->placement_token_file;
	struct cad_error error;
	char *bearer;

	if (!file || !*file)
		return true;
	if (cad_file_check_regular(file, &error) != CAD_OK || cad_access_bearer(file, &bearer, &error) != CAD_OK) {
		cad_log_error(service->name,
			"the token file for the placement service cannot be used: the old token is sent",
			CAD_S("why", error.text));
		return false;
	}
	cad_secret_free(service->placement.bearer);
	service->placement.bearer = bearer;

	return true;
}

struct reread {
	struct cad_service *service;
	enum cad_log_level level;
};

static void option_changed(void *context, const char *name, const char *text)
{
	struct reread *reread = context;

	if (strcmp(name, "log-level") != 0) {
		cad_log_warn(reread->service->name, "this option has changed, and takes effect only after a restart",
			CAD_S("option", name));
		return;
	}
	for (const struct cad_choice *choice = cad_log_level_choices; choice->name; choice++)
		if (strcmp(choice->name, text) == 0)
			reread->level = (enum cad_log_level)choice->value;
}

static bool reread_options(struct cad_service *service)
{
	struct reread reread = { service, service->options->log_level };
	struct cad_error error;

	if (!service->parsed)
		return true;
	if (cad_options_reread(service->parsed, option_changed, &reread, &error) != CAD_OK) {
		cad_log_error(service->name, "the options cannot be used: the log level stays as it is",
			CAD_S("why", error.text));
		return false;
	}
	cad_log_setup(reread.level, service->options->log_format);

	return true;
}

static void reread(struct cad_service *service)
{
	bool options = reread_options(service), bearers = reread_bearers(service),
	     placement = reread_placement_token(service), tls = !service->tls || service->tls->reread(),
	     well = options && bearers && placement && tls;

	if (well)
		cad_log_info(service->name, "read again", CAD_U("tokens", service->bearers.count));
	cad_counter_add(well ? service->rereads : service->rereads_failed, 1);
}

/* ---- all of them ---- */

static void take_signal(void *context, int number)
{
	struct cad_service *service = context;
	if (number == SIGHUP)
		reread(service);
	else
		service->on_signal(service->on_signal_context, number);
}

static struct cad_counter *count(struct cad_service *service, const char *result)
{
	return cad_metrics_counter(service->metrics, "cadre_rereads_total",
		"SIGHUPs after which log level, tokens and certificates were read again; failed: something could not be used",
		&(struct cad_label){ "result", result }, 1);
}

static void beat(uv_timer_t *timer)
{
	struct cad_service *service = timer->data;
	uint64_t now_ns = cad_clock_now_ns(&cad_clock_system);

	atomic_store(&service->beat_ns, now_ns);
	if (service->beats++ % BEATS_A_TRIM == 0)
		cad_memory_trim(&service->least_bytes);
	cad_audit_tick(&service->audit);
	if (service->tls && (service->warned_ns == 0 || now_ns - service->warned_ns >= WARN_EVERY_NS)) {
		service->tls->warn();
		service->warned_ns = now_ns;
	}
}

static double expires_read(void *service) { return (double)((struct cad_service *)service)->tls->expires_s(); }

enum cad_status cad_service_watch(
	struct cad_service *service, cad_signal_fn *on_signal, void *context, struct cad_error *error)
{
	service->rereads = count(service, "ok");
	service->rereads_failed = count(service, "failed");
	if (service->tls && service->tls->expires_s() != 0)
		cad_metrics_gauge_read(service->metrics, "cadre_tls_certificate_expires_seconds",
			"When the first of this process's TLS certificates in force expires, in Unix time", NULL, 0,
			expires_read, service);
	enum cad_status status = cad_metrics_status(service->metrics);
	if (status != CAD_OK)
		return cad_error_set(error, status, "no memory for metrics");

	service->on_signal = on_signal;
	service->on_signal_context = context;
	status = cad_signals_create(&service->loop, take_signal, service, &service->signals, error);
	if (status != CAD_OK)
		return status;

	uv_timer_init(&service->loop, &service->beat);
	service->beat.data = service;
	uv_timer_start(&service->beat, beat, 0, BEAT_EVERY_MS);
	uv_unref((uv_handle_t *)&service->beat);
	return CAD_OK;
}

void cad_service_unwatch(struct cad_service *service)
{
	if (!service->signals)
		return;
	uv_close((uv_handle_t *)&service->beat, NULL);
	atomic_store(&service->beat_ns, 0);
	cad_signals_close(service->signals);
	service->signals = NULL;
}

bool cad_service_interrupted(void *unused)
{
	(void)unused;
	return cad_signals_pending();
}
