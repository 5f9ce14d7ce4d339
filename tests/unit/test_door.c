/* SPDX-License-Identifier: Apache-2.0 */
/* Who may join at all: proofs of the secret, addresses, libraries; and how refusals are
 * remembered. */
#include "cadre/v1/placement.pb-c.h"
#include "common/base/utf8.h"
#include "orchestration/placement/door.h"
#include "proto/cadre_wire.h"
#include "tests/support/must.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct pl_registry nobody;

/* Of an expert node that may join; it takes any cluster. */
static Cadre__V1__NodeHello hello_at(const char *exchange_address)
{
	Cadre__V1__NodeHello hello = CADRE__V1__NODE_HELLO__INIT;
	hello.id = "a";
	hello.role = CADRE__V1__ROLE__ROLE_EXPERT;
	hello.exchange_version = CADRE_WIRE_VERSION;
	hello.exchange_address = (char *)(uintptr_t)exchange_address;
	return hello;
}

/* One that carries a proof of another's to another address, one that asks
 * twice, and one that replays. */
static void proofs_cannot_be_carried(void **state)
{
	(void)state;
	const char *secret = "sixteen bytes and more";
	struct pl_door door = { .secret = secret, .cluster = "test" };
	struct pl_guest guest = { .challenged = false }, again = guest;
	Cadre__V1__Challenge challenge = CADRE__V1__CHALLENGE__INIT;
	Cadre__V1__NodeHello hello = hello_at("x:1");
	struct cad_proof_nonces nonces;
	uint8_t mac[CAD_PROOF_BYTES], want[CAD_PROOF_BYTES];
	struct cad_error error;

	cad_proof_nonce(nonces.member);
	challenge.id = "a";
	challenge.nonce = (ProtobufCBinaryData){ CAD_PROOF_BYTES, nonces.member };
	must(pl_door_challenge(&door, &guest, &challenge, mac, &error), &error);
	memcpy(nonces.service, guest.nonces.service, CAD_PROOF_BYTES);
	cad_proof_of_service(secret, &nonces, "test", want);
	assert_memory_equal(mac, want, CAD_PROOF_BYTES);
	assert_int_equal(pl_door_challenge(&door, &guest, &challenge, mac, &error), CAD_ERR_INVALID);

	hello.cluster = "test";
	cad_proof_of_member(secret, &nonces, &hello, mac);
	hello.mac = (ProtobufCBinaryData){ CAD_PROOF_BYTES, mac };
	must(pl_door_hello(&door, &guest, &hello, "", &nobody, &error), &error);
	hello.exchange_address = "x:2";
	assert_int_equal(pl_door_hello(&door, &guest, &hello, "", &nobody, &error), CAD_ERR_REFUSED);
	hello.exchange_address = "x:1";
	hello.role = CADRE__V1__ROLE__ROLE_ROUTER;
	assert_int_equal(pl_door_hello(&door, &guest, &hello, "", &nobody, &error), CAD_ERR_REFUSED);
	hello.role = CADRE__V1__ROLE__ROLE_EXPERT;
	hello.mac.len = CAD_PROOF_BYTES - 1;
	assert_int_equal(pl_door_hello(&door, &guest, &hello, "", &nobody, &error), CAD_ERR_REFUSED);
	hello.mac = (ProtobufCBinaryData){ CAD_PROOF_BYTES, want }; /* its own, reflected */
	assert_int_equal(pl_door_hello(&door, &guest, &hello, "", &nobody, &error), CAD_ERR_REFUSED);

	/* the same words again: the service's nonce is another */
	hello.mac = (ProtobufCBinaryData){ CAD_PROOF_BYTES, mac };
	must(pl_door_hello(&door, &guest, &hello, "", &nobody, &error), &error);
	assert_false(guest.stranger);
	must(pl_door_challenge(&door, &again, &challenge, want, &error), &error);
	assert_int_equal(pl_door_hello(&door, &again, &hello, "", &nobody, &error), CAD_ERR_REFUSED);
	assert_true(again.stranger);
}

