/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Credentials from PEM files. Servers and clients take up changed files with the next connection,
 * or when they are told to (cad_rpc_service_tls); files that cannot be used leave the old ones in
 * force.
 */
#include "common/rpc/tls.h"

#include "common/base/file.h"
#include "common/base/log.h"
#include "common/rpc/internal.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

static bool is_same(const char *a, const char *b) { return a && b ? strcmp(a, b) == 0 : a == b; }

static bool pem_is_same(const struct cad_tls_pem *a, const struct cad_tls_pem *b)
{
	return is_same(a->certificate, b->certificate) && is_same(a->key, b->key) &&
		is_same(a->authority, b->authority);
}

/* ---- files that may change ---- */

/* How a file looks from outside. */
struct look {
	struct timespec changed;
	off_t size;
	ino_t inode;
};

struct cad_rpc_watched {
	struct cad_rpc_watched *next, **previous;
	char *paths[3];   /* certificate, key, authority; each or NULL */
	const char *side; /* "server", "client" */
	pthread_mutex_t mutex;
	struct look seen[3];
	struct cad_tls_pem pem; /* in force, or from the next handshake on */
	bool fresh;             /* gRPC does not have it yet */
};

static struct cad_rpc_watched *all_watched;
static pthread_mutex_t all_mutex = PTHREAD_MUTEX_INITIALIZER;

static void look_at(const struct cad_rpc_watched *watched, struct look looks[3])
{
	memset(looks, 0, 3 * sizeof *looks);
	for (int i = 0; i < 3; i++) {
		struct stat about;
		if (!watched->paths[i] || stat(watched->paths[i], &about) != 0)
			continue;
		looks[i].changed = about.st_mtim;
		looks[i].size = about.st_size;
		looks[i].inode = about.st_ino;
	}
}

static enum cad_status regular_all(const struct cad_rpc_watched *watched, struct cad_error *error)
{
	enum cad_status status = CAD_OK;
	for (int i = 0; i < 3 && status == CAD_OK; i++)
		if (watched->paths[i])
			status = cad_file_check_regular(watched->paths[i], error);
	return status;
}

/* Reads the files again, when they look different or `always`. Under the mutex. */
static bool refresh(struct cad_rpc_watched *watched, bool always)
{
	const struct cad_tls_files tls = {
		.certificate = watched->paths[0],
		.key = watched->paths[1],
		.authority = watched->paths[2],
	};
	struct look looks[3];
	struct cad_error error;
	struct cad_tls_pem pem;

	look_at(watched, looks);
	if (!always && memcmp(looks, watched->seen, sizeof looks) == 0)
		return true;
	memcpy(watched->seen, looks, sizeof looks);

	if (regular_all(watched, &error) != CAD_OK || cad_tls_pem_read(&tls, &pem, &error) != CAD_OK) {
		cad_log_error("grpc", "the TLS files cannot be used: the old ones stay in force",
			CAD_S("side", watched->side), CAD_S("why", error.text));
		return false;
	}
	if (pem_is_same(&pem, &watched->pem)) {
		cad_tls_pem_fini(&pem);
		return true;
	}

	cad_tls_pem_fini(&watched->pem);
	watched->pem = pem;
	watched->fresh = true;
	cad_log_info("grpc", "new TLS files: in force from the next handshake on", CAD_S("side", watched->side),
		CAD_S("certificate", tls.certificate ? tls.certificate : ""),
		CAD_S("authority", tls.authority ? tls.authority : ""));
	return true;
}

static bool reread(void)
{
	bool well = true;

	pthread_mutex_lock(&all_mutex);
	for (struct cad_rpc_watched *watched = all_watched; watched; watched = watched->next) {
		pthread_mutex_lock(&watched->mutex);
		well &= refresh(watched, true);
		pthread_mutex_unlock(&watched->mutex);
	}
	pthread_mutex_unlock(&all_mutex);

	return well;
}

static void warn_of(const struct cad_rpc_watched *watched)
{
	int64_t left_s = watched->pem.expires_s - (int64_t)time(NULL);

	if (watched->pem.expires_s == 0 || (int64_t)time(NULL) < watched->pem.close_s)
		return;
	cad_log_warn("grpc",
		left_s > 0 ? "a TLS certificate expires soon"
			   : "a TLS certificate has expired: no new connection is made with it",
		CAD_S("side", watched->side), CAD_S("certificate", watched->paths[0]),
		CAD_F("days_left", (double)left_s / 86400));
}

static void warn(void)
{
	pthread_mutex_lock(&all_mutex);
	for (struct cad_rpc_watched *watched = all_watched; watched; watched = watched->next) {
		pthread_mutex_lock(&watched->mutex);
		warn_of(watched);
		pthread_mutex_unlock(&watched->mutex);
	}
	pthread_mutex_unlock(&all_mutex);
}

static int64_t expires_s(void)
{
	int64_t first_s = 0;

	pthread_mutex_lock(&all_mutex);
	for (struct cad_rpc_watched *watched = all_watched; watched; watched = watched->next) {
		pthread_mutex_lock(&watched->mutex);
		int64_t ends_s = watched->pem.expires_s;
		pthread_mutex_unlock(&watched->mutex);
		if (ends_s != 0 && (first_s == 0 || ends_s < first_s))
			first_s = ends_s;
	}
	pthread_mutex_unlock(&all_mutex);

	return first_s;
}

const struct cad_service_tls cad_rpc_service_tls = {
	.reread = reread,
	.warn = warn,
	.expires_s = expires_s,
};

