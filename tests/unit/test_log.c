/* SPDX-License-Identifier: Apache-2.0 */
/* Log lines: formats, escapes, the cut of a long line, and lines of several threads that never
 * mix. */
#include "common/base/log.h"
#include "tests/support/log_pipe.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <jansson.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

static void logfmt_line(void **state)
{
	(void)state;
	cad_log_setup(CAD_LOG_INFO, CAD_LOG_LOGFMT);
	cad_log_info("control", "joined the cluster", CAD_S("address", "127.0.0.1:7300"), CAD_U("lease_ms", 3000),
		CAD_I("step", -3), CAD_F("load", 0.25), CAD_B("first", true), CAD_REQUEST("r-1"), CAD_S("empty", ""),
		CAD_S("none", NULL), CAD_S("odd", "a \"b\"\\\n\x01"));
	const char *line = log_pipe_read();
	assert_int_equal(strncmp(line, "time=20", 7), 0);
	assert_non_null(strstr(line,
		"Z level=info component=control msg=\"joined the cluster\" address=127.0.0.1:7300 lease_ms=3000 step=-3 load=0.25 first=true "
		"request=r-1 empty=\"\" none=\"\" odd=\"a \\\"b\\\"\\\\\\n\\u0001\"\n"));
}

static void message_alone(void **state)
{
	(void)state;
	cad_log_warn("a", "b");
	assert_non_null(strstr(log_pipe_read(), "level=warn component=a msg=b\n"));
}

static void level_is_respected(void **state)
{
	(void)state;
	cad_log_setup(CAD_LOG_WARN, CAD_LOG_LOGFMT);
	assert_false(cad_log_enabled(CAD_LOG_INFO));
	cad_log_info("a", "unseen");
	cad_log_error("a", "seen");
	const char *line = log_pipe_read();
	assert_null(strstr(line, "unseen"));
	assert_non_null(strstr(line, "level=error component=a msg=seen\n"));
}

static void json_line_parses(void **state)
{
	(void)state;
	cad_log_setup(CAD_LOG_DEBUG, CAD_LOG_JSON);
	cad_log_debug("control", "x \"y\" \xff\xc3\xa9 \xe2\x80\xae \xc2\x9b", CAD_F("nan", NAN), CAD_F("half", 0.5),
		CAD_U("big", UINT64_MAX), CAD_I("low", INT64_MIN), CAD_B("no", false));
	json_t *root = json_loads(log_pipe_read(), JSON_DECODE_INT_AS_REAL, NULL);
	assert_non_null(root);
	assert_string_equal(json_string_value(json_object_get(root, "msg")),
		"x \"y\" \xef\xbf\xbd\xc3\xa9 \xef\xbf\xbd \xef\xbf\xbd");
	assert_string_equal(json_string_value(json_object_get(root, "nan")), "nan");
	assert_string_equal(json_string_value(json_object_get(root, "level")), "debug");
	assert_true(json_real_value(json_object_get(root, "half")) == 0.5);
	assert_true(json_is_false(json_object_get(root, "no")));
	json_decref(root);
}

/* Whatever its length, a line ends in one newline, stays inside its limit and (as JSON) parses. */
static void long_lines_are_cut(void **state)
{
	(void)state;
	cad_log_setup(CAD_LOG_INFO, CAD_LOG_JSON);
	char value[2 * CAD_LOG_LINE_BYTES];
	for (size_t length = CAD_LOG_LINE_BYTES - 260; length < CAD_LOG_LINE_BYTES + 40; length++) {
		memset(value, 'x', sizeof value);
		for (size_t i = 0; i + 3 < length; i += 3)
			memcpy(value + i, i % 2 ? "\xe2\x82\xac" : "\"\"\"", 3);
		value[length] = 0;
		cad_log_info("a", "long", CAD_S("value", value), CAD_S("after", value));
		const char *line = log_pipe_read();
		size_t bytes = strlen(line);
		assert_true(bytes <= CAD_LOG_LINE_BYTES);
		assert_int_equal(line[bytes - 1], '\n');
		json_error_t error;
		json_t *root = json_loads(line, 0, &error);
		assert_non_null(root);
		json_decref(root);
	}
}

enum { THREADS = 4, LINES = 100 };

static void *write_lines(void *argument)
{
	for (int i = 0; i < LINES; i++)
		cad_log_info(
			"thread", "line", CAD_S("who", (const char *)argument), CAD_S("again", (const char *)argument));
	return NULL;
}

static void threads_do_not_mix(void **state)
{
	(void)state;
	cad_log_setup(CAD_LOG_INFO, CAD_LOG_LOGFMT);
	static const char *const names[THREADS] = { "aaaa", "bbbbbbbb", "cccccccccccc", "dddddddddddddddd" };
	pthread_t threads[THREADS];
	for (size_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, write_lines, (void *)(uintptr_t)names[i]), 0);
	for (size_t i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	char *lines = log_pipe_read();
	size_t seen = 0;
	for (const char *line; (line = strsep(&lines, "\n")) && *line;) {
		char who[64], again[64];
		const char *at = strstr(line, "msg=line ");
		assert_non_null(at);
		assert_int_equal(sscanf(at, "msg=line who=%63s again=%63s", who, again), 2);
		assert_string_equal(who, again);
		seen++;
	}

	assert_int_equal(seen, THREADS * LINES);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(logfmt_line, log_pipe_open, log_pipe_close),
		cmocka_unit_test_setup_teardown(message_alone, log_pipe_open, log_pipe_close),
		cmocka_unit_test_setup_teardown(level_is_respected, log_pipe_open, log_pipe_close),
		cmocka_unit_test_setup_teardown(json_line_parses, log_pipe_open, log_pipe_close),
		cmocka_unit_test_setup_teardown(long_lines_are_cut, log_pipe_open, log_pipe_close),
		cmocka_unit_test_setup_teardown(threads_do_not_mix, log_pipe_open, log_pipe_close),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
