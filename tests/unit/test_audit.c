/* SPDX-License-Identifier: Apache-2.0 */
/* The audit log: its lines, how many there may be, and that nothing is left out silently. */
#include "common/base/log.h"
#include "common/process/audit.h"
#include "tests/support/log_pipe.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

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
	const char *line = log_pipe_read();
	assert_non_null(strstr(line,
		" level=audit component=audit msg=refused method=Join role=client name=alice by=certificate peer=10.0.0.7:51234 node=\"\" why=\"not a node\"\n"));

	cad_log_setup(CAD_LOG_ERROR, CAD_LOG_JSON);
	cad_audit_write(&audit, CAD_AUDIT_JOINED, &alice, "Join", "expert-0", "");
	line = log_pipe_read();
	assert_non_null(strstr(line,
		"\"level\":\"audit\",\"component\":\"audit\",\"msg\":\"joined\",\"method\":\"Join\",\"role\":\"client\",\"name\":\"alice\",\"by\":\"certificate\",\"peer\":\"10.0.0.7:51234\",\"node\":\"expert-0\",\"why\":\"\"}\n"));
	cad_audit_fini(&audit);
	assert_string_equal(log_pipe_read(), "");
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
		written += lines_of(log_pipe_read(), "msg=refused");
	}
	assert_int_equal(written, 20);

	/* no flood of these hides the others */
	cad_audit_write(&audit, CAD_AUDIT_JOINED, &alice, "Join", "expert-0", "");
	cad_audit_write(&audit, CAD_AUDIT_CALLED, &alice, "Move", "", "");
	const char *text = log_pipe_read();
	assert_int_equal(lines_of(text, "msg=joined"), 1);
	assert_int_equal(lines_of(text, "msg=called"), 1);

	/* the number is said within so many seconds, once, and a few lines go on each second */
	for (int second = 0; second < CAD_AUDIT_SAY_S; second++) {
		assert_string_equal(log_pipe_read(), "");
		cad_audit_tick(&audit);
	}
	text = log_pipe_read();
	assert_non_null(strstr(text, "component=audit msg=\"lines were left out\" of=refused lines=980\n"));
	assert_int_equal(lines_of(text, "\n"), 1);
	for (written = 0; written < 100;) {
		cad_audit_write(&audit, CAD_AUDIT_REFUSED, &alice, "Join", "", "no");
		if (lines_of(log_pipe_read(), "msg=refused") == 0)
			break;
		written++;
	}
	assert_int_equal(written, 20);

	/* at the end at the latest */
	cad_audit_fini(&audit);
	assert_non_null(strstr(log_pipe_read(), "of=refused lines=1\n"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(lines_have_their_fields, log_pipe_open, log_pipe_close),
		cmocka_unit_test_setup_teardown(a_flood_is_counted, log_pipe_open, log_pipe_close),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
