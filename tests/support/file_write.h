/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CADRE_TESTS_SUPPORT_FILE_WRITE_H
#define CADRE_TESTS_SUPPORT_FILE_WRITE_H

/* All of a file, which is made or overwritten in place. The test fails unless it succeeds. */
void file_write(const char *path, const char *text);

#endif
