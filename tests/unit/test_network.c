/* SPDX-License-Identifier: Apache-2.0 */
/* The network of a cluster, on a machine that this test makes up. */
#include "common/base/network.h"
#include "tests/support/must.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* ---- the machine: these stand before the C library's ---- */

static const struct {
	const char *interface, *address; /* NULL: the line that an interface has besides */
} machine[] = {
	{ "lo", NULL },
	{ "eth0", NULL },
	{ "wg0", NULL },
	{ "six", NULL },
	{ "bare", NULL },
	{ "lo", "127.0.0.1" },
	{ "eth0", "10.0.0.5" },
	{ "eth0:1", "192.168.7.9" },
	{ "eth0:1", "192.168.7.10" },
	{ "wg0", "10.8.0.5" },
	{ "lo", "::1" },
	{ "eth0", "fe80::5" },
	{ "eth0", "fd00::5" },
	{ "six", "fd01::7" },
	{ "bare", "fe80::9" },
};
enum { LINES = sizeof machine / sizeof machine[0] };

int getifaddrs(struct ifaddrs **list)
{
	static struct ifaddrs lines[LINES];
	static union cad_ip addresses[LINES];
	for (size_t i = 0; i < LINES; i++) {
		addresses[i] = (union cad_ip){ .any.sa_family = AF_PACKET };
		if (machine[i].address)
			assert_true(cad_ip_of_text(machine[i].address, &addresses[i]));
		lines[i] = (struct ifaddrs){
			.ifa_next = i + 1 < LINES ? &lines[i + 1] : NULL,
			.ifa_name = (char *)(uintptr_t)machine[i].interface,
			.ifa_addr = strcmp(machine[i].interface, "wg0") != 0 || machine[i].address ? &addresses[i].any
												   : NULL,
		};
	}
	*list = lines;
	return 0;
}

void freeifaddrs(struct ifaddrs *list) { (void)list; }

unsigned if_nametoindex(const char *name)
{
	for (unsigned i = 0; i < LINES; i++)
		if (strcmp(machine[i].interface, name) == 0)
			return i + 1;
	return 0;
}

/* ---- what is found ---- */

static void addresses_are_found(void **state)
{
	(void)state;
	static const struct {
		const char *text, *host, *address; /* of ":7100" */
	} cases[] = {
		{ "", "127.0.0.1", "127.0.0.1:7100" },
		{ "lo", "127.0.0.1", "127.0.0.1:7100" },
		{ "eth0", "10.0.0.5", "10.0.0.5:7100" },
		{ "wg0", "10.8.0.5", "10.8.0.5:7100" },
		{ "six", "fd01::7", "[fd01::7]:7100" },
		{ "10.0.0.0/24", "10.0.0.5", "10.0.0.5:7100" },
		{ "10.0.0.77/24", "10.0.0.5", "10.0.0.5:7100" }, /* the bits after the 24th say nothing */
		{ "10.8.0.0/13", "10.8.0.5", "10.8.0.5:7100" },
		{ "192.168.7.10/32", "192.168.7.10", "192.168.7.10:7100" },
		{ "192.168.0.0/16", "192.168.7.9", "192.168.7.9:7100" }, /* two of one interface: its first one */
		{ "127.0.0.0/8", "127.0.0.1", "127.0.0.1:7100" },
		{ "fd00::/64", "fd00::5", "[fd00::5]:7100" },
		{ "fd01::7/128", "fd01::7", "[fd01::7]:7100" },
	};

	static const char *const no_addresses[] = { "", ":", ":99999", ":x", "::1:7100", "here" };

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct cad_network network;
		struct cad_error error;
		char address[CAD_ADDRESS_BYTES];
		must(cad_network_find(cases[i].text, &network, &error), &error);
		assert_string_equal(network.host, cases[i].host);
		cad_network_address(&network, ":7100", address);
		assert_string_equal(address, cases[i].address);
		cad_network_address(&network, "[fe80::1]:7100", address);
		assert_string_equal(address, "[fe80::1]:7100");
		for (size_t n = 0; n < sizeof no_addresses / sizeof no_addresses[0]; n++) {
			cad_network_address(&network, no_addresses[n], address);
			assert_string_equal(address, no_addresses[n]);
		}
	}
}

static void mistakes_get_a_sentence(void **state)
{
	(void)state;
	static const struct {
		const char *text, *says;
	} cases[] = {
		{ "eth1",
			"'eth1': there is no such interface; the interfaces of this machine: lo 127.0.0.1, eth0 10.0.0.5, wg0 10.8.0.5, lo ::1, eth0 fd00::5, six fd01::7" },
		{ "eth", "there is no such interface" },
		{ "lo:", "'lo:': there is no such interface" },
		{ "eth0:1", "'eth0:1': there is no such interface" },
		{ "bare", "'bare': this interface has no address of a network" },
		{ "10.0.0.5", "'10.0.0.5' is an address: give it as 10.0.0.5/32, or name the interface" },
		{ "fd00::5", "give it as fd00::5/128" },
		{ "172.16.0.0/12", "'172.16.0.0/12': no interface has an address in there; the interfaces of" },
		{ "fe80::/10", "no interface has an address in there" },
		{ "10.0.0.0/8", "eth0 and wg0 both have an address in there, so name the one that is meant" },
		{ "0.0.0.0/0", "lo and eth0 both have" },
		{ "10.0.0.0/33", "'10.0.0.0/33': the BITS of ADDRESS/BITS are a number from 0 to 32" },
		{ "fd00::/129", "a number from 0 to 128" },
		{ "10.0.0.0/", "a number from 0 to 32" },
		{ "10.0.0.0/-1", "a number from 0 to 32" },
		{ "10.0.0.0/255.0.0.0", "a number from 0 to 32" },
		{ "10.0.0.0/4294967296", "a number from 0 to 32" },
		{ "10.0.0.0/0032", "a number from 0 to 32" },
		{ "10.0.0/8", "'10.0.0/8' is not a subnet: give ADDRESS/BITS, like 10.0.0.0/8 or fd00::/64" },
		{ "eth0/8", "is not a subnet" },
		{ "/8", "is not a subnet" },
	};

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct cad_network network;
		struct cad_error error = { .text = "" };
		assert_int_equal(cad_network_find(cases[i].text, &network, &error), CAD_ERR_INVALID);
		if (!strstr(error.text, cases[i].says))
			fail_msg("'%s' does not say '%s'", error.text, cases[i].says);
	}
}

static void what_is_here(void **state)
{
	(void)state;
	static const char *const here[] = { "127.0.0.1", "127.9.9.9" },
				 *const elsewhere[] = { "", "localhost", "192.0.2.250", "2001:db8::9", "127.0.0.1:80",
					 "256.0.0.1" };
	for (size_t i = 0; i < sizeof here / sizeof here[0]; i++)
		assert_true(cad_address_is_here(here[i]));
	for (size_t i = 0; i < sizeof elsewhere / sizeof elsewhere[0]; i++)
		assert_false(cad_address_is_here(elsewhere[i]));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(addresses_are_found),
		cmocka_unit_test(mistakes_get_a_sentence),
		cmocka_unit_test(what_is_here),
	};
	return cmocka_run_group_tests_name("network", tests, NULL, NULL);
}
