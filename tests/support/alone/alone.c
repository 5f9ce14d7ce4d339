/* SPDX-License-Identifier: Apache-2.0 */
/* Linked into tests of which ALONE_TESTS in tests/CMakeLists.txt says that they start no thread: it
 * stands in front of glibc's function, for libraries, too. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument)
{
	(void)thread;
	(void)attributes;
	(void)start;
	(void)argument;
	fprintf(stderr,
		"this test is one of ALONE_TESTS in tests/CMakeLists.txt, and starts a thread: take it out there\n");
	abort();
}
