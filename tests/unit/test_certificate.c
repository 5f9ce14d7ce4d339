/* SPDX-License-Identifier: Apache-2.0 */
/* What certificates say of callers: roles and names, and what is refused for being unclear. */
#include "common/process/certificate.h"
#include "tests/support/certify.h"
#include "tests/support/must.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define TEN "0123456789"
#define LONGEST TEN TEN TEN TEN TEN TEN "012" /* 63 */

static void uris(void **state)
{
	(void)state;
	static const struct {
		const char *uri;
		enum cad_status status;
		enum cad_caller_role role;
		const char *name;
	} table[] = {
		{ "cadre://client/alice", CAD_OK, CAD_CALLER_CLIENT, "alice" },
		{ "cadre://node/gpu-rack.7:a_b", CAD_OK, CAD_CALLER_NODE, "gpu-rack.7:a_b" },
		{ "cadre://operator/" LONGEST, CAD_OK, CAD_CALLER_OPERATOR, LONGEST },
		{ "cadre://inspect/d", CAD_OK, CAD_CALLER_INSPECT, "d" },

		/* of others */
		{ "", CAD_ERR_NOT_FOUND, 0, NULL },
		{ "cadr", CAD_ERR_NOT_FOUND, 0, NULL },
		{ "cadre", CAD_ERR_NOT_FOUND, 0, NULL },
		{ "spiffe://cadre/node/a", CAD_ERR_NOT_FOUND, 0, NULL },
		{ "https://cadre://node/a", CAD_ERR_NOT_FOUND, 0, NULL },

		/* of Cadre's, and not understood */
		{ "cadre:", CAD_ERR_INVALID, 0, NULL },
		{ "cadre:/", CAD_ERR_INVALID, 0, NULL },
		{ "cadre://", CAD_ERR_INVALID, 0, NULL },
		{ "cadre:///", CAD_ERR_INVALID, 0, NULL },
		{ "cadre://node", CAD_ERR_INVALID, 0, NULL },
		{ "cadre://node/", CAD_ERR_INVALID, 0, NULL },
		{ "cadre:///alice", CAD_ERR_INVALID, 0, NULL },
		{ "cadre:node/a", CAD_ERR_INVALID, 0, NULL },
		{ "cadre:/node/a", CAD_ERR_INVALID, 0, NULL },
		{ "CADRE://node/a", CAD_ERR_INVALID, 0, NULL },
		{ "cadre://Node/a", CAD_ERR_INVALID, 0, NULL },
		{ "cadre://generate/a", CAD_ERR_INVALID, 0, NULL },
		{ "cadre://none/a", CAD_ERR_INVALID, 0, NULL },
		{ "cadre://admin/a", CAD_ERR_INVALID, 0, NULL },
		{ "cadre://node /a", CAD_ERR_INVALID, 0, NULL },
		{ "cadre://x@node/a", CAD_ERR_INVALID, 0, NULL },
		{ "cadre://node:1/a", CAD_ERR_INVALID, 0, NULL },
		{ "cadre://node/a/b", CAD_ERR_INVALID, 0, NULL },
		{ "cadre://node/a?b", CAD_ERR_INVALID, 0, NULL },
		{ "cadre://node/%61", CAD_ERR_INVALID, 0, NULL },
		{ "cadre://node/a\n", CAD_ERR_INVALID, 0, NULL },
		{ "cadre://node/\xc3\xa4", CAD_ERR_INVALID, 0, NULL },
		{ "cadre://node/" LONGEST "3", CAD_ERR_INVALID, 0, NULL },
	};

	for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
		struct cad_certificate found;
		struct cad_error error = { .text = "" };
		enum cad_status status = cad_role_uri_parse(table[i].uri, strlen(table[i].uri), &found, &error);
		if (status != table[i].status)
			fail_msg("'%s' is %s", table[i].uri, cad_status_name(status));
		if (status == CAD_ERR_INVALID && !strstr(error.text, "' is not cadre://ROLE/NAME, with a role of"))
			fail_msg("'%s'", error.text);
		assert_null(strchr(error.text, '\n'));
		if (status != CAD_OK)
			continue;
		assert_int_equal(found.role, table[i].role);
		assert_string_equal(found.name, table[i].name);
	}

	struct cad_certificate found;
	struct cad_error error;
	static const char cut[] = "cadre://node/a\0b";
	assert_int_equal(cad_role_uri_parse(cut, sizeof cut - 1, &found, &error), CAD_ERR_INVALID);
}

