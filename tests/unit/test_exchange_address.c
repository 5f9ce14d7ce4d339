/* SPDX-License-Identifier: Apache-2.0 */
/* The text by which peers connect, and which libraries work together. */
#include "common/transport/exchange_address.h"
#include "tests/support/must.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

static void there_and_back(void **state)
{
	(void)state;
	char text[CAD_EXCHANGE_ADDRESS_BYTES], host[CAD_ADDRESS_BYTES];
	struct cad_exchange_address in = {
		.host = "[fd00::7]:7400",
		.library = "ucx-1.13.1",
		.session = 0x0123456789abcdef,
	};

	for (size_t bytes = 1; bytes <= CAD_EXCHANGE_WORKER_BYTES_MAX; bytes += bytes < 64 ? 1 : 684) {
		struct cad_exchange_address out;
		struct cad_error error;
		in.worker_bytes = bytes;
		for (size_t i = 0; i < bytes; i++)
			in.worker[i] = (uint8_t)(i * 37 + bytes);
		cad_exchange_address_text(&in, text);
		must(cad_exchange_address_parse(text, &out, &error), &error);
		assert_string_equal(out.host, in.host);
		assert_string_equal(out.library, in.library);
		assert_true(out.session == in.session);
		assert_int_equal(out.worker_bytes, bytes);
		assert_memory_equal(out.worker, in.worker, bytes);
	}

	cad_exchange_address_host(text, host);
	assert_string_equal(host, in.host);
	cad_exchange_address_host("local-3", host);
	assert_string_equal(host, "local-3");
}

static void longest_parts_fit(void **state)
{
	(void)state;
	char text[CAD_EXCHANGE_ADDRESS_BYTES];
	struct cad_exchange_address in = { .session = UINT64_MAX, .worker_bytes = CAD_EXCHANGE_WORKER_BYTES_MAX }, out;
	struct cad_error error;
	memset(in.host, 'h', sizeof in.host - 1);
	memset(in.library, 'l', sizeof in.library - 1);
	cad_exchange_address_text(&in, text);
	must(cad_exchange_address_parse(text, &out, &error), &error);
	assert_string_equal(out.host, in.host);
}

static void mistakes_get_a_sentence(void **state)
{
	(void)state;
	static const char *const wrong[] = { "", "127.0.0.1:7400", "h:1/ucx-1.13.1/0123456789abcdef/",
		"h:1/ucx-1.13.1/0123456789abcdef", "h:1/ucx-1.13.1/0123456789abcde/AAEC",
		"h:1/ucx-1.13.1/0123456789abcdeg/AAEC", "h:1/ucx-1.13.1/0000000000000000/AAEC",
		"h:1//0123456789abcdef/AAEC", "/ucx-1.13.1/0123456789abcdef/AAEC",
		"h:1/ucx-1.13.1/0123456789abcdef/AA*C", "h:1/ucx-1.13.1/0123456789abcdef/AAEC\xd9wQF",
		"h:1/ucx-1.13.1/0123456789abcdef/AAEC/",
		"h:1/ucx-1.13.1-with-a-name-that-is-too-long/0123456789abcdef/AAEC" };
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
		struct cad_exchange_address out;
		struct cad_error error;
		assert_int_equal(cad_exchange_address_parse(wrong[i], &out, &error), CAD_ERR_INVALID);
		assert_non_null(strstr(error.text, wrong[i]));
	}

	char text[CAD_EXCHANGE_ADDRESS_BYTES + 64];
	struct cad_exchange_address out;
	struct cad_error error;
	int size = snprintf(text, sizeof text, "h:1/ucx-1.13.1/0123456789abcdef/");
	memset(text + size, 'A', sizeof text - (size_t)size - 1);
	text[sizeof text - 1] = 0;
	assert_int_equal(cad_exchange_address_parse(text, &out, &error), CAD_ERR_INVALID);
}

static void libraries(void **state)
{
	(void)state;
	static const struct {
		const char *a, *b;
		bool work;
	} pairs[] = {
		{ "ucx-1.13.1", "ucx-1.13.1", true },
		{ "ucx-1.13.1", "ucx-1.13.0", true },
		{ "ucx-1.13.1", "ucx-1.18.1", true },
		{ "ucx-1.13.1", "ucx-1.20.1", false },
		{ "ucx-1.13.1", "ucx-1.22.0", false },
		{ "ucx-1.19.0", "ucx-1.22.0", false },
		{ "ucx-1.18.1", "ucx-1.19.0", false },
		{ "ucx-1.13.1", "ucx-2.13.1", false },
		{ "ucx-2.13.1", "ucx-2.18.1", false },
		{ "ucx-1.13.1", "rails-1.13.1", false },
		{ "ucx-", "ucx-1.13.1", false },
		{ "tcp-1", "tcp-1", true },
	};
	for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
		assert_int_equal(cad_exchange_libraries_work(pairs[i].a, pairs[i].b), pairs[i].work);
		assert_int_equal(cad_exchange_libraries_work(pairs[i].b, pairs[i].a), pairs[i].work);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(there_and_back),
		cmocka_unit_test(longest_parts_fit),
		cmocka_unit_test(mistakes_get_a_sentence),
		cmocka_unit_test(libraries),
	};
	return cmocka_run_group_tests_name("exchange_address", tests, NULL, NULL);
}
