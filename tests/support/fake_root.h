/* SPDX-License-Identifier: Apache-2.0 */
/* A folder with files as the kernel has them in /proc and /sys, for one group of tests. */
#ifndef CADRE_TESTS_SUPPORT_FAKE_ROOT_H
#define CADRE_TESTS_SUPPORT_FAKE_ROOT_H

extern char fake_root[];

/* Setup and teardown of a group. */
int fake_root_create(void **state);
int fake_root_destroy(void **state);
void fake_root_write(const char *name, const char *text);

#endif
