/* SPDX-License-Identifier: Apache-2.0 */
/* What a loader rings when something has changed, and a test waits at. */
#ifndef CADRE_TESTS_SUPPORT_BELL_H
#define CADRE_TESTS_SUPPORT_BELL_H

#include "expert-svc/loader.h"

#include <pthread.h>

struct bell {
	pthread_mutex_t lock;
	pthread_cond_t rung;
	unsigned rings;
};

void bell_init(struct bell *bell);
void bell_ring(void *bell);
/* The loader's next report, of one that rings this bell. */
struct ex_load_report *bell_await(struct bell *bell, struct ex_loader *loader);

#endif
