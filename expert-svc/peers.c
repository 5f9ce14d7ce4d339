/* SPDX-License-Identifier: Apache-2.0 */
#include "expert-svc/peers.h"

#include "common/base/log.h"
#include "common/transport/transport.h"

#include <stdlib.h>
#include <string.h>

void ex_peers_init(struct ex_peers *peers)
{
	*peers = (struct ex_peers){ .count = 0 };
	pthread_mutex_init(&peers->mutex, NULL);
}

static void list_free(char **addresses, size_t count)
{
	for (size_t i = 0; i < count; i++)
		free(addresses[i]);
	free(addresses);
}

void ex_peers_fini(struct ex_peers *peers)
{
	list_free(peers->addresses, peers->count);
	pthread_mutex_destroy(&peers->mutex);
}

void ex_peers_set(struct ex_peers *peers, const char *const *addresses, size_t count)
{
	char **copies = calloc(count + 1, sizeof *copies);
	size_t copied = 0;
	while (copies && copied < count && (copies[copied] = strdup(addresses[copied])))
		copied++;
	if (!copies || copied < count)
		cad_log_error("exchange", "no memory for the addresses of all who may connect");

	pthread_mutex_lock(&peers->mutex);
	list_free(peers->addresses, peers->count);
	peers->addresses = copies;
	peers->count = copied;
	atomic_store(&peers->news, true);
	pthread_mutex_unlock(&peers->mutex);
}

void ex_peers_announce(struct ex_peers *peers, struct cad_transport *transport)
{
	struct cad_error error;
	if (!atomic_load(&peers->news))
		return;

	pthread_mutex_lock(&peers->mutex);
	char **addresses = peers->addresses;
	size_t count = peers->count;
	peers->addresses = NULL;
	peers->count = 0;
	atomic_store(&peers->news, false);
	pthread_mutex_unlock(&peers->mutex);

	if (cad_transport_announce(transport, (const char *const *)addresses, count, &error) != CAD_OK)
		cad_log_warn("exchange", "a process will not be able to connect", CAD_S("why", error.text));
	list_free(addresses, count);
}