static void watched_free(struct cad_rpc_watched *watched)
{
	for (int i = 0; i < 3; i++)
		free(watched->paths[i]);
	cad_tls_pem_fini(&watched->pem);
	free(watched);
}

static enum cad_status watch(
	const struct cad_tls_files *tls, const char *side, struct cad_rpc_watched **made, struct cad_error *error)
{
	const char *const paths[] = { tls->certificate, tls->key, tls->authority };
	struct cad_rpc_watched *watched = cad_rpc_must(calloc(1, sizeof *watched));

	for (int i = 0; i < 3; i++)
		watched->paths[i] = paths[i] ? cad_rpc_must(strdup(paths[i])) : NULL;
	look_at(watched, watched->seen); /* before they are read: what changes from now on is seen */
	enum cad_status status = cad_tls_pem_read(tls, &watched->pem, error);
	if (status != CAD_OK) {
		watched_free(watched);
		return status;
	}
	watched->side = side;
	watched->fresh = true;
	pthread_mutex_init(&watched->mutex, NULL);

	pthread_mutex_lock(&all_mutex);
	watched->next = all_watched;
	watched->previous = &all_watched;
	if (all_watched)
		all_watched->previous = &watched->next;
	all_watched = watched;
	pthread_mutex_unlock(&all_mutex);

	*made = watched;
	return CAD_OK;
}

/* Under all_mutex. */
static void unwatch(struct cad_rpc_watched *watched)
{
	*watched->previous = watched->next;
	if (watched->next)
		watched->next->previous = watched->previous;
	pthread_mutex_destroy(&watched->mutex);
	watched_free(watched);
}

/* ---- server: gRPC asks at every handshake whether there is something new ---- */

/* It does not say when it is done with one of a server. */
void cad_rpc_tls_cleanup(void)
{
	pthread_mutex_lock(&all_mutex);
	while (all_watched)
		unwatch(all_watched);
	pthread_mutex_unlock(&all_mutex);
}

/* On gRPC's threads. */
static grpc_ssl_certificate_config_reload_status fetch(void *context, grpc_ssl_server_certificate_config **config)
{
	struct cad_rpc_watched *watched = context;
	grpc_ssl_certificate_config_reload_status status = GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;

	pthread_mutex_lock(&watched->mutex);
	(void)refresh(watched, false);
	if (watched->fresh) {
		const struct cad_tls_pem *pem = &watched->pem;
		grpc_ssl_pem_key_cert_pair pair = { .private_key = pem->key, .cert_chain = pem->certificate };
		/* gRPC 1.51 asserts that there are roots, asked for or not. */
		*config = grpc_ssl_server_certificate_config_create(
			pem->authority ? pem->authority : pem->certificate, &pair, 1);
		watched->fresh = false;
		status = GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW;
	}
	pthread_mutex_unlock(&watched->mutex);

	return status;
}

enum cad_status cad_rpc_server_credentials(
	const struct cad_tls_files *tls, grpc_server_credentials **credentials, struct cad_error *error)
{
	if (!tls) {
		*credentials = grpc_insecure_server_credentials_create();
		return CAD_OK;
	}

	if (!tls->certificate || !tls->key)
		return cad_error_set(error, CAD_ERR_INVALID, "TLS on a server needs a certificate and a key");
	struct cad_rpc_watched *watched;
	enum cad_status status = watch(tls, "server", &watched, error);
	if (status != CAD_OK)
		return status;
	grpc_ssl_client_certificate_request_type wanted = !tls->authority ? GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE
		: tls->clients_optional ? GRPC_SSL_REQUEST_CLIENT_CERTIFICATE_AND_VERIFY
					: GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY;
	*credentials = grpc_ssl_server_credentials_create_with_options(
		grpc_ssl_server_credentials_create_options_using_config_fetcher(wanted, fetch, watched));

	return CAD_OK;
}

/* ---- client: a channel asks before a call whether there is something new ---- */

enum cad_status cad_rpc_tls_watch(
	const struct cad_tls_files *tls, struct cad_rpc_watched **watched, struct cad_error *error)
{
	if (!tls->certificate != !tls->key)
		return cad_error_set(
			error, CAD_ERR_INVALID, "TLS on a client takes both a certificate and a key, or neither");
	return watch(tls, "client", watched, error);
}

void cad_rpc_tls_unwatch(struct cad_rpc_watched *watched)
{
	if (!watched)
		return;
	pthread_mutex_lock(&all_mutex);
	unwatch(watched);
	pthread_mutex_unlock(&all_mutex);
}

bool cad_rpc_tls_presents(const struct cad_rpc_watched *watched) { return watched->paths[0]; }

bool cad_rpc_tls_is_fresh(struct cad_rpc_watched *watched)
{
	pthread_mutex_lock(&watched->mutex);
	(void)refresh(watched, false);
	bool fresh = watched->fresh;
	pthread_mutex_unlock(&watched->mutex);
	return fresh;
}

grpc_channel_credentials *cad_rpc_channel_credentials(struct cad_rpc_watched *watched)
{
	if (!watched)
		return cad_rpc_must(grpc_insecure_credentials_create());

	pthread_mutex_lock(&watched->mutex);
	const struct cad_tls_pem *pem = &watched->pem;
	grpc_ssl_pem_key_cert_pair pair = { .private_key = pem->key, .cert_chain = pem->certificate };
	grpc_channel_credentials *credentials =
		grpc_ssl_credentials_create_ex(pem->authority, pem->key ? &pair : NULL, NULL, NULL);
	watched->fresh = false;
	pthread_mutex_unlock(&watched->mutex);

	return cad_rpc_must(credentials);
}
