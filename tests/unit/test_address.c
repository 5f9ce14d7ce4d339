/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses: what is taken, and what a mistake is answered with. */
#include "common/base/address.h"
#include "tests/support/must.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

static void host_and_port(void **state)
{
	(void)state;
	static const struct {
		const char *text, *host;
		uint16_t port;
		bool v6;
	} cases[] = {
		{ "127.0.0.1:7000", "127.0.0.1", 7000, false },
		{ "localhost:0", "localhost", 0, false },
		{ "router.example:65535", "router.example", 65535, false },
		{ "[::1]:70", "::1", 70, true },
		{ "[fd00::7%eth0]:1", "fd00::7%eth0", 1, true },
		{ "a:00070", "a", 70, false },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct cad_address address;
		struct cad_error error;
		must(cad_address_parse(cases[i].text, &address, &error), &error);
		assert_string_equal(address.host, cases[i].host);
		assert_int_equal(address.port, cases[i].port);
		assert_string_equal(address.port_text, strrchr(cases[i].text, ':') + 1);
		assert_int_equal(address.v6, cases[i].v6);
	}
}

static void mistakes_get_a_sentence(void **state)
{
	(void)state;
	static const char *const needed = "give HOST:PORT", *const number = "a port is a number from 0 to 65535",
				 *const brackets = "needs brackets";
	const struct {
		const char *text, *says;
	} cases[] = {
		{ "", needed },
		{ ":", needed },
		{ ":70", needed },
		{ "localhost", needed },
		{ "localhost:", needed },
		{ "[", needed },
		{ "[::1", needed },
		{ "[::1]", needed },
		{ "[::1]70", needed },
		{ "[::1]x:70", needed },
		{ "[]:70", needed },
		{ "[::1]:", needed },
		{ "::1", brackets },
		{ "::1:70", "needs brackets: write [::1]:70" },
		{ "fd00::7:65535", "needs brackets: write [fd00::7]:65535" },
		{ "a:b:70", brackets },
		{ "a:x", number },
		{ "a:7x", number },
		{ "a:-1", number },
		{ "a:+1", number },
		{ "a: 1", number },
		{ "a:65536", number },
		{ "a:000070", number },
		{ "a:99999999999999999999", number },
		{ "[::1]:7]", number },
		{ ":65536", number },
		{ "a b:70", "a host has letters, digits and . - _ only" },
		{ "a,b:70", "a host has" },
		{ "a/b:70", "a host has" },
		{ "a\n:70", "a host has" },
		{ "[a b]:70", "a host has" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct cad_address address = { .port = 77 };
		struct cad_error error = { .text = "" };
		assert_int_equal(cad_address_parse(cases[i].text, &address, &error), CAD_ERR_INVALID);
		assert_non_null(strstr(error.text, cases[i].says));
		assert_int_equal(address.port, 77);
	}
}

static void a_host_has_at_most_255_characters(void **state)
{
	(void)state;
	char text[CAD_ADDRESS_HOST_BYTES + 8];
	struct cad_address address;
	struct cad_error error;
	for (size_t size = CAD_ADDRESS_HOST_BYTES - 1; size <= CAD_ADDRESS_HOST_BYTES; size++) {
		memset(text, 'h', size);
		strcpy(text + size, ":80");
		assert_int_equal(cad_address_parse(text, &address, &error),
			size < CAD_ADDRESS_HOST_BYTES ? CAD_OK : CAD_ERR_INVALID);
	}
	assert_non_null(strstr(error.text, "at most 255 characters"));
}

static void the_port_that_was_taken(void **state)
{
	(void)state;
	static const struct {
		const char *text, *out;
	} cases[] = { { "127.0.0.1:0", "127.0.0.1:4711" }, { "[::1]:0", "[::1]:4711" },
		{ "unix:/run/x", "unix:/run/x" } };
	char out[CAD_ADDRESS_BYTES];
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		cad_address_taken(cases[i].text, 4711, out, sizeof out);
		assert_string_equal(out, cases[i].out);
	}
}

static void loopback(void **state)
{
	(void)state;
	static const char *const yes[] = { "127.0.0.1:70", "127.1.2.3:0", "localhost:70", "[::1]:70", "::1",
		"unix:/run/x", "unix-abstract:x", "ipv4:127.0.0.1:9", "ipv6:[::1]:9", "dns:///localhost:9",
		"dns:localhost:9", "[::ffff:127.0.0.1]:70", "localhost" };
	static const char *const no[] = { "0.0.0.0:70", "[::]:70", "10.0.0.1:70", "example.com:70", ":70", "",
		"localhost.example.com:70", "127.0.0.1.example.com:70", "[::1", "[::1]x:70",
		"ipv4:127.0.0.1:9,10.0.0.1:9", "[::ffff:10.0.0.1]:70", "::", "*:70", "128.0.0.1:70",
		"a-name-that-is-longer-than-any-literal-address-of-the-internet-protocol:70" };
	for (size_t i = 0; i < sizeof yes / sizeof yes[0]; i++)
		if (!cad_address_is_loopback(yes[i]))
			fail_msg("%s is loopback", yes[i]);
	for (size_t i = 0; i < sizeof no / sizeof no[0]; i++)
		if (cad_address_is_loopback(no[i]))
			fail_msg("%s is not loopback", no[i]);
}

static void complete(void **state)
{
	(void)state;
	static const char *const yes[] = { "127.0.0.1:70", "localhost:0", "[::1]:70", "router.example:65535",
		"unix:/run/x" };
	static const char *const no[] = { "", ":", ":70", "localhost", "localhost:", "localhost:x", "localhost:7x",
		"localhost:65536", "localhost:99999999999999999999", "::1", "::1:70", "unix:", "localhost:-1" };
	for (size_t i = 0; i < sizeof yes / sizeof yes[0]; i++)
		if (!cad_address_is_complete(yes[i]))
			fail_msg("%s is complete", yes[i]);
	for (size_t i = 0; i < sizeof no / sizeof no[0]; i++)
		if (cad_address_is_complete(no[i]))
			fail_msg("%s is not complete", no[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(host_and_port),
		cmocka_unit_test(mistakes_get_a_sentence),
		cmocka_unit_test(a_host_has_at_most_255_characters),
		cmocka_unit_test(the_port_that_was_taken),
		cmocka_unit_test(loopback),
		cmocka_unit_test(complete),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
