/* SPDX-License-Identifier: Apache-2.0 */
#include "common/process/certificate.h"

#include "common/base/utf8.h"
#include "common/process/process.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <xxhash.h>

/* ---- cadre://ROLE/NAME ---- */

enum { SHOWN_BYTES = 80 };

/* For a sentence. */
static void show(const char *text, size_t size, char shown[SHOWN_BYTES])
{
	size_t count = size < SHOWN_BYTES - 1 ? size : SHOWN_BYTES - 1;
	for (size_t i = 0; i < count; i++)
		shown[i] = text[i] > ' ' && text[i] < 0x7f ? text[i] : '?';
	shown[count] = 0;
}

enum cad_status cad_role_uri_parse(
	const char *uri, size_t size, struct cad_certificate *certificate, struct cad_error *error)
{
	static const char scheme[] = "cadre:", start[] = "cadre://";
	const size_t start_size = sizeof start - 1;
	struct cad_certificate found = { .name = "" };
	char shown[SHOWN_BYTES];

	if (size < sizeof scheme - 1 || strncasecmp(uri, scheme, sizeof scheme - 1) != 0)
		return CAD_ERR_NOT_FOUND;

	const char *role = uri + start_size, *end = uri + size,
		   *slash = size > start_size ? memchr(role, '/', size - start_size) : NULL;
	size_t name_size = slash ? (size_t)(end - slash) - 1 : 0;
	bool fits = slash && name_size < CAD_PROCESS_NAME_BYTES && memchr(slash, 0, name_size + 1) == NULL;
	if (fits)
		memcpy(found.name, slash + 1, name_size);
	if (!fits || memcmp(uri, start, start_size) != 0 ||
		!cad_caller_role_parse(role, (size_t)(slash - role), &found.role) ||
		!cad_process_name_is_legal(found.name)) {
		show(uri, size, shown);
		return cad_error_set(error, CAD_ERR_INVALID,
			"the URI '%s' is not cadre://ROLE/NAME, with a role of 'client', 'node', 'operator' and 'inspect', and a name of 1 to %d letters, digits and . _ : -",
			shown, CAD_PROCESS_NAME_BYTES - 1);
	}

	*certificate = found;
	return CAD_OK;
}

/* ---- names ---- */

static enum cad_status name_take(
	const char *text, size_t size, struct cad_certificate *certificate, struct cad_error *error)
{
	if (size >= CAD_CALLER_NAME_BYTES || !cad_utf8_is_printable(text, size))
		return cad_error_set(error, CAD_ERR_INVALID,
			"its name has more than %d bytes, or characters that cannot be shown",
			CAD_CALLER_NAME_BYTES - 1);
	memcpy(certificate->name, text, size);
	certificate->name[size] = 0;
	return CAD_OK;
}

/* ---- the subject ---- */

/* The value of entry `at`, which the caller frees; NULL: it is not text. */
static char *entry_text(X509_NAME *subject, int at, size_t *size)
{
	unsigned char *text = NULL;
	int length = ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
	*size = length > 0 ? (size_t)length : 0;
	return length < 0 ? NULL : (char *)text;
}

static enum cad_status units_read(X509_NAME *subject, struct cad_certificate *certificate, struct cad_error *error)
{
	for (int at = -1; (at = X509_NAME_get_index_by_NID(subject, NID_organizationalUnitName, at)) >= 0;) {
		enum cad_caller_role role;
		size_t size;
		char *text = entry_text(subject, at, &size);
		bool names = text && cad_caller_role_parse(text, size, &role);
		OPENSSL_free(text);
		if (!names)
			continue;
		if (certificate->role != CAD_CALLER_NOBODY && certificate->role != role)
			return cad_error_set(error, CAD_ERR_INVALID,
				"its organisational units name two roles, '%s' and '%s'",
				cad_caller_role_name(certificate->role), cad_caller_role_name(role));
		certificate->role = role;
	}
	return CAD_OK;
}

/* Of several the last, which is the most specific. */
static enum cad_status common_name_read(
	X509_NAME *subject, struct cad_certificate *certificate, struct cad_error *error)
{
	int last = -1, at = -1;
	size_t size;

	while ((at = X509_NAME_get_index_by_NID(subject, NID_commonName, at)) >= 0)
		last = at;
	if (last < 0)
		return CAD_OK;

	char *text = entry_text(subject, last, &size);
	enum cad_status status = name_take(text ? text : "\n", text ? size : 1, certificate, error);
	OPENSSL_free(text);
	return status;
}

/* ---- the other names ---- */

