/* SPDX-License-Identifier: Apache-2.0 */
/* Looking up hosts that need no name server. tests/cluster/test_names.py has those that do. */
#include "common/base/lookup.h"
#include "tests/support/must.h"

#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { LONG_MS = 60000 };

static struct cad_lookup *start(const char *text)
{
	struct cad_address address;
	struct cad_error error;
	must(cad_address_parse(text, &address, &error), &error);
	struct cad_lookup *lookup = cad_lookup_start(&address);
	assert_non_null(lookup);
	return lookup;
}

static void finds_an_address(void **state)
{
	(void)state;
	struct cad_lookup *lookup = start("127.0.0.9:7300");
	const struct addrinfo *found;
	struct cad_error error;

	for (int again = 0; again < 2; again++) {
		must(cad_lookup_wait(lookup, LONG_MS, &found, &error), &error);
		const struct sockaddr_in *to = (const struct sockaddr_in *)(const void *)found->ai_addr;
		assert_int_equal(to->sin_family, AF_INET);
		assert_int_equal(ntohs(to->sin_port), 7300);
		assert_int_equal(ntohl(to->sin_addr.s_addr), 0x7f000009);
		assert_int_equal(found->ai_socktype, SOCK_STREAM);
		assert_null(found->ai_next);
	}
	cad_lookup_leave(lookup);
}

static void says_why_there_is_none(void **state)
{
	(void)state;
	struct cad_lookup *lookup = start("[not-an-address]:1");
	const struct addrinfo *found;
	struct cad_error error;
	assert_int_equal(cad_lookup_wait(lookup, LONG_MS, &found, &error), CAD_ERR_UNREACHABLE);
	assert_string_equal(error.text, "not-an-address: Name or service not known");
	cad_lookup_leave(lookup);
}

static void may_be_left_at_any_time(void **state)
{
	(void)state;
	const struct addrinfo *found;
	struct cad_error error;
	for (uint32_t i = 0; i < 50; i++) {
		struct cad_lookup *lookup = start("127.0.0.9:7300");
		enum cad_status status = cad_lookup_wait(lookup, i % 2, &found, &error);
		assert_true(status == CAD_OK || status == CAD_AGAIN);
		cad_lookup_leave(lookup);
	}
	cad_lookup_leave(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(finds_an_address),
		cmocka_unit_test(says_why_there_is_none),
		cmocka_unit_test(may_be_left_at_any_time),
	};
	return cmocka_run_group_tests_name("lookup", tests, NULL, NULL);
}