static void certificates(void **state)
{
	(void)state;
	static const struct {
		struct certify_subject subject;
		enum cad_caller_role role;
		const char *name, *says; /* says: why it is refused */
	} table[] = {
		/* the URI before all else, and among others */
		{ { .entries = { { "OU", "operator", 0 }, { "CN", "bob", 0 } },
			  .names = "URI:cadre://node/rack,DNS:host" },
			CAD_CALLER_NODE, "rack", NULL },
		{ { .names = "URI:spiffe://x/y,DNS:host,URI:cadre://inspect/d,IP:127.0.0.1" }, CAD_CALLER_INSPECT, "d",
			NULL },

		/* a unit that is a role, and one that is not */
		{ { .entries = { { "OU", "operator", 0 }, { "CN", "bob", 0 } } }, CAD_CALLER_OPERATOR, "bob", NULL },
		{ { .entries = { { "OU", "Engineering", 0 }, { "OU", "node", 0 }, { "CN", "bob", 0 } } },
			CAD_CALLER_NODE, "bob", NULL },
		{ { .entries = { { "OU", "node", 0 }, { "OU", "node", 0 }, { "CN", "bob", 0 } } }, CAD_CALLER_NODE,
			"bob", NULL },
		{ { .entries = { { "OU", "Operator", 0 }, { "CN", "bob", 0 } }, .names = "URI:spiffe://x/y" },
			CAD_CALLER_NOBODY, "bob", NULL },
		{ { .entries = { { "OU", "operator\0x", 10 }, { "CN", "bob", 0 } } }, CAD_CALLER_NOBODY, "bob", NULL },
		{ { .entries = { { "O", "operator", 0 }, { "CN", "operator", 0 } } }, CAD_CALLER_NOBODY, "operator",
			NULL },
		{ { .entries = { { "OU", "client", 0 } } }, CAD_CALLER_CLIENT, "", NULL },

		/* names */
		{ { .entries = { { "CN", "Users", 0 }, { "CN", "Jos\xc3\xa9 P.", 0 } } }, CAD_CALLER_NOBODY,
			"Jos\xc3\xa9 P.", NULL },
		{ { .names = "IP:127.0.0.1,DNS:host.example,DNS:other" }, CAD_CALLER_NOBODY, "host.example", NULL },
		{ { .entries = { { "O", "x", 0 } } }, CAD_CALLER_NOBODY, "", NULL },

		/* refused */
		{ { .names = "URI:cadre://node/a,URI:cadre://node/a" }, 0, NULL,
			"it has several URIs cadre://ROLE/NAME" },
		{ { .names = "URI:cadre://inspect/a,URI:cadre://operator/a" }, 0, NULL,
			"it has several URIs cadre://ROLE/NAME" },
		{ { .entries = { { "CN", "bob", 0 } }, .names = "URI:cadre://nod/a" }, 0, NULL,
			"the URI 'cadre://nod/a' is not cadre://ROLE/NAME" },
		{ { .entries = { { "OU", "client", 0 }, { "OU", "operator", 0 } } }, 0, NULL,
			"its organisational units name two roles, 'client' and 'operator'" },
		{ { .entries = { { "CN", "a\nlevel=info", 0 } } }, 0, NULL, "characters that cannot be shown" },
		{ { .entries = { { "CN", "a\x1b[2J", 0 } } }, 0, NULL, "characters that cannot be shown" },
		{ { .entries = { { "CN", "a\xc2\x9b", 0 } } }, 0, NULL, "characters that cannot be shown" },
		{ { .entries = { { "CN",
			    "a\xe2\x80\xae"
			    "b",
			    0 } } },
			0, NULL, "characters that cannot be shown" },
		{ { .entries = { { "CN", "alice\0bob", 9 } } }, 0, NULL, "characters that cannot be shown" },
		{ { .names = "DNS:host", .names_twice = 1 }, 0, NULL, "cannot be read, or is there twice" },
	};

	for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
		struct certified made = certify(&table[i].subject);
		struct cad_certificate found = { .name = "untouched" };
		struct cad_error error = { .text = "" };
		enum cad_status status =
			cad_certificate_read(made.certificate, strlen(made.certificate), &found, &error);
		if (status != (table[i].says ? CAD_ERR_INVALID : CAD_OK))
			fail_msg("case %zu: %s %s", i, cad_status_name(status), error.text);
		if (table[i].says && !strstr(error.text, table[i].says))
			fail_msg("'%s' does not say '%s'", error.text, table[i].says);
		assert_string_equal(found.name, table[i].says ? "untouched" : table[i].name);
		if (!table[i].says)
			assert_int_equal(found.role, table[i].role);
		free(made.certificate);
		free(made.key);
	}
}

static void what_is_no_certificate(void **state)
{
	(void)state;
	static const char *const texts[] = { "", "x", "-----BEGIN CERTIFICATE-----\n",
		"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" };
	struct cad_certificate found;
	struct cad_error error;

	for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
		assert_int_equal(cad_certificate_read(texts[i], strlen(texts[i]), &found, &error), CAD_ERR_INVALID);
}

/* More of them than are kept, each twice in a row and all of them again; one that
 * is refused stays refused. */
static void certificates_are_kept(void **state)
{
	(void)state;
	enum { COUNT = CAD_CERTIFICATES_KEPT + 50 };
	static struct cad_certificates kept;
	static struct certified made[COUNT];
	char name[16];
	struct cad_certificate found;
	struct cad_error error;

	for (size_t i = 0; i < COUNT; i++) {
		snprintf(name, sizeof name, "n%zu", i);
		made[i] = certify(&(struct certify_subject){
			.entries = { { "OU", "node", 0 }, { "CN", i == 7 ? "\n" : name, 0 } } });
	}
	for (size_t i = 0; i < 4 * COUNT; i++) {
		size_t which = i / 2 % COUNT;
		enum cad_status status = cad_certificates_read(
			&kept, made[which].certificate, strlen(made[which].certificate), &found, &error);
		assert_int_equal(status, which == 7 ? CAD_ERR_INVALID : CAD_OK);
		snprintf(name, sizeof name, "n%zu", which);
		if (which != 7)
			assert_string_equal(found.name, name);
	}

	cad_certificates_fini(&kept);
	for (size_t i = 0; i < COUNT; i++) {
		free(made[i].certificate);
		free(made[i].key);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(uris),
		cmocka_unit_test(certificates),
		cmocka_unit_test(what_is_no_certificate),
		cmocka_unit_test(certificates_are_kept),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