/* Whatever a stranger calls itself: one name that is not text, and nobody could read the status. */
static void refusals_stay_text(void **state)
{
	(void)state;
	static struct pl_door door;
	char id[100], why[CAD_ERROR_TEXT_BYTES];

	for (size_t length = 1; length < sizeof id; length++) {
		memset(id, 'x', sizeof id);
		snprintf(id + length - 1, sizeof id - length + 1, "\xc3\xa4");
		snprintf(why, sizeof why, "'%.63s' may\n\x1b[31mnot", id);
		(void)pl_door_remember(&door, id, why, length);
		assert_false(pl_door_remember(&door, id, why, length));
		for (int i = 0; i < PL_REFUSALS_MAX; i++) {
			const struct pl_refusal *refusal = &door.refusals[i];
			assert_true(cad_utf8_is_printable(refusal->id, strlen(refusal->id)));
			assert_true(cad_utf8_is_printable(refusal->why, strlen(refusal->why)));
		}
	}
}

/* What a hello says lands in logs, refusals and the status. */
static void texts_that_cannot_be_shown_are_refused(void **state)
{
	(void)state;
	struct pl_door door = { .cluster = "test" };
	Cadre__V1__NodeHello hello = hello_at("x:1");
	char **const texts[] = { &hello.id, &hello.cluster, &hello.exchange_address, &hello.http_address,
		&hello.grpc_address, &hello.version, &hello.isa, &hello.model_fingerprint, &hello.kernels_fingerprint,
		&hello.settings_fingerprint, &hello.settings, &hello.router_checksum };
	static const char *const wrong[] = { "\x1b[31mE\n:1", "x\nATTENTION: y:1", "\xc2\x9b[2J:1", "\xe2\x80\xaex:1" };
	struct cad_error error;

	hello.cluster = "test";
	for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
		for (size_t k = 0; k < sizeof wrong / sizeof wrong[0]; k++) {
			struct pl_guest guest = { .challenged = false };
			char *right = *texts[i];
			*texts[i] = (char *)(uintptr_t)wrong[k];
			assert_int_equal(pl_door_hello(&door, &guest, &hello, "", &nobody, &error), CAD_ERR_INVALID);
			*texts[i] = right;
			assert_non_null(strstr(error.text, "' has characters that cannot be shown in its "));
			assert_true(cad_utf8_is_printable(error.text, strlen(error.text)));
			assert_true(cad_utf8_is_printable(guest.id, strlen(guest.id)));
			must(pl_door_hello(&door, &guest, &hello, "", &nobody, &error), &error);
		}
}

/* In a hello and later alike. */
static void what_is_no_exchange_address_is_refused(void **state)
{
	(void)state;
	static const char *const wrong[] = { "x", "x:", ":1", "x:y", "x y:1", "<b>:1", "local-3", "::1:5",
		"/ucx-1.13.1/0123456789abcdef/AAAA", "x/ucx-1.13.1/0123456789abcdef/AAAA",
		"x y:1/ucx-1.13.1/0123456789abcdef/AAAA", "x:1/ucx-1.13.1" };
	const struct pl_guest guest = { .id = "a" };
	struct cad_error error;

	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
		assert_int_equal(pl_door_exchange_address(&guest, wrong[i], &error), CAD_ERR_INVALID);
		if (!strstr(error.text, "exchange address of 'a': '"))
			fail_msg("%s", error.text);
		struct pl_door door = { .cluster = "test" };
		struct pl_guest knocking = { .challenged = false };
		const Cadre__V1__NodeHello hello = hello_at(wrong[i]);
		assert_int_equal(pl_door_hello(&door, &knocking, &hello, "", &nobody, &error), CAD_ERR_INVALID);
	}
	must(pl_door_exchange_address(&guest, "", &error), &error);
	must(pl_door_exchange_address(&guest, "[fe80::1%eth0]:1", &error), &error);
	must(pl_door_exchange_address(&guest, "node_7.example:7420/ucx-1.13.1/0123456789abcdef/AAAA", &error), &error);
}

