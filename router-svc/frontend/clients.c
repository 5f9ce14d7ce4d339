/* SPDX-License-Identifier: Apache-2.0 */
#include "router-svc/frontend/clients.h"
#include "common/base/plural.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

struct rt_client {
	struct rt_client *next;
	uint32_t streams;
	char name[];
};

static struct rt_client **bucket_of(struct rt_clients *clients, const char *name)
{
	return &clients->buckets[XXH3_64bits(name, strlen(name)) % RT_CLIENT_BUCKETS];
}

/* Where it is, or where it would go. */
static struct rt_client **find(struct rt_clients *clients, const char *name)
{
	struct rt_client **at = bucket_of(clients, name);
	while (*at && strcmp((*at)->name, name) != 0)
		at = &(*at)->next;
	return at;
}

enum cad_status rt_clients_enter(
	struct rt_clients *clients, const char *name, struct rt_client **client, struct cad_error *error)
{
	*client = NULL;
	if (clients->streams_max == 0)
		return CAD_OK;

	struct rt_client **at = find(clients, name);
	if (!*at) {
		size_t size = strlen(name) + 1;
		struct rt_client *created = malloc(sizeof *created + size);
		if (!created)
			return cad_error_set(error, CAD_ERR_MEMORY, "no memory for another stream; try again later");
		*created = (struct rt_client){ .next = NULL };
		memcpy(created->name, name, size);
		*at = created;
	}

	if ((*at)->streams >= clients->streams_max)
		return cad_error_set(error, CAD_ERR_EXHAUSTED,
			"%s has %u %s open, which is this router's limit for one client (--streams-per-client): wait until one has ended",
			name, (*at)->streams, cad_plural((*at)->streams, "stream", "streams"));
	(*at)->streams++;
	*client = *at;

	return CAD_OK;
}

void rt_clients_leave(struct rt_clients *clients, struct rt_client *client)
{
	if (!client || --client->streams > 0)
		return;
	*find(clients, client->name) = client->next;
	free(client);
}
