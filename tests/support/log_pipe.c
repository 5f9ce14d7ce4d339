/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/log_pipe.h"

#include "common/base/log.h"

#include <fcntl.h>
#include <unistd.h>

static int ends[2];

/* Writers wait for room, so that no line is lost; who reads does not wait for lines. */
int log_pipe_open(void **state)
{
	(void)state;
	if (pipe2(ends, O_CLOEXEC) != 0 || fcntl(ends[0], F_SETFL, O_NONBLOCK) != 0)
		return -1;
	cad_log_set_fd(ends[1]);
	return 0;
}

int log_pipe_close(void **state)
{
	(void)state;
	cad_log_setup(CAD_LOG_INFO, CAD_LOG_LOGFMT);
	cad_log_set_fd(STDERR_FILENO);
	close(ends[0]);
	close(ends[1]);
	return 0;
}

char *log_pipe_read(void)
{
	static char text[1 << 16];
	ssize_t got = read(ends[0], text, sizeof text - 1);
	text[got > 0 ? got : 0] = 0;
	return text;
}
