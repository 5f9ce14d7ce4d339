/* SPDX-License-Identifier: Apache-2.0 */
/* Who may do what. */
#include "common/process/caller.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

static void roles_have_rights(void **state)
{
	(void)state;
	static const struct {
		struct cad_caller caller;
		bool read, generate, join, operate;
	} table[] = {
		{ { .role = CAD_CALLER_NOBODY, .by = CAD_BY_NOTHING }, true, true, true, false },
		{ { .role = CAD_CALLER_OPERATOR, .by = CAD_BY_LOOPBACK }, true, true, true, true },
		{ { .role = CAD_CALLER_INSPECT, .by = CAD_BY_TOKEN }, true, false, false, false },
		{ { .role = CAD_CALLER_CLIENT, .by = CAD_BY_TOKEN }, true, true, false, false },
		{ { .role = CAD_CALLER_NODE, .by = CAD_BY_CERTIFICATE }, true, false, true, false },
		{ { .role = CAD_CALLER_OPERATOR, .by = CAD_BY_BOTH }, true, true, false, true },
	};
	for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
		const struct cad_caller *caller = &table[i].caller;
		assert_int_equal(cad_caller_may(caller, CAD_RIGHT_PROBE), true);
		assert_int_equal(cad_caller_may(caller, CAD_RIGHT_READ), table[i].read);
		assert_int_equal(cad_caller_may(caller, CAD_RIGHT_GENERATE), table[i].generate);
		assert_int_equal(cad_caller_may(caller, CAD_RIGHT_JOIN), table[i].join);
		assert_int_equal(cad_caller_may(caller, CAD_RIGHT_OPERATE), table[i].operate);
	}

	static const enum cad_caller_role all[] = { CAD_CALLER_INSPECT, CAD_CALLER_CLIENT, CAD_CALLER_NODE,
		CAD_CALLER_OPERATOR };
	static const char *const covered[] = { "1000", "1100", "1010", "1101" };
	for (size_t wide = 0; wide < 4; wide++)
		for (size_t narrow = 0; narrow < 4; narrow++)
			assert_int_equal(cad_caller_role_covers(all[wide], all[narrow]), covered[wide][narrow] == '1');
}

/* Where nobody has a role, only callers on this machine are operators. */
static void places(void **state)
{
	(void)state;
	static const struct {
		const char *peer, *address;
		bool here;
	} table[] = {
		{ "ipv4:127.0.0.1:4711", "127.0.0.1:4711", true },
		{ "ipv4:127.8.9.10:4711", "127.8.9.10:4711", true },
		{ "ipv6:%5B::1%5D:4711", "[::1]:4711", true },
		{ "ipv6:[::1]:4711", "[::1]:4711", true },
		{ "ipv6:%5b::ffff:127.0.0.1%5d:4711", "[::ffff:127.0.0.1]:4711", true },
		{ "unix:", "unix:", true },
		{ "unix:/run/%5B", "unix:/run/%5B", true },
		{ "ipv4:10.0.0.7:4711", "10.0.0.7:4711", false },
		{ "ipv4:128.0.0.1:4711", "128.0.0.1:4711", false },
		{ "ipv6:%5Bfe80::1%25eth0%5D:4711", "[fe80::1%eth0]:4711", false },
		{ "ipv6:%5B::ffff:10.0.0.7%5D:4711", "[::ffff:10.0.0.7]:4711", false },
		{ "ipv4:localhost.example:4711", "localhost.example:4711", false },
		{ "vsock:1:2", "vsock:1:2", false },
		{ "ipv4:127.0.0.1%", "127.0.0.1%", false },
		{ "ipv4:%3", "%3", false },
		{ "", "", false },
	};
	for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
		struct cad_caller caller = { .role = CAD_CALLER_NODE };
		cad_address_of_peer(table[i].peer, caller.peer, sizeof caller.peer);
		assert_string_equal(caller.peer, table[i].address);
		cad_caller_place(&caller);
		if (cad_caller_may(&caller, CAD_RIGHT_OPERATE) != table[i].here)
			fail_msg("%s", table[i].peer);
		assert_true(cad_caller_may(&caller, CAD_RIGHT_JOIN));
		assert_int_equal(caller.role, table[i].here ? CAD_CALLER_OPERATOR : CAD_CALLER_NOBODY);
	}

	char shorter[8], host[CAD_ADDRESS_HOST_BYTES];
	cad_address_of_peer("ipv4:10.0.0.7:4711", shorter, sizeof shorter);
	assert_string_equal(shorter, "10.0.0.");
	cad_address_host("[fd00::7]:4711", host);
	assert_string_equal(host, "fd00::7");
	cad_address_host("unix:/run/x", host);
	assert_string_equal(host, "unix:/run/x");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(roles_have_rights),
		cmocka_unit_test(places),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
