/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Credentials from PEM files. A server takes up changed files with the next handshake, or when it is told to
 * (cad_rpc_tls_reread); files that cannot be used leave the old ones in force.
 *
 * What files hold is checked with OpenSSL, as gRPC reads it: gRPC itself only says later that a handshake failed.
 */
#include "common/rpc/tls.h"

#include "common/base/file.h"
#include "common/base/log.h"
#include "common/process/process.h"
#include "common/rpc/internal.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
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
	free(pem->certificate);
	cad_secret_free(pem->key);
	free(pem->authority);
	*pem = (struct pem){ 0 };
}

static bool is_same(const char *a, const char *b) { return a && b ? strcmp(a, b) == 0 : a == b; }

static bool pem_is_same(const struct pem *a, const struct pem *b)
{
	return is_same(a->certificate, b->certificate) && is_same(a->key, b->key) &&
		is_same(a->authority, b->authority);
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

/* ---- what the files hold ---- */

/* What OpenSSL did not like; its queue is left empty, since gRPC looks there, too. */
static const char *openssl_says(void)
{
	const char *reason = ERR_reason_error_string(ERR_peek_last_error());
	ERR_clear_error();
	return reason ? reason : "no reason given";
}

/* The first certificate of a text, and how many there are. */
static X509 *certificates_read(const char *text, size_t *count)
{
	BIO *bio = BIO_new_mem_buf(text, -1);
	X509 *first = bio ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;

	*count = first != NULL;
	if (first)
		for (X509 *more; (more = PEM_read_bio_X509(bio, NULL, NULL, NULL)); (*count)++)
			X509_free(more);
	BIO_free(bio);

	return first;
}

static EVP_PKEY *key_read(const char *text)
{
	static char no_password[] = "";
	BIO *bio = BIO_new_mem_buf(text, -1);
	EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, NULL, no_password) : NULL;
	BIO_free(bio);
	return key;
}

static enum cad_status pair_use(
	const struct cad_rpc_tls *tls, SSL_CTX *context, X509 *certificate, EVP_PKEY *key, struct cad_error *error)
{
	if (!certificate)
		return cad_error_set(error, CAD_ERR_INVALID, "'%s' holds no certificate in PEM form: %s",
			tls->certificate, openssl_says());
	if (!key)
		return cad_error_set(error, CAD_ERR_INVALID,
			"'%s' holds no private key in PEM form without a password: %s", tls->key, openssl_says());
	if (SSL_CTX_use_certificate(context, certificate) != 1)
		return cad_error_set(error, CAD_ERR_INVALID, "the certificate '%s' cannot be used: %s",
			tls->certificate, openssl_says());
	if (SSL_CTX_use_PrivateKey(context, key) != 1)
		return cad_error_set(error, CAD_ERR_INVALID, "the key '%s' does not belong to the certificate '%s': %s",
			tls->key, tls->certificate, openssl_says());
	if (X509_cmp_current_time(X509_get0_notAfter(certificate)) < 0)
		cad_log_warn("grpc", "a TLS certificate has expired", CAD_S("file", tls->certificate));

	return CAD_OK;
}

static enum cad_status pair_check(const struct cad_rpc_tls *tls, const struct pem *pem, struct cad_error *error)
{
	size_t count;
	SSL_CTX *context = SSL_CTX_new(TLS_method());
	X509 *certificate = certificates_read(pem->certificate, &count);
	EVP_PKEY *key = key_read(pem->key);

	enum cad_status status = context ? pair_use(tls, context, certificate, key, error)
					 : cad_error_set(error, CAD_ERR_MEMORY, "no memory for TLS");
	EVP_PKEY_free(key);
	X509_free(certificate);
	SSL_CTX_free(context);
	ERR_clear_error();

	return status;
}

static enum cad_status authority_check(const struct cad_rpc_tls *tls, const struct pem *pem, struct cad_error *error)
{
	size_t count;
	X509_free(certificates_read(pem->authority, &count));
	if (count == 0)
		return cad_error_set(error, CAD_ERR_INVALID,
			"'%s' holds no certificate of an authority in PEM form: %s", tls->authority, openssl_says());
	ERR_clear_error();
	return CAD_OK;
}

/* Reads all files, and checks that they can be used. */
static enum cad_status pem_take(const struct cad_rpc_tls *tls, struct pem *pem, struct cad_error *error)
{
	enum cad_status status = pem_read(tls, pem, error);
	if (status != CAD_OK)
		return status;
	if (pem->certificate && pem->key)
		status = pair_check(tls, pem, error);
	if (status == CAD_OK && pem->authority)
		status = authority_check(tls, pem, error);
	if (status != CAD_OK)
		pem_fini(pem);
	return status;
}

