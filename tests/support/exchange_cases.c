/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/exchange_cases.h"

#include "common/transport/ucx.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static const struct {
	const char *name;
	enum exchange_form form;
} forms[] = {
	{ "local", EXCHANGE_LOCAL },
	{ "attached", EXCHANGE_ATTACHED },
	{ "sim", EXCHANGE_SIM },
	{ "ucx-tcp", EXCHANGE_UCX },
	{ "ucx-shm", EXCHANGE_UCX_SHM },
};

enum { FORMS = sizeof forms / sizeof *forms, CASES_MAX = 64, NAME_BYTES = 64 };

struct chosen {
	const struct exchange_case *kase;
	enum exchange_form form;
};

static void run_case(void **state)
{
	const struct chosen *chosen = *state;
	struct exchange exchange;
	exchange_init(&exchange, chosen->form);
	chosen->kase->run(&exchange);
	exchange_fini(&exchange);
}

int exchange_cases_run(const char *group, const struct exchange_case *cases, size_t count, int argc, char **argv)
{
	static struct CMUnitTest tests[FORMS * CASES_MAX];
	static struct chosen chosen[FORMS * CASES_MAX];
	static char names[FORMS * CASES_MAX][NAME_BYTES];
	size_t tests_count = 0;

	CAD_ASSERT(count <= CASES_MAX);
	cad_transport_ucx_environment(argv);

	for (size_t i = 0; i < FORMS * count; i++) {
		const struct exchange_case *kase = &cases[i % count];
		size_t form = i / count;
		if (!(kase->forms & (1u << forms[form].form)))
			continue;
		chosen[tests_count] = (struct chosen){ kase, forms[form].form };
		snprintf(names[tests_count], NAME_BYTES, "%s/%s", forms[form].name, kase->name);
		tests[tests_count] = (struct CMUnitTest){
			.name = names[tests_count],
			.test_func = run_case,
			.initial_state = &chosen[tests_count],
		};
		tests_count++;
	}

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return _cmocka_run_group_tests(group, tests, tests_count, NULL, NULL);
}