static void addresses_are(const char *exchange, const char *peer, const char *why)
{
	struct pl_door door = { .cluster = "test" };
	struct pl_guest guest = { .challenged = false };
	const Cadre__V1__NodeHello hello = hello_at(exchange);
	struct cad_error error = { .text = "" };

	assert_int_equal(pl_door_hello(&door, &guest, &hello, peer, &nobody, &error), why ? CAD_ERR_REFUSED : CAD_OK);
	if (why && !strstr(error.text, why))
		fail_msg("'%s' does not say '%s'", error.text, why);
}

/* 192.0.2.0/24 and 2001:db8::/32 are no machine's. */
static void addresses_that_nobody_can_use_are_refused(void **state)
{
	(void)state;
	addresses_are("127.0.0.1:7400", "ipv4:192.0.2.7:5000",
		"'a' joins from 192.0.2.7 but gives 127.0.0.1:7400 as its exchange address, which no other machine can reach");
	addresses_are("[::1]:7400", "ipv6:%5B2001:db8::7%5D:5000", "'a' joins from 2001:db8::7 but gives [::1]:7400");
	addresses_are("localhost:7400", "ipv4:192.0.2.7:5000", "which no other machine can reach");
	addresses_are("0.0.0.0:7400", "ipv4:127.0.0.1:5000", "'a' gives 0.0.0.0:7400 as its exchange address");
	addresses_are("[::]:7400", "ipv4:192.0.2.7:5000", "where nobody can connect");
	addresses_are("127.0.0.1:7400", "ipv4:127.0.0.1:5000", NULL);
	addresses_are("127.0.0.1:7400", "ipv6:%5B::1%5D:5000", NULL);
	addresses_are("192.0.2.7:7400", "ipv4:192.0.2.7:5000", NULL);
	addresses_are("node-7.example:7400", "ipv4:192.0.2.7:5000", NULL);
	addresses_are("127.0.0.1:7400/ucx-1.13.1/0123456789abcdef/AAAA", "ipv4:192.0.2.7:5000",
		"gives 127.0.0.1:7400 as its exchange address");
}

/* The first that is there decides; a process that comes back with another version is no reason
 * against itself. */
static void libraries_that_do_not_work_together_are_refused(void **state)
{
	(void)state;
	static const struct {
		const char *library, *why;
	} cases[] = {
		{ "ucx-1.13.1", NULL },
		{ "ucx-1.18.1", NULL },
		{ "ucx-1.22.0", "'new' has ucx-1.22.0 and 'old' has ucx-1.13.1, which are not known to work together" },
		{ "other-2.0.0", "'new' has other-2.0.0 and 'old' has ucx-1.13.1" },
	};
	struct pl_door door = { .cluster = "test" };
	struct pl_registry *registry = calloc(1, sizeof *registry);
	assert_non_null(registry);
	registry->nodes[3] = (struct pl_node){ .presence = PL_LIVE, .id = "old" };
	snprintf(registry->nodes[3].exchange_address, CAD_EXCHANGE_ADDRESS_BYTES,
		"h:1/ucx-1.13.1/0123456789abcdef/AAAA");

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct pl_guest guest = { .challenged = false };
		struct cad_error error = { .text = "" };
		char address[128];
		snprintf(address, sizeof address, "g:1/%s/0123456789abcdef/AAAA", cases[i].library);
		Cadre__V1__NodeHello hello = hello_at(address);
		hello.id = "new";
		assert_int_equal(pl_door_hello(&door, &guest, &hello, "", registry, &error),
			cases[i].why ? CAD_ERR_REFUSED : CAD_OK);
		assert_true(!cases[i].why || strstr(error.text, cases[i].why));
		hello.id = "old";
		must(pl_door_hello(&door, &guest, &hello, "", registry, &error), &error);
	}
	free(registry);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(proofs_cannot_be_carried),
		cmocka_unit_test(refusals_stay_text),
		cmocka_unit_test(texts_that_cannot_be_shown_are_refused),
		cmocka_unit_test(what_is_no_exchange_address_is_refused),
		cmocka_unit_test(addresses_that_nobody_can_use_are_refused),
		cmocka_unit_test(libraries_that_do_not_work_together_are_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
