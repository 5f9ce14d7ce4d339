/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of operators do with a case (op_cases.h): its reference, and parts of it on any
 * device, compared with that bit for bit. Asserts through cmocka. */
#ifndef CADRE_TESTS_SUPPORT_OP_CHECK_H
#define CADRE_TESTS_SUPPORT_OP_CHECK_H

#include "tests/support/op_cases.h"

/* NULL: this machine has no such device. `threads` is the queue's. */
struct kn_queue *op_queue_open(const struct kn_device_options *options, unsigned threads);
void op_queue_close(struct kn_queue *queue);

void op_get_output(struct op_state *state, uint8_t *bytes);
/* Runs rows first .. first + rows - 1 on poisoned memory: those rows are as expected, all others
 * untouched. `got` has room for all rows. */
void op_check_part(
	struct op_state *state, const uint8_t *expected, uint8_t *got, size_t first, size_t rows, const char *where);

#endif
