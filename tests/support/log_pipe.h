/* SPDX-License-Identifier: Apache-2.0 */
/* A pipe that takes what the process logs, for a test to read. One at a time. */
#ifndef CADRE_TESTS_SUPPORT_LOG_PIPE_H
#define CADRE_TESTS_SUPPORT_LOG_PIPE_H

/* Setup and teardown of a test. Afterwards the log is as a process has it at first. */
int log_pipe_open(void **state);
int log_pipe_close(void **state);
/* What was logged since the last time, up to 64 KiB of it; the caller may write
 * to it until the next call. */
char *log_pipe_read(void);

#endif
