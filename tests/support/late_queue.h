/* SPDX-License-Identifier: Apache-2.0 */
/* The late device's queues: what is put on them waits for `wait`. */
#ifndef CADRE_TESTS_SUPPORT_LATE_QUEUE_H
#define CADRE_TESTS_SUPPORT_LATE_QUEUE_H

#include "kernels/kernels.h"

/* Fills in queues, copies and operators. */
void late_queue_ops(struct kn_ops *ops);

#endif
