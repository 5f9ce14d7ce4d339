/* SPDX-License-Identifier: Apache-2.0 */
/* A load says how far it is once a second, and its rate, whoever adds to it. */
#include "common/base/progress.h"

#include "tests/support/log_pipe.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static uint64_t fake_now(void *context) { return *(const uint64_t *)context; }

static void one_line_a_second(void **state)
{
	(void)state;
	uint64_t now = 5 * CAD_NS_PER_S;
	const struct cad_clock clock = { fake_now, &now };
	struct cad_progress progress;

	cad_progress_begin(&progress, &clock, "router", 1000);
	cad_progress_add(&progress, 100);
	now += CAD_NS_PER_S - 1;
	cad_progress_add(&progress, 100);
	assert_string_equal(log_pipe_read(), "");
	now += CAD_NS_PER_S + 1;
	cad_progress_add(&progress, 200);
	cad_progress_add(&progress, 200);
	const char *line = log_pipe_read();
	assert_non_null(strstr(
		line, "component=router msg=loading bytes=400 total_bytes=1000 seconds=2 bytes_per_second=200\n"));
	assert_null(strstr(strchr(line, '\n'), "loading"));

	now += CAD_NS_PER_S / 2;
	cad_progress_add(&progress, 400);
	cad_progress_end(&progress);
	assert_non_null(strstr(log_pipe_read(),
		"component=router msg=loaded bytes=1000 total_bytes=1000 seconds=2.5 bytes_per_second=400\n"));
}

static void no_time_no_rate(void **state)
{
	(void)state;
	uint64_t now = 0;
	const struct cad_clock clock = { fake_now, &now };
	struct cad_progress progress;
	cad_progress_begin(&progress, &clock, "router", 0);
	cad_progress_end(&progress);
	assert_non_null(strstr(log_pipe_read(), "msg=loaded bytes=0 total_bytes=0 seconds=0 bytes_per_second=0\n"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(one_line_a_second, log_pipe_open, log_pipe_close),
		cmocka_unit_test_setup_teardown(no_time_no_rate, log_pipe_open, log_pipe_close),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
