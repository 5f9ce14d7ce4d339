/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How large a cluster and a model may be: every limit that more than one part relies on, once.
 * Limits of the wire format are in proto/cadre_wire.h, those of one file's own in that file. Above
 * a limit a user gets a sentence.
 */
#ifndef CADRE_COMMON_BASE_LIMITS_H
#define CADRE_COMMON_BASE_LIMITS_H

/* ---- a cluster ---- */

enum {
	/*
	 * Expert nodes: of a map, of a plan, of a cluster. docs/PLANNER.md plans for 320; a set of
	 * them is eight words, so that the cover of a token stays within 2 KiB of sets, and the
	 * sets of a map of 60 layers of 256 experts take 1 MiB.
	 */
	CAD_NODES_MAX = 512,
	/* Routers. The placement service keeps a stream and about 5 KiB for each. */
	CAD_ROUTERS_MAX = 512,
	/* What the placement service has places for; the dead keep theirs
	 * until a newcomer needs it. */
	CAD_PROCESSES_MAX = CAD_NODES_MAX + CAD_ROUTERS_MAX,
	/*
	 * Connections of a router: every node where it is, and every node where it was, for what is
	 * still with it after all have restarted. About 10 KiB each, so 10 MiB a router.
	 */
	CAD_ROUTER_CONNECTIONS_MAX = 2 * CAD_NODES_MAX,
	/* Connections of an expert node (--connections-max), for the same reason. */
	CAD_EXPERT_CONNECTIONS_MAX = 2 * CAD_ROUTERS_MAX,
	/*
	 * The text of an exchange address (common/transport/exchange_address.h), its end counted.
	 * Over TCP about 150 bytes; with several RDMA ports some hundred for each.
	 */
	CAD_EXCHANGE_ADDRESS_BYTES = 4096,
};

/* ---- a model ---- */

enum {
	CAD_LAYERS_MAX = 512,
	CAD_EXPERTS_MAX = 1024, /* per layer */
	CAD_TOPK_MAX = 32,
	CAD_HEAD_SIZE_MAX = 256,
	CAD_HEADS_MAX = 1024,
	/* of latent attention: what is kept of a key and value, and how much of a head rotates */
	CAD_KV_RANK_MAX = 512,
	CAD_KV_ROPE_MAX = 128,
	CAD_HIDDEN_MAX = 65536,
	CAD_FFN_MAX = 262144,
	CAD_VOCAB_MAX = 1 << 24,
	CAD_POSITIONS_MAX = 1 << 24, /* positions are exact in f32 up to here */
};

_Static_assert(CAD_NODES_MAX % 64 == 0, "sets of nodes are whole words");
_Static_assert(CAD_NODES_MAX <= 0xffff, "maps and plans name a node by 16 bits, one value of which is nobody");
_Static_assert(CAD_ROUTER_CONNECTIONS_MAX <= 0x7fff, "the route table names a peer by an int16_t");
_Static_assert(CAD_EXPERTS_MAX <= 0xffff, "traces name an expert by 16 bits, one value of which is nobody");
_Static_assert(CAD_LAYERS_MAX <= 0x7fff, "a map finds a layer's row by an int16_t");

#endif
