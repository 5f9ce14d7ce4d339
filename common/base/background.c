/* SPDX-License-Identifier: Apache-2.0 */
#include "common/base/background.h"

#include <sched.h>

/* A low priority is not enough: where such a thread runs, one that wakes up may have to
 * wait until its slice of up to 3 ms is over. A sandbox may forbid the call: then the work
 * is in the way, not wrong. */
void cad_background(void) { (void)sched_setscheduler(0, SCHED_IDLE, &(struct sched_param){ .sched_priority = 0 }); }