/* ---- server: gRPC asks at every handshake whether there is something new ---- */

/* How a file looks from outside. */
struct look {
	struct timespec changed;
	off_t size;
	ino_t inode;
};

/* Kept until gRPC is shut down: it does not say when it is done with one. */
struct watched {
	struct watched *next;
	char *paths[3]; /* certificate, key, authority or NULL */
	pthread_mutex_t mutex;
	struct look seen[3];
	struct pem pem; /* in force, or from the next handshake on */
	bool fresh;     /* gRPC does not have it yet */
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
		pem_fini(&watched->pem);
		pthread_mutex_destroy(&watched->mutex);
		free(watched);
	}
	all_watched = NULL;
	pthread_mutex_unlock(&all_mutex);
}

static void look_at(const struct watched *watched, struct look looks[3])
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

static enum cad_status regular_all(const struct watched *watched, struct cad_error *error)
{
	enum cad_status status = CAD_OK;
	for (int i = 0; i < 3 && status == CAD_OK; i++)
		if (watched->paths[i])
			status = cad_file_check_regular(watched->paths[i], error);
	return status;
}

/* Reads the files again, when they look different or `always`. Under the mutex. */
static bool refresh(struct watched *watched, bool always)
{
	const struct cad_rpc_tls tls = { watched->paths[0], watched->paths[1], watched->paths[2] };
	struct look looks[3];
	struct cad_error error;
	struct pem pem;

	look_at(watched, looks);
	if (!always && memcmp(looks, watched->seen, sizeof looks) == 0)
		return true;
	memcpy(watched->seen, looks, sizeof looks);

	if (regular_all(watched, &error) != CAD_OK || pem_take(&tls, &pem, &error) != CAD_OK) {
		cad_log_error(
			"grpc", "the TLS files cannot be used: the old ones stay in force", CAD_S("why", error.text));
		return false;
	}
	if (pem_is_same(&pem, &watched->pem)) {
		pem_fini(&pem);
		return true;
	}

	pem_fini(&watched->pem);
	watched->pem = pem;
	watched->fresh = true;
	cad_log_info(
		"grpc", "new TLS files: in force from the next handshake on", CAD_S("certificate", tls.certificate));
	return true;
}

bool cad_rpc_tls_reread(void)
{
	bool well = true;

	pthread_mutex_lock(&all_mutex);
	for (struct watched *watched = all_watched; watched; watched = watched->next) {
		pthread_mutex_lock(&watched->mutex);
		well &= refresh(watched, true);
		pthread_mutex_unlock(&watched->mutex);
	}
	pthread_mutex_unlock(&all_mutex);

	return well;
}

/* On gRPC's threads. */
static grpc_ssl_certificate_config_reload_status fetch(void *context, grpc_ssl_server_certificate_config **config)
{
	struct watched *watched = context;
	grpc_ssl_certificate_config_reload_status status = GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;

	pthread_mutex_lock(&watched->mutex);
	(void)refresh(watched, false);
	if (watched->fresh) {
		const struct pem *pem = &watched->pem;
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

/* Takes `pem`. */
static struct watched *watched_create(const struct cad_rpc_tls *tls, const struct pem *pem)
{
	const char *const paths[] = { tls->certificate, tls->key, tls->authority };
	struct watched *watched = cad_rpc_must(calloc(1, sizeof *watched));

	for (int i = 0; i < 3; i++)
		watched->paths[i] = paths[i] ? cad_rpc_must(strdup(paths[i])) : NULL;
	watched->pem = *pem;
	watched->fresh = true;
	look_at(watched, watched->seen);
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
	enum cad_status status = pem_take(tls, &pem, error);
	if (status != CAD_OK)
		return status;
	grpc_ssl_client_certificate_request_type wanted = tls->authority
		? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
		: GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE;
	*credentials = grpc_ssl_server_credentials_create_with_options(
		grpc_ssl_server_credentials_create_options_using_config_fetcher(
			wanted, fetch, watched_create(tls, &pem)));

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
	enum cad_status status = pem_take(tls, &pem, error);
	if (status != CAD_OK)
		return status;
	grpc_ssl_pem_key_cert_pair pair = { .private_key = pem.key, .cert_chain = pem.certificate };
	*credentials = grpc_ssl_credentials_create_ex(pem.authority, pem.key ? &pair : NULL, NULL, NULL);
	pem_fini(&pem);

	return *credentials ? CAD_OK
			    : cad_error_set(error, CAD_ERR_INVALID,
				      "the TLS files are not valid PEM, or certificate and key do not belong together");
}
