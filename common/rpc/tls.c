/* SPDX-License-Identifier: Apache-2.0 */
/* Credentials from PEM files; a server takes up changed files with the next handshake. */
#include "common/rpc/internal.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { PEM_BYTES_MAX = 1 << 20 };

/* Reads a whole file, terminated; NULL and errno on failure. A NULL path gives NULL and no error. */
static char *file_read(const char *path)
{
	errno = 0;
	FILE *file = path ? fopen(path, "rb") : NULL;
	if (!file)
		return NULL;
	char *text = malloc(PEM_BYTES_MAX + 1);
	size_t size = text ? fread(text, 1, PEM_BYTES_MAX, file) : 0;
	bool whole = text && !ferror(file) && feof(file);
	if (text && !ferror(file) && !feof(file))
		errno = EFBIG;
	fclose(file);
	if (!whole) {
		free(text);
		return NULL;
	}

	text[size] = 0;
	char *fitted = realloc(text, size + 1);
	return fitted ? fitted : text;
}

struct pem {
	char *certificate, *key, *authority;
};

static void pem_fini(struct pem *pem)
{
	if (pem->key)
		explicit_bzero(pem->key, strlen(pem->key));
	free(pem->certificate);
	free(pem->key);
	free(pem->authority);
}

static enum cad_status pem_read(const struct cad_rpc_tls *tls, struct pem *pem, struct cad_error *error)
{
	const char *const paths[] = { tls->certificate, tls->key, tls->authority };
	static const char *const roles[] = { "certificate", "key", "certificate authority" };
	char **const texts[] = { &pem->certificate, &pem->key, &pem->authority };

	*pem = (struct pem){ 0 };

	for (int i = 0; i < 3; i++) {
		*texts[i] = file_read(paths[i]);
		if (paths[i] && !*texts[i]) {
			int why = errno;
			pem_fini(pem);
			return cad_error_set(error, CAD_ERR_IO, "cannot read the %s of TLS from '%s': %s", roles[i],
				paths[i], strerror(why));
		}
	}

	return CAD_OK;
}

/* ---- server: gRPC asks for the files at every handshake ---- */

/* Kept until gRPC is shut down: it does not say when it is done with one. */
struct watched {
	struct watched *next;
	char *paths[3]; /* certificate, key, authority or NULL */
	pthread_mutex_t mutex;
	struct timespec seen[3];
	bool loaded;
};

static struct watched *all_watched;
static pthread_mutex_t all_mutex = PTHREAD_MUTEX_INITIALIZER;

void cad_rpc_tls_cleanup(void)
{
	pthread_mutex_lock(&all_mutex);
	for (struct watched *watched = all_watched, *next; watched; watched = next) {
		next = watched->next;
		for (int i = 0; i < 3; i++)
			free(watched->paths[i]);
		pthread_mutex_destroy(&watched->mutex);
		free(watched);
	}
	all_watched = NULL;
	pthread_mutex_unlock(&all_mutex);
}

static grpc_ssl_server_certificate_config *watched_load(const struct watched *watched)
{
	struct cad_rpc_tls tls = { watched->paths[0], watched->paths[1], watched->paths[2] };
	struct pem pem;

	if (pem_read(&tls, &pem, NULL))
		return NULL;

	grpc_ssl_pem_key_cert_pair pair = { .private_key = pem.key, .cert_chain = pem.certificate };

	/* gRPC 1.51 asserts that there are roots, asked for or not. */
	grpc_ssl_server_certificate_config *config =
		grpc_ssl_server_certificate_config_create(pem.authority ? pem.authority : pem.certificate, &pair, 1);
	pem_fini(&pem);

	return config;
}

/* On gRPC's threads. Files that cannot be read leave the old ones in use. */
static grpc_ssl_certificate_config_reload_status fetch(void *context, grpc_ssl_server_certificate_config **config)
{
	struct watched *watched = context;
	struct timespec now[3] = { { 0 } };

	for (int i = 0; i < 3; i++) {
		struct stat information;
		if (watched->paths[i] && stat(watched->paths[i], &information) == 0)
			now[i] = information.st_mtim;
	}

	grpc_ssl_certificate_config_reload_status status = GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
	pthread_mutex_lock(&watched->mutex);

	if (!watched->loaded || memcmp(now, watched->seen, sizeof now) != 0) {
		*config = watched_load(watched);
		status = *config ? GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW : GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_FAIL;
		if (*config) {
			memcpy(watched->seen, now, sizeof now);
			watched->loaded = true;
		}
	}

	pthread_mutex_unlock(&watched->mutex);
	return status;
}

static struct watched *watched_create(const struct cad_rpc_tls *tls)
{
	const char *const paths[] = { tls->certificate, tls->key, tls->authority };
	struct watched *watched = cad_rpc_must(calloc(1, sizeof *watched));

	for (int i = 0; i < 3; i++)
		watched->paths[i] = paths[i] ? cad_rpc_must(strdup(paths[i])) : NULL;
	pthread_mutex_init(&watched->mutex, NULL);
	pthread_mutex_lock(&all_mutex);
	watched->next = all_watched;
	all_watched = watched;
	pthread_mutex_unlock(&all_mutex);
	return watched;
}

enum cad_status cad_rpc_server_credentials(
	const struct cad_rpc_tls *tls, grpc_server_credentials **credentials, struct cad_error *error)
{
	if (!tls) {
		*credentials = grpc_insecure_server_credentials_create();
		return CAD_OK;
	}

	if (!tls->certificate || !tls->key)
		return cad_error_set(error, CAD_ERR_INVALID, "TLS on a server needs a certificate and a key");
	struct pem pem;
	enum cad_status status = pem_read(tls, &pem, error); /* now, for the sentence; later it is too late for one */
	if (status != CAD_OK)
		return status;
	pem_fini(&pem);
	grpc_ssl_client_certificate_request_type wanted = tls->authority
		? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
		: GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE;
	*credentials = grpc_ssl_server_credentials_create_with_options(
		grpc_ssl_server_credentials_create_options_using_config_fetcher(wanted, fetch, watched_create(tls)));

	return CAD_OK;
}

/* ---- client ---- */

enum cad_status cad_rpc_channel_credentials(
	const struct cad_rpc_tls *tls, grpc_channel_credentials **credentials, struct cad_error *error)
{
	if (!tls) {
		*credentials = grpc_insecure_credentials_create();
		return CAD_OK;
	}

	if (!tls->certificate != !tls->key)
		return cad_error_set(
			error, CAD_ERR_INVALID, "TLS on a client takes both a certificate and a key, or neither");
	struct pem pem;
	enum cad_status status = pem_read(tls, &pem, error);
	if (status != CAD_OK)
		return status;
	grpc_ssl_pem_key_cert_pair pair = { .private_key = pem.key, .cert_chain = pem.certificate };
	*credentials = grpc_ssl_credentials_create_ex(pem.authority, pem.key ? &pair : NULL, NULL, NULL);
	pem_fini(&pem);

	return *credentials ? CAD_OK
			    : cad_error_set(error, CAD_ERR_INVALID,
				      "the TLS files are not valid PEM, or certificate and key do not belong together");
}