static const char *string_of(const ASN1_STRING *string, size_t *size)
{
	*size = (size_t)ASN1_STRING_length(string);
	return (const char *)ASN1_STRING_get0_data(string);
}

static enum cad_status uris_read(
	const GENERAL_NAMES *names, struct cad_certificate *certificate, struct cad_error *error)
{
	enum cad_status status = CAD_ERR_NOT_FOUND;

	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
		struct cad_certificate found;
		size_t size;
		if (name->type != GEN_URI)
			continue;
		const char *uri = string_of(name->d.uniformResourceIdentifier, &size);
		enum cad_status one = cad_role_uri_parse(uri, size, &found, error);
		if (one == CAD_ERR_NOT_FOUND)
			continue;
		if (one == CAD_OK && status == CAD_OK)
			one = cad_error_set(error, CAD_ERR_INVALID,
				"it has several URIs cadre://ROLE/NAME, and one caller has one role");
		if (one != CAD_OK)
			return one;
		*certificate = found;
		status = CAD_OK;
	}
	return status;
}

static enum cad_status dns_name_read(
	const GENERAL_NAMES *names, struct cad_certificate *certificate, struct cad_error *error)
{
	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
		size_t size;
		if (name->type != GEN_DNS)
			continue;
		const char *text = string_of(name->d.dNSName, &size);
		return name_take(text, size, certificate, error);
	}
	return CAD_OK;
}

/* ---- all of it ---- */

static enum cad_status identity_read(
	X509_NAME *subject, const GENERAL_NAMES *names, struct cad_certificate *certificate, struct cad_error *error)
{
	enum cad_status status = uris_read(names, certificate, error);
	if (status != CAD_ERR_NOT_FOUND)
		return status;

	status = units_read(subject, certificate, error);
	if (status == CAD_OK)
		status = common_name_read(subject, certificate, error);
	if (status == CAD_OK && !certificate->name[0])
		status = dns_name_read(names, certificate, error);
	return status;
}

enum cad_status cad_certificate_read(
	const char *pem, size_t size, struct cad_certificate *certificate, struct cad_error *error)
{
	struct cad_certificate found = { .name = "" };
	int why = -1; /* there is no such extension */
	BIO *bio = size <= INT_MAX ? BIO_new_mem_buf(pem, (int)size) : NULL;
	X509 *x509 = bio ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;
	GENERAL_NAMES *names = x509 ? X509_get_ext_d2i(x509, NID_subject_alt_name, &why, NULL) : NULL;

	enum cad_status status;
	if (!x509)
		status = cad_error_set(error, CAD_ERR_INVALID, "it cannot be read");
	else if (!names && why != -1)
		status = cad_error_set(
			error, CAD_ERR_INVALID, "its subject alternative name cannot be read, or is there twice");
	else
		status = identity_read(X509_get_subject_name(x509), names, &found, error);
	if (status == CAD_OK)
		*certificate = found;

	GENERAL_NAMES_free(names);
	X509_free(x509);
	BIO_free(bio);
	ERR_clear_error(); /* gRPC looks there, too */
	return status;
}

/* ---- those that were read before ---- */

/* A longer one is read each time, as is one that cannot be used. */
enum { KEPT_BYTES_MAX = 8 << 10 };

struct cad_certificate_kept {
	struct cad_certificate certificate;
	size_t size;
	char pem[];
};

static void keep(
	const char *pem, size_t size, const struct cad_certificate *certificate, struct cad_certificate_kept **place)
{
	struct cad_certificate_kept *kept = size <= KEPT_BYTES_MAX ? malloc(sizeof *kept + size) : NULL;
	if (!kept)
		return;
	*kept = (struct cad_certificate_kept){ .certificate = *certificate, .size = size };
	memcpy(kept->pem, pem, size);
	free(*place);
	*place = kept;
}

enum cad_status cad_certificates_read(struct cad_certificates *certificates, const char *pem, size_t size,
	struct cad_certificate *certificate, struct cad_error *error)
{
	struct cad_certificate_kept **place = &certificates->kept[XXH3_64bits(pem, size) % CAD_CERTIFICATES_KEPT];

	if (*place && (*place)->size == size && memcmp((*place)->pem, pem, size) == 0) {
		*certificate = (*place)->certificate;
		return CAD_OK;
	}

	enum cad_status status = cad_certificate_read(pem, size, certificate, error);
	if (status == CAD_OK)
		keep(pem, size, certificate, place);
	return status;
}

void cad_certificates_fini(struct cad_certificates *certificates)
{
	for (int i = 0; i < CAD_CERTIFICATES_KEPT; i++)
		free(certificates->kept[i]);
	*certificates = (struct cad_certificates){ { NULL } };
}
