/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/bell.h"

void bell_init(struct bell *bell)
{
	pthread_mutex_init(&bell->lock, NULL);
	pthread_cond_init(&bell->rung, NULL);
	bell->rings = 0;
}

void bell_ring(void *context)
{
	struct bell *bell = context;
	pthread_mutex_lock(&bell->lock);
	bell->rings++;
	pthread_cond_signal(&bell->rung);
	pthread_mutex_unlock(&bell->lock);
}

struct ex_load_report *bell_await(struct bell *bell, struct ex_loader *loader)
{
	struct ex_load_report *report;
	while (!(report = ex_loader_take(loader))) {
		pthread_mutex_lock(&bell->lock);
		while (bell->rings == 0)
			pthread_cond_wait(&bell->rung, &bell->lock);
		bell->rings--;
		pthread_mutex_unlock(&bell->lock);
	}
	return report;
}
