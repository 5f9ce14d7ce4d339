/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestration/placement/peers.h"

#include <string.h>
#include <xxhash.h>

bool pl_peers_changed(struct pl_peers *peers, const struct pl_registry *registry)
{
	uint64_t hash = 0;
	for (uint32_t slot = 0; slot < CAD_PROCESSES_MAX; slot++) {
		const struct pl_node *node = &registry->nodes[slot];
		if (!pl_node_is_peer(node))
			continue;
		hash = XXH3_64bits_withSeed(node->id, sizeof node->id, hash + 1);
		hash = XXH3_64bits_withSeed(node->exchange_address, strlen(node->exchange_address), hash);
	}

	bool changed = hash != peers->hash;
	peers->hash = hash;
	return changed;
}

static void add(struct pl_peers *peers, const struct pl_node *node)
{
	size_t at = peers->message.n_peers++;
	cadre__v1__peer__init(&peers->peers[at]);
	peers->peers[at].id = (char *)node->id;
	peers->peers[at].exchange_address = (char *)node->exchange_address;
	peers->list[at] = &peers->peers[at];
}

const Cadre__V1__Peers *pl_peers_message(struct pl_peers *peers, const struct pl_registry *registry)
{
	cadre__v1__peers__init(&peers->message);
	peers->message.peers = peers->list;

	for (int counted = 1; counted >= 0; counted--)
		for (uint32_t slot = 0; slot < CAD_PROCESSES_MAX; slot++)
			if (pl_node_is_peer(&registry->nodes[slot]) &&
				pl_node_counts(&registry->nodes[slot]) == (counted == 1))
				add(peers, &registry->nodes[slot]);
	return &peers->message;
}
