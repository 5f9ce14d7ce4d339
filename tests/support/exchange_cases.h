/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A table of cases that is run over every form of the exchange: a test of its own for each pair,
 * named "form/case". A case gets an empty exchange and asserts.
 */
#ifndef CADRE_TESTS_SUPPORT_EXCHANGE_CASES_H
#define CADRE_TESTS_SUPPORT_EXCHANGE_CASES_H

#include "tests/support/exchange.h"

/* Sets of forms. */
enum {
	EXCHANGE_ALL = ~0u,
	/* client and server share a thread and their fate, and payloads are used where they lie */
	EXCHANGE_NOT_ATTACHED = ~(1u << EXCHANGE_ATTACHED),
	EXCHANGE_ATTACHED_ONLY = 1u << EXCHANGE_ATTACHED,
	/* the simulator's clock does not stand still while a transport is not polled */
	EXCHANGE_NOT_SIM = ~(1u << EXCHANGE_SIM),
	EXCHANGE_NEITHER = EXCHANGE_NOT_ATTACHED & EXCHANGE_NOT_SIM,
};

struct exchange_case {
	const char *name;
	void (*run)(struct exchange *exchange);
	unsigned forms;
};
#define EXCHANGE_CASE(name, forms) \
	{ \
#name, name, forms \
	}

/* All of main(): argv[1], when there is one, is the pattern of the tests to run, such as
 * 'local/dead*'. Returns how many failed. */
int exchange_cases_run(const char *group, const struct exchange_case *cases, size_t count, int argc, char **argv);

#endif
