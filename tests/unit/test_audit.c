/* SPDX-License-Identifier: Apache-2.0 */
/* The audit log: its lines, how many there may be, and that nothing is left out silently. */
#include "common/base/log.h"
#include "common/process/audit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int ends[2];

static int pipe_open(void **state)
{
	(void)state;
	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0)
		return -1;
	cad_log_set_fd(ends[1]);
	return 0;
}

static int pipe_close(void **state)
{
	(void)state;
	cad_log_setup(CAD_LOG_INFO, CAD_LOG_LOGFMT);
	cad_log_set_fd(STDERR_FILENO);
	close(ends[0]);
	close(ends[1]);
	return 0;
}

/* What was logged since the last time. */
static const char *logged(void)
{
	static char text[1 << 16];
	ssize_t got = read(ends[0], text, sizeof text - 1);
	text[got > 0 ? got : 0] = 0;
	return text;
}

static unsigned lines_of(const char *text, const char *words)
{
	unsigned count = 0;
	for (; (text = strstr(text, words)); text++)
		count++;
	return count;
}

static const struct cad_caller alice = {
	.role = CAD_CALLER_CLIENT, .by = CAD_BY_CERTIFICATE, .name = "alice", .peer = "10.0.0.7:51234"
};

/* At every level, in both formats. */
static void lines_have_their_fields(void **state)
{
	(void)state;
	struct cad_audit audit;

	cad_audit_init(&audit);
	cad_log_setup(CAD_LOG_ERROR, CAD_LOG_LOGFMT);
	cad_audit_write(&audit, CAD_AUDIT_REFUSED, &alice, "Join", "", "not a node");
	const char *line = logged();
	assert_non_null(strstr(line,
		" level=audit component=audit msg=refused method=Join role=client name=alice by=certificate peer=10.0.0.7:51234 node=\"\" why=\"not a node\"\n"));

	cad_log_setup(CAD_LOG_ERROR, CAD_LOG_JSON);
	cad_audit_write(&audit, CAD_AUDIT_JOINED, &alice, "Join", "expert-0", "");
	line = logged();
	assert_non_null(strstr(line,
		"\"level\":\"audit\",\"component\":\"audit\",\"msg\":\"joined\",\"method\":\"Join\",\"role\":\"client\",\"name\":\"alice\",\"by\":\"certificate\",\"peer\":\"10.0.0.7:51234\",\"node\":\"expert-0\",\"why\":\"\"}\n"));
	cad_audit_fini(&audit);
	assert_string_equal(logged(), "");
}

static void a_flood_is_counted(void **state)
{
	(void)state;
	struct cad_audit audit;
	unsigned written = 0;

	cad_audit_init(&audit);
	cad_log_setup(CAD_LOG_ERROR, CAD_LOG_LOGFMT);
	for (int i = 0; i < 1000; i++) {
		cad_audit_write(&audit, CAD_AUDIT_REFUSED, &alice, "Join", "", "no");
		written += lines_of(logged(), "msg=refused");
	}
	assert_int_equal(written, 20);

	/* no flood of these hides the others */
	cad_audit_write(&audit, CAD_AUDIT_JOINED, &alice, "Join", "expert-0", "");
	cad_audit_write(&audit, CAD_AUDIT_CALLED, &alice, "Move", "", "");
	const char *text = logged();
	assert_int_equal(lines_of(text, "msg=joined"), 1);
	assert_int_equal(lines_of(text, "msg=called"), 1);

	/* the number is said within so many seconds, once, and a few lines go on each second */
	for (int second = 0; second < CAD_AUDIT_SAY_S; second++) {
		assert_string_equal(logged(), "");
		cad_audit_tick(&audit);
	}
	text = logged();
	assert_non_null(strstr(text, "component=audit msg=\"lines were left out\" of=refused lines=980\n"));
	assert_int_equal(lines_of(text, "\n"), 1);
	for (written = 0; written < 100;) {
		cad_audit_write(&audit, CAD_AUDIT_REFUSED, &alice, "Join", "", "no");
		if (lines_of(logged(), "msg=refused") == 0)
			break;
		written++;
	}
	assert_int_equal(written, 20);

	/* at the end at the latest */
	cad_audit_fini(&audit);
	assert_non_null(strstr(logged(), "of=refused lines=1\n"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(lines_have_their_fields, pipe_open, pipe_close),
		cmocka_unit_test_setup_teardown(a_flood_is_counted, pipe_open, pipe_close),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
