/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The in-process transport: transports of one hub reach each other by name. Each may be polled by a
 * thread of its own; a hub outlives its transports.
 */
#ifndef CADRE_COMMON_TRANSPORT_LOCAL_H
#define CADRE_COMMON_TRANSPORT_LOCAL_H

#include "common/transport/transport.h"

struct cad_local_hub;
CAD_MUST_USE enum cad_status cad_local_hub_create(struct cad_local_hub **hub);
void cad_local_hub_destroy(struct cad_local_hub *hub);
CAD_MUST_USE enum cad_status cad_transport_local_create(const struct cad_transport_options *options,
	struct cad_local_hub *hub, struct cad_transport **transport, struct cad_error *error);
cad_link_create_fn cad_link_local_create; /* context: struct cad_local_hub * */

/* The embedded form: polling `client` also polls `server`, in the same thread, until neither has
 * work, and the server uses the client's payloads where they lie. Nobody else polls `server`. It
 * ends when one of them is destroyed. */
void cad_transport_local_attach(struct cad_transport *client, struct cad_transport *server);

#endif
