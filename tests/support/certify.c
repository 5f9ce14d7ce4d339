/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/certify.h"

#include "common/base/status.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <string.h>

enum { DAY_S = 24 * 3600 };

static X509 *authority;
static EVP_PKEY *authority_key;

static char *pem_of(X509 *x509, EVP_PKEY *key)
{
	BIO *bio = BIO_new(BIO_s_mem());
	CAD_ASSERT(
		x509 ? PEM_write_bio_X509(bio, x509) : PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL));
	CAD_ASSERT(BIO_write(bio, "", 1) == 1);
	char *text;
	long size = BIO_get_mem_data(bio, &text);
	char *copy = strndup(text, (size_t)size);
	BIO_free(bio);
	return copy;
}

static void add_extension(X509 *x509, int nid, const char *config)
{
	X509V3_CTX context;
	X509V3_set_ctx(&context, authority, x509, NULL, NULL, 0);
	X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, nid, config);
	CAD_ASSERT(extension && X509_add_ext(x509, extension, -1) == 1);
	X509_EXTENSION_free(extension);
}

static X509 *create(const struct certify_subject *subject, EVP_PKEY *key)
{
	static long serial;
	X509 *x509 = X509_new();
	X509_NAME *name = X509_get_subject_name(x509);

	CAD_ASSERT(X509_set_version(x509, 2) && ASN1_INTEGER_set(X509_get_serialNumber(x509), ++serial));
	X509_gmtime_adj(X509_getm_notBefore(x509), -DAY_S);
	X509_gmtime_adj(X509_getm_notAfter(x509), DAY_S);
	CAD_ASSERT(X509_set_pubkey(x509, key));
	for (size_t i = 0; i < 4 && subject->entries[i].key; i++) {
		const struct certify_entry *entry = &subject->entries[i];
		size_t size = entry->size > 0 ? entry->size : strlen(entry->text);
		CAD_ASSERT(X509_NAME_add_entry_by_txt(
			name, entry->key, V_ASN1_UTF8STRING, (const unsigned char *)entry->text, (int)size, -1, 0));
	}
	if (subject->names)
		add_extension(x509, NID_subject_alt_name, subject->names);
	if (subject->names_twice)
		add_extension(x509, NID_subject_alt_name, subject->names);
	return x509;
}

const char *certify_authority(void)
{
	static char *text;
	if (!authority) {
		const struct certify_subject subject = { .entries = { { .key = "CN", .text = "authority" } } };
		authority_key = EVP_EC_gen("P-256");
		authority = create(&subject, authority_key);
		add_extension(authority, NID_basic_constraints, "critical,CA:TRUE");
		CAD_ASSERT(X509_set_issuer_name(authority, X509_get_subject_name(authority)) &&
			X509_sign(authority, authority_key, EVP_sha256()));
		text = pem_of(authority, NULL);
	}
	return text;
}

struct certified certify(const struct certify_subject *subject)
{
	(void)certify_authority();
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *x509 = create(subject, key);

	CAD_ASSERT(X509_set_issuer_name(x509, X509_get_subject_name(authority)) &&
		X509_sign(x509, authority_key, EVP_sha256()));
	const struct certified certified = { pem_of(x509, NULL), pem_of(NULL, key) };
	X509_free(x509);
	EVP_PKEY_free(key);
	return certified;
}
