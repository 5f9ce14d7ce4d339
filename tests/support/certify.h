/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Certificates as tests need them: any subject, any other names, signed by an authority that is
 * made with the first of them. Texts in PEM form.
 */
#ifndef CADRE_TESTS_SUPPORT_CERTIFY_H
#define CADRE_TESTS_SUPPORT_CERTIFY_H

#include <stddef.h>

struct certify_entry {
	const char *key; /* "CN", "OU" */
	const char *text;
	size_t size; /* 0: that of the text */
};

struct certify_subject {
	struct certify_entry entries[4]; /* up to one without a key */
	const char *names;               /* as openssl's subjectAltName: "URI:cadre://node/a,DNS:b"; NULL: none */
	int names_twice;                 /* the extension is there twice, which no authority should do */
};

/* The caller frees both. */
struct certified {
	char *certificate, *key;
};

struct certified certify(const struct certify_subject *subject);
const char *certify_authority(void); /* its certificate, until the end of the program */

#endif
