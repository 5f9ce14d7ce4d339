/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who may call which method of a server. Each call is identified, and admitted or refused, before
 * its handler hears of it; the method's right (server.h) says whom it is for.
 *
 * Where nobody has a role (no tokens, and no authority for certificates), callers on this machine
 * may do everything, others everything but CAD_RIGHT_OPERATE. Else:
 *
 *     a token was sent      it must be one of the table: a wrong one is refused, whatever else is shown
 *     a certificate that    has the role in it (certificate.h); without one it is a client's, but where
 *     was verified          there are tokens it says only who calls, and a token is needed, too
 *     both                  the token is in force where the certificate's role covers its role (a token may
 *                           narrow what the certificate allows, never widen it), and is refused
 *                           elsewhere
 *     neither               refused
 *
 * A refusal goes to the client, to the metrics and to the audit log, in the same words. Embedded by
 * who has the server, and does not move. The reactor's thread; nothing blocks.
 */
#ifndef CADRE_COMMON_RPC_AUTHORIZE_H
#define CADRE_COMMON_RPC_AUTHORIZE_H

#include "common/process/audit.h"
#include "common/process/bearer.h"
#include "common/process/certificate.h"
#include "common/process/metrics.h"
#include "common/rpc/call.h"

/* Whom a process knows. Borrowed. */
struct cad_rpc_callers {
	const struct cad_bearers *bearers; /* changed on the reactor's thread alone; NULL or without any: no tokens */
	bool certificates;                 /* those of callers are verified when they connect */
	struct cad_audit *audit;           /* NULL: none */
};

struct cad_rpc_authorizer_options {
	struct cad_rpc_callers callers;
	const char *server;       /* "router": what sentences call it */
	const char *token_advice; /* how to send a token */
	/* One was refused; may be NULL. */
	void (*refused)(void *context, struct cad_rpc_call *call, const char *why);
	void *context;
};

enum { CAD_RPC_REFUSALS = 5 };

struct cad_rpc_authorizer {
	struct cad_rpc_authorizer_options options;
	struct cad_certificates certificates;
	struct cad_counter *refused[CAD_RPC_REFUSALS];
};

/* metrics NULL: none. */
void cad_rpc_authorizer_init(struct cad_rpc_authorizer *authorizer, const struct cad_rpc_authorizer_options *options,
	struct cad_metrics *metrics);
void cad_rpc_authorizer_fini(struct cad_rpc_authorizer *authorizer);
/* For a server's `authorize`; the authorizer is its context. */
enum cad_rpc_code cad_rpc_authorize(void *context, struct cad_rpc_call *call, struct cad_error *why);

#define CAD_CALLS_REFUSED "cadre_calls_refused_total"
#define CAD_CALLS_REFUSED_HELP "gRPC calls refused for who made them"

#endif
