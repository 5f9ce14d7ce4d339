/* SPDX-License-Identifier: Apache-2.0 */
/* What the files hold is checked with OpenSSL, as gRPC reads it: gRPC itself only says later
 * that a handshake failed. */
#include "common/process/tls_files.h"

#include "common/process/process.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum { PEM_BYTES_MAX = 1 << 20, CLOSE_S = 14 * 24 * 3600 };

/* Reads a whole file, terminated; NULL and errno on failure. A NULL path gives NULL and no
 * error. */
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

void cad_tls_pem_fini(struct cad_tls_pem *pem)
{
	free(pem->certificate);
	cad_secret_free(pem->key);
	free(pem->authority);
	*pem = (struct cad_tls_pem){ 0 };
}

static enum cad_status pem_read(const struct cad_tls_files *files, struct cad_tls_pem *pem, struct cad_error *error)
{
	const char *const paths[] = { files->certificate, files->key, files->authority };
	static const char *const roles[] = { "certificate", "key", "certificate authority" };
	char **const texts[] = { &pem->certificate, &pem->key, &pem->authority };

	*pem = (struct cad_tls_pem){ 0 };

	for (int i = 0; i < 3; i++) {
		*texts[i] = file_read(paths[i]);
		if (paths[i] && !*texts[i]) {
			int why = errno;
			cad_tls_pem_fini(pem);
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

static int64_t seconds_of(const ASN1_TIME *time)
{
	struct tm fields;
	return ASN1_TIME_to_tm(time, &fields) == 1 ? (int64_t)timegm(&fields) : 0;
}

/* A fifth of a certificate's life is left, or two weeks if that is less: who renews it has not. */
static void note_end(void *context, X509 *certificate)
{
	struct cad_tls_pem *pem = context;
	int64_t begins_s = seconds_of(X509_get0_notBefore(certificate)),
		expires_s = seconds_of(X509_get0_notAfter(certificate)), fifth_s = (expires_s - begins_s) / 5;

	if (pem->expires_s != 0 && pem->expires_s <= expires_s)
		return;
	pem->expires_s = expires_s;
	pem->close_s = expires_s - (fifth_s < CLOSE_S ? fifth_s : CLOSE_S);
}

/* The first certificate of a text, all of whose certificates can be read; each is visited. */
static X509 *certificates_read(const char *text, void (*visit)(void *context, X509 *certificate), void *context)
{
	BIO *bio = BIO_new_mem_buf(text, -1);
	X509 *first = bio ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;

	for (X509 *each = first; each; each = PEM_read_bio_X509(bio, NULL, NULL, NULL)) {
		visit(context, each);
		if (each != first)
			X509_free(each);
	}
	BIO_free(bio);
	if (ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE) /* that was the last */
		return first;

	X509_free(first);
	return NULL;
}

static EVP_PKEY *key_read(const char *text)
{
	static char no_password[] = "";
	BIO *bio = BIO_new_mem_buf(text, -1);
	EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, NULL, no_password) : NULL;
	BIO_free(bio);
	return key;
}

/* "2026-11-29", in UTC. */
static void day_of(int64_t seconds, char day[16])
{
	struct tm fields;
	time_t time = (time_t)seconds;
	if (!gmtime_r(&time, &fields) || strftime(day, 16, "%F", &fields) == 0)
		memcpy(day, "?", 2);
}

static enum cad_status check_end(
	const struct cad_tls_files *files, const struct cad_tls_pem *pem, struct cad_error *error)
{
	char day[16];

	if (pem->expires_s > (int64_t)time(NULL))
		return CAD_OK;
	day_of(pem->expires_s, day);
	return cad_error_set(error, CAD_ERR_INVALID, "the certificate '%s' has expired, on %s: have another one issued",
		files->certificate, day);
}

static enum cad_status pair_use(
	const struct cad_tls_files *files, SSL_CTX *context, X509 *certificate, EVP_PKEY *key, struct cad_error *error)
{
	if (!certificate)
		return cad_error_set(error, CAD_ERR_INVALID, "'%s' holds no certificate in PEM form: %s",
			files->certificate, openssl_says());
	if (!key)
		return cad_error_set(error, CAD_ERR_INVALID,
			"'%s' holds no private key in PEM form without a password: %s", files->key, openssl_says());
	if (SSL_CTX_use_certificate(context, certificate) != 1)
		return cad_error_set(error, CAD_ERR_INVALID, "the certificate '%s' cannot be used: %s",
			files->certificate, openssl_says());
	if (SSL_CTX_use_PrivateKey(context, key) != 1)
		return cad_error_set(error, CAD_ERR_INVALID, "the key '%s' does not belong to the certificate '%s': %s",
			files->key, files->certificate, openssl_says());

	return CAD_OK;
}

static enum cad_status pair_check(const struct cad_tls_files *files, struct cad_tls_pem *pem, struct cad_error *error)
{
	SSL_CTX *context = SSL_CTX_new(TLS_method());
	X509 *certificate = certificates_read(pem->certificate, note_end, pem);
	EVP_PKEY *key = key_read(pem->key);

	enum cad_status status = context ? pair_use(files, context, certificate, key, error)
					 : cad_error_set(error, CAD_ERR_MEMORY, "no memory for TLS");
	if (status == CAD_OK)
		status = check_end(files, pem, error);
	EVP_PKEY_free(key);
	X509_free(certificate);
	SSL_CTX_free(context);
	ERR_clear_error();

	return status;
}

/* The latest end of those that others can be signed by; 0: there is none. One that has signed
 * itself is its own authority, whatever else it may sign. */
static void note_authority(void *context, X509 *certificate)
{
	int64_t *ends_s = context, end_s = seconds_of(X509_get0_notAfter(certificate));
	bool signs = X509_check_ca(certificate) > 0 || (X509_get_extension_flags(certificate) & EXFLAG_SS);
	if (signs && end_s > *ends_s)
		*ends_s = end_s;
}

static enum cad_status authority_check(
	const struct cad_tls_files *files, const struct cad_tls_pem *pem, struct cad_error *error)
{
	int64_t ends_s = 0;
	char day[16];
	X509 *certificate = certificates_read(pem->authority, note_authority, &ends_s);

	X509_free(certificate);
	if (!certificate)
		return cad_error_set(error, CAD_ERR_INVALID,
			"'%s' holds no certificate of an authority in PEM form: %s", files->authority, openssl_says());
	ERR_clear_error();
	if (ends_s == 0)
		return cad_error_set(error, CAD_ERR_INVALID,
			"'%s' holds no certificate of an authority: what it holds may not sign others; give the certificate of who has signed the other side's",
			files->authority);
	if (ends_s <= (int64_t)time(NULL)) {
		day_of(ends_s, day);
		return cad_error_set(error, CAD_ERR_INVALID,
			"the authority '%s' has expired, on %s: have another one issued, and certificates by it",
			files->authority, day);
	}
	return CAD_OK;
}

enum cad_status cad_tls_pem_read(const struct cad_tls_files *files, struct cad_tls_pem *pem, struct cad_error *error)
{
	enum cad_status status = pem_read(files, pem, error);
	if (status != CAD_OK)
		return status;
	if (pem->certificate && pem->key)
		status = pair_check(files, pem, error);
	if (status == CAD_OK && pem->authority)
		status = authority_check(files, pem, error);
	if (status != CAD_OK)
		cad_tls_pem_fini(pem);
	return status;
}

/* It can be read once, by who needs it. */
static bool is_pipe(const char *path)
{
	struct stat status;
	return path && stat(path, &status) == 0 && S_ISFIFO(status.st_mode);
}

enum cad_status cad_tls_files_check(const struct cad_tls_files *files, struct cad_error *error)
{
	struct cad_tls_pem pem;

	if (is_pipe(files->certificate) || is_pipe(files->key) || is_pipe(files->authority))
		return CAD_OK;
	enum cad_status status = cad_tls_pem_read(files, &pem, error);
	if (status == CAD_OK)
		cad_tls_pem_fini(&pem);
	return status;
}
