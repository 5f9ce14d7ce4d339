/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The exchange address of this process: the thread of the transport says it (cad_own_address_set),
 * again when a worker had to be rebuilt; the member announces it to the placement service, at once
 * or when that is back. Any thread; it must outlive the reactor.
 */
#ifndef CADRE_COMMON_CLUSTER_OWN_ADDRESS_H
#define CADRE_COMMON_CLUSTER_OWN_ADDRESS_H

#include "common/base/limits.h"
#include "common/rpc/reactor.h"

#include <pthread.h>

struct cad_own_address {
	pthread_mutex_t mutex;
	char text[CAD_EXCHANGE_ADDRESS_BYTES];
	struct cad_rpc_wakeup changed;
	bool watched;
};

void cad_own_address_init(struct cad_own_address *own);
void cad_own_address_set(struct cad_own_address *own, const char *text);
void cad_own_address_get(struct cad_own_address *own, char text[CAD_EXCHANGE_ADDRESS_BYTES]);
/* `changed` runs on the reactor's owner thread after each set, until unwatch, which that thread
 * calls. Once. */
void cad_own_address_watch(
	struct cad_own_address *own, struct cad_rpc_reactor *reactor, void (*changed)(void *context), void *context);
void cad_own_address_unwatch(struct cad_own_address *own);

#endif
