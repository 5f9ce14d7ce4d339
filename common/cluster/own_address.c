/* SPDX-License-Identifier: Apache-2.0 */
#include "common/cluster/own_address.h"

#include <stdio.h>

void cad_own_address_init(struct cad_own_address *own)
{
	*own = (struct cad_own_address){ .watched = false };
	pthread_mutex_init(&own->mutex, NULL);
}

void cad_own_address_set(struct cad_own_address *own, const char *text)
{
	pthread_mutex_lock(&own->mutex);
	snprintf(own->text, sizeof own->text, "%s", text);
	if (own->watched)
		cad_rpc_wakeup_send(&own->changed);
	pthread_mutex_unlock(&own->mutex);
}

void cad_own_address_get(struct cad_own_address *own, char text[CAD_EXCHANGE_ADDRESS_BYTES])
{
	pthread_mutex_lock(&own->mutex);
	snprintf(text, CAD_EXCHANGE_ADDRESS_BYTES, "%s", own->text);
	pthread_mutex_unlock(&own->mutex);
}

void cad_own_address_watch(
	struct cad_own_address *own, struct cad_rpc_reactor *reactor, void (*changed)(void *context), void *context)
{
	pthread_mutex_lock(&own->mutex);
	cad_rpc_wakeup_init(&own->changed, reactor, changed, context);
	own->watched = true;
	pthread_mutex_unlock(&own->mutex);
}

static void nothing(void *context) { (void)context; }

void cad_own_address_unwatch(struct cad_own_address *own)
{
	pthread_mutex_lock(&own->mutex);
	own->watched = false;
	own->changed.run = nothing; /* one may be on its way */
	pthread_mutex_unlock(&own->mutex);
}
