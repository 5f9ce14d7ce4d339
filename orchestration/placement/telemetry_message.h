/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reports of routing and of work, from messages that are not trusted: what cannot be is refused
 * with a sentence, and nothing of it is counted. One thread, that of the service.
 */
#ifndef CADRE_ORCHESTRATION_PLACEMENT_TELEMETRY_MESSAGE_H
#define CADRE_ORCHESTRATION_PLACEMENT_TELEMETRY_MESSAGE_H

#include "cadre/v1/placement.pb-c.h"
#include "orchestration/placement/telemetry.h"

/* What the process of one stream has said so far: no token comes before it was counted. */
struct pl_reported {
	uint64_t tokens, accounted; /* of a router; accounted for: sampled, or lost */
};

/* CAD_ERR_INVALID: the process breaks the rules of its messages. */
CAD_MUST_USE enum cad_status pl_telemetry_take_routing(struct pl_telemetry *telemetry, uint64_t session,
	struct pl_reported *reported, uint64_t now_ns, const Cadre__V1__RoutingReport *message,
	struct cad_error *error);
CAD_MUST_USE enum cad_status pl_telemetry_take_work(struct pl_telemetry *telemetry, uint64_t session, uint64_t now_ns,
	const Cadre__V1__WorkReport *message, struct cad_error *error);

#endif
