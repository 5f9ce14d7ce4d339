/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who may join at all, before control.h hears of it: who knows the cluster secret, says only what
 * can be shown, belongs to this cluster, gives an exchange address that others can use, and has an
 * exchange library that works with those that are here. Who may not gets a sentence, which is kept
 * for a while for `cadrectl status`.
 *
 * Not asked here: whether the address can really be reached. The placement service may stand where
 * the network of the exchange does not go; routers find out (reach.h).
 *
 * One thread, that of the service. Nothing blocks.
 */
#ifndef CADRE_ORCHESTRATION_PLACEMENT_DOOR_H
#define CADRE_ORCHESTRATION_PLACEMENT_DOOR_H

#include "cadre/v1/placement.pb-c.h"
#include "common/base/clock.h"
#include "common/cluster/proof.h"
#include "orchestration/placement/faults.h"
#include "orchestration/placement/registry.h"

enum { PL_REFUSALS_MAX = 16 };
#define PL_REFUSAL_SHOWN_NS (60 * CAD_NS_PER_S)

struct pl_refusal {
	char id[CAD_MAP_ID_BYTES], why[CAD_ERROR_TEXT_BYTES];
	uint64_t last_ns; /* 0: a free place */
	uint64_t times;
};

struct pl_door {
	const char *secret; /* borrowed; NULL: none is asked for */
	const char *cluster;
	struct pl_refusal refusals[PL_REFUSALS_MAX];
	struct pl_faults faults; /* of nodes' devices */
};

/* One who knocks: of each stream. */
struct pl_guest {
	char id[CAD_MAP_ID_BYTES]; /* as it called itself first; "" before */
	bool challenged;
	bool stranger; /* it did not prove that it knows the cluster secret */
	struct cad_proof_nonces nonces;
};

/* A challenge has come; what to answer. `mac` is where the answer's mac is kept.
 * CAD_ERR_REFUSED: there is no secret here. */
CAD_MUST_USE enum cad_status pl_door_challenge(const struct pl_door *door, struct pl_guest *guest,
	const Cadre__V1__Challenge *challenge, uint8_t mac[CAD_PROOF_BYTES], struct cad_error *error);
/* A hello has come, from where gRPC says ("ipv4:10.0.0.7:51234"). */
CAD_MUST_USE enum cad_status pl_door_hello(const struct pl_door *door, struct pl_guest *guest,
	const Cadre__V1__NodeHello *hello, const char *peer, const struct pl_registry *registry,
	struct cad_error *error);
/* Also of a process that has joined, and has another address now. CAD_ERR_INVALID: it is none. */
CAD_MUST_USE enum cad_status pl_door_exchange_address(
	const struct pl_guest *guest, const char *text, struct cad_error *error);
/* For `cadrectl status`. True when it is new, or the last time is long ago. Of too many
 * the oldest are forgotten. */
bool pl_door_remember(struct pl_door *door, const char *id, const char *why, uint64_t now_ns);
/* The same, and logs what is new. */
void pl_door_refused(struct pl_door *door, const char *id, const char *why, uint64_t now_ns);
/* The process joined after all. */
void pl_door_forget(struct pl_door *door, const char *id);

#endif
