/* SPDX-License-Identifier: Apache-2.0 */
/* Condition variables that are waited for until a time, by the clock that nobody sets: those of
 * pthread_cond_init alone go by the one that people read. Any thread; nothing blocks. */
#ifndef CADRE_COMMON_BASE_CONDITION_H
#define CADRE_COMMON_BASE_CONDITION_H

#include <pthread.h>
#include <stdint.h>
#include <time.h>

void cad_condition_init(pthread_cond_t *condition);
/* For pthread_cond_timedwait: so long from now. */
struct timespec cad_condition_deadline(uint64_t ns);

#endif
